//! The file that a restore fills: a large new one is written past the page cache where the filesystem lets it.
//!
//! What was restored is not read again at once, and a volume of many GiB would push the pages of the node's
//! applications out of memory; copying into the page cache is also the largest part of what writing costs
//! (BENCHMARKS.md). Direct access needs aligned memory, offsets and lengths (open(2), "O_DIRECT"): whole blocks go
//! through an aligned buffer, what lies before and behind them goes the usual way. Those are never the same
//! page, so neither way sees the other's. Nothing is durable before the filesystem is synced.

use crate::beneath::{Dir, Errno, Result, write};
use rustix::fd::AsFd;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

/// Files of at least this many bytes are written past the page cache.
const FILE_BYTES: u64 = 64 << 20;
/// Less at once goes the usual way: the kernel joins small writes better.
const DIRECT_FROM: usize = 256 << 10;
/// A filesystem that names larger blocks (network ones do) wants large writes joined, and is left to its cache.
const MAX_BLOCK: usize = 64 << 10;

/// A file open for reading and writing.
pub struct Output {
    file: File,
    direct: Option<Direct>,
}

/// A second descriptor of the same file, for whole blocks.
struct Direct {
    file: File,
    alignment: usize,
    /// It said no once: some filesystems take the flag and refuse the write.
    refused: AtomicBool,
}

thread_local! {
    /// Where whole blocks are aligned; as large as the largest write was.
    static BLOCKS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Output {
    /// A file that is written through the page cache.
    pub fn cached(file: File) -> Self {
        Self { file, direct: None }
    }

    /// A file of `dir` that no one else uses and that is to have `size` bytes, which it is given at once where
    /// it is large enough: a write that makes a file longer excludes all others.
    pub fn of_size(file: File, dir: &Dir, name: &[u8], size: u64) -> Self {
        let direct = (size >= FILE_BYTES)
            .then(|| Direct::open(&file, dir, name, size).ok())
            .flatten();
        Self { file, direct }
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its number on its filesystem; 0 where that is not told.
    pub fn ino(&self) -> u64 {
        write::stat_fd(self.file.as_fd()).map_or(0, |stat| stat.ino)
    }

    /// Writes all of it. May be called by several threads at once, for different ranges.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let direct = self.direct.as_ref().filter(|direct| direct.takes(bytes));
        let whole = direct
            .map(|direct| direct.write(bytes, offset))
            .transpose()?;
        let whole = whole.unwrap_or(0..0);
        for part in [0..whole.start, whole.end..bytes.len()] {
            if !part.is_empty() {
                let at = offset + part.start as u64;
                self.file.write_all_at(&bytes[part], at)?;
            }
        }
        Ok(())
    }
}

impl Direct {
    fn open(file: &File, dir: &Dir, name: &[u8], size: u64) -> Result<Self> {
        let found = file.metadata().map_err(|_| Errno::IO)?;
        let block = usize::try_from(found.blksize()).unwrap_or(usize::MAX);
        if block > MAX_BLOCK || !block.is_power_of_two() {
            return Err(Errno::INVAL);
        }
        let direct = dir.open_direct(name)?;
        let same = write::stat_fd(direct.as_fd())?;
        if (same.dev, same.ino) != (found.dev(), found.ino()) {
            return Err(Errno::LOOP);
        }
        rustix::fs::ftruncate(file, size)?;
        Ok(Self {
            file: direct,
            alignment: block.max(rustix::param::page_size()),
            refused: AtomicBool::new(false),
        })
    }

    fn takes(&self, bytes: &[u8]) -> bool {
        bytes.len() >= DIRECT_FROM && !self.refused.load(Ordering::Relaxed)
    }

    /// Writes the whole blocks among these bytes; which they are.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<Range<usize>> {
        let whole = blocks(bytes.len(), offset, self.alignment);
        let written = BLOCKS.with_borrow_mut(|memory| {
            let needed = whole.len() + self.alignment;
            if memory.len() < needed {
                memory.resize(needed, 0);
            }
            let start = memory.as_ptr().align_offset(self.alignment);
            let aligned = &mut memory[start..start + whole.len()];
            aligned.copy_from_slice(&bytes[whole.clone()]);
            self.file.write_all_at(aligned, offset + whole.start as u64)
        });
        match written {
            Ok(()) => Ok(whole),
            Err(error) if is_refusal(&error) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(0..0)
            }
            Err(error) => Err(error),
        }
    }
}

