//! Which version a worker stands at and what it has prepared: each version is met in its turn, and only what was prepared is
//! committed.

use dysvr_proto::planted::{Bug, planted};

/// A worker's way through the versions; `P` is what it makes of one before it is told to commit it.
#[derive(Debug)]
pub struct Follower<P> {
    /// The last version that this worker has met.
    version: u64,
    prepared: Option<P>,
}

impl<P> Follower<P> {
    /// Of a worker that was born with what `version` has led to.
    pub fn new(version: u64) -> Self {
        Self { version, prepared: None }
    }

    /// The last version that was met.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Meets a version that is to be prepared. Not so (`false`) when one before it was missed: what that has changed is not
    /// known, and is not guessed.
    pub fn meet(&mut self, version: u64) -> bool {
        let next = version == self.version + 1 || planted(Bug::MissedVersionGuessed);
        if next {
            self.version = version;
            self.prepared = None;
        }
        next
    }

    /// The version that was met is prepared.
    pub fn prepared(&mut self, prepared: P) {
        self.prepared = Some(prepared);
    }

    /// What is to be committed as `version`; `None` when nothing was prepared of it.
    pub fn commit(&mut self, version: u64) -> Option<P> {
        if version != self.version && !planted(Bug::AnyVersionCommitted) {
            return None;
        }
        self.prepared.take()
    }

    /// Forgets what was prepared; the version is met all the same.
    pub fn abort(&mut self, version: u64) {
        self.version = self.version.max(version);
        if !planted(Bug::AbortIgnored) {
            self.prepared = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_prepared_is_committed_and_only_once() {
        let mut follower = Follower::new(4);
        assert!(follower.meet(5));
        assert_eq!(follower.commit(5), None::<&str>);
        follower.prepared("five");
        assert_eq!(follower.commit(4), None);
        assert_eq!(follower.commit(5), Some("five"));
        assert_eq!(follower.commit(5), None);
    }

    #[test]
    fn what_was_aborted_is_met_and_gone() {
        let mut follower = Follower::new(4);
        assert!(follower.meet(5));
        follower.prepared("five");
        follower.abort(5);
        assert_eq!(follower.commit(5), None);
        // Of this one it has heard the end only.
        follower.abort(6);
        assert!(follower.meet(7));
        assert_eq!(follower.version(), 7);
    }

    #[test]
    fn a_version_that_was_missed_is_not_guessed() {
        let mut follower = Follower::<&str>::new(4);
        assert!(!follower.meet(6) && !follower.meet(4));
        assert_eq!(follower.version(), 4);
    }
}
