//! The work on the node: the safety snapshot by the node's agent, and what a restore pod writes or compares.

use super::{Action, Deciding, Failure, MOUNT_LIMIT, Written};
use crate::kube::api::{ChosenSnapshot, RestoreCounts, RestorePhase};
use crate::kube::pods::Access;
use crate::kube::restores::scene::{End, Helper};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What the hub says of a job whose agent is gone.
const AGENT_LOST: &str = "AgentLost";
/// Words of agents for what may be over in a moment: this process was away, or its store.
const OVER_SOON: [&str; 3] = ["CoordinatorUnavailable", "StoreUnavailable", "ShuttingDown"];

/// Whether the work may go well when it is begun again.
fn is_lost(failure: &Failure) -> bool {
    failure.reason == AGENT_LOST || OVER_SOON.contains(&&failure.reason[..])
}

impl Deciding<'_> {
    pub(super) fn safety_snapshot(&mut self) {
        if self.is_stopping() {
            return self.wind_down(RestorePhase::Cancelled, None);
        }
        if !self.has_claim() {
            return;
        }
        if self.is_mounted().is_none() {
            return self.lost("the pod that had the volume is gone");
        }
        let node = self.status.node.clone().unwrap_or_default();
        let phase = RestorePhase::SafetySnapshot;
        let end = self.job(phase, |job| Action::BackUp {
            job,
            node: node.clone(),
        });
        match end {
            None => {}
            Some(End::Done { snapshot, .. }) => {
                let volume = self.status.claim.as_ref().map(|claim| claim.name.clone());
                self.status.safety_snapshot = Some(ChosenSnapshot {
                    id: snapshot,
                    volume: volume.unwrap_or_default(),
                    time: Some(Time(self.scene.now)),
                });
                self.enter(RestorePhase::Restoring, "waits for the restore pod");
            }
            Some(End::Failed(failure)) if is_lost(&failure) => {
                self.lost(&failure.message);
            }
            Some(End::Failed(failure)) => {
                let message = format!(
                    "nothing was written, since the claim could not be backed up first: {} ({})",
                    failure.message, failure.reason
                );
                let failure = Failure::new("SafetySnapshotFailed", message);
                self.wind_down(RestorePhase::Failed, Some(&failure));
            }
            Some(End::Cancelled) => {
                let message = "nothing was written, since the backup of the claim was cancelled";
                let failure = Failure::new("SafetySnapshotFailed", message);
                self.wind_down(RestorePhase::Failed, Some(&failure));
            }
        }
    }

    /// Restoring, verifying, rolling back.
    pub(super) fn working(&mut self) {
        let phase = self.phase();
        if self.is_stopping() && phase != RestorePhase::RollingBack {
            return self.stop_work();
        }
        if !self.has_claim() {
            return;
        }
        let Some(user) = self.is_mounted() else {
            return self.lost("the pod that had the volume is gone");
        };
        let place = match &user.place {
            Ok(place) => place.clone(),
            Err(failure) => {
                let failure = failure.clone();
                return self.wind_down(RestorePhase::Failed, Some(&failure));
            }
        };
        match &self.scene.restore_pod {
            Helper::Absent => {
                let node = self.status.node.clone().unwrap_or_default();
                self.actions.push(Action::MakeRestorePod {
                    node,
                    place,
                    access: Access {
                        read_only: self.spec.dry_run,
                        // What is put back may have them.
                        special: self.spec.special || self.spec.rollback,
                    },
                });
                return;
            }
            Helper::Ending { deleted } => {
                if !deleted {
                    self.actions.push(Action::DeleteRestorePod);
                }
                return;
            }
            Helper::There { user, .. } if user.node != self.status.node => {
                // Of a mount before this one.
                self.actions.push(Action::DeleteRestorePod);
                return;
            }
            Helper::There { why, .. } if !self.scene.is_connected => {
                let is_known = self.scene.job.is_some();
                if !is_known && self.is_late(MOUNT_LIMIT) && self.scene.is_settled {
                    let what = format!("the restore pod did not connect: {why}");
                    return self.lost(&what);
                }
                if self.status.outcome.is_none() && !why.is_empty() {
                    self.status.message = Some(format!("waits for the restore pod: {why}"));
                }
                if !is_known {
                    return;
                }
            }
            Helper::There { .. } => {}
        }
        let order = self.order(phase, place);
        let Some(end) = self.job(phase, |job| Action::Write { job, order }) else {
            return;
        };
        match end {
            End::Failed(failure) if is_lost(&failure) => self.lost(&failure.message),
            end => self.worked(phase, end),
        }
    }

    fn order(&self, phase: RestorePhase, place: crate::kube::pods::Place) -> Written {
        let is_back = phase == RestorePhase::RollingBack;
        let chosen = match is_back {
            true => &self.status.safety_snapshot,
            false => &self.status.snapshot,
        };
        let id = chosen.as_ref().map(|chosen| chosen.id.clone());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        match is_back {
            // All of the volume: what the restore had made anywhere goes.
            true => Written {
                snapshot: id.unwrap_or_default(),
                path: String::new(),
                place,
                target_path: String::new(),
                delete_extras: true,
                special: true,
                dry_run: false,
            },
            false => Written {
                snapshot: id.unwrap_or_default(),
                path: text(&self.spec.path),
                place,
                target_path: text(&self.spec.target_path),
                delete_extras: self.spec.delete_extras,
                special: self.spec.special,
                dry_run: self.spec.dry_run || phase == RestorePhase::Verifying,
            },
        }
    }

    fn worked(&mut self, phase: RestorePhase, end: End) {
        match (phase, end) {
            (
                RestorePhase::RollingBack,
                End::Done {
                    problem_count: 0, ..
                },
            ) => {
                let reason = self.status.reason.take();
                let message = self.status.message.take();
                self.wind_down(RestorePhase::RolledBack, None);
                self.status.reason = reason;
                self.status.message = message;
            }
            (RestorePhase::RollingBack, end) => {
                let why = match end {
                    End::Failed(failure) => failure.message,
                    End::Cancelled => "it was cancelled".to_owned(),
                    End::Done { problem_count, .. } => format!("{problem_count} paths differ"),
                };
                let first = self.status.message.clone().unwrap_or_default();
                let message = format!(
                    "{first}; and the safety snapshot {} could not be put back: {why}",
                    self.status
                        .safety_snapshot
                        .as_ref()
                        .map_or("", |snapshot| &snapshot.id)
                );
                let failure = Failure::new("RollbackFailed", message);
                self.wind_down(RestorePhase::Failed, Some(&failure));
            }
            (RestorePhase::Verifying, End::Done { counts, .. }) => self.verified(&counts),
            (
                _,
                End::Done {
                    counts,
                    problems,
                    problem_count,
                    detail,
                    ..
                },
            ) => {
                self.status.counts = Some(counts);
                self.status.problems = problems;
                self.status.problem_count = Some(problem_count);
                self.written(problem_count, &detail);
            }
            (_, End::Failed(failure)) => self.fall_back(&failure),
            (_, End::Cancelled) => self.stopped(),
        }
    }

    fn written(&mut self, problems: i64, detail: &str) {
        if self.spec.dry_run {
            self.wind_down(RestorePhase::Completed, None);
            return;
        }
        if problems > 0 {
            let first = self.status.problems.first();
            let first = first.map(|it| format!(", first {}: {}", it.path, it.message));
            let message = format!(
                "{problems} paths are not as in the snapshot{}",
                first.unwrap_or_default()
            );
            let failure = Failure::new("PathsFailed", message);
            return match self.may_roll_back() {
                true => self.fall_back(&failure),
                false => self.wind_down(RestorePhase::PartiallyFailed, Some(&failure)),
            };
        }
        if !detail.is_empty() {
            tracing::info!(detail, "restored");
        }
        match self.spec.verify {
            true => self.enter(
                RestorePhase::Verifying,
                "compares the volume with the snapshot",
            ),
            false => self.wind_down(RestorePhase::Completed, None),
        }
    }

    fn verified(&mut self, found: &RestoreCounts) {
        // What is beside the snapshot's files is only looked at where it was to be removed.
        let differ = found.created + found.replaced + found.metadata + found.deleted;
        if differ == 0 {
            return self.wind_down(RestorePhase::Completed, None);
        }
        let message = format!(
            "{differ} paths differ from the snapshot after it was restored: {} are missing, {} have other content, {} \
             other metadata, {} are too many{}",
            found.created,
            found.replaced,
            found.metadata,
            found.deleted,
            match self.scene.users.iter().any(|user| !user.ending) {
                true => "; pods use the volume and may have changed it",
                false => "",
            }
        );
        self.fall_back(&Failure::new("VerificationFailed", message));
    }

    /// The job of a phase: begun where there is none, told again to whoever does not know it. How it ended.
    fn job(&mut self, phase: RestorePhase, begin: impl FnOnce(String) -> Action) -> Option<End> {
        let known = self.status.job.as_ref();
        let known = known.filter(|job| job.phase == phase && !job.id.is_empty());
        let Some(known) = known else {
            let attempt = self.attempt();
            let id = self.new_job(phase, attempt);
            self.actions.push(begin(id));
            return None;
        };
        match &self.scene.job {
            // An agent that has it already does not begin it again.
            None => {
                let id = known.id.clone();
                self.actions.push(begin(id));
                None
            }
            Some(job) => {
                if phase == RestorePhase::Restoring {
                    self.status.progress = Some(job.progress.clone());
                    if job.end.is_none() {
                        self.status.message = Some("writes files".to_owned());
                    }
                }
                job.end.clone()
            }
        }
    }

    /// The work is to stop, and has when its agent says so or is gone.
    fn stop_work(&mut self) {
        let job = self.status.job.clone().filter(|job| !job.id.is_empty());
        let runs = self.scene.job.as_ref().is_some_and(|job| job.end.is_none());
        match job {
            Some(job) if runs => self.actions.push(Action::CancelJob(job.id)),
            _ => self.stopped(),
        }
    }

    fn stopped(&mut self) {
        let was_written = self.status.job.as_ref().is_some_and(|job| {
            matches!(job.phase, RestorePhase::Restoring | RestorePhase::Verifying)
        });
        match was_written && self.may_roll_back() {
            true => self.fall_back(&Failure::new("Cancelled", "it was cancelled")),
            false => self.wind_down(RestorePhase::Cancelled, None),
        }
    }
}
