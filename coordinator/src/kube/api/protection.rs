//! How one volume is protected: made by Holdfast for every volume that it sees, also for those that no policy
//! protects.

// Columns are alike, and no two are the same.
#![allow(clippy::duplicated_attributes)]

use super::common::{PolicyReference, VolumeKind, conditions, time};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The volume that this is about.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "VolumeProtection",
    plural = "volumeprotections",
    shortname = "hvp",
    category = "holdfast",
    namespaced,
    status = "VolumeProtectionStatus",
    derive = "PartialEq",
    doc = "How one volume is protected. Made by Holdfast; changes by others are undone.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.policy.name"),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccess.time"
    ),
    printcolumn(
        name = "Next Run",
        type_ = "string",
        json_path = ".status.nextRunTime",
        priority = 1
    ),
    printcolumn(name = "Snapshots", type_ = "integer", json_path = ".status.snapshots"),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.node",
        priority = 1
    ),
    printcolumn(
        name = "Claim",
        type_ = "string",
        json_path = ".spec.claim.name",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeProtectionSpec {
    /// The name of its history in the repository.
    #[schemars(length(min = 1, max = 253))]
    pub volume: String,
    /// What it is.
    pub kind: VolumeKind,
    /// Its claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimReference>,
}

/// A claim of the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReference {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid: a claim that was made again under its name is another volume.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// How the volume is protected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeProtectionStatus {
    /// In one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ProtectionPhase>,
    /// Why, as one stable word; empty if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// `Ready`: it is protected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The policy that protects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyReference>,
    /// Policies that match too, and that it overrules; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub overruled: Vec<PolicyReference>,
    /// The node that reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Its newest snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<LastBackup>,
    /// Its last run, if that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastBackup>,
    /// Runs that have failed since the last that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<i64>,
    /// When it is due next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub next_run_time: Option<Time>,
    /// Since when changes of the volume may be in no snapshot; none: there are none that are older than a minute.
    /// Where nothing watches the volume, since its newest snapshot was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub exposed_since: Option<Time>,
    /// Its newest snapshots, newest first; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub restore_points: Vec<RestorePoint>,
    /// How many snapshots there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<i64>,
    /// What is wrong but does not keep it from being protected; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub problems: Vec<Problem>,
}

/// A volume's protection in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProtectionPhase {
    /// It has a policy and waits for its first run.
    Pending,
    /// It has a policy and a snapshot that is as new as that asks for.
    Protected,
    /// Its last runs failed.
    Failing,
    /// It has no policy, or is kept out.
    Unprotected,
    /// It cannot be read.
    Unsupported,
}

/// A run of the volume that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// When it ended.
    #[schemars(schema_with = "time")]
    pub time: Time,
    /// The snapshot that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub snapshot: Option<String>,
    /// Why it failed, as one stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
}

/// A snapshot that the volume can be restored from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePoint {
    /// When it was made.
    #[schemars(schema_with = "time")]
    pub time: Time,
    /// The snapshot.
    #[schemars(length(max = 128))]
    pub snapshot: String,
    /// Bytes of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Files that could not be read, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<i64>,
    /// It differs from the one before as if somebody had destroyed what is in it, and nobody has looked at it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspicious: bool,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// As one stable word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// For people.
    #[schemars(length(max = 4096))]
    pub message: String,
}
