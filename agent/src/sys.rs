//! System calls that no library in use offers safely. The only file of this crate with `unsafe`.
//!
//! Each function is one or two calls on borrowed descriptors and plain values, and can be used from
//! any thread.
#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
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

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
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
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `of`, not used after.
            let _ = unsafe { munmap(self.0.cast(), 4096) };
        }
    }
}
