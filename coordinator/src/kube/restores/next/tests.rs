//! The whole of a restore as a table, against a small model of a cluster; and that it goes on wherever its
//! coordinator was killed.

use super::*;
use crate::kube::api::{
    ExistingClaim, NewClaim, RestoreCounts, RestoreProgress, RestoreTarget, Scaled,
};
use crate::kube::facts::Controller;
use crate::kube::restores::scene::{Choice, Claim, ClaimWanted, End, Helper, Job, User};
use RestorePhase as P;

/// A cluster in which everything takes one step.
#[derive(Clone)]
struct Model {
    claim: Option<Claim>,
    users: Vec<User>,
    mount_pod: Helper,
    restore_pod: Helper,
    replicas: i32,
    job: Option<(String, Job)>,
    ends: Vec<End>,
    now: Timestamp,
    jobs: u32,
    held: bool,
    deleting: bool,
    choice: Result<Choice, Failure>,
    wrote: Vec<Written>,
    /// Who serves the volume where somebody has it.
    node: &'static str,
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

fn done() -> End {
    End::Done {
        snapshot: "5afe".to_owned(),
        counts: RestoreCounts::default(),
        problems: Vec::new(),
        problem_count: 0,
        detail: String::new(),
    }
}

impl Model {
    fn new() -> Self {
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
    fn in_use() -> Self {
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

    fn scene(&self, status: &RestoreStatus) -> Scene {
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

    fn act(&mut self, action: &Action) {
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
    fn run(&mut self, spec: &RestoreSpec, from: RestoreStatus) -> (RestoreStatus, Vec<P>) {
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

    fn is_clean(&self) -> bool {
        self.mount_pod == Helper::Absent && self.restore_pod == Helper::Absent && !self.held
    }
}

fn into_new() -> RestoreSpec {
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

fn in_place() -> RestoreSpec {
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

fn careful() -> RestoreSpec {
    RestoreSpec {
        scale_down: true,
        rollback: true,
        verify: true,
        ..in_place()
    }
}

fn failed(reason: &str) -> End {
    End::Failed(Failure::new(reason, "it broke"))
}

fn partly() -> End {
    End::Done {
        snapshot: String::new(),
        counts: RestoreCounts::default(),
        problems: Vec::new(),
        problem_count: 3,
        detail: String::new(),
    }
}

fn differing() -> End {
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

#[test]
fn restores_go_through_their_phases_and_leave_nothing_behind() {
    let unsafe_in_place = || RestoreSpec {
        safety_snapshot: Some(false),
        ..in_place()
    };
    let dry = |spec: RestoreSpec| RestoreSpec {
        dry_run: true,
        ..spec
    };
    type Case = (
        &'static str,
        RestoreSpec,
        Model,
        Vec<End>,
        Vec<P>,
        Option<&'static str>,
    );
    let cases: Vec<Case> = vec![
        (
            "a new claim",
            into_new(),
            Model::new(),
            vec![],
            vec![
                P::Pending,
                P::Mounting,
                P::Restoring,
                P::ScalingUp,
                P::Completed,
            ],
            None,
        ),
        (
            "of which a part failed",
            into_new(),
            Model::new(),
            vec![partly()],
            vec![
                P::Pending,
                P::Mounting,
                P::Restoring,
                P::ScalingUp,
                P::PartiallyFailed,
            ],
            Some("PathsFailed"),
        ),
        (
            "a dry run for a new claim touches nothing",
            dry(into_new()),
            Model::new(),
            vec![],
            vec![P::Pending, P::Completed],
            None,
        ),
        (
            "in place, with all care",
            careful(),
            Model::in_use(),
            vec![],
            vec![
                P::Pending,
                P::ScalingDown,
                P::Mounting,
                P::SafetySnapshot,
                P::Restoring,
                P::Verifying,
                P::ScalingUp,
                P::Completed,
            ],
            None,
        ),
        (
            "into the running volume, with no care",
            unsafe_in_place(),
            Model::in_use(),
            vec![],
            vec![
                P::Pending,
                P::Mounting,
                P::Restoring,
                P::ScalingUp,
                P::Completed,
            ],
            None,
        ),
        (
            "the safety snapshot fails",
            careful(),
            Model::in_use(),
            vec![failed("NoSpace")],
            vec![
                P::Pending,
                P::ScalingDown,
                P::Mounting,
                P::SafetySnapshot,
                P::ScalingUp,
                P::Failed,
            ],
            Some("SafetySnapshotFailed"),
        ),
        (
            "the restore fails and is rolled back",
            careful(),
            Model::in_use(),
            vec![done(), failed("NoSpace"), done()],
            vec![
                P::Pending,
                P::ScalingDown,
                P::Mounting,
                P::SafetySnapshot,
                P::Restoring,
                P::RollingBack,
                P::ScalingUp,
                P::RolledBack,
            ],
            Some("NoSpace"),
        ),
        (
            "what was written differs",
            careful(),
            Model::in_use(),
            vec![done(), done(), differing(), failed("NoSpace")],
            vec![
                P::Pending,
                P::ScalingDown,
                P::Mounting,
                P::SafetySnapshot,
                P::Restoring,
                P::Verifying,
                P::RollingBack,
                P::ScalingUp,
                P::Failed,
            ],
            Some("RollbackFailed"),
        ),
        (
            "the agent is lost and begun anew",
            into_new(),
            Model::new(),
            vec![failed("AgentLost"), done()],
            vec![
                P::Pending,
                P::Mounting,
                P::Restoring,
                P::Mounting,
                P::Restoring,
                P::ScalingUp,
                P::Completed,
            ],
            None,
        ),
        (
            "a dry run in place scales and saves nothing",
            dry(careful()),
            Model::in_use(),
            vec![],
            vec![
                P::Pending,
                P::Mounting,
                P::Restoring,
                P::ScalingUp,
                P::Completed,
            ],
            None,
        ),
        (
            "no such snapshot",
            careful(),
            Model {
                choice: Err(Failure::new("SnapshotMissing", "none")),
                ..Model::in_use()
            },
            vec![],
            vec![P::Pending, P::Failed],
            Some("SnapshotMissing"),
        ),
        (
            "the name is taken",
            into_new(),
            Model::in_use(),
            vec![],
            vec![P::Pending, P::ScalingUp, P::Failed],
            Some("ClaimExists"),
        ),
        (
            "no claim to restore into",
            in_place(),
            Model::new(),
            vec![],
            vec![P::Pending, P::Failed],
            Some("ClaimMissing"),
        ),
    ];
    for (name, spec, model, ends, phases, reason) in cases {
        let mut ran = model.clone();
        ran.ends = ends.clone();
        let (status, found) = ran.run(&spec, RestoreStatus::default());
        assert_eq!(found, phases, "{name}: {status:?}");
        assert_eq!(status.reason.as_deref(), reason, "{name}: {status:?}");
        assert!(ran.is_clean(), "{name}");
        assert_eq!(ran.replicas, 1, "{name}: scaled back");
        assert!(
            status.completion_time.is_some() && status.conditions.len() == 2,
            "{name}"
        );
        let is_complete = status.phase == Some(P::Completed);
        assert_eq!(status.conditions[0].status == "True", is_complete, "{name}");
        if spec.dry_run {
            assert!(ran.wrote.iter().all(|order| order.dry_run), "{name}");
            assert!(ran.claim == model.claim, "{name}");
        }
    }
}

/// Killed after every write of its status, before or after what was to be done then.
#[test]
fn a_coordinator_that_is_killed_anywhere_goes_on() {
    let ends = [
        vec![],
        vec![done(), failed("NoSpace"), done()],
        vec![done(), done(), differing(), done()],
    ];
    for (spec, model) in [(careful(), Model::in_use()), (into_new(), Model::new())] {
        for ends in &ends {
            let mut straight = model.clone();
            straight.ends.clone_from(ends);
            let (expected, _) = straight.run(&spec, RestoreStatus::default());
            for kill_at in 0..30 {
                for acts in [false, true] {
                    let mut model = model.clone();
                    model.ends.clone_from(ends);
                    let mut status = RestoreStatus::default();
                    for _ in 0..=kill_at {
                        let step = next(&spec, &status, &model.scene(&status));
                        status = step.status;
                        let is_last = step.actions.len();
                        for action in step.actions.iter().take(is_last) {
                            model.act(action);
                        }
                        model.now += SignedDuration::from_secs(1);
                    }
                    // The last step: written down, and perhaps not done.
                    let step = next(&spec, &status, &model.scene(&status));
                    status = step.status;
                    if acts {
                        step.actions.iter().for_each(|action| model.act(action));
                    }
                    let (status, _) = model.run(&spec, status);
                    let at = format!("killed at {kill_at}, {acts}: {status:?}");
                    assert_eq!(status.phase, expected.phase, "{at}");
                    assert_eq!(status.reason, expected.reason, "{at}");
                    assert!(model.is_clean() && model.replicas == 1, "{at}");
                }
            }
        }
    }
}

/// Cancelled, or deleted, after every number of steps: all that was in the way is undone.
#[test]
fn one_that_is_stopped_anywhere_undoes_what_is_in_the_way() {
    for stop_at in 0..30 {
        for deletes in [false, true] {
            let mut model = Model::in_use();
            let mut spec = careful();
            let mut status = RestoreStatus::default();
            for _ in 0..stop_at {
                let step = next(&spec, &status, &model.scene(&status));
                status = step.status;
                step.actions.iter().for_each(|action| model.act(action));
                model.now += SignedDuration::from_secs(1);
            }
            let was_final = status.phase.unwrap_or_default().is_final();
            match deletes {
                true => model.deleting = true,
                false => spec.cancel = true,
            }
            if deletes && !model.held {
                // It is gone at once, and nothing was done.
                assert!(was_final || model.replicas == 1);
                continue;
            }
            let (status, _) = model.run(&spec, status);
            let phase = status.phase.unwrap_or_default();
            let allowed = [P::Cancelled, P::RolledBack, P::Completed];
            assert!(allowed.contains(&phase), "{stop_at} {deletes}: {status:?}");
            assert!(
                model.is_clean() && model.replicas == 1,
                "{stop_at}: {status:?}"
            );
            let written = model.wrote.iter().any(|order| !order.dry_run);
            let back = model.wrote.iter().any(|order| order.snapshot == "5afe");
            assert!(
                phase == P::Completed || !written || back,
                "{stop_at}: {status:?}"
            );
        }
    }
}

/// The pod whose mount is used goes: the work stops at once, and goes on through a mount of our own.
#[test]
fn a_pod_that_goes_is_not_held() {
    let spec = RestoreSpec {
        safety_snapshot: Some(false),
        ..in_place()
    };
    let mut model = Model::in_use();
    let mut status = RestoreStatus::default();
    while status.phase != Some(P::Restoring) || model.job.is_none() {
        let step = next(&spec, &status, &model.scene(&status));
        status = step.status;
        step.actions.iter().for_each(|action| model.act(action));
    }
    if let Some((_, job)) = &mut model.job {
        job.end = None;
    }
    model.users[0].ending = true;
    let step = next(&spec, &status, &model.scene(&status));
    assert_eq!(step.status.phase, Some(P::Mounting));
    assert!(
        step.actions
            .contains(&Action::CancelJob("job-0".to_owned()))
    );
    assert!(step.actions.contains(&Action::DeleteRestorePod));
    step.actions.iter().for_each(|action| model.act(action));
    // As long as the pod is there, nothing of ours takes its volume.
    let waits = next(&spec, &step.status, &model.scene(&step.status));
    assert!(waits.actions.is_empty(), "{waits:?}");
    model.users.clear();
    let (status, _) = model.run(&spec, step.status);
    assert_eq!(status.phase, Some(P::Completed), "{status:?}");
    assert_eq!(model.wrote.len(), 2);
    assert!(model.is_clean());
}

#[test]
fn what_takes_too_long_is_given_up_and_undone() {
    // A pod that does not go.
    let mut model = Model::in_use();
    model.users[0].ending = true;
    let mut status = RestoreStatus::default();
    let spec = careful();
    for _ in 0..3 {
        let step = next(&spec, &status, &model.scene(&status));
        status = step.status;
        if step.actions.contains(&Action::Hold) {
            model.held = true;
        }
    }
    assert_eq!(status.phase, Some(P::ScalingDown));
    model.now += SCALE_DOWN_LIMIT + SignedDuration::from_secs(1);
    let (status, _) = model.run(&spec, status);
    assert_eq!(status.phase, Some(P::Failed));
    assert_eq!(status.reason.as_deref(), Some("ScaleDownTimedOut"));
    assert!(status.message.unwrap().contains("db-0"));

    // An agent that is lost again and again.
    let mut model = Model::new();
    model.ends = vec![failed("AgentLost"); 20];
    let (status, _) = model.run(&into_new(), RestoreStatus::default());
    assert_eq!(status.reason.as_deref(), Some("TooManyAttempts"));
    assert!(model.is_clean());
}

#[test]
fn what_is_refused_for_good_ends_it_and_what_was_scaled_comes_back() {
    let spec = careful();
    let failure = Failure::new("Forbidden", "no pods");
    for at in 0..20 {
        let mut model = Model::in_use();
        let mut status = RestoreStatus::default();
        for _ in 0..at {
            let step = next(&spec, &status, &model.scene(&status));
            status = step.status;
            step.actions.iter().for_each(|action| model.act(action));
        }
        let before = status.phase.unwrap_or_default();
        status = refused(&spec, &status, &model.scene(&status), &failure);
        let (status, _) = model.run(&spec, status);
        assert!(
            model.is_clean() && model.replicas == 1,
            "{at} {before:?} {status:?}"
        );
        let phase = status.phase.unwrap_or_default();
        let allowed = [P::Failed, P::RolledBack, P::Completed];
        assert!(allowed.contains(&phase), "{before:?}: {status:?}");
    }
}
