use super::*;
use crate::entry::{Content, Entry, Extent, Kind, Xattr, XattrValue};
use crate::frame::FrameBuilder;
use crate::id::IdempotencyKey;
use crate::keys::IdKey;
use crate::signals::{Anomaly, MAX_SCORE, Mode};

const LIMITS: Limits = Limits {
    inline_limit: 512,
    profile: Some(1),
};

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn chunk(length: u32) -> Extent {
    Extent::Chunk {
        id: ChunkId::from_bytes([7; 32]),
        length,
    }
}

fn file(content: Content, size: u64) -> Entry {
    Entry {
        kind: Kind::File,
        mode: 0o4755,
        uid: 1,
        gid: 2,
        mtime_ns: -3,
        size,
        xattrs: vec![
            Xattr {
                name: "user.a".into(),
                value: XattrValue::Inline(vec![1].into()),
            },
            Xattr {
                name: "user.b".into(),
                value: XattrValue::Chunks(vec![chunk(5000)]),
            },
        ],
        target: Bytes::new(),
        rdev: 0,
        content,
        hardlink: Some(path("a")),
    }
}

fn extents(extents: &[Extent]) -> Content {
    Content::Extents {
        profile: 1,
        extents: extents.to_vec(),
    }
}

fn put(message: proto::Entry) -> Result<(RelPath, Entry, WireContent), FormatError> {
    put_from_wire(message, Sender::Backup, &LIMITS)
}

#[test]
fn entries_round_trip() {
    let hole = Extent::Hole { length: 65_536 };
    let cases = [
        file(Content::Empty, 0),
        file(Content::Inline(vec![1; 512].into()), 512),
        file(extents(&[chunk(8192), hole, chunk(1)]), 8192 + 65_536 + 1),
    ];
    for entry in cases {
        let (at, read, content) = put(entry_to_wire(&path("b/c"), &entry)).unwrap();
        assert_eq!(at, path("b/c"));
        let whole = match content {
            WireContent::Empty => Content::Empty,
            WireContent::Inline(bytes) => Content::Inline(bytes),
            WireContent::Extents { profile, extents } => Content::Extents { profile, extents },
            other => panic!("{other:?}"),
        };
        let read = Entry {
            content: whole,
            ..read
        };
        assert_eq!(read, entry);
        let listed = listed_to_wire(&at, &entry);
        let (_, _, content) = put_from_wire(listed, Sender::Listing, &LIMITS).unwrap();
        let empty = entry.size == 0;
        assert_eq!(content == WireContent::Empty, empty);
        assert_eq!(content == WireContent::Omitted, !empty);
    }
}

#[test]
fn a_long_content_is_an_entry_and_continuations() {
    let entry = file(
        Content::List {
            profile: 1,
            root: NodeId::from_bytes([1; 32]),
            level: 2,
        },
        16_384,
    );
    let (_, read, content) = put(entry_to_wire(&path("b"), &entry)).unwrap();
    assert_eq!(read.size, 16_384);
    let first = Vec::new();
    assert_eq!(content, WireContent::LongExtents { profile: 1, first });
    let more = proto::Change {
        change: Some(proto::change::Change::More(more_to_wire(&[chunk(8192)]))),
    };
    let Ok(WireChange::More(more)) = change_from_wire(more, &LIMITS) else {
        panic!("not a continuation");
    };
    let mut checker = ContentChecker::default();
    checker.push(&more).unwrap();
    checker.clone().finish(16_384).unwrap_err();
    checker.push(&more).unwrap();
    checker.finish(16_384).unwrap();
}

