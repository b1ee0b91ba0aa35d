//! Order, limits, merging, retries; and that nothing is lost whatever is called.

use super::*;
use proptest::prelude::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A run of `namespace/volume` on a node.
fn entry(volume: &str, node: &str) -> Entry {
    Entry {
        volume: volume.to_owned(),
        node: Some(node.to_owned()),
        namespace: volume.split('/').next().unwrap().to_owned(),
        policy: "nightly".to_owned(),
        priority: 0,
        due: at(0),
        start_by: None,
        time_limit: None,
        max_per_node: None,
        attempt: 0,
    }
}

fn queue(total: usize, per_node: usize) -> Queue {
    Queue::new(Limits {
        total,
        per_node,
        attempts: 3,
    })
}

fn popped(queue: &mut Queue, now: i64) -> Vec<String> {
    std::iter::from_fn(|| queue.pop(at(now), |_| true))
        .map(|run| run.entry.volume)
        .collect()
}

#[test]
fn priority_then_fewest_running_then_longest_waiting() {
    let mut queue = queue(5, 100);
    for volume in ["a/1", "a/2", "a/3", "b/1", "c/1"] {
        queue.offer(entry(volume, "n"));
    }
    queue.offer(Entry {
        priority: 5,
        ..entry("a/9", "n")
    });
    // a/9 by priority; then the namespaces without running runs; then a again.
    assert_eq!(popped(&mut queue, 0), ["a/9", "b/1", "c/1", "a/1", "a/2"]);
    for volume in ["a/9", "b/1", "c/1", "a/1", "a/2"] {
        queue.finish(volume, End::Done, at(1));
    }
    queue.offer(entry("b/2", "n"));
    queue.offer(entry("c/2", "n"));
    // Nothing runs: the namespace whose last start is longest ago.
    assert_eq!(popped(&mut queue, 1), ["b/2", "c/2", "a/3"]);
    let mut queue = self::queue(9, 9);
    queue.offer(Entry {
        due: at(-5),
        ..entry("a/late", "n")
    });
    queue.offer(Entry {
        due: at(-9),
        ..entry("a/later", "n")
    });
    queue.offer(Entry {
        due: at(1),
        ..entry("a/future", "n")
    });
    assert_eq!(popped(&mut queue, 0), ["a/later", "a/late"]);
    assert_eq!(popped(&mut queue, 1), ["a/future"]);
}

#[test]
fn limits_hold_for_all_for_a_node_and_for_a_policy() {
    let mut queue = queue(3, 2);
    for (volume, node) in [
        ("a/1", "n1"),
        ("b/2", "n1"),
        ("c/3", "n1"),
        ("d/4", "n2"),
        ("e/5", "n2"),
    ] {
        queue.offer(entry(volume, node));
    }
    assert_eq!(popped(&mut queue, 0), ["a/1", "b/2", "d/4"]);
    queue.finish("a/1", End::Done, at(1));
    assert_eq!(popped(&mut queue, 1), ["c/3"]);
    let mut queue = self::queue(9, 9);
    for (volume, policy) in [("a/1", "p"), ("a/2", "p"), ("a/3", "q")] {
        let policy = policy.to_owned();
        queue.offer(Entry {
            policy,
            max_per_node: Some(1),
            ..entry(volume, "n")
        });
    }
    assert_eq!(popped(&mut queue, 0), ["a/1", "a/3"]);
    queue.offer(Entry {
        node: None,
        ..entry("a/unmounted", "")
    });
    assert_eq!(popped(&mut queue, 0), ["a/unmounted"]);
    // A node that is away keeps nobody else waiting.
    let mut queue = self::queue(9, 9);
    queue.offer(entry("a/1", "away"));
    queue.offer(entry("b/1", "here"));
    let run = queue.pop(at(0), |node| node != Some("away")).unwrap();
    assert_eq!(run.entry.volume, "b/1");
    assert_eq!(queue.pop(at(0), |node| node != Some("away")), None);
}

#[test]
fn what_is_due_again_is_merged_and_counted() {
    let mut queue = queue(1, 1);
    assert_eq!(queue.offer(entry("a/1", "n1")), Offered::Queued);
    let again = Entry {
        priority: 7,
        due: at(5),
        ..entry("a/1", "n2")
    };
    assert_eq!(queue.offer(again), Offered::MergedIntoWaiting);
    let run = queue.pop(at(9), |_| true).unwrap();
    assert_eq!(
        (run.entry.priority, run.entry.due, run.merged),
        (7, at(0), 1)
    );
    assert_eq!(run.entry.node.as_deref(), Some("n2"), "where it is now");
    assert_eq!(queue.offer(entry("a/1", "n2")), Offered::MergedIntoRunning);
    assert_eq!(queue.running().next().unwrap().merged, 2);
    assert_eq!(
        queue.finish("a/1", End::Done, at(9)),
        Finished::Ended { merged: 2 }
    );
    assert_eq!(queue.finish("a/1", End::Done, at(9)), Finished::Unknown);
    assert_eq!(queue.offer(entry("a/1", "n2")), Offered::Queued);
}

