//! Where nodes end. The decision for an item depends on the boundary key, the level, the item's key
//! and the encoded size of the node before and after it: on nothing that follows.
//!
//! The chance to end grows with the cube of the node's size (a Weibull law of shape 4, as Dolt has
//! it), so sizes keep close to the target. All arithmetic is exact: floating point would make the
//! stored format depend on a mathematics library.

use crate::error::FormatError;
use crate::keys::Ids;

/// Sizes of nodes. They decide node ids: format version 1 has `DEFAULT` and nothing else; others are
/// for tests and measurements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeParams {
    leaf_target_bytes: u32,
    link_target_bytes: u32,
    max_bytes: u32,
}

impl TreeParams {
    /// The sizes of format version 1. Measured on a million entries of 250 bytes: 100 changes store a
    /// third of a megabyte (8 KiB for both: twice that), and a path has four nodes.
    pub const DEFAULT: Self = Self {
        leaf_target_bytes: 6 * 1024,
        link_target_bytes: 2 * 1024,
        max_bytes: 24 * 1024,
    };

    /// About how large leaves and nodes of links are, and the size that ends a node with the item that
    /// reaches it, in bytes; at least 16 and at most 24 KiB, so that no node is above `MAX_NODE_BYTES`.
    pub fn new(
        leaf_target_bytes: u32,
        link_target_bytes: u32,
        max_bytes: u32,
    ) -> Result<Self, FormatError> {
        let limits = [
            (leaf_target_bytes, max_bytes),
            (link_target_bytes, max_bytes),
            (max_bytes, Self::DEFAULT.max_bytes),
        ];
        for (found, limit) in limits {
            if !(16..=limit).contains(&found) {
                return Err(FormatError::Limit {
                    what: "size of a node",
                    found: u64::from(found),
                    limit: u64::from(limit),
                });
            }
        }
        Ok(Self {
            leaf_target_bytes,
            link_target_bytes,
            max_bytes,
        })
    }

    fn target(&self, level: u8) -> u32 {
        match level {
            0 => self.leaf_target_bytes,
            _ => self.link_target_bytes,
        }
    }
}

/// A node as it stands after an item was added to it.
pub(crate) struct Fill {
    pub level: u8,
    /// Items, the new one included.
    pub count: usize,
    /// Encoded bytes of the items without the new one.
    pub before: usize,
    /// And with it.
    pub after: usize,
}

/// Whether a node ends after its newest item. `key` is that item's key (of a list: its id); it is
/// extended and cut again, so that one buffer serves.
pub(crate) fn ends_node(ids: &Ids, params: &TreeParams, fill: &Fill, key: &mut Vec<u8>) -> bool {
    // A node of links with one child would let long keys grow a tower without an end.
    if fill.level > 0 && fill.count < 2 {
        return false;
    }
    if fill.after >= params.max_bytes as usize {
        return true;
    }
    let target = params.target(fill.level);
    // The chance is below 1/256 here: worth neither a hash nor a tiny node.
    if fill.after < target as usize / 4 {
        return false;
    }
    key.push(fill.level);
    let hash = blake3::keyed_hash(ids.boundary_key(), key);
    key.pop();
    let [a, b, c, d, ..] = *hash.as_bytes();
    let drawn = u128::from(u32::from_le_bytes([a, b, c, d]));
    // drawn / 2^32 < (after^4 - before^4) / target^4. Sizes are below 2^18 and targets below 2^15.
    let fourth = |size: usize| (size as u128).pow(4);
    drawn * fourth(target as usize) < (fourth(fill.after) - fourth(fill.before)) << 32
}
