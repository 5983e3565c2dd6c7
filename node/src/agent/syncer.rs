//! A thread that waits for the disk while whoever needs the file there does something else.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Starts its thread when it is first needed, which ends when this is dropped.
#[derive(Debug, Default)]
pub struct Syncer {
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    files: SyncSender<Arc<File>>,
    synced: Receiver<io::Result<()>>,
}

impl Syncer {
    /// Has a file's data brought to the disk and does something else meanwhile. Comes back with both when both are done.
    pub fn sync_and<T>(&mut self, file: &Arc<File>, meanwhile: impl FnOnce() -> T) -> (io::Result<()>, T) {
        let thread = self.thread.take().or_else(start);
        let Some(thread) = thread.filter(|thread| thread.files.send(Arc::clone(file)).is_ok()) else {
            // There is no room for a thread.
            return (file.sync_data(), meanwhile());
        };
        let done = meanwhile();
        let synced = thread.synced.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has ended")));
        self.thread = Some(thread);
        (synced, done)
    }
}

fn start() -> Option<Thread> {
    let (files, to_sync) = sync_channel::<Arc<File>>(1);
    let (results, synced) = sync_channel(1);
    let work = move || {
        for file in to_sync {
            if results.send(file.sync_data()).is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("sync".to_owned()).spawn(work);
    started.is_ok().then_some(Thread { files, synced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_became_of_each_file() {
        let mut syncer = Syncer::default();
        let file = Arc::new(tempfile::tempfile().unwrap());
        // Nothing can be synced in a pipe.
        let (pipe, _writer) = io::pipe().unwrap();
        let pipe = Arc::new(File::from(std::os::fd::OwnedFd::from(pipe)));
        for number in 0..3 {
            let (synced, done) = syncer.sync_and(&file, || number);
            assert_eq!((synced.is_ok(), done), (true, number));
            let (synced, done) = syncer.sync_and(&pipe, || number);
            assert_eq!((synced.is_ok(), done), (false, number));
        }
    }
}
