//! Reads one file, or one entry's metadata, by the protocol that makes a stamp worth believing:
//! open, probe for writers, sync where there are some, stat, read and hash, stat again.
//!
//! What is read are bytes the file held during the read. A file that moves meanwhile is read again
//! a few times, then stored as inconsistent and reported. At most the size of the first stat is
//! read, so a file that grows for ever ends. Only regular files are ever read: opening is not
//! reading, and what was put in a file's place meanwhile is recognised on the descriptor.
//!
//! A [`Reader`] belongs to one thread.

use crate::beneath::read::{stat_fd, xattrs_of, xattrs_of_path};
use crate::beneath::{Dir, Errno, Xattr};
use crate::cancel::Cancel;
use crate::error::{Error, ItemProblem};
use crate::limits::RateLimit;
use crate::mount::FsClass;
use crate::probe::{ProbeStats, WriterProbe, settle_writers};
use crate::stat::Stat;
use crate::sys;
use holdfast_format::chunker::Chunker;
use holdfast_format::content::{ContentCutter, MIN_HOLE_BYTES, Piece};
use holdfast_format::digest::{ContentDigest, ContentDigester};
use holdfast_format::entry::{Extent, Kind};
use holdfast_format::keys::Ids;
use holdfast_format::stamp::{Evidence, FilesystemTrust, Stamp, Synced, Writers, judge};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use std::num::NonZero;
use std::time::Duration;

/// Read buffer.
const BUFFER_BYTES: usize = 512 * 1024;
/// From this size on the kernel is told to read ahead.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;
/// Reads of a file that changes, the first included.
const ATTEMPTS: u32 = 4;
/// The same above `LARGE_BYTES`, where a read is dear.
const LARGE_ATTEMPTS: u32 = 2;
const LARGE_BYTES: u64 = 256 * 1024 * 1024;
/// Pause before the next attempt, so that a short write can end.
const PAUSE: Duration = Duration::from_millis(5);
/// Tries of an open that another program's lease holds up, and the pause between them.
const OPEN_TRIES: u32 = 5;
const OPEN_PAUSE: Duration = Duration::from_millis(20);
/// Step of the clock that makes its comparisons with timestamps worthless.
const CLOCK_STEP_NS: u64 = 10_000_000;

/// What to believe of a file that somebody has open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BusyPolicy {
    /// Sync it first; believe its times if they are old enough.
    #[default]
    Settle,
    /// Nothing: it is read again on the next run.
    Reread,
}

/// What all reads of a run share.
#[derive(Debug, Clone)]
pub struct ReadContext {
    /// Cuts contents.
    pub chunker: Chunker,
    /// Names chunks.
    pub ids: Ids,
    /// Largest content that stands in its entry, in bytes.
    pub inline_limit: u32,
    /// The volume's filesystem (`Root::class`).
    pub class: FsClass,
    /// What to believe of busy files.
    pub busy: BusyPolicy,
    /// Bytes read per second.
    pub rate: RateLimit,
    /// Ends reads.
    pub cancel: Cancel,
}

/// Takes a file's content in order: either nothing (no bytes), one `inline`, or `extent`s.
pub trait ContentSink {
    /// The file is read again from its start: what came so far is void.
    fn restart(&mut self);

    /// All bytes of a file of at most the inline limit.
    fn inline(&mut self, bytes: &[u8]) -> crate::Result<()>;

    /// The next extent; a chunk with its bytes, a hole without.
    fn extent(&mut self, extent: Extent, bytes: Option<&[u8]>) -> crate::Result<()>;
}

/// Why a file or entry was not read.
#[derive(Debug)]
pub enum ReadError {
    /// Its path is gone: nothing is there to be stored, and nothing is wrong.
    Vanished,
    /// It could not be read: what the parent snapshot has of it stands.
    Item(ItemProblem),
    /// The run ends: the sink refused, or it was cancelled.
    Stopped(Error),
}

