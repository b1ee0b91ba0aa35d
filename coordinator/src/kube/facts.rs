//! Of the API's objects what is needed here, and nothing else: a cluster has many, and they are large.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Set by the kubelet on the API's copy of a static pod: the uid that the node's directory has.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";
/// And that it is such a copy.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
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
    /// Its volumes.
    pub volumes: Vec<PodVolume>,
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
        let directory = match annotations.contains_key(MIRROR) {
            true => annotations.get(STATIC_POD_UID).cloned().unwrap_or(uid),
            false => uid,
        };
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let pod_name = meta.name.unwrap_or_default();
        let volumes = spec.volumes.unwrap_or_default();
        Self {
            volumes: volumes
                .into_iter()
                .map(|volume| pod_volume(volume, &pod_name))
                .collect(),
            name: pod_name,
            namespace: meta.namespace.unwrap_or_default(),
            directory,
            node: spec.node_name,
            ending: has_ended || meta.deletion_timestamp.is_some(),
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
        let spec = claim.spec.unwrap_or_default();
        Self {
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
