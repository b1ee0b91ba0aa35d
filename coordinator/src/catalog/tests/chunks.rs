//! Lookups, holds and pack states.

use super::*;
use std::collections::HashMap;

#[tokio::test]
async fn everything_registered_is_found_where_it_lies_and_nothing_else() {
    let (_dir, catalog) = catalog().await;
    // The oracle: a map, filled from the same frames.
    let mut oracle = HashMap::new();
    for pack in 0..7 {
        let frames = frames(pack * 700..pack * 700 + 700, 31);
        for frame in &frames {
            for item in &frame.items {
                oracle.insert(item.id, (pack_row(pack), frame.clone(), *item));
            }
        }
        let done = catalog
            .register_pack(&pack_row(pack), &frames, &[])
            .await
            .unwrap();
        assert_eq!(done.new_count, 700);
    }
    let asked: Vec<[u8; 32]> = (0..6000).rev().chain(0..50).map(id).collect();
    let found = catalog.locate(&asked).await.unwrap();
    assert_eq!(found.len(), asked.len());
    for (id, found) in asked.iter().zip(found) {
        let expected = oracle.get(id).map(|(pack, frame, item)| {
            (
                (pack.id, pack.size, pack.header()),
                (
                    frame.frame_no,
                    frame.offset,
                    frame.stored_length,
                    frame.codec,
                    frame.plain_length,
                ),
                (item.offset_in_frame, item.length),
            )
        });
        let found = found.map(|at| {
            (
                (at.pack, at.pack_size, at.header),
                (
                    at.frame_no,
                    at.offset,
                    at.stored_length,
                    at.codec,
                    at.plain_length,
                ),
                (at.item_offset, at.item_length),
            )
        });
        assert_eq!(found, expected);
    }
    let totals = catalog.totals().await.unwrap();
    assert_eq!((totals.packs, totals.chunks, totals.nodes), (7, 4900, 0));
}

#[tokio::test]
async fn registering_again_changes_nothing() {
    let (_dir, catalog) = catalog().await;
    let first = register(&catalog, 1, 0..100).await;
    let again = register(&catalog, 1, 0..100).await;
    assert_eq!((again.pack_no, again.new_count), (first.pack_no, 0));
    // A copy in another pack leaves the row where it was.
    let before = catalog.locate(&[id(5)]).await.unwrap();
    assert_eq!(register(&catalog, 2, 0..200).await.new_count, 100);
    assert_eq!(catalog.locate(&[id(5)]).await.unwrap(), before);
}

#[tokio::test]
async fn held_is_per_volume_and_needs_presence() {
    let (_dir, catalog) = catalog().await;
    let (one, two) = (volume(&catalog, 1).await, volume(&catalog, 2).await);
    assert!(catalog.holds_nothing(one).await.unwrap());
    let frames = frames(0..1000, 32);
    let ids: Vec<ChunkId> = (0..1000).map(chunk).collect();
    let unknown = chunk(77_777);
    let held_by = [
        (one, [&ids[..], &[unknown]].concat()),
        (two, ids[..3].to_vec()),
    ];
    let done = catalog
        .register_pack(&pack_row(1), &frames, &held_by)
        .await
        .unwrap();
    assert_eq!(done.missing, [unknown.into_bytes()]);
    assert!(!catalog.holds_nothing(one).await.unwrap());

    let asked = [ids[999], unknown, ids[0], ids[0], ids[3]];
    assert_eq!(
        holds(&catalog, one, &asked).await,
        [true, false, true, true, true]
    );
    assert_eq!(
        holds(&catalog, two, &asked).await,
        [false, false, true, true, false]
    );
    // Presence is the repository's, not the volume's.
    assert_eq!(
        catalog.present(&[id(999), id(77_777)]).await.unwrap(),
        [true, false]
    );
    assert_eq!(
        catalog.hold(two, &asked).await.unwrap(),
        [true, false, true, true, true]
    );
    assert_eq!(
        holds(&catalog, two, &asked).await,
        [true, false, true, true, true]
    );
}

