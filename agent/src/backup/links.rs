//! Groups of names of one inode, as far as this run stores them: every further name gets an exact
//! copy of what the first one got. Bounded: what does not fit is read again for each name.

use super::extents::Extents;
use super::item::{FileContent, LinkKey, Stored};
use crate::index::Record;
use holdfast_format::entry::{Entry, Extent, Kind};
use holdfast_format::path::RelPath;
use std::collections::HashMap;

/// Memory for the contents of first names.
const GROUPS_BYTES: usize = 12 << 20;
/// What a group costs beside its content, about.
const GROUP_BYTES: usize = 512;

/// The groups whose first name was stored in this run.
#[derive(Debug, Default)]
pub struct Groups {
    known: HashMap<LinkKey, First>,
    bytes: usize,
    /// First names that were not stored, and the name that took their place.
    failed: HashMap<RelPath, Option<RelPath>>,
}

#[derive(Debug)]
struct First {
    entry: Entry,
    record: Record,
    content: Kept,
    bytes: usize,
    /// Names that have not come yet.
    others: u32,
}

#[derive(Debug)]
enum Kept {
    Empty,
    Inline(bytes::Bytes),
    Extents(Vec<Extent>),
    AsInParent(RelPath),
}

impl Groups {
    /// Remembers a first name until so many others have come, if there is room.
    pub fn add(&mut self, key: LinkKey, others: u32, stored: &Stored) {
        if stored.entry.kind != Kind::File {
            return;
        }
        let (content, bytes) = match &stored.content {
            FileContent::Empty => (Kept::Empty, 0),
            FileContent::Inline(bytes) => (Kept::Inline(bytes.clone()), bytes.len()),
            FileContent::AsInParent(path) => {
                (Kept::AsInParent(path.clone()), path.as_bytes().len())
            }
            FileContent::Extents(extents) => match extents.in_memory() {
                Some(all) => (Kept::Extents(all.to_vec()), std::mem::size_of_val(all)),
                None => return,
            },
        };
        let bytes = bytes + GROUP_BYTES;
        if self.bytes + bytes > GROUPS_BYTES {
            return;
        }
        self.bytes += bytes;
        let first = First {
            entry: stored.entry.clone(),
            record: stored.record,
            content,
            bytes,
            others,
        };
        if let Some(replaced) = self.known.insert(key, first) {
            self.bytes -= replaced.bytes;
        }
    }

    /// A first name was not stored.
    pub fn failed(&mut self, path: RelPath) {
        self.failed.insert(path, None);
    }

    /// Another name took the place of one that was not stored.
    pub fn replace(&mut self, first: RelPath, by: RelPath) {
        self.failed.insert(first, Some(by));
    }

    /// The path that further names of the group name; `None`: nobody leads the group.
    pub fn first_of(&self, first: &RelPath) -> Option<RelPath> {
        let mut at = first;
        // A chain grows only when replacements fail in their turn.
        while let Some(next) = self.failed.get(at) {
            at = next.as_ref()?;
        }
        Some(at.clone())
    }

    /// What a further name of the inode gets, but for the name of its link.
    pub fn copy(&mut self, key: &LinkKey, old: Option<Record>) -> Option<Stored> {
        let first = self.known.get_mut(key)?;
        first.others = first.others.saturating_sub(1);
        let last = first.others == 0;
        let content = match &first.content {
            Kept::Empty => FileContent::Empty,
            Kept::Inline(bytes) => FileContent::Inline(bytes.clone()),
            Kept::AsInParent(path) => FileContent::AsInParent(path.clone()),
            Kept::Extents(all) => FileContent::Extents(Extents::of_kept(all.clone())),
        };
        let stored = Stored {
            entry: first.entry.clone(),
            content,
            record: first.record,
            old,
            problem: None,
            leads: None,
        };
        if last && let Some(done) = self.known.remove(key) {
            self.bytes -= done.bytes;
        }
        Some(stored)
    }
}
