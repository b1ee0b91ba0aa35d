//! Streams the index in the order of the tree, to be merged with a walk of the volume.
//!
//! Memory: one block. Directories must be entered in tree order; whatever lies between is passed over.

use super::record::{Block, Record};
use super::{Fault, IndexError, Rows, paths_of};
use holdfast_format::path::RelPath;
use redb::{Range, ReadOnlyTable};
use std::cmp::Ordering;
use std::sync::Arc;

/// Blocks passed over one by one before the store is asked to seek.
const STEPS_BEFORE_SEEK: usize = 8;

/// A position in the index as it was when the run began.
pub struct Cursor {
    table: Option<Opened>,
    block: Block,
    /// Key of the decoded block; only meaningful while `loaded`.
    key: Vec<u8>,
    loaded: bool,
    at: usize,
    /// Prefix of the keys of the directory that was entered.
    prefix: Vec<u8>,
}

struct Opened {
    table: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    inodes: Arc<ReadOnlyTable<&'static [u8], ()>>,
    range: Range<'static, &'static [u8], &'static [u8]>,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("key", &self.key).finish()
    }
}

impl Cursor {
    /// Over nothing: a run without a parent.
    pub fn empty() -> Self {
        Self {
            table: None,
            block: Block::default(),
            key: Vec::new(),
            loaded: false,
            at: 0,
            prefix: Vec::new(),
        }
    }

    pub(super) fn new(rows: &Rows) -> Result<Self, IndexError> {
        let (table, inodes) = (Arc::new(rows.blocks()?), Arc::new(rows.inodes()?));
        let range = table
            .range::<&[u8]>(..)
            .fault("read the first block of the index")?;
        Ok(Self {
            table: Some(Opened {
                table,
                inodes,
                range,
            }),
            ..Self::empty()
        })
    }

    /// Where the directory with this inode number was, and a position before its first child there.
    /// It may be another directory that had the number before: what lies in it must prove itself.
    pub fn directory_of(&self, ino: u64) -> Result<Option<(RelPath, Self)>, IndexError> {
        let Some(opened) = &self.table else {
            return Ok(None);
        };
        let Some(path) = paths_of(&opened.inodes, ino)?.into_iter().next() else {
            return Ok(None);
        };
        let mut there = Self {
            table: Some(Opened {
                table: opened.table.clone(),
                inodes: opened.inodes.clone(),
                range: opened
                    .table
                    .range::<&[u8]>(path.children_prefix().as_slice()..)
                    .fault("seek in the index")?,
            }),
            ..Self::empty()
        };
        there.enter(&path)?;
        Ok(Some((path, there)))
    }

    /// What is known of this child of the directory that was entered; names must ascend.
    pub fn find(&mut self, name: &[u8]) -> Result<Option<Record>, IndexError> {
        while let Some((known, record)) = self.peek()? {
            match known.cmp(name) {
                Ordering::Less => self.pass(),
                Ordering::Equal => return Ok(Some(*record)),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// What is known of the volume's root.
    pub fn root(&self) -> Result<Option<Record>, IndexError> {
        let Some(opened) = &self.table else {
            return Ok(None);
        };
        let stored = opened.table.get(&b""[..]).fault("read the root's record")?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let mut block = Block::default();
        block.decode(stored.value())?;
        Ok(block.get(0).map(|(_, record)| *record))
    }

    /// Goes to the first child of a directory; directories must come in tree order.
    pub fn enter(&mut self, directory: &RelPath) -> Result<(), IndexError> {
        self.prefix = directory.children_prefix();
        let mut steps = 0;
        while !self.loaded || self.key.as_slice() < self.prefix.as_slice() {
            if steps == STEPS_BEFORE_SEEK {
                self.seek()?;
            }
            if !self.advance()? {
                return Ok(());
            }
            steps += 1;
        }
        Ok(())
    }

    /// The next child of the directory that was entered; it stays the next until `pass`.
    pub fn peek(&mut self) -> Result<Option<(&[u8], &Record)>, IndexError> {
        while self.at_end_of_block() {
            // The next block may be of this directory too; where it is not, it stays loaded.
            if !self.inside() || !self.advance()? {
                return Ok(None);
            }
        }
        if !self.inside() {
            return Ok(None);
        }
        Ok(self.block.get(self.at))
    }

    /// Leaves the child that `peek` shows.
    pub fn pass(&mut self) {
        self.at += 1;
    }

    /// The next child by value of its name, and leaves it.
    pub fn take(&mut self) -> Result<Option<(Vec<u8>, Record)>, IndexError> {
        let next = self.peek()?.map(|(name, record)| (name.to_vec(), *record));
        if next.is_some() {
            self.pass();
        }
        Ok(next)
    }

    fn at_end_of_block(&self) -> bool {
        self.loaded && self.at >= self.block.len()
    }

    fn inside(&self) -> bool {
        self.loaded && self.key.starts_with(&self.prefix)
    }

    fn seek(&mut self) -> Result<(), IndexError> {
        if let Some(opened) = &mut self.table {
            opened.range = opened
                .table
                .range::<&[u8]>(self.prefix.as_slice()..)
                .fault("seek in the index")?;
        }
        Ok(())
    }

    /// Loads the next block's key, and its records when it is in or behind the entered directory.
    fn advance(&mut self) -> Result<bool, IndexError> {
        self.at = 0;
        self.loaded = false;
        let Some(opened) = &mut self.table else {
            return Ok(false);
        };
        let Some(row) = opened.range.next() else {
            self.block = Block::default();
            return Ok(false);
        };
        let (key, value) = row.fault("read a block of the index")?;
        self.key.clear();
        self.key.extend_from_slice(key.value());
        self.loaded = true;
        if self.key.as_slice() >= self.prefix.as_slice() {
            self.block.decode(value.value())?;
        } else {
            // Passed over: `enter` goes on.
            self.block = Block::default();
        }
        Ok(true)
    }
}
