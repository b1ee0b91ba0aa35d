//! Which bytes of which packs to read for a set of chunks: a value, decided here and executed elsewhere.
//!
//! Packs come in the order of the first wanted chunk each holds; inside a pack, frames come by offset,
//! each once; neighbours are read in one range while the gap between them is not worth a request.

use holdfast_format::id::PackId;
use std::collections::HashMap;
use std::ops::Range;

/// Where a wanted chunk lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its id.
    pub id: [u8; 32],
    /// Its pack.
    pub pack: PackId,
    /// Its frame.
    pub frame_no: u32,
    /// The frame's offset in the pack, in bytes.
    pub offset: u64,
    /// The frame's bytes as stored.
    pub stored_length: u32,
    /// The frame's plain bytes.
    pub plain_length: u32,
    /// The chunk's plain bytes.
    pub length: u32,
}

/// One frame to read, with the chunks that are wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRead {
    /// Its number.
    pub frame_no: u32,
    /// Its offset in the pack, in bytes.
    pub offset: u64,
    /// Its bytes as stored.
    pub stored_length: u32,
    /// Its plain bytes.
    pub plain_length: u32,
    /// The wanted chunks, in the order they were asked for.
    pub wanted: Vec<[u8; 32]>,
    /// Their plain bytes.
    pub wanted_bytes: u64,
}

impl FrameRead {
    /// Whether the frame goes out as it is stored: at least half of its plain bytes are wanted.
    /// Otherwise it is built again from the wanted chunks.
    pub fn forward(&self) -> bool {
        self.wanted_bytes * 2 >= u64::from(self.plain_length)
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_length)
    }
}

/// Frames that one request to the store brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRead {
    /// The pack.
    pub pack: PackId,
    /// The bytes to read.
    pub range: Range<u64>,
    /// The frames in it, by offset.
    pub frames: Vec<FrameRead>,
}

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Unwanted bytes between two frames that are read rather than asked around.
    pub max_gap_bytes: u64,
    /// Bytes of one request, unless a single frame has more.
    pub max_range_bytes: u64,
}

impl Default for ReadLimits {
    /// A request to an object store costs about what 256 KiB cost; 4 MiB bound the memory of a read.
    fn default() -> Self {
        Self {
            max_gap_bytes: 256 << 10,
            max_range_bytes: 4 << 20,
        }
    }
}

/// The reads that bring every wanted chunk.
pub fn plan(wanted: &[Wanted], limits: &ReadLimits) -> Vec<RangeRead> {
    let mut packs: Vec<(PackId, Vec<FrameRead>)> = Vec::new();
    let mut pack_index: HashMap<PackId, usize> = HashMap::new();
    let mut frame_index: HashMap<(PackId, u32), usize> = HashMap::new();
    for chunk in wanted {
        let at = *pack_index.entry(chunk.pack).or_insert_with(|| {
            packs.push((chunk.pack, Vec::new()));
            packs.len() - 1
        });
        let frames = &mut packs[at].1;
        let at = *frame_index
            .entry((chunk.pack, chunk.frame_no))
            .or_insert_with(|| {
                frames.push(FrameRead {
                    frame_no: chunk.frame_no,
                    offset: chunk.offset,
                    stored_length: chunk.stored_length,
                    plain_length: chunk.plain_length,
                    wanted: Vec::new(),
                    wanted_bytes: 0,
                });
                frames.len() - 1
            });
        frames[at].wanted.push(chunk.id);
        frames[at].wanted_bytes += u64::from(chunk.length);
    }
    let mut reads: Vec<RangeRead> = Vec::new();
    for (pack, mut frames) in packs {
        frames.sort_by_key(|frame| frame.offset);
        let first = reads.len();
        for frame in frames {
            match reads[first..].last_mut() {
                Some(read) if joins(read, &frame, limits) => {
                    read.range.end = read.range.end.max(frame.end());
                    read.frames.push(frame);
                }
                _ => reads.push(RangeRead {
                    pack,
                    range: frame.offset..frame.end(),
                    frames: vec![frame],
                }),
            }
        }
    }
    reads
}

fn joins(read: &RangeRead, frame: &FrameRead, limits: &ReadLimits) -> bool {
    frame.offset.saturating_sub(read.range.end) <= limits.max_gap_bytes
        && frame.end() - read.range.start <= limits.max_range_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u8, pack: u8, frame_no: u32, offset: u64) -> Wanted {
        Wanted {
            id: [n; 32],
            pack: PackId::from_bytes([pack; 32]),
            frame_no,
            offset,
            stored_length: 1000,
            plain_length: 4000,
            length: 1000,
        }
    }

    const LIMITS: ReadLimits = ReadLimits {
        max_gap_bytes: 100,
        max_range_bytes: 2500,
    };

    #[test]
    fn packs_keep_the_order_of_the_request_and_frames_that_of_the_pack() {
        let wanted = [
            chunk(1, 9, 1, 1100),
            chunk(2, 3, 0, 50),
            chunk(3, 9, 0, 50),
            chunk(4, 9, 1, 1100),
        ];
        let reads = plan(&wanted, &LIMITS);
        let packs: Vec<_> = reads.iter().map(|r| r.pack.as_bytes()[0]).collect();
        assert_eq!(packs, [9, 3]);
        assert_eq!(reads[0].range, 50..2100);
        let frames: Vec<_> = reads[0].frames.iter().map(|f| f.frame_no).collect();
        assert_eq!(frames, [0, 1]);
        assert_eq!(reads[0].frames[1].wanted, [[1; 32], [4; 32]]);
        assert!(reads[0].frames[1].forward());
        assert!(!reads[0].frames[0].forward());
    }

    #[test]
    fn ranges_end_at_wide_gaps_and_at_the_limit() {
        let wanted = [
            chunk(1, 1, 0, 0),
            chunk(2, 1, 1, 1101),
            chunk(3, 1, 2, 2101),
            chunk(4, 1, 3, 3101),
        ];
        let ranges: Vec<_> = plan(&wanted, &LIMITS)
            .into_iter()
            .map(|r| r.range)
            .collect();
        assert_eq!(ranges, [0..1000, 1101..3101, 3101..4101]);
    }

    #[test]
    fn every_chunk_is_in_exactly_one_read() {
        let wanted: Vec<_> = (0..200u8)
            .map(|n| {
                let frame_no = u32::from(n).wrapping_mul(7) % 23;
                chunk(n, n % 5, frame_no, u64::from(frame_no) * 1013)
            })
            .collect();
        let reads = plan(&wanted, &LIMITS);
        let mut seen: Vec<_> = reads
            .iter()
            .flat_map(|r| {
                r.frames
                    .iter()
                    .flat_map(|f| f.wanted.iter().map(|id| id[0]))
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<u8>>());
        for read in &reads {
            for frame in &read.frames {
                assert!(read.range.start <= frame.offset && frame.end() <= read.range.end);
            }
        }
    }
}
