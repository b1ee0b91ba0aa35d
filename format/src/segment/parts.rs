//! The plain bytes of a segment's parts.

use super::wrong;
use super::{BLOCK_ITEMS, Fence, MAX_SEGMENT_BLOCKS, MAX_SEGMENT_ITEMS, MAX_SEGMENT_PACKS};
use super::{CoveredFrame, CoveredPack, SegmentFooter, SegmentItem, SegmentPack};
use crate::coding::{Reader, put_varint};
use crate::error::{FormatError, check_limit};
use crate::frame::{Codec, MAX_FRAME_PLAIN};
use crate::id::PackId;
use crate::pack::{
    ItemKind, MAX_FOOTER_BYTES, MAX_PACK_BYTES, MAX_PACK_FRAMES, MAX_STORED_FRAME_BYTES, PackFrame,
    PackItem, check_kind,
};
use crate::seal::{HEADER_BYTES, Header, KeyRef, ObjectKind};

/// The plain bytes of a block: its items, ascending.
pub fn encode_block(items: &[SegmentItem]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + items.len() * 44);
    put_varint(&mut out, items.len() as u64);
    for item in items {
        out.extend_from_slice(&item.id);
        for number in [item.pack, item.frame_no, item.offset_in_frame, item.length] {
            put_varint(&mut out, u64::from(number));
        }
    }
    out
}

/// The items of a block with these plain bytes: at least one, strictly ascending.
pub fn decode_block(plain: &[u8]) -> Result<Vec<SegmentItem>, FormatError> {
    let mut reader = Reader::new("block of a segment", plain);
    let count = reader.count("items of a block", BLOCK_ITEMS)?;
    let mut items: Vec<SegmentItem> = Vec::with_capacity(count.min(reader.remaining() / 36));
    for _ in 0..count {
        let item = SegmentItem {
            id: reader.array()?,
            pack: reader.varint32()?,
            frame_no: reader.varint32()?,
            offset_in_frame: reader.varint32()?,
            length: reader.varint32()?,
        };
        if items.last().is_some_and(|last| *last >= item) {
            return Err(reader.wrong("items not ascending"));
        }
        items.push(item);
    }
    if items.is_empty() {
        return Err(reader.wrong("a block without items"));
    }
    reader.finish()?;
    Ok(items)
}

/// The plain bytes of the footer of a segment with this header.
pub fn encode_segment_footer(
    header: &Header,
    footer: &SegmentFooter,
) -> Result<Vec<u8>, FormatError> {
    let mut out = Vec::new();
    check_limit(
        "packs of a segment",
        footer.packs.len() as u64,
        MAX_SEGMENT_PACKS as u64,
    )?;
    if !footer.packs.is_sorted_by(|a, b| a.id < b.id) {
        return Err(wrong("packs not ascending"));
    }
    put_varint(&mut out, footer.packs.len() as u64);
    for pack in &footer.packs {
        let Some(master) = master_of(header, &pack.header) else {
            return Err(wrong("a pack of another domain generation"));
        };
        out.extend_from_slice(pack.id.as_bytes());
        put_varint(&mut out, pack.size);
        out.push(pack.header.kind as u8);
        put_varint(&mut out, u64::from(master));
        out.extend_from_slice(&pack.header.salt);
        put_varint(&mut out, pack.frames.len() as u64);
        for frame in &pack.frames {
            put_varint(&mut out, u64::from(frame.stored_length));
            out.push(frame.codec as u8);
            out.push(frame.kind as u8);
            put_varint(&mut out, u64::from(frame.plain_length));
        }
    }
    put_varint(&mut out, footer.fences.len() as u64);
    for fence in &footer.fences {
        out.extend_from_slice(&fence.first);
        put_varint(&mut out, u64::from(fence.stored_length));
    }
    check_limit(
        "footer of a segment",
        out.len() as u64,
        MAX_FOOTER_BYTES as u64,
    )?;
    Ok(out)
}

/// The master of a pack that is sealed in the domain generation of the segment.
fn master_of(segment: &Header, pack: &Header) -> Option<u32> {
    match (segment.key, pack.key) {
        (
            KeyRef::Domain {
                domain, generation, ..
            },
            KeyRef::Domain {
                domain: of,
                generation: at,
                master,
            },
        ) if domain == of && generation == at => Some(master),
        _ => None,
    }
}

