//! What a restore does next: a pure function of what was asked for, what was done, and one look at the world.
//!
//! A step's status is written before its actions are done, and every action may be done twice. So a coordinator that
//! was killed anywhere goes on, and what was scaled down or made is known to the one that comes after it.

mod end;
mod mounting;
mod scaling;
mod work;

use super::scene::{Choice, Failure, Scene};
use crate::kube::api::{
    ChosenSnapshot, RestoreJob, RestorePhase, RestoreSpec, RestoreStatus, RestoredClaim,
};
use crate::kube::pods::{Access, Place};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long pods may take to go.
pub const SCALE_DOWN_LIMIT: SignedDuration = SignedDuration::from_mins(10);
/// How long a volume may take to be mounted.
pub const MOUNT_LIMIT: SignedDuration = SignedDuration::from_mins(15);
/// How often a job is begun anew because its pod, its node or its mount was lost.
pub const ATTEMPTS: i32 = 5;

/// What is done to the world. Each may be done again.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Holds the Restore against deletion.
    Hold,
    /// Lets it go.
    LetGo,
    /// Makes the claim.
    MakeClaim(super::scene::ClaimWanted),
    /// Writes on the claim what it holds.
    MarkClaim,
    /// Makes the pod that mounts the claim.
    MakeMountPod {
        /// Nothing will be written.
        read_only: bool,
    },
    /// Deletes it.
    DeleteMountPod,
    /// Makes the pod that writes.
    MakeRestorePod {
        /// The node that has the volume.
        node: String,
        /// Where.
        place: Place,
        /// What it may do.
        access: Access,
    },
    /// Deletes it.
    DeleteRestorePod,
    /// Backs the claim up as it is.
    BackUp {
        /// The job.
        job: String,
        /// The node whose agent reads it.
        node: String,
    },
    /// Writes a snapshot, or compares with one.
    Write {
        /// The job.
        job: String,
        /// What.
        order: Written,
    },
    /// Stops a job.
    CancelJob(String),
    /// Sets replicas.
    Scale {
        /// Of this kind.
        kind: String,
        /// And name.
        name: String,
        /// To so many.
        replicas: i32,
    },
}

/// What a restore pod is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The snapshot.
    pub snapshot: String,
    /// A part of it.
    pub path: String,
    /// Where to.
    pub place: Place,
    /// Below the volume's root.
    pub target_path: String,
    /// Remove what is not in the snapshot.
    pub delete_extras: bool,
    /// Special files too.
    pub special: bool,
    /// Write nothing.
    pub dry_run: bool,
}

/// A step: what is written down, then done.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    /// The status.
    pub status: RestoreStatus,
    /// The actions, in order.
    pub actions: Vec<Action>,
}

/// The step, while it is being decided.
struct Deciding<'a> {
    spec: &'a RestoreSpec,
    scene: &'a Scene,
    status: RestoreStatus,
    actions: Vec<Action>,
}

/// Decides.
pub fn next(spec: &RestoreSpec, status: &RestoreStatus, scene: &Scene) -> Next {
    let mut deciding = Deciding {
        spec,
        scene,
        status: status.clone(),
        actions: Vec::new(),
    };
    deciding.decide();
    Next {
        status: deciding.status,
        actions: deciding.actions,
    }
}

/// What a step becomes when an action of it was refused for good.
pub fn refused(
    spec: &RestoreSpec,
    status: &RestoreStatus,
    scene: &Scene,
    failure: &Failure,
) -> RestoreStatus {
    let mut deciding = Deciding {
        spec,
        scene,
        status: status.clone(),
        actions: Vec::new(),
    };
    match deciding.phase() {
        // What must be undone is tried for as long as it takes.
        RestorePhase::ScalingUp => {
            deciding.status.message = Some(failure.message.clone());
        }
        RestorePhase::Pending if deciding.status.claim.is_none() => {
            deciding.end(RestorePhase::Failed, Some(failure));
        }
        RestorePhase::Restoring | RestorePhase::Verifying => deciding.fall_back(failure),
        phase if phase.is_final() => {}
        _ => deciding.wind_down(RestorePhase::Failed, Some(failure)),
    }
    deciding.status
}

