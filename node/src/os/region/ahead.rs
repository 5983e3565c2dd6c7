//! Memory for many blobs that are about to come, made by a thread of its own while they are still read.

use std::rc::Rc;

use super::Region;
use crate::os::beside::SecondThread;

/// Fewer blobs than this are not worth a thread.
const MANY: usize = 2048;
/// What a blob takes, bytes: a little less than the least that is usual. What is missing is made when they come.
const USUAL: usize = 384;
/// No more is made, bytes: nothing but the number of blobs is known.
const MOST: usize = 64 << 20;
/// Bytes that are made at once: who maps or unmaps something waits as long.
const TURN: usize = 256 << 10;

/// While it lives, pages are made; what of them is not used then goes back. Nobody may fork meanwhile.
#[derive(Debug)]
pub struct Ahead {
    region: Rc<Region>,
    pub(super) thread: Option<SecondThread<()>>,
}

impl Region {
    /// Has pages made for so many blobs at the top of the region. None where it is not worth it or cannot be.
    pub fn ahead(self: &Rc<Self>, blobs: usize) -> Option<Ahead> {
        if blobs < MANY {
            return None;
        }
        let mut ledger = self.ledger.borrow_mut();
        let ledger = ledger.as_mut()?;
        let start = self.above(ledger);
        let bytes = blobs.saturating_mul(USUAL).min(MOST).saturating_sub(ledger.runs.free());
        let end = start.checked_add(bytes / self.page * self.page)?;
        let base = self.base.as_ptr() as usize;
        let make = move || {
            for at in (start..end).step_by(TURN) {
                // SAFETY: inside the mapping, which the one that joins this thread holds; pages are made, and what stands in
                // them does not change.
                unsafe {
                    libc::madvise((base + at) as *mut _, TURN.min(end - at), libc::MADV_POPULATE_WRITE);
                }
            }
        };
        if end > self.size {
            return None;
        }
        let thread = SecondThread::start("dysvr-room", make).ok()?;
        ledger.made = end;
        Some(Ahead { region: Rc::clone(self), thread: Some(thread) })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        drop(self.thread.take());
        let mut ledger = self.region.ledger.borrow_mut();
        let Some(ledger) = ledger.as_mut() else { return };
        let top = self.region.above(ledger);
        let made = std::mem::take(&mut ledger.made);
        if top < made {
            let pages = self.region.base.as_ptr().wrapping_add(top);
            // SAFETY: whole pages of the mapping above all blobs.
            unsafe { libc::madvise(pages.cast(), made - top, libc::MADV_REMOVE) };
        }
    }
}
