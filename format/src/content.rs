//! A file's bytes as chunks and holes: the hole rule, then the chunker, over a stream.
//!
//! The pieces depend on the bytes alone, never on how they were split into calls, nor on whether zeros
//! were read or skipped. Memory is bounded by twice the largest chunk of the profile and 80 KiB.
//!
//! The rule: a hole is a maximal run of zero bytes of at least 64 KiB, trimmed inwards to 4 KiB file
//! offsets. Chunks end where a hole starts and start where it ends. So every hole is a row of whole
//! 4 KiB blocks, and the scan looks at whole blocks; the bytes around a row only count for its length.

use crate::chunker::Chunker;

/// Zero bytes that make a hole.
pub const MIN_HOLE_BYTES: u64 = 64 * 1024;
/// Holes start and end at multiples of this file offset.
pub const HOLE_ALIGN_BYTES: usize = 4096;
const BLOCK: u64 = HOLE_ALIGN_BYTES as u64;

/// A piece of a file, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// One chunk.
    Data(&'a [u8]),
    /// This many zero bytes.
    Hole(u64),
}

/// Cuts one file after another into pieces. Large slices are cut where they lie, without a copy.
#[derive(Debug)]
pub struct ContentCutter {
    chunker: Chunker,
    /// Bytes from `scan.base` on that are not yet cut.
    pending: Vec<u8>,
    scan: Scan,
}

/// What is known of the bytes from `base` on. Positions are file offsets; `next` is a multiple of 4 KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Scan {
    /// First byte that is in no piece and no hole yet.
    base: u64,
    /// First block that was not looked at.
    next: u64,
    /// Whole zero blocks before `next`, in bytes: a row that may become a hole.
    row: u64,
    /// Trailing zero bytes of the block before the row.
    tail: u64,
    /// Length so far of the hole that `base` lies in.
    hole: Option<u64>,
}

/// What comes after `base`.
enum Ahead {
    /// Data up to this offset, and more of it may follow.
    DataTo(u64),
    /// Data up to this offset, then a hole or the end of the file.
    DataEndsAt(u64),
    /// More bytes are needed to tell.
    Unknown,
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl ContentCutter {
    /// A cutter for any number of files, one at a time.
    pub fn new(chunker: &Chunker) -> Self {
        Self {
            chunker: chunker.clone(),
            pending: Vec::new(),
            scan: Scan::default(),
        }
    }

    /// The next bytes of the file. After an error of `out`, `reset` before the next file.
    pub fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        out: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // While older bytes are pending, just so much is added to them that something comes of it.
        let window = self.window();
        while !self.pending.is_empty() && !bytes.is_empty() {
            let older = self.pending.len();
            let added = bytes.len().min(window.saturating_sub(older).max(1));
            self.pending.extend_from_slice(&bytes[..added]);
            let pending = std::mem::take(&mut self.pending);
            let used = self.scan.cut(&self.chunker, &pending, false, out);
            self.pending = pending;
            let used = used?;
            if used >= older {
                // What is left of the window lies in `bytes` too: go on there, without the copy.
                self.pending.clear();
                bytes = &bytes[used - older..];
            } else {
                self.pending.drain(..used);
                bytes = &bytes[added..];
            }
        }
        if !bytes.is_empty() {
            let used = self.scan.cut(&self.chunker, bytes, false, out)?;
            self.pending.extend_from_slice(&bytes[used..]);
        }
        Ok(())
    }

    /// The next `length` bytes of the file are known to be zeros: the same as feeding them.
    pub fn skip_zeros<E>(
        &mut self,
        mut length: u64,
        out: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while length > 0 {
            if let (Some(hole), true) = (&mut self.scan.hole, self.pending.is_empty()) {
                let whole = length - length % BLOCK;
                *hole += whole;
                self.scan.base += whole;
                self.scan.next += whole;
                length -= whole;
            }
            let part = length.min(ZEROS.len() as u64);
            self.feed(&ZEROS[..part as usize], out)?;
            length -= part;
        }
        Ok(())
    }

    /// The file ends here: its last pieces. The cutter is ready for the next file.
    pub fn finish<E>(&mut self, out: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let result = self.scan.cut(&self.chunker, &self.pending, true, out);
        self.reset();
        result.map(|_| ())
    }

    /// `feed` and `finish` in one, without a copy where nothing is pending: for a file whose last
    /// bytes are at hand.
    pub fn finish_with<E>(
        &mut self,
        bytes: &[u8],
        out: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.pending.is_empty() {
            let result = self.scan.cut(&self.chunker, bytes, true, out);
            self.reset();
            return result.map(|_| ());
        }
        self.feed(bytes, out)?;
        self.finish(out)
    }

