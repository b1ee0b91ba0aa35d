//! A reader's comparison of its catalog with the store.
//!
//! [`reconcile`] lists every pack: a thousand a request, so a repository of a million packs (32 TB) costs
//! a thousand requests, some minutes on a remote store and a second or two in a local directory. Whoever
//! is about to write pays that at each start, because what it stores relies on packs being there. A
//! reader of a remote store need not:
//!
//! Everything but claims and segments is written under a claim, and each owner's claim is higher than
//! those before. So while the highest claim in the store is a released one under which this catalog was
//! the same as the store, nobody has written since, and there is nothing to learn. It is remembered by
//! the owner that released it, and by readers that compared everything while it stood. An older copy of
//! the catalog remembers an older claim. The snapshot records are compared all the same: they are few,
//! and one that is lost must not be shown.
//!
//! What this leaves out is packs that were lost without anybody's claim: a reader that needs one says so
//! when it does, and the next owner finds out at its start.

use super::{Progress, Reconciled, Result, reconcile, snapshot_of};
use crate::catalog::Catalog;
use crate::repo::claim::released;
use crate::repo::{Repository, StoreUrl};
use futures::{StreamExt, TryStreamExt};
use holdfast_format::id::SnapshotId;
use holdfast_format::names::SNAPSHOTS;
use std::collections::HashSet;
use std::pin::pin;

/// Makes the catalog agree with the store, for a process that will only read: as [`reconcile`] does, but
/// without listing packs where nobody can have written since it agreed before.
pub async fn reconcile_to_read(
    catalog: &Catalog,
    repository: &Repository,
    now_ns: i64,
    progress: Progress<'_>,
) -> Result<Reconciled> {
    match StoreUrl::parse(repository.store().url_redacted()) {
        // Listing is cheap, and tells of what was lost.
        Ok(StoreUrl::Directory(_)) => reconcile(catalog, repository, now_ns, progress).await,
        _ => compare(catalog, repository, now_ns, progress).await,
    }
}

pub(super) async fn compare(
    catalog: &Catalog,
    repository: &Repository,
    now_ns: i64,
    progress: Progress<'_>,
) -> Result<Reconciled> {
    let store = repository.store();
    let before = released(store).await?;
    let agreed = before.is_some() && catalog.agreed_under().await? == before;
    if agreed && same_records(catalog, repository).await? {
        return Ok(Reconciled::default());
    }
    let found = reconcile(catalog, repository, now_ns, progress).await?;
    // What is damaged or missing is told by every reader.
    if let Some(claim) = before
        && found.problems.is_empty()
        && released(store).await? == before
    {
        catalog.set_agreed_under(&claim).await?;
    }
    Ok(found)
}

async fn same_records(catalog: &Catalog, repository: &Repository) -> Result<bool> {
    let known: HashSet<SnapshotId> = catalog.snapshot_ids().await?.into_iter().collect();
    let listing = repository.store().list_stream(SNAPSHOTS);
    let mut listing = pin!(listing.try_filter_map(async |found| Ok(snapshot_of(found))));
    let mut count = 0;
    while let Some(found) = listing.next().await {
        let (_, id) = found?;
        if !known.contains(&id) {
            return Ok(false);
        }
        count += 1;
    }
    Ok(count == known.len())
}
