//! What is written of Backups: made, their status, their finalizer, deleted. Of each object only the newest
//! counts; so many writes a second and no more; what the API does not take now is written later. Nothing here
//! is waited for.

use super::facts::FINALIZER;
use crate::kube::api::{API_VERSION, Backup};
use holdfast_runtime::clock::Clock;
use holdfast_runtime::shutdown::Shutdown;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Who writes.
const MANAGER: &str = "holdfast-coordinator";
const DELETER: &str = "holdfast-deletion";
/// Between two writes: 25 a second.
const PAUSE: Duration = Duration::from_millis(40);
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the API did not answer: the first wait, and the longest.
const AWAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Objects that wait. Each is a Backup of the cluster or a run, so they are bounded by those.
const WAITING: usize = 20_000;

/// Namespace and name.
pub type Key = (String, String);

/// What is to be written of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Write {
    /// It is made, so.
    pub create: Option<Box<Backup>>,
    /// Its finalizers, and the version of the object that they were read from.
    pub finalizers: Option<(Vec<String>, String)>,
    /// Its status.
    pub status: Option<Value>,
    /// The condition that says how its deletion goes.
    pub deletion: Option<Value>,
    /// It is deleted, if this is its uid.
    pub delete: Option<String>,
}

/// Writes. Clones are one.
#[derive(Clone)]
pub struct Writes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    order: VecDeque<Key>,
    pending: BTreeMap<Key, Write>,
}

impl Writes {
    /// Nothing waits; nothing is written before [`Writes::start`].
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Writes until the coordinator stops.
    pub fn start(&self, client: Client, clock: Arc<dyn Clock>, stopping: Shutdown) {
        let writes = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = writes.run(&client, &*clock) => {}
                _ = stopping.requested() => {}
            }
        });
    }

    /// Adds what is to be written of an object; it replaces what waits of the same.
    pub fn put(&self, key: &Key, change: impl FnOnce(&mut Write)) {
        let mut state = self.lock();
        if !state.pending.contains_key(key) {
            if state.order.len() >= WAITING {
                return;
            }
            state.order.push_back(key.clone());
        }
        change(state.pending.entry(key.clone()).or_default());
        drop(state);
        self.0.news.notify_one();
    }

    /// What waits of an object.
    #[cfg(test)]
    pub fn waiting(&self, key: &Key) -> Option<Write> {
        self.lock().pending.get(key).cloned()
    }

    async fn run(&self, client: &Client, clock: &dyn Clock) {
        let mut wait = AWAY.0;
        loop {
            let next = {
                let mut state = self.lock();
                let key = state.order.pop_front();
                key.and_then(|key| state.pending.remove(&key).map(|write| (key, write)))
            };
            let Some((key, mut write)) = next else {
                self.0.news.notified().await;
                continue;
            };
            let written = tokio::time::timeout(PATIENCE, perform(client, &key, &mut write));
            let is_away = match written.await {
                Ok(Ok(())) => false,
                Ok(Err(kube::Error::Api(error))) if is_about_the_object(error.code) => {
                    let (namespace, name) = &key;
                    tracing::warn!(%error, namespace, name, "what is written of a Backup is refused by the cluster's API");
                    false
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a Backup cannot be written; again later");
                    true
                }
                Err(_) => true,
            };
            match is_away {
                false => {
                    wait = AWAY.0;
                    clock.sleep(PAUSE).await;
                }
                true => {
                    self.put_back(key, write);
                    clock.sleep(wait).await;
                    wait = (wait * 2).min(AWAY.1);
                }
            }
        }
    }

    /// What was not written, unless something newer was told meanwhile.
    fn put_back(&self, key: Key, write: Write) {
        let mut state = self.lock();
        match state.pending.get_mut(&key) {
            Some(newer) => {
                newer.create = newer.create.take().or(write.create);
                newer.finalizers = newer.finalizers.take().or(write.finalizers);
                newer.status = newer.status.take().or(write.status);
                newer.deletion = newer.deletion.take().or(write.deletion);
                newer.delete = newer.delete.take().or(write.delete);
            }
            None => {
                // Behind the others: one that the server cannot take holds up none.
                state.order.push_back(key.clone());
                state.pending.insert(key, write);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer is the last word on what is written, and says nothing about other objects. A conflict is over
/// with the next try.
fn is_about_the_object(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 409 | 429)
}

/// Writes, and takes out what is written.
async fn perform(client: &Client, key: &Key, write: &mut Write) -> kube::Result<()> {
    let (namespace, name) = key;
    let api: Api<Backup> = Api::namespaced(client.clone(), namespace);
    if let Some(backup) = &write.create {
        match api.create(&PostParams::default(), backup).await {
            // An answer to an earlier try was lost, or somebody was faster.
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            created => created.map(drop)?,
        }
        write.create = None;
    }
    if let Some(status) = &write.status {
        apply(&api, key, MANAGER, status).await?;
        write.status = None;
    }
    if let Some(condition) = &write.deletion {
        // Another writer than of the rest: what it leaves out is not taken away.
        let status = json!({"conditions": [condition]});
        apply(&api, key, DELETER, &status).await?;
        write.deletion = None;
    }
    if let Some((finalizers, version)) = &write.finalizers {
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        let patched = api
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match patched {
            // It has changed: what it is now is seen by the watch, and decided about again.
            Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => {}
            patched => patched.map(drop)?,
        }
        write.finalizers = None;
    }
    if let Some(uid) = &write.delete {
        let only = Preconditions {
            uid: Some(uid.clone()),
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(only),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {}
            deleted => deleted.map(drop)?,
        }
        write.delete = None;
    }
    Ok(())
}

async fn apply(api: &Api<Backup>, key: &Key, manager: &str, status: &Value) -> kube::Result<()> {
    let (namespace, name) = key;
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": "Backup",
        "metadata": {"name": name, "namespace": namespace},
        "status": status,
    });
    let params = PatchParams::apply(manager).force();
    match api.patch_status(name, &params, &Patch::Apply(&body)).await {
        // It was deleted meanwhile.
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        patched => patched.map(drop),
    }
}

/// The finalizers with ours, or without.
pub fn finalizers(known: &[String], is_held: bool) -> Vec<String> {
    let others = known.iter().filter(|held| *held != FINALIZER).cloned();
    let ours = is_held.then(|| FINALIZER.to_owned());
    others.chain(ours).collect()
}
