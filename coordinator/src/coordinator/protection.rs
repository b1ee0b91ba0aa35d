//! What a coordinator does by itself for volumes: by policies of files, by rules of continuous protection; and
//! what is known of the runs to come.

use super::Coordinator;
use crate::declared::{self, Loaded, Standing};
use crate::kube::Picture;
use crate::policy::{Decision, Outcome};
use crate::schedule::{Rules, start_continuous};
use holdfast_proto::v1 as proto;
use jiff::Timestamp;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

impl Coordinator {
    /// Protects volumes by the policies of files, until the coordinator stops; they are read again when they
    /// change, or when `again` is notified.
    pub fn protect_by_files(self: &Arc<Self>, path: PathBuf, loaded: Loaded, again: Arc<Notify>) {
        declared::start(self, path, loaded, again);
    }

    /// Backs volumes up by rules of continuous protection: those of the settings, and what is set of policies.
    pub(crate) fn protect_continuously(self: &Arc<Self>) -> Rules {
        let rules = self.rules.get_or_init(|| {
            let settings = self.owning.as_ref().map(|owning| &owning.core.settings);
            let rules = settings.map(|settings| settings.continuous.clone());
            let rules = Rules::new(rules.unwrap_or_default());
            start_continuous(self, rules.clone());
            rules
        });
        rules.clone()
    }

    pub(crate) fn set_policy_files(&self, standing: watch::Receiver<Standing>) {
        // Set once, as above.
        let _ = self.policy_files.set(standing);
    }

    /// How the files of policies are doing, where there are any.
    pub(crate) fn policy_files(&self) -> Option<Standing> {
        Some(self.policy_files.get()?.borrow().clone())
    }

    pub(crate) fn set_next_runs(&self, next: HashMap<String, Timestamp>) {
        *self.next_runs() = next;
    }

    /// When the next run of a volume starts that a policy with a schedule protects.
    pub(crate) fn next_run(&self, volume: &str) -> Option<i64> {
        let next = self.next_runs();
        nanoseconds(next.get(volume)?)
    }

    /// When the next runs of volumes start whose policies have a schedule.
    pub(super) fn next_runs(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        // It is replaced as a whole.
        self.next_runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Standing> for proto::PolicyFiles {
    fn from(standing: Standing) -> Self {
        Self {
            path: standing.path,
            policies: standing.policies as u64,
            read_ns: standing.read_ns,
            mistakes: standing.mistakes,
        }
    }
}

/// What was decided about volumes, by their names.
pub(super) fn decisions(picture: Option<&Picture>) -> HashMap<&str, &Decision> {
    let decided = picture.into_iter().flat_map(|picture| &picture.volumes);
    decided
        .map(|volume| (&volume.subject.id[..], &volume.decision))
        .collect()
}

/// What policies say of a volume.
pub(super) fn protection(decision: &Decision, next: Option<&Timestamp>) -> proto::Protection {
    let (policy, reason) = match &decision.outcome {
        Outcome::Protected(policy) => (Some(policy), String::new()),
        Outcome::Unprotected { reason, policy, .. } => (policy.as_ref(), reason.to_string()),
    };
    proto::Protection {
        policy: policy.map(|policy| policy.to_string()).unwrap_or_default(),
        reason,
        next_run_ns: next.and_then(nanoseconds).unwrap_or(0),
    }
}

fn nanoseconds(at: &Timestamp) -> Option<i64> {
    i64::try_from(at.as_nanosecond()).ok()
}
