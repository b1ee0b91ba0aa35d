//! Counters of one run. All bytes are plain bytes unless said.

use crate::coding::{Reader, put_varint};
use crate::error::FormatError;

/// Counters of one run, as a snapshot record keeps them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks, FIFOs, sockets, devices.
    pub others: u64,
    /// Sum of the sizes of regular files.
    pub content_bytes: u64,
    /// Files whose bytes were read.
    pub files_read: u64,
    /// Bytes read from files.
    pub read_bytes: u64,
    /// Puts and Removes sent.
    pub entries_changed: u64,
    /// Chunks that the repository did not hold.
    pub new_chunks: u64,
    /// Their plain bytes.
    pub new_chunk_bytes: u64,
    /// Bytes of packs that the run added to the store.
    pub stored_bytes: u64,
    /// Bytes read again only to find them unchanged.
    pub reread_unchanged_bytes: u64,
    /// Problems.
    pub problems: u64,
    /// Payload bytes sent.
    pub wire_bytes: u64,
}

/// Counters in version 1.
const COUNT: usize = 13;

impl Stats {
    /// The counters in stored order.
    pub fn counters(&self) -> [u64; COUNT] {
        [
            self.files,
            self.directories,
            self.others,
            self.content_bytes,
            self.files_read,
            self.read_bytes,
            self.entries_changed,
            self.new_chunks,
            self.new_chunk_bytes,
            self.stored_bytes,
            self.reread_unchanged_bytes,
            self.problems,
            self.wire_bytes,
        ]
    }

    /// The counters in stored order, to be filled in.
    pub fn counters_mut(&mut self) -> [&mut u64; COUNT] {
        [
            &mut self.files,
            &mut self.directories,
            &mut self.others,
            &mut self.content_bytes,
            &mut self.files_read,
            &mut self.read_bytes,
            &mut self.entries_changed,
            &mut self.new_chunks,
            &mut self.new_chunk_bytes,
            &mut self.stored_bytes,
            &mut self.reread_unchanged_bytes,
            &mut self.problems,
            &mut self.wire_bytes,
        ]
    }

    /// Appends the number of counters and the counters.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, COUNT as u64);
        self.counters()
            .iter()
            .for_each(|value| put_varint(out, *value));
    }

    /// Reads what `encode` appended.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        if reader.varint()? != COUNT as u64 {
            return Err(reader.wrong("not thirteen counters"));
        }
        let mut stats = Self::default();
        for counter in stats.counters_mut() {
            *counter = reader.varint()?;
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_keeps_its_place() {
        let mut stats = Stats::default();
        for (index, counter) in stats.counters_mut().into_iter().enumerate() {
            *counter = 1000 * index as u64 + 7;
        }
        let expected: Vec<u64> = (0..13).map(|index| 1000 * index + 7).collect();
        assert_eq!(stats.counters().to_vec(), expected);
        let mut bytes = Vec::new();
        stats.encode(&mut bytes);
        let mut reader = Reader::new("stats", &bytes);
        assert_eq!(Stats::decode(&mut reader).unwrap(), stats);
        reader.finish().unwrap();
    }
}
