//! A small API server of a cluster: objects that are listed in pages, watched with bookmarks, forgotten
//! (410 Gone), made, replaced under their version, patched, applied, deleted behind finalizers. It counts
//! what it is asked, and can be away.

mod exec;
mod forward;
mod lists;
mod logs;
mod objects;
mod path;
mod reviews;
mod socket;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
pub use forward::Place;
use logs::Logs;
use path::Target;
use reviews::Forbidden;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Changes that a watch can still be told of.
const REMEMBERED: usize = 10_000;

/// The server; away for good when dropped.
pub struct Api {
    shared: Arc<Shared>,
    port: u16,
    #[allow(dead_code)] // the server lives as long
    runtime: Runtime,
}

struct Shared {
    state: Mutex<Cluster>,
    version: watch::Sender<u64>,
    /// Counts how often all forwarded ports were cut.
    cuts: watch::Sender<u64>,
    /// And all running commands.
    command_cuts: watch::Sender<u64>,
}

#[derive(Default)]
struct Cluster {
    version: u64,
    /// By group, version and plural; then by namespace and name.
    objects: BTreeMap<String, BTreeMap<(String, String), Value>>,
    log: VecDeque<Event>,
    /// What is older than this cannot be watched from.
    forgotten: u64,
    away: bool,
    /// The token that is taken; none: every one.
    token: Option<String>,
    /// How often that has changed: watches end with it.
    tokens: u64,
    refused: String,
    /// Kinds that may not be written.
    forbidden: BTreeSet<String>,
    calls: BTreeMap<String, u64>,
    /// By the pod's namespace, name and port.
    places: BTreeMap<(String, String, u16), Place>,
    /// By the pod's namespace and name: what stands for its containers.
    rooms: BTreeMap<(String, String), PathBuf>,
    logs: Logs,
    denied: Forbidden,
}

#[derive(Clone)]
struct Event {
    version: u64,
    kind: String,
    namespace: String,
    what: &'static str,
    object: Value,
}

