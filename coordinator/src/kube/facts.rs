//! Of the API's objects what is needed here, and nothing else: a cluster has many, and they are large.

use super::lenient::Misread;
use crate::kube::api::schema::of_spec;
use crate::kube::api::{BackupPolicy, ClusterBackupPolicy, PolicyKind};
use crate::kube::pods::{HELPER, HELPER_OF};
use crate::policy::compile::Policy;
use crate::policy::labels::Labels;
use k8s_openapi::api::core::v1::{
    ContainerStatus, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Set by the kubelet on the API's copy of a static pod: the uid that the node's directory has.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";
/// And that it is such a copy.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Characters kept of what is said of a helper.
const MAX_WHY: usize = 500;

/// Annotations that have to do with backups are of these groups; others may be large.
const GROUPS: [&str; 3] = ["holdfast.dev", "velero.io", "k8up.io"];

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations about backups.
    pub annotations: Labels,
    /// Its phase.
    pub phase: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The name of its directory on the node.
    pub directory: String,
    /// Where it runs.
    pub node: Option<String>,
    /// Whether it has ended, or is about to: nothing of it may be held.
    pub ending: bool,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Its volumes.
    pub volumes: Vec<PodVolume>,
    /// What made it and makes it again.
    pub controller: Option<Controller>,
    /// Of a pod of ours that helps with a volume: for what, and why it does not run yet.
    pub helper: Option<Helper>,
}

/// The object that makes a pod again when it goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Controller {
    /// Its kind, such as `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What a pod of ours helps with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// `mount` or `restore`.
    pub role: String,
    /// For whom: the value of its label.
    pub of: String,
    /// Why it does not run, in the API's words; empty where nothing is said.
    pub why: String,
}

/// A volume in a pod's spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodVolume {
    /// Its name in the spec.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where a pod's volume comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A claim of the pod's namespace.
    Claim(String),
    /// A directory that dies with the pod.
    EmptyDir,
    /// A directory of the host.
    HostPath(String),
    /// A driver's volume that lives as long as the pod.
    Ephemeral(String),
    /// Comes from the API's objects.
    Configuration,
    /// Anything else, by the word of its plugin.
    Inline(&'static str),
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFacts {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The volume it is bound to.
    pub volume: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations about backups.
    pub annotations: Labels,
    /// Its storage class.
    pub storage_class: Option<String>,
    /// Its access modes.
    pub access_modes: Vec<String>,
    /// What it has, or asks for, in the API's words.
    pub size: Option<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: Option<String>,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations about backups.
    pub annotations: Labels,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A persistent volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Its name.
    pub name: String,
    /// The uid of the claim that it is bound to.
    pub claim_uid: Option<String>,
    /// What it is.
    pub origin: Origin,
    /// Whether it is a block device without files.
    pub block: bool,
    /// Whether several nodes may write to it.
    pub shared: bool,
}

/// What a persistent volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A storage driver's.
    Csi {
        /// Its driver.
        driver: String,
        /// The driver's word for it.
        handle: String,
    },
    /// A directory of the host that the kubelet does not mount.
    HostPath(String),
    /// Anything else, by the word of its plugin and what tells it from others.
    Other {
        /// The plugin.
        plugin: &'static str,
        /// What it names.
        identity: String,
    },
}

/// Namespace and name: what an object is known by within its kind; nodes and volumes have no namespace.
pub type Key = (String, String);

