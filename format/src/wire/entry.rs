//! Entries and changes on the wire. A long content is an entry and then further messages.

use super::{is_profile, optional_id_from_wire, problem_from_wire, wrong};
use crate::chunker::MAX_CHUNK_BYTES;
use crate::codec::MAX_XATTRS;
use crate::content::{HOLE_ALIGN_BYTES, MIN_HOLE_BYTES};
use crate::entry::{Content, Entry, Extent, Kind, Problem, Xattr, XattrValue};
use crate::error::{FormatError, check_limit};
use crate::id::ChunkId;
use crate::path::RelPath;
use bytes::Bytes;
use holdfast_proto::v1 as proto;
use proto::content::Body;

/// Most extents of one message.
pub const MAX_WIRE_EXTENTS: usize = 65_536;
/// Shortest hole: 64 KiB of zeros from just after one 4 KiB offset to just before another.
const SHORTEST_HOLE_BYTES: u64 = MIN_HOLE_BYTES - HOLE_ALIGN_BYTES as u64;

/// Who sends an entry, and so what it may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// An agent that backs up: contents may be "as in the parent".
    Backup,
    /// A coordinator that restores: contents are whole.
    Restore,
    /// A coordinator that lists: contents are left out.
    Listing,
}

/// Parameters of the repository that entries must keep to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Files up to this size are inline, all others are not; in bytes.
    pub inline_limit: u32,
    /// The profile that contents must name; `None`: any that the format knows.
    pub profile: Option<u8>,
}

/// A content as a message gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WireContent {
    /// No bytes, or no regular file.
    Empty,
    /// All bytes.
    Inline(Bytes),
    /// The whole content.
    Extents {
        /// Chunking profile.
        profile: u8,
        /// In order; their lengths sum to the size.
        extents: Vec<Extent>,
    },
    /// The first part of a content that further messages continue.
    LongExtents {
        /// Chunking profile.
        profile: u8,
        /// In order; may be none.
        first: Vec<Extent>,
    },
    /// The content (and size) of this path in the parent's tree.
    AsInParent(RelPath),
    /// Left out of a listing.
    Omitted,
}

/// A change as a message gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WireChange {
    /// The path has this entry. `entry.content` is `Empty`: `content` says what it is.
    Put {
        /// The path.
        path: RelPath,
        /// Everything but the content.
        entry: Box<Entry>,
        /// The content.
        content: WireContent,
    },
    /// Continues the extents of the entry before it.
    More(Vec<Extent>),
    /// No more extents come.
    End,
    /// The path and its subtree are gone.
    Remove(RelPath),
}

/// A part of a restored tree as a message gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WirePart {
    /// An entry, as in `WireChange::Put`.
    Entry {
        /// The path.
        path: RelPath,
        /// Everything but the content.
        entry: Box<Entry>,
        /// The content.
        content: WireContent,
    },
    /// Continues the extents of the entry before it.
    More(Vec<Extent>),
    /// No more extents come.
    End,
    /// Entries here could not be read.
    Damaged(RelPath, Problem),
}

/// Checks the extents of one content as they come: holes where the format puts them, lengths that sum
/// to the size.
#[derive(Clone, Debug, Default)]
pub struct ContentChecker {
    offset: u64,
    after_hole: bool,
}

impl ContentChecker {
    /// The next extents.
    pub fn push(&mut self, extents: &[Extent]) -> Result<(), FormatError> {
        for extent in extents {
            if let Extent::Hole { length } = extent {
                let align = HOLE_ALIGN_BYTES as u64;
                let canonical = *length >= SHORTEST_HOLE_BYTES
                    && length.is_multiple_of(align)
                    && self.offset.is_multiple_of(align)
                    && !self.after_hole;
                if !canonical {
                    return Err(wrong("content", "hole where the format has none"));
                }
            }
            self.after_hole = matches!(extent, Extent::Hole { .. });
            self.offset = match (extent.length(), self.offset.checked_add(extent.length())) {
                (0, _) | (_, None) => return Err(wrong("content", "impossible length")),
                (_, Some(offset)) => offset,
            };
        }
        Ok(())
    }

    /// Bytes of content so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// The content is complete: it must have this size.
    pub fn finish(self, size: u64) -> Result<(), FormatError> {
        if self.offset == size {
            return Ok(());
        }
        Err(wrong("content", "extents do not sum to the file's size"))
    }
}

