//! One thread that takes in the events of all volumes, so that no queue overflows for want of a reader.
//!
//! After each round it waits a little: the kernel joins events that are equal while they are queued, so
//! that a busy volume costs less. A queue holds 16,384 events; a round drains it to the end.

use super::epoch::Journal;
use super::tend::{Queue, Task};
use crate::cancel::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Between two rounds.
const REST: Duration = Duration::from_millis(10);
/// How long a round waits for an event at most: journals come and go meanwhile.
const WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// The thread's list of journals.
#[derive(Debug)]
pub(super) struct Reader {
    journals: Arc<Mutex<Vec<Weak<Journal>>>>,
    #[cfg(test)]
    pub(super) paused: Arc<std::sync::atomic::AtomicBool>,
}

impl Reader {
    /// Starts the thread; it ends soon after `cancel`.
    pub(super) fn start(tend: Arc<Queue>, cancel: Cancel) -> io::Result<Self> {
        let journals = Arc::new(Mutex::new(Vec::new()));
        let shared = journals.clone();
        #[cfg(test)]
        let paused = Arc::new(std::sync::atomic::AtomicBool::new(false));
        #[cfg(test)]
        let hold = paused.clone();
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                while !cancel.is_cancelled() {
                    #[cfg(test)]
                    if hold.load(std::sync::atomic::Ordering::Relaxed) {
                        thread::sleep(REST);
                        continue;
                    }
                    round(&shared, &tend);
                }
            })?;
        Ok(Self {
            journals,
            #[cfg(test)]
            paused,
        })
    }

    /// One more journal to be read, until nobody has it any more.
    pub(super) fn add(&self, journal: &Arc<Journal>) {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.push(Arc::downgrade(journal));
    }
}

/// Waits for events, and takes in those of the journals that have some.
fn round(shared: &Mutex<Vec<Weak<Journal>>>, tend: &Queue) {
    let journals: Vec<Arc<Journal>> = {
        let mut journals = shared.lock().unwrap_or_else(PoisonError::into_inner);
        journals.retain(|journal| journal.strong_count() > 0);
        journals.iter().filter_map(Weak::upgrade).collect()
    };
    let sources: Vec<_> = journals
        .iter()
        .filter_map(|journal| Some((journal, journal.source()?)))
        .collect();
    let mut fds: Vec<PollFd<'_>> = sources
        .iter()
        .map(|(_, source)| {
            let fd: BorrowedFd<'_> = source.as_fd();
            PollFd::from_borrowed_fd(fd, PollFlags::IN)
        })
        .collect();
    if fds.is_empty() {
        thread::sleep(REST * 10);
        return;
    }
    match poll(&mut fds, Some(&WAIT)) {
        Err(_) | Ok(0) => return,
        Ok(_) => {}
    }
    for (fd, (journal, _)) in fds.iter().zip(&sources) {
        if fd.revents().is_empty() {
            continue;
        }
        journal.drain();
        // A slow disk must not keep the events of other volumes waiting.
        if journal.wants_forgetting() {
            tend.push(journal, Task::Forget);
        }
        if journal.wants_tidying() {
            tend.push(journal, Task::Tidy);
        }
    }
    thread::sleep(REST);
}
