//! A small cluster for restores.

use super::super::*;
use crate::kube::api::{
    ExistingClaim, NewClaim, RestoreCounts, RestoreProgress, RestoreTarget, Scaled,
};
use crate::kube::facts::Controller;
use crate::kube::restores::scene::{Choice, Claim, ClaimWanted, End, Helper, Job, User};
use RestorePhase as P;

/// A cluster in which everything takes one step.
#[derive(Clone)]
pub struct Model {
    pub claim: Option<Claim>,
    pub users: Vec<User>,
    pub mount_pod: Helper,
    pub restore_pod: Helper,
    pub replicas: i32,
    pub job: Option<(String, Job)>,
    pub ends: Vec<End>,
    pub now: Timestamp,
    pub jobs: u32,
    pub held: bool,
    pub deleting: bool,
    pub is_read: bool,
    pub choice: Result<Choice, Failure>,
    pub wrote: Vec<Written>,
    /// Who serves the volume where somebody has it.
    pub node: &'static str,
}

fn place() -> Place {
    Place {
        shown: "/k/v".into(),
        root: "/k/v/mount".into(),
    }
}

fn user(name: &str, node: Option<&str>) -> User {
    User {
        name: name.to_owned(),
        directory: format!("uid-{name}"),
        node: node.map(str::to_owned),
        ending: false,
        ended: false,
        is_known_mounted: true,
        controller: Some(Controller {
            kind: "StatefulSet".to_owned(),
            name: "db".to_owned(),
        }),
        place: Ok(place()),
    }
}

pub fn done() -> End {
    End::Done {
        snapshot: "5afe".to_owned(),
        counts: RestoreCounts::default(),
        problems: Vec::new(),
        problem_count: 0,
        detail: String::new(),
    }
}

impl Model {
    pub fn new() -> Self {
        Self {
            claim: None,
            users: Vec::new(),
            mount_pod: Helper::Absent,
            restore_pod: Helper::Absent,
            replicas: 1,
            job: None,
            ends: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
            jobs: 0,
            held: false,
            deleting: false,
            is_read: false,
            choice: Ok(Choice {
                id: "abcd".to_owned(),
                volume: "shop/orders".to_owned(),
                begun: Timestamp::UNIX_EPOCH,
                entries: 12,
                files: 10,
                bytes: 1000,
                new_claim: Some(Ok(ClaimWanted {
                    storage_class: None,
                    size: "1Gi".to_owned(),
                    access_modes: vec!["ReadWriteOnce".to_owned()],
                })),
            }),
            wrote: Vec::new(),
            node: "node-1",
        }
    }

    /// With a claim that one pod uses.
    pub fn in_use() -> Self {
        Self {
            claim: Some(Claim {
                uid: "c".to_owned(),
                is_ours: false,
                is_marked: false,
            }),
            users: vec![user("db-0", Some("node-1"))],
            ..Self::new()
        }
    }

    pub fn scene(&self, status: &RestoreStatus) -> Scene {
        let asked = status.job.as_ref().map(|job| &job.id);
        let mounted = |helper: &Helper| matches!(helper, Helper::There { .. });
        let is_used = self.users.iter().any(|user| !user.ending) || mounted(&self.mount_pod);
        Scene {
            now: self.now,
            fresh_job: format!("job-{}", self.jobs),
            deleting: self.deleting,
            held: self.held,
            choice: Some(self.choice.clone()),
            claim: self.claim.clone(),
            users: self.users.clone(),
            served: is_used.then(|| self.node.to_owned()),
            is_read: self.is_read,
            refused: None,
            mount_pod: self.mount_pod.clone(),
            restore_pod: self.restore_pod.clone(),
            is_connected: mounted(&self.restore_pod),
            is_settled: true,
            may_mount: true,
            owners: Ok(match self.users.iter().any(|user| !user.ending) {
                true => vec![Scaled {
                    kind: "StatefulSet".to_owned(),
                    name: "db".to_owned(),
                    replicas: self.replicas,
                    restored: false,
                }],
                false => Vec::new(),
            }),
            replicas: vec![(
                Scaled {
                    kind: "StatefulSet".to_owned(),
                    name: "db".to_owned(),
                    ..Scaled::default()
                },
                Some(self.replicas),
            )],
            job: self
                .job
                .as_ref()
                .filter(|(id, _)| Some(id) == asked)
                .map(|(_, job)| job.clone()),
        }
    }

