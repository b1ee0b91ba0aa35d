//! What is in a pack: the list that its footer holds.

use super::{FRAME_PREFIX_BYTES, MAX_FOOTER_BYTES, MAX_PACK_BYTES, MAX_PACK_FRAMES};
use super::{MAX_STORED_FRAME_BYTES, check_kind};
use crate::coding::{Reader, put_varint};
use crate::error::{FormatError, check_limit};
use crate::frame::{Codec, FrameItem, MAX_FRAME_ITEMS, MAX_FRAME_PLAIN};
use crate::seal::{HEADER_BYTES, ObjectKind, TAG_BYTES};

/// What a frame's items are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum ItemKind {
    /// Chunks.
    Chunk = 1,
    /// Nodes of trees or lists.
    Node = 2,
}

impl TryFrom<u8> for ItemKind {
    type Error = FormatError;
    fn try_from(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Chunk),
            2 => Ok(Self::Node),
            _ => Err(FormatError::Unsupported {
                what: "kind of items",
                found: number.to_string(),
            }),
        }
    }
}

/// One chunk or node of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackItem {
    /// What it is.
    pub kind: ItemKind,
    /// Its id.
    pub id: [u8; 32],
    /// Where it starts in the frame's plain bytes.
    pub offset_in_frame: u32,
    /// Its plain bytes.
    pub length: u32,
}

/// One frame of a pack, as the footer lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackFrame {
    /// Its number, from 0.
    pub frame_no: u32,
    /// Where its stored bytes start in the pack.
    pub offset: u64,
    /// Their length.
    pub stored_length: u32,
    /// How the payload is stored.
    pub codec: Codec,
    /// Plain bytes.
    pub plain_length: u32,
    /// Its items, in order.
    pub items: Vec<PackItem>,
}

impl PackFrame {
    /// Its items as a frame lists them.
    pub fn frame_items(&self) -> Vec<FrameItem> {
        let item = |item: &PackItem| FrameItem {
            id: item.id,
            length: item.length,
        };
        self.items.iter().map(item).collect()
    }
}

pub(super) fn place_items(kind: ItemKind, items: &[FrameItem]) -> Vec<PackItem> {
    let mut offset_in_frame = 0;
    let place = |item: &FrameItem| {
        let placed = PackItem {
            kind,
            id: item.id,
            offset_in_frame,
            length: item.length,
        };
        offset_in_frame += item.length;
        placed
    };
    items.iter().map(place).collect()
}

/// Most bytes that a footer of so many frames and items takes: varints are at most five bytes.
pub(super) fn footer_bound(frames: usize, items: usize) -> usize {
    5 + frames * 17 + items * 37
}

pub(super) fn encode_footer(frames: &[PackFrame]) -> Vec<u8> {
    let items: usize = frames.iter().map(|frame| frame.items.len()).sum();
    let mut out = Vec::with_capacity(footer_bound(frames.len(), items));
    put_varint(&mut out, frames.len() as u64);
    for frame in frames {
        put_varint(&mut out, u64::from(frame.stored_length));
        out.push(frame.codec as u8);
        out.push(frame.items.first().map_or(0, |item| item.kind as u8));
        put_varint(&mut out, u64::from(frame.plain_length));
        put_varint(&mut out, frame.items.len() as u64);
        for item in &frame.items {
            out.extend_from_slice(&item.id);
            put_varint(&mut out, u64::from(item.length));
        }
    }
    out
}

/// The frames that a footer of a pack of this kind lists.
pub fn decode_footer(pack: ObjectKind, plain: &[u8]) -> Result<Vec<PackFrame>, FormatError> {
    check_limit(
        "footer of a pack",
        plain.len() as u64,
        MAX_FOOTER_BYTES as u64,
    )?;
    let mut reader = Reader::new("pack footer", plain);
    let count = reader.count("frames of a pack", MAX_PACK_FRAMES)?;
    // A frame takes 38 bytes at least: a lie about the count allocates nothing.
    let mut frames = Vec::with_capacity(count.min(reader.remaining() / 38));
    let mut offset = HEADER_BYTES as u64;
    for frame_no in 0..count as u32 {
        let stored_length = reader.count("stored frame", MAX_STORED_FRAME_BYTES)? as u32;
        let codec = Codec::try_from(reader.u8()?)?;
        let kind = ItemKind::try_from(reader.u8()?)?;
        check_kind(pack, kind)?;
        let limit = MAX_FRAME_PLAIN as usize;
        let plain_length = reader.count("plain length of a frame", limit)? as u32;
        let item_count = reader.count("items of a frame", MAX_FRAME_ITEMS)?;
        let mut items = Vec::with_capacity(item_count.min(reader.remaining() / 33));
        let mut offset_in_frame = 0;
        for _ in 0..item_count {
            let id = reader.array()?;
            let length = reader.count("item of a frame", limit)? as u32;
            if length == 0 || length > plain_length - offset_in_frame {
                return Err(reader.wrong("an item is empty or ends after its frame"));
            }
            items.push(PackItem {
                kind,
                id,
                offset_in_frame,
                length,
            });
            offset_in_frame += length;
        }
        if offset_in_frame != plain_length || items.is_empty() {
            return Err(reader.wrong("items do not fill their frame"));
        }
        if (stored_length as usize) < FRAME_PREFIX_BYTES + TAG_BYTES {
            return Err(reader.wrong("a stored frame is too short"));
        }
        frames.push(PackFrame {
            frame_no,
            offset,
            stored_length,
            codec,
            plain_length,
            items,
        });
        offset += u64::from(stored_length);
    }
    reader.finish()?;
    check_limit("pack", offset, MAX_PACK_BYTES)?;
    Ok(frames)
}
