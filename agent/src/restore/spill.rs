//! Bounded-memory stores of a running restore: a stack of records and a set of hashes, both of which
//! keep their end in memory and the rest in an unnamed temporary file.
//!
//! The file is made only when there is more than fits; it vanishes with the process, also when killed.

use crate::temporary;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a `RecordStack` kept in memory before older ones are written out.
const TAIL_BYTES: usize = 1 << 20;
/// Records of a `HashRuns` kept in memory before they are written out as a sorted run.
const RUN_RECORDS: usize = 256 * 1024;
/// Records between two fences of a run that is on disk.
const FENCE_RECORDS: usize = 256;
const RECORD_BYTES: usize = 16;

/// Records that are appended, read from any position, and cut off from the end.
pub struct RecordStack {
    directory: Arc<Path>,
    file: Option<File>,
    /// Position of the first byte of `tail`.
    tail_start: u64,
    tail: Vec<u8>,
}

impl RecordStack {
    /// No records; the file, if there must be one, lies in `directory`.
    pub fn new(directory: &Arc<Path>) -> Self {
        Self {
            directory: directory.clone(),
            file: None,
            tail_start: 0,
            tail: Vec::new(),
        }
    }

    /// The position one past the last record.
    pub fn end(&self) -> u64 {
        self.tail_start + self.tail.len() as u64
    }

