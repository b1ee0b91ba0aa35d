//! What a walk is asked for, and what it gives.

use super::Seen;
use crate::beneath::Dir;
use crate::cancel::Cancel;
use crate::error::ItemProblem;
use crate::stat::Stat;
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
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
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            sort_budget_bytes: 16 * 1024 * 1024,
            batch_entries: 256,
            temporary_directory: std::env::temp_dir(),
            cancel: Cancel::new(),
            seen: Arc::new(Seen::new(&std::env::temp_dir())),
            began_ns: i64::MAX,
        }
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
    /// Sorted by name. What the rules leave out is not here.
    pub entries: Vec<Found>,
    /// Sorted by name; no name of `entries`.
    pub failed: Vec<Failed>,
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
