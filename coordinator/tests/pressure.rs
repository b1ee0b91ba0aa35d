//! Many sessions at once with little memory: packs spill, nobody waits for ever, everything comes back.

mod support;

use bytes::Bytes;
use holdfast_format::frame::FrameBuilder;
use std::sync::Arc;
use std::time::Duration;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_of_many_domains_share_little_memory() {
    let bench = Bench::with(|settings| {
        settings.packs.target_bytes = 2 << 20;
        settings.packs.budget_bytes = 4 << 20;
        settings.packs.mixed_bytes = 64 << 10;
    });
    let bench = Arc::new(bench.await);
    let runs = (0..6u8).map(|n| {
        let bench = bench.clone();
        tokio::spawn(async move {
            let bytes = noise(u64::from(n), 9 << 20);
            let mut request = begin_request(&format!("v{n}"), n + 1);
            // Two volumes to a domain.
            request.volume.as_mut().unwrap().namespace = format!("ns{}", n / 2);
            let mut agent = Agent::try_begin(&bench, request).await.unwrap();
            agent.put(dir(""));
            let content = agent.send_content(&bytes);
            agent.put(extents("data", content));
            let snapshot = agent.finish().await.unwrap();
            (snapshot.id, bytes)
        })
    });
    let all = futures::future::join_all(runs.collect::<Vec<_>>());
    let all = tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .unwrap();
    for run in all {
        let (id, bytes) = run.unwrap();
        assert_eq!(read_back(&bench, &id).await["data"], bytes);
    }
    let spool = bench.dir.path().join("state/spool");
    assert_eq!(
        std::fs::read_dir(spool).unwrap().count(),
        0,
        "spilled bytes have no name"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_sent_at_once_are_stored_about_once() {
    let bench = Arc::new(Bench::new().await);
    let bytes = noise(1, 8 << 20);
    let runs = (0..3u8).map(|n| {
        let (bench, bytes) = (bench.clone(), bytes.clone());
        tokio::spawn(async move {
            let mut agent = Agent::begin(&bench, &format!("v{n}"), n + 1).await;
            agent.put(dir(""));
            let content = agent.send_content(&bytes);
            agent.put(extents("same", content));
            agent.finish().await.unwrap().id
        })
    });
    for id in futures::future::join_all(runs.collect::<Vec<_>>()).await {
        assert_eq!(read_back(&bench, &id.unwrap()).await["same"], bytes);
    }
    let stored: u64 = bench.objects("packs").values().sum();
    assert!(stored < 2 * bytes.len() as u64, "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_gets_its_acknowledgement() {
    let bench = Bench::with(|settings| settings.sessions.idle = Duration::from_millis(50)).await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    let all = agent.send_content(&noise(4, 300_000));
    assert_eq!(agent.upload_until_acknowledged().await, 1);
    let mut again = Agent::begin(&bench, "web", 1).await;
    let ids: Vec<Bytes> = all.iter().map(|e| e.chunk.clone()).collect();
    assert!(again.missing(&ids).await.unwrap().is_empty());
}

/// So many new chunks that the catalog, which was not empty, is read into the filter meanwhile: nothing
/// that is stored is taken for new, before, during and after.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_never_taken_for_new() {
    let send = async |bench: &Bench, name: &str, key: u8, chunks: std::ops::Range<u64>| {
        let mut agent = Agent::begin(bench, name, key).await;
        agent.put(dir(""));
        let chunks: Vec<u64> = chunks.collect();
        for chunks in chunks.chunks(300) {
            let mut frame = FrameBuilder::new();
            for n in chunks {
                let bytes = noise(*n, 100);
                let id = agent.ids.chunk(&bytes);
                frame.push(id.into_bytes(), &bytes).unwrap();
            }
            agent.frame(frame.finish(1).unwrap());
        }
        agent.finish().await.unwrap().stats.unwrap().new_chunks
    };
    let bench = Bench::new().await;
    assert_eq!(send(&bench, "a", 1, 0..3000).await, 3000);
    let bench = bench.restart().await;
    assert_eq!(send(&bench, "b", 2, 0..3000).await, 0);
    assert_eq!(send(&bench, "b", 3, 3000..9000).await, 6000);
    for key in 4..8 {
        assert_eq!(send(&bench, "c", key, 0..9000).await, 0);
    }
    assert_eq!(send(&bench, "c", 8, 8900..9100).await, 100);
}
