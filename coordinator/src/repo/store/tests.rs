//! The store's own promises: nothing partial, errors told apart, retries bounded, listings resumed.

use super::*;
use crate::repo::testing::{FaultStore, fail, quick};
use holdfast_format::id::{MarkId, PackId};
use holdfast_runtime::metrics::Metrics;
use object_store::memory::InMemory;
use std::os::unix::fs::{PermissionsExt, symlink};

fn mark(byte: u8) -> ObjectName {
    ObjectName::Mark(MarkId::from_bytes([byte; 32]))
}

fn faulty() -> (Arc<FaultStore>, Store) {
    let faults = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
    let store = Store::from_object_store(faults.clone(), "faulty", &quick());
    (faults, store)
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_counted() {
    let metrics = Metrics::new();
    let faults = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
    let options = StoreOptions {
        metrics: Some(metrics.clone()),
        ..quick()
    };
    let store = Store::from_object_store(faults.clone(), "faulty", &options);
    faults.fail_next(2, fail::status(503));
    store.put(&mark(1), "x").await.unwrap();
    faults.fail_next(1, fail::status(500));
    assert_eq!(store.get(&mark(1)).await.unwrap(), "x");
    let text = metrics.encode().unwrap();
    assert!(text.contains("holdfast_store_retries_total{operation=\"put\"} 2"));
    assert!(text.contains("holdfast_store_retries_total{operation=\"get\"} 1"));
    assert!(text.contains("operation=\"put\",outcome=\"ok\"} 1"));
}

#[tokio::test]
async fn what_cannot_pass_is_tried_once() {
    let (faults, store) = faulty();
    for (fault, full) in [
        (fail::errno(28), true),
        (fail::errno(122), true),
        (fail::errno(5), false),
    ] {
        let before = faults.calls();
        faults.fail_next(100, fault);
        let error = store.put(&mark(1), "x").await.unwrap_err();
        assert_eq!(
            matches!(error, RepoError::StoreFull { .. }),
            full,
            "{error}"
        );
        assert!(error.to_string().contains("marks/0101"), "{error}");
        assert_eq!(faults.calls(), before + 1);
        faults.heal();
    }
    faults.fail_next(100, fail::denied());
    let error = store.put(&mark(1), "x").await.unwrap_err();
    assert!(matches!(error, RepoError::StoreRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_store_that_never_answers_is_given_up_within_the_limit() {
    let (faults, _) = faulty();
    let options = StoreOptions {
        request_limit: Duration::from_millis(50),
        ..quick()
    };
    let store = Store::from_object_store(faults.clone(), "faulty", &options);
    faults.hang();
    let error = store.get(&mark(1)).await.unwrap_err();
    assert!(
        matches!(error, RepoError::StoreUnavailable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_listing_that_breaks_goes_on_where_it_was() {
    let (faults, store) = faulty();
    for byte in 0..20 {
        store.put(&mark(byte), "x").await.unwrap();
    }
    faults.break_listing_after(7);
    let found: Vec<Listed> = store.list_stream("marks/").try_collect().await.unwrap();
    let names: Vec<_> = found.iter().map(|found| found.name.unwrap()).collect();
    assert_eq!(names, (0..20).map(mark).collect::<Vec<_>>());
    faults.break_listing_after(7);
    assert_eq!(store.list("marks/").await.unwrap().len(), 20);
}

#[tokio::test]
async fn an_object_above_its_limit_is_not_read() {
    let (_, store) = faulty();
    store.put(&mark(1), vec![0; 100]).await.unwrap();
    assert!(store.get_limited(&mark(1), 100).await.is_ok());
    let error = store.get_limited(&mark(1), 99).await.unwrap_err();
    assert!(matches!(error, RepoError::ObjectDamaged { .. }), "{error}");
}

#[tokio::test]
async fn a_directory_must_be_one_and_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path| Store::open(path.to_str().unwrap(), &quick());
    let missing = open(&dir.path().join("none")).unwrap_err();
    assert!(
        matches!(missing, RepoError::RepositoryMissing { .. }),
        "{missing}"
    );

    let real = dir.path().join("a real place");
    Store::open_or_create(real.to_str().unwrap(), &quick()).unwrap();
    let mode = std::fs::metadata(&real).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let url = format!("file://{}", real.to_str().unwrap().replace(' ', "%20"));
    Store::open(&url, &quick()).unwrap();

    let link = dir.path().join("link");
    symlink(&real, &link).unwrap();
    let error = open(&link).unwrap_err().to_string();
    assert!(
        error.contains("symbolic link") && error.contains("a real place"),
        "{error}"
    );
    let file = dir.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    assert!(open(&file).is_err());
}

#[tokio::test]
async fn a_directory_that_refuses_says_so() {
    // Root may write everywhere: then there is nothing to be refused.
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap(), &quick()).unwrap();
    let name = ObjectName::Pack(PackId::from_bytes([7; 32]));
    store.put(&name, "x").await.unwrap();
    let packs = dir.path().join("packs/07");
    std::fs::set_permissions(&packs, PermissionsExt::from_mode(0o500)).unwrap();
    let other = ObjectName::Pack({
        let mut id = [7; 32];
        id[31] = 8;
        PackId::from_bytes(id)
    });
    if let Err(error) = store.put(&other, "x").await {
        assert!(matches!(error, RepoError::StoreRefused { .. }), "{error}");
    }
    std::fs::set_permissions(&packs, PermissionsExt::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn options_of_buckets_do_not_fit_directories() {
    let options = StoreOptions {
        region: Some("x".into()),
        ..quick()
    };
    let dir = tempfile::tempdir().unwrap();
    assert!(Store::open(dir.path().to_str().unwrap(), &options).is_err());
}

#[tokio::test]
async fn a_bucket_opens_without_touching_the_network() {
    let url = "s3://bucket/prefix?endpoint=http://127.0.0.1:1&region=x";
    let store = Store::open(url, &StoreOptions::default()).unwrap();
    assert_eq!(store.url_redacted(), "s3://bucket/prefix");
}
