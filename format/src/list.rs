//! Long contents as trees of extents: equal rows of extents have equal roots.
//!
//! Up to 64 extents stay in the entry; more become a list. Nodes end by a keyed hash of an item's id
//! (of a chunk, or of a child), as those of the entries tree do by their keys, so a changed run of a
//! file changes the nodes around it and their ancestors. Links carry the bytes of file below them: any
//! offset is found with one node per level. Building and reading stream, one node per level in memory.
//!
//! ```text
//! node  = 0x4c, level (u8), items (varint), item …
//! item  = level 0: an extent (`codec::put_extent`)
//!         above:   bytes of file below (varint), id of the child (32 bytes)
//! ```

use crate::codec::{put_extent, read_extent};
use crate::coding::{Reader, put_varint};
use crate::entry::{Content, Extent, MAX_FILE_BYTES, MAX_INLINE_EXTENTS};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use crate::tree::split::{Fill, ends_node};
use crate::tree::{MAX_LEVEL, MAX_NODE_BYTES, NodeSink, NodeSource, TreeParams};
use bytes::Bytes;

const TAG: u8 = 0x4c;
const NODE: &str = "list node";
/// Makes a content of extents that come in the order of the file.
pub struct ListBuilder<'a, K> {
    ids: &'a Ids,
    params: TreeParams,
    sink: &'a mut K,
    profile: u8,
    /// All extents while they may stay in the entry, then none.
    first: Vec<Extent>,
    open: Vec<OpenNode>,
    bytes: u64,
    after_hole: bool,
    scratch: Vec<u8>,
}

#[derive(Default)]
struct OpenNode {
    body: Vec<u8>,
    count: usize,
    bytes: u64,
    newest: Option<NodeId>,
}

impl<'a, K: NodeSink> ListBuilder<'a, K> {
    /// A builder of a content that was cut by this chunking profile.
    pub fn new(ids: &'a Ids, sink: &'a mut K, profile: u8) -> Self {
        Self::with_params(ids, TreeParams::DEFAULT, sink, profile)
    }

    /// A builder with other node sizes; format version 1 has `TreeParams::DEFAULT` only.
    pub fn with_params(ids: &'a Ids, params: TreeParams, sink: &'a mut K, profile: u8) -> Self {
        Self {
            ids,
            params,
            sink,
            profile,
            first: Vec::new(),
            open: Vec::new(),
            bytes: 0,
            after_hole: false,
            scratch: Vec::new(),
        }
    }

    /// Bytes of file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds an extent: not empty, and no hole right after a hole, which would be one longer hole.
    pub fn push(&mut self, extent: &Extent) -> Result<(), K::Error> {
        let is_hole = matches!(extent, Extent::Hole { .. });
        let wrong = |rule| FormatError::Entry {
            path: String::new(),
            rule,
        };
        if extent.length() == 0 {
            return Err(wrong("empty extent").into());
        }
        if is_hole && self.after_hole {
            return Err(wrong("hole after a hole").into());
        }
        let bytes = self.bytes.checked_add(extent.length());
        self.bytes = bytes
            .filter(|bytes| *bytes <= MAX_FILE_BYTES)
            .ok_or_else(|| wrong("size above 2^63 - 1"))?;
        self.after_hole = is_hole;
        if self.open.is_empty() {
            if self.first.len() < MAX_INLINE_EXTENTS {
                self.first.push(*extent);
                return Ok(());
            }
            for extent in std::mem::take(&mut self.first) {
                self.add(&extent)?;
            }
        }
        self.add(extent)
    }

    /// Stores the last nodes, and gives the content and its size.
    pub fn finish(mut self) -> Result<(Content, u64), K::Error> {
        let profile = self.profile;
        if self.open.is_empty() {
            let content = match self.first.is_empty() {
                true => Content::Empty,
                false => Content::Extents {
                    profile,
                    extents: self.first,
                },
            };
            return Ok((content, self.bytes));
        }
        let mut level = 0;
        // Closing a node may open a level above, so the top is looked up each time.
        while level + 1 < self.open.len() {
            if self.open[level].count > 0 {
                self.close(level)?;
            }
            level += 1;
        }
        // One link: the level below has one node, which is whole, and that is the root.
        let top = &self.open[level];
        let (root, level) = match top.newest.filter(|_| top.count == 1) {
            Some(child) => (child, level - 1),
            None => (self.store(level)?.0, level),
        };
        let content = Content::List {
            profile,
            root,
            level: level as u8,
        };
        Ok((content, self.bytes))
    }

    fn add(&mut self, extent: &Extent) -> Result<(), K::Error> {
        if self.open.is_empty() {
            self.open.push(OpenNode::default());
        }
        let node = &mut self.open[0];
        let before = node.body.len();
        put_extent(&mut node.body, extent);
        self.scratch.clear();
        match extent {
            Extent::Chunk { id, .. } => self.scratch.extend_from_slice(id.as_bytes()),
            Extent::Hole { length } => self.scratch.extend_from_slice(&length.to_le_bytes()),
        }
        self.added(0, before, extent.length())
    }

