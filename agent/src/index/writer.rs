//! Edits of one run, in tree order, gathered into whole blocks and written in one transaction.
//!
//! Old blocks are read from the state before the run; nothing is seen by a later run before `commit`.
//! A block whose records did not change is not written; a run without edits writes one row.

use super::meta::{Meta, Totals};
use super::record::{BLOCK_TARGET_BYTES, Block, BlockBuilder, Record, holds_linked, trust};
use super::{BLOCKS, Fault, INODES, Index, IndexError, META, META_KEY, begin};
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use redb::{Database, ReadOnlyTable, WriteTransaction};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of finished blocks after which they go to the store.
const FLUSH_BYTES: usize = 1 << 20;

/// Takes the edits of one run.
pub struct Writer {
    database: Arc<Database>,
    blocks: ReadOnlyTable<&'static [u8], &'static [u8]>,
    transaction: Option<WriteTransaction>,
    pending: Vec<Op>,
    pending_bytes: usize,
    open: Option<Open>,
    spare: Block,
    totals: Totals,
    changed: Changed,
}

/// What the edits so far have done to regular files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Paths that were no files before.
    pub added: u64,
    /// Paths that are no files any more.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Files whose content is another.
    pub rewritten: u64,
}

/// A write that waits for the next flush; in key order.
enum Op {
    Insert(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Range<Vec<u8>>),
    Link(Vec<u8>),
    Unlink(Vec<u8>),
}

/// The block that the edits have reached.
struct Open {
    /// Prefix of the directory's keys.
    prefix: Vec<u8>,
    /// Key of the old block, or the one its first successor gets.
    key: Vec<u8>,
    /// Whether a block of that key is stored, and its bytes.
    stored: Option<Vec<u8>>,
    /// Key of the next block of the directory; edits from there on belong to it.
    upper: Option<Vec<u8>>,
    old: Block,
    at: usize,
    builder: BlockBuilder,
    /// Key of the block being built.
    building: Vec<u8>,
    done: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether a block of the key `key` went to the writer.
    replaced: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("pending_bytes", &self.pending_bytes)
            .finish()
    }
}

impl Writer {
    pub(super) fn new(index: &Index) -> Result<Self, IndexError> {
        let blocks = index.rows()?.blocks()?;
        Ok(Self {
            database: index.database.clone(),
            blocks,
            transaction: None,
            pending: Vec::new(),
            pending_bytes: 0,
            open: None,
            spare: Block::default(),
            totals: index
                .meta
                .as_ref()
                .map(|meta| meta.totals)
                .unwrap_or_default(),
            changed: Changed::default(),
        })
    }

    /// What the index will hold after these edits.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What the edits have done to regular files.
    pub fn changed(&self) -> Changed {
        self.changed
    }

    /// What is now known of a path. Paths of `put` and `remove` ascend in tree order.
    pub fn put(&mut self, path: &RelPath, record: &Record) -> Result<(), IndexError> {
        if path.is_root() {
            let mut builder = BlockBuilder::default();
            builder.push(b"", record);
            let bytes = builder.finish();
            let known = self.blocks.get(&b""[..]);
            if known.fault("read the root's record")?.is_none() {
                self.totals.add(record);
            }
            return self.push(Op::Insert(Vec::new(), bytes));
        }
        let key = path.to_key();
        if record.trust & trust::LINKED != 0 {
            self.push(Op::Link(link_key(record.ino, &key)))?;
        }
        self.edit(path, key, Some(record))
    }

    /// The path is gone, with everything below it.
    pub fn remove(&mut self, path: &RelPath) -> Result<(), IndexError> {
        self.edit(path, path.to_key(), None)?;
        self.remove_below(path)
    }

    /// Everything below a path is gone: it is no longer a directory, or not one to be entered.
    pub fn remove_below(&mut self, path: &RelPath) -> Result<(), IndexError> {
        let start = path.subtree_prefix();
        let mut end = start.clone();
        match end.last_mut() {
            // The prefix ends with 0x00, so 0x01 in its place ends the range.
            Some(last) => *last = 1,
            None => return Ok(()),
        }
        let mut any = false;
        let range = self
            .blocks
            .range::<&[u8]>(start.as_slice()..end.as_slice())
            .fault("read what lies below a path")?;
        let mut unlinked = Vec::new();
        for row in range {
            let (key, value) = row.fault("read what lies below a path")?;
            any = true;
            self.spare.decode(value.value())?;
            for (_, record) in self.spare.iter() {
                self.totals.remove(record);
                self.changed.count(Some(record), None);
            }
            if holds_linked(value.value()) {
                let prefix = directory_prefix(key.value());
                for (name, record) in self.spare.iter() {
                    if record.trust & trust::LINKED != 0 {
                        unlinked.push(link_key(record.ino, &[prefix, name].concat()));
                    }
                }
            }
        }
        for key in unlinked {
            self.push(Op::Unlink(key))?;
        }
        if any {
            self.push(Op::DeleteRange(start..end))?;
        }
        Ok(())
    }

