//! The groups of the last expression that matched.

use dysvr_conf::regex::Regex;
use smallvec::SmallVec;

/// The subject and where the groups are in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Captures {
    subject: Box<[u8]>,
    groups: SmallVec<[Option<(u32, u32)>; 4]>,
}

impl Captures {
    /// Runs an expression; `None` if it does not match. The error is PCRE's text.
    pub(super) fn run(regex: &Regex, subject: &[u8]) -> Result<Option<Self>, String> {
        let code = regex.code();
        if code.captures_len() == 1 {
            // Without groups there is nothing but group 0, which nothing can refer to.
            let matched = code.is_match(subject).map_err(|error| error.to_string())?;
            return Ok(matched.then(Self::default));
        }
        let mut locations = code.capture_locations();
        let found = code.captures_read(&mut locations, subject).map_err(|error| error.to_string())?;
        Ok(found.map(|_| Self {
            subject: subject.into(),
            groups: (0..locations.len())
                .map(|group| locations.get(group).map(|(start, end)| (start as u32, end as u32)))
                .collect(),
        }))
    }

    /// The text of a group; `None` if it does not exist or took no part.
    pub(super) fn get(&self, group: u8) -> Option<&[u8]> {
        let (start, end) = (*self.groups.get(usize::from(group))?)?;
        self.subject.get(start as usize..end as usize)
    }
}
