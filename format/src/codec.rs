//! Bytes of entries and problems: the values of a snapshot's two trees.
//!
//! One value has one encoding: whatever decodes encodes to the same bytes again. What decodes has
//! passed `Entry::validate`.

use crate::chunker::MAX_CHUNK_BYTES;
use crate::coding::{Reader, put_bytes, put_signed, put_varint};
use crate::entry::{
    Content, Entry, Extent, Kind, MAX_ENTRY_BYTES, MAX_INLINE_EXTENTS, MAX_INLINE_LIMIT,
    MAX_INLINE_XATTR_BYTES, MAX_XATTR_BYTES, Problem, Xattr, XattrValue,
};
use crate::error::{FormatError, check_limit};
use crate::id::{ChunkId, NodeId};
use crate::path::{MAX_PATH_BYTES, RelPath};
use bytes::Bytes;

/// Most xattrs of an entry.
pub const MAX_XATTRS: usize = 1024;
/// Longest name of an xattr, in bytes.
pub const MAX_XATTR_NAME_BYTES: usize = 255;
/// Longest symlink target, in bytes.
pub const MAX_TARGET_BYTES: usize = 4096;
/// Longest reason of a problem, in bytes.
pub const MAX_REASON_BYTES: usize = 64;
/// Longest detail of a problem, in bytes.
pub const MAX_DETAIL_BYTES: usize = 4096;

/// First byte of an entry: kind in the lowest three bits, then these.
const HAS_XATTRS: u8 = 0x08;
const HAS_HARDLINK: u8 = 0x10;
const CONTENT_SHIFT: u8 = 5;
const RESERVED: u8 = 0x80;

const CONTENT_EMPTY: u8 = 0;
const CONTENT_INLINE: u8 = 1;
const CONTENT_EXTENTS: u8 = 2;
const CONTENT_LIST: u8 = 3;

const XATTR_INLINE: u8 = 0;
const XATTR_CHUNKS: u8 = 1;

const ENTRY: &str = "entry";