/// Which of so many bytes at this offset of a file fill whole blocks.
fn blocks(length: usize, offset: u64, alignment: usize) -> Range<usize> {
    let alignment = alignment as u64;
    let end = offset + length as u64;
    let (first, last) = (
        offset.next_multiple_of(alignment),
        end / alignment * alignment,
    );
    match first < last {
        true => (first - offset) as usize..(last - offset) as usize,
        false => 0..0,
    }
}

fn is_refusal(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath::Root;
    use std::io::IoSliceMut;

    /// A temporary directory on a disk, and a file in it that is written past the page cache; `None` where the
    /// filesystem has no such way.
    fn direct(place: &std::path::Path, size: u64) -> Option<Output> {
        let dir = Root::open(place).unwrap().top().unwrap();
        let file = dir.create_file(b"file", 0o600).unwrap();
        let direct = Direct::open(&file, &dir, b"file", size).ok()?;
        let direct = Some(direct);
        Some(Output { file, direct })
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect()
    }

    #[test]
    fn whole_blocks_are_found() {
        for (length, offset, expected) in [
            (0, 0, 0..0),
            (4096, 0, 0..4096),
            (4095, 0, 0..0),
            (4096, 1, 0..0),
            (8191, 1, 4095..8191),
            (8190, 1, 0..0),
            (20_000, 4096, 0..16_384),
            (20_000, 8000, 192..16_576),
        ] {
            assert_eq!(
                blocks(length, offset, 4096),
                expected,
                "{length} at {offset}"
            );
        }
    }

    #[test]
    fn threads_that_write_side_by_side_make_the_same_file() {
        let place = tempfile::tempdir().unwrap();
        let whole = noise(9_500_001);
        let Some(output) = direct(place.path(), whole.len() as u64) else {
            return;
        };
        // Pieces of both ways, their borders within blocks; every thread takes each third.
        let cuts: Vec<usize> = (0..)
            .scan(0, |at, n| {
                let start = *at;
                *at += [700_001, 5, 4096, 262_144, 300_000, 99_999][n % 6];
                (start < whole.len()).then_some(start)
            })
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (whole, cuts, output) = (&whole, &cuts, &output);
                scope.spawn(move || {
                    for n in (thread..cuts.len()).step_by(3) {
                        let end = cuts.get(n + 1).copied().unwrap_or(whole.len());
                        let at = cuts[n];
                        output.write(&whole[at..end], at as u64).unwrap();
                    }
                });
            }
        });
        assert!(std::fs::read(place.path().join("file")).unwrap() == whole);
    }

    #[test]
    fn a_large_file_does_not_fill_the_page_cache_and_a_small_one_does() {
        let place = tempfile::tempdir().unwrap();
        let dir = Root::open(place.path()).unwrap().top().unwrap();
        let cached = |size: u64| {
            let name = size.to_string().into_bytes();
            let file = dir.create_file(&name, 0o600).unwrap();
            let output = Output::of_size(file, &dir, &name, size);
            let piece = noise(1 << 20);
            for at in 0..8 {
                output.write(&piece, 100 + at * piece.len() as u64).unwrap();
            }
            // What cannot be read without waiting is not in the cache. The borders of the pieces are.
            let mut buffer = [0; 1];
            let here = (1..16).filter(|half| {
                let mut slices = [IoSliceMut::new(&mut buffer)];
                let flags = rustix::io::ReadWriteFlags::NOWAIT;
                let at = half * (512 << 10) + (8 << 10);
                rustix::io::preadv2(output.file(), &mut slices, at, flags).is_ok()
            });
            (output.direct.is_some(), here.count())
        };
        assert_eq!(cached(FILE_BYTES - 1), (false, 15));
        let (direct, pages) = cached(FILE_BYTES);
        assert!(!direct || pages <= 1, "{pages} of 15 are cached");
    }

    #[test]
    fn a_filesystem_that_refuses_gets_the_usual_writes() {
        let place = tempfile::tempdir().unwrap();
        let whole = noise(600_001);
        let Some(mut output) = direct(place.path(), whole.len() as u64) else {
            return;
        };
        if let Some(direct) = &mut output.direct {
            // Most filesystems refuse what is not aligned; those that do not must write it.
            direct.alignment = 1;
        }
        output.write(&whole[..300_000], 0).unwrap();
        output.write(&whole[300_000..], 300_000).unwrap();
        assert!(std::fs::read(place.path().join("file")).unwrap() == whole);
    }
}
