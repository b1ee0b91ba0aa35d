//! What differs between two trees, at a cost that grows with the difference: equal subtrees are
//! stepped over unread, whatever the heights of the trees.

use super::walk::{Head, Walker};
use super::{NodeSource, after_prefix};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use bytes::Bytes;
use std::cmp::Ordering;

/// A key whose value differs; one side may lack it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiffItem {
    /// The key.
    pub key: Vec<u8>,
    /// Its value in the first tree.
    pub from: Option<Bytes>,
    /// Its value in the second.
    pub to: Option<Bytes>,
}

/// Tells every key with this prefix (empty: all) whose value differs, in key order. An error of
/// `found` ends it. Both trees have the same ids: they lie in one generation of a domain.
pub fn diff<A, B, E>(
    ids: &Ids,
    from: (&A, &NodeId),
    to: (&B, &NodeId),
    prefix: &[u8],
    mut found: impl FnMut(DiffItem) -> Result<(), E>,
) -> Result<(), E>
where
    A: NodeSource,
    B: NodeSource,
    E: From<A::Error> + From<B::Error> + From<FormatError>,
{
    if from.1 == to.1 {
        return Ok(());
    }
    let mut from = Side::new(ids, from, prefix);
    let mut to = Side::new(ids, to, prefix);
    loop {
        let (a, b) = (from.seek()?, to.seek()?);
        match (&a, &b) {
            (Place::End, Place::End) => return Ok(()),
            (Place::Subtree { id: a, .. }, Place::Subtree { id: b, .. }) if a == b => {
                from.walker.skip()?;
                to.walker.skip()?;
                continue;
            }
            _ => {}
        }
        // The same subtree on the other side begins with the same key and has the same height: so
        // what begins earlier, or is higher, is opened first, and equal subtrees meet unopened.
        let order = match (&a, &b) {
            (Place::End, _) => Ordering::Greater,
            (_, Place::End) => Ordering::Less,
            _ => from
                .walker
                .key()
                .cmp(to.walker.key())
                .then(b.height().cmp(&a.height())),
        };
        match (order, a, b) {
            (Ordering::Less, Place::Item(value), _) => {
                found(from.take(Some(value), None)?)?;
            }
            (Ordering::Greater, _, Place::Item(value)) => {
                found(to.take(None, Some(value))?)?;
            }
            (Ordering::Equal, Place::Item(a), Place::Item(b)) => {
                let differs = a != b;
                let item = from.take(Some(a), Some(b))?;
                to.walker.skip()?;
                if differs {
                    found(item)?;
                }
            }
            (Ordering::Less, ..) => {
                from.walker.enter()?;
            }
            (Ordering::Greater, ..) => {
                to.walker.enter()?;
            }
            (Ordering::Equal, ..) => {
                from.walker.enter()?;
                to.walker.enter()?;
            }
        }
    }
}

enum Place {
    Subtree { id: NodeId, level: u8 },
    Item(Bytes),
    End,
}

impl Place {
    fn height(&self) -> u16 {
        match self {
            Place::Subtree { level, .. } => 1 + u16::from(*level),
            Place::Item(_) | Place::End => 0,
        }
    }
}

struct Side<'a, S> {
    walker: Walker<'a, S>,
    prefix: &'a [u8],
    end: Option<Vec<u8>>,
}

impl<'a, S: NodeSource> Side<'a, S> {
    fn new(ids: &'a Ids, (source, root): (&'a S, &NodeId), prefix: &'a [u8]) -> Self {
        Self {
            walker: Walker::new(ids, source, root),
            prefix,
            end: after_prefix(prefix),
        }
    }

    /// Moves on to the next place that may hold keys with the prefix.
    fn seek(&mut self) -> Result<Place, S::Error> {
        loop {
            let head = self.walker.head();
            let key = self.walker.key();
            let is_past = |end: &Vec<u8>| key >= &end[..];
            if !matches!(head, Head::Root) && self.end.as_ref().is_some_and(is_past) {
                return Ok(Place::End);
            }
            match head {
                Head::Root => {
                    self.walker.enter()?;
                    continue;
                }
                Head::End => return Ok(Place::End),
                Head::Item { value } if key >= self.prefix => return Ok(Place::Item(value)),
                Head::Link { id, level, .. }
                    if self.walker.upper().is_none_or(|upper| upper > self.prefix) =>
                {
                    return Ok(Place::Subtree { id, level });
                }
                Head::Item { .. } | Head::Link { .. } => {}
            }
            self.walker.skip()?;
        }
    }

    fn take(&mut self, from: Option<Bytes>, to: Option<Bytes>) -> Result<DiffItem, FormatError> {
        let key = self.walker.key().to_vec();
        self.walker.skip()?;
        Ok(DiffItem { key, from, to })
    }
}
