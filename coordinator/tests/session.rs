//! A session end to end over the wire: what an agent sends is what a restore gives back.

mod support;

use bytes::Bytes;
use holdfast_proto::v1 as proto;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_comes_back_and_an_incremental_is_full() {
    let bench = Bench::new().await;
    let (big, small) = (noise(1, 3 << 20), b"hello".to_vec());

    let mut agent = Agent::begin(&bench, "web", 1).await;
    assert!(agent.begun.holds_nothing && agent.begun.parent.is_empty());
    agent.put(dir(""));
    agent.put(dir("d"));
    agent.put(inline("small", &small));
    let content = agent.send_content(&big);
    agent.put(extents("d/big", content));
    let first = agent.finish().await.unwrap();
    assert_eq!(first.sequence, 1);
    let back = read_back(&bench, &first.id).await;
    assert_eq!(back.keys().collect::<Vec<_>>(), ["", "d", "d/big", "small"]);
    assert_eq!((&back["d/big"], &back["small"]), (&big, &small));
    assert_eq!(first.stats.unwrap().new_chunk_bytes, big.len() as u64);

    let mut agent = Agent::begin(&bench, "web", 2).await;
    assert_eq!(agent.begun.parent, first.id);
    assert!(!agent.begun.holds_nothing);
    agent.changes(vec![remove("small"), put(as_in_parent("d/moved", "d/big"))]);
    let second = agent.finish().await.unwrap();
    let back = read_back(&bench, &second.id).await;
    assert_eq!(
        back.keys().collect::<Vec<_>>(),
        ["", "d", "d/big", "d/moved"]
    );
    assert_eq!(back["d/moved"], big);
    assert_eq!(second.stats.unwrap().new_chunks, 0);
    assert_eq!(
        read_back(&bench, &first.id).await["small"],
        small,
        "the first is as it was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_as_long_as_the_settings_say() {
    let short = std::time::Duration::from_nanos(1);
    let bench = Bench::with(|settings| settings.sessions.lease = short).await;
    let mut first = Agent::begin(&bench, "web", 1).await;
    // Over by now: another run takes the volume, and the first has lost it.
    Agent::begin(&bench, "web", 2).await;
    first.put(dir(""));
    let lost = first.upload().await.unwrap_err();
    assert!(
        ["LeaseLost", "UnknownSession"].contains(&reason(&lost).as_str()),
        "{lost}"
    );

    let bench = Bench::with(|settings| settings.sessions.lease *= 10).await;
    let first = Agent::begin(&bench, "web", 1).await;
    assert_eq!(first.begun.lease_seconds, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_written_are_as_few_as_can_be() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    let content = agent.send_content(&noise(1, 200_000));
    agent.put(extents("a", content));
    let first = agent.finish().await.unwrap();
    assert_eq!(bench.objects("packs").len(), 1, "one mixed pack");
    assert_eq!(bench.objects("snapshots").len(), 1);

    let before = bench.objects("");
    let agent = Agent::begin(&bench, "web", 2).await;
    let second = agent.finish().await.unwrap();
    assert_eq!(second.root, first.root);
    let after = bench.objects("");
    let new: Vec<_> = after
        .keys()
        .filter(|name| !before.contains_key(*name))
        .collect();
    assert_eq!(
        new.len(),
        1,
        "an unchanged volume writes its record only: {new:?}"
    );

    let mut agent = Agent::begin(&bench, "web", 3).await;
    let content = agent.send_content(&noise(2, 3 << 20));
    agent.put(extents("b", content));
    agent.finish().await.unwrap();
    assert_eq!(bench.objects("packs").len(), 3, "data and tree apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_contents_become_lists_and_come_back_in_pieces() {
    let bench = Bench::new().await;
    let bytes = noise(9, 12 << 20);
    let mut agent = Agent::begin(&bench, "db", 1).await;
    agent.put(dir(""));
    let all = agent.send_content(&bytes);
    assert!(all.len() > 200);
    let (first, rest) = all.split_at(50);
    let mut entry = extents("big", first.to_vec());
    entry.size = bytes.len() as u64;
    entry.more_extents = true;
    let more = |extents: &[proto::Extent]| proto::Change {
        change: Some(proto::change::Change::More(proto::Extents {
            profile: 0,
            extents: extents.to_vec(),
        })),
    };
    agent.changes(vec![put(entry), more(&rest[..60])]);
    agent.changes(vec![
        more(&rest[60..]),
        proto::Change {
            change: Some(proto::change::Change::EndOfExtents(true)),
        },
        put(inline("small", b"x")),
    ]);
    let snapshot = agent.finish().await.unwrap();
    assert_eq!(read_back(&bench, &snapshot.id).await["big"], bytes);

    // Part of it, frame by frame built again or sent on.
    let (entries, _) = read_entries(&bench, &snapshot.id, "big").await;
    let some: Vec<Bytes> = entries[0]
        .1
        .iter()
        .step_by(7)
        .map(|e| e.chunk.clone())
        .collect();
    let (found, damaged) = fetch(&bench, &snapshot.id, some.clone()).await;
    assert!(damaged.is_empty() && some.iter().all(|id| found.contains_key(id)));
    let most: Vec<Bytes> = entries[0]
        .1
        .iter()
        .skip(3)
        .map(|e| e.chunk.clone())
        .collect();
    let (found, _) = fetch(&bench, &snapshot.id, most.clone()).await;
    assert!(most.iter().all(|id| found.contains_key(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_answered_again_and_survives_a_restart() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    agent.upload().await.unwrap();
    let first = agent.commit(1).await.unwrap();
    assert_eq!(agent.commit(1).await.unwrap(), first);
    let again = Agent::begin(&bench, "web", 1).await;
    assert_eq!(again.begun.committed, first.id);
    let bench = bench.restart().await;
    let again = Agent::begin(&bench, "web", 1).await;
    assert_eq!(again.begun.committed, first.id);
    assert_eq!(bench.objects("snapshots").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_not_sent_again() {
    let bench = Bench::new().await;
    let bytes = noise(3, 40 << 20);
    let mut agent = Agent::begin(&bench, "web", 1).await;
    let all = agent.send_content(&bytes);
    let through = agent.upload_until_acknowledged().await;
    assert!(through > 20, "a full pack is acknowledged: {through}");

    // The stream is gone; the same run begins again.
    let mut agent = Agent::begin(&bench, "web", 1).await;
    let ids: Vec<Bytes> = all.iter().map(|e| e.chunk.clone()).collect();
    let missing = agent.missing(&ids).await.unwrap();
    assert!(
        missing.len() < ids.len() / 2,
        "{} of {}",
        missing.len(),
        ids.len()
    );
    agent.put(dir(""));
    agent.send_content(&bytes);
    let size = bytes.len() as u64;
    let mut entry = extents("f", all);
    entry.size = size;
    agent.put(entry);
    let snapshot = agent.finish().await.unwrap();
    assert_eq!(read_back(&bench, &snapshot.id).await["f"], bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_keep_the_time_they_were_first_seen() {
    let bench = Bench::new().await;
    let problem = |path: &str, reason: &str| proto::Problem {
        path: Bytes::copy_from_slice(path.as_bytes()),
        reason: reason.into(),
        ..Default::default()
    };
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    agent.problems(vec![
        problem("a", "PermissionDenied"),
        problem("b", "ReadError"),
    ]);
    let first = agent.finish().await.unwrap();
    assert_eq!(
        (first.problems, first.first_problems[0].since_ns),
        (2, 1_000)
    );

    let mut request = begin_request("web", 2);
    request.started_ns = 2_000;
    let mut agent = Agent::try_begin(&bench, request).await.unwrap();
    agent.problems(vec![problem("a", "PermissionDenied"), problem("b", "Busy")]);
    let second = agent.finish().await.unwrap();
    let since: Vec<_> = second.first_problems.iter().map(|p| p.since_ns).collect();
    assert_eq!(since, [1_000, 2_000]);
    assert_eq!(second.root, first.root);
}
