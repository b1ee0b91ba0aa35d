//! Every verb through the cluster, the overview, and what is said where something is missing.

use super::{COORDINATOR, assert_fits, certificates, cluster};
use holdfast_tests::cli::{Ended, Home, binary};
use holdfast_tests::kube::Place;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::until;
use serde_json::{Value, json};
use std::fs;

#[test]
fn every_verb_works_through_the_cluster_and_nobody_sees_the_way() {
    let cluster = cluster();
    cluster.back_up();
    // The file as it is, byte by byte, through API server, tunnel and TLS.
    let cat = cluster.ok(&["cat", "-n", "shop", "uploads@latest:/text"]);
    assert!(cat.stdout == fs::read(cluster.uploads.join("text")).unwrap());
    let target = cluster.processes.home.at("restored");
    cluster.ok(&[
        "restore",
        "pvc/uploads",
        "-n",
        "shop",
        "--special",
        "--target",
        &target.display().to_string(),
    ]);
    assert_same(&cluster.uploads, &target);
    for args in [
        vec!["ls", "-n", "shop", "uploads@latest"],
        vec!["find", "-n", "shop", "--volume", "uploads", "text"],
        vec!["diff", "shop/uploads@latest", "shop/uploads@latest"],
        vec!["dump", "shop/uploads@latest:/text"],
        vec!["snapshots", "-A"],
        vec!["volumes", "-A"],
        vec!["jobs"],
        vec!["explain", "-n", "shop", "pod/web-5ffdf7f97-jl6hv"],
        vec!["completion", "bash"],
    ] {
        let ended = cluster.ok(&args);
        assert!(
            ended.stderr.is_empty() || args[0] == "explain",
            "{args:?}: {}",
            ended.stderr
        );
    }
    // Lists are about the namespace, as kubectl's are.
    assert!(cluster.ok(&["snapshots"]).stdout.is_empty());
    assert_eq!(
        cluster
            .json(&["snapshots", "-n", "shop", "-o", "json"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let why = cluster.ok(&["explain", "-n", "shop", "pvc/uploads"]).text();
    assert!(
        why.contains("is not protected") && why.contains("NoPolicyMatches"),
        "{why}"
    );
    // Under its other name the same, by an option.
    let binary = binary("holdfast");
    for args in [
        vec!["--cluster", "snapshots", "-A", "-o", "name"],
        vec!["snapshots", "--context", "user", "-A", "-o", "name"],
        vec!["snapshots", "-n", "shop", "-o", "name"],
    ] {
        let ended: Ended = cluster
            .command(&binary, "kubeconfig-user", &args)
            .output()
            .unwrap()
            .into();
        assert_eq!(
            (ended.code, ended.text().lines().count()),
            (0, 1),
            "{args:?}: {ended:?}"
        );
    }
    for args in [
        vec!["--help"],
        vec!["restore", "--help"],
        vec!["logs", "--help"],
    ] {
        let shown = cluster.shown(&args);
        assert_fits(&format!("{args:?}"), &shown);
        assert!(shown.contains("kubectl holdfast"), "{shown}");
    }
}

#[test]
fn status_is_one_screen_and_names_what_is_wrong() {
    let cluster = cluster();
    let wrong = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "BackupPolicy",
        "metadata": {"name": "wrong", "namespace": "shop", "generation": 1, "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"schedule": {"cron": "61 * * * *"}},
    });
    cluster
        .api
        .put("holdfast.dev/v1alpha1/backuppolicies", wrong);
    cluster.api.put(
        "v1/nodes",
        json!({"metadata": {"name": "node-2", "labels": {"kubernetes.io/os": "linux"}}}),
    );
    let mut status = Value::Null;
    until("what is wrong is known", || {
        status = cluster.json(&["status", "-o", "json"]);
        status["counts"]["unprotected"].as_u64() > Some(0)
            && status["policies"][0]["phase"] == "Invalid"
            && status["coordinator"]["reached"] == true
    });
    assert_eq!(
        status["agents"]["nodesWithoutAgent"],
        json!(["node-2"]),
        "{status}"
    );
    assert_eq!(status["coordinator"]["version"], env!("CARGO_PKG_VERSION"));
    let shown = cluster.shown(&["status"]);
    assert_fits("status", &shown);
    assert!(shown.lines().count() <= 24 + 12, "{shown}");
    for part in [
        "ready",
        "NONE ON node-2",
        "1 invalid (shop/wrong)",
        "UNPROTECTED",
        "shop/uploads",
        "spec.schedule.cron",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    cluster.ok(&["status"]);
    let strict = cluster.ends(1, &["status", "--strict"]);
    assert!(
        strict.stderr.contains("1 policy is invalid"),
        "{}",
        strict.stderr
    );
    let policies = cluster.shown(&["policies", "-n", "shop"]);
    assert_fits("policies", &policies);
    assert!(
        policies.contains("Invalid") && policies.contains("spec.schedule.cron"),
        "{policies}"
    );
    // Without a coordinator what the API server knows is still told.
    cluster
        .api
        .serve_port("holdfast", COORDINATOR, 7270, Place::Nowhere);
    let ended = cluster.ends(1, &["status"]);
    assert!(ended.text().contains("UNPROTECTED"), "{}", ended.text());
}

#[test]
fn a_way_that_breaks_names_pod_and_port_and_a_missing_right_is_named() {
    let cluster = cluster();
    cluster.api.cut_ports();
    cluster.ok(&["volumes", "-A"]);
    cluster
        .api
        .serve_port("holdfast", COORDINATOR, 7270, Place::Nowhere);
    let broken = cluster.ends(1, &["volumes", "-A"]).stderr;
    assert!(
        broken.contains("holdfast/holdfast-coordinator-0") && broken.contains("7270"),
        "{broken}"
    );
    assert!(
        broken.contains("`kubectl holdfast logs coordinator`"),
        "{broken}"
    );
    cluster
        .api
        .forbid("user", "get v1/pods/portforward in holdfast");
    let refused = cluster.ends(13, &["volumes", "-A"]).stderr;
    assert!(
        refused.contains("pods/portforward") && refused.contains("holdfast-connect"),
        "{refused}"
    );
    // Who may not look everywhere looks where it usually is, and may be told.
    cluster.api.forbid("user", "list v1/pods");
    let refused = cluster.ends(13, &["volumes", "-A"]).stderr;
    assert!(refused.contains("pods/portforward"), "{refused}");
    cluster.api.forbid("user", "list v1/pods in holdfast");
    let refused = cluster.ends(13, &["volumes", "-A"]).stderr;
    assert!(refused.contains("--holdfast-namespace"), "{refused}");
    let none = cluster
        .run("kubeconfig", &["volumes", "--holdfast-namespace", "shop"])
        .stderr;
    assert!(none.contains("no coordinator in namespace shop"), "{none}");
    let wrong = cluster
        .run("kubeconfig", &["volumes", "--context", "nope"])
        .stderr;
    assert!(wrong.contains("has no context \"nope\""), "{wrong}");
    // Certificates of another authority are not taken.
    let other = Home::new();
    certificates(&other);
    let ca = other.at("ca.crt").display().to_string();
    let untrusted = cluster.run("kubeconfig", &["volumes", "--ca-file", &ca]);
    assert_eq!(untrusted.code, 1, "{}", untrusted.stderr);
}
