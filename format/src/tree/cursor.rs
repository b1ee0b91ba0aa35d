//! Reads a tree: one item, or a range in key order. One node per level is in memory.

use super::node::{Node, Payload, Promise};
use super::walk::{Head, Walker, load_node, load_root};
use super::{NodeSource, after_prefix};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use bytes::Bytes;
use std::ops::Bound;

/// The value of a key.
pub fn get<S: NodeSource>(
    ids: &Ids,
    source: &S,
    root: &NodeId,
    key: &[u8],
) -> Result<Option<Bytes>, S::Error> {
    Lookup::new(ids, source, root).get(key)
}

/// Looks up keys one after another; near ones share the nodes on the way to them.
pub struct Lookup<'a, S> {
    ids: &'a Ids,
    source: &'a S,
    root: NodeId,
    path: Vec<Step>,
}

/// An opened node and the range of keys it answers for.
struct Step {
    node: Node,
    from: Vec<u8>,
    below: Option<Vec<u8>>,
}

impl<'a, S: NodeSource> Lookup<'a, S> {
    /// Lookups in this tree.
    pub fn new(ids: &'a Ids, source: &'a S, root: &NodeId) -> Self {
        Self {
            ids,
            source,
            root: *root,
            path: Vec::new(),
        }
    }

    /// The value of a key.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, S::Error> {
        while let Some(step) = self.path.last() {
            let within =
                key >= &step.from[..] && step.below.as_ref().is_none_or(|below| key < &below[..]);
            if within {
                break;
            }
            self.path.pop();
        }
        if self.path.is_empty() {
            self.path.push(Step {
                node: load_root(self.ids, self.source, &self.root)?,
                from: Vec::new(),
                below: None,
            });
        }
        while let Some(step) = self.path.last() {
            match find(step, key)? {
                Found::Nothing => return Ok(None),
                Found::Value(value) => return Ok(Some(value)),
                Found::Child {
                    id,
                    count,
                    from,
                    below,
                } => {
                    let promise = Promise {
                        level: Some(step.node.level() - 1),
                        first: Some(&from),
                        below: below.as_deref(),
                        total: Some(count),
                    };
                    let node = load_node(self.ids, self.source, &id, &promise)?;
                    self.path.push(Step { node, from, below });
                }
            }
        }
        Ok(None)
    }
}

enum Found {
    Nothing,
    Value(Bytes),
    Child {
        id: NodeId,
        count: u64,
        from: Vec<u8>,
        below: Option<Vec<u8>>,
    },
}

fn find(step: &Step, key: &[u8]) -> Result<Found, FormatError> {
    let mut items = step.node.items();
    let mut child = None;
    let mut from = Vec::new();
    let mut below = None;
    while items.advance()? {
        if items.key() > key {
            below = Some(items.key().to_vec());
            break;
        }
        match items.payload() {
            Payload::Value { start, end } if items.key() == key => {
                return Ok(Found::Value(items.slice(start, end)));
            }
            Payload::Value { .. } => {}
            Payload::Link { id, count } => {
                child = Some((id, count));
                from.clear();
                from.extend_from_slice(items.key());
            }
        }
    }
    Ok(match child {
        Some((id, count)) => Found::Child {
            id,
            count,
            from,
            below: below.or_else(|| step.below.clone()),
        },
        None => Found::Nothing,
    })
}

/// The range of a walk: from a bound on, within a prefix.
struct Range {
    /// First key that may be wanted.
    from: Vec<u8>,
    /// Whether `from` itself is not.
    after: bool,
    /// First key that is not wanted any more.
    end: Option<Vec<u8>>,
}

impl Range {
    fn new(from: Bound<&[u8]>, prefix: &[u8]) -> Self {
        let (from, after) = match from {
            Bound::Included(from) if from > prefix => (from, false),
            Bound::Excluded(from) if from >= prefix => (from, true),
            _ => (prefix, false),
        };
        Self {
            from: from.to_vec(),
            after,
            end: after_prefix(prefix),
        }
    }

    fn starts_after(&self, key: &[u8]) -> bool {
        key < &self.from[..] || (self.after && key == self.from)
    }

    fn is_past(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| key >= &end[..])
    }
}

