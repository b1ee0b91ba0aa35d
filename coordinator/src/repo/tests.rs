//! A repository is made once, opened with its key alone, and says by name what is wrong with it.

use super::*;
use crate::repo::kek::generate;
use crate::repo::testing::{FaultStore, quick};
use futures::StreamExt;
use holdfast_format::deletion::DeletionRecord;
use holdfast_format::id::{CatalogId, IdempotencyKey, NodeId};
use holdfast_format::mark::Mark;
use holdfast_format::stats::Stats;
use holdfast_format::volume::VolumeFacts;
use holdfast_runtime::clock::ManualClock;
use object_store::memory::InMemory;
use std::time::Duration;

fn options(id: u8) -> CreateOptions {
    CreateOptions {
        id: RepositoryId::from_bytes([id; 16]),
        created_ns: 1_800_000_000_000_000_000,
        profile: None,
        inline_limit: None,
    }
}

fn memory() -> Store {
    Store::open("memory:", &quick()).unwrap()
}

async fn claim(repository: &Repository, catalog: u8) -> Result<Claim> {
    let claimant = Claimant {
        catalog: CatalogId::from_bytes([catalog; 16]),
        host: "here".into(),
        completed_epoch: 0,
        take_over: false,
        request_limit: Duration::from_secs(300),
        clock: Arc::new(ManualClock::at(1)),
    };
    claim::acquire(repository.store(), &claimant, |_| {}).await
}

fn record(domain: &Domain) -> Snapshot {
    Snapshot {
        volume: VolumeId::from_bytes([3; 16]),
        domain: domain.id,
        generation: domain.generation,
        entries_root: NodeId::from_bytes([4; 32]),
        problems_root: None,
        parent: None,
        sequence: 1,
        started_ns: 1,
        received_ns: 2,
        run: IdempotencyKey::from_bytes([5; 16]),
        facts: VolumeFacts::named("v".parse().unwrap()),
        stats: Stats::default(),
        problem_count: 0,
        first_problems: Vec::new(),
        signals: None,
    }
}

#[tokio::test]
async fn what_is_stored_is_read_back_by_whoever_has_the_key() {
    let store = memory();
    let kek = generate().unwrap();
    let repository = Repository::create(store.clone(), kek.clone(), &options(1))
        .await
        .unwrap();
    let claim = claim(&repository, 1).await.unwrap();
    let domain = repository.ensure_domain("team", 10).await.unwrap();
    let (id, sealed) = repository.seal_snapshot(&record(&domain)).unwrap();
    let volume = VolumeId::from_bytes([3; 16]);
    assert_eq!(
        repository
            .put_snapshot(&claim, &volume, sealed)
            .await
            .unwrap(),
        id
    );
    let pin = MarkRecord {
        mark: Mark::Pin {
            snapshot: id,
            reason: "audit".into(),
        },
        time_ns: 11,
        actor: "me".into(),
    };
    let mark = repository.put_mark(&pin).await.unwrap();
    let deletion = DeletionRecord {
        number: 7,
        time_ns: 12,
        packs: vec![PackId::from_bytes([9; 32])],
    };
    repository.put_deletion(&claim, &deletion).await.unwrap();

    let again = Repository::open(store.clone(), kek).await.unwrap();
    let found = again.read_snapshot(volume, id).await.unwrap();
    assert_eq!(found.record, record(&domain));
    let keyring = again.keyring();
    assert_eq!(marks::read(&store, keyring, mark).await.unwrap(), pin);
    let all: Vec<_> = marks::read_all(&store, keyring).collect().await;
    assert_eq!(all.len(), 2);
    let all: Vec<_> = snapshots::read_all(&store, keyring).collect().await;
    assert_eq!(all.len(), 1);
    assert_eq!(snapshots::deletion_numbers(&store).await.unwrap(), [7]);
    let read = snapshots::read_deletion(&store, keyring, 7).await.unwrap();
    assert_eq!(read, deletion);
    assert_eq!(again.ensure_domain("team", 99).await.unwrap(), domain);
    snapshots::delete(&store, &claim, volume, id).await.unwrap();
    let gone = again.read_snapshot(volume, id).await.unwrap_err();
    assert!(matches!(gone, RepoError::ObjectMissing { .. }));
}

