//! Work on journals between runs, at a low priority: which files have writers.
//!
//! After an epoch began, every file is probed once, so that those which had writers before it are known; and
//! directories that the rules leave out are watched, for links into what they keep. After each run, files
//! that were opened meanwhile are probed, so that those that nobody writes any more are forgotten. Nothing
//! of the volume stays open in between.

use super::epoch::Journal;
use super::open_files::Listed;
use super::source::{Key, Source};
use crate::beneath::{Dir, Root};
use crate::mount::Identity;
use crate::priority::Priority;
use crate::probe::WriterProbe;
use crate::rules::Rules;
use crate::scan::{ScanOptions, Scanned, Scanner};
use crate::stat::Stat;
use crate::{Cancel, sys};
use holdfast_format::entry::Kind as EntryKind;
use holdfast_format::path::RelPath;
use rustix::fd::AsFd;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Buffer for one getdents call.
const LIST_BYTES: usize = 64 * 1024;
/// Names that are probed before the events about them are read.
const AT_ONCE: usize = 1024;
/// Time for others after so many, over all directories.
const PAUSE: Duration = Duration::from_millis(1);
/// How often it looks whether it is to end.
const WAIT: Duration = Duration::from_secs(1);
/// Times of change come from a clock that lags by up to a tick.
const LAG_NS: i64 = 20_000_000;

/// What can wait.
pub(super) enum Task {
    Seed(Weak<Journal>, Box<Rules>),
    Tidy(Weak<Journal>),
}

