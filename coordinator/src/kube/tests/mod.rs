//! What a coordinator in a cluster keeps to while others fail: under a clock that the test moves, before an API that
//! answers as the test says, with an agent that is played by hand.

mod hooks;
mod mounting;
mod runs;
mod writes;

use super::api::{BackupPolicy, VolumeKind};
use super::facts::Facts;
use super::picture::Picture;
use crate::Coordinator;
use crate::catalog::Catalog;
use crate::policy::Subject;
use crate::policy::compile::Policy;
use crate::policy::subject::{Claim, Namespace, PodUse, State};
use crate::repo::{CreateOptions, Repository, Store, StoreOptions};
use crate::schedule::{Connection, What};
use crate::settings::CoordinatorSettings;
use holdfast_format::id::{CatalogId, JobId, RepositoryId};
use holdfast_format::keys::Kek;
use holdfast_proto::v1::{
    AgentVolume, BackupOrder, Hello, JobInfo, JobState, Order, Report, VolumeFacts, VolumeList,
};
use holdfast_runtime::clock::{Clock, ManualClock};
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What others do takes no longer, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the clock shows first.
const START: i64 = 1_800_000_000_000_000_000;
const NODE: &str = "node-1";
const FIRST: JobId = JobId::from_bytes([1; 16]);
const SECOND: JobId = JobId::from_bytes([2; 16]);

/// Waits for what other tasks are about to do.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// A coordinator of a new repository.
struct Stage {
    coordinator: Arc<Coordinator>,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

/// The agent of the node.
struct Agent {
    connection: Connection,
    orders: mpsc::Receiver<Order>,
}

impl Stage {
    async fn new() -> Self {
        holdfast_runtime::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("store").display().to_string();
        let store = Store::open_or_create(&url, &StoreOptions::default()).unwrap();
        let options = CreateOptions {
            id: RepositoryId::from_bytes([1; 16]),
            created_ns: 1,
            profile: None,
            inline_limit: None,
        };
        let repository = Repository::create(store, Kek::from_bytes([7; 32]), &options);
        let repository = repository.await.unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir_all(&state).unwrap();
        let id = CatalogId::from_bytes([2; 16]);
        let catalog = Catalog::create(&state, &repository.id(), id).await.unwrap();
        catalog.close().await.unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let settings = CoordinatorSettings::new(state);
        let opened = Coordinator::open(settings, repository, clock.clone()).await;
        Self {
            coordinator: opened.unwrap(),
            clock,
            _dir: dir,
        }
    }

    /// The agent comes, and may read these volumes.
    fn agent(&self, volumes: &[String]) -> Agent {
        let volume = |name: &String| AgentVolume {
            facts: Some(VolumeFacts {
                name: name.clone(),
                ..VolumeFacts::default()
            }),
            eligible: true,
            ..AgentVolume::default()
        };
        let hello = Hello {
            node: NODE.into(),
            volumes: Some(VolumeList {
                volumes: volumes.iter().map(volume).collect(),
            }),
            ..Hello::default()
        };
        let (connection, sent) = self.coordinator.hub().connect(hello);
        Agent {
            connection,
            orders: sent.orders,
        }
    }

    /// Somebody asks for a backup, past all policies.
    fn back_up(&self, job: JobId, volume: &str) {
        let order = BackupOrder {
            volume: volume.into(),
            ..BackupOrder::default()
        };
        let hub = self.coordinator.hub();
        let started = hub.start(job, What::Backup(order), None, self.clock.now_ns());
        started.unwrap();
    }

    /// The agent says how a job goes.
    fn report(&self, agent: &Agent, job: JobId, state: JobState, more: Report) {
        let report = Report {
            job: job.as_bytes().to_vec().into(),
            state: state.into(),
            what: "backup".into(),
            ..more
        };
        let now_ns = self.clock.now_ns();
        let hub = self.coordinator.hub();
        hub.report(&agent.connection, report, now_ns);
    }

    /// How a job is.
    fn job(&self, job: JobId) -> JobInfo {
        let watched = self.coordinator.hub().watch(&job).unwrap();
        watched.borrow().clone()
    }
}

/// What the API is asked.
#[derive(Clone, Debug)]
struct Call {
    method: String,
    path: String,
    body: Value,
}

impl Call {
    /// The name of the object that it is about.
    fn name(&self) -> &str {
        let path = self.path.trim_end_matches("/status");
        path.rsplit('/').next().unwrap_or_default()
    }
}

/// Status code and body; an error: nobody answers.
type Answer = io::Result<(u16, Value)>;

/// A client of an API that answers like this.
fn client(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.map_err(io::Error::other)?;
            let call = Call {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            };
            let (code, body) = answer(&call)?;
            let body = Body::from(body.to_string().into_bytes());
            let response = Response::builder().status(code).body(body);
            response.map_err(io::Error::other)
        }
    });
    Client::new(service, "default")
}

fn refusal(code: u16) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "AsTheTestSays", "code": code, "message": "as the test says",
    });
    Ok((code, status))
}

/// A claim of namespace shop that these pods use; none: nobody does.
fn subject(claim: &str, pods: &[&str]) -> Subject {
    let used = pods.iter().map(|pod| PodUse {
        name: (*pod).to_owned(),
        node: Some(NODE.to_owned()),
        phase: Some("Running".to_owned()),
        ..PodUse::default()
    });
    let namespace = Namespace {
        name: "shop".to_owned(),
        ..Namespace::default()
    };
    Subject {
        id: format!("shop/{claim}"),
        namespace: Arc::new(namespace),
        kind: Some(VolumeKind::PersistentVolumeClaim),
        claim: Some(Claim {
            name: claim.to_owned(),
            uid: format!("uid-{claim}"),
            volume_name: Some(format!("pv-{claim}")),
            access_modes: vec!["ReadWriteOnce".to_owned()],
            ..Claim::default()
        }),
        driver: None,
        pods: used.collect(),
        state: match pods.is_empty() {
            true => State::NotMounted,
            false => State::Mounted,
        },
    }
}

fn policy(spec: Value) -> Policy {
    let object = json!({
        "apiVersion": super::api::API_VERSION, "kind": "BackupPolicy",
        "metadata": {
            "name": "all", "namespace": "shop", "uid": "uid-all",
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1,
        },
        "spec": spec,
    });
    let object: BackupPolicy = serde_json::from_value(object).unwrap();
    <Policy as Facts>::of(object)
}

fn picture(policies: Vec<Policy>, subjects: Vec<Subject>) -> Arc<Picture> {
    let mounted: Vec<String> = subjects
        .iter()
        .filter(|subject| subject.state == State::Mounted)
        .map(|subject| subject.id.clone())
        .collect();
    let node_of = |volume: &str| {
        let mut mounted = mounted.iter();
        mounted.any(|name| name == volume).then(|| NODE.to_owned())
    };
    Arc::new(Picture::of(policies, subjects, node_of))
}
