//! The reading half of a directory: list, stat, open, readlink, attributes. Nothing is followed.

use super::{Dir, Errno, Result, checked, open_beneath};
use crate::stat::{MASK, Stat};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, seek, statx};
use std::ffi::CStr;
use std::mem::MaybeUninit;

/// Largest list of attribute names (XATTR_LIST_MAX of Linux).
const XATTR_LIST_MAX: usize = 64 * 1024;

/// Most bytes of all values of one inode that are read; more is `E2BIG`.
const MAX_XATTRS_BYTES: usize = 16 << 20;

/// An extended attribute as the filesystem has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Name with its namespace.
    pub name: Vec<u8>,
    /// Value; at most 64 KiB.
    pub value: Vec<u8>,
}

/// Metadata of an open descriptor.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat> {
    statx(fd, c"", AtFlags::EMPTY_PATH, MASK).map(|statx| Stat::from(&statx))
}

impl Dir {
    /// Metadata of `name` in it. Of a mount point: that of the mounted root.
    pub fn stat(&self, name: &[u8]) -> Result<Stat> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(self.as_fd(), checked(name)?, flags, MASK).map(|statx| Stat::from(&statx))
    }

    /// Metadata of the directory itself.
    pub fn stat_self(&self) -> Result<Stat> {
        stat_fd(self.as_fd())
    }

    /// Opens `name` for reading. The caller checks by `fstat` that it is a regular file before it
    /// reads: `O_NONBLOCK` keeps a FIFO or a device that was put in its place from blocking.
    pub fn open_file(&self, name: &[u8]) -> Result<OwnedFd> {
        let name = checked(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match open_beneath(self.as_fd(), name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => open_beneath(self.as_fd(), name, flags, Mode::empty()),
            done => done,
        }
    }

    /// A descriptor that names `name`, whatever it is, and can read nothing of it.
    pub fn open_path(&self, name: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        // With both flags NO_SYMLINKS gives the trailing symlink itself.
        open_beneath(self.as_fd(), checked(name)?, flags, Mode::empty())
    }

    /// The target of the symlink `name`.
    pub fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        rustix::fs::readlinkat(self.as_fd(), checked(name)?, Vec::with_capacity(128))
            .map(|target| target.into_bytes())
    }

    /// Calls `each` with every entry but `.` and `..`, in the filesystem's order, from the start;
    /// `buffer` is scratch space. Stops at the first error of either.
    pub fn list<E: From<Errno>>(
        &self,
        buffer: &mut [MaybeUninit<u8>],
        mut each: impl FnMut(&CStr, FileType, u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.rewind()?;
        while self.list_some(buffer, &mut each)? {}
        Ok(())
    }

    /// Lists from the start again; a descriptor just opened stands there.
    pub fn rewind(&self) -> Result<()> {
        seek(self.as_fd(), SeekFrom::Start(0)).map(drop)
    }

    /// The same as `list` for the entries of one buffer, from where the last call ended; false at the end.
    pub fn list_some<E: From<Errno>>(
        &self,
        buffer: &mut [MaybeUninit<u8>],
        mut each: impl FnMut(&CStr, FileType, u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<bool, E> {
        let mut listing = RawDir::new(self.as_fd(), buffer);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                entry => entry?,
            };
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                each(name, entry.file_type(), entry.ino())?;
            }
            if listing.is_buffer_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// All attributes worth keeping, of a descriptor open for reading, sorted by name. A filesystem
/// without attributes has none.
pub(crate) fn xattrs_of(fd: BorrowedFd<'_>) -> Result<Vec<Xattr>> {
    let list = grow(256, XATTR_LIST_MAX, |buffer| {
        rustix::fs::flistxattr(fd, buffer)
    });
    collect(list, |name, buffer| rustix::fs::fgetxattr(fd, name, buffer))
}

/// The same of a descriptor opened by `open_path`, symlinks included: by way of the descriptor's
/// link in /proc, which leads to that very inode and no further.
pub(crate) fn xattrs_of_path(fd: BorrowedFd<'_>) -> Result<Vec<Xattr>> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let list = grow(256, XATTR_LIST_MAX, |buffer| {
        rustix::fs::listxattr(&link, buffer)
    });
    collect(list, |name, buffer| {
        rustix::fs::getxattr(&link, name, buffer)
    })
}

fn collect(
    list: Result<Vec<u8>>,
    mut get: impl FnMut(&[u8], &mut [u8]) -> Result<usize>,
) -> Result<Vec<Xattr>> {
    let list = match list {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        list => list?,
    };
    let mut xattrs = Vec::new();
    let mut room = MAX_XATTRS_BYTES;
    for name in list.split(|b| *b == 0).filter(|name| is_kept(name)) {
        let limit = holdfast_format::entry::MAX_XATTR_BYTES;
        match grow(256, limit, |buffer| get(name, buffer)) {
            Ok(value) => {
                // xfs lets the owner of a file keep hundreds of megabytes in its attributes.
                room = room.checked_sub(value.len()).ok_or(Errno::TOOBIG)?;
                xattrs.push(Xattr {
                    name: name.to_vec(),
                    value,
                });
            }
            // Removed between the list and here, or a name that is listed and cannot be read.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    xattrs.dedup_by(|a, b| a.name == b.name);
    Ok(xattrs)
}

/// Of `system.`, only ACLs are data; the rest is a filesystem's view of something else.
fn is_kept(name: &[u8]) -> bool {
    match name {
        b"" => false,
        b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => !name.starts_with(b"system."),
    }
}

/// Calls with a buffer that grows up to `limit` while the kernel says that it is too small.
fn grow(
    first: usize,
    limit: usize,
    mut call: impl FnMut(&mut [u8]) -> Result<usize>,
) -> Result<Vec<u8>> {
    let mut buffer = vec![0; first];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < limit => {
                let longer = (buffer.len() * 16).min(limit);
                buffer.resize(longer, 0);
            }
            Err(errno) => return Err(errno),
        }
    }
}
