//! Backups and restores that are made, followed, and end as they did.

use super::{BACKUPS, RESTORES, cluster};
use holdfast_tests::processes::{Process, until};
use serde_json::{Value, json};
use std::fs;

#[test]
fn runs_are_made_followed_and_end_as_they_did() {
    let mut cluster = cluster();
    // Objects are made and followed without a coordinator; what it would say of them is written here.
    cluster.processes.coordinator().kill();
    let cluster = cluster;
    let home = &cluster.processes.home;
    let start = |args: &[&str], log: &str| {
        Process::start(
            &mut cluster.command(&cluster.plugin, "kubeconfig-user", args),
            home.at(log),
        )
    };
    let end = |kind: &str, namespace: &str, name: &str, status: Value| {
        let mut object = cluster.api.get(kind, namespace, name).unwrap();
        object["status"] = status;
        cluster.api.put(kind, object);
    };
    let mut seen: Vec<String> = Vec::new();
    for (status, code) in [
        (
            json!({"phase": "Completed", "volumes": {"total": 1, "done": 1}}),
            0,
        ),
        (
            json!({"phase": "PartiallyFailed", "reason": "Incomplete", "volumes": {"total": 1, "done": 1, "partial": 1},
            "results": [{"claim": "uploads", "phase": "Partial", "reason": "PermissionDenied"}]}),
            3,
        ),
        (
            json!({"phase": "Failed", "reason": "NodeGone", "message": "it went"}),
            1,
        ),
    ] {
        let mut run = start(
            &["backup", "pvc/uploads", "-n", "shop", "--wait"],
            &format!("backup-{code}"),
        );
        let (name, object) = cluster.made(BACKUPS, "shop", &seen);
        assert_eq!(object["spec"], json!({"claim": "uploads"}), "{object}");
        end(
            BACKUPS,
            "shop",
            &name,
            json!({"phase": "Running", "volumes": {"total": 1, "done": 0}}),
        );
        until("it is followed", || {
            run.log().contains("0 of 1 volumes done")
        });
        end(BACKUPS, "shop", &name, status);
        assert_eq!(run.wait().0, code, "{}", run.log());
        seen.push(name);
    }
    let log = fs::read_to_string(home.at("backup-3")).unwrap();
    assert!(
        log.contains("problem: uploads is Partial: PermissionDenied"),
        "{log}"
    );
    let refused = cluster
        .ends(1, &["backup", "--policy", "nope", "-n", "shop"])
        .stderr;
    assert!(refused.contains("there is no policy nope"), "{refused}");

    // A restore says where to, or nothing is done.
    let choice = cluster
        .ends(2, &["restore", "uploads", "-n", "shop"])
        .stderr;
    for way in ["--to-claim", "--in-place", "--target"] {
        assert!(choice.contains(way), "{choice}");
    }
    let unasked = cluster
        .ends(5, &["restore", "uploads", "-n", "shop", "--in-place"])
        .stderr;
    assert!(unasked.contains("--yes"), "{unasked}");
    assert!(cluster.api.names(RESTORES, "shop").is_empty());
    let args = [
        "restore",
        "uploads",
        "-n",
        "shop",
        "--as-of",
        "2026-11-21T10:00:00Z",
        "--to-claim",
        "again",
        "--to-namespace",
        "test",
        "--storage-class",
        "fast",
        "--path",
        "/etc",
        "--wait",
    ];
    let mut run = start(&args, "restore");
    let (name, object) = cluster.made(RESTORES, "test", &[]);
    assert_eq!(
        object["spec"],
        json!({
            "source": {"claim": {"name": "uploads", "namespace": "shop"}, "asOf": "2026-11-21T10:00:00Z"},
            "target": {"newClaim": {"name": "again", "storageClassName": "fast"}}, "path": "etc",
        })
    );
    end(
        RESTORES,
        "test",
        &name,
        json!({
            "phase": "PartiallyFailed", "counts": {"created": 4},
            "problems": [{"path": "x", "reason": "NoSpace", "message": "full"}], "problemCount": 1,
        }),
    );
    assert_eq!(run.wait().0, 3, "{}", run.log());
    assert!(
        run.log().contains("problem: x: full (NoSpace)") && run.log().contains("4 created"),
        "{}",
        run.log()
    );
    // Who stops waiting does not stop it.
    let mut run = start(
        &["backup", "uploads", "-n", "shop", "--wait"],
        "interrupted",
    );
    let (name, _) = cluster.made(BACKUPS, "shop", &seen);
    until("it waits", || {
        run.log().contains("waits for the coordinator")
    });
    run.signal("INT");
    assert_eq!(run.wait().0, 130, "{}", run.log());
    assert!(
        run.log().contains("goes on in the cluster"),
        "{}",
        run.log()
    );
    assert!(cluster.api.get(BACKUPS, "shop", &name).is_some());
}
