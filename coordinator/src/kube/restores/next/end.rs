//! How a restore ends: what is written down, and what is undone before.

use super::{Deciding, Failure};
use crate::kube::api::{RestoreCounts, RestorePhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

impl Deciding<'_> {
    /// It ends like this, after what is in the way was undone.
    pub(super) fn wind_down(&mut self, outcome: RestorePhase, failure: Option<&Failure>) {
        self.enter(RestorePhase::ScalingUp, "cleans up");
        self.status.outcome = Some(outcome);
        self.because(failure);
    }

    /// It did not succeed: the safety snapshot is put back if that was asked for.
    pub(super) fn fall_back(&mut self, failure: &Failure) {
        match self.may_roll_back() {
            true => {
                self.enter(RestorePhase::RollingBack, "puts the safety snapshot back");
                self.status.outcome = Some(RestorePhase::RolledBack);
                self.because(Some(failure));
            }
            false => self.wind_down(RestorePhase::Failed, Some(failure)),
        }
    }

    pub(super) fn may_roll_back(&self) -> bool {
        let is_written = !self.spec.dry_run && self.status.outcome.is_none();
        self.spec.rollback && is_written && self.status.safety_snapshot.is_some()
    }

    fn because(&mut self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.status.reason = Some(failure.reason.clone());
            self.status.message = Some(cut(&failure.message));
        }
    }

    /// It has ended.
    pub(super) fn end(&mut self, outcome: RestorePhase, failure: Option<&Failure>) {
        let now = Time(self.scene.now);
        self.because(failure);
        if failure.is_none() && self.status.reason.is_none() {
            self.status.message = Some(match outcome {
                RestorePhase::Cancelled => "it was cancelled".to_owned(),
                _ => self.summary(),
            });
        }
        self.status.phase = Some(outcome);
        self.status.phase_since = Some(now.clone());
        self.status.outcome = None;
        self.status.start_time.get_or_insert(now.clone());
        self.status.completion_time = Some(now);
        let is_complete = outcome == RestorePhase::Completed;
        let reason = self.status.reason.clone();
        let reason = reason.unwrap_or_else(|| format!("{outcome:?}"));
        let message = self.status.message.clone().unwrap_or_default();
        self.status.conditions = vec![
            self.condition("Complete", is_complete, &reason, &message),
            self.condition("Finished", true, &format!("{outcome:?}"), &message),
        ];
    }

    fn condition(&self, type_: &str, holds: bool, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(self.scene.now),
            observed_generation: self.status.observed_generation,
        }
    }

    fn summary(&self) -> String {
        let RestoreCounts {
            created,
            replaced,
            metadata,
            deleted,
            kept,
            written_bytes,
        } = self.status.counts.clone().unwrap_or_default();
        let would = if self.spec.dry_run { "would have " } else { "" };
        let mut said = format!(
            "{would}created {created}, replaced {replaced}, set metadata of {metadata}, deleted {deleted}, kept {kept} \
             paths; {would}written {written_bytes} bytes"
        );
        if let Some(count) = self.status.problem_count.filter(|count| *count > 0) {
            said.push_str(&format!("; {count} paths are not as in the snapshot"));
        }
        said
    }
}

/// A text that fits.
pub fn cut(text: &str) -> String {
    const MAX: usize = 2000;
    match text.char_indices().nth(MAX) {
        Some((at, _)) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}
