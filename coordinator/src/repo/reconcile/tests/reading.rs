//! A reader lists packs only where somebody may have written since.

use super::super::reading::compare;
use super::*;
use crate::repo::claim::{Claimant, acquire};
use holdfast_format::claim::ClaimKey;
use holdfast_format::id::CatalogId;
use holdfast_runtime::clock::ManualClock;
use std::sync::Arc;
use std::time::Duration;

const OTHER: CatalogId = CatalogId::from_bytes([0x77; 16]);

/// Owns the repository for a moment, does something, and gives it back.
async fn own(world: &World, catalog: CatalogId) -> ClaimKey {
    let claimant = Claimant {
        catalog,
        host: "host".into(),
        completed_epoch: 0,
        take_over: false,
        request_limit: Duration::from_secs(300),
        clock: Arc::new(ManualClock::at(NOW)),
    };
    let claim = acquire(world.repository.store(), &claimant, |_| {});
    let claim = claim.await.unwrap();
    let key = claim.key();
    claim.release().await.unwrap();
    key
}

/// Whether a reader compared the packs: told by the steps.
async fn read(world: &World, catalog: &Catalog) -> (bool, Reconciled) {
    let looked = std::sync::atomic::AtomicBool::new(false);
    let progress = |step: Step| {
        if step.stage == Stage::Packs {
            looked.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let found = compare(catalog, &world.repository, NOW, &progress);
    let found = found.await.unwrap();
    (looked.into_inner(), found)
}

#[tokio::test]
async fn a_reader_looks_at_packs_only_after_somebody_owned_the_repository() {
    let mut world = World::new().await;
    world.backup(1, Until::Published).await;
    // Nobody has given a claim back: nothing is known.
    assert!(read(&world, &world.catalog).await.0);
    assert!(read(&world, &world.catalog).await.0);
    own(&world, CATALOG).await;
    assert!(read(&world, &world.catalog).await.0, "the first after it");
    assert!(!read(&world, &world.catalog).await.0);

    // Another host stores something: all is compared, once.
    let older = world.copy();
    let elsewhere = world.copy();
    world.catalog.close().await.unwrap();
    world.catalog = Catalog::open(elsewhere.path(), &REPOSITORY, Mode::ReadWrite)
        .await
        .unwrap();
    world.backup(2, Until::Published).await;
    own(&world, OTHER).await;
    let catalog = Catalog::open(world.state.path(), &REPOSITORY, Mode::ReadWrite)
        .await
        .unwrap();
    let (looked, found) = read(&world, &catalog).await;
    assert_eq!((looked, found.packs, found.snapshots), (true, 1, 1));
    assert!(!read(&world, &catalog).await.0);
    // One that leaves the records as they are.
    let pin = MarkRecord {
        mark: Mark::Pin {
            snapshot: catalog.snapshot_ids().await.unwrap()[0],
            reason: String::new(),
        },
        time_ns: 4,
        actor: String::new(),
    };
    world.repository.put_mark(&pin).await.unwrap();
    own(&world, OTHER).await;
    let (looked, found) = read(&world, &catalog).await;
    assert_eq!((looked, found.marks), (true, 1));
    // A copy from before that remembers an older claim.
    let old = Catalog::open(older.path(), &REPOSITORY, Mode::ReadWrite)
        .await
        .unwrap();
    let (looked, found) = read(&world, &old).await;
    assert_eq!((looked, found.packs), (true, 1));
}

#[tokio::test]
async fn while_somebody_owns_it_everything_is_compared() {
    let mut world = World::new().await;
    world.backup(1, Until::Published).await;
    let last = own(&world, CATALOG).await;
    assert!(read(&world, &world.catalog).await.0);
    assert_eq!(world.catalog.agreed_under().await.unwrap(), Some(last));
    let body = holdfast_format::claim::Claim {
        epoch: last.epoch + 1,
        catalog: OTHER,
        host: "another".into(),
        started_ns: NOW,
    };
    let name = ObjectName::Claim {
        epoch: body.epoch,
        catalog: body.catalog,
    };
    let put = world.repository.store().put(&name, body.encode().unwrap());
    put.await.unwrap();
    for _ in 0..2 {
        world.backup(1, Until::Put).await;
        assert!(read(&world, &world.catalog).await.0);
    }
}

#[tokio::test]
async fn a_record_that_is_lost_or_new_is_seen_and_damage_is_told_again() {
    let mut world = World::new().await;
    world.backup(1, Until::Published).await;
    let (pack, reservation) = world.backup(2, Until::Published).await;
    own(&world, CATALOG).await;
    read(&world, &world.catalog).await;
    let record = world.store_file(&ObjectName::Snapshot {
        volume: VolumeId::from_bytes([2; 16]),
        id: reservation.snapshot,
    });
    let bytes = std::fs::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    let (looked, found) = read(&world, &world.catalog).await;
    assert_eq!(
        (looked, found.forgotten),
        (true, vec![reservation.snapshot])
    );
    assert!(!read(&world, &world.catalog).await.0);
    std::fs::write(&record, bytes).unwrap();
    assert!(read(&world, &world.catalog).await.0);

    // Where something is missing, each reader is told.
    own(&world, CATALOG).await;
    std::fs::remove_file(world.store_file(&ObjectName::Pack(pack))).unwrap();
    for _ in 0..2 {
        let (looked, found) = read(&world, &world.catalog).await;
        assert_eq!((looked, found.problems.len()), (true, 1));
    }
}