#[tokio::test]
async fn a_present_answer_stamps_and_an_absent_pack_is_absent() {
    let (_dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    let ids: Vec<ChunkId> = (0..10).map(chunk).collect();
    let done = catalog
        .register_pack(&pack_row(1), &frames(0..10, 8), &[(one, ids.clone())])
        .await
        .unwrap();
    let raw = [id(0), id(1), id(2), id(3)];
    assert_eq!(stamps(&catalog, &raw).await, [1, 1, 1, 1]);
    let prune = catalog.next_prune().await.unwrap();
    assert_eq!(catalog.prune_number().await.unwrap(), prune);
    holds(&catalog, one, &ids[..1]).await;
    catalog.present(&raw[1..2]).await.unwrap();
    catalog.hold(one, &ids[2..3]).await.unwrap();
    assert_eq!(stamps(&catalog, &raw).await, [2, 2, 2, 1]);

    for state in [
        PackState::Condemned,
        PackState::Deleting,
        PackState::Missing,
    ] {
        set_state(&catalog, done.pack_no, state).await;
        assert_eq!(holds(&catalog, one, &ids).await, [false; 10]);
        assert_eq!(catalog.present(&raw).await.unwrap(), [false; 4]);
        assert_eq!(catalog.hold(one, &ids).await.unwrap(), [false; 10]);
        assert_eq!(
            catalog.locate(&raw).await.unwrap(),
            [None, None, None, None]
        );
        let read = catalog.locate_to_read(&raw[..1]).await.unwrap();
        assert_eq!(read[0].is_some(), state == PackState::Condemned);
    }
}

#[tokio::test]
async fn uploading_again_gives_a_lost_chunk_a_new_place_and_keeps_its_holders() {
    let (_dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    let ids: Vec<ChunkId> = (0..10).map(chunk).collect();
    let first = catalog
        .register_pack(&pack_row(1), &frames(0..10, 8), &[(one, ids.clone())])
        .await
        .unwrap();
    set_state(&catalog, first.pack_no, PackState::Condemned).await;
    let second = register(&catalog, 2, 0..4).await;
    assert_eq!(second.new_count, 0);
    let at = catalog.locate(&[id(0), id(9)]).await.unwrap();
    assert_eq!(at[0].as_ref().unwrap().pack, pack_row(2).id);
    assert_eq!(at[1], None);
    assert_eq!(holds(&catalog, one, &ids[3..5]).await, [true, false]);

    // A deleted pack takes the rows it has, and no others; it cannot come back.
    let gone = pack_row(1).id;
    assert!(
        catalog
            .apply_deletion(4, &[gone, pack_row(50).id])
            .await
            .unwrap()
    );
    assert!(!catalog.apply_deletion(4, &[gone]).await.unwrap());
    assert_eq!(catalog.deletion_applied().await.unwrap(), 4);
    assert_eq!(
        catalog.present(&[id(0), id(9)]).await.unwrap(),
        [true, false]
    );
    for pack in [1, 50] {
        let error = catalog
            .register_pack(&pack_row(pack), &frames(0..10, 8), &[])
            .await
            .unwrap_err();
        assert!(matches!(error, CatalogError::PackGone { .. }), "{error}");
    }
}

#[tokio::test]
async fn row_numbers_are_never_used_twice() {
    let (_dir, catalog) = catalog().await;
    register(&catalog, 1, 0..10).await;
    catalog.apply_deletion(1, &[pack_row(1).id]).await.unwrap();
    register(&catalog, 2, 5..15).await;
    let mut conn = catalog.readers.acquire().await.unwrap();
    let ids: Vec<[u8; 32]> = (5..15).map(id).collect();
    let known = crate::catalog::lookup::known(&mut conn, &ids)
        .await
        .unwrap();
    let mut rows: Vec<i64> = known.values().map(|known| known.row_no).collect();
    rows.sort_unstable();
    assert_eq!(rows, (11..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn lookups_use_the_keys() {
    use crate::catalog::dialect;
    use sqlx::{AssertSqlSafe, Row};
    let (_dir, catalog) = catalog().await;
    let mut conn = catalog.readers.acquire().await.unwrap();
    let list = dialect::list(500);
    for sql in [
        format!(
            "SELECT c.id FROM chunks c JOIN packs p ON p.pack_no = c.pack_no WHERE c.id IN {list}"
        ),
        format!("SELECT id FROM chunks WHERE id IN {list}"),
        format!("UPDATE chunks SET stamp = 3 WHERE stamp < 3 AND id IN {list}"),
        format!(
            "SELECT start FROM frames WHERE (pack_no, frame_no) IN (VALUES {})",
            dialect::rows(64, 2)
        ),
        format!("SELECT rows FROM held WHERE volume_no = 1 AND segment IN {list}"),
    ] {
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        for row in plan {
            let step: String = row.get("detail");
            let table = !step.contains("CONSTANT ROW") && !step.contains("VALUES CLAUSE");
            assert!(!(table && step.starts_with("SCAN")), "{step} in {sql}");
        }
    }
}
