//! Giving vhosts their identity: a `vsvc_id` line for each `server` that has none.

use crate::syntax::{self, Directive};

/// A file in which every `server` has a `vsvc_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The text.
    pub text: String,
    /// The numbers that were given, in the order of the servers.
    pub ids: Vec<u64>,
}

/// Writes ` vsvc_id N;` behind the `{` of each `server` at the top of a file that has none, counting up from `next_id`.
/// All other bytes stay as they are, and so do the numbers of their lines: what validation or a node says of `FILE:LINE`
/// is found there in the operator's own file. A file that is wrong in itself is left alone: validation says why.
pub fn assign_vsvc_ids(text: &str, next_id: u64) -> Assigned {
    let mut next = next_id;
    assign_vsvc_ids_with(text, |_| {
        next = next.saturating_add(1);
        next - 1
    })
}

/// The same, with numbers that the caller chooses for each `server`.
pub fn assign_vsvc_ids_with(text: &str, mut give: impl FnMut(&Directive<'_>) -> u64) -> Assigned {
    let arena = syntax::Arena::new();
    let tree = syntax::parse(text.as_bytes(), &arena);
    let mut assigned = Assigned { text: String::with_capacity(text.len() + 64), ids: Vec::new() };
    let mut done = 0;
    if tree.errors.is_empty() {
        let servers = tree.directives.iter().filter(|directive| directive.name() == "server");
        for server in servers {
            let Some(block) = &server.block else { continue };
            if block.directives.iter().any(|directive| directive.name() == "vsvc_id") {
                continue;
            }
            let id = give(server);
            let inside = server.end.offset as usize + 1;
            assigned.text += &text[done..inside];
            assigned.text += &format!(" vsvc_id {id};");
            assigned.ids.push(id);
            done = inside;
        }
    }
    assigned.text += &text[done..];
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        for (text, expected, ids) in [
            ("server {\n    listen 80;\n}\n", "server { vsvc_id 7;\n    listen 80;\n}\n", vec![7]),
            ("server {\r\n}\r\n", "server { vsvc_id 7;\r\n}\r\n", vec![7]),
            ("server{listen 80;}", "server{ vsvc_id 7;listen 80;}", vec![7]),
            ("server {\n vsvc_id 3;\n}", "server {\n vsvc_id 3;\n}", vec![]),
            (
                "# server {\nserver{}\nupstream u { server a; }\nserver { vsvc_id 1; }\nserver\n{ }",
                "# server {\nserver{ vsvc_id 7;}\nupstream u { server a; }\nserver { vsvc_id 1; }\n\
                 server\n{ vsvc_id 8; }",
                vec![7, 8],
            ),
            ("server {", "server {", vec![]),
            ("", "", vec![]),
        ] {
            assert_eq!(assign_vsvc_ids(text, 7), Assigned { text: expected.into(), ids }, "{text:?}");
        }
    }
}
