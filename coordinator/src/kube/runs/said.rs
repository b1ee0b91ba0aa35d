//! What is said of a run in its Backup: phase, conditions, counts, what came of each volume. Pure.

use super::plan::listed;
use super::run::{Run, cut};
use crate::kube::api::{
    BackupPhase, BackupStatus, DeletionPolicy, ResultPhase, VolumeCounts, VolumeResult,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Results that are listed, as their schema has it.
pub const MAX_RESULTS: usize = 100;

/// The status of a run.
pub fn status(run: &Run, now: Timestamp) -> BackupStatus {
    let phase = run.phase();
    let mut results: Vec<&VolumeResult> =
        run.targets.values().map(|target| &target.result).collect();
    let counts = counts(&results);
    let sum = |of: fn(&VolumeResult) -> Option<i64>| -> Option<i64> {
        let ended = results.iter().filter(|result| result.snapshot.is_some());
        Some(ended.filter_map(|result| of(result)).sum())
    };
    let (bytes, added_bytes) = (sum(|result| result.bytes), sum(|result| result.added_bytes));
    let snapshots = match run.spec.deletion_policy {
        DeletionPolicy::Delete => results
            .iter()
            .filter_map(|result| result.snapshot.clone())
            .collect(),
        DeletionPolicy::Retain => Vec::new(),
    };
    results.sort_by_key(|result| rank(result.phase));
    let (reason, message) = why(run, phase, &counts, &results);
    Status { run, phase, now }.with(BackupStatus {
        observed_generation: Some(run.generation).filter(|generation| *generation > 0),
        phase: Some(phase),
        reason: reason.clone(),
        message: Some(message.clone()).filter(|message| !message.is_empty()),
        conditions: Vec::new(),
        start_time: run.started.map(Time),
        completion_time: run.completed.map(Time),
        volumes: Some(counts),
        bytes,
        added_bytes,
        results: results.into_iter().take(MAX_RESULTS).cloned().collect(),
        snapshots,
    })
}

struct Status<'r> {
    run: &'r Run,
    phase: BackupPhase,
    now: Timestamp,
}

impl Status<'_> {
    fn with(&self, mut status: BackupStatus) -> BackupStatus {
        let message = status.message.clone().unwrap_or_default();
        let has_ended = self.phase.is_final();
        let word = match self.phase {
            BackupPhase::Pending => "Pending",
            BackupPhase::Running => "Running",
            BackupPhase::Completed => "Completed",
            BackupPhase::PartiallyFailed => "PartiallyFailed",
            BackupPhase::Failed => "Failed",
            BackupPhase::Cancelled => "Cancelled",
        };
        let reason = status.reason.clone().unwrap_or_else(|| word.to_owned());
        let completed = match (has_ended, self.phase) {
            (true, BackupPhase::Completed) => "True",
            (true, _) => "False",
            (false, _) => "Unknown",
        };
        let condition = |type_: &str, status: &str| Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.clone(),
            message: message.clone(),
            last_transition_time: Time(self.now),
            observed_generation: Some(self.run.generation).filter(|generation| *generation > 0),
        };
        let progressing = if has_ended { "False" } else { "True" };
        status.conditions = vec![
            condition("Completed", completed),
            condition("Progressing", progressing),
        ];
        status
    }
}

fn counts(results: &[&VolumeResult]) -> VolumeCounts {
    let of = |wanted: &[ResultPhase]| {
        let found = results
            .iter()
            .filter(|result| wanted.contains(&result.phase));
        i64::try_from(found.count()).unwrap_or(i64::MAX)
    };
    VolumeCounts {
        total: i64::try_from(results.len()).unwrap_or(i64::MAX),
        done: of(&[ResultPhase::Completed, ResultPhase::Partial]),
        failed: of(&[ResultPhase::Failed, ResultPhase::Cancelled]),
        partial: of(&[ResultPhase::Partial]),
    }
}

/// What went wrong is listed first.
fn rank(phase: ResultPhase) -> u8 {
    match phase {
        ResultPhase::Failed => 0,
        ResultPhase::Cancelled => 1,
        ResultPhase::Partial => 2,
        ResultPhase::Running => 3,
        ResultPhase::Pending => 4,
        ResultPhase::Completed => 5,
    }
}

fn why(
    run: &Run,
    phase: BackupPhase,
    counts: &VolumeCounts,
    results: &[&VolumeResult],
) -> (Option<String>, String) {
    if let Some(refusal) = &run.refusal {
        return (Some(refusal.reason.to_owned()), cut(&refusal.message));
    }
    let first = results
        .iter()
        .find(|result| result.reason.is_some() && result.phase != ResultPhase::Partial);
    let mut parts = Vec::new();
    let reason = match (phase, run.stop) {
        (BackupPhase::Completed, _) => None,
        (_, Some(stop)) => {
            parts.push(
                match phase.is_final() {
                    true => "stopped",
                    false => "is being stopped",
                }
                .to_owned(),
            );
            Some(stop.reason().to_owned())
        }
        _ => {
            let of_first = first.and_then(|first| first.reason.clone());
            let partial = (counts.partial > 0).then(|| "FilesNotRead".to_owned());
            of_first.or(partial)
        }
    };
    if let Some(first) = first
        && run.stop.is_none()
    {
        let why = first.reason.as_deref().unwrap_or_default();
        let detail = first.detail.as_deref().unwrap_or_default();
        parts.push(format!("{} ({why}): {detail}", first.claim));
    }
    if counts.partial > 0 {
        parts.push(format!(
            "of {} volumes some files could not be read",
            counts.partial
        ));
    }
    if !run.left_out.is_empty() {
        parts.push(format!("left out: {}", listed(&run.left_out)));
    }
    if results.len() > MAX_RESULTS {
        let more = results.len() - MAX_RESULTS;
        parts.push(format!("{more} more volumes are not listed here"));
    }
    (reason, cut(&parts.join("; ")))
}
