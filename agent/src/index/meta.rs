//! What an index describes: which snapshot of which volume, under which rules, seen from which kernel.

use super::record::{Damaged, put, varint};
use holdfast_format::id::{DomainId, SnapshotId, VolumeId};

/// The index's description of itself. An index whose description does not fit the session is
/// discarded, never bent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The volume.
    pub volume: VolumeId,
    /// Its dedup domain; random, so it names the repository too.
    pub domain: DomainId,
    /// The domain's generation: digests of another are worth nothing.
    pub generation: u32,
    /// Chunking profile that the digests were taken with.
    pub profile: u32,
    /// Inline limit that the digests were taken with, bytes.
    pub inline_limit: u32,
    /// The snapshot that the records describe.
    pub snapshot: SnapshotId,
    /// Boot id of the kernel under which the stamps were taken; stamps that were not settled are
    /// racy under another.
    pub boot_id: String,
    /// Node on which they were taken.
    pub node: String,
    /// Regular files in the snapshot, for estimates.
    pub files: u64,
    /// Sum of their sizes.
    pub content_bytes: u64,
}

const VERSION: u8 = 1;

impl Meta {
    /// As bytes, with a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(self.volume.as_bytes());
        out.extend_from_slice(self.domain.as_bytes());
        out.extend_from_slice(self.snapshot.as_bytes());
        for number in [
            u64::from(self.generation),
            u64::from(self.profile),
            u64::from(self.inline_limit),
            self.files,
            self.content_bytes,
        ] {
            put(&mut out, number);
        }
        for text in [&self.boot_id, &self.node] {
            put(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        let sum = blake3::hash(&out);
        out.extend_from_slice(&sum.as_bytes()[..8]);
        out
    }

    /// From bytes; `Damaged` also for another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or(Damaged)?;
        if blake3::hash(body).as_bytes()[..8] != *sum || body.first() != Some(&VERSION) {
            return Err(Damaged);
        }
        let mut input = &body[1..];
        fn array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Damaged> {
            let (head, rest) = input.split_first_chunk::<N>().ok_or(Damaged)?;
            *input = rest;
            Ok(*head)
        }
        fn text(input: &mut &[u8]) -> Result<String, Damaged> {
            let length = usize::try_from(varint(input)?).map_err(|_| Damaged)?;
            let (head, rest) = input.split_at_checked(length).ok_or(Damaged)?;
            *input = rest;
            String::from_utf8(head.to_vec()).map_err(|_| Damaged)
        }
        let small = |value: u64| u32::try_from(value).map_err(|_| Damaged);
        let volume = VolumeId::from_bytes(array(&mut input)?);
        let domain = DomainId::from_bytes(array(&mut input)?);
        let snapshot = SnapshotId::from_bytes(array(&mut input)?);
        let meta = Self {
            volume,
            domain,
            snapshot,
            generation: small(varint(&mut input)?)?,
            profile: small(varint(&mut input)?)?,
            inline_limit: small(varint(&mut input)?)?,
            files: varint(&mut input)?,
            content_bytes: varint(&mut input)?,
            boot_id: text(&mut input)?,
            node: text(&mut input)?,
        };
        if input.is_empty() {
            Ok(meta)
        } else {
            Err(Damaged)
        }
    }
}
