//! What is done next about a claim that a pod of ours mounts, or may have to. Pure.

use super::Failure;
use jiff::SignedDuration;

/// A node has the volume by then, or the run has failed.
pub const MOUNT_LIMIT: SignedDuration = SignedDuration::from_mins(5);
/// A pod that an earlier process made may have a run that its agent is yet to tell of.
pub const GRACE: SignedDuration = SignedDuration::from_secs(15);

/// Whether a run wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// None, or not yet.
    Nothing,
    /// One is due.
    Due,
    /// One runs.
    Runs,
}

/// The pod of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountPod {
    /// There is none.
    Absent,
    /// It has ended, and its deletion was asked for or not.
    Ending {
        /// It was.
        is_deleted: bool,
    },
    /// It is there.
    There {
        /// For so long, as far as this process knows.
        age: SignedDuration,
        /// An earlier process made it.
        is_found: bool,
    },
}

/// One look.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Whether a run wants it.
    pub want: Want,
    /// A pod that is not ours uses the claim, is about to, or has not let go of it.
    pub is_used: bool,
    /// A restore writes to it.
    pub is_restored: bool,
    /// The pod of ours.
    pub pod: MountPod,
    /// Why no pod may be made.
    pub refused: Option<Failure>,
    /// Whether one more may be made.
    pub has_room: bool,
    /// Why no agent reads the volume; `None`: one does.
    pub unserved: Option<String>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// The pod is made.
    Make,
    /// It is deleted.
    Delete,
    /// The run has failed, and the pod, if there is one, is deleted.
    Fail(Failure),
}

/// Decides.
pub fn step(scene: &Scene) -> Step {
    // Whoever wants the volume for himself has it.
    let is_anothers = scene.is_used || scene.is_restored;
    match (&scene.pod, scene.want) {
        (MountPod::Ending { is_deleted: true }, _) => Step::Stay,
        (MountPod::Ending { is_deleted: false }, _) => Step::Delete,
        (MountPod::There { .. }, _) if is_anothers => Step::Delete,
        (MountPod::There { age, is_found }, Want::Nothing) => match *is_found && *age < GRACE {
            true => Step::Stay,
            false => Step::Delete,
        },
        (MountPod::There { age, .. }, Want::Due) if *age >= MOUNT_LIMIT => match &scene.unserved {
            Some(why) => Step::Fail(Failure::new("MountPodPending", why.clone())),
            None => Step::Stay,
        },
        (MountPod::There { .. }, _) => Step::Stay,
        (MountPod::Absent, Want::Due) if !is_anothers => match &scene.refused {
            Some(refused) => Step::Fail(refused.clone()),
            None if scene.has_room => Step::Make,
            None => Step::Stay,
        },
        (MountPod::Absent, _) => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(age: SignedDuration) -> MountPod {
        MountPod::There {
            age,
            is_found: false,
        }
    }

    fn scene(want: Want, pod: MountPod) -> Scene {
        Scene {
            want,
            pod,
            is_used: false,
            is_restored: false,
            refused: None,
            has_room: true,
            unserved: Some("unschedulable".to_owned()),
        }
    }

    #[test]
    fn a_pod_is_there_while_a_run_wants_it_and_nobody_else_does() {
        use Want::{Due, Nothing, Runs};
        let young = there(SignedDuration::from_secs(1));
        let old = there(MOUNT_LIMIT);
        let found = |secs| MountPod::There {
            age: SignedDuration::from_secs(secs),
            is_found: true,
        };
        let ending = |is_deleted| MountPod::Ending { is_deleted };
        let off = Failure::new("MountPodsNotAllowed", "off");
        let late = Step::Fail(Failure::new("MountPodPending", "unschedulable"));
        type Row = (&'static str, Want, MountPod, fn(&mut Scene), Step);
        let table: &[Row] = &[
            ("due", Due, MountPod::Absent, |_| {}, Step::Make),
            ("not due", Nothing, MountPod::Absent, |_| {}, Step::Stay),
            (
                "runs through another",
                Runs,
                MountPod::Absent,
                |_| {},
                Step::Stay,
            ),
            (
                "no room",
                Due,
                MountPod::Absent,
                |s| s.has_room = false,
                Step::Stay,
            ),
            (
                "used",
                Due,
                MountPod::Absent,
                |s| s.is_used = true,
                Step::Stay,
            ),
            (
                "restored",
                Due,
                MountPod::Absent,
                |s| s.is_restored = true,
                Step::Stay,
            ),
            (
                "off",
                Due,
                MountPod::Absent,
                |s| s.refused = Some(Failure::new("MountPodsNotAllowed", "off")),
                Step::Fail(off),
            ),
            ("waits", Due, young.clone(), |_| {}, Step::Stay),
            ("waits too long", Due, old.clone(), |_| {}, late),
            (
                "waits for its turn",
                Due,
                old.clone(),
                |s| s.unserved = None,
                Step::Stay,
            ),
            ("runs", Runs, old.clone(), |_| {}, Step::Stay),
            ("has run", Nothing, young.clone(), |_| {}, Step::Delete),
            (
                "somebody came",
                Runs,
                young.clone(),
                |s| s.is_used = true,
                Step::Delete,
            ),
            (
                "somebody came first",
                Due,
                young.clone(),
                |s| s.is_used = true,
                Step::Delete,
            ),
            (
                "a restore came",
                Runs,
                young,
                |s| s.is_restored = true,
                Step::Delete,
            ),
            (
                "of an earlier process",
                Nothing,
                found(1),
                |_| {},
                Step::Stay,
            ),
            (
                "and nobody told of a run",
                Nothing,
                found(15),
                |_| {},
                Step::Delete,
            ),
            (
                "and somebody came",
                Nothing,
                found(1),
                |s| s.is_used = true,
                Step::Delete,
            ),
            ("its time is over", Due, ending(false), |_| {}, Step::Delete),
            ("goes", Due, ending(true), |_| {}, Step::Stay),
        ];
        for (name, want, pod, change, expected) in table {
            let mut scene = scene(*want, pod.clone());
            change(&mut scene);
            assert_eq!(step(&scene), *expected, "{name}");
        }
    }
}
