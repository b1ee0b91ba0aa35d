//! Entries and contents as messages. What was validated on its way in is written as it is.

use super::WireContent;
use crate::entry::{Content, Entry, Extent, Kind, Xattr, XattrValue};
use crate::path::RelPath;
use bytes::Bytes;
use holdfast_proto::v1 as proto;
use proto::content::Body;

/// The message of an entry with a content that is not its own `entry.content`.
pub fn put_to_wire(path: &RelPath, entry: &Entry, content: WireContent) -> proto::Entry {
    let mut message = metadata_to_wire(path, entry);
    message.content = match content {
        WireContent::Empty | WireContent::Omitted => None,
        WireContent::Inline(bytes) => Some(Body::Inline(bytes)),
        WireContent::Extents { profile, extents } => {
            Some(Body::Extents(extents_to_wire(profile, &extents)))
        }
        WireContent::LongExtents { profile, first } => {
            message.more_extents = true;
            Some(Body::Extents(extents_to_wire(profile, &first)))
        }
        WireContent::AsInParent(path) => {
            Some(Body::AsInParent(Bytes::copy_from_slice(path.as_bytes())))
        }
    }
    .map(|body| proto::Content { body: Some(body) });
    message
}

/// The message of a whole entry. Of a list it is the start of a long content: continuations follow.
pub fn entry_to_wire(path: &RelPath, entry: &Entry) -> proto::Entry {
    let content = match &entry.content {
        Content::Empty => WireContent::Empty,
        Content::Inline(bytes) => WireContent::Inline(bytes.clone()),
        Content::Extents { profile, extents } => WireContent::Extents {
            profile: *profile,
            extents: extents.clone(),
        },
        Content::List { profile, .. } => return long_entry_to_wire(path, entry, *profile),
    };
    put_to_wire(path, entry, content)
}

/// The message of an entry whose extents all follow in continuations.
pub fn long_entry_to_wire(path: &RelPath, entry: &Entry, profile: u8) -> proto::Entry {
    let first = Vec::new();
    put_to_wire(path, entry, WireContent::LongExtents { profile, first })
}

/// The message of an entry in a listing: without content.
pub fn listed_to_wire(path: &RelPath, entry: &Entry) -> proto::Entry {
    metadata_to_wire(path, entry)
}

/// The message of a continuation.
pub fn more_to_wire(extents: &[Extent]) -> proto::Extents {
    extents_to_wire(0, extents)
}

/// The message of extents with their profile.
pub fn extents_to_wire(profile: u8, extents: &[Extent]) -> proto::Extents {
    proto::Extents {
        profile: u32::from(profile),
        extents: extents.iter().map(extent_to_wire).collect(),
    }
}

fn extent_to_wire(extent: &Extent) -> proto::Extent {
    let chunk = match extent {
        Extent::Chunk { id, .. } => Bytes::copy_from_slice(id.as_bytes()),
        Extent::Hole { .. } => Bytes::new(),
    };
    proto::Extent {
        chunk,
        length: extent.length(),
    }
}

fn metadata_to_wire(path: &RelPath, entry: &Entry) -> proto::Entry {
    let kind = match entry.kind {
        Kind::File => proto::Kind::File,
        Kind::Directory => proto::Kind::Directory,
        Kind::Symlink => proto::Kind::Symlink,
        Kind::Fifo => proto::Kind::Fifo,
        Kind::Socket => proto::Kind::Socket,
        Kind::CharDevice => proto::Kind::CharDevice,
        Kind::BlockDevice => proto::Kind::BlockDevice,
    };
    let xattr = |xattr: &Xattr| {
        let (value, chunks) = match &xattr.value {
            XattrValue::Inline(value) => (value.clone(), Vec::new()),
            XattrValue::Chunks(chunks) => {
                (Bytes::new(), chunks.iter().map(extent_to_wire).collect())
            }
        };
        proto::Xattr {
            name: xattr.name.clone(),
            value,
            chunks,
        }
    };
    proto::Entry {
        path: Bytes::copy_from_slice(path.as_bytes()),
        kind: kind.into(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime_ns: entry.mtime_ns,
        size: entry.size,
        xattrs: entry.xattrs.iter().map(xattr).collect(),
        target: entry.target.clone(),
        rdev: entry.rdev,
        content: None,
        hardlink: entry
            .hardlink
            .as_ref()
            .map_or_else(Bytes::new, |path| Bytes::copy_from_slice(path.as_bytes())),
        more_extents: false,
    }
}