impl Deciding<'_> {
    fn phase(&self) -> RestorePhase {
        self.status.phase.unwrap_or_default()
    }

    /// Whether it is to stop.
    fn is_stopping(&self) -> bool {
        self.spec.cancel || self.scene.deleting
    }

    fn decide(&mut self) {
        let phase = self.phase();
        if phase.is_final() {
            if self.scene.held {
                self.actions.push(Action::LetGo);
            }
            return;
        }
        if !self.scene.held {
            // Nothing was done yet, and of what is being deleted nothing will be.
            if !self.scene.deleting {
                self.actions.push(Action::Hold);
            }
            return;
        }
        if self.status.phase.is_none() {
            self.enter(RestorePhase::Pending, "looks for the snapshot");
        }
        match phase {
            RestorePhase::Pending => self.pending(),
            RestorePhase::ScalingDown => self.scaling_down(),
            RestorePhase::Mounting => self.mounting(),
            RestorePhase::SafetySnapshot => self.safety_snapshot(),
            RestorePhase::Restoring | RestorePhase::Verifying | RestorePhase::RollingBack => {
                self.working();
            }
            RestorePhase::ScalingUp => self.scaling_up(),
            RestorePhase::Completed
            | RestorePhase::PartiallyFailed
            | RestorePhase::Failed
            | RestorePhase::RolledBack
            | RestorePhase::Cancelled => {}
        }
    }

    fn pending(&mut self) {
        if self.status.claim.is_some() {
            return self.claiming();
        }
        if self.is_stopping() {
            return self.end(RestorePhase::Cancelled, None);
        }
        let choice = match &self.scene.choice {
            None => return,
            Some(Err(failure)) => return self.end(RestorePhase::Failed, Some(failure)),
            Some(Ok(choice)) => choice,
        };
        self.status.start_time = Some(Time(self.scene.now));
        self.status.snapshot = Some(ChosenSnapshot {
            id: choice.id.clone(),
            volume: choice.volume.clone(),
            time: Some(Time(choice.begun)),
        });
        match (
            &self.spec.target.new_claim,
            &self.spec.target.existing_claim,
        ) {
            (Some(wanted), _) => {
                let claim = match &choice.new_claim {
                    Some(Err(failure)) => return self.end(RestorePhase::Failed, Some(failure)),
                    Some(Ok(claim)) => claim,
                    None => return,
                };
                if self.spec.dry_run {
                    return self.told(choice, &wanted.name, claim);
                }
                self.status.claim = Some(RestoredClaim {
                    name: wanted.name.clone(),
                    uid: None,
                });
                self.actions.push(Action::MakeClaim(claim.clone()));
            }
            (None, Some(existing)) => {
                let Some(claim) = &self.scene.claim else {
                    let message = format!("there is no claim {} in this namespace", existing.name);
                    let missing = Failure::new("ClaimMissing", message);
                    return self.end(RestorePhase::Failed, Some(&missing));
                };
                self.status.claim = Some(RestoredClaim {
                    name: existing.name.clone(),
                    uid: Some(claim.uid.clone()),
                });
                match self.spec.scale_down && !self.spec.dry_run {
                    true => self.enter(
                        RestorePhase::ScalingDown,
                        "waits for the pods that use the claim to go",
                    ),
                    false => self.enter(
                        RestorePhase::Mounting,
                        "waits for a node that has the volume",
                    ),
                }
            }
            // No API server lets this pass.
            (None, None) => {
                let wrong = Failure::new("TargetMissing", "spec.target names no claim");
                self.end(RestorePhase::Failed, Some(&wrong));
            }
        }
    }

    /// A new claim is waited for.
    fn claiming(&mut self) {
        if self.is_stopping() {
            return self.wind_down(RestorePhase::Cancelled, None);
        }
        match &self.scene.claim {
            Some(claim) if claim.is_ours => {
                if let Some(named) = &mut self.status.claim {
                    named.uid = Some(claim.uid.clone());
                }
                self.enter(
                    RestorePhase::Mounting,
                    "waits for the new claim to be bound and mounted",
                );
            }
            Some(_) => {
                let message = "a claim of this name is there already; restore into it with target.existingClaim, or \
                               name another one"
                    .to_owned();
                let exists = Failure::new("ClaimExists", message);
                self.wind_down(RestorePhase::Failed, Some(&exists));
            }
            None => match &self.scene.choice {
                Some(Ok(Choice {
                    new_claim: Some(Ok(claim)),
                    ..
                })) => self.actions.push(Action::MakeClaim(claim.clone())),
                // What it was to be is known no longer.
                Some(Ok(Choice {
                    new_claim: Some(Err(failure)),
                    ..
                }))
                | Some(Err(failure)) => self.wind_down(RestorePhase::Failed, Some(failure)),
                _ => {}
            },
        }
    }

    /// A dry run for a claim that is not there: everything would be made.
    fn told(&mut self, choice: &Choice, name: &str, claim: &super::scene::ClaimWanted) {
        self.status.counts = Some(crate::kube::api::RestoreCounts {
            created: choice.entries,
            written_bytes: choice.bytes,
            ..Default::default()
        });
        let class = claim.storage_class.as_deref();
        let whole = match &self.spec.path {
            Some(path) => format!("{path} of a snapshot of"),
            None => "a snapshot of".to_owned(),
        };
        let message = format!(
            "would make claim {name} ({}, {}, {}) and restore into it {whole} {} files, {} bytes",
            claim.size,
            claim.access_modes.join(", "),
            class.map_or("the usual storage class".to_owned(), |class| format!(
                "storage class {class}"
            )),
            choice.files,
            choice.bytes,
        );
        self.end(RestorePhase::Completed, None);
        self.status.message = Some(message);
    }

    fn enter(&mut self, phase: RestorePhase, message: &str) {
        if self.status.phase != Some(phase) {
            self.status.phase_since = Some(Time(self.scene.now));
        }
        self.status.phase = Some(phase);
        self.status.reason = None;
        self.status.message = Some(message.to_owned());
    }

    /// Whether the phase has taken longer than it may.
    fn is_late(&self, limit: SignedDuration) -> bool {
        let since = self.status.phase_since.as_ref();
        let since = since.map_or(self.scene.now, |since| since.0);
        self.scene.now.duration_since(since) > limit
    }

    /// A new job for the phase.
    fn new_job(&mut self, phase: RestorePhase, attempt: i32) -> String {
        let id = self.scene.fresh_job.clone();
        self.status.job = Some(RestoreJob {
            id: id.clone(),
            phase,
            attempt,
        });
        id
    }

    fn attempt(&self) -> i32 {
        self.status.job.as_ref().map_or(0, |job| job.attempt)
    }
}

/// A moment as statuses have it.
pub fn moment(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(ns.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
