//! The bytes of a fanotify group, decoded: pure, and safe on any bytes. fanotify(7), "Reading fanotify
//! events"; information of kinds that are not known is passed over.

use crate::journal::source::Handle;

/// Bytes of an event before its information; the least that it has.
pub(super) const METADATA_BYTES: usize = 24;
const VERSION: u8 = 3;
/// Kind, padding and length of a piece of information, then the filesystem's id.
const INFO_HEADER_BYTES: usize = 4;
const INFO_HANDLE_AT: usize = 12;

/// One event as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'b> {
    /// Bits of `libc::FAN_*`.
    pub(super) mask: u64,
    /// Who did it, where the kernel tells.
    pub(super) pid: i32,
    /// The directory it is about, or in which it happened.
    pub(super) directory: Option<Handle>,
    /// The name in that directory; empty for the directory itself.
    pub(super) name: &'b [u8],
    /// What it happened to.
    pub(super) target: Option<Handle>,
}

/// The events of one read, in order; `None` and then nothing more where the bytes are none.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = Option<Record<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = take(&mut rest);
        if record.is_none() {
            rest = &[];
        }
        Some(record)
    })
}

fn take<'b>(rest: &mut &'b [u8]) -> Option<Record<'b>> {
    let length = usize::try_from(u32_at(rest, 0)?).ok()?;
    if length < METADATA_BYTES || *rest.get(4)? != VERSION {
        return None;
    }
    let (event, after) = rest.split_at_checked(length)?;
    *rest = after;
    let begin = usize::from(u16_at(event, 6)?);
    if begin < METADATA_BYTES {
        return None;
    }
    let mut record = Record {
        mask: u64::from_ne_bytes(*event.get(8..)?.first_chunk()?),
        pid: i32::from_ne_bytes(*event.get(20..)?.first_chunk()?),
        directory: None,
        name: &[],
        target: None,
    };
    let mut infos = event.get(begin..)?;
    while !infos.is_empty() {
        let length = usize::from(u16_at(infos, 2)?);
        if length < INFO_HEADER_BYTES {
            return None;
        }
        let (info, after) = infos.split_at_checked(length)?;
        infos = after;
        match *info.first()? {
            libc::FAN_EVENT_INFO_TYPE_FID => record.target = handle(info)?.0,
            libc::FAN_EVENT_INFO_TYPE_DFID => record.directory = handle(info)?.0,
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => {
                let (directory, rest) = handle(info)?;
                record.directory = directory;
                let end = rest.iter().position(|byte| *byte == 0)?;
                // A dot stands for the directory itself.
                record.name = match &rest[..end] {
                    b"." => &[],
                    name => name,
                };
            }
            _ => {}
        }
    }
    Some(record)
}

/// The handle of a piece of information, and what follows it.
fn handle(info: &[u8]) -> Option<(Option<Handle>, &[u8])> {
    let at = info.get(INFO_HANDLE_AT..)?;
    let length = usize::try_from(u32_at(at, 0)?).ok()?;
    let kind = i32::from_ne_bytes(*at.get(4..)?.first_chunk()?);
    let (bytes, rest) = at.get(8..)?.split_at_checked(length)?;
    // Without bytes (`FILEID_INVALID`): the kernel could not make one.
    let handle = (!bytes.is_empty()).then(|| Handle::new(kind, bytes));
    Some((handle, rest))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
