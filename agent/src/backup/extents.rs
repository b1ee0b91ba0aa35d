//! The extents of one file, however many: beyond a bound they lie in an unnamed temporary file.
//!
//! They are held back until the file is read to its end, because only then is it known whether the
//! content is that of the parent, and a file that moves is read again from its start.

use crate::error::{Error, Result};
use crate::temporary;
use holdfast_format::entry::Extent;
use holdfast_format::id::ChunkId;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

/// Extents kept in memory.
const KEPT: usize = 16 * 1024;
/// Bytes of an extent in the file: id (zeros for a hole), then the length.
const STORED_BYTES: usize = 40;

/// A list of extents, pushed once and read once.
#[derive(Debug)]
pub struct Extents {
    directory: Arc<Path>,
    kept: Vec<Extent>,
    spilled: Option<File>,
    spilled_count: u64,
}

impl Extents {
    /// None; a file, if there must be one, lies in `directory`.
    pub fn new(directory: Arc<Path>) -> Self {
        Self {
            directory,
            kept: Vec::new(),
            spilled: None,
            spilled_count: 0,
        }
    }

    /// What was `in_memory` of another list.
    pub fn of_kept(kept: Vec<Extent>) -> Self {
        Self {
            kept,
            // Nothing is pushed to it, so nothing spills.
            ..Self::new(Path::new("").into())
        }
    }

    /// Adds one at the end.
    pub fn push(&mut self, extent: Extent) -> Result<()> {
        if self.kept.len() == KEPT {
            self.spill()?;
        }
        self.kept.push(extent);
        Ok(())
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::new(self.directory.clone());
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.spilled_count + self.kept.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// All of them, when they are few enough to lie in memory.
    pub fn in_memory(&self) -> Option<&[Extent]> {
        self.spilled.is_none().then_some(self.kept.as_slice())
    }

    /// Gives them in order, at most `at_once` together.
    pub fn for_each(
        mut self,
        at_once: usize,
        mut give: impl FnMut(Vec<Extent>) -> Result<()>,
    ) -> Result<()> {
        if let Some(mut file) = self.spilled.take() {
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            let mut reader = BufReader::with_capacity(256 * 1024, file);
            let mut left = self.spilled_count;
            while left > 0 {
                let count = left.min(at_once as u64);
                let mut some = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    let mut stored = [0; STORED_BYTES];
                    reader.read_exact(&mut stored).map_err(failed)?;
                    some.push(decode(&stored));
                }
                left -= count;
                give(some)?;
            }
        }
        for some in self.kept.chunks(at_once) {
            give(some.to_vec())?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let mut stored = Vec::with_capacity(self.kept.len() * STORED_BYTES);
        for extent in &self.kept {
            let (id, length) = match extent {
                Extent::Chunk { id, length } => (*id.as_bytes(), u64::from(*length)),
                Extent::Hole { length } => ([0; 32], *length),
            };
            stored.extend_from_slice(&id);
            stored.extend_from_slice(&length.to_le_bytes());
        }
        let file = match &mut self.spilled {
            Some(file) => file,
            None => {
                let file = temporary::file_in(&self.directory).map_err(failed)?;
                self.spilled.insert(file)
            }
        };
        file.write_all(&stored).map_err(failed)?;
        self.spilled_count += self.kept.len() as u64;
        self.kept.clear();
        Ok(())
    }
}

fn decode(stored: &[u8; STORED_BYTES]) -> Extent {
    let mut id = [0; 32];
    id.copy_from_slice(&stored[..32]);
    let mut length = [0; 8];
    length.copy_from_slice(&stored[32..]);
    let length = u64::from_le_bytes(length);
    // No chunk has an id of zeros: it would be a hash that nobody can find.
    if id == [0; 32] {
        Extent::Hole { length }
    } else {
        Extent::Chunk {
            id: ChunkId::from_bytes(id),
            length: length as u32,
        }
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::Io {
        what: "keep a long list of chunks in a temporary file",
        path: String::new(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_comes_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for count in [0, 1, KEPT, KEPT + 1, 3 * KEPT + 7] {
            let all: Vec<Extent> = (0..count as u64)
                .map(|n| match n % 5 {
                    0 => Extent::Hole { length: 4096 + n },
                    _ => Extent::Chunk {
                        id: ChunkId::from_bytes([n as u8 | 1; 32]),
                        length: n as u32 + 1,
                    },
                })
                .collect();
            let mut extents = Extents::new(directory.path().into());
            for extent in &all {
                extents.push(*extent).unwrap();
            }
            assert_eq!(extents.count(), count as u64);
            let mut back = Vec::new();
            extents
                .for_each(1000, |some| {
                    assert!(some.len() <= 1000);
                    back.extend(some);
                    Ok(())
                })
                .unwrap();
            assert!(back == all);
        }
    }
}
