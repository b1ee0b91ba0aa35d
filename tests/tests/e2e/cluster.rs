//! Coordinator and agent in a cluster: volumes are what the API and the node's directories agree on, under the
//! API's names, and stay so while the API is away.

use holdfast_tests::cli::Home;
use holdfast_tests::fixture;
use holdfast_tests::kube::Api;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::{Processes, until};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const PODS: &str = include_str!("../../fixtures/kube/pods.json");
const CLAIMS: &str = include_str!("../../fixtures/kube/persistentvolumeclaims.json");
const VOLUMES: &str = include_str!("../../fixtures/kube/persistentvolumes.json");
const DB: &str = "b4ca7246-8af9-47d7-a180-6343d9b82c74";

/// The recorded cluster of one node, with that node's directories: an emptyDir and a hostPath volume.
pub struct Cluster {
    pub api: Api,
    pub processes: Processes,
    pub pods: PathBuf,
    pub uploads: PathBuf,
}

pub fn cluster() -> Cluster {
    let home = Home::new();
    let (pods, roots) = (home.at("kubelet/pods"), home.at("local-path"));
    let uploads = roots.join("pvc-uploads");
    fs::create_dir_all(&uploads).unwrap();
    fixture::contents(&uploads);
    fs::create_dir_all(empty_dir(&pods, DB, "scratch")).unwrap();
    fs::write(empty_dir(&pods, DB, "scratch").join("s"), "scratch").unwrap();

    let api = Api::new();
    api.put_list("v1/pods", PODS);
    api.put_list("v1/persistentvolumeclaims", CLAIMS);
    api.put_list("v1/persistentvolumes", VOLUMES);
    let name = "pvc-7c0c2d1e-hostpath";
    let mut volume = api.get("v1/persistentvolumes", "", name).unwrap();
    volume["spec"]["hostPath"]["path"] = json!(uploads);
    api.put("v1/persistentvolumes", volume);

    let kubeconfig = home.at("kubeconfig");
    api.kubeconfig(&kubeconfig);
    let coordinator = format!(
        "kubernetes: {{mode: 'on', kubeconfig: '{}'}}\n",
        kubeconfig.display()
    );
    let agent = format!(
        ", kubelet_pods: '{}', host_roots: ['{}']",
        pods.display(),
        roots.display()
    );
    let processes = Processes::start_with(home, &[], &coordinator, &agent);
    let file = processes.home.at("agent.yaml");
    let settings = fs::read_to_string(&file).unwrap() + "agent: {node: node-1}\n";
    fs::write(file, settings).unwrap();
    let mut cluster = Cluster {
        api,
        processes,
        pods,
        uploads,
    };
    cluster.processes.agent().kill();
    cluster.processes.start_agent();
    cluster.until("shop/uploads", "eligible");
    cluster
}

fn empty_dir(pods: &std::path::Path, pod: &str, name: &str) -> PathBuf {
    pods.join(pod)
        .join("volumes/kubernetes.io~empty-dir")
        .join(name)
}

impl Cluster {
    /// What is said of a volume: `eligible`, its reason, or that it is not listed.
    fn said(&self, volume: &str) -> String {
        let listed = self.processes.run(["volumes", "-o", "json"]).text();
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        let mut volumes = listed.as_array().into_iter().flatten();
        let found = volumes.find(|found| found["name"] == volume);
        match found {
            None => "none".to_owned(),
            Some(found) if found["eligible"] == true => "eligible".to_owned(),
            Some(found) => found["reason"].as_str().unwrap_or_default().to_owned(),
        }
    }

    pub fn until(&self, volume: &str, said: &str) -> Duration {
        let began = Instant::now();
        until(&format!("{volume} is {said}"), || self.said(volume) == said);
        began.elapsed()
    }

    pub fn pod(&self, name: &str) -> Value {
        self.api.get("v1/pods", "shop", name).unwrap()
    }
}

