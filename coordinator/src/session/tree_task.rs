//! The entries tree in the making: a blocking thread applies the changes to the parent's tree while they
//! arrive. Memory: a few batches of changes, and the nodes along the path of the newest one.

use crate::browse::Nodes;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::node_store::{NodeStore, SharedStore, Stored};
use crate::session::pack_pool::Domain;
use holdfast_format::codec::decode_entry;
use holdfast_format::delta::Change;
use holdfast_format::entry::{Content, Entry, Extent, Kind, MAX_INLINE_EXTENTS};
use holdfast_format::id::NodeId;
use holdfast_format::keys::Ids;
use holdfast_format::list::ListBuilder;
use holdfast_format::path::RelPath;
use holdfast_format::tree::{Lookup, apply, foresee};
use holdfast_format::wire::{ContentChecker, WireChange, WireContent};
use std::cell::{Cell, RefCell};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches of changes that wait for the thread.
const AHEAD: usize = 4;
/// Changes whose way through the parent's tree is announced at once; the frames of their leaves are to
/// fit the memory cache.
const FORESEEN: usize = 128;

/// A thread that applies changes.
pub struct TreeTask {
    batches: mpsc::Sender<Batch>,
    thread: JoinHandle<Result<Tree>>,
}

enum Batch {
    Changes(Vec<WireChange>),
    /// All changes have come. A channel that ends without it was abandoned.
    End,
}

/// A finished tree, in packs that may not be durable yet.
pub struct Tree {
    /// Its root.
    pub root: NodeId,
    /// Where its nodes went.
    pub stored: Stored,
    /// What became of the parent's entries.
    pub counted: Counted,
}

/// What a delta did to the parent's tree, as the coordinator sees it whatever the agent says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Entries now.
    pub entries: u64,
    /// Entries of the parent whose path is gone.
    pub removed: u64,
    /// Files whose content was taken over from another path of the parent.
    pub moved: u64,
}

impl TreeTask {
    /// Starts from the session's parent.
    pub fn start(session: &Session) -> Self {
        let (batches, receiver) = mpsc::channel(AHEAD);
        let nodes = Nodes::new(session.core.library.clone());
        let store = NodeStore::new(session);
        let domain = session.domain.clone();
        let parent = session.parent.as_ref().map(|parent| parent.root);
        let thread = tokio::task::spawn_blocking(move || {
            build(&domain, &nodes, parent.as_ref(), receiver, store)
        });
        Self { batches, thread }
    }

    /// Hands over changes; if the thread has failed, its error.
    pub async fn send(&mut self, changes: Vec<WireChange>) -> Result<()> {
        match self.batches.send(Batch::Changes(changes)).await {
            Ok(()) => Ok(()),
            Err(_) => match (&mut self.thread).await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Err(Error::internal("apply changes")),
            },
        }
    }

    /// All changes have been sent.
    pub async fn finish(self) -> Result<Tree> {
        // A thread that has failed says so itself.
        let _ = self.batches.send(Batch::End).await;
        match self.thread.await {
            Ok(tree) => tree,
            Err(_) => Err(Error::internal("apply changes")),
        }
    }
}

fn build(
    domain: &Domain,
    nodes: &Nodes,
    parent: Option<&NodeId>,
    batches: mpsc::Receiver<Batch>,
    store: NodeStore,
) -> Result<Tree> {
    let ids = &domain.ids;
    let store = RefCell::new(store);
    let moved = Cell::new(0);
    let changes = Changes {
        batches,
        batch: Vec::new().into_iter(),
        foreseen: 0,
        ended: false,
        ids,
        nodes,
        root: parent,
        parent: parent.map(|root| Lookup::new(ids, nodes, root)),
        store: SharedStore(&store),
        moved: &moved,
    };
    let edited = apply(ids, nodes, parent, changes, &mut SharedStore(&store))?;
    Ok(Tree {
        root: edited.root.id,
        stored: store.into_inner().finish()?,
        counted: Counted {
            entries: edited.root.count,
            removed: edited.removed,
            moved: moved.get(),
        },
    })
}

/// Whole changes, from messages that may bring an entry in pieces.
struct Changes<'a> {
    batches: mpsc::Receiver<Batch>,
    batch: std::vec::IntoIter<WireChange>,
    /// Changes of the batch that were announced and are still to come.
    foreseen: usize,
    ended: bool,
    ids: &'a Ids,
    nodes: &'a Nodes,
    root: Option<&'a NodeId>,
    parent: Option<Lookup<'a, Nodes>>,
    store: SharedStore<'a>,
    /// Files whose content is that of another path.
    moved: &'a Cell<u64>,
}

impl Iterator for Changes<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        self.change().transpose()
    }
}

