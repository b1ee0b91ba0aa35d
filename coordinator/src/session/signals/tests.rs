use super::*;
use Anomaly::{Incompressible, MassDeletion, MassRename, MassRewrite};

/// A run against a volume of 10,000 files in 100 directories, 10 GiB, that compressed to 40 % so far.
struct Run {
    before: Before,
    told: Option<Signals>,
    stats: Stats,
    seen: Seen,
}

fn quiet() -> Run {
    let stats = Stats {
        files: 10_000,
        directories: 101,
        content_bytes: 10 * GIB,
        ..Stats::default()
    };
    Run {
        before: Before {
            files: stats.files,
            bytes: stats.content_bytes,
            entries: 10_101,
            baseline: (10 * GIB, 4 * GIB),
            is_parent: true,
            most: Size::default(),
        },
        told: Some(Signals {
            counts: SignalCounts {
                parent_files: stats.files,
                parent_bytes: stats.content_bytes,
                ..SignalCounts::default()
            },
            ..Signals::default()
        }),
        stats,
        seen: Seen {
            counted: Counted {
                entries: 10_101,
                ..Counted::default()
            },
            ..Seen::default()
        },
    }
}

impl Run {
    fn counts(&mut self) -> &mut SignalCounts {
        &mut self.told.as_mut().unwrap().counts
    }

    /// So many files are gone, and everybody says so.
    fn drops(&mut self, files: u64) {
        self.stats.files -= files;
        self.counts().removed_files = files;
        self.seen.counted.entries -= files;
        self.seen.counted.removed = files;
    }

    /// So many bytes are new and became so much.
    fn ships(&mut self, plain: u64, packed: u64) {
        self.seen.plain_bytes = plain;
        self.seen.packed_bytes = packed;
        self.seen.new_bytes = plain;
    }

    fn judge(&self) -> Option<Signals> {
        let before = Some(&self.before);
        judge(before, self.told.clone(), &self.stats, &self.seen)
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Run), score: u8, reasons: &[Anomaly]) {
    let mut run = quiet();
    change(&mut run);
    let judged = run.judge().unwrap_or_default();
    assert_eq!((judged.score, &judged.reasons[..]), (score, reasons));
    assert_eq!(judged.suspicious, score >= SUSPICIOUS_SCORE);
}

#[test]
fn a_days_work_has_no_score() {
    check(|_| (), 0, &[]);
    check(|run| run.drops(999), 0, &[]);
    check(|run| run.drops(5_000), 0, &[]);
    check(|run| run.counts().rewritten_files = 3_000, 0, &[]);
    check(|run| run.seen.counted.moved = 3_000, 0, &[]);
    // As compressible as ever; and a few photographs.
    check(|run| run.ships(GIB, GIB * 2 / 5), 0, &[]);
    check(|run| run.ships(15 * MIB, 15 * MIB), 0, &[]);
    // A volume that doubles.
    check(
        |run| {
            run.stats.content_bytes *= 2;
            run.ships(10 * GIB, 4 * GIB);
        },
        0,
        &[],
    );
}

#[test]
fn most_of_the_files_gone_is_suspicious() {
    check(|run| run.drops(5_001), 60, &[MassDeletion]);
    check(|run| run.drops(7_500), 80, &[MassDeletion]);
    check(|run| run.drops(10_000), 100, &[MassDeletion]);
    // However it is told, one that says so is enough.
    check(
        |run| run.counts().removed_files = 7_500,
        80,
        &[MassDeletion],
    );
    check(|run| run.stats.files = 2_500, 80, &[MassDeletion]);
    check(|run| run.seen.counted.entries = 2_525, 80, &[MassDeletion]);
    check(|run| run.seen.counted.removed = 7_575, 79, &[MassDeletion]);
}

