//! What `statx` says about one inode: only the fields that Holdfast needs, as plain numbers.

use crate::faults::{self, Fault};
use holdfast_format::entry::Kind;
use holdfast_format::stamp::{Host, Stamp, StatKey, Verdict, unchanged};
use rustix::fs::{FileType, Statx, StatxFlags, makedev};

/// The fields asked for. Birth time and mount id come for nothing beside the rest.
pub(crate) const MASK: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

/// `STATX_ATTR_MOUNT_ROOT` (since Linux 5.8), not named by every version of the library.
const ATTR_MOUNT_ROOT: u64 = 0x2000;

/// One inode's metadata at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `0..=0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes, as the filesystem says.
    pub size: u64,
    /// Bytes allocated; less than `size` for a sparse file.
    pub allocated_bytes: u64,
    /// Modification time, nanoseconds since the epoch, saturated at the ends of `i64`.
    pub mtime_ns: i64,
    /// Change time, likewise.
    pub ctime_ns: i64,
    /// Birth time, likewise; 0 where the filesystem has none.
    pub btime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Number of names.
    pub nlink: u32,
    /// Device that a device node stands for, as `makedev` encodes it; else 0.
    pub rdev: u64,
    /// Device the inode lies on (subvolumes of btrfs have their own).
    pub dev: u64,
    /// Mount the path was found on.
    pub mnt_id: u64,
    /// Whether the path is the root of a mount.
    pub mount_root: bool,
}

impl Stat {
    /// The seven values that decide whether a file must be read.
    pub fn key(&self) -> StatKey {
        StatKey {
            size: self.size,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            ino: self.ino,
            mode: self.mode | type_bits(self.kind),
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// Whether both describe the same state of the same inode's content and metadata: any write,
    /// change of owner or mode, or of an attribute between them shows.
    pub fn same_state(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

/// Nanoseconds since the epoch; times outside 1677..2262 are kept at the nearest end.
fn nanoseconds(seconds: i64, nanos: u32) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanos))
}

impl From<&Statx> for Stat {
    fn from(statx: &Statx) -> Self {
        let raw_mode = u32::from(statx.stx_mode);
        let kind = kind_of(FileType::from_raw_mode(raw_mode));
        let rdev = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                makedev(statx.stx_rdev_major, statx.stx_rdev_minor)
            }
            _ => 0,
        };
        Self {
            kind,
            mode: raw_mode & 0o7777,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            size: statx.stx_size,
            allocated_bytes: statx.stx_blocks.saturating_mul(512),
            mtime_ns: nanoseconds(statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec),
            ctime_ns: nanoseconds(statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
            btime_ns: nanoseconds(statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec),
            ino: statx.stx_ino,
            nlink: statx.stx_nlink,
            rdev,
            dev: makedev(statx.stx_dev_major, statx.stx_dev_minor),
            mnt_id: statx.stx_mnt_id,
            mount_root: statx.stx_attributes.bits() & ATTR_MOUNT_ROOT != 0,
        }
    }
}

/// Whether a path need not be read: the rule of `holdfast_format::stamp`, for what was found now.
pub(crate) fn is_unchanged(stamp: Option<&Stamp>, found: &Stat, host: Host) -> bool {
    let mut found = found.key();
    let mut stamp = stamp.copied();
    if let Some(stamp) = &mut stamp {
        stamp.racy &= !faults::on(Fault::NoRacyRule);
        if faults::on(Fault::IgnoreCtime) {
            found.ctime_ns = stamp.stat.ctime_ns;
        }
        let newer = found.mtime_ns > stamp.stat.mtime_ns || found.ctime_ns > stamp.stat.ctime_ns;
        if faults::on(Fault::NewerOnly) && !newer {
            found = StatKey {
                size: found.size,
                ..stamp.stat
            };
        }
    }
    unchanged(stamp.as_ref(), &found, host) == Verdict::Unchanged
}

/// The bits of a mode that tell the kind.
pub(crate) fn type_bits(kind: Kind) -> u32 {
    let file_type = match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    };
    file_type.as_raw_mode()
}

/// The kind of a file type. A type that Linux does not have counts as a socket: recorded by
/// metadata, never opened.
pub fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Socket | FileType::Unknown => Kind::Socket,
    }
}
