//! Checks files without a controller, with the crate that controllers and nodes check them with.

use dysvr_conf::bundle::{self, Assumptions, validate_bundle};
use dysvr_conf::problem::Problem;

use super::bundle::Bundle;

/// What a check found, one line each, with the operator's paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Why nodes would refuse it; none: they would not.
    pub problems: Vec<String>,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

/// Reads the files as a node would that has nothing else.
pub fn check(files: &Bundle) -> Found {
    let mut found = Found::default();
    let mut closed = bundle::Bundle::default();
    for (name, member) in &files.files {
        if let Err(refused) = closed.insert(name.as_bytes(), member.content.as_slice()) {
            found.problems.push(format!("{}: {}", member.path.display(), refused.reason));
        }
    }
    match validate_bundle(&closed, &Assumptions::default()) {
        Err(problems) => found.problems.extend(problems.0.iter().map(|problem| line(problem, files))),
        Ok(checked) => {
            // What would have no effect controllers refuse, too: an operator who applies that is mistaken.
            let (conflicts, warnings): (Vec<&Problem>, Vec<&Problem>) =
                checked.warnings.iter().partition(|warning| warning.text.starts_with("conflicting server name"));
            found.warnings.extend(warnings.into_iter().map(|warning| line(warning, files)));
            found.problems.extend(checked.unreached.iter().map(|name| {
                let path = files.path_of(name).map_or_else(|| name.clone(), |path| path.display().to_string());
                format!("{path}: no include reaches this file: it would have no effect")
            }));
            found.problems.extend(conflicts.into_iter().map(|conflict| line(conflict, files)));
        }
    }
    found
}

fn line(problem: &Problem, files: &Bundle) -> String {
    let Some(place) = &problem.place else { return problem.text.clone() };
    let path = place.file.to_str().and_then(|name| files.path_of(name)).unwrap_or(&place.file);
    format!("{}:{}: {}", path.display(), place.line, problem.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, text: &[u8]) -> Found {
        let mut files = Bundle::default();
        files.add_text(name, text.to_vec()).expect("a bundle");
        check(&files)
    }

    #[test]
    fn problems_have_the_operators_paths_and_all_are_found() {
        let good = b"server {\n    vsvc_id 1;\n    listen 80;\n    return 204;\n}\n";
        assert_eq!(checked("good.conf", good), Found::default());
        let found =
            checked("auto_vhost/bad", b"server {\n    listn 80;\n    server_name;\n    include gone.conf;\n}\n");
        let wanted = [
            "auto_vhost/bad:2: unknown directive \"listn\"",
            "auto_vhost/bad:3: invalid number of arguments in \"server_name\" directive",
        ];
        assert_eq!(found.problems[..2], wanted);
        assert!(found.problems[2].starts_with("auto_vhost/bad:4: open() \"gone.conf\" failed"), "{found:?}");
        let twice =
            checked("two.conf", b"server { server_name a; return 204; }\nserver { server_name a; return 204; }\n");
        assert!(twice.problems[0].starts_with("two.conf:2: conflicting server name \"a\""), "{twice:?}");
        assert_eq!(checked("x.conf", b"\xff").problems, ["x.conf: is not UTF-8 text"]);
    }
}
