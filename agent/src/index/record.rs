//! One path as the index remembers it, and the packed bytes of a block of siblings.
//!
//! A block holds children of one directory, sorted by name, each coded against the one before it. A
//! checksum covers the block: a name or digest that rotted on disk is noticed before it is believed.

use holdfast_format::FormatError;
use holdfast_format::coding::{Reader, put_signed, put_varint};
use holdfast_format::digest::ContentDigest;
use holdfast_format::entry::Kind;
use std::cmp::Ordering;

/// What the last accepted run knew of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; regular files only.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since the epoch; 0 without a stamp.
    pub ctime_ns: i64,
    /// Inode number; 0 without a stamp.
    pub ino: u64,
    /// What the stamp is worth: bits of [`trust`].
    pub trust: u8,
    /// What a regular file holds; `None` for everything else.
    pub content: Option<ContentDigest>,
    /// Digest of xattrs, symlink target and device number; `None` where there are none.
    pub extra: Option<[u8; 16]>,
    /// Digest of the path that the entry names as its hard link; `None` where it names none.
    pub hardlink: Option<[u8; 16]>,
}

/// Bits of [`Record::trust`].
pub mod trust {
    /// The record has a stamp; without it the path is known from the parent's entries only.
    pub const STAMPED: u8 = 1;
    /// The file may have changed within the granularity of its times.
    pub const RACY: u8 = 2;
    /// The file changed while it was read.
    pub const INCONSISTENT: u8 = 4;
    /// The bytes had reached the disk when they were read.
    pub const SETTLED: u8 = 8;
    /// The inode had more than one name, or is a directory: it is found by its number.
    pub const LINKED: u8 = 16;
    /// Somebody had the file open for writing when it was read, or nobody could tell. The kernel stamps a write(2)
    /// when it begins: what such a call puts there after the read is under the same times.
    pub const BUSY: u8 = 32;
    /// Of a busy one: its times had long stood still, and two reads found the same.
    pub const TWICE: u8 = 64;
}

/// Bytes of records after which a block is closed.
pub const BLOCK_TARGET_BYTES: usize = 16 * 1024;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 10;
const HAS_LINKED: u8 = 1;

const CONTENT: u8 = 1;
const EXTRA: u8 = 2;
const HARDLINK: u8 = 4;
const SAME_OWNER: u8 = 8;
/// Bits of trust that have no room beside the kind; a program from before passes them over.
const IS_BUSY: u8 = 16;
const IS_TWICE: u8 = 32;
/// Those that have room there.
const BESIDE_KIND: u8 = 31;

/// Why a block cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("index block is damaged")]
pub struct Damaged;

impl From<FormatError> for Damaged {
    fn from(_: FormatError) -> Self {
        Self
    }
}

/// Packs records into a block.
#[derive(Debug)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    last_name: Vec<u8>,
    last: Record,
    count: usize,
}

const ZERO: Record = Record {
    kind: Kind::File,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtime_ns: 0,
    ctime_ns: 0,
    ino: 0,
    trust: 0,
    content: None,
    extra: None,
    hardlink: None,
};

impl Default for BlockBuilder {
    fn default() -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES],
            last_name: Vec::new(),
            last: ZERO,
            count: 0,
        }
    }
}

