//! A catalog behind its store is made right; one from the store alone equals the original.

mod reading;
mod segments;
mod world;

use super::*;
use crate::catalog::Mode;
use std::collections::BTreeSet;
use world::*;

#[tokio::test]
async fn a_catalog_from_the_store_alone_equals_the_original() {
    let mut world = World::new().await;
    let mut packs = Vec::new();
    for volume in [1, 2, 1, 3, 2] {
        packs.push(world.backup(volume, Until::Published).await);
    }
    let pin = MarkRecord {
        mark: Mark::Pin {
            snapshot: packs[0].1.snapshot,
            reason: "test".into(),
        },
        time_ns: 4,
        actor: String::new(),
    };
    let pin_id = world.repository.put_mark(&pin).await.unwrap();
    world
        .catalog
        .add_marks(&[MarkRow::of(pin_id, &pin).unwrap()])
        .await
        .unwrap();
    world.forget(&packs[3].1, 3).await;
    world.delete(9, &[packs[3].0], true).await;
    assert!(!world.reconcile().await.was_behind());
    let original = listing(&world, &world.catalog).await;
    assert_eq!((original.packs.len(), original.snapshots.len()), (4, 4));
    assert_eq!(original.chunks.len(), 41);

    let fresh = tempfile::tempdir().unwrap();
    let (rebuilt, found) = world.rebuild(fresh.path()).await;
    assert_eq!(found.problems, []);
    let mut again = listing(&world, &rebuilt).await;
    // A volume without a snapshot or a mark left nothing in the store.
    assert_eq!(again.volumes.len(), 2);
    again
        .volumes
        .push((VolumeId::from_bytes([3; 16]), "volume-3".into(), 0));
    assert_eq!(again, original);
    assert_eq!(rebuilt.deletion_applied().await.unwrap(), 9);
    let one = rebuilt
        .volume_by_name(&"volume-1".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rebuilt.next_sequence(one.no).await.unwrap(), 3);
    assert!(rebuilt.holds_nothing(one.no).await.unwrap());
    assert!(!fresh.path().join("rebuild").exists());

    // It takes the place of another, which is kept.
    world.catalog.close().await.unwrap();
    std::fs::write(world.state.path().join("catalog.db"), b"garbage").unwrap();
    let (replaced, _) = world.rebuild(world.state.path()).await;
    assert_eq!(listing(&world, &replaced).await.chunks, original.chunks);
    let kept = std::fs::read(world.state.path().join("catalog-replaced.db")).unwrap();
    assert_eq!(kept, b"garbage");
    let second = Catalog::open(world.state.path(), &REPOSITORY, Mode::ReadWrite).await;
    assert!(matches!(second, Err(CatalogError::InUse { .. })));
}

