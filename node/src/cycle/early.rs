//! What a large task brings, put into the region as soon as it is made: workers prepare it while the master still checks
//! it. Only what needs nothing but the records: many vhosts that are new, on addresses that are open.

use std::sync::Arc;

use super::change::{Delta, Kind, Placed};
use super::entry::Entry;
use super::recorded::Outlined;
use super::{Cycle, Recorded, RecordedUpstream, Refusal, Stamp};
use crate::os::region::Blob;

/// Fewer new vhosts than this are prepared as fast as a worker is told to.
const MANY: usize = 1024;

/// Records of a change that stand in the region.
#[derive(Debug)]
pub struct Put {
    vhosts: Vec<Entry>,
    upstreams: Vec<Blob>,
    delta: Delta,
}

impl Put {
    /// The change for the workers.
    pub fn delta(&self) -> &Delta {
        &self.delta
    }

    pub(super) fn into_delta(self) -> Delta {
        self.delta
    }

    /// In the order of the change.
    pub(super) fn take_vhosts(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.vhosts)
    }

    /// In the order of the change.
    pub(super) fn take_upstreams(&mut self) -> Vec<Blob> {
        std::mem::take(&mut self.upstreams)
    }
}

impl Cycle {
    /// Puts them, if there are many and workers need no more. Fails when there is no room for them.
    pub fn put_early(
        &self,
        kind: Kind,
        stamp: Stamp,
        touched: &[Arc<str>],
        vhosts: &mut [Recorded],
        upstreams: &[RecordedUpstream],
    ) -> Result<Option<Put>, Refusal> {
        let many = vhosts.len() >= MANY && matches!(kind, Kind::Add | Kind::Set);
        if !many || !self.are_plainly_new(vhosts) {
            return Ok(None);
        }
        self.expect(vhosts, upstreams);
        let mut entries = Vec::with_capacity(vhosts.len());
        for vhost in vhosts {
            entries.push(self.entry_of(vhost)?);
        }
        let mut records = Vec::with_capacity(upstreams.len());
        for upstream in upstreams {
            records.push(self.put(&upstream.record)?);
        }
        let placed = Placed {
            vhosts: entries.iter().map(Entry::at).collect(),
            upstreams: records.iter().map(Blob::at).collect(),
        };
        let delta = Delta { kind, stamp, removed: Vec::new(), touched: touched.to_vec(), placed };
        Ok(Some(Put { vhosts: entries, upstreams: records, delta }))
    }

    /// Whether a change of these takes nothing away and opens nothing, and none of them is pinned.
    fn are_plainly_new(&self, vhosts: &[Recorded]) -> bool {
        let (known, listeners) = (self.vhosts.borrow(), self.listeners.borrow());
        let mut open = None;
        vhosts.iter().all(|vhost| {
            matches!(vhost.outline, Outlined::Alone(_))
                && vhost.vsvc_id.is_some_and(|id| !known.contains_key(&id))
                && vhost.listens.iter().all(|listen| {
                    let is_open = open == Some(&listen.addr) || listeners.contains_key(&listen.addr);
                    open = Some(&listen.addr).filter(|_| is_open);
                    is_open
                })
        })
    }

    /// Has memory made for their records at once.
    pub(super) fn expect(&self, vhosts: &[Recorded], upstreams: &[RecordedUpstream]) {
        let upstreams = upstreams.iter().map(|upstream| upstream.record.len());
        self.region.expect(vhosts.iter().map(|vhost| vhost.record.len()).chain(upstreams));
    }
}
