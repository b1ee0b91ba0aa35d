//! Turns the changes of a run into edits of the entries tree, and refuses what no tree may hold.
//!
//! The rules: changes come in key order, no path twice; the root is a directory and stays; the parent
//! of a `Put` is a directory in the new tree; a hard link names a path before its own; `Remove` of a
//! directory, or `Put` of another kind over it, removes everything below. `Remove` of what is not
//! there changes nothing. (Whether a hard link's target is there is for a restore to see.)
//!
//! Memory: along the path of the newest change, the names of directories that came or went and whose
//! subtrees are still to come, each as what it does not share with the name before.

use super::cursor::Lookup;
use super::{Edit, Edited, NodeSink, NodeSource, Root, edit};
use crate::codec::{decode_entry, encode_entry};
use crate::delta::Change;
use crate::entry::{Entry, Kind};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use crate::path::RelPath;
use std::collections::VecDeque;

/// The tree that `parent` (`None`: no entries) becomes by the changes. The new tree has a root entry.
pub fn apply<S, K, E>(
    ids: &Ids,
    source: &S,
    parent: Option<&NodeId>,
    changes: impl Iterator<Item = Result<Change, E>>,
    sink: &mut K,
) -> Result<Edited, E>
where
    S: NodeSource,
    K: NodeSink,
    E: From<S::Error> + From<K::Error> + From<FormatError>,
{
    let parent = parent.copied().unwrap_or_else(|| Root::empty(ids).id);
    let edits = Applier::new(ids, source, &parent).edits(changes);
    edit(ids, source, &parent, edits, sink)
}

/// Checks one change after another against the parent's tree and the changes before it.
pub struct Applier<'a, S> {
    /// Looks up what changes touch.
    touched: Lookup<'a, S>,
    /// Looks up the directories that changes lie in, so that both keep their path through the tree.
    directories: Lookup<'a, S>,
    last: Option<Vec<u8>>,
    /// The directories from the root to the one the newest change lies in.
    path: Vec<Directory>,
    edits: VecDeque<Edit>,
}

/// One directory on the path of the newest change.
struct Directory {
    name: Vec<u8>,
    state: State,
    /// Its children that became, or ceased to be, directories.
    children: Names,
}

/// What a path is in the new tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A directory in the parent's tree that still is one.
    Kept,
    /// A directory where the parent's tree has none.
    New,
    /// No directory, or nothing at all.
    Gone,
    /// What it is in the parent's tree; not looked up yet.
    Unknown,
}

impl<'a, S: NodeSource> Applier<'a, S> {
    /// An applier of changes to this tree.
    pub fn new(ids: &'a Ids, source: &'a S, parent: &NodeId) -> Self {
        Self {
            touched: Lookup::new(ids, source, parent),
            directories: Lookup::new(ids, source, parent),
            last: None,
            path: vec![Directory {
                name: Vec::new(),
                state: State::Unknown,
                children: Names::default(),
            }],
            edits: VecDeque::new(),
        }
    }

    /// The edits of all changes, in key order.
    pub fn edits<I, E>(self, changes: I) -> Edits<'a, S, I>
    where
        I: Iterator<Item = Result<Change, E>>,
    {
        Edits {
            applier: self,
            changes,
            ended: false,
        }
    }

