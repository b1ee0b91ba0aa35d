//! Brings what is said of volumes and policies to the API server, by server-side apply: what is there already
//! is not written again, also after a restart, and what fails is tried again. An object that the server refuses
//! holds up no other.

use super::words::Failure;
use crate::kube::api::{API_VERSION, BackupPolicy, ClusterBackupPolicy, VolumeProtection};
use holdfast_runtime::shutdown::Shutdown;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Who writes.
const MANAGER: &str = "holdfast-coordinator";
/// Between two rounds of writes.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two tries to know what is there.
const FIND_EVERY: Duration = Duration::from_secs(5);
/// Writes of a round: a cluster that has just been taken over is told slowly.
const WRITES: usize = 60;
/// An object that was refused is tried again after this long.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Objects of a page.
const PAGE: u32 = 500;

/// Everything that is to be said.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The objects.
    pub objects: Vec<Object>,
    /// The runs that wait and run.
    pub queue: QueueView,
    /// Helper pods that are there: those that mount a volume, and those that write to one.
    pub helpers: [usize; 2],
}

/// The queue at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueView {
    /// Runs that could start now, but for limits and agents.
    pub due: usize,
    /// Runs that run.
    pub running: usize,
    /// How long the oldest of those that wait has been due.
    pub oldest_wait: Duration,
}

/// What is to be said of one object.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Of objects that are made here, what they are.
    pub spec: Option<Value>,
    /// And what they go with.
    pub owner: Option<Value>,
    /// Its status.
    pub status: Value,
}

