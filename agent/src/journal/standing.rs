//! How a volume stands: whether its journal is trusted, and how far it is ahead of its newest snapshot.

use super::epoch::{Journal, State};
use crate::beneath::Root;
use holdfast_format::path::RelPath;
use std::time::Duration;

/// Changed files that are asked for their sizes; those of the others are like theirs.
const SAMPLE: usize = 200;

/// How a volume stands with its journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// "trusted", "seeding" or "walk".
    pub mode: &'static str,
    /// Why it is walked.
    pub reason: &'static str,
    /// Since the oldest change that is not protected.
    pub exposed: Option<Duration>,
    /// Since the newest change.
    pub quiet: Option<Duration>,
    /// Names that may have changed, about.
    pub names: u64,
    /// Bytes of the files that may have changed, about: whole files, whatever changed in them.
    pub bytes: u64,
    /// Directories that are watched.
    pub watched: u64,
}

impl Journal {
    /// How the volume stands.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.state();
        let (mode, reason) = match (state.broken, state.seeded) {
            (Some(reason), _) => ("walk", reason),
            (None, false) => ("seeding", ""),
            (None, true) => ("trusted", ""),
        };
        let names = state.dirty.names_count();
        let sample = state.sample();
        let standing = Standing {
            mode,
            reason,
            exposed: state.changes.first.map(|first| first.elapsed()),
            quiet: state.changes.newest.map(|newest| newest.elapsed()),
            names: names as u64,
            bytes: 0,
            watched: state.directories.len() as u64,
        };
        drop(state);
        Standing {
            bytes: self.bytes_of(&sample, names),
            ..standing
        }
    }

    /// What so many files hold, if they are like these.
    fn bytes_of(&self, sample: &[(RelPath, Box<[u8]>)], names: usize) -> u64 {
        if sample.is_empty() {
            return 0;
        }
        let Ok(root) = Root::open(&self.path) else {
            return 0;
        };
        let size = |(directory, name): &(RelPath, Box<[u8]>)| {
            let stat = root.dir(directory).and_then(|dir| dir.stat(name));
            stat.map_or(0, |stat| stat.size)
        };
        let bytes: u64 = sample.iter().map(size).sum();
        // Below 2^53: exact enough for an estimate.
        (bytes as f64 / sample.len() as f64 * names as f64) as u64
    }
}

impl State {
    /// Some of the names that may have changed.
    fn sample(&self) -> Vec<(RelPath, Box<[u8]>)> {
        let mut sample = Vec::new();
        for (key, changes) in &self.dirty.directories {
            let Some(Some(directory)) = self.directories.path(key) else {
                continue;
            };
            for name in changes.names.keys().take(SAMPLE - sample.len()) {
                sample.push((directory.clone(), name.clone()));
            }
            if sample.len() == SAMPLE {
                break;
            }
        }
        sample
    }
}
