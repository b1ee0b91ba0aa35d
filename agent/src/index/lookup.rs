//! Single answers from the index, as it was when the lookup was made: what is known of a path, of an
//! inode, of what lies below a directory. Memory: one block.

use super::record::{Block, Record, holds_linked, trust};
use super::writer::directory_prefix;
use super::{Fault, Index, IndexError, paths_of};
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use redb::ReadOnlyTable;
use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

/// Answers questions in any order; those about neighbours are cheap.
pub struct Lookup {
    blocks: ReadOnlyTable<&'static [u8], &'static [u8]>,
    inodes: ReadOnlyTable<&'static [u8], ()>,
    block: Block,
    /// Keys that the decoded block speaks for, present or not.
    covers: Range<Vec<u8>>,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").field("at", &self.covers).finish()
    }
}

impl Lookup {
    pub(super) fn new(index: &Index) -> Result<Self, IndexError> {
        let rows = index.rows()?;
        Ok(Self {
            blocks: rows.blocks()?,
            inodes: rows.inodes()?,
            block: Block::default(),
            covers: Vec::new()..Vec::new(),
        })
    }

    /// What is known of a path.
    pub fn get(&mut self, path: &RelPath) -> Result<Option<Record>, IndexError> {
        let (key, name) = match path.is_root() {
            true => (Vec::new(), &b""[..]),
            false => (path.to_key(), path.name()),
        };
        if !self.covers.contains(&key) {
            self.load(&key, key.len() - name.len())?;
        }
        let found = self.block.find(name);
        Ok(found.copied())
    }

    fn load(&mut self, key: &[u8], prefix_bytes: usize) -> Result<(), IndexError> {
        let prefix = &key[..prefix_bytes];
        let what = "find a path in the index";
        self.covers = Vec::new()..Vec::new();
        let mut at_or_before = self.blocks.range::<&[u8]>(prefix..=key).fault(what)?;
        let start = match at_or_before.next_back() {
            Some(row) => {
                let (found, value) = row.fault(what)?;
                self.block.decode(value.value())?;
                found.value().to_vec()
            }
            None => {
                self.block = Block::default();
                prefix.to_vec()
            }
        };
        let above = [key, &[0]].concat();
        let mut after = self.blocks.range::<&[u8]>(above.as_slice()..).fault(what)?;
        let next = after.next().transpose().fault(what)?;
        let end = match next.map(|(key, _)| key.value().to_vec()) {
            Some(next) if next.starts_with(prefix) => next,
            // A block speaks for its own directory only; no name is as long.
            _ => [prefix, &[0xff; 256]].concat(),
        };
        self.covers = match key.is_empty() {
            true => Vec::new()..vec![0],
            false => start..end,
        };
        Ok(())
    }

    /// The names of a directory, or of an inode that had more than one, in tree order.
    pub fn paths_of(&self, ino: u64) -> Result<Vec<RelPath>, IndexError> {
        paths_of(&self.inodes, ino)
    }

    /// The inodes with several names that have one below a directory.
    pub fn linked_below(&mut self, directory: &RelPath) -> Result<HashSet<u64>, IndexError> {
        let start = directory.subtree_prefix();
        let mut found = HashSet::new();
        self.covers = Vec::new()..Vec::new();
        let what = "read what lies below a path";
        for row in self.blocks.range::<&[u8]>(start.as_slice()..).fault(what)? {
            let (key, value) = row.fault(what)?;
            if !key.value().starts_with(&start) {
                break;
            }
            if holds_linked(value.value()) {
                self.block.decode(value.value())?;
                let links = self.block.iter().filter(|(_, record)| is_link(record));
                found.extend(links.map(|(_, record)| record.ino));
            }
        }
        Ok(found)
    }

    /// Every path of these inodes, by going through the whole index.
    pub fn search(
        &mut self,
        inodes: &HashSet<u64>,
        mut found: impl FnMut(RelPath, &Record),
    ) -> Result<(), IndexError> {
        let mut failed = None;
        let _ended = self.each(|prefix, name, record| {
            if record.kind != Kind::Directory && inodes.contains(&record.ino) {
                match RelPath::from_key(&[prefix, name].concat()) {
                    Ok(path) => found(path, record),
                    Err(error) => {
                        failed = Some(IndexError::Damaged(error.to_string()));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Every record in tree order, with the start of its key (its directory's part) and its name, until
    /// `each` has seen enough.
    pub fn each(
        &mut self,
        mut each: impl FnMut(&[u8], &[u8], &Record) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, IndexError> {
        self.covers = Vec::new()..Vec::new();
        let what = "go through the index";
        for row in self.blocks.range::<&[u8]>(..).fault(what)? {
            let (key, value) = row.fault(what)?;
            self.block.decode(value.value())?;
            let prefix = directory_prefix(key.value());
            for (name, record) in self.block.iter() {
                if each(prefix, name, record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn is_link(record: &Record) -> bool {
    record.kind != Kind::Directory && record.trust & trust::LINKED != 0
}
