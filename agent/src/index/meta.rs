//! What an index describes: which snapshot of which volume, under which rules, seen from which kernel.

use super::record::{Damaged, Record};
use holdfast_format::coding::{Reader, put_bytes, put_varint};
use holdfast_format::entry::Kind;
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
    /// What it holds.
    pub totals: Totals,
}

/// What an index holds, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symlinks, FIFOs, sockets and devices.
    pub others: u64,
    /// Sum of the sizes of regular files.
    pub content_bytes: u64,
}

const VERSION: u8 = 2;
/// Longest boot id or node name that is believed.
const MAX_TEXT_BYTES: usize = 4096;

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
            self.totals.files,
            self.totals.directories,
            self.totals.others,
            self.totals.content_bytes,
        ] {
            put_varint(&mut out, number);
        }
        for text in [&self.boot_id, &self.node] {
            put_bytes(&mut out, text.as_bytes());
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
        let mut input = Reader::new("index description", &body[1..]);
        let volume = VolumeId::from_bytes(input.array()?);
        let domain = DomainId::from_bytes(input.array()?);
        let snapshot = SnapshotId::from_bytes(input.array()?);
        let meta = Self {
            volume,
            domain,
            snapshot,
            generation: input.varint32()?,
            profile: input.varint32()?,
            inline_limit: input.varint32()?,
            totals: Totals {
                files: input.varint()?,
                directories: input.varint()?,
                others: input.varint()?,
                content_bytes: input.varint()?,
            },
            boot_id: input.text("text", MAX_TEXT_BYTES)?,
            node: input.text("text", MAX_TEXT_BYTES)?,
        };
        input.finish()?;
        Ok(meta)
    }
}

impl Totals {
    /// One more record.
    pub fn add(&mut self, record: &Record) {
        match record.kind {
            Kind::File => {
                self.files += 1;
                self.content_bytes = self.content_bytes.saturating_add(record.size);
            }
            Kind::Directory => self.directories += 1,
            _ => self.others += 1,
        }
    }

    /// One record less, which was counted.
    pub fn remove(&mut self, record: &Record) {
        match record.kind {
            Kind::File => {
                self.files = self.files.saturating_sub(1);
                self.content_bytes = self.content_bytes.saturating_sub(record.size);
            }
            Kind::Directory => self.directories = self.directories.saturating_sub(1),
            _ => self.others = self.others.saturating_sub(1),
        }
    }
}