    pub fn act(&mut self, action: &Action) {
        let helper = |node: &str| Helper::There {
            user: user("helper", Some(node)),
            why: String::new(),
        };
        match action {
            Action::Hold => self.held = true,
            Action::LetGo => self.held = false,
            Action::MakeClaim(_) => {
                self.claim.get_or_insert(Claim {
                    uid: "new".to_owned(),
                    is_ours: true,
                    is_marked: false,
                });
            }
            Action::MarkClaim => {
                if let Some(claim) = &mut self.claim {
                    claim.is_marked = true;
                }
            }
            Action::MakeMountPod { .. } => self.mount_pod = helper("node-1"),
            Action::DeleteMountPod => self.mount_pod = Helper::Absent,
            Action::MakeRestorePod { node, .. } => self.restore_pod = helper(node),
            Action::DeleteRestorePod => self.restore_pod = Helper::Absent,
            Action::BackUp { job, .. } => self.begin(job),
            Action::Write { job, order } => {
                if self.job.as_ref().is_none_or(|(known, _)| known != job) {
                    self.wrote.push(order.clone());
                }
                self.begin(job);
            }
            Action::CancelJob(id) => {
                if let Some((known, job)) = &mut self.job
                    && known == id
                    && job.end.is_none()
                {
                    job.end = Some(End::Cancelled);
                }
            }
            Action::Scale { replicas, .. } => {
                self.replicas = *replicas;
                match replicas {
                    0 => self.users.clear(),
                    _ => self.users = vec![user("db-0", Some("node-1"))],
                }
            }
        }
    }

    /// A job ends at the next look, the way that is next in the list.
    fn begin(&mut self, id: &str) {
        if self.job.as_ref().is_some_and(|(known, _)| known == id) {
            return;
        }
        self.jobs += 1;
        let end = match self.ends.is_empty() {
            true => done(),
            false => self.ends.remove(0),
        };
        let job = Job {
            end: Some(end),
            progress: RestoreProgress::default(),
        };
        self.job = Some((id.to_owned(), job));
    }

    /// Runs to the end; the phases that it went through.
    pub fn run(&mut self, spec: &RestoreSpec, from: RestoreStatus) -> (RestoreStatus, Vec<P>) {
        let mut status = from;
        let mut phases = Vec::new();
        for _ in 0..100 {
            let step = next(spec, &status, &self.scene(&status));
            status = step.status;
            for action in &step.actions {
                self.act(action);
            }
            let phase = status.phase.unwrap_or_default();
            if phases.last() != Some(&phase) {
                phases.push(phase);
            }
            if phase.is_final() && !self.held {
                return (status, phases);
            }
            self.now += SignedDuration::from_secs(1);
        }
        panic!("it does not end: {phases:?} {status:?}");
    }

    pub fn is_clean(&self) -> bool {
        self.mount_pod == Helper::Absent && self.restore_pod == Helper::Absent && !self.held
    }
}

pub fn into_new() -> RestoreSpec {
    RestoreSpec {
        target: RestoreTarget {
            new_claim: Some(NewClaim {
                name: "orders-2".to_owned(),
                ..NewClaim::default()
            }),
            existing_claim: None,
        },
        ..RestoreSpec::default()
    }
}

pub fn in_place() -> RestoreSpec {
    RestoreSpec {
        target: RestoreTarget {
            new_claim: None,
            existing_claim: Some(ExistingClaim {
                name: "orders".to_owned(),
            }),
        },
        ..RestoreSpec::default()
    }
}

pub fn careful() -> RestoreSpec {
    RestoreSpec {
        scale_down: true,
        rollback: true,
        verify: true,
        ..in_place()
    }
}

pub fn failed(reason: &str) -> End {
    End::Failed(Failure::new(reason, "it broke"))
}

pub fn partly() -> End {
    End::Done {
        snapshot: String::new(),
        counts: RestoreCounts::default(),
        problems: Vec::new(),
        problem_count: 3,
        detail: String::new(),
    }
}

pub fn differing() -> End {
    End::Done {
        snapshot: String::new(),
        counts: RestoreCounts {
            replaced: 2,
            ..RestoreCounts::default()
        },
        problems: Vec::new(),
        problem_count: 0,
        detail: String::new(),
    }
}
