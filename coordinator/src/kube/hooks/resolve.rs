//! Which hooks run around a run of a volume now, and in which containers: by the picture of the cluster, and by
//! the pods as the API has them at this moment.

use super::Failure;
use super::exec::read_error;
use super::record::pod_key;
use crate::kube::api::OnError;
use crate::kube::picture::{Picture, Volume};
use crate::policy::Outcome;
use crate::policy::error::Errors;
use crate::policy::hooks::{Action, Hook, Step, Target, chosen, of_pod};
use crate::policy::labels::Selector;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

/// What our own pods are labelled with; nothing is frozen in them.
const OURS: (&str, &str) = ("app.kubernetes.io/managed-by", "holdfast");
/// Names a pod's usual container, for kubectl too.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A hook in a pod.
#[derive(Debug, Clone)]
pub struct Place {
    /// The hook.
    pub hook: Hook,
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// The container of the pre-hook.
    pub pre: String,
    /// The container of the post-hook.
    pub post: String,
}

impl Place {
    /// What is locked for it.
    pub fn key(&self) -> String {
        pod_key(&self.uid)
    }
}

/// The hooks of a volume as the picture has them.
#[derive(Debug, Default)]
pub struct Hooks {
    /// Of its policy.
    policy: Vec<Hook>,
    namespace: String,
    /// The pods that use it, and whether they say something themselves.
    pods: Vec<String>,
    own: Vec<Hook>,
}

impl Hooks {
    /// Reads them.
    pub fn of(picture: &Picture, volume: &str) -> Self {
        let found = picture
            .volumes
            .iter()
            .find(|found| found.subject.id == volume);
        found
            .map(|volume| Self::of_volume(picture, volume))
            .unwrap_or_default()
    }

    fn of_volume(picture: &Picture, volume: &Volume) -> Self {
        let policy = match &volume.decision.outcome {
            Outcome::Protected(reference) => picture.policies.get(&**reference),
            Outcome::Unprotected { .. } => None,
        };
        let pods = &volume.subject.pods;
        let own = pods
            .iter()
            .filter_map(|pod| of_pod(&pod.annotations, &pod.name).0);
        Self {
            policy: policy
                .map(|policy| policy.hooks.clone())
                .unwrap_or_default(),
            namespace: volume.subject.namespace.name.clone(),
            pods: pods.iter().map(|pod| pod.name.clone()).collect(),
            own: own.collect(),
        }
    }

    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        let selecting = self.policy.iter().any(|hook| hook.pods.is_some());
        self.own.is_empty() && !selecting && (self.policy.is_empty() || self.pods.is_empty())
    }

    /// Whether a run is made also if they cannot be run.
    pub fn may_fail(&self) -> bool {
        let mut all = self.policy.iter().chain(&self.own);
        all.all(|hook| hook.on_error == OnError::Continue)
    }

    /// Where they run: pods by name, in each of them the hooks in their order; and what else is to be told.
    pub async fn places(&self, client: &Client) -> Result<(Vec<Place>, Vec<String>), Failure> {
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let away = |error: &kube::Error| Failure::new("HookFailed", read_error(error).to_string());
        let mut names = self.pods.clone();
        names.sort();
        names.dedup();
        let (mut places, mut told) = (Vec::new(), Vec::new());
        for name in names {
            let pod = api.get_opt(&name).await.map_err(|error| away(&error))?;
            let Some(pod) = pod else { continue };
            let annotations = pod.metadata.annotations.clone().unwrap_or_default();
            let hooks = chosen(&self.policy, of_pod(&annotations, &name).0);
            place(&pod, &hooks, &mut places, &mut told)?;
        }
        for hook in self.policy.iter().filter(|hook| hook.pods.is_some()) {
            let Some(selector) = &hook.pods else { continue };
            let selector = Selector::read("", selector, &mut Errors::default());
            let listed = api.list(&ListParams::default()).await;
            let mut pods = listed.map_err(|error| away(&error))?.items;
            pods.retain(|pod| {
                let labels = pod.metadata.labels.clone().unwrap_or_default();
                selector.matches(&labels)
            });
            pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            for pod in pods {
                place(&pod, std::slice::from_ref(hook), &mut places, &mut told)?;
            }
        }
        Ok((once_elsewhere(places), told))
    }
}

/// A hook that asks an address of its own runs once, whatever the number of pods.
fn once_elsewhere(places: Vec<Place>) -> Vec<Place> {
    let mut seen: Vec<Hook> = Vec::new();
    let is_elsewhere = |step: &Step| matches!(&step.action, Action::Http(request) if matches!(request.target, Target::Url(_)));
    let mut kept = places;
    kept.retain(|place| {
        let hook = &place.hook;
        let mut steps = hook.pre.iter().chain(&hook.post);
        if !steps.all(is_elsewhere) {
            return true;
        }
        let is_new = !seen.contains(hook);
        seen.push(hook.clone());
        is_new
    });
    kept
}

fn place(
    pod: &Pod,
    hooks: &[Hook],
    places: &mut Vec<Place>,
    told: &mut Vec<String>,
) -> Result<(), Failure> {
    let meta = &pod.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let labels = meta.labels.clone().unwrap_or_default();
    let is_ours = labels.get(OURS.0).is_some_and(|value| value == OURS.1);
    if hooks.is_empty() || is_ours {
        return Ok(());
    }
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    if meta.deletion_timestamp.is_some() || phase == "Succeeded" || phase == "Failed" {
        return Ok(());
    }
    let conditions = status.conditions.unwrap_or_default();
    let is_ready = conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    if phase != "Running" || !is_ready {
        told.push(format!(
            "pod {name} is not ready, and its hooks were not run"
        ));
        return Ok(());
    }
    for hook in hooks {
        let container = |step: &Option<Step>| {
            let wanted = step.as_ref().and_then(|step| step.container.as_deref());
            container_of(pod, hook, wanted)
        };
        places.push(Place {
            hook: hook.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            pod: name.clone(),
            uid: meta.uid.clone().unwrap_or_default(),
            ip: status.pod_ip.clone().unwrap_or_default(),
            pre: container(&hook.pre)?,
            post: container(&hook.post)?,
        });
    }
    Ok(())
}

fn container_of(pod: &Pod, hook: &Hook, wanted: Option<&str>) -> Result<String, Failure> {
    use crate::policy::hooks::Source;
    let containers = pod
        .spec
        .as_ref()
        .map(|spec| &spec.containers[..])
        .unwrap_or_default();
    let mut names = containers.iter().map(|container| &container.name[..]);
    let annotations = pod.metadata.annotations.as_ref();
    let usual = annotations.and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    // Velero takes the first.
    let usual = usual.filter(|_| hook.source != Source::VeleroAnnotations);
    let found = match (wanted, usual) {
        (Some(wanted), _) => names.find(|name| *name == wanted),
        (None, Some(usual)) => names
            .clone()
            .find(|name| name == usual)
            .or_else(|| names.next()),
        (None, None) => names.next(),
    };
    found.map(str::to_owned).ok_or_else(|| {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        let wanted = wanted.unwrap_or("any");
        let detail = format!(
            "hook {} in pod {pod}: there is no container {wanted}",
            hook.name
        );
        Failure::new("HookInvalid", detail)
    })
}
