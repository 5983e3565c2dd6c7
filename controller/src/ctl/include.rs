//! The `include`s of a file, and the certificates and keys that it names, found without understanding the rest of it: a file with mistakes has includes, too.

use dysvr_conf::http::ssl::FILES;
use dysvr_conf::syntax::{self, Directive};

/// An `include`, or what names a file in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// Where it stands, from 1.
    pub line: u32,
    /// What it names, unquoted.
    pub path: String,
}

impl Include {
    /// Whether it names many files, perhaps none.
    pub fn is_pattern(&self) -> bool {
        self.path.contains(['*', '?', '['])
    }

    /// Whether it is relative to the configuration's directory.
    pub fn is_relative(&self) -> bool {
        !self.path.starts_with('/')
    }
}

/// All of them, in order.
pub fn includes(content: &[u8]) -> Vec<Include> {
    let mut found = Vec::new();
    collect(syntax::parse(content, &syntax::Arena::new()).directives, &mut found);
    found
}

fn collect(directives: &[Directive<'_>], found: &mut Vec<Include>) {
    for directive in directives {
        match (&directive.block, directive.arguments()) {
            (Some(block), _) => collect(block.directives, found),
            (None, [path]) if directive.name() == "include" || FILES.contains(&directive.name()) => {
                found.push(Include { line: directive.start().line, path: path.text.to_owned() });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_found_wherever_a_directive_may_stand() {
        let text = br##"
include auto_upstream/a.conf;
# include commented.conf;
server {
    listen 80; include "with space.conf";
    set $x "include not.conf;"; add_header X 'it\'s include no.conf;';
    include
        common_location.conf ;   # include late.conf;
    location ~ ^/include$ { include /etc/nginx/abs.conf; }
    include; include two words;
    return 200 a\;b; include *.inc;
    ssl_certificate certs/a.pem;
"##;
        let found: Vec<(u32, String)> = includes(text).into_iter().map(|i| (i.line, i.path)).collect();
        let wanted = [
            (2, "auto_upstream/a.conf"),
            (5, "with space.conf"),
            (7, "common_location.conf"),
            (9, "/etc/nginx/abs.conf"),
            (11, "*.inc"),
            (12, "certs/a.pem"),
        ];
        assert_eq!(found, wanted.map(|(line, path)| (line, path.to_owned())));
    }
}