#[test]
fn entries_that_lie_are_refused() {
    let long = chunk(8192);
    let hole = |length| Extent::Hole { length };
    let bad: [&dyn Fn(&mut proto::Entry); 20] = [
        &|entry| entry.path = "../b".into(),
        &|entry| entry.path = Bytes::new(),
        &|entry| entry.path = vec![b'x'; 256].into(),
        &|entry| entry.kind = 0,
        &|entry| entry.kind = 99,
        &|entry| entry.mode = 0o10000,
        &|entry| entry.size = 8193,
        &|entry| entry.size = u64::MAX,
        &|entry| entry.content = None,
        &|entry| entry.target = "x".into(),
        &|entry| entry.rdev = 1,
        &|entry| entry.hardlink = "z".into(),
        &|entry| entry.hardlink = "/a".into(),
        &|entry| entry.xattrs.swap(0, 1),
        &|entry| entry.xattrs[0].value = vec![0; 4097].into(),
        &|entry| entry.xattrs[1].value = "both".into(),
        &|entry| entry.xattrs[1].chunks = extents_to_wire(1, &[hole(8192)]).extents,
        &|entry| entry.xattrs[1].chunks[0].chunk = "short".into(),
        &|entry| entry.xattrs = vec![entry.xattrs[0].clone(); 1025],
        &|entry| entry.kind = proto::Kind::Directory.into(),
    ];
    let good = || entry_to_wire(&path("b"), &file(extents(&[long]), 8192));
    put(good()).unwrap();
    for (index, change) in bad.iter().enumerate() {
        let mut message = good();
        change(&mut message);
        assert!(put(message).is_err(), "{index}");
    }

    let contents: [(&[Extent], u64); 9] = [
        (&[chunk(512)], 512),                     // belongs in the entry
        (&[chunk(262_145)], 262_145),             // longer than any chunk
        (&[hole(65_536), hole(65_536)], 131_072), // one hole
        (&[hole(57_344)], 57_344),                // too short
        (&[hole(65_537)], 65_537),                // not whole blocks
        (&[chunk(4095), hole(65_536)], 69_631),   // not at a block
        (&[hole(!4095), chunk(8192)], 4096),      // overflow
        (&[], 8192),                              // nothing
        (&[chunk(8192), chunk(1)], 8192),         // too much
    ];
    for (index, (list, size)) in contents.iter().enumerate() {
        let mut message = good();
        message.size = *size;
        message.content = Some(proto::Content {
            body: Some(proto::content::Body::Extents(extents_to_wire(1, list))),
        });
        assert!(put(message).is_err(), "content {index}");
    }
    let inline = |length: usize| {
        let mut message = good();
        message.size = length as u64;
        let bytes = vec![1; length].into();
        message.content = Some(proto::Content {
            body: Some(proto::content::Body::Inline(bytes)),
        });
        put(message)
    };
    assert!(inline(512).is_ok() && inline(513).is_err() && inline(0).is_err());
    let mut other_profile = good();
    other_profile.content = Some(proto::Content {
        body: Some(proto::content::Body::Extents(extents_to_wire(2, &[long]))),
    });
    assert!(put(other_profile).is_err());
}

#[test]
fn only_a_backup_may_point_at_its_parent() {
    let entry = file(Content::Empty, 9000);
    let message = || put_to_wire(&path("b"), &entry, WireContent::AsInParent(path("old")));
    let (_, _, content) = put(message()).unwrap();
    assert_eq!(content, WireContent::AsInParent(path("old")));
    for sender in [Sender::Restore, Sender::Listing] {
        assert!(put_from_wire(message(), sender, &LIMITS).is_err());
    }
}

#[test]
fn changes_must_say_something_and_spare_the_root() {
    use proto::change::Change;
    let read = |change| change_from_wire(proto::Change { change }, &LIMITS);
    assert!(read(None).is_err());
    assert!(read(Some(Change::EndOfExtents(false))).is_err());
    assert_eq!(
        read(Some(Change::EndOfExtents(true))).unwrap(),
        WireChange::End
    );
    assert!(read(Some(Change::Remove(Bytes::new()))).is_err());
    assert!(read(Some(Change::Remove("a/..".into()))).is_err());
    assert_eq!(
        read(Some(Change::Remove("a".into()))).unwrap(),
        WireChange::Remove(path("a"))
    );
    assert!(read(Some(Change::More(extents_to_wire(1, &[chunk(1)])))).is_err());
}

#[test]
fn frames_round_trip_and_lies_are_refused() {
    let ids = IdKey::from_bytes([1; 32]).ids();
    let mut builder = FrameBuilder::new();
    for text in [b"one".repeat(100), b"two".repeat(100)] {
        builder.push(ids.chunk(&text).into_bytes(), &text).unwrap();
    }
    let frame = builder.finish(1).unwrap();
    let good = proto::Frame::from(frame.clone());
    assert_eq!(Frame::try_from(good.clone()).unwrap(), frame);
    let bad: [&dyn Fn(&mut proto::Frame); 7] = [
        &|frame| frame.codec = 0,
        &|frame| frame.codec = 77,
        &|frame| frame.plain_length += 1,
        &|frame| frame.chunks.clear(),
        &|frame| frame.chunks[0].id = "short".into(),
        &|frame| frame.chunks[0].length = u32::MAX,
        &|frame| frame.payload = vec![0; (2 << 20) + 1].into(),
    ];
    for (index, change) in bad.iter().enumerate() {
        let mut message = good.clone();
        change(&mut message);
        assert!(Frame::try_from(message).is_err(), "{index}");
    }
}

