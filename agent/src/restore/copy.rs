//! Copies ranges between two files of the target, by the kernel where it can (a reflink on btrfs and
//! xfs), holes staying holes.

use crate::beneath::{Errno, Result};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The errno of an error of the standard library.
pub fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Copies the data of a range to the same place of another file; holes stay holes.
pub fn copy_range(from: &File, to: &File, start: u64, end: u64) -> Result<()> {
    let mut at = start;
    while at < end {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            Err(Errno::NXIO) => return Ok(()),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno),
        };
        let hole = match rustix::fs::seek(from, SeekFrom::Hole(data)) {
            Ok(hole) if hole > data => hole.min(end),
            _ => end,
        };
        copy_data(from, to, data, hole)?;
        at = hole;
    }
    Ok(())
}

fn copy_data(from: &File, to: &File, start: u64, end: u64) -> Result<()> {
    let (mut source, mut sink) = (start, start);
    while source < end {
        let length = usize::try_from(end - source)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut sink), length) {
            Ok(0) => return Err(Errno::IO), // Shorter than it was when it was compared.
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return copy_by_hand(from, to, source, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    while at < end {
        let length = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = &mut buffer[..length];
        from.read_exact_at(part, at)
            .map_err(|error| errno_of(&error))?;
        to.write_all_at(part, at)
            .map_err(|error| errno_of(&error))?;
        at += length as u64;
    }
    Ok(())
}

/// Writes zeros where the filesystem cannot punch a hole.
pub fn write_zeros(file: &File, mut at: u64, end: u64) -> Result<()> {
    let zeros = vec![0; 256 * 1024];
    while at < end {
        let length = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        file.write_all_at(&zeros[..length], at)
            .map_err(|error| errno_of(&error))?;
        at += length as u64;
    }
    Ok(())
}