    /// Forgets the file, for a read that begins again.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.scan = Scan::default();
    }

    /// From so many bytes something always comes: a chunk, or a hole's start. Twice the largest chunk,
    /// so that what was pending is used up and the rest can be cut where the caller has it.
    fn window(&self) -> usize {
        2 * self.chunker.profile().max_bytes as usize
            + MIN_HOLE_BYTES as usize
            + 4 * HOLE_ALIGN_BYTES
    }
}

impl Scan {
    /// Cuts what can be cut of `bytes`, which start at `base`, and returns how many bytes that were.
    fn cut<E>(
        &mut self,
        chunker: &Chunker,
        bytes: &[u8],
        last: bool,
        out: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let start = self.base;
        let max = u64::from(chunker.profile().max_bytes);
        loop {
            if let Some(length) = self.hole {
                if !self.pass_hole(start, bytes, last) {
                    break;
                }
                out(Piece::Hole(self.hole.take().unwrap_or(length)))?;
                continue;
            }
            let end = match self.look_ahead(start, bytes, last, max) {
                Ahead::Unknown => break,
                Ahead::DataEndsAt(end) if end == self.base => {
                    if self.row == 0 {
                        break;
                    }
                    self.hole = Some(std::mem::take(&mut self.row));
                    self.base = self.next;
                    continue;
                }
                Ahead::DataTo(end) | Ahead::DataEndsAt(end) => end.min(self.base + max),
            };
            let run = &bytes[(self.base - start) as usize..(end - start) as usize];
            let chunk = &run[..chunker.first_chunk(run)];
            self.base += chunk.len() as u64;
            out(Piece::Data(chunk))?;
        }
        Ok((self.base - start) as usize)
    }

    /// Moves on to the end of the hole, or of what is known of it; whether it has ended.
    fn pass_hole(&mut self, start: u64, bytes: &[u8], last: bool) -> bool {
        let mut length = self.hole.unwrap_or_default();
        let ended = loop {
            match bytes.get((self.next - start) as usize..(self.next + BLOCK - start) as usize) {
                Some(block) if is_zero(block) => {
                    length += BLOCK;
                    self.next += BLOCK;
                }
                Some(_) => break true,
                None => break last,
            }
        };
        self.base = self.next;
        self.tail = 0;
        self.hole = Some(length);
        ended
    }

    /// Looks at further blocks until a largest chunk can be cut, a hole begins, or there are no more.
    fn look_ahead(&mut self, start: u64, bytes: &[u8], last: bool, max: u64) -> Ahead {
        loop {
            let data_end = self.next - self.row;
            // At the end of a file `base` may be past `next`: its last part is no whole block.
            if data_end >= self.base + max {
                return Ahead::DataTo(data_end);
            }
            if self.is_hole(0) {
                return Ahead::DataEndsAt(data_end);
            }
            let rest = &bytes[(self.next - start) as usize..];
            match rest.get(..HOLE_ALIGN_BYTES) {
                Some(block) if is_zero(block) => self.row += BLOCK,
                Some(block) => {
                    if self.row > 0 && self.is_hole(leading_zeros(block)) {
                        return Ahead::DataEndsAt(data_end);
                    }
                    self.row = 0;
                    self.tail = trailing_zeros(block);
                }
                None if !last => return Ahead::Unknown,
                None if self.row > 0 && self.is_hole(leading_zeros(rest)) => {
                    return Ahead::DataEndsAt(data_end);
                }
                None => {
                    self.row = 0;
                    return Ahead::DataEndsAt(start + bytes.len() as u64);
                }
            }
            self.next += BLOCK;
        }
    }

    /// Whether the row, with the zeros before it and so many after it, is long enough.
    fn is_hole(&self, after: u64) -> bool {
        self.row > 0 && self.tail + self.row + after >= MIN_HOLE_BYTES
    }
}

/// Whether all bytes are zero; a wide compare that ends at the first part that is not.
fn is_zero(bytes: &[u8]) -> bool {
    let (parts, rest) = bytes.as_chunks::<64>();
    // The first word alone answers for most data.
    bytes.first().is_none_or(|byte| *byte == 0)
        && parts
            .iter()
            .all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

fn leading_zeros(bytes: &[u8]) -> u64 {
    let parts = bytes.chunks(64).take_while(|part| is_zero(part));
    let whole: usize = parts.map(<[u8]>::len).sum();
    let more = bytes[whole..].iter().take_while(|byte| **byte == 0).count();
    (whole + more) as u64
}

fn trailing_zeros(bytes: &[u8]) -> u64 {
    let parts = bytes.rchunks(64).take_while(|part| is_zero(part));
    let whole: usize = parts.map(<[u8]>::len).sum();
    let before = &bytes[..bytes.len() - whole];
    let more = before.iter().rev().take_while(|byte| **byte == 0).count();
    (whole + more) as u64
}

#[cfg(test)]
mod tests;
