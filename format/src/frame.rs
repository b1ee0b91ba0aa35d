//! Frames: one or many chunks (or nodes) back to back, compressed together. The unit of the wire, of
//! compression and of encryption.
//!
//! A frame is opened with a hard cap and must give exactly the bytes it claims; it is a bomb otherwise.

use crate::error::FormatError;
use crate::id::ChunkId;
use crate::keys::Ids;
use bytes::Bytes;
use std::cell::RefCell;
use std::fmt;
use zstd::zstd_safe::{self, CParameter};

/// Most plain bytes of a frame.
pub const MAX_FRAME_PLAIN: u32 = 2 * 1024 * 1024;
/// Plain bytes after which a frame of chunks is full.
pub const FRAME_TARGET: usize = 1024 * 1024;
/// Most items of a frame.
pub const MAX_FRAME_ITEMS: usize = 16 * 1024;
/// Most payload bytes of a frame: a payload longer than its plain bytes is never written.
pub const MAX_FRAME_PAYLOAD: usize = MAX_FRAME_PLAIN as usize;

/// How a payload is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 1,
    /// One zstd frame, without dictionary.
    Zstd = 2,
}

impl TryFrom<u8> for Codec {
    type Error = FormatError;
    fn try_from(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Raw),
            2 => Ok(Self::Zstd),
            _ => Err(FormatError::Unsupported {
                what: "codec",
                found: number.to_string(),
            }),
        }
    }
}

/// One chunk's or node's place in a frame; items lie back to back in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameItem {
    /// Its id.
    pub id: [u8; 32],
    /// Its plain bytes; never zero.
    pub length: u32,
}

/// A frame: what is in it, and its compressed bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// How the payload is stored.
    pub codec: Codec,
    /// Plain bytes; the sum of the items' lengths.
    pub plain_length: u32,
    /// At least one.
    pub items: Vec<FrameItem>,
    /// The stored form of the plain bytes.
    pub payload: Bytes,
}

impl Frame {
    /// Checks lengths and counts; whoever makes a frame from foreign data calls it before `open`.
    pub fn validate(&self) -> Result<(), FormatError> {
        let limit = |what, found, limit| Err(FormatError::Limit { what, found, limit });
        if self.plain_length > MAX_FRAME_PLAIN {
            let found = u64::from(self.plain_length);
            return limit("plain length of a frame", found, u64::from(MAX_FRAME_PLAIN));
        }
        if self.items.len() > MAX_FRAME_ITEMS {
            let found = self.items.len() as u64;
            return limit("items of a frame", found, MAX_FRAME_ITEMS as u64);
        }
        if self.payload.len() > MAX_FRAME_PAYLOAD {
            let found = self.payload.len() as u64;
            return limit("payload of a frame", found, MAX_FRAME_PAYLOAD as u64);
        }
        if self.items.is_empty() || self.items.iter().any(|item| item.length == 0) {
            return Err(wrong("no items, or an empty one"));
        }
        let sum: u64 = self.items.iter().map(|item| u64::from(item.length)).sum();
        if sum != u64::from(self.plain_length) {
            return Err(wrong("lengths of the items do not sum to the plain length"));
        }
        Ok(())
    }

    /// The plain bytes; a raw payload is shared, not copied.
    pub fn open(&self) -> Result<Bytes, FormatError> {
        self.validate()?;
        open_payload(self.codec, self.plain_length, &self.payload)
    }

    /// Each item's id with its part of the plain bytes that `open` gave.
    pub fn slices<'a>(
        &'a self,
        plain: &'a [u8],
    ) -> impl Iterator<Item = ([u8; 32], &'a [u8])> + 'a {
        let mut rest = plain;
        self.items.iter().map_while(move |item| {
            let (slice, after) = rest.split_at_checked(item.length as usize)?;
            rest = after;
            Some((item.id, slice))
        })
    }
}

/// The plain bytes of a payload, exactly `plain_length` of them.
pub fn open_payload(
    codec: Codec,
    plain_length: u32,
    payload: &Bytes,
) -> Result<Bytes, FormatError> {
    if plain_length > MAX_FRAME_PLAIN {
        return Err(FormatError::Limit {
            what: "plain length of a frame",
            found: u64::from(plain_length),
            limit: u64::from(MAX_FRAME_PLAIN),
        });
    }
    match codec {
        Codec::Raw if payload.len() == plain_length as usize => Ok(payload.clone()),
        Codec::Raw => Err(wrong("raw payload does not have the plain length")),
        Codec::Zstd => {
            let one = zstd_safe::find_frame_compressed_size(payload);
            if one != Ok(payload.len()) {
                return Err(wrong("payload is not exactly one zstd frame"));
            }
            let plain = DECOMPRESSOR
                .with_borrow_mut(|slot| {
                    let decompressor = match slot {
                        Some(decompressor) => decompressor,
                        None => slot.insert(zstd::bulk::Decompressor::new()?),
                    };
                    // The capacity is the cap: what would be longer fails.
                    decompressor.decompress(payload, plain_length as usize)
                })
                .map_err(|error| codec_error("open a frame", &error))?;
            if plain.len() != plain_length as usize {
                return Err(wrong("payload does not have the plain length"));
            }
            Ok(plain.into())
        }
    }
}