impl Api {
    /// An empty cluster on a free port.
    ///
    /// # Panics
    /// Where it cannot be served.
    #[allow(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            version: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            command_cuts: watch::Sender::new(0),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            shared,
            port,
            runtime,
        }
    }

    /// Writes a kubeconfig that leads here.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn kubeconfig(&self, file: &Path) {
        self.kubeconfig_of(file, "test", "{}");
    }

    /// The same for a context of this name, and a user who is known by a token of that name.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn kubeconfig_as(&self, file: &Path, name: &str) {
        self.kubeconfig_of(file, name, &format!("{{token: {name}}}"));
    }

    /// The same for a user whose token is in a file, as an ExecCredential that has to be read each time.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn kubeconfig_by(&self, file: &Path, credential: &Path) {
        let user = format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: cat, \
             args: ['{}']}}}}",
            credential.display()
        );
        self.kubeconfig_of(file, "test", &user);
    }

    fn kubeconfig_of(&self, file: &Path, name: &str, user: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
             clusters: [{{name: {name}, cluster: {{server: 'http://127.0.0.1:{}'}}}}]\n\
             contexts: [{{name: {name}, context: {{cluster: {name}, user: {name}}}}}]\n\
             users: [{{name: {name}, user: {user}}}]\n",
            self.port
        );
        std::fs::write(file, text).expect("a file");
    }

    /// Lets a port of a pod lead to a process of the test.
    pub fn serve_port(&self, namespace: &str, pod: &str, port: u16, place: Place) {
        let key = (namespace.to_owned(), pod.to_owned(), port);
        self.lock().places.insert(key, place);
    }

    /// Cuts all forwarded ports; new ones can be had.
    pub fn cut_ports(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Adds to what a container of a pod has printed.
    pub fn print_log(&self, namespace: &str, pod: &str, container: &str, text: &str) {
        self.change(|cluster| cluster.logs.print(namespace, pod, container, text));
    }

    /// Refuses somebody (a user's token, or an account's name) what is named as `VERB KIND[/PART]`, with
    /// ` in NAMESPACE` where it is about one, or ` anywhere`.
    pub fn forbid(&self, who: &str, what: &str) {
        self.lock().denied.add(who, what);
    }

    /// Runs the commands of a pod's containers here, in this directory.
    pub fn run_commands(&self, namespace: &str, pod: &str, directory: &Path) {
        let key = (namespace.to_owned(), pod.to_owned());
        self.lock().rooms.insert(key, directory.to_owned());
    }

    /// Cuts the connections of all running commands, and kills what was started by them, though not what that
    /// has started itself.
    pub fn cut_commands(&self) {
        self.shared.command_cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Makes an object, or replaces it, as somebody else would. `kind` is such as `v1/pods`.
    pub fn put(&self, kind: &str, object: Value) {
        self.change(|cluster| {
            cluster.put(kind, object);
        });
    }

    /// Makes every object of a recorded list.
    ///
    /// # Panics
    /// Where it is no list.
    pub fn put_list(&self, kind: &str, list: &str) {
        let list: Value = serde_json::from_str(list).expect("JSON");
        for object in list["items"].as_array().expect("a list") {
            self.put(kind, object.clone());
        }
    }

    /// Deletes an object at once, whatever its finalizers.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.change(|cluster| {
            cluster.remove(kind, &(namespace.to_owned(), name.to_owned()));
        });
    }

    /// An object as it is now.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let cluster = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        cluster.objects.get(kind)?.get(&key).cloned()
    }

    /// Names of the objects of a kind in a namespace.
    pub fn names(&self, kind: &str, namespace: &str) -> Vec<String> {
        let cluster = self.lock();
        let objects = cluster.objects.get(kind).into_iter().flatten();
        let here = objects.filter(|((of, _), _)| of == namespace);
        here.map(|((_, name), _)| name.clone()).collect()
    }

    /// Forgets what happened so far: whoever watches from there must list again.
    pub fn forget(&self) {
        self.change(|cluster| {
            cluster.log.clear();
            cluster.version += 1;
            cluster.forgotten = cluster.version;
        });
    }

    /// Goes away, or comes back. Running watches end.
    pub fn set_away(&self, away: bool) {
        self.change(|cluster| cluster.away = away);
    }

    /// Takes this token and no other, from now on: who comes with another is answered 401.
    pub fn take_only(&self, token: &str) {
        self.change(|cluster| {
            cluster.token = Some(token.to_owned());
            cluster.tokens += 1;
        });
    }

    /// Refuses to write objects of this name.
    pub fn refuse(&self, name: &str) {
        self.change(|cluster| cluster.refused = name.to_owned());
    }

    /// Takes the right to write objects of a kind away, or gives it back.
    pub fn set_forbidden(&self, kind: &str, forbidden: bool) {
        self.change(|cluster| {
            match forbidden {
                true => cluster.forbidden.insert(kind.to_owned()),
                false => cluster.forbidden.remove(kind),
            };
        });
    }

    /// Deletes an object as `kubectl delete` does: it goes when its finalizers have gone.
    pub fn ask_to_delete(&self, kind: &str, namespace: &str, name: &str) {
        let target = Target {
            kind: kind.to_owned(),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            part: None,
        };
        self.change(|cluster| {
            cluster.delete(&target);
        });
    }

    /// All objects of a kind.
    pub fn all(&self, kind: &str) -> Vec<Value> {
        let cluster = self.lock();
        let objects = cluster.objects.get(kind).into_iter();
        objects
            .flat_map(|objects| objects.values().cloned())
            .collect()
    }

    /// How often it was asked for each verb and kind, such as `list v1/pods`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.lock().calls.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Cluster)) {
        let mut cluster = self.lock();
        change(&mut cluster);
        self.shared.version.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    fn put(&mut self, kind: &str, mut object: Value) -> Value {
        self.version += 1;
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(self.version.to_string());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (text(&meta["namespace"]), text(&meta["name"]));
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}-{}", key.1, self.version));
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!("2026-11-21T02:00:00Z");
        }
        let objects = self.objects.entry(kind.to_owned()).or_default();
        if kind.starts_with("holdfast.dev/") {
            let before = objects.get(&key);
            let generation = before.map_or(0, |before| {
                before["metadata"]["generation"].as_i64().unwrap_or(1)
            });
            let is_same = before.is_some_and(|before| before["spec"] == object["spec"]);
            object["metadata"]["generation"] = json!(generation + i64::from(!is_same));
        }
        let known = objects.insert(key.clone(), object.clone()).is_some();
        let what = if known { "MODIFIED" } else { "ADDED" };
        self.record(kind, key.0, what, object.clone());
        object
    }

    fn remove(&mut self, kind: &str, key: &(String, String)) -> Option<Value> {
        let mut object = self.objects.get_mut(kind)?.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.record(kind, key.0.clone(), "DELETED", object.clone());
        Some(object)
    }

    fn record(&mut self, kind: &str, namespace: String, what: &'static str, object: Value) {
        let (version, kind) = (self.version, kind.to_owned());
        self.log.push_back(Event {
            version,
            kind,
            namespace,
            what,
            object,
        });
        if self.log.len() > REMEMBERED {
            self.forgotten = self.log.pop_front().map_or(0, |event| event.version);
        }
    }
}

