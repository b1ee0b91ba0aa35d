//! The only way into a volume. Every name is resolved by `openat2` beneath a root descriptor, never
//! through a symlink, a magic link or a mount, so that nothing outside the root is ever reached,
//! whatever a tenant does to the tree meanwhile.
//!
//! A [`Dir`] is one open directory; its calls take single names. All are safe to share.

pub(crate) mod read;
pub(crate) mod write;

pub use read::Xattr;
pub use rustix::io::Errno;

use crate::mount::{self, FsClass};
use crate::stat::Stat;
use holdfast_format::path::{RelPath, check_name};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Results of single calls; the errno is what the caller decides by.
pub type Result<T> = std::result::Result<T, Errno>;

/// How every path in a volume is resolved.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Longest path handed to the kernel in one call; PATH_MAX is 4096 with its NUL.
const PIECE_BYTES: usize = 4000;

/// A root could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It could not be opened.
    #[error("open directory {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It lies on a filesystem that holds no data (proc, sysfs, cgroup, ...).
    #[error("{} lies on a virtual filesystem ({filesystem}), which holds no data", path.display())]
    Virtual {
        /// Which.
        path: PathBuf,
        /// Its type.
        filesystem: &'static str,
    },
    /// The kernel, or a seccomp profile, has no `openat2`: there is no safe way in.
    #[error(
        "openat2 is not available (Linux 5.10 or later is needed, and a seccomp profile that allows it)"
    )]
    NoOpenat2 {
        /// What the kernel said.
        source: io::Error,
    },
}

/// The root of a volume (or of a restore's target).
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
    stat: Stat,
    class: FsClass,
    distrusted: bool,
    f_type: u64,
}

impl Root {
    /// Opens the directory at `path`; the last component may not be a symlink. Refuses virtual
    /// filesystems, and kernels without `openat2`.
    pub fn open(path: &Path) -> std::result::Result<Self, RootError> {
        let failed = |errno: Errno| RootError::Open {
            path: path.to_owned(),
            source: errno.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        Self::of(fd, path)
    }

    /// The directory at `path` of this one as a root of its own. No link on the way is followed, whatever a
    /// tenant does meanwhile.
    pub fn below(&self, path: &RelPath) -> std::result::Result<Self, RootError> {
        let whole = self.path.join(OsStr::from_bytes(path.as_bytes()));
        let failed = |errno: Errno| RootError::Open {
            path: whole.clone(),
            source: errno.into(),
        };
        let dir = self.dir(path).map_err(failed)?;
        Self::of(dir.into(), &whole)
    }

    fn of(fd: OwnedFd, path: &Path) -> std::result::Result<Self, RootError> {
        let failed = |errno: Errno| RootError::Open {
            path: path.to_owned(),
            source: errno.into(),
        };
        let f_type = mount::f_type(fd.as_fd()).map_err(failed)?;
        let class = FsClass::of(f_type);
        if let FsClass::Virtual(filesystem) = class {
            return Err(RootError::Virtual {
                path: path.to_owned(),
                filesystem,
            });
        }
        let stat = read::stat_fd(fd.as_fd()).map_err(failed)?;
        let root = Self {
            fd,
            path: path.to_owned(),
            stat,
            class,
            distrusted: false,
            f_type,
        };
        match root.top() {
            Ok(_) => Ok(root),
            Err(errno @ Errno::NOSYS) => Err(RootError::NoOpenat2 {
                source: errno.into(),
            }),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The path it was opened by; for messages only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its metadata when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// What may be believed of its filesystem.
    pub fn class(&self) -> FsClass {
        self.class
    }

    /// Nothing is believed of its filesystem's metadata from now on.
    pub fn distrust(&mut self) {
        self.class = FsClass::Remote;
        self.distrusted = true;
    }

    /// Whether its filesystem's metadata lost the trust that its type has.
    pub fn is_distrusted(&self) -> bool {
        self.distrusted
    }

    /// Its filesystem's magic number, as `statfs` gives it.
    pub fn f_type(&self) -> u64 {
        self.f_type
    }

    /// The root as a directory.
    pub fn top(&self) -> Result<Dir> {
        open_dir_at(self.fd.as_fd(), b".")
    }

    /// The directory at `path`, however long: resolved in pieces, each beneath the one before.
    pub fn dir(&self, path: &RelPath) -> Result<Dir> {
        if path.is_root() {
            return self.top();
        }
        let mut rest = path.as_bytes();
        let mut at: Option<OwnedFd> = None;
        loop {
            let from = at.as_ref().map_or(self.fd.as_fd(), |fd| fd.as_fd());
            if rest.len() <= PIECE_BYTES {
                return open_dir_at(from, rest);
            }
            // A component has at most 255 bytes, so there is a slash in the piece.
            let cut = rest[..PIECE_BYTES]
                .iter()
                .rposition(|b| *b == b'/')
                .ok_or(Errno::NAMETOOLONG)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let next = open_beneath(from, &rest[..cut], flags, Mode::empty())?;
            at = Some(next);
            rest = &rest[cut + 1..];
        }
    }

    /// The directory that `path` lies in, and its last component; `None` for the root.
    pub fn parent_of<'p>(&self, path: &'p RelPath) -> Result<Option<(Dir, &'p [u8])>> {
        match path.parent() {
            None => Ok(None),
            Some(parent) => Ok(Some((self.dir(&parent)?, path.name()))),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An open directory beneath a root. Names given to it are single components; anything else is
/// refused with `EINVAL`.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

impl Dir {
    /// The directory `name` in it. `ELOOP` or `ENOTDIR`: it is something else. `EXDEV`: a mount.
    pub fn open_dir(&self, name: &[u8]) -> Result<Dir> {
        open_dir_at(self.fd.as_fd(), checked(name)?)
    }

    /// A second descriptor of the same directory.
    pub fn try_clone(&self) -> Result<Dir> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 3).map(|fd| Dir { fd })
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> Self {
        dir.fd
    }
}

/// A name that is one component.
pub(crate) fn checked(name: &[u8]) -> Result<&[u8]> {
    check_name(name).map(|()| name).map_err(|_| Errno::INVAL)
}

/// `openat2` with every restriction. `path` is relative and has no `..`.
pub(crate) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    loop {
        match openat2(dir, path, flags | OFlags::CLOEXEC, mode, RESOLVE) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Opens a directory for listing, without touching its access time where that is permitted.
fn open_dir_at(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match open_beneath(dir, path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => open_beneath(dir, path, flags, Mode::empty())?,
        done => done?,
    };
    Ok(Dir { fd })
}

#[cfg(test)]
mod tests;
