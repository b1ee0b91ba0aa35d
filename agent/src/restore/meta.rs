//! What a path is to look like, and making it so: owner, mode, extended attributes, times, in that
//! order, only where they differ. What may not be restored is counted by kind, never an error.

use super::policy::{Policy, Skip, Skipped, XattrRule};
use crate::beneath::write;
use crate::beneath::{Dir, Errno, Result};
use crate::stat::Stat;
use bytes::Bytes;
use holdfast_format::entry::{Entry, Kind, XattrValue};
use rustix::fd::BorrowedFd;
use std::io;

const CAPABILITY: &[u8] = b"security.capability";

/// An entry's metadata with all attribute values at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, as in the snapshot.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Bytes of a regular file.
    pub size: u64,
    /// Device number.
    pub rdev: u64,
    /// Symlink target.
    pub target: Bytes,
    /// Sorted by name.
    pub xattrs: Vec<(Bytes, Bytes)>,
}

impl Meta {
    /// Of an entry, but for attribute values that lie in chunks.
    pub fn of(entry: &Entry) -> Self {
        let inline = |x: &holdfast_format::entry::Xattr| match &x.value {
            XattrValue::Inline(value) => Some((x.name.clone(), value.clone())),
            XattrValue::Chunks(_) => None,
        };
        Self {
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime_ns: entry.mtime_ns,
            size: entry.size,
            rdev: entry.rdev,
            target: entry.target.clone(),
            xattrs: entry.xattrs.iter().filter_map(inline).collect(),
        }
    }

    /// Bytes of memory it stands for, roughly.
    pub fn weight(&self) -> usize {
        let xattrs = self.xattrs.iter().map(|(n, v)| 64 + n.len() + v.len());
        160 + self.target.len() + xattrs.sum::<usize>()
    }

    /// A directory's metadata as bytes, for the spill file of this process only.
    pub fn encode_directory(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime_ns.to_le_bytes());
        for (name, value) in &self.xattrs {
            for part in [name, value] {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
                out.extend_from_slice(part);
            }
        }
        out
    }

    /// The reverse of `encode_directory`.
    pub fn decode_directory(bytes: &[u8]) -> io::Result<Self> {
        let mut rest = bytes;
        let mut take = |n: usize| -> io::Result<&[u8]> {
            let (head, tail) = rest
                .split_at_checked(n)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            rest = tail;
            Ok(head)
        };
        fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(bytes);
            out
        }
        let mode = u32::from_le_bytes(number(take(4)?));
        let uid = u32::from_le_bytes(number(take(4)?));
        let gid = u32::from_le_bytes(number(take(4)?));
        let mtime_ns = i64::from_le_bytes(number(take(8)?));
        let mut xattrs = Vec::new();
        let mut parts = Vec::new();
        while let Ok(length) = take(4) {
            let length = u32::from_le_bytes(number(length)) as usize;
            parts.push(Bytes::copy_from_slice(take(length)?));
            if parts.len() == 2 {
                xattrs.push((std::mem::take(&mut parts[0]), std::mem::take(&mut parts[1])));
                parts.clear();
            }
        }
        Ok(Self {
            kind: Kind::Directory,
            mode,
            uid,
            gid,
            mtime_ns,
            size: 0,
            rdev: 0,
            target: Bytes::new(),
            xattrs,
        })
    }
}

/// What is known of an inode before its metadata is set. `None`: must be set whatever it is.
#[derive(Debug, Clone, Default)]
pub struct Have {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Nanoseconds since the epoch.
    pub mtime_ns: Option<i64>,
    /// Sorted by name; empty where the inode is new.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Have {
    /// Of an inode that exists, open at `fd`.
    pub fn read(fd: BorrowedFd<'_>, stat: &Stat) -> Result<Self> {
        let xattrs = write::xattrs_of(fd)?;
        Ok(Self {
            mode: Some(stat.mode),
            owner: Some((stat.uid, stat.gid)),
            mtime_ns: Some(stat.mtime_ns),
            xattrs: xattrs.into_iter().map(|x| (x.name, x.value)).collect(),
        })
    }

    fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.xattrs.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_slice())
    }
}

/// How a change of metadata is made; `Ask` only says whether one is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nothing is changed, nothing counted as skipped.
    Ask,
    /// Changes are made.
    Make,
}

