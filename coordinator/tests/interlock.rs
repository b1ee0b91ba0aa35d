//! An emptied volume takes nothing with it: its snapshot is suspicious whatever the agent says, and until
//! somebody has acknowledged it, what is older stays.

mod support;

use bytes::Bytes;
use holdfast_format::id::SnapshotId;
use holdfast_proto::v1 as proto;
use holdfast_runtime::metrics::Metrics;
use support::*;

const FILES: usize = 1200;

/// A first snapshot of a volume with many files in one directory.
async fn full(bench: &Bench) -> proto::SnapshotInfo {
    full_of(bench, FILES).await
}

async fn full_of(bench: &Bench, files: usize) -> proto::SnapshotInfo {
    let mut agent = Agent::begin(bench, "web", 1).await;
    let mut changes = vec![put(dir("")), put(dir("d"))];
    changes.extend((0..files).map(|n| put(inline(&format!("d/{n:04}"), b"x"))));
    for changes in changes.chunks(500) {
        agent.changes(changes.to_vec());
    }
    agent.finish().await.unwrap()
}

fn forget(snapshot: &proto::SnapshotInfo) -> proto::ForgetRequest {
    proto::ForgetRequest {
        snapshot: snapshot.id.clone(),
    }
}

fn acknowledge(snapshot: &proto::SnapshotInfo, actor: &str) -> proto::AcknowledgeRequest {
    proto::AcknowledgeRequest {
        snapshot: snapshot.id.clone(),
        actor: actor.into(),
    }
}

