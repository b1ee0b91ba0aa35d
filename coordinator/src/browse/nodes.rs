//! Nodes of trees and lists, for code on blocking threads.

use crate::browse::Library;
use crate::error::{Error, Result};
use crate::repo::{FrameAddress, Reader};
use bytes::Bytes;
use holdfast_format::id::NodeId;
use holdfast_format::tree::NodeSource;
use tokio::runtime::Handle;

/// Reads nodes by id. Made on the runtime that its blocking thread belongs to.
pub struct Nodes {
    library: Library,
    runtime: Handle,
}

impl Nodes {
    /// Nodes of this repository.
    pub fn new(library: Library) -> Self {
        Self {
            library,
            runtime: Handle::current(),
        }
    }
}

impl NodeSource for Nodes {
    type Error = Error;

    fn load(&self, id: &NodeId) -> Result<Bytes> {
        self.runtime.block_on(self.library.node(id))
    }
}

impl Library {
    /// The stored bytes of a node; the caller checks that they have its id.
    async fn node(&self, id: &NodeId) -> Result<Bytes> {
        let found = self.catalog.locate_to_read(&[id.into_bytes()]).await?;
        let place = found.into_iter().next().flatten();
        let place = place.ok_or_else(|| Error::DamageFound {
            detail: format!("tree node {id} is in no pack that is known"),
        })?;
        let address = FrameAddress {
            pack: place.pack,
            header: place.header,
            frame_no: place.frame_no,
            offset: place.offset,
            stored_length: place.stored_length,
        };
        let plain = self.reader.tree_frame(&address).await?;
        Ok(Reader::item(
            &address,
            &plain,
            place.item_offset,
            place.item_length,
        )?)
    }
}
