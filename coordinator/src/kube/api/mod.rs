//! The API's kinds, `holdfast.dev/v1alpha1`. Doc comments of fields are the descriptions that `kubectl explain`
//! shows. Unknown fields are ignored here: objects come from an API server whose schema may be newer.
//!
//! Retention, verification, drills and replication get their fields beside `schedule` in `PolicySpec` when
//! there are engines that serve them, and not before.

mod backup;
mod common;
#[cfg(test)]
mod crds;
mod hooks;
mod kinds;
mod policy;
mod protection;
mod restore;
mod restore_status;
pub mod schema;
mod selection;

pub use backup::{
    Backup, BackupPhase, BackupSpec, BackupStatus, DeletionPolicy, ResultPhase, RunPolicy,
    VolumeCounts, VolumeResult,
};
#[cfg(test)]
pub use common::Requirement;
pub use common::{LabelSelector, Operator, PolicyKind, PolicyReference, VolumeKind};
#[cfg(test)]
pub use hooks::ExecAction;
pub use hooks::{HookAction, HookSpec, HttpAction, HttpMethod, OnError, Watchdog};
pub use kinds::{BackupPolicy, ClusterBackupPolicy, PolicyPhase, PolicyStatus};
#[cfg(test)]
pub use kinds::{BackupPolicySpec, ClusterBackupPolicySpec};
#[cfg(test)]
pub use policy::LimitsSpec;
pub use policy::{
    BusyFiles, Day, DetectionMode, ExposureSpec, FilesSpec, PolicySpec, ScheduleSpec,
    UnmountedClaims, WindowSpec,
};
pub use protection::{
    ClaimReference, LastBackup, Problem, ProtectionPhase, RestorePoint, VolumeProtection,
    VolumeProtectionSpec, VolumeProtectionStatus,
};
#[cfg(test)]
pub use restore::{ExistingClaim, RestoreTarget};
pub use restore::{NewClaim, Restore, RestoreSource, RestoreSpec, SourceClaim};
pub use restore_status::{
    ChosenSnapshot, PathProblem, RestoreCounts, RestoreJob, RestorePhase, RestoreProgress,
    RestoreStatus, RestoredClaim, Scaled, ThroughPod,
};
#[cfg(test)]
pub use selection::{AccessMode, Names};
pub use selection::{AnnotationMatch, Selection, SelectionMode};

/// Group and version, as objects carry them.
pub const API_VERSION: &str = "holdfast.dev/v1alpha1";
