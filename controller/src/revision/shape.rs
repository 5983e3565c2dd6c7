//! The shape of a managed file: its vhosts, upstreams and includes as they are written. Known for files with problems
//! too, whose meaning is not.

use dysvr_conf::syntax::{self, Directive};

use super::check::{UpstreamInfo, VhostInfo};

/// What stands in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// In order.
    pub vhosts: Vec<VhostInfo>,
    /// In order.
    pub upstreams: Vec<UpstreamInfo>,
    /// As they are written, of all levels.
    pub includes: Vec<String>,
}

impl Shape {
    /// Reads a file.
    pub(super) fn of(file: &str, content: &[u8]) -> Self {
        let mut shape = Self::default();
        let arena = syntax::Arena::new();
        let tree = syntax::parse(content, &arena);
        collect_includes(tree.directives, &mut shape.includes);
        for directive in tree.directives {
            let Some(block) = &directive.block else { continue };
            match directive.name() {
                "server" => shape.vhosts.push(vhost(file, directive, block.directives)),
                "upstream" => shape.upstreams.push(UpstreamInfo {
                    ups_id: argument(directive),
                    servers: named(block.directives, "server").map(argument).collect(),
                    file: file.to_owned(),
                    line: directive.start().line,
                }),
                _ => {}
            }
        }
        shape
    }
}

fn vhost(file: &str, directive: &Directive<'_>, block: &[Directive<'_>]) -> VhostInfo {
    VhostInfo {
        vsvc_id: named(block, "vsvc_id").next().and_then(|id| argument(id).parse().ok()),
        server_names: server_names(block),
        listens: named(block, "listen").map(argument).collect(),
        ups_ids: Vec::new(),
        file: file.to_owned(),
        line: directive.start().line,
    }
}

/// The names of a `server`, as they are written.
pub(super) fn server_names(block: &[Directive<'_>]) -> Vec<String> {
    let names = named(block, "server_name").flat_map(Directive::arguments);
    names.map(|word| word.text.to_string()).collect()
}

fn named<'a, 't>(block: &'a [Directive<'t>], name: &'static str) -> impl Iterator<Item = &'a Directive<'t>> {
    block.iter().filter(move |directive| directive.name() == name)
}

fn argument(directive: &Directive<'_>) -> String {
    directive.arguments().first().map(|word| word.text.to_string()).unwrap_or_default()
}

fn collect_includes(directives: &[Directive<'_>], found: &mut Vec<String>) {
    for directive in directives {
        match &directive.block {
            Some(block) => collect_includes(block.directives, found),
            None if directive.name() == "include" => found.push(argument(directive)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_far_as_it_can_be() {
        let text = "include u/*.conf;\nserver {\n vsvc_id 7;\n listen 80;\n listen [::]:80;\n server_name a b;\n location / { \
                    include c.conf; }\n}\nupstream u { server 1.2.3.4:80 weight=2; }\nserver {\n unknown 1;\n";
        let shape = Shape::of("f.conf", text.as_bytes());
        assert_eq!(shape.includes, ["u/*.conf", "c.conf"]);
        let vhost = &shape.vhosts[0];
        assert_eq!((vhost.vsvc_id, vhost.line), (Some(7), 2));
        assert_eq!((vhost.server_names.join(" "), vhost.listens.join(" ")), ("a b".into(), "80 [::]:80".into()));
        assert_eq!(
            (shape.upstreams[0].ups_id.as_str(), shape.upstreams[0].servers.join(" ")),
            ("u", "1.2.3.4:80".into())
        );
    }
}