impl BlockBuilder {
    /// The next sibling; names must ascend.
    pub fn push(&mut self, name: &[u8], record: &Record) {
        debug_assert!(self.count == 0 || name > self.last_name.as_slice());
        let shared = name
            .iter()
            .zip(&self.last_name)
            .take_while(|(a, b)| a == b)
            .count();
        let same_owner = record.mode == self.last.mode
            && record.uid == self.last.uid
            && record.gid == self.last.gid;
        let present = if record.content.is_some() { CONTENT } else { 0 }
            | if record.extra.is_some() { EXTRA } else { 0 }
            | if record.hardlink.is_some() {
                HARDLINK
            } else {
                0
            }
            | if same_owner { SAME_OWNER } else { 0 }
            | if record.trust & trust::BUSY != 0 {
                IS_BUSY
            } else {
                0
            }
            | if record.trust & trust::TWICE != 0 {
                IS_TWICE
            } else {
                0
            };
        if record.trust & trust::LINKED != 0 {
            self.bytes[1] |= HAS_LINKED;
        }
        // Names are at most 255 bytes, so both lengths fit in a byte.
        self.bytes.extend_from_slice(&[
            shared as u8,
            (name.len() - shared) as u8,
            present,
            (record.kind as u8) | ((record.trust & BESIDE_KIND) << 3),
        ]);
        self.bytes.extend_from_slice(&name[shared..]);
        if !same_owner {
            put_varint(&mut self.bytes, u64::from(record.mode));
            put_varint(&mut self.bytes, u64::from(record.uid));
            put_varint(&mut self.bytes, u64::from(record.gid));
        }
        put_varint(&mut self.bytes, record.size);
        put_signed(
            &mut self.bytes,
            record.ino.wrapping_sub(self.last.ino) as i64,
        );
        put_signed(
            &mut self.bytes,
            record.ctime_ns.wrapping_sub(self.last.ctime_ns),
        );
        put_signed(
            &mut self.bytes,
            record.mtime_ns.wrapping_sub(record.ctime_ns),
        );
        if let Some(content) = &record.content {
            self.bytes.extend_from_slice(&content.0);
        }
        for digest in [&record.extra, &record.hardlink].into_iter().flatten() {
            self.bytes.extend_from_slice(digest);
        }
        self.last_name.truncate(shared);
        self.last_name.extend_from_slice(&name[shared..]);
        self.last = *record;
        self.count += 1;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no record was pushed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The block's bytes; the builder is empty again.
    pub fn finish(&mut self) -> Vec<u8> {
        self.bytes[0] = VERSION;
        let sum = checksum(&self.bytes);
        self.bytes[2..HEADER_BYTES].copy_from_slice(&sum);
        std::mem::take(self).bytes
    }
}

/// A block taken apart: records with their names.
#[derive(Debug, Default)]
pub struct Block {
    names: Vec<u8>,
    records: Vec<(u32, u8, Record)>,
}

impl Block {
    /// Number of records.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The record at this position, with its name.
    pub fn get(&self, at: usize) -> Option<(&[u8], &Record)> {
        let (start, length, record) = self.records.get(at)?;
        let start = *start as usize;
        Some((&self.names[start..start + usize::from(*length)], record))
    }

    /// The record of this name.
    pub fn find(&self, name: &[u8]) -> Option<&Record> {
        let names = |at: usize| self.get(at).map_or(&b""[..], |(name, _)| name);
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match names(middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return self.get(middle).map(|(_, record)| record),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Record)> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// Takes a block apart into this one, reusing its memory.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.names.clear();
        self.records.clear();
        if bytes.len() < HEADER_BYTES
            || bytes[0] != VERSION
            || bytes[2..HEADER_BYTES] != checksum(bytes)
        {
            return Err(Damaged);
        }
        let mut input = Reader::new("index block", &bytes[HEADER_BYTES..]);
        let mut last = ZERO;
        let mut last_name = 0..0;
        while input.remaining() > 0 {
            let [shared, rest, present, kind] = input.array()?;
            let (shared, rest) = (usize::from(shared), usize::from(rest));
            if shared > last_name.len() || shared + rest > 255 {
                return Err(Damaged);
            }
            let start = self.names.len();
            self.names
                .extend_from_within(last_name.start..last_name.start + shared);
            self.names.extend_from_slice(input.take(rest)?);
            last_name = start..self.names.len();
            let (mode, uid, gid) = if present & SAME_OWNER != 0 {
                (last.mode, last.uid, last.gid)
            } else {
                (input.varint32()?, input.varint32()?, input.varint32()?)
            };
            let size = input.varint()?;
            let ino = last.ino.wrapping_add(input.signed()? as u64);
            let ctime_ns = last.ctime_ns.wrapping_add(input.signed()?);
            let mtime_ns = ctime_ns.wrapping_add(input.signed()?);
            let mut digest = |bit: u8| -> Result<Option<[u8; 16]>, Damaged> {
                if present & bit == 0 {
                    return Ok(None);
                }
                Ok(Some(input.array()?))
            };
            let record = Record {
                kind: kind_from(kind & 7)?,
                mode,
                uid,
                gid,
                size,
                mtime_ns,
                ctime_ns,
                ino,
                trust: (kind >> 3)
                    | if present & IS_BUSY != 0 {
                        trust::BUSY
                    } else {
                        0
                    }
                    | if present & IS_TWICE != 0 {
                        trust::TWICE
                    } else {
                        0
                    },
                content: digest(CONTENT)?.map(ContentDigest),
                extra: digest(EXTRA)?,
                hardlink: digest(HARDLINK)?,
            };
            self.records
                .push((start as u32, (shared + rest) as u8, record));
            last = record;
        }
        Ok(())
    }
}

/// Whether a block holds a record of an inode with more than one name.
pub fn holds_linked(block: &[u8]) -> bool {
    block.get(1).is_some_and(|flags| flags & HAS_LINKED != 0)
}

fn checksum(block: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&block[..2]).update(&block[HEADER_BYTES..]);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

fn kind_from(code: u8) -> Result<Kind, Damaged> {
    Ok(match code {
        1 => Kind::File,
        2 => Kind::Directory,
        3 => Kind::Symlink,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 => Kind::CharDevice,
        7 => Kind::BlockDevice,
        _ => return Err(Damaged),
    })
}
