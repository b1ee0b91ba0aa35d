//! Which volumes a run has, how it goes on after a restart, what is said of it, and what is removed.

use super::history::to_remove;
use super::plan::{Planned, plan};
use super::run::{Ended, Origin, Run, Stop};
use super::said::{MAX_RESULTS, status};
use super::writes::Writes;
use super::*;
use crate::kube::api::{BackupPhase, BackupPolicy, DeletionPolicy, LabelSelector, VolumeResult};
use crate::kube::facts::{ClaimFacts, Facts, NamespaceFacts};
use crate::kube::picture::Picture;
use crate::kube::words::Point;
use crate::kube::world::{Update, World};
use crate::policy::compile::Policy;
use crate::policy::due::Rhythm;
use holdfast_proto::v1::{JobState, Report, Stats};
use serde_json::json;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn all<T>(objects: Vec<(&str, &str, T)>) -> Change<T> {
    let keyed = objects
        .into_iter()
        .map(|(namespace, name, object)| ((namespace.to_owned(), name.to_owned()), object));
    Change::All(keyed.collect())
}

fn claim(name: &str, more: serde_json::Value) -> ClaimFacts {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
        "spec": {"volumeName": format!("pv-{name}")},
    });
    for (key, value) in more.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    ClaimFacts::of(serde_json::from_value(object).unwrap())
}

fn policy(name: &str, spec: serde_json::Value) -> Policy {
    let object = json!({
        "apiVersion": API_VERSION, "kind": "BackupPolicy",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3,
        },
        "spec": spec,
    });
    Policy::of_object(serde_json::from_value::<BackupPolicy>(object).unwrap())
}

impl Policy {
    fn of_object(object: BackupPolicy) -> Self {
        <Self as Facts>::of(object)
    }
}

fn picture() -> Picture {
    let namespace = json!({"metadata": {"name": "shop"}});
    let namespace = NamespaceFacts::of(serde_json::from_value(namespace).unwrap());
    let red = json!({"labels": {"tier": "red"}});
    let no = json!({"annotations": {"holdfast.dev/backup": "false"}});
    let claims = vec![
        ("shop", "a", claim("a", red.clone())),
        ("shop", "b", claim("b", json!({}))),
        ("shop", "c", claim("c", no)),
    ];
    let nightly = json!({
        "schedule": {"cron": "0 2 * * *"}, "selection": {"claimSelector": {"matchLabels": {"tier": "red"}}},
    });
    let wrong = json!({"schedule": {"cron": "61 * * * *"}, "selection": {"mode": "Annotated"}});
    let policies = vec![
        ("shop", "nightly", policy("nightly", nightly)),
        ("shop", "wrong", policy("wrong", wrong)),
    ];
    let mut world = World::default();
    world.take(Update::Pods(all(Vec::new())));
    world.take(Update::Volumes(all(Vec::new())));
    world.take(Update::Claims(all(claims)));
    world.take(Update::Namespaces(all(vec![("", "shop", namespace)])));
    world.take(Update::Policies(all(policies)));
    world.take(Update::ClusterPolicies(all(Vec::new())));
    Picture::draw(&world, &std::collections::BTreeMap::new())
}

fn spec(spec: serde_json::Value) -> BackupSpec {
    serde_json::from_value(spec).unwrap()
}

fn names(planned: &Planned) -> Vec<&str> {
    planned
        .volumes
        .iter()
        .map(|chosen| &chosen.volume[..])
        .collect()
}

#[test]
fn what_a_backup_names_is_what_is_backed_up() {
    let picture = picture();
    let found = |value| plan(&spec(value), "shop", &picture);
    let everything = found(json!({})).unwrap();
    assert_eq!(names(&everything), ["shop/a", "shop/b"]);
    assert_eq!(
        everything.left_out,
        [("c".to_owned(), "ExcludedByAnnotation")]
    );
    let named = found(json!({"claim": "c"})).unwrap();
    assert_eq!(
        names(&named),
        ["shop/c"],
        "who names it wants it, whatever its annotation says"
    );
    assert_eq!(named.volumes[0].uid.as_deref(), Some("uid-c"));
    let selected = found(json!({"claims": {"matchLabels": {"tier": "red"}}}));
    assert_eq!(names(&selected.unwrap()), ["shop/a"]);
    let of_policy = found(json!({"policy": {"name": "nightly"}})).unwrap();
    assert_eq!(names(&of_policy), ["shop/a"]);
}

