//! Groups items into batches for the workers and lines the batches up for the sequencer.
//!
//! A batch takes its memory when it is dispatched, in the order in which batches leave.

use super::item::{Batch, Item, Piece, Source, Task};
use super::shared::{PART_MOST_BYTES, Shared};
use crate::beneath::Dir;
use crate::error::{Error, Result};
use holdfast_format::entry::Kind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Most items of a batch.
const MOST_ITEMS: usize = 512;
/// Content of a batch, bytes: about one frame.
const CONTENT_BYTES: u64 = 1 << 20;
/// A file of this size is a batch of its own.
const LARGE_BYTES: u64 = 768 * 1024;
/// Most directories that a batch holds open.
const MOST_DIRECTORIES: usize = 32;
/// What an item costs beside its content, and what an open directory is made to cost, so that the
/// budget bounds descriptors too.
const ITEM_BYTES: u64 = 1024;
const DIRECTORY_BYTES: u64 = 128 * 1024;
/// Batches of the scan without a new item after which what has gathered goes on its way.
const PATIENCE: u32 = 64;

/// A batch on its way, as the sequencer sees it.
pub type Slot = (u64, Receiver<Piece>);

/// Gathers items.
#[derive(Debug)]
pub struct Batcher<'a> {
    shared: &'a Shared,
    slots: Sender<Slot>,
    items: Vec<Item>,
    content_bytes: u64,
    path_bytes: u64,
    directories: Vec<Arc<Dir>>,
    number: u64,
    idle: u32,
}

impl<'a> Batcher<'a> {
    /// Batches go to the run's pool, their slots to the sequencer.
    pub fn new(shared: &'a Shared, slots: Sender<Slot>) -> Self {
        Self {
            shared,
            slots,
            items: Vec::new(),
            content_bytes: 0,
            path_bytes: 0,
            directories: Vec::new(),
            number: 0,
            idle: 0,
        }
    }

    /// The next item, in tree order.
    pub fn push(&mut self, item: Item) -> Result<()> {
        self.idle = 0;
        let content = content_bytes(&item);
        // A path may be 32 KiB, and a deep directory may hold any number of them.
        let path = item.path.as_bytes().len() as u64;
        let dir = match &item.task {
            Task::Look(look) | Task::Link { look, .. } => Some(look.dir.clone()),
            _ => None,
        };
        let new_dir = dir.filter(|dir| {
            self.directories
                .last()
                .is_none_or(|last| !Arc::ptr_eq(last, dir))
        });
        let full = self.items.len() >= MOST_ITEMS
            || content >= LARGE_BYTES
            || self.content_bytes + content > CONTENT_BYTES
            || self.path_bytes + path > CONTENT_BYTES
            || (new_dir.is_some() && self.directories.len() >= MOST_DIRECTORIES);
        if full {
            self.flush()?;
        }
        self.directories.extend(new_dir);
        self.content_bytes += content;
        self.path_bytes += path;
        self.items.push(item);
        if content >= LARGE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// The scan has got on without new items: what has gathered need not wait for ever.
    pub fn rest(&mut self) -> Result<()> {
        self.idle += 1;
        if self.idle >= PATIENCE && !self.items.is_empty() {
            self.flush()?;
        }
        Ok(())
    }

    /// No more items come.
    pub fn finish(mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        let number = self.number;
        let cost = self.content_bytes.min(PART_MOST_BYTES)
            + self.path_bytes
            + self.items.len() as u64 * ITEM_BYTES
            + self.directories.len() as u64 * DIRECTORY_BYTES;
        let permit = self.shared.budget.take(number, cost, &self.shared.stop)?;
        let (pieces, receiver) = channel();
        self.slots
            .send((number, receiver))
            .map_err(|_| Error::Cancelled)?;
        self.shared.pool.read(Batch {
            number,
            items: std::mem::take(&mut self.items),
            content_bytes: self.content_bytes,
            pieces,
            permit,
        });
        self.number += 1;
        self.content_bytes = 0;
        self.path_bytes = 0;
        self.directories.clear();
        Ok(())
    }
}

/// Content that a worker will read for an item, as far as is known.
fn content_bytes(item: &Item) -> u64 {
    match &item.task {
        Task::Look(look)
            if look.found.kind == Kind::File && matches!(look.content, Source::Read) =>
        {
            look.found.stat.size
        }
        _ => 0,
    }
}
