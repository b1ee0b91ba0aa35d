//! When runs are due: missed ones, windows, jitter, changes of the clock.

use super::*;
use crate::kube::api::WindowSpec;
use proptest::prelude::*;
use std::collections::HashSet;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spec(cron: &str, zone: &str) -> PolicySpec {
    PolicySpec {
        schedule: Some(ScheduleSpec {
            cron: cron.to_owned(),
            time_zone: zone.to_owned(),
            jitter: None,
        }),
        ..PolicySpec::default()
    }
}

fn schedule(spec: &PolicySpec) -> Schedule {
    let mut errors = Errors::default();
    match Rhythm::read(spec, &mut errors) {
        Some(Rhythm::Schedule(schedule)) if errors.is_empty() => *schedule,
        _ => panic!("{:?}", errors.into_vec()),
    }
}

fn history(since: &str, last: Option<&str>) -> History {
    History {
        since: at(since),
        last: last.map(at),
    }
}

const NONE: SignedDuration = SignedDuration::ZERO;

#[test]
fn a_run_is_due_at_its_time_and_once() {
    let nightly = schedule(&spec("0 2 * * *", "UTC"));
    let new = history("2026-06-01T12:00:00Z", None);
    let next = Some(at("2026-06-02T02:00:00Z"));
    assert_eq!(
        nightly.due(&new, NONE, at("2026-06-01T12:00:00Z")),
        Due::Later { next }
    );
    assert_eq!(
        nightly.due(&new, NONE, at("2026-06-02T01:59:59.999Z")),
        Due::Later { next }
    );
    let due = Due::Now {
        scheduled: at("2026-06-02T02:00:00Z"),
        missed: 0,
    };
    assert_eq!(nightly.due(&new, NONE, at("2026-06-02T02:00:00Z")), due);
    assert_eq!(nightly.due(&new, NONE, at("2026-06-02T09:00:00Z")), due);
    let done = history("2026-06-01T12:00:00Z", Some("2026-06-02T02:00:00Z"));
    let next = Some(at("2026-06-03T02:00:00Z"));
    assert_eq!(
        nightly.due(&done, NONE, at("2026-06-02T09:00:00Z")),
        Due::Later { next }
    );
}

#[test]
fn what_was_missed_is_caught_up_once() {
    let hourly = schedule(&spec("0 * * * *", "UTC"));
    let before = history("2026-06-01T00:00:00Z", Some("2026-06-01T03:00:00Z"));
    let due = Due::Now {
        scheduled: at("2026-06-02T09:00:00Z"),
        missed: 29,
    };
    assert_eq!(hourly.due(&before, NONE, at("2026-06-02T09:30:00Z")), due);
    let long_ago = history("2020-06-01T00:00:00Z", None);
    let due = Due::Now {
        scheduled: at("2026-06-02T09:00:00Z"),
        missed: MAX_MISSED,
    };
    assert_eq!(hourly.due(&long_ago, NONE, at("2026-06-02T09:30:00Z")), due);
}

#[test]
fn a_starting_deadline_leaves_late_runs_out() {
    let strict = PolicySpec {
        starting_deadline: Some("1h".to_owned()),
        ..spec("0 2 * * *", "UTC")
    };
    let nightly = schedule(&strict);
    let before = history("2026-06-01T00:00:00Z", Some("2026-06-01T02:00:00Z"));
    let scheduled = at("2026-06-02T02:00:00Z");
    assert_eq!(
        nightly.due(&before, NONE, at("2026-06-02T03:00:00Z")),
        Due::Now {
            scheduled,
            missed: 0
        }
    );
    let next = Some(at("2026-06-03T02:00:00Z"));
    assert_eq!(
        nightly.due(&before, NONE, at("2026-06-02T03:00:01Z")),
        Due::TooLate { scheduled, next }
    );
}

