//! What selection knows of one volume: plain data, filled by whoever watches the cluster.

use crate::kube::api::VolumeKind;
use crate::policy::labels::Labels;
use std::sync::Arc;

/// One volume.
#[derive(Clone, Debug)]
pub struct Subject {
    /// A key that stays: it names the volume in queues and spreads its runs.
    pub id: String,
    /// Its namespace. Volumes of a namespace share it; that makes deciding for all of them quick.
    pub namespace: Arc<Namespace>,
    /// What it is; `None`: a kind that no policy can name, such as a host's directory.
    pub kind: Option<VolumeKind>,
    /// Its claim.
    pub claim: Option<Claim>,
    /// The storage driver, such as `ebs.csi.aws.com`.
    pub driver: Option<String>,
    /// The pods that use it.
    pub pods: Vec<PodUse>,
    /// Whether it can be read.
    pub state: State,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Its storage class.
    pub storage_class: Option<String>,
    /// Its access modes, by their names.
    pub access_modes: Vec<String>,
    /// Its capacity, or what it asks for.
    pub size_bytes: Option<u64>,
    /// The persistent volume that it is bound to.
    pub volume_name: Option<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: Option<String>,
}

/// A pod that uses the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUse {
    /// The pod's name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// The volume's name in its spec.
    pub volume: String,
    /// Where it runs.
    pub node: Option<String>,
    /// Its phase, such as `Running`.
    pub phase: Option<String>,
}

/// Whether a volume can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A pod has it mounted.
    Mounted,
    /// No pod does.
    NotMounted,
    /// It cannot, ever.
    Unsupported {
        /// Why, as one stable word.
        reason: String,
        /// Why, for people.
        detail: String,
    },
}
