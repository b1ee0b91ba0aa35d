//! What the uploads of a session have brought so far.

use crate::catalog::Reservation;
use crate::session::holds::Holds;
use crate::session::problems::ProblemsTask;
use crate::session::ticket::Ticket;
use crate::session::tree_task::TreeTask;
use holdfast_format::id::SnapshotId;
use holdfast_format::path::RelPath;
use std::sync::Arc;

/// Belongs to whoever uploads or commits.
pub struct Run {
    /// Chunks to be held that are stored already.
    pub holds: Holds,
    /// Packs whose fate is not known yet.
    waiting: Vec<Arc<Ticket>>,
    /// Number of the last message of this stream that was taken.
    pub seq: u64,
    /// Path of the entry whose extents are coming.
    pub path: RelPath,
    /// The entries tree in the making.
    pub tree: Option<TreeTask>,
    /// The problems tree in the making.
    pub problems: Option<ProblemsTask>,
    /// What the coordinator counts.
    pub stats: RunStats,
    /// A record that was reserved and is not published yet.
    pub reserved: Option<Reservation>,
    /// The run's snapshot.
    pub committed: Option<SnapshotId>,
}

/// What the coordinator knows better than the agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunStats {
    /// Chunks that were new.
    pub new_chunks: u64,
    /// Their plain bytes.
    pub new_chunk_bytes: u64,
    /// Payload bytes of the frames that were added to packs.
    pub stored_bytes: u64,
    /// Plain bytes of those of them that hold chunks.
    pub frame_plain_bytes: u64,
    /// Payload bytes of those.
    pub frame_packed_bytes: u64,
}

impl Run {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            holds: Holds::default(),
            waiting: Vec::new(),
            seq: 0,
            path: RelPath::root(),
            tree: None,
            problems: None,
            stats: RunStats::default(),
            reserved: None,
            committed: None,
        }
    }

    /// A new stream brings all entries again; chunks that came stay proven.
    pub fn begin_stream(&mut self) {
        self.seq = 0;
        self.tree = None;
        self.problems = None;
    }

    /// The commit waits for this pack.
    pub fn wait_for(&mut self, ticket: &Arc<Ticket>) {
        if self.waiting.iter().any(|known| Arc::ptr_eq(known, ticket)) {
            return;
        }
        self.waiting.retain(|ticket| !ticket.is_durable());
        self.waiting.push(ticket.clone());
    }

    /// Packs that are not durable yet, or have failed.
    pub fn waiting(&mut self) -> &[Arc<Ticket>] {
        self.waiting.retain(|ticket| !ticket.is_durable());
        &self.waiting
    }
}
