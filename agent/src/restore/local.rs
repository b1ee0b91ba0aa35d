//! Compares what stands at a name with the extents it should have, chunk by chunk, by keyed hash:
//! equal ranges are kept, different ones become needs. Reads only; the job does the writing.

use super::context::Context;
use super::file::FileJob;
use super::window::Need;
use crate::beneath::Errno;
use holdfast_format::entry::Extent;
use rustix::fs::SeekFrom;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes read at once where no chunk decides.
const READ_BYTES: usize = 256 * 1024;
/// Largest chunk there can be: it must fit a frame.
const MAX_CHUNK_BYTES: usize = 2 << 20;

/// Compares the extents that begin at `offset` with the job's local file; what must be fetched is
/// appended to `needs`. Returns the offset after the last extent.
pub fn compare(
    context: &Context,
    job: &Arc<FileJob>,
    extents: &[Extent],
    mut offset: u64,
    needs: &mut Vec<Need>,
) -> u64 {
    let mut buffer = Vec::new();
    let mut kept_from = offset;
    for extent in extents {
        if context.is_stopped() || job.is_failed() {
            return offset;
        }
        let end = offset + extent.length();
        if !is_equal(context, job, extent, offset, &mut buffer) {
            job.keep(context, kept_from, offset);
            kept_from = end;
            match extent {
                Extent::Hole { .. } => job.punch(context, offset, end),
                Extent::Chunk { id, length } => {
                    if let Err(errno) = job.begin_change(context, offset) {
                        job.give_up(context, "write", errno);
                        return end;
                    }
                    needs.push(Need {
                        job: job.clone(),
                        id: *id,
                        length: *length,
                        offset,
                    });
                }
            }
        }
        offset = end;
    }
    job.keep(context, kept_from, offset);
    offset
}

/// The content's end: a local file of another length differs even where all ranges are equal.
pub fn compare_end(context: &Context, job: &Arc<FileJob>, size: u64) {
    let Some(local) = job.local() else {
        return;
    };
    if local.stat.size == size {
        return;
    }
    if let Err(errno) = job.begin_change(context, local.stat.size.min(size)) {
        job.give_up(context, "write", errno);
    }
}

/// Whether the local file has exactly these bytes.
pub fn has_bytes(file: &File, size: u64, bytes: &[u8]) -> bool {
    let mut found = vec![0; bytes.len()];
    size == bytes.len() as u64 && file.read_exact_at(&mut found, 0).is_ok() && found == bytes
}

fn is_equal(
    context: &Context,
    job: &FileJob,
    extent: &Extent,
    offset: u64,
    buffer: &mut Vec<u8>,
) -> bool {
    let Some(local) = job.local() else {
        return false;
    };
    let end = offset + extent.length();
    match extent {
        Extent::Chunk { id, length } => {
            let length = *length as usize;
            // What cannot be read is different: it will be fetched.
            if end > local.stat.size || length > MAX_CHUNK_BYTES {
                return false;
            }
            buffer.resize(buffer.len().max(length), 0);
            let part = &mut buffer[..length];
            context.progress.read_bytes.add(length as u64);
            local.file.read_exact_at(part, offset).is_ok() && context.ids.chunk(part) == *id
        }
        Extent::Hole { .. } => is_zero(&local.file, offset, end.min(local.stat.size), buffer),
    }
}

/// Whether a range reads as zeros; holes are not read.
fn is_zero(file: &File, start: u64, end: u64, buffer: &mut Vec<u8>) -> bool {
    let mut at = start;
    while at < end {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return true,
            Err(_) => at,
        };
        if at >= end {
            return true;
        }
        let length = usize::try_from(end - at)
            .unwrap_or(READ_BYTES)
            .min(READ_BYTES);
        buffer.resize(buffer.len().max(length), 0);
        let part = &mut buffer[..length];
        if file.read_exact_at(part, at).is_err() || part.iter().any(|byte| *byte != 0) {
            return false;
        }
        at += length as u64;
    }
    true
}
