//! One upload, from begin to commit: what an agent sends is checked, stored and made into a snapshot.
//!
//! A session belongs to one epoch of its volume's lease. A new begin with the same key makes a new one
//! of it, which starts its entries from nothing; chunks that were acknowledged are held by the volume
//! and need not come again.
//!
//! Imports inside go down this list: `registry → proof, commit, upload → signals, receive, references, tree_task,
//! problems → node_store → doubt → pack_pool → open_pack, ticket`.

mod acks;
mod commit;
mod doubt;
mod filter;
mod holds;
mod known;
mod lease;
mod node_store;
mod open_pack;
mod pack_pool;
mod problems;
mod proof;
mod receive;
mod references;
mod registry;
mod run;
mod signals;
mod spool;
mod ticket;
mod tree_task;
mod upload;

pub use commit::Told;
pub use pack_pool::{PackPool, PoolParts};
pub use registry::{Begin, Sessions};
pub use upload::{Body, Message};

use crate::Core;
use crate::catalog::{PruneNumber, Volume};
use crate::error::{Error, Result};
use doubt::Doubt;
use holdfast_format::id::{ChunkId, IdempotencyKey, NodeId, SessionId, SnapshotId};
use holdfast_format::volume::VolumeFacts;
use holdfast_format::wire::Limits;
use known::Proven;
use lease::Lease;
use pack_pool::Domain;
use run::Run;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The protocol that this coordinator speaks.
pub const PROTOCOL: u32 = 1;

/// The snapshot that a run's changes are against.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Its id.
    pub id: SnapshotId,
    /// Its sequence.
    pub sequence: u64,
    /// Root of its entries tree.
    pub root: NodeId,
    /// Root of its problems tree.
    pub problems_root: Option<NodeId>,
}

/// An open session.
pub struct Session {
    core: Arc<Core>,
    /// Its id.
    pub id: SessionId,
    key: IdempotencyKey,
    lease: Lease,
    volume: Volume,
    facts: VolumeFacts,
    domain: Arc<Domain>,
    parent: Option<Parent>,
    started_ns: i64,
    stamped_since: PruneNumber,
    proven: Arc<Mutex<Proven>>,
    /// Of a session whose parent could not be read.
    doubt: Option<Arc<Doubt>>,
    run: tokio::sync::Mutex<Run>,
}

/// What a session is made of.
struct SessionParts {
    core: Arc<Core>,
    id: SessionId,
    key: IdempotencyKey,
    lease: Lease,
    volume: Volume,
    facts: VolumeFacts,
    domain: Arc<Domain>,
    parent: Option<Parent>,
    started_ns: i64,
    stamped_since: PruneNumber,
    doubt: Option<Doubt>,
}

impl Session {
    fn new(parts: SessionParts) -> Self {
        let proven = Proven::new(parts.core.spool_dir());
        Self {
            core: parts.core,
            id: parts.id,
            key: parts.key,
            lease: parts.lease,
            volume: parts.volume,
            facts: parts.facts,
            domain: parts.domain,
            parent: parts.parent,
            started_ns: parts.started_ns,
            stamped_since: parts.stamped_since,
            proven: Arc::new(Mutex::new(proven)),
            doubt: parts.doubt.map(Arc::new),
            run: tokio::sync::Mutex::new(Run::new()),
        }
    }

    /// What entries of this session must keep to.
    pub fn limits(&self) -> Limits {
        let config = self.core.repository.config();
        Limits {
            inline_limit: config.inline_limit,
            profile: Some(config.default_profile),
        }
    }

    /// Which of these chunks the volume does not hold, as ascending indexes.
    pub async fn find_missing(&self, epoch: u64, chunks: &[ChunkId]) -> Result<Vec<u32>> {
        self.lease.check(epoch).await?;
        let ask: Vec<u32> = {
            let proven = self.proven();
            let asked = (0u32..).zip(chunks);
            asked
                .filter(|(_, id)| proven.length(id).is_none())
                .map(|(n, _)| n)
                .collect()
        };
        let ids: Vec<ChunkId> = ask.iter().map(|n| chunks[*n as usize]).collect();
        let held = match ids.is_empty() {
            true => Vec::new(),
            false => self.core.catalog.held(self.volume.no, &ids).await?,
        };
        let mut missing = Vec::new();
        let mut proven = self.proven();
        for ((n, id), held) in ask.into_iter().zip(&ids).zip(held) {
            match held {
                Some(length) => proven.insert(id, length)?,
                None => missing.push(n),
            }
        }
        Ok(missing)
    }

    /// Ends it: an upload breaks off, a commit that is under way is waited for.
    async fn stop(&self) {
        self.lease.lose();
        drop(self.run.lock().await);
    }

    /// The run, unless the lease is lost while another call has it.
    async fn run(&self) -> Result<tokio::sync::MutexGuard<'_, Run>> {
        tokio::select! {
            run = self.run.lock() => Ok(run),
            () = self.lease.lost() => Err(Error::LeaseLost),
        }
    }

    fn proven(&self) -> MutexGuard<'_, Proven> {
        // What is proven only grows; a panic cannot leave it half changed.
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
