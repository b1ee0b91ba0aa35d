//! Packs: immutable objects of sealed frames and a sealed footer that lists all that is in them.
//!
//! A pack is header, frames back to back from `HEADER_BYTES` on, footer, trailer. It is readable with
//! its key and nothing else; its name is BLAKE3 of its stored bytes. The builder uses up its salt.

use crate::coding::Reader;
use crate::error::{FormatError, check_limit};
use crate::frame::{Codec, Frame, MAX_FRAME_ITEMS, MAX_FRAME_PAYLOAD, open_payload};
use crate::id::{PackId, RepositoryId};
use crate::seal::{
    FOOTER_NUMBER, HEADER_BYTES, Header, KeyMaterial, KeyRef, ObjectKind, Opener, Sealer,
    SealingMaster, TAG_BYTES,
};
use bytes::Bytes;
use std::fmt;

mod footer;

pub use footer::{ItemKind, PackFrame, PackItem, decode_footer};
use footer::{encode_footer, footer_bound, place_items};

/// Stored bytes after which a pack is full.
pub const PACK_TARGET_BYTES: u64 = 32 * 1024 * 1024;
/// Most stored bytes of a pack.
pub const MAX_PACK_BYTES: u64 = 256 * 1024 * 1024;
/// Most frames of a pack.
pub const MAX_PACK_FRAMES: usize = 64 * 1024;
/// Most plain bytes of a footer.
pub const MAX_FOOTER_BYTES: usize = 16 * 1024 * 1024;
/// Most stored bytes of one frame: codec, plain length, payload, tag.
pub const MAX_STORED_FRAME_BYTES: usize = FRAME_PREFIX_BYTES + MAX_FRAME_PAYLOAD + TAG_BYTES;

/// Before the payload, under the seal: codec, and plain length in four bytes.
const FRAME_PREFIX_BYTES: usize = 5;
const TRAILER_BYTES: usize = 8 + HEADER_BYTES;

/// Where a frame was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameLocation {
    /// Its number.
    pub frame_no: u32,
    /// Where its stored bytes start in the pack.
    pub offset: u64,
    /// Their length.
    pub stored_length: u32,
}

/// A whole pack, ready to be put.
#[derive(Clone, Debug)]
pub struct FinishedPack {
    /// BLAKE3 of all stored bytes.
    pub id: PackId,
    /// The stored bytes that were not taken before by `PackBuilder::take_sealed`, in order.
    pub parts: Vec<Bytes>,
    /// Length of the whole pack.
    pub stored_bytes: u64,
    /// What is in it.
    pub frames: Vec<PackFrame>,
    /// Its header.
    pub header: Header,
}

impl FinishedPack {
    /// All parts in one piece, copied: a pack may have 32 MiB.
    pub fn bytes(&self) -> Bytes {
        self.parts.concat().into()
    }
}

/// Most sealed bytes that are allocated together, and as many as there are before: large enough to be few,
/// and small enough that the allocator keeps them for the next pack instead of asking the kernel for zeroed
/// pages each time.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// Seals frames into a pack.
pub struct PackBuilder {
    header: Header,
    sealer: Sealer,
    hasher: blake3::Hasher,
    /// Full parts, and the one that is being filled.
    parts: Vec<Bytes>,
    bytes: Vec<u8>,
    /// Bytes of all of them.
    memory: usize,
    /// Stored bytes so far, whether still here or taken.
    stored: u64,
    frames: Vec<PackFrame>,
    items: usize,
}

impl fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.frames.len();
        write!(f, "PackBuilder({frames} frames, {} bytes)", self.stored)
    }
}

impl PackBuilder {
    /// An empty pack. `salt` is 32 random bytes, drawn for this builder and never used again;
    /// `key` names `master`.
    pub fn new(
        repository: RepositoryId,
        kind: ObjectKind,
        key: KeyRef,
        master: &SealingMaster,
        salt: [u8; 32],
    ) -> Self {
        let header = Header { kind, key, salt };
        let bytes = header.encode().to_vec();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        Self {
            header,
            sealer: Sealer::new(&repository, &header, KeyMaterial::Master(master)),
            hasher,
            stored: bytes.len() as u64,
            memory: bytes.len(),
            parts: Vec::new(),
            bytes,
            frames: Vec::new(),
            items: 0,
        }
    }

