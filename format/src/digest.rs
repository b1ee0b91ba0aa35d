//! A short digest of what a file holds, equal exactly when its flat content is equal.
//!
//! It is taken over the inline bytes or the extents in order, never over list nodes, so that an agent
//! (which sees extents) and a coordinator (which stores lists) agree on it. The profile is not in it.

use crate::entry::{Content, Extent};
use crate::id::hex;
use crate::keys::Ids;
use std::fmt;

/// Keyed BLAKE3, cut to 16 bytes, of a file's flat content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest(pub [u8; 16]);

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentDigest({})", hex(&self.0))
    }
}

const INLINE: u8 = 1;
const EXTENTS: u8 = 2;
const CHUNK: u8 = 1;
const HOLE: u8 = 2;

impl ContentDigest {
    /// Of a file whose bytes are in its entry; no bytes are the empty file.
    pub fn of_inline(ids: &Ids, bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(ids.digest_key());
        hasher.update(&[INLINE]).update(bytes);
        cut(&hasher)
    }

    /// Of a file without bytes.
    pub fn of_empty(ids: &Ids) -> Self {
        Self::of_inline(ids, &[])
    }

    /// Of a content that is whole in its entry; `None` for a list, whose extents must be streamed.
    pub fn of_content(ids: &Ids, content: &Content) -> Option<Self> {
        match content {
            Content::Empty => Some(Self::of_empty(ids)),
            Content::Inline(bytes) => Some(Self::of_inline(ids, bytes)),
            Content::Extents { extents, .. } => {
                let mut digester = ContentDigester::new(ids);
                extents
                    .iter()
                    .for_each(|extent| digester.push_extent(extent));
                Some(digester.finish())
            }
            Content::List { .. } => None,
        }
    }
}

/// Takes the digest of a content from its extents as they pass by.
#[derive(Clone)]
pub struct ContentDigester(blake3::Hasher);

impl fmt::Debug for ContentDigester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentDigester")
    }
}

impl ContentDigester {
    /// A digest of no extents yet.
    pub fn new(ids: &Ids) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(ids.digest_key());
        hasher.update(&[EXTENTS]);
        Self(hasher)
    }

    /// The next extent.
    pub fn push_extent(&mut self, extent: &Extent) {
        let mut bytes = [0; 37];
        match extent {
            Extent::Chunk { id, length } => {
                bytes[0] = CHUNK;
                bytes[1..33].copy_from_slice(id.as_bytes());
                bytes[33..].copy_from_slice(&length.to_le_bytes());
                self.0.update(&bytes);
            }
            Extent::Hole { length } => {
                bytes[0] = HOLE;
                bytes[1..9].copy_from_slice(&length.to_le_bytes());
                self.0.update(&bytes[..9]);
            }
        }
    }

    /// The digest of all extents pushed.
    pub fn finish(self) -> ContentDigest {
        cut(&self.0)
    }
}

fn cut(hasher: &blake3::Hasher) -> ContentDigest {
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    ContentDigest(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;
    use crate::keys::IdKey;

    #[test]
    fn contents_that_differ_have_different_digests() {
        let ids = IdKey::from_bytes([1; 32]).ids();
        let chunk = |id, length| Extent::Chunk {
            id: ChunkId::from_bytes([id; 32]),
            length,
        };
        let extents = |extents: &[Extent]| Content::Extents {
            profile: 1,
            extents: extents.to_vec(),
        };
        let contents = [
            Content::Empty,
            Content::Inline(b"a".to_vec().into()),
            extents(&[chunk(1, 9)]),
            extents(&[chunk(1, 8)]),
            extents(&[chunk(2, 9)]),
            extents(&[Extent::Hole { length: 9 }]),
            extents(&[chunk(1, 9), chunk(1, 9)]),
            extents(&[chunk(1, 9), Extent::Hole { length: 9 }]),
            extents(&[Extent::Hole { length: 9 }, chunk(1, 9)]),
        ];
        let digests: Vec<_> = contents
            .iter()
            .map(|content| ContentDigest::of_content(&ids, content).unwrap())
            .collect();
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{:?}", contents[index]);
        }
    }
}
