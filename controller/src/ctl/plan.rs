//! What a change does to the fleet, as a controller worked it out.

use std::collections::BTreeSet;

use dysvr_proto::wire::operator;
use serde::Serialize;

use super::bundle::Bundle;
use super::exit::Failure;
use super::view::{Change, ChangeKind};

/// One object and what became of it: `vhost/131942 created`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// `vhost/131942`, `upstream/1074728`, `file/common_location.conf`
    pub object: String,
    /// created, configured, deleted, unchanged
    pub effect: &'static str,
}

/// The effects of a plan in the order of its files. A file that declares nothing is an object itself, and each object
/// is named once.
pub fn effects(changes: &[Change]) -> Vec<Effect> {
    let mut named = BTreeSet::new();
    let mut effects = Vec::new();
    for change in changes {
        let effect = match change.change {
            ChangeKind::Add => "created",
            ChangeKind::Modify | ChangeKind::Unknown => "configured",
            ChangeKind::Delete => "deleted",
        };
        let mut objects: Vec<String> = change.ups_ids.iter().map(|id| format!("upstream/{id}")).collect();
        objects.extend(change.vsvc_ids.iter().map(|id| format!("vhost/{id}")));
        if objects.is_empty() {
            objects.push(format!("file/{}", change.file));
        }
        for object in objects {
            if named.insert(object.clone()) {
                effects.push(Effect { object, effect });
            }
        }
    }
    effects
}

/// The problems of a plan with the operator's own paths, if there are any.
pub fn refusal(problems: &[operator::Problem], bundle: &Bundle) -> Option<Failure> {
    if problems.is_empty() {
        return None;
    }
    let lines: Vec<String> = problems.iter().map(|problem| line(problem, bundle)).collect();
    Some(refused(lines))
}

/// Lines of problems as a failure that counts them.
pub fn refused(lines: Vec<String>) -> Failure {
    let summary = match lines.len() {
        1 => "1 problem, nothing was stored".to_owned(),
        n => format!("{n} problems, nothing was stored"),
    };
    Failure::Refused(lines, summary)
}

fn line(problem: &operator::Problem, bundle: &Bundle) -> String {
    let operator::Problem { file, line, text } = problem;
    let path = match bundle.path_of(file) {
        Some(path) => path.display().to_string(),
        None => file.clone(),
    };
    match (path.is_empty(), *line) {
        (true, _) => text.clone(),
        (false, 0) => format!("{path}: {text}"),
        (false, line) => format!("{path}:{line}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_is_named_once() {
        let change = |file: &str, change, vsvc_ids: &[u64], ups_ids: &[&str]| Change {
            file: file.into(),
            change,
            vsvc_ids: vsvc_ids.to_vec(),
            ups_ids: ups_ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let effects = effects(&[
            change("auto_upstream/a.conf", ChangeKind::Modify, &[], &["7"]),
            change("auto_vhost/a.conf", ChangeKind::Add, &[1, 2], &["7"]),
            change("auto_vhost/b.conf", ChangeKind::Delete, &[3], &[]),
            change("common_location.conf", ChangeKind::Add, &[], &[]),
        ]);
        let text: Vec<String> = effects.iter().map(|e| format!("{} {}", e.object, e.effect)).collect();
        let wanted = [
            "upstream/7 configured",
            "vhost/1 created",
            "vhost/2 created",
            "vhost/3 deleted",
            "file/common_location.conf created",
        ];
        assert_eq!(text, wanted);
    }

    #[test]
    fn problems_carry_the_paths_of_the_operator() {
        let mut bundle = Bundle::default();
        bundle.add_text("a.conf", b"server {}\n".to_vec()).expect("a bundle");
        let problem = |file: &str, line, text: &str| operator::Problem { file: file.into(), line, text: text.into() };
        let problems = [
            problem("auto_vhost/a.conf", 3, "unknown directive \"x\""),
            problem("/conf/auto_vhost/a.conf", 4, "y"),
            problem("auto_vhost/of-the-fleet.conf", 0, "z"),
            problem("", 0, "too much"),
        ];
        let failure = refusal(&problems, &bundle).expect("a refusal");
        let wanted = "\
a.conf:3: unknown directive \"x\"
a.conf:4: y
auto_vhost/of-the-fleet.conf: z
too much
error: 4 problems, nothing was stored";
        assert_eq!((failure.to_string().as_str(), failure.code()), (wanted, 3));
        assert!(refusal(&[], &bundle).is_none());
    }
}
