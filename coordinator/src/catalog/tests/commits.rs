//! Reserve and publish, and what a prune may do between them.

use super::*;

struct Run {
    _dir: TempDir,
    catalog: Catalog,
    volume: VolumeNo,
    begun: Begun,
    pack: PackNo,
}

async fn run() -> Run {
    let (dir, catalog) = catalog().await;
    let volume = volume(&catalog, 1).await;
    let begun = catalog.begin(&begin_session(volume, 1, 0)).await.unwrap();
    let pack = register(&catalog, 1, 0..1000).await.pack_no;
    Run {
        _dir: dir,
        catalog,
        volume,
        begun,
        pack,
    }
}

fn ids() -> impl Iterator<Item = [u8; 32]> + Clone + Send {
    (0..1000).map(id)
}

#[tokio::test]
async fn a_snapshot_is_visible_after_publish_and_only_once() {
    let run = run().await;
    let (catalog, volume) = (&run.catalog, run.volume);
    let reserved = reservation(
        &run.begun,
        volume,
        1,
        catalog.next_sequence(volume).await.unwrap(),
    );
    let since = Some(run.begun.stamped_since);
    catalog
        .reserve(&reserved, run.begun.epoch, ids(), since)
        .await
        .unwrap();
    catalog
        .reserve(&reserved, run.begun.epoch, ids(), since)
        .await
        .unwrap();
    let mut other = reserved.clone();
    other.record = "another seal".into();
    let error = catalog
        .reserve(&other, run.begun.epoch, ids(), since)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CatalogError::AlreadyReserved { .. }),
        "{error}"
    );
    assert_eq!(
        catalog.unpublished().await.unwrap(),
        std::slice::from_ref(&reserved)
    );
    assert_eq!(
        catalog.reservation(&reserved.key).await.unwrap(),
        Some(reserved.clone())
    );
    assert_eq!(catalog.snapshots(None).await.unwrap(), []);
    // A retry of the run is told what was reserved.
    let again = catalog.begin(&begin_session(volume, 1, 1)).await.unwrap();
    assert_eq!(again.reserved, Some(reserved.clone()));

    let row = snapshot_row(&reserved, VolumeId::from_bytes([1; 16]));
    for _ in 0..2 {
        catalog.publish(&row).await.unwrap();
        assert_eq!(
            catalog.snapshots(Some(volume)).await.unwrap(),
            std::slice::from_ref(&row)
        );
    }
    assert_eq!(catalog.unpublished().await.unwrap(), []);
    assert_eq!(catalog.latest(volume).await.unwrap(), Some(row.clone()));
    let begun = catalog.begin(&begin_session(volume, 1, 2)).await.unwrap();
    assert_eq!(begun.committed, Some(row.id));
    let error = catalog
        .reserve(&other, run.begun.epoch, ids(), since)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CatalogError::AlreadyCommitted { .. }),
        "{error}"
    );
    // The lease ended with it.
    let next = catalog.begin(&begin_session(volume, 2, 3)).await.unwrap();
    assert_eq!((next.committed, next.resumed), (None, false));
    assert!(catalog.next_sequence(volume).await.unwrap() > reserved.sequence);

    let prefix: IdPrefix = row.id.to_string()[..6].parse().unwrap();
    assert_eq!(
        catalog.snapshots_by_prefix(&prefix).await.unwrap(),
        [row.id]
    );
    assert!(catalog.forget(&row.id, 9).await.unwrap());
    assert!(!catalog.forget(&row.id, 9).await.unwrap());
    assert_eq!(catalog.snapshot(&row.id).await.unwrap(), None);
    assert_eq!(catalog.latest(volume).await.unwrap(), None);
    catalog.publish(&row).await.unwrap();
    assert_eq!(catalog.snapshot(&row.id).await.unwrap(), Some(row));
}

#[tokio::test]
async fn reserve_revives_a_condemned_pack_and_refuses_a_deleting_one() {
    let run = run().await;
    let (catalog, volume) = (&run.catalog, run.volume);
    let reserved = reservation(&run.begun, volume, 1, 1);
    let since = Some(run.begun.stamped_since);
    // A prune begins, and condemns the pack before the run commits.
    catalog.next_prune().await.unwrap();
    set_state(catalog, run.pack, PackState::Deleting).await;
    let error = catalog
        .reserve(&reserved, run.begun.epoch, ids(), since)
        .await
        .unwrap_err();
    match error {
        CatalogError::ChunkGone { ids, count } => assert_eq!((ids.len(), count), (1000, 1000)),
        other => panic!("{other}"),
    }
    assert_eq!(catalog.unpublished().await.unwrap(), []);
    assert_eq!(stamps(catalog, &[id(0)]).await, [1]);

    set_state(catalog, run.pack, PackState::Condemned).await;
    let some = [id(3), id(4)].into_iter();
    catalog
        .reserve(&reserved, run.begun.epoch, some, since)
        .await
        .unwrap();
    assert_eq!(
        catalog.packs(None, 10).await.unwrap()[0].state,
        PackState::Live
    );
    assert_eq!(
        stamps(catalog, &[id(2), id(3), id(4), id(5)]).await,
        [1, 2, 2, 1]
    );
}

