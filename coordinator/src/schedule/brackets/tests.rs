//! Orders wait until they are released, ends until they are settled, and nobody is forgotten in between.

use super::*;
use crate::schedule::Connection;
use crate::schedule::What;
use holdfast_proto::v1::{
    AgentVolume, BackupOrder, Hello, JobInfo, Order, RestoreOrder, VolumeFacts, VolumeList,
};

struct Only(&'static str);

impl Gate for Only {
    fn holds(&self, volume: &str) -> bool {
        volume == self.0
    }
}

const JOB: JobId = JobId::from_bytes([7; 16]);

struct Stage {
    hub: Hub,
    held: mpsc::Receiver<Held>,
    orders: mpsc::Receiver<Order>,
    agent: Connection,
}

fn hello() -> Hello {
    let volume = |name: &str| AgentVolume {
        facts: Some(VolumeFacts {
            name: name.into(),
            ..VolumeFacts::default()
        }),
        eligible: true,
        ..AgentVolume::default()
    };
    Hello {
        node: "a".into(),
        volumes: Some(VolumeList {
            volumes: vec![volume("db"), volume("web")],
        }),
        ..Hello::default()
    }
}

fn stage() -> Stage {
    let hub = Hub::default();
    let held = hub.set_gate(Arc::new(Only("db")), 1);
    let (agent, sent) = hub.connect(hello());
    let orders = sent.orders;
    Stage {
        hub,
        held,
        orders,
        agent,
    }
}

fn backup(volume: &str) -> What {
    What::Backup(BackupOrder {
        volume: volume.into(),
        ..BackupOrder::default()
    })
}

fn report(state: JobState) -> Report {
    Report {
        job: JOB.as_bytes().to_vec().into(),
        state: state.into(),
        ..Report::default()
    }
}

impl Stage {
    fn job(&self) -> (u64, Report) {
        let info: JobInfo = self.hub.watch(&JOB).unwrap().borrow().clone();
        (info.ended_ns.unsigned_abs(), info.last.unwrap())
    }
}

#[test]
fn only_what_the_gate_holds_waits() {
    let mut stage = stage();
    stage.hub.start(JOB, backup("web"), None, 1).unwrap();
    assert!(stage.orders.try_recv().is_ok());
    let restore = What::Restore {
        volume: "db".into(),
        order: RestoreOrder::default(),
    };
    let other = JobId::from_bytes([8; 16]);
    stage.hub.start(other, restore, Some("a"), 1).unwrap();
    assert!(stage.orders.try_recv().is_ok());
    assert!(stage.held.try_recv().is_err());
}

#[test]
fn an_order_waits_for_its_release_and_an_end_for_its_settlement() {
    let mut stage = stage();
    stage.hub.start(JOB, backup("db"), None, 1).unwrap();
    let mut held = stage.held.try_recv().unwrap();
    assert!(stage.orders.try_recv().is_err());
    assert!(stage.hub.is_backing_up("db"));
    stage.hub.note(&JOB, "PreHooks", "runs them");
    assert_eq!(stage.job().1.reason, "PreHooks");
    assert!(stage.hub.release(&JOB).unwrap());
    assert_eq!(stage.job().1.reason, "");
    assert!(stage.orders.try_recv().is_ok());
    assert!(!stage.hub.release(&JOB).unwrap(), "once only");
    stage.hub.report(&stage.agent, report(JobState::Running), 2);
    assert!(held.over.try_recv().is_err());
    stage.hub.report(&stage.agent, report(JobState::Done), 3);
    held.over.try_recv().unwrap();
    assert_eq!(stage.job().0, 0, "not before its post-hooks");
    let problem = Problem {
        reason: "HookPostFailed".into(),
        ..Problem::default()
    };
    stage.hub.settle(&JOB, None, vec![problem], 4);
    let (ended, last) = stage.job();
    assert_eq!(
        (ended, last.state(), last.problems.len()),
        (4, JobState::Done, 1)
    );
    stage
        .hub
        .settle(&JOB, Some(("Late", String::new())), Vec::new(), 5);
    assert_eq!(stage.job().0, 4);
}

#[test]
fn one_that_is_cancelled_before_its_release_is_never_ordered() {
    let mut stage = stage();
    stage.hub.start(JOB, backup("db"), None, 1).unwrap();
    let mut held = stage.held.try_recv().unwrap();
    stage.hub.cancel(&JOB).unwrap();
    held.over.try_recv().unwrap();
    assert!(!stage.hub.release(&JOB).unwrap());
    assert!(stage.orders.try_recv().is_err());
    stage.hub.settle(&JOB, None, Vec::new(), 2);
    assert_eq!(stage.job().1.state(), JobState::Cancelled);
}

#[test]
fn an_agent_that_comes_and_goes_while_the_order_waits_loses_nothing() {
    let mut stage = stage();
    stage.hub.start(JOB, backup("db"), None, 1).unwrap();
    let mut held = stage.held.try_recv().unwrap();
    let left = stage.hub.disconnect(&stage.agent);
    stage.hub.expire("a", left, 2);
    assert!(held.over.try_recv().is_err());
    assert!(stage.hub.release(&JOB).is_err(), "nobody is there");
    let (agent, mut sent) = stage.hub.connect(hello());
    assert!(stage.hub.release(&JOB).unwrap());
    assert!(sent.orders.try_recv().is_ok());
    // From now on it is the agent's.
    let left = stage.hub.disconnect(&agent);
    stage.hub.expire("a", left, 3);
    held.over.try_recv().unwrap();
    stage.hub.settle(&JOB, None, Vec::new(), 4);
    let (ended, last) = stage.job();
    assert_eq!((ended, &last.reason[..]), (4, "AgentLost"));
}

#[test]
fn too_many_that_wait_are_refused() {
    let stage = stage();
    stage.hub.start(JOB, backup("db"), None, 1).unwrap();
    let other = JobId::from_bytes([8; 16]);
    let refused = stage.hub.start(other, backup("db"), None, 1).unwrap_err();
    assert!(refused.to_string().contains("hooks"), "{refused}");
}
