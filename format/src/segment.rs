//! Index segments: where every chunk and node of a closed set of packs lies, sorted by id.
//!
//! A segment is derived from the footers of its packs and disposable: one that is lost, damaged or
//! older than the store costs the reads of those footers and nothing else. It is header, blocks of
//! sorted items, footer, trailer, like a pack; the footer has a fence for each block, so that one id is
//! found by reading the footer and one block. All packs of a segment are of one domain generation.

use crate::error::{FormatError, check_limit};
use crate::frame::Codec;
use crate::id::{PackId, RepositoryId};
use crate::pack::{ItemKind, PackFrame, Trailer, trailer_bytes};
use crate::seal::{
    FOOTER_NUMBER, HEADER_BYTES, Header, KeyMaterial, KeyRef, ObjectKind, Opener, Sealer,
    SealingMaster, TAG_BYTES,
};
use bytes::Bytes;

mod parts;

pub use parts::{decode_block, decode_segment_footer, encode_block, encode_segment_footer};

/// Most packs of a segment.
pub const MAX_SEGMENT_PACKS: usize = 64 * 1024;
/// Most items of a segment: as many as the largest footer of one pack can list, and some more.
pub const MAX_SEGMENT_ITEMS: usize = 512 * 1024;
/// Items of every block but the last.
pub const BLOCK_ITEMS: usize = 1024;
/// Most blocks of a segment.
pub const MAX_SEGMENT_BLOCKS: usize = MAX_SEGMENT_ITEMS / BLOCK_ITEMS;
/// Most stored bytes of a segment.
pub const MAX_SEGMENT_BYTES: u64 = 48 * 1024 * 1024;

/// A pack with all that its footer lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentPack {
    /// The pack.
    pub id: PackId,
    /// Its stored bytes.
    pub size: u64,
    /// Its header.
    pub header: Header,
    /// Its frames.
    pub frames: Vec<PackFrame>,
}

/// A pack as the footer of a segment tells it: without the items of its frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoveredPack {
    /// The pack.
    pub id: PackId,
    /// Its stored bytes.
    pub size: u64,
    /// Its header.
    pub header: Header,
    /// Its frames, back to back behind the header.
    pub frames: Vec<CoveredFrame>,
}

/// A frame without its items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoveredFrame {
    /// Its stored bytes.
    pub stored_length: u32,
    /// How the payload is stored.
    pub codec: Codec,
    /// What its items are.
    pub kind: ItemKind,
    /// Plain bytes.
    pub plain_length: u32,
}

/// Where one chunk or node lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SegmentItem {
    /// Its id.
    pub id: [u8; 32],
    /// Its pack, as an index into those of the footer.
    pub pack: u32,
    /// Its frame.
    pub frame_no: u32,
    /// Where it starts in the frame's plain bytes.
    pub offset_in_frame: u32,
    /// Its plain bytes.
    pub length: u32,
}

/// Where a block lies, and the first id in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// The first id.
    pub first: [u8; 32],
    /// Stored bytes of the block. Blocks lie back to back behind the header.
    pub stored_length: u32,
}

/// What a segment's footer tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentFooter {
    /// Its packs, ascending by id.
    pub packs: Vec<CoveredPack>,
    /// Its blocks.
    pub fences: Vec<Fence>,
}

impl SegmentFooter {
    /// The block that has a place of this id, if any has, and its stored range in the segment.
    pub fn block_of(&self, id: &[u8; 32]) -> Option<(u32, std::ops::Range<u64>)> {
        let at = self.fences.partition_point(|fence| fence.first <= *id);
        let number = at.checked_sub(1)?;
        let before = self.fences[..number].iter();
        let start = before.fold(HEADER_BYTES as u64, |sum, fence| {
            sum + u64::from(fence.stored_length)
        });
        let length = u64::from(self.fences[number].stored_length);
        Some((number as u32, start..start + length))
    }
}

/// A whole segment, ready to be put.
#[derive(Clone, Debug)]
pub struct FinishedSegment {
    /// BLAKE3 of its stored bytes: its name.
    pub id: [u8; 32],
    /// The stored bytes.
    pub bytes: Bytes,
}

/// Makes the segment of these packs, which are of the domain generation that `key` names. `salt` is 32
/// random bytes, never used for anything else.
pub fn build_segment(
    repository: &RepositoryId,
    key: KeyRef,
    master: &SealingMaster,
    salt: [u8; 32],
    mut packs: Vec<SegmentPack>,
) -> Result<FinishedSegment, FormatError> {
    packs.sort_unstable_by_key(|pack| pack.id);
    let header = Header {
        kind: ObjectKind::Segment,
        key,
        salt,
    };
    let items = sorted_items(&packs)?;
    let mut sealer = Sealer::new(repository, &header, KeyMaterial::Master(master));
    let mut out = header.encode().to_vec();
    let mut fences = Vec::new();
    for (number, block) in (0..).zip(items.chunks(BLOCK_ITEMS)) {
        let start = out.len();
        sealer.seal_into(number, &[&encode_block(block)], &mut out)?;
        fences.push(Fence {
            first: block[0].id,
            stored_length: (out.len() - start) as u32,
        });
    }
    let packs = packs.iter().map(covered).collect::<Result<_, _>>()?;
    let footer = SegmentFooter { packs, fences };
    let start = out.len();
    let plain = encode_segment_footer(&header, &footer)?;
    sealer.seal_into(FOOTER_NUMBER, &[&plain], &mut out)?;
    let trailer = Trailer {
        header,
        frame_count: footer.fences.len() as u32,
        footer_length: (out.len() - start) as u32,
    };
    out.extend_from_slice(&trailer.encode());
    check_limit("segment", out.len() as u64, MAX_SEGMENT_BYTES)?;
    Ok(FinishedSegment {
        id: blake3::hash(&out).into(),
        bytes: out.into(),
    })
}

