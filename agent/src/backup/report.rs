//! What a run tells of itself.

use super::compare::Compared;
use crate::index::Discarded;
use crate::progress::ProgressView;
use holdfast_format::path::RelPath;
use holdfast_format::wire::SnapshotInfo;

/// A finished run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The snapshot it made: id, counters, problems.
    pub snapshot: SnapshotInfo,
    /// The run's own counters.
    pub counters: ProgressView,
    /// Why the index was built again; `None`: it was used, or there was no parent.
    pub index_discarded: Option<Discarded>,
    /// What could not be read of the snapshot before: everything was read, and this snapshot relies on
    /// nothing of that one.
    pub parent_damage: Option<String>,
    /// Why the volume was walked; `None`: its journal told what to look at.
    pub walk: Option<&'static str>,
    /// Mounts inside the volume, recorded empty; the first ones.
    pub boundaries: Vec<RelPath>,
    /// How many there are.
    pub boundary_count: u64,
    /// Entries that the rules left out.
    pub excluded_count: u64,
    /// An earlier try of this run had made the snapshot already.
    pub committed_before: bool,
}

impl RunReport {
    pub(super) fn new(
        snapshot: SnapshotInfo,
        counters: ProgressView,
        compared: Compared,
        index_discarded: Option<Discarded>,
        parent_damage: Option<String>,
        walk: Option<&'static str>,
    ) -> Self {
        Self {
            walk,
            snapshot,
            counters,
            index_discarded,
            parent_damage,
            boundaries: compared.boundaries,
            boundary_count: compared.boundary_count,
            excluded_count: compared.excluded_count,
            committed_before: false,
        }
    }

    pub(super) fn committed_before(snapshot: SnapshotInfo, counters: ProgressView) -> Self {
        Self {
            snapshot,
            counters,
            index_discarded: None,
            parent_damage: None,
            walk: None,
            boundaries: Vec::new(),
            boundary_count: 0,
            excluded_count: 0,
            committed_before: true,
        }
    }

    /// Problems of the snapshot.
    pub fn problems(&self) -> u64 {
        self.snapshot.problems
    }
}
