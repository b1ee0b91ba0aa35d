//! A writing thread: prepares batches of entries and writes the chunks of frames, each checked first.

use super::context::Context;
use super::execute::Batch;
use super::pool::{Pool, Work};
use super::prepare;
use super::window::Window;
use holdfast_format::frame::Frame;
use holdfast_format::id::ChunkId;

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
            for (id, bytes) in frame.slices(&plain) {
                window.place(context, &ChunkId::from_bytes(id), bytes);
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