/// What a cursor that goes on past damage finds.
#[derive(Debug)]
pub enum Scanned<E> {
    /// An item.
    Item {
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Bytes,
    },
    /// A subtree that could not be read. Whether the source failed for now or for good is for the
    /// caller to tell from the error.
    Lost {
        /// Its first key, or the start of the range where the root is lost.
        from: Vec<u8>,
        /// Every lost key is below this one; `None`: nothing bounds it.
        below: Option<Vec<u8>>,
        /// Items in it, in the range or not; 0: unknown.
        count: u64,
        /// Why.
        error: E,
    },
}

/// The items of a range in key order, going on past nodes that cannot be read.
pub struct LossyCursor<'a, S> {
    walker: Walker<'a, S>,
    range: Range,
    done: bool,
}

impl<'a, S: NodeSource> LossyCursor<'a, S> {
    /// The items from a bound on whose keys have the prefix (empty: all).
    pub fn range(
        ids: &'a Ids,
        source: &'a S,
        root: &NodeId,
        from: Bound<&[u8]>,
        prefix: &[u8],
    ) -> Self {
        Self {
            walker: Walker::new(ids, source, root),
            range: Range::new(from, prefix),
            done: false,
        }
    }

    fn step(&mut self) -> Result<Option<Scanned<S::Error>>, S::Error> {
        loop {
            let head = self.walker.head();
            if !matches!(head, Head::Root) && self.range.is_past(self.walker.key()) {
                return Ok(None);
            }
            let count = match head {
                Head::End => return Ok(None),
                Head::Item { value } => {
                    let wanted = !self.range.starts_after(self.walker.key());
                    let key = wanted.then(|| self.walker.key().to_vec());
                    self.walker.skip()?;
                    match key {
                        Some(key) => return Ok(Some(Scanned::Item { key, value })),
                        None => continue,
                    }
                }
                Head::Link { count, .. } => {
                    let upper = self.walker.upper();
                    if upper.is_some_and(|upper| upper <= &self.range.from[..]) {
                        self.walker.skip()?;
                        continue;
                    }
                    count
                }
                Head::Root => 0,
            };
            let Err(error) = self.walker.enter() else {
                continue;
            };
            let lost = Scanned::Lost {
                from: self.walker.key().max(&self.range.from).to_vec(),
                below: match (self.walker.upper(), &self.range.end) {
                    (Some(upper), Some(end)) => Some(upper.min(end).to_vec()),
                    (upper, end) => upper.map(<[u8]>::to_vec).or_else(|| end.clone()),
                },
                count,
                error,
            };
            self.walker.skip()?;
            return Ok(Some(lost));
        }
    }
}

impl<S: NodeSource> Iterator for LossyCursor<'_, S> {
    type Item = Scanned<S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        // Beyond `enter` nothing can fail: an opened node has been checked in full.
        match self.step() {
            Ok(Some(scanned)) => Some(scanned),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Scanned::Lost {
                    from: self.walker.key().to_vec(),
                    below: self.range.end.clone(),
                    count: 0,
                    error,
                })
            }
        }
    }
}

/// The items of a range in key order; ends with the first error.
pub struct Cursor<'a, S> {
    inner: LossyCursor<'a, S>,
}

impl<'a, S: NodeSource> Cursor<'a, S> {
    /// The items from a bound on whose keys have the prefix (empty: all).
    pub fn range(
        ids: &'a Ids,
        source: &'a S,
        root: &NodeId,
        from: Bound<&[u8]>,
        prefix: &[u8],
    ) -> Self {
        Self {
            inner: LossyCursor::range(ids, source, root, from, prefix),
        }
    }

    /// All items.
    pub fn all(ids: &'a Ids, source: &'a S, root: &NodeId) -> Self {
        Self::range(ids, source, root, Bound::Unbounded, &[])
    }
}

impl<S: NodeSource> Iterator for Cursor<'_, S> {
    type Item = Result<(Vec<u8>, Bytes), S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.inner.next()? {
            Scanned::Item { key, value } => Ok((key, value)),
            Scanned::Lost { error, .. } => {
                self.inner.done = true;
                Err(error)
            }
        })
    }
}
