//! Clients that lie: each is refused with the reason that names what it did, and nothing is stored of it.

mod support;

use bytes::Bytes;
use holdfast_format::frame::{Codec, Frame, FrameBuilder, FrameItem};
use holdfast_proto::v1 as proto;
use support::*;
use tonic_types::StatusExt;

async fn refusal(mut agent: Agent) -> String {
    reason(&agent.upload().await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_nobody_sent_is_refused_by_path_and_id() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    agent.put(extents(
        "a/../b".replace("/../", "_").as_str(),
        vec![extent(&[9; 32], 1000)],
    ));
    let error = agent.upload().await.unwrap_err();
    assert_eq!(reason(&error), "UnknownChunkReference");
    assert!(error.message().contains("a_b") && error.message().contains(&"09".repeat(32)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_as_long_as_it_is_not_as_an_entry_says() {
    let bench = Bench::new().await;
    // The last chunk of a file may be of any length, so that no rule of lengths helps.
    let lie = |content: &[proto::Extent], by: i64| {
        let mut content = content.to_vec();
        let last = content.last_mut().unwrap();
        last.length = last.length.checked_add_signed(by).unwrap();
        content
    };
    let refused = |error: tonic::Status, chunk: &Bytes| {
        assert_eq!(reason(&error), "WrongChunkLength", "{error}");
        let info = error.get_error_details().error_info().unwrap().clone();
        let hex: String = chunk.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            (info.metadata["path"].as_str(), &info.metadata["chunk"]),
            ("f", &hex)
        );
    };

    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    let content = agent.send_content(&noise(1, 100_000));
    let chunk = content.last().unwrap().chunk.clone();
    agent.put(extents("f", lie(&content, 1)));
    refused(agent.upload().await.unwrap_err(), &chunk);

    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    agent.send_content(&noise(1, 100_000));
    agent.put(extents("e", content.clone()));
    agent.finish().await.unwrap();

    // What is held from before is known by the catalog only, then by the session.
    let mut agent = Agent::begin(&bench, "web", 2).await;
    agent.put(extents("f", lie(&content, -1)));
    refused(agent.upload().await.unwrap_err(), &chunk);
    let mut agent = Agent::begin(&bench, "web", 2).await;
    assert!(
        agent
            .missing(std::slice::from_ref(&chunk))
            .await
            .unwrap()
            .is_empty()
    );
    agent.put(extents("f", lie(&content, 7)));
    refused(agent.upload().await.unwrap_err(), &chunk);

    // A value of an attribute is no other.
    let mut agent = Agent::begin(&bench, "web", 2).await;
    let mut entry = inline("f", b"x");
    entry.xattrs = vec![proto::Xattr {
        name: Bytes::from_static(b"user.big"),
        chunks: lie(&content[..1], 1),
        ..Default::default()
    }];
    agent.put(entry);
    refused(agent.upload().await.unwrap_err(), &content[0].chunk);
    assert_eq!(bench.objects("snapshots").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_volumes_chunk_is_neither_confirmed_nor_usable() {
    let bench = Bench::new().await;
    let mut victim = Agent::begin(&bench, "victim", 1).await;
    victim.put(dir(""));
    let content = victim.send_content(&noise(1, 100_000));
    victim.put(extents("secret", content.clone()));
    victim.finish().await.unwrap();

    let mut thief = Agent::begin(&bench, "thief", 2).await;
    let ids: Vec<Bytes> = content.iter().map(|e| e.chunk.clone()).collect();
    let missing = thief.missing(&ids).await.unwrap();
    assert_eq!(missing.len(), ids.len());
    thief.put(dir(""));
    thief.put(extents("mine", content.clone()));
    assert_eq!(refusal(thief).await, "UnknownChunkReference");

    // Whoever has the bytes may use them; the repository keeps them once.
    let mut owner = Agent::begin(&bench, "owner", 3).await;
    owner.put(dir(""));
    owner.send_content(&noise(1, 100_000));
    owner.put(extents("same", content));
    let snapshot = owner.finish().await.unwrap();
    assert_eq!(snapshot.stats.unwrap().new_chunks, 0);
    assert_eq!(
        read_back(&bench, &snapshot.id).await["same"],
        noise(1, 100_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_id_a_bomb_and_a_frame_that_lies_about_itself_are_refused() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    let mut frame = FrameBuilder::new();
    frame.push([3; 32], b"not what it says").unwrap();
    agent.frame(frame.finish(1).unwrap());
    assert_eq!(refusal(agent).await, "InvalidChunkId");

    let mut agent = Agent::begin(&bench, "web", 1).await;
    let zeros = vec![0; 1 << 20];
    let mut bomb = FrameBuilder::new();
    bomb.push(agent.ids.chunk(&zeros).into_bytes(), &zeros)
        .unwrap();
    let mut bomb = bomb.finish(1).unwrap();
    bomb.plain_length = 1000;
    bomb.items[0].length = 1000;
    agent.frame(bomb);
    assert_eq!(refusal(agent).await, "FrameTooLarge");

    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.frame(Frame {
        codec: Codec::Raw,
        plain_length: u32::MAX,
        items: vec![FrameItem {
            id: [1; 32],
            length: u32::MAX,
        }],
        payload: Bytes::from_static(b"x"),
    });
    let refused = refusal(agent).await;
    assert!(
        ["FrameTooLarge", "InvalidRequest"].contains(&refused.as_str()),
        "{refused}"
    );
    assert_eq!(bench.objects("packs").len(), 0, "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_no_tree_may_hold_are_refused() {
    let bench = Bench::new().await;
    let cases: [(&str, Vec<proto::Change>); 7] = [
        (
            "out of order",
            vec![put(dir("")), put(inline("b", b"x")), put(inline("a", b"x"))],
        ),
        (
            "repeated",
            vec![put(dir("")), put(inline("a", b"x")), put(inline("a", b"y"))],
        ),
        (
            "no parent directory",
            vec![put(dir("")), put(inline("a/b", b"x"))],
        ),
        (
            "below a file",
            vec![
                put(dir("")),
                put(inline("a", b"x")),
                put(inline("a/b", b"x")),
            ],
        ),
        ("no root", vec![put(inline("a", b"x"))]),
        ("outside", vec![put(dir("")), put(inline("../a", b"x"))]),
        (
            "not in the parent",
            vec![put(dir("")), put(as_in_parent("a", "b"))],
        ),
    ];
    for (what, changes) in cases {
        let mut agent = Agent::begin(&bench, "web", 1).await;
        agent.changes(changes);
        let sent = agent.upload().await;
        let refused = match sent {
            Err(error) => error,
            Ok(_) => agent.commit(1).await.unwrap_err(),
        };
        assert_eq!(
            reason(&refused),
            "InvalidChange",
            "{what}: {}",
            refused.message()
        );
    }
    assert_eq!(bench.objects("snapshots").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sequence_epoch_and_size_are_checked() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    agent.upload().await.unwrap();
    assert_eq!(
        reason(&agent.commit(7).await.unwrap_err()),
        "InvalidRequest"
    );

    let old = agent;
    let mut new = Agent::begin(&bench, "web", 1).await;
    assert!(new.begun.lease_epoch > old.begun.lease_epoch);
    let mut old = old;
    assert_eq!(reason(&old.commit(1).await.unwrap_err()), "LeaseLost");
    old.put(dir(""));
    assert_eq!(refusal(old).await, "LeaseLost");

    new.changes(
        (0..1001)
            .map(|n| put(inline(&format!("{n:04}"), b"x")))
            .collect(),
    );
    assert_eq!(refusal(new).await, "MessageTooLarge");

    let mut other = begin_request("web", 9);
    other.protocol = 99;
    let error = Agent::try_begin(&bench, other).await.err().unwrap();
    assert_eq!(reason(&error), "ProtocolUnsupported");

    let busy = Agent::try_begin(&bench, begin_request("web", 9))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&busy), "VolumeBusy");
    let mut taken = begin_request("web", 9);
    taken.volume.as_mut().unwrap().source_identity = "/elsewhere".into();
    let error = Agent::try_begin(&bench, taken).await.err().unwrap();
    assert_eq!(reason(&error), "VolumeNameTaken");
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_in_the_sequence_and_oversized_messages_are_refused() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    agent.put(inline("a", b"x"));
    agent.skip_message(1);
    assert_eq!(refusal(agent).await, "InvalidRequest");

    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.frame(Frame {
        codec: Codec::Raw,
        plain_length: 5 << 20,
        items: vec![FrameItem {
            id: [1; 32],
            length: 5 << 20,
        }],
        payload: vec![0; 5 << 20].into(),
    });
    // The first message is read before there is a stream to answer on; the second is part of it.
    agent.put(dir(""));
    agent.reverse_messages();
    assert_eq!(refusal(agent).await, "MessageTooLarge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_gives_no_chunk_of_another_domain() {
    let bench = Bench::new().await;
    let mut snapshots = Vec::new();
    let mut chunks = Vec::new();
    for (n, namespace) in ["red", "blue"].into_iter().enumerate() {
        let mut request = begin_request(namespace, n as u8 + 1);
        request.volume.as_mut().unwrap().namespace = namespace.into();
        let mut agent = Agent::try_begin(&bench, request).await.unwrap();
        agent.put(dir(""));
        let content = agent.send_content(&noise(7, 50_000));
        chunks.push(content.iter().map(|e| e.chunk.clone()).collect::<Vec<_>>());
        agent.put(extents("f", content));
        snapshots.push(agent.finish().await.unwrap());
    }
    assert_ne!(
        chunks[0], chunks[1],
        "ids of the same bytes differ between domains"
    );
    let (found, damaged) = fetch(&bench, &snapshots[0].id, chunks[1].clone()).await;
    assert!(found.is_empty());
    assert_eq!(damaged[0].reason, "ChunkMissing");
    assert_eq!(damaged[0].chunks, chunks[1]);
}
