//! Entries: one path with its metadata and what it holds. Types only; bytes are in `codec`.
//!
//! An entry carries no run state: equal trees give equal bytes, whoever read them and when.

use crate::error::FormatError;
use crate::id::{ChunkId, NodeId};
use crate::path::RelPath;
use bytes::Bytes;

/// Largest encoded entry, in bytes.
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// Largest xattr value kept in the entry, in bytes; larger ones go into chunks.
pub const MAX_INLINE_XATTR_BYTES: usize = 4096;
/// Largest xattr value, in bytes (XATTR_SIZE_MAX of Linux).
pub const MAX_XATTR_BYTES: usize = 64 * 1024;
/// Most extents kept in an entry; longer contents become a list tree.
pub const MAX_INLINE_EXTENTS: usize = 64;
/// Largest inline limit that a repository may choose, in bytes.
pub const MAX_INLINE_LIMIT: u32 = 8192;
/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = i64::MAX as u64;

/// What a path is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Socket.
    Socket = 5,
    /// Character device.
    CharDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

/// A run of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Extent {
    /// A chunk of this many plain bytes (never zero).
    Chunk {
        /// Its id.
        id: ChunkId,
        /// Its plain bytes.
        length: u32,
    },
    /// A maximal run of zero bytes of at least 64 KiB, trimmed inwards to 4 KiB offsets.
    Hole {
        /// Bytes.
        length: u64,
    },
}

impl Extent {
    /// Bytes of file it stands for.
    pub fn length(&self) -> u64 {
        match self {
            Extent::Chunk { length, .. } => u64::from(*length),
            Extent::Hole { length } => *length,
        }
    }
}

/// What a regular file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// No bytes.
    Empty,
    /// All bytes, at most the repository's inline limit.
    Inline(Bytes),
    /// At most `MAX_INLINE_EXTENTS` extents.
    Extents {
        /// Chunking profile.
        profile: u8,
        /// In order; their lengths sum to the size.
        extents: Vec<Extent>,
    },
    /// A list tree.
    List {
        /// Chunking profile.
        profile: u8,
        /// Its root.
        root: NodeId,
        /// Height of the root; leaves are 0.
        level: u8,
    },
}

/// The value of an extended attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum XattrValue {
    /// At most 4 KiB.
    Inline(Bytes),
    /// Chunks in order, no holes; above 4 KiB.
    Chunks(Vec<Extent>),
}

/// An extended attribute; ACLs and capabilities are xattrs too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Xattr {
    /// Name with its namespace, e.g. `security.capability`.
    pub name: Bytes,
    /// Value.
    pub value: XattrValue,
}

/// One path's metadata and content; the path itself is the key it is stored under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `0..=0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Bytes; regular files only, else 0.
    pub size: u64,
    /// Sorted by name, no name twice.
    pub xattrs: Vec<Xattr>,
    /// Symlink target.
    pub target: Bytes,
    /// Device number as the kernel's `makedev` encodes it; devices only, else 0.
    pub rdev: u64,
    /// Regular files; `Empty` for everything else.
    pub content: Content,
    /// The smallest path (in key order) of the link group, when this is another member of it.
    pub hardlink: Option<RelPath>,
}

impl Entry {
    /// Checks every rule that does not need the path, the store or the repository's parameters.
    pub fn validate(&self) -> Result<(), &'static str> {
        let file = self.kind == Kind::File;
        if self.mode > 0o7777 {
            return Err("mode above 07777");
        }
        if !file && self.size != 0 {
            return Err("only regular files have a size");
        }
        if self.size > MAX_FILE_BYTES {
            return Err("size above 2^63 - 1");
        }
        if !file && self.content != Content::Empty {
            return Err("only regular files have content");
        }
        if self.hardlink.is_some() && self.kind == Kind::Directory {
            return Err("a directory cannot be a hard link");
        }
        if self.hardlink.as_ref().is_some_and(RelPath::is_root) {
            return Err("a hard link cannot name the root");
        }
        if (self.kind == Kind::Symlink) == self.target.is_empty() {
            return Err("a symlink has a target, and nothing else has");
        }
        if self.target.len() > 4096 || self.target.contains(&0) {
            return Err("symlink target above 4096 bytes or with NUL");
        }
        if !matches!(self.kind, Kind::CharDevice | Kind::BlockDevice) && self.rdev != 0 {
            return Err("only devices have a device number");
        }
        if !self.xattrs.windows(2).all(|w| w[0].name < w[1].name) {
            return Err("xattrs not sorted or repeated");
        }
        for xattr in &self.xattrs {
            xattr.validate()?;
        }
        self.validate_content()
    }

    fn validate_content(&self) -> Result<(), &'static str> {
        match &self.content {
            Content::Empty if self.kind == Kind::File && self.size != 0 => Err("content missing"),
            Content::Inline(bytes) if bytes.len() as u64 != self.size || bytes.is_empty() => {
                Err("inline content does not have the file's size")
            }
            Content::Inline(bytes) if bytes.len() > MAX_INLINE_LIMIT as usize => {
                Err("inline content too long")
            }
            Content::Extents { extents, .. } if extents.len() > MAX_INLINE_EXTENTS => {
                Err("too many extents")
            }
            Content::Extents { extents, .. } => match sum_lengths(extents) {
                Some(sum) if sum == self.size && sum > 0 => Ok(()),
                _ => Err("extents do not sum to the file's size"),
            },
            _ => Ok(()),
        }
    }

    /// An error that names this entry's path.
    pub fn error(path: &RelPath, rule: &'static str) -> FormatError {
        FormatError::Entry {
            path: path.to_string(),
            rule,
        }
    }
}

impl Xattr {
    fn validate(&self) -> Result<(), &'static str> {
        if self.name.is_empty() || self.name.len() > 255 || self.name.contains(&0) {
            return Err("xattr name empty, above 255 bytes or with NUL");
        }
        match &self.value {
            XattrValue::Inline(value) if value.len() > MAX_INLINE_XATTR_BYTES => {
                Err("xattr value too long")
            }
            XattrValue::Inline(_) => Ok(()),
            XattrValue::Chunks(extents) => match sum_lengths(extents) {
                _ if extents.iter().any(|e| matches!(e, Extent::Hole { .. })) => {
                    Err("hole in an xattr")
                }
                Some(sum)
                    if sum > MAX_INLINE_XATTR_BYTES as u64 && sum <= MAX_XATTR_BYTES as u64 =>
                {
                    Ok(())
                }
                _ => Err("xattr chunks below 4 KiB or above 64 KiB"),
            },
        }
    }
}

/// Sum of lengths; `None` where one is zero or the sum overflows.
pub fn sum_lengths(extents: &[Extent]) -> Option<u64> {
    extents
        .iter()
        .try_fold(0u64, |sum, extent| match extent.length() {
            0 => None,
            length => sum.checked_add(length),
        })
}

/// A file that could not be stored as it was meant to be; the value of the problems tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Stable UpperCamelCase word.
    pub reason: String,
    /// For people.
    pub detail: String,
    /// 0: none.
    pub errno: i32,
    /// The parent's entry (and subtree) stands in its place.
    pub carried_over: bool,
    /// Time of the first run that saw it, nanoseconds since the epoch.
    pub since_ns: i64,
}
