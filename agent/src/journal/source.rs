//! One queue of the kernel's events about watched directories, whichever interface it comes through.
//!
//! **What a queue is worth.** The kernel queues an event before the call that caused it returns. So
//! after [`Source::drain`] everything was told that had returned before `drain` was called, unless
//! [`Told::Overflow`] was told: the drain is the barrier, and no cookie file is needed. A change may
//! be seen in the tree a moment before its event is queued; it is told by a later drain then.
//! Not told by any source: stores through mappings, `chattr`, what happens to an inode through a name
//! in a directory that is not watched, and the file that a rename replaces (its name is told, as the
//! rename's target). [`crate::mount::MountWatch`] must tell of mounts: fanotify tells of none.
//!
//! **Order.** Events come in the order they happened, but fanotify adds an event to one of the last
//! equal ones (same directory, name, target and process) that is still in the queue: of the bits in
//! one [`What`] the order is lost, and its place is that of the first. inotify does so only with the
//! event queued last, and only if it is wholly equal.
//!
//! **A watch** is on a directory, not on what is below it, and follows it wherever it is moved. Of a
//! file opened or changed in it, the directory and the name by which it was opened are told. The name
//! may be another's by the time it is told; the target may not, since a handle holds the inode's
//! generation. A directory's own changes and opens are told with an empty name: by fanotify of those in
//! a watched directory, too (the key may be of one that is not watched yet), by inotify of the watched
//! ones, and by their names in the directory that they lie in. A watch neither opens the directory nor
//! keeps its mount busy.
//!
//! **Open files.** An OPEN by another process makes a file one that may have writers, and so do CREATE
//! and MOVED_TO: a name given to a file that is open already (`O_TMPFILE` with `linkat`, a link, a
//! rename from elsewhere) comes with no OPEN, and inotify never tells what is written through that
//! descriptor. The writer probe ([`crate::probe`]) says when a file has no writers any more. Own opens
//! are passed over where the source marks them. inotify does not; there they are known by their place.
//! Open the file for reading, take the lease, and close it *while the lease is held*
//! (`sys::lease_until_closed`). A writer that came first would have kept the lease from being granted;
//! one that comes later waits in its `open` for the lease to go, and the kernel takes it back only
//! after it has queued our CLOSE_NOWRITE. So if the lease was granted, and all that was told of that
//! name since before our open is OPEN, then CLOSE_NOWRITE, once each, nobody has it open for writing
//! but who is told of by a later OPEN. Anything more leaves the file to be probed again: a reader's
//! events look like ours, and equal events in a row become one. Giving the lease back before the close
//! is not enough, since the writer's OPEN becomes one with ours. A file that is read takes the lease
//! once more for its close.

use super::fanotify::Fanotify;
use super::inotify::Inotify;
use crate::sys;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Handles of every filesystem worth a journal fit: ext4 has 8 bytes, xfs and tmpfs 12, btrfs 20.
const INLINE_BYTES: usize = 24;
/// Of one read; an event has some 600 bytes at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// An inode as the kernel's file handle names it: its generation tells it from a later inode of the
/// same number. It does not say which filesystem: a volume is one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Handle(Bytes);

/// Inline exactly where the bytes fit, the rest zero, so that derived equality is equality.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Bytes {
    Inline(i32, u8, [u8; INLINE_BYTES]),
    Shared(i32, Arc<[u8]>),
}

impl Handle {
    /// The handle of this type and these bytes.
    pub(crate) fn new(kind: i32, bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE_BYTES];
        match inline.get_mut(..bytes.len()) {
            Some(part) => {
                part.copy_from_slice(bytes);
                // It fits into an array of 24.
                Self(Bytes::Inline(kind, bytes.len() as u8, inline))
            }
            None => Self(Bytes::Shared(kind, bytes.into())),
        }
    }

    /// Its type: what it means is the filesystem's business.
    pub(crate) fn kind(&self) -> i32 {
        match &self.0 {
            Bytes::Inline(kind, ..) | Bytes::Shared(kind, _) => *kind,
        }
    }

    /// Its bytes, at most 128.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline(_, length, bytes) => &bytes[..usize::from(*length)],
            Bytes::Shared(_, bytes) => bytes,
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind())?;
        self.bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A watched directory as its source names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// fanotify: the directory's own handle.
    Handle(Handle),
    /// inotify: the number of the watch; never used twice within one source.
    Watch(i32),
}

/// What happened: one bit or, where events were merged, several.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct What(u32);