async fn listed(bench: &Bench) -> Vec<proto::SnapshotInfo> {
    let request = proto::SnapshotsRequest::default();
    let reply = bench.admin().snapshots(request).await.unwrap();
    reply.into_inner().snapshots
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_volume_keeps_its_past_until_somebody_has_looked() {
    let bench = Bench::new().await;
    let first = full(&bench).await;
    assert!(!first.suspicious && first.signals.is_none());
    let mut agent = Agent::begin(&bench, "web", 2).await;
    assert_eq!(agent.begun.parent, first.id);
    // An agent of before counts nothing and says nothing.
    agent.changes(vec![remove("d")]);
    let emptied = agent.finish().await.unwrap();
    assert!(emptied.suspicious);
    assert_eq!(emptied.reasons, ["MassDeletion"]);
    let counts = emptied.signals.clone().unwrap();
    assert_eq!(counts.parent_entries, FILES as u64 + 2);
    assert_eq!(
        (counts.entries, counts.removed_entries),
        (1, FILES as u64 + 1)
    );
    // The next run finds an empty volume before it and is not suspicious; the past stays.
    let mut agent = Agent::begin(&bench, "web", 3).await;
    agent.put(inline("a", b"new"));
    let third = agent.finish().await.unwrap();
    assert!(!third.suspicious);

    let short = SnapshotId::try_from(&emptied.id[..]).unwrap().short();
    let kept = async |bench: &Bench| {
        for one in [&first, &emptied] {
            let kept = bench.admin().forget(forget(one)).await.unwrap_err();
            assert_eq!(reason(&kept), "SnapshotPinned");
            for part in [
                "MassDeletion",
                "score",
                &format!("holdfast acknowledge {short}"),
            ] {
                assert!(
                    kept.message().contains(part),
                    "{part} in {}",
                    kept.message()
                );
            }
        }
        let status = bench.admin().status(proto::StatusRequest {}).await.unwrap();
        assert_eq!(status.into_inner().suspicious, 1);
        let volumes = bench
            .admin()
            .volumes(proto::VolumesRequest {})
            .await
            .unwrap();
        assert_eq!(volumes.into_inner().volumes[0].suspicious, 1);
        assert_eq!(listed(bench).await.len(), 3);
    };
    kept(&bench).await;
    let metrics = Metrics::new();
    bench.coordinator.register_metrics(&metrics).update().await;
    let text = metrics.encode().unwrap();
    assert!(text.contains("holdfast_snapshots_suspicious 1"), "{text}");
    assert!(
        text.contains("holdfast_snapshots_suspicious_total 1"),
        "{text}"
    );
    // It stands in the record, not in the catalog.
    let bench = lose_the_catalog(bench).await;
    kept(&bench).await;

    let refused = bench.admin().acknowledge(acknowledge(&first, "ann")).await;
    assert_eq!(reason(&refused.unwrap_err()), "NotSuspicious");
    let acknowledged = |reply: proto::AcknowledgeReply| {
        let by = reply.snapshot.unwrap().acknowledged.unwrap();
        assert!(by.time_ns > 0);
        (by.actor, reply.already)
    };
    let reply = bench
        .admin()
        .acknowledge(acknowledge(&emptied, "ann\n"))
        .await;
    let reply = acknowledged(reply.unwrap().into_inner());
    assert_eq!(reply, ("ann".to_owned(), false));
    let reply = bench
        .admin()
        .acknowledge(acknowledge(&emptied, "bob"))
        .await;
    let reply = acknowledged(reply.unwrap().into_inner());
    assert_eq!(reply, ("ann".to_owned(), true), "the first one counts");
    // So does the mark: a catalog that was built again knows it.
    let bench = lose_the_catalog(bench).await;
    assert_eq!(bench.objects("marks").len(), 3);
    let by = listed(&bench).await[1].acknowledged.clone().unwrap();
    assert_eq!(by.actor, "ann");
    bench.admin().forget(forget(&first)).await.unwrap();
    bench.admin().forget(forget(&emptied)).await.unwrap();
    let left: Vec<Bytes> = listed(&bench)
        .await
        .into_iter()
        .map(|info| info.id)
        .collect();
    assert_eq!(left, [third.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_parent_or_with_lies_is_judged_all_the_same() {
    let bench = Bench::new().await;
    full(&bench).await;
    // It says that its parent cannot be read, and sends a nearly empty tree.
    let request = proto::BeginRequest {
        parent_damaged: true,
        ..begin_request("web", 2)
    };
    let mut agent = Agent::try_begin(&bench, request).await.unwrap();
    assert!(agent.begun.parent.is_empty());
    agent.put(dir(""));
    let claimed = proto::Stats {
        files: FILES as u64,
        ..Default::default()
    };
    let told = proto::Signals {
        renamed_files: FILES as u64,
        parent_files: u64::MAX,
        mode: "journal".into(),
        ..Default::default()
    };
    let emptied = agent.finish_telling(claimed, told).await;
    assert!(emptied.suspicious, "{emptied:?}");
    assert_eq!(emptied.signals.unwrap().mode, "journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_tell_is_kept_and_a_moved_directory_is_not_gone() {
    let bench = Bench::new().await;
    full(&bench).await;
    let mut agent = Agent::begin(&bench, "web", 2).await;
    let mut changes = vec![remove("d"), put(dir("e"))];
    let moved = (0..FILES).map(|n| put(as_in_parent(&format!("e/{n:04}"), &format!("d/{n:04}"))));
    changes.extend(moved);
    for changes in changes.chunks(500) {
        agent.changes(changes.to_vec());
    }
    let told = proto::Signals {
        renamed_files: FILES as u64,
        parent_files: FILES as u64,
        mode: "walk".into(),
        reason: "AgentRestarted".into(),
        ..Default::default()
    };
    let stats = proto::Stats {
        files: FILES as u64,
        ..Default::default()
    };
    let moved = agent.finish_telling(stats, told).await;
    assert!(!moved.suspicious);
    assert_eq!(
        (moved.score, &moved.reasons[..]),
        (20, &["MassRename".to_owned()][..])
    );
    let kept = listed(&bench).await[1].signals.clone().unwrap();
    assert_eq!((&*kept.mode, &*kept.reason), ("walk", "AgentRestarted"));
    assert_eq!(kept.removed_entries, FILES as u64 + 1);
    // Restarting changes nothing of it, and the next run counts from there.
    let bench = bench.restart().await;
    let agent = Agent::begin(&bench, "web", 3).await;
    let told = proto::Signals {
        mode: "journal".into(),
        ..Default::default()
    };
    let quiet = agent.finish_telling(stats, told).await;
    assert_eq!(quiet.signals.unwrap().entries, FILES as u64 + 2);
    assert_eq!(quiet.score, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_deletes_in_steps_is_told_of_once_and_again_only_for_as_much_again() {
    let bench = Bench::new().await;
    let first = full_of(&bench, 3000).await;
    // Files that are gone, from the front, by an agent that tells nothing of them.
    let removed = async |bench: &Bench, key: u8, range: std::ops::Range<usize>| {
        let mut agent = Agent::begin(bench, "web", key).await;
        let changes: Vec<_> = range.map(|n| remove(&format!("d/{n:04}"))).collect();
        for changes in changes.chunks(500) {
            agent.changes(changes.to_vec());
        }
        agent.finish().await.unwrap()
    };
    assert!(!removed(&bench, 2, 0..800).await.suspicious);
    // A run that loses nothing in between; and what is remembered is in the store.
    let bench = lose_the_catalog(bench).await;
    assert!(!removed(&bench, 3, 0..0).await.suspicious);
    assert!(!removed(&bench, 4, 800..1500).await.suspicious);
    let step = removed(&bench, 5, 1500..1600).await;
    assert!(step.suspicious, "1,600 of 3,000 are gone");
    assert_eq!(step.reasons, ["MassDeletion"]);
    // From there it begins anew, whether somebody has looked or not.
    assert!(!removed(&bench, 6, 1600..1700).await.suspicious);
    let kept = bench.admin().forget(forget(&first)).await.unwrap_err();
    assert_eq!(reason(&kept), "SnapshotPinned");
    let reply = bench.admin().acknowledge(acknowledge(&step, "ann")).await;
    reply.unwrap();
    assert!(!removed(&bench, 7, 1700..1800).await.suspicious);
    bench.admin().forget(forget(&step)).await.unwrap();
    assert!(!removed(&bench, 8, 1800..1900).await.suspicious);
    // 1,400 were left then; all are gone now.
    let step = removed(&bench, 9, 1900..3000).await;
    assert!(step.suspicious);
}
