//! Which Backups that have ended are removed: those whose time is over, and those of schedules that are more
//! than their policy keeps. Pure. Snapshots are never meant.

use super::facts::BackupFacts;
use crate::kube::api::{BackupPhase, PolicyReference, PolicySpec};
use crate::policy::values::duration;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Runs of a schedule that are kept where the policy does not say how many.
const USUALLY: i32 = 3;

/// What is counted together: runs of a policy in a namespace that went well, or did not.
type Kept<'b> = (PolicyReference, &'b str, bool);

/// The Backups to remove now. `policy` finds a policy's spec; of one that is gone the usual number is kept.
pub fn to_remove<'b, 'p>(
    backups: impl Iterator<Item = &'b BackupFacts>,
    policy: impl Fn(&PolicyReference) -> Option<&'p PolicySpec>,
    now: Timestamp,
) -> Vec<&'b BackupFacts> {
    let mut removed = Vec::new();
    let mut kept: BTreeMap<Kept, Vec<(Timestamp, &BackupFacts)>> = BTreeMap::new();
    for backup in backups {
        if !backup.has_ended() || backup.deleting {
            continue;
        }
        if is_over(backup, now) {
            removed.push(backup);
            continue;
        }
        if let Some((reference, scheduled)) = backup.made_by() {
            let went_well = backup.phase == Some(BackupPhase::Completed);
            let key = (reference, &backup.namespace[..], went_well);
            kept.entry(key).or_default().push((scheduled, backup));
        }
    }
    for ((reference, _, went_well), mut runs) in kept {
        let limit = policy(&reference).and_then(|spec| match went_well {
            true => spec.successful_runs_history_limit,
            false => spec.failed_runs_history_limit,
        });
        let limit = usize::try_from(limit.unwrap_or(USUALLY)).unwrap_or(0);
        if runs.len() > limit {
            runs.sort_by(|a, b| (b.0, &b.1.name).cmp(&(a.0, &a.1.name)));
            removed.extend(runs.drain(limit..).map(|(_, backup)| backup));
        }
    }
    removed
}

fn is_over(backup: &BackupFacts, now: Timestamp) -> bool {
    let ttl = backup.spec.ttl_after_finished.as_deref();
    let ttl = ttl.and_then(|text| duration(text).ok());
    let ttl = ttl.and_then(|ttl| SignedDuration::try_from(ttl).ok());
    match (ttl, backup.completed) {
        (Some(ttl), Some(completed)) => now.duration_since(completed) >= ttl,
        _ => false,
    }
}