    /// Makes the edits and the description visible, durably and at once.
    pub fn commit(mut self, meta: &Meta) -> Result<(), IndexError> {
        self.close_block()?;
        self.flush()?;
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => begin(&self.database)?,
        };
        transaction
            .open_table(META)
            .fault("open the index's description")?
            .insert(META_KEY, meta.encode().as_slice())
            .fault("write the index's description")?;
        // The reader's state is given back first, so that its pages can be used again.
        drop(self.blocks);
        transaction.commit().fault("commit the index")
    }

    fn edit(
        &mut self,
        path: &RelPath,
        key: Vec<u8>,
        record: Option<&Record>,
    ) -> Result<(), IndexError> {
        let name = path.name();
        let fits = self.open.as_ref().is_some_and(|open| {
            key.starts_with(&open.prefix)
                && key.len() == open.prefix.len() + name.len()
                && open.upper.as_ref().is_none_or(|upper| key < *upper)
        });
        if !fits {
            self.close_block()?;
            let prefix_bytes = key.len() - name.len();
            self.open_block(key[..prefix_bytes].to_vec(), &key)?;
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.copy_until(name);
        let mut unlinked = None;
        if let Some((old_name, old)) = open.old.get(open.at)
            && old_name == name
        {
            let kept =
                record.is_some_and(|new| new.trust & trust::LINKED != 0 && new.ino == old.ino);
            if old.trust & trust::LINKED != 0 && !kept {
                unlinked = Some(link_key(old.ino, &key));
            }
            self.totals.remove(old);
            self.changed.count(Some(old), record);
            open.at += 1;
        } else {
            self.changed.count(None, record);
        }
        if let Some(record) = record {
            self.totals.add(record);
            open.append(name, record);
        }
        if !open.done.is_empty()
            && let Some(mut open) = self.open.take()
        {
            self.take_done(&mut open)?;
            self.open = Some(open);
        }
        if let Some(key) = unlinked {
            self.push(Op::Unlink(key))?;
        }
        Ok(())
    }

    fn open_block(&mut self, prefix: Vec<u8>, key: &[u8]) -> Result<(), IndexError> {
        let mut open = Open {
            key: prefix.clone(),
            building: Vec::new(),
            stored: None,
            upper: None,
            old: std::mem::take(&mut self.spare),
            at: 0,
            builder: BlockBuilder::default(),
            done: Vec::new(),
            replaced: false,
            prefix,
        };
        let covering = self
            .blocks
            .range::<&[u8]>(open.prefix.as_slice()..=key)
            .fault("find a block of the index")?
            .next_back();
        match covering {
            Some(row) => {
                let (found, value) = row.fault("read a block of the index")?;
                open.key = found.value().to_vec();
                open.old.decode(value.value())?;
                open.stored = Some(value.value().to_vec());
            }
            None => open.old = Block::default(),
        }
        let above = [key, &[0]].concat();
        let next = self
            .blocks
            .range::<&[u8]>(above.as_slice()..)
            .fault("find a block of the index")?
            .next();
        if let Some(row) = next {
            let (next, _) = row.fault("read a block of the index")?;
            if next.value().starts_with(&open.prefix) {
                open.upper = Some(next.value().to_vec());
            }
        }
        open.building = open.key.clone();
        self.open = Some(open);
        Ok(())
    }

    fn close_block(&mut self) -> Result<(), IndexError> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.copy_rest();
        if !open.builder.is_empty() {
            let block = open.builder.finish();
            open.done.push((std::mem::take(&mut open.building), block));
        }
        self.take_done(&mut open)?;
        if open.stored.is_some() && !open.replaced {
            self.push(Op::Delete(open.key))?;
        }
        self.spare = open.old;
        Ok(())
    }

    /// Takes over the finished blocks; one that is stored as it is, is not written again.
    fn take_done(&mut self, open: &mut Open) -> Result<(), IndexError> {
        for (key, block) in open.done.drain(..) {
            let same = !open.replaced && open.stored.as_ref() == Some(&block);
            open.replaced = true;
            if !same {
                self.push(Op::Insert(key, block))?;
            }
        }
        Ok(())
    }

    fn push(&mut self, op: Op) -> Result<(), IndexError> {
        self.pending_bytes += match &op {
            Op::Insert(key, value) => key.len() + value.len(),
            Op::Delete(key) | Op::Link(key) | Op::Unlink(key) => key.len(),
            Op::DeleteRange(range) => range.start.len() * 2,
        } + 64;
        self.pending.push(op);
        if self.pending_bytes >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.transaction.is_none() {
            self.transaction = Some(begin(&self.database)?);
        }
        let Some(transaction) = &self.transaction else {
            return Ok(());
        };
        let mut blocks = transaction
            .open_table(BLOCKS)
            .fault("open the index's blocks")?;
        let mut inodes = transaction
            .open_table(INODES)
            .fault("open the index's inodes")?;
        for op in self.pending.drain(..) {
            match op {
                Op::Insert(key, value) => {
                    blocks
                        .insert(key.as_slice(), value.as_slice())
                        .fault("write a block of the index")?;
                }
                Op::Delete(key) => {
                    blocks
                        .remove(key.as_slice())
                        .fault("delete a block of the index")?;
                }
                Op::DeleteRange(range) => {
                    blocks
                        .retain_in::<&[u8], _>(
                            range.start.as_slice()..range.end.as_slice(),
                            |_, _| false,
                        )
                        .fault("delete blocks of the index")?;
                }
                Op::Link(key) => {
                    inodes
                        .insert(key.as_slice(), ())
                        .fault("write a link of the index")?;
                }
                Op::Unlink(key) => {
                    inodes
                        .remove(key.as_slice())
                        .fault("delete a link of the index")?;
                }
            }
        }
        self.pending_bytes = 0;
        Ok(())
    }
}

