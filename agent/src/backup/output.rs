//! The chunks of a batch on their way into parts, and a file's content on its way into chunks.

use super::budget::Permit;
use super::extents::Extents;
use super::item::{Batch, FileContent, Look, Piece};
use super::pool::{Part, PartChunk};
use super::shared::{PART_MOST_BYTES, Shared};
use crate::error::Result;
use crate::index::Record;
use crate::read::ContentSink;
use bytes::Bytes;
use holdfast_format::digest::ContentDigest;
use holdfast_format::entry::{Extent, Kind};
use holdfast_format::frame::{Compressor, FrameBuilder, FrameItem};
use holdfast_format::id::ChunkId;
use holdfast_format::path::RelPath;
use std::sync::mpsc::Sender;

/// The chunks of a batch on their way into parts.
#[derive(Debug)]
pub struct Output<'o> {
    /// The run.
    pub shared: &'o Shared,
    compressor: &'o mut Compressor,
    number: u64,
    /// Bytes that are still to come, about.
    expected: u64,
    pieces: &'o Sender<Piece>,
    plain: Vec<u8>,
    chunks: Vec<PartChunk>,
    permit: Option<Permit>,
    parts: usize,
    /// Bytes of the file at hand that are counted as done.
    done_bytes: u64,
}

impl<'o> Output<'o> {
    /// Of this batch.
    pub fn new(shared: &'o Shared, compressor: &'o mut Compressor, batch: &'o Batch) -> Self {
        Self {
            shared,
            compressor,
            number: batch.number,
            expected: batch.content_bytes,
            pieces: &batch.pieces,
            plain: Vec::new(),
            chunks: Vec::new(),
            permit: None,
            parts: 0,
            done_bytes: 0,
        }
    }

    /// The next file begins: nothing of it is done.
    pub fn begin_file(&mut self) {
        self.done_bytes = 0;
    }

    /// The file has been read up to here, perhaps not for the first time.
    fn reached(&mut self, position: u64) {
        if let Some(more) = position.checked_sub(self.done_bytes) {
            self.shared.progress.done_bytes.add(more);
            self.done_bytes = position;
        }
    }

    /// Nothing more is to be done about the file, which was of this size.
    pub fn end_file(&mut self, size: u64) {
        self.reached(size);
        self.shared.progress.done_files.add(1);
    }

    /// Adds a chunk.
    pub fn push(&mut self, id: ChunkId, bytes: &[u8]) -> Result<()> {
        if !self.plain.is_empty() && self.plain.len() + bytes.len() > PART_MOST_BYTES as usize {
            self.next_part()?;
        }
        if self.plain.capacity() == 0 {
            // At once: growing would copy what is there, into pages that the kernel clears first.
            let expected = self.expected.min(PART_MOST_BYTES) as usize;
            self.plain.reserve_exact(expected.max(bytes.len()));
        }
        self.expected = self.expected.saturating_sub(bytes.len() as u64);
        self.plain.extend_from_slice(bytes);
        self.chunks.push(PartChunk {
            id,
            length: bytes.len() as u32,
            wanted: true,
        });
        Ok(())
    }