type Words = HashMap<String, String>;

/// Largest body of a request.
const MAX_BODY: usize = 16 << 20;

async fn answer(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Words>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let (method, uri, headers) = (
        parts.method.clone(),
        parts.uri.clone(),
        parts.headers.clone(),
    );
    let bearer = headers
        .get("authorization")
        .and_then(|word| word.to_str().ok());
    let caller = bearer.and_then(|word| word.strip_prefix("Bearer "));
    let caller = caller.unwrap_or_default().to_owned();
    let Some(target) = Target::of(uri.path()) else {
        return status(404, "NotFound", uri.path());
    };
    let watches = query
        .get("watch")
        .is_some_and(|word| word != "false" && word != "0");
    let verb = match (&method, &target.name, watches) {
        (&Method::GET, None, true) => "watch",
        (&Method::GET, None, false) => "list",
        (&Method::GET, Some(_), _) => "get",
        (&Method::POST, ..) => "create",
        (&Method::PUT, ..) => "update",
        (&Method::PATCH, ..) => "patch",
        _ => "delete",
    };
    {
        let mut cluster = shared.lock();
        *cluster
            .calls
            .entry(format!("{verb} {}", target.kind))
            .or_default() += 1;
        if cluster.away {
            return status(503, "ServiceUnavailable", "away");
        }
        if cluster.token.as_ref().is_some_and(|token| *token != caller) {
            *cluster.calls.entry("unauthorized".to_owned()).or_default() += 1;
            return status(401, "Unauthorized", "the token has expired");
        }
        if verb == "patch" && target.name.as_ref() == Some(&cluster.refused) {
            return status(422, "Invalid", "refused");
        }
        let writes = !matches!(verb, "get" | "list" | "watch");
        if writes && cluster.forbidden.contains(&target.kind) {
            return status(403, "Forbidden", "the role does not allow it");
        }
        if cluster.denied.refuses(&caller, verb, &target) {
            let what = format!("{caller} cannot {verb} {}", target.kind);
            return status(403, "Forbidden", &what);
        }
        match target.part.as_deref() {
            Some("portforward") => return cluster.forwarded(&shared, &target, &query, parts),
            Some("exec") if cluster.forbidden.contains("v1/pods/exec") => {
                return status(403, "Forbidden", "the role does not allow it");
            }
            Some("exec") => {
                let room = cluster.rooms.get(&target.key()).cloned();
                return exec::open(parts, room, shared.command_cuts.subscribe());
            }
            Some("log") => return logs::read(&cluster.logs, &shared, &target, &query),
            _ => {}
        }
    }
    if verb == "watch" {
        return lists::watched(shared, target, &query);
    }
    let body = axum::body::to_bytes(body, MAX_BODY).await;
    let body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
    if target.kind.starts_with("authorization.k8s.io/") {
        return reply(201, &shared.lock().denied.review(&caller, body));
    }
    let applies = headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
    let mut cluster = shared.lock();
    let before = cluster.version;
    let answer = match verb {
        "get" | "patch" if target.part.as_deref() == Some("scale") => {
            cluster.scale(&target, &body, verb == "patch")
        }
        "list" => lists::listed(&cluster, &target, &query),
        "get" => match cluster.find(&target) {
            Some(object) => reply(200, &object),
            None => status(404, "NotFound", uri.path()),
        },
        "create" => cluster.create(&target, body),
        "update" => cluster.update(&target, body),
        "patch" => cluster.patch(&target, &body, applies),
        _ => cluster.delete(&target),
    };
    let changed = cluster.version != before;
    drop(cluster);
    if changed {
        shared.version.send_modify(|version| *version += 1);
    }
    answer
}

fn reply(code: u16, object: &Value) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = [("content-type", "application/json")];
    (code, json, object.to_string()).into_response()
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let object = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "code": code, "message": message,
    });
    reply(code, &object)
}