/// A change of an upload.
pub fn change_from_wire(
    message: proto::Change,
    limits: &Limits,
) -> Result<WireChange, FormatError> {
    use proto::change::Change;
    match message.change {
        Some(Change::Put(entry)) => {
            let (path, entry, content) = put_from_wire(entry, Sender::Backup, limits)?;
            Ok(WireChange::Put {
                path,
                entry: Box::new(entry),
                content,
            })
        }
        Some(Change::Remove(path)) => {
            let path = RelPath::new(path)?;
            if path.is_root() {
                return Err(FormatError::Change {
                    path: path.to_string(),
                    rule: "the root cannot be removed",
                });
            }
            Ok(WireChange::Remove(path))
        }
        Some(Change::More(more)) => more_from_wire(more).map(WireChange::More),
        Some(Change::EndOfExtents(true)) => Ok(WireChange::End),
        Some(Change::EndOfExtents(false)) | None => Err(wrong("change", "empty")),
    }
}

/// A part of a restored tree.
pub fn part_from_wire(
    message: proto::EntryPart,
    sender: Sender,
    limits: &Limits,
) -> Result<WirePart, FormatError> {
    use proto::entry_part::Part;
    match message.part {
        Some(Part::Entry(entry)) => {
            let (path, entry, content) = put_from_wire(entry, sender, limits)?;
            Ok(WirePart::Entry {
                path,
                entry: Box::new(entry),
                content,
            })
        }
        Some(Part::More(more)) => more_from_wire(more).map(WirePart::More),
        Some(Part::EndOfExtents(true)) => Ok(WirePart::End),
        Some(Part::Damaged(problem)) => {
            let (path, problem) = problem_from_wire(problem)?;
            Ok(WirePart::Damaged(path, problem))
        }
        Some(Part::EndOfExtents(false)) | None => Err(wrong("part of a tree", "empty")),
    }
}

/// An entry with its path. Its `content` is `Empty`; its size is the one sent, whatever the content.
pub fn put_from_wire(
    mut message: proto::Entry,
    sender: Sender,
    limits: &Limits,
) -> Result<(RelPath, Entry, WireContent), FormatError> {
    let path = RelPath::new(std::mem::take(&mut message.path))?;
    let broken = |rule| Entry::error(&path, rule);
    let content = message.content.take();
    let long = message.more_extents;
    let size = message.size;
    let mut entry = metadata_from_wire(message).map_err(|error| match error {
        FormatError::Entry { rule, .. } | FormatError::Decode { rule, .. } => broken(rule),
        other => other,
    })?;
    let content =
        content_from_wire(content, long, size, sender, limits).map_err(|error| match error {
            FormatError::Decode { rule, .. } => broken(rule),
            other => other,
        })?;
    if entry.kind != Kind::File && (size != 0 || content != WireContent::Empty) {
        return Err(broken("only regular files have a size and content"));
    }
    entry.validate().map_err(broken)?;
    if size > crate::entry::MAX_FILE_BYTES {
        return Err(broken("size above 2^63 - 1"));
    }
    if path.is_root() && entry.kind != Kind::Directory {
        return Err(broken("the root is not a directory"));
    }
    if entry.hardlink.as_ref().is_some_and(|first| *first >= path) {
        return Err(broken("a hard link names no smaller path"));
    }
    entry.size = size;
    Ok((path, entry, content))
}

/// Everything but path, content and size.
fn metadata_from_wire(message: proto::Entry) -> Result<Entry, FormatError> {
    let kind = match message.kind() {
        proto::Kind::File => Kind::File,
        proto::Kind::Directory => Kind::Directory,
        proto::Kind::Symlink => Kind::Symlink,
        proto::Kind::Fifo => Kind::Fifo,
        proto::Kind::Socket => Kind::Socket,
        proto::Kind::CharDevice => Kind::CharDevice,
        proto::Kind::BlockDevice => Kind::BlockDevice,
        proto::Kind::Unspecified => return Err(wrong("entry", "kind is not known")),
    };
    check_limit("xattrs of an entry", message.xattrs.len(), MAX_XATTRS)?;
    let hardlink = match message.hardlink.is_empty() {
        true => None,
        false => Some(RelPath::new(message.hardlink)?),
    };
    Ok(Entry {
        kind,
        mode: message.mode,
        uid: message.uid,
        gid: message.gid,
        mtime_ns: message.mtime_ns,
        size: 0,
        xattrs: message
            .xattrs
            .into_iter()
            .map(xattr_from_wire)
            .collect::<Result<_, _>>()?,
        target: message.target,
        rdev: message.rdev,
        content: Content::Empty,
        hardlink,
    })
}