/// The key of an object.
pub fn key(meta: &ObjectMeta) -> Key {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

impl From<Pod> for PodFacts {
    fn from(pod: Pod) -> Self {
        let (meta, status) = (pod.metadata, pod.status.unwrap_or_default());
        let spec = pod.spec.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        let uid = meta.uid.unwrap_or_default();
        let phase = status.phase;
        let directory = match (annotations.contains_key(MIRROR), static_uid(&annotations)) {
            (true, Some(hash)) => hash,
            _ => uid,
        };
        let labels = meta.labels.unwrap_or_default();
        let owners = meta.owner_references.unwrap_or_default();
        let mut owners = owners.into_iter();
        let controller = owners.find(|owner| owner.controller == Some(true));
        let helper = labels.get(HELPER).map(|role| Helper {
            role: role.clone(),
            of: labels.get(HELPER_OF).cloned().unwrap_or_default(),
            why: why_not(
                status.message,
                status.conditions.unwrap_or_default(),
                status.container_statuses.unwrap_or_default(),
            ),
        });
        let has_ended = matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
        let pod_name = meta.name.unwrap_or_default();
        let volumes = spec.volumes.unwrap_or_default();
        let volumes = volumes.into_iter();
        let volumes = volumes.map(|volume| pod_volume(volume, &pod_name));
        let mut volumes: Vec<PodVolume> = volumes.collect();
        // The memory of what they were made of is taken over: kilobytes for each.
        volumes.shrink_to_fit();
        Self {
            volumes,
            name: pod_name,
            namespace: meta.namespace.unwrap_or_default(),
            directory,
            node: spec.node_name,
            ending: has_ended || meta.deletion_timestamp.is_some(),
            deleting: meta.deletion_timestamp.is_some(),
            labels,
            annotations: about_backups(annotations),
            phase,
            controller: controller.map(|owner| Controller {
                kind: owner.kind,
                name: owner.name,
            }),
            helper,
        }
    }
}

/// What the API says of a pod that does not run.
fn why_not(
    message: Option<String>,
    conditions: Vec<PodCondition>,
    containers: Vec<ContainerStatus>,
) -> String {
    let unmet = conditions.into_iter().filter(|met| met.status == "False");
    let unmet = unmet.filter_map(|met| met.message);
    let waiting = containers.into_iter().filter_map(|container| {
        let waiting = container.state?.waiting?;
        waiting.message.or(waiting.reason)
    });
    let said: Vec<String> = message.into_iter().chain(waiting).chain(unmet).collect();
    let mut said = said.join("; ");
    let end = said.char_indices().nth(MAX_WHY).map(|(at, _)| at);
    said.truncate(end.unwrap_or(said.len()));
    said
}

/// What a kubelet computes of a manifest: 32 hexadecimal digits. Anybody may annotate a pod, and the uid of
/// somebody else's, which has another form, would show that one's volumes under this one's name.
fn static_uid(annotations: &Labels) -> Option<String> {
    let hash = annotations.get(STATIC_POD_UID)?;
    let is_hash = hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    is_hash.then(|| hash.clone())
}

fn about_backups(mut annotations: Labels) -> Labels {
    annotations.retain(|key, _| {
        let group = key.split_once('/').map_or("", |(group, _)| group);
        GROUPS.iter().any(|known| group.ends_with(known))
    });
    annotations
}

impl From<Namespace> for NamespaceFacts {
    fn from(namespace: Namespace) -> Self {
        let meta = namespace.metadata;
        Self {
            name: meta.name.unwrap_or_default(),
            labels: meta.labels.unwrap_or_default(),
            annotations: about_backups(meta.annotations.unwrap_or_default()),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

fn pod_volume(volume: Volume, pod: &str) -> PodVolume {
    let source = if let Some(claim) = volume.persistent_volume_claim {
        Source::Claim(claim.claim_name)
    } else if volume.ephemeral.is_some() {
        // The claim's name is made so (API reference, EphemeralVolumeSource).
        Source::Claim(format!("{pod}-{}", volume.name))
    } else if volume.empty_dir.is_some() {
        Source::EmptyDir
    } else if let Some(host) = volume.host_path {
        Source::HostPath(host.path)
    } else if let Some(csi) = volume.csi {
        Source::Ephemeral(csi.driver)
    } else if volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
    {
        Source::Configuration
    } else if volume.nfs.is_some() {
        Source::Inline("kubernetes.io/nfs")
    } else if volume.iscsi.is_some() {
        Source::Inline("kubernetes.io/iscsi")
    } else {
        Source::Inline("another plugin")
    };
    PodVolume {
        name: volume.name,
        source,
    }
}

impl From<PersistentVolumeClaim> for ClaimFacts {
    fn from(claim: PersistentVolumeClaim) -> Self {
        let meta = claim.metadata;
        let (spec, status) = (
            claim.spec.unwrap_or_default(),
            claim.status.unwrap_or_default(),
        );
        let storage =
            |sizes: Option<BTreeMap<String, Quantity>>| Some(sizes?.get("storage")?.0.clone());
        let asked = spec
            .resources
            .and_then(|resources| storage(resources.requests));
        Self {
            labels: meta.labels.unwrap_or_default(),
            annotations: about_backups(meta.annotations.unwrap_or_default()),
            storage_class: spec.storage_class_name,
            access_modes: spec.access_modes.unwrap_or_default(),
            size: storage(status.capacity).or(asked),
            volume_mode: spec.volume_mode,
            name: meta.name.unwrap_or_default(),
            namespace: meta.namespace.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            volume: spec.volume_name.filter(|name| !name.is_empty()),
        }
    }
}

impl From<PersistentVolume> for VolumeFacts {
    fn from(volume: PersistentVolume) -> Self {
        let spec = volume.spec.unwrap_or_default();
        let other = |plugin, identity| Origin::Other { plugin, identity };
        let origin = if let Some(csi) = spec.csi {
            Origin::Csi {
                driver: csi.driver,
                handle: csi.volume_handle,
            }
        } else if let Some(host) = spec.host_path {
            Origin::HostPath(host.path)
        } else if let Some(local) = spec.local {
            other("kubernetes.io/local-volume", local.path)
        } else if let Some(nfs) = spec.nfs {
            other("kubernetes.io/nfs", format!("{}:{}", nfs.server, nfs.path))
        } else if let Some(iscsi) = spec.iscsi {
            let identity = format!("{}/{}/{}", iscsi.target_portal, iscsi.iqn, iscsi.lun);
            other("kubernetes.io/iscsi", identity)
        } else {
            other("another plugin", String::new())
        };
        let modes = spec.access_modes.unwrap_or_default();
        Self {
            name: volume.metadata.name.unwrap_or_default(),
            claim_uid: spec.claim_ref.and_then(|claim| claim.uid),
            origin,
            block: spec.volume_mode.as_deref() == Some("Block"),
            shared: modes.iter().any(|mode| mode == "ReadWriteMany"),
        }
    }
}

/// Reads what is needed of one kind of object.
pub trait Facts: Send + 'static {
    /// The object.
    type Object;
    /// Its facts.
    fn of(object: Self::Object) -> Self;
    /// What is known of one that could not be read; `None`: it is as if it were not there.
    fn of_misread(misread: &Misread) -> Option<Self>
    where
        Self: Sized,
    {
        let _ = misread;
        None
    }
}

macro_rules! facts {
    ($($facts:ty: $object:ty),*) => {
        $(impl Facts for $facts {
            type Object = $object;
            fn of(object: $object) -> Self {
                object.into()
            }
        })*
    };
}

facts!(PodFacts: Pod, ClaimFacts: PersistentVolumeClaim, VolumeFacts: PersistentVolume);
facts!(NamespaceFacts: Namespace);

// A policy that cannot be read is one that is wrong: it says so, and its volumes do.
impl Facts for Policy {
    type Object = BackupPolicy;
    fn of(object: BackupPolicy) -> Self {
        object.into()
    }
    fn of_misread(misread: &Misread) -> Option<Self> {
        let mistakes = misread.mistakes(&of_spec::<BackupPolicy>());
        Some(Self::misread(
            PolicyKind::BackupPolicy,
            &misread.metadata,
            mistakes,
        ))
    }
}

impl Facts for ClusterPolicy {
    type Object = ClusterBackupPolicy;
    fn of(object: ClusterBackupPolicy) -> Self {
        object.into()
    }
    fn of_misread(misread: &Misread) -> Option<Self> {
        let mistakes = misread.mistakes(&of_spec::<ClusterBackupPolicy>());
        let kind = PolicyKind::ClusterBackupPolicy;
        Some(Self(Policy::misread(kind, &misread.metadata, mistakes)))
    }
}

/// A policy of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterPolicy(pub Policy);

impl From<BackupPolicy> for Policy {
    fn from(policy: BackupPolicy) -> Self {
        (&policy).into()
    }
}

impl From<ClusterBackupPolicy> for ClusterPolicy {
    fn from(policy: ClusterBackupPolicy) -> Self {
        Self((&policy).into())
    }
}
