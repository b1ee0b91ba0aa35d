//! What a run reads whatever its stamps say: single paths, or all where nothing is believed.

use holdfast_format::path::RelPath;
use std::collections::HashSet;

/// Paths whose stamps do not count.
#[derive(Debug)]
pub struct Reread {
    paths: HashSet<RelPath>,
    /// The directories that they lie in.
    directories: HashSet<RelPath>,
    /// Whether the directory that was entered has some.
    here: bool,
    everything: bool,
}

impl Reread {
    /// These paths, or everything.
    pub fn new(paths: HashSet<RelPath>, everything: bool) -> Self {
        Self {
            directories: paths.iter().filter_map(RelPath::parent).collect(),
            here: everything,
            everything,
            paths,
        }
    }

    /// The walk is in this directory now.
    pub fn enter(&mut self, directory: &RelPath) {
        self.here = self.everything || self.directories.contains(directory);
    }

    /// Whether any path of the directory that was entered is read.
    pub fn is_here(&self) -> bool {
        self.here
    }

    /// Whether this path was asked for.
    pub fn names(&self, path: &RelPath) -> bool {
        !self.paths.is_empty() && self.paths.contains(path)
    }

    /// Whether this path is read.
    pub fn has(&self, path: &RelPath) -> bool {
        self.everything || self.names(path)
    }
}
