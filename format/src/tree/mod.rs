//! A persistent sorted map of bytes to bytes whose root id depends on its items alone, never on how it
//! came to hold them: the same items give the same nodes, built at once or by any row of edits.
//!
//! It is a B-tree whose nodes end where a keyed hash of an item's key says so (a prolly tree). Whether
//! a node ends after an item depends only on the items since the node's start, so an edit disturbs
//! the nodes around it and their ancestors, and equal runs of items are equal nodes that `edit` and
//! `diff` step over unread. Everything here streams: memory is bounded by the height of the tree.
//!
//! Nodes are plain bytes here; a `NodeSource` loads them and a `NodeSink` stores them. A loaded node is
//! hashed and checked in full against its parent's promise before anything of it is used.

mod apply;
mod build;
mod cursor;
mod diff;
mod edit;
mod foresee;
mod memory;
mod node;
pub(crate) mod split;
mod walk;

pub use apply::{Applier, Edits, apply};
pub use build::TreeBuilder;
pub use cursor::{Cursor, Lookup, LossyCursor, Scanned, get};
pub use diff::{DiffItem, diff};
pub use edit::{Edit, Edited, edit, edit_with};
pub use foresee::foresee;
pub use memory::MemoryNodes;
pub use node::{MAX_KEY_BYTES, MAX_LEVEL, MAX_NODE_BYTES, MAX_VALUE_BYTES};
pub use split::TreeParams;

use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use bytes::Bytes;

/// Where nodes are read from.
pub trait NodeSource {
    /// What may go wrong; a node that breaks a rule is a `FormatError`.
    type Error: From<FormatError>;

    /// The plain bytes of a node. The caller re-hashes them.
    fn load(&self, id: &NodeId) -> Result<Bytes, Self::Error>;

    /// These nodes are likely to be loaded soon: a source that can find many at once does so now.
    fn expect(&self, _ids: &[NodeId]) {}
}

/// Where new nodes go. A node may be stored again, and always comes after its children.
pub trait NodeSink {
    /// What may go wrong; an item that breaks a rule is a `FormatError`.
    type Error: From<FormatError>;

    /// Keeps the plain bytes of a node.
    fn store(&mut self, id: NodeId, bytes: Bytes) -> Result<(), Self::Error>;
}

impl<S: NodeSource + ?Sized> NodeSource for &S {
    type Error = S::Error;

    fn load(&self, id: &NodeId) -> Result<Bytes, Self::Error> {
        (**self).load(id)
    }

    fn expect(&self, ids: &[NodeId]) {
        (**self).expect(ids);
    }
}

/// The root of a tree. The id alone names the tree; the rest stands in its nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// The root node.
    pub id: NodeId,
    /// Its height; leaves are 0.
    pub level: u8,
    /// Items in the whole tree.
    pub count: u64,
}

impl Root {
    /// The tree without items. Its one node need not be in any source: every reader knows it.
    pub fn empty(ids: &Ids) -> Self {
        Self {
            id: ids.node(&node::EMPTY),
            level: 0,
            count: 0,
        }
    }

    /// The root with this id, its level and count read from its node.
    pub fn load<S: NodeSource>(ids: &Ids, source: &S, id: &NodeId) -> Result<Self, S::Error> {
        let node = walk::load_root(ids, source, id)?;
        Ok(Self {
            id: *id,
            level: node.level(),
            count: node.total(),
        })
    }
}

/// The smallest key above every key with this prefix; `None` where there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

/// Decodes any bytes as a node; what decodes must be the one encoding of what it says.
pub fn fuzz_one(data: &[u8]) {
    node::fuzz_one(data);
}

#[cfg(test)]
mod tests;
