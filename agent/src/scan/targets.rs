//! Which paths a run has to look at, in the order of the tree; everything else is known to be unchanged.
//!
//! Pure. A path below a subtree that is walked whole is not looked at twice.

use holdfast_format::path::RelPath;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

/// What is known of a name before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A directory with this inode number: only its own metadata may have changed.
    Directory(u64),
    /// Nothing, or something else: if it is a directory, everything below it is new.
    Other,
}

/// The paths of one run.
#[derive(Debug, Default)]
pub struct Targets {
    /// Whether the root's own metadata may have changed.
    root: bool,
    /// By the prefix of the keys of their children.
    directories: BTreeMap<Vec<u8>, Directory>,
    names_count: usize,
}

/// What to look at in one directory.
#[derive(Debug)]
pub struct Directory {
    /// Which.
    pub path: RelPath,
    /// All of it, and everything below; the names do not matter then.
    pub whole: bool,
    /// These names, in order.
    pub names: BTreeMap<Vec<u8>, Known>,
}

impl Targets {
    /// This path: its metadata, and its content where that may have changed.
    pub fn add(&mut self, path: &RelPath, known: Known) {
        let Some(parent) = path.parent() else {
            self.root = true;
            return;
        };
        let directory = self.directory(parent);
        match directory.names.entry(path.name().to_vec()) {
            Entry::Vacant(entry) => {
                entry.insert(known);
                self.names_count += 1;
            }
            // The doubt stays.
            Entry::Occupied(mut entry) if known == Known::Other => {
                entry.insert(known);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// Everything below this path.
    pub fn add_below(&mut self, path: &RelPath) {
        self.directory(path.clone()).whole = true;
    }

    /// Whether a path is among them already, by itself or by a directory above it.
    pub fn covers(&self, path: &RelPath) -> bool {
        let Some(parent) = path.parent() else {
            return self.root;
        };
        let named = self
            .directories
            .get(&parent.children_prefix())
            .is_some_and(|directory| directory.names.contains_key(path.name()));
        named || self.walks(&parent)
    }

    /// Whether everything in this directory is among them.
    pub fn walks(&self, directory: &RelPath) -> bool {
        let mut at = Some(directory.clone());
        while let Some(path) = at {
            let found = self.directories.get(&path.children_prefix());
            if found.is_some_and(|directory| directory.whole) {
                return true;
            }
            at = path.parent();
        }
        false
    }

    /// All single paths.
    pub fn paths(&self) -> HashSet<RelPath> {
        let all = self.directories.values();
        all.flat_map(|directory| {
            let names = directory.names.keys();
            names.filter_map(|name| directory.path.join(name).ok())
        })
        .collect()
    }

    /// Single names.
    pub fn names_count(&self) -> usize {
        self.names_count
    }

    /// Whether the root's own metadata is to be looked at; no longer afterwards.
    pub fn take_root(&mut self) -> bool {
        std::mem::take(&mut self.root)
    }

    /// The next directory in the order of the tree. What lies below one that is walked whole is left out.
    pub fn take_next(&mut self) -> Option<Directory> {
        let (key, directory) = self.directories.pop_first()?;
        if directory.whole {
            let below = directory.path.subtree_prefix();
            while let Some(next) = self.directories.first_entry() {
                if !next.key().starts_with(&below) {
                    break;
                }
                next.remove();
            }
            debug_assert!(key >= below);
        }
        Some(directory)
    }

    fn directory(&mut self, path: RelPath) -> &mut Directory {
        self.directories
            .entry(path.children_prefix())
            .or_insert_with(|| Directory {
                path,
                whole: false,
                names: BTreeMap::new(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn come_in_the_order_of_the_tree_and_each_once() {
        let mut targets = Targets::default();
        for name in [
            "b/c/x", "a-b/x", "a/z", "a/b/y", "a/b/c/d", "a/b", "b/c/w", "top",
        ] {
            targets.add(&path(name), Known::Other);
        }
        targets.add(&path("a/b"), Known::Directory(7));
        targets.add_below(&path("a/b"));
        assert!(targets.covers(&path("a/b/c/anything")));
        assert!(targets.covers(&path("a/z")));
        assert!(!targets.covers(&path("a/y")));
        assert!(!targets.take_root());
        targets.add(&RelPath::root(), Known::Other);
        assert!(targets.take_root());
        let mut all = Vec::new();
        while let Some(directory) = targets.take_next() {
            let names: Vec<String> = match directory.whole {
                true => vec!["*".to_owned()],
                false => directory
                    .names
                    .keys()
                    .map(|name| String::from_utf8_lossy(name).into_owned())
                    .collect(),
            };
            all.push(format!("{}: {}", directory.path, names.join(" ")));
        }
        assert_eq!(
            all,
            [
                ".: top".replace(".: ", &format!("{}: ", RelPath::root())),
                "a: b z".to_owned(),
                "a/b: *".to_owned(),
                "a-b: x".to_owned(),
                "b/c: w x".to_owned()
            ]
        );
    }
}