/// The bytes of an entry, if it is one and they keep to `MAX_ENTRY_BYTES`.
pub fn encode_entry(entry: &Entry) -> Result<Vec<u8>, FormatError> {
    entry.validate().map_err(|rule| FormatError::Entry {
        path: String::new(),
        rule,
    })?;
    let mut out = Vec::with_capacity(64);
    let content = match &entry.content {
        Content::Empty => CONTENT_EMPTY,
        Content::Inline(_) => CONTENT_INLINE,
        Content::Extents { .. } => CONTENT_EXTENTS,
        Content::List { .. } => CONTENT_LIST,
    };
    let mut tag = entry.kind as u8 | content << CONTENT_SHIFT;
    if !entry.xattrs.is_empty() {
        tag |= HAS_XATTRS;
    }
    if entry.hardlink.is_some() {
        tag |= HAS_HARDLINK;
    }
    out.push(tag);
    put_varint(&mut out, u64::from(entry.mode));
    put_varint(&mut out, u64::from(entry.uid));
    put_varint(&mut out, u64::from(entry.gid));
    out.extend_from_slice(&entry.mtime_ns.to_le_bytes());
    match entry.kind {
        Kind::File => put_varint(&mut out, entry.size),
        Kind::Symlink => put_bytes(&mut out, &entry.target),
        Kind::CharDevice | Kind::BlockDevice => put_varint(&mut out, entry.rdev),
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    if !entry.xattrs.is_empty() {
        put_varint(&mut out, entry.xattrs.len() as u64);
        for xattr in &entry.xattrs {
            put_xattr(&mut out, xattr);
        }
    }
    if let Some(path) = &entry.hardlink {
        put_bytes(&mut out, path.as_bytes());
    }
    match &entry.content {
        Content::Empty => {}
        Content::Inline(bytes) => out.extend_from_slice(bytes),
        Content::Extents { profile, extents } => {
            out.push(*profile);
            put_extents(&mut out, extents);
        }
        Content::List {
            profile,
            root,
            level,
        } => {
            out.extend_from_slice(&[*profile, *level]);
            out.extend_from_slice(root.as_bytes());
        }
    }
    check_limit("encoded entry", out.len(), MAX_ENTRY_BYTES)?;
    if entry.xattrs.len() > MAX_XATTRS {
        check_limit("xattrs of an entry", entry.xattrs.len(), MAX_XATTRS)?;
    }
    Ok(out)
}

/// The entry with these bytes.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, FormatError> {
    check_limit("encoded entry", bytes.len(), MAX_ENTRY_BYTES)?;
    let mut reader = Reader::new(ENTRY, bytes);
    let tag = reader.u8()?;
    if tag & RESERVED != 0 {
        return Err(reader.wrong("reserved bit set"));
    }
    let kind = kind_of(tag & 7).ok_or_else(|| reader.wrong("unknown kind"))?;
    let mut entry = Entry {
        kind,
        mode: reader.varint32()?,
        uid: reader.varint32()?,
        gid: reader.varint32()?,
        mtime_ns: reader.i64()?,
        size: 0,
        xattrs: Vec::new(),
        target: Bytes::new(),
        rdev: 0,
        content: Content::Empty,
        hardlink: None,
    };
    match kind {
        Kind::File => entry.size = reader.varint()?,
        Kind::Symlink => {
            let target = reader.bytes("symlink target", MAX_TARGET_BYTES)?;
            entry.target = Bytes::copy_from_slice(target);
        }
        Kind::CharDevice | Kind::BlockDevice => entry.rdev = reader.varint()?,
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    if tag & HAS_XATTRS != 0 {
        let count = reader.count("xattrs of an entry", MAX_XATTRS)?;
        if count == 0 {
            return Err(reader.wrong("flag of xattrs without any"));
        }
        for _ in 0..count {
            entry.xattrs.push(read_xattr(&mut reader)?);
        }
    }
    if tag & HAS_HARDLINK != 0 {
        let path = reader.bytes("path of a hard link", MAX_PATH_BYTES)?;
        entry.hardlink = Some(RelPath::new(path)?);
    }
    entry.content = match tag >> CONTENT_SHIFT {
        CONTENT_EMPTY => Content::Empty,
        CONTENT_INLINE => {
            check_limit(
                "inline content",
                reader.remaining(),
                MAX_INLINE_LIMIT as usize,
            )?;
            Content::Inline(Bytes::copy_from_slice(reader.rest()))
        }
        CONTENT_EXTENTS => Content::Extents {
            profile: reader.u8()?,
            extents: read_extents(&mut reader, MAX_INLINE_EXTENTS)?,
        },
        _ => Content::List {
            profile: reader.u8()?,
            level: reader.u8()?,
            root: NodeId::from_bytes(reader.array()?),
        },
    };
    if let Err(rule) = entry.validate() {
        return Err(reader.wrong(rule));
    }
    reader.finish()?;
    Ok(entry)
}

fn kind_of(number: u8) -> Option<Kind> {
    Some(match number {
        1 => Kind::File,
        2 => Kind::Directory,
        3 => Kind::Symlink,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 => Kind::CharDevice,
        7 => Kind::BlockDevice,
        _ => return None,
    })
}

fn put_xattr(out: &mut Vec<u8>, xattr: &Xattr) {
    put_bytes(out, &xattr.name);
    match &xattr.value {
        XattrValue::Inline(value) => {
            out.push(XATTR_INLINE);
            put_bytes(out, value);
        }
        XattrValue::Chunks(extents) => {
            out.push(XATTR_CHUNKS);
            put_extents(out, extents);
        }
    }
}

fn read_xattr(reader: &mut Reader<'_>) -> Result<Xattr, FormatError> {
    let name = reader.bytes("name of an xattr", MAX_XATTR_NAME_BYTES)?;
    let value = match reader.u8()? {
        XATTR_INLINE => XattrValue::Inline(Bytes::copy_from_slice(
            reader.bytes("value of an xattr", MAX_INLINE_XATTR_BYTES)?,
        )),
        // No chunk but the last is below 4 KiB in any profile.
        XATTR_CHUNKS => XattrValue::Chunks(read_extents(reader, MAX_XATTR_BYTES / 4096 + 1)?),
        _ => return Err(reader.wrong("unknown form of an xattr value")),
    };
    Ok(Xattr {
        name: Bytes::copy_from_slice(name),
        value,
    })
}

/// Appends extents: their count, then each as `length × 2` and its id, or `length × 2 + 1` for a hole.
pub fn put_extents(out: &mut Vec<u8>, extents: &[Extent]) {
    put_varint(out, extents.len() as u64);
    extents.iter().for_each(|extent| put_extent(out, extent));
}

/// Appends one extent.
pub fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Chunk { id, length } => {
            put_varint(out, u64::from(*length) << 1);
            out.extend_from_slice(id.as_bytes());
        }
        Extent::Hole { length } => put_varint(out, length << 1 | 1),
    }
}

