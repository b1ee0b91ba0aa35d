//! Leases: one at a time, fenced by epochs, resumable by key.

use super::*;

#[tokio::test]
async fn one_live_lease_for_each_volume() {
    let (_dir, catalog) = catalog().await;
    let (one, two) = (volume(&catalog, 1).await, volume(&catalog, 2).await);
    let first = catalog.begin(&begin_session(one, 1, 0)).await.unwrap();
    assert_eq!(
        (first.epoch, first.resumed, first.committed),
        (1, false, None)
    );
    catalog.begin(&begin_session(two, 2, 0)).await.unwrap();
    let busy = catalog
        .begin(&begin_session(one, 3, 59 * SECOND))
        .await
        .unwrap_err();
    match busy {
        CatalogError::VolumeBusy {
            holder,
            remaining_ns,
            ..
        } => {
            assert_eq!((holder, remaining_ns), (first.session, SECOND));
        }
        other => panic!("{other}"),
    }
    // Each message extends it.
    catalog.touch(&first.session, 1, 50 * SECOND).await.unwrap();
    catalog
        .begin(&begin_session(one, 3, 70 * SECOND))
        .await
        .unwrap_err();
    let second = catalog
        .begin(&begin_session(one, 3, 110 * SECOND))
        .await
        .unwrap();
    assert_eq!(second.epoch, 2);
    let lost = catalog
        .touch(&first.session, 1, 110 * SECOND)
        .await
        .unwrap_err();
    assert!(matches!(lost, CatalogError::LeaseLost { .. }), "{lost}");
    catalog
        .touch(&second.session, 2, 111 * SECOND)
        .await
        .unwrap();
    // The first may come back once the second is quiet, with its own session and a later epoch.
    catalog
        .begin(&begin_session(one, 1, 120 * SECOND))
        .await
        .unwrap_err();
    let back = catalog
        .begin(&begin_session(one, 1, 180 * SECOND))
        .await
        .unwrap();
    assert_eq!(
        (back.session, back.epoch, back.resumed),
        (first.session, 3, true)
    );
    catalog
        .touch(&second.session, 2, 180 * SECOND)
        .await
        .unwrap_err();
    assert_eq!(catalog.totals().await.unwrap().open_sessions, 3);
}

#[tokio::test]
async fn a_lease_lasts_as_long_as_is_said_not_as_is_usual() {
    let (_dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    let with = |key: u8, now_ns: i64, seconds: u64| {
        let lease = Duration::from_secs(seconds);
        BeginSession {
            lease,
            ..begin_session(one, key, now_ns)
        }
    };
    catalog.begin(&with(1, 0, 300)).await.unwrap();
    let busy = catalog.begin(&with(2, 299 * SECOND, 300)).await;
    match busy.unwrap_err() {
        CatalogError::VolumeBusy { remaining_ns, .. } => assert_eq!(remaining_ns, SECOND),
        other => panic!("{other}"),
    }
    catalog.begin(&with(2, 30 * SECOND, 30)).await.unwrap();

    // One whose agents are in the process ends them all, however long they are.
    catalog.begin(&with(3, 31 * SECOND, 300)).await.unwrap_err();
    let lease = Duration::from_secs(300);
    catalog.end_leases(31 * SECOND, lease).await.unwrap();
    catalog.begin(&with(3, 31 * SECOND, 300)).await.unwrap();
}

#[tokio::test]
async fn a_clock_set_back_locks_nobody_out() {
    let (_dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    catalog
        .begin(&begin_session(one, 1, 100_000 * SECOND))
        .await
        .unwrap();
    catalog
        .begin(&begin_session(one, 2, 50 * SECOND))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_session_resumes_for_a_day_and_ends_when_told() {
    let (_dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    let two = volume(&catalog, 2).await;
    let first = catalog.begin(&begin_session(one, 1, 0)).await.unwrap();
    let error = catalog.begin(&begin_session(two, 1, 0)).await.unwrap_err();
    assert!(matches!(error, CatalogError::KeyReused), "{error}");
    let hour = 3600 * SECOND;
    let again = catalog
        .begin(&begin_session(one, 1, 23 * hour))
        .await
        .unwrap();
    assert_eq!((again.session, again.epoch), (first.session, 2));
    let late = catalog
        .begin(&begin_session(one, 1, 48 * hour))
        .await
        .unwrap();
    assert_eq!((late.resumed, late.epoch), (false, 3));
    assert_ne!(late.session, first.session);

    let stale = catalog.end(&late.session, 2).await.unwrap_err();
    assert!(matches!(stale, CatalogError::LeaseLost { .. }), "{stale}");
    catalog.end(&late.session, 3).await.unwrap();
    let ended = catalog
        .touch(&late.session, 3, 48 * hour)
        .await
        .unwrap_err();
    assert!(
        matches!(ended, CatalogError::UnknownSession { .. }),
        "{ended}"
    );
    assert!(
        !catalog
            .begin(&begin_session(one, 2, 48 * hour))
            .await
            .unwrap()
            .resumed
    );
}

#[tokio::test]
async fn names_follow_the_newest_binding() {
    let (_dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    let mut row = VolumeRow {
        id: VolumeId::from_bytes([2; 16]),
        domain: DOMAIN,
        facts: VolumeFacts::named("volume-1".parse().unwrap()),
        bound_ns: 9,
    };
    row.facts.node = "other".into();
    let two = catalog.bind_volume(&row).await.unwrap();
    assert_ne!(one, two);
    let name = "volume-1".parse().unwrap();
    assert_eq!(
        catalog.volume_by_name(&name).await.unwrap().unwrap().no,
        two
    );
    // Older facts than known change nothing.
    row.facts.node = "older".into();
    row.bound_ns = 8;
    assert_eq!(catalog.bind_volume(&row).await.unwrap(), two);
    let found = catalog.volume_by_id(&row.id).await.unwrap().unwrap();
    assert_eq!((found.facts.node.as_str(), found.bound_ns), ("other", 9));
    assert_eq!(catalog.volumes().await.unwrap().len(), 2);
    assert!(
        catalog
            .volume_by_name(&"none".parse().unwrap())
            .await
            .unwrap()
            .is_none()
    );
}