/// Checks that every item of a frame of chunks is the chunk that its id names.
pub fn verify_chunks(ids: &Ids, frame: &Frame, plain: &[u8]) -> Result<(), FormatError> {
    if plain.len() != frame.plain_length as usize {
        return Err(wrong("plain bytes do not have the plain length"));
    }
    for (id, bytes) in frame.slices(plain) {
        let id = ChunkId::from_bytes(id);
        if ids.chunk(bytes) != id {
            return Err(FormatError::ChunkMismatch(id));
        }
    }
    Ok(())
}

/// A reusable compression context. It belongs to one thread at a time and keeps a few MiB.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    level: i32,
    /// Whether literals are entropy coded now; only at [`DEFAULT_LEVEL`].
    literals: bool,
}

/// The level of frames, where nobody chooses another: the tables of zstd's level 2, matches from five
/// bytes on, and literals entropy coded only among data that packs well. On data that hardly does
/// (databases, media) that coding gains next to nothing and costs a third of the time.
pub const DEFAULT_LEVEL: i32 = 2;
/// Literals are coded after a frame that packed to this share, in percent, or less.
const LITERALS_BELOW: usize = 60;

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compressor(level {})", self.level)
    }
}

impl Compressor {
    /// A context for this zstd level.
    pub fn new(level: i32) -> Result<Self, FormatError> {
        let failed = |error: std::io::Error| codec_error("compress a frame", &error);
        let mut context = zstd::bulk::Compressor::new(level).map_err(failed)?;
        if level == DEFAULT_LEVEL {
            let shortest = CParameter::MinMatch(5);
            context.set_parameter(shortest).map_err(failed)?;
        }
        Ok(Self {
            context,
            level,
            literals: true,
        })
    }

    /// The zstd level.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// The codec and payload of these plain bytes: raw where zstd saves less than 1/32.
    pub fn compress(&mut self, mut plain: Vec<u8>) -> Result<(Codec, Bytes), FormatError> {
        let mut packed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        self.context
            .compress_to_buffer(&plain, &mut packed)
            .map_err(|error| codec_error("compress a frame", &error))?;
        if self.level == DEFAULT_LEVEL {
            let literals = packed.len() <= plain.len() / 100 * LITERALS_BELOW;
            if literals != self.literals {
                // Any target length turns the coding of literals off; 1 changes nothing else.
                let length = CParameter::TargetLength(u32::from(!literals));
                self.context
                    .set_parameter(length)
                    .map_err(|error| codec_error("compress a frame", &error))?;
                self.literals = literals;
            }
        }
        if packed.len() + plain.len() / 32 < plain.len() {
            // The bound is well above what was needed: do not keep it in memory behind the payload.
            packed.shrink_to_fit();
            Ok((Codec::Zstd, packed.into()))
        } else {
            plain.shrink_to_fit();
            Ok((Codec::Raw, plain.into()))
        }
    }
}

thread_local! {
    // Contexts cost a few MiB to set up, and frames are made by the thousand: one per thread is kept.
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

/// Gathers chunks (or nodes) until they are a frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    items: Vec<FrameItem>,
    plain: Vec<u8>,
}

impl FrameBuilder {
    /// An empty frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that holds these items, whose bytes lie back to back in `plain`; refuses what `push`
    /// would have refused. Nothing is copied.
    pub fn of(items: Vec<FrameItem>, plain: Vec<u8>) -> Result<Self, FormatError> {
        let frame = Frame {
            codec: Codec::Raw,
            plain_length: u32::try_from(plain.len()).unwrap_or(u32::MAX),
            items,
            payload: Bytes::new(),
        };
        frame.validate()?;
        Ok(Self {
            items: frame.items,
            plain,
        })
    }

