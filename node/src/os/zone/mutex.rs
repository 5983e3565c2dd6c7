//! A mutex between processes that survives the death of its holder.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// How long [`Mutex::lock`] waits. Whoever holds the mutex copies a message: milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// In shared memory, never moved, and [reset](Self::reset) before it is used.
#[repr(transparent)]
pub struct Mutex(UnsafeCell<libc::pthread_mutex_t>);

impl std::fmt::Debug for Mutex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mutex")
    }
}

impl Mutex {
    /// Makes it anew: at the beginning, and when [`Self::lock`] has given up on its holder. That one may still read what the
    /// mutex guards.
    pub fn reset(&self) -> io::Result<()> {
        // SAFETY: memory of its own for the mutex, zeroed or a mutex before. A holder that is thrown out unlocks what it does
        // not own, which is refused.
        unsafe {
            let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
            libc::pthread_mutexattr_init(attr.as_mut_ptr());
            libc::pthread_mutexattr_setpshared(attr.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(attr.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            let rc = libc::pthread_mutex_init(self.0.get(), attr.as_ptr());
            libc::pthread_mutexattr_destroy(attr.as_mut_ptr());
            if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
        }
    }

    /// Takes it; gives up (`None`) when another holds it, at once with `try_only`, else after [`PATIENCE`]. A holder that died
    /// releases it.
    pub fn lock(&self, try_only: bool) -> Option<Guard<'_>> {
        let mutex = self.0.get();
        // SAFETY: the mutex was initialised and is never moved; the time is valid for the call.
        let rc = unsafe {
            match libc::pthread_mutex_trylock(mutex) {
                libc::EBUSY if !try_only => {
                    let until = crate::os::time::unix() + PATIENCE;
                    let until =
                        libc::timespec { tv_sec: until.as_secs().cast_signed(), tv_nsec: until.subsec_nanos().into() };
                    libc::pthread_mutex_timedlock(mutex, &until)
                }
                rc => rc,
            }
        };
        match rc {
            0 => Some(Guard { mutex: self }),
            libc::EOWNERDEAD => {
                // What it guards is checked when it is read, whatever the dead one did.
                // SAFETY: we hold the mutex in its inconsistent state.
                unsafe { libc::pthread_mutex_consistent(mutex) };
                Some(Guard { mutex: self })
            }
            _ => None,
        }
    }
}

/// The mutex is held.
#[derive(Debug)]
pub struct Guard<'a> {
    mutex: &'a Mutex,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: this guard holds the mutex, unless it was made anew, and then this is refused.
        unsafe { libc::pthread_mutex_unlock(self.mutex.0.get()) };
    }
}