#[test]
fn a_run_outside_of_the_windows_waits() {
    let night = WindowSpec {
        start: Some("22:00".to_owned()),
        duration: "4h".to_owned(),
        time_zone: "UTC".to_owned(),
        ..WindowSpec::default()
    };
    let windowed = PolicySpec {
        windows: vec![night],
        starting_deadline: Some("30m".to_owned()),
        ..spec("0 */6 * * *", "UTC")
    };
    let schedule = schedule(&windowed);
    let before = history("2026-06-01T00:00:00Z", Some("2026-06-01T00:00:00Z"));
    let waiting = |scheduled: &str| Due::Waiting {
        scheduled: at(scheduled),
        opens: at("2026-06-01T22:00:00Z"),
    };
    assert_eq!(
        schedule.due(&before, NONE, at("2026-06-01T06:00:00Z")),
        waiting("2026-06-01T06:00:00Z")
    );
    assert_eq!(
        schedule.due(&before, NONE, at("2026-06-01T19:00:00Z")),
        waiting("2026-06-01T18:00:00Z")
    );
    // The deadline counts from when it could start.
    let scheduled = at("2026-06-01T18:00:00Z");
    assert_eq!(
        schedule.due(&before, NONE, at("2026-06-01T22:10:00Z")),
        Due::Now {
            scheduled,
            missed: 2
        }
    );
    let next = Some(at("2026-06-02T00:00:00Z"));
    assert_eq!(
        schedule.due(&before, NONE, at("2026-06-01T22:31:00Z")),
        Due::TooLate { scheduled, next }
    );
    // What comes next starts when a window is open.
    let done = history("2026-06-01T00:00:00Z", Some("2026-06-02T00:00:00Z"));
    let next = Some(at("2026-06-02T22:00:00Z"));
    assert_eq!(
        schedule.due(&done, NONE, at("2026-06-02T01:00:00Z")),
        Due::Later { next }
    );
}

#[test]
fn jitter_stays_and_spreads() {
    let jittered = PolicySpec {
        schedule: Some(ScheduleSpec {
            cron: "0 2 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            jitter: Some("1h".to_owned()),
        }),
        ..PolicySpec::default()
    };
    let schedule = schedule(&jittered);
    // Written down: a new version must not move anybody's runs.
    let share = schedule.share_of_jitter("5e992b0b", "shop/orders");
    assert_eq!(share, schedule.share_of_jitter("5e992b0b", "shop/orders"));
    assert_eq!(share.as_millis(), 1_998_786);
    let minutes = (0..600).map(|i| {
        schedule
            .share_of_jitter("5e992b0b", &format!("shop/v-{i}"))
            .as_mins()
    });
    let mut counts = [0; 60];
    minutes.for_each(|minute| counts[usize::try_from(minute).unwrap()] += 1);
    assert!(
        counts.iter().all(|count| (1..30).contains(count)),
        "{counts:?}"
    );
    let policies: HashSet<_> = (0..100)
        .map(|i| schedule.share_of_jitter(&format!("p-{i}"), "v"))
        .collect();
    assert!(policies.len() > 95);
    let before = history("2026-06-01T00:00:00Z", Some("2026-06-01T02:00:00Z"));
    let start = at("2026-06-02T02:00:00Z").checked_add(share).unwrap();
    let early = start.checked_sub(SignedDuration::from_millis(1)).unwrap();
    assert_eq!(
        schedule.due(&before, share, early),
        Due::Later { next: Some(start) }
    );
    let due = Due::Now {
        scheduled: at("2026-06-02T02:00:00Z"),
        missed: 0,
    };
    assert_eq!(schedule.due(&before, share, start), due);
}