/// Reads what `put_extents` appended, at most `limit` extents.
pub fn read_extents(reader: &mut Reader<'_>, limit: usize) -> Result<Vec<Extent>, FormatError> {
    let count = reader.count("extents", limit)?;
    // An extent takes two bytes at least: a lie about the count allocates nothing.
    let mut extents = Vec::with_capacity(count.min(reader.remaining() / 2));
    for _ in 0..count {
        extents.push(read_extent(reader)?);
    }
    Ok(extents)
}

/// Reads what `put_extent` appended.
pub fn read_extent(reader: &mut Reader<'_>) -> Result<Extent, FormatError> {
    let value = reader.varint()?;
    let length = value >> 1;
    if length == 0 {
        return Err(reader.wrong("empty extent"));
    }
    if value & 1 == 1 {
        return Ok(Extent::Hole { length });
    }
    if length > u64::from(MAX_CHUNK_BYTES) {
        return Err(FormatError::Limit {
            what: "chunk length",
            found: length,
            limit: u64::from(MAX_CHUNK_BYTES),
        });
    }
    Ok(Extent::Chunk {
        id: ChunkId::from_bytes(reader.array()?),
        length: length as u32,
    })
}

/// The bytes of a problem; a text above its limit is refused.
pub fn encode_problem(problem: &Problem) -> Result<Vec<u8>, FormatError> {
    let mut out = Vec::new();
    put_problem(&mut out, problem)?;
    Ok(out)
}

/// The problem with these bytes.
pub fn decode_problem(bytes: &[u8]) -> Result<Problem, FormatError> {
    let mut reader = Reader::new("problem", bytes);
    let problem = read_problem(&mut reader)?;
    reader.finish()?;
    Ok(problem)
}

pub(crate) fn put_problem(out: &mut Vec<u8>, problem: &Problem) -> Result<(), FormatError> {
    check_limit(
        "reason of a problem",
        problem.reason.len(),
        MAX_REASON_BYTES,
    )?;
    check_limit(
        "detail of a problem",
        problem.detail.len(),
        MAX_DETAIL_BYTES,
    )?;
    check_reason(&problem.reason)?;
    put_bytes(out, problem.reason.as_bytes());
    put_bytes(out, problem.detail.as_bytes());
    put_signed(out, i64::from(problem.errno));
    out.push(u8::from(problem.carried_over));
    out.extend_from_slice(&problem.since_ns.to_le_bytes());
    Ok(())
}

pub(crate) fn read_problem(reader: &mut Reader<'_>) -> Result<Problem, FormatError> {
    let reason = reader.text("reason of a problem", MAX_REASON_BYTES)?;
    check_reason(&reason)?;
    let detail = reader.text("detail of a problem", MAX_DETAIL_BYTES)?;
    let errno = reader.signed()?;
    Ok(Problem {
        reason,
        detail,
        errno: i32::try_from(errno).map_err(|_| reader.wrong("errno above 32 bits"))?,
        carried_over: reader.flag()?,
        since_ns: reader.i64()?,
    })
}

fn check_reason(reason: &str) -> Result<(), FormatError> {
    let upper = reason.starts_with(|c: char| c.is_ascii_uppercase());
    if upper && reason.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(FormatError::Decode {
        what: "problem",
        rule: "reason is not one UpperCamelCase word",
        offset: 0,
    })
}

#[cfg(test)]
mod tests;
