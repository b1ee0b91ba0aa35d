//! The work of a run that any of its threads may do: batches to read, parts to compress.
//!
//! Parts come first, because they hold memory that a reader may be waiting for; a reader that waits
//! compresses parts meanwhile.

use super::budget::Permit;
use super::item::{Batch, Piece};
use crate::cancel::Cancel;
use holdfast_format::id::ChunkId;
use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often an idle worker looks whether the run was cancelled.
const LOOK: Duration = Duration::from_millis(200);

/// Chunks that will be one frame, if the volume does not hold them.
#[derive(Debug)]
pub struct Part {
    /// Place of its batch in the order.
    pub number: u64,
    /// The chunks' bytes, back to back.
    pub plain: Vec<u8>,
    /// The chunks.
    pub chunks: Vec<PartChunk>,
    /// Where the frame goes.
    pub pieces: Sender<Piece>,
    /// Memory of the part; none where it is the batch's.
    pub permit: Option<Permit>,
}

/// A chunk of a part.
#[derive(Debug, Clone, Copy)]
pub struct PartChunk {
    /// Its id.
    pub id: ChunkId,
    /// Its bytes.
    pub length: u32,
    /// Whether it is to be shipped.
    pub wanted: bool,
}

/// What a worker does next.
#[derive(Debug)]
pub enum Job {
    /// Make a frame of it.
    Compress(Part),
    /// Read its items.
    Read(Batch),
}

/// The queues; bounded by the run's budget.
#[derive(Debug, Default)]
pub struct Pool {
    queues: Mutex<Queues>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queues {
    parts: VecDeque<Part>,
    batches: VecDeque<Batch>,
    closed: bool,
}

impl Pool {
    /// Adds a part.
    pub fn compress(&self, part: Part) {
        self.queues().parts.push_back(part);
        self.changed.notify_one();
    }

    /// Adds a batch behind the others.
    pub fn read(&self, batch: Batch) {
        self.queues().batches.push_back(batch);
        self.changed.notify_one();
    }

    /// Adds a batch before the others: somebody waits for it.
    pub fn read_first(&self, batch: Batch) {
        self.queues().batches.push_front(batch);
        self.changed.notify_one();
    }

    /// The next job; `None` once the pool is closed or the run cancelled.
    pub fn next(&self, cancel: &Cancel) -> Option<Job> {
        let mut queues = self.queues();
        loop {
            if queues.closed || cancel.is_cancelled() {
                return None;
            }
            if let Some(part) = queues.parts.pop_front() {
                return Some(Job::Compress(part));
            }
            if let Some(batch) = queues.batches.pop_front() {
                return Some(Job::Read(batch));
            }
            let waited = self.changed.wait_timeout(queues, LOOK);
            queues = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A part, if there is one.
    pub fn try_part(&self) -> Option<Part> {
        self.queues().parts.pop_front()
    }

    /// No more work comes; what is left is dropped.
    pub fn close(&self) {
        let mut queues = self.queues();
        queues.closed = true;
        queues.parts.clear();
        queues.batches.clear();
        drop(queues);
        self.changed.notify_all();
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        // Queues are consistent after every call on them.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
