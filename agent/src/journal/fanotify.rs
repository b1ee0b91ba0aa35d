//! fanotify as a source: marks on directories, events with handles. Works without CAP_SYS_ADMIN.
//!
//! A mark keeps its directory's inode in memory and goes with it. Marks on mounts or filesystems would
//! need the capability and bring the whole node's events; evictable ones are lost with the inode.

mod record;
#[cfg(test)]
mod tests;

use super::source::{Event, Key, Kind, Source, Told, WatchError, What};
use super::source::{handle_of, malformed, read_queued};
use crate::sys;
use record::{Record, records};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::sync::{Mutex, PoisonError};

/// What is told of a watched directory and of what lies in it.
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_OPEN
    | libc::FAN_DELETE_SELF
    | libc::FAN_MOVE_SELF
    | libc::FAN_ONDIR
    | libc::FAN_EVENT_ON_CHILD;

const BITS: [(u64, What); 10] = [
    (libc::FAN_CREATE, What::CREATE),
    (libc::FAN_DELETE, What::DELETE),
    (libc::FAN_MOVED_FROM, What::MOVED_FROM),
    (libc::FAN_MOVED_TO, What::MOVED_TO),
    (libc::FAN_MODIFY, What::MODIFY),
    (libc::FAN_CLOSE_WRITE, What::CLOSE_WRITE),
    (libc::FAN_ATTRIB, What::ATTRIB),
    (libc::FAN_OPEN, What::OPEN),
    (libc::FAN_DELETE_SELF, What::SELF_GONE),
    (libc::FAN_MOVE_SELF, What::SELF_MOVED),
];

/// A fanotify group.
#[derive(Debug)]
pub(super) struct Fanotify {
    group: OwnedFd,
    kind: Kind,
    own_pid: i32,
    reading: Mutex<()>,
}

impl Fanotify {
    /// A group with no marks. `EMFILE` at the limit of groups; `EPERM` where a seccomp profile has no
    /// fanotify for processes without CAP_SYS_ADMIN; `EINVAL` where the kernel is too old.
    pub(super) fn open(kind: Kind) -> Result<Self, Errno> {
        let targets = match kind {
            Kind::Fanotify => libc::FAN_REPORT_TARGET_FID,
            _ => 0,
        };
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_REPORT_FID
            | libc::FAN_REPORT_DFID_NAME
            | targets
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK;
        Ok(Self {
            group: sys::fanotify_init(flags)?,
            kind,
            own_pid: rustix::process::getpid().as_raw_nonzero().get(),
            reading: Mutex::new(()),
        })
    }

    fn told<'b>(&self, record: Record<'b>) -> Told<'b> {
        if record.mask & libc::FAN_Q_OVERFLOW != 0 {
            return Told::Overflow;
        }
        // Without a directory nobody can say where it was: memory for a handle was short.
        let Some(dir) = record.directory else {
            return Told::Overflow;
        };
        let what = BITS
            .iter()
            .filter(|(bit, _)| record.mask & bit != 0)
            .fold(What::default(), |all, (_, what)| all.and(*what));
        Told::Event(Event {
            dir: Key::Handle(dir),
            name: record.name,
            what,
            target: record.target,
            directory: record.mask & libc::FAN_ONDIR != 0,
            own: record.pid == self.own_pid,
        })
    }
}

impl Source for Fanotify {
    fn watch(&self, dir: BorrowedFd<'_>) -> Result<Key, WatchError> {
        let handle = handle_of(dir, b"")?;
        sys::fanotify_mark(self.group.as_fd(), libc::FAN_MARK_ADD, MASK, dir)?;
        Ok(Key::Handle(handle))
    }

    fn unwatch(&self, _: &Key, dir: Option<BorrowedFd<'_>>) {
        if let Some(dir) = dir {
            // There is nothing to be done about one that cannot be ended.
            let _ = sys::fanotify_mark(self.group.as_fd(), libc::FAN_MARK_REMOVE, MASK, dir);
        }
    }

    fn drain(&self, tell: &mut dyn FnMut(Told<'_>)) -> io::Result<usize> {
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        read_queued(self.group.as_fd(), |bytes| {
            let before = count;
            for record in records(bytes) {
                tell(self.told(record.ok_or_else(malformed)?));
                count += 1;
            }
            // Some kernels count an event in the queue as its metadata alone, others as it is.
            Ok(((count - before) * record::METADATA_BYTES) as u64)
        })?;
        Ok(count)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    fn kind(&self) -> Kind {
        self.kind
    }
}
