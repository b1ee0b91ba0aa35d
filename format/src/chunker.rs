//! Content-defined cut points: FastCDC v2020 with a gear table derived from the domain's id key.
//!
//! Where a chunk ends depends on the table, the profile, the place it starts and at most
//! `max_bytes` bytes from there; nothing else.

use crate::error::FormatError;
use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use std::fmt;
use std::sync::Arc;

/// How content is cut; its number is stored with each content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Number of the profile in the format.
    pub number: u8,
    /// Smallest chunk in bytes, but for the last of a run of data.
    pub min_bytes: u32,
    /// Size aimed at, in bytes.
    pub avg_bytes: u32,
    /// Largest chunk in bytes.
    pub max_bytes: u32,
}

/// Every profile of format version 1.
pub const PROFILES: [Profile; 3] = [
    profile(1, 8, 32, 128),
    profile(2, 4, 16, 64),
    profile(3, 16, 64, 256),
];

/// The largest chunk of any profile, in bytes; also the cap for a chunk that is read.
pub const MAX_CHUNK_BYTES: u32 = 256 * 1024;

const fn profile(number: u8, min: u32, avg: u32, max: u32) -> Profile {
    Profile {
        number,
        min_bytes: min * 1024,
        avg_bytes: avg * 1024,
        max_bytes: max * 1024,
    }
}

impl Profile {
    /// The profile with this number.
    pub fn by_number(number: u8) -> Result<Self, FormatError> {
        PROFILES
            .into_iter()
            .find(|profile| profile.number == number)
            .ok_or_else(|| FormatError::Unsupported {
                what: "chunking profile",
                found: number.to_string(),
            })
    }

    /// The strict and the relaxed mask of FastCDC at normalisation level 2.
    fn masks(&self) -> (u64, u64) {
        select_masks(self.avg_bytes as usize, Normalization::Level2)
    }
}

/// 256 secret numbers, one per byte value, and the same shifted left by one.
#[derive(Clone)]
pub struct GearTable(Arc<(Vec<u64>, Vec<u64>)>);

impl fmt::Debug for GearTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GearTable(secret)")
    }
}

impl GearTable {
    /// The table whose entries are the first 256 numbers of the stream that can stand in one.
    ///
    /// A number can stand in a table when a run of its byte never makes a cut point by itself: with
    /// h(k) = number × (2^k − 1) mod 2^64, the hash of k equal bytes from zero, no h(1..=64) passes
    /// a mask of any profile. Otherwise a chunk whose minimum ends in zero padding is cut right
    /// there, the next as well when pages have a fixed size, and the cuts never fall in step again
    /// after an inserted byte.
    pub fn from_stream(mut next: impl FnMut() -> u64) -> Self {
        let masks: Vec<u64> = PROFILES
            .iter()
            .flat_map(|profile| <[u64; 2]>::from(profile.masks()))
            .collect();
        let mut gear = Vec::with_capacity(256);
        while gear.len() < 256 {
            let number = next();
            let mut hash = 0u64;
            let usable = (0..64).all(|_| {
                hash = (hash << 1).wrapping_add(number);
                masks.iter().all(|mask| hash & mask != 0)
            });
            if usable {
                gear.push(number);
            }
        }
        let shifted = gear.iter().map(|number| number << 1).collect();
        Self(Arc::new((gear, shifted)))
    }
}

/// Cuts bytes into chunks; cheap to clone, shared between threads.
#[derive(Clone, Debug)]
pub struct Chunker {
    profile: Profile,
    gear: GearTable,
    masks: (u64, u64),
}

impl Chunker {
    /// A chunker of this profile over a domain's table.
    pub fn new(profile: Profile, gear: GearTable) -> Self {
        Self {
            masks: profile.masks(),
            profile,
            gear,
        }
    }

    /// Its profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Length of the first chunk of `bytes`, which either are at least `max_bytes` long or reach to
    /// the end of the run of data. 0 only for no bytes.
    pub fn first_chunk(&self, bytes: &[u8]) -> usize {
        let (strict, relaxed) = self.masks;
        let (_, length) = cut_gear(
            bytes,
            self.profile.min_bytes as usize,
            self.profile.avg_bytes as usize,
            self.profile.max_bytes as usize,
            strict,
            relaxed,
            strict << 1,
            relaxed << 1,
            &self.gear.0.0,
            &self.gear.0.1,
        );
        length
    }

    /// All chunks of a whole run of data, without the hole rule: for xattr values.
    pub fn chunks<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let (chunk, after) = rest.split_at(self.first_chunk(rest));
            rest = after;
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}
