//! The kinds of things that `get`, `describe` and `delete` name, with their short forms.

use std::fmt;

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `server {}` of the fleet.
    Vhost,
    /// An `upstream {}`.
    Upstream,
    /// A machine of the fleet.
    Node,
    /// A move of the fleet to a revision.
    Rollout,
    /// A version of the fleet's configuration.
    Revision,
    /// One change for one node.
    Task,
}

/// Every kind with its plural, which is its name in messages, and what else it is called.
const NAMES: [(Kind, &str, &str, &[&str]); 6] = [
    (Kind::Vhost, "vhosts", "vhost", &["vh"]),
    (Kind::Upstream, "upstreams", "upstream", &["ups"]),
    (Kind::Node, "nodes", "node", &["no"]),
    (Kind::Rollout, "rollouts", "rollout", &["ro"]),
    (Kind::Revision, "revisions", "revision", &["rev", "revs"]),
    (Kind::Task, "tasks", "task", &["ta"]),
];

impl Kind {
    /// `vhosts`
    pub fn plural(self) -> &'static str {
        NAMES.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }

    /// `vhost`, the prefix of `vhost/131942`.
    pub fn singular(self) -> &'static str {
        NAMES.iter().find(|row| row.0 == self).map_or("", |row| row.2)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let found = NAMES.iter().find(|row| row.1 == lower || row.2 == lower || row.3.contains(&lower.as_str()));
        match found {
            Some(row) => Ok(row.0),
            None => Err(format!(
                "dysvr does not have a resource type \"{text}\" (it has {})",
                NAMES.map(|row| row.1).join(", ")
            )),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

/// What a command is about: things of one kind, all of them when there are no names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Their kind.
    pub kind: Kind,
    /// Their names, without repetition.
    pub names: Vec<String>,
}

/// Reads `TYPE`, `TYPE NAME…` or `TYPE/NAME…` (all of one type).
pub fn selection(words: &[String]) -> Result<Selection, String> {
    let Some((first, rest)) = words.split_first() else {
        return Err("which resource? (vhosts, upstreams, nodes, rollouts, revisions, tasks)".into());
    };
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    let kind = if first.contains('/') {
        let mut kind = None;
        for word in words {
            let (of, name) = word.split_once('/').unwrap_or((word, ""));
            let of = Kind::parse(of)?;
            if name.is_empty() {
                return Err(format!("\"{word}\": every argument must be TYPE/NAME when the first one is"));
            }
            if kind.is_some_and(|kind| kind != of) {
                return Err("one command names resources of one type".into());
            }
            kind = Some(of);
            add(name);
        }
        kind.unwrap_or(Kind::Vhost)
    } else {
        rest.iter().for_each(|name| add(name));
        Kind::parse(first)?
    };
    Ok(Selection { kind, names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Selection, String> {
        selection(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn types_have_plurals_singulars_and_short_names() {
        for (word, kind) in [
            ("vhosts", Kind::Vhost),
            ("vhost", Kind::Vhost),
            ("vh", Kind::Vhost),
            ("ups", Kind::Upstream),
            ("no", Kind::Node),
            ("ro", Kind::Rollout),
            ("rev", Kind::Revision),
            ("Tasks", Kind::Task),
        ] {
            assert_eq!(of(&[word]), Ok(Selection { kind, names: vec![] }), "{word}");
        }
    }

    #[test]
    fn names_stand_apart_or_after_a_slash() {
        let two = Selection { kind: Kind::Vhost, names: vec!["1".into(), "2".into()] };
        assert_eq!(of(&["vh", "1", "2", "1"]), Ok(two.clone()));
        assert_eq!(of(&["vhost/1", "vh/2"]), Ok(two));
        let file = Selection { kind: Kind::Vhost, names: vec!["auto_vhost/a.conf".into()] };
        assert_eq!(of(&["vh", "auto_vhost/a.conf"]), Ok(file));
        for words in [&["pods"][..], &[], &["vhost/1", "node/2"], &["vhost/1", "2"], &["vhost/"]] {
            assert!(of(words).is_err(), "{words:?}");
        }
    }
}