/// The footer of a segment with this header.
pub fn decode_segment_footer(header: &Header, plain: &[u8]) -> Result<SegmentFooter, FormatError> {
    check_limit(
        "footer of a segment",
        plain.len() as u64,
        MAX_FOOTER_BYTES as u64,
    )?;
    let mut reader = Reader::new("segment footer", plain);
    let KeyRef::Domain {
        domain, generation, ..
    } = header.key
    else {
        return Err(reader.wrong("it is not sealed for a domain"));
    };
    let count = reader.count("packs of a segment", MAX_SEGMENT_PACKS)?;
    let mut packs: Vec<CoveredPack> = Vec::with_capacity(count.min(reader.remaining() / 68));
    let mut frames_left = MAX_SEGMENT_ITEMS;
    for _ in 0..count {
        let id = PackId::from_bytes(reader.array()?);
        if packs.last().is_some_and(|last| last.id >= id) {
            return Err(reader.wrong("packs not ascending"));
        }
        let size = reader.varint()?;
        let kind = ObjectKind::try_from(reader.u8()?)?;
        if !kind.is_pack() || size > MAX_PACK_BYTES {
            return Err(reader.wrong("it covers what is no pack"));
        }
        let key = KeyRef::Domain {
            domain,
            generation,
            master: reader.varint32()?,
        };
        let salt = reader.array()?;
        let frames = read_frames(&mut reader, kind, size, &mut frames_left)?;
        let header = Header { kind, key, salt };
        packs.push(CoveredPack {
            id,
            size,
            header,
            frames,
        });
    }
    let count = reader.count("blocks of a segment", MAX_SEGMENT_BLOCKS)?;
    let mut fences: Vec<Fence> = Vec::with_capacity(count.min(reader.remaining() / 33));
    for _ in 0..count {
        let fence = Fence {
            first: reader.array()?,
            stored_length: reader.varint32()?,
        };
        // One id may have places in several blocks.
        if fences.last().is_some_and(|last| last.first > fence.first) {
            return Err(reader.wrong("blocks not ascending"));
        }
        fences.push(fence);
    }
    reader.finish()?;
    Ok(SegmentFooter { packs, fences })
}

fn read_frames(
    reader: &mut Reader<'_>,
    kind: ObjectKind,
    size: u64,
    left: &mut usize,
) -> Result<Vec<CoveredFrame>, FormatError> {
    let count = reader.count("frames of a pack", MAX_PACK_FRAMES.min(*left))?;
    *left -= count;
    let mut frames = Vec::with_capacity(count.min(reader.remaining() / 4));
    let mut offset = HEADER_BYTES as u64;
    for _ in 0..count {
        let stored_length = reader.count("stored frame", MAX_STORED_FRAME_BYTES)? as u32;
        let codec = Codec::try_from(reader.u8()?)?;
        let items = ItemKind::try_from(reader.u8()?)?;
        check_kind(kind, items)?;
        let limit = MAX_FRAME_PLAIN as usize;
        let plain_length = reader.count("plain length of a frame", limit)? as u32;
        frames.push(CoveredFrame {
            stored_length,
            codec,
            kind: items,
            plain_length,
        });
        offset += u64::from(stored_length);
    }
    match offset <= size {
        true => Ok(frames),
        false => Err(reader.wrong("frames are longer than their pack")),
    }
}

/// A pack as it is before its items are placed.
pub(super) fn without_items(pack: &CoveredPack) -> SegmentPack {
    let mut offset = HEADER_BYTES as u64;
    let frame = |(frame_no, frame): (u32, &CoveredFrame)| {
        let placed = PackFrame {
            frame_no,
            offset,
            stored_length: frame.stored_length,
            codec: frame.codec,
            plain_length: frame.plain_length,
            items: Vec::new(),
        };
        offset += u64::from(frame.stored_length);
        placed
    };
    SegmentPack {
        id: pack.id,
        size: pack.size,
        header: pack.header,
        frames: (0..).zip(&pack.frames).map(frame).collect(),
    }
}

/// Puts an item into its frame, in any order.
pub(super) fn place_item(
    (covered, packs): (&[CoveredPack], &mut [SegmentPack]),
    item: &SegmentItem,
) -> Result<(), FormatError> {
    let (pack, frame_no) = (item.pack as usize, item.frame_no as usize);
    let kind = covered.get(pack).and_then(|pack| pack.frames.get(frame_no));
    let frame = packs
        .get_mut(pack)
        .and_then(|pack| pack.frames.get_mut(frame_no));
    let (Some(CoveredFrame { kind, .. }), Some(frame)) = (kind, frame) else {
        return Err(wrong("an item of a frame that is not covered"));
    };
    if item.length == 0 {
        return Err(wrong("an item is empty"));
    }
    frame.items.push(PackItem {
        kind: *kind,
        id: item.id,
        offset_in_frame: item.offset_in_frame,
        length: item.length,
    });
    Ok(())
}

/// Puts the items of each frame in order; refuses unless they fill it exactly.
pub(super) fn fill(pack: &mut SegmentPack) -> Result<(), FormatError> {
    for frame in &mut pack.frames {
        frame
            .items
            .sort_unstable_by_key(|item| item.offset_in_frame);
        let mut end = 0u32;
        for item in &frame.items {
            if item.offset_in_frame != end {
                return Err(wrong("items overlap or leave a gap"));
            }
            end = end.saturating_add(item.length);
        }
        if end != frame.plain_length || frame.items.is_empty() {
            return Err(wrong("items do not fill their frame"));
        }
    }
    Ok(())
}