    fn added(&mut self, level: usize, before: usize, bytes: u64) -> Result<(), K::Error> {
        let node = &mut self.open[level];
        node.count += 1;
        node.bytes += bytes;
        let fill = Fill {
            level: level as u8,
            count: node.count,
            before,
            after: node.body.len(),
        };
        match ends_node(self.ids, &self.params, &fill, &mut self.scratch) {
            true => self.close(level),
            false => Ok(()),
        }
    }

    fn close(&mut self, level: usize) -> Result<(), K::Error> {
        let (id, bytes) = self.store(level)?;
        let above = level + 1;
        if self.open.len() == above {
            if above > usize::from(MAX_LEVEL) {
                return Err(FormatError::Limit {
                    what: "level of a list node",
                    found: above as u64,
                    limit: u64::from(MAX_LEVEL),
                }
                .into());
            }
            self.open.push(OpenNode::default());
        }
        let node = &mut self.open[above];
        let before = node.body.len();
        put_varint(&mut node.body, bytes);
        node.body.extend_from_slice(id.as_bytes());
        node.newest = Some(id);
        self.scratch.clear();
        self.scratch.extend_from_slice(id.as_bytes());
        self.added(above, before, bytes)
    }

    fn store(&mut self, level: usize) -> Result<(NodeId, u64), K::Error> {
        let node = std::mem::take(&mut self.open[level]);
        let mut bytes = Vec::with_capacity(node.body.len() + 8);
        bytes.extend_from_slice(&[TAG, level as u8]);
        put_varint(&mut bytes, node.count as u64);
        bytes.extend_from_slice(&node.body);
        let id = self.ids.node(&bytes);
        self.sink.store(id, bytes.into())?;
        Ok((id, node.bytes))
    }
}

/// A node that is being read. Its items have been checked in full.
struct Node {
    level: u8,
    bytes: Bytes,
    at: usize,
    left: usize,
    /// Offset in the file of the next item.
    offset: u64,
}

enum Item {
    Extent(Extent),
    Link { id: NodeId, length: u64 },
}

impl Item {
    fn length(&self) -> u64 {
        match self {
            Item::Extent(extent) => extent.length(),
            Item::Link { length, .. } => *length,
        }
    }
}

impl Node {
    /// The node with these bytes, if it has this level and these bytes of file.
    fn decode(bytes: Bytes, promise: Option<(u8, u64)>, offset: u64) -> Result<Self, FormatError> {
        if bytes.len() > MAX_NODE_BYTES {
            return Err(FormatError::Limit {
                what: NODE,
                found: bytes.len() as u64,
                limit: MAX_NODE_BYTES as u64,
            });
        }
        let mut reader = Reader::new(NODE, &bytes);
        if reader.u8()? != TAG {
            return Err(reader.wrong("not a list node"));
        }
        let level = reader.u8()?;
        if level > MAX_LEVEL || promise.is_some_and(|(promised, _)| promised != level) {
            return Err(reader.wrong("level is not the one promised"));
        }
        let left = reader.count("items of a list node", MAX_NODE_BYTES)?;
        let (at, mut total, mut after_hole) = (reader.position(), 0u64, false);
        for _ in 0..left {
            let item = read_item(&mut reader, level)?;
            let is_hole = matches!(item, Item::Extent(Extent::Hole { .. }));
            if is_hole && after_hole {
                return Err(reader.wrong("hole after a hole"));
            }
            after_hole = is_hole;
            total = total
                .checked_add(item.length())
                .filter(|total| *total <= MAX_FILE_BYTES)
                .ok_or_else(|| reader.wrong("size above 2^63 - 1"))?;
        }
        if left == 0 {
            return Err(reader.wrong("node without items"));
        }
        if promise.is_some_and(|(_, promised)| promised != total) {
            return Err(reader.wrong("size is not the one promised"));
        }
        reader.finish()?;
        Ok(Self {
            level,
            bytes,
            at,
            left,
            offset,
        })
    }

    /// The next item and its offset in the file.
    fn next(&mut self) -> Result<Option<(u64, Item)>, FormatError> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut reader = Reader::new(NODE, &self.bytes[self.at..]);
        let item = read_item(&mut reader, self.level)?;
        self.at += reader.position();
        self.left -= 1;
        let offset = self.offset;
        self.offset += item.length();
        Ok(Some((offset, item)))
    }
}

fn read_item(reader: &mut Reader<'_>, level: u8) -> Result<Item, FormatError> {
    if level == 0 {
        return read_extent(reader).map(Item::Extent);
    }
    let length = reader.varint()?;
    if length == 0 {
        return Err(reader.wrong("link to an empty node"));
    }
    let id = NodeId::from_bytes(reader.array()?);
    Ok(Item::Link { id, length })
}

