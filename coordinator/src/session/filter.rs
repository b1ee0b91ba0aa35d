//! What the catalog surely does not hold, without asking it: a Bloom filter over chunk and node ids.
//!
//! It never says "absent" of an id that was added, so a wrong answer costs one lookup and never a
//! chunk. It only speaks where it has seen every id of its catalog; else every id "may be" there.
//!
//! To ask the catalog about an id that it does not know costs about 10 µs, to read one that it knows
//! 0.8 µs. A run that changes little asks about few ids, and must not pay for all that were stored ever;
//! the first backup of a large volume asks about very many. So a catalog that was not empty at the start
//! is read once it has answered "absent" so often that reading it would have cost as much: the two
//! together cost at most twice the cheaper one.

use crate::catalog::Catalog;
use crate::error::Result;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// 8 MiB: below 1 % wrong up to 7 million ids, then slowly useless, never wrong the other way.
const WORDS: usize = 1 << 20;
/// Bits set per id.
const PROBES: usize = 6;
/// Ids beyond which it is not worth filling.
const MAX_IDS: u64 = 7_000_000;
/// Ids of the catalog that are read in the time that one "absent" of it takes.
const READ_PER_ANSWER: u64 = 12;
/// Answers before which nothing is read, however small the catalog is.
const MIN_ANSWERS: u64 = 2_000;
/// Ids that are read at a time.
const PAGE: u32 = 20_000;

/// Ids that may be in the catalog.
pub struct Filter {
    /// None until it is wanted: ids are added from then on.
    words: OnceLock<Vec<AtomicU64>>,
    /// It has seen every id.
    is_complete: AtomicBool,
    /// Ids that the catalog was asked about and did not know.
    absent: AtomicU64,
    /// After so many of them the catalog is read; `u64::MAX`: never.
    read_after: u64,
}

impl Filter {
    /// The filter of a catalog that has about so many ids; none: it is empty.
    pub fn new(ids: u64) -> Self {
        let read_after = match ids {
            0 | MAX_IDS.. => u64::MAX,
            ids => (ids / READ_PER_ANSWER).max(MIN_ANSWERS),
        };
        let filter = Self {
            words: OnceLock::new(),
            is_complete: AtomicBool::new(ids == 0),
            absent: AtomicU64::new(0),
            read_after,
        };
        if ids == 0 {
            filter.begin();
        }
        filter
    }

    /// Remembers an id. Called before the catalog can know it.
    pub fn add(&self, id: &[u8; 32]) {
        let Some(words) = self.words.get() else {
            return;
        };
        for bit in bits(id) {
            words[bit >> 6].fetch_or(1 << (bit & 63), Ordering::Relaxed);
        }
    }

    /// Whether the catalog may know the id.
    pub fn may_hold(&self, id: &[u8; 32]) -> bool {
        let words = self.words.get();
        let Some(words) = words.filter(|_| self.is_complete.load(Ordering::Acquire)) else {
            return true;
        };
        let is_set = |bit: usize| words[bit >> 6].load(Ordering::Relaxed) >> (bit & 63) & 1 == 1;
        bits(id).all(is_set)
    }

    /// The catalog did not know so many ids that it was asked about. Once, it is then time to fill the
    /// filter: `begin`, then add what the catalog is about to know, then `fill`.
    pub fn answered_absent(&self, count: u64) -> bool {
        let before = self.absent.fetch_add(count, Ordering::Relaxed);
        before < self.read_after && before + count >= self.read_after
    }

    /// From now on ids are added.
    pub fn begin(&self) {
        self.words
            .get_or_init(|| (0..WORDS).map(|_| AtomicU64::new(0)).collect());
    }

    /// Adds every id that the catalog knows, whatever the state of its pack; it speaks from then on.
    pub async fn fill(&self, catalog: &Catalog) -> Result<()> {
        let mut after = None;
        loop {
            let ids = catalog.ids(after.as_ref(), PAGE).await?;
            let Some(last) = ids.last() else { break };
            after = Some(*last);
            ids.iter().for_each(|id| self.add(id));
        }
        self.is_complete.store(true, Ordering::Release);
        Ok(())
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
    use crate::catalog::PackRow;
    use holdfast_format::frame::Codec;
    use holdfast_format::id::{CatalogId, DomainId, PackId, RepositoryId};
    use holdfast_format::pack::{ItemKind, PackFrame, PackItem};
    use holdfast_format::seal::ObjectKind;

    #[test]
    fn what_was_added_is_never_denied() {
        let filter = Filter::new(0);
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
    fn a_catalog_is_read_once_and_only_after_many_answers() {
        let filter = Filter::new(1_200_000);
        assert!(!filter.answered_absent(99_999));
        assert!(filter.answered_absent(1));
        assert!(!filter.answered_absent(1_000_000));
        assert!(!Filter::new(10).answered_absent(1_999));
        assert!(Filter::new(10).answered_absent(2_000));
        for never in [0, 8_000_000] {
            assert!(!Filter::new(never).answered_absent(u64::MAX / 2));
        }
    }

    #[tokio::test]
    async fn an_incomplete_filter_denies_nothing_and_a_filled_one_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let repository = RepositoryId::from_bytes([1; 16]);
        let catalog = Catalog::create(dir.path(), &repository, CatalogId::from_bytes([2; 16]));
        let catalog = catalog.await.unwrap();
        let id = |n: u64| *blake3_like(n);
        let item = |n: u64| PackItem {
            kind: ItemKind::Chunk,
            id: id(n),
            offset_in_frame: n as u32,
            length: 1,
        };
        let known = u64::from(PAGE) * 2 + 10;
        let frame = PackFrame {
            frame_no: 0,
            offset: 64,
            stored_length: 100,
            codec: Codec::Raw,
            plain_length: known as u32,
            items: (0..known).map(item).collect(),
        };
        let pack = PackRow {
            id: PackId::from_bytes([3; 32]),
            kind: ObjectKind::DataPack,
            domain: DomainId::from_bytes([4; 16]),
            generation: 1,
            master: 1,
            salt: [5; 32],
            size: 1000,
            received_ns: 1,
        };
        catalog.register_pack(&pack, &[frame], &[]).await.unwrap();
        let filter = Filter::new(known);
        filter.add(&id(known));
        assert!(filter.may_hold(&id(known + 1)), "it has seen nothing yet");
        filter.begin();
        filter.add(&id(known));
        assert!(
            filter.may_hold(&id(known + 1)),
            "it has not seen everything"
        );
        filter.fill(&catalog).await.unwrap();
        assert!((0..=known).all(|n| filter.may_hold(&id(n))));
        let wrong = (known + 1..known + 10_000).filter(|n| filter.may_hold(&id(*n)));
        assert!(wrong.count() < 50);
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
