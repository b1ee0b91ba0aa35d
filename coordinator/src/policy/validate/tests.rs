//! Every mistake names its field and says what to write.

use super::*;
use crate::kube::api::{ExposureSpec, LimitsSpec, Names, ScheduleSpec, Selection, WindowSpec};

fn nightly() -> PolicySpec {
    PolicySpec {
        schedule: Some(ScheduleSpec {
            cron: "0 2 * * *".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            jitter: Some("30m".to_owned()),
        }),
        ..PolicySpec::default()
    }
}

#[test]
fn a_full_policy_is_right() {
    let mut spec = nightly();
    spec.windows = vec![WindowSpec {
        start: Some("22:00".to_owned()),
        duration: "8h".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        ..WindowSpec::default()
    }];
    spec.deadline = Some("6h".to_owned());
    spec.starting_deadline = Some("1h".to_owned());
    spec.files = Some(FilesSpec {
        include: vec!["/data".to_owned()],
        exclude: vec![
            "*.tmp".to_owned(),
            "!keep.tmp".to_owned(),
            "cache/".to_owned(),
        ],
    });
    assert_eq!(validate(&spec, Scope::Namespace), []);
    spec.selection.namespaces = Some(Names {
        include: vec!["shop-*".to_owned()],
        exclude: Vec::new(),
    });
    assert_eq!(validate(&spec, Scope::Cluster), []);
    assert_eq!(validate(&spec, Scope::Namespace).len(), 1);
}

#[test]
fn each_mistake_has_its_field() {
    type Change = fn(&mut PolicySpec);
    let cases: [(Change, &str, &str); 23] = [
        (|s| s.schedule = None, "spec", "neither is given"),
        (
            |s| {
                s.exposure = Some(ExposureSpec {
                    max_age: "5m".to_owned(),
                    ..ExposureSpec::default()
                })
            },
            "spec",
            "both are given",
        ),
        (
            |s| s.schedule.as_mut().unwrap().cron = "0 2 * *".to_owned(),
            "spec.schedule.cron",
            "4 fields, not 5",
        ),
        (
            |s| s.schedule.as_mut().unwrap().cron = "0 2 31 2 *".to_owned(),
            "spec.schedule.cron",
            "never happens",
        ),
        (
            |s| s.schedule.as_mut().unwrap().time_zone = "Europe/Berlln".to_owned(),
            "spec.schedule.timeZone",
            "IANA name",
        ),
        (
            |s| s.schedule.as_mut().unwrap().jitter = Some("half".to_owned()),
            "spec.schedule.jitter",
            "30s, 15m",
        ),
        (
            |s| s.schedule.as_mut().unwrap().jitter = Some("8d".to_owned()),
            "spec.schedule.jitter",
            "longer than 7d",
        ),
        (
            |s| s.deadline = Some("1 hour".to_owned()),
            "spec.deadline",
            "1h30m",
        ),
        (
            |s| s.deadline = Some("0s".to_owned()),
            "spec.deadline",
            "is 0",
        ),
        (
            |s| s.starting_deadline = Some("5s".to_owned()),
            "spec.startingDeadline",
            "shorter than 10s",
        ),
        (|s| s.priority = 1001, "spec.priority", "-1000 to 1000"),
        (
            |s| {
                s.limits = Some(LimitsSpec {
                    max_concurrent_per_node: Some(0),
                    ..LimitsSpec::default()
                })
            },
            "spec.limits.maxConcurrentPerNode",
            "suspend",
        ),
        (
            |s| {
                s.limits = Some(LimitsSpec {
                    read_rate: Some("1Ki".to_owned()),
                    ..LimitsSpec::default()
                })
            },
            "spec.limits.readRate",
            "64Ki or more",
        ),
        (
            |s| {
                s.limits = Some(LimitsSpec {
                    send_rate: Some("fast".to_owned()),
                    ..LimitsSpec::default()
                })
            },
            "spec.limits.sendRate",
            "is not a size",
        ),
        (
            |s| {
                s.windows = vec![WindowSpec {
                    duration: "1h".to_owned(),
                    time_zone: "UTC".to_owned(),
                    ..WindowSpec::default()
                }]
            },
            "spec.windows[0]",
            "cron and start",
        ),
        (
            |s| {
                s.files = Some(FilesSpec {
                    include: vec![],
                    exclude: vec!["a".to_owned(), "[a".to_owned()],
                })
            },
            "spec.files.exclude[1]",
            "'[a' is no glob",
        ),
        (
            |s| {
                s.files = Some(FilesSpec {
                    include: vec!["!a".to_owned()],
                    exclude: vec![],
                })
            },
            "spec.files.include[0]",
            "spec.files.exclude",
        ),
        (
            |s| {
                s.files = Some(FilesSpec {
                    include: vec![" ".to_owned()],
                    exclude: vec![],
                })
            },
            "spec.files.include[0]",
            "is empty",
        ),
        (
            |s| s.selection.min_size = Some("10GB".to_owned()),
            "spec.selection.minSize",
            "500Mi, 10Gi",
        ),
        (
            |s| {
                (s.selection.min_size, s.selection.max_size) =
                    (Some("2Gi".to_owned()), Some("2G".to_owned()))
            },
            "spec.selection.maxSize",
            "smaller than minSize",
        ),
        (
            |s| {
                s.selection = Selection {
                    kinds: vec![],
                    ..Selection::default()
                }
            },
            "spec.selection.kinds",
            "is empty",
        ),
        (
            |s| s.selection.drivers = vec!["a b".to_owned()],
            "spec.selection.drivers[0]",
            "no name has",
        ),
        (
            |s| s.selection.storage_classes = vec![String::new()],
            "spec.selection.storageClasses[0]",
            "is empty",
        ),
    ];
    for (change, path, told) in cases {
        let mut spec = nightly();
        change(&mut spec);
        let errors = validate(&spec, Scope::Namespace);
        assert_eq!(errors.len(), 1, "{path}: {errors:?}");
        assert_eq!(errors[0].path, path);
        assert!(errors[0].message.contains(told), "{}", errors[0]);
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut spec = nightly();
    *spec.schedule.as_mut().unwrap() = ScheduleSpec {
        cron: "x".to_owned(),
        time_zone: "y".to_owned(),
        jitter: Some("z".to_owned()),
    };
    spec.priority = -2000;
    spec.selection.namespaces = Some(Names {
        include: vec!["[".to_owned()],
        exclude: vec!["]".to_owned()],
    });
    let paths: Vec<String> = validate(&spec, Scope::Cluster)
        .into_iter()
        .map(|error| error.path)
        .collect();
    assert_eq!(
        paths,
        [
            "spec.selection.namespaces.include[0]",
            "spec.selection.namespaces.exclude[0]",
            "spec.schedule.timeZone",
            "spec.schedule.cron",
            "spec.schedule.jitter",
            "spec.priority",
        ]
    );
}
