//! The golden snapshot record with signals, as `golden.rs` has the other objects.

use super::{MASTER, golden, lines, open, seal, snapshot};
use holdfast_format::FormatError;
use holdfast_format::seal::{ObjectKind, open_object};
use holdfast_format::signals::{Anomaly, Mode, SignalCounts, Signals};
use holdfast_format::snapshot::Snapshot;
use holdfast_format::stats::Stats;
use holdfast_format::volume::VolumeFacts;

fn signalled() -> Snapshot {
    let mut counts = SignalCounts::default();
    for (index, counter) in counts.counters_mut().into_iter().enumerate() {
        *counter = 1 << (index * 4);
    }
    let plain = snapshot();
    Snapshot {
        facts: VolumeFacts::named("team/web".parse().unwrap()),
        stats: Stats::default(),
        problem_count: 1,
        first_problems: plain.first_problems[1..].to_vec(),
        signals: Some(Signals {
            counts,
            mode: Mode::Walk,
            walk_reason: "AgentRestarted".to_owned(),
            score: 100,
            reasons: Anomaly::ALL.to_vec(),
            suspicious: true,
        }),
        ..plain
    }
}

#[test]
fn a_record_with_signals() {
    let record = signalled();
    let plain = record.encode().unwrap();
    golden("signalled-snapshot-plain.hex", &lines([plain.clone()]));
    assert_eq!(Snapshot::decode(&plain).unwrap(), record);

    let sealed = seal(record.kind(), MASTER, 11, &plain);
    let stored = golden("signalled-snapshot", &sealed);
    assert_eq!(open(ObjectKind::SignalledSnapshot, &stored), plain);
    // A reader of records without signals refuses it by name.
    let refused = open_object(&super::REPOSITORY, ObjectKind::Snapshot, |_| None, &stored);
    assert!(matches!(refused, Err(FormatError::WrongKind { .. })));
}
