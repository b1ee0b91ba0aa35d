//! Which volumes a policy protects. All conditions that are given must hold; one that is not given always does.

use super::common::{LabelSelector, VolumeKind, quantity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which volumes the policy protects. Every condition that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// `All`: volumes are protected unless an annotation or label says no. `Annotated`: only those whose claim,
    /// pod or namespace says yes by `holdfast.dev/backup: "true"`.
    #[serde(default)]
    pub mode: SelectionMode,
    /// Names of the namespaces. Only a ClusterBackupPolicy has these: a BackupPolicy is about its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Names>,
    /// Labels of the namespaces. Only a ClusterBackupPolicy has these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Names of the volumes, as their histories have them: with their namespace, such as `shop/orders`, or
    /// without, such as `orders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Names>,
    /// Labels of a pod that uses the volume; one such pod is enough. A volume that no pod uses does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Labels of the PersistentVolumeClaim. A volume without a claim does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_selector: Option<LabelSelector>,
    /// Annotations of the PersistentVolumeClaim, or of the pod for a volume without a claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub annotations: Vec<AnnotationMatch>,
    /// Storage classes, by name or with `*` and `?`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub storage_classes: Vec<String>,
    /// Storage drivers such as `ebs.csi.aws.com`, by name or with `*` and `?`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub drivers: Vec<String>,
    /// Access modes; a claim that has one of them matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub access_modes: Vec<AccessMode>,
    /// Smallest capacity of the claim, such as `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub min_size: Option<String>,
    /// Largest capacity of the claim, such as `500Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub max_size: Option<String>,
    /// Kinds of volumes.
    #[serde(default = "claims_only")]
    #[schemars(length(min = 1, max = 2))]
    pub kinds: Vec<VolumeKind>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            mode: SelectionMode::All,
            namespaces: None,
            namespace_selector: None,
            volumes: None,
            pod_selector: None,
            claim_selector: None,
            annotations: Vec::new(),
            storage_classes: Vec::new(),
            drivers: Vec::new(),
            access_modes: Vec::new(),
            min_size: None,
            max_size: None,
            kinds: claims_only(),
        }
    }
}

/// The kinds of a selection that names none.
pub fn claims_only() -> Vec<VolumeKind> {
    vec![VolumeKind::PersistentVolumeClaim]
}

/// Whether volumes are in unless they say no, or out unless they say yes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectionMode {
    /// Every volume that matches, except those that say no.
    #[default]
    All,
    /// Only those of them that say yes, by an annotation of the claim, the pod or the namespace.
    Annotated,
}

/// Names to take and to leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// Names, or globs with `*` and `?`. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub include: Vec<String>,
    /// Names, or globs with `*` and `?`, that are left out whatever `include` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub exclude: Vec<String>,
}

/// An annotation that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnotationMatch {
    /// Its key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Its value; without one any value matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

/// How a claim may be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(clippy::enum_variant_names)]
pub enum AccessMode {
    /// By one node.
    ReadWriteOnce,
    /// By many nodes, which only read.
    ReadOnlyMany,
    /// By many nodes.
    ReadWriteMany,
    /// By one pod.
    ReadWriteOncePod,
}

impl AccessMode {
    /// The mode's name in a claim.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadOnlyMany => "ReadOnlyMany",
            Self::ReadWriteMany => "ReadWriteMany",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }
}
