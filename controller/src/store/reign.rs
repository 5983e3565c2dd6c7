//! Being the leader: an epoch, the condition that proves it to the store, and the news of its end.

use std::fmt;

use dysvr_proto::id::Epoch;
use dysvr_proto::planted::{Bug, planted};
use tokio::sync::{oneshot, watch};

use super::{Condition, Entry};

/// The epoch of the next reign, after the one that the store has noted.
pub(super) fn next_epoch(last: Option<&Entry>) -> Epoch {
    let last = last.and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
    if planted(Bug::EpochForgotten) {
        return Epoch(last.unwrap_or(1));
    }
    last.map_or(Epoch(1), |last| Epoch(last).next())
}

/// A won election. Dropping it resigns.
pub struct Reign {
    /// Above every epoch before it; tasks carry it.
    pub epoch: Epoch,
    /// Belongs into every write that steers: it fails once somebody else leads.
    pub fence: Condition,
    lost: watch::Receiver<bool>,
    /// Its drop tells the keeper of the lease to give it back.
    _resign: oneshot::Sender<()>,
}

impl Reign {
    /// For implementations: `lost` turns true when the reign has ended, the receiver of `resign` ends when it is dropped.
    pub(super) fn new(
        epoch: Epoch,
        fence: Condition,
        lost: watch::Receiver<bool>,
        resign: oneshot::Sender<()>,
    ) -> Self {
        Self { epoch, fence, lost, _resign: resign }
    }

    /// Whether it has ended, by this process's own clock.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Turns true when it has ended; after a resignation when the store knows.
    pub fn end(&self) -> watch::Receiver<bool> {
        self.lost.clone()
    }

    /// Waits for its end.
    pub async fn lost(&self) {
        // A keeper that is gone keeps nothing.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }
}

impl fmt::Debug for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reign").field("epoch", &self.epoch).field("fence", &self.fence).finish_non_exhaustive()
    }
}
