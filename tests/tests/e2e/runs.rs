//! Backups of a cluster: what a person or a schedule asks for is made once, is said as it is, and ends, whatever
//! happens meanwhile to the namespace, the claim, the node, the API server, and the coordinator.

mod kept;
mod token;

use crate::cluster::{Cluster, POLICIES, PROTECTIONS, cluster, policy};
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const BACKUPS: &str = "holdfast.dev/v1alpha1/backups";
const CLAIMS: &str = "v1/persistentvolumeclaims";
const EVENTS: &str = "v1/events";
/// Long enough that it is not over before it is stopped.
const LARGE: usize = 32 << 20;

fn with_namespace() -> Cluster {
    let cluster = cluster();
    cluster
        .api
        .put("v1/namespaces", json!({"metadata": {"name": "shop"}}));
    cluster
}

/// One whose agent reads so slowly that a run does not end by itself.
fn slow() -> Cluster {
    let mut cluster = with_namespace();
    let noise: Vec<u8> = (0..LARGE as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    fs::write(cluster.uploads.join("large"), noise).unwrap();
    cluster
        .processes
        .restart_agent_with("backup: {read_rate: 64KiB}");
    cluster.until("shop/uploads", "eligible");
    cluster
}

fn quick(cluster: &mut Cluster) {
    let file = cluster.processes.home.at("agent.yaml");
    let settings = fs::read_to_string(&file).unwrap();
    let settings = settings.replace("backup: {read_rate: 64KiB}\n", "");
    fs::write(file, settings).unwrap();
}

impl Cluster {
    fn backup(&self, name: &str, spec: Value) {
        self.api.put(
            BACKUPS,
            json!({
                "apiVersion": "holdfast.dev/v1alpha1", "kind": "Backup",
                "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
            }),
        );
    }

    fn run_is(&self, name: &str, phase: &str) -> Value {
        self.until_phase(BACKUPS, name, phase)
    }

    /// Whether an agent has a job now.
    fn has_running(&self) -> bool {
        let listed = self.processes.run(["jobs", "-o", "json"]).text();
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        let mut jobs = listed.as_array().into_iter().flatten();
        jobs.any(|job| job["state"] == "running" || job["state"] == "queued")
    }

    /// The reasons of the events of an object.
    fn events(&self, name: &str) -> BTreeSet<String> {
        let events = self.api.all(EVENTS).into_iter();
        let about = events.filter(|event| event["involvedObject"]["name"] == name);
        about
            .map(|event| event["reason"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

#[test]
fn what_a_person_asks_for_runs_at_once_and_says_what_came_of_it() {
    let cluster = with_namespace();
    cluster.backup(
        "now",
        json!({"claim": "uploads", "deletionPolicy": "Delete"}),
    );
    let said = cluster.run_is("now", "Completed");
    assert_eq!(
        said["volumes"],
        json!({"total": 1, "done": 1, "failed": 0, "partial": 0})
    );
    let result = &said["results"][0];
    assert_eq!(
        (&result["claim"], &result["phase"]),
        (&json!("uploads"), &json!("Completed"))
    );
    assert!(result["files"].as_i64().unwrap() > 0 && result["addedBytes"].as_i64().unwrap() > 0);
    assert!(!said["startTime"].is_null() && !said["completionTime"].is_null());
    let snapshot = result["snapshot"].as_str().unwrap().to_owned();
    assert_same(
        &cluster.uploads,
        &cluster.processes.restore(&snapshot, "restored"),
    );
    for object in ["uploads", "now"] {
        until("it is told", || {
            cluster.events(object).contains("BackupCompleted")
        });
        assert!(cluster.events(object).contains("BackupStarted"));
    }

    // What cannot be understood says where; what cannot be read says why. Nothing of it is started.
    cluster.backup("lost", json!({"claim": "upload"}));
    cluster.backup("unknown", json!({"policy": {"name": "daily"}}));
    cluster.backup("unread", json!({"claim": "orders"}));
    let lost = cluster.run_is("lost", "Failed");
    assert_eq!(lost["reason"], "ClaimMissing");
    let message = lost["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.claim:") && message.contains("uploads"),
        "{message}"
    );
    let unknown = cluster.run_is("unknown", "Failed");
    assert_eq!(unknown["reason"], "PolicyMissing");
    assert!(
        unknown["message"]
            .as_str()
            .unwrap()
            .contains("spec.policy.name")
    );
    let unread = cluster.run_is("unread", "Failed");
    assert!(
        unread["message"]
            .as_str()
            .unwrap()
            .contains("VolumeNotMounted"),
        "{unread}"
    );
    until("the failure is told", || {
        cluster.events("orders").contains("BackupFailed")
    });
    until("its restore point is listed", || {
        let protection = cluster.status(PROTECTIONS, "uploads");
        protection["restorePoints"][0]["snapshot"] == json!(snapshot)
    });
    fs::write(cluster.uploads.join("more"), "new").unwrap();
    until("it is said since when it is exposed", || {
        !cluster.status(PROTECTIONS, "uploads")["exposedSince"].is_null()
    });

    // Deleted, it takes its snapshot along, as it says; one that says nothing leaves it.
    cluster.backup("kept", json!({"claim": "uploads"}));
    let kept = cluster.run_is("kept", "Completed")["results"][0]["snapshot"].clone();
    cluster.api.ask_to_delete(BACKUPS, "shop", "kept");
    cluster.api.ask_to_delete(BACKUPS, "shop", "now");
    until("it is gone", || {
        cluster.api.get(BACKUPS, "shop", "now").is_none()
    });
    assert_eq!(
        cluster.processes.snapshots(),
        [kept.as_str().unwrap().to_owned()]
    );
    // Time over, it goes.
    cluster.backup(
        "brief",
        json!({"claim": "uploads", "ttlAfterFinished": "1s"}),
    );
    until("its time is over", || {
        cluster.api.get(BACKUPS, "shop", "brief").is_none()
    });
    let calls = cluster.api.calls();
    assert_eq!(calls[&format!("list {BACKUPS}")], 1, "{calls:?}");
    assert_eq!(calls[&format!("watch {BACKUPS}")], 1, "{calls:?}");
    let written = calls[&format!("patch {BACKUPS}")];
    assert!(written <= 40, "few writes: {written}");
}

#[test]
fn a_schedule_makes_backups_and_keeps_as_many_as_it_says() {
    let mut cluster = with_namespace();
    let spec = json!({
        "schedule": {"cron": "* * * * *"}, "successfulRunsHistoryLimit": 1,
    });
    // One volume is enough here.
    cluster.api.delete("v1/pods", "shop", "db-0");
    let mut orders = cluster.api.get(CLAIMS, "shop", "orders").unwrap();
    orders["metadata"]["annotations"] = json!({"holdfast.dev/backup": "false"});
    cluster.api.put(CLAIMS, orders);
    cluster.api.put(POLICIES, policy("often", spec));
    let ended = |cluster: &Cluster| -> Vec<Value> {
        let all = cluster.api.all(BACKUPS).into_iter();
        all.filter(|backup| backup["status"]["phase"] == "Completed")
            .collect()
    };
    until("a run of the schedule has ended", || {
        !ended(&cluster).is_empty()
    });
    let first = ended(&cluster).remove(0);
    let meta = &first["metadata"];
    let name = meta["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("often-20") && name.len() == 20, "{name}");
    assert_eq!(meta["labels"]["holdfast.dev/policy"], "often");
    assert_eq!(meta["ownerReferences"][0]["name"], "often");
    assert_eq!(first["spec"]["policy"]["name"], "often");
    for time in ["lastScheduleTime", "nextScheduleTime", "lastSuccessfulTime"] {
        until(time, || !cluster.status(POLICIES, "often")[time].is_null());
    }
    let said = cluster.status(POLICIES, "often");
    assert_eq!(said["observedGeneration"], 1, "{said}");
    // The next one ends, and the first goes; its snapshot stays.
    until("the next run has ended, and one is kept", || {
        let ended = ended(&cluster);
        ended.len() == 1 && ended[0]["metadata"]["name"] != json!(name)
    });
    assert!(cluster.processes.snapshots().len() >= 2);
    // A node that is away: runs wait, are merged, and are caught up once.
    cluster.processes.agent().kill();
    let before = cluster.processes.snapshots().len();
    cluster.backup("asked", json!({"claim": "uploads"}));
    until("the node's absence is said", || {
        cluster.status(BACKUPS, "asked")["reason"] == "NodeUnreachable"
            && cluster.status(PROTECTIONS, "uploads")["problems"]
                .as_array()
                .is_some_and(|problems| {
                    problems
                        .iter()
                        .any(|problem| problem["reason"] == "NodeUnreachable")
                })
    });
    let waits = |cluster: &Cluster| {
        let all = cluster.api.all(BACKUPS).into_iter();
        let waiting = all.filter(|backup| backup["status"]["phase"] == "Pending");
        waiting.count()
    };
    until("a run of the schedule waits beside it", || {
        waits(&cluster) >= 2
    });
    // Suspended, no further time comes between what is counted.
    let mut suspended = cluster.api.get(POLICIES, "shop", "often").unwrap();
    suspended["spec"]["schedule"]["cron"] = json!("0 0 1 1 *");
    cluster.api.put(POLICIES, suspended);
    cluster.processes.start_agent();
    cluster.run_is("asked", "Completed");
    until("nothing waits", || waits(&cluster) == 0);
    assert_eq!(
        cluster.processes.snapshots().len(),
        before + 1,
        "one run for all that waited"
    );
}

#[test]
fn a_run_goes_on_over_a_restart_and_an_api_that_is_away() {
    let mut cluster = slow();
    cluster.backup("long", json!({"claim": "uploads"}));
    cluster.run_is("long", "Running");
    // The coordinator dies. Its successor finds the run in the status, and the job by the agent's report.
    cluster.processes.coordinator().kill();
    cluster.processes.start_coordinator();
    cluster.until("shop/uploads", "eligible");
    until("the job is known again", || cluster.has_running());
    // The API goes away while it runs, and the run goes on.
    cluster.api.set_away(true);
    quick(&mut cluster);
    cluster.processes.agent().kill();
    cluster.processes.start_agent();
    until("there is a snapshot", || {
        !cluster.processes.snapshots().is_empty()
    });
    assert_eq!(cluster.status(BACKUPS, "long")["phase"], "Running");
    cluster.api.set_away(false);
    let said = cluster.run_is("long", "Completed");
    assert_eq!(said["volumes"]["done"], 1, "{said}");
    assert_eq!(
        cluster.processes.snapshots().len(),
        1,
        "one run, whatever happened"
    );
}

#[test]
fn a_run_is_stopped_by_its_field_its_deletion_and_the_end_of_its_namespace() {
    let cluster = slow();
    cluster.backup("stopped", json!({"claim": "uploads"}));
    cluster.run_is("stopped", "Running");
    // One that is asked for meanwhile joins it, and keeps it alive.
    cluster.backup("joined", json!({"claim": "uploads"}));
    cluster.run_is("joined", "Running");
    let mut object = cluster.api.get(BACKUPS, "shop", "stopped").unwrap();
    object["spec"]["cancel"] = json!(true);
    cluster.api.put(BACKUPS, object);
    let said = cluster.run_is("stopped", "Cancelled");
    assert_eq!(said["reason"], "Cancelled");
    assert!(cluster.has_running(), "the other one still wants it");
    cluster.api.ask_to_delete(BACKUPS, "shop", "joined");
    until("nothing runs", || !cluster.has_running());

    // The claim is made again under its name: the run of the old one does not count for the new one.
    cluster.backup("old", json!({"claim": "uploads"}));
    cluster.run_is("old", "Running");
    let mut claim = cluster.api.get(CLAIMS, "shop", "uploads").unwrap();
    claim["metadata"]["uid"] = json!("made-again");
    cluster.api.put(CLAIMS, claim);
    let volume = "pvc-7c0c2d1e-hostpath";
    let mut bound = cluster.api.get("v1/persistentvolumes", "", volume).unwrap();
    bound["spec"]["claimRef"]["uid"] = json!("made-again");
    cluster.api.put("v1/persistentvolumes", bound);
    let said = cluster.run_is("old", "Failed");
    assert_eq!(said["results"][0]["reason"], "ClaimReplaced", "{said}");
    cluster.until("shop/uploads", "eligible");
    until("nothing runs", || !cluster.has_running());

    // The namespace goes: the run ends within seconds, and what goes with it holds nothing up.
    cluster.backup(
        "last",
        json!({"claim": "uploads", "deletionPolicy": "Delete"}),
    );
    cluster.run_is("last", "Running");
    cluster.api.put(
        "v1/namespaces",
        json!({"metadata": {"name": "shop", "deletionTimestamp": "2026-11-21T03:00:00Z"}}),
    );
    cluster.api.ask_to_delete(BACKUPS, "shop", "last");
    until("nothing holds the namespace", || {
        cluster.api.get(BACKUPS, "shop", "last").is_none()
    });
    until("nothing runs", || !cluster.has_running());
    assert!(cluster.processes.snapshots().is_empty());
}

#[test]
fn a_missing_right_to_tell_events_is_said_once_and_holds_up_nothing() {
    let mut cluster = with_namespace();
    cluster.api.set_forbidden(EVENTS, true);
    for number in 0..3 {
        let name = format!("now-{number}");
        cluster.backup(&name, json!({"claim": "uploads"}));
        cluster.run_is(&name, "Completed");
    }
    let log = cluster.processes.coordinator().log();
    assert_eq!(log.matches("events may not be written").count(), 1);
    let calls = cluster.api.calls();
    assert_eq!(calls[&format!("create {EVENTS}")], 1, "{calls:?}");
}

#[test]
fn a_thousand_policies_some_of_them_wrong_are_judged_each() {
    let cluster = with_namespace();
    for number in 0..1000 {
        let cron = if number % 100 == 7 {
            "61 * * * *"
        } else {
            "0 0 1 1 *"
        };
        let spec = json!({
            "schedule": {"cron": cron}, "priority": number,
            "selection": {"kinds": ["PersistentVolumeClaim"]},
        });
        let name = format!("p{number}");
        cluster.api.put(POLICIES, policy(&name, spec));
    }
    // The one with the highest priority that is understood protects; the others are named.
    let found = cluster.until_phase(PROTECTIONS, "uploads", "Protected");
    assert_eq!(found["policy"]["name"], "p999", "{found}");
    assert_eq!(found["overruled"].as_array().unwrap().len(), 16);
    let why = cluster.processes.ok(["explain", "shop/uploads"]).text();
    assert!(
        why.contains("is protected by") && why.contains("p999") && why.contains("p998"),
        "{why}"
    );
    for number in [7, 507, 907] {
        let said = cluster.until_phase(POLICIES, &format!("p{number}"), "Invalid");
        let message = said["conditions"][0]["message"].as_str().unwrap();
        assert!(message.contains("spec.schedule.cron"), "{message}");
    }
    until("it is told", || {
        cluster.events("p907").contains("PolicyInvalid")
    });
    let said = cluster.until_phase(POLICIES, "p998", "Active");
    assert!(said["overruled"].as_i64().unwrap() >= 1, "{said}");
}
