//! What is scaled down has its replicas again and its pods back, or was at 0 before; and a mount pod that finds no
//! node is given up.

use super::model::{Model, careful, in_place};
use super::*;
use crate::kube::restores::next::scaling::BACK_LIMIT;
use crate::kube::restores::scene::{Helper, Scene};

fn step(model: &mut Model, spec: &RestoreSpec, status: RestoreStatus) -> RestoreStatus {
    let scene = model.scene(&status);
    taken(model, spec, status, &scene)
}

/// One step by this look.
fn taken(
    model: &mut Model,
    spec: &RestoreSpec,
    status: RestoreStatus,
    scene: &Scene,
) -> RestoreStatus {
    let step = next(spec, &status, scene);
    step.actions.iter().for_each(|action| model.act(action));
    model.now += SignedDuration::from_secs(1);
    step.status
}

/// An owner that was at 0 before is at 0 afterwards, and the restore ends.
#[test]
fn an_owner_that_was_at_0_stays_there() {
    // Somebody has just scaled it down, and its last pod is about to go.
    let mut model = Model::in_use();
    model.replicas = 0;
    let spec = careful();
    let mut status = RestoreStatus::default();
    for _ in 0..5 {
        status = step(&mut model, &spec, status);
    }
    assert_eq!(status.scaled.len(), 1, "{status:?}");
    assert_eq!(status.scaled[0].replicas, 0);
    model.users.clear();
    let (status, _) = model.run(&spec, status);
    assert_eq!(status.phase, Some(P::Completed), "{status:?}");
    assert_eq!(model.replicas, 0);
    assert!(status.scaled[0].restored && model.is_clean());
    // And one without any pod.
    let mut model = Model {
        replicas: 0,
        users: Vec::new(),
        ..Model::in_use()
    };
    let (status, _) = model.run(&spec, RestoreStatus::default());
    assert_eq!(status.phase, Some(P::Completed), "{status:?}");
    assert_eq!(model.replicas, 0);
}

/// The next restore of the namespace, which begins when this one has ended, finds the pods and scales their owner down
/// again.
#[test]
fn a_restore_ends_when_the_pods_are_back() {
    let spec = careful();
    for never in [false, true] {
        let mut model = Model::in_use();
        let mut status = RestoreStatus::default();
        for _ in 0..50 {
            if status.phase == Some(P::ScalingUp) && model.replicas == 1 {
                break;
            }
            status = step(&mut model, &spec, status);
        }
        // Whoever makes them is slow.
        let back = std::mem::take(&mut model.users);
        for _ in 0..5 {
            status = step(&mut model, &spec, status);
            assert_eq!(status.phase, Some(P::ScalingUp), "{status:?}");
        }
        match never {
            true => model.now += BACK_LIMIT + SignedDuration::from_secs(1),
            false => model.users = back,
        }
        let (status, _) = model.run(&spec, status);
        assert_eq!(status.phase, Some(P::Completed), "{status:?}");
        assert_eq!(model.replicas, 1);
    }
}

/// A mount pod that stays Pending: the restore says why, and the pod goes after its time.
#[test]
fn a_mount_pod_that_no_node_takes_is_given_up() {
    const WHY: &str = "0/3 nodes are available";
    let spec = in_place();
    let mut model = Model::in_use();
    model.users.clear();
    let look = |model: &Model, status: &RestoreStatus| {
        let mut scene = model.scene(status);
        scene.served = None;
        if let Helper::There { why, .. } = &mut scene.mount_pod {
            *why = WHY.to_owned();
        }
        scene
    };
    let mut status = RestoreStatus::default();
    for _ in 0..6 {
        let scene = look(&model, &status);
        status = taken(&mut model, &spec, status, &scene);
    }
    assert_eq!(status.phase, Some(P::Mounting), "{status:?}");
    assert!(matches!(model.mount_pod, Helper::There { .. }));
    let message = status.message.clone().unwrap_or_default();
    assert!(message.contains(WHY), "{message}");
    model.now += MOUNT_LIMIT;
    for _ in 0..6 {
        let scene = look(&model, &status);
        status = taken(&mut model, &spec, status, &scene);
    }
    assert_eq!(status.phase, Some(P::Failed), "{status:?}");
    assert_eq!(status.reason.as_deref(), Some("MountTimedOut"));
    let message = status.message.clone().unwrap_or_default();
    assert!(message.contains(WHY), "{message}");
    assert!(model.is_clean());
}