#[tokio::test]
async fn what_was_stamped_under_the_newest_prune_is_not_asked_again() {
    let run = run().await;
    let never = std::iter::once(()).map(|()| -> [u8; 32] { panic!("was asked") });
    let reserved = reservation(&run.begun, run.volume, 1, 1);
    let since = Some(run.begun.stamped_since);
    run.catalog
        .reserve(&reserved, run.begun.epoch, never, since)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_unknown_id_a_lost_lease_and_a_closed_session_cannot_reserve() {
    let run = run().await;
    let (catalog, volume) = (&run.catalog, run.volume);
    let reserved = reservation(&run.begun, volume, 1, 1);
    let unknown = ids().chain([id(5_000_000)]);
    let error = catalog
        .reserve(&reserved, run.begun.epoch, unknown, None)
        .await
        .unwrap_err();
    match error {
        CatalogError::ChunkGone { ids, .. } => assert_eq!(ids, [id(5_000_000)]),
        other => panic!("{other}"),
    }
    let again = catalog.begin(&begin_session(volume, 1, 1)).await.unwrap();
    let error = catalog
        .reserve(&reserved, run.begun.epoch, ids(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, CatalogError::LeaseLost { .. }), "{error}");
    catalog.end(&again.session, again.epoch).await.unwrap();
    let error = catalog
        .reserve(&reserved, again.epoch, ids(), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CatalogError::UnknownSession { .. }),
        "{error}"
    );
    assert_eq!(catalog.unpublished().await.unwrap(), []);
}

#[tokio::test]
async fn a_reservation_outlives_its_session_until_it_is_settled() {
    let run = run().await;
    let (catalog, volume) = (&run.catalog, run.volume);
    let reserved = reservation(&run.begun, volume, 1, 1);
    catalog
        .reserve(&reserved, run.begun.epoch, ids(), None)
        .await
        .unwrap();
    let late = 48 * 3600 * SECOND;
    let begun = catalog
        .begin(&begin_session(volume, 1, late))
        .await
        .unwrap();
    assert_eq!(
        (begun.resumed, begun.reserved.as_ref()),
        (true, Some(&reserved))
    );
    catalog.drop_reservation(&reserved.key).await.unwrap();
    assert_eq!(catalog.unpublished().await.unwrap(), []);
    catalog
        .reserve(&reserved, begun.epoch, ids(), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn recent_ones_are_the_first_of_each_span_and_none_before_a_suspicious_one() {
    let run = run().await;
    let (catalog, volume) = (&run.catalog, run.volume);
    let made = async |sequence: u64, received_ns: i64, suspicious: bool| {
        let reserved = reservation(&run.begun, volume, sequence as u8, sequence);
        let row = SnapshotRow {
            received_ns,
            suspicious,
            ..snapshot_row(&reserved, VolumeId::from_bytes([1; 16]))
        };
        catalog.publish(&row).await.unwrap();
        row.id
    };
    let recent = async |since_ns: i64| -> Vec<u64> {
        let rows = catalog.recent(volume, since_ns, 10).await.unwrap();
        rows.iter().map(|row| row.sequence).collect()
    };
    assert_eq!(recent(0).await, [0; 0]);
    for (sequence, received_ns) in [(1, 5), (2, 20), (3, 25), (4, 29), (5, 31), (6, 55)] {
        made(sequence, received_ns, false).await;
    }
    assert_eq!(recent(0).await, [1, 2, 5, 6]);
    assert_eq!(recent(24).await, [3, 5, 6]);
    // Another volume's are not among them.
    let other = super::volume(catalog, 2).await;
    assert_eq!(catalog.recent(other, 0, 10).await.unwrap(), []);
    let suspicious = made(7, 56, true).await;
    made(8, 57, false).await;
    made(9, 61, false).await;
    assert_eq!(recent(0).await, [7, 9]);
    // It was looked at, and is not wanted any more: what came before it does not come back.
    assert!(catalog.forget(&suspicious, 70).await.unwrap());
    assert_eq!(recent(0).await, [8, 9]);
}

#[tokio::test]
async fn futures_can_be_spawned() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let run = run().await;
    let reserved = reservation(&run.begun, run.volume, 1, 1);
    send(run.catalog.reserve(&reserved, 1, ids(), None))
        .await
        .unwrap();
    send(run.catalog.held(run.volume, &[chunk(1)]))
        .await
        .unwrap();
    send(run.catalog.register_pack(&pack_row(1), &[], &[]))
        .await
        .unwrap();
    send(run.catalog.locate(&[id(1)])).await.unwrap();
    send(run.catalog.begin(&begin_session(run.volume, 1, 1)))
        .await
        .unwrap();
}
