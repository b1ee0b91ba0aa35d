//! What the catalog surely does not hold, without asking it: a Bloom filter over chunk and node ids.
//!
//! It never says "absent" of an id that was added, so a wrong answer costs one lookup and never a
//! chunk. It only speaks where it has seen every id of its catalog, from the first on; else every id
//! "may be" there.

use std::sync::atomic::{AtomicU64, Ordering};

/// 8 MiB: below 1 % wrong up to 7 million ids, then slowly useless, never wrong the other way.
const WORDS: usize = 1 << 20;
/// Bits set per id.
const PROBES: usize = 6;

/// Ids that may be in the catalog.
pub struct Filter {
    /// None where it has not seen every id.
    words: Option<Vec<AtomicU64>>,
}

impl Filter {
    /// An empty filter; `complete` when the catalog is empty too.
    pub fn new(complete: bool) -> Self {
        let words = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self {
            words: complete.then(words),
        }
    }

    /// Remembers an id. Called before the catalog can know it.
    pub fn add(&self, id: &[u8; 32]) {
        let Some(words) = &self.words else { return };
        for bit in bits(id) {
            words[bit >> 6].fetch_or(1 << (bit & 63), Ordering::Relaxed);
        }
    }

    /// Whether the catalog may know the id.
    pub fn may_hold(&self, id: &[u8; 32]) -> bool {
        let Some(words) = &self.words else {
            return true;
        };
        let is_set = |bit: usize| words[bit >> 6].load(Ordering::Relaxed) >> (bit & 63) & 1 == 1;
        bits(id).all(is_set)
    }
}

/// Ids are keyed hashes: their own bytes are as good as any hash of them.
fn bits(id: &[u8; 32]) -> impl Iterator<Item = usize> + '_ {
    id.chunks_exact(4).take(PROBES).map(|four| {
        let four = <[u8; 4]>::try_from(four).unwrap_or_default();
        u32::from_le_bytes(four) as usize & (WORDS * 64 - 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_never_denied() {
        let filter = Filter::new(true);
        let id = |n: u64| *blake3_like(n);
        for n in 0..50_000 {
            filter.add(&id(n));
        }
        assert!((0..50_000).all(|n| filter.may_hold(&id(n))));
        let wrong = (50_000..100_000)
            .filter(|n| filter.may_hold(&id(*n)))
            .count();
        assert!(wrong < 50, "{wrong}");
    }

    #[test]
    fn an_incomplete_filter_denies_nothing() {
        assert!(Filter::new(false).may_hold(&[9; 32]));
        assert!(!Filter::new(true).may_hold(&[9; 32]));
    }

    /// 32 well mixed bytes of a number.
    fn blake3_like(n: u64) -> Box<[u8; 32]> {
        let mut out = [0; 32];
        let mut x = n;
        for word in out.chunks_exact_mut(8) {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        Box::new(out)
    }
}
