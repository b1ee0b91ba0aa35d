//! What policies choose from: every claim, whether a pod uses it or not, and every volume that lives with a
//! pod. Pure.

use super::facts::{ClaimFacts, Origin, PodFacts, PodVolume, Source};
use super::world::World;
use crate::kube::api::VolumeKind;
use crate::kube::plan::{claim_name, pod_volume_name};
use crate::policy::Subject;
use crate::policy::subject::{Claim, Namespace, PodUse, State};
use crate::policy::values::bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All volumes; each has the name that its history has.
pub fn subjects(world: &World) -> Vec<Subject> {
    let mut namespaces: HashMap<&str, Arc<Namespace>> = HashMap::new();
    for facts in world.namespaces() {
        let namespace = Namespace {
            name: facts.name.clone(),
            labels: facts.labels.clone(),
            annotations: facts.annotations.clone(),
            deleting: facts.deleting,
        };
        namespaces.insert(&facts.name, Arc::new(namespace));
    }
    let mut uses: BTreeMap<(&str, &str), Vec<PodUse>> = BTreeMap::new();
    let mut subjects = Vec::new();
    // A pod of ours only mounts what others are to use.
    let pods = world
        .pods()
        .filter(|pod| !pod.ending && pod.helper.is_none());
    for pod in pods {
        // A namespace that is not known yet comes with the next picture.
        let Some(namespace) = namespaces.get(&pod.namespace[..]) else {
            continue;
        };
        for volume in &pod.volumes {
            match &volume.source {
                Source::Claim(claim) => {
                    let key = (&pod.namespace[..], &claim[..]);
                    uses.entry(key).or_default().push(pod_use(pod, volume));
                }
                Source::EmptyDir => subjects.push(Subject {
                    id: pod_volume_name(pod, volume),
                    namespace: namespace.clone(),
                    kind: Some(VolumeKind::EmptyDir),
                    claim: None,
                    driver: None,
                    pods: vec![pod_use(pod, volume)],
                    state: State::Mounted,
                }),
                _ => {}
            }
        }
    }
    for claim in world.claims() {
        let Some(namespace) = namespaces.get(&claim.namespace[..]) else {
            continue;
        };
        let key = (&claim.namespace[..], &claim.name[..]);
        let pods = uses.remove(&key).unwrap_or_default();
        subjects.push(of_claim(world, claim, namespace.clone(), pods));
    }
    subjects
}

fn pod_use(pod: &PodFacts, volume: &PodVolume) -> PodUse {
    PodUse {
        name: pod.name.clone(),
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
        volume: volume.name.clone(),
        node: pod.node.clone(),
        phase: pod.phase.clone(),
    }
}

fn of_claim(
    world: &World,
    claim: &ClaimFacts,
    namespace: Arc<Namespace>,
    pods: Vec<PodUse>,
) -> Subject {
    let bound = claim.volume.as_ref().and_then(|name| world.volume(name));
    let driver = bound.map(|volume| match &volume.origin {
        Origin::Csi { driver, .. } => driver.clone(),
        Origin::HostPath(_) => "kubernetes.io/host-path".to_owned(),
        Origin::Other { plugin, .. } => (*plugin).to_owned(),
    });
    let state = if bound.is_some_and(|volume| volume.block) {
        State::Unsupported {
            reason: "RawBlock".to_owned(),
            detail: "a raw block volume has no files".to_owned(),
        }
    } else if pods.iter().any(|used| used.node.is_some()) {
        State::Mounted
    } else {
        State::NotMounted
    };
    Subject {
        id: claim_name(&claim.namespace, &claim.name),
        namespace,
        kind: Some(VolumeKind::PersistentVolumeClaim),
        claim: Some(Claim {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            labels: claim.labels.clone(),
            annotations: claim.annotations.clone(),
            storage_class: claim.storage_class.clone(),
            access_modes: claim.access_modes.clone(),
            size_bytes: claim.size.as_deref().and_then(|size| bytes(size).ok()),
            volume_name: claim.volume.clone(),
            volume_mode: claim.volume_mode.clone(),
        }),
        driver,
        pods,
        state,
    }
}