#[test]
fn what_the_api_and_the_node_agree_on_is_backed_up_under_its_claims_name() {
    let cluster = cluster();
    let processes = &cluster.processes;
    processes.ok(["backup", "shop/uploads", "--wait", "-q"]);
    assert_same(
        &cluster.uploads,
        &processes.restore("shop/uploads@latest", "restored"),
    );
    // The API knows of a mount that the node does not have: named, and never an empty snapshot.
    assert_eq!(cluster.said("shop/orders"), "VolumeNotMounted");
    assert_ne!(
        processes
            .run(["backup", "shop/orders", "--wait", "-q"])
            .code,
        0
    );
    assert_eq!(cluster.said("shop/db-0/scratch"), "eligible");
    // Each kind was listed once and is watched once, whatever happens in between.
    let calls = cluster.api.calls();
    for kind in [
        "v1/pods",
        "v1/persistentvolumeclaims",
        "v1/persistentvolumes",
    ] {
        assert_eq!(calls[&format!("list {kind}")], 1, "{calls:?}");
        assert_eq!(calls[&format!("watch {kind}")], 1, "{calls:?}");
    }
    let lists = calls.iter().filter(|(call, _)| call.starts_with("list "));
    assert!(
        lists.map(|(_, times)| *times).sum::<u64>() <= 8 + 3,
        "{calls:?}"
    );
}

#[test]
fn volumes_come_and_go_with_their_pods() {
    let cluster = cluster();
    let mut pod = cluster.pod("db-0");
    pod["metadata"]["name"] = json!("db-1");
    pod["metadata"]["uid"] = json!("uid-of-db-1");
    fs::create_dir_all(empty_dir(&cluster.pods, "uid-of-db-1", "scratch")).unwrap();
    cluster.api.put("v1/pods", pod.clone());
    let came = cluster.until("shop/db-1/scratch", "eligible");
    assert!(
        came < Duration::from_secs(60),
        "a hang, not slowness: {came:?}"
    );
    // Its end is known from the moment it is asked for.
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:00:00Z");
    cluster.api.put("v1/pods", pod);
    until("db-1 holds nothing", || {
        cluster.said("shop/db-1/scratch") == "none"
    });
    // A place in the watch that the server forgot is found again.
    cluster.api.set_away(true);
    cluster.api.delete("v1/pods", "shop", "db-0");
    cluster.api.forget();
    cluster.api.set_away(false);
    until("db-0 holds nothing", || {
        cluster.said("shop/db-0/scratch") == "none"
    });
}

#[test]
fn while_the_api_is_away_agents_go_on_by_the_last_plan() {
    let mut cluster = cluster();
    cluster
        .processes
        .ok(["backup", "shop/uploads", "--wait", "-q"]);
    cluster.api.set_away(true);
    for _ in 0..2 {
        cluster.processes.agent().kill();
        cluster.processes.coordinator().kill();
        cluster.processes.start_coordinator();
        cluster.processes.start_agent();
        cluster.until("shop/uploads", "eligible");
        fs::write(cluster.uploads.join("while-away"), "new").unwrap();
        cluster
            .processes
            .ok(["backup", "shop/uploads", "--wait", "-q"]);
    }
    assert_same(
        &cluster.uploads,
        &cluster.processes.restore("shop/uploads@latest", "restored"),
    );
    // What has changed meanwhile is known once it is back.
    cluster.api.delete("v1/pods", "shop", "web-5ffdf7f97-jl6hv");
    cluster.api.set_away(false);
    until("web holds nothing", || {
        cluster.said("shop/uploads") == "NotServed"
    });
}

#[test]
fn a_claim_made_again_under_its_name_has_a_history_of_its_own() {
    let cluster = cluster();
    let processes = &cluster.processes;
    processes.ok(["backup", "shop/uploads", "--wait", "-q"]);
    processes.ok(["backup", "shop/uploads", "--wait", "-q"]);
    let old = processes.snapshots();
    let (claims, volumes) = ("v1/persistentvolumeclaims", "v1/persistentvolumes");
    let mut claim = cluster.api.get(claims, "shop", "uploads").unwrap();
    claim["metadata"]["uid"] = json!("made-again");
    cluster.api.put(claims, claim);
    cluster.until("shop/uploads", "NotPlanned");
    let mut volume = cluster
        .api
        .get(volumes, "", "pvc-7c0c2d1e-hostpath")
        .unwrap();
    volume["spec"]["claimRef"]["uid"] = json!("made-again");
    cluster.api.put(volumes, volume);
    cluster.until("shop/uploads", "eligible");
    processes.ok(["backup", "shop/uploads", "--wait", "-q"]);
    let now = processes.snapshots();
    assert_eq!(now.len(), old.len() + 1);
    assert!(
        old.iter().all(|id| now.contains(id)),
        "the old history is kept"
    );
    let listed = processes.ok(["snapshots", "-o", "json"]).text();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut ids: Vec<&Value> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["volume_id"])
        .collect();
    ids.sort_by_key(|id| id.to_string());
    ids.dedup();
    assert_eq!(ids.len(), 2, "{listed}");
}

