//! A coordinator whose catalog was built again: what only the old catalog knew is gone, which costs
//! uploads, and neither refuses an honest agent for good nor believes a lying one.

mod support;

use bytes::Bytes;
use holdfast_coordinator::catalog::{Catalog, Mode};
use holdfast_format::id::RepositoryId;
use support::*;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

#[tokio::test(flavor = "multi_thread")]
async fn what_volumes_held_is_forgotten_which_costs_uploads_and_nothing_else() {
    let bench = Bench::new().await;
    let bytes = noise(1, 300_000);
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    let content = agent.send_content(&bytes);
    agent.put(extents("a", content.clone()));
    let first = agent.finish().await.unwrap();
    // A run that had sent its chunks when the catalog went.
    let mut open = Agent::begin(&bench, "web", 2).await;
    let new = noise(2, 100_000);
    let sent = open.send_content(&new);
    open.upload().await.unwrap();

    let bench = lose_the_catalog(bench).await;
    // The session is gone; its run begins again.
    open.client = bench.backup();
    assert_eq!(reason(&open.commit(1).await.unwrap_err()), "UnknownSession");
    let mut agent = Agent::begin(&bench, "web", 2).await;
    assert_eq!(
        agent.begun.parent, first.id,
        "the parent is still the parent"
    );
    assert!(agent.begun.holds_nothing);
    let ids: Vec<Bytes> = content
        .iter()
        .chain(&sent)
        .map(|e| e.chunk.clone())
        .collect();
    assert_eq!(agent.missing(&ids).await.unwrap().len(), ids.len());
    // A reference to what is stored but was not shown again is refused, whoever had it before.
    agent.put(extents("b", sent.clone()));
    let refused = agent.upload().await.unwrap_err();
    assert_eq!(reason(&refused), "UnknownChunkReference");

    // What is as in the parent needs no proof; the rest is sent again and stored once.
    let mut agent = Agent::begin(&bench, "web", 2).await;
    agent.send_content(&bytes);
    agent.send_content(&new);
    agent.changes(vec![
        put(extents("b", sent)),
        put(extents("c", content)),
        put(as_in_parent("d", "a")),
    ]);
    let second = agent.finish().await.unwrap();
    assert_eq!(second.sequence, first.sequence + 1);
    assert_eq!(second.stats.unwrap().new_chunks, 0);
    let back = read_back(&bench, &second.id).await;
    assert_eq!(
        (&back["a"], &back["c"], &back["d"]),
        (&bytes, &bytes, &bytes)
    );
    assert_eq!(back["b"], new);

    // From then on it is held again.
    let mut agent = Agent::begin(&bench, "web", 3).await;
    assert!(!agent.begun.holds_nothing);
    assert!(agent.missing(&ids).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_committed_before_is_answered_with_its_snapshot() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 7).await;
    agent.put(dir(""));
    let snapshot = agent.finish().await.unwrap();
    let bench = lose_the_catalog(bench).await;
    // Its reply was lost: the agent asks again with the same key.
    let mut again = Agent::begin(&bench, "web", 7).await;
    assert_eq!(again.begun.committed, snapshot.id);
    assert_eq!(again.commit(1).await.unwrap().id, snapshot.id);
    assert_eq!(bench.objects("snapshots").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_end_and_only_that_tells_readers_that_nothing_is_new() {
    let agreed = async |bench: &Bench| {
        let state = bench.dir.path().join("state");
        let catalog = Catalog::open(&state, &REPOSITORY, Mode::ReadOnly).await;
        let catalog = catalog.unwrap();
        let epoch = catalog.claim_epoch().await.unwrap();
        let agreed = catalog.agreed_under().await.unwrap();
        (epoch, agreed.map(|claim| claim.epoch))
    };
    let bench = Bench::new().await;
    bench.coordinator.shutdown().await.unwrap();
    assert_eq!(agreed(&bench).await, (1, Some(1)));
    let bench = Bench::over(bench.dir).await;
    // Its claim is higher than what the catalog agreed under, until it is given back.
    assert_eq!(agreed(&bench).await, (2, Some(1)));
    bench.coordinator.shutdown().await.unwrap();
    assert_eq!(agreed(&bench).await, (2, Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_volumes_from_before_a_rebuild_have_their_snapshots_proven() {
    let bench = Bench::new().await;
    Agent::begin(&bench, "old", 1).await;
    let bench = lose_the_catalog(bench).await;
    Agent::begin(&bench, "new", 2).await;
    let state = bench.dir.path().join("state");
    let catalog = Catalog::open(&state, &REPOSITORY, Mode::ReadOnly).await;
    let catalog = catalog.unwrap();
    let losses = catalog.losses().await.unwrap();
    assert!(losses > 0, "nobody knows what was lost");
    let seen = async |name: &str| {
        let volume = catalog.volume_by_name(&name.parse().unwrap()).await;
        volume.unwrap().unwrap().losses_seen
    };
    assert!(seen("old").await < losses);
    assert_eq!(seen("new").await, losses);
}
