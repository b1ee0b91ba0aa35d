//! A window: the files that are planned together, which of their ranges need which chunk, and when
//! all of it is written. Bounded by the planner to `MAX_EXTENTS` positions.

use super::context::{Context, lock};
use super::file::FileJob;
use holdfast_format::id::ChunkId;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Most positions of one window.
pub const MAX_EXTENTS: usize = 65_536;

/// A range of a file that a chunk must be written to.
pub struct Need {
    /// The file.
    pub job: Arc<FileJob>,
    /// The chunk.
    pub id: ChunkId,
    /// Plain bytes.
    pub length: u32,
    /// Where they go.
    pub offset: u64,
}

struct Position {
    job: Arc<FileJob>,
    length: u32,
    offset: u64,
    /// Index + 1 of the chunk's next position; 0: none.
    next: u32,
}

#[derive(Default)]
struct Positions {
    first: HashMap<ChunkId, u32>,
    order: Vec<ChunkId>,
    list: Vec<Option<Position>>,
}

#[derive(Default)]
struct Counts {
    preparing: u64,
    writing: u64,
    fetching: bool,
}

/// See the module. All methods may be called by any thread.
#[derive(Default)]
pub struct Window {
    positions: Mutex<Positions>,
    counts: Mutex<Counts>,
    changed: Condvar,
    jobs: Mutex<Vec<Arc<FileJob>>>,
}

impl Window {
    /// Adds ranges that must be filled. Each is expected of its job from here on.
    pub fn add(&self, needs: Vec<Need>) {
        let mut guard = lock(&self.positions);
        let positions = &mut *guard;
        for need in needs {
            need.job.expect(1);
            // A window holds at most MAX_EXTENTS positions and one batch more.
            let here = positions.list.len() as u32 + 1;
            let next = match positions.first.insert(need.id, here) {
                Some(next) => next,
                None => {
                    positions.order.push(need.id);
                    0
                }
            };
            positions.list.push(Some(Position {
                job: need.job,
                length: need.length,
                offset: need.offset,
                next,
            }));
        }
    }

    /// Remembers a file that may have to be cleaned up.
    pub fn watch(&self, job: Arc<FileJob>) {
        lock(&self.jobs).push(job);
    }

    /// The distinct chunks wanted, in the order in which they were first needed.
    pub fn wanted(&self) -> Vec<ChunkId> {
        std::mem::take(&mut lock(&self.positions).order)
    }

    /// Gives a chunk to all its positions, each once: `write` takes file and offset, and says `done`
    /// to the file. The chunk's id is checked first. Nothing happens where nobody needs it.
    pub fn place(
        &self,
        context: &Context,
        id: &ChunkId,
        bytes: &[u8],
        mut write: impl FnMut(Arc<FileJob>, u64),
    ) {
        if !lock(&self.positions).first.contains_key(id) {
            return;
        }
        if context.ids.chunk(bytes) != *id {
            self.lose(
                context,
                id,
                "ChunkMismatch",
                "a chunk does not match its id",
            );
            return;
        }
        let length = bytes.len() as u64;
        context
            .tally
            .fetched_bytes
            .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        self.each(id, |position| {
            if position.length as usize == bytes.len() {
                write(position.job, position.offset);
            } else {
                let detail = "a chunk has another length than its entry says";
                position.job.leave_out(context, "ChunkMismatch", detail);
                position.job.done(context);
            }
        });
    }

    /// A chunk will not come: every file that needs it is left out.
    pub fn lose(&self, context: &Context, id: &ChunkId, reason: &'static str, detail: &str) {
        self.each(id, |position| {
            let detail = format!("chunk {}: {detail}", id.short());
            position.job.leave_out(context, reason, detail);
            position.job.done(context);
        });
    }

    fn each(&self, id: &ChunkId, mut act: impl FnMut(Position)) {
        // Taken out first: a chunk that comes twice is placed once, and no lock is held for IO.
        let mut found = Vec::new();
        {
            let mut positions = lock(&self.positions);
            let mut next = positions.first.remove(id).unwrap_or(0);
            while let Some(index) = (next as usize).checked_sub(1) {
                let Some(position) = positions.list.get_mut(index).and_then(Option::take) else {
                    break;
                };
                next = position.next;
                found.push(position);
            }
        }
        // Ascending offsets of the file that was planned first.
        found.into_iter().rev().for_each(&mut act);
    }

    /// A batch is being prepared.
    pub fn preparing(&self) {
        lock(&self.counts).preparing += 1;
    }

    /// It is prepared.
    pub fn prepared(&self) {
        lock(&self.counts).preparing -= 1;
        self.changed.notify_all();
    }

    /// The fetch begins.
    pub fn fetching(&self) {
        lock(&self.counts).fetching = true;
    }

    /// Everything that will come has come.
    pub fn fetched(&self) {
        lock(&self.counts).fetching = false;
        self.changed.notify_all();
    }

    /// A frame waits to be written.
    pub fn writing(&self) {
        lock(&self.counts).writing += 1;
    }

    /// It is written.
    pub fn written(&self) {
        lock(&self.counts).writing -= 1;
        self.changed.notify_all();
    }

    /// Waits until every batch is prepared; `false` where the run is ending.
    pub fn wait_prepared(&self, context: &Context) -> bool {
        self.wait(context, |counts| counts.preparing == 0)
    }

    /// Waits until every chunk is written or given up; `false` where the run is ending.
    pub fn wait_written(&self, context: &Context) -> bool {
        self.wait(context, |counts| !counts.fetching && counts.writing == 0)
    }

    fn wait(&self, context: &Context, is_done: impl Fn(&Counts) -> bool) -> bool {
        let mut counts = lock(&self.counts);
        loop {
            if context.is_stopped() {
                return false;
            }
            if is_done(&counts) {
                return true;
            }
            // The timeout is for a cancellation, which wakes nobody here.
            let waited = self
                .changed
                .wait_timeout(counts, Duration::from_millis(100));
            counts = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Removes what is unfinished; no thread writes any more.
    pub fn clean_up(&self, context: &Context) {
        for job in lock(&self.jobs).drain(..) {
            job.clean_up(context);
        }
        for position in lock(&self.positions).list.drain(..).flatten() {
            position.job.clean_up(context);
        }
    }
}