fn xattr_from_wire(message: proto::Xattr) -> Result<Xattr, FormatError> {
    let value = if message.chunks.is_empty() {
        XattrValue::Inline(message.value)
    } else if message.value.is_empty() {
        XattrValue::Chunks(extents_from_wire(&message.chunks)?)
    } else {
        return Err(wrong("xattr", "an xattr has a value and chunks"));
    };
    Ok(Xattr {
        name: message.name,
        value,
    })
}

fn content_from_wire(
    message: Option<proto::Content>,
    long: bool,
    size: u64,
    sender: Sender,
    limits: &Limits,
) -> Result<WireContent, FormatError> {
    let inline = size <= u64::from(limits.inline_limit);
    let body = message.and_then(|content| content.body);
    if long && !matches!(body, Some(Body::Extents(_))) {
        return Err(wrong("content", "more extents follow what has none"));
    }
    if sender == Sender::Listing {
        return match body {
            None if size == 0 => Ok(WireContent::Empty),
            None => Ok(WireContent::Omitted),
            Some(_) => Err(wrong("content", "content in a listing")),
        };
    }
    match body {
        None if size == 0 => Ok(WireContent::Empty),
        None => Err(wrong("content", "content missing")),
        Some(Body::Inline(bytes)) => {
            if bytes.len() as u64 != size || size == 0 {
                return Err(wrong(
                    "content",
                    "inline content does not have the file's size",
                ));
            }
            check_limit("inline content", bytes.len(), limits.inline_limit as usize)?;
            Ok(WireContent::Inline(bytes))
        }
        Some(Body::AsInParent(path)) if sender == Sender::Backup => {
            Ok(WireContent::AsInParent(RelPath::new(path)?))
        }
        Some(Body::AsInParent(_)) => Err(wrong("content", "as in the parent, in a restore")),
        Some(Body::Extents(_)) if inline => Err(wrong(
            "content",
            "extents for a file that is kept in its entry",
        )),
        Some(Body::Extents(message)) => {
            let profile = u8::try_from(message.profile)
                .ok()
                .filter(|number| is_profile(message.profile) && limits.takes(*number))
                .ok_or_else(|| FormatError::Unsupported {
                    what: "chunking profile",
                    found: message.profile.to_string(),
                })?;
            let extents = extents_from_wire(&message.extents)?;
            let mut checker = ContentChecker::default();
            checker.push(&extents)?;
            if long {
                return Ok(WireContent::LongExtents {
                    profile,
                    first: extents,
                });
            }
            checker.finish(size)?;
            Ok(WireContent::Extents { profile, extents })
        }
    }
}

impl Limits {
    fn takes(&self, profile: u8) -> bool {
        self.profile.is_none_or(|only| only == profile)
    }
}

/// Extents of a continuation; only the entry names the profile.
fn more_from_wire(message: proto::Extents) -> Result<Vec<Extent>, FormatError> {
    if message.profile != 0 {
        return Err(wrong("content", "a continuation names a profile"));
    }
    extents_from_wire(&message.extents)
}

fn extents_from_wire(messages: &[proto::Extent]) -> Result<Vec<Extent>, FormatError> {
    check_limit("extents of a message", messages.len(), MAX_WIRE_EXTENTS)?;
    let extent = |message: &proto::Extent| {
        if message.length == 0 {
            return Err(wrong("content", "empty extent"));
        }
        match optional_id_from_wire::<ChunkId>(&message.chunk)? {
            None => Ok(Extent::Hole {
                length: message.length,
            }),
            Some(id) if message.length <= u64::from(MAX_CHUNK_BYTES) => Ok(Extent::Chunk {
                id,
                length: message.length as u32,
            }),
            Some(_) => Err(FormatError::Limit {
                what: "chunk length",
                found: message.length,
                limit: u64::from(MAX_CHUNK_BYTES),
            }),
        }
    };
    messages.iter().map(extent).collect()
}
