//! Nodes in memory: a source and a sink for small trees and for tests.

use super::{NodeSink, NodeSource};
use crate::error::FormatError;
use crate::id::NodeId;
use bytes::Bytes;
use std::collections::HashMap;

/// Nodes by id.
#[derive(Clone, Debug, Default)]
pub struct MemoryNodes {
    /// The nodes.
    pub nodes: HashMap<NodeId, Bytes>,
}

impl NodeSource for MemoryNodes {
    type Error = FormatError;

    fn load(&self, id: &NodeId) -> Result<Bytes, FormatError> {
        let found = self.nodes.get(id).cloned();
        found.ok_or(FormatError::NodeMissing(*id))
    }
}

impl NodeSink for MemoryNodes {
    type Error = FormatError;

    fn store(&mut self, id: NodeId, bytes: Bytes) -> Result<(), FormatError> {
        self.nodes.insert(id, bytes);
        Ok(())
    }
}