    /// Seals a frame whose items are all of this kind. Refuses a frame that breaks a limit, a kind
    /// that does not belong in this pack, and what would make the pack too large.
    pub fn add(&mut self, frame: &Frame, kind: ItemKind) -> Result<FrameLocation, FormatError> {
        frame.validate()?;
        check_kind(self.header.kind, kind)?;
        let stored_length = FRAME_PREFIX_BYTES + frame.payload.len() + TAG_BYTES;
        check_limit(
            "frames of a pack",
            self.frames.len() as u64 + 1,
            MAX_PACK_FRAMES as u64,
        )?;
        let footer = footer_bound(self.frames.len() + 1, self.items + frame.items.len());
        check_limit("footer of a pack", footer as u64, MAX_FOOTER_BYTES as u64)?;
        let whole = self.stored + (stored_length + footer + TAG_BYTES + TRAILER_BYTES) as u64;
        check_limit("pack", whole, MAX_PACK_BYTES)?;

        let frame_no = self.frames.len() as u32;
        let mut prefix = [0; FRAME_PREFIX_BYTES];
        prefix[0] = frame.codec as u8;
        prefix[1..].copy_from_slice(&frame.plain_length.to_le_bytes());
        self.make_room(stored_length);
        let start = self.bytes.len();
        self.sealer
            .seal_into(frame_no, &[&prefix, &frame.payload], &mut self.bytes)?;
        self.hasher.update(&self.bytes[start..]);
        self.memory += self.bytes.len() - start;
        let location = FrameLocation {
            frame_no,
            offset: self.stored,
            stored_length: stored_length as u32,
        };
        self.stored += stored_length as u64;
        self.items += frame.items.len();
        self.frames.push(PackFrame {
            frame_no,
            offset: location.offset,
            stored_length: location.stored_length,
            codec: frame.codec,
            plain_length: frame.plain_length,
            items: place_items(kind, &frame.items),
        });
        Ok(location)
    }

    /// So many bytes more fit the part that is being filled.
    fn make_room(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more {
            let next = Vec::with_capacity(more.max(self.memory.min(PART_BYTES)));
            let full = std::mem::replace(&mut self.bytes, next);
            if !full.is_empty() {
                self.parts.push(full.into());
            }
        }
    }

    /// The pack's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Stored bytes so far, header included.
    pub fn stored_bytes(&self) -> u64 {
        self.stored
    }

    /// Stored bytes that are in memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory
    }

    /// Whether no frame was added.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether the pack has reached its target: time to finish it.
    pub fn is_full(&self) -> bool {
        self.stored >= PACK_TARGET_BYTES
            || self.frames.len() >= MAX_PACK_FRAMES
            || footer_bound(self.frames.len() + 1, self.items + MAX_FRAME_ITEMS) > MAX_FOOTER_BYTES
    }

    /// Takes the sealed bytes out of memory, for a spill file; the pack is what was taken, in order,
    /// and then `FinishedPack::bytes`.
    pub fn take_sealed(&mut self) -> Vec<Bytes> {
        self.memory = 0;
        let mut taken = std::mem::take(&mut self.parts);
        taken.push(std::mem::take(&mut self.bytes).into());
        taken
    }

    /// Seals the footer; the pack is complete.
    pub fn finish(mut self) -> Result<FinishedPack, FormatError> {
        let footer = encode_footer(&self.frames);
        self.make_room(footer.len() + TAG_BYTES + TRAILER_BYTES);
        let start = self.bytes.len();
        self.sealer
            .seal_into(FOOTER_NUMBER, &[&footer], &mut self.bytes)?;
        let footer_length = self.bytes.len() - start;
        let trailer = Trailer {
            header: self.header,
            frame_count: self.frames.len() as u32,
            footer_length: footer_length as u32,
        };
        self.bytes.extend_from_slice(&trailer.encode());
        self.hasher.update(&self.bytes[start..]);
        self.parts.push(self.bytes.into());
        Ok(FinishedPack {
            id: PackId::from_bytes(self.hasher.finalize().into()),
            stored_bytes: self.stored + (footer_length + TRAILER_BYTES) as u64,
            parts: self.parts,
            frames: self.frames,
            header: self.header,
        })
    }
}

/// The clear end of a pack: where its footer is, and its header once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// The pack's header.
    pub header: Header,
    /// Frames of the pack.
    pub frame_count: u32,
    /// Stored bytes of the footer, which lies just before the trailer.
    pub footer_length: u32,
}

/// Length of a trailer.
pub const fn trailer_bytes() -> usize {
    TRAILER_BYTES
}

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..4].copy_from_slice(&self.frame_count.to_le_bytes());
        out[4..8].copy_from_slice(&self.footer_length.to_le_bytes());
        out[8..].copy_from_slice(&self.header.encode());
        out
    }

    /// The trailer in the last `trailer_bytes()` of a pack.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let trailer = Self::decode_any(bytes)?;
        if !trailer.header.kind.is_pack() {
            return Err(FormatError::WrongKind {
                expected: "pack",
                found: trailer.header.kind.name(),
            });
        }
        check_limit(
            "frames of a pack",
            u64::from(trailer.frame_count),
            MAX_PACK_FRAMES as u64,
        )?;
        Ok(trailer)
    }

    /// The trailer of a pack or of another object that ends like one.
    pub(crate) fn decode_any(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("trailer", bytes);
        let (frame_count, footer_length) = (reader.u32()?, reader.u32()?);
        let header = Header::decode(reader.take(HEADER_BYTES)?)?;
        reader.finish()?;
        let limit = MAX_FOOTER_BYTES + TAG_BYTES;
        check_limit("footer", u64::from(footer_length), limit as u64)?;
        Ok(Self {
            header,
            frame_count,
            footer_length,
        })
    }

    /// Where the footer's stored bytes lie in a pack of this size.
    pub fn footer_range(&self, pack_bytes: u64) -> Result<std::ops::Range<u64>, FormatError> {
        let end = pack_bytes.checked_sub(TRAILER_BYTES as u64);
        end.and_then(|end| Some(end.checked_sub(u64::from(self.footer_length))?..end))
            .filter(|range| range.start >= HEADER_BYTES as u64)
            .ok_or_else(|| wrong("the pack is shorter than its footer"))
    }
}