#[tokio::test]
async fn a_place_that_is_not_empty_is_left_alone() {
    let store = memory();
    let first = Repository::create(store.clone(), generate().unwrap(), &options(1)).await;
    first.unwrap();
    let error = Repository::create(store, generate().unwrap(), &options(2))
        .await
        .unwrap_err();
    assert!(
        matches!(error, RepoError::RepositoryExists { .. }),
        "{error}"
    );

    let dir = tempfile::tempdir().unwrap();
    // Not even an object of ours: a hidden file, an empty directory, a link count as well.
    for entry in [".hidden", "x#1", "dir/", "link"] {
        let place = dir.path().join(entry.replace('/', "-"));
        std::fs::create_dir(&place).unwrap();
        let inside = place.join(entry);
        match entry {
            "dir/" => std::fs::create_dir(&inside).unwrap(),
            "link" => std::os::unix::fs::symlink("nowhere", &inside).unwrap(),
            _ => std::fs::write(&inside, b"x").unwrap(),
        }
        let store = Store::open_or_create(place.to_str().unwrap(), &quick()).unwrap();
        let error = Repository::create(store, generate().unwrap(), &options(1))
            .await
            .unwrap_err();
        assert!(
            matches!(error, RepoError::NotEmpty { .. }),
            "{entry}: {error}"
        );
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
    }
    // A fresh filesystem, and a creation that was killed, are empty enough.
    let place = dir.path().join("fresh");
    std::fs::create_dir_all(place.join("lost+found")).unwrap();
    std::fs::create_dir(place.join("repository")).unwrap();
    std::fs::write(place.join("repository/0101#7000001"), b"x").unwrap();
    let store = Store::open(place.to_str().unwrap(), &quick()).unwrap();
    Repository::create(store, generate().unwrap(), &options(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn keys_that_do_not_fit_and_places_without_repository_are_told() {
    let store = memory();
    let key = generate().unwrap();
    let missing = Repository::open(store.clone(), key.clone())
        .await
        .unwrap_err();
    assert!(
        matches!(missing, RepoError::RepositoryMissing { .. }),
        "{missing}"
    );
    Repository::create(store.clone(), key.clone(), &options(1))
        .await
        .unwrap();
    let wrong = Repository::open(store.clone(), generate().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(wrong, RepoError::WrongKey { .. }), "{wrong}");
    let name = ObjectName::Repository(options(1).id);
    let whole = store.get(&name).await.unwrap();
    let text = String::from_utf8(whole.to_vec()).unwrap();
    // A changed parameter, a newer version, a feature, another repository's object.
    for (from, to, unsupported) in [
        ("inline_limit ", "inline_limit 1", false),
        ("format 1", "format 2", true),
        ("required_features ", "required_features time-travel", true),
        ("holdfast repository", "something else", false),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        store.put(&name, changed).await.unwrap();
        let error = Repository::open(store.clone(), key.clone())
            .await
            .unwrap_err();
        let named = matches!(error, RepoError::Unsupported { .. });
        assert_eq!(named, unsupported, "{to}: {error}");
        assert!(named || error.is_damage(), "{to}: {error}");
        if to.contains("time-travel") {
            assert!(error.to_string().contains("time-travel"));
        }
    }
    store.put(&name, whole.clone()).await.unwrap();
    let copy = ObjectName::Repository(options(2).id);
    store.put(&copy, whole).await.unwrap();
    let two = Repository::open(store, key).await.unwrap_err();
    assert!(
        matches!(two, RepoError::SeveralRepositories { .. }),
        "{two}"
    );
}

#[tokio::test]
async fn swapped_and_damaged_records_are_named() {
    let store = memory();
    let key = generate().unwrap();
    let repository = Repository::create(store.clone(), key.clone(), &options(1))
        .await
        .unwrap();
    let claim = claim(&repository, 1).await.unwrap();
    let domain = repository.ensure_domain("", 1).await.unwrap();
    let (id, sealed) = repository.seal_snapshot(&record(&domain)).unwrap();
    let (volume, other) = (VolumeId::from_bytes([3; 16]), VolumeId::from_bytes([4; 16]));
    repository
        .put_snapshot(&claim, &volume, sealed.clone())
        .await
        .unwrap();
    let name = ObjectName::Snapshot { volume, id };
    // Under another volume's name: the record says whose it is.
    store
        .put(&ObjectName::Snapshot { volume: other, id }, sealed.clone())
        .await
        .unwrap();
    let error = repository.read_snapshot(other, id).await.unwrap_err();
    assert!(error.to_string().contains("another volume"), "{error}");
    for at in [0, 6, 40, 70, sealed.len() - 1] {
        let mut bytes = sealed.to_vec();
        bytes[at] ^= 1;
        store.put(&name, bytes).await.unwrap();
        let error = repository.read_snapshot(volume, id).await.unwrap_err();
        assert!(
            error.is_damage() && error.to_string().contains(&name.to_string()),
            "{error}"
        );
    }
    // Damaged keys stop their domain and nothing else.
    let keys = store.list("keys/domains/").await.unwrap();
    let keys = keys[0].name.unwrap();
    let whole = store.get(&keys).await.unwrap();
    store
        .put(&keys, whole.slice(..whole.len() - 3))
        .await
        .unwrap();
    let again = Repository::open(store.clone(), key.clone()).await.unwrap();
    let error = again.domain_keys(&domain.id, 1).await.unwrap_err();
    assert!(error.to_string().contains("keys/domains/"), "{error}");
    again.ensure_domain("another", 1).await.unwrap();
}

#[tokio::test]
async fn a_fenced_process_writes_no_record() {
    let repository = Repository::create(memory(), generate().unwrap(), &options(1))
        .await
        .unwrap();
    let held = claim(&repository, 1).await.unwrap();
    let domain = repository.ensure_domain("", 1).await.unwrap();
    let store = repository.store();
    // Another one claims above it.
    let body = holdfast_format::claim::Claim {
        epoch: held.epoch() + 1,
        catalog: CatalogId::from_bytes([2; 16]),
        host: "there".into(),
        started_ns: 1,
    };
    Writer::new(store.clone()).claim(&body).await.unwrap();
    let (_, sealed) = repository.seal_snapshot(&record(&domain)).unwrap();
    let volume = VolumeId::from_bytes([3; 16]);
    let refused = repository
        .put_snapshot(&held, &volume, sealed)
        .await
        .unwrap_err();
    assert!(matches!(refused, RepoError::Fenced { .. }), "{refused}");
    assert!(store.list("snapshots/").await.unwrap().is_empty());
    let deletion = DeletionRecord {
        number: 1,
        time_ns: 1,
        packs: Vec::new(),
    };
    assert!(repository.put_deletion(&held, &deletion).await.is_err());
    assert!(store.list("deletions/").await.unwrap().is_empty());
}

#[tokio::test]
async fn two_domains_are_never_made_for_one_namespace() {
    let repository = Repository::create(memory(), generate().unwrap(), &options(1))
        .await
        .unwrap();
    let made = futures::future::join_all((0..8).map(|_| repository.ensure_domain("n", 1))).await;
    let first = made[0].as_ref().unwrap();
    assert!(made.iter().all(|domain| domain.as_ref().unwrap() == first));
    assert_eq!(
        repository
            .store()
            .list("keys/domains/")
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        repository.ensure_domain("", 1).await.unwrap().namespace,
        DEFAULT_NAMESPACE
    );
    assert_ne!(repository.ensure_domain("m", 1).await.unwrap().id, first.id);
}

/// A store that stops at the n-th call, for every n: what was begun can be begun again.
#[tokio::test]
async fn a_creation_that_breaks_anywhere_can_be_tried_again() {
    for calls in 0..12 {
        let faults = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
        let store = Store::from_object_store(faults.clone(), "faulty", &quick());
        let key = generate().unwrap();
        faults.fail_after(calls);
        let made = Repository::create(store.clone(), key.clone(), &options(1)).await;
        if let Ok(repository) = &made {
            let _ = repository.ensure_domain("n", 1).await;
        }
        faults.heal();
        let opened = match Repository::open(store.clone(), key.clone()).await {
            Ok(repository) => repository,
            Err(RepoError::RepositoryMissing { .. }) => {
                assert!(made.is_err());
                Repository::create(store, key, &options(1)).await.unwrap()
            }
            Err(error) => panic!("{calls}: {error}"),
        };
        let domain = opened.ensure_domain("n", 1).await.unwrap();
        opened
            .domain_keys(&domain.id, domain.generation)
            .await
            .unwrap();
    }
}
