//! Ids that a commit relies on, in the order they were proven: in memory while few, else in a file
//! without a name. Memory stays bounded whatever the number of chunks.

use crate::error::{Error, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ids kept in memory before they go to the file.
const IN_MEMORY: usize = 16 * 1024;
/// Ids read at once.
const READ_AHEAD: u64 = 8 * 1024;

/// A list of ids that only grows.
pub struct IdSpool {
    dir: PathBuf,
    ids: Vec<[u8; 32]>,
    file: Option<Arc<File>>,
    in_file: u64,
}

impl IdSpool {
    /// An empty list whose file would be in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            ids: Vec::new(),
            file: None,
            in_file: 0,
        }
    }

    /// Adds an id. Writes half a MiB to the page cache every 16,384 ids, which is short enough for
    /// any thread.
    pub fn push(&mut self, id: [u8; 32]) -> Result<()> {
        self.ids.push(id);
        if self.ids.len() < IN_MEMORY {
            return Ok(());
        }
        let failed = |source| {
            Error::io(
                format!("write a spool file in {}", self.dir.display()),
                source,
            )
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => self
                .file
                .insert(Arc::new(tempfile::tempfile_in(&self.dir).map_err(failed)?)),
        };
        file.write_all_at(self.ids.as_flattened(), self.in_file * 32)
            .map_err(failed)?;
        self.in_file += self.ids.len() as u64;
        self.ids.clear();
        Ok(())
    }

    /// The ids as often as they are wanted. Should the file fail, they end early and `Ids::failed`
    /// says so afterwards.
    pub fn ids(&self) -> Ids {
        Ids {
            file: self.file.clone(),
            in_file: self.in_file,
            next: 0,
            rest: self.ids.clone().into(),
            buffer: Vec::new(),
            at: 0,
            failed: Arc::default(),
        }
    }
}

/// The ids of a spool.
#[derive(Clone)]
pub struct Ids {
    file: Option<Arc<File>>,
    in_file: u64,
    next: u64,
    rest: Arc<[[u8; 32]]>,
    buffer: Vec<[u8; 32]>,
    at: usize,
    failed: Arc<AtomicBool>,
}

impl Ids {
    /// Whether reading failed, for any clone of this reader.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let count = (self.in_file - self.next).min(READ_AHEAD);
        self.buffer.clear();
        self.buffer.resize(count as usize, [0; 32]);
        file.read_exact_at(self.buffer.as_flattened_mut(), self.next * 32)?;
        self.next += count;
        self.at = 0;
        Ok(())
    }
}

impl Iterator for Ids {
    type Item = [u8; 32];
    fn next(&mut self) -> Option<[u8; 32]> {
        if self.at == self.buffer.len() && self.next < self.in_file && self.fill().is_err() {
            self.failed.store(true, Ordering::Release);
            (self.next, self.rest) = (self.in_file, Arc::default());
            self.buffer.clear();
            self.at = 0;
            return None;
        }
        if let Some(id) = self.buffer.get(self.at) {
            self.at += 1;
            return Some(*id);
        }
        // The file is read out: its buffer gives way to what was in memory.
        if self.rest.is_empty() {
            return None;
        }
        self.buffer = std::mem::take(&mut self.rest).to_vec();
        self.at = 1;
        self.buffer.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, IN_MEMORY - 1, IN_MEMORY, IN_MEMORY * 2 + 5] {
            let id = |n: usize| {
                let mut id = [7; 32];
                id[..8].copy_from_slice(&n.to_le_bytes());
                id
            };
            let mut spool = IdSpool::new(dir.path().into());
            (0..count).for_each(|n| spool.push(id(n)).unwrap());
            let wanted: Vec<_> = (0..count).map(id).collect();
            let ids = spool.ids();
            assert_eq!(ids.clone().collect::<Vec<_>>(), wanted);
            assert_eq!(ids.clone().collect::<Vec<_>>(), wanted);
            assert!(!ids.failed());
        }
    }
}
