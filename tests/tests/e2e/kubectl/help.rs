//! Doctor, logs and the bundle.

use super::{COORDINATOR, Cluster, WORD, assert_fits, cluster};
use holdfast_tests::processes::{Process, until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The first finding of a check.
fn finding(found: &Value, check: &str) -> Value {
    let mut list = found.as_array().into_iter().flatten();
    list.find(|one| one["check"] == check)
        .cloned()
        .unwrap_or_default()
}

/// What it finds once the agent has said how it is.
fn examined(cluster: &Cluster) -> Value {
    let mut found = Value::Null;
    until("the agent has said how it is", || {
        found = cluster.json(&["doctor", "-o", "json"]);
        finding(&found, "agents connected")["state"] == "ok"
    });
    found
}

#[test]
fn doctor_says_what_fails_why_and_how_to_mend_it() {
    let cluster = cluster();
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart/crds");
    for entry in fs::read_dir(&crds).unwrap().flatten() {
        let name = entry
            .file_name()
            .to_string_lossy()
            .trim_end_matches(".yaml")
            .to_owned();
        let read = Command::new("python3")
            .args([
                "-c",
                "import sys,json,yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)",
            ])
            .arg(entry.path())
            .output()
            .unwrap();
        let mut object: Value = serde_json::from_slice(&read.stdout)
            .unwrap_or_else(|_| json!({"metadata": {"name": name}, "spec": {"versions": []}}));
        object["metadata"]["name"] = json!(name);
        cluster
            .api
            .put("apiextensions.k8s.io/v1/customresourcedefinitions", object);
    }
    let found = examined(&cluster);
    for check in [
        "API server",
        "your rights",
        "coordinator",
        "the coordinator's rights",
        "rights for restores",
        "rights for mount pods",
        "rights for hooks",
        "agents",
        "agents connected",
        "store",
        "clocks",
        "certificates",
        "repository key",
    ] {
        assert_eq!(finding(&found, check)["state"], "ok", "{check}: {found:#}");
    }
    assert_fits("doctor", &cluster.shown(&["doctor"]));
    // Then things go wrong.
    let account = "system:serviceaccount:holdfast:holdfast-coordinator";
    cluster
        .api
        .forbid(account, "watch v1/persistentvolumeclaims");
    cluster.api.forbid("user", "get v1/pods/log in holdfast");
    cluster
        .api
        .put("v1/nodes", json!({"metadata": {"name": "node-2"}}));
    cluster.api.delete(
        "apiextensions.k8s.io/v1/customresourcedefinitions",
        "",
        "backuppolicies.holdfast.dev",
    );
    let repository = cluster.processes.home.repo();
    fs::rename(repository.join("owner"), repository.join("owner-away")).unwrap();
    let found = cluster.json(&["doctor", "-o", "json"]);
    for (check, state) in [
        ("the coordinator's rights", "FAILS"),
        ("your rights", "note"),
        ("nodes", "FAILS"),
        ("definitions", "FAILS"),
        ("store", "FAILS"),
    ] {
        let one = finding(&found, check);
        assert_eq!(one["state"], state, "{check}: {found:#}");
        assert!(one["why"] != "" && one["mend"] != "", "{one}");
    }
    let shown = cluster.shown(&["doctor"]);
    assert_fits("a bad doctor", &shown);
    assert!(
        shown.contains("persistentvolumeclaims)") && shown.contains("node-2"),
        "{shown}"
    );
    cluster.ends(1, &["doctor", "-q"]);
}

#[test]
fn doctor_knows_nodes_and_what_the_coordinator_needs() {
    let mut cluster = cluster();
    let doctor = |cluster: &Cluster| cluster.json(&["doctor", "-o", "json"]);
    let found = examined(&cluster);
    let agents = finding(&found, "agents connected");
    assert_eq!(agents["nodes"], json!(["node-1"]), "{found:#}");
    for part in [
        "Linux ",
        "changes ",
        "kubelet/pods, where later mounts show",
    ] {
        assert!(
            agents["detail"].as_str().unwrap().contains(part),
            "{agents}"
        );
    }
    // A kind that is not served is no use, and rights matter where what needs them is in use.
    cluster.api.put(
        "apiextensions.k8s.io/v1/customresourcedefinitions",
        json!({
            "metadata": {"name": "restores.holdfast.dev"},
            "spec": {"versions": [{"name": "v1alpha1", "served": false}]},
        }),
    );
    let account = "system:serviceaccount:holdfast:holdfast-coordinator";
    for what in [
        "patch apps/v1/statefulsets/scale",
        "create v1/pods",
        "create v1/pods/exec",
    ] {
        cluster.api.forbid(account, what);
    }
    assert_eq!(
        finding(&doctor(&cluster), "rights for hooks")["state"],
        "ok"
    );
    let policy = json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "BackupPolicy",
        "metadata": {"namespace": "shop", "name": "freeze", "generation": 1},
        "spec": {"suspend": true, "hooks": [{"name": "sync", "pre": {"exec": {"command": ["sync"]}}}]},
    });
    cluster
        .api
        .put("holdfast.dev/v1alpha1/backuppolicies", policy);
    // Away from the node goes what the kubelet had.
    let pods = cluster.processes.home.at("kubelet/pods");
    fs::rename(&pods, pods.with_extension("away")).unwrap();
    let mut found = Value::Null;
    until(
        "the agent says that its kubelet's directory is gone",
        || {
            found = doctor(&cluster);
            finding(&found, "kubelet root")["state"] == "FAILS"
        },
    );
    for (check, part) in [
        ("kubelet root", "KubeletDirectoryMissing"),
        ("rights for restores", "patch statefulsets/scale"),
        ("rights for mount pods", "create pods"),
        ("rights for hooks", "shop/freeze"),
    ] {
        let one = finding(&found, check);
        assert_eq!(one["state"], "FAILS", "{check}: {found:#}");
        assert!(one["detail"].as_str().unwrap().contains(part), "{one}");
        assert!(one["why"] != "" && one["mend"] != "", "{one}");
    }
    assert_eq!(
        finding(&found, "the coordinator's rights")["state"],
        "ok",
        "{found:#}"
    );
    assert_eq!(
        finding(&found, "kubelet root")["nodes"],
        json!(["node-1"]),
        "{found:#}"
    );
    let served = found.as_array().into_iter().flatten();
    let mut served = served.filter_map(|one| one["detail"].as_str());
    assert!(
        served.any(|detail| detail.contains("restores has v1alpha1 switched off")),
        "{found:#}"
    );
    assert_fits("a doctor of nodes", &cluster.shown(&["doctor"]));
    let yaml = cluster.ends(1, &["doctor", "-o", "yaml"]).text();
    assert!(yaml.contains("check: kubelet root"), "{yaml}");
    // A node whose agent does not answer, and a person who may not ask about others.
    cluster.processes.agent().kill();
    cluster.api.forbid(
        "user",
        "create authorization.k8s.io/v1/subjectaccessreviews",
    );
    until("the coordinator knows that the agent is gone", || {
        found = doctor(&cluster);
        finding(&found, "agents connected")["state"] == "FAILS"
    });
    let gone = finding(&found, "agents connected");
    assert_eq!(gone["nodes"], json!(["node-1"]), "{gone}");
    let rights = finding(&found, "the coordinator's rights");
    assert_eq!(rights["state"], "note", "{rights}");
    assert!(
        rights["detail"]
            .as_str()
            .unwrap()
            .contains("create subjectaccessreviews"),
        "{rights}"
    );
}