/// A file that was read.
#[derive(Debug)]
pub struct ReadOutcome {
    /// Metadata after the read; may be of another inode than was found, if the file was replaced.
    pub stat: Stat,
    /// Bytes of content; differs from `stat.size` only where `stamp.inconsistent`.
    pub size: u64,
    /// What the next run may believe.
    pub stamp: Stamp,
    /// Who may have been writing it when it was read.
    pub writers: Writers,
    /// Digest of the content.
    pub digest: ContentDigest,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
    /// To be reported, though the file is stored: it changed during every attempt.
    pub problem: Option<ItemProblem>,
}

/// Metadata of anything that is not read.
#[derive(Debug)]
pub struct Meta {
    /// Metadata, consistent with the rest.
    pub stat: Stat,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Of a symlink; else empty.
    pub target: Vec<u8>,
}

/// Reads files; keeps its buffers from one to the next.
#[derive(Debug)]
pub struct Reader {
    context: ReadContext,
    cutter: ContentCutter,
    probe: WriterProbe,
    buffer: Vec<u8>,
}

/// One attempt at a file.
struct Attempt {
    before: Stat,
    after: Stat,
    read: u64,
    digest: ContentDigest,
    xattrs: Vec<Xattr>,
    stamp: Stamp,
    writers: Writers,
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        failed("read", errno)
    }
}

impl Reader {
    /// A reader for one thread.
    pub fn new(context: ReadContext) -> Self {
        Self {
            cutter: ContentCutter::new(&context.chunker),
            probe: WriterProbe::new(),
            buffer: vec![0; BUFFER_BYTES],
            context,
        }
    }

    /// Answers of the writer probe so far.
    pub fn probe_stats(&self) -> ProbeStats {
        self.probe.stats()
    }

    /// Reads the regular file `name` of `dir` into `sink`.
    pub fn read_file(
        &mut self,
        dir: &Dir,
        name: &[u8],
        sink: &mut dyn ContentSink,
    ) -> Result<ReadOutcome, ReadError> {
        let mut attempt = 1;
        loop {
            let tried = self.attempt(dir, name, sink);
            // After a failed read the cutter may hold bytes of it.
            self.cutter.reset();
            let tried = tried?;
            let most = if tried.before.size > LARGE_BYTES {
                LARGE_ATTEMPTS
            } else {
                ATTEMPTS
            };
            let problem = match (tried.stamp.inconsistent, attempt < most) {
                (true, true) => {
                    attempt += 1;
                    sink.restart();
                    std::thread::sleep(PAUSE);
                    continue;
                }
                (true, false) => Some(ItemProblem::new(
                    "ChangedWhileRead",
                    format!("changed during each of {attempt} reads; stored as it was read last"),
                )),
                (false, _) => None,
            };
            return Ok(ReadOutcome {
                stat: tried.after,
                size: tried.read,
                stamp: tried.stamp,
                writers: tried.writers,
                digest: tried.digest,
                xattrs: tried.xattrs,
                problem,
            });
        }
    }

    fn attempt(
        &mut self,
        dir: &Dir,
        name: &[u8],
        sink: &mut dyn ContentSink,
    ) -> Result<Attempt, ReadError> {
        self.check_cancelled()?;
        let file = self.open(dir, name)?;
        let fd = file.as_fd();
        let offset_ns = clock_offset_ns();
        let probed_ns = sys::realtime_ns();
        let writers = self.probe.ask(fd);
        let mut trust = match self.context.class {
            FsClass::Trusted => FilesystemTrust::Full,
            FsClass::Memory | FsClass::Overlay => FilesystemTrust::WhenQuiet,
            FsClass::Remote | FsClass::Virtual(_) => FilesystemTrust::Never,
        };
        if writers == Writers::MaybeSome && trust == FilesystemTrust::Full {
            let settle = self.context.busy == BusyPolicy::Settle;
            // A device must not be synced by mistake.
            let regular = stat_fd(fd)?.kind == Kind::File;
            if !(settle && regular && settle_writers(fd, self.context.class)) {
                trust = FilesystemTrust::WhenQuiet;
            }
        }
        let before = stat_fd(fd)?;
        if before.kind != Kind::File {
            return Err(ReadError::Item(ItemProblem::new(
                "ReplacedDuringScan",
                "something that is no regular file has taken the file's place",
            )));
        }
        let (read, digest) = self.content(fd, &before, sink)?;
        let xattrs = xattrs_of(fd).map_err(|errno| failed("read the attributes", errno))?;
        let after = stat_fd(fd)?;
        let clock_stepped = clock_offset_ns().abs_diff(offset_ns) > CLOCK_STEP_NS;
        let stamp = judge(&Evidence {
            before: before.key(),
            after: after.key(),
            read_bytes: read,
            probed_ns,
            writers,
            trust,
            synced: Synced::NotDurably,
            clock_stepped,
        });
        Ok(Attempt {
            before,
            after,
            read,
            digest,
            xattrs,
            stamp,
            writers,
        })
    }

