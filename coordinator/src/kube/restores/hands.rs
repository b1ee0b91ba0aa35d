//! Calls of the API server that restores need. Each may be made twice; what is refused for good is told apart from
//! what may work in a moment.

use super::scene::{Failure, User};
use crate::kube::api::{Restore, Scaled};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Who writes.
pub const MANAGER: &str = "holdfast-coordinator";

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Undone {
    /// It may work in a moment.
    #[error("{0}")]
    Later(String),
    /// It will not.
    #[error("{} ({})", .0.message, .0.reason)]
    Refused(Failure),
}

impl Undone {
    fn of(doing: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message = format!("{doing}: {}", status.message);
                match status.code {
                    403 => Self::Refused(Failure::new(
                        "Forbidden",
                        format!("the cluster's API does not let Holdfast {message}"),
                    )),
                    400 | 405 | 422 => Self::Refused(Failure::new("Refused", message)),
                    _ => Self::Later(message),
                }
            }
            error => Self::Later(format!("{doing}: {error}")),
        }
    }
}

/// Calls the API.
#[derive(Clone)]
pub struct Hands {
    client: Client,
}

type Done<T = ()> = Result<T, Undone>;

/// What makes pods and has replicas.
macro_rules! of_kind {
    ($hands:expr, $namespace:expr, $kind:expr, |$api:ident| $do:expr) => {
        match $kind {
            "Deployment" => {
                let $api: Api<Deployment> = Api::namespaced($hands.client.clone(), $namespace);
                $do
            }
            "StatefulSet" => {
                let $api: Api<StatefulSet> = Api::namespaced($hands.client.clone(), $namespace);
                $do
            }
            _ => {
                let $api: Api<ReplicaSet> = Api::namespaced($hands.client.clone(), $namespace);
                $do
            }
        }
    };
}

impl Hands {
    /// By this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes a pod; one that is there is left.
    pub async fn make_pod(&self, pod: &Pod) -> Done {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let doing = format!("make pods in namespace {namespace}");
        made(&doing, api.create(&params(), pod).await)
    }

    /// Deletes a pod at once: nothing in ours needs time to end.
    pub async fn delete_pod(&self, namespace: &str, name: &str, grace: u32) -> Done {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(grace),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Undone::of(
                &format!("delete pods in namespace {namespace}"),
                error,
            )),
        }
    }

    /// Makes a claim; one that is there is left.
    pub async fn make_claim(&self, claim: &PersistentVolumeClaim) -> Done {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let doing = format!("make claims in namespace {namespace}");
        made(&doing, api.create(&params(), claim).await)
    }

    /// Writes annotations on a claim.
    pub async fn annotate_claim(&self, namespace: &str, name: &str, annotations: Value) -> Done {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"annotations": annotations}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let patched = api.patch(name, &params, &patch).await;
        let doing = format!("annotate claims in namespace {namespace}");
        patched.map(drop).map_err(|error| Undone::of(&doing, error))
    }

    /// What makes a pod again, at its top, with its replicas.
    pub async fn owner(&self, namespace: &str, user: &User) -> Result<Scaled, Failure> {
        let cannot = |why: String| Failure::new("CannotScaleDown", why);
        let Some(controller) = &user.controller else {
            let why = format!(
                "pod {} uses the claim and nothing would make it again; delete it, or restore without scaleDown",
                user.name
            );
            return Err(cannot(why));
        };
        let (mut kind, mut name) = (controller.kind.clone(), controller.name.clone());
        if kind == "ReplicaSet" {
            let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
            let found = api.get(&name).await;
            let found = found.map_err(|error| cannot(format!("ReplicaSet {name}: {error}")))?;
            let owners = found.metadata.owner_references.unwrap_or_default();
            let mut owners = owners.into_iter();
            if let Some(owner) = owners.find(|owner| owner.controller == Some(true)) {
                (kind, name) = (owner.kind, owner.name);
            }
        }
        if !matches!(&kind[..], "Deployment" | "StatefulSet" | "ReplicaSet") {
            let why = format!(
                "pod {} uses the claim and is made by {kind} {name}, which has no replicas to take away",
                user.name
            );
            return Err(cannot(why));
        }
        let replicas = self.replicas(namespace, &kind, &name).await;
        match replicas {
            Ok(Some(replicas)) => Ok(Scaled {
                kind,
                name,
                replicas,
                restored: false,
            }),
            Ok(None) => Err(cannot(format!("{kind} {name} is not there"))),
            Err(Undone::Refused(failure)) => Err(failure),
            Err(Undone::Later(why)) => Err(cannot(why)),
        }
    }

    /// Replicas that something has; `None` where it is not there.
    pub async fn replicas(&self, namespace: &str, kind: &str, name: &str) -> Done<Option<i32>> {
        let found = of_kind!(self, namespace, kind, |api| api.get_scale(name).await);
        match found {
            Ok(scale) => Ok(Some(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(Undone::of(
                &format!("read the scale of {kind} {namespace}/{name}"),
                error,
            )),
        }
    }

    /// Gives it so many.
    pub async fn scale(&self, namespace: &str, kind: &str, name: &str, replicas: i32) -> Done {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let params = PatchParams::default();
        let done = of_kind!(self, namespace, kind, |api| api
            .patch_scale(name, &params, &patch)
            .await);
        match done {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Undone::of(
                &format!("scale {kind} {namespace}/{name}"),
                error,
            )),
        }
    }

    /// Replaces what is said of a restore; the object as it is then.
    pub async fn say(&self, restore: &Restore, before: &Value, now: &Value) -> Done<Restore> {
        let patch = Patch::Merge(json!({"status": difference(before, now)}));
        let params = PatchParams::default();
        let patched = self
            .restores(restore)
            .patch_status(name(restore), &params, &patch)
            .await;
        patched.map_err(|error| Undone::of("write the status of restores", error))
    }

    /// Replaces the finalizers of a restore as it was seen.
    pub async fn set_finalizers(&self, restore: &Restore, finalizers: &[String]) -> Done<Restore> {
        let version = &restore.metadata.resource_version;
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}});
        self.restores(restore)
            .patch(
                name(restore),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .map_err(|error| Undone::of("change finalizers of restores", error))
    }

    fn restores(&self, restore: &Restore) -> Api<Restore> {
        let namespace = restore.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn name(restore: &Restore) -> &str {
    restore.metadata.name.as_deref().unwrap_or_default()
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn made<T>(doing: &str, made: kube::Result<T>) -> Done {
    match made {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            Ok(())
        }
        Err(error) => Err(Undone::of(doing, error)),
    }
}

/// The merge patch that makes one object of another: what is left out is taken away.
fn difference(before: &Value, now: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, now) else {
        return now.clone();
    };
    let mut patch = serde_json::Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(other) => {
                patch.insert(key.clone(), difference(other, value));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_takes_away_what_is_not_said_any_more() {
        let before = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2], "f": 1});
        let now = json!({"a": 1, "b": {"c": 2}, "e": [1], "g": 3});
        let patch = json!({"b": {"c": 2, "d": null}, "e": [1], "f": null, "g": 3});
        assert_eq!(difference(&before, &now), patch);
        assert_eq!(difference(&now, &now), json!({}));
    }
}
