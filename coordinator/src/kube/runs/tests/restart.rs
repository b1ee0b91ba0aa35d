//! What a status says is enough to go on after a restart, and stays within its bounds.

use super::*;

fn result(claim: &str, phase: ResultPhase) -> VolumeResult {
    VolumeResult {
        claim: claim.to_owned(),
        uid: Some(format!("uid-{claim}")),
        phase,
        snapshot: None,
        reason: None,
        detail: None,
        files: None,
        bytes: None,
        added_bytes: None,
    }
}

#[test]
fn a_coordinator_that_was_started_again_goes_on_with_what_the_status_says() {
    let started = at("2026-11-30T09:00:00Z");
    let now = at("2026-11-30T10:00:00Z");
    let known = facts(
        "now",
        json!({"status": {
            "phase": "Running", "startTime": "2026-11-30T09:00:00Z",
            "results": [
                result("a", ResultPhase::Completed), result("b", ResultPhase::Running),
                result("c", ResultPhase::Running), result("d", ResultPhase::Failed),
                result("gone", ResultPhase::Pending),
            ],
        }}),
    );
    let mut run = Run::new(&known, Origin::Person, now);
    let newest = [
        ("shop/b", point("new", at("2026-11-30T09:30:00Z"), 1)),
        ("shop/c", point("old", at("2026-11-30T08:59:00Z"), 0)),
        ("shop/e", point("unlisted", at("2026-11-30T09:00:00Z"), 0)),
    ];
    let find = |volume: &str| {
        let mut newest = newest.iter();
        newest
            .find(|(name, _)| *name == volume)
            .map(|(_, point)| point)
    };
    run.begin(
        chosen(&["a", "b", "c", "d", "e", "f"]),
        &known.results,
        find,
        now,
    );
    assert_eq!(run.started, Some(started));
    let phase = |name: &str| run.targets[&format!("shop/{name}")].result.phase;
    assert_eq!(phase("a"), ResultPhase::Completed);
    assert_eq!(
        phase("b"),
        ResultPhase::Partial,
        "its snapshot is newer than the run"
    );
    assert_eq!(phase("c"), ResultPhase::Pending, "its snapshot is older");
    assert_eq!(phase("d"), ResultPhase::Failed);
    assert_eq!(phase("e"), ResultPhase::Completed, "beyond the list");
    assert_eq!(phase("f"), ResultPhase::Pending);
    assert_eq!(
        phase("gone"),
        ResultPhase::Pending,
        "its claim is looked for"
    );
    // A schedule's run has what its policy offered, or what has a snapshot since.
    let origin = Origin::Schedule {
        policy: reference_to("nightly"),
        scheduled: started,
        open_until: started,
    };
    let mut run = Run::new(&known, origin, now);
    run.begin(chosen(&["c", "e", "f"]), &known.results, find, now);
    assert!(!run.targets.contains_key("shop/f") && run.targets.contains_key("shop/e"));
    // A claim that was made again meanwhile is another volume.
    let mut again = chosen(&["b"]);
    again.volumes[0].uid = Some("made again".to_owned());
    let mut run = Run::new(&known, Origin::Person, now);
    run.begin(again, &known.results, find, now);
    let result = &run.targets["shop/b"].result;
    assert_eq!(result.reason.as_deref(), Some("ClaimReplaced"));
}

#[test]
fn a_status_is_bounded_and_says_how_much_is_left_out() {
    let names: Vec<String> = (0..MAX_RESULTS + 20).map(|n| format!("c{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut run = begun(&names);
    for name in &names {
        let state = match *name {
            "c119" => JobState::Failed,
            _ => JobState::Done,
        };
        end(&mut run, name, state, |ended| {
            ended.report.reason = "VolumeNotMounted".to_owned();
            ended.report.detail = "x".repeat(10_000);
        });
    }
    let now = at("2026-11-30T11:00:00Z");
    run.completed = Some(now);
    let said = status(&run, now);
    assert_eq!(said.results.len(), MAX_RESULTS);
    assert_eq!(said.results[0].claim, "c119", "what went wrong is first");
    assert!(said.results[0].detail.as_ref().unwrap().len() <= 1024);
    assert!(said.snapshots.is_empty());
    let message = said.message.unwrap();
    assert!(message.len() <= 1024);
    let counts = said.volumes.unwrap();
    assert_eq!((counts.total, counts.done, counts.failed), (120, 119, 1));
    assert_eq!((said.bytes, said.added_bytes), (Some(119 * 30), Some(1190)));
    // Those that go with their Backup are all named.
    run.spec.deletion_policy = DeletionPolicy::Delete;
    assert_eq!(status(&run, now).snapshots.len(), 119);
    run.targets.get_mut("shop/c119").unwrap().result.detail = None;
    let message = status(&run, now).message.unwrap();
    assert!(
        message.contains("20 more volumes are not listed"),
        "{message}"
    );
}