#[test]
fn what_cannot_be_understood_is_refused_by_field() {
    let picture = picture();
    for (given, reason, field, may_come) in [
        (json!({"claim": "d"}), "ClaimMissing", "spec.claim:", true),
        (
            json!({"policy": {"name": "daily"}}),
            "PolicyMissing",
            "spec.policy.name: there is no BackupPolicy shop/daily; there are: nightly, wrong",
            true,
        ),
        (
            json!({"policy": {"kind": "ClusterBackupPolicy", "name": "nightly"}}),
            "PolicyMissing",
            "there is none at all",
            true,
        ),
        (
            json!({"policy": {"name": "wrong"}}),
            "PolicyInvalid",
            "spec.schedule.cron",
            true,
        ),
        (
            json!({"claims": {"matchLabels": {"tier": "blue"}}}),
            "NothingSelected",
            "spec.claims:",
            true,
        ),
        (
            json!({"claims": {"matchLabels": {"-": "x"}}}),
            "InvalidField",
            "spec.claims.matchLabels[-]",
            false,
        ),
        (
            json!({"ttlAfterFinished": "soon"}),
            "InvalidField",
            "spec.ttlAfterFinished",
            false,
        ),
        (
            json!({"files": {"exclude": ["[a"]}}),
            "InvalidField",
            "spec.files.exclude[0]",
            false,
        ),
        (
            json!({"claim": "a", "policy": {"name": "nightly"}}),
            "InvalidField",
            "spec: at most one",
            false,
        ),
    ] {
        let refusal = plan(&spec(given.clone()), "shop", &picture).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.may_come),
            (reason, may_come),
            "{given}"
        );
        assert!(refusal.message.contains(field), "{refusal:?}");
    }
}

fn facts(name: &str, value: serde_json::Value) -> BackupFacts {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": "Backup",
        "metadata": {"name": name, "namespace": "shop", "uid": "u", "generation": 1},
        "spec": {},
    });
    for (key, value) in value.as_object().unwrap() {
        object[key] = value.clone();
    }
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!("shop");
    BackupFacts::of(serde_json::from_value(object).unwrap())
}

fn point(id: &str, at: Timestamp, problems: i64) -> Point {
    Point {
        at,
        began: at,
        id: id.to_owned(),
        files: 3,
        bytes: 30,
        added_bytes: 10,
        problems,
        is_suspicious: false,
    }
}

fn chosen(names: &[&str]) -> Planned {
    let volumes = names.iter().map(|name| Chosen {
        volume: format!("shop/{name}"),
        uid: Some(format!("uid-{name}")),
    });
    Planned {
        volumes: volumes.collect(),
        left_out: Vec::new(),
    }
}

fn begun(names: &[&str]) -> Run {
    let now = at("2026-11-30T10:00:00Z");
    let mut run = Run::new(&facts("now", json!({})), Origin::Person, now);
    run.begin(chosen(names), &[], |_| None, now);
    run
}

fn job(number: u8) -> JobId {
    JobId::from_bytes([number; 16])
}

fn end(run: &mut Run, name: &str, state: JobState, change: impl FnOnce(&mut Ended)) {
    let volume = format!("shop/{name}");
    if let Some(target) = run.targets.get_mut(&volume) {
        target.run(job(1));
    }
    let mut ended = Ended {
        volume,
        job: job(1),
        report: Report {
            state: state.into(),
            snapshot: vec![7; 32].into(),
            stats: Some(Stats {
                files: 3,
                content_bytes: 30,
                stored_bytes: 10,
                ..Stats::default()
            }),
            ..Report::default()
        },
        is_retried: false,
        is_overdue: false,
        uid: Some(format!("uid-{name}")),
    };
    change(&mut ended);
    run.ended(&ended);
}

