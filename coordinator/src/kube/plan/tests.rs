//! Plans of real objects, and of clusters that disagree with themselves.

use super::*;
use crate::kube::facts::{ClaimFacts, Facts, Key, VolumeFacts as PvFacts, key};
use crate::kube::world::{Change, Update};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;

const PODS: &str = include_str!("../../../../tests/fixtures/kube/pods.json");
const CLAIMS: &str = include_str!("../../../../tests/fixtures/kube/persistentvolumeclaims.json");
const VOLUMES: &str = include_str!("../../../../tests/fixtures/kube/persistentvolumes.json");
const DB: &str = "b4ca7246-8af9-47d7-a180-6343d9b82c74";

fn facts<F: Facts>(object: Value) -> (Key, F)
where
    F::Object: Resource<DynamicType = ()> + DeserializeOwned,
{
    let object: F::Object = serde_json::from_value(object).unwrap();
    (key(object.meta()), F::of(object))
}

fn items<F: Facts>(list: &[Value]) -> Change<F>
where
    F::Object: Resource<DynamicType = ()> + DeserializeOwned,
{
    Change::All(
        list.iter()
            .cloned()
            .map(facts::<F>)
            .collect::<HashMap<_, _>>(),
    )
}

/// The objects of the recorded cluster, to be changed before they are taken in.
struct Cluster {
    pods: Vec<Value>,
    claims: Vec<Value>,
    volumes: Vec<Value>,
    world: World,
}