/// What a pack holds, from the stored bytes of its footer.
pub fn open_footer(
    repository: &RepositoryId,
    key: KeyMaterial<'_>,
    trailer: &Trailer,
    footer: &[u8],
) -> Result<Vec<PackFrame>, FormatError> {
    if footer.len() != trailer.footer_length as usize {
        return Err(wrong("footer does not have the length in the trailer"));
    }
    let plain = Opener::new(repository, &trailer.header, key).open(FOOTER_NUMBER, footer)?;
    let frames = decode_footer(trailer.header.kind, &plain)?;
    if frames.len() != trailer.frame_count as usize {
        return Err(wrong("frames are not as many as the trailer says"));
    }
    Ok(frames)
}

/// What a whole pack holds, checked to its last byte: name, footer, and that the frames fill it.
pub fn open_pack<'k>(
    repository: &RepositoryId,
    id: &PackId,
    key_for: impl Fn(&KeyRef) -> Option<KeyMaterial<'k>>,
    stored: &[u8],
) -> Result<(Header, Vec<PackFrame>), FormatError> {
    if blake3::hash(stored).as_bytes() != id.as_bytes() {
        return Err(wrong("bytes do not have the name of the pack"));
    }
    let at = stored.len().saturating_sub(TRAILER_BYTES);
    let trailer = Trailer::decode(&stored[at..])?;
    if Header::decode(stored)? != trailer.header {
        return Err(wrong("header and trailer differ"));
    }
    let key = key_for(&trailer.header.key).ok_or_else(|| FormatError::KeyMissing {
        what: trailer.header.kind.name(),
        key: trailer.header.key.to_string(),
    })?;
    let range = trailer.footer_range(stored.len() as u64)?;
    let footer = &stored[range.start as usize..range.end as usize];
    let frames = open_footer(repository, key, &trailer, footer)?;
    let end = frames.last().map_or(HEADER_BYTES as u64, |frame| {
        frame.offset + u64::from(frame.stored_length)
    });
    if end != range.start {
        return Err(wrong("frames do not fill the pack"));
    }
    Ok((trailer.header, frames))
}

/// Codec, plain length and payload of a frame, from its stored bytes: neither opened nor checked
/// beyond the seal, to be opened with `open_payload` or sent on as it is.
pub fn unseal_frame(
    opener: &Opener,
    frame_no: u32,
    stored: &[u8],
) -> Result<(Codec, u32, Bytes), FormatError> {
    let length = stored.len() as u64;
    check_limit("stored frame", length, MAX_STORED_FRAME_BYTES as u64)?;
    let opened = Bytes::from(opener.open(frame_no, stored)?);
    let mut reader = Reader::new("stored frame", &opened);
    let codec = Codec::try_from(reader.u8()?)?;
    let plain_length = reader.u32()?;
    Ok((codec, plain_length, opened.slice(FRAME_PREFIX_BYTES..)))
}

/// The plain bytes of a frame, from its stored bytes.
pub fn open_frame(opener: &Opener, frame_no: u32, stored: &[u8]) -> Result<Bytes, FormatError> {
    let (codec, plain_length, payload) = unseal_frame(opener, frame_no, stored)?;
    open_payload(codec, plain_length, &payload)
}

/// The frame as it was before it was sealed, to be sent on as it is: the codec and payload are those
/// that were stored, the items those the footer lists.
pub fn reopen_frame(
    opener: &Opener,
    listed: &PackFrame,
    stored: &[u8],
) -> Result<Frame, FormatError> {
    let (codec, plain_length, payload) = unseal_frame(opener, listed.frame_no, stored)?;
    let frame = Frame {
        codec,
        plain_length,
        items: listed.frame_items(),
        payload,
    };
    frame.validate()?;
    Ok(frame)
}

pub(crate) fn check_kind(pack: ObjectKind, items: ItemKind) -> Result<(), FormatError> {
    match (pack, items) {
        (ObjectKind::DataPack, ItemKind::Chunk)
        | (ObjectKind::TreePack, ItemKind::Node)
        | (ObjectKind::MixedPack, _) => Ok(()),
        _ => Err(wrong(
            "items of this kind do not belong in this kind of object",
        )),
    }
}

fn wrong(rule: &'static str) -> FormatError {
    FormatError::Decode {
        what: "pack",
        rule,
        offset: 0,
    }
}

#[cfg(test)]
mod tests;