#[tokio::test]
async fn a_catalog_copied_back_from_an_older_time_is_made_right() {
    let mut world = World::new().await;
    let first = world.backup(1, Until::Published).await;
    let second = world.backup(2, Until::Published).await;
    let older = world.copy();
    // What the copy does not know: new backups, a forgotten snapshot, a deletion, another mark.
    world.backup(1, Until::Published).await;
    world.forget(&second.1, 2).await;
    world.delete(1, &[second.0], true).await;
    world.backup(3, Until::Published).await;
    world.forget(&first.1, 1).await;
    world.delete(2, &[first.0], true).await;
    world.repository.ensure_domain("other", 5).await.unwrap();
    // "shared" was in the first pack and went with it; the later packs have copies.
    world.catalog.close().await.unwrap();
    let newest = Catalog::open(world.state.path(), &REPOSITORY, Mode::ReadWrite)
        .await
        .unwrap();
    world.catalog = newest;
    world.reconcile().await;

    let old = Catalog::open(older.path(), &REPOSITORY, Mode::ReadWrite)
        .await
        .unwrap();
    let found = reconcile(&old, &world.repository, NOW, &silent)
        .await
        .unwrap();
    assert!(found.was_behind());
    assert_eq!((found.deletions, found.packs, found.snapshots), (2, 2, 2));
    assert_eq!(found.forgotten.len(), 2);
    assert_eq!(found.problems, []);
    let mut expected = listing(&world, &world.catalog).await;
    // Deletions were applied by hand above, so that catalog did not see the footers again: which chunks
    // there are is told by the store alone.
    let fresh = tempfile::tempdir().unwrap();
    let (rebuilt, _) = world.rebuild(fresh.path()).await;
    expected.chunks = listing(&world, &rebuilt).await.chunks;
    assert_eq!(expected.chunks.len(), 21);
    assert_eq!(listing(&world, &old).await, expected);
    assert_eq!(old.deletion_applied().await.unwrap(), 2);
    let one = old
        .volume_by_name(&"volume-1".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(old.next_sequence(one.no).await.unwrap(), 3);
    // A second time there is nothing left to do.
    assert!(
        !reconcile(&old, &world.repository, NOW, &silent)
            .await
            .unwrap()
            .was_behind()
    );
}

/// A deletion takes the index row of a chunk of which another known pack has a copy.
#[tokio::test]
async fn a_copy_in_another_pack_is_found_after_a_deletion() {
    let mut world = World::new().await;
    let first = world.backup(1, Until::Published).await;
    world.backup(2, Until::Published).await;
    let before = listing(&world, &world.catalog).await;
    assert_eq!(before.chunks.len(), 21);
    world.forget(&first.1, 1).await;
    world.delete(1, &[first.0], false).await;
    world.reconcile().await;
    assert_eq!(listing(&world, &world.catalog).await.chunks.len(), 11);
}

#[tokio::test]
async fn left_over_objects_of_a_deletion_are_not_adopted() {
    let mut world = World::new().await;
    let (pack, reservation) = world.backup(1, Until::Published).await;
    let file = world.store_file(&ObjectName::Pack(pack));
    let bytes = std::fs::read(&file).unwrap();
    world.forget(&reservation, 1).await;
    world.delete(1, &[pack], false).await;
    std::fs::write(&file, bytes).unwrap();
    let found = world.reconcile().await;
    assert_eq!((found.deletions, found.packs), (1, 0));
    let fresh = tempfile::tempdir().unwrap();
    let (rebuilt, found) = world.rebuild(fresh.path()).await;
    assert_eq!(found.packs, 0);
    assert_eq!(listing(&world, &rebuilt).await.packs.len(), 0);
    assert!(file.exists(), "nothing is deleted");
}

#[tokio::test]
async fn a_missing_pack_counts_as_absent_until_it_is_back() {
    let mut world = World::new().await;
    let (pack, _) = world.backup(1, Until::Published).await;
    world.backup(2, Until::Published).await;
    let before = listing(&world, &world.catalog).await;
    let file = world.store_file(&ObjectName::Pack(pack));
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    for _ in 0..2 {
        let found = world.reconcile().await;
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert!(found.problems[0].object.contains(&pack.to_string()));
        // What the other pack has a copy of is still found.
        assert_eq!(listing(&world, &world.catalog).await.chunks.len(), 11);
    }
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(world.reconcile().await.problems, []);
    assert_eq!(listing(&world, &world.catalog).await, before);
}

#[tokio::test]
async fn damaged_objects_are_named_and_the_rest_is_adopted() {
    let mut world = World::new().await;
    let (pack, _) = world.backup(1, Until::Published).await;
    let (_, damaged) = world.backup(2, Until::Published).await;
    world.backup(3, Until::Published).await;
    let record = ObjectName::Snapshot {
        volume: VolumeId::from_bytes([2; 16]),
        id: damaged.snapshot,
    };
    let names = [ObjectName::Pack(pack), record];
    for name in &names {
        let file = world.store_file(name);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.len() - 80;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let fresh = tempfile::tempdir().unwrap();
    let (rebuilt, found) = world.rebuild(fresh.path()).await;
    let told: BTreeSet<String> = found
        .problems
        .into_iter()
        .map(|problem| problem.object)
        .collect();
    assert_eq!(told, names.iter().map(ToString::to_string).collect());
    let listing = listing(&world, &rebuilt).await;
    assert_eq!((listing.packs.len(), listing.snapshots.len()), (2, 2));
    assert!(names.iter().all(|name| world.store_file(name).exists()));
}

#[tokio::test]
async fn reservations_are_settled_by_what_the_store_has() {
    let mut world = World::new().await;
    let (_, put) = world.backup(1, Until::Put).await;
    let (_, reserved) = world.backup(2, Until::Reserved).await;
    let found = world.reconcile().await;
    assert_eq!((found.published, found.dropped, found.snapshots), (1, 0, 0));
    assert_eq!(world.catalog.snapshot_ids().await.unwrap(), [put.snapshot]);
    // Its bytes are kept: they may be put.
    assert_eq!(world.catalog.unpublished().await.unwrap(), [reserved]);
    // Not after a deletion that the reservation did not know of.
    let (pack, _) = world.backup(3, Until::Published).await;
    world.delete(1, &[pack], false).await;
    assert_eq!(world.reconcile().await.dropped, 1);
    assert_eq!(world.catalog.unpublished().await.unwrap(), []);
}
