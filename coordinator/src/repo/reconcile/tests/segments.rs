//! Index segments: a rebuild from them is the same as one from footers, whatever became of them.

use super::*;
use crate::repo::rebuild::rebuild_and_index;
use crate::repo::store::Listed;
use holdfast_format::id::PackId;
use holdfast_format::names::SEGMENTS;

/// A repository with so many packs that a segment is worth it.
async fn world() -> (World, Vec<PackId>) {
    let mut world = World::new().await;
    let mut packs = Vec::new();
    for backup in 0..10 {
        let (pack, _) = world.backup(1 + backup % 3, Until::Published).await;
        packs.push(pack);
    }
    (world, packs)
}

/// A catalog from the store alone, and what was found; segments are written.
async fn index(world: &World) -> (Listing, Reconciled) {
    let dir = tempfile::tempdir().unwrap();
    let built = rebuild_and_index(&world.repository, dir.path(), CATALOG, NOW, &silent);
    let (catalog, found) = built.await.unwrap();
    (listing(world, &catalog).await, found)
}

/// The same, and nothing is written.
async fn rebuilt(world: &World) -> (Listing, Reconciled) {
    let dir = tempfile::tempdir().unwrap();
    let before = segments(world).await.len();
    let (catalog, found) = world.rebuild(dir.path()).await;
    assert_eq!((segments(world).await.len(), found.segments), (before, 0));
    (listing(world, &catalog).await, found)
}

async fn segments(world: &World) -> Vec<Listed> {
    world.repository.store().list(SEGMENTS).await.unwrap()
}

#[tokio::test]
async fn a_rebuild_with_segments_is_one_without() {
    let (mut world, _) = world().await;
    let (plain, found) = rebuilt(&world).await;
    assert_eq!((found.packs, found.from_segments), (10, 0));
    let (indexed, found) = index(&world).await;
    assert_eq!(
        (found.packs, found.from_segments, found.segments),
        (10, 0, 1)
    );
    let (again, found) = rebuilt(&world).await;
    assert_eq!((found.packs, found.from_segments), (10, 10));
    assert_eq!((&found.problems, &found.notes), (&vec![], &vec![]));
    assert_eq!((&indexed, &again), (&plain, &plain));
    assert_eq!(plain, listing(&world, &world.catalog).await);
    // What is covered is not covered again.
    assert_eq!(index(&world).await.1.segments, 0);

    // Packs that came later are read by their footers, and get a segment once they are many.
    world.backup(1, Until::Published).await;
    let (later, found) = index(&world).await;
    assert_eq!(
        (found.packs, found.from_segments, found.segments),
        (11, 10, 0)
    );
    assert_eq!(later, listing(&world, &world.catalog).await);
    for _ in 0..8 {
        world.backup(2, Until::Published).await;
    }
    assert_eq!(index(&world).await.1.segments, 1);
    let (latest, found) = rebuilt(&world).await;
    assert_eq!((found.packs, found.from_segments), (19, 19));
    assert_eq!(latest, listing(&world, &world.catalog).await);
}

