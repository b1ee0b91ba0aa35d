//! What makes the pods that use the claim is scaled down before, and up again whatever happened in between.

use super::{Action, Deciding, Failure, SCALE_DOWN_LIMIT};
use crate::kube::api::{RestorePhase, Scaled};
use crate::kube::restores::scene::Helper;
use jiff::SignedDuration;

/// Things that may be scaled down for one claim, as the status has room for.
pub const MAX_SCALED: usize = 16;
/// How long our pods may take to go before others are let in: their node may be lost.
const HELPERS_LIMIT: SignedDuration = SignedDuration::from_mins(5);
/// And theirs, to come back: something may be against that.
pub const BACK_LIMIT: SignedDuration = SignedDuration::from_mins(6);

impl Deciding<'_> {
    pub(super) fn scaling_down(&mut self) {
        if self.is_stopping() {
            return self.wind_down(RestorePhase::Cancelled, None);
        }
        if !self.has_claim() {
            return;
        }
        let owners = match &self.scene.owners {
            Ok(owners) => owners.clone(),
            Err(failure) => {
                let failure = failure.clone();
                return self.wind_down(RestorePhase::Failed, Some(&failure));
            }
        };
        for owner in owners {
            let is_known = |known: &Scaled| known.kind == owner.kind && known.name == owner.name;
            if self.status.scaled.iter().any(is_known) {
                continue;
            }
            if self.status.scaled.len() >= MAX_SCALED {
                let message =
                    format!("more than {MAX_SCALED} objects make pods that use the claim");
                let failure = Failure::new("CannotScaleDown", message);
                return self.wind_down(RestorePhase::Failed, Some(&failure));
            }
            self.status.scaled.push(owner);
        }
        for scaled in &self.status.scaled {
            if self.current(scaled) != Some(0) {
                self.actions.push(Action::Scale {
                    kind: scaled.kind.clone(),
                    name: scaled.name.clone(),
                    replicas: 0,
                });
            }
        }
        let mut left = self
            .scene
            .users
            .iter()
            .filter(|user| !user.ended)
            .peekable();
        if left.peek().is_none() {
            return self.enter(RestorePhase::Mounting, "waits for the mount pod");
        }
        let names: Vec<&str> = left.map(|user| &user.name[..]).take(5).collect();
        let message = format!("pods use the claim: {}", names.join(", "));
        if self.is_late(SCALE_DOWN_LIMIT) {
            let late = Failure::new("ScaleDownTimedOut", message);
            return self.wind_down(RestorePhase::Failed, Some(&late));
        }
        self.status.message = Some(message);
    }

    /// Its replicas now; what was only just found has those that it was found with.
    fn current(&self, scaled: &Scaled) -> Option<i32> {
        let mut all = self.scene.replicas.iter();
        let found = all.find(|(of, _)| of.kind == scaled.kind && of.name == scaled.name);
        match found {
            Some((_, replicas)) => Some(replicas.unwrap_or(0)),
            None => Some(scaled.replicas),
        }
    }

    pub(super) fn scaling_up(&mut self) {
        if let (Some(job), Some(known)) = (&self.status.job, &self.scene.job)
            && known.end.is_none()
            && !job.id.is_empty()
        {
            self.actions.push(Action::CancelJob(job.id.clone()));
        }
        let helpers = [
            (&self.scene.restore_pod, Action::DeleteRestorePod),
            (&self.scene.mount_pod, Action::DeleteMountPod),
        ];
        let mut is_gone = true;
        for (helper, delete) in helpers {
            match helper {
                Helper::Absent => {}
                Helper::Ending { deleted: true } => is_gone = false,
                Helper::Ending { deleted: false } | Helper::There { .. } => {
                    is_gone = false;
                    self.actions.push(delete);
                }
            }
        }
        // A pod of ours on another node would keep theirs from the volume.
        if !is_gone && !self.is_late(HELPERS_LIMIT) {
            return;
        }
        // Pods come back also where ours cannot be deleted.
        let deletes = std::mem::take(&mut self.actions);
        // Whoever scales down next does so by the pods that are there.
        let are_back = self.scene.users.iter().any(|user| !user.ended) || self.is_late(BACK_LIMIT);
        let mut is_up = true;
        for scaled in &mut self.status.scaled {
            let mut all = self.scene.replicas.iter();
            let found = all.find(|(of, _)| of.kind == scaled.kind && of.name == scaled.name);
            match found {
                _ if scaled.restored => {}
                // What somebody else has scaled, or deleted, is theirs.
                Some((_, None)) => scaled.restored = true,
                // As is what was at 0 already.
                Some((_, Some(_))) if scaled.replicas == 0 => scaled.restored = true,
                Some((_, Some(now))) if *now != 0 => match are_back {
                    true => scaled.restored = true,
                    false => is_up = false,
                },
                Some(_) => {
                    is_up = false;
                    self.actions.push(Action::Scale {
                        kind: scaled.kind.clone(),
                        name: scaled.name.clone(),
                        replicas: scaled.replicas,
                    });
                }
                // It could not be asked for.
                None => is_up = false,
            }
        }
        self.actions.extend(deletes);
        let outcome = self.status.outcome.unwrap_or(RestorePhase::Failed);
        let is_filled = matches!(
            outcome,
            RestorePhase::Completed | RestorePhase::PartiallyFailed
        );
        if let Some(claim) = &self.scene.claim
            && is_filled
            && claim.is_ours
            && !claim.is_marked
        {
            is_up = false;
            self.actions.push(Action::MarkClaim);
        }
        if is_up {
            self.end(outcome, None);
        }
    }
}