    /// Appends a record (below 4 GiB).
    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "record too long"))?;
        self.tail.extend_from_slice(&length.to_le_bytes());
        self.tail.extend_from_slice(record);
        if self.tail.len() > TAIL_BYTES {
            let file = match self.file.take() {
                Some(file) => file,
                None => temporary::file_in(&self.directory)?,
            };
            let written = file.write_all_at(&self.tail, self.tail_start);
            self.file = Some(file);
            written?;
            self.tail_start = self.end();
            self.tail.clear();
        }
        Ok(())
    }

    /// The record at `position`, and the position after it.
    pub fn read(&self, position: u64) -> io::Result<(Vec<u8>, u64)> {
        let mut length = [0; 4];
        self.read_bytes(position, &mut length)?;
        let mut record = vec![0; u32::from_le_bytes(length) as usize];
        self.read_bytes(position + 4, &mut record)?;
        let next = position + 4 + record.len() as u64;
        Ok((record, next))
    }

    fn read_bytes(&self, position: u64, out: &mut [u8]) -> io::Result<()> {
        if let Some(offset) = position.checked_sub(self.tail_start) {
            // Records never straddle: the tail is written out whole.
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let bytes = offset
                .checked_add(out.len())
                .and_then(|end| self.tail.get(offset..end))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            return Ok(());
        }
        match &self.file {
            Some(file) => file.read_exact_at(out, position),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Forgets everything from `position` on.
    pub fn truncate(&mut self, position: u64) {
        match position.checked_sub(self.tail_start) {
            Some(offset) => self
                .tail
                .truncate(usize::try_from(offset).unwrap_or(usize::MAX)),
            None => {
                self.tail.clear();
                self.tail_start = position;
            }
        }
    }
}

struct Run {
    start: u64,
    records: usize,
    fences: Vec<u64>,
}

/// A map from byte strings to `u64`, by a 64-bit keyed hash that nobody outside can aim at: two
/// strings share a value with a probability of 2⁻⁶⁴ per pair.
pub struct HashRuns {
    directory: Arc<Path>,
    keys: RandomState,
    recent: HashMap<u64, u64>,
    file: Option<File>,
    file_bytes: u64,
    runs: Vec<Run>,
}

impl HashRuns {
    /// An empty map; its file, if there must be one, lies in `directory`.
    pub fn new(directory: &Arc<Path>) -> Self {
        Self {
            directory: directory.clone(),
            keys: RandomState::new(),
            recent: HashMap::new(),
            file: None,
            file_bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Remembers `value` for `key`.
    pub fn insert(&mut self, key: &[u8], value: u64) -> io::Result<()> {
        self.recent.insert(self.keys.hash_one(key), value);
        if self.recent.len() >= RUN_RECORDS {
            self.write_run()?;
        }
        Ok(())
    }

    fn write_run(&mut self) -> io::Result<()> {
        let mut records: Vec<_> = self.recent.drain().collect();
        records.sort_unstable();
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|(hash, value)| {
                let mut record = [0; RECORD_BYTES];
                record[..8].copy_from_slice(&hash.to_le_bytes());
                record[8..].copy_from_slice(&value.to_le_bytes());
                record
            })
            .collect();
        let file = match self.file.take() {
            Some(file) => file,
            None => temporary::file_in(&self.directory)?,
        };
        let written = file.write_all_at(&bytes, self.file_bytes);
        self.file = Some(file);
        written?;
        self.runs.push(Run {
            start: self.file_bytes,
            records: records.len(),
            fences: records.iter().step_by(FENCE_RECORDS).map(|r| r.0).collect(),
        });
        self.file_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The value remembered for `key`, the latest where there were several.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<u64>> {
        let hash = self.keys.hash_one(key);
        if let Some(value) = self.recent.get(&hash) {
            return Ok(Some(*value));
        }
        let Some(file) = &self.file else {
            return Ok(None);
        };
        for run in self.runs.iter().rev() {
            let block = run.fences.partition_point(|fence| *fence <= hash);
            let Some(block) = block.checked_sub(1) else {
                continue;
            };
            let first = block * FENCE_RECORDS;
            let count = FENCE_RECORDS.min(run.records - first);
            let mut bytes = vec![0; count * RECORD_BYTES];
            file.read_exact_at(&mut bytes, run.start + (first * RECORD_BYTES) as u64)?;
            let found = bytes
                .chunks_exact(RECORD_BYTES)
                .find(|record| record[..8] == hash.to_le_bytes());
            if let Some(record) = found {
                let mut value = [0; 8];
                value.copy_from_slice(&record[8..]);
                return Ok(Some(u64::from_le_bytes(value)));
            }
        }
        Ok(None)
    }

    /// Whether a value was remembered for `key`.
    pub fn contains(&self, key: &[u8]) -> io::Result<bool> {
        Ok(self.get(key)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_records_reads_back_across_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut stack = RecordStack::new(&directory.path().into());
        let record = |n: u32| vec![n as u8; 100 + (n % 7) as usize];
        let mut positions = Vec::new();
        for n in 0..50_000 {
            positions.push(stack.end());
            stack.push(&record(n)).unwrap();
        }
        assert!(stack.tail_start > 0, "nothing was written out");
        for n in [0u32, 1, 9_999, 49_999] {
            let (bytes, next) = stack.read(positions[n as usize]).unwrap();
            assert_eq!(bytes, record(n));
            let end = stack.end();
            assert_eq!(next, *positions.get(n as usize + 1).unwrap_or(&end));
        }
        stack.truncate(positions[10]);
        assert_eq!(stack.end(), positions[10]);
        stack.push(b"after").unwrap();
        assert_eq!(stack.read(positions[10]).unwrap().0, b"after");
        assert_eq!(stack.read(positions[9]).unwrap().0, record(9));
        assert!(stack.read(stack.end()).is_err());
    }

    #[test]
    fn hashes_are_found_in_memory_and_in_runs() {
        let directory = tempfile::tempdir().unwrap();
        let mut runs = HashRuns::new(&directory.path().into());
        let total = RUN_RECORDS as u64 * 2 + 1000;
        for n in 0..total {
            runs.insert(&n.to_le_bytes(), n).unwrap();
        }
        assert_eq!(runs.runs.len(), 2);
        for n in (0..total).step_by(1777).chain([total - 1]) {
            assert_eq!(runs.get(&n.to_le_bytes()).unwrap(), Some(n));
        }
        for n in total..total + 500 {
            assert!(!runs.contains(&n.to_le_bytes()).unwrap());
        }
    }
}
