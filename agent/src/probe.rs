//! Whether somebody has a file open or mapped for writing, and how to make its timestamps honest
//! when somebody has. Never longer in a tenant's way than two adjacent system calls.

use crate::faults::{self, Fault};
use crate::mount::FsClass;
use crate::sys;
use holdfast_format::stamp::Writers;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::sync::Once;

/// Above this many dirty bytes a busy file is not written back for our sake.
const FORCE_BYTES: u64 = 8 * 1024 * 1024;

/// Answers of the probe, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeStats {
    /// Files that nobody had open for writing.
    pub quiet_count: u64,
    /// Files that somebody had, or of which it could not be told.
    pub busy_count: u64,
    /// The longest that a lease was held, in nanoseconds.
    pub held_ns_max: u64,
}

/// Probes files; one for each reading thread.
#[derive(Debug, Default)]
pub struct WriterProbe {
    stats: ProbeStats,
}

impl WriterProbe {
    /// A probe. From now on this process ignores SIGIO, which the kernel sends when somebody waits
    /// for a lease.
    pub fn new() -> Self {
        static PREPARED: Once = Once::new();
        PREPARED.call_once(sys::ignore_sigio);
        Self::default()
    }

    /// What was answered so far.
    pub fn stats(&self) -> ProbeStats {
        self.stats
    }

    /// Who may be writing to the file, which must be open for reading only. Any refusal (no
    /// CAP_LEASE, leases turned off, a remote filesystem) counts as a writer.
    pub fn ask(&mut self, fd: BorrowedFd<'_>) -> Writers {
        let before = sys::monotonic_ns();
        let answer = sys::lease_and_release(fd);
        let held = sys::monotonic_ns().saturating_sub(before);
        let answer = match faults::on(Fault::NoProbe) {
            true => Ok(()),
            false => answer,
        };
        match answer {
            Ok(()) => {
                self.stats.quiet_count += 1;
                let held = u64::try_from(held).unwrap_or(0);
                self.stats.held_ns_max = self.stats.held_ns_max.max(held);
                Writers::None
            }
            Err(_) => {
                self.stats.busy_count += 1;
                Writers::MaybeSome
            }
        }
    }
}

/// Makes a later store through an old mapping of a busy file show in its ctime; false where that
/// was not done, so that its stamp cannot be believed.
pub(crate) fn settle_writers(fd: BorrowedFd<'_>, class: FsClass) -> bool {
    if class != FsClass::Trusted {
        return false;
    }
    if faults::on(Fault::NoSync) {
        return true;
    }
    match sys::dirty_bytes(fd) {
        // Clean pages are write-protected already.
        Ok(0) => return true,
        Ok(dirty) if dirty > FORCE_BYTES => return false,
        // Older kernels, and those that do not tell others' files: as if it were dirty.
        Ok(_) | Err(_) => {}
    }
    match sys::write_back(fd) {
        Ok(()) => true,
        // Nothing can be dirty on a read-only filesystem.
        Err(Errno::ROFS) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use std::fs::{File, OpenOptions};
    use std::io::Write;

    #[test]
    fn an_open_writer_is_seen_and_its_pages_are_written_back() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"x").unwrap();
        let mut probe = WriterProbe::new();
        let reader = File::open(&path).unwrap();
        assert_eq!(probe.ask(reader.as_fd()), Writers::None);
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"y").unwrap();
        assert_eq!(probe.ask(reader.as_fd()), Writers::MaybeSome);
        assert!(sys::dirty_bytes(reader.as_fd()).is_ok_and(|dirty| dirty > 0));
        assert!(settle_writers(reader.as_fd(), FsClass::Trusted));
        assert_eq!(sys::dirty_bytes(reader.as_fd()), Ok(0));
        drop(writer);
        assert_eq!(probe.ask(reader.as_fd()), Writers::None);
        let stats = probe.stats();
        assert_eq!((stats.quiet_count, stats.busy_count), (2, 1));
        assert!(!settle_writers(reader.as_fd(), FsClass::Memory));
    }

    #[test]
    fn a_lease_broken_while_held_does_not_kill() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"x").unwrap();
        let mut probe = WriterProbe::new();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(OpenOptions::new().write(true).open(&path));
                }
            });
            let reader = File::open(&path).unwrap();
            for _ in 0..50_000 {
                probe.ask(reader.as_fd());
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
