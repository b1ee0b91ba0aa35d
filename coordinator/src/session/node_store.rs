//! Where the nodes of a tree in the making go: into the domain's tree pack, in frames of at most 64 KiB
//! of consecutive nodes. A node that is stored already is not stored again.

use crate::Core;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::doubt::Doubt;
use crate::session::known::Proven;
use crate::session::pack_pool::{Domain, Presence};
use crate::session::ticket::Ticket;
use bytes::Bytes;
use holdfast_format::frame::FrameBuilder;
use holdfast_format::id::NodeId;
use holdfast_format::pack::ItemKind;
use holdfast_format::tree::NodeSink;
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;

/// Most plain bytes of a tree frame.
const FRAME_BYTES: usize = 64 * 1024;
/// Nodes wait until they have this many bytes, so that many are looked up at once.
const BATCH_BYTES: usize = 1 << 20;

/// Collects nodes. For a blocking thread of the runtime.
pub struct NodeStore {
    core: Arc<Core>,
    domain: Arc<Domain>,
    proven: Arc<Mutex<Proven>>,
    doubt: Option<Arc<Doubt>>,
    runtime: Handle,
    waiting: Vec<(NodeId, Bytes)>,
    waiting_bytes: usize,
    stored: Stored,
}

/// What was stored.
#[derive(Default)]
pub struct Stored {
    /// Packs that hold the nodes and are not known to be durable.
    pub tickets: Vec<Arc<Ticket>>,
    /// Payload bytes of the frames.
    pub bytes: u64,
}

impl NodeStore {
    /// Collects for this session; called on the runtime that the blocking thread belongs to.
    pub fn new(session: &Session) -> Self {
        Self {
            core: session.core.clone(),
            domain: session.domain.clone(),
            proven: session.proven.clone(),
            doubt: session.doubt.clone(),
            runtime: Handle::current(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            stored: Stored::default(),
        }
    }

    /// Stores what still waits.
    pub fn finish(mut self) -> Result<Stored> {
        self.flush()?;
        Ok(self.stored)
    }

    fn flush(&mut self) -> Result<()> {
        let nodes = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let ids: Vec<[u8; 32]> = nodes.iter().map(|(id, _)| id.into_bytes()).collect();
        let found = self.runtime.block_on(self.presence(&ids))?;
        let mut seen = HashSet::with_capacity(ids.len());
        let mut frame = FrameBuilder::new();
        for ((id, bytes), presence) in nodes.iter().zip(found) {
            match presence {
                Presence::Absent if seen.insert(*id) => {
                    if !frame.is_empty() && frame.plain_bytes() + bytes.len() > FRAME_BYTES {
                        self.store_frame(std::mem::take(&mut frame))?;
                    }
                    frame.push(id.into_bytes(), bytes)?;
                }
                Presence::Absent | Presence::Stored => {}
                Presence::Pending(ticket) => self.note(ticket),
            }
        }
        {
            let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.iter().try_for_each(|(id, _)| proven.rely_on(id))?;
        }
        match frame.is_empty() {
            true => Ok(()),
            false => self.store_frame(frame),
        }
    }

    async fn presence(&self, ids: &[[u8; 32]]) -> Result<Vec<Presence>> {
        match &self.doubt {
            Some(doubt) => doubt.presence(&self.core, &self.domain, ids).await,
            None => self.core.pool.presence(&self.domain, ids).await,
        }
    }

    fn store_frame(&mut self, frame: FrameBuilder) -> Result<()> {
        let frame = frame.finish(self.core.settings.packs.level)?;
        self.stored.bytes += frame.payload.len() as u64;
        let added = self
            .core
            .pool
            .add(&self.domain, frame, ItemKind::Node, None);
        let ticket = self.runtime.block_on(added)?;
        self.note(ticket);
        Ok(())
    }

    fn note(&mut self, ticket: Arc<Ticket>) {
        let tickets = &mut self.stored.tickets;
        if !tickets.iter().any(|known| Arc::ptr_eq(known, &ticket)) {
            tickets.retain(|ticket| !ticket.is_durable());
            tickets.push(ticket);
        }
    }
}

impl NodeSink for NodeStore {
    type Error = Error;

    fn store(&mut self, id: NodeId, bytes: Bytes) -> Result<()> {
        self.waiting_bytes += bytes.len();
        self.waiting.push((id, bytes));
        match self.waiting_bytes >= BATCH_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }
}

/// One store for the tree and for the lists of its contents, which are made in turns.
#[derive(Clone, Copy)]
pub struct SharedStore<'a>(pub &'a RefCell<NodeStore>);

impl NodeSink for SharedStore<'_> {
    type Error = Error;

    fn store(&mut self, id: NodeId, bytes: Bytes) -> Result<()> {
        self.0.borrow_mut().store(id, bytes)
    }
}
