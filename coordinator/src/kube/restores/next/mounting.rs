//! A node is to have the volume: through a pod that uses it anyway, else through one of ours.

use super::{Action, Deciding, Failure, MOUNT_LIMIT};
use crate::kube::api::{RestoreJob, RestorePhase, ThroughPod};
use crate::kube::restores::scene::{Helper, User};

impl Deciding<'_> {
    /// Whether the claim is the one it was; otherwise the restore is over.
    pub(super) fn has_claim(&mut self) -> bool {
        let named = self.status.claim.as_ref();
        let uid = named.and_then(|claim| claim.uid.as_deref());
        let there = self.scene.claim.as_ref().map(|claim| &claim.uid[..]);
        if there.is_some() && there == uid {
            return true;
        }
        let gone = Failure::new("ClaimGone", "the claim was deleted while it was restored");
        self.wind_down(RestorePhase::Failed, Some(&gone));
        false
    }

    /// The pod through which the node has the volume now, if it is one that is known to the node's agent.
    fn through(&self) -> Option<(&User, &str)> {
        let served = self.scene.served.as_deref()?;
        let mine = match &self.scene.mount_pod {
            Helper::There { user, .. } => Some(user),
            Helper::Absent | Helper::Ending { .. } => None,
        };
        let all = mine.into_iter().chain(&self.scene.users);
        let mut there = all.filter(|user| {
            !user.ending && user.is_known_mounted && user.node.as_deref() == Some(served)
        });
        there.next().map(|user| (user, served))
    }

    /// Whether the pod that was chosen still has it.
    pub(super) fn is_mounted(&self) -> Option<&User> {
        let chosen = self.status.pod.as_ref()?;
        let mine = match &self.scene.mount_pod {
            Helper::There { user, .. } => Some(user),
            Helper::Absent | Helper::Ending { .. } => None,
        };
        let mut all = mine.into_iter().chain(&self.scene.users);
        all.find(|user| {
            !user.ending && user.directory == chosen.uid && user.node == self.status.node
        })
    }

    pub(super) fn mounting(&mut self) {
        if self.is_stopping() && self.status.outcome.is_none() {
            // What was written already is taken back through the mount that is being waited for.
            let was_written = self.status.job.as_ref().is_some_and(|job| {
                matches!(job.phase, RestorePhase::Restoring | RestorePhase::Verifying)
            });
            if !(was_written && self.may_roll_back()) {
                return self.wind_down(RestorePhase::Cancelled, None);
            }
            self.status.outcome = Some(RestorePhase::RolledBack);
            self.status.reason = Some("Cancelled".to_owned());
        }
        if !self.has_claim() {
            return;
        }
        if let Some((user, node)) = self.through() {
            let (pod, node) = (
                ThroughPod {
                    name: user.name.clone(),
                    uid: user.directory.clone(),
                },
                node.to_owned(),
            );
            if let Err(failure) = &user.place {
                let failure = failure.clone();
                return self.wind_down(RestorePhase::Failed, Some(&failure));
            }
            if self.scene.is_read && !self.spec.dry_run {
                // Its snapshot would be half of what was there and half of what is written.
                let waits = "waits for the backup of the claim that is under way";
                self.status.message = Some(waits.to_owned());
                return;
            }
            self.status.pod = Some(pod);
            self.status.node = Some(node);
            return self.mounted();
        }
        if self.is_late(MOUNT_LIMIT) {
            let why = self.why_not_mounted();
            let late = Failure::new("MountTimedOut", format!("no node has the volume: {why}"));
            return self.wind_down(RestorePhase::Failed, Some(&late));
        }
        // A pod that is about to run, or to go, decides where the volume is.
        let has_user = self.scene.users.iter().any(|user| !user.ended);
        match &self.scene.mount_pod {
            Helper::Absent if has_user => {}
            Helper::Absent if !self.scene.may_mount => {
                let message = "no pod uses the claim, and pods that mount it for us are not to be made \
                               (coordinator.mountPods.enabled in the chart)";
                let off = Failure::new("MountPodsOff", message);
                return self.wind_down(RestorePhase::Failed, Some(&off));
            }
            Helper::Absent => self.actions.push(Action::MakeMountPod {
                read_only: self.spec.dry_run,
            }),
            Helper::Ending { deleted: false } => self.actions.push(Action::DeleteMountPod),
            Helper::Ending { deleted: true } | Helper::There { .. } => {}
        }
        self.status.message = Some(super::end::cut(&self.why_not_mounted()));
    }

    fn mounted(&mut self) {
        match (self.status.outcome, self.wants_safety()) {
            (Some(_), _) => {
                let reason = self.status.reason.take();
                self.enter(RestorePhase::RollingBack, "puts the safety snapshot back");
                self.status.reason = reason;
            }
            (None, true) => self.enter(RestorePhase::SafetySnapshot, "backs the claim up as it is"),
            (None, false) => self.enter(RestorePhase::Restoring, "waits for the restore pod"),
        }
    }

    fn wants_safety(&self) -> bool {
        let is_there = self.spec.target.existing_claim.is_some() && !self.spec.dry_run;
        let is_asked = self.spec.safety_snapshot.unwrap_or(true);
        is_there && is_asked && self.status.safety_snapshot.is_none()
    }

    fn why_not_mounted(&self) -> String {
        let pod = match &self.scene.mount_pod {
            Helper::There { why, .. } if !why.is_empty() => Some(why.clone()),
            _ => None,
        };
        let said: Vec<String> = pod.into_iter().chain(self.scene.refused.clone()).collect();
        match (said.is_empty(), self.scene.users.first()) {
            (false, _) => said.join("; "),
            (true, Some(user)) if !user.ended => format!("waits for pod {}", user.name),
            (true, _) => "waits for the mount pod".to_owned(),
        }
    }

    /// The mount, the pod or the node that the work went through is gone: once more from the mounting on.
    pub(super) fn lost(&mut self, what: &str) {
        let phase = self.phase();
        let attempt = self.attempt() + 1;
        if let Some(job) = &self.status.job
            && !job.id.is_empty()
        {
            self.actions.push(Action::CancelJob(job.id.clone()));
        }
        self.actions.push(Action::DeleteRestorePod);
        self.status.job = Some(RestoreJob {
            id: String::new(),
            phase,
            attempt,
        });
        if attempt > super::ATTEMPTS {
            let failure = Failure::new("TooManyAttempts", format!("{what}, {attempt} times"));
            return match phase {
                RestorePhase::RollingBack => {
                    let failure = Failure::new("RollbackFailed", failure.message);
                    self.wind_down(RestorePhase::Failed, Some(&failure));
                }
                // There is nothing to put it back through.
                _ => self.wind_down(RestorePhase::Failed, Some(&failure)),
            };
        }
        let reason = self.status.reason.take();
        self.enter(
            RestorePhase::Mounting,
            &format!("{what}; mounts the volume again"),
        );
        self.status.pod = None;
        if self.status.outcome.is_some() {
            self.status.reason = reason;
        }
    }
}