#[test]
fn steps_add_up() {
    // A fifth of what is there is gone, which alone is a day's work.
    let after = |most: u64| {
        move |run: &mut Run| {
            run.before.most = Size {
                files: most,
                bytes: 10 * GIB,
                entries: most + 101,
            };
            run.drops(2_000);
        }
    };
    check(after(10_000), 0, &[]);
    check(after(16_000), 0, &[]);
    check(after(16_003), 60, &[MassDeletion]);
    check(after(20_000), 68, &[MassDeletion]);
    // By the trees, whatever the agent says; and one that says so is enough.
    check(
        |run| {
            after(20_000)(run);
            run.stats.files = 10_000;
            run.told = None;
        },
        67,
        &[MassDeletion],
    );
    check(
        |run| {
            after(20_000)(run);
            run.seen.counted.entries = 10_101;
        },
        68,
        &[MassDeletion],
    );
    // A run that loses nothing is no step.
    check(
        |run| {
            after(20_000)(run);
            let quiet = quiet();
            run.stats = quiet.stats;
            run.seen = quiet.seen;
            run.counts().removed_files = 0;
        },
        0,
        &[],
    );
    // Few large files.
    let images = |bytes: u64| {
        move |run: &mut Run| {
            run.before.most.bytes = bytes;
            run.stats.content_bytes = 3 * GIB / 2;
        }
    };
    check(images(12 * GIB), 0, &[]);
    check(images(20 * GIB), 93, &[MassDeletion]);
}

#[test]
fn only_a_run_that_loses_something_is_compared_with_more() {
    let loses = |change: fn(&mut Run)| {
        let mut run = quiet();
        change(&mut run);
        run.before.loses(&run.stats, &run.seen)
    };
    assert!(!loses(|_| ()));
    assert!(!loses(|run| run.stats.files += 1));
    assert!(loses(|run| run.stats.files -= 1));
    assert!(loses(|run| run.stats.content_bytes -= 1));
    assert!(loses(|run| run.seen.counted.entries -= 1));
}

#[test]
fn an_agent_that_counts_nothing_or_lies_is_judged_by_the_trees() {
    let gone = |run: &mut Run| {
        run.seen.counted.entries = 101;
        run.seen.counted.removed = 10_000;
    };
    // An old agent.
    check(
        |run| {
            gone(run);
            run.told = None;
        },
        99,
        &[MassDeletion],
    );
    // One that says that all is well.
    check(gone, 99, &[MassDeletion]);
    // One that says that all was renamed, to nowhere; or that there was nothing before.
    check(
        |run| {
            gone(run);
            run.counts().renamed_files = 10_000;
            run.counts().parent_files = u64::MAX;
        },
        99,
        &[MassDeletion],
    );
    check(
        |run| {
            gone(run);
            run.before.files = 0;
            run.before.bytes = 0;
            run.told = None;
        },
        99,
        &[MassDeletion],
    );
    // One that works without a parent, or against an older one: what is there now decides.
    check(
        |run| {
            gone(run);
            run.before.is_parent = false;
            run.seen.counted.removed = 0;
        },
        99,
        &[MassDeletion],
    );
}

#[test]
fn what_moved_is_not_gone() {
    let moves = |run: &mut Run| run.seen.counted.removed = 10_000;
    check(
        |run| {
            moves(run);
            run.counts().renamed_files = 9_900;
            run.seen.counted.moved = 9_900;
        },
        20,
        &[MassRename],
    );
    // Whatever the agent says: nothing has moved that the trees do not show; nor were there more files before.
    check(
        |run| {
            moves(run);
            run.counts().renamed_files = 10_000;
        },
        99,
        &[MassDeletion],
    );
    check(
        |run| {
            moves(run);
            run.seen.counted.moved = 9_900;
            run.counts().parent_files = u64::MAX;
        },
        20,
        &[MassRename],
    );
    // Of an agent that counts nothing.
    check(
        |run| {
            moves(run);
            run.told = None;
            run.seen.counted.moved = 9_900;
        },
        20,
        &[MassRename],
    );
    // Replaced by other files under other names.
    check(moves, 99, &[MassDeletion]);
}

#[test]
fn few_large_files_are_counted_in_bytes() {
    let images = |run: &mut Run| {
        run.before.files = 4;
        run.before.entries = 5;
        run.stats.files = 1;
        run.seen.counted.entries = 2;
        run.seen.counted.removed = 3;
        *run.counts() = SignalCounts {
            parent_files: 4,
            removed_files: 3,
            ..SignalCounts::default()
        };
    };
    check(images, 0, &[]);
    check(
        |run| {
            images(run);
            run.stats.content_bytes = GIB / 2;
        },
        96,
        &[MassDeletion],
    );
    check(
        |run| {
            images(run);
            run.before.bytes = GIB;
            run.stats.content_bytes = 1;
        },
        0,
        &[],
    );
}

