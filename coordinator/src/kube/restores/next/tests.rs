//! The whole of a restore as a table, against a small model of a cluster; and that it goes on wherever its
//! coordinator was killed.

mod model;
mod scaling;

use super::*;
use crate::kube::restores::scene::End;
use RestorePhase as P;
use model::{Model, careful, differing, done, failed, in_place, into_new, partly};

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
fn nothing_is_written_under_a_backup_that_is_under_way() {
    let spec = in_place();
    let mut model = Model::in_use();
    model.is_read = true;
    let mut status = RestoreStatus::default();
    for _ in 0..20 {
        let step = next(&spec, &status, &model.scene(&status));
        status = step.status;
        step.actions.iter().for_each(|action| model.act(action));
        model.now += SignedDuration::from_mins(5);
    }
    assert_eq!(status.phase, Some(P::Mounting), "{status:?}");
    let message = status.message.clone().unwrap_or_default();
    assert!(message.contains("backup of the claim"), "{message}");
    assert!(model.job.is_none() && model.wrote.is_empty());
    model.is_read = false;
    let (status, _) = model.run(&spec, status);
    assert_eq!(status.phase, Some(P::Completed), "{status:?}");
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
