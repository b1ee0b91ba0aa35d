//! The annotations and labels that are honoured.

/// `"true"` or `"false"`, on a claim, a pod or a namespace.
pub const OUR_BACKUP: &str = "holdfast.dev/backup";
/// Names of a pod's volumes that are backed up, on the pod.
pub const OUR_VOLUMES: &str = "holdfast.dev/backup-volumes";
/// Names of a pod's volumes that are not.
pub const OUR_EXCLUDES: &str = "holdfast.dev/backup-volumes-excludes";
/// Label `"true"`, on a claim, a pod or a namespace.
pub const OUR_EXCLUDE: &str = "holdfast.dev/exclude-from-backup";
/// The name of the policy that protects a claim, on the claim.
pub const OUR_POLICY: &str = "holdfast.dev/policy";
/// Velero's list of a pod's volumes.
pub const VELERO_VOLUMES: &str = "backup.velero.io/backup-volumes";
/// Velero's list of those that are not.
pub const VELERO_EXCLUDES: &str = "backup.velero.io/backup-volumes-excludes";
/// Velero's label.
pub const VELERO_EXCLUDE: &str = "velero.io/exclude-from-backup";
/// k8up's annotation of a claim.
pub const K8UP_BACKUP: &str = "k8up.io/backup";
