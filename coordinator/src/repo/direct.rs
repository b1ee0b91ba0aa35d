//! Writes and reads much at once past the page cache where the filesystem lets it, and the usual way
//! elsewhere.
//!
//! What a backup writes is not read again soon, and a restore reads it once: neither should push the
//! pages of the node's applications out of memory, and copying into the page cache is the largest part of
//! what a pack costs to write (BENCHMARKS.md). Direct access needs aligned memory, offsets and lengths
//! (open(2), "O_DIRECT"), so parts go through an aligned buffer and the unaligned end is written the
//! usual way. Who writes syncs.

use bytes::Bytes;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Alignment that all block devices accept.
const ALIGNMENT: usize = 4096;
/// One write; a multiple of the alignment.
const BUFFER_BYTES: usize = 2 << 20;
/// Less at once is not worth it.
pub(super) const DIRECT_FROM: usize = 1 << 20;

/// Writes the parts one after the other from the start of a new, empty file.
pub(super) fn write_parts<'a>(
    file: &File,
    parts: impl Iterator<Item = &'a [u8]>,
    total: usize,
) -> io::Result<()> {
    let mut output = Output {
        file,
        offset: 0,
        direct: total >= DIRECT_FROM && set_direct(file, true).is_ok(),
    };
    if !output.direct {
        return parts.into_iter().try_for_each(|part| output.write(part));
    }
    let mut memory = vec![0; BUFFER_BYTES.min(total) + 2 * ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let length = (memory.len() - start) / ALIGNMENT * ALIGNMENT;
    let buffer = &mut memory[start..start + length];
    let mut filled = 0;
    for mut part in parts {
        while !part.is_empty() {
            let take = part.len().min(length - filled);
            buffer[filled..filled + take].copy_from_slice(&part[..take]);
            filled += take;
            part = &part[take..];
            if filled == length {
                output.write(buffer)?;
                filled = 0;
            }
        }
    }
    let aligned = filled / ALIGNMENT * ALIGNMENT;
    output.write(&buffer[..aligned])?;
    output.buffered()?;
    output.write(&buffer[aligned..filled])
}

/// The bytes of a range, which ends within the file; an error if the file is shorter.
pub(super) fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length =
        usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    if length >= DIRECT_FROM && set_direct(file, true).is_ok() {
        let read = read_direct(file, &range, length);
        set_direct(file, false)?;
        // Whatever went wrong or came short, the usual way finds out what it is.
        if let Ok(bytes) = read {
            return Ok(bytes);
        }
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn read_direct(file: &File, range: &Range<u64>, length: usize) -> io::Result<Bytes> {
    let skip = (range.start % ALIGNMENT as u64) as usize;
    let whole = (skip + length).next_multiple_of(ALIGNMENT);
    let mut memory = vec![0; whole + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let mut filled = 0;
    while filled < skip + length {
        let at = range.start - skip as u64 + filled as u64;
        let count = file.read_at(&mut memory[start + filled..start + whole], at)?;
        filled += count;
        // A read that ends unaligned has met the end of the file.
        if count == 0 || (filled % ALIGNMENT != 0 && filled < skip + length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Bytes::from(memory).slice(start + skip..start + skip + length))
}

struct Output<'a> {
    file: &'a File,
    offset: u64,
    direct: bool,
}

impl Output<'_> {
    /// Some filesystems take the flag and refuse the write.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all_at(bytes, self.offset) {
            Err(error) if self.direct && is_refusal(&error) => {
                self.buffered()?;
                self.file.write_all_at(bytes, self.offset)?;
            }
            written => written?,
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn buffered(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.direct) {
            set_direct(self.file, false)?;
        }
        Ok(())
    }
}

fn is_refusal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn set_direct(file: &File, on: bool) -> rustix::io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    fcntl_setfl(file, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_into_parts_gives_the_same_file() {
        let whole: Vec<u8> = (0..9_500_001_u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        for total in [0, 1, 4095, 1 << 20, (1 << 20) + 1, 4 << 20, 9_500_001] {
            for cut in [1000, 4096, 1 << 20, 7_000_000] {
                let file = tempfile::tempfile().unwrap();
                write_parts(&file, whole[..total].chunks(cut), total).unwrap();
                let mut read = vec![0; total];
                file.read_exact_at(&mut read, 0).unwrap();
                assert!(read == whole[..total], "{total} in parts of {cut}");
                assert_eq!(file.metadata().unwrap().len(), total as u64);
                assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
            }
        }
    }

    #[test]
    fn any_range_reads_what_was_written() {
        let whole: Vec<u8> = (0..5_000_003_u32)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&whole, 0).unwrap();
        let long = DIRECT_FROM as u64;
        for start in [0, 1, 4095, 4096, 777_777] {
            for end in [start, start + 1, start + long, start + long + 1, 5_000_003] {
                let read = read_range(&file, start..end).unwrap();
                assert!(
                    read == whole[start as usize..end as usize],
                    "{start}..{end}"
                );
            }
            let beyond = read_range(&file, start..5_000_004).unwrap_err();
            assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
    }

    #[test]
    fn a_filesystem_that_refuses_gets_the_usual_writes() {
        // Most filesystems refuse an unaligned offset; those that do not (tmpfs, btrfs) must write it.
        let file = tempfile::tempfile().unwrap();
        let mut output = Output {
            file: &file,
            offset: 1,
            direct: set_direct(&file, true).is_ok(),
        };
        output.write(b"abc").unwrap();
        let mut read = [0; 4];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"\0abc");
    }
}
