//! After an epoch began, every file is probed once, so that those which had writers before it are known; and
//! directories that the rules leave out are watched, for links into what they keep.
//!
//! The epoch is trusted when the files of each known directory were probed. One that is not where the last run
//! found it was moved since, which is a change that the next run looks at: it comes by, and any file in it may
//! have writers then (`Journal::watch`). Anything else that keeps a directory from being looked at leaves the
//! epoch as it is, until the next run has ended; what was probed stays so.

use super::Ended;
use super::probing::{LIST_BYTES, Probing};
use crate::beneath::Dir;
use crate::journal::epoch::Journal;
use crate::journal::source::{Key, Source};
use crate::rules::Rules;
use holdfast_format::path::RelPath;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::HashMap;
use std::mem::MaybeUninit;

/// Times of change come from a clock that lags by up to a tick.
const LAG_NS: i64 = 20_000_000;
/// How often directories that a run came by meanwhile are looked at in one go.
const ROUNDS: usize = 8;
/// Directories that wait to be watched; more could not be.
const MOST_PENDING: usize = 1 << 20;

struct Seeding<'a> {
    journal: &'a Journal,
    epoch: u32,
    /// What runs that began since find is better.
    walk: u32,
    started_ns: i64,
    source: &'a dyn Source,
    rules: &'a Rules,
}

impl Journal {
    /// Finds the files that had writers before the epoch began; afterwards it can be trusted.
    pub(super) fn seed(&self, rules: &Rules) {
        let state = self.state();
        let (Some(last), Some(source)) = (&state.last, state.source.clone()) else {
            return;
        };
        if state.seeded || state.broken.is_some() {
            return;
        }
        let (epoch, walk) = (state.epoch, state.walk.saturating_sub(1));
        let started_ns = last.started_ns.saturating_sub(LAG_NS);
        drop(state);
        let seeding = Seeding {
            journal: self,
            epoch,
            walk,
            started_ns,
            source: source.as_ref(),
            rules,
        };
        match seeding.run() {
            Ok(()) => tracing::debug!(volume = %self.volume, "the journal is trusted"),
            Err(ended) => tracing::debug!(volume = %self.volume, %ended, "not seeded"),
        }
    }
}

impl Seeding<'_> {
    fn run(&self) -> Result<(), Ended> {
        // All that is to be watched is, before any file is probed.
        let paths = self.journal.state().directories.paths();
        self.watch_left_out(paths.iter())?;
        drop(paths);
        // Where directories were looked for and are not.
        let mut missed = HashMap::new();
        for round in 0..ROUNDS {
            let Some(rest) = self.rest(&missed)? else {
                return Ok(());
            };
            if round > 0 {
                self.watch_left_out(rest.iter().map(|(_, path)| path))?;
            }
            for (key, path) in rest {
                let probed = self.probe(&key, &path).inspect_err(|ended| {
                    if let Ended::Unreadable(errno) = ended {
                        let volume = &self.journal.volume;
                        tracing::warn!(%volume, %path, %errno, "not all files can be probed: the volume is walked");
                    }
                })?;
                if !probed {
                    missed.insert(key, path);
                }
            }
        }
        Err(Ended::Restless)
    }

    /// Directories whose files are not probed yet. `None`: there are none, and the epoch is trusted from now on.
    fn rest(&self, missed: &HashMap<Key, RelPath>) -> Result<Option<Vec<(Key, RelPath)>>, Ended> {
        let mut state = self.journal.state();
        // What was removed is known to be gone then.
        state.drain(&self.journal.volume);
        if state.epoch != self.epoch || state.broken.is_some() {
            return Err(Ended::Over);
        }
        let mut rest = state.directories.unprobed();
        rest.retain(|(key, path)| missed.get(key) != Some(path));
        if rest.is_empty() {
            if !self.rules.is_empty() && state.accepted != state.walk {
                // It may come by directories in which the rules leave some out that nobody watches.
                return Err(Ended::RunUnderWay);
            }
            state.seeded = true;
            return Ok(None);
        }
        drop(state);
        rest.sort_by_cached_key(|(_, path)| path.children_prefix());
        Ok(Some(rest))
    }

    /// Probes the files of the directory that is at this path now; whether that is the one that is meant.
    fn probe(&self, key: &Key, path: &RelPath) -> Result<bool, Ended> {
        let Some((dir, found)) = self.journal.directory_at(self.source, path)? else {
            return Ok(false);
        };
        if !self.journal.state().directories.is_unprobed(&found) {
            return Ok(found == *key);
        }
        let probing = Probing {
            journal: self.journal,
            source: self.source,
            epoch: self.epoch,
            path,
            key: &found,
            changed_since_ns: Some(self.started_ns),
        };
        let all = probing.everything(dir)?;
        let mut state = self.journal.state();
        if all && state.epoch == self.epoch {
            state.directories.probed(&found);
        }
        Ok(all && found == *key)
    }

    /// Watches what lies in directories that the rules leave out, of those directly in these.
    fn watch_left_out<'p>(&self, paths: impl Iterator<Item = &'p RelPath>) -> Result<(), Ended> {
        if self.rules.is_empty() {
            return Ok(());
        }
        // What is left out itself is come by from above.
        for path in paths.filter(|path| self.rules.keeps_with_parents(path, true)) {
            let Some(dir) = self.journal.open_at(path)? else {
                continue;
            };
            let left_out = |below: &RelPath| !self.rules.keeps(below.as_bytes(), true);
            let mut pending = self.directories_in(&dir, path, left_out)?;
            drop(dir);
            while let Some(path) = pending.pop() {
                let dir = match self.journal.open_at(&path) {
                    Ok(Some(dir)) => dir,
                    Ok(None) => continue,
                    // Nobody can watch it, and it is none of the snapshot.
                    Err(Ended::Unreadable(Errno::ACCESS | Errno::PERM | Errno::XDEV)) => continue,
                    Err(ended) => return Err(ended),
                };
                self.journal.watch(self.walk, &path, &dir);
                pending.extend(self.directories_in(&dir, &path, |_| true)?);
                let mut state = self.journal.state();
                if pending.len() > MOST_PENDING {
                    state.break_for("WatchLimit");
                }
                if state.epoch != self.epoch || state.broken.is_some() {
                    return Err(Ended::Over);
                }
            }
        }
        Ok(())
    }

    /// The directories directly in one that are meant.
    fn directories_in(
        &self,
        dir: &Dir,
        path: &RelPath,
        is_meant: impl Fn(&RelPath) -> bool,
    ) -> Result<Vec<RelPath>, Ended> {
        let mut found = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
        dir.list(&mut buffer, |name, file_type, _| {
            self.journal.check_served()?;
            let may_be = matches!(file_type, FileType::Directory | FileType::Unknown);
            if let (true, Ok(below)) = (may_be, path.join(name.to_bytes()))
                && is_meant(&below)
            {
                found.push(below);
            }
            Ok::<(), Ended>(())
        })?;
        Ok(found)
    }
}
