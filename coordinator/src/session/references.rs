//! Entries from an agent: a chunk that one names must be held by its volume or sent by this session, and
//! be as long as the entry says.
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
        let mut claims: Vec<(RelPath, u32)> = Vec::new();
        {
            let proven = self.proven();
            for change in changes {
                if let WireChange::Put { path, .. } = change {
                    run.path = path.clone();
                }
                for (chunk, claimed) in references(change) {
                    match proven.length(chunk) {
                        Some(length) => check_length(&run.path, chunk, claimed, length)?,
                        None => {
                            unknown.push(*chunk);
                            claims.push((run.path.clone(), claimed));
                        }
                    }
                }
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let held = self.core.catalog.held(self.volume.no, &unknown).await?;
        let mut proven = self.proven();
        for ((chunk, held), (path, claimed)) in unknown.into_iter().zip(held).zip(claims) {
            let Some(length) = held else {
                let path = path.to_string();
                return Err(Error::UnknownChunkReference { path, chunk });
            };
            check_length(&path, &chunk, claimed, length)?;
            proven.insert(&chunk, length)?;
        }
        Ok(())
    }
}

fn check_length(path: &RelPath, chunk: &ChunkId, claimed: u32, length: u32) -> Result<()> {
    match claimed == length {
        true => Ok(()),
        false => Err(Error::WrongChunkLength {
            path: path.to_string(),
            chunk: *chunk,
            claimed,
            length,
        }),
    }
}

/// The chunks that a change names, with the lengths that it claims.
fn references(change: &WireChange) -> impl Iterator<Item = (&ChunkId, u32)> {
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
            Extent::Chunk { id, length } => Some((id, *length)),
            Extent::Hole { .. } => None,
        })
}
