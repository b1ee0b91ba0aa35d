//! Which chunks this run has sent or knows to be held, bounded in memory.
//!
//! Frames leave in the order of the work that made them. A chunk may be left out only when work that
//! leaves earlier (or this one) ships it, so each id remembers the earliest work that took it on; a
//! later finder skips it, an earlier one ships it a second time, which is rare and harmless.

use holdfast_format::id::ChunkId;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ids in one generation of a shard; two generations are kept.
const PER_SHARD: usize = 14_000;
const SHARDS: usize = 16;

/// The ids of a run.
#[derive(Debug)]
pub struct Sent {
    shards: Vec<Mutex<Shard>>,
    per_shard: usize,
}

#[derive(Debug, Default)]
struct Shard {
    young: Map,
    old: Map,
    forgot: bool,
}

type Map = HashMap<ChunkId, u64, Prefix>;

/// Chunk ids are keyed hashes: their first bytes are a hash already.
#[derive(Debug, Default, Clone)]
struct Prefix;

#[derive(Debug, Default)]
struct PrefixHasher(u64);

impl BuildHasher for Prefix {
    type Hasher = PrefixHasher;
    fn build_hasher(&self) -> PrefixHasher {
        PrefixHasher(0)
    }
}

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*head);
        }
    }
    fn write_usize(&mut self, _length: usize) {}
}

impl Default for Sent {
    fn default() -> Self {
        Self::with_capacity(PER_SHARD)
    }
}

impl Sent {
    fn with_capacity(per_shard: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            per_shard,
        }
    }

    /// Whether the work of this number must ship the chunk; it has taken it on then.
    pub fn claim(&self, id: &ChunkId, number: u64) -> bool {
        let mut shard = self.shard(id);
        if shard.young.len() >= self.per_shard {
            let young = std::mem::take(&mut shard.young);
            shard.forgot |= !shard.old.is_empty();
            shard.old = young;
        }
        let earlier = match shard.young.get(id) {
            Some(by) => Some(*by),
            None => shard.old.get(id).copied(),
        };
        match earlier {
            Some(by) if by <= number => false,
            _ => {
                shard.young.insert(*id, number);
                true
            }
        }
    }

    /// Whether ids have been forgotten: an unknown id may have been sent all the same.
    pub fn has_forgotten(&self) -> bool {
        self.shards
            .iter()
            .any(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).forgot)
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, Shard> {
        // The last byte: the first ones choose the place within the shard.
        let at = usize::from(id.as_bytes()[31]) % SHARDS;
        // The map is consistent after every call on it; a panic elsewhere does not spoil it.
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> ChunkId {
        ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn the_earliest_work_ships() {
        let sent = Sent::default();
        assert!(sent.claim(&id(1), 5));
        assert!(!sent.claim(&id(1), 5));
        assert!(!sent.claim(&id(1), 9));
        assert!(sent.claim(&id(1), 3));
        assert!(!sent.claim(&id(1), 4));
    }

    #[test]
    fn memory_is_bounded_and_forgetting_is_said() {
        let sent = Sent::with_capacity(64);
        for n in 0..10_000 {
            assert!(sent.claim(&id(n), 0));
        }
        assert!(sent.has_forgotten());
        let kept: usize = sent
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock().unwrap();
                shard.young.len() + shard.old.len()
            })
            .sum();
        assert!(kept <= 2 * 64 * SHARDS);
        assert!(!sent.claim(&id(9_999), 1));
    }
}
