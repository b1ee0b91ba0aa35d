//! Which mount a volume is read through, so that a scan never mistakes another (or none) for it.

use crate::beneath::{Root, RootError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, StatxFlags, fstatfs, fstatvfs, statx};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// `STATX_MNT_ID_UNIQUE` (since Linux 6.8): an id that is never used again.
const MNT_ID_UNIQUE: u32 = 0x4000;

/// What may be believed of a filesystem's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsClass {
    /// ext2/3/4, xfs, btrfs: local, change times can be made exact by syncing.
    Trusted,
    /// tmpfs: a store through an old mapping never moves a timestamp, so only a quiet file is believed.
    Memory,
    /// overlayfs: local metadata; only a quiet file is believed.
    Overlay,
    /// Network filesystems, FUSE and everything unknown: every file is read on every run.
    Remote,
    /// proc, sysfs and the like: refused.
    Virtual(&'static str),
}

impl FsClass {
    /// The class of a `statfs` magic number.
    pub fn of(f_type: u64) -> Self {
        match f_type {
            0xef53 | 0x5846_5342 | 0x9123_683e => Self::Trusted,
            0x0102_1994 => Self::Memory,
            0x794c_7630 => Self::Overlay,
            0x9fa0 => Self::Virtual("proc"),
            0x6265_6572 => Self::Virtual("sysfs"),
            0x6462_6720 => Self::Virtual("debugfs"),
            0x7472_6163 => Self::Virtual("tracefs"),
            0x0027_e0eb => Self::Virtual("cgroup"),
            0x6367_7270 => Self::Virtual("cgroup2"),
            0x1cd1 => Self::Virtual("devpts"),
            0xcafe_4a11 => Self::Virtual("bpf"),
            0x6165_676c => Self::Virtual("pstore"),
            0x7363_6673 => Self::Virtual("securityfs"),
            0xf97c_ff8c => Self::Virtual("selinuxfs"),
            0x6265_6570 => Self::Virtual("configfs"),
            0x6573_5543 => Self::Virtual("fusectl"),
            0x4249_4e4d => Self::Virtual("binfmt_misc"),
            0x1980_0202 => Self::Virtual("mqueue"),
            0x6e73_6673 => Self::Virtual("nsfs"),
            0xde5e_81e4 => Self::Virtual("efivarfs"),
            0x0187 => Self::Virtual("autofs"),
            0x9584_58f6 => Self::Virtual("hugetlbfs"),
            _ => Self::Remote,
        }
    }

    /// Whether SEEK_DATA and SEEK_HOLE are answered well enough to skip what was never written.
    pub fn seeks_holes(self) -> bool {
        matches!(self, Self::Trusted | Self::Memory)
    }
}

/// The magic number of the filesystem that a descriptor lies on.
pub(crate) fn f_type(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    // The word is signed and of the machine's width; magic numbers have 32 bits.
    fstatfs(fd).map(|statfs| statfs.f_type as u64 & 0xffff_ffff)
}

/// Identity of a mount and its root directory. Equal before and after a scan: it was one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    mnt_id: u64,
    unique: bool,
    root_ino: u64,
    root_btime_ns: i64,
    dev: u64,
    fsid: u64,
    f_type: u64,
}

impl Identity {
    /// The identity of an open root.
    pub fn of(root: &Root) -> Result<Self, Errno> {
        let mask = StatxFlags::from_bits_retain(MNT_ID_UNIQUE);
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        let unique_id = statx(root, c"", flags, mask)?;
        let unique = unique_id.stx_mask & MNT_ID_UNIQUE != 0;
        let stat = root.stat();
        Ok(Self {
            mnt_id: if unique {
                unique_id.stx_mnt_id
            } else {
                stat.mnt_id
            },
            unique,
            root_ino: stat.ino,
            root_btime_ns: stat.btime_ns,
            dev: stat.dev,
            fsid: fstatvfs(root)?.f_fsid,
            f_type: root.f_type(),
        })
    }

    /// The identity of what is at `path` now: a later mount shows.
    pub fn at(path: &Path) -> Result<Self, RootError> {
        let root = Root::open(path)?;
        Self::of(&root).map_err(|errno| RootError::Open {
            path: path.to_owned(),
            source: errno.into(),
        })
    }

    /// Whether the kernel gives ids that are never used again. Where it does not, any event on the
    /// mount table during a run ([`MountWatch`]) counts as a change.
    pub fn is_exact(&self) -> bool {
        self.unique
    }
}

/// Tells whether the mount table of this namespace changed.
#[derive(Debug)]
pub struct MountWatch {
    file: File,
}

impl MountWatch {
    /// Begins to watch.
    pub fn new() -> io::Result<Self> {
        let mut watch = Self {
            file: File::open("/proc/self/mountinfo")?,
        };
        // The first poll takes note of the present state.
        watch.changed()?;
        Ok(watch)
    }

    /// Whether anything was mounted, unmounted or moved since the last call (or `new`).
    pub fn changed(&mut self) -> io::Result<bool> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let [changed, _] = self.poll(None, Some(&now))?;
        Ok(changed)
    }

    /// Waits for the next change; false when `end` became readable first.
    pub fn wait(&mut self, end: BorrowedFd<'_>) -> io::Result<bool> {
        let [_, ended] = self.poll(Some(end), None)?;
        Ok(!ended)
    }

    /// Whether there was a change, and whether `end` is readable.
    fn poll(
        &self,
        end: Option<BorrowedFd<'_>>,
        timeout: Option<&Timespec>,
    ) -> io::Result<[bool; 2]> {
        let table = PollFd::new(&self.file, PollFlags::PRI | PollFlags::ERR);
        let end = end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = [Some(table), end].into_iter().flatten().collect();
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        let seen = |at: usize| fds.get(at).map_or(PollFlags::empty(), PollFd::revents);
        let changed = seen(0).intersects(PollFlags::PRI | PollFlags::ERR);
        Ok([changed, seen(1).contains(PollFlags::IN)])
    }
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount id.
    pub id: u64,
    /// Id of the mount it lies on.
    pub parent: u64,
    /// `major:minor`.
    pub device: String,
    /// The directory of the filesystem that is its root.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Filesystem type.
    pub filesystem: String,
    /// What is mounted, as the filesystem calls it.
    pub source: String,
    /// Per-mount options.
    pub options: String,
    /// Propagation fields (`shared:N`, `master:N`).
    pub propagation: Vec<String>,
}

/// The mounts of this process's namespace, in the kernel's order: a later one hides an earlier one.
pub fn mounts() -> io::Result<Vec<Mount>> {
    let mut text = Vec::new();
    File::open("/proc/self/mountinfo")?.read_to_end(&mut text)?;
    Ok(parse_mountinfo(&text))
}

/// The mounts of a mountinfo file; lines that are none are passed over.
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    use std::os::unix::ffi::OsStringExt;
    let mut fields = line.split(|b| *b == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let path = |field: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(unescape(field)));
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = text(fields.next()?);
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let options = text(fields.next()?);
    let propagation = fields
        .by_ref()
        .take_while(|field| *field != b"-")
        .map(text)
        .collect();
    Some(Mount {
        id,
        parent,
        device,
        root,
        point,
        filesystem: text(fields.next()?),
        source: text(fields.next()?),
        options,
        propagation,
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

impl AsFd for MountWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests;
