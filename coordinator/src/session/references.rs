//! Entries from an agent: a chunk that one names must be held by its volume or sent by this session.
//!
//! What another volume holds is neither confirmed nor usable. A content that is as in the parent needs
//! no check: it is the coordinator that copies it.

use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::run::Run;
use crate::session::tree_task::TreeTask;
use holdfast_format::entry::{Extent, XattrValue};
use holdfast_format::id::ChunkId;
use holdfast_format::path::RelPath;
use holdfast_format::wire::{WireChange, WireContent};

impl Session {
    /// Checks every reference of a batch of changes, then hands it to the tree.
    pub(super) async fn take_changes(&self, run: &mut Run, changes: Vec<WireChange>) -> Result<()> {
        if changes.is_empty() {
            // A sign of life.
            return Ok(());
        }
        self.check_references(run, &changes).await?;
        let tree = match &mut run.tree {
            Some(tree) => tree,
            None => run.tree.insert(TreeTask::start(self)),
        };
        tree.send(changes).await
    }

    async fn check_references(&self, run: &mut Run, changes: &[WireChange]) -> Result<()> {
        let mut unknown: Vec<ChunkId> = Vec::new();
        let mut paths: Vec<RelPath> = Vec::new();
        {
            let proven = self.proven();
            for change in changes {
                if let WireChange::Put { path, .. } = change {
                    run.path = path.clone();
                }
                let before = unknown.len();
                unknown.extend(references(change).filter(|id| !proven.contains(id.as_bytes())));
                paths.resize(paths.len() + unknown.len() - before, run.path.clone());
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let held = self.core.catalog.held(self.volume.no, &unknown).await?;
        let mut proven = self.proven();
        for ((chunk, held), path) in unknown.into_iter().zip(held).zip(paths) {
            if !held {
                let path = path.to_string();
                return Err(Error::UnknownChunkReference { path, chunk });
            }
            proven.insert(chunk.as_bytes())?;
        }
        Ok(())
    }
}

/// The chunks that a change names.
fn references(change: &WireChange) -> impl Iterator<Item = &ChunkId> {
    let (content, xattrs): (&[Extent], &[_]) = match change {
        WireChange::Put { entry, content, .. } => {
            let content = match content {
                WireContent::Extents { extents: first, .. }
                | WireContent::LongExtents { first, .. } => first.as_slice(),
                WireContent::Empty
                | WireContent::Inline(_)
                | WireContent::AsInParent(_)
                | WireContent::Omitted => &[],
            };
            (content, &entry.xattrs)
        }
        WireChange::More(extents) => (extents, &[]),
        WireChange::End | WireChange::Remove(_) => (&[], &[]),
    };
    let values = xattrs.iter().flat_map(|xattr| match &xattr.value {
        XattrValue::Chunks(extents) => extents.as_slice(),
        XattrValue::Inline(_) => &[],
    });
    content
        .iter()
        .chain(values)
        .filter_map(|extent| match extent {
            Extent::Chunk { id, .. } => Some(id),
            Extent::Hole { .. } => None,
        })
}