#[test]
fn phases_follow_from_what_came_of_the_volumes() {
    use BackupPhase::{Cancelled, Completed, Failed, PartiallyFailed};
    type Ends = Vec<(&'static str, JobState, bool)>;
    let cases: Vec<(Ends, BackupPhase)> = vec![
        (
            vec![("a", JobState::Done, false), ("b", JobState::Done, false)],
            Completed,
        ),
        (
            vec![("a", JobState::Done, true), ("b", JobState::Done, false)],
            PartiallyFailed,
        ),
        (
            vec![("a", JobState::Done, false), ("b", JobState::Failed, false)],
            PartiallyFailed,
        ),
        (
            vec![
                ("a", JobState::Failed, false),
                ("b", JobState::Failed, false),
            ],
            Failed,
        ),
        (
            vec![
                ("a", JobState::Cancelled, false),
                ("b", JobState::Cancelled, false),
            ],
            Cancelled,
        ),
    ];
    let now = at("2026-11-30T11:00:00Z");
    for (ends, expected) in cases {
        let mut run = begun(&["a", "b"]);
        assert_eq!(run.phase(), BackupPhase::Pending);
        for (name, state, is_partial) in &ends {
            assert!(!run.is_over(now), "{ends:?}");
            end(&mut run, name, *state, |ended| {
                if *is_partial {
                    ended.report.stats.as_mut().unwrap().problems = 2;
                }
            });
        }
        assert!(run.is_over(now), "{ends:?}");
        run.completed = Some(now);
        assert_eq!(run.phase(), expected, "{ends:?}");
        let said = status(&run, now);
        assert_eq!(said.volumes.unwrap().total, 2);
        let holds = |type_: &str| {
            let mut conditions = said.conditions.iter();
            let found = conditions.find(|condition| condition.type_ == type_);
            found.map(|found| &found.status[..])
        };
        let completed = if expected == Completed {
            "True"
        } else {
            "False"
        };
        assert_eq!(holds("Completed"), Some(completed));
        assert_eq!(holds("Progressing"), Some("False"));
        assert!(
            said.conditions
                .iter()
                .all(|c| c.observed_generation == Some(1))
        );
    }
}

#[test]
fn a_failure_that_may_be_over_soon_is_waited_for_and_others_are_told() {
    for (reason, is_person, is_retried, expected) in [
        ("AgentLost", true, true, ResultPhase::Pending),
        ("AgentLost", true, false, ResultPhase::Failed),
        ("VolumeNotMounted", true, true, ResultPhase::Failed),
        ("VolumeNotMounted", false, true, ResultPhase::Pending),
        ("VolumeNotMounted", false, false, ResultPhase::Failed),
    ] {
        let mut run = begun(&["a"]);
        if !is_person {
            run.origin = Origin::Schedule {
                policy: reference_to("nightly"),
                scheduled: run.seen,
                open_until: run.seen,
            };
        }
        end(&mut run, "a", JobState::Failed, |ended| {
            ended.report.reason = reason.to_owned();
            ended.is_retried = is_retried;
        });
        let result = &run.targets["shop/a"].result;
        assert_eq!(result.phase, expected, "{reason} {is_person} {is_retried}");
        assert_eq!(result.reason.as_deref(), Some(reason));
    }
    // One that took too long has failed; one that somebody stopped was stopped.
    let mut run = begun(&["a"]);
    end(&mut run, "a", JobState::Cancelled, |ended| {
        ended.is_overdue = true
    });
    let result = &run.targets["shop/a"].result;
    assert_eq!(result.phase, ResultPhase::Failed);
    assert_eq!(result.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn the_run_of_a_claim_does_not_count_for_one_of_its_name() {
    let mut run = begun(&["a"]);
    end(&mut run, "a", JobState::Done, |ended| {
        ended.uid = Some("made again".to_owned());
    });
    let result = &run.targets["shop/a"].result;
    assert_eq!(result.phase, ResultPhase::Failed);
    assert_eq!(result.reason.as_deref(), Some("ClaimReplaced"));
    assert_eq!(result.snapshot, None);
    // Nor does a report of a job that is not the run's.
    let mut run = begun(&["a"]);
    end(&mut run, "a", JobState::Done, |ended| ended.job = job(2));
    assert_eq!(run.targets["shop/a"].result.phase, ResultPhase::Running);
}

fn reference_to(name: &str) -> PolicyReference {
    PolicyReference {
        kind: PolicyKind::BackupPolicy,
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
    }
}

mod restart;
mod schedules;
