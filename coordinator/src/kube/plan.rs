//! What each node has to read: of every volume that a pod uses, under which name, through which pod, and by
//! which node where several have it. Pure; the same cluster gives the same plans.
//!
//! A volume's history is named `<namespace>/<claim>`, and bound to the claim's uid and the volume's handle:
//! a claim that was made again under an old name is another volume. What lives and dies with its pod is
//! named `<namespace>/<pod>/<volume>` and bound to the pod's uid.

use super::facts::{Origin, PodFacts, PodVolume, Source};
use super::world::World;
use holdfast_proto::v1::{NodePlan, PlannedVolume, VolumeFacts};
use std::collections::{BTreeMap, BTreeSet};

/// Longest name of a volume (`holdfast_format::volume::VolumeName`).
const MAX_NAME: usize = 253;

/// The plan of each node that runs pods.
pub fn plans(world: &mut World) -> BTreeMap<String, NodePlan> {
    let mut plans: BTreeMap<String, NodePlan> = BTreeMap::new();
    let mut uses: BTreeMap<(String, String), Vec<Use>> = BTreeMap::new();
    for pod in world.pods().filter(|pod| !pod.ending) {
        let Some(node) = &pod.node else { continue };
        let plan = plans.entry(node.clone()).or_default();
        for volume in &pod.volumes {
            match &volume.source {
                Source::Claim(claim) => {
                    let key = (pod.namespace.clone(), claim.clone());
                    uses.entry(key).or_default().push(Use::of(pod, node));
                }
                Source::Configuration => {}
                _ => plan.volumes.push(of_pod(pod, volume)),
            }
        }
    }
    let mut owners = std::mem::take(&mut world.owners);
    let mut seen = BTreeSet::new();
    for ((namespace, claim), uses) in &uses {
        let claimed = claimed(world, namespace, claim);
        let nodes: BTreeSet<&String> = uses.iter().map(|used| &used.node).collect();
        let uid = claimed.facts.pvc_uid.clone();
        let before = owners.get(&uid).filter(|node| nodes.contains(node));
        let Some(owner) = before.or(nodes.first().copied()).cloned() else {
            continue;
        };
        for node in &nodes {
            let here: Vec<&Use> = uses.iter().filter(|used| &used.node == *node).collect();
            let mut planned = claimed.planned(&here);
            if **node != owner && planned.reason.is_empty() {
                planned.reason = "ServedElsewhere".to_owned();
                planned.detail = format!("pods on several nodes use it; {owner} backs it up");
            }
            plans
                .entry((*node).clone())
                .or_default()
                .volumes
                .push(planned);
        }
        seen.insert(uid.clone());
        owners.insert(uid, owner);
    }
    owners.retain(|uid, _| seen.contains(uid));
    world.owners = owners;
    plans
}

/// A pod that uses a claim.
struct Use {
    pod: String,
    directory: String,
    node: String,
    /// A pod of ours: it is nobody's whose the volume could be called.
    is_helper: bool,
}

impl Use {
    fn of(pod: &PodFacts, node: &str) -> Self {
        Self {
            pod: pod.name.clone(),
            directory: pod.directory.clone(),
            node: node.to_owned(),
            is_helper: pod.helper.is_some(),
        }
    }
}