    /// Takes a change. Its edits, and removals that come before it, can be taken with `next_edit`.
    pub fn accept(&mut self, change: &Change) -> Result<(), S::Error> {
        let path = change.path();
        let key = path.to_key();
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(refused(path, "not in key order, or repeated").into());
        }
        match change {
            Change::Put(_, entry) => self.put(path, &key, entry)?,
            Change::Remove(_) => self.remove(path, &key)?,
        }
        self.last = Some(key);
        Ok(())
    }

    /// The next edit that is known.
    pub fn next_edit(&mut self) -> Option<Edit> {
        self.edits.pop_front()
    }

    /// Ends the row of changes; the last removals can then be taken with `next_edit`.
    pub fn finish(&mut self) -> Result<(), S::Error> {
        self.leave_to(0);
        self.drain_children();
        match self.state_of_directory()? {
            State::Gone => Err(refused(&RelPath::root(), "a tree needs a root entry").into()),
            _ => Ok(()),
        }
    }

    /// Bytes of names that wait for their subtrees to come.
    pub fn waiting_bytes(&self) -> usize {
        let directories = self.path.iter();
        directories
            .map(|directory| directory.children.packed.len())
            .sum()
    }

    fn put(&mut self, path: &RelPath, key: &[u8], entry: &Entry) -> Result<(), S::Error> {
        let value = encode_entry(entry).map_err(|error| name_path(error, path))?;
        if path.is_root() {
            if entry.kind != Kind::Directory {
                return Err(refused(path, "the root is no directory").into());
            }
            self.path[0].state = match self.is_directory(&[])? {
                true => State::Kept,
                false => State::New,
            };
        } else {
            self.go_to(path);
            let known = self.known(key)?;
            let parent = self.state_of_directory()?;
            if parent == State::Gone {
                return Err(refused(path, "its parent is no directory in the new tree").into());
            }
            if let Some(target) = &entry.hardlink
                && target.to_key().as_slice() >= key
            {
                return Err(refused(path, "a hard link names a path that is not before it").into());
            }
            let was = parent == State::Kept && known == Some(Kind::Directory);
            match (was, entry.kind == Kind::Directory) {
                (true, false) => self.note_child(path, State::Gone),
                (false, true) => self.note_child(path, State::New),
                _ => {}
            }
        }
        self.edits.push_back(Edit::Put(key.to_vec(), value));
        Ok(())
    }

    fn remove(&mut self, path: &RelPath, key: &[u8]) -> Result<(), S::Error> {
        if path.is_root() {
            return Err(refused(path, "the root cannot be removed").into());
        }
        self.go_to(path);
        let known = self.known(key)?;
        // Below what is gone or new the parent's tree has nothing that is not removed anyway.
        if matches!(self.state_of_directory()?, State::Gone | State::New) {
            return Ok(());
        }
        if known == Some(Kind::Directory) {
            self.note_child(path, State::Gone);
        }
        self.edits.push_back(Edit::Remove(key.to_vec()));
        Ok(())
    }

    /// What the parent's tree has under the key of the newest change, unless it does not matter. An entry
    /// that is there lies in a directory, which then need not be looked up.
    fn known(&mut self, key: &[u8]) -> Result<Option<Kind>, S::Error> {
        let state = self.path.last().map_or(State::Gone, |last| last.state);
        if matches!(state, State::Gone | State::New) {
            return Ok(None);
        }
        let Some(value) = self.touched.get(key)? else {
            return Ok(None);
        };
        if let Some(directory) = self.path.last_mut() {
            directory.state = State::Kept;
        }
        Ok(Some(decode_entry(&value)?.kind))
    }

    /// Whether the parent's tree has a directory under this key.
    fn is_directory(&mut self, key: &[u8]) -> Result<bool, S::Error> {
        is_directory(&mut self.touched, key)
    }

    fn note_child(&mut self, path: &RelPath, state: State) {
        if let Some(directory) = self.path.last_mut() {
            directory.children.push(path.name(), state == State::New);
        }
    }

    /// What the directory of the newest change is in the new tree.
    fn state_of_directory(&mut self) -> Result<State, S::Error> {
        let state = self.path.last().map_or(State::Gone, |last| last.state);
        if state != State::Unknown {
            return Ok(state);
        }
        let key = key_of(&self.path);
        let found = match is_directory(&mut self.directories, &key)? {
            true => State::Kept,
            false => State::Gone,
        };
        if let Some(directory) = self.path.last_mut() {
            directory.state = found;
        }
        Ok(found)
    }

    /// Moves to the directory that the path lies in. Removals of subtrees passed on the way are due.
    fn go_to(&mut self, path: &RelPath) {
        let mut names: Vec<&[u8]> = path.components().collect();
        names.pop();
        let on_the_way = self.path[1..].iter().zip(&names);
        let common = on_the_way
            .take_while(|(directory, name)| directory.name == **name)
            .count();
        self.leave_to(common);
        for name in &names[common..] {
            self.enter(name);
        }
    }

    /// Leaves all directories deeper than this.
    fn leave_to(&mut self, depth: usize) {
        while self.path.len() > depth + 1 {
            self.drain_children();
            self.path.pop();
        }
    }

    fn enter(&mut self, name: &[u8]) {
        let mut above = State::Unknown;
        let mut noted = None;
        let before = self.subtree_prefix();
        if let Some(directory) = self.path.last_mut() {
            above = directory.state;
            while let Some((child, is_new)) = directory.children.front() {
                if child > name {
                    break;
                }
                if !is_new {
                    self.edits.push_back(remove_subtree(&before, child));
                }
                if child == name {
                    noted = Some(is_new);
                }
                directory.children.pop();
            }
        }
        let state = match (noted, above) {
            (Some(true), _) => State::New,
            (Some(false), _) | (None, State::Gone | State::New) => State::Gone,
            (None, State::Kept | State::Unknown) => State::Unknown,
        };
        self.path.push(Directory {
            name: name.to_vec(),
            state,
            children: Names::default(),
        });
    }

    /// Queues the removals below the current directory that are still to come.
    fn drain_children(&mut self) {
        let before = self.subtree_prefix();
        if let Some(directory) = self.path.last_mut() {
            while let Some((child, is_new)) = directory.children.front() {
                if !is_new {
                    self.edits.push_back(remove_subtree(&before, child));
                }
                directory.children.pop();
            }
        }
    }

    /// What the keys below the current directory's subdirectories begin with.
    fn subtree_prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::new();
        for directory in &self.path[1..] {
            prefix.extend_from_slice(&directory.name);
            prefix.push(0);
        }
        prefix
    }
}

