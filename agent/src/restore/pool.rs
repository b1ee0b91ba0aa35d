//! The queue between those who plan and fetch and the threads that write. Frames go before batches:
//! what is further along is finished first.

use super::context::{Context, lock};
use super::window::Window;
use holdfast_format::frame::Frame;
use holdfast_format::id::ChunkId;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Batches that may wait; the planner waits for room.
const MAX_BATCHES: usize = 8;

/// Something to be done by a writing thread.
pub enum Work<B> {
    /// Write the chunks of a frame; the permit stands for its memory.
    Frame(Arc<Window>, Frame, OwnedSemaphorePermit),
    /// Leave out what needs these chunks.
    Lost {
        /// Whose.
        window: Arc<Window>,
        /// Which.
        chunks: Vec<ChunkId>,
        /// Stable word.
        reason: &'static str,
        /// For people.
        detail: String,
    },
    /// Prepare a batch of entries.
    Batch(Arc<Window>, B),
}

struct Queues<B> {
    frames: VecDeque<Work<B>>,
    batches: VecDeque<Work<B>>,
    closed: bool,
}

/// See the module.
pub struct Pool<B> {
    queues: Mutex<Queues<B>>,
    work: Condvar,
    room: Condvar,
}

impl<B> Pool<B> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            queues: Mutex::new(Queues {
                frames: VecDeque::new(),
                batches: VecDeque::new(),
                closed: false,
            }),
            work: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Adds what came from a fetch; never waits, its memory is bounded by permits.
    pub fn push_fetched(&self, work: Work<B>) {
        lock(&self.queues).frames.push_back(work);
        self.work.notify_one();
    }

    /// Adds a batch, when there is room.
    pub fn push_batch(&self, context: &Context, window: Arc<Window>, batch: B) {
        let mut queues = lock(&self.queues);
        while queues.batches.len() >= MAX_BATCHES && !context.is_stopped() {
            let waited = self.room.wait_timeout(queues, Duration::from_millis(100));
            queues = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
        window.preparing();
        queues.batches.push_back(Work::Batch(window, batch));
        drop(queues);
        self.work.notify_one();
    }

    /// The next work; `None` once closed.
    pub fn next(&self) -> Option<Work<B>> {
        let mut queues = lock(&self.queues);
        loop {
            if let Some(work) = queues.frames.pop_front() {
                return Some(work);
            }
            if let Some(work) = queues.batches.pop_front() {
                drop(queues);
                self.room.notify_one();
                return Some(work);
            }
            if queues.closed {
                return None;
            }
            queues = self.work.wait(queues).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// No more work will come; what is queued is still handed out.
    pub fn close(&self) {
        lock(&self.queues).closed = true;
        self.work.notify_all();
    }
}
