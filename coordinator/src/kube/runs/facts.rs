//! Of the cluster's Backups what is needed here: of one that has ended, little.

use crate::kube::api::{
    Backup, BackupPhase, BackupSpec, DeletionPolicy, PolicyKind, PolicyReference, VolumeResult,
};
use crate::kube::facts::Facts;
use jiff::Timestamp;

/// The label that names the policy of a run that a schedule made.
pub const POLICY: &str = "holdfast.dev/policy";
/// The annotation with the time of the schedule that it is for.
pub const SCHEDULED_AT: &str = "holdfast.dev/scheduled-at";
/// Keeps a Backup until its snapshots are forgotten.
pub const FINALIZER: &str = "holdfast.dev/snapshots";

/// A Backup.
#[derive(Clone, Debug)]
pub struct BackupFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// What it says; of one that has ended without its selectors and globs.
    pub spec: BackupSpec,
    /// The time of the schedule that made it.
    pub scheduled: Option<Timestamp>,
    /// Whether it is to be deleted.
    pub deleting: bool,
    /// What holds it.
    pub finalizers: Vec<String>,
    /// The version of the object.
    pub version: String,
    /// How far it is.
    pub phase: Option<BackupPhase>,
    /// When its run was started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// What came of its volumes, unless it has ended.
    pub results: Vec<VolumeResult>,
    /// The snapshots that go with it.
    pub snapshots: Vec<String>,
}

impl BackupFacts {
    /// Whether nothing of it runs any more.
    pub fn has_ended(&self) -> bool {
        self.phase.is_some_and(BackupPhase::is_final)
    }

    /// Whether our finalizer holds it.
    pub fn is_held(&self) -> bool {
        self.finalizers.iter().any(|held| held == FINALIZER)
    }

    /// The policy whose schedule made it.
    pub fn made_by(&self) -> Option<(PolicyReference, Timestamp)> {
        let policy = self.spec.policy.as_ref()?;
        let namespace = match policy.kind {
            PolicyKind::BackupPolicy => Some(self.namespace.clone()),
            PolicyKind::ClusterBackupPolicy => None,
        };
        let reference = PolicyReference {
            kind: policy.kind,
            namespace,
            name: policy.name.clone(),
        };
        Some((reference, self.scheduled?))
    }
}

impl Facts for BackupFacts {
    type Object = Backup;

    fn of(object: Backup) -> Self {
        let (meta, status) = (object.metadata, object.status.unwrap_or_default());
        let annotations = meta.annotations.unwrap_or_default();
        let mut spec = object.spec;
        let has_ended = status.phase.is_some_and(BackupPhase::is_final);
        if has_ended {
            (spec.files, spec.claims) = (None, None);
        }
        Self {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            scheduled: annotations
                .get(SCHEDULED_AT)
                .and_then(|time| time.parse().ok()),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.unwrap_or_default(),
            version: meta.resource_version.unwrap_or_default(),
            phase: status.phase,
            started: status.start_time.map(|time| time.0),
            completed: status.completion_time.map(|time| time.0),
            results: match has_ended {
                true => Vec::new(),
                false => status.results,
            },
            snapshots: match spec.deletion_policy {
                DeletionPolicy::Delete => status.snapshots,
                DeletionPolicy::Retain => Vec::new(),
            },
            spec,
        }
    }
}
