//! What a restore's next step is decided on: one look at the cluster, the agents and the repository. Values only.

use crate::kube::api::{RestoreCounts, RestoreProgress, Scaled};
use crate::kube::facts::Controller;
use crate::kube::pods::Place;
use jiff::Timestamp;

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// As one stable word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Failure {
    /// With this word and text.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// One look.
#[derive(Debug, Clone)]
pub struct Scene {
    /// When.
    pub now: Timestamp,
    /// An id that no job has yet.
    pub fresh_job: String,
    /// Whether the Restore is being deleted.
    pub deleting: bool,
    /// Whether it waits for our finalizer: what is in the way is then undone first.
    pub held: bool,
    /// The snapshot, while it is being chosen.
    pub choice: Option<Result<Choice, Failure>>,
    /// The claim that is restored to.
    pub claim: Option<Claim>,
    /// Pods that name the claim, ours not among them, whatever has become of them.
    pub users: Vec<User>,
    /// The node whose agent reads the claim.
    pub served: Option<String>,
    /// Whether a backup of it is under way.
    pub is_read: bool,
    /// What agents say against it.
    pub refused: Option<String>,
    /// The pod that mounts the claim for us.
    pub mount_pod: Helper,
    /// The pod that writes.
    pub restore_pod: Helper,
    /// Whether its agent is connected.
    pub is_connected: bool,
    /// Whether agents have had the time to come back after our start.
    pub is_settled: bool,
    /// Whether mount pods may be made.
    pub may_mount: bool,
    /// Of a restore that scales down: what makes the pods that use the claim, with the replicas they have.
    pub owners: Result<Vec<Scaled>, Failure>,
    /// What was scaled, as it is now; `None`: it is gone.
    pub replicas: Vec<(Scaled, Option<i32>)>,
    /// The job of the status; `None`: nobody knows it.
    pub job: Option<Job>,
}

/// A snapshot that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: String,
    /// Its volume.
    pub volume: String,
    /// When it was begun.
    pub begun: Timestamp,
    /// Files, directories and others in it.
    pub entries: i64,
    /// Bytes in its files.
    pub bytes: i64,
    /// Files in it.
    pub files: i64,
    /// What is asked for in a new claim; or what is not known of that.
    pub new_claim: Option<Result<ClaimWanted, Failure>>,
}

/// A claim to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimWanted {
    /// Its storage class; `None`: the cluster's usual one.
    pub storage_class: Option<String>,
    /// What it asks for.
    pub size: String,
    /// Its access modes.
    pub access_modes: Vec<String>,
}

/// The claim that is restored to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its uid.
    pub uid: String,
    /// Whether this restore made it.
    pub is_ours: bool,
    /// Whether it says that it was restored.
    pub is_marked: bool,
}

/// A pod that uses the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The name of its directory.
    pub directory: String,
    /// Where it runs.
    pub node: Option<String>,
    /// Whether it has ended or is about to.
    pub ending: bool,
    /// Whether it has ended for good: its volumes are nobody's business any more.
    pub ended: bool,
    /// Whether its node has the volume for it: it runs, or nothing else there can be what the agent sees.
    pub is_known_mounted: bool,
    /// What makes it again.
    pub controller: Option<Controller>,
    /// Where its node has the volume.
    pub place: Result<Place, Failure>,
}

/// A pod of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::large_enum_variant, reason = "a restore has two, for a moment")]
pub enum Helper {
    /// It is not there.
    #[default]
    Absent,
    /// It has ended, or is being deleted.
    Ending {
        /// Whether its deletion has been asked for.
        deleted: bool,
    },
    /// It is there.
    There {
        /// The pod.
        user: User,
        /// Why it does not run.
        why: String,
    },
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// How it ended; `None`: it has not.
    pub end: Option<End>,
    /// How far it is.
    pub progress: RestoreProgress,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It did what it could.
    Done {
        /// The snapshot that a backup made.
        snapshot: String,
        /// What was done to paths, or would be.
        counts: RestoreCounts,
        /// Paths that it could not do.
        problems: Vec<crate::kube::api::PathProblem>,
        /// How many of them there are.
        problem_count: i64,
        /// What there is to say, for people.
        detail: String,
    },
    /// It did not come to its end.
    Failed(Failure),
    /// Somebody stopped it.
    Cancelled,
}