/// Brings an open regular file or directory from `have` to `want`. Whether anything had to change.
pub fn settle(
    fd: BorrowedFd<'_>,
    want: &Meta,
    have: &Have,
    policy: &Policy,
    skipped: &Skipped,
    how: How,
) -> Result<bool> {
    let make = how == How::Make;
    let mut changed = false;
    let rule = |name: &[u8]| policy.xattr(name);
    let wanted = |name: &[u8]| want.xattrs.iter().any(|(n, _)| n == name);
    for (name, _) in &have.xattrs {
        if rule(name) == XattrRule::Restore && !wanted(name) {
            changed = true;
            if make {
                tolerate(write::remove_xattr(fd, name), skipped, Skip::Xattrs)?;
            }
        }
    }
    let owner = (want.uid, want.gid);
    let mut owned = have.owner == Some(owner);
    let mut stripped = false;
    if !owned && policy.may_chown(have.owner, owner) {
        changed = true;
        if make {
            match write::set_owner(fd, Some(want.uid), Some(want.gid)) {
                Ok(()) => (owned, stripped) = (true, true),
                Err(errno) => tolerate(Err(errno), skipped, Skip::Owners)?,
            }
        }
    } else if !owned && make {
        skipped.add(Skip::Owners);
    }
    let mode = policy.mode(want, owned || !make, make.then_some(skipped));
    let same_mode = have.mode.is_some_and(|have| {
        let kept = stripped && have & 0o6000 != 0;
        !kept && (have == mode || (have == want.mode && !stripped && have & !0o6000 == mode))
    });
    if !same_mode {
        changed = true;
        if make {
            write::set_mode(fd, mode)?;
        }
    }
    // The capability comes last: a change of owner or content would clear it.
    let (last, first): (Vec<_>, Vec<_>) =
        want.xattrs.iter().partition(|(name, _)| name == CAPABILITY);
    for (name, value) in first.into_iter().chain(last) {
        let cleared = stripped && name == CAPABILITY;
        if !cleared && have.xattr(name) == Some(value.as_ref()) {
            continue;
        }
        match rule(name) {
            XattrRule::Restore => {
                changed = true;
                if make {
                    let kind = if name == CAPABILITY {
                        Skip::Capabilities
                    } else {
                        Skip::Xattrs
                    };
                    tolerate(write::set_xattr(fd, name, value), skipped, kind)?;
                }
            }
            XattrRule::NotAllowed(kind) if make => skipped.add(kind),
            XattrRule::NotAllowed(_) | XattrRule::Never => {}
        }
    }
    if have.mtime_ns != Some(want.mtime_ns) {
        changed = true;
        if make {
            write::set_mtime(fd, want.mtime_ns)?;
        }
    }
    Ok(changed)
}

/// Metadata of something new that cannot be opened: symlinks, FIFOs, sockets, devices.
pub fn settle_new_at(
    dir: &Dir,
    name: &[u8],
    want: &Meta,
    policy: &Policy,
    skipped: &Skipped,
) -> Result<()> {
    let owner = (want.uid, want.gid);
    let mut owned = false;
    if policy.may_chown(None, owner) {
        match dir.set_owner_at(name, Some(want.uid), Some(want.gid)) {
            Ok(()) => owned = true,
            Err(errno) => tolerate(Err(errno), skipped, Skip::Owners)?,
        }
    } else if policy.created_as() == owner {
        owned = true;
    } else {
        skipped.add(Skip::Owners);
    }
    if want.kind != Kind::Symlink {
        dir.set_mode_at(name, policy.mode(want, owned, Some(skipped)))?;
    }
    dir.set_mtime_at(name, want.mtime_ns)
}

/// Whether something that cannot be opened looks as it should.
pub fn is_settled_at(found: &Stat, want: &Meta, policy: &Policy) -> bool {
    let owner = (want.uid, want.gid);
    let owned =
        (found.uid, found.gid) == owner || !policy.may_chown(Some((found.uid, found.gid)), owner);
    let mode = want.kind == Kind::Symlink
        || found.mode == want.mode
        || found.mode == policy.mode(want, owned, None);
    owned && mode && found.mtime_ns == want.mtime_ns && found.rdev == want.rdev
}

/// Lack of a right, or of the feature, is counted and passed over.
fn tolerate(result: Result<()>, skipped: &Skipped, kind: Skip) -> Result<()> {
    match result {
        Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {
            skipped.add(kind);
            Ok(())
        }
        // Too large for this filesystem's attributes is no reason to lose the file.
        Err(Errno::NOSPC | Errno::RANGE | Errno::TOOBIG) if kind == Skip::Xattrs => {
            skipped.add(kind);
            Ok(())
        }
        other => other,
    }
}