type Key = (&'static str, String, String);

impl Object {
    fn key(&self) -> Key {
        (
            self.kind,
            self.namespace.clone().unwrap_or_default(),
            self.name.clone(),
        )
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
struct There {
    spec: Value,
    status: Value,
}

struct Writer {
    client: Client,
    there: HashMap<Key, There>,
    refused: HashMap<Key, Instant>,
    /// Where the next round begins, so that what changes all the time holds up nothing.
    from: usize,
}

/// Failures that an earlier process told of volumes, by the volume's name; `None`: not looked for yet.
pub type ToldFailures = Option<Arc<HashMap<String, Failure>>>;

/// Writes what is sent, the newest only, until the coordinator stops. What an earlier process said of failures is
/// told as soon as it was found.
pub fn start(
    client: Client,
    stopping: Shutdown,
) -> (watch::Sender<Arc<Wanted>>, watch::Receiver<ToldFailures>) {
    let (sender, mut wanted) = watch::channel(Arc::new(Wanted::default()));
    let (told, failures) = watch::channel(None);
    tokio::spawn(async move {
        let mut writer: Option<Writer> = None;
        loop {
            if writer.is_none()
                && let Ok(found) = Writer::find(client.clone()).await
            {
                told.send_replace(Some(Arc::new(found.failures())));
                writer = Some(found);
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(FIND_EVERY), if writer.is_none() => continue,
                _ = stopping.requested() => return,
            }
            let now = wanted.borrow_and_update().clone();
            let written = async {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    none => {
                        let found = Writer::find(client.clone()).await?;
                        told.send_replace(Some(Arc::new(found.failures())));
                        none.insert(found)
                    }
                };
                writer.write(&now).await
            };
            if let Err(error) = written.await {
                tracing::warn!(%error, "what is protected cannot be told to the cluster's API; again in a moment");
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    (sender, failures)
}

fn resource(kind: &str) -> ApiResource {
    match kind {
        "BackupPolicy" => ApiResource::erase::<BackupPolicy>(&()),
        "ClusterBackupPolicy" => ApiResource::erase::<ClusterBackupPolicy>(&()),
        _ => ApiResource::erase::<VolumeProtection>(&()),
    }
}

impl Writer {
    /// Knows what is there.
    async fn find(client: Client) -> kube::Result<Self> {
        let mut there = HashMap::new();
        for kind in ["VolumeProtection", "BackupPolicy", "ClusterBackupPolicy"] {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
            let mut page = ListParams::default().limit(PAGE);
            loop {
                let list = api.list(&page).await?;
                for object in list.items {
                    let name = object.metadata.name.unwrap_or_default();
                    let key = (kind, object.metadata.namespace.unwrap_or_default(), name);
                    let found = There {
                        spec: object.data["spec"].clone(),
                        status: object.data["status"].clone(),
                    };
                    there.insert(key, found);
                }
                match list.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(Self {
            client,
            there,
            refused: HashMap::new(),
            from: 0,
        })
    }

    /// What is there of failures.
    fn failures(&self) -> HashMap<String, Failure> {
        let protections = self
            .there
            .iter()
            .filter(|((kind, ..), _)| *kind == "VolumeProtection");
        let failures = protections.filter_map(|(_, there)| {
            let volume = there.spec["volume"].as_str()?;
            Some((volume.to_owned(), failure(&there.status)?))
        });
        failures.collect()
    }

    async fn write(&mut self, wanted: &Wanted) -> kube::Result<()> {
        let mut writes = 0;
        self.refused
            .retain(|_, since| since.elapsed() < REFUSED_FOR);
        let from = self.from.min(wanted.objects.len());
        let (before, after) = wanted.objects.split_at(from);
        for (at, object) in after.iter().chain(before).enumerate() {
            let key = object.key();
            let known = self.there.get(&key).cloned().unwrap_or_default();
            let status = with_old_times(object.status.clone(), &known.status);
            let makes = object.spec.as_ref().is_some_and(|spec| *spec != known.spec);
            if (!makes && status == known.status) || self.refused.contains_key(&key) {
                continue;
            }
            writes += 1;
            if writes > WRITES {
                self.from = (from + at) % wanted.objects.len();
                return Ok(());
            }
            match self.apply(object, makes, &status).await {
                Err(kube::Error::Api(error)) if is_about_the_object(error.code) => {
                    let (kind, namespace, name) = &key;
                    tracing::warn!(%error, kind, namespace, name, "its status is refused by the cluster's API");
                    self.refused.insert(key, Instant::now());
                    continue;
                }
                applied => applied?,
            }
            let spec = object.spec.clone().unwrap_or(known.spec);
            self.there.insert(key, There { spec, status });
        }
        let named: HashSet<Key> = wanted.objects.iter().map(Object::key).collect();
        let gone: Vec<Key> = self
            .there
            .keys()
            .filter(|key| !named.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            if key.0 == "VolumeProtection" {
                let api = self.api(key.0, &key.1);
                match api.delete(&key.2, &DeleteParams::default()).await {
                    Ok(_) | Err(kube::Error::Api(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            self.there.remove(&key);
        }
        Ok(())
    }

    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource(kind)),
            _ => Api::namespaced_with(self.client.clone(), namespace, &resource(kind)),
        }
    }

    async fn apply(&self, object: &Object, makes: bool, status: &Value) -> kube::Result<()> {
        let api = self.api(object.kind, object.namespace.as_deref().unwrap_or_default());
        let params = PatchParams::apply(MANAGER).force();
        if makes {
            let body = json!({
                "apiVersion": API_VERSION,
                "kind": object.kind,
                "metadata": {
                    "name": object.name,
                    "namespace": object.namespace,
                    "labels": {"app.kubernetes.io/managed-by": "holdfast"},
                    "ownerReferences": object.owner.iter().collect::<Vec<_>>(),
                },
                "spec": object.spec,
            });
            api.patch(&object.name, &params, &Patch::Apply(&body))
                .await?;
        }
        let body = json!({
            "apiVersion": API_VERSION,
            "kind": object.kind,
            "metadata": {"name": object.name, "namespace": object.namespace},
            "status": status,
        });
        let patched = api
            .patch_status(&object.name, &params, &Patch::Apply(&body))
            .await;
        match patched {
            // A policy that was deleted meanwhile.
            Err(kube::Error::Api(error)) if error.code == 404 && object.spec.is_none() => Ok(()),
            patched => patched.map(drop),
        }
    }
}

/// Whether an answer says nothing about other objects: the server is well, and not too busy.
fn is_about_the_object(code: u16) -> bool {
    (400..500).contains(&code) && code != 401 && code != 429
}

/// The failures that a status tells of.
fn failure(status: &Value) -> Option<Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let last = &status["lastFailure"];
    Some(Failure {
        at: last["time"].as_str()?.parse().ok()?,
        reason: text(&last["reason"]),
        detail: text(&last["message"]),
        in_a_row: u32::try_from(status["consecutiveFailures"].as_u64()?).ok()?,
    })
}

/// A condition whose status is the same has not changed since.
fn with_old_times(mut status: Value, known: &Value) -> Value {
    let old = known["conditions"].as_array().cloned().unwrap_or_default();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        let same = old
            .iter()
            .find(|old| old["type"] == condition["type"] && old["status"] == condition["status"]);
        if let Some(same) = same {
            condition["lastTransitionTime"] = same["lastTransitionTime"].clone();
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_from_what_was_said_of_them() {
        let status = json!({
            "phase": "Failing", "consecutiveFailures": 4,
            "lastFailure": {"time": "2026-11-30T20:00:00Z", "reason": "VolumeBusy", "message": "busy"},
        });
        let found = failure(&status).unwrap();
        assert_eq!((found.in_a_row, &found.reason[..]), (4, "VolumeBusy"));
        assert_eq!(found.detail, "busy");
        assert_eq!(found.at.to_string(), "2026-11-30T20:00:00Z");
        for wrong in [
            json!({}),
            json!({"lastFailure": {"time": "2026-11-30T20:00:00Z"}}),
            json!({"consecutiveFailures": 1, "lastFailure": {"time": "yesterday"}}),
        ] {
            assert!(failure(&wrong).is_none(), "{wrong}");
        }
    }
}
