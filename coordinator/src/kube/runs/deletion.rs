//! The end of a Backup whose snapshots go with it: they are forgotten, those that must stay are told, and a
//! repository that does not answer is asked again. Nothing else waits for it.

use crate::Coordinator;
use crate::error::{Kind, Result};
use holdfast_format::id::SnapshotId;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// At once.
const AT_ONCE: usize = 4;
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// And where the namespace goes, which must not hang.
const BRIEFLY: Duration = Duration::from_secs(20);
/// After a try that failed.
const AGAIN: Duration = Duration::from_secs(30);
/// Snapshots that must stay and are named.
const NAMED: usize = 5;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Snapshots are being forgotten.
    Runs,
    /// The repository could not be reached; again later.
    Waits {
        /// What it said.
        why: String,
    },
    /// All are forgotten, but these.
    Done {
        /// Each with why it stays.
        kept: Vec<String>,
    },
}

/// The deletions, by uid of their Backups.
#[derive(Clone, Default)]
pub struct Deletions(Arc<Mutex<HashMap<String, (Deletion, Duration)>>>);

impl Deletions {
    /// How far a Backup's is; begun, or tried again, if it is time.
    pub fn go_on(
        &self,
        coordinator: &Arc<Coordinator>,
        uid: &str,
        snapshots: &[String],
        is_urgent: bool,
    ) -> Deletion {
        let clock = coordinator.clock().clone();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, since)) = all.get(uid) {
            let is_time = clock.elapsed() >= *since + AGAIN;
            if !matches!(known, Deletion::Waits { .. }) || !is_time {
                return known.clone();
            }
        }
        let running = all.values().filter(|(known, _)| *known == Deletion::Runs);
        if running.count() >= AT_ONCE {
            let known = all.get(uid).map(|(known, _)| known.clone());
            return known.unwrap_or(Deletion::Runs);
        }
        all.insert(uid.to_owned(), (Deletion::Runs, clock.elapsed()));
        drop(all);
        let (deletions, coordinator) = (self.clone(), coordinator.clone());
        let (uid, snapshots) = (uid.to_owned(), snapshots.to_vec());
        tokio::spawn(async move {
            let patience = if is_urgent { BRIEFLY } else { PATIENCE };
            let forgotten = forget(&coordinator, &snapshots);
            let state = match tokio::time::timeout(patience, forgotten).await {
                Ok(Ok(kept)) => Deletion::Done { kept },
                Ok(Err(error)) => Deletion::Waits {
                    why: format!("{}: {error}", error.reason().as_str()),
                },
                Err(_) => Deletion::Waits {
                    why: "StoreUnavailable: no answer in time".to_owned(),
                },
            };
            let mut all = deletions.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(uid, (state, clock.elapsed()));
        });
        Deletion::Runs
    }

    /// Forgets what is known of Backups that are gone.
    pub fn keep(&self, is_there: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|uid, (known, _)| *known == Deletion::Runs || is_there(uid));
    }
}

/// Forgets snapshots; those that must stay, and why.
async fn forget(coordinator: &Coordinator, snapshots: &[String]) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    let mut more = 0;
    // The newest first: an older one may be kept for what came after it.
    for text in snapshots {
        let Ok(id) = text.parse::<SnapshotId>() else {
            continue;
        };
        match coordinator.forget(&id).await {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) if error.kind() == Kind::Precondition => {
                if kept.len() < NAMED {
                    kept.push(error.to_string());
                } else {
                    more += 1;
                }
            }
            Err(error) => return Err(error),
        }
    }
    if more > 0 {
        kept.push(format!("and {more} more"));
    }
    Ok(kept)
}

/// The condition that says so.
pub fn condition(deletion: &Deletion, now: Timestamp) -> serde_json::Value {
    let (status, reason, message) = match deletion {
        Deletion::Runs => (
            "Unknown",
            "Forgetting",
            "its snapshots are being forgotten".to_owned(),
        ),
        Deletion::Waits { why } => (
            "False",
            "RepositoryUnreachable",
            format!(
                "its snapshots are not forgotten yet: {why}; tried again every {} s. To leave them, remove the \
                 finalizer holdfast.dev/snapshots",
                AGAIN.as_secs()
            ),
        ),
        Deletion::Done { kept } if kept.is_empty() => (
            "True",
            "Forgotten",
            "its snapshots are forgotten".to_owned(),
        ),
        Deletion::Done { kept } => ("False", "SnapshotsKept", super::run::cut(&kept.join("; "))),
    };
    serde_json::json!({
        "type": "SnapshotsForgotten", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now.to_string(),
    })
}