#[test]
fn changes_of_the_clock_neither_lose_nor_double_a_run() {
    for (zone, day, scheduled) in [
        ("Europe/Berlin", "2026-03-29", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25", "2026-10-25T00:30:00Z"),
    ] {
        let nightly = schedule(&spec("30 2 * * *", zone));
        let mut memory = history(&format!("{day}T00:00:00Z"), None);
        let mut started = Vec::new();
        let mut now = at(&format!("{day}T00:00:00Z"));
        for _ in 0..(24 * 60 - 90) {
            if let Due::Now { scheduled, .. } = nightly.due(&memory, NONE, now) {
                started.push(scheduled);
                memory.last = Some(scheduled);
            }
            now = now.checked_add(SignedDuration::from_mins(1)).unwrap();
        }
        assert_eq!(started, [at(scheduled)], "{day}");
    }
}

#[test]
fn a_clock_that_was_ahead_stops_nothing() {
    let nightly = schedule(&spec("0 2 * * *", "UTC"));
    let ahead = history("2026-06-01T00:00:00Z", Some("2036-06-01T02:00:00Z"));
    let next = Some(at("2026-06-03T02:00:00Z"));
    assert_eq!(
        nightly.due(&ahead, NONE, at("2026-06-02T03:00:00Z")),
        Due::Later { next }
    );
}

#[test]
fn a_bound_is_as_the_rule_of_continuous_protection() {
    let bound = |max_age: &str, quiet: Option<&str>| {
        let spec = PolicySpec {
            exposure: Some(ExposureSpec {
                max_age: max_age.to_owned(),
                quiet: quiet.map(str::to_owned),
                max_bytes: Some("1Gi".to_owned()),
                min_interval: None,
            }),
            ..PolicySpec::default()
        };
        let mut errors = Errors::default();
        match Rhythm::read(&spec, &mut errors) {
            Some(Rhythm::Exposure(bound, _)) => Ok(bound),
            _ => Err(errors.into_vec()),
        }
    };
    let usual = bound("5m", None).unwrap();
    assert_eq!(
        (usual.quiet, usual.min_interval),
        (Duration::from_secs(10), Duration::from_secs(60))
    );
    assert_eq!(usual.max_bytes, Some(1 << 30));
    let short = bound("5s", None).unwrap();
    assert_eq!(
        (short.quiet, short.min_interval),
        (Duration::from_secs(5), Duration::from_secs(5))
    );
    assert_eq!(
        bound("4s", None).unwrap_err()[0].path,
        "spec.exposure.maxAge"
    );
    assert_eq!(
        bound("5m", Some("6m")).unwrap_err()[0].path,
        "spec.exposure.quiet"
    );
}

proptest! {
    /// Whoever looks at whatever moments starts each time at most once, in order, and ends up with the newest.
    #[test]
    fn each_time_runs_at_most_once(
        steps in prop::collection::vec(1i64..20_000, 1..60),
        share in 0i64..7200,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]),
        line in prop::sample::select(vec!["0 * * * *", "30 2 * * *", "*/10 1-3 * * *"]),
    ) {
        let schedule = schedule(&spec(line, zone));
        let share = SignedDuration::from_secs(share);
        let mut now = at("2026-10-24T18:00:00Z");
        let since = now;
        let mut memory = History { since, last: None };
        let mut started: Vec<Timestamp> = Vec::new();
        for step in steps {
            now = now.checked_add(SignedDuration::from_secs(step)).unwrap();
            match schedule.due(&memory, share, now) {
                Due::Now { scheduled, .. } => {
                    prop_assert!(scheduled > since);
                    prop_assert!(started.last().is_none_or(|last| *last < scheduled));
                    prop_assert!(scheduled.checked_add(share).unwrap() <= now);
                    let following = schedule.calendar.next_after(scheduled).unwrap();
                    prop_assert!(following.checked_add(share).unwrap() > now, "it is the newest");
                    started.push(scheduled);
                    memory.last = Some(scheduled);
                }
                Due::Later { next } => prop_assert!(next.unwrap() > now),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

#[test]
fn the_longest_gap_has_weekends_and_jitter_in_it() {
    for (cron, jitter, hours) in [
        ("0 2 * * *", None, 24),
        ("0 2 * * *", Some("1h"), 25),
        ("0 2 * * 1-5", None, 72),
        ("0 9-17 * * 1-5", None, 64),
        ("*/5 * * * *", Some("55m"), 1),
    ] {
        let spec = PolicySpec {
            schedule: Some(ScheduleSpec {
                cron: cron.to_owned(),
                time_zone: "Etc/UTC".to_owned(),
                jitter: jitter.map(str::to_owned),
            }),
            ..PolicySpec::default()
        };
        let mut errors = Errors::default();
        let Some(Rhythm::Schedule(schedule)) = Rhythm::read(&spec, &mut errors) else {
            panic!("{cron}: {:?}", errors.into_vec());
        };
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let gap = schedule.longest_gap(now).unwrap();
        assert_eq!(gap, SignedDuration::from_hours(hours), "{cron}");
    }
}