impl What {
    /// A name was made: a new inode, or a new link to an old one.
    pub(crate) const CREATE: Self = Self(1);
    /// A name was removed.
    pub(crate) const DELETE: Self = Self(1 << 1);
    /// A name went away by a rename.
    pub(crate) const MOVED_FROM: Self = Self(1 << 2);
    /// A name came by a rename, maybe in place of another inode.
    pub(crate) const MOVED_TO: Self = Self(1 << 3);
    /// Bytes were written, or the size was set.
    pub(crate) const MODIFY: Self = Self(1 << 4);
    /// A file open for writing was closed, and unmapped.
    pub(crate) const CLOSE_WRITE: Self = Self(1 << 5);
    /// Mode, owner, times, attributes or the count of links changed.
    pub(crate) const ATTRIB: Self = Self(1 << 6);
    /// It was opened, by whom and for whatever.
    pub(crate) const OPEN: Self = Self(1 << 7);
    /// A file or directory open for reading was closed; inotify only.
    pub(crate) const CLOSE_NOWRITE: Self = Self(1 << 8);
    /// The watched directory is removed, or the watch on it has ended: nothing more comes of it.
    pub(crate) const SELF_GONE: Self = Self(1 << 9);
    /// The watched directory has another place or name; the watch goes on.
    pub(crate) const SELF_MOVED: Self = Self(1 << 10);

    const NAMES: [(Self, &str); 11] = [
        (Self::CREATE, "CREATE"),
        (Self::DELETE, "DELETE"),
        (Self::MOVED_FROM, "MOVED_FROM"),
        (Self::MOVED_TO, "MOVED_TO"),
        (Self::MODIFY, "MODIFY"),
        (Self::CLOSE_WRITE, "CLOSE_WRITE"),
        (Self::ATTRIB, "ATTRIB"),
        (Self::OPEN, "OPEN"),
        (Self::CLOSE_NOWRITE, "CLOSE_NOWRITE"),
        (Self::SELF_GONE, "SELF_GONE"),
        (Self::SELF_MOVED, "SELF_MOVED"),
    ];

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without the bits of `other`.
    #[cfg(test)]
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether any bit of `other` is set.
    pub(crate) const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing that is known happened.
    #[cfg(test)]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(what, _)| self.any(*what));
        let names: Vec<_> = names.map(|(_, name)| *name).collect();
        f.write_str(&names.join("|"))
    }
}

/// One event. Names and targets are hints for where to look, never facts about what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The watched directory in which it happened.
    pub(crate) dir: Key,
    /// The name in that directory; empty for the directory itself.
    pub(crate) name: &'a [u8],
    /// What happened.
    pub(crate) what: What,
    /// The inode that it happened to, where the source tells it. It may be `None` even so: the
    /// kernel could not make its handle.
    pub(crate) target: Option<Handle>,
    /// Whether it happened to a directory.
    pub(crate) directory: bool,
    /// Whether this process did it; never set where the source does not tell. It may be a restore that
    /// writes here: nothing but an OPEN is to be passed over for it.
    pub(crate) own: bool,
}

/// What a source tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told<'a> {
    /// Something happened.
    Event(Event<'a>),
    /// Something happened that is not told, here or anywhere in the volume: the queue was full, or an
    /// event could not be placed. What was told since remains true; nothing may be skipped any more.
    Overflow,
    /// The volume was unmounted; inotify only.
    Unmounted,
}

/// Why a directory is not watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WatchError {
    /// The user's watches are used up, or the memory allowed for them is.
    #[error("the limit of watched directories is reached: {0}")]
    Limit(Errno),
    /// The filesystem cannot be watched by this source; or the directory, where it belongs to
    /// another subvolume than the first one watched.
    #[error("the filesystem cannot be watched: {0}")]
    Unsupported(Errno),
    /// There is no such directory any more.
    #[error("the directory is gone")]
    Gone,
    /// Anything else: it may not be read, it is no directory.
    #[error("it cannot be watched: {0}")]
    Other(Errno),
}

impl From<Errno> for WatchError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE => Self::Limit(errno),
            Errno::OPNOTSUPP | Errno::NODEV | Errno::XDEV | Errno::NOSYS | Errno::OVERFLOW => {
                Self::Unsupported(errno)
            }
            Errno::NOENT | Errno::STALE => Self::Gone,
            _ => Self::Other(errno),
        }
    }
}