#[tokio::test]
async fn a_segment_makes_no_pack_that_is_gone() {
    let (world, packs) = world().await;
    index(&world).await;
    // Deleted as prune does, and lost.
    world.delete(1, &packs[..1], false).await;
    std::fs::remove_file(world.store_file(&ObjectName::Pack(packs[1]))).unwrap();
    let (after, found) = rebuilt(&world).await;
    assert_eq!((found.packs, found.from_segments), (8, 8));
    assert_eq!(found.problems, []);
    assert!(
        packs[..2]
            .iter()
            .all(|pack| !after.packs.contains_key(pack))
    );
    // A left-over of the deletion is no pack either.
    let file = world.store_file(&ObjectName::Pack(packs[0]));
    let other = std::fs::read(world.store_file(&ObjectName::Pack(packs[2]))).unwrap();
    std::fs::write(file, other).unwrap();
    assert_eq!(rebuilt(&world).await.0, after);
    // Once all are gone it is of no use, which is said.
    let mut rest = packs[2..].to_vec();
    rest.sort_unstable();
    world.delete(2, &rest, false).await;
    let (nothing, found) = rebuilt(&world).await;
    assert_eq!((nothing.packs.len(), found.notes.len()), (0, 1));
    assert!(
        found.notes[0].detail.contains("none of the 10"),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_damaged_segment_is_noted_and_passed_over() {
    let (world, packs) = world().await;
    index(&world).await;
    let whole = rebuilt(&world).await.0;
    let name = segments(&world).await.remove(0).name.unwrap();
    let file = world.store_file(&name);
    let bytes = std::fs::read(&file).unwrap();
    // In the header, a block, the footer, the trailer; cut off; empty; another object under its name.
    let mut damages: Vec<Vec<u8>> = [3, 100, bytes.len() - 200, bytes.len() - 70]
        .map(|at| {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            damaged
        })
        .to_vec();
    damages.push(bytes[..bytes.len() / 2].to_vec());
    damages.push(Vec::new());
    damages.push(std::fs::read(world.store_file(&ObjectName::Pack(packs[0]))).unwrap());
    for damaged in damages {
        std::fs::write(&file, damaged).unwrap();
        let (listing, found) = rebuilt(&world).await;
        assert_eq!((found.packs, found.from_segments), (10, 0));
        assert_eq!(found.problems, [], "nothing is lost");
        let noted: Vec<_> = found.notes.iter().map(|note| &note.object).collect();
        assert_eq!(noted, [&name.to_string()]);
        assert_eq!(listing, whole);
    }
    // Another one takes its place; the damaged one stays where it is.
    assert_eq!(index(&world).await.1.segments, 1);
    let (listing, found) = rebuilt(&world).await;
    assert_eq!((found.from_segments, listing), (10, whole));
}

#[tokio::test]
async fn a_pack_of_another_size_than_a_segment_says_is_read_itself() {
    let (world, packs) = world().await;
    index(&world).await;
    let file = world.store_file(&ObjectName::Pack(packs[4]));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let (_, found) = rebuilt(&world).await;
    assert_eq!((found.packs, found.from_segments), (9, 9));
    assert_eq!(found.problems.len(), 1, "its damage is named");
    assert_eq!(
        found.problems[0].object,
        ObjectName::Pack(packs[4]).to_string()
    );
}

#[tokio::test]
async fn a_store_that_takes_no_segment_is_rebuilt_from() {
    let (world, _) = world().await;
    let place = world.store_file(&ObjectName::Segment([0; 32]));
    std::fs::write(place.parent().unwrap(), b"in the way").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let built = rebuild_and_index(&world.repository, dir.path(), CATALOG, NOW, &silent);
    let (catalog, found) = built.await.unwrap();
    assert_eq!((found.packs, found.segments), (10, 0));
    assert!(
        found.notes[0].detail.contains("no index segments"),
        "{found:?}"
    );
    let expected = listing(&world, &world.catalog).await;
    assert_eq!(listing(&world, &catalog).await, expected);
}

/// Killed anywhere: what it left is of no harm, and the next one ends with the whole catalog.
#[tokio::test]
async fn a_rebuild_that_is_killed_is_begun_again() {
    let (world, _) = world().await;
    let expected = listing(&world, &world.catalog).await;
    world.catalog.close().await.unwrap();
    let dir = world.state.path();
    let stages = [Stage::Packs, Stage::Marks, Stage::Snapshots];
    for kill_at in stages {
        let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
        let progress = |step: Step| {
            if step.stage == kill_at {
                let _ = reached.send(());
            }
        };
        {
            let built = rebuild_and_index(&world.repository, dir, CATALOG, NOW, &progress);
            tokio::select! {
                biased;
                stage = wait.recv() => assert_eq!(stage, Some(())),
                _ = built => panic!("it is not stopped in time"),
            }
        }
        // The old catalog is untouched until the new one is whole.
        let before = Catalog::open(dir, &REPOSITORY, Mode::ReadOnly)
            .await
            .unwrap();
        assert_eq!(listing(&world, &before).await, expected);
    }
    let (catalog, found) = world.rebuild(dir).await;
    assert_eq!((found.packs, &found.problems), (10, &vec![]));
    assert_eq!(listing(&world, &catalog).await, expected);
    assert!(!dir.join("rebuild").exists());
}
