//! Orders, reports and what becomes of the jobs of lost agents.

use super::*;
use holdfast_proto::v1::{Hello, PlannedVolume, VolumeFacts, VolumeList};

fn hello(node: &str, volumes: &[(&str, bool)]) -> Hello {
    let volume = |(name, eligible): &(&str, bool)| AgentVolume {
        facts: Some(VolumeFacts {
            name: (*name).into(),
            ..VolumeFacts::default()
        }),
        eligible: *eligible,
        reason: "Unsupported".into(),
        detail: "procfs".into(),
    };
    Hello {
        protocol: 1,
        node: node.into(),
        volumes: Some(VolumeList {
            volumes: volumes.iter().map(volume).collect(),
        }),
        ..Hello::default()
    }
}

fn backup(volume: &str) -> What {
    What::Backup(BackupOrder {
        volume: volume.into(),
        ..BackupOrder::default()
    })
}

fn report(id: JobId, state: JobState) -> Report {
    Report {
        job: id.as_bytes().to_vec().into(),
        state: state.into(),
        ..Report::default()
    }
}

const JOB: JobId = JobId::from_bytes([7; 16]);

#[test]
fn an_order_reaches_the_agent_that_serves_the_volume_and_reports_come_back() {
    let hub = Hub::default();
    let (_a, mut none) = hub.connect(hello("a", &[("web", false)]));
    let (b, mut sent) = hub.connect(hello("b", &[("web", true)]));
    assert_eq!(hub.start(JOB, backup("web"), None, 5).unwrap().node, "b");
    assert!(matches!(
        sent.orders.try_recv().unwrap().body,
        Some(order::Body::Backup(_))
    ));
    assert!(none.orders.try_recv().is_err());
    let watch = hub.watch(&JOB).unwrap();
    hub.report(&b, report(JOB, JobState::Done), 9);
    assert_eq!(watch.borrow().ended_ns, 9);
    hub.report(&b, report(JOB, JobState::Running), 10);
    assert_eq!(watch.borrow().ended_ns, 9, "an ended job stays ended");
}

#[test]
fn a_volume_that_nobody_can_serve_says_why() {
    let hub = Hub::default();
    let _a = hub.connect(hello("a", &[("web", false)]));
    let error = hub.start(JOB, backup("web"), None, 0).unwrap_err();
    assert!(
        error.to_string().contains("Unsupported on a: procfs"),
        "{error}"
    );
    let error = hub.start(JOB, backup("db"), None, 0).unwrap_err();
    assert!(matches!(error, Error::AgentMissing { .. }));
}

#[test]
fn jobs_of_a_lost_agent_fail_and_others_cannot_report_them() {
    let hub = Hub::default();
    let (a, _orders) = hub.connect(hello("a", &[("web", true)]));
    let (b, _others) = hub.connect(hello("b", &[]));
    hub.start(JOB, backup("web"), None, 0).unwrap();
    hub.report(&b, report(JOB, JobState::Done), 1);
    assert_eq!(hub.jobs()[0].ended_ns, 0);
    hub.expire("a", a.event(), 2);
    assert_eq!(
        hub.jobs()[0].ended_ns,
        0,
        "it was started after its agent came"
    );
    let left = hub.disconnect(&a);
    let (a, _orders) = hub.connect(hello("a", &[]));
    hub.expire("a", left, 2);
    assert_eq!(hub.jobs()[0].ended_ns, 0, "its agent came back since");
    hub.report(&a, report(JOB, JobState::Running), 1);
    hub.expire("a", a.event(), 2);
    assert_eq!(hub.jobs()[0].ended_ns, 0, "it was heard of");
    let left = hub.disconnect(&a);
    hub.expire("a", left, 3);
    let job = hub.jobs().remove(0);
    assert_eq!(
        (job.ended_ns, job.last.unwrap().reason.as_str()),
        (3, "AgentLost")
    );
}

#[test]
fn a_job_of_an_earlier_process_is_taken_in_from_its_agents_report() {
    let hub = Hub::default();
    let (a, _orders) = hub.connect(hello("a", &[]));
    let (b, _others) = hub.connect(hello("b", &[]));
    let mut running = report(JOB, JobState::Running);
    (running.what, running.volume) = ("backup".into(), "web".into());
    hub.report(&a, running, 4);
    hub.report(&b, report(JOB, JobState::Failed), 5);
    let job = hub.jobs().remove(0);
    assert_eq!(
        (job.what.as_str(), job.volume.as_str(), job.ended_ns),
        ("backup", "web", 0)
    );
    hub.report(&a, report(JOB, JobState::Done), 6);
    assert_eq!(hub.watch(&JOB).unwrap().borrow().ended_ns, 6);
}