impl Changes<'_> {
    fn change(&mut self) -> Result<Option<Change>> {
        let Some(change) = self.pull()? else {
            return Ok(None);
        };
        match change {
            WireChange::Remove(path) => Ok(Some(Change::Remove(path))),
            WireChange::Put {
                path,
                mut entry,
                content,
            } => {
                self.fill(&path, &mut entry, content)?;
                entry.validate().map_err(|rule| refused(&path, rule))?;
                Ok(Some(Change::Put(path, entry)))
            }
            WireChange::More(_) | WireChange::End => {
                Err(refused(&RelPath::root(), "extents without their entry"))
            }
        }
    }

    /// The next message, waiting for it; `None` after the last.
    fn pull(&mut self) -> Result<Option<WireChange>> {
        loop {
            if self.foreseen == 0 {
                self.foresee();
            }
            if let Some(change) = self.batch.next() {
                self.foreseen -= 1;
                return Ok(Some(change));
            }
            if self.ended {
                return Ok(None);
            }
            match self.batches.blocking_recv() {
                Some(Batch::Changes(changes)) => self.batch = changes.into_iter(),
                Some(Batch::End) => self.ended = true,
                None => {
                    return Err(Error::Cancelled {
                        detail: "the upload broke off".into(),
                    });
                }
            }
        }
    }

    /// Announces what the next changes need of the parent's tree: their own paths and the files whose content
    /// they take over; then the directories of what is not there. (An entry that is there proves its own.)
    fn foresee(&mut self) {
        let changes = &self.batch.as_slice()[..self.batch.len().min(FORESEEN)];
        self.foreseen = changes.len();
        let (Some(root), Some(parent)) = (self.root, &mut self.parent) else {
            return;
        };
        let mut keys = Vec::with_capacity(2 * changes.len());
        let mut paths = Vec::with_capacity(changes.len());
        for change in changes {
            let (WireChange::Put { path, .. } | WireChange::Remove(path)) = change else {
                continue;
            };
            if let WireChange::Put {
                content: WireContent::AsInParent(of),
                ..
            } = change
            {
                keys.push(of.to_key());
            }
            let key = path.to_key();
            keys.push(key.clone());
            paths.push((path, key));
        }
        announce(self.ids, self.nodes, root, keys);
        // What cannot be read is left to the lookup that needs it.
        let unknown = paths
            .into_iter()
            .filter(|(_, key)| matches!(parent.get(key), Ok(None)));
        let directories = unknown.filter_map(|(path, _)| path.parent());
        let directories = directories.map(|directory| directory.to_key()).collect();
        announce(self.ids, self.nodes, root, directories);
    }

    fn fill(&mut self, path: &RelPath, entry: &mut Entry, content: WireContent) -> Result<()> {
        entry.content = match content {
            WireContent::Empty => Content::Empty,
            WireContent::Inline(bytes) => Content::Inline(bytes),
            WireContent::Extents { profile, extents } if extents.len() <= MAX_INLINE_EXTENTS => {
                Content::Extents { profile, extents }
            }
            WireContent::Extents { profile, extents } => {
                let mut store = self.store;
                let mut list = ListBuilder::new(self.ids, &mut store, profile);
                extents.iter().try_for_each(|extent| list.push(extent))?;
                list.finish()?.0
            }
            WireContent::LongExtents { profile, first } => {
                self.long(path, entry.size, profile, first)?
            }
            WireContent::AsInParent(of) => {
                let found = self.in_parent(path, &of)?;
                if of != *path {
                    self.moved.set(self.moved.get() + 1);
                }
                entry.size = found.size;
                found.content
            }
            WireContent::Omitted => return Err(refused(path, "its content is missing")),
        };
        Ok(())
    }

    fn long(
        &mut self,
        path: &RelPath,
        size: u64,
        profile: u8,
        first: Vec<Extent>,
    ) -> Result<Content> {
        let wrong = |_| refused(path, "its extents are not those of a content of its size");
        let mut store = self.store;
        let mut checker = ContentChecker::default();
        let mut list = ListBuilder::new(self.ids, &mut store, profile);
        let mut extents = first;
        loop {
            checker.push(&extents).map_err(wrong)?;
            extents.iter().try_for_each(|extent| list.push(extent))?;
            match self.pull()? {
                Some(WireChange::More(more)) => extents = more,
                Some(WireChange::End) => break,
                _ => return Err(refused(path, "its extents do not end")),
            }
        }
        checker.finish(size).map_err(wrong)?;
        Ok(list.finish()?.0)
    }

    /// The file at `of` in the parent's tree.
    fn in_parent(&mut self, path: &RelPath, of: &RelPath) -> Result<Entry> {
        let missing = || {
            refused(
                path,
                "its content is to be that of a file the parent does not have",
            )
        };
        let value = match &mut self.parent {
            Some(parent) => parent.get(&of.to_key())?,
            None => None,
        };
        let entry = decode_entry(&value.ok_or_else(missing)?)?;
        match entry.kind {
            Kind::File => Ok(entry),
            _ => Err(missing()),
        }
    }
}

/// Announces these keys, in any order. One alone is as well looked up.
fn announce(ids: &Ids, nodes: &Nodes, root: &NodeId, mut keys: Vec<Vec<u8>>) {
    keys.sort_unstable();
    keys.dedup();
    if keys.len() > 1 {
        foresee(ids, nodes, root, &keys);
    }
}

fn refused(path: &RelPath, rule: &str) -> Error {
    Error::InvalidChange {
        path: path.to_string(),
        rule: rule.into(),
    }
}
