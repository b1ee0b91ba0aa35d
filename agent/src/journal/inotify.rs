//! inotify as a source: one watch for each directory, events with names only.
//!
//! The fallback: it tells neither targets nor own events, and merges little.

#[cfg(test)]
mod tests;

use super::source::{Event, Key, Kind, Source, Told, WatchError, What};
use super::source::{malformed, read_queued};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::io;
use std::sync::{Mutex, PoisonError};

const HEADER_BYTES: usize = 16;

const BITS: [(ReadFlags, What); 12] = [
    (ReadFlags::CREATE, What::CREATE),
    (ReadFlags::DELETE, What::DELETE),
    (ReadFlags::MOVED_FROM, What::MOVED_FROM),
    (ReadFlags::MOVED_TO, What::MOVED_TO),
    (ReadFlags::MODIFY, What::MODIFY),
    (ReadFlags::CLOSE_WRITE, What::CLOSE_WRITE),
    (ReadFlags::ATTRIB, What::ATTRIB),
    (ReadFlags::OPEN, What::OPEN),
    (ReadFlags::CLOSE_NOWRITE, What::CLOSE_NOWRITE),
    (ReadFlags::DELETE_SELF, What::SELF_GONE),
    (ReadFlags::IGNORED, What::SELF_GONE),
    (ReadFlags::MOVE_SELF, What::SELF_MOVED),
];

/// An inotify instance.
#[derive(Debug)]
pub(super) struct Inotify {
    instance: OwnedFd,
    reading: Mutex<()>,
}

impl Inotify {
    /// An instance with no watches. `EMFILE` at the limit of instances.
    pub(super) fn open() -> Result<Self, Errno> {
        Ok(Self {
            instance: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            reading: Mutex::new(()),
        })
    }
}

impl Source for Inotify {
    fn watch(&self, dir: BorrowedFd<'_>) -> Result<Key, WatchError> {
        let mask = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::OPEN
            | WatchFlags::CLOSE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        // The descriptor's link in /proc leads to that very directory and no further.
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        Ok(Key::Watch(inotify::add_watch(&self.instance, path, mask)?))
    }

    fn unwatch(&self, key: &Key, _: Option<BorrowedFd<'_>>) {
        if let Key::Watch(watch) = key {
            // It may have gone with its directory.
            let _ = inotify::remove_watch(&self.instance, *watch);
        }
    }

    fn drain(&self, tell: &mut dyn FnMut(Told<'_>)) -> io::Result<usize> {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        read_queued(self.instance.as_fd(), |bytes| {
            let mut rest = bytes;
            while !rest.is_empty() {
                tell(take(&mut rest).ok_or_else(malformed)?);
                count += 1;
            }
            Ok(bytes.len() as u64)
        })?;
        Ok(count)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.as_fd()
    }

    fn kind(&self) -> Kind {
        Kind::Inotify
    }
}

/// The first event of what was read: inotify(7), "Reading events from an inotify file descriptor".
fn take<'b>(rest: &mut &'b [u8]) -> Option<Told<'b>> {
    let (header, after) = rest.split_first_chunk::<HEADER_BYTES>()?;
    let [w0, w1, w2, w3, m0, m1, m2, m3, _, _, _, _, l0, l1, l2, l3] = *header;
    let watch = i32::from_ne_bytes([w0, w1, w2, w3]);
    let mask = ReadFlags::from_bits_retain(u32::from_ne_bytes([m0, m1, m2, m3]));
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let (name, after) = after.split_at_checked(length)?;
    *rest = after;
    if mask.contains(ReadFlags::QUEUE_OVERFLOW) {
        return Some(Told::Overflow);
    }
    if mask.contains(ReadFlags::UNMOUNT) {
        return Some(Told::Unmounted);
    }
    // Padded with zeros, at least one where there is a name.
    let name = match name {
        [] => name,
        _ => &name[..name.iter().position(|byte| *byte == 0)?],
    };
    let what = BITS
        .iter()
        .filter(|(bit, _)| mask.contains(*bit))
        .fold(What::default(), |all, (_, what)| all.and(*what));
    Some(Told::Event(Event {
        dir: Key::Watch(watch),
        name,
        what,
        target: None,
        directory: mask.contains(ReadFlags::ISDIR),
        own: false,
    }))
}
