//! One restore: from a snapshot into a claim, of the namespace it is made in. It is run once; nothing of its spec
//! but `cancel` changes afterwards.

// Columns are alike, and no two are the same.
#![allow(clippy::duplicated_attributes)]

use super::common::{quantity, time};
use super::restore_status::RestoreStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is restored, where to, and how.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "Restore",
    plural = "restores",
    shortname = "hrs",
    category = "holdfast",
    namespaced,
    status = "RestoreStatus",
    derive = "PartialEq",
    doc = "One restore of a snapshot into a claim of its namespace.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.claim.name"),
    printcolumn(
        name = "Files",
        type_ = "integer",
        json_path = ".status.progress.filesDone"
    ),
    printcolumn(
        name = "Of",
        type_ = "integer",
        json_path = ".status.progress.totalFiles"
    ),
    printcolumn(name = "As Of", type_ = "string", json_path = ".status.snapshot.time"),
    printcolumn(
        name = "Volume",
        type_ = "string",
        json_path = ".status.snapshot.volume",
        priority = 1
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.node",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.target.existingClaim) || (!self.deleteExtras && !self.scaleDown && !self.rollback && !has(self.safetySnapshot))",
    "message": "deleteExtras, scaleDown, safetySnapshot and rollback need target.existingClaim",
}, {
    "rule": "!self.rollback || (self.scaleDown && (!has(self.safetySnapshot) || self.safetySnapshot))",
    "message": "rollback needs scaleDown and the safety snapshot: it puts the whole volume back",
}, {
    "rule": "!has(self.storageClassMapping) || (has(self.target.newClaim) && !has(self.target.newClaim.storageClassName))",
    "message": "storageClassMapping needs a newClaim that names no storageClassName",
}, {
    "rule": "self.source == oldSelf.source && self.target == oldSelf.target && self.deleteExtras == oldSelf.deleteExtras && self.special == oldSelf.special && self.dryRun == oldSelf.dryRun && self.scaleDown == oldSelf.scaleDown && self.rollback == oldSelf.rollback && self.verify == oldSelf.verify && has(self.path) == has(oldSelf.path) && (!has(self.path) || self.path == oldSelf.path) && has(self.targetPath) == has(oldSelf.targetPath) && (!has(self.targetPath) || self.targetPath == oldSelf.targetPath) && has(self.safetySnapshot) == has(oldSelf.safetySnapshot) && (!has(self.safetySnapshot) || self.safetySnapshot == oldSelf.safetySnapshot) && has(self.storageClassMapping) == has(oldSelf.storageClassMapping) && (!has(self.storageClassMapping) || self.storageClassMapping == oldSelf.storageClassMapping)",
    "message": "a restore is not changed, only cancelled: make another one",
}, {
    "rule": "!oldSelf.cancel || self.cancel",
    "message": "a restore that was cancelled stays so",
}]))]
pub struct RestoreSpec {
    /// Which snapshot.
    pub source: RestoreSource,
    /// Which claim it is written into.
    pub target: RestoreTarget,
    /// A directory or file of the snapshot, such as `var/lib/data`; without it everything. A directory is restored
    /// as the target itself, a file into it by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub path: Option<String>,
    /// A directory of the claim's volume that is restored to; without it its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub target_path: Option<String>,
    /// Remove what the snapshot does not have.
    #[serde(default)]
    pub delete_extras: bool,
    /// Restore setuid and setgid bits of files, capabilities and devices too.
    #[serde(default)]
    pub special: bool,
    /// Write nothing; the status says what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// The storage class of a new claim, by the class that the source's claim has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "mapping")]
    pub storage_class_mapping: BTreeMap<String, String>,
    /// Scale the Deployments and StatefulSets whose pods use the claim to none first, and back afterwards, whatever
    /// happens in between.
    #[serde(default)]
    pub scale_down: bool,
    /// Back the claim up first, and go no further where that fails. Usually true for an existing claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_snapshot: Option<bool>,
    /// Where the restore is not complete, put the whole volume back as it is in the safety snapshot.
    #[serde(default)]
    pub rollback: bool,
    /// Compare the result with the snapshot, byte by byte.
    #[serde(default)]
    pub verify: bool,
    /// Stop. What was written stays, unless `rollback` is set; what was scaled down is scaled up.
    #[serde(default)]
    pub cancel: bool,
}

/// Which snapshot: the newest of a claim or a volume, the newest up to a time, or one by its id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.claim), has(self.volume), has(self.snapshot)].filter(given, given).size() == 1",
    "message": "exactly one of claim, volume and snapshot must be given",
}, {
    "rule": "!has(self.asOf) || !has(self.snapshot)",
    "message": "asOf does not go with a snapshot",
}]))]
pub struct RestoreSource {
    /// A claim, which need not exist any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<SourceClaim>,
    /// A volume by the name of its history, as in the `spec.volume` of its VolumeProtection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub volume: Option<String>,
    /// A snapshot by its id, or by a beginning of it that no other has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 64), regex(pattern = "^[0-9a-f]+$"))]
    pub snapshot: Option<String>,
    /// The newest snapshot that was begun by then. None: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub as_of: Option<Time>,
}

/// A claim that was backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceClaim {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace, usually this one. Another one must allow it by its annotation `holdfast.dev/restore-to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Its uid, where several claims have had the name one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub uid: Option<String>,
}

/// Which claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.newClaim) != has(self.existingClaim)",
    "message": "exactly one of newClaim and existingClaim must be given",
}]))]
pub struct RestoreTarget {
    /// One that is made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_claim: Option<NewClaim>,
    /// One that is there: its volume is changed in place, also while pods use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_claim: Option<ExistingClaim>,
}

/// A claim that is made. What is left out is as in the source's claim, as long as that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewClaim {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What it asks for, such as `10Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub size: Option<String>,
    /// Its access modes, such as `ReadWriteOnce`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(min = 1, max = 32)))]
    pub access_modes: Vec<String>,
}

/// A claim that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExistingClaim {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn mapping(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 253},
    })
}
