//! Whether the journal knows of a change: asked when a change was found by other means.

use super::epoch::{Journal, State};
use holdfast_format::path::RelPath;
use std::collections::HashMap;

impl Journal {
    /// Whether the next run looks at this path: it was told of a change there, or of more than that, or it
    /// walks. Everything that was done before this call counts.
    pub(crate) fn will_look_at(&self, path: &RelPath) -> bool {
        self.drain();
        let state = self.state();
        let walks = state.broken.is_some()
            || !state.seeded
            || state.is_walk_due()
            || state.dirty.everything.is_some();
        // A change of an inode is a change of all its names, which are looked for by the run.
        walks
            || !state.dirty.targets.is_empty()
            || state.has_dirty(path)
            || state.has_open(path)
            || state.has_again(path)
    }

    /// A change was missed, so the kernel's word is not to be taken for this epoch.
    pub(crate) fn missed(&self) {
        self.state().break_for("ChangeMissed");
    }
}

impl State {
    /// Whether the path or a directory above it changed.
    fn has_dirty(&self, path: &RelPath) -> bool {
        let mut changed = HashMap::new();
        for (key, changes) in &self.dirty.directories {
            // It may have been another name of this file: the run finds out.
            if changes.names.values().any(|name| name.came_and_went) {
                return true;
            }
            match self.directories.path(key).flatten() {
                Some(directory) => changed.insert(directory, changes),
                None => return true, // Somewhere.
            };
        }
        let mut at = path.clone();
        while let Some(parent) = at.parent() {
            if let Some(changes) = changed.get(&parent)
                && (changes.all || changes.names.contains_key(at.name()))
            {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Whether the file may be open, and so is probed by the run.
    fn has_open(&self, path: &RelPath) -> bool {
        let Some(parent) = path.parent() else {
            return false;
        };
        self.open_files().iter().any(|listed| {
            let here = match self.directories.path(&listed.key).flatten() {
                Some(directory) => directory == parent,
                None => true,
            };
            let named = || listed.names.iter().any(|(name, _)| **name == *path.name());
            here && (listed.all > 0 || named())
        })
    }

    fn has_again(&self, path: &RelPath) -> bool {
        let Some(last) = &self.last else {
            return true;
        };
        let again = &last.again;
        let paths = [&again.unsettled, &again.unknown, &again.elsewhere];
        paths.into_iter().any(|paths| {
            let listed = paths.complete();
            listed.is_none_or(|paths| paths.iter().any(|it| path.is_within(it)))
        })
    }
}
