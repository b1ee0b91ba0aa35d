//! What is told of volumes that share labels, and of the past.

use super::*;
use holdfast_proto::v1::Report;

fn seen(namespace: &str, claim: &str) -> Seen {
    Seen {
        labels: [namespace.to_owned(), claim.to_owned()],
        ..Seen::default()
    }
}

#[test]
fn volumes_of_the_same_labels_are_as_well_as_the_worst_of_them() {
    let cap = LabelCap::new(1);
    let one = Seen {
        newest: Some((200, 1)),
        failures: 1,
        problems: 1,
        promise: Promise {
            interval: Some(10.0),
            bound: None,
        },
        ..seen("shop", "a")
    };
    let two = Seen {
        newest: Some((100, 2)),
        failures: 3,
        suspicious: 1,
        promise: Promise {
            interval: Some(5.0),
            bound: Some(7.0),
        },
        ..seen("shop", "b")
    };
    let three = seen("shop", "c");
    let rows = joined([&one, &two, &three].into_iter(), &cap);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[&["shop".to_owned(), "a".to_owned()]], one);
    let other = &rows[&["other".to_owned(), "other".to_owned()]];
    assert_eq!((other.newest, other.failures), (Some((100, 2)), 3));
    assert_eq!(other.suspicious, 1);
    // And where both have a number, the nearer one.
    let cap = LabelCap::new(0);
    let rows = joined([&one, &two].into_iter(), &cap);
    let row = rows.values().next().unwrap();
    assert_eq!(row.newest, Some((100, 3)));
    assert_eq!(
        row.promise,
        Promise {
            interval: Some(5.0),
            bound: Some(7.0)
        }
    );
}

fn job(volume: &str, state: JobState, ended_ns: i64) -> JobInfo {
    JobInfo {
        what: "backup".into(),
        volume: volume.into(),
        ended_ns,
        last: Some(Report {
            state: state.into(),
            ..Report::default()
        }),
        ..JobInfo::default()
    }
}

#[test]
fn failures_are_counted_back_to_the_last_success() {
    let failed = JobState::Failed;
    let jobs = [
        job("a", JobState::Running, 0),
        job("a", failed, 9),
        job("a", JobState::Cancelled, 8),
        job("a", failed, 7),
        job("a", JobState::Done, 6),
        job("a", failed, 5),
        job("b", JobState::Done, 4),
        job("b", failed, 3),
    ];
    let counted = in_a_row(&jobs);
    assert_eq!(counted.get("a"), Some(&2));
    assert_eq!(counted.get("b"), None);
}
