//! Which policy protects a volume, when a run of it is due, and which run is next. Pure: no clock, no cluster,
//! no files; time and objects are arguments.
//!
//! What decides when several policies match a volume:
//!
//! | first | what | among several |
//! |---|---|---|
//! | 1 | the volume is kept out: namespace is being deleted, unsupported, an annotation or label says no | the claim's word, then the pods', then the namespace's |
//! | 2 | the claim's `holdfast.dev/policy` | the BackupPolicy of that name, then the ClusterBackupPolicy |
//! | 3 | the namespace's BackupPolicies | higher `priority`, then older, then by name |
//! | 4 | ClusterBackupPolicies | higher `priority`, then older, then by name |
//!
//! On one object our annotation is heard before our label, and ours before Velero's before k8up's. Pods of a
//! volume that disagree, and words of one object that contradict each other, are reported; the volume is then
//! protected rather than not.

pub mod annotations;
pub mod calendar;
pub mod compile;
pub mod due;
pub mod error;
pub mod glob;
pub mod hooks;
pub mod labels;
pub mod orders;
pub mod queue;
pub mod select;
pub mod subject;
pub mod validate;
pub mod values;
pub mod windows;
pub mod words;

pub use error::FieldError;
pub use select::{Decision, Outcome, Policies, Reason};
pub use subject::Subject;