#[test]
fn encryption_in_place_is_suspicious() {
    let rewritten = |run: &mut Run| run.counts().rewritten_files = 3_001;
    check(rewritten, 30, &[MassRewrite]);
    check(|run| run.ships(GIB, GIB), 40, &[Incompressible]);
    check(
        |run| {
            rewritten(run);
            run.ships(GIB, GIB);
        },
        70,
        &[MassRewrite, Incompressible],
    );
    // A few large files.
    check(
        |run| run.ships(6 * GIB, 6 * GIB),
        70,
        &[MassRewrite, Incompressible],
    );
    // Renamed too.
    check(
        |run| {
            rewritten(run);
            run.seen.counted.moved = 9_000;
            run.ships(GIB, GIB);
        },
        90,
        &[MassRewrite, Incompressible, MassRename],
    );
    // A volume of photographs never compressed: more of them are nothing new.
    check(
        |run| {
            run.before.baseline = (10 * GIB, 9 * GIB);
            run.ships(GIB, GIB);
        },
        0,
        &[],
    );
}

#[test]
fn the_score_ends_at_its_highest() {
    check(
        |run| {
            run.drops(9_000);
            run.counts().rewritten_files = 3_001;
            run.seen.counted.moved = 3_001;
            run.ships(6 * GIB, 6 * GIB);
        },
        100,
        &Anomaly::ALL,
    );
}

#[test]
fn a_record_is_as_it_always_was_where_there_is_nothing_to_say() {
    let mut run = quiet();
    run.told = None;
    assert_eq!(run.judge(), None);
    assert_eq!(judge(None, None, &run.stats, &run.seen), None);
    // What is told is kept, with what was seen; a first snapshot has nothing to be compared with.
    run.told = quiet().told;
    run.ships(5, 4);
    let first = judge(None, run.told.clone(), &run.stats, &run.seen).unwrap();
    assert_eq!((first.score, first.counts.entries), (0, 10_101));
    assert_eq!(first.counts.rewritten_plain_bytes, 5);
    assert_eq!(first.counts.parent_entries, 0);
}

#[test]
fn the_baseline_follows_the_volume_and_not_its_attacker() {
    let with = |signals: Option<Signals>| Snapshot {
        signals,
        ..record()
    };
    let counts = SignalCounts {
        rewritten_plain_bytes: 100 * MIB,
        rewritten_packed_bytes: 90 * MIB,
        baseline_plain_bytes: 200 * MIB,
        baseline_packed_bytes: 60 * MIB,
        ..SignalCounts::default()
    };
    let signals = Some(Signals {
        counts,
        ..Signals::default()
    });
    let taken = Before::of(&with(signals.clone()), 7, true, true);
    assert_eq!(taken.baseline, (300 * MIB, 150 * MIB));
    assert_eq!(taken.entries, 7);
    let refused = Before::of(&with(signals), 7, true, false);
    assert_eq!(refused.baseline, (200 * MIB, 60 * MIB));
    // A record without signals says it with its counters; and a long history weighs four volumes.
    let mut old = with(None);
    old.stats.new_chunk_bytes = 8 * GIB;
    old.stats.stored_bytes = 2 * GIB;
    assert_eq!(Before::of(&old, 7, true, true).baseline, (4 * GIB, GIB));
}

fn record() -> Snapshot {
    use holdfast_format::id::{DomainId, IdempotencyKey, NodeId, VolumeId};
    Snapshot {
        volume: VolumeId::from_bytes([1; 16]),
        domain: DomainId::from_bytes([2; 16]),
        generation: 1,
        entries_root: NodeId::from_bytes([3; 32]),
        problems_root: None,
        parent: None,
        sequence: 1,
        started_ns: 1,
        received_ns: 1,
        run: IdempotencyKey::from_bytes([4; 16]),
        facts: holdfast_format::volume::VolumeFacts::named("v".parse().unwrap()),
        stats: Stats {
            content_bytes: GIB,
            ..Stats::default()
        },
        problem_count: 0,
        first_problems: Vec::new(),
        signals: None,
    }
}
