//! What every store must do, asked of each in the same words: put, bounded get, list after write, delete.
//! Nothing here needs conditional writes, suffix ranges or an order of listings.

use bytes::Bytes;
use holdfast_coordinator::repo::{RepoError, Store};
use holdfast_format::id::{
    CatalogId, DomainId, MarkId, PackId, RepositoryId, SnapshotId, VolumeId,
};
use holdfast_format::names::ObjectName;
use std::collections::BTreeSet;

/// Puts the store through everything. It must be empty, and is left empty.
///
/// # Panics
/// With the promise that the store does not keep.
pub async fn store_contract(store: &Store) {
    assert_eq!(
        names(store, "").await,
        BTreeSet::new(),
        "the store is not empty"
    );
    names_of_every_kind(store).await;
    whole_objects(store).await;
    bounded_reads(store).await;
    missing_objects(store).await;
    repeated_puts(store).await;
    lists_after_writes(store).await;
    puts_side_by_side(store).await;
    assert_eq!(
        names(store, "").await,
        BTreeSet::new(),
        "something was left behind"
    );
}

fn pack(number: u32) -> ObjectName {
    let mut id = [0xa5; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    ObjectName::Pack(PackId::from_bytes(id))
}

/// Bytes that differ everywhere, so that a part that is out of place is seen.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn put(store: &Store, name: &ObjectName, bytes: Bytes) {
    let result = store.put(name, bytes).await;
    result.unwrap_or_else(|error| panic!("put {name}: {error:?}"));
}

async fn get(store: &Store, name: &ObjectName) -> Bytes {
    let result = store.get(name).await;
    result.unwrap_or_else(|error| panic!("get {name}: {error:?}"))
}

async fn delete(store: &Store, name: &ObjectName) {
    let result = store.delete(name).await;
    result.unwrap_or_else(|error| panic!("delete {name}: {error:?}"));
}

async fn names(store: &Store, prefix: &str) -> BTreeSet<String> {
    let listed = store.list(prefix).await;
    let listed = listed.unwrap_or_else(|error| panic!("list {prefix}: {error:?}"));
    let count = listed.len();
    let names: BTreeSet<String> = listed.into_iter().map(|found| found.text).collect();
    assert_eq!(names.len(), count, "a name is listed twice under {prefix}");
    names
}

async fn names_of_every_kind(store: &Store) {
    let all = [
        ObjectName::Repository(RepositoryId::from_bytes([1; 16])),
        ObjectName::Slot([2; 16]),
        ObjectName::DomainKeys {
            domain: DomainId::from_bytes([3; 16]),
            generation: 1,
            master: 12,
        },
        pack(4),
        ObjectName::Snapshot {
            volume: VolumeId::from_bytes([5; 16]),
            id: SnapshotId::from_bytes([6; 32]),
        },
        ObjectName::Mark(MarkId::from_bytes([7; 32])),
        ObjectName::Deletion(8),
        ObjectName::Segment([9; 32]),
        ObjectName::Claim {
            epoch: 10,
            catalog: CatalogId::from_bytes([11; 16]),
        },
        ObjectName::Released {
            epoch: 10,
            catalog: CatalogId::from_bytes([11; 16]),
        },
    ];
    for name in &all {
        put(store, name, Bytes::from(name.to_string())).await;
    }
    let expected: BTreeSet<String> = all.iter().map(ObjectName::to_string).collect();
    assert_eq!(names(store, "").await, expected);
    for found in store.list("").await.expect("a listing") {
        let name = found.name.expect("a name of ours is read back");
        assert_eq!(found.size, found.text.len() as u64, "size of {name}");
        assert_eq!(get(store, &name).await, found.text.as_bytes(), "{name}");
    }
    let keys = names(store, "keys/").await;
    assert_eq!(keys.len(), 2, "a prefix lists what is below it: {keys:?}");
    assert_eq!(names(store, "keys/slots/").await.len(), 1);
    assert_eq!(names(store, "none/").await.len(), 0);
    for name in &all {
        delete(store, name).await;
    }
}

