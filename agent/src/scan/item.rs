//! What a walk is asked for, and what it gives.

use super::Seen;
use crate::beneath::Dir;
use crate::cancel::Cancel;
use crate::error::ItemProblem;
use crate::priority::Priority;
use crate::stat::Stat;
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// How to walk.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Memory for the names of one directory; beyond it they are sorted on disk.
    pub sort_budget_bytes: usize,
    /// Most entries in one batch.
    pub batch_entries: usize,
    /// Where temporary files of large directories lie; never in the volume.
    pub temporary_directory: PathBuf,
    /// Ends the walk.
    pub cancel: Cancel,
    /// What the walk meets.
    pub seen: Arc<Seen>,
    /// When the run began, by the clock of the filesystem.
    pub began_ns: i64,
    /// Threads that list directories further on while the caller is busy with those before. Without any, a
    /// directory is looked at only when its turn comes.
    pub helpers: usize,
    /// How far the helpers step back behind others.
    pub priority: Priority,
    /// Called with each directory that was opened, right before it is listed.
    pub before_listing: Option<BeforeListing>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            sort_budget_bytes: 16 * 1024 * 1024,
            batch_entries: 1024,
            temporary_directory: std::env::temp_dir(),
            cancel: Cancel::new(),
            seen: Arc::new(Seen::new(&std::env::temp_dir())),
            began_ns: i64::MAX,
            helpers: 0,
            priority: Priority::Normal,
            before_listing: None,
        }
    }
}

/// What is done with a directory after it was opened and before its first name is read: a change after that
/// moment is to be noticed. By whichever thread lists it, for several directories at a time.
#[derive(Clone)]
pub struct BeforeListing(Arc<Act>);

type Act = dyn Fn(&RelPath, &Dir) + Send + Sync;

impl BeforeListing {
    /// Does this; from any thread.
    pub fn new(act: impl Fn(&RelPath, &Dir) + Send + Sync + 'static) -> Self {
        Self(Arc::new(act))
    }

    pub(super) fn call(&self, path: &RelPath, dir: &Dir) {
        (self.0)(path, dir);
    }
}

impl fmt::Debug for BeforeListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BeforeListing")
    }
}

/// One thing found in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name; empty for the root itself.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its metadata when it was found.
    pub stat: Stat,
    /// A mount inside the volume: recorded empty, not entered. Its metadata is the mount's.
    pub boundary: bool,
}

/// Things found in a directory, sorted by name, packed: most of them are only looked at in passing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Children {
    names: Vec<u8>,
    packed: Vec<Packed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed {
    /// Where its name ends in `names`; it begins where the one before ends.
    end: u32,
    boundary: bool,
    stat: Stat,
}

/// One of [`Children`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child<'c> {
    /// Its name.
    pub name: &'c [u8],
    /// Its metadata when it was found.
    pub stat: &'c Stat,
    /// A mount inside the volume.
    pub boundary: bool,
}

impl Children {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            names: Vec::with_capacity(count * 16),
            packed: Vec::with_capacity(count),
        }
    }

    pub(super) fn push(&mut self, name: &[u8], stat: Stat, boundary: bool) {
        self.names.extend_from_slice(name);
        self.packed.push(Packed {
            // A batch holds far less than 4 GiB of names.
            end: self.names.len() as u32,
            boundary,
            stat,
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The one at this place.
    pub fn get(&self, at: usize) -> Option<Child<'_>> {
        let packed = self.packed.get(at)?;
        let start = match at {
            0 => 0,
            at => self.packed[at - 1].end as usize,
        };
        Some(Child {
            name: &self.names[start..packed.end as usize],
            stat: &packed.stat,
            boundary: packed.boundary,
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Child<'_>> {
        let mut start = 0;
        self.packed.iter().map(move |packed| {
            let name = &self.names[start..packed.end as usize];
            start = packed.end as usize;
            Child {
                name,
                stat: &packed.stat,
                boundary: packed.boundary,
            }
        })
    }
}

impl Children {
    /// Regular files, the sum of their sizes, and directories among them.
    pub fn counts(&self) -> (u64, u64, u64) {
        let (mut files, mut bytes, mut directories) = (0, 0, 0);
        for packed in &self.packed {
            match packed.stat.kind {
                Kind::File => {
                    files += 1;
                    bytes += packed.stat.size;
                }
                Kind::Directory => directories += 1,
                _ => {}
            }
        }
        (files, bytes, directories)
    }
}

impl Child<'_> {
    /// By itself.
    pub fn to_found(self) -> Found {
        Found {
            name: self.name.to_vec(),
            kind: self.stat.kind,
            stat: *self.stat,
            boundary: self.boundary,
        }
    }
}

/// A name that was listed and of which nothing else is known: what the parent snapshot has of it
/// (and below it) stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its name.
    pub name: Vec<u8>,
    /// Why.
    pub problem: ItemProblem,
}

/// Consecutive children of one directory.
#[derive(Debug)]
pub struct DirBatch {
    /// The directory.
    pub path: RelPath,
    /// The directory, open; held no longer than the batch is in use.
    pub dir: Arc<Dir>,
    /// What the rules leave out is not here.
    pub entries: Children,
    /// Sorted by name; no name of `entries`.
    pub failed: Vec<Failed>,
    /// Names that were asked for and are not there, sorted; none where the directory was listed.
    pub absent: Vec<Vec<u8>>,
    /// Whether the directory was listed: what is not in its batches is not in it. Otherwise only the
    /// names in this batch were asked for.
    pub whole: bool,
    /// Whether the directory has no more; every directory that was listed has one last batch.
    pub last: bool,
}

/// What a walk gives.
#[derive(Debug)]
pub enum Scanned {
    /// The root itself: first of all, unless the root cannot be read at all.
    Root {
        /// The root, open.
        dir: Arc<Dir>,
        /// Its metadata, with an empty name.
        found: Found,
    },
    /// Children of a directory.
    Batch(DirBatch),
    /// A directory whose children are unknown: what the parent snapshot has below it stands.
    ListingFailed {
        /// The directory.
        path: RelPath,
        /// Why.
        problem: ItemProblem,
    },
    /// The walk cannot go on (its temporary file failed); always the last. The run must fail.
    Aborted {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What a walk met, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Directories listed.
    pub directories_count: u64,
    /// Entries emitted.
    pub entries_count: u64,
    /// Entries left out by the rules.
    pub excluded_count: u64,
    /// Names that were gone when they were looked at.
    pub vanished_count: u64,
    /// Mounts inside the volume.
    pub boundary_count: u64,
    /// Directories that needed the disk to be sorted.
    pub spilled_count: u64,
}

impl ScanStats {
    /// Adds another walk's.
    pub fn add(&mut self, other: &Self) {
        self.directories_count += other.directories_count;
        self.entries_count += other.entries_count;
        self.excluded_count += other.excluded_count;
        self.vanished_count += other.vanished_count;
        self.boundary_count += other.boundary_count;
        self.spilled_count += other.spilled_count;
    }
}
