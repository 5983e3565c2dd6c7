//! The managed files of a fleet: names, contents, and what differs between two sets.

use std::collections::BTreeMap;

use bytes::Bytes;
use dysvr_conf::bundle::{ENDINGS, check_name};
use dysvr_proto::digest::{self, Digest};

/// The content of a file with its digest, which is computed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The bytes; cheap to clone.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub digest: Digest,
}

impl Content {
    /// Digests `bytes`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = digest::of_content(&bytes);
        Self { bytes, digest }
    }
}

/// Name (relative to the configuration's directory) → content.
pub type Files = BTreeMap<String, Content>;

/// The digest of a set of files, as a node computes it from its disk.
pub fn digest_of(files: &Files) -> Digest {
    digest::of_files(&files.iter().map(|(name, content)| (name.as_str(), content.digest)).collect())
}

/// What to write and what to remove to get from one set to another.
pub fn difference<'a>(from: &'a Files, to: &'a Files) -> (Vec<(&'a str, &'a Content)>, Vec<&'a str>) {
    let written = to
        .iter()
        .filter(|(name, content)| from.get(*name).is_none_or(|old| old.digest != content.digest))
        .map(|(name, content)| (name.as_str(), content))
        .collect();
    let removed = from.keys().filter(|name| !to.contains_key(*name)).map(String::as_str).collect();
    (written, removed)
}

/// Why a file cannot be managed by the fleet: it must stay below the configuration's directory and look like one of
/// nginx's, and what a node's owner keeps there (nginx.conf) is not the fleet's.
pub fn invalid_name(name: &str) -> Option<String> {
    if let Err(reason) = check_name(name) {
        return Some(reason.to_string());
    }
    // Nodes name it in an `include`, where these mean something.
    if name.contains(['"', '\'', ';', '{', '}', '$', ' ']) {
        return Some("has a character that an include cannot name".to_owned());
    }
    match name {
        "nginx.conf" => Some("belongs to the node".to_owned()),
        _ if ENDINGS.iter().any(|ending| name.ends_with(ending)) => None,
        _ => Some("does not end in .conf, nor as certificates and keys do in .pem, .crt, .cer or .key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_leads_from_one_set_to_the_other() {
        let from = Files::from([
            ("a.conf".into(), Content::new("1")),
            ("b.conf".into(), Content::new("1")),
            ("c.conf".into(), Content::new("1")),
        ]);
        let to = Files::from([
            ("b.conf".into(), Content::new("1")),
            ("c.conf".into(), Content::new("2")),
            ("d.conf".into(), Content::new("1")),
        ]);
        let (written, removed) = difference(&from, &to);
        assert_eq!(written.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["c.conf", "d.conf"]);
        assert_eq!(removed, ["a.conf"]);
        assert_ne!(digest_of(&from), digest_of(&to));
        assert_eq!(digest_of(&Files::new()), digest_of(&Files::new()));
    }

    #[test]
    fn names_stay_below_the_configuration() {
        for good in ["auto_vhost/a.conf", "common.conf", "common_location.conf", "auto_upstream/x_80.1.upstream.conf"] {
            assert_eq!(invalid_name(good), None, "{good}");
        }
        for bad in [
            "",
            "/etc/a.conf",
            "../a.conf",
            "a/../b.conf",
            "a//b.conf",
            "a/.b.conf",
            "a\n.conf",
            "nginx.conf",
            "a.txt",
            "a b.conf",
            "a$b.conf",
        ] {
            assert!(invalid_name(bad).is_some(), "{bad:?}");
        }
    }
}