async fn whole_objects(store: &Store) {
    for (number, length) in [0, 1, 4096, 2 << 20, 40 << 20].into_iter().enumerate() {
        let (name, bytes) = (pack(number as u32), noise(length));
        put(store, &name, bytes.clone()).await;
        assert_eq!(store.size(&name).await.expect("a size"), length as u64);
        assert!(
            get(store, &name).await == bytes,
            "{length} bytes come back changed"
        );
        delete(store, &name).await;
    }
}

async fn bounded_reads(store: &Store) {
    let (name, bytes) = (pack(1), noise(2 << 20));
    let end = bytes.len() as u64;
    put(store, &name, bytes.clone()).await;
    for range in [
        0..1,
        0..end,
        5..4096,
        end - 1..end,
        end - 72..end,
        1 << 20..end,
        7..7,
    ] {
        let read = store.get_range(&name, range.clone()).await;
        let read = read.unwrap_or_else(|error| panic!("range {range:?}: {error:?}"));
        let expected = bytes.slice(range.start as usize..range.end as usize);
        assert!(read == expected, "range {range:?} comes back changed");
    }
    // Past the end: an error that says how long the object is, never fewer bytes.
    for range in [0..end + 1, end - 1..end + 1, end..end + 1, end + 5..end + 9] {
        match store.get_range(&name, range.clone()).await {
            Err(RepoError::ObjectTruncated { found, .. }) => assert_eq!(found, end),
            other => panic!(
                "range {range:?} past the end: {:?}",
                other.map(|bytes| bytes.len())
            ),
        }
    }
    let limited = store.get_limited(&name, end - 1).await;
    assert!(
        limited.is_err_and(|error| error.is_damage()),
        "a limit is not kept"
    );
    delete(store, &name).await;
}

async fn missing_objects(store: &Store) {
    let name = pack(99);
    let missing = |error: RepoError| matches!(error, RepoError::ObjectMissing { .. });
    assert!(store.get(&name).await.is_err_and(missing));
    assert!(store.get_range(&name, 0..1).await.is_err_and(missing));
    assert!(store.size(&name).await.is_err_and(missing));
    // Gone already: what was wanted.
    delete(store, &name).await;
}

async fn repeated_puts(store: &Store) {
    let (name, bytes) = (pack(1), noise(100_000));
    for _ in 0..3 {
        put(store, &name, bytes.clone()).await;
        assert!(get(store, &name).await == bytes);
    }
    assert_eq!(names(store, "packs/").await.len(), 1);
    delete(store, &name).await;
    put(store, &name, bytes.clone()).await;
    assert!(
        get(store, &name).await == bytes,
        "a deleted name cannot be used again"
    );
    delete(store, &name).await;
}

async fn lists_after_writes(store: &Store) {
    let mut expected = BTreeSet::new();
    for number in 0..40 {
        let name = pack(number);
        put(store, &name, noise(10)).await;
        expected.insert(name.to_string());
        assert_eq!(
            names(store, "packs/").await,
            expected,
            "a put is not listed at once"
        );
    }
    for number in 0..40 {
        let name = pack(number);
        delete(store, &name).await;
        expected.remove(&name.to_string());
        assert_eq!(
            names(store, "packs/").await,
            expected,
            "a delete is listed still"
        );
    }
}

/// Many at a time, and two of the same name: each is whole, none is lost.
async fn puts_side_by_side(store: &Store) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            let name = pack(number / 2);
            put(&store, &name, noise(50_000)).await;
            assert!(get(&store, &name).await == noise(50_000));
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a put beside others");
    }
    assert_eq!(names(store, "packs/").await.len(), 16);
    for number in 0..16 {
        delete(store, &pack(number)).await;
    }
}
