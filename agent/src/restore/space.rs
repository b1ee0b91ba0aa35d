//! Whether what a restore will write fits the target's filesystem: asked before anything is written.
//!
//! Only what certainly does not fit is refused: bytes are those of data, without holes and without the
//! filesystem's own; what is overwritten or replaced makes room for what comes in its place.

use crate::error::{Error, Result};
use rustix::io::Errno;
use std::fmt;
use std::path::Path;

/// A filesystem that compresses may hold more than it has room for; this many times more at the most.
const COMPRESSED: u64 = 8;
/// Filesystems that may (btrfs, ZFS, bcachefs, f2fs).
const MAY_COMPRESS: [u64; 4] = [0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e, 0xf2f5_2010];

/// Bytes of data, and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Files, directories and so on.
    pub inodes: u64,
}

/// What a restore needs and the target's filesystem has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What would be written.
    pub needed: Amount,
    /// What is free.
    pub free: Amount,
}

/// What is free where a restore goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub amount: Amount,
    /// How many bytes of data a free byte may take.
    ratio: u64,
}

impl Free {
    /// Of the filesystem that `target` lies on, or will. `None`: it does not say.
    pub fn at(target: &Path) -> Result<Option<Self>> {
        let mut at = target;
        let found = loop {
            match rustix::fs::statvfs(at) {
                Err(Errno::NOENT) => {}
                found => break found,
            }
            at = match at.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
        };
        let found = found.map_err(|errno| Error::Io {
            what: "ask for the free space of",
            path: target.display().to_string(),
            source: errno.into(),
        })?;
        if found.f_blocks == 0 {
            return Ok(None);
        }
        let root = rustix::process::geteuid().is_root();
        let blocks = if root { found.f_bfree } else { found.f_bavail };
        let inodes = match (found.f_files, root) {
            // btrfs and others make inodes as they need them.
            (0, _) => u64::MAX,
            (_, true) => found.f_ffree,
            (_, false) => found.f_favail,
        };
        let kind = rustix::fs::statfs(at).map(|found| found.f_type as u64);
        Ok(Some(Self {
            amount: Amount {
                bytes: blocks.saturating_mul(found.f_frsize),
                inodes,
            },
            ratio: match kind {
                Ok(kind) if MAY_COMPRESS.contains(&kind) => COMPRESSED,
                _ => 1,
            },
        }))
    }

    /// Whether there is room for so much.
    pub fn holds(&self, needed: &Amount) -> bool {
        needed.bytes <= self.amount.bytes.saturating_mul(self.ratio)
            && needed.inodes <= self.amount.inodes
    }

    /// Refuses what has no room, with both numbers and the ways out.
    pub fn check(&self, needed: &Amount, target: &Path) -> Result<()> {
        if self.holds(needed) {
            return Ok(());
        }
        let space = Space {
            needed: *needed,
            free: self.amount,
        };
        Err(Error::Restore {
            reason: "TargetTooSmall",
            detail: format!(
                "{} has no room for it: {space}; nothing was written. Make room, choose a target on \
                 another filesystem, or restore a part (SNAPSHOT:/PATH)",
                target.display()
            ),
        })
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, free } = self;
        write!(
            f,
            "{} bytes and {} inodes are needed, {} bytes and ",
            needed.bytes, needed.inodes, free.bytes
        )?;
        match free.inodes {
            u64::MAX => f.write_str("any number of inodes are free"),
            inodes => write!(f, "{inodes} inodes are free"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_told_of_targets_that_are_not_there_yet() {
        let top = tempfile::tempdir().unwrap();
        let there = Free::at(top.path()).unwrap().unwrap();
        assert!(there.amount.bytes > 0 && there.amount.inodes > 0);
        let missing = Free::at(&top.path().join("a/b/c")).unwrap().unwrap();
        assert_eq!(missing.ratio, there.ratio);
        assert!(Free::at(Path::new("not/there")).unwrap().is_some());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let amount = |bytes, inodes| Amount { bytes, inodes };
        let free = Free {
            amount: amount(1000, 10),
            ratio: 1,
        };
        let check = |needed| free.check(&needed, Path::new("/t"));
        check(amount(1000, 10)).unwrap();
        for needed in [amount(1001, 1), amount(1, 11), amount(u64::MAX, u64::MAX)] {
            let error = check(needed).unwrap_err();
            assert_eq!(error.reason(), "TargetTooSmall");
            let told = error.to_string();
            let said = |n: u64| told.contains(&n.to_string());
            assert!(said(needed.bytes) && said(needed.inodes) && said(1000) && said(10));
        }
        let compressing = Free { ratio: 8, ..free };
        assert!(compressing.holds(&amount(8000, 1)) && !compressing.holds(&amount(8001, 1)));
    }
}