#[test]
fn a_failed_run_is_tried_again_later_each_time_and_given_up() {
    let mut queue = queue(1, 1);
    queue.offer(Entry {
        start_by: Some(at(10)),
        ..entry("a/1", "n")
    });
    queue.pop(at(0), |_| true).unwrap();
    let retry = Finished::Retry {
        at: at(130),
        attempt: 1,
    };
    assert_eq!(queue.finish("a/1", End::Failed, at(100)), retry);
    assert_eq!(queue.pop(at(129), |_| true), None);
    assert_eq!(queue.drop_late(at(129)), [], "it was started in time once");
    assert_eq!(queue.pop(at(130), |_| true).unwrap().entry.attempt, 1);
    let retry = Finished::Retry {
        at: at(260),
        attempt: 2,
    };
    assert_eq!(queue.finish("a/1", End::Failed, at(200)), retry);
    // The schedule does not shorten the wait; a person does.
    queue.offer(Entry {
        due: at(210),
        ..entry("a/1", "n")
    });
    assert_eq!(queue.pop(at(210), |_| true), None);
    queue.offer(Entry {
        due: at(220),
        priority: 1,
        ..entry("a/1", "n")
    });
    let run = queue.pop(at(220), |_| true).unwrap();
    assert_eq!((run.entry.attempt, run.merged), (0, 2));
    queue.finish("a/1", End::Failed, at(300));
    queue.pop(at(330), |_| true).unwrap();
    queue.finish("a/1", End::Failed, at(400));
    queue.pop(at(460), |_| true).unwrap();
    let given_up = Finished::GivenUp {
        attempts: 3,
        merged: 2,
    };
    assert_eq!(queue.finish("a/1", End::Failed, at(500)), given_up);
    assert_eq!(queue.waiting().count(), 0);
    for (failures, seconds) in [
        (1, 30),
        (2, 60),
        (3, 120),
        (7, 1800),
        (31, 1800),
        (32, 1800),
        (33, 1800),
        (u32::MAX, 1800),
    ] {
        assert_eq!(
            super::retry(failures),
            SignedDuration::from_secs(seconds),
            "{failures}"
        );
    }
}

#[test]
fn deadlines_and_cancelling() {
    let mut queue = queue(1, 1);
    queue.offer(Entry {
        start_by: Some(at(10)),
        ..entry("a/1", "n")
    });
    queue.offer(Entry {
        start_by: Some(at(5)),
        ..entry("a/1", "n")
    });
    assert_eq!(queue.drop_late(at(10)), []);
    assert_eq!(
        queue.pop(at(11), |_| true),
        None,
        "late runs are not started even if nobody dropped them"
    );
    let dropped = queue.drop_late(at(11));
    assert_eq!(
        (dropped.len(), dropped[0].merged, dropped[0].why.as_str()),
        (1, 1, "NotStartedInTime")
    );
    queue.offer(entry("a/2", "n"));
    assert_eq!(queue.cancel("a/2").unwrap().why, DropReason::Cancelled);
    assert_eq!(queue.cancel("a/2"), None);
    queue.offer(Entry {
        time_limit: Some(SignedDuration::from_secs(60)),
        ..entry("a/3", "n")
    });
    queue.pop(at(100), |_| true).unwrap();
    assert_eq!(queue.cancel("a/3"), None, "it runs");
    assert_eq!(queue.overdue(at(160)).count(), 0);
    assert_eq!(queue.overdue(at(161)).count(), 1);
    assert_eq!(
        queue.finish("a/3", End::Cancelled, at(162)),
        Finished::Ended { merged: 0 }
    );
}