fn remove_subtree(before: &[u8], name: &[u8]) -> Edit {
    Edit::RemovePrefix([before, name, &[0]].concat())
}

/// The key of the last directory's own entry.
fn key_of(path: &[Directory]) -> Vec<u8> {
    let Some((last, above)) = path[1..].split_last() else {
        return Vec::new();
    };
    let names: Vec<&[u8]> = above.iter().map(|directory| &directory.name[..]).collect();
    let mut key = names.join(&0);
    key.extend_from_slice(&[0, 0]);
    key.extend_from_slice(&last.name);
    key
}

fn is_directory<S: NodeSource>(lookup: &mut Lookup<'_, S>, key: &[u8]) -> Result<bool, S::Error> {
    Ok(match lookup.get(key)? {
        Some(value) => decode_entry(&value)?.kind == Kind::Directory,
        None => false,
    })
}

fn refused(path: &RelPath, rule: &'static str) -> FormatError {
    FormatError::Change {
        path: path.to_string(),
        rule,
    }
}

fn name_path(error: FormatError, path: &RelPath) -> FormatError {
    match error {
        FormatError::Entry { rule, .. } => FormatError::Entry {
            path: path.to_string(),
            rule,
        },
        error => error,
    }
}

/// The edits of a row of changes.
pub struct Edits<'a, S, I> {
    applier: Applier<'a, S>,
    changes: I,
    ended: bool,
}

impl<S, I, E> Iterator for Edits<'_, S, I>
where
    S: NodeSource,
    I: Iterator<Item = Result<Change, E>>,
    E: From<S::Error>,
{
    type Item = Result<Edit, E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(edit) = self.applier.next_edit() {
                return Some(Ok(edit));
            }
            if self.ended {
                return None;
            }
            let accepted = match self.changes.next() {
                Some(Ok(change)) => self.applier.accept(&change),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => {
                    self.ended = true;
                    self.applier.finish()
                }
            };
            if let Err(error) = accepted {
                self.ended = true;
                self.applier.edits.clear();
                return Some(Err(error.into()));
            }
        }
    }
}

/// A queue of ascending names, each with a flag, packed: what is shared with the name before is not
/// repeated. Five million directories side by side wait here for their subtrees to come.
#[derive(Default)]
struct Names {
    packed: VecDeque<u8>,
    newest: Vec<u8>,
    front: Option<(Vec<u8>, bool)>,
    /// The name last taken from `packed`: the next one is told against it.
    taken: Vec<u8>,
}

impl Names {
    /// Adds a name of at most 255 bytes, above all before.
    fn push(&mut self, name: &[u8], flag: bool) {
        let both = self.newest.iter().zip(name);
        let shared = both.take_while(|(a, b)| a == b).count().min(127);
        self.packed.push_back((shared as u8) << 1 | u8::from(flag));
        self.packed.push_back((name.len() - shared) as u8);
        self.packed.extend(&name[shared..]);
        self.newest.clear();
        self.newest.extend_from_slice(name);
        self.fill_front();
    }

    fn front(&self) -> Option<(&[u8], bool)> {
        let (name, flag) = self.front.as_ref()?;
        Some((name, *flag))
    }

    fn pop(&mut self) {
        self.front = None;
        self.fill_front();
    }

    fn fill_front(&mut self) {
        if self.front.is_some() {
            return;
        }
        let (Some(head), Some(rest)) = (self.packed.pop_front(), self.packed.pop_front()) else {
            return;
        };
        self.taken.truncate(usize::from(head >> 1));
        self.taken.extend(self.packed.drain(..usize::from(rest)));
        self.front = Some((self.taken.clone(), head & 1 == 1));
    }
}