/// What a claim stands for.
struct Claimed {
    facts: VolumeFacts,
    directory: String,
    host_path: String,
    shared: bool,
    refused: Option<(&'static str, String)>,
}

fn claimed(world: &World, namespace: &str, name: &str) -> Claimed {
    let mut claimed = Claimed {
        facts: VolumeFacts {
            name: claim_name(namespace, name),
            namespace: namespace.to_owned(),
            persistentvolumeclaim: name.to_owned(),
            ..VolumeFacts::default()
        },
        directory: String::new(),
        host_path: String::new(),
        shared: false,
        refused: None,
    };
    let Some(claim) = world.claim(namespace, name) else {
        claimed.refuse(
            "ClaimMissing",
            format!("there is no claim {namespace}/{name}"),
        );
        return claimed;
    };
    claimed.facts.pvc_uid.clone_from(&claim.uid);
    let Some(bound) = &claim.volume else {
        claimed.refuse(
            "ClaimNotBound",
            format!("claim {namespace}/{name} has no volume"),
        );
        return claimed;
    };
    let Some(volume) = world.volume(bound) else {
        let detail = format!("claim {namespace}/{name} is bound to {bound}, which does not exist");
        claimed.refuse("VolumeMissing", detail);
        return claimed;
    };
    if volume
        .claim_uid
        .as_ref()
        .is_some_and(|uid| *uid != claim.uid)
    {
        let detail = format!(
            "claim {namespace}/{name} ({}) names {bound}, but that is bound to a claim {}",
            claim.uid,
            volume.claim_uid.as_deref().unwrap_or_default()
        );
        claimed.refuse("ClaimMismatch", detail);
        return claimed;
    }
    claimed.directory.clone_from(&volume.name);
    claimed.shared = volume.shared;
    let facts = &mut claimed.facts;
    match &volume.origin {
        Origin::Csi { driver, handle } => {
            facts.plugin = "kubernetes.io/csi".to_owned();
            facts.volume_handle = format!("{driver}/{handle}");
        }
        Origin::HostPath(path) => {
            facts.plugin = "kubernetes.io/host-path".to_owned();
            facts.volume_handle = format!("{}/{path}", facts.plugin);
            claimed.host_path.clone_from(path);
        }
        Origin::Other { plugin, identity } => {
            facts.plugin = (*plugin).to_owned();
            facts.volume_handle = format!("{plugin}/{identity}");
        }
    }
    if volume.block {
        claimed.refuse("RawBlock", "a raw block volume has no files".to_owned());
    }
    claimed
}

impl Claimed {
    fn refuse(&mut self, reason: &'static str, detail: String) {
        self.refused = Some((reason, detail));
    }

    /// As the node has it that these pods run on.
    fn planned(&self, here: &[&Use]) -> PlannedVolume {
        let (reason, detail) = self.refused.clone().unwrap_or_default();
        let pod = here.iter().find(|used| !used.is_helper);
        let pod = pod.map(|used| used.pod.clone());
        PlannedVolume {
            facts: Some(VolumeFacts {
                pod: pod.unwrap_or_default(),
                ..self.facts.clone()
            }),
            pods: here.iter().map(|used| used.directory.clone()).collect(),
            directory: self.directory.clone(),
            host_path: self.host_path.clone(),
            shared: self.shared,
            reason: reason.to_owned(),
            detail,
        }
    }
}

/// A volume that lives and dies with its pod.
fn of_pod(pod: &PodFacts, volume: &PodVolume) -> PlannedVolume {
    let (plugin, refused) = match &volume.source {
        Source::EmptyDir => ("kubernetes.io/empty-dir", None),
        Source::HostPath(path) => (
            "kubernetes.io/host-path",
            Some((
                "HostPathVolume",
                format!("it is {path} of the host, not a volume of its own"),
            )),
        ),
        Source::Ephemeral(driver) => (
            "kubernetes.io/csi",
            Some((
                "EphemeralVolume",
                format!("{driver} makes it anew for each pod"),
            )),
        ),
        Source::Inline(plugin) => (*plugin, None),
        Source::Claim(_) | Source::Configuration => ("", None),
    };
    let (reason, detail) = refused.unwrap_or_default();
    PlannedVolume {
        facts: Some(VolumeFacts {
            name: pod_volume_name(pod, volume),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            pod_uid: pod.directory.clone(),
            volume_handle: format!("pod/{}/{}", pod.directory, volume.name),
            plugin: plugin.to_owned(),
            ..VolumeFacts::default()
        }),
        pods: vec![pod.directory.clone()],
        directory: volume.name.clone(),
        reason: reason.to_owned(),
        detail,
        ..PlannedVolume::default()
    }
}

/// The name of a claim's history.
pub fn claim_name(namespace: &str, claim: &str) -> String {
    fitted(format!("{namespace}/{claim}"))
}

/// The name of the history of what lives with a pod.
pub fn pod_volume_name(pod: &PodFacts, volume: &PodVolume) -> String {
    fitted(format!("{}/{}/{}", pod.namespace, pod.name, volume.name))
}

/// A name that fits; one too long ends in a hash of the whole, so that it stays its own.
fn fitted(name: String) -> String {
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    // Names of Kubernetes are ASCII.
    let kept: String = name.chars().take(MAX_NAME - 17).collect();
    format!("{kept}-{}", &hash[..16])
}

#[cfg(test)]
mod tests;
