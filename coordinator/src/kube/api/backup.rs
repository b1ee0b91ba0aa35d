//! One run: of what a policy protects in a namespace, of some of its claims, or of all of them. Made by a
//! schedule or by a person; it says what it is about, is made once, and keeps what came of it.

// Columns are alike, and no two are the same.
#![allow(clippy::duplicated_attributes)]

use super::common::{LabelSelector, PolicyKind, conditions, duration, time};
use super::policy::FilesSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is backed up. With none of `policy`, `claim` and `claims`: every claim of the namespace that is not kept
/// out of backups. It cannot be changed, but for `cancel`.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "Backup",
    plural = "backups",
    shortname = "hbk",
    category = "holdfast",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    doc = "One run of backups in its namespace. Make one to back up now; schedules make theirs.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.policy.name"),
    printcolumn(
        name = "Volumes",
        type_ = "integer",
        json_path = ".status.volumes.total"
    ),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.volumes.done"),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.volumes.failed"
    ),
    printcolumn(name = "Started", type_ = "date", json_path = ".status.startTime"),
    printcolumn(
        name = "Completed",
        type_ = "date",
        json_path = ".status.completionTime"
    ),
    printcolumn(
        name = "Bytes Added",
        type_ = "integer",
        json_path = ".status.addedBytes",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
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
    "rule": "[has(self.policy), has(self.claim), has(self.claims)].filter(given, given).size() <= 1",
    "message": "at most one of policy, claim and claims may be given; with none, every claim is backed up",
}, {
    "rule": "has(self.policy) == has(oldSelf.policy) && (!has(self.policy) || self.policy == oldSelf.policy)",
    "message": "policy cannot be changed; make another Backup",
}, {
    "rule": "has(self.claim) == has(oldSelf.claim) && (!has(self.claim) || self.claim == oldSelf.claim)",
    "message": "claim cannot be changed; make another Backup",
}, {
    "rule": "has(self.claims) == has(oldSelf.claims) && (!has(self.claims) || self.claims == oldSelf.claims)",
    "message": "claims cannot be changed; make another Backup",
}, {
    "rule": "has(self.files) == has(oldSelf.files) && (!has(self.files) || self.files == oldSelf.files)",
    "message": "files cannot be changed; make another Backup",
}, {
    "rule": "self.deletionPolicy == oldSelf.deletionPolicy",
    "message": "deletionPolicy cannot be changed; forget snapshots with holdfast forget",
}, {
    "rule": "has(self.ttlAfterFinished) == has(oldSelf.ttlAfterFinished) && (!has(self.ttlAfterFinished) || self.ttlAfterFinished == oldSelf.ttlAfterFinished)",
    "message": "ttlAfterFinished cannot be changed; delete the Backup when you want",
}, {
    "rule": "self.cancel || !oldSelf.cancel",
    "message": "cancel cannot be taken back; make another Backup",
}]))]
pub struct BackupSpec {
    /// All volumes that this policy protects in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RunPolicy>,
    /// One claim, by its name. It is backed up also where an annotation keeps it out of policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim: Option<String>,
    /// The claims with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<LabelSelector>,
    /// Which files of a volume are backed up. Without it, those of the policy that protects the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesSpec>,
    /// What becomes of the snapshots that the run made when the Backup is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The Backup is deleted so long after it has ended. Without it, it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub ttl_after_finished: Option<String>,
    /// Stops the run. What it has made stays.
    #[serde(default)]
    pub cancel: bool,
}

/// Names a policy whose volumes are backed up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunPolicy {
    /// Its kind.
    #[serde(default = "of_namespace")]
    pub kind: PolicyKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn of_namespace() -> PolicyKind {
    PolicyKind::BackupPolicy
}

/// What becomes of snapshots when their Backup is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They are forgotten, but for those that are pinned or suspicious. For at most 1000 volumes.
    Delete,
}

/// How the run goes. Written by Holdfast.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// In one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Why, as one stable word; none if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// What there is to say, for people: what went wrong, what was left out, how many results are not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// `Completed`: the run has ended and every volume has its snapshot. `Progressing`: it has not ended.
    /// `SnapshotsForgotten`: of a deleted Backup whose snapshots go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Since when the run is known and its volumes are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub completion_time: Option<Time>,
    /// How many volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<VolumeCounts>,
    /// Bytes of the files of all snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Bytes that the run added to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_bytes: Option<i64>,
    /// What came of each volume; at most 100, what went wrong first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub results: Vec<VolumeResult>,
    /// The snapshots that are forgotten with the Backup, where its `deletionPolicy` says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 64)))]
    pub snapshots: Vec<String>,
}

/// How many volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeCounts {
    /// In all.
    pub total: i64,
    /// That have a snapshot, whole or partial.
    pub done: i64,
    /// That have none, and get none.
    pub failed: i64,
    /// Whose snapshot lacks files that could not be read.
    pub partial: i64,
}

/// A run in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// Nothing of it has started.
    Pending,
    /// It has started.
    Running,
    /// Every volume has its snapshot.
    Completed,
    /// Some volumes have none, or files could not be read.
    PartiallyFailed,
    /// No volume has a snapshot.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl BackupPhase {
    /// Whether nothing comes after it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// What came of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeResult {
    /// The claim; of a volume that lives with a pod, `<pod>/<volume>`.
    #[schemars(length(max = 512))]
    pub claim: String,
    /// The claim's uid: one that is made again under its name is another volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// How far it is.
    pub phase: ResultPhase,
    /// The snapshot that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub snapshot: Option<String>,
    /// Why it waits or failed, as one stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub detail: Option<String>,
    /// Files of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<i64>,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Bytes that it added to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_bytes: Option<i64>,
}

/// How far a volume of a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResultPhase {
    /// It waits.
    Pending,
    /// It is backed up now.
    Running,
    /// It has its snapshot.
    Completed,
    /// Its snapshot lacks files that could not be read.
    Partial,
    /// It has none.
    Failed,
    /// It was stopped.
    Cancelled,
}