    fn open(&self, dir: &Dir, name: &[u8]) -> Result<rustix::fd::OwnedFd, ReadError> {
        let mut tries = 1;
        loop {
            match dir.open_file(name) {
                Ok(file) => return Ok(file),
                Err(Errno::NOENT) => return Err(ReadError::Vanished),
                // Somebody holds a write lease and O_NONBLOCK keeps us from waiting for it.
                Err(Errno::AGAIN) if tries < OPEN_TRIES => {
                    tries += 1;
                    self.check_cancelled()?;
                    std::thread::sleep(OPEN_PAUSE);
                }
                Err(errno) => return Err(failed("open", errno)),
            }
        }
    }

    /// Reads at most `before.size` bytes. How many there were, and their digest.
    fn content(
        &mut self,
        fd: BorrowedFd<'_>,
        before: &Stat,
        sink: &mut dyn ContentSink,
    ) -> Result<(u64, ContentDigest), ReadError> {
        let size = before.size;
        let sparse = before.allocated_bytes < size && size >= MIN_HOLE_BYTES;
        if !(sparse && self.context.class.seeks_holes()) && size <= BUFFER_BYTES as u64 {
            return self.small(fd, size as usize, sink);
        }
        if size >= READ_AHEAD_BYTES {
            // Advice that is not taken costs only time.
            let _ = fadvise(fd, 0, NonZero::new(size), Advice::Sequential);
        }
        let ids = self.context.ids.clone();
        let mut digester = ContentDigester::new(&ids);
        let mut out = |piece: Piece<'_>| push(&ids, &mut digester, sink, piece);
        let mut data_end = if sparse && self.context.class.seeks_holes() {
            0
        } else {
            size
        };
        let mut position = 0;
        while position < size {
            self.check_cancelled()?;
            if position == data_end {
                let (data, end) = next_data(fd, position, size);
                self.cutter.skip_zeros(data - position, &mut out)?;
                (position, data_end) = (data, end);
                continue;
            }
            let want = (data_end - position).min(BUFFER_BYTES as u64) as usize;
            let count = read_at(fd, &mut self.buffer[..want], position)?;
            if count == 0 {
                break;
            }
            self.context.rate.wait(count as u64, &self.context.cancel);
            self.cutter.feed(&self.buffer[..count], &mut out)?;
            position += count as u64;
        }
        self.cutter.finish(&mut out)?;
        if position == 0 {
            return Ok((0, ContentDigest::of_empty(&ids)));
        }
        Ok((position, digester.finish()))
    }

    /// A file that fits the buffer.
    fn small(
        &mut self,
        fd: BorrowedFd<'_>,
        size: usize,
        sink: &mut dyn ContentSink,
    ) -> Result<(u64, ContentDigest), ReadError> {
        let ids = &self.context.ids;
        let mut count = 0;
        while count < size {
            match read_at(fd, &mut self.buffer[count..size], count as u64)? {
                0 => break,
                more => count += more,
            }
        }
        if count == 0 {
            return Ok((0, ContentDigest::of_empty(ids)));
        }
        self.context.rate.wait(count as u64, &self.context.cancel);
        let bytes = &self.buffer[..count];
        if count <= self.context.inline_limit as usize {
            sink.inline(bytes).map_err(ReadError::Stopped)?;
            return Ok((count as u64, ContentDigest::of_inline(ids, bytes)));
        }
        let mut digester = ContentDigester::new(ids);
        self.cutter
            .finish_with(bytes, &mut |piece| push(ids, &mut digester, sink, piece))?;
        Ok((count as u64, digester.finish()))
    }

