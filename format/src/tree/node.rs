//! Bytes of a node, and a reader of them that never panics and allocates one key at a time.
//!
//! ```text
//! node  = 0x54, level (u8), items (varint), item …
//! item  = shared (varint), rest (varint), rest bytes of the key, then
//!         level 0: value length (varint), value
//!         above:   id of the child (32 bytes), items in its whole subtree (varint)
//! ```
//! `shared` is the length of the longest common prefix with the key before it in the node. Keys
//! ascend strictly; a link's key is the first key of its child. Only the empty tree has no items.

use crate::coding::{Reader, put_bytes, put_varint};
use crate::entry::MAX_ENTRY_BYTES;
use crate::error::FormatError;
use crate::id::NodeId;
use crate::path::MAX_PATH_BYTES;
use bytes::Bytes;

/// Longest key, in bytes: that of the longest path.
pub const MAX_KEY_BYTES: usize = MAX_PATH_BYTES + 2;
/// Longest value, in bytes: that of the longest entry.
pub const MAX_VALUE_BYTES: usize = MAX_ENTRY_BYTES;
/// Largest node, in bytes: one below the size at which nodes end, and one largest item.
pub const MAX_NODE_BYTES: usize = 128 * 1024;
/// Highest level of a node; each level at least halves the number of nodes.
pub const MAX_LEVEL: u8 = 48;

const TAG: u8 = 0x54;
const NODE: &str = "tree node";
/// The one node of the tree without items.
pub(super) const EMPTY: [u8; 3] = [TAG, 0, 0];

/// A node that is being filled.
#[derive(Debug)]
pub(super) struct OpenNode {
    level: u8,
    body: Vec<u8>,
    count: usize,
    total: u64,
    first: Vec<u8>,
    last: Vec<u8>,
    newest: Option<NodeId>,
}

impl OpenNode {
    pub fn new(level: u8) -> Self {
        Self {
            level,
            body: Vec::new(),
            count: 0,
            total: 0,
            first: Vec::new(),
            last: Vec::new(),
            newest: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Items in this node.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Items in its whole subtree.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn level(&self) -> u8 {
        self.level
    }

    pub fn first_key(&self) -> &[u8] {
        &self.first
    }

    /// The newest key, as a buffer for `ends_node`.
    pub fn last_key(&mut self) -> &mut Vec<u8> {
        &mut self.last
    }

    /// Encoded bytes of its items.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Adds an item to a leaf. The caller has checked order and limits.
    pub fn push_item(&mut self, key: &[u8], value: &[u8]) {
        self.push_key(key);
        put_bytes(&mut self.body, value);
        self.total += 1;
    }

    /// Adds a link to a node of links.
    pub fn push_link(&mut self, key: &[u8], id: &NodeId, count: u64) {
        self.push_key(key);
        self.body.extend_from_slice(id.as_bytes());
        put_varint(&mut self.body, count);
        self.total += count;
        self.newest = Some(*id);
    }

    fn push_key(&mut self, key: &[u8]) {
        let shared = match self.count {
            0 => {
                self.first.clear();
                self.first.extend_from_slice(key);
                self.last.clear();
                0
            }
            _ => common_prefix(&self.last, key),
        };
        put_varint(&mut self.body, shared as u64);
        put_bytes(&mut self.body, &key[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&key[shared..]);
        self.count += 1;
    }

    /// The child of the newest link.
    pub fn last_link(&self) -> Option<NodeId> {
        self.newest
    }

    /// The bytes of the node; it is empty again, and keeps the keys of what it held.
    pub fn take_bytes(&mut self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.body.len() + 8);
        bytes.extend_from_slice(&[TAG, self.level]);
        put_varint(&mut bytes, self.count as u64);
        bytes.extend_from_slice(&self.body);
        self.body.clear();
        self.count = 0;
        self.total = 0;
        bytes.into()
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a
        .chunks_exact(8)
        .zip(b.chunks_exact(8))
        .take_while(|(x, y)| x == y)
        .count()
        * 8;
    let rest = a[words..].iter().zip(&b[words..]);
    words + rest.take_while(|(x, y)| x == y).count()
}

/// A checked node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    bytes: Bytes,
    level: u8,
    count: usize,
    total: u64,
    body: usize,
}

/// What a parent promises of a node, or its place in the tree.
#[derive(Debug, Default)]
pub(super) struct Promise<'a> {
    pub level: Option<u8>,
    pub first: Option<&'a [u8]>,
    /// Every key is below this one.
    pub below: Option<&'a [u8]>,
    pub total: Option<u64>,
}

impl Node {
    /// The node with these bytes, if they are one and keep the promise.
    pub fn decode(bytes: Bytes, promise: &Promise<'_>) -> Result<Self, FormatError> {
        if bytes.len() > MAX_NODE_BYTES {
            return Err(FormatError::Limit {
                what: NODE,
                found: bytes.len() as u64,
                limit: MAX_NODE_BYTES as u64,
            });
        }
        let mut reader = Reader::new(NODE, &bytes);
        if reader.u8()? != TAG {
            return Err(reader.wrong("not a tree node"));
        }
        let level = reader.u8()?;
        if level > MAX_LEVEL {
            return Err(reader.wrong("level too high"));
        }
        if promise.level.is_some_and(|promised| promised != level) {
            return Err(reader.wrong("level is not the one its parent promises"));
        }
        let count = reader.count("items of a tree node", MAX_NODE_BYTES)?;
        if count == 0 && (level > 0 || promise.level.is_some()) {
            return Err(reader.wrong("node without items"));
        }
        let mut node = Self {
            level,
            count,
            total: 0,
            body: reader.position(),
            bytes: bytes.clone(),
        };
        node.check_items(promise)?;
        Ok(node)
    }

