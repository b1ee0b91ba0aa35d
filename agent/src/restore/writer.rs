//! A writing thread: prepares batches of entries and writes the chunks of frames, each checked first.
//! Chunks that follow each other in frame and file are one write: a filesystem then takes large pages.

use super::context::Context;
use super::execute::Batch;
use super::file::FileJob;
use super::pool::{Pool, Work};
use super::prepare;
use super::window::Window;
use holdfast_format::frame::Frame;
use holdfast_format::id::ChunkId;
use std::ops::Range;
use std::sync::Arc;

/// Works until the queue is closed.
pub fn run(context: &Context, pool: &Pool<Batch>) {
    while let Some(work) = pool.next() {
        match work {
            Work::Frame(window, frame, permit) => {
                if !context.is_stopped() {
                    write_frame(context, &window, &frame);
                }
                drop(permit);
                window.written();
            }
            Work::Lost {
                window,
                chunks,
                reason,
                detail,
            } => {
                for id in &chunks {
                    window.lose(context, id, reason, &detail);
                }
                window.written();
            }
            Work::Batch(window, batch) => {
                for (dir, item) in batch {
                    prepare::prepare(context, &window, &dir, item);
                    dir.release(context);
                }
                window.prepared();
            }
        }
    }
}

fn write_frame(context: &Context, window: &Window, frame: &Frame) {
    match frame.open() {
        Ok(plain) => {
            let mut run: Option<Run> = None;
            let mut end = 0;
            for (id, bytes) in frame.slices(&plain) {
                let here = end..end + bytes.len();
                end = here.end;
                window.place(
                    context,
                    &ChunkId::from_bytes(id),
                    bytes,
                    |job, offset| match &mut run {
                        Some(run) if run.goes_on(&job, offset, here.start) => run.add(here.end),
                        _ => {
                            let next = Run::new(job, offset, here.clone());
                            if let Some(run) = run.replace(next) {
                                run.write(context, &plain);
                            }
                        }
                    },
                );
            }
            if let Some(run) = run {
                run.write(context, &plain);
            }
        }
        Err(error) => {
            for item in &frame.items {
                let id = ChunkId::from_bytes(item.id);
                window.lose(context, &id, "FrameDamaged", &error.to_string());
            }
        }
    }
}

/// Chunks of one file that lie side by side both there and in the frame's plain bytes.
struct Run {
    job: Arc<FileJob>,
    offset: u64,
    plain: Range<usize>,
    chunks: u32,
}

impl Run {
    fn new(job: Arc<FileJob>, offset: u64, plain: Range<usize>) -> Self {
        Self {
            job,
            offset,
            plain,
            chunks: 1,
        }
    }

    fn goes_on(&self, job: &Arc<FileJob>, offset: u64, start: usize) -> bool {
        Arc::ptr_eq(&self.job, job)
            && self.plain.end == start
            && self.offset + self.plain.len() as u64 == offset
    }

    fn add(&mut self, end: usize) {
        self.plain.end = end;
        self.chunks += 1;
    }

    fn write(self, context: &Context, plain: &[u8]) {
        self.job.write(context, self.offset, &plain[self.plain]);
        for _ in 0..self.chunks {
            self.job.done(context);
        }
    }
}
