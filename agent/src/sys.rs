//! System calls that no library in use offers safely. The only file of this crate with `unsafe`.
//!
//! Each function is one or two calls on borrowed descriptors and plain values, and can be used from
//! any thread.
#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::CStr;
use std::io;

/// `cachestat(2)` has this number on every architecture but alpha.
const SYS_CACHESTAT: libc::c_long = 451;

/// Nanoseconds since the epoch by the clock that stamps inodes.
pub(crate) fn realtime_ns() -> i64 {
    nanoseconds(ClockId::Realtime)
}

/// Nanoseconds of a clock that is never set.
pub(crate) fn monotonic_ns() -> i64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

/// Takes a read lease and gives it back at once: two adjacent calls. `Ok`: at that instant nobody
/// had the file open or mapped for writing.
pub(crate) fn lease_and_release(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fd = fd.as_raw_fd();
    // SAFETY: `fd` is open for the whole call; F_SETLEASE takes an int and touches no memory.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) } != 0 {
        return Err(last_errno());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) } != 0 {
        return Err(last_errno());
    }
    Ok(())
}

/// Takes a read lease and closes the file under it, so that the kernel tells of the close before
/// anybody who waits for the lease opens the file. `Ok`: nobody had the file open or mapped for
/// writing when it was closed; it is closed either way. SIGIO must be ignored.
// Until the journal uses it.
#[allow(dead_code)]
pub(crate) fn lease_until_closed(file: OwnedFd) -> Result<(), Errno> {
    // SAFETY: `file` is open for the whole call; F_SETLEASE takes an int and touches no memory.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) } != 0 {
        return Err(last_errno());
    }
    drop(file);
    Ok(())
}

/// Ignores SIGIO for the whole process: it is what the kernel sends the holder of a lease that
/// somebody waits for, and its default action kills.
pub(crate) fn ignore_sigio() {
    // SAFETY: SIG_IGN is a valid disposition, and no handler of this program is replaced.
    unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
    }
}