#[test]
fn another_agents_return_does_not_make_a_job_unheard_of() {
    let hub = Hub::default();
    let (_a, _orders) = hub.connect(hello("a", &[("web", true)]));
    hub.start(JOB, backup("web"), None, 0).unwrap();
    let (b, _others) = hub.connect(hello("b", &[]));
    hub.expire("a", b.event(), 2);
    assert_eq!(hub.jobs()[0].ended_ns, 0);
}

#[test]
fn the_table_of_jobs_is_bounded() {
    let hub = Hub::default();
    let (a, mut sent) = hub.connect(hello("a", &[("web", true)]));
    for n in 0..MAX_JOBS as u64 + 10 {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        hub.start(JobId::from_bytes(id), backup("web"), None, 0)
            .unwrap();
        hub.report(&a, report(JobId::from_bytes(id), JobState::Done), 1);
        sent.orders.try_recv().unwrap();
    }
    assert_eq!(hub.jobs().len(), MAX_JOBS);
}

#[test]
fn states_are_of_listed_volumes_and_go_with_their_agent() {
    let hub = Hub::default();
    let (a, _orders) = hub.connect(hello("a", &[("web", true), ("db", false)]));
    let state = |volume: &str, exposed_ns| VolumeState {
        volume: volume.into(),
        journal: "trusted".into(),
        exposed_ns,
        ..VolumeState::default()
    };
    let told = vec![state("web", 5), state("db", 5), state("strange", 5)];
    hub.set_states(&a, told, Duration::ZERO);
    let later = Duration::from_nanos(7);
    let exposed = |hub: &Hub| -> Vec<(String, Option<u64>)> {
        let served = hub.served(later).into_iter();
        served
            .map(|one| (one.facts.name, one.state.map(|(state, _)| state.exposed_ns)))
            .collect()
    };
    // What may not be read is not protected either.
    assert_eq!(exposed(&hub), [("web".to_owned(), Some(12))]);
    // A later connection starts from nothing, and an earlier one has no say any more.
    let (b, _orders) = hub.connect(hello("a", &[("web", true)]));
    hub.set_states(&a, vec![state("web", 5)], Duration::ZERO);
    assert_eq!(exposed(&hub), [("web".to_owned(), None)]);
    hub.set_states(&b, vec![state("web", 5)], Duration::ZERO);
    hub.set_volumes(&b, Vec::new());
    hub.set_volumes(&b, hello("a", &[("web", true)]).volumes.unwrap().volumes);
    assert_eq!(exposed(&hub), [("web".to_owned(), None)]);
    hub.disconnect(&b);
    assert_eq!(exposed(&hub), []);
}

#[test]
fn a_volume_is_being_backed_up_until_its_job_has_ended() {
    let hub = Hub::default();
    let (a, _orders) = hub.connect(hello("a", &[("web", true)]));
    assert!(!hub.is_backing_up("web"));
    hub.start(JOB, backup("web"), None, 1).unwrap();
    assert!(hub.is_backing_up("web") && !hub.is_backing_up("db"));
    hub.report(&a, report(JOB, JobState::Failed), 2);
    assert!(!hub.is_backing_up("web"));
}

#[test]
fn each_node_has_its_plan_and_hears_of_changes_alone() {
    let planned = |name: &str| NodePlan {
        volumes: vec![PlannedVolume {
            directory: name.to_owned(),
            ..PlannedVolume::default()
        }],
    };
    let hub = Hub::default();
    let (_a, mut a) = hub.connect(hello("a", &[]));
    assert_eq!(*a.plan.borrow_and_update(), None, "no cluster, no plan");
    hub.set_plans([("a".to_owned(), planned("x"))].into());
    assert_eq!(*a.plan.borrow_and_update(), Some(planned("x")));
    // A node without pods has nothing to read, which is a plan too.
    let (_b, mut b) = hub.connect(hello("b", &[]));
    assert_eq!(*b.plan.borrow_and_update(), Some(NodePlan::default()));
    let plans = [("a", "x"), ("b", "y")];
    hub.set_plans(
        plans
            .map(|(node, name)| (node.to_owned(), planned(name)))
            .into(),
    );
    assert!(!a.plan.has_changed().unwrap());
    assert_eq!(*b.plan.borrow_and_update(), Some(planned("y")));
    hub.set_plans(BTreeMap::new());
    assert_eq!(*a.plan.borrow_and_update(), Some(NodePlan::default()));
}
