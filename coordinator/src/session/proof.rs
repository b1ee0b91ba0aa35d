//! Once something was lost in the store: what a volume's newest snapshot still needs of it. A run skips
//! what is unchanged since that snapshot, and must never skip what nobody has any more.
//!
//! Asked at the begin of a run, and only until a walk of the snapshot's trees finds nothing missing. It
//! reads nodes and looks up places; no pack of contents is read.

use crate::Core;
use crate::browse::{Nodes, View};
use crate::catalog::{Catalog, Volume};
use crate::error::{Error, Result};
use holdfast_format::codec::decode_entry;
use holdfast_format::entry::{Content, Entry, Extent, XattrValue};
use holdfast_format::id::SnapshotId;
use holdfast_format::list::ListCursor;
use holdfast_format::path::RelPath;
use holdfast_format::tree::{LossyCursor, Scanned};
use std::ops::Bound;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Ids that are looked up together.
const IDS: usize = 4096;
/// Paths, and bytes of them, that an agent is told to read again; of more it reads everything.
const FILES: usize = 10_000;
const FILES_BYTES: usize = 512 * 1024;

/// What a snapshot is worth as a parent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Files of which something is gone: to be read again.
    pub reread: Vec<RelPath>,
    /// It cannot be a parent: a part of its tree is gone, or too many files are to be read again.
    pub broken: bool,
    /// For people; empty where nothing is missing.
    pub detail: String,
}

impl Core {
    /// What a run of the volume may rely on of this snapshot.
    pub(super) async fn prove(&self, volume: &Volume, parent: &SnapshotId) -> Result<Proof> {
        let losses = self.catalog.losses().await?;
        if volume.losses_seen >= losses {
            return Ok(Proof::default());
        }
        // An older parent says nothing of the newest, which a later run may have.
        let newest = self.catalog.latest(volume.no).await?;
        let is_newest = newest.is_some_and(|row| row.id == *parent);
        let looking = Looking::new(self, self.library.view(parent).await?);
        let (catalog, volume) = (self.catalog.clone(), volume.clone());
        // A walk that outlasts the caller's patience goes on and counts: its next try need not walk again.
        let proving = tokio::spawn(async move {
            let walked = tokio::task::spawn_blocking(move || looking.run()).await;
            let proof = walked.map_err(|_| Error::internal("prove a snapshot"))??;
            if !proof.detail.is_empty() {
                tracing::warn!(volume = %volume.facts.name, detail = proof.detail, "damage in the store");
            } else if is_newest {
                catalog.set_losses_seen(volume.no, losses).await?;
            }
            Ok(proof)
        });
        let proved = proving.await;
        proved.map_err(|_| Error::internal("prove a snapshot"))?
    }
}

/// One walk.
struct Looking {
    catalog: Arc<Catalog>,
    runtime: Handle,
    view: View,
    /// Ids that wait to be looked up, each with the place of its path in `paths`.
    ids: Vec<([u8; 32], usize)>,
    paths: Vec<RelPath>,
    reread: Vec<RelPath>,
    reread_bytes: usize,
}

/// Why a walk ended early.
enum Ended {
    Damaged(Error),
    TooMany,
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error.reason() {
            crate::Reason::DamageFound => Self::Damaged(error),
            _ => Self::Failed(error),
        }
    }
}

impl Looking {
    fn new(core: &Core, view: View) -> Self {
        Self {
            catalog: core.catalog.clone(),
            runtime: Handle::current(),
            view,
            ids: Vec::with_capacity(IDS),
            paths: Vec::new(),
            reread: Vec::new(),
            reread_bytes: 0,
        }
    }

    fn run(mut self) -> Result<Proof> {
        let id = self.view.id;
        let broken = |detail: String| Proof {
            broken: true,
            detail,
            ..Proof::default()
        };
        match self.walk() {
            Ok(()) if self.reread.is_empty() => Ok(Proof::default()),
            Ok(()) => Ok(Proof {
                detail: format!(
                    "{} files of snapshot {} need chunks that are lost in the store",
                    self.reread.len(),
                    id.short()
                ),
                reread: self.reread,
                broken: false,
            }),
            Err(Ended::TooMany) => Ok(broken(format!(
                "more than {} files of snapshot {} need chunks that are lost in the store",
                self.reread.len(),
                id.short()
            ))),
            Err(Ended::Damaged(error)) => Ok(broken(error.to_string())),
            Err(Ended::Failed(error)) => Err(error),
        }
    }

    fn walk(&mut self) -> Result<(), Ended> {
        let view = self.view.clone();
        let root = &view.record.entries_root;
        // Its runtime is this one, which the blocking thread belongs to.
        let nodes = view.nodes();
        for scanned in LossyCursor::range(&view.ids, &nodes, root, Bound::Unbounded, &[]) {
            match scanned {
                Scanned::Item { key, value } => {
                    let path = RelPath::from_key(&key).map_err(Error::from)?;
                    self.entry(&nodes, path, &decode_entry(&value).map_err(Error::from)?)?;
                }
                Scanned::Lost { error, .. } => return Err(error.into()),
            }
        }
        self.look_up()
    }

    fn entry(&mut self, nodes: &Nodes, path: RelPath, entry: &Entry) -> Result<(), Ended> {
        self.paths.push(path);
        for xattr in &entry.xattrs {
            if let XattrValue::Chunks(chunks) = &xattr.value {
                for extent in chunks {
                    self.add(extent)?;
                }
            }
        }
        match &entry.content {
            Content::Empty | Content::Inline(_) => {}
            Content::Extents { extents, .. } => {
                for extent in extents {
                    self.add(extent)?;
                }
            }
            list @ Content::List { .. } => {
                let ids = self.view.ids.clone();
                for extent in ListCursor::new(&ids, nodes, list, entry.size) {
                    self.add(&extent?.1)?;
                }
            }
        }
        if self.ids.is_empty() {
            self.paths.clear();
        }
        Ok(())
    }

    fn add(&mut self, extent: &Extent) -> Result<(), Ended> {
        let Extent::Chunk { id, .. } = extent else {
            return Ok(());
        };
        self.ids.push((id.into_bytes(), self.paths.len() - 1));
        if self.ids.len() < IDS {
            return Ok(());
        }
        self.look_up()
    }

    fn look_up(&mut self) -> Result<(), Ended> {
        let ids: Vec<[u8; 32]> = self.ids.iter().map(|(id, _)| *id).collect();
        let places = self.runtime.block_on(self.catalog.locate_to_read(&ids));
        let places = places.map_err(Error::from)?;
        let found = self.ids.drain(..).zip(places);
        let mut missing: Vec<usize> = found
            .filter(|(_, place)| place.is_none())
            .map(|((_, path), _)| path)
            .collect();
        missing.dedup();
        for path in missing {
            let path = &self.paths[path];
            if self.reread.last() != Some(path) {
                self.reread_bytes += path.as_bytes().len();
                self.reread.push(path.clone());
            }
        }
        if self.reread.len() > FILES || self.reread_bytes > FILES_BYTES {
            return Err(Ended::TooMany);
        }
        // A long content is looked up in several turns: its path stays.
        let last = self.paths.pop();
        self.paths.clear();
        self.paths.extend(last);
        Ok(())
    }
}