/// Bytes of a file that are dirty or being written back. `ENOSYS` before Linux 6.5.
pub(crate) fn dirty_bytes(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Pages {
        cache: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range {
        offset: 0,
        // To the end of the file.
        length: 0,
    };
    let mut pages = Pages::default();
    // SAFETY: both structures have the kernel's layout and live over the call, which reads the first
    // and writes the second.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            libc::c_long::from(fd.as_raw_fd()),
            &raw const range,
            &raw mut pages,
            0 as libc::c_long,
        )
    };
    if result != 0 {
        return Err(last_errno());
    }
    let pages = pages.dirty.saturating_add(pages.writeback);
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Writes a file's dirty pages out and waits for them: afterwards a store through a mapping made
/// before faults again, and moves ctime. Commits no journal and writes no metadata.
pub(crate) fn write_back(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: plain integers on an open descriptor.
    let result = unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Gives the calling thread the scheduling policy for work in the background (SCHED_BATCH).
pub(crate) fn schedule_as_batch() -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure lives over the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Sets the calling thread's IO class (2 best effort, 3 idle) and its level (7 is the lowest).
pub(crate) fn set_io_priority(class: u16, level: u16) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_long = 1;
    let value = libc::c_long::from(class) << 13 | libc::c_long::from(level);
    // SAFETY: plain integers; 0 is the calling thread.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0 as libc::c_long, value) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// A fanotify group.
pub(crate) fn fanotify_init(flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // Of the descriptors that come with events; in groups that report handles there are none.
    let event_flags = (libc::O_RDONLY | libc::O_LARGEFILE) as libc::c_uint;
    // SAFETY: plain integers.
    let fd = unsafe { libc::fanotify_init(flags, event_flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: a fresh descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds, changes or removes the mark of a group on a directory, which may be open as `O_PATH`.
pub(crate) fn fanotify_mark(
    group: BorrowedFd<'_>,
    flags: libc::c_uint,
    mask: u64,
    dir: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let flags = flags | libc::FAN_MARK_ONLYDIR | libc::FAN_MARK_DONT_FOLLOW;
    let (group, dir) = (group.as_raw_fd(), dir.as_raw_fd());
    // SAFETY: both descriptors are open and the path is a C string for the whole call.
    let result = unsafe { libc::fanotify_mark(group, flags, mask, dir, c".".as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// The kernel's `struct file_handle` with room for the longest.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_HANDLE_BYTES],
}

/// MAX_HANDLE_SZ.
const MAX_HANDLE_BYTES: usize = 128;

/// Type and bytes of the handle of `name` in a directory, or of the directory itself where `name` is
/// empty. Follows no symlink.
pub(crate) fn name_to_handle(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(i32, Vec<u8>), Errno> {
    name.into_with_c_str(|name| {
        match name_to_handle_with(dir, name, libc::AT_EMPTY_PATH) {
            // A filesystem that cannot open a handle may still have one to be known by (Linux 6.5).
            Err(Errno::OPNOTSUPP) => {
                name_to_handle_with(dir, name, libc::AT_EMPTY_PATH | libc::AT_HANDLE_FID)
            }
            done => done,
        }
    })
}

fn name_to_handle_with(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: libc::c_int,
) -> Result<(i32, Vec<u8>), Errno> {
    let mut handle = FileHandle {
        bytes: MAX_HANDLE_BYTES as u32,
        kind: 0,
        data: [0; MAX_HANDLE_BYTES],
    };
    let mut mount: libc::c_int = 0;
    // SAFETY: the structure has the kernel's layout and says how much room it has; it, the name and
    // the mount's id live over the call.
    let result = unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            name.as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            flags,
        )
    };
    if result != 0 {
        return Err(last_errno());
    }
    let bytes = handle.data.get(..handle.bytes as usize);
    Ok((handle.kind, bytes.ok_or(Errno::OVERFLOW)?.to_vec()))
}

/// What a handle names, on the filesystem of `mount`, as an `O_PATH` descriptor; a symlink itself.
pub(crate) fn open_by_handle(
    mount: BorrowedFd<'_>,
    kind: i32,
    bytes: &[u8],
) -> Result<OwnedFd, Errno> {
    let mut handle = FileHandle {
        bytes: bytes.len() as u32,
        kind,
        data: [0; MAX_HANDLE_BYTES],
    };
    let data = handle.data.get_mut(..bytes.len()).ok_or(Errno::INVAL)?;
    data.copy_from_slice(bytes);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the structure has the kernel's layout, holds as many bytes as it says, and lives over the
    // call.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: a fresh descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// For tests: a lease that is held for a while.
#[cfg(test)]
pub(crate) mod lease {
    use super::{AsRawFd, Errno, last_errno};
    use std::fs::File;

    fn fcntl(file: &File, command: i32, argument: i32) -> Result<i32, Errno> {
        // SAFETY: the lease commands take an int or nothing, and touch no memory.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
        if result < 0 {
            Err(last_errno())
        } else {
            Ok(result)
        }
    }

    pub(crate) fn take(file: &File) -> Result<(), Errno> {
        fcntl(file, libc::F_SETLEASE, libc::F_RDLCK).map(drop)
    }

    pub(crate) fn give_back(file: &File) -> Result<(), Errno> {
        fcntl(file, libc::F_SETLEASE, libc::F_UNLCK).map(drop)
    }

    pub(crate) fn is_held(file: &File) -> bool {
        fcntl(file, libc::F_GETLEASE, 0) == Ok(libc::F_RDLCK)
    }

    /// Whether somebody waits for the lease, or there is none.
    pub(crate) fn is_wanted(file: &File) -> bool {
        fcntl(file, libc::F_GETLEASE, 0) == Ok(libc::F_UNLCK)
    }
}

/// For tests: a shared mapping that outlives the descriptor it was made with.
#[cfg(test)]
pub(crate) mod mapping {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use std::fs::File;

    /// The first page of a file, mapped for writing.
    pub(crate) struct Mapping(*mut u8);

    impl Mapping {
        pub(crate) fn of(file: &File) -> Self {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            let at = unsafe {
                mmap(
                    std::ptr::null_mut(),
                    4096,
                    protection,
                    MapFlags::SHARED,
                    file,
                    0,
                )
            };
            Self(at.unwrap().cast())
        }

        pub(crate) fn store(&self, at: usize, byte: u8) {
            assert!(at < 4096);
            // SAFETY: within the page that is mapped as long as `self` lives.
            unsafe { self.0.add(at).write_volatile(byte) };
        }

        /// The word at 8 times `at`, at once.
        pub(crate) fn store_word(&self, at: usize, word: u64) {
            assert!(at < 4096 / 8);
            // SAFETY: within the page that is mapped as long as `self` lives, and aligned as a page is.
            unsafe { self.0.cast::<u64>().add(at).write_volatile(word) };
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `of`, not used after.
            let _ = unsafe { munmap(self.0.cast(), 4096) };
        }
    }
}

/// For tests: memory that makes a system call wait which reads it.
#[cfg(test)]
pub(crate) mod stalled {
    use super::{AsRawFd, Errno, OwnedFd, last_errno};
    use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, userfaultfd};

    /// Twos, and as many zeros that come when the descriptor is closed: whoever reads them before waits.
    pub(crate) fn bytes(half: usize) -> Result<(&'static [u8], OwnedFd), Errno> {
        const API: u32 = 0xc018_aa3f;
        const REGISTER: u32 = 0xc020_aa00;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let nowhere = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice, which is there for ever.
        let memory = unsafe { mmap_anonymous(nowhere, 2 * half, protection, MapFlags::PRIVATE)? };
        let memory = memory.cast::<u8>();
        // SAFETY: it serves faults in that mapping only, by its end.
        let fd = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC)? };
        let mut api = [0xaa_u64, 0, 0];
        let mut missing = [memory as u64 + half as u64, half as u64, 1, 0];
        // SAFETY: both structures have the kernel's layout and live through the calls; all is in the mapping.
        unsafe {
            if libc::ioctl(fd.as_raw_fd(), API as _, &raw mut api) != 0
                || libc::ioctl(fd.as_raw_fd(), REGISTER as _, &raw mut missing) != 0
            {
                return Err(last_errno());
            }
            memory.write_bytes(2, half);
            Ok((std::slice::from_raw_parts(memory, 2 * half), fd))
        }
    }
}

/// landlock(7): what the threads of this process may do with files from now on.
pub(crate) mod landlock {
    use super::last_errno;
    use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
    use rustix::io::Errno;

    pub(crate) const WRITE_FILE: u64 = 1 << 1;
    const EXECUTE: u64 = 1;
    const READ_FILE: u64 = 1 << 2;
    const READ_DIR: u64 = 1 << 3;
    const TRUNCATE: u64 = 1 << 14;
    const IOCTL_DEV: u64 = 1 << 15;
    /// Reading and listing.
    pub(crate) const READ: u64 = READ_FILE | READ_DIR;
    /// The rights that a rule for a file may name.
    pub(crate) const FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

    #[repr(C)]
    struct RulesetAttr {
        handled_access_fs: u64,
    }

    #[repr(C, packed)]
    struct PathBeneathAttr {
        allowed_access: u64,
        parent_fd: i32,
    }

    /// Every right that a version of the interface knows of files.
    pub(crate) fn all(abi: u32) -> u64 {
        let count = match abi {
            0 => 0,
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << count) - 1
    }

    /// The kernel's version of the interface; 0: it has none, or it is switched off.
    pub(crate) fn abi() -> u32 {
        const VERSION: u32 = 1;
        let none = std::ptr::null::<RulesetAttr>();
        // SAFETY: with this flag the call takes no memory, and answers with a number.
        let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
        u32::try_from(version).unwrap_or(0)
    }

    /// What is allowed; everything else is denied once it is in force.
    pub(crate) struct Rules {
        fd: OwnedFd,
        known: u64,
    }

    impl Rules {
        /// Nothing is.
        pub(crate) fn new(abi: u32) -> Result<Self, Errno> {
            let known = all(abi);
            let attr = RulesetAttr {
                handled_access_fs: known,
            };
            let size = size_of::<RulesetAttr>();
            // SAFETY: `attr` lives through the call and is as long as `size` says; the kernel takes a shorter
            // structure than its own as one whose rest is 0.
            let fd = unsafe {
                libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0)
            };
            match i32::try_from(fd) {
                // SAFETY: a descriptor that the kernel has just made for us.
                Ok(fd) if fd >= 0 => Ok(Self {
                    fd: unsafe { OwnedFd::from_raw_fd(fd) },
                    known,
                }),
                _ => Err(last_errno()),
            }
        }

        /// Allows this of a file, or of everything below a directory.
        pub(crate) fn add(&self, path: impl AsFd, rights: u64) -> Result<(), Errno> {
            const PATH_BENEATH: u32 = 1;
            let path = path.as_fd();
            let attr = PathBeneathAttr {
                allowed_access: rights & self.known,
                parent_fd: path.as_raw_fd(),
            };
            // SAFETY: both descriptors are open and `attr` lives through the call.
            let added = unsafe {
                let (rules, attr) = (self.fd.as_raw_fd(), &raw const attr);
                libc::syscall(libc::SYS_landlock_add_rule, rules, PATH_BENEATH, attr, 0)
            };
            match added {
                0 => Ok(()),
                _ => Err(last_errno()),
            }
        }

        /// For this thread and those that it starts, for ever.
        pub(crate) fn restrict_this_thread(&self) -> Result<(), Errno> {
            // The kernel wants to know that nobody gets rights back by starting a program.
            rustix::thread::set_no_new_privs(true)?;
            // SAFETY: takes the descriptor and no memory.
            let done =
                unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0) };
            match done {
                0 => Ok(()),
                _ => Err(last_errno()),
            }
        }
    }
}
