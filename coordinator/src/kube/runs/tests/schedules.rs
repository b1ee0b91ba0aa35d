//! The Backups of a schedule: one for each time and namespace, so many are kept, and their names fit.

use super::*;

#[test]
fn so_many_runs_of_a_schedule_are_kept_and_others_until_their_time_is_over() {
    let made = |name: &str, hour: u32, phase: &str| {
        let time = format!("2026-11-30T{hour:02}:00:00Z");
        facts(
            name,
            json!({
                "metadata": {"annotations": {SCHEDULED_AT: time}},
                "spec": {"policy": {"name": "nightly"}},
                "status": {"phase": phase, "completionTime": time},
            }),
        )
    };
    let mut backups: Vec<BackupFacts> = Vec::new();
    for hour in 0..6 {
        backups.push(made(&format!("good-{hour}"), hour, "Completed"));
        backups.push(made(&format!("bad-{hour}"), hour, "PartiallyFailed"));
    }
    backups.push(made("runs", 0, "Running"));
    let by_hand = json!({
        "spec": {"ttlAfterFinished": "1h"},
        "status": {"phase": "Failed", "completionTime": "2026-11-30T01:00:00Z"},
    });
    backups.push(facts("over", by_hand.clone()));
    let mut young = by_hand.clone();
    young["status"]["completionTime"] = json!("2026-11-30T11:00:01Z");
    backups.push(facts("young", young));
    let mut kept = by_hand;
    kept["spec"] = json!({});
    backups.push(facts("kept", kept));
    let removed = |spec: Option<&crate::kube::api::PolicySpec>| {
        let removed = to_remove(backups.iter(), |_| spec, at("2026-11-30T12:00:00Z"));
        let mut names: Vec<&str> = removed.iter().map(|backup| &backup.name[..]).collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(removed(None), "bad-0 bad-1 bad-2 good-0 good-1 good-2 over");
    let spec = crate::kube::api::PolicySpec {
        successful_runs_history_limit: Some(0),
        failed_runs_history_limit: Some(5),
        ..Default::default()
    };
    assert_eq!(
        removed(Some(&spec)),
        "bad-0 good-0 good-1 good-2 good-3 good-4 good-5 over"
    );
}

fn runs() -> Runs {
    let (_, news) = tokio::sync::mpsc::channel(1);
    let mut runs = Runs::new(news, Writes::new());
    runs.is_listed = true;
    runs
}

#[test]
fn a_schedule_makes_one_backup_for_each_time_and_namespace() {
    let picture = picture();
    let reference = reference_to("nightly");
    let policy = &picture.policies[&reference];
    let Some(Rhythm::Schedule(schedule)) = &policy.rhythm else {
        panic!("it has a schedule");
    };
    let (a, b) = (
        picture.volume("shop/a").unwrap(),
        picture.volume("shop/b").unwrap(),
    );
    let mut runs = runs();
    let (first, now) = (at("2026-11-30T02:00:00Z"), at("2026-11-30T02:00:01Z"));
    for volume in [a, b, a] {
        runs.due((&reference, policy), schedule, volume, first, now);
    }
    let key = ("shop".to_owned(), "nightly-20261130020000".to_owned());
    assert_eq!(runs.runs.keys().collect::<Vec<_>>(), [&key]);
    assert_eq!(runs.runs[&key].targets.len(), 2);
    let object = runs.writes.waiting(&key).unwrap().create.unwrap();
    let object = serde_json::to_value(object).unwrap();
    assert_eq!(object["metadata"]["labels"][POLICY], "nightly");
    assert_eq!(
        object["metadata"]["annotations"][SCHEDULED_AT],
        "2026-11-30T02:00:00Z"
    );
    let owner = &object["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("BackupPolicy"), &json!("uid-nightly"))
    );
    assert_eq!(
        object["spec"]["deletionPolicy"], "Retain",
        "nothing takes snapshots along"
    );
    // What still waits when the next time comes is done by that.
    runs.started("shop/a", job(1), None);
    let second = at("2026-12-01T02:00:00Z");
    runs.due((&reference, policy), schedule, b, second, second);
    let results: Vec<(ResultPhase, Option<&str>)> = runs.runs[&key]
        .targets
        .values()
        .map(|target| (target.result.phase, target.result.reason.as_deref()))
        .collect();
    assert_eq!(
        results,
        [
            (ResultPhase::Running, None),
            (ResultPhase::Failed, Some("Superseded"))
        ]
    );
    // One that somebody has deleted is not made again.
    let later = ("shop".to_owned(), "nightly-20261201020000".to_owned());
    runs.runs.remove(&later).unwrap();
    runs.due((&reference, policy), schedule, a, second, second);
    assert!(!runs.runs.contains_key(&later));
}

#[test]
fn one_job_serves_all_who_want_the_same_files() {
    let mut runs = runs();
    let mut add = |name: &str, files: Option<FilesSpec>| {
        let mut run = begun(&["a"]);
        run.spec.files = files;
        run.name = name.to_owned();
        run.targets.get_mut("shop/a").unwrap().is_offered = true;
        let key = ("shop".to_owned(), name.to_owned());
        let wanted = runs.wanted.entry("shop/a".to_owned()).or_default();
        wanted.push(key.clone());
        runs.runs.insert(key, run);
    };
    let some = Some(FilesSpec {
        exclude: vec!["tmp".to_owned()],
        ..FilesSpec::default()
    });
    add("first", some.clone());
    add("second", None);
    add("third", some.clone());
    let files = runs.files("shop/a");
    assert_eq!(files, some, "as the first of them wants");
    runs.started("shop/a", job(1), files);
    let phase = |runs: &Runs, name: &str| {
        let target = &runs.runs[&("shop".to_owned(), name.to_owned())].targets["shop/a"];
        (target.result.phase, target.is_offered)
    };
    assert_eq!(phase(&runs, "first").0, ResultPhase::Running);
    assert_eq!(phase(&runs, "third").0, ResultPhase::Running);
    assert_eq!(
        phase(&runs, "second"),
        (ResultPhase::Pending, false),
        "it is offered again"
    );
    // What a schedule wants is read as its policy says.
    runs.due.insert("shop/a".to_owned());
    assert_eq!(runs.files("shop/a"), None);
}

#[test]
fn names_fit_and_tell_policies_apart() {
    let time = at("2026-11-30T02:00:00Z");
    assert_eq!(name("nightly", time), "nightly-20261130020000");
    assert!(name(&"x".repeat(253), time).len() <= 253);
    let (one, two) = (label(&"x".repeat(100)), label(&"x".repeat(101)));
    assert!(one.len() <= 63 && one != two, "{one}");
    assert_eq!(label("nightly"), "nightly");
    assert_eq!(Stop::Asked.reason(), "Cancelled");
    let selector = LabelSelector::default();
    assert!(selector.match_labels.is_empty());
}
