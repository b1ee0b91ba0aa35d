//! Which frames of which packs to read for a set of chunks: a value, decided here and executed elsewhere.
//!
//! Packs come in the order of the first wanted chunk each holds; inside a pack, frames come by offset,
//! each once. (The reader joins neighbours into one range.)

use holdfast_format::id::PackId;
use std::collections::HashMap;

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
    /// Where the chunk starts in the frame's plain bytes.
    pub start: u32,
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
    /// The wanted chunks as indexes into what was planned, by their places in the frame.
    pub wanted: Vec<usize>,
    /// Their plain bytes.
    pub wanted_bytes: u64,
}

impl FrameRead {
    /// Whether the frame goes out as it is stored: at least half of its plain bytes are wanted.
    /// Otherwise it is built again from the wanted chunks.
    pub fn forward(&self) -> bool {
        self.wanted_bytes * 2 >= u64::from(self.plain_length)
    }

    /// Whether nothing else is in the frame.
    pub fn is_whole(&self) -> bool {
        self.wanted_bytes == u64::from(self.plain_length)
    }
}

/// The frames to read of one pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRead {
    /// The pack.
    pub pack: PackId,
    /// The frames, by offset.
    pub frames: Vec<FrameRead>,
}

/// The reads that bring every wanted chunk.
pub fn plan(wanted: &[Wanted]) -> Vec<PackRead> {
    let mut packs: Vec<PackRead> = Vec::new();
    let mut pack_index: HashMap<PackId, usize> = HashMap::new();
    let mut frame_index: HashMap<(PackId, u32), usize> = HashMap::new();
    for (n, chunk) in wanted.iter().enumerate() {
        let pack = chunk.pack;
        let at = *pack_index.entry(pack).or_insert_with(|| {
            let frames = Vec::new();
            packs.push(PackRead { pack, frames });
            packs.len() - 1
        });
        let frames = &mut packs[at].frames;
        let at = *frame_index
            .entry((pack, chunk.frame_no))
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
        frames[at].wanted.push(n);
        frames[at].wanted_bytes += u64::from(chunk.length);
    }
    for pack in &mut packs {
        pack.frames.sort_by_key(|frame| frame.offset);
        for frame in &mut pack.frames {
            frame.wanted.sort_by_key(|n| wanted[*n].start);
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u8, pack: u8, frame_no: u32, offset: u64, start: u32) -> Wanted {
        Wanted {
            id: [n; 32],
            pack: PackId::from_bytes([pack; 32]),
            frame_no,
            offset,
            stored_length: 1000,
            plain_length: 4000,
            start,
            length: 1000,
        }
    }

    #[test]
    fn packs_keep_the_order_of_the_request_and_frames_that_of_the_pack() {
        let wanted = [
            chunk(1, 9, 1, 1100, 3000),
            chunk(2, 3, 0, 50, 0),
            chunk(3, 9, 0, 50, 0),
            chunk(4, 9, 1, 1100, 0),
        ];
        let reads = plan(&wanted);
        let packs: Vec<_> = reads.iter().map(|r| r.pack.as_bytes()[0]).collect();
        assert_eq!(packs, [9, 3]);
        let frames: Vec<_> = reads[0].frames.iter().map(|f| f.frame_no).collect();
        assert_eq!(frames, [0, 1]);
        assert_eq!(reads[0].frames[1].wanted, [3, 0]);
        assert!(reads[0].frames[1].forward() && !reads[0].frames[1].is_whole());
        assert!(!reads[0].frames[0].forward());
    }

    #[test]
    fn every_chunk_is_in_exactly_one_frame() {
        let wanted: Vec<_> = (0..200u8)
            .map(|n| {
                let frame_no = u32::from(n).wrapping_mul(7) % 23;
                chunk(n, n % 5, frame_no, u64::from(frame_no) * 1013, u32::from(n))
            })
            .collect();
        let reads = plan(&wanted);
        let frames = || reads.iter().flat_map(|read| &read.frames);
        let mut seen: Vec<_> = frames().flat_map(|f| f.wanted.iter().copied()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<usize>>());
        let distinct: std::collections::HashSet<_> = reads
            .iter()
            .flat_map(|r| r.frames.iter().map(|f| (r.pack, f.frame_no)))
            .collect();
        assert_eq!(distinct.len(), frames().count());
    }
}