impl Changed {
    fn count(&mut self, old: Option<&Record>, new: Option<&Record>) {
        let file = |record: &&Record| record.kind == Kind::File;
        match (old.filter(file), new.filter(file)) {
            (None, Some(_)) => self.added += 1,
            (Some(old), None) => {
                self.removed += 1;
                self.removed_bytes = self.removed_bytes.saturating_add(old.size);
            }
            (Some(old), Some(new)) if old.content != new.content => self.rewritten += 1,
            _ => {}
        }
    }
}

impl Open {
    fn copy_until(&mut self, name: &[u8]) {
        while let Some((old_name, record)) = self.old.get(self.at)
            && old_name < name
        {
            push(
                &mut self.builder,
                &mut self.building,
                &mut self.done,
                &self.prefix,
                (old_name, record),
            );
            self.at += 1;
        }
    }

    fn copy_rest(&mut self) {
        while let Some(old) = self.old.get(self.at) {
            push(
                &mut self.builder,
                &mut self.building,
                &mut self.done,
                &self.prefix,
                old,
            );
            self.at += 1;
        }
    }

    fn append(&mut self, name: &[u8], record: &Record) {
        push(
            &mut self.builder,
            &mut self.building,
            &mut self.done,
            &self.prefix,
            (name, record),
        );
    }
}

/// Adds a record to the block being built, beginning another when it is full.
fn push(
    builder: &mut BlockBuilder,
    building: &mut Vec<u8>,
    done: &mut Vec<(Vec<u8>, Vec<u8>)>,
    prefix: &[u8],
    (name, record): (&[u8], &Record),
) {
    if builder.len() >= BLOCK_TARGET_BYTES {
        let block = builder.finish();
        let key = std::mem::replace(building, [prefix, name].concat());
        done.push((key, block));
    }
    builder.push(name, record);
}

/// Key in the table of links: the inode, then the path's key.
pub(super) fn link_key(ino: u64, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + key.len());
    out.extend_from_slice(&ino.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// The part of a block's key that names the directory.
pub(super) fn directory_prefix(key: &[u8]) -> &[u8] {
    let end = key
        .windows(2)
        .position(|pair| pair == [0, 0])
        .map_or(key.len(), |at| at + 2);
    &key[..end]
}