#[test]
fn logs_are_those_of_the_right_pods() {
    let cluster = cluster();
    let coordinator = cluster.ok(&["logs"]).text();
    assert!(
        coordinator.contains("of nothing") && !coordinator.contains("by the agent"),
        "{coordinator}"
    );
    assert!(
        cluster
            .ok(&["logs", "agent", "node-1"])
            .text()
            .contains("by the agent")
    );
    let volume = cluster.ok(&["logs", "-n", "shop", "uploads"]).text();
    assert!(
        volume.contains("by the agent") && volume.contains("coordinator: "),
        "{volume}"
    );
    assert!(!volume.contains("of nothing"), "{volume}");
    assert!(
        cluster
            .ends(1, &["logs", "agent", "node-9"])
            .stderr
            .contains("node-1")
    );
    // Followed, until it is interrupted.
    let mut command = cluster.command(&cluster.plugin, "kubeconfig-user", &["logs", "-f"]);
    let mut follows = Process::start(&mut command, cluster.processes.home.at("followed"));
    until("what there was is shown", || {
        follows.log().contains("of nothing")
    });
    cluster
        .api
        .print_log("holdfast", COORDINATOR, "coordinator", "and later\n");
    until("what comes is shown", || {
        follows.log().contains("and later")
    });
    follows.kill();
}

#[test]
fn a_bundle_has_what_helps_and_no_secret() {
    let cluster = cluster();
    let file = cluster.processes.home.at("bundle.tar");
    cluster.ok(&["debug", "--file", &file.display().to_string()]);
    let bundle = fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bundle);
    assert!(
        !text.contains(WORD),
        "{}",
        &text[text.find(WORD).unwrap().saturating_sub(300)..][..400]
    );
    let listed = Command::new("tar").arg("tf").arg(&file).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for part in [
        "version.json",
        "doctor.json",
        "missing.txt",
        "objects/pods.json",
        "objects/configmaps.json",
        "objects/volumeprotections.json",
        "objects/events.json",
        "pods/holdfast-coordinator-0/coordinator.log",
        "pods/holdfast-coordinator-0/metrics.txt",
        "pods/holdfast-agent-x/agent.log",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    for part in [
        "holdfast_",
        "AWS_SECRET_ACCESS_KEY",
        "s3://(redacted)@bucket/p",
        "shop/uploads",
        "holdfast-encryption",
    ] {
        assert!(text.contains(part), "{part}");
    }
    // No Secret was asked for.
    let calls = cluster.api.calls();
    assert!(
        !calls.keys().any(|call| call.ends_with("v1/secrets")),
        "{calls:?}"
    );
}