fn covered(pack: &SegmentPack) -> Result<CoveredPack, FormatError> {
    let frame = |frame: &PackFrame| {
        let first = frame.items.first();
        Ok(CoveredFrame {
            stored_length: frame.stored_length,
            codec: frame.codec,
            kind: first.ok_or_else(|| wrong("a frame without items"))?.kind,
            plain_length: frame.plain_length,
        })
    };
    Ok(CoveredPack {
        id: pack.id,
        size: pack.size,
        header: pack.header,
        frames: pack.frames.iter().map(frame).collect::<Result<_, _>>()?,
    })
}

fn sorted_items(packs: &[SegmentPack]) -> Result<Vec<SegmentItem>, FormatError> {
    let frames = packs.iter().flat_map(|pack| &pack.frames);
    let count: usize = frames.map(|frame| frame.items.len()).sum();
    check_limit("items of a segment", count as u64, MAX_SEGMENT_ITEMS as u64)?;
    let mut items = Vec::with_capacity(count);
    for (pack, covered) in (0..).zip(packs) {
        for frame in &covered.frames {
            items.extend(frame.items.iter().map(|item| SegmentItem {
                id: item.id,
                pack,
                frame_no: frame.frame_no,
                offset_in_frame: item.offset_in_frame,
                length: item.length,
            }));
        }
    }
    items.sort_unstable();
    Ok(items)
}

/// The trailer in the last `trailer_bytes()` of a segment.
pub fn decode_segment_trailer(bytes: &[u8]) -> Result<Trailer, FormatError> {
    let trailer = Trailer::decode_any(bytes)?;
    if trailer.header.kind != ObjectKind::Segment {
        return Err(FormatError::WrongKind {
            expected: ObjectKind::Segment.name(),
            found: trailer.header.kind.name(),
        });
    }
    check_limit(
        "blocks of a segment",
        u64::from(trailer.frame_count),
        MAX_SEGMENT_BLOCKS as u64,
    )?;
    Ok(trailer)
}

/// What a segment covers and where its blocks lie, from the stored bytes of its footer.
pub fn open_segment_footer(
    repository: &RepositoryId,
    key: KeyMaterial<'_>,
    trailer: &Trailer,
    footer: &[u8],
) -> Result<SegmentFooter, FormatError> {
    if footer.len() != trailer.footer_length as usize {
        return Err(wrong("footer does not have the length in the trailer"));
    }
    let plain = Opener::new(repository, &trailer.header, key).open(FOOTER_NUMBER, footer)?;
    let footer = decode_segment_footer(&trailer.header, &plain)?;
    if footer.fences.len() != trailer.frame_count as usize {
        return Err(wrong("blocks are not as many as the trailer says"));
    }
    Ok(footer)
}

/// The packs of a whole segment with all their items, checked to its last byte: name, order, fences, and
/// that the items fill their frames.
pub fn open_segment<'k>(
    repository: &RepositoryId,
    id: &[u8; 32],
    key_for: impl Fn(&KeyRef) -> Option<KeyMaterial<'k>>,
    stored: &[u8],
) -> Result<Vec<SegmentPack>, FormatError> {
    check_limit("segment", stored.len() as u64, MAX_SEGMENT_BYTES)?;
    if blake3::hash(stored).as_bytes() != id {
        return Err(wrong("bytes do not have the name of the segment"));
    }
    let at = stored.len().saturating_sub(trailer_bytes());
    let trailer = decode_segment_trailer(&stored[at..])?;
    if Header::decode(stored)? != trailer.header {
        return Err(wrong("header and trailer differ"));
    }
    let key = key_for(&trailer.header.key).ok_or_else(|| FormatError::KeyMissing {
        what: ObjectKind::Segment.name(),
        key: trailer.header.key.to_string(),
    })?;
    let range = trailer.footer_range(stored.len() as u64)?;
    let footer = &stored[range.start as usize..range.end as usize];
    let SegmentFooter {
        packs: covered,
        fences,
    } = open_segment_footer(repository, key, &trailer, footer)?;
    let mut packs: Vec<SegmentPack> = covered.iter().map(parts::without_items).collect();
    let opener = Opener::new(repository, &trailer.header, key);
    let mut rest = &stored[HEADER_BYTES..range.start as usize];
    let mut last: Option<SegmentItem> = None;
    for (number, fence) in (0..).zip(&fences) {
        let Some((block, after)) = rest.split_at_checked(fence.stored_length as usize) else {
            return Err(wrong("blocks are longer than the segment"));
        };
        rest = after;
        let block = decode_block(&opener.open(number, block)?)?;
        let full = block.len() == BLOCK_ITEMS || number as usize + 1 == fences.len();
        let first = block.first().map(|item| item.id);
        if !full || first != Some(fence.first) || last.is_some_and(|last| last >= block[0]) {
            return Err(wrong("a block is not where its fence says"));
        }
        last = block.last().copied();
        block
            .iter()
            .try_for_each(|item| parts::place_item((&covered, &mut packs), item))?;
    }
    if !rest.is_empty() {
        return Err(wrong("blocks do not fill the segment"));
    }
    packs.iter_mut().try_for_each(parts::fill)?;
    Ok(packs)
}

fn wrong(rule: &'static str) -> FormatError {
    FormatError::Decode {
        what: "index segment",
        rule,
        offset: 0,
    }
}

const _: () = assert!(BLOCK_ITEMS * 52 + TAG_BYTES < 64 * 1024);

#[cfg(test)]
mod tests;