    /// Adds an item. Refuses an empty one, and what would not fit any more: finish the frame first
    /// whenever `fits` says no.
    pub fn push(&mut self, id: [u8; 32], bytes: &[u8]) -> Result<(), FormatError> {
        if bytes.is_empty() {
            return Err(wrong("an empty item"));
        }
        if !self.fits(bytes.len()) {
            return Err(FormatError::Limit {
                what: "plain length of a frame",
                found: (self.plain.len() + bytes.len()) as u64,
                limit: u64::from(MAX_FRAME_PLAIN),
            });
        }
        self.items.push(FrameItem {
            id,
            length: bytes.len() as u32,
        });
        self.plain.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether one more item of this many bytes keeps to the limits.
    pub fn fits(&self, length: usize) -> bool {
        self.plain.len() + length <= MAX_FRAME_PLAIN as usize && self.items.len() < MAX_FRAME_ITEMS
    }

    /// Whether the frame has reached `FRAME_TARGET` or the most items: time to finish it.
    pub fn is_full(&self) -> bool {
        self.plain.len() >= FRAME_TARGET || self.items.len() >= MAX_FRAME_ITEMS
    }

    /// Plain bytes so far.
    pub fn plain_bytes(&self) -> usize {
        self.plain.len()
    }

    /// Items so far.
    pub fn item_count(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The frame, compressed at this zstd level with the calling thread's context.
    pub fn finish(self, level: i32) -> Result<Frame, FormatError> {
        COMPRESSOR.with_borrow_mut(|slot| {
            let compressor = match slot {
                Some(compressor) if compressor.level == level => compressor,
                _ => slot.insert(Compressor::new(level)?),
            };
            self.finish_with(compressor)
        })
    }

    /// The frame, compressed with this context.
    pub fn finish_with(self, compressor: &mut Compressor) -> Result<Frame, FormatError> {
        if self.items.is_empty() {
            return Err(wrong("no items"));
        }
        let plain_length = self.plain.len() as u32;
        let (codec, payload) = compressor.compress(self.plain)?;
        Ok(Frame {
            codec,
            plain_length,
            items: self.items,
            payload,
        })
    }
}

fn wrong(rule: &'static str) -> FormatError {
    FormatError::Decode {
        what: "frame",
        rule,
        offset: 0,
    }
}

fn codec_error(what: &'static str, error: &std::io::Error) -> FormatError {
    FormatError::Codec {
        what,
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::IdKey;

    fn frame(parts: &[&[u8]]) -> (Ids, Frame) {
        let ids = IdKey::from_bytes([1; 32]).ids();
        let mut builder = FrameBuilder::new();
        for part in parts {
            builder.push(ids.chunk(part).into_bytes(), part).unwrap();
        }
        (ids, builder.finish(1).unwrap())
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn frames_give_back_their_chunks_and_keep_noise_raw() {
        let text = b"the same words again and again ".repeat(100);
        let (ids, frame) = frame(&[&text, b"x"]);
        assert_eq!(frame.codec, Codec::Zstd);
        let plain = frame.open().unwrap();
        verify_chunks(&ids, &frame, &plain).unwrap();
        let slices: Vec<_> = frame.slices(&plain).map(|(_, bytes)| bytes).collect();
        assert_eq!(slices, [&text[..], b"x"]);

        let noise = noise(4096);
        let (ids, frame) = self::frame(&[&noise]);
        assert_eq!((frame.codec, frame.payload.len()), (Codec::Raw, 4096));
        verify_chunks(&ids, &frame, &frame.open().unwrap()).unwrap();
    }

    #[test]
    fn a_frame_that_lies_is_refused() {
        let text = b"abc".repeat(1000);
        let (ids, good) = frame(&[&text, &text[1..]]);
        let changed = |change: &dyn Fn(&mut Frame)| {
            let mut frame = good.clone();
            change(&mut frame);
            frame
                .open()
                .and_then(|plain| verify_chunks(&ids, &frame, &plain))
        };
        changed(&|_| ()).unwrap();
        // A zstd frame that holds nothing and may follow another: bytes that nobody would see.
        let hidden = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 77];
        let bad: [&dyn Fn(&mut Frame); 10] = [
            &|f| f.payload = [&f.payload[..], &hidden].concat().into(),
            &|f| f.items[0].id[0] ^= 1,
            &|f| f.items.swap(0, 1),
            &|f| f.items[0].length += 1,
            &|f| f.items.clear(),
            &|f| f.plain_length = u32::MAX,
            &|f| (f.plain_length, f.items[1].length) = (f.plain_length - 1, f.items[1].length - 1),
            &|f| (f.plain_length, f.items[1].length) = (f.plain_length + 1, f.items[1].length + 1),
            &|f| f.codec = Codec::Raw,
            &|f| f.payload = [&f.payload[..], &[0]].concat().into(),
        ];
        for (index, change) in bad.iter().enumerate() {
            assert!(changed(change).is_err(), "{index}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_its_claim() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let frame = Frame {
            codec: Codec::Zstd,
            plain_length: 1000,
            items: vec![FrameItem {
                id: [0; 32],
                length: 1000,
            }],
            payload: bomb.into(),
        };
        assert!(frame.open().is_err());
    }

    #[test]
    fn the_builder_keeps_to_the_limits() {
        let mut builder = FrameBuilder::new();
        assert!(builder.push([0; 32], b"").is_err());
        builder
            .push([0; 32], &vec![0; MAX_FRAME_PLAIN as usize])
            .unwrap();
        assert!(builder.push([0; 32], b"x").is_err());
        assert!(FrameBuilder::new().finish(1).is_err());
        let item = |length| FrameItem {
            id: [0; 32],
            length,
        };
        assert!(FrameBuilder::of(vec![item(2), item(1)], vec![1, 2, 3]).is_ok());
        assert!(FrameBuilder::of(vec![item(2), item(2)], vec![1, 2, 3]).is_err());
        assert!(FrameBuilder::of(vec![item(3), item(0)], vec![1, 2, 3]).is_err());
        assert!(FrameBuilder::of(Vec::new(), Vec::new()).is_err());
    }
}