#[derive(Clone, Debug)]
enum Step {
    Offer {
        namespace: u8,
        volume: u8,
        node: u8,
        priority: i32,
        start_in: Option<i64>,
    },
    Pop,
    Finish {
        pick: usize,
        end: End,
    },
    Cancel {
        pick: usize,
    },
    DropLate,
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let ends = prop::sample::select(vec![End::Done, End::Failed, End::Cancelled]);
    prop_oneof![
        5 => (0u8..4, 0u8..4, 0u8..3, -1i32..2, prop::option::of(0i64..100)).prop_map(
            |(namespace, volume, node, priority, start_in)| Step::Offer { namespace, volume, node, priority, start_in }
        ),
        5 => Just(Step::Pop),
        3 => (any::<usize>(), ends).prop_map(|(pick, end)| Step::Finish { pick, end }),
        1 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        1 => Just(Step::DropLate),
        2 => (1i64..400).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Limits are never exceeded, a volume never runs twice at once, and every run that was offered is
    /// accounted for exactly once.
    #[test]
    fn nothing_is_lost_and_no_limit_exceeded(steps in prop::collection::vec(step(), 1..200)) {
        let mut queue = Queue::new(Limits { total: 4, per_node: 2, attempts: 3 });
        let (mut now, mut offered, mut ended) = (0i64, 0u32, 0u32);
        for step in steps {
            match step {
                Step::Offer { namespace, volume, node, priority, start_in } => {
                    offered += 1;
                    let start_by = start_in.map(|seconds| at(now + seconds));
                    let made = entry(&format!("{namespace}/{volume}"), &format!("n{node}"));
                    queue.offer(Entry { priority, start_by, due: at(now), ..made });
                }
                Step::Pop => {
                    let before: Vec<String> = queue.running().map(|run| run.entry.volume.clone()).collect();
                    if let Some(run) = queue.pop(at(now), |_| true) {
                        prop_assert!(!before.contains(&run.entry.volume));
                        prop_assert!(!run.entry.is_late(at(now)));
                        prop_assert!(run.entry.due <= at(now));
                    }
                }
                Step::Finish { pick, end } => {
                    let volumes: Vec<String> = queue.running().map(|run| run.entry.volume.clone()).collect();
                    if !volumes.is_empty() {
                        match queue.finish(&volumes[pick % volumes.len()], end, at(now)) {
                            Finished::Ended { merged } | Finished::GivenUp { merged, .. } => ended += 1 + merged,
                            Finished::Retry { at: from, attempt } => {
                                prop_assert!(from > at(now) && attempt < 3);
                            }
                            Finished::Unknown => prop_assert!(false),
                        }
                    }
                }
                Step::Cancel { pick } => {
                    let volumes: Vec<String> = queue.waiting().map(|(entry, _)| entry.volume.clone()).collect();
                    if !volumes.is_empty() {
                        ended += 1 + queue.cancel(&volumes[pick % volumes.len()]).unwrap().merged;
                    }
                }
                Step::DropLate => ended += queue.drop_late(at(now)).iter().map(|lost| 1 + lost.merged).sum::<u32>(),
                Step::Wait(seconds) => now += seconds,
            }
            prop_assert!(queue.running().count() <= 4);
            for node in ["n0", "n1", "n2"] {
                let on_node = queue.running().filter(|run| run.entry.node.as_deref() == Some(node));
                prop_assert!(on_node.count() <= 2);
            }
            let waiting: u32 = queue.waiting.values().map(|waiting| 1 + waiting.merged).sum();
            let running: u32 = queue.running().map(|run| 1 + run.merged).sum();
            prop_assert_eq!(offered, ended + waiting + running);
            prop_assert!(queue.waiting.keys().all(|volume| !queue.running.contains_key(volume)));
        }
        // Without more runs everything ends.
        while queue.waiting().count() + queue.running().count() > 0 {
            now += 2000;
            ended += queue.drop_late(at(now)).iter().map(|lost| 1 + lost.merged).sum::<u32>();
            while queue.pop(at(now), |_| true).is_some() {}
            let volumes: Vec<String> = queue.running().map(|run| run.entry.volume.clone()).collect();
            for volume in volumes {
                if let Finished::Ended { merged } = queue.finish(&volume, End::Done, at(now)) {
                    ended += 1 + merged;
                }
            }
        }
        prop_assert_eq!(offered, ended);
        prop_assert!(queue.busy.nodes.is_empty() && queue.busy.namespaces.is_empty() && queue.busy.policies.is_empty());
    }

    /// A namespace with one volume has its turn soon, however many runs others have waiting all the time.
    #[test]
    fn nobody_starves(greedy in 1usize..6, slots in 1usize..4, ends in prop::collection::vec(any::<usize>(), 40)) {
        let mut queue = Queue::new(Limits { total: slots, per_node: 100, attempts: 3 });
        let mut made = 0;
        let mut fill = |queue: &mut Queue| for namespace in 0..greedy {
            for _ in 0..3 {
                made += 1;
                queue.offer(Entry { due: at(-1000), ..entry(&format!("g{namespace}/{made}"), "n") });
            }
        };
        fill(&mut queue);
        while queue.pop(at(0), |_| true).is_some() {}
        queue.offer(entry("small/1", "n"));
        let mut turns = 0;
        for pick in ends {
            fill(&mut queue);
            let volumes: Vec<String> = queue.running().map(|run| run.entry.volume.clone()).collect();
            queue.finish(&volumes[pick % volumes.len()], End::Done, at(0));
            turns += 1;
            if queue.pop(at(0), |_| true).unwrap().entry.volume == "small/1" {
                break;
            }
        }
        prop_assert!(turns <= greedy + 1, "{} turns", turns);
    }
}
