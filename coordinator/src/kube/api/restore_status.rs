//! How a restore is going. A coordinator that was started again goes on from what stands here, so whatever must be
//! undone is written down before it is done.

use super::common::{conditions, time};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the restore is going. Written by Holdfast.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatus {
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is being done, or how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Since when it is in this phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub phase_since: Option<Time>,
    /// What it waits for, or why it did not succeed, as one stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// `Complete`: it has ended and everything asked for is in the claim. `Finished`: it has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// When it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub completion_time: Option<Time>,
    /// The snapshot that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<ChosenSnapshot>,
    /// What the claim held before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_snapshot: Option<ChosenSnapshot>,
    /// The claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<RestoredClaim>,
    /// The node on which it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// The pod through which the node has the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ThroughPod>,
    /// What was scaled down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub scaled: Vec<Scaled>,
    /// The work on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<RestoreJob>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RestoreProgress>,
    /// What was done, or (dry run) would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<RestoreCounts>,
    /// Paths that are not wholly as in the snapshot; at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub problems: Vec<PathProblem>,
    /// How many of them there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_count: Option<i64>,
    /// How it will have ended once all is cleaned up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RestorePhase>,
}

/// What a restore does, in order, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// The snapshot is chosen and the claim looked at, or made.
    #[default]
    Pending,
    /// Owners of pods are scaled down, and the volume's unmounting is waited for.
    ScalingDown,
    /// The volume is being mounted on a node.
    Mounting,
    /// The claim is backed up as it was.
    SafetySnapshot,
    /// Files are written.
    Restoring,
    /// What was written is compared.
    Verifying,
    /// The safety snapshot is put back.
    RollingBack,
    /// Helper pods go, and owners are scaled up again.
    ScalingUp,
    /// All of it is there.
    Completed,
    /// Some paths are not.
    PartiallyFailed,
    /// It did not come to its end.
    Failed,
    /// It did not, and the claim is as it was before.
    RolledBack,
    /// It was stopped.
    Cancelled,
}

impl RestorePhase {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        use RestorePhase as P;
        matches!(
            self,
            P::Completed | P::PartiallyFailed | P::Failed | P::RolledBack | P::Cancelled
        )
    }
}

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChosenSnapshot {
    /// Its id.
    #[schemars(length(max = 128))]
    pub id: String,
    /// The name of its volume.
    #[schemars(length(max = 253))]
    pub volume: String,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub time: Option<Time>,
}

/// The claim that is restored to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoredClaim {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
}

/// A pod that has the volume mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThroughPod {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid, the name of its directory on the node.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// Something that was scaled down, and what it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scaled {
    /// Deployment, StatefulSet or ReplicaSet.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The replicas that it had, and gets again.
    pub replicas: i32,
    /// Whether it has them again.
    #[serde(default)]
    pub restored: bool,
}

/// The work on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreJob {
    /// The job's id.
    #[schemars(length(max = 64))]
    pub id: String,
    /// The phase that it belongs to.
    pub phase: RestorePhase,
    /// How often it was begun anew, because its pod or node was lost.
    #[serde(default)]
    pub attempt: i32,
}

/// How far a restore is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreProgress {
    /// Files that are done.
    pub files_done: i64,
    /// All files; 0: not known.
    pub total_files: i64,
    /// Bytes that are done.
    pub bytes_done: i64,
    /// All bytes; 0: not known.
    pub total_bytes: i64,
}

/// Paths by what was done to them, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreCounts {
    /// Made where nothing was.
    pub created: i64,
    /// Whose content differed.
    pub replaced: i64,
    /// Whose owner, mode, times or attributes differed.
    pub metadata: i64,
    /// Removed.
    pub deleted: i64,
    /// That were as they should be.
    pub kept: i64,
    /// Bytes written.
    pub written_bytes: i64,
}

/// A path that is not wholly as in the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathProblem {
    /// The path, with unusual characters escaped.
    #[schemars(length(max = 4096))]
    pub path: String,
    /// Why, as one stable word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 4096))]
    pub message: String,
}
