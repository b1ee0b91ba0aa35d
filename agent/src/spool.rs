//! Lists of directory names still to be entered, in bounded memory.
//!
//! A walk holds one list per level, and reads them last in, first out: a level's list is complete
//! before a deeper one begins, and a deeper one is used up first. So long lists go, as one stack,
//! into an unlinked temporary file, and their room is used again once they are read.

use crate::temporary;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes of names that one list may keep in memory.
const LIST_BYTES: usize = 64 * 1024;
/// Bytes of names that all lists together may keep in memory.
const TOTAL_BYTES: usize = 4 * 1024 * 1024;
/// A record on disk: the length of the name, and the name.
const RECORD_BYTES: usize = 1 + 255;

/// The stack that lists spill to.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    file: Option<File>,
    end: u64,
    in_memory: usize,
    list_bytes: usize,
}

/// One level's names, in the order in which they were pushed.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    memory: Vec<u8>,
    position: usize,
    disk: Range<u64>,
    start: u64,
}

impl Spool {
    /// A stack whose file, if one is needed, lies in `directory`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            file: None,
            end: 0,
            in_memory: 0,
            list_bytes: LIST_BYTES,
        }
    }

    /// Begins a list; the one begun before it must be complete.
    pub(crate) fn begin(&self) -> Pending {
        Pending {
            disk: self.end..self.end,
            start: self.end,
            ..Pending::default()
        }
    }

    /// Adds a name of 1 to 255 bytes to the list begun last.
    pub(crate) fn push(&mut self, list: &mut Pending, name: &[u8]) -> io::Result<()> {
        let length = u8::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        list.memory.push(length);
        list.memory.extend_from_slice(name);
        self.in_memory += name.len() + 1;
        if list.memory.len() >= self.list_bytes || self.in_memory >= TOTAL_BYTES {
            self.spill(list)?;
        }
        Ok(())
    }

    /// Takes charge of a list that was gathered elsewhere; it is the one begun last, and complete.
    pub(crate) fn adopt(&mut self, list: &mut Pending) -> io::Result<()> {
        list.memory.drain(..list.position);
        list.position = 0;
        (list.disk, list.start) = (self.end..self.end, self.end);
        self.in_memory += list.memory.len();
        if list.memory.len() >= self.list_bytes || self.in_memory >= TOTAL_BYTES {
            self.spill(list)?;
        }
        Ok(())
    }

    /// Ends the list begun last.
    pub(crate) fn complete(&mut self, list: &mut Pending) -> io::Result<()> {
        if list.disk.is_empty() {
            list.memory.shrink_to_fit();
            Ok(())
        } else {
            self.spill(list)
        }
    }

    fn spill(&mut self, list: &mut Pending) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(temporary::file_in(&self.directory)?);
        }
        if let Some(file) = &self.file {
            file.write_all_at(&list.memory, self.end)?;
        }
        self.end += list.memory.len() as u64;
        self.in_memory -= list.memory.len();
        list.disk.end = self.end;
        list.memory = Vec::new();
        Ok(())
    }

    /// The next name of a list.
    pub(crate) fn pop(&self, list: &mut Pending) -> io::Result<Option<Vec<u8>>> {
        if !list.disk.is_empty() {
            let mut record = [0; RECORD_BYTES];
            let left = list.disk.end - list.disk.start;
            let take = left.min(RECORD_BYTES as u64) as usize;
            let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
            file.read_exact_at(&mut record[..take], list.disk.start)?;
            let length = usize::from(record[0]);
            let name = record.get(1..1 + length).unwrap_or_default().to_vec();
            list.disk.start += 1 + length as u64;
            return Ok(Some(name));
        }
        let Some(length) = list.memory.get(list.position) else {
            return Ok(None);
        };
        let from = list.position + 1;
        let name = list.memory[from..from + usize::from(*length)].to_vec();
        list.position = from + name.len();
        Ok(Some(name))
    }

    /// Ends a list that was read; it must be the one on top of the stack.
    pub(crate) fn discard(&mut self, list: Pending) {
        self.in_memory -= list.memory.len();
        self.end = list.start;
    }
}

impl Pending {
    /// Adds a name of 1 to 255 bytes to a list that the spool has not adopted yet.
    pub(crate) fn gather(&mut self, name: &[u8]) {
        self.memory.push(name.len() as u8);
        self.memory.extend_from_slice(name);
    }

    /// Whether every name was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.disk.is_empty() && self.position == self.memory.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_in_order_and_their_room_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path().to_owned());
        spool.list_bytes = 1000;
        let name = |level: usize, n: usize| format!("{level}-{n:0width$}", width = 1 + n % 200);
        let mut levels = Vec::new();
        for level in 0..20 {
            let count = if level % 3 == 0 { 3 } else { 500 };
            let names = (0..count).map(|n| name(level, n).into_bytes());
            // One is read before the next level begins, as a walk does.
            let list = if level % 2 == 0 {
                let mut list = spool.begin();
                names.for_each(|name| spool.push(&mut list, &name).unwrap());
                spool.complete(&mut list).unwrap();
                let first = spool.pop(&mut list).unwrap().unwrap();
                assert_eq!(first, name(level, 0).as_bytes());
                list
            } else {
                let mut list = Pending::default();
                names.for_each(|name| list.gather(&name));
                let first = spool.pop(&mut list).unwrap().unwrap();
                assert_eq!(first, name(level, 0).as_bytes());
                spool.adopt(&mut list).unwrap();
                list
            };
            levels.push((level, count, list));
        }
        assert!(spool.end > 100_000);
        while let Some((level, count, mut list)) = levels.pop() {
            for n in 1..count {
                let found = spool.pop(&mut list).unwrap().unwrap();
                assert_eq!(found, name(level, n).as_bytes());
            }
            assert!(list.is_empty());
            assert_eq!(spool.pop(&mut list).unwrap(), None);
            spool.discard(list);
        }
        assert_eq!((spool.end, spool.in_memory), (0, 0));
    }
}
