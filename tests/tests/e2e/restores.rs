//! Restores as objects of the cluster, with a real coordinator, a real agent on the node, and a real agent in each
//! restore pod. What is restored is compared by tools that do not know our code.

mod kubelet;
mod mounts;
mod scaled;
mod waited;

use holdfast_tests::cli::Home;
use holdfast_tests::fixture;
use holdfast_tests::kube::Api;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::{Processes, until};
use kubelet::{CLAIMS, Kubelet, PODS, SETS, bound};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const RESTORES: &str = "holdfast.dev/v1alpha1/restores";

/// A namespace with a database: a StatefulSet of one pod, its claim, and what is in it.
struct Cluster {
    api: Arc<Api>,
    processes: Processes,
    kubelet: Kubelet,
    orders: PathBuf,
    roots: PathBuf,
}

fn cluster() -> Cluster {
    let home = Home::new();
    let (pods, roots) = (home.at("kubelet/pods"), home.at("local-path"));
    let orders = roots.join("pv-orders");
    fs::create_dir_all(&pods).unwrap();
    fs::create_dir_all(&orders).unwrap();
    fixture::contents(&orders);

    let api = Arc::new(Api::new());
    for namespace in ["shop", "other", "holdfast"] {
        api.put("v1/namespaces", json!({"metadata": {"name": namespace}}));
    }
    let claim = json!({
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    bound(&api, claim, "pv-orders", &orders.display().to_string());
    api.put(
        SETS,
        json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"replicas": 1, "claim": "orders"}}),
    );
    let kubeconfig = home.at("kubeconfig");
    api.kubeconfig(&kubeconfig);
    let helpers = format!(
        "namespace: holdfast\nkubelet_pods: '{}'\nhost_roots: ['{}']\n\
         mount: {{most: 4, pod: {{spec: {{containers: [{{name: hold}}]}}}}}}\n\
         restore: {{most: 4, pod: {{spec: {{containers: [{{name: agent}}]}}}}}}\n",
        pods.display(),
        roots.display(),
    );
    fs::write(home.at("helpers.yaml"), helpers).unwrap();
    let coordinator = format!(
        "kubernetes: {{mode: 'on', kubeconfig: '{}', helpers: '{}'}}\n",
        kubeconfig.display(),
        home.at("helpers.yaml").display(),
    );
    let agent = format!(
        ", kubelet_pods: '{}', host_roots: ['{}']",
        pods.display(),
        roots.display()
    );
    let kubelet = Kubelet::start(api.clone(), &home);
    let mut processes = Processes::start_with(home, &[], &coordinator, &agent);
    let home = &processes.home;
    let restore = format!(
        "coordinator: {{url: '{}'}}\nstate: {{dir: '{}'}}\njournal: {{source: 'off'}}\nreread: {{period: 'off'}}\n\
         http: {{listen: '127.0.0.1:0'}}\nlog: {{format: text}}\n",
        processes.url(),
        home.at("state/restore").display(),
    );
    fs::write(home.at("restore.yaml"), restore).unwrap();
    let file = home.at("agent.yaml");
    let settings = fs::read_to_string(&file).unwrap() + "agent: {node: node-1}\n";
    fs::write(file, settings).unwrap();
    processes.agent().kill();
    processes.start_agent();
    let cluster = Cluster {
        api,
        processes,
        kubelet,
        orders,
        roots,
    };
    until("the volume is served", || {
        let listed = cluster.processes.run(["volumes", "-o", "json"]).text();
        listed.contains("shop/orders") && listed.contains("\"eligible\": true")
    });
    cluster
        .processes
        .ok(["backup", "shop/orders", "--wait", "-q"]);
    cluster
}

impl Cluster {
    /// A copy of what is in the volume now.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.processes.home.at(name);
        let done = Command::new("cp")
            .arg("-a")
            .args([&self.orders, &copy])
            .status();
        assert!(done.unwrap().success());
        copy
    }

    /// Changes the volume in every way.
    fn spoil(&self) {
        let mut files = fs::read_dir(&self.orders)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let file = files
            .find(|path| path.is_file() && !path.is_symlink())
            .unwrap();
        fs::write(&file, "spoiled").unwrap();
        fs::write(self.orders.join("new"), "new").unwrap();
        let dir = fs::read_dir(&self.orders)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        if let Some(dir) = dir
            .into_iter()
            .find(|path| path.is_dir() && !path.is_symlink())
        {
            fs::remove_dir_all(dir).unwrap();
        }
    }

    fn restore(&self, namespace: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "Restore",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        });
        self.api.put(RESTORES, object);
    }

    fn status(&self, namespace: &str, name: &str) -> Value {
        let object = self.api.get(RESTORES, namespace, name);
        object
            .map(|object| object["status"].clone())
            .unwrap_or_default()
    }

    fn ends(&self, namespace: &str, name: &str) -> Value {
        until(&format!("restore {name} has ended"), || {
            let object = self.api.get(RESTORES, namespace, name).unwrap();
            let held = object["metadata"]["finalizers"].as_array();
            !object["status"]["completionTime"].is_null() && held.is_none_or(Vec::is_empty)
        });
        self.status(namespace, name)
    }

    fn replicas(&self) -> Value {
        self.api.get(SETS, "shop", "db").unwrap()["spec"]["replicas"].clone()
    }

    /// No pod of ours is left.
    fn assert_clean(&self) {
        until("no helper is left", || {
            let pods = self.api.all(PODS);
            pods.iter()
                .all(|pod| pod["metadata"]["labels"]["holdfast.dev/helper"].is_null())
        });
        assert_eq!(self.replicas(), 1);
    }
}

