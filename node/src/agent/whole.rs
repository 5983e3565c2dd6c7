//! Files that no task can change in place, and the words that say why: what stands in them holds for `http`, for `events`
//! or for the process as a whole, and everything else is made from it.

use std::collections::BTreeMap;
use std::path::Path;

use dysvr_conf::directive::{EVENTS, HTTP, MAIN, all};
use dysvr_conf::source::Source;
use dysvr_conf::syntax::{self, Directive};

/// Why a change of a file goes by reload: the first directive in it that differs, by name and line. `before` shows the file
/// as it was, if it still can.
pub fn reason(before: &mut dyn Source, after: &mut dyn Source, path: &Path) -> String {
    let read = |source: &mut dyn Source| source.read(path).map(|text| directives(&text)).unwrap_or_default();
    let (old, new) = (read(before), read(after));
    let differing = |these: &[Said], those: &[Said]| {
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        those.iter().for_each(|said| *left.entry(&said.words).or_default() += 1);
        let mut differs = |said: &&Said| match left.get_mut(&*said.words) {
            Some(count @ 1..) => {
                *count -= 1;
                false
            }
            _ => true,
        };
        these.iter().find(|said| differs(said)).cloned()
    };
    let (path, what) = (path.display(), |said: &Said| changes_whole(&said.name));
    if let Some(said) = differing(&new, &old).or_else(|| new.first().filter(|_| old == new).cloned()) {
        return format!("\"{}\" in {path}:{} changes {}", said.name, said.line, what(&said));
    }
    match differing(&old, &new) {
        Some(said) => format!("\"{}\" is gone from {path}, which changes {}", said.name, what(&said)),
        // Blanks, comments, the order of lines.
        None => format!("{path} belongs to http as a whole"),
    }
}

/// What a directive of a name is about.
pub fn changes_whole(name: &str) -> &'static str {
    let is = |context| all().any(|row| row.name == name && row.contexts.meets(context));
    if is(HTTP) || !(is(MAIN) || is(EVENTS)) {
        "http as a whole"
    } else if is(EVENTS) {
        "events as a whole"
    } else {
        "the process as a whole"
    }
}

/// A directive as it stands in a file, with its block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    name: String,
    words: String,
    line: u32,
}

fn directives(text: &[u8]) -> Vec<Said> {
    let arena = syntax::Arena::new();
    let tree = syntax::parse(text, &arena);
    let said = |directive: &Directive<'_>| {
        let mut words = String::new();
        add(directive, &mut words);
        Said { name: directive.name().to_owned(), words, line: directive.start().line }
    };
    tree.directives.iter().map(said).collect()
}

fn add(directive: &Directive<'_>, words: &mut String) {
    use std::fmt::Write as _;
    for word in directive.words {
        let _ = write!(words, "{:?} ", word.text);
    }
    if let Some(block) = &directive.block {
        words.push('{');
        block.directives.iter().for_each(|inner| add(inner, words));
        words.push('}');
    }
}

#[cfg(test)]
mod tests {
    use dysvr_conf::source::Memory;

    use super::*;

    #[test]
    fn names_the_directive_that_differs() {
        for (before, after, expected) in [
            (
                "keepalive_timeout 5s;\nclient_max_body_size 1m;\n",
                "keepalive_timeout 5s;\nclient_max_body_size 2m;\n",
                "\"client_max_body_size\" in /c/x.conf:2 changes http as a whole",
            ),
            ("", "\nworker_processes 2;", "\"worker_processes\" in /c/x.conf:2 changes the process as a whole"),
            (
                "worker_connections 9;",
                "worker_connections 8;",
                "\"worker_connections\" in /c/x.conf:1 changes events as a whole",
            ),
            ("default_type a;\nfoo;", "foo;", "\"default_type\" is gone from /c/x.conf, which changes http as a whole"),
            ("foo;", "foo;", "\"foo\" in /c/x.conf:1 changes http as a whole"),
            ("", "# x", "/c/x.conf belongs to http as a whole"),
        ] {
            let (mut one, mut two) = (Memory::default(), Memory::default());
            one.insert("/c/x.conf", before);
            two.insert("/c/x.conf", after);
            assert_eq!(reason(&mut one, &mut two, Path::new("/c/x.conf")), expected);
        }
    }
}
