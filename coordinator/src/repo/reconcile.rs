//! Brings a catalog up to its store: deletion records it has not seen, packs, marks and snapshot records
//! it does not know, records that are gone. The store is the truth, and nothing is written to it but, if
//! asked for, index segments.
//!
//! It is run after the repository was claimed and before anything is served. A catalog that was copied
//! back from an older time is right afterwards; an empty one holds everything that the store tells
//! (`rebuild`). What cannot be read is reported by name and left where it is.

use crate::catalog::{Catalog, CatalogError, DomainRow, MarkRow, SnapshotRow, VolumeRow};
use crate::repo::error::RepoError;
use crate::repo::store::Listed;
use crate::repo::{Repository, marks, snapshots};
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_format::FormatError;
use holdfast_format::id::{MarkId, SnapshotId, VolumeId};
use holdfast_format::mark::{Mark, MarkRecord};
use holdfast_format::names::{MARKS, ObjectName, SNAPSHOTS};
use std::collections::HashSet;
use std::pin::pin;

mod packs;
mod reading;

pub use reading::reconcile_to_read;

/// Requests to the store at a time.
const CONCURRENCY: usize = 16;
/// Objects of a listing that are compared at a time.
const PAGE: usize = 500;

/// What keeps a catalog from being brought up.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] RepoError),
    /// The catalog could not be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// Where the contents of packs that the catalog does not know are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// In their footers: there are few.
    Footers,
    /// In index segments, and in the footers of packs that none covers.
    Segments,
    /// The same, and segments are written for those.
    SegmentsAndMore,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What is being compared.
    pub stage: Stage,
    /// Objects compared so far.
    pub done_count: u64,
}

/// What is being compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Deletion records.
    Deletions,
    /// Packs.
    Packs,
    /// Marks.
    Marks,
    /// Snapshot records.
    Snapshots,
}

/// Told about each step.
pub type Progress<'a> = &'a (dyn Fn(Step) + Sync);

/// An object that is damaged or missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectProblem {
    /// Its name.
    pub object: String,
    /// What is wrong with it.
    pub detail: String,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciled {
    /// Deletion records that were applied.
    pub deletions: u64,
    /// Packs that were adopted.
    pub packs: u64,
    /// Marks that were adopted.
    pub marks: u64,
    /// Snapshots that were adopted.
    pub snapshots: u64,
    /// Snapshots that the catalog showed and the store has no record of: forgotten.
    pub forgotten: Vec<SnapshotId>,
    /// Reservations whose record is in the store: published.
    pub published: u64,
    /// Reservations that were dropped, because what they rely on may be gone.
    pub dropped: u64,
    /// Objects that are damaged or missing. None was deleted.
    pub problems: Vec<ObjectProblem>,
    /// Of the packs that were adopted, those that segments told of.
    pub from_segments: u64,
    /// Index segments that were written.
    pub segments: u64,
    /// What is of no use and costs time at most: index segments that are damaged or stale.
    pub notes: Vec<ObjectProblem>,
}

impl Reconciled {
    /// Whether the catalog lacked something that the store has.
    pub fn was_behind(&self) -> bool {
        self.deletions + self.packs + self.marks + self.snapshots > 0 || !self.forgotten.is_empty()
    }

    fn problem(&mut self, object: impl ToString, detail: impl ToString) {
        self.problems.push(ObjectProblem {
            object: object.to_string(),
            detail: detail.to_string(),
        });
    }

    fn note(&mut self, object: impl ToString, detail: impl ToString) {
        self.notes.push(ObjectProblem {
            object: object.to_string(),
            detail: detail.to_string(),
        });
    }