    fn check_items(&mut self, promise: &Promise<'_>) -> Result<(), FormatError> {
        let mut items = self.items();
        let wrong = |rule| FormatError::Decode {
            what: NODE,
            rule,
            offset: self.body,
        };
        let mut total = 0u64;
        let mut first = true;
        while items.advance()? {
            if first && promise.first.is_some_and(|key| key != items.key()) {
                return Err(wrong("first key is not the one its parent promises"));
            }
            first = false;
            total = total
                .checked_add(items.count())
                .ok_or_else(|| wrong("number of items overflows"))?;
        }
        if items.at != self.bytes.len() {
            return Err(wrong("bytes after the end"));
        }
        if promise.below.is_some_and(|below| items.key() >= below) {
            return Err(wrong("key beyond the range its parent promises"));
        }
        if promise.total.is_some_and(|promised| promised != total) {
            return Err(wrong("number of items is not the one its parent promises"));
        }
        self.total = total;
        Ok(())
    }

    pub fn level(&self) -> u8 {
        self.level
    }

    /// Items in this node.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Items in its whole subtree.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A reader before the first item.
    pub fn items(&self) -> Items {
        Items {
            bytes: self.bytes.clone(),
            level: self.level,
            at: self.body,
            left: self.count,
            started: false,
            key: Vec::new(),
            payload: Payload::Value { start: 0, end: 0 },
        }
    }
}

/// Reads the items of a node in order, with one key in memory.
#[derive(Clone, Debug)]
pub(super) struct Items {
    bytes: Bytes,
    level: u8,
    at: usize,
    left: usize,
    started: bool,
    key: Vec<u8>,
    payload: Payload,
}

/// What stands beside a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload {
    /// Where the value lies in the node.
    Value { start: usize, end: usize },
    /// The child and the items in its subtree.
    Link { id: NodeId, count: u64 },
}

impl Items {
    /// Moves to the next item; false after the last.
    pub fn advance(&mut self) -> Result<bool, FormatError> {
        if self.left == 0 {
            return Ok(false);
        }
        let base = self.at;
        let mut reader = Reader::new(NODE, &self.bytes[base..]);
        let shared = reader.count("shared part of a key", MAX_KEY_BYTES)?;
        let rest = reader.bytes("rest of a key", MAX_KEY_BYTES)?;
        if shared > self.key.len() || shared + rest.len() > MAX_KEY_BYTES {
            return Err(reader.wrong("key longer than possible"));
        }
        if self.started {
            // The longest common prefix: what follows it differs, and is larger.
            match (self.key.get(shared), rest.first()) {
                (None, Some(_)) => {}
                (Some(before), Some(here)) if before < here => {}
                _ => return Err(reader.wrong("keys do not ascend, or share more than they say")),
            }
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
        self.payload = if self.level == 0 {
            let length = reader.count("value in a tree node", MAX_VALUE_BYTES)?;
            let start = base + reader.position();
            reader.take(length)?;
            Payload::Value {
                start,
                end: start + length,
            }
        } else {
            let id = NodeId::from_bytes(reader.array()?);
            let count = reader.varint()?;
            if count == 0 {
                return Err(reader.wrong("link to an empty node"));
            }
            Payload::Link { id, count }
        };
        self.at = base + reader.position();
        self.left -= 1;
        self.started = true;
        Ok(true)
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }

    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// The bytes of a value, without a copy.
    pub fn slice(&self, start: usize, end: usize) -> Bytes {
        self.bytes.slice(start..end)
    }

    /// Items it stands for.
    fn count(&self) -> u64 {
        match self.payload {
            Payload::Value { .. } => 1,
            Payload::Link { count, .. } => count,
        }
    }
}

/// See `tree::fuzz_one`.
pub(super) fn fuzz_one(data: &[u8]) {
    let Ok(node) = Node::decode(Bytes::copy_from_slice(data), &Promise::default()) else {
        return;
    };
    let mut again = OpenNode::new(node.level());
    let mut items = node.items();
    while items.advance().unwrap_or(false) {
        match items.payload() {
            Payload::Value { start, end } => again.push_item(items.key(), &data[start..end]),
            Payload::Link { id, count } => again.push_link(items.key(), &id, count),
        }
    }
    assert_eq!(again.take_bytes(), data, "a node with two encodings");
}