fn list(text: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(text).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn recorded() -> Cluster {
    Cluster {
        pods: list(PODS),
        claims: list(CLAIMS),
        volumes: list(VOLUMES),
        world: World::default(),
    }
}

impl Cluster {
    fn plans(&mut self) -> BTreeMap<String, NodePlan> {
        self.world.take(Update::Pods(items::<PodFacts>(&self.pods)));
        self.world
            .take(Update::Claims(items::<ClaimFacts>(&self.claims)));
        self.world
            .take(Update::Volumes(items::<PvFacts>(&self.volumes)));
        assert!(self.world.is_whole());
        plans(&mut self.world)
    }

    /// The named volume as this node's plan has it.
    fn planned(&mut self, node: &str, name: &str) -> Option<PlannedVolume> {
        let plan = self.plans().remove(node)?;
        let mut found = plan.volumes.into_iter();
        found.find(|volume| {
            volume
                .facts
                .as_ref()
                .is_some_and(|facts| facts.name == name)
        })
    }

    fn orders(&mut self) -> PlannedVolume {
        self.planned("node-1", "shop/orders").unwrap()
    }
}

#[test]
fn a_real_cluster_has_the_plan_that_its_objects_say() {
    let mut cluster = recorded();
    let plans = cluster.plans();
    let names: Vec<_> = plans["node-1"]
        .volumes
        .iter()
        .map(|volume| {
            (
                volume.facts.as_ref().unwrap().name.as_str(),
                volume.reason.as_str(),
            )
        })
        .collect();
    let expected = [
        ("shop/db-0/scratch", ""),
        ("shop/db-0/mem", ""),
        ("shop/orders", ""),
        ("shop/uploads", ""),
    ];
    assert_eq!(names, expected);
    let orders = cluster.orders();
    let facts = orders.facts.unwrap();
    assert_eq!(facts.pvc_uid, "c43a129d-055e-4f7c-8bf4-6026a1eedd9d");
    assert_eq!(
        facts.volume_handle,
        "kubernetes.io/local-volume//mnt/disks/orders"
    );
    assert_eq!((&facts.pod[..], &facts.namespace[..]), ("db-0", "shop"));
    assert_eq!(
        (orders.pods, &orders.directory[..]),
        (vec![DB.to_owned()], "pv-orders")
    );
    let uploads = cluster.planned("node-1", "shop/uploads").unwrap();
    assert_eq!(
        uploads.host_path,
        "/opt/local-path-provisioner/pvc-7c0c2d1e-hostpath_shop_uploads"
    );
    let scratch = cluster.planned("node-1", "shop/db-0/scratch").unwrap();
    let handle = scratch.facts.unwrap().volume_handle;
    assert_eq!(handle, format!("pod/{DB}/scratch"));
}

#[test]
fn a_pod_that_ends_holds_nothing() {
    for (path, value) in [
        ("/metadata/deletionTimestamp", json!("2026-11-21T02:20:00Z")),
        ("/status/phase", json!("Succeeded")),
        ("/status/phase", json!("Failed")),
    ] {
        let mut cluster = recorded();
        let (parent, field) = path.rsplit_once('/').unwrap();
        cluster.pods[0].pointer_mut(parent).unwrap()[field] = value;
        assert_eq!(cluster.planned("node-1", "shop/orders"), None, "{path}");
        assert_eq!(cluster.planned("node-1", "shop/db-0/scratch"), None);
        assert!(cluster.planned("node-1", "shop/uploads").is_some());
    }
}

#[test]
fn objects_that_disagree_are_named_and_not_read() {
    type Break = fn(&mut Cluster);
    let cases: [(&str, Break); 5] = [
        ("ClaimMissing", |c| {
            c.claims
                .retain(|claim| claim["metadata"]["name"] != "orders")
        }),
        ("ClaimNotBound", |c| {
            c.claims[0]["spec"]["volumeName"] = json!("")
        }),
        ("VolumeMissing", |c| {
            c.volumes.retain(|v| v["metadata"]["name"] != "pv-orders")
        }),
        ("ClaimMismatch", |c| {
            c.claims[0]["metadata"]["uid"] = json!("made-again")
        }),
        ("RawBlock", |c| {
            c.volumes[0]["spec"]["volumeMode"] = json!("Block")
        }),
    ];
    for (reason, apply) in cases {
        let mut cluster = recorded();
        assert_eq!(cluster.orders().reason, "");
        apply(&mut cluster);
        let orders = cluster.orders();
        assert_eq!(orders.reason, reason);
        assert!(!orders.detail.is_empty());
    }
}

#[test]
fn a_claim_on_several_nodes_is_read_by_one_and_stays_with_it() {
    let mut cluster = recorded();
    let mut other = cluster.pods[0].clone();
    other["metadata"]["name"] = json!("db-1");
    other["metadata"]["uid"] = json!("uid-of-db-1");
    other["spec"]["nodeName"] = json!("node-0");
    cluster.volumes[0]["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    // The first to have it keeps it, whatever the names.
    assert!(cluster.orders().shared);
    cluster.pods.push(other);
    assert_eq!(cluster.orders().reason, "");
    let elsewhere = cluster.planned("node-0", "shop/orders").unwrap();
    assert_eq!(elsewhere.reason, "ServedElsewhere");
    assert!(elsewhere.detail.contains("node-1"), "{}", elsewhere.detail);
    // Until it has it no more.
    cluster.pods.remove(0);
    assert_eq!(cluster.planned("node-0", "shop/orders").unwrap().reason, "");
    assert_eq!(cluster.planned("node-1", "shop/orders"), None);
}

#[test]
fn two_pods_of_a_node_show_one_volume() {
    let mut cluster = recorded();
    let mut other = cluster.pods[0].clone();
    other["metadata"]["name"] = json!("job");
    other["metadata"]["uid"] = json!("uid-of-job");
    cluster.pods.push(other);
    let plan = cluster.plans().remove("node-1").unwrap();
    let named = |name: &str| {
        let volumes = plan.volumes.iter();
        volumes
            .filter(|volume| volume.facts.as_ref().unwrap().name == name)
            .count()
    };
    assert_eq!((named("shop/orders"), named("shop/job/scratch")), (1, 1));
    assert_eq!(cluster.orders().pods, [DB, "uid-of-job"]);
}

#[test]
fn a_static_pod_has_the_directory_that_the_kubelet_made() {
    let mut cluster = recorded();
    cluster.pods[0]["metadata"]["annotations"] = json!({
        "kubernetes.io/config.mirror": "abc",
        "kubernetes.io/config.hash": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    });
    assert_eq!(cluster.orders().pods, ["0f1e2d3c4b5a69788796a5b4c3d2e1f0"]);
}

#[test]
fn a_pod_that_says_it_is_another_has_its_own_directory() {
    let mut cluster = recorded();
    let before = cluster.orders().pods;
    // Anybody may annotate a pod; no manifest has the uid of a pod as its hash.
    cluster.pods[0]["metadata"]["annotations"] = json!({
        "kubernetes.io/config.mirror": "abc",
        "kubernetes.io/config.hash": "5d0e6f3a-1f2e-4c3b-9a8d-7e6f5a4b3c2d",
    });
    assert_eq!(cluster.orders().pods, before);
}

#[test]
fn volumes_of_pods_that_cannot_come_back_say_so() {
    let mut cluster = recorded();
    cluster.pods[0]["spec"]["volumes"] = json!([
        {"name": "host", "hostPath": {"path": "/var/log"}},
        {"name": "inline", "csi": {"driver": "inline.example.com"}},
        {"name": "made", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
    ]);
    let reason =
        |cluster: &mut Cluster, name: &str| cluster.planned("node-1", name).unwrap().reason;
    assert_eq!(reason(&mut cluster, "shop/db-0/host"), "HostPathVolume");
    assert_eq!(reason(&mut cluster, "shop/db-0/inline"), "EphemeralVolume");
    assert_eq!(reason(&mut cluster, "shop/db-0-made"), "ClaimMissing");
}

#[test]
fn names_fit_and_stay_apart() {
    let long = |end: char| format!("ns/{}{end}", "a".repeat(252));
    let (one, two) = (fitted(long('x')), fitted(long('y')));
    assert_eq!((one.len(), two.len()), (MAX_NAME, MAX_NAME));
    assert_ne!(one, two);
    assert_eq!(fitted("ns/claim".into()), "ns/claim");
}

#[test]
fn a_recorded_watch_leads_to_the_same_world_as_a_list() {
    let lines = include_str!("../../../../tests/fixtures/kube/pods-watch.jsonl").lines();
    let mut cluster = recorded();
    cluster.pods.clear();
    cluster.plans();
    for line in lines {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let (name, pod) = match event["type"].as_str().unwrap() {
            "BOOKMARK" | "ERROR" => continue,
            "DELETED" => {
                let (name, _) = facts::<PodFacts>(event["object"].take());
                cluster.world.take(Update::Pods(Change::Gone(name)));
                continue;
            }
            _ => facts::<PodFacts>(event["object"].take()),
        };
        cluster.world.take(Update::Pods(Change::Put(name, pod)));
    }
    let names = |plans: &BTreeMap<String, NodePlan>| -> BTreeSet<String> {
        let volumes = plans["node-1"].volumes.iter();
        volumes
            .map(|volume| volume.facts.clone().unwrap().name)
            .collect()
    };
    let watched = plans(&mut cluster.world);
    assert!(names(&watched).contains("shop/orders"), "{watched:?}");
}
