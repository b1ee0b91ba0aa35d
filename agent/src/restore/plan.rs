//! What is done about a path, given what stands there. Pure.

use super::policy::Policy;
use crate::stat::Stat;
use holdfast_format::entry::Kind;

/// A decision; the writer executes it without deciding again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing stands there.
    Make,
    /// The right kind stands there: compare content and metadata.
    Compare,
    /// Something that is no directory stands there: it gives way in one step.
    Replace,
    /// A directory stands where none should: it goes first, if it is empty or extras may be deleted.
    ClearDirectory,
    /// Not to be restored by this caller.
    PassOver,
}

/// Decides about one path of the snapshot.
pub fn decide(want: Kind, found: Option<&Stat>, policy: &Policy) -> Decision {
    if !policy.may_make(want) {
        return Decision::PassOver;
    }
    match found.map(|stat| stat.kind) {
        None => Decision::Make,
        Some(kind) if kind == want => Decision::Compare,
        Some(Kind::Directory) => Decision::ClearDirectory,
        Some(_) => Decision::Replace,
    }
}

/// Content of a file that stands there already is written in place, range by range, when the file is
/// larger than this and has one name only; otherwise a new file takes its place in one step.
///
/// A new file is atomic but costs a copy of what is unchanged (a reflink, where the filesystem can);
/// above this size the copy would cost more than it protects, and an interrupted restore is repeated
/// and compares every range again anyway. An inode with a second name is never written: that name may
/// lie outside of the target.
pub const IN_PLACE_ABOVE_BYTES: u64 = 64 << 20;

/// Whether a differing regular file is written in place.
pub fn writes_in_place(found: &Stat, size: u64) -> bool {
    found.nlink == 1 && found.size.max(size) > IN_PLACE_ABOVE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(kind: Kind, size: u64, nlink: u32) -> Stat {
        Stat {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size,
            allocated_bytes: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            btime_ns: 0,
            ino: 1,
            nlink,
            rdev: 0,
            dev: 0,
            mnt_id: 0,
            mount_root: false,
        }
    }

    #[test]
    fn every_pair_of_kinds_has_a_decision() {
        use Kind::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink};
        let all = [
            File,
            Directory,
            Symlink,
            Fifo,
            Socket,
            CharDevice,
            BlockDevice,
        ];
        for special in [false, true] {
            let policy = Policy::of_process(special);
            for want in all {
                let device = matches!(want, CharDevice | BlockDevice);
                let expect = |decision| {
                    if device && !special {
                        Decision::PassOver
                    } else {
                        decision
                    }
                };
                assert_eq!(decide(want, None, &policy), expect(Decision::Make));
                for found in all {
                    let expected = if found == want {
                        Decision::Compare
                    } else if found == Directory {
                        Decision::ClearDirectory
                    } else {
                        Decision::Replace
                    };
                    let found = stat(found, 0, 1);
                    assert_eq!(decide(want, Some(&found), &policy), expect(expected));
                }
            }
        }
    }

    #[test]
    fn only_large_files_with_one_name_are_written_in_place() {
        let large = IN_PLACE_ABOVE_BYTES + 1;
        assert!(writes_in_place(&stat(Kind::File, large, 1), 5));
        assert!(writes_in_place(&stat(Kind::File, 5, 1), large));
        assert!(!writes_in_place(&stat(Kind::File, large, 2), large));
        assert!(!writes_in_place(&stat(Kind::File, large - 1, 1), large - 1));
    }
}