pub const PROTECTIONS: &str = "holdfast.dev/v1alpha1/volumeprotections";
pub const POLICIES: &str = "holdfast.dev/v1alpha1/backuppolicies";

pub fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1alpha1", "kind": "BackupPolicy",
        "metadata": {
            "name": name, "namespace": "shop", "generation": 1,
            "creationTimestamp": "2020-01-01T00:00:00Z",
        },
        "spec": spec,
    })
}

impl Cluster {
    pub fn status(&self, kind: &str, name: &str) -> Value {
        let object = self.api.get(kind, "shop", name);
        object
            .map(|object| object["status"].clone())
            .unwrap_or_default()
    }

    pub fn until_phase(&self, kind: &str, name: &str, phase: &str) -> Value {
        until(&format!("{name} is {phase}"), || {
            self.status(kind, name)["phase"] == phase
        });
        self.status(kind, name)
    }
}

#[test]
fn a_policy_of_ten_lines_protects_its_namespace_and_says_what_it_cannot() {
    let mut cluster = cluster();
    cluster
        .api
        .put("v1/namespaces", json!({"metadata": {"name": "shop"}}));
    // Without a policy every claim says so, and nothing is backed up.
    let found = cluster.until_phase(PROTECTIONS, "uploads", "Unprotected");
    assert_eq!(found["reason"], "NoPolicyMatches", "{found}");
    let why = cluster.processes.ok(["explain", "shop/uploads"]).text();
    assert!(
        why.contains("is not protected") && why.contains("NoPolicyMatches"),
        "{why}"
    );

    // Once a day, at the hour that is furthest away: no run falls due while this test runs.
    let hour = Command::new("date").args(["-u", "+%H"]).output().unwrap();
    let hour: u32 = String::from_utf8(hour.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let cron = format!("30 {} * * *", (hour + 12) % 24);
    let spec = json!({"schedule": {"cron": cron}, "files": {"exclude": ["/text"]}});
    cluster.api.put(POLICIES, policy("daily", spec));
    // What was missed since the policy was made is caught up at once.
    let found = cluster.until_phase(PROTECTIONS, "uploads", "Protected");
    assert_eq!(found["policy"]["name"], "daily", "{found}");
    assert_eq!(found["node"], "node-1");
    assert!(!found["lastSuccess"]["snapshot"].is_null() && !found["nextRunTime"].is_null());
    assert_eq!(found["conditions"][0]["status"], "True");
    let snapshot = found["lastSuccess"]["snapshot"].as_str().unwrap();
    let listed = cluster.processes.ok(["ls", "-q", snapshot]).text();
    assert!(
        !listed.contains("text") && listed.contains("sparse"),
        "{listed}"
    );
    let object = cluster.api.get(PROTECTIONS, "shop", "uploads").unwrap();
    assert_eq!(
        object["metadata"]["ownerReferences"][0]["kind"],
        "PersistentVolumeClaim"
    );
    assert_eq!(object["spec"]["volume"], "shop/uploads");
    // The other claim's mount is not there: it fails, by name, and takes nothing from the first.
    let failing = cluster.until_phase(PROTECTIONS, "orders", "Failing");
    assert!(
        failing["message"].as_str().unwrap().contains("shop/orders"),
        "{failing}"
    );
    let policy_status = cluster.until_phase(POLICIES, "daily", "Active");
    assert_eq!(
        (&policy_status["volumes"], &policy_status["failing"]),
        (&json!(3), &json!(1)),
        "two claims, and the emptyDir that the pod's Velero annotation names"
    );
    let why = cluster.processes.ok(["explain", "shop/uploads"]).text();
    assert!(
        why.contains("is protected by") && why.contains("daily"),
        "{why}"
    );

    // A restart writes nothing that is there already, and makes no run that was made.
    let snapshots = cluster.processes.snapshots().len();
    let written = |cluster: &Cluster| {
        let calls = cluster.api.calls();
        calls
            .get(&format!("patch {PROTECTIONS}"))
            .copied()
            .unwrap_or(0)
    };
    cluster.processes.coordinator().kill();
    let before = written(&cluster);
    cluster.processes.start_coordinator();
    cluster.until("shop/uploads", "eligible");
    std::thread::sleep(Duration::from_secs(5));
    assert!(
        written(&cluster) - before <= 6,
        "only what has changed is written"
    );
    assert_eq!(cluster.processes.snapshots().len(), snapshots);
}

#[test]
fn a_policy_that_is_wrong_says_where_and_protects_nothing() {
    let cluster = cluster();
    cluster
        .api
        .put("v1/namespaces", json!({"metadata": {"name": "shop"}}));
    // What is said of one object, and refused, holds up nothing that is said of others.
    cluster.api.refuse("orders");
    let spec = json!({"schedule": {"cron": "61 * * * *", "timeZone": "Mars/Olympus"}});
    cluster.api.put(POLICIES, policy("wrong", spec));
    let found = cluster.until_phase(POLICIES, "wrong", "Invalid");
    let said = found["conditions"][0]["message"].as_str().unwrap();
    assert!(
        said.contains("spec.schedule.cron") && said.contains("spec.schedule.timeZone"),
        "{said}"
    );
    let found = cluster.until_phase(PROTECTIONS, "uploads", "Unprotected");
    assert_eq!(found["reason"], "PolicyInvalid", "{found}");
    cluster.api.refuse("");
    // Mended, it begins; a claim that says no is left alone.
    let mut claim = cluster
        .api
        .get("v1/persistentvolumeclaims", "shop", "orders")
        .unwrap();
    claim["metadata"]["annotations"]["k8up.io/backup"] = json!("false");
    cluster.api.put("v1/persistentvolumeclaims", claim);
    cluster.api.put(
        POLICIES,
        policy("wrong", json!({"exposure": {"maxAge": "5s"}})),
    );
    cluster.until_phase(PROTECTIONS, "uploads", "Protected");
    let left = cluster.until_phase(PROTECTIONS, "orders", "Unprotected");
    assert_eq!(left["reason"], "ExcludedByAnnotation", "{left}");
    assert_eq!(cluster.status(POLICIES, "wrong")["phase"], "Active");
    // The claim goes, and with it what is said of it; its snapshots stay.
    cluster
        .api
        .delete("v1/persistentvolumeclaims", "shop", "uploads");
    until("its protection is gone", || {
        cluster.api.get(PROTECTIONS, "shop", "uploads").is_none()
    });
    assert!(!cluster.processes.snapshots().is_empty());
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_holds_up_no_other() {
    let mut cluster = cluster();
    cluster
        .api
        .put("v1/namespaces", json!({"metadata": {"name": "shop"}}));
    // As an API server of another version may have them.
    let strange = json!({
        "schedule": {"cron": "@daily"},
        "selection": {"mode": "Sometimes", "kinds": ["Tape"]},
    });
    cluster.api.put(POLICIES, policy("strange", strange));
    cluster.api.put(
        "v1/pods",
        json!({
            "metadata": {"name": "odd", "namespace": "shop"},
            "spec": {"nodeName": "node-1", "containers": "none"},
        }),
    );
    let found = cluster.until_phase(POLICIES, "strange", "Invalid");
    let said = found["conditions"][0]["message"].as_str().unwrap();
    for part in [
        "spec.selection.mode: is 'Sometimes'",
        "spec.selection.kinds[0]",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let log = || cluster.processes.coordinator.as_ref().unwrap().log();
    until("the pod is named", || log().contains("odd"));
    let listed = |text: &str| log().contains(text);
    assert!(
        listed("an object of the cluster cannot be understood"),
        "{}",
        log()
    );

    // Others of both kinds are heard of, also by a coordinator that finds the strange ones at its start.
    cluster.processes.coordinator().kill();
    cluster.processes.start_coordinator();
    cluster.api.put(
        POLICIES,
        policy(
            "right",
            json!({"exposure": {"maxAge": "5s"}, "priority": 1}),
        ),
    );
    cluster.until_phase(PROTECTIONS, "uploads", "Protected");
    assert_eq!(cluster.status(POLICIES, "strange")["phase"], "Invalid");
    let mut pod = cluster.pod("db-0");
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T02:00:00Z");
    cluster.api.put("v1/pods", pod);
    until("the pod's volume is let go", || {
        cluster.said("shop/db-0/scratch") != "eligible"
    });
}
