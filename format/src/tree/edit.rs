//! Applies a row of edits to a tree, giving exactly the tree that a fresh build would give.
//!
//! The old tree is walked once. A subtree that no edit touches is taken over unread as soon as the new
//! tree stands at the start of a node on its level too; everything else is opened and its items are
//! added again. For k edits of n items that loads and stores O(k + log n) nodes. Nodes that come out
//! as they were are not stored again. Memory is bounded by the height.

use super::build::{Finished, Levels, unsorted};
use super::node::Payload;
use super::walk::{Head, Walker, load_root};
use super::{NodeSink, NodeSource, Root, TreeParams, after_prefix};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;

/// A change to the items of a tree. Edits come in the order of their keys, none twice;
/// a `RemovePrefix` comes before a `Put` or `Remove` of the same key, and removes old items only: what
/// is put within it afterwards stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// The key now has this value.
    Put(Vec<u8>, Vec<u8>),
    /// The key is gone, if it was there.
    Remove(Vec<u8>),
    /// Every key of the old tree with this prefix is gone.
    RemovePrefix(Vec<u8>),
}

impl Edit {
    /// The key it is sorted by.
    pub fn key(&self) -> &[u8] {
        match self {
            Edit::Put(key, _) | Edit::Remove(key) | Edit::RemovePrefix(key) => key,
        }
    }

    fn place(&self) -> (&[u8], bool) {
        (self.key(), !matches!(self, Edit::RemovePrefix(_)))
    }
}

/// What a row of edits made of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edited {
    /// The new tree.
    pub root: Root,
    /// Keys of the old tree that the new one does not have.
    pub removed: u64,
}

/// The tree that `root` becomes by the edits, in format version 1.
pub fn edit<S, K, E>(
    ids: &Ids,
    source: &S,
    root: &NodeId,
    edits: impl Iterator<Item = Result<Edit, E>>,
    sink: &mut K,
) -> Result<Edited, E>
where
    S: NodeSource,
    K: NodeSink,
    E: From<S::Error> + From<K::Error> + From<FormatError>,
{
    edit_with(ids, TreeParams::DEFAULT, source, root, edits, sink)
}

/// As `edit`, for a tree that was built with these sizes.
pub fn edit_with<S, K, E>(
    ids: &Ids,
    params: TreeParams,
    source: &S,
    root: &NodeId,
    edits: impl Iterator<Item = Result<Edit, E>>,
    sink: &mut K,
) -> Result<Edited, E>
where
    S: NodeSource,
    K: NodeSink,
    E: From<S::Error> + From<K::Error> + From<FormatError>,
{
    let mut editor = Editor {
        walker: Walker::new(ids, source, root),
        levels: Levels::new(ids, params, sink),
        edits,
        next: None,
        removing: None,
        removed: 0,
    };
    editor.pull()?;
    editor.run()?;
    let removed = editor.removed;
    let root = match editor.levels.finish()? {
        Finished::Root(root) => root,
        Finished::TakenOver { id, .. } => lowest_root::<S, E>(ids, source, id)?,
    };
    Ok(Edited { root, removed })
}

/// The tree's root is the lowest node above everything: a taken-over node may have one child only.
fn lowest_root<S, E>(ids: &Ids, source: &S, mut id: NodeId) -> Result<Root, E>
where
    S: NodeSource,
    E: From<S::Error> + From<FormatError>,
{
    loop {
        let node = load_root(ids, source, &id)?;
        if node.level() == 0 || node.len() > 1 {
            return Ok(Root {
                id,
                level: node.level(),
                count: node.total(),
            });
        }
        let mut items = node.items();
        items.advance()?;
        match items.payload() {
            Payload::Link { id: child, .. } => id = child,
            Payload::Value { .. } => return Err(FormatError::NodeMismatch(id).into()),
        }
    }
}

struct Editor<'a, S, K, I> {
    walker: Walker<'a, S>,
    levels: Levels<'a, K>,
    edits: I,
    next: Option<Edit>,
    removing: Option<Removing>,
    /// Keys of the old tree that are gone so far.
    removed: u64,
}

/// A prefix whose old items go.
struct Removing {
    prefix: Vec<u8>,
    /// First key after the prefix; `None`: there is none.
    after: Option<Vec<u8>>,
}

