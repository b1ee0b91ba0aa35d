//! What the coordinator says, as types of the format; validation is `format::wire`'s.

use crate::Error;
use crate::error::Result;
use bytes::Bytes;
use holdfast_format::FormatError;
use holdfast_format::entry::{self, Content, Entry, Extent, Kind, Xattr, XattrValue};
use holdfast_format::frame::{Codec, Frame, FrameItem};
use holdfast_format::id::ChunkId;
use holdfast_format::path::RelPath;
use holdfast_proto::v1 as proto;
use tonic_types::StatusExt;

pub fn frame(frame: proto::Frame) -> Result<Frame> {
    let go = || -> std::result::Result<Frame, FormatError> {
        let f = Frame {
            codec: Codec::try_from(frame.codec as u8)?,
            plain_length: frame.plain_length,
            items: frame
                .chunks
                .iter()
                .map(|c| {
                    Ok(FrameItem {
                        id: *ChunkId::try_from(c.id.as_ref())?.as_bytes(),
                        length: c.length,
                    })
                })
                .collect::<std::result::Result<_, FormatError>>()?,
            payload: frame.payload.clone(),
        };
        f.validate()?;
        Ok(f)
    };
    go().map_err(|source| Error::Answer {
        what: "fetch chunks",
        source,
    })
}

pub fn extents(e: proto::Extents) -> std::result::Result<Vec<Extent>, FormatError> {
    e.extents.iter().map(extent).collect()
}

fn extent(e: &proto::Extent) -> std::result::Result<Extent, FormatError> {
    if e.chunk.is_empty() {
        return Ok(Extent::Hole { length: e.length });
    }
    Ok(Extent::Chunk {
        id: ChunkId::try_from(e.chunk.as_ref())?,
        length: e.length as u32,
    })
}

pub fn entry(e: proto::Entry) -> std::result::Result<(RelPath, Entry), FormatError> {
    let path = RelPath::new(e.path.to_vec())?;
    let kind = match e.kind {
        1 => Kind::File,
        2 => Kind::Directory,
        3 => Kind::Symlink,
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 => Kind::CharDevice,
        7 => Kind::BlockDevice,
        _ => return Err(Entry::error(&path, "kind")),
    };
    let mut xattrs = Vec::new();
    for x in &e.xattrs {
        let value = if x.chunks.is_empty() {
            XattrValue::Inline(x.value.clone())
        } else {
            XattrValue::Chunks(
                x.chunks
                    .iter()
                    .map(extent)
                    .collect::<std::result::Result<_, _>>()?,
            )
        };
        xattrs.push(Xattr {
            name: x.name.clone(),
            value,
        });
    }
    let content = match e.content.and_then(|c| c.body) {
        None => Content::Empty,
        Some(proto::content::Body::Inline(b)) => Content::Inline(b),
        Some(proto::content::Body::Extents(x)) => Content::Extents {
            profile: x.profile as u8,
            extents: extents(x)?,
        },
        Some(_) => return Err(Entry::error(&path, "as in parent")),
    };
    let hardlink = if e.hardlink.is_empty() {
        None
    } else {
        Some(RelPath::new(e.hardlink.to_vec())?)
    };
    let out = Entry {
        kind,
        mode: e.mode,
        uid: e.uid,
        gid: e.gid,
        mtime_ns: e.mtime_ns,
        size: e.size,
        xattrs,
        target: e.target,
        rdev: e.rdev,
        content,
        hardlink,
    };
    if !e.more_extents {
        out.validate().map_err(|rule| Entry::error(&path, rule))?;
    }
    let _ = (entry::MAX_ENTRY_BYTES, Bytes::new());
    Ok((path, out))
}

/// The error that a status stands for.
pub fn status(what: &'static str, status: &tonic::Status) -> Error {
    let message = status.message().to_owned();
    if let Some(info) = status.get_details_error_info() {
        let reason = info.reason;
        return Error::Refused {
            what,
            reason,
            message,
        };
    }
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
            Error::Disconnected { what, message }
        }
        code => Error::Refused {
            what,
            reason: format!("{code:?}"),
            message,
        },
    }
}
