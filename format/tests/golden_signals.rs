//! The golden snapshot record with signals, as `golden.rs` has the other objects.
#![allow(clippy::disallowed_methods, reason = "a test reads its own files")]

use holdfast_format::FormatError;
use holdfast_format::entry::Problem;
use holdfast_format::id::{
    DomainId, IdempotencyKey, NodeId, RepositoryId, SnapshotId, VolumeId, hex,
};
use holdfast_format::path::RelPath;
use holdfast_format::seal::*;
use holdfast_format::signals::{Anomaly, Mode, SignalCounts, Signals};
use holdfast_format::snapshot::Snapshot;
use holdfast_format::stats::Stats;
use holdfast_format::volume::VolumeFacts;
use std::path::Path;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);
const DOMAIN: DomainId = DomainId::from_bytes([0x22; 16]);

/// The golden bytes, which must be what is written now.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    let file = folder.join(name);
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() && !file.exists() {
        std::fs::write(&file, written).unwrap();
    }
    let stored = std::fs::read(&file).unwrap();
    assert!(stored == written, "{name} is not what is written now");
    stored
}

fn snapshot() -> Snapshot {
    let mut counts = SignalCounts::default();
    for (index, counter) in counts.counters_mut().into_iter().enumerate() {
        *counter = 1 << (index * 4);
    }
    let problem = Problem {
        reason: "Vanished".to_owned(),
        detail: "gone".to_owned(),
        errno: 2,
        carried_over: false,
        since_ns: 1,
    };
    Snapshot {
        volume: VolumeId::from_bytes([1; 16]),
        domain: DOMAIN,
        generation: 1,
        entries_root: NodeId::from_bytes([2; 32]),
        problems_root: Some(NodeId::from_bytes([3; 32])),
        parent: Some(SnapshotId::from_bytes([4; 32])),
        sequence: 300,
        started_ns: 1_700_000_000_000_000_000,
        received_ns: 1_700_000_001_000_000_000,
        run: IdempotencyKey::from_bytes([5; 16]),
        facts: VolumeFacts::named("team/web".parse().unwrap()),
        stats: Stats::default(),
        problem_count: 1,
        first_problems: vec![(RelPath::new("a/b").unwrap(), problem)],
        signals: Some(Signals {
            counts,
            mode: Mode::Walk,
            walk_reason: "AgentRestarted".to_owned(),
            score: 100,
            reasons: Anomaly::ALL.to_vec(),
            suspicious: true,
        }),
    }
}

#[test]
fn a_record_with_signals() {
    let record = snapshot();
    let plain = record.encode().unwrap();
    let line = hex(&plain) + "\n";
    golden("signalled-snapshot-plain.hex", line.as_bytes());
    assert_eq!(Snapshot::decode(&plain).unwrap(), record);

    let header = Header {
        kind: record.kind(),
        key: KeyRef::Domain {
            domain: DOMAIN,
            generation: 1,
            master: 2,
        },
        salt: [11; 32],
    };
    let master = SealingMaster::from_bytes(2, [0x66; 32]);
    let sealed = seal_object(&REPOSITORY, &header, KeyMaterial::Master(&master), &plain).unwrap();
    let stored = golden("signalled-snapshot", &sealed);
    let key_for = |_: &KeyRef| Some(KeyMaterial::Master(&master));
    let opened = open_object(&REPOSITORY, ObjectKind::SignalledSnapshot, key_for, &stored);
    assert_eq!(opened.unwrap(), plain);
    // A reader of records without signals refuses it by name.
    let refused = open_object(&REPOSITORY, ObjectKind::Snapshot, key_for, &stored);
    assert!(matches!(refused, Err(FormatError::WrongKind { .. })));
}
