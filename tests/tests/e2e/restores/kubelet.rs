//! What a cluster's scheduler, volume binder, kubelet and StatefulSets do, as far as restores see it: pods get a node,
//! claims a directory of it, restore pods a real agent.

use holdfast_tests::cli::{Home, binary};
use holdfast_tests::kube::Api;
use holdfast_tests::processes::{Process, without_variables};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

pub const PODS: &str = "v1/pods";
pub const CLAIMS: &str = "v1/persistentvolumeclaims";
pub const VOLUMES: &str = "v1/persistentvolumes";
pub const SETS: &str = "apps/v1/statefulsets";

/// Works until it is dropped.
pub struct Kubelet {
    stop: Arc<AtomicBool>,
    /// While it is set, no restore pod gets an agent.
    pub idle: Arc<AtomicBool>,
    /// While it is set, no mount pod gets a node.
    pub full: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    pub fn start(api: Arc<Api>, home: &Home) -> Self {
        let flag = || Arc::new(AtomicBool::new(false));
        let (stop, idle, full) = (flag(), flag(), flag());
        let node = Node {
            api,
            roots: home.at("local-path"),
            settings: home.at("restore.yaml"),
            log: home.at("restore-pod.log"),
            agents: HashMap::new(),
            idle: idle.clone(),
            full: full.clone(),
        };
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut node = node;
            while !stopping.load(Ordering::Relaxed) {
                node.round();
                sleep(Duration::from_millis(50));
            }
        });
        Self {
            stop,
            idle,
            full,
            thread: Some(thread),
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Node {
    api: Arc<Api>,
    roots: PathBuf,
    settings: PathBuf,
    log: PathBuf,
    agents: HashMap<String, Process>,
    idle: Arc<AtomicBool>,
    full: Arc<AtomicBool>,
}

fn text<'v>(value: &'v Value, at: &str) -> &'v str {
    value
        .pointer(at)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

impl Node {
    fn round(&mut self) {
        let pods = self.api.all(PODS);
        for pod in &pods {
            match pod
                .pointer("/metadata/labels/holdfast.dev~1helper")
                .and_then(Value::as_str)
            {
                Some("mount") if self.full.load(Ordering::Relaxed) => {}
                Some("mount") if text(pod, "/status/phase") != "Running" => self.mount(pod),
                Some("restore") if !self.idle.load(Ordering::Relaxed) => self.restore(pod),
                _ => {}
            }
        }
        let there: Vec<&str> = pods.iter().map(|pod| text(pod, "/metadata/uid")).collect();
        self.agents.retain(|uid, _| there.contains(&&uid[..]));
        for set in self.api.all(SETS) {
            let name = format!("{}-0", text(&set, "/metadata/name"));
            let namespace = text(&set, "/metadata/namespace");
            let is_there = self.api.get(PODS, namespace, &name).is_some();
            match (
                set.pointer("/spec/replicas").and_then(Value::as_i64),
                is_there,
            ) {
                (Some(0), true) => self.api.delete(PODS, namespace, &name),
                (Some(0), false) | (_, true) => {}
                (_, false) => {
                    let claim = text(&set, "/spec/claim");
                    let mut pod = user(namespace, &name, text(&set, "/metadata/name"), claim);
                    let more = set.pointer("/spec/more").and_then(Value::as_str);
                    if let (Some(more), Some(volumes)) =
                        (more, pod["spec"]["volumes"].as_array_mut())
                    {
                        let claim = json!({"claimName": more});
                        volumes.push(json!({"name": "more", "persistentVolumeClaim": claim}));
                    }
                    self.api.put(PODS, pod);
                }
            }
        }
    }

    fn mount(&self, pod: &Value) {
        let namespace = text(pod, "/metadata/namespace");
        let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
        for volume in volumes.into_iter().flatten() {
            let claim = text(volume, "/persistentVolumeClaim/claimName");
            self.bind(namespace, claim);
        }
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = json!("node-1");
        pod["status"] = json!({"phase": "Running"});
        self.api.put(PODS, pod);
    }

    /// A claim that waits for its first consumer gets a volume.
    fn bind(&self, namespace: &str, name: &str) {
        let Some(claim) = self.api.get(CLAIMS, namespace, name) else {
            return;
        };
        if text(&claim, "/spec/volumeName").is_empty() {
            let volume = format!("pv-{name}");
            fs::create_dir_all(self.roots.join(&volume)).expect("a directory");
            bound(
                &self.api,
                claim,
                &volume,
                &self.roots.join(&volume).display().to_string(),
            );
        }
    }

    fn restore(&mut self, pod: &Value) {
        let uid = text(pod, "/metadata/uid").to_owned();
        if self.agents.contains_key(&uid) {
            return;
        }
        let mut command = Command::new(binary("holdfast-agent"));
        without_variables(&mut command);
        command.arg("--config").arg(&self.settings);
        let env = pod
            .pointer("/spec/containers/0/env")
            .and_then(Value::as_array);
        for variable in env.into_iter().flatten() {
            command.env(text(variable, "/name"), text(variable, "/value"));
        }
        self.agents
            .insert(uid, Process::start(&mut command, self.log.clone()));
        let mut pod = pod.clone();
        pod["status"] = json!({"phase": "Running"});
        self.api.put(PODS, pod);
    }
}

/// A pod that uses a claim, made by a StatefulSet.
pub fn user(namespace: &str, name: &str, set: &str, claim: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": namespace,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": set, "uid": set, "controller": true}],
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "db"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
        "status": {"phase": "Running"},
    })
}

/// Binds a claim to a new volume of type hostPath.
pub fn bound(api: &Api, mut claim: Value, volume: &str, path: &str) {
    claim["spec"]["volumeName"] = json!(volume);
    claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    api.put(CLAIMS, claim.clone());
    let name = text(&claim, "/metadata/name").to_owned();
    let namespace = text(&claim, "/metadata/namespace").to_owned();
    let stored = api.get(CLAIMS, &namespace, &name).expect("the claim");
    api.put(
        VOLUMES,
        json!({
            "metadata": {"name": volume},
            "spec": {
                "hostPath": {"path": path}, "volumeMode": "Filesystem",
                "accessModes": ["ReadWriteOnce"],
                "claimRef": {"namespace": namespace, "name": name, "uid": stored["metadata"]["uid"]},
            },
        }),
    );
}
