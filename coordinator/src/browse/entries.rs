//! The entries of a snapshot in key order, long contents in further parts.

use crate::browse::{Nodes, Results, View, stream};
use crate::error::{Error, Result};
use bytes::Bytes;
use holdfast_format::codec::decode_entry;
use holdfast_format::entry::{Content, Entry, Extent, Kind, Problem};
use holdfast_format::list::ListCursor;
use holdfast_format::path::RelPath;
use holdfast_format::tree::{LossyCursor, Scanned, get};
use std::ops::Bound;

/// Bytes after which a batch of parts is sent: far below the limit of a message.
const BATCH_BYTES: usize = 256 * 1024;
/// Most parts of a batch.
const BATCH_PARTS: usize = 2000;
/// Extents of one continuation.
const EXTENTS: usize = 4096;

/// A part of a stream of entries.
#[derive(Debug)]
pub enum Part {
    /// An entry. Of a list the extents follow.
    Entry(RelPath, Box<Entry>),
    /// Continues the extents of the entry before it.
    More(Vec<Extent>),
    /// No more extents come.
    End,
    /// Entries here could not be read.
    Damaged(RelPath, Problem),
}

/// Which entries, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The path and its whole subtree, with contents.
    Whole,
    /// The path and its whole subtree, without long contents.
    Listing,
    /// The path and its children, with contents.
    Children,
    /// The path and its children, without long contents.
    ChildrenListing,
}

impl Walk {
    fn is_listing(self) -> bool {
        matches!(self, Walk::Listing | Walk::ChildrenListing)
    }

    fn prefix(self, path: &RelPath) -> Vec<u8> {
        match self {
            Walk::Whole | Walk::Listing => path.subtree_prefix(),
            Walk::Children | Walk::ChildrenListing => path.children_prefix(),
        }
    }
}

/// The entries of a walk: the path itself first. A path that is not there gives nothing. What cannot be
/// read is a `Damaged` part, and the walk goes on behind it.
pub fn entries(view: View, path: RelPath, walk: Walk) -> Results<Vec<Part>> {
    let nodes = view.nodes();
    stream(move |send| Sending::new(&view, &nodes, walk, send).run(&path))
}

/// The entries of a directory without the directory itself, or those below it, or a single file; never
/// with long contents. Ends with an error where there is nothing at the path or something is damaged.
pub fn list(view: View, path: RelPath, recursive: bool) -> Results<Vec<Part>> {
    let nodes = view.nodes();
    let walk = match recursive {
        true => Walk::Listing,
        false => Walk::ChildrenListing,
    };
    stream(move |send| {
        let found = entry_at(&view, &nodes, &path)?.ok_or_else(|| Error::PathNotFound {
            path: path.to_string(),
        })?;
        let mut sending = Sending::new(&view, &nodes, walk, send);
        sending.strict = true;
        if found.kind == Kind::Directory {
            sending.below(&path)?;
        } else {
            sending.entry(path, found)?;
        }
        sending.flush()
    })
}

/// The entry of a path.
pub fn entry_at(view: &View, nodes: &Nodes, path: &RelPath) -> Result<Option<Entry>> {
    let value = get(&view.ids, nodes, &view.record.entries_root, &path.to_key())?;
    value
        .map(|value| decode_entry(&value))
        .transpose()
        .map_err(Error::from)
}

struct Sending<'a> {
    view: &'a View,
    nodes: &'a Nodes,
    walk: Walk,
    /// Whether damage ends the walk.
    strict: bool,
    send: &'a mut dyn FnMut(Vec<Part>) -> Result<()>,
    parts: Vec<Part>,
    bytes: usize,
}

impl<'a> Sending<'a> {
    fn new(
        view: &'a View,
        nodes: &'a Nodes,
        walk: Walk,
        send: &'a mut dyn FnMut(Vec<Part>) -> Result<()>,
    ) -> Self {
        Self {
            view,
            nodes,
            walk,
            strict: false,
            send,
            parts: Vec::new(),
            bytes: 0,
        }
    }

    fn run(&mut self, path: &RelPath) -> Result<()> {
        if path.is_root() && self.walk.prefix(path).is_empty() {
            // The root is part of its own range.
            self.below(path)?;
            return self.flush();
        }
        match entry_at(self.view, self.nodes, path) {
            Ok(Some(found)) => {
                let directory = found.kind == Kind::Directory;
                self.entry(path.clone(), found)?;
                if directory {
                    self.below(path)?;
                }
            }
            Ok(None) => {}
            Err(error) => {
                self.damaged(path.clone(), error, 0)?;
                self.below(path)?;
            }
        }
        self.flush()
    }

    fn below(&mut self, path: &RelPath) -> Result<()> {
        let prefix = self.walk.prefix(path);
        // A listing of the root leaves out the root itself, whose key is empty.
        let from = match self.strict && path.is_root() {
            true => Bound::Excluded(&[][..]),
            false => Bound::Unbounded,
        };
        let root = &self.view.record.entries_root;
        for scanned in LossyCursor::range(&self.view.ids, self.nodes, root, from, &prefix) {
            match scanned {
                Scanned::Item { key, value } => self.item(&key, value)?,
                Scanned::Lost {
                    from, count, error, ..
                } => {
                    let at = RelPath::from_key(&from).unwrap_or_else(|_| path.clone());
                    self.damaged(at, error, count)?;
                }
            }
        }
        Ok(())
    }

    fn item(&mut self, key: &[u8], value: Bytes) -> Result<()> {
        self.bytes += key.len() + value.len() + 64;
        self.entry(RelPath::from_key(key)?, decode_entry(&value)?)
    }

    fn entry(&mut self, path: RelPath, mut entry: Entry) -> Result<()> {
        let content = entry.content.clone();
        let long = matches!(content, Content::List { .. }) && !self.walk.is_listing();
        if self.walk.is_listing() {
            entry.content = Content::Empty;
        }
        let size = entry.size;
        self.push(Part::Entry(path.clone(), Box::new(entry)))?;
        if !long {
            return Ok(());
        }
        let mut extents = Vec::with_capacity(EXTENTS);
        for extent in ListCursor::new(&self.view.ids, self.nodes, &content, size) {
            match extent {
                Ok((_, extent)) => extents.push(extent),
                Err(error) => {
                    // The reader sees that the sum is wrong, and why.
                    self.push(Part::End)?;
                    return self.damaged(path, error, 1);
                }
            }
            if extents.len() == EXTENTS {
                self.bytes += EXTENTS * 40;
                self.push(Part::More(std::mem::take(&mut extents)))?;
            }
        }
        if !extents.is_empty() {
            self.bytes += extents.len() * 40;
            self.push(Part::More(extents))?;
        }
        self.push(Part::End)
    }

    fn damaged(&mut self, path: RelPath, error: Error, count: u64) -> Result<()> {
        let damage = error.reason() == crate::Reason::DamageFound;
        if self.strict || !damage {
            return Err(error);
        }
        let problem = Problem {
            reason: "TreeDamaged".into(),
            detail: match count {
                0 => error.to_string(),
                count => format!("{count} entries from here: {error}"),
            },
            errno: 0,
            carried_over: false,
            since_ns: 0,
        };
        self.push(Part::Damaged(path, problem))
    }

    fn push(&mut self, part: Part) -> Result<()> {
        self.parts.push(part);
        match self.bytes >= BATCH_BYTES || self.parts.len() >= BATCH_PARTS {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.bytes = 0;
        match self.parts.is_empty() {
            true => Ok(()),
            false => (self.send)(std::mem::take(&mut self.parts)),
        }
    }
}
