//! A change to a tree: the wire's and the tree's one idea of it.

use crate::entry::Entry;
use crate::path::RelPath;

/// What happens to one path against the parent's tree. Changes of a run come in key order, no path
/// twice. `Remove` of a directory, or `Put` of another kind over one, removes its whole range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The path now has this entry.
    Put(RelPath, Box<Entry>),
    /// The path (and its subtree) is gone.
    Remove(RelPath),
}

impl Change {
    /// The path it is about.
    pub fn path(&self) -> &RelPath {
        match self {
            Change::Put(path, _) | Change::Remove(path) => path,
        }
    }
}