/// A queue of events about any number of directories of one filesystem. Dropped, it ends all watches.
pub(crate) trait Source: Send + Sync + fmt::Debug {
    /// Watches a directory, whatever it is called; again is as good as once, and gives the same key.
    /// The directory is not read; it is what the descriptor names (`O_PATH` will do), though a mount
    /// lies on it. From the moment that this returns everything in it is told.
    fn watch(&self, dir: BorrowedFd<'_>) -> Result<Key, WatchError>;

    /// Ends a watch, as well as can be done: fanotify needs the directory, and watches it as long as
    /// it exists where there is none. Events that were queued before are still told.
    fn unwatch(&self, key: &Key, dir: Option<BorrowedFd<'_>>);

    /// Tells what is queued now, in order, and little more however fast more comes; how many were
    /// told. Never waits for events. Callers take turns. An error (events that cannot be understood)
    /// leaves some untold: the source is to be dropped.
    fn drain(&self, tell: &mut dyn FnMut(Told<'_>)) -> io::Result<usize>;

    /// Readable when something is queued; for `poll` only.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Which.
    fn kind(&self) -> Kind;
}

/// The sources there are, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// fanotify with handles of targets (Linux 5.17).
    Fanotify,
    /// fanotify (Linux 5.13 without privileges); targets only of events on what exists on.
    Untargeted,
    /// inotify.
    Inotify,
}

impl Kind {
    /// All, best first.
    pub(crate) const ALL: [Self; 3] = [Self::Fanotify, Self::Untargeted, Self::Inotify];

    /// For people and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fanotify => "fanotify",
            Self::Untargeted => "fanotify without targets",
            Self::Inotify => "inotify",
        }
    }

    /// Whether the target of a created, removed or renamed name is told.
    #[cfg(test)]
    pub(crate) fn tells_targets(self) -> bool {
        self == Self::Fanotify
    }

    /// Whether events caused by this process are marked.
    pub(crate) fn tells_own(self) -> bool {
        self != Self::Inotify
    }
}

/// No source could be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// The user's instances or watches are used up: worth another try later.
    #[error("the limit of {} is reached: {errno}", kind.name())]
    Limit {
        /// Of what.
        kind: Kind,
        /// The kernel's answer.
        errno: Errno,
    },
    /// None of those wanted works for this directory.
    #[error("{} cannot be used: {errno}", kind.name())]
    Refused {
        /// The last that was tried.
        kind: Kind,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// The first source of `wanted` that this kernel has and that can watch `root`, which it then does.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    wanted: &[Kind],
) -> Result<(Arc<dyn Source>, Key), OpenError> {
    let mut refused = OpenError::Refused {
        kind: Kind::Inotify,
        errno: Errno::NOSYS,
    };
    for kind in wanted.iter().copied() {
        let (limited, errno) = match start(kind) {
            Err(errno) => {
                let limits = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC];
                (limits.contains(&errno), errno)
            }
            Ok(source) => match source.watch(root) {
                Ok(key) => return Ok((source, key)),
                Err(WatchError::Limit(errno)) => (true, errno),
                Err(WatchError::Unsupported(errno) | WatchError::Other(errno)) => (false, errno),
                Err(WatchError::Gone) => (false, Errno::NOENT),
            },
        };
        if limited {
            refused = OpenError::Limit { kind, errno };
        } else if let OpenError::Refused { .. } = refused {
            refused = OpenError::Refused { kind, errno };
        }
    }
    Err(refused)
}

pub(super) fn start(kind: Kind) -> Result<Arc<dyn Source>, Errno> {
    Ok(match kind {
        Kind::Fanotify | Kind::Untargeted => Arc::new(Fanotify::open(kind)?),
        Kind::Inotify => Arc::new(Inotify::open()?),
    })
}

/// The handle of `name` in a directory, of the directory itself where `name` is empty. Follows no
/// symlink; of a mount point it is the mounted root's. No capability is needed.
pub(crate) fn handle_of(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Handle, Errno> {
    if name.contains(&b'/') || matches!(name, b"." | b"..") {
        return Err(Errno::INVAL);
    }
    sys::name_to_handle(dir, name).map(|(kind, bytes)| Handle::new(kind, &bytes))
}

/// What a handle names, as a descriptor that can read nothing; `None` if it exists no more. `mount` is
/// any descriptor of the filesystem but an `O_PATH` one. It may be anywhere on the filesystem, outside
/// the volume too: good for being looked at, never for being read. `EPERM`: needs
/// CAP_DAC_READ_SEARCH.
pub(crate) fn find(mount: BorrowedFd<'_>, handle: &Handle) -> Result<Option<OwnedFd>, Errno> {
    match sys::open_by_handle(mount, handle.kind(), handle.bytes()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::STALE | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Reads what is queued now and hands it on in pieces; each returns how much of it is taken off, in
/// bytes as the kernel counts the queue. Reads that much at least, if it is there.
pub(super) fn read_queued(
    fd: BorrowedFd<'_>,
    mut take: impl FnMut(&[u8]) -> io::Result<u64>,
) -> io::Result<()> {
    let mut queued = rustix::io::ioctl_fionread(fd)?;
    if queued == 0 {
        return Ok(());
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    while queued > 0 {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(length) => queued = queued.saturating_sub(take(&buffer[..length])?),
        }
    }
    Ok(())
}

/// Events that no kernel writes: the queue cannot be believed any more.
pub(super) fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's events cannot be understood",
    )
}

#[cfg(test)]
pub(crate) mod tests;