    fn check_cancelled(&self) -> Result<(), ReadError> {
        self.context.cancel.check().map_err(ReadError::Stopped)
    }
}

/// Metadata, attributes and link target of anything, through a descriptor that can read no data.
/// `kind` is what was found; something else in its place is a problem.
pub fn read_meta(dir: &Dir, name: &[u8], kind: Kind) -> Result<Meta, ReadError> {
    let file = match dir.open_path(name) {
        Err(Errno::NOENT) => return Err(ReadError::Vanished),
        file => file.map_err(|errno| failed("open", errno))?,
    };
    meta_of(file.as_fd(), kind, xattrs_of_path)
}

/// The same of an open directory itself, such as a root, which has no name.
pub fn read_dir_meta(dir: &Dir) -> Result<Meta, ReadError> {
    meta_of(dir.as_fd(), Kind::Directory, xattrs_of)
}

fn meta_of(
    fd: BorrowedFd<'_>,
    kind: Kind,
    xattrs: fn(BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno>,
) -> Result<Meta, ReadError> {
    let mut stat = stat_fd(fd)?;
    let mut attempt = 1;
    loop {
        if stat.kind != kind {
            return Err(ReadError::Item(ItemProblem::new(
                "ReplacedDuringScan",
                "something else has taken its place",
            )));
        }
        let xattrs = xattrs(fd).map_err(|errno| failed("read the attributes", errno))?;
        let target = match kind {
            Kind::Symlink => rustix::fs::readlinkat(fd, c"", Vec::new())
                .map_err(|errno| failed("read the link", errno))?
                .into_bytes(),
            _ => Vec::new(),
        };
        let after = stat_fd(fd)?;
        // The target of a symlink never changes; a change of anything else moves ctime.
        if stat.ctime_ns == after.ctime_ns || attempt == ATTEMPTS {
            return Ok(Meta {
                stat: after,
                xattrs,
                target,
            });
        }
        stat = after;
        attempt += 1;
    }
}

/// One piece on its way to the sink.
fn push(
    ids: &Ids,
    digester: &mut ContentDigester,
    sink: &mut dyn ContentSink,
    piece: Piece<'_>,
) -> Result<(), ReadError> {
    let (extent, bytes) = match piece {
        Piece::Hole(length) => (Extent::Hole { length }, None),
        Piece::Data(bytes) => {
            let extent = Extent::Chunk {
                id: ids.chunk(bytes),
                // A chunk is at most 256 KiB.
                length: bytes.len() as u32,
            };
            (extent, Some(bytes))
        }
    };
    digester.push_extent(&extent);
    sink.extent(extent, bytes).map_err(ReadError::Stopped)
}

/// Where data begins at or after `position`, and where it ends; both at `size` if there is none.
fn next_data(fd: BorrowedFd<'_>, position: u64, size: u64) -> (u64, u64) {
    match seek(fd, SeekFrom::Data(position)) {
        // Nothing but a hole follows.
        Err(Errno::NXIO) => (size, size),
        // The answer is only there to save work: without it the rest is read.
        Err(_) => (position, size),
        Ok(data) => {
            let data = data.clamp(position, size);
            let end = match seek(fd, SeekFrom::Hole(data)) {
                Ok(end) if end > data => end.min(size),
                _ => size,
            };
            (data, end)
        }
    }
}

fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], position: u64) -> Result<usize, ReadError> {
    loop {
        match rustix::io::pread(fd, &mut *buffer, position) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(&format!("read at byte {position}"), errno)),
            Ok(count) => return Ok(count),
        }
    }
}

/// How far the clock that stamps inodes is ahead of the one that is never set.
fn clock_offset_ns() -> i64 {
    sys::realtime_ns().wrapping_sub(sys::monotonic_ns())
}

fn failed(attempted: &str, errno: Errno) -> ReadError {
    ReadError::Item(ItemProblem::from_io(attempted, &errno.into()))
}

#[cfg(test)]
mod tests;
