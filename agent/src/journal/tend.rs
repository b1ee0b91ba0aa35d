//! Work on journals between runs, at a low priority: which files have writers.
//!
//! After an epoch began, every file is probed once (`seeding`). After each run, files that were opened meanwhile are probed,
//! so that those that nobody writes any more are forgotten. Nothing of the volume stays open in between, and nothing at
//! all once it is served no more.

mod probing;
mod queue;
mod seeding;
#[cfg(test)]
mod tests;

pub(super) use queue::{Queue, Task};

use super::epoch::Journal;
use super::open_files::Listed;
use super::source::{self, Handle, Key, Kind, Source, WatchError};
use crate::beneath::{Dir, Root};
use crate::mount::Identity;
use crate::priority::Priority;
use holdfast_format::path::RelPath;
use probing::Probing;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Threads that do this: of two volumes, one that hangs leaves the other alone.
pub(super) const THREADS: usize = 2;
/// Time for others after so many files, over all directories.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_AFTER: usize = 1024;
/// Inodes that are looked for while the volume is open.
const FIND_AT_ONCE: usize = 256;

/// Does one task after the other, until the queue ends.
pub(super) fn all(queue: &Queue) {
    if let Err(errno) = Priority::Low.apply() {
        tracing::debug!(%errno, "could not lower a thread's priority");
    }
    while let Some(work) = queue.take() {
        let Some(journal) = work.journal.upgrade() else {
            continue;
        };
        match &work.task {
            Task::Seed(rules) => journal.seed(rules),
            Task::Tidy => journal.tidy(),
            Task::Forget => journal.forget_dead(),
        }
    }
}

/// Why it ended early. The journal stays as it is, which is never wrong.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the volume is served no more")]
    NotServed,
    /// Or another is there.
    #[error("the volume is not there")]
    Gone,
    #[error("the epoch has ended")]
    Over,
    #[error("a run is under way")]
    RunUnderWay,
    #[error("directories are moved all the time")]
    Restless,
    #[error("a directory cannot be looked at: {0}")]
    Unreadable(Errno),
}

impl From<Errno> for Ended {
    fn from(errno: Errno) -> Self {
        Self::Unreadable(errno)
    }
}

impl Journal {
    /// Forgets files that nobody writes any more.
    fn tidy(&self) {
        let (epoch, list, source) = {
            let state = self.state();
            let Some(source) = &state.source else {
                return;
            };
            (state.epoch, state.open.list(), source.clone())
        };
        for Listed { key, all, names } in list {
            let Some(path) = self.state().directories.path(&key).flatten() else {
                continue;
            };
            // Where it cannot be looked at, or another is there by now, its files stay in the set.
            let dir = match self.directory_at(source.as_ref(), &path) {
                Ok(Some((dir, found))) if found == key => dir,
                Ok(_) | Err(Ended::Unreadable(_)) => continue,
                Err(_) => return,
            };
            let probing = Probing {
                journal: self,
                source: source.as_ref(),
                epoch,
                path: &path,
                key: &key,
                changed_since_ns: None,
            };
            let names: Vec<Box<[u8]>> = names.into_iter().map(|(name, _)| name).collect();
            let probed = match all {
                0 => probing.these(dir, &names),
                _ => probing.everything(dir),
            };
            match probed {
                Ok(true) if all > 0 => {
                    let mut state = self.state();
                    if state.epoch == epoch {
                        state.open.all_probed(&key, all);
                    }
                }
                Ok(_) | Err(Ended::Unreadable(_)) => {}
                Err(_) => return,
            }
        }
    }

    /// These may have writers: they had been open under names that are gone. A directory is the one that the run
    /// came by at that path, wherever it is by now.
    pub(super) fn suspect_all(&self, paths: &[RelPath]) {
        let mut names: HashMap<Vec<u8>, Vec<&[u8]>> = HashMap::new();
        for path in paths {
            if let Some(parent) = path.parent() {
                let parent = names.entry(parent.as_bytes().to_vec());
                parent.or_default().push(path.name());
            }
        }
        if names.is_empty() {
            return;
        }
        let mut state = self.state();
        for (key, path) in state.directories.at(|path| names.contains_key(path)) {
            for name in names.get(&*path).into_iter().flatten() {
                if state.open.add(&key, name).is_err() {
                    state.break_for("TooManyOpenFiles");
                }
            }
        }
    }

    /// Forgets inodes that exist no more, if there are many: they have no other names.
    fn forget_dead(&self) {
        let targets: Vec<Handle> = {
            let state = self.state();
            if !state.dirty.is_crowded() {
                return;
            }
            state.dirty.targets.iter().cloned().collect()
        };
        let mut dead = HashSet::new();
        for some in targets.chunks(FIND_AT_ONCE) {
            let Ok(root) = self.open_root() else {
                break;
            };
            let Ok(top) = root.top() else {
                break;
            };
            for handle in some {
                if matches!(source::find(top.as_fd(), handle), Ok(None)) {
                    dead.insert(handle);
                }
            }
        }
        let mut state = self.state();
        state.dirty.keep_targets(|handle| !dead.contains(handle));
    }

    /// The directory at a path now, open for a moment, and its key; `None`: there is none.
    fn directory_at(
        &self,
        source: &dyn Source,
        path: &RelPath,
    ) -> Result<Option<(Dir, Key)>, Ended> {
        // Where a run finds it that began since is better.
        let walk = self.state().walk.saturating_sub(1);
        let Some(dir) = self.open_at(path)? else {
            return Ok(None);
        };
        if source.kind() != Kind::Inotify {
            let handle = source::handle_of(dir.as_fd(), b"")?;
            return Ok(Some((dir, Key::Handle(handle))));
        }
        // To be watched again is the only way to be told the number of the watch.
        let key = match source.watch(dir.as_fd()) {
            Ok(key) => key,
            Err(WatchError::Gone) => return Ok(None),
            Err(
                WatchError::Limit(errno)
                | WatchError::Unsupported(errno)
                | WatchError::Other(errno),
            ) => return Err(errno.into()),
        };
        if self.state().directories.path(&key).is_none() {
            // It is watched from now on.
            self.watch(walk, path, &dir);
        }
        Ok(Some((dir, key)))
    }

    /// The directory at a path now, open for a moment.
    fn open_at(&self, path: &RelPath) -> Result<Option<Dir>, Ended> {
        match self.open_root()?.dir(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn open_root(&self) -> Result<Root, Ended> {
        self.check_served()?;
        let root = Root::open(&self.path).map_err(|_| Ended::Gone)?;
        let identity = Identity::of(&root).map_err(|_| Ended::Gone)?;
        let state = self.state();
        match &state.ground {
            Some(ground) if ground.identity == identity => Ok(root),
            _ => Err(Ended::Gone),
        }
    }

    fn check_served(&self) -> Result<(), Ended> {
        match self.gone.is_cancelled() {
            true => Err(Ended::NotServed),
            false => Ok(()),
        }
    }

    /// Leaves others some time now and then.
    fn pause_after(&self, names: usize) {
        let probed = self.probed.fetch_add(names, Ordering::Relaxed) + names;
        if probed >= PAUSE_AFTER {
            self.probed.store(0, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }
}