    /// The value; what is wrong with one object only is reported, and gives none.
    fn readable<T>(
        &mut self,
        object: ObjectName,
        read: Result<T, RepoError>,
    ) -> Result<Option<T>, RepoError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_of_object() => {
                self.problem(object, error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Makes the catalog agree with the store. Reservations whose record is not in the store stay for the
/// caller to put, unless packs were deleted or are missing: then what they rely on may be gone, and they
/// are dropped; their agents come again with the same key.
pub async fn reconcile(
    catalog: &Catalog,
    repository: &Repository,
    now_ns: i64,
    progress: Progress<'_>,
) -> Result<Reconciled> {
    reconcile_new(catalog, repository, now_ns, Index::Footers, progress).await
}

/// The same for a catalog that knows little or nothing: reads index segments where they are of use.
pub(super) async fn reconcile_new(
    catalog: &Catalog,
    repository: &Repository,
    now_ns: i64,
    index: Index,
    progress: Progress<'_>,
) -> Result<Reconciled> {
    let work = Work {
        catalog,
        repository,
        now_ns,
        progress,
        index,
    };
    work.all().await
}

struct Work<'a> {
    catalog: &'a Catalog,
    repository: &'a Repository,
    now_ns: i64,
    progress: Progress<'a>,
    index: Index,
}

impl Work<'_> {
    /// Deletions, packs, marks, snapshots, in this order.
    async fn all(&self) -> Result<Reconciled> {
        let mut found = Reconciled::default();
        let deleted = self.deletions(&mut found).await?;
        let mut missing = self.packs(&mut found, deleted).await?;
        let newly = missing.newly_count;
        if newly > 0 && !deleted {
            // Another pack may have a copy of what was in them.
            missing = self.packs(&mut found, true).await?;
        }
        for id in missing.packs {
            let detail =
                "it is missing in the store, or cut off; what only it holds is uploaded again";
            found.problem(ObjectName::Pack(id), detail);
        }
        self.marks(&mut found).await?;
        self.snapshots(&mut found).await?;
        if newly > 0 || found.deletions > 0 {
            for reserved in self.catalog.unpublished().await? {
                self.catalog.drop_reservation(&reserved.key).await?;
                found.dropped += 1;
            }
        }
        Ok(found)
    }

    fn step(&self, stage: Stage, done_count: u64) {
        (self.progress)(Step { stage, done_count });
    }

    /// Applies deletion records above the highest applied one; whether known packs went with them.
    async fn deletions(&self, found: &mut Reconciled) -> Result<bool> {
        let (store, keyring) = (self.repository.store(), self.repository.keyring());
        let applied = self.catalog.deletion_applied().await?;
        let mut dropped = false;
        for number in snapshots::deletion_numbers(store).await? {
            if number <= applied {
                continue;
            }
            let read = snapshots::read_deletion(store, keyring, number).await;
            if let Some(record) = found.readable(ObjectName::Deletion(number), read)? {
                dropped |= self.catalog.apply_deletion(number, &record.packs).await?;
                found.deletions += 1;
                self.step(Stage::Deletions, found.deletions);
            }
        }
        Ok(dropped)
    }

    async fn marks(&self, found: &mut Reconciled) -> Result<()> {
        let (store, keyring) = (self.repository.store(), self.repository.keyring());
        let mut listing = pin!(store.list_stream(MARKS).chunks(PAGE));
        let mut done_count = 0;
        while let Some(page) = listing.next().await {
            let page = page
                .into_iter()
                .collect::<Result<Vec<Listed>, RepoError>>()?;
            done_count += page.len() as u64;
            let ids: Vec<MarkId> = page.into_iter().filter_map(mark_of).collect();
            let known = self.catalog.known_marks(&ids).await?;
            let unknown = ids.into_iter().zip(known).filter(|(_, known)| !known);
            let reads = stream::iter(unknown)
                .map(|(id, _)| async move { (id, marks::read(store, keyring, id).await) });
            let reads: Vec<_> = reads.buffer_unordered(CONCURRENCY).collect().await;
            let mut rows = Vec::new();
            for (id, read) in reads {
                let name = ObjectName::Mark(id);
                let Some(record) = found.readable(name, read)? else {
                    continue;
                };
                let row = MarkRow::of(id, &record).map_err(RepoError::from);
                if let Some(row) = found.readable(name, row)? {
                    self.state_fact(&record).await?;
                    rows.push(row);
                }
            }
            // After the facts: a mark that is indexed has been acted on.
            self.catalog.add_marks(&rows).await?;
            found.marks += rows.len() as u64;
            self.step(Stage::Marks, done_count);
        }
        Ok(())
    }

    async fn state_fact(&self, record: &MarkRecord) -> Result<()> {
        match &record.mark {
            Mark::Domain {
                id,
                generation,
                namespace,
            } => {
                let row = DomainRow {
                    id: *id,
                    generation: *generation,
                    namespace: namespace.clone(),
                    bound_ns: record.time_ns,
                };
                self.catalog.bind_domain(&row).await?;
            }
            Mark::Volume { id, domain, facts } => {
                let row = VolumeRow {
                    id: *id,
                    domain: *domain,
                    facts: facts.clone(),
                    bound_ns: record.time_ns,
                };
                self.catalog.bind_volume(&row).await?;
            }
            Mark::Pin { .. }
            | Mark::Hold { .. }
            | Mark::Release { .. }
            | Mark::Acknowledge { .. } => {}
        }
        Ok(())
    }

    async fn snapshots(&self, found: &mut Reconciled) -> Result<()> {
        let mut gone: HashSet<SnapshotId> =
            self.catalog.snapshot_ids().await?.into_iter().collect();
        let reserved = self.catalog.unpublished().await?;
        let reserved: HashSet<SnapshotId> = reserved.iter().map(|row| row.snapshot).collect();
        let listing = self.repository.store().list_stream(SNAPSHOTS);
        let listing = listing.try_filter_map(async |found| Ok(snapshot_of(found)));
        let mut listing = pin!(listing.chunks(PAGE));
        let mut done_count = 0;
        while let Some(page) = listing.next().await {
            let page = page.into_iter().collect::<Result<Vec<_>, RepoError>>()?;
            done_count += page.len() as u64;
            let unknown: Vec<_> = page
                .into_iter()
                .filter(|(_, id)| !gone.remove(id))
                .collect();
            let reads = stream::iter(unknown).map(|(volume, id)| async move {
                (volume, id, self.repository.read_snapshot(volume, id).await)
            });
            let mut reads = pin!(reads.buffer_unordered(CONCURRENCY));
            while let Some((volume, id, read)) = reads.next().await {
                let name = ObjectName::Snapshot { volume, id };
                let Some(stored) = found.readable(name, read)? else {
                    continue;
                };
                let row = SnapshotRow::of(id, &stored.record, stored.size);
                let row = row.map_err(|error: FormatError| RepoError::of_object(name, error));
                let Some(row) = found.readable(name, row)? else {
                    continue;
                };
                let volume = VolumeRow {
                    id: volume,
                    domain: stored.record.domain,
                    facts: stored.record.facts,
                    bound_ns: stored.record.received_ns,
                };
                self.catalog.bind_volume(&volume).await?;
                self.catalog.publish(&row).await?;
                if reserved.contains(&id) {
                    found.published += 1;
                } else {
                    found.snapshots += 1;
                }
            }
            self.step(Stage::Snapshots, done_count);
        }
        for id in gone {
            self.catalog.forget(&id, self.now_ns).await?;
            found.forgotten.push(id);
        }
        found.forgotten.sort_unstable();
        Ok(())
    }
}

fn mark_of(listed: Listed) -> Option<MarkId> {
    match listed.name {
        Some(ObjectName::Mark(id)) => Some(id),
        _ => None,
    }
}

fn snapshot_of(listed: Listed) -> Option<(VolumeId, SnapshotId)> {
    match listed.name {
        Some(ObjectName::Snapshot { volume, id }) => Some((volume, id)),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
