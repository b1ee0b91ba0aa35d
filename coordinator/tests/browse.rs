//! What an operator asks: list, find, diff, forget, volumes, status; and reading around damage.

mod support;

use bytes::Bytes;
use holdfast_format::id::{MarkId, SnapshotId};
use holdfast_format::mark::{Mark, MarkRecord};
use holdfast_proto::v1 as proto;
use support::*;

/// Puts a mark as an operator's tool would, and lets a coordinator find it.
async fn mark(bench: Bench, mark: Mark, time_ns: i64) -> (Bench, MarkId) {
    bench.coordinator.shutdown().await.unwrap();
    let repository = repository(bench.dir.path()).await;
    let record = MarkRecord {
        mark,
        time_ns,
        actor: "ann".into(),
    };
    let id = repository.put_mark(&record).await.unwrap();
    (Bench::over(bench.dir).await, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_snapshot_is_forgotten_only_after_its_release() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    let snapshot = agent.finish().await.unwrap();
    let id = SnapshotId::try_from(&snapshot.id[..]).unwrap();
    let pin = Mark::Pin {
        snapshot: id,
        reason: "the audit of 2026".into(),
    };
    let (bench, pin) = mark(bench, pin, 1).await;
    let request = proto::ForgetRequest {
        snapshot: snapshot.id.clone(),
    };
    let kept = bench.admin().forget(request.clone()).await.unwrap_err();
    assert_eq!(reason(&kept), "SnapshotPinned");
    for part in [&*pin.short(), "the audit of 2026", "ann", "released"] {
        assert!(
            kept.message().contains(part),
            "{part} in {}",
            kept.message()
        );
    }
    assert_eq!(bench.objects("snapshots").len(), 1);

    let over = Mark::Hold {
        snapshot: id,
        until_ns: 5,
        reason: String::new(),
    };
    let (bench, _) = mark(bench, over, 2).await;
    let (bench, _) = mark(bench, Mark::Release { mark: pin }, 3).await;
    bench.admin().forget(request).await.unwrap();
    assert_eq!(bench.objects("snapshots").len(), 0);
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn list(bench: &Bench, snapshot: &Bytes, path: &str, recursive: bool) -> Vec<String> {
    let request = proto::ListRequest {
        snapshot: snapshot.clone(),
        path: bytes(path),
        recursive,
    };
    let mut replies = bench.admin().list(request).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        for entry in reply.entries {
            assert!(entry.content.is_none());
            names.push(String::from_utf8(entry.path.to_vec()).unwrap());
        }
    }
    names
}

async fn two_snapshots(bench: &Bench) -> (proto::SnapshotInfo, proto::SnapshotInfo) {
    let mut agent = Agent::begin(bench, "web", 1).await;
    agent.changes(vec![
        put(dir("")),
        put(inline("a.log", b"1")),
        put(dir("d")),
        put(inline("d/b.log", b"2")),
        put(inline("d/c.txt", b"3")),
    ]);
    let first = agent.finish().await.unwrap();
    let mut agent = Agent::begin(bench, "web", 2).await;
    agent.changes(vec![
        remove("a.log"),
        put(inline("d/b.log", b"22")),
        put(inline("d/e", b"5")),
    ]);
    (first, agent.finish().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_of_a_directory_a_subtree_or_a_file() {
    let bench = Bench::new().await;
    let (first, second) = two_snapshots(&bench).await;
    assert_eq!(list(&bench, &first.id, "", false).await, ["a.log", "d"]);
    assert_eq!(
        list(&bench, &first.id, "d", false).await,
        ["d/b.log", "d/c.txt"]
    );
    assert_eq!(
        list(&bench, &first.id, "", true).await,
        ["a.log", "d", "d/b.log", "d/c.txt"]
    );
    assert_eq!(list(&bench, &second.id, "d/e", false).await, ["d/e"]);
    let request = proto::ListRequest {
        snapshot: second.id,
        path: bytes("a.log"),
        recursive: false,
    };
    let mut replies = bench.admin().list(request).await.unwrap().into_inner();
    assert_eq!(
        reason(&replies.message().await.unwrap_err()),
        "PathNotFound"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn find_tells_the_history_and_diff_the_difference() {
    let bench = Bench::new().await;
    let (first, second) = two_snapshots(&bench).await;
    for (pattern, expected) in [
        ("*.log", [vec!["a.log", "d/b.log"], vec!["d/b.log"]]),
        ("/d/e", [vec![], vec!["d/e"]]),
    ] {
        let request = proto::FindRequest {
            volume: "web".into(),
            pattern: bytes(pattern),
        };
        let mut replies = bench.admin().find(request).await.unwrap().into_inner();
        let mut found = [Vec::new(), Vec::new()];
        while let Some(reply) = replies.message().await.unwrap() {
            let at = usize::from(reply.snapshot == second.id);
            assert!(reply.info.is_some());
            found[at].extend(reply.entries.iter().map(|e| e.path.clone()));
        }
        let expected = expected.map(|names| names.into_iter().map(bytes).collect::<Vec<_>>());
        assert_eq!(found, expected, "{pattern}");
    }
    let request = proto::DiffRequest {
        from: first.id.clone(),
        to: second.id.clone(),
        path: Bytes::new(),
    };
    let mut replies = bench.admin().diff(request).await.unwrap().into_inner();
    let mut items = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        for item in reply.items {
            let (from, to) = (item.from.is_some(), item.to.is_some());
            let entry = item.from.or(item.to).unwrap();
            items.push((String::from_utf8(entry.path.to_vec()).unwrap(), from, to));
        }
    }
    let item = |path: &str, from, to| (path.to_owned(), from, to);
    assert_eq!(
        items,
        [
            item("a.log", true, false),
            item("d/b.log", true, true),
            item("d/e", false, true)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_snapshot_is_gone_and_the_others_stay() {
    let bench = Bench::new().await;
    let (first, second) = two_snapshots(&bench).await;
    let request = proto::ForgetRequest {
        snapshot: first.id.clone(),
    };
    bench.admin().forget(request.clone()).await.unwrap();
    assert_eq!(
        reason(&bench.admin().forget(request).await.unwrap_err()),
        "SnapshotNotFound"
    );
    assert_eq!(bench.objects("snapshots").len(), 1);
    let listed = bench
        .admin()
        .snapshots(proto::SnapshotsRequest::default())
        .await;
    let listed = listed.unwrap().into_inner().snapshots;
    assert_eq!(
        listed.iter().map(|s| s.id.clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&second.id)
    );
    assert_eq!(read_back(&bench, &second.id).await["d/b.log"], b"22");

    let bench = bench.restart().await;
    let volumes = bench
        .admin()
        .volumes(proto::VolumesRequest {})
        .await
        .unwrap()
        .into_inner();
    let volume = &volumes.volumes[0];
    assert_eq!(
        (volume.snapshots, volume.latest.as_ref().unwrap().id.clone()),
        (1, second.id)
    );
    let status = bench
        .admin()
        .status(proto::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.volumes, status.snapshots, status.open_sessions),
        (1, 1, 0)
    );
    assert!(status.claim_epoch >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_lost_pack_are_named_and_the_rest_is_read() {
    let bench = Bench::new().await;
    let (lost, kept) = (noise(1, 3 << 20), noise(2, 3 << 20));
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    let content = agent.send_content(&lost);
    agent.put(extents("lost", content));
    agent.finish().await.unwrap();
    let first: Vec<String> = bench.objects("packs").into_keys().collect();
    let mut agent = Agent::begin(&bench, "web", 2).await;
    let content = agent.send_content(&kept);
    agent.put(extents("kept", content));
    let second = agent.finish().await.unwrap();

    let largest = first
        .iter()
        .max_by_key(|name| bench.objects("packs")[*name])
        .unwrap();
    std::fs::remove_file(bench.dir.path().join("store").join(largest)).unwrap();
    let (entries, damaged) = read_entries(&bench, &second.id, "").await;
    assert!(damaged.is_empty());
    let ids = |path: &str| -> Vec<Bytes> {
        let found = entries
            .iter()
            .find(|(e, _)| e.path == path.as_bytes())
            .unwrap();
        found.1.iter().map(|e| e.chunk.clone()).collect()
    };
    let all = [ids("kept"), ids("lost")].concat();
    let (found, damaged) = fetch(&bench, &second.id, all).await;
    assert!(ids("kept").iter().all(|id| found.contains_key(id)));
    let named: Vec<Bytes> = damaged.iter().flat_map(|d| d.chunks.clone()).collect();
    assert_eq!(named.len(), ids("lost").len());
    assert!(damaged.iter().all(
        |d| d.reason == "PackMissing" && d.detail.contains(largest.rsplit('/').next().unwrap())
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_subscribes_and_gets_its_orders() {
    use proto::jobs_client::JobsClient;
    let bench = Bench::new().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let hello = proto::Hello {
        protocol: 1,
        node: "n1".into(),
        volumes: Some(proto::VolumeList {
            volumes: vec![proto::AgentVolume {
                facts: Some(facts("web")),
                eligible: true,
                ..Default::default()
            }],
        }),
        ..Default::default()
    };
    let say = |body| proto::AgentMessage { body: Some(body) };
    sender
        .send(say(proto::agent_message::Body::Hello(hello)))
        .await
        .unwrap();
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut orders = JobsClient::new(bench.channel.clone())
        .subscribe(messages)
        .await
        .unwrap()
        .into_inner();
    let start = proto::StartBackupRequest {
        volume: "web".into(),
        ..Default::default()
    };
    let job = bench
        .admin()
        .start_backup(start)
        .await
        .unwrap()
        .into_inner();
    let order = orders.message().await.unwrap().unwrap();
    assert_eq!(order.job, job.id);
    let watch = proto::WatchJobRequest {
        job: job.id.clone(),
    };
    let mut states = bench.admin().watch_job(watch).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().ended_ns, 0);
    let report = proto::Report {
        job: job.id,
        state: proto::JobState::Done.into(),
        ..Default::default()
    };
    sender
        .send(say(proto::agent_message::Body::Report(report)))
        .await
        .unwrap();
    let mut last = None;
    while let Some(state) = states.message().await.unwrap() {
        last = Some(state);
    }
    assert_ne!(last.unwrap().ended_ns, 0);
    let missing = proto::StartBackupRequest {
        volume: "db".into(),
        ..Default::default()
    };
    let error = bench.admin().start_backup(missing).await.unwrap_err();
    assert_eq!(reason(&error), "AgentMissing");
}
