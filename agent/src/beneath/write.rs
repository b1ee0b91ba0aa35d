//! Writing beneath a root: every call takes one component, follows no link and crosses no mount.
//!
//! A name that somebody swaps for a symlink or a mount between two calls makes a call fail, never leave
//! the directory. Nothing is ever replaced but by `rename_over`.

pub(crate) use super::read::{stat_fd, xattrs_of};
use super::{Dir, Errno, Result, checked, open_beneath};
use crate::stat::Stat;
use holdfast_format::entry::Kind;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use std::fs::File;

impl Dir {
    /// Makes a regular file that was not there, open for reading and writing.
    pub fn create_file(&self, name: &[u8], mode: u32) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(mode & 0o777);
        open_beneath(self.as_fd(), checked(name)?, flags | OFlags::NOCTTY, mode).map(File::from)
    }

    /// Opens an existing regular file for reading; anything else is `ELOOP`, and not blocked on.
    pub fn open_existing(&self, name: &[u8]) -> Result<File> {
        self.open_regular(name, OFlags::RDONLY)
    }

    /// Opens an existing regular file for reading and writing; anything else is `ELOOP`.
    pub fn open_for_writing(&self, name: &[u8]) -> Result<File> {
        self.open_regular(name, OFlags::RDWR)
    }

    /// The same for writing past the page cache; `EINVAL` where the filesystem has no such way.
    pub fn open_direct(&self, name: &[u8]) -> Result<File> {
        self.open_regular(name, OFlags::WRONLY | OFlags::DIRECT)
    }

    fn open_regular(&self, name: &[u8], access: OFlags) -> Result<File> {
        // Looked at before its data is opened: opening a device can have effects, and reading one
        // no end. What comes in its place between the two calls is caught after.
        let name = checked(name)?;
        if self.stat(name)?.kind != Kind::File {
            return Err(Errno::LOOP);
        }
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = open_beneath(self.as_fd(), name, flags, Mode::empty())?;
        if stat_fd(fd.as_fd())?.kind == Kind::File {
            Ok(File::from(fd))
        } else {
            Err(Errno::LOOP)
        }
    }

    /// What is at `name`, not followed; `None` where nothing is.
    pub fn found(&self, name: &[u8]) -> Result<Option<Stat>> {
        match self.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a directory that was not there.
    pub fn make_dir(&self, name: &[u8], mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o777);
        rustix::fs::mkdirat(self, checked(name)?, mode)
    }

    /// Makes a symlink that was not there.
    pub fn make_symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        rustix::fs::symlinkat(target, self, checked(name)?)
    }

    /// Makes a FIFO, socket or device that was not there, mode 0600.
    pub fn make_node(&self, name: &[u8], kind: FileType, rdev: u64) -> Result<()> {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(self, checked(name)?, kind, mode, rdev)
    }

    /// Makes `name` a further name of the inode `from` in `from_dir`; a symlink is linked, not followed.
    pub fn link_here(&self, name: &[u8], from_dir: &Dir, from: &[u8]) -> Result<()> {
        let flags = AtFlags::empty();
        rustix::fs::linkat(from_dir, checked(from)?, self, checked(name)?, flags)
    }

    /// Renames a file within the directory; `EEXIST` where something is at `to`.
    pub fn rename_new(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = (checked(from)?, checked(to)?);
        match rustix::fs::renameat_with(self, from, self, to, RenameFlags::NOREPLACE) {
            // A filesystem without the flag (some network ones): a link refuses to replace, too.
            Err(Errno::INVAL | Errno::NOSYS) => {
                self.link_here(to, self, from)?;
                self.unlink(from)
            }
            done => done,
        }
    }

    /// Moves `from` here, under a name that is free.
    pub fn adopt(&self, name: &[u8], from_dir: &Dir, from: &[u8]) -> Result<()> {
        let (from, name) = (checked(from)?, checked(name)?);
        rustix::fs::renameat_with(from_dir, from, self, name, RenameFlags::NOREPLACE)
    }

    /// Renames a file within the directory, in the place of whatever file is at `to`.
    pub fn rename_over(&self, from: &[u8], to: &[u8]) -> Result<()> {
        rustix::fs::renameat(self, checked(from)?, self, checked(to)?)
    }

    /// Removes the name of anything but a directory.
    pub fn unlink(&self, name: &[u8]) -> Result<()> {
        rustix::fs::unlinkat(self, checked(name)?, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &[u8]) -> Result<()> {
        rustix::fs::unlinkat(self, checked(name)?, AtFlags::REMOVEDIR)
    }

    /// Sets the owner of what is at `name`, not followed.
    pub fn set_owner_at(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = owner(uid, gid)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(self, checked(name)?, uid, gid, flags)
    }

    /// Sets the modification time of what is at `name`, not followed; nanoseconds since the epoch.
    pub fn set_mtime_at(&self, name: &[u8], mtime_ns: i64) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(self, checked(name)?, &times(mtime_ns), flags)
    }

    /// Sets the permission bits of a FIFO, socket or device.
    pub fn set_mode_at(&self, name: &[u8], mode: u32) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd: OwnedFd = open_beneath(self.as_fd(), checked(name)?, flags, Mode::empty())?;
        if stat_fd(fd.as_fd())?.kind == Kind::Symlink {
            return Err(Errno::LOOP);
        }
        // fchmod refuses O_PATH descriptors; the magic link of our own names the same inode.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(mode & 0o7777))
    }
}

fn owner(uid: Option<u32>, gid: Option<u32>) -> Result<(Option<Uid>, Option<Gid>)> {
    // All ones means "leave as it is" to the kernel, so it cannot be set.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    Ok((uid.map(Uid::from_raw), gid.map(Gid::from_raw)))
}

/// Sets the owner of an open file or directory; the kernel clears setuid, setgid and capabilities.
pub fn set_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = owner(uid, gid)?;
    rustix::fs::fchown(fd, uid, gid)
}

/// Sets the permission bits of an open file or directory.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))
}

/// Sets the modification time of an open file or directory, nanoseconds since the epoch.
pub fn set_mtime(fd: BorrowedFd<'_>, mtime_ns: i64) -> Result<()> {
    rustix::fs::futimens(fd, &times(mtime_ns))
}

fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
        },
    }
}

/// One extended attribute; `None` where it is absent or the filesystem knows none.
pub fn xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 256];
    loop {
        match rustix::fs::fgetxattr(fd, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < 64 * 1024 => value.resize(64 * 1024, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sets one extended attribute of an open file or directory.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
}

/// Removes one extended attribute; absent is well.
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        done => done,
    }
}