#[test]
fn snapshot_infos_round_trip() {
    let problem = Problem {
        reason: "Vanished".to_owned(),
        detail: String::new(),
        errno: 2,
        carried_over: false,
        since_ns: 1,
    };
    let mut stats = Stats::default();
    for (index, counter) in stats.counters_mut().into_iter().enumerate() {
        *counter = index as u64 + 1;
    }
    let mut facts = VolumeFacts::named("ns/claim".parse().unwrap());
    for (index, text) in facts.texts_mut().into_iter().enumerate() {
        *text = format!("text {index}");
    }
    let snapshot = Snapshot {
        volume: VolumeId::from_bytes([1; 16]),
        domain: crate::id::DomainId::from_bytes([2; 16]),
        generation: 1,
        entries_root: NodeId::from_bytes([3; 32]),
        problems_root: Some(NodeId::from_bytes([4; 32])),
        parent: None,
        sequence: 5,
        started_ns: 6,
        received_ns: 7,
        run: IdempotencyKey::from_bytes([8; 16]),
        facts,
        stats,
        problem_count: 1,
        first_problems: vec![(path("x"), problem)],
        signals: None,
    };
    let info = SnapshotInfo::of(SnapshotId::from_bytes([9; 32]), &snapshot);
    let message = proto::SnapshotInfo::from(info.clone());
    assert_eq!(SnapshotInfo::try_from(message).unwrap(), info);

    let mut signals = Signals {
        mode: Mode::Walk,
        walk_reason: "QueueOverflow".to_owned(),
        score: 90,
        reasons: Anomaly::ALL.to_vec(),
        suspicious: true,
        ..Signals::default()
    };
    for (index, counter) in signals.counts.counters_mut().into_iter().enumerate() {
        *counter = index as u64 + 1;
    }
    let snapshot = Snapshot {
        signals: Some(signals.clone()),
        ..snapshot
    };
    let mut info = SnapshotInfo::of(SnapshotId::from_bytes([9; 32]), &snapshot);
    info.acknowledged = Some(Acknowledgement {
        time_ns: 10,
        actor: "ann".to_owned(),
    });
    let message = proto::SnapshotInfo::from(info.clone());
    assert_eq!(
        message.reasons,
        [
            "MassDeletion",
            "MassRewrite",
            "Incompressible",
            "MassRename"
        ]
    );
    assert_eq!(SnapshotInfo::try_from(message).unwrap(), info);
}

#[test]
fn signals_of_strangers_are_counts_and_known_words_only() {
    let counts = proto::Signals {
        removed_files: 7,
        mode: "walk".to_owned(),
        reason: "AgentRestarted".to_owned(),
        ..Default::default()
    };
    let read = signals_from_wire(counts.clone());
    assert_eq!(read.counts.removed_files, 7);
    assert_eq!(
        (read.mode, read.walk_reason.as_str()),
        (Mode::Walk, "AgentRestarted")
    );
    // Words that are not known lose no run, and reach no record.
    for (mode, reason) in [
        ("journal", "Why"),
        ("guessed", "Why"),
        ("walk", "two words"),
        ("walk", "\x1b[2J"),
    ] {
        let read = signals_from_wire(proto::Signals {
            mode: mode.to_owned(),
            reason: reason.to_owned(),
            ..counts.clone()
        });
        assert_eq!(read.walk_reason, "", "{mode} {reason}");
        read.check().unwrap();
    }
    let listed = proto::SnapshotInfo {
        score: 4000,
        reasons: vec!["NotYetInvented".to_owned()],
        ..Default::default()
    };
    let judged = (listed.score, &listed.reasons[..], true);
    let read = signals::judged_from_wire(counts, judged);
    assert_eq!(read.score, MAX_SCORE);
    assert!(read.suspicious && read.reasons.is_empty());
}

#[test]
fn texts_of_strangers_are_bounded() {
    let problem = |reason: &str, detail: String| proto::Problem {
        path: "a".into(),
        reason: reason.to_owned(),
        detail,
        ..Default::default()
    };
    let (_, read) = problem_from_wire(problem("Vanished", "é".repeat(5000))).unwrap();
    assert!(read.detail.len() <= MAX_DETAIL_BYTES);
    assert!(problem_from_wire(problem("not one word", String::new())).is_err());
    let facts = |change: &dyn Fn(&mut proto::VolumeFacts)| {
        let mut facts = proto::VolumeFacts {
            name: "web".to_owned(),
            ..Default::default()
        };
        change(&mut facts);
        VolumeFacts::try_from(facts)
    };
    facts(&|_| ()).unwrap();
    facts(&|facts| facts.name = "a b".to_owned()).unwrap_err();
    facts(&|facts| facts.pod = "x".repeat(4097)).unwrap_err();
    facts(&|facts| facts.node = "\x1b[2J".to_owned()).unwrap_err();
}

#[test]
fn a_session_in_a_header_comes_back_and_nothing_else_is_one() {
    let id = crate::id::SessionId::from_bytes([0xab; 16]);
    let header = session_to_header(id.as_bytes(), 7);
    assert_eq!(session_from_header(header.as_bytes()).unwrap(), (id, 7));
    for bad in [&b""[..], b"/", b"ab/7", b"\xff/7", &header.as_bytes()[..33]] {
        assert!(session_from_header(bad).is_err(), "{bad:?}");
    }
}
