//! Many pods, nodes and agents: objects for the API server, agents that hold a subscription and nothing else, a node's
//! directories whose pods come and go, and what a process holds of the kernel.

use crate::kube::Api;
use crate::processes::PATIENCE;
use holdfast_agent::client::{Client, PROTOCOL};
use holdfast_proto::v1 as proto;
use proto::agent_message::Body;
use proto::order;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const PODS: &str = include_str!("../fixtures/kube/pods.json");
const CLAIMS: &str = include_str!("../fixtures/kube/persistentvolumeclaims.json");
const VOLUMES: &str = include_str!("../fixtures/kube/persistentvolumes.json");

/// Objects as recorded, one of each.
pub struct Shapes {
    pod: Value,
    claim: Value,
    volume: Value,
}

impl Shapes {
    /// Reads the recorded ones.
    ///
    /// # Panics
    /// Where they are not as they were.
    pub fn recorded() -> Self {
        let first = |list: &str, name: &str| {
            let list: Value = serde_json::from_str(list).expect("JSON");
            let mut items = list["items"].as_array().expect("a list").iter();
            let found = items.find(|object| object["metadata"]["name"] == name);
            found.expect("it was recorded").clone()
        };
        Self {
            pod: first(PODS, "db-0"),
            claim: first(CLAIMS, "orders"),
            volume: first(VOLUMES, "pv-orders"),
        }
    }

    /// Puts a pod with a claim and its volume into the cluster. Its names follow from its number.
    pub fn put(&self, api: &Api, number: usize, nodes: usize, namespaces: usize) {
        let namespace = json!(format!("team-{}", number % namespaces));
        let (claim_uid, pv) = (
            json!(format!("claim-uid-{number}")),
            json!(format!("pv-{number}")),
        );
        let mut volume = self.volume.clone();
        volume["metadata"]["name"] = pv.clone();
        volume["metadata"]["uid"] = Value::Null;
        let spec = &mut volume["spec"];
        spec["claimRef"]["uid"] = claim_uid.clone();
        spec["claimRef"]["namespace"] = namespace.clone();
        spec["claimRef"]["name"] = json!(format!("data-{number}"));
        api.put("v1/persistentvolumes", volume);
        let mut claim = self.claim.clone();
        claim["metadata"]["name"] = json!(format!("data-{number}"));
        claim["metadata"]["namespace"] = namespace.clone();
        claim["metadata"]["uid"] = claim_uid;
        claim["spec"]["volumeName"] = pv;
        api.put("v1/persistentvolumeclaims", claim);
        api.put("v1/pods", self.pod(number, nodes, namespaces));
    }

    /// The pod of a number.
    pub fn pod(&self, number: usize, nodes: usize, namespaces: usize) -> Value {
        let mut pod = self.pod.clone();
        pod["metadata"]["name"] = json!(format!("db-{number}"));
        pod["metadata"]["namespace"] = json!(format!("team-{}", number % namespaces));
        pod["metadata"]["uid"] = json!(format!("pod-uid-{number}"));
        pod["spec"]["nodeName"] = json!(format!("node-{}", number % nodes));
        let volumes = pod["spec"]["volumes"].as_array_mut();
        for volume in volumes.into_iter().flatten() {
            if volume.get("persistentVolumeClaim").is_some() {
                volume["persistentVolumeClaim"]["claimName"] = json!(format!("data-{number}"));
            }
        }
        pod
    }
}

/// Agents without a node: each subscribes, lists what its plan says, and says at once that a backup is done.
pub struct FakeAgents {
    planned: Arc<Mutex<HashMap<String, usize>>>,
    orders: Arc<Mutex<u64>>,
    #[allow(dead_code)] // the agents live as long
    runtime: Runtime,
}

