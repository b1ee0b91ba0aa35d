//! What may have changed in a volume since its last accepted run, as the kernel tells it. Events only
//! add work, or shorten a walk where that is proven; they never decide what a file holds.
//!
//! [`Journals`] are all journals of an agent: one thread takes events in for all volumes, others look after
//! what can wait (`tend`). Each volume has a queue of its own in the kernel, so that a noisy one breaks
//! nobody else's epoch. A run uses its volume's journal through a `Turn`.

mod directories;
mod dirty;
mod epoch;
mod fanotify;
mod inotify;
mod open_files;
mod plan;
mod reader;
mod room;
mod share;
pub(crate) mod source;
mod standing;
mod tend;
mod told;
mod turn;

pub(crate) use epoch::{Again, Journal};
pub use standing::Standing;
pub(crate) use turn::{Beginning, Turn};

use crate::cancel::Cancel;
use crate::rules::Rules;
use crate::settings::JournalSource;
use reader::Reader;
use room::Room;
use share::{Share, Shares};
use source::Kind;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tend::{Queue, Task};

/// Share of the directories that the kernel lets a user watch.
const SHARE_PERCENT: usize = 75;
/// Memory for what is known of watched directories.
const MOST_BYTES: usize = 96 << 20;

/// All journals of an agent. Clones share them.
#[derive(Debug, Clone)]
pub struct Journals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journals: Mutex<HashMap<String, Arc<Journal>>>,
    /// Volumes that shall have none.
    let_go: Mutex<HashSet<String>>,
    kinds: &'static [Kind],
    room: Arc<Room>,
    shares: Arc<Shares>,
    reader: Reader,
    tend: Arc<Queue>,
    cancel: Cancel,
}

impl Journals {
    /// None yet; starts the threads. `None`: there shall be none, or there cannot be any.
    pub fn start(source: JournalSource) -> Option<Self> {
        let kinds: &[Kind] = match source {
            JournalSource::Auto => &Kind::ALL,
            JournalSource::Inotify => &[Kind::Inotify],
            JournalSource::Off => return None,
        };
        Self::with(kinds, most_directories())
            .inspect_err(|error| tracing::error!(%error, "changes are not watched"))
            .ok()
    }

