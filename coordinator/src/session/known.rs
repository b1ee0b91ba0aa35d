//! The chunks that a session has proven lately, with their lengths: it sent them, or the catalog said
//! that its volume holds them. Bounded; what falls out is registered by then, and asked of the catalog
//! again.

use crate::error::Result;
use crate::session::spool::{IdSpool, Ids};
use holdfast_format::id::{ChunkId, NodeId};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

/// At least this many of the latest ids are remembered, at most twice as many. More than the items
/// of all packs that can be open or on their way, so an id falls out only after it is registered.
pub const GENERATION: usize = 128 * 1024;

/// Stands for the length of a node: no chunk is empty.
const NODE: u32 = 0;

/// What a session may refer to, and what its commit will rely on.
pub struct Proven {
    known: Known,
    relied: IdSpool,
}

impl Proven {
    /// Nothing; the list of ids goes to a file in `dir` when it grows.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            known: Known::default(),
            relied: IdSpool::new(dir),
        }
    }

    /// The length of a chunk that was proven lately, in bytes.
    pub fn length(&self, chunk: &ChunkId) -> Option<u32> {
        self.known
            .get(chunk.as_bytes())
            .filter(|length| *length != NODE)
    }

    /// The session may refer to a chunk of this length.
    pub fn insert(&mut self, chunk: &ChunkId, length: u32) -> Result<()> {
        self.add(chunk.as_bytes(), length)
    }

    /// The commit relies on a node. No entry may name it as a chunk.
    pub fn rely_on(&mut self, node: &NodeId) -> Result<()> {
        self.add(node.as_bytes(), NODE)
    }

    fn add(&mut self, id: &[u8; 32], length: u32) -> Result<()> {
        if self.known.get(id).is_some() {
            return Ok(());
        }
        self.known.insert(id, length);
        self.relied.push(*id)
    }

    /// Everything that was proven.
    pub fn relied(&self) -> Ids {
        self.relied.ids()
    }
}

/// The latest ids, in two generations.
#[derive(Default)]
struct Known {
    young: HashMap<Short, u32>,
    old: HashMap<Short, u32>,
}

impl Known {
    /// Remembers an id and its length.
    fn insert(&mut self, id: &[u8; 32], length: u32) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Short::of(id), length);
    }

    /// The length of an id that is remembered.
    fn get(&self, id: &[u8; 32]) -> Option<u32> {
        let id = Short::of(id);
        let found = self.young.get(&id).or_else(|| self.old.get(&id));
        found.copied()
    }
}

/// Half of the id: to pass for another chunk, one would need a second preimage of 128 bits. Bytes, not
/// a number, so that a length beside them costs four bytes and not sixteen.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Short([u8; 16]);

impl Short {
    fn of(id: &[u8; 32]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&id[..16]);
        Self(half)
    }
}

impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_le_bytes(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> [u8; 32] {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_le_bytes());
        id
    }

    #[test]
    fn the_latest_generation_is_always_remembered() {
        let mut known = Known::default();
        let total = GENERATION * 3 + 17;
        for n in 0..total {
            known.insert(&id(n), n as u32);
        }
        assert!((total - GENERATION..total).all(|n| known.get(&id(n)) == Some(n as u32)));
        assert_eq!(known.get(&id(0)), None);
        assert!(known.young.len() + known.old.len() <= GENERATION * 2);
    }

    #[test]
    fn a_node_is_no_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let mut proven = Proven::new(dir.path().to_owned());
        proven.rely_on(&NodeId::from_bytes(id(1))).unwrap();
        proven.insert(&ChunkId::from_bytes(id(2)), 7).unwrap();
        assert_eq!(proven.length(&ChunkId::from_bytes(id(1))), None);
        assert_eq!(proven.length(&ChunkId::from_bytes(id(2))), Some(7));
        assert_eq!(proven.relied().count(), 2);
    }
}