/// The extents of a content in the order of the file, each with its offset, from any offset on.
pub struct ListCursor<'a, S> {
    ids: &'a Ids,
    source: &'a S,
    /// What is in the entry, and what of it comes next.
    extents: &'a [Extent],
    next: usize,
    offset: u64,
    root: Option<(NodeId, u8)>,
    size: u64,
    path: Vec<Node>,
    /// Extents that end at or before this offset are not wanted.
    from: u64,
    done: bool,
}

impl<'a, S: NodeSource> ListCursor<'a, S> {
    /// The extents of a content of so many bytes. Inline bytes are no extents, and give none.
    pub fn new(ids: &'a Ids, source: &'a S, content: &'a Content, size: u64) -> Self {
        let (extents, root) = match content {
            Content::Empty | Content::Inline(_) => (&[][..], None),
            Content::Extents { extents, .. } => (&extents[..], None),
            Content::List { root, level, .. } => (&[][..], Some((*root, *level))),
        };
        Self {
            ids,
            source,
            extents,
            next: 0,
            offset: 0,
            root,
            size,
            path: Vec::new(),
            from: 0,
            done: false,
        }
    }

    /// Goes to the extent that holds this byte of the file; beyond the end nothing follows.
    pub fn seek(&mut self, offset: u64) {
        self.next = 0;
        self.offset = 0;
        self.path.clear();
        self.from = offset;
        self.done = false;
    }

    fn step(&mut self) -> Result<Option<(u64, Extent)>, S::Error> {
        let Some((root, level)) = self.root else {
            while let Some(extent) = self.extents.get(self.next) {
                let offset = self.offset;
                self.next += 1;
                self.offset += extent.length();
                if self.offset > self.from {
                    return Ok(Some((offset, *extent)));
                }
            }
            return Ok(None);
        };
        if self.path.is_empty() && self.from < self.size {
            let node = self.load(&root, level, self.size, 0)?;
            self.path.push(node);
        }
        while let Some(node) = self.path.last_mut() {
            let (level, item) = (node.level, node.next()?);
            match item {
                None => {
                    self.path.pop();
                }
                Some((offset, item)) if offset + item.length() <= self.from => {}
                Some((offset, Item::Extent(extent))) => return Ok(Some((offset, extent))),
                Some((offset, Item::Link { id, length })) => {
                    let child = self.load(&id, level - 1, length, offset)?;
                    self.path.push(child);
                }
            }
        }
        Ok(None)
    }

    fn load(&self, id: &NodeId, level: u8, length: u64, offset: u64) -> Result<Node, S::Error> {
        let bytes = self.source.load(id)?;
        if bytes.len() > MAX_NODE_BYTES || self.ids.node(&bytes) != *id {
            return Err(FormatError::NodeMismatch(*id).into());
        }
        Ok(Node::decode(bytes, Some((level, length)), offset)?)
    }
}

impl<S: NodeSource> Iterator for ListCursor<'_, S> {
    type Item = Result<(u64, Extent), S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        // After an error, and after the end, only `seek` makes it go on.
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

/// Calls `visit` with every node of a content's list and its level, parents first; nothing where the
/// extents are in the entry.
pub fn visit_nodes<S: NodeSource>(
    ids: &Ids,
    source: &S,
    content: &Content,
    size: u64,
    mut visit: impl FnMut(&NodeId, u8) -> Result<(), S::Error>,
) -> Result<(), S::Error> {
    let Content::List { root, level, .. } = content else {
        return Ok(());
    };
    let cursor = ListCursor::new(ids, source, content, size);
    visit(root, *level)?;
    if *level == 0 {
        return Ok(());
    }
    let mut path = vec![cursor.load(root, *level, size, 0)?];
    while let Some(node) = path.last_mut() {
        let level = node.level;
        match node.next()? {
            Some((offset, Item::Link { id, length })) => {
                visit(&id, level - 1)?;
                // A leaf names no further node: it need not be read.
                if level > 1 {
                    path.push(cursor.load(&id, level - 1, length, offset)?);
                }
            }
            Some((_, Item::Extent(_))) | None => {
                path.pop();
            }
        }
    }
    Ok(())
}

/// Decodes any bytes as a list node; what decodes must be the one encoding of what it says.
pub fn fuzz_one(data: &[u8]) {
    let Ok(mut node) = Node::decode(Bytes::copy_from_slice(data), None, 0) else {
        return;
    };
    let mut again = vec![TAG, node.level];
    put_varint(&mut again, node.left as u64);
    while let Ok(Some((_, item))) = node.next() {
        match item {
            Item::Extent(extent) => put_extent(&mut again, &extent),
            Item::Link { id, length } => {
                put_varint(&mut again, length);
                again.extend_from_slice(id.as_bytes());
            }
        }
    }
    assert_eq!(again, data, "a list node with two encodings");
}

#[cfg(test)]
mod tests;
