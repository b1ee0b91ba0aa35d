//! The chunks that a session has proven lately: it sent them, or the catalog said that its volume
//! holds them. Bounded; what falls out is registered by then, and asked of the catalog again.

use crate::error::Result;
use crate::session::spool::{IdSpool, Ids};
use std::collections::HashSet;
use std::path::PathBuf;

/// At least this many of the latest ids are remembered, at most twice as many. More than the items
/// of all packs that can be open or on their way, so an id falls out only after it is registered.
pub const GENERATION: usize = 128 * 1024;

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

    /// Whether the id was proven lately.
    pub fn contains(&self, id: &[u8; 32]) -> bool {
        self.known.contains(id)
    }

    /// The session may refer to the id.
    pub fn insert(&mut self, id: &[u8; 32]) -> Result<()> {
        if self.known.contains(id) {
            return Ok(());
        }
        self.known.insert(id);
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
    young: HashSet<u128>,
    old: HashSet<u128>,
}

impl Known {
    /// Remembers an id.
    fn insert(&mut self, id: &[u8; 32]) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(short(id));
    }

    /// Whether the id is remembered.
    fn contains(&self, id: &[u8; 32]) -> bool {
        let id = short(id);
        self.young.contains(&id) || self.old.contains(&id)
    }
}

/// Half of the id: to pass for another chunk, one would need a second preimage of 128 bits.
fn short(id: &[u8; 32]) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&id[..16]);
    u128::from_le_bytes(half)
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
            known.insert(&id(n));
        }
        assert!((total - GENERATION..total).all(|n| known.contains(&id(n))));
        assert!(!known.contains(&id(0)));
        assert!(known.young.len() + known.old.len() <= GENERATION * 2);
    }
}