fn in_place(more: Value) -> Value {
    let mut spec = json!({
        "source": {"claim": {"name": "orders"}},
        "target": {"existingClaim": {"name": "orders"}},
        "special": true, "deleteExtras": true,
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn a_new_claim_is_made_as_the_old_one_was_and_holds_the_same() {
    let cluster = cluster();
    // Of a dry run there is nothing but the words.
    let spec = json!({
        "source": {"claim": {"name": "orders"}},
        "target": {"newClaim": {"name": "orders-2"}},
        "storageClassMapping": {"fast": "slow"}, "special": true,
    });
    let mut dry = spec.clone();
    dry["dryRun"] = json!(true);
    cluster.restore("shop", "dry", dry);
    let told = cluster.ends("shop", "dry");
    assert_eq!(told["phase"], "Completed", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("orders-2") && message.contains("slow") && message.contains("1Gi"),
        "{told}"
    );
    assert!(cluster.api.get(CLAIMS, "shop", "orders-2").is_none());

    let mut verified = spec.clone();
    verified["verify"] = json!(true);
    cluster.restore("shop", "copy", verified);
    let status = cluster.ends("shop", "copy");
    assert_eq!(status["phase"], "Completed", "{status}");
    assert_same(&cluster.orders, &cluster.roots.join("pv-orders-2"));
    let claim = cluster.api.get(CLAIMS, "shop", "orders-2").unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "slow");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(
        claim["metadata"]["annotations"]["holdfast.dev/restored-from"],
        status["snapshot"]["id"]
    );
    assert_eq!(status["conditions"][0]["status"], "True");
    assert_eq!(status["node"], "node-1");
    assert!(
        status["counts"]["created"].as_i64().unwrap() > 0,
        "{status}"
    );
    cluster.assert_clean();
    // The name is taken now.
    cluster.restore("shop", "again", spec);
    assert_eq!(cluster.ends("shop", "again")["reason"], "ClaimExists");
    assert_same(&cluster.orders, &cluster.roots.join("pv-orders-2"));
}

#[test]
fn another_namespace_gets_a_snapshot_only_where_its_own_says_so() {
    let cluster = cluster();
    let snapshot = cluster.processes.snapshots().remove(0);
    let target =
        json!({"newClaim": {"name": "stolen", "size": "1Gi", "accessModes": ["ReadWriteOnce"]}});
    let sources = [
        json!({"claim": {"name": "orders", "namespace": "shop"}}),
        json!({"volume": "shop/orders"}),
        json!({"snapshot": snapshot}),
    ];
    for (at, source) in sources.iter().enumerate() {
        let name = format!("refused-{at}");
        cluster.restore("other", &name, json!({"source": source, "target": target}));
        let status = cluster.ends("other", &name);
        assert_eq!(status["phase"], "Failed", "{status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("holdfast.dev/restore-to"), "{message}");
        assert!(status["snapshot"].is_null(), "{status}");
    }
    assert!(cluster.api.get(CLAIMS, "other", "stolen").is_none());
    cluster.api.put(
        "v1/namespaces",
        json!({"metadata": {"name": "shop", "annotations": {"holdfast.dev/restore-to": "a, other"}}}),
    );
    let mut allowed = json!({"source": sources[0], "target": target, "special": true});
    allowed["target"]["newClaim"]["name"] = json!("allowed");
    // The word may take a moment to arrive.
    let mut tries = 0;
    until("it is allowed", || {
        tries += 1;
        let name = format!("allowed-{tries}");
        cluster.restore("other", &name, allowed.clone());
        cluster.ends("other", &name)["phase"] == "Completed"
    });
    assert_same(&cluster.orders, &cluster.roots.join("pv-allowed"));
    cluster.assert_clean();
}

#[test]
fn in_place_with_all_care_goes_on_however_often_the_coordinator_is_killed() {
    let mut cluster = cluster();
    let before = cluster.copy("before");
    cluster.spoil();
    // What would be done is told, and not done.
    let spoiled = cluster.copy("spoiled");
    cluster.restore("shop", "dry", in_place(json!({"dryRun": true})));
    let told = cluster.ends("shop", "dry");
    assert_eq!(told["phase"], "Completed", "{told}");
    assert!(told["counts"]["replaced"].as_i64().unwrap() > 0, "{told}");
    assert!(told["counts"]["deleted"].as_i64().unwrap() > 0, "{told}");
    assert_same(&spoiled, &cluster.orders);
    assert_eq!(cluster.replicas(), 1);

    // The first snapshot: the newest will be that of the spoiled volume.
    let first = cluster.processes.snapshots().remove(0);
    let spec = in_place(json!({
        "source": {"snapshot": first}, "scaleDown": true, "verify": true, "rollback": true,
    }));
    cluster.restore("shop", "back", spec);
    let mut seen = BTreeSet::new();
    until("it has ended", || {
        let status = cluster.status("shop", "back");
        let phase = status["phase"].as_str().unwrap_or_default().to_owned();
        if !phase.is_empty() && seen.insert(phase) && status["completionTime"].is_null() {
            cluster.processes.coordinator().kill();
            cluster.processes.start_coordinator();
        }
        !status["completionTime"].is_null()
    });
    let status = cluster.ends("shop", "back");
    assert_eq!(status["phase"], "Completed", "{status}");
    assert!(seen.len() >= 4, "{seen:?}");
    assert_same(&before, &cluster.orders);
    assert_eq!(status["scaled"][0]["replicas"], 1);
    cluster.assert_clean();
    // What was there before is the safety snapshot.
    let safety = status["safetySnapshot"]["id"].as_str().unwrap();
    assert_same(&spoiled, &cluster.processes.restore(safety, "safety"));
}

#[test]
fn one_that_fails_is_rolled_back_and_scaled_up() {
    let cluster = cluster();
    let before = cluster.copy("before");
    let spec = in_place(json!({"path": "no/such/path", "scaleDown": true, "rollback": true}));
    cluster.restore("shop", "wrong", spec);
    let status = cluster.ends("shop", "wrong");
    assert_eq!(status["phase"], "RolledBack", "{status}");
    assert_same(&before, &cluster.orders);
    cluster.assert_clean();
    // Without the right to make pods it fails before anything is scaled for long.
    cluster.api.set_forbidden(PODS, true);
    cluster.restore("shop", "forbidden", in_place(json!({"scaleDown": true})));
    let status = cluster.ends("shop", "forbidden");
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&json!("Failed"), &json!("Forbidden")),
        "{status}"
    );
    cluster.api.set_forbidden(PODS, false);
    assert_eq!(cluster.replicas(), 1);
    assert_same(&before, &cluster.orders);
}

#[test]
fn one_that_is_deleted_or_cancelled_midway_leaves_nothing_in_the_way() {
    let cluster = cluster();
    cluster.kubelet.idle.store(true, Ordering::Relaxed);
    for deletes in [true, false] {
        let name = if deletes { "deleted" } else { "cancelled" };
        cluster.restore("shop", name, in_place(json!({"scaleDown": true})));
        until("its pod waits", || {
            cluster.status("shop", name)["phase"] == "Restoring"
        });
        assert_eq!(cluster.replicas(), 0);
        if deletes {
            cluster.api.ask_to_delete(RESTORES, "shop", name);
            until("it is gone", || {
                cluster.api.get(RESTORES, "shop", name).is_none()
            });
        } else {
            let mut object = cluster.api.get(RESTORES, "shop", name).unwrap();
            object["spec"]["cancel"] = json!(true);
            cluster.api.put(RESTORES, object);
            assert_eq!(cluster.ends("shop", name)["phase"], "Cancelled");
        }
        cluster.assert_clean();
    }
}

#[test]
fn into_the_running_volume_nothing_leads_out_of_it() {
    let cluster = cluster();
    let outside = cluster.processes.home.at("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, cluster.orders.join("way-out")).unwrap();
    let spec = json!({
        "source": {"claim": {"name": "orders"}},
        "target": {"existingClaim": {"name": "orders"}},
        "safetySnapshot": false, "targetPath": "way-out/x",
    });
    cluster.restore("shop", "out", spec.clone());
    let status = cluster.ends("shop", "out");
    assert_eq!(status["phase"], "Failed", "{status}");
    assert!(is_empty(&outside), "{status}");
    let mut inside = spec;
    inside["targetPath"] = json!("copy/of/all");
    inside["special"] = json!(true);
    let before = cluster.processes.restore("shop/orders@latest", "before");
    cluster.restore("shop", "in", inside);
    let status = cluster.ends("shop", "in");
    assert_eq!(status["phase"], "Completed", "{status}");
    assert_same(&before, &cluster.orders.join("copy/of/all"));
    cluster.assert_clean();
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}
