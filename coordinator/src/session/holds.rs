//! Chunks that a session sent although they were stored before it: the volume holds them from now on.
//!
//! They wait here, so that a transaction takes thousands of them; whoever is acknowledged for one
//! waits for the ticket of its batch.

use crate::catalog::{Catalog, VolumeNo};
use crate::error::{Error, Result};
use crate::session::ticket::Ticket;
use holdfast_format::id::ChunkId;
use std::sync::Arc;

/// Ids after which a batch is written.
pub const BATCH: usize = 8192;

/// The batch that is being collected.
pub struct Holds {
    ids: Vec<ChunkId>,
    after: Vec<Arc<Ticket>>,
    ticket: Arc<Ticket>,
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            after: Vec::new(),
            ticket: Ticket::new(),
        }
    }
}

impl Holds {
    /// Takes an id in; `after` is the ticket of the pack it is in, when that is not durable yet.
    pub fn push(&mut self, id: ChunkId, after: Option<Arc<Ticket>>) {
        self.ids.push(id);
        if let Some(after) = after
            && !self.after.iter().any(|known| Arc::ptr_eq(known, &after))
        {
            self.after.push(after);
        }
    }

    /// What stands for the batch.
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    /// The packs that the batch waits for.
    pub fn after(&self) -> &[Arc<Ticket>] {
        &self.after
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether it is time to write the batch.
    pub fn is_full(&self) -> bool {
        self.ids.len() >= BATCH
    }

    /// Writes the batch, once its packs are durable.
    pub async fn write(&mut self, catalog: &Catalog, volume: VolumeNo) -> Result<()> {
        let batch = std::mem::take(self);
        let result = batch.write_out(catalog, volume).await;
        match &result {
            Ok(()) => batch.ticket.durable(),
            // The session fails with the error itself.
            Err(_) => batch
                .ticket
                .failed(Arc::new(Error::internal("hold chunks"))),
        }
        result
    }

    async fn write_out(&self, catalog: &Catalog, volume: VolumeNo) -> Result<()> {
        for ticket in &self.after {
            ticket.wait().await?;
        }
        let present = catalog.hold(volume, &self.ids).await?;
        let gone = self.ids.iter().zip(present).filter(|(_, present)| !present);
        let chunks: Vec<[u8; 32]> = gone.map(|(id, _)| id.into_bytes()).collect();
        match chunks.is_empty() {
            true => Ok(()),
            false => Err(Error::ChunkGone { chunks }),
        }
    }
}