/// Does one task after the other, until nobody gives any.
pub(super) fn all(tasks: &Receiver<Task>, cancel: &Cancel) {
    if let Err(errno) = Priority::Low.apply() {
        tracing::debug!(%errno, "could not lower a thread's priority");
    }
    while !cancel.is_cancelled() {
        match tasks.recv_timeout(WAIT) {
            Ok(Task::Seed(journal, rules)) => {
                if let Some(journal) = journal.upgrade() {
                    journal.seed(&rules, cancel);
                }
            }
            Ok(Task::Tidy(journal)) => {
                if let Some(journal) = journal.upgrade() {
                    journal.tidy(cancel);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Why it ended early. The journal stays as it is, which is never wrong.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cancelled")]
    Cancelled,
    /// Or another is there.
    #[error("the volume is not there")]
    Gone,
    #[error("the epoch has ended")]
    Over,
    #[error("a directory cannot be listed: {0}")]
    Unlisted(Errno),
}

impl From<Errno> for Ended {
    fn from(errno: Errno) -> Self {
        Self::Unlisted(errno)
    }
}

impl Journal {
    /// Finds the files that had writers before the epoch began; afterwards it can be trusted.
    pub(super) fn seed(&self, rules: &Rules, cancel: &Cancel) {
        let (epoch, started_ns, source) = {
            let state = self.state();
            let (Some(last), Some(source)) = (&state.last, &state.source) else {
                return;
            };
            if state.seeded || state.broken.is_some() {
                return;
            }
            (state.epoch, last.started_ns, source.clone())
        };
        let seeding = Seeding {
            journal: self,
            epoch,
            started_ns: started_ns.saturating_sub(LAG_NS),
            source: source.as_ref(),
            rules,
            cancel,
        };
        match seeding.run() {
            Ok(()) => {
                let mut state = self.state();
                if state.epoch == epoch && state.broken.is_none() {
                    state.seeded = true;
                    tracing::debug!(volume = %self.volume, "the journal is trusted");
                }
            }
            Err(ended) => tracing::debug!(volume = %self.volume, %ended, "not seeded"),
        }
    }

    /// Forgets files that nobody writes any more.
    pub(super) fn tidy(&self, cancel: &Cancel) {
        let (epoch, list, source) = {
            let state = self.state();
            let Some(source) = &state.source else {
                return;
            };
            (state.epoch, state.open.list(), source.clone())
        };
        let Ok(root) = self.open_root() else {
            return;
        };
        for Listed { key, all, names } in list {
            let path = self.state().directories.path(&key).flatten();
            let Some(Ok(dir)) = path.map(|path| root.dir(&path)) else {
                continue;
            };
            let mut probing = Probing::new(self, source.as_ref(), epoch, &dir, &key);
            let done = match all {
                0 => names
                    .iter()
                    .try_for_each(|(name, _)| probing.add(name.clone()))
                    .and_then(|()| probing.finish()),
                _ => probing.everything(cancel),
            };
            if done.is_err() || cancel.is_cancelled() {
                return;
            }
            if all > 0 {
                self.state().open.all_probed(&key, all);
            }
        }
    }

    /// These may have writers: they had been open under names that are gone.
    pub(super) fn suspect_all(&self, source: &dyn Source, paths: &[RelPath]) {
        if paths.is_empty() {
            return;
        }
        let Ok(root) = self.open_root() else {
            return self.state().break_for("DirectoryUnreadable");
        };
        for path in paths {
            let Ok(Some((dir, name))) = root.parent_of(path) else {
                continue;
            };
            match source.watch(dir.as_fd()) {
                Ok(key) => {
                    let mut state = self.state();
                    if state.open.suspect(&key, name).is_err() {
                        state.break_for("TooManyOpenFiles");
                    }
                }
                Err(_) => self.state().break_for("WatchFailed"),
            }
        }
    }

    /// Leaves others some time now and then.
    fn pause_after(&self, names: usize) {
        let probed = self.probed.fetch_add(names, Ordering::Relaxed) + names;
        if probed >= AT_ONCE {
            self.probed.store(0, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }

    fn open_root(&self) -> Result<Root, Ended> {
        let root = Root::open(&self.path).map_err(|_| Ended::Gone)?;
        let identity = Identity::of(&root).map_err(|_| Ended::Gone)?;
        let state = self.state();
        match &state.ground {
            Some(ground) if ground.identity == identity => Ok(root),
            _ => Err(Ended::Gone),
        }
    }
}

struct Seeding<'a> {
    journal: &'a Journal,
    epoch: u32,
    started_ns: i64,
    source: &'a dyn Source,
    rules: &'a Rules,
    cancel: &'a Cancel,
}

impl Seeding<'_> {
    fn run(&self) -> Result<(), Ended> {
        let mut paths = self.journal.state().directories.paths();
        paths.sort_by_cached_key(RelPath::children_prefix);
        // All that is to be watched is, before any file is probed.
        for path in paths.iter().filter(|_| !self.rules.is_empty()) {
            let root = self.open_root()?;
            if let Ok(dir) = root.dir(path) {
                self.watch_left_out(root, path, &dir)?;
            }
        }
        for path in &paths {
            let root = self.open_root()?;
            let Ok(dir) = root.dir(path) else {
                continue; // Gone since: its files are with it.
            };
            let Ok(key) = self.source.watch(dir.as_fd()) else {
                continue;
            };
            let mut probing = Probing::new(self.journal, self.source, self.epoch, &dir, &key);
            probing.changed_since_ns = Some(self.started_ns);
            probing.everything(self.cancel)?;
        }
        Ok(())
    }

    fn open_root(&self) -> Result<Root, Ended> {
        match self.cancel.is_cancelled() {
            true => Err(Ended::Cancelled),
            false => self.journal.open_root(),
        }
    }

    /// Watches what lies in directories that the rules leave out.
    fn watch_left_out(&self, root: Root, path: &RelPath, dir: &Dir) -> Result<(), Ended> {
        if !self.rules.keeps_with_parents(path, true) {
            return Ok(()); // It was come by from above.
        }
        let root = Arc::new(root);
        let mut left_out = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
        dir.list(&mut buffer, |name, file_type, _| {
            let directory = matches!(file_type, FileType::Directory | FileType::Unknown);
            if let (true, Ok(below)) = (directory, path.join(name.to_bytes()))
                && !self.rules.keeps(below.as_bytes(), true)
            {
                left_out.push(below);
            }
            Ok::<(), Ended>(())
        })?;
        for below in left_out {
            let (journal, walk) = (self.journal, self.epoch);
            let options = ScanOptions {
                cancel: self.cancel.clone(),
                ..ScanOptions::default()
            };
            for scanned in Scanner::below(below, root.clone(), Rules::default(), options) {
                if let Scanned::Batch(batch) = scanned {
                    journal.watch(walk, &batch.path, &batch.dir);
                }
            }
        }
        Ok(())
    }
}

/// Probes files of one directory, some at a time.
struct Probing<'a> {
    journal: &'a Journal,
    source: &'a dyn Source,
    epoch: u32,
    dir: &'a Dir,
    key: &'a Key,
    /// What changed since is to be looked at by the next run.
    changed_since_ns: Option<i64>,
    names: Vec<Box<[u8]>>,
}

impl<'a> Probing<'a> {
    fn new(
        journal: &'a Journal,
        source: &'a dyn Source,
        epoch: u32,
        dir: &'a Dir,
        key: &'a Key,
    ) -> Self {
        // From now on this process ignores the signal of a lease that is waited for.
        WriterProbe::new();
        Self {
            journal,
            source,
            epoch,
            dir,
            key,
            changed_since_ns: None,
            names: Vec::new(),
        }
    }

    /// Every file directly in the directory.
    fn everything(&mut self, cancel: &Cancel) -> Result<(), Ended> {
        let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
        let dir = self.dir;
        dir.list(&mut buffer, |name, file_type, _| {
            if cancel.is_cancelled() {
                return Err(Ended::Cancelled);
            }
            match file_type {
                FileType::RegularFile | FileType::Unknown => self.add(name.to_bytes().into()),
                _ => Ok(()),
            }
        })?;
        self.finish()
    }

    fn add(&mut self, name: Box<[u8]>) -> Result<(), Ended> {
        self.names.push(name);
        match self.names.len() >= AT_ONCE {
            true => self.finish(),
            false => Ok(()),
        }
    }

    /// Probes what has gathered.
    fn finish(&mut self) -> Result<(), Ended> {
        let names = std::mem::take(&mut self.names);
        if names.is_empty() {
            return Ok(());
        }
        {
            let mut state = self.journal.state();
            if state.epoch != self.epoch || state.broken.is_some() {
                return Err(Ended::Over);
            }
            for name in &names {
                if state.open.suspect(self.key, name).is_err() {
                    state.break_for("TooManyOpenFiles");
                    return Err(Ended::Over);
                }
            }
        }
        let mut quiet = Vec::with_capacity(names.len());
        for name in &names {
            quiet.push(self.look(name));
        }
        let mut state = self.journal.state();
        state.drain(&self.journal.volume);
        let kind = self.source.kind();
        for (name, found) in names.iter().zip(quiet) {
            match found {
                Found::Quiet => state.open.quiet(self.key, name, kind),
                Found::Changed => {
                    state.open.quiet(self.key, name, kind);
                    state.dirty.add_name(self.key.clone(), name);
                }
                Found::ChangedAndBusy => state.dirty.add_name(self.key.clone(), name),
                Found::Busy => {}
                Found::NoFile => state.open.gone(self.key, name),
            }
        }
        drop(state);
        self.journal.pause_after(names.len());
        Ok(())
    }

    fn look(&mut self, name: &[u8]) -> Found {
        match self.dir.stat(name) {
            Ok(stat) if stat.kind != EntryKind::File => return Found::NoFile,
            Ok(_) => {}
            Err(_) => return Found::NoFile,
        }
        // One that cannot be opened by us may be open for others.
        let Ok(file) = self.dir.open_file(name) else {
            return Found::Busy;
        };
        let stat = crate::beneath::read::stat_fd(file.as_fd());
        let changed = |stat: &Stat| {
            let newest = stat.ctime_ns.max(stat.mtime_ns);
            self.changed_since_ns.is_some_and(|since| newest >= since)
        };
        let changed = stat.as_ref().map_or(true, changed);
        let quiet = sys::lease_until_closed(file).is_ok();
        match (quiet, changed) {
            (true, false) => Found::Quiet,
            (true, true) => Found::Changed,
            (false, true) => Found::ChangedAndBusy,
            (false, false) => Found::Busy,
        }
    }
}

enum Found {
    Quiet,
    Changed,
    Busy,
    ChangedAndBusy,
    NoFile,
}
