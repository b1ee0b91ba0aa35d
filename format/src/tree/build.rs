//! Builds a tree from items in key order, one open node per level in memory.
//!
//! A node is closed as soon as it ends (`split`) and its link goes to the level above; at the end the
//! lowest level that has one node holds the root.

use super::node::{MAX_KEY_BYTES, MAX_LEVEL, MAX_VALUE_BYTES, OpenNode};
use super::split::{Fill, ends_node};
use super::{NodeSink, Root, TreeParams};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use crate::path::escape;

/// The open nodes of a tree that is being written.
pub(super) struct Levels<'a, K> {
    ids: &'a Ids,
    params: TreeParams,
    sink: &'a mut K,
    open: Vec<OpenNode>,
    /// Per level, the node of the old tree that was opened last. What is equal to it is not stored:
    /// a node ends with the last item of the old node that it repeats, while that is still open.
    old: Vec<Option<NodeId>>,
    /// The link of an unread subtree that was taken over last.
    taken_over: Option<NodeId>,
}

/// What `Levels::finish` came to.
pub(super) enum Finished {
    /// The tree is whole.
    Root(Root),
    /// The tree is a subtree of the old one that was never read; its root may have a single child, and
    /// then the root is below.
    TakenOver { id: NodeId, level: u8, count: u64 },
}

impl<'a, K: NodeSink> Levels<'a, K> {
    pub fn new(ids: &'a Ids, params: TreeParams, sink: &'a mut K) -> Self {
        Self {
            ids,
            params,
            sink,
            open: Vec::new(),
            old: Vec::new(),
            taken_over: None,
        }
    }

    /// Remembers that the old tree's node was opened.
    pub fn note_old(&mut self, level: u8, id: NodeId) {
        let level = usize::from(level);
        if self.old.len() <= level {
            self.old.resize(level + 1, None);
        }
        self.old[level] = Some(id);
    }

    /// Whether the next item starts a node at this level and at all below it.
    pub fn starts_node(&self, level: u8) -> bool {
        let levels = self.open.iter().take(usize::from(level) + 1);
        levels.into_iter().all(OpenNode::is_empty)
    }

    /// Adds an item. Keys ascend: the caller has checked that.
    pub fn push_item(&mut self, key: &[u8], value: &[u8]) -> Result<(), K::Error> {
        limit("key of a tree", key.len(), MAX_KEY_BYTES)?;
        limit("value of a tree", value.len(), MAX_VALUE_BYTES)?;
        self.reach(0)?;
        let node = &mut self.open[0];
        let before = node.size();
        node.push_item(key, value);
        self.end_if_due(0, before)
    }

    /// Takes over a whole subtree of the old tree; `starts_node(level)` holds.
    pub fn push_old(
        &mut self,
        level: u8,
        key: &[u8],
        id: NodeId,
        count: u64,
    ) -> Result<(), K::Error> {
        self.taken_over = Some(id);
        self.push_link(level, key, id, count)
    }

    fn push_link(&mut self, level: u8, key: &[u8], id: NodeId, count: u64) -> Result<(), K::Error> {
        let above = usize::from(level) + 1;
        self.reach(above)?;
        let node = &mut self.open[above];
        let before = node.size();
        node.push_link(key, &id, count);
        self.end_if_due(above, before)
    }

    /// Makes sure that there is an open node at this level.
    fn reach(&mut self, level: usize) -> Result<(), FormatError> {
        limit("level of a tree node", level, usize::from(MAX_LEVEL))?;
        while self.open.len() <= level {
            self.open.push(OpenNode::new(self.open.len() as u8));
        }
        Ok(())
    }

    fn end_if_due(&mut self, level: usize, before: usize) -> Result<(), K::Error> {
        let node = &mut self.open[level];
        let fill = Fill {
            level: node.level(),
            count: node.count(),
            before,
            after: node.size(),
        };
        match ends_node(self.ids, &self.params, &fill, node.last_key()) {
            true => self.close(level),
            false => Ok(()),
        }
    }

    /// Stores the open node of a level and links it.
    fn close(&mut self, level: usize) -> Result<(), K::Error> {
        let root = self.store(level)?;
        let key = self.open[level].first_key().to_vec();
        self.push_link(root.level, &key, root.id, root.count)
    }

    fn store(&mut self, level: usize) -> Result<Root, K::Error> {
        let node = &mut self.open[level];
        let count = node.total();
        let bytes = node.take_bytes();
        let id = self.ids.node(&bytes);
        if self.old.get(level) != Some(&Some(id)) {
            self.sink.store(id, bytes)?;
        }
        Ok(Root {
            id,
            level: level as u8,
            count,
        })
    }

    /// Closes what is open.
    pub fn finish(mut self) -> Result<Finished, K::Error> {
        if self.open.is_empty() {
            let root = Root::empty(self.ids);
            let bytes = OpenNode::new(0).take_bytes();
            self.sink.store(root.id, bytes)?;
            return Ok(Finished::Root(root));
        }
        let mut level = 0;
        // Closing a node may open a level above, so the top is looked up each time.
        while level + 1 < self.open.len() {
            if !self.open[level].is_empty() {
                self.close(level)?;
            }
            level += 1;
        }
        let top = &mut self.open[level];
        let only_link = top.last_link().filter(|_| top.count() == 1);
        let Some(id) = only_link else {
            return Ok(Finished::Root(self.store(level)?));
        };
        // One link: the level below has one node, which is whole, and no node of links but the last
        // of its level has a single child; so it is the root unless it was taken over unread.
        let count = top.total();
        let below = (level - 1) as u8;
        Ok(match self.taken_over == Some(id) {
            true => Finished::TakenOver {
                id,
                level: below,
                count,
            },
            false => Finished::Root(Root {
                id,
                level: below,
                count,
            }),
        })
    }
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<(), FormatError> {
    match found > limit {
        true => Err(FormatError::Limit {
            what,
            found: found as u64,
            limit: limit as u64,
        }),
        false => Ok(()),
    }
}

/// Builds a tree from its items.
pub struct TreeBuilder<'a, K> {
    levels: Levels<'a, K>,
    last: Option<Vec<u8>>,
}

impl<'a, K: NodeSink> TreeBuilder<'a, K> {
    /// A builder of a tree in format version 1.
    pub fn new(ids: &'a Ids, sink: &'a mut K) -> Self {
        Self::with_params(ids, TreeParams::DEFAULT, sink)
    }

    /// A builder with other node sizes.
    pub fn with_params(ids: &'a Ids, params: TreeParams, sink: &'a mut K) -> Self {
        Self {
            levels: Levels::new(ids, params, sink),
            last: None,
        }
    }

    /// Adds an item; its key is above every key before.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), K::Error> {
        match &mut self.last {
            Some(last) if key <= last.as_slice() => return Err(unsorted(key).into()),
            Some(last) => {
                last.clear();
                last.extend_from_slice(key);
            }
            None => self.last = Some(key.to_vec()),
        }
        self.levels.push_item(key, value)
    }

    /// Stores the last nodes. A tree without items has a node too.
    pub fn finish(self) -> Result<Root, K::Error> {
        Ok(match self.levels.finish()? {
            Finished::Root(root) => root,
            Finished::TakenOver { id, level, count } => Root { id, level, count },
        })
    }
}

pub(super) fn unsorted(key: &[u8]) -> FormatError {
    FormatError::Change {
        path: escape(key),
        rule: "not in key order, or repeated",
    }
}
