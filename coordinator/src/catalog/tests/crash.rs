//! What is on disk after a kill: every transaction whole or absent.

use super::*;
use std::path::Path;

/// The files as a kill leaves them: database and log, copied while the catalog is open.
fn killed(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in [CATALOG_FILE.to_owned(), format!("{CATALOG_FILE}-wal")] {
        if dir.join(&name).exists() {
            std::fs::copy(dir.join(&name), copy.path().join(&name)).unwrap();
        }
    }
    copy
}

#[tokio::test]
async fn acknowledged_packs_survive_a_kill_at_any_time() {
    let (dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    for pack in 0..12 {
        let chunks = pack * 300..pack * 300 + 300;
        let held: Vec<ChunkId> = chunks.clone().map(chunk).collect();
        catalog
            .register_pack(&pack_row(pack), &frames(chunks, 32), &[(one, held)])
            .await
            .unwrap();
        let copy = killed(dir.path());
        let found = Catalog::open(copy.path(), &REPOSITORY, Mode::ReadWrite)
            .await
            .unwrap();
        let all: Vec<ChunkId> = (0..(pack + 1) * 300).map(chunk).collect();
        assert!(holds(&found, one, &all).await.into_iter().all(|held| held));
        assert_eq!(found.totals().await.unwrap().packs, pack + 1);
        assert_eq!(found.quick_check().await.unwrap(), Vec::<String>::new());
    }
}

/// A log cut anywhere holds a prefix of the transactions, each whole.
#[tokio::test]
async fn a_log_cut_anywhere_holds_whole_packs() {
    let (dir, catalog) = catalog().await;
    let one = volume(&catalog, 1).await;
    for pack in 0..4 {
        let chunks = pack * 50..pack * 50 + 50;
        let held: Vec<ChunkId> = chunks.clone().map(chunk).collect();
        catalog
            .register_pack(&pack_row(pack), &frames(chunks, 32), &[(one, held)])
            .await
            .unwrap();
    }
    let log = format!("{CATALOG_FILE}-wal");
    let length = std::fs::metadata(dir.path().join(&log)).unwrap().len();
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..=40).map(|step| length * step / 40) {
        let copy = killed(dir.path());
        let file = std::fs::File::options()
            .write(true)
            .open(copy.path().join(&log))
            .unwrap();
        file.set_len(cut).unwrap();
        let found = match Catalog::open(copy.path(), &REPOSITORY, Mode::ReadWrite).await {
            Ok(found) => found,
            // Cut before the schema was whole.
            Err(CatalogError::Missing { .. }) => continue,
            Err(other) => panic!("{other} at {cut}"),
        };
        let packs = found.totals().await.unwrap().packs;
        seen.insert(packs);
        for pack in 0..4 {
            let ids: Vec<ChunkId> = (pack * 50..pack * 50 + 50).map(chunk).collect();
            assert_eq!(holds(&found, one, &ids).await, [pack < packs; 50]);
        }
        // It goes on from there.
        register(&found, 99, 0..300).await;
    }
    assert!(seen.len() > 3, "{seen:?}");
}

#[tokio::test]
async fn a_dropped_future_leaves_nothing_behind() {
    let (_dir, catalog) = catalog().await;
    let (row, frames) = (pack_row(1), frames(0..5000, 32));
    for budget in [0, 1, 3, 10, 30] {
        let mut work = Box::pin(catalog.register_pack(&row, &frames, &[]));
        for _ in 0..budget {
            if futures::poll!(&mut work).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(work);
    }
    let totals = catalog.totals().await.unwrap();
    let found = catalog.present(&[id(0), id(4999)]).await.unwrap();
    assert_eq!(found, [totals.packs == 1; 2]);
    assert!(
        catalog
            .register_pack(&row, &frames, &[])
            .await
            .unwrap()
            .pack_no
            .index()
            > 0
    );
}
