//! A position in a tree that moves forward and opens subtrees only when told to: what cursors, `edit`
//! and `diff` are made of. One node per level is in memory.

use super::NodeSource;
use super::node::{EMPTY, Items, MAX_NODE_BYTES, Node, Payload, Promise};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use bytes::Bytes;

/// Loads a root; the empty tree's is known without a source.
pub(super) fn load_root<S: NodeSource>(
    ids: &Ids,
    source: &S,
    id: &NodeId,
) -> Result<Node, S::Error> {
    if ids.node(&EMPTY) == *id {
        return Ok(Node::decode(
            Bytes::from_static(&EMPTY),
            &Promise::default(),
        )?);
    }
    load_node(ids, source, id, &Promise::default())
}

/// Loads a node and checks that it is the one its id names and its parent promises.
pub(super) fn load_node<S: NodeSource>(
    ids: &Ids,
    source: &S,
    id: &NodeId,
    promise: &Promise<'_>,
) -> Result<Node, S::Error> {
    let bytes = source.load(id)?;
    if bytes.len() > MAX_NODE_BYTES || ids.node(&bytes) != *id {
        return Err(FormatError::NodeMismatch(*id).into());
    }
    Ok(Node::decode(bytes, promise)?)
}

/// What a walker stands at.
#[derive(Debug)]
pub(super) enum Head {
    /// The root, not opened yet.
    Root,
    /// A subtree, not opened yet; its height is the level of its root.
    Link { id: NodeId, level: u8, count: u64 },
    /// An item.
    Item { value: Bytes },
    /// Nothing is left.
    End,
}

/// One opened node: the current item, and for nodes of links the one after it, whose key is where the
/// current child's range ends.
#[derive(Debug)]
struct Frame {
    level: u8,
    key: Vec<u8>,
    payload: Payload,
    ahead: Items,
    more: bool,
}

impl Frame {
    /// `None` where the node has no items.
    fn new(node: &Node) -> Result<Option<Self>, FormatError> {
        let mut frame = Self {
            level: node.level(),
            key: Vec::new(),
            payload: Payload::Value { start: 0, end: 0 },
            ahead: node.items(),
            more: false,
        };
        frame.more = frame.ahead.advance()?;
        Ok(frame.step()?.then_some(frame))
    }

    /// Moves to the next item; false after the last.
    fn step(&mut self) -> Result<bool, FormatError> {
        if !self.more {
            return Ok(false);
        }
        self.key.clear();
        self.key.extend_from_slice(self.ahead.key());
        self.payload = self.ahead.payload();
        self.more = self.ahead.advance()?;
        Ok(true)
    }
}

pub(super) struct Walker<'a, S> {
    ids: &'a Ids,
    source: &'a S,
    root: NodeId,
    opened: bool,
    frames: Vec<Frame>,
}

impl<'a, S: NodeSource> Walker<'a, S> {
    pub fn new(ids: &'a Ids, source: &'a S, root: &NodeId) -> Self {
        Self {
            ids,
            source,
            root: *root,
            opened: false,
            frames: Vec::new(),
        }
    }

    pub fn head(&self) -> Head {
        match self.frames.last() {
            None if self.opened => Head::End,
            None => Head::Root,
            Some(frame) => match frame.payload {
                Payload::Link { id, count } => Head::Link {
                    id,
                    level: frame.level.saturating_sub(1),
                    count,
                },
                Payload::Value { start, end } => Head::Item {
                    value: frame.ahead.slice(start, end),
                },
            },
        }
    }

    /// First key of the head; empty at the root and at the end.
    pub fn key(&self) -> &[u8] {
        self.frames.last().map_or(&[], |frame| &frame.key)
    }

    /// Every key of the head is below this one; `None` where nothing follows.
    pub fn upper(&self) -> Option<&[u8]> {
        let frames = self.frames.iter().rev();
        frames
            .filter(|frame| frame.more)
            .map(|frame| frame.ahead.key())
            .next()
    }

    /// Opens the head, a root or link: its first item is the head then. Returns the node's id and
    /// level. After an error the head stands where it was, and may be skipped.
    pub fn enter(&mut self) -> Result<Option<(NodeId, u8)>, S::Error> {
        let (id, node) = match self.head() {
            Head::Root => (self.root, load_root(self.ids, self.source, &self.root)?),
            Head::Link { id, level, count } => {
                let promise = Promise {
                    level: Some(level),
                    first: Some(self.key()),
                    below: self.upper(),
                    total: Some(count),
                };
                (id, load_node(self.ids, self.source, &id, &promise)?)
            }
            Head::Item { .. } | Head::End => return Ok(None),
        };
        self.opened = true;
        // Only the root may be without items, and then the walk is at its end.
        self.frames.extend(Frame::new(&node)?);
        Ok(Some((id, node.level())))
    }

    /// Moves past the head, opened or not.
    pub fn skip(&mut self) -> Result<(), FormatError> {
        self.opened = true;
        while let Some(frame) = self.frames.last_mut() {
            if frame.step()? {
                return Ok(());
            }
            self.frames.pop();
        }
        Ok(())
    }
}