    pub(crate) fn with(kinds: &'static [Kind], most_directories: usize) -> io::Result<Self> {
        let (tend, cancel) = (Arc::new(Queue::default()), Cancel::new());
        let inner = Inner {
            journals: Mutex::default(),
            let_go: Mutex::default(),
            kinds,
            room: Room::new(most_directories, MOST_BYTES),
            shares: Shares::new(share::MOST_ENTRIES),
            reader: Reader::start(tend.clone(), cancel.clone())?,
            tend,
            cancel,
        };
        for _ in 0..tend::THREADS {
            let queue = inner.tend.clone();
            std::thread::Builder::new()
                .name("tend".to_owned())
                .spawn(move || tend::all(&queue))?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The journal of a volume, which is at this path now.
    pub(crate) fn of(&self, volume: &str, path: &Path) -> Arc<Journal> {
        self.let_go().remove(volume);
        let mut journals = self.journals();
        if let Some(journal) = journals.get(volume)
            && journal.path == path
        {
            return journal.clone();
        }
        let (kinds, room) = (self.0.kinds, self.0.room.clone());
        let share = Share::new(self.0.shares.clone());
        let journal = Journal::new(volume.to_owned(), path.to_owned(), kinds, room, share);
        self.0.reader.add(&journal);
        if let Some(other) = journals.insert(volume.to_owned(), journal.clone()) {
            other.gone.cancel();
        }
        journal
    }

    /// The volumes that are not among these are gone, and their journals with them.
    pub fn retain(&self, volumes: &HashSet<String>) {
        self.journals().retain(|volume, journal| {
            let there = volumes.contains(volume);
            if !there {
                journal.gone.cancel();
            }
            there
        });
        self.let_go().retain(|volume| volumes.contains(volume));
    }

    /// The volume is not followed any more, until a run wants it to be: what watched it is let go.
    pub fn let_go_of(&self, volume: &str) {
        if let Some(journal) = self.journals().remove(volume) {
            journal.gone.cancel();
        }
        self.let_go().insert(volume.to_owned());
    }

    /// Whether the volume is not to be followed.
    pub fn has_let_go_of(&self, volume: &str) -> bool {
        self.let_go().contains(volume)
    }

    /// A run of the volume was accepted: what can wait is done now.
    pub(crate) fn look_after(&self, journal: &Arc<Journal>, rules: &Rules) {
        {
            let mut state = journal.state();
            state.accepted = state.walk;
        }
        let tend = &self.0.tend;
        tend.push(journal, Task::Seed(Box::new(rules.clone())));
        tend.push(journal, Task::Tidy);
    }

    /// Nobody reads events for a while.
    #[cfg(test)]
    pub(crate) fn pause(&self, paused: bool) {
        let ordering = std::sync::atomic::Ordering::Relaxed;
        self.0.reader.paused.store(paused, ordering);
        // It may be in the middle of a round.
        std::thread::sleep(std::time::Duration::from_millis(300));
    }

    /// What can wait is not begun for a while, or again.
    #[cfg(test)]
    pub(crate) fn hold_tending(&self, held: bool) {
        self.0.tend.hold(held);
    }

    /// Returns when inodes that are gone are to be forgotten.
    #[cfg(test)]
    pub(crate) fn await_forgetting(&self) {
        while !self.0.tend.is_to_forget() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Returns when nothing is left that could wait.
    #[cfg(test)]
    pub(crate) fn await_tending(&self) {
        while !self.0.tend.is_idle() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// The next run of each volume walks, as it does once a day.
    #[cfg(test)]
    pub(crate) fn walk_is_due(&self) {
        for journal in self.journals().values() {
            journal.state().walked = None;
        }
    }

    /// How each volume stands.
    pub fn standing(&self) -> Vec<(String, Standing)> {
        let journals: Vec<_> = self.journals().values().cloned().collect();
        journals
            .iter()
            .map(|journal| (journal.volume.clone(), journal.standing()))
            .collect()
    }

    fn let_go(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        // Names are put in and taken out one at a time.
        self.0.let_go.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journals(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Journal>>> {
        // Rows are consistent after every call on them.
        self.0
            .journals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The best source of changes that this kernel gives to this process, and why it is no better one.
pub(crate) fn available(wanted: JournalSource) -> (&'static str, String) {
    let kinds: &[Kind] = match wanted {
        JournalSource::Auto => &Kind::ALL,
        JournalSource::Inotify => &[Kind::Inotify],
        JournalSource::Off => return ("off", "journal.source is off".to_owned()),
    };
    let mut refused = Vec::new();
    for kind in kinds {
        match source::start(*kind) {
            Ok(_) => return (kind.name(), refused.join("; ")),
            Err(errno) => refused.push(format!("{}: {errno}", kind.name())),
        }
    }
    ("none", refused.join("; "))
}

/// The kernel's limits of what can be watched, by their names.
pub(crate) fn kernel_limits() -> Vec<(&'static str, u64)> {
    let limits = [
        (
            "fs.fanotify.max_user_marks",
            "/proc/sys/fs/fanotify/max_user_marks",
        ),
        (
            "fs.fanotify.max_user_groups",
            "/proc/sys/fs/fanotify/max_user_groups",
        ),
        (
            "fs.inotify.max_user_watches",
            "/proc/sys/fs/inotify/max_user_watches",
        ),
        (
            "fs.inotify.max_user_instances",
            "/proc/sys/fs/inotify/max_user_instances",
        ),
    ];
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let limits = limits.into_iter();
    limits
        .filter_map(|(name, path)| Some((name, read(path)?)))
        .collect()
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.tend.end();
        let journals = self.journals.get_mut();
        let journals = journals.unwrap_or_else(PoisonError::into_inner);
        journals.values().for_each(|journal| journal.gone.cancel());
    }
}

/// How many directories this agent may watch in all.
fn most_directories() -> usize {
    let limit = |path: &str| -> Option<usize> {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse().ok()
    };
    let marks = limit("/proc/sys/fs/fanotify/max_user_marks");
    let watches = limit("/proc/sys/fs/inotify/max_user_watches");
    marks.or(watches).unwrap_or(8192) / 100 * SHARE_PERCENT
}