    /// Gives away a full part and takes memory for the next, compressing others' parts meanwhile.
    fn next_part(&mut self) -> Result<()> {
        if let Some(part) = self.part()
            && let Some(part) = self.shared.forward(part)?
        {
            self.shared.pool.compress(part);
        }
        let shared = self.shared;
        loop {
            shared.stop.check()?;
            if let Some(permit) = shared.budget.try_take(self.number, PART_MOST_BYTES) {
                self.permit = Some(permit);
                return Ok(());
            }
            match shared.pool.try_part() {
                Some(part) => compress(self.compressor, part)?,
                None => {
                    let taken =
                        shared
                            .budget
                            .take_soon(self.number, PART_MOST_BYTES, &shared.stop)?;
                    if let Some(permit) = taken {
                        self.permit = Some(permit);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Makes the last part of the batch: its bytes are at hand, so it is compressed here. How many
    /// parts there were.
    pub fn finish(&mut self) -> Result<usize> {
        if let Some(part) = self.part()
            && let Some(part) = self.shared.forward(part)?
        {
            compress(self.compressor, part)?;
        }
        Ok(self.parts)
    }

    fn part(&mut self) -> Option<Part> {
        if self.chunks.is_empty() {
            return None;
        }
        self.parts += 1;
        Some(Part {
            number: self.number,
            plain: std::mem::take(&mut self.plain),
            chunks: std::mem::take(&mut self.chunks),
            pieces: self.pieces.clone(),
            permit: self.permit.take(),
        })
    }
}

/// Makes a frame of what is wanted of a part and sends it to the sequencer.
pub fn compress(compressor: &mut Compressor, part: Part) -> Result<()> {
    let builder = builder_of(part.chunks, part.plain)?;
    let mut permit = part.permit;
    let frame = if builder.is_empty() {
        permit = None;
        None
    } else {
        let frame = builder.finish_with(compressor)?;
        if let Some(permit) = &mut permit {
            permit.shrink_to(frame.payload.len() as u64);
        }
        Some(frame)
    };
    // The sequencer has gone only when the run has ended.
    let _ = part.pieces.send(Piece::Part(frame, permit));
    Ok(())
}

/// What is wanted of a part; all of it, which is the usual case, without copying it.
fn builder_of(chunks: Vec<PartChunk>, plain: Vec<u8>) -> Result<FrameBuilder> {
    if !chunks.is_empty() && chunks.iter().all(|chunk| chunk.wanted) {
        let item = |chunk: &PartChunk| FrameItem {
            id: *chunk.id.as_bytes(),
            length: chunk.length,
        };
        return Ok(FrameBuilder::of(chunks.iter().map(item).collect(), plain)?);
    }
    let mut builder = FrameBuilder::new();
    let mut rest = plain.as_slice();
    for chunk in &chunks {
        let (bytes, after) = rest.split_at(chunk.length as usize);
        rest = after;
        if chunk.wanted {
            builder.push(*chunk.id.as_bytes(), bytes)?;
        }
    }
    Ok(builder)
}

/// One file's content on its way into parts.
pub struct Sink<'s, 'o> {
    out: &'s mut Output<'o>,
    /// Where the file began in the part that was open then, and which part that was.
    began: (usize, usize, usize),
    inline: Option<Bytes>,
    extents: Extents,
    position: u64,
}

impl<'s, 'o> Sink<'s, 'o> {
    /// A file that begins now.
    pub fn new(out: &'s mut Output<'o>) -> Self {
        Self {
            began: (out.parts, out.plain.len(), out.chunks.len()),
            extents: Extents::new(out.shared.temporary.clone()),
            out,
            inline: None,
            position: 0,
        }
    }

    /// Takes back what is still in the open part: nobody needs it.
    fn rewind(&mut self) {
        let (part, bytes, chunks) = self.began;
        if self.out.parts == part {
            self.out.plain.truncate(bytes);
            self.out.chunks.truncate(chunks);
        }
    }

    /// What the file holds, once it was read to its end: that of the parent where its digest is.
    pub fn content(mut self, digest: ContentDigest, look: &Look, path: &RelPath) -> FileContent {
        let empty = self.inline.is_none() && self.extents.is_empty();
        if empty {
            return FileContent::Empty;
        }
        let of_old = |old: &Record| old.kind == Kind::File && old.content == Some(digest);
        if look.old.as_ref().is_some_and(of_old) {
            if !look.lost {
                self.rewind();
            }
            return FileContent::AsInParent(path.clone());
        }
        match self.inline {
            Some(bytes) => FileContent::Inline(bytes),
            None => FileContent::Extents(self.extents),
        }
    }
}

impl ContentSink for Sink<'_, '_> {
    fn restart(&mut self) {
        self.rewind();
        self.inline = None;
        self.position = 0;
        self.extents.clear();
    }

    fn inline(&mut self, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            self.inline = Some(Bytes::copy_from_slice(bytes));
        }
        Ok(())
    }

    fn extent(&mut self, extent: Extent, bytes: Option<&[u8]>) -> Result<()> {
        if let (Extent::Chunk { id, .. }, Some(bytes)) = (extent, bytes) {
            self.out.push(id, bytes)?;
        }
        self.position += extent.length();
        self.out.reached(self.position);
        self.extents.push(extent)
    }
}