impl Removing {
    /// Whether every key from `first` (not below the prefix) up to `upper` has the prefix.
    fn covers(&self, first: &[u8], upper: Option<&[u8]>) -> bool {
        first.starts_with(&self.prefix)
            && match (&self.after, upper) {
                (None, _) => true,
                (Some(after), Some(upper)) => upper <= after.as_slice(),
                (Some(_), None) => false,
            }
    }

    /// Whether it is past for keys from `first` on.
    fn is_past(&self, first: &[u8]) -> bool {
        self.after
            .as_ref()
            .is_some_and(|after| first >= after.as_slice())
    }
}

impl<S, K, I, E> Editor<'_, S, K, I>
where
    S: NodeSource,
    K: NodeSink,
    I: Iterator<Item = Result<Edit, E>>,
    E: From<S::Error> + From<K::Error> + From<FormatError>,
{
    fn run(&mut self) -> Result<(), E> {
        loop {
            let head = self.walker.head();
            if !matches!(head, Head::Root) {
                let end = matches!(head, Head::End);
                self.apply_before(end)?;
            }
            match head {
                Head::End => return Ok(()),
                Head::Root => self.enter()?,
                Head::Link { id, level, count } => self.pass_link(id, level, count)?,
                Head::Item { value } => self.pass_item(&value)?,
            }
        }
    }

    /// Applies the edits that come before the head, or all that are left.
    fn apply_before(&mut self, all: bool) -> Result<(), E> {
        while let Some(next) = &self.next {
            let due = match next {
                _ if all => true,
                // In force from its own key on.
                Edit::RemovePrefix(prefix) => prefix.as_slice() <= self.walker.key(),
                _ => next.key() < self.walker.key(),
            };
            if !due {
                break;
            }
            match self.pull()? {
                Some(Edit::Put(key, value)) => self.levels.push_item(&key, &value)?,
                Some(Edit::RemovePrefix(prefix)) => self.start_removing(prefix),
                Some(Edit::Remove(_)) | None => {}
            }
        }
        if let Some(removing) = &self.removing
            && removing.is_past(self.walker.key())
        {
            self.removing = None;
        }
        Ok(())
    }

    fn start_removing(&mut self, prefix: Vec<u8>) {
        let within = |removing: &Removing| prefix.starts_with(&removing.prefix);
        if !self.removing.as_ref().is_some_and(within) {
            self.removing = Some(Removing {
                after: after_prefix(&prefix),
                prefix,
            });
        }
    }

    fn pass_link(&mut self, id: NodeId, level: u8, count: u64) -> Result<(), E> {
        let upper = self.walker.upper();
        let edited = match (&self.next, upper) {
            (None, _) => false,
            (Some(next), Some(upper)) => next.key() < upper,
            (Some(_), None) => true,
        };
        if !edited {
            if let Some(removing) = &self.removing {
                if removing.covers(self.walker.key(), upper) {
                    self.removed += count;
                    return Ok(self.walker.skip()?);
                }
            } else if self.levels.starts_node(level) {
                self.levels.push_old(level, self.walker.key(), id, count)?;
                return Ok(self.walker.skip()?);
            }
        }
        self.enter()
    }

    fn pass_item(&mut self, value: &[u8]) -> Result<(), E> {
        let key = self.walker.key();
        let same = |next: &Edit| next.key() == key && !matches!(next, Edit::RemovePrefix(_));
        if self.next.as_ref().is_some_and(same) {
            match self.pull()? {
                Some(Edit::Put(key, value)) => self.levels.push_item(&key, &value)?,
                _ => self.removed += 1,
            }
        } else if !self
            .removing
            .as_ref()
            .is_some_and(|removing| key.starts_with(&removing.prefix))
        {
            self.levels.push_item(key, value)?;
        } else {
            self.removed += 1;
        }
        Ok(self.walker.skip()?)
    }

    fn enter(&mut self) -> Result<(), E> {
        if let Some((id, level)) = self.walker.enter()? {
            self.levels.note_old(level, id);
        }
        Ok(())
    }

    /// Takes the next edit and looks at the one after it.
    fn pull(&mut self) -> Result<Option<Edit>, E> {
        let after = self.edits.next().transpose()?;
        if let (Some(before), Some(after)) = (&self.next, &after)
            && before.place() >= after.place()
        {
            return Err(unsorted(after.key()).into());
        }
        Ok(std::mem::replace(&mut self.next, after))
    }
}