impl FakeAgents {
    /// Subscribes agents for `node-0` and so on.
    ///
    /// # Panics
    /// Where there is no runtime.
    pub fn subscribe(url: &str, count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let planned = Arc::new(Mutex::new(HashMap::new()));
        let orders = Arc::new(Mutex::new(0));
        for number in 0..count {
            let (url, node) = (url.to_owned(), format!("node-{number}"));
            let (planned, orders) = (planned.clone(), orders.clone());
            runtime.spawn(async move {
                loop {
                    let _ = serve(&url, &node, &planned, &orders).await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
        Self {
            planned,
            orders,
            runtime,
        }
    }

    /// How many volumes each node has to read, of those that have been told.
    pub fn planned(&self) -> HashMap<String, usize> {
        let planned = self.planned.lock();
        planned.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Backups that were asked for.
    pub fn orders(&self) -> u64 {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(
    url: &str,
    node: &str,
    planned: &Mutex<HashMap<String, usize>>,
    orders: &Mutex<u64>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let client = Client::connect_lazy(url, None)?;
    let (sender, receiver) = mpsc::channel(64);
    let send = |body| sender.send(proto::AgentMessage { body: Some(body) });
    let hello = proto::Hello {
        protocol: PROTOCOL,
        node: node.to_owned(),
        ..proto::Hello::default()
    };
    send(Body::Hello(hello)).await?;
    let stream = ReceiverStream::new(receiver);
    let mut answers = client.jobs().subscribe(stream).await?.into_inner();
    while let Some(order) = answers.message().await? {
        match order.body {
            Some(order::Body::Plan(plan)) => {
                let wanted = plan.volumes.into_iter().filter(|v| v.reason.is_empty());
                let volumes: Vec<proto::AgentVolume> = wanted
                    .map(|volume| proto::AgentVolume {
                        facts: volume.facts,
                        eligible: true,
                        ..proto::AgentVolume::default()
                    })
                    .collect();
                planned
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(node.to_owned(), volumes.len());
                send(Body::Volumes(proto::VolumeList { volumes })).await?;
            }
            Some(order::Body::Backup(backup)) => {
                *orders.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                let report = proto::Report {
                    job: order.job,
                    state: proto::JobState::Done.into(),
                    what: "backup".to_owned(),
                    volume: backup.volume,
                    ..proto::Report::default()
                };
                send(Body::Report(report)).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A kubelet's pods directory, whose CSI volumes are mounted for real. All is unmounted at the end.
pub struct Node {
    pods: PathBuf,
    mounted: Vec<usize>,
}

impl Node {
    /// An empty one.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new(pods: PathBuf) -> Self {
        fs::create_dir_all(&pods).expect("a directory");
        Self {
            pods,
            mounted: Vec::new(),
        }
    }

    /// The name under which an agent without a plan lists the volume of a pod.
    pub fn volume(number: usize) -> String {
        format!("pvc-{number:08}")
    }

    fn pod(&self, number: usize) -> PathBuf {
        self.pods.join(uid(number))
    }

    fn mount(&self, number: usize) -> PathBuf {
        let volumes = self.pod(number).join("volumes/kubernetes.io~csi");
        volumes.join(Self::volume(number)).join("mount")
    }

    /// A pod begins: its directories, its volume mounted, with some directories and files in it.
    ///
    /// # Panics
    /// Where that cannot be made: it takes root.
    pub fn begin(&mut self, number: usize) {
        let mount = self.mount(number);
        fs::create_dir_all(&mount).expect("a directory");
        fs::create_dir_all(
            self.pod(number)
                .join("volumes/kubernetes.io~empty-dir/scratch"),
        )
        .expect("a directory");
        let about = json!({
            "driverName": "csi.example.org", "volumeHandle": format!("handle-{number}"),
            "specVolID": Self::volume(number), "volumeLifecycleMode": "Persistent",
            "attachmentID": "", "nodeName": "node",
        });
        let file = mount.with_file_name("vol_data.json");
        fs::write(file, about.to_string()).expect("a file");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&mount)
            .status();
        assert!(done.is_ok_and(|done| done.success()), "mount");
        self.mounted.push(number);
        for name in ["a", "b", "c", "d"] {
            fs::create_dir(mount.join(name)).expect("a directory");
            fs::write(mount.join(name).join("file"), name).expect("a file");
        }
    }

    /// A pod ends: unmounted, its directories removed.
    pub fn end(&mut self, number: usize) {
        self.mounted.retain(|mounted| *mounted != number);
        unmount(&self.mount(number));
        let _ = fs::remove_dir_all(self.pod(number));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for number in std::mem::take(&mut self.mounted) {
            self.end(number);
        }
    }
}

fn uid(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn unmount(place: &Path) {
    // A run that reads it just now lets go of it when it is told.
    for words in [&[][..], &["-l"]] {
        let done = Command::new("umount").args(words).arg(place).status();
        if done.is_ok_and(|done| done.success()) {
            return;
        }
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Descriptors.
    pub descriptors: usize,
    /// Marks and watches of inotify and fanotify.
    pub marks: usize,
    /// Resident memory now, in KiB.
    pub resident_kib: u64,
    /// And at most.
    pub peak_kib: u64,
    /// CPU time of user and system, in hundredths of a second.
    pub cpu_ticks: u64,
}

impl Held {
    /// By a process, now.
    pub fn by(pid: u32) -> Self {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let count = |dir: &str| fs::read_dir(proc.join(dir)).map_or(0, Iterator::count);
        let infos = fs::read_dir(proc.join("fdinfo"));
        let marks = infos
            .into_iter()
            .flatten()
            .flatten()
            .map(|info| fs::read_to_string(info.path()).unwrap_or_default())
            .map(|text| {
                let lines = text.lines();
                let mark = |line: &&str| {
                    line.starts_with("inotify wd:") || line.starts_with("fanotify ino:")
                };
                lines.filter(mark).count()
            })
            .sum();
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let kib = |what: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(what));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or(0)
        };
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0u64)
        };
        Self {
            descriptors: count("fd"),
            marks,
            resident_kib: kib("VmRSS:"),
            peak_kib: kib("VmHWM:"),
            cpu_ticks: ticks(11) + ticks(12),
        }
    }
}

/// Waits until every node was told its plan, and all plans together have so many volumes to read.
///
/// # Panics
/// Where it does not become so.
pub fn until_planned(agents: &FakeAgents, nodes: usize, volumes: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let planned = agents.planned();
        let (told, sum) = (planned.len(), planned.values().sum::<usize>());
        if (told, sum) == (nodes, volumes) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{told} of {nodes} nodes have plans, with {sum} of {volumes} volumes"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
