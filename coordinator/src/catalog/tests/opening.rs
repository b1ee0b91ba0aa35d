//! Missing, damaged, foreign, newer, locked: each told apart, none touched.

use super::*;
use crate::catalog::dialect;
use std::os::unix::fs::FileExt;

async fn open(dir: &TempDir, mode: Mode) -> Result<Catalog> {
    Catalog::open(dir.path(), &REPOSITORY, mode).await
}

#[tokio::test]
async fn a_missing_catalog_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        let error = open(&dir, mode).await.unwrap_err();
        assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
        let nowhere = dir.path().join("no/such");
        let error = Catalog::open(&nowhere, &REPOSITORY, mode)
            .await
            .unwrap_err();
        assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "opening made something"
    );
    // Begun and never filled.
    std::fs::write(dir.path().join(CATALOG_FILE), b"").unwrap();
    let error = open(&dir, Mode::ReadWrite).await.unwrap_err();
    assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
    Catalog::create(dir.path(), &REPOSITORY, CATALOG)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_catalog_is_created_once_and_keeps_its_identity() {
    let (dir, catalog) = catalog().await;
    let error = Catalog::create(dir.path(), &REPOSITORY, CATALOG)
        .await
        .unwrap_err();
    assert!(matches!(error, CatalogError::InUse { .. }), "{error}");
    catalog.set_claim_epoch(5).await.unwrap();
    catalog.set_claim_epoch(3).await.unwrap();
    catalog.close().await.unwrap();
    let error = catalog.set_claim_epoch(9).await.unwrap_err();
    assert!(matches!(error, CatalogError::ReadOnly { .. }), "{error}");
    let error = Catalog::create(dir.path(), &REPOSITORY, CATALOG)
        .await
        .unwrap_err();
    assert!(matches!(error, CatalogError::Exists { .. }), "{error}");
    let found = open(&dir, Mode::ReadWrite).await.unwrap();
    assert_eq!(
        (found.id(), found.claim_epoch().await.unwrap()),
        (CATALOG, 5)
    );
    found.close().await.unwrap();

    let other = RepositoryId::from_bytes([1; 16]);
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        let error = Catalog::open(dir.path(), &other, mode).await.unwrap_err();
        assert!(
            matches!(error, CatalogError::ForeignRepository { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_second_writer_is_refused_and_a_reader_is_not() {
    let (dir, catalog) = catalog().await;
    let error = open(&dir, Mode::ReadWrite).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("catalog.lock") && text.contains(&std::process::id().to_string()),
        "{text}"
    );

    register(&catalog, 1, 0..10).await;
    let reader = open(&dir, Mode::ReadOnly).await.unwrap();
    assert_eq!(
        reader.present(&[id(1), id(11)]).await.unwrap(),
        [true, false]
    );
    // It sees what is committed while it is open, and changes nothing.
    register(&catalog, 2, 10..20).await;
    assert_eq!(
        reader.present(&[id(1), id(11)]).await.unwrap(),
        [true, true]
    );
    let error = reader.next_prune().await.unwrap_err();
    assert!(matches!(error, CatalogError::ReadOnly { .. }), "{error}");
    reader.close().await.unwrap();
    register(&catalog, 3, 20..30).await;
    catalog.close().await.unwrap();
    let reader = open(&dir, Mode::ReadOnly).await.unwrap();
    assert_eq!(reader.present(&[id(29)]).await.unwrap(), [true]);
}

/// The writer was killed: its log is there, its shared memory is not.
#[tokio::test]
async fn a_reader_sees_what_a_killed_writer_committed() {
    let (dir, catalog) = catalog().await;
    register(&catalog, 1, 0..10).await;
    let copy = tempfile::tempdir().unwrap();
    for name in [CATALOG_FILE.to_owned(), format!("{CATALOG_FILE}-wal")] {
        std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let reader = open(&copy, Mode::ReadOnly).await.unwrap();
    assert_eq!(reader.present(&[id(1)]).await.unwrap(), [true]);
}

#[tokio::test]
async fn damage_is_told_as_damage() {
    let (dir, catalog) = catalog().await;
    register(&catalog, 1, 0..2000).await;
    catalog.close().await.unwrap();
    let file = dir.path().join(CATALOG_FILE);
    let good = std::fs::read(&file).unwrap();
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let damage: [(&str, Damage<'_>); 4] = [
        ("overwritten header", &|bytes| bytes[..16].fill(b'x')),
        ("cut off", &|bytes| bytes.truncate(good.len() / 2)),
        ("cut in the header", &|bytes| bytes.truncate(50)),
        ("schema page", &|bytes| bytes[100..4096].fill(0xff)),
    ];
    for (what, damage) in damage {
        for mode in [Mode::ReadWrite, Mode::ReadOnly] {
            let mut bytes = good.clone();
            damage(&mut bytes);
            std::fs::write(&file, &bytes).unwrap();
            let error = open(&dir, mode).await.unwrap_err();
            assert!(error.is_corrupt(), "{what}: {error}");
            assert!(
                matches!(error, CatalogError::Corrupt { .. }),
                "{what}: {error}"
            );
            assert!(error.to_string().contains("rebuild"), "{error}");
            assert_eq!(
                std::fs::read(&file).unwrap(),
                bytes,
                "{what}: the file was changed"
            );
        }
    }
    // Damage deeper down is found by reading everything.
    let mut bytes = good.clone();
    let end = bytes.len() - 4096;
    bytes[end..].fill(0xff);
    std::fs::write(&file, &bytes).unwrap();
    let found = open(&dir, Mode::ReadOnly).await.unwrap();
    match found.quick_check().await {
        Ok(faults) => assert!(!faults.is_empty()),
        Err(error) => assert!(error.is_corrupt(), "{error}"),
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (dir, catalog) = catalog().await;
    catalog.close().await.unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join(CATALOG_FILE))
        .unwrap();
    // Where SQLite keeps the number.
    file.write_all_at(&99_u32.to_be_bytes(), 60).unwrap();
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        let error = open(&dir, mode).await.unwrap_err();
        assert!(
            matches!(error, CatalogError::Schema { found: 99, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_upgrade_copies_first_and_is_whole_or_absent() {
    use crate::catalog::open::upgrade;
    let (dir, catalog) = catalog().await;
    register(&catalog, 1, 0..10).await;
    let now = dialect::MIGRATIONS.len() as i64;
    let copy = dir.path().join(format!("catalog-schema-{now}.db"));
    let with = |more: &[&'static str]| [&dialect::MIGRATIONS[..], more].concat();
    {
        let mut guard = catalog.writer.lock().await;
        let conn = guard.as_mut().unwrap();
        // The same version: nothing happens.
        upgrade(conn, dir.path(), &with(&[]), now).await.unwrap();
        assert!(!copy.exists());
        let broken = with(&["CREATE TABLE later (x INTEGER);", "CREATE TABLE nonsense"]);
        upgrade(conn, dir.path(), &broken, now).await.unwrap_err();
    }
    catalog.close().await.unwrap();
    let found = open(&dir, Mode::ReadWrite).await.unwrap();
    assert_eq!(found.present(&[id(1)]).await.unwrap(), [true]);
    {
        let mut guard = found.writer.lock().await;
        let conn = guard.as_mut().unwrap();
        // A table of the broken upgrade would be in the way.
        let good = with(&["CREATE TABLE later (x INTEGER);"]);
        upgrade(conn, dir.path(), &good, now).await.unwrap();
    }
    found.close().await.unwrap();
    let error = open(&dir, Mode::ReadWrite).await.unwrap_err();
    assert!(
        matches!(error, CatalogError::Schema { found, .. } if found == now + 1),
        "{error}"
    );

    // The copy is the catalog as it was.
    std::fs::rename(&copy, dir.path().join(CATALOG_FILE)).unwrap();
    let before = open(&dir, Mode::ReadWrite).await.unwrap();
    assert_eq!(
        before.present(&[id(1), id(11)]).await.unwrap(),
        [true, false]
    );
}
