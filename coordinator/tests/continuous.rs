//! Continuous protection under a clock that stands still: volumes are backed up when what they have not
//! protected reaches its bound, and not before; never two runs at once; failed ones again, later.

mod support;

use holdfast_coordinator::{ContinuousRule, Coordinator, CoordinatorSettings};
use holdfast_proto::v1 as proto;
use holdfast_runtime::clock::{Clock, ManualClock};
use proto::agent_message::Body;
use proto::jobs_client::JobsClient;
use std::sync::Arc;
use std::time::Duration;
use support::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const SECOND: u64 = 1_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);

struct Stage {
    clock: Arc<ManualClock>,
    bench: Bench,
    agent: mpsc::Sender<proto::AgentMessage>,
    orders: tonic::Streaming<proto::Order>,
}

/// Waits for what other tasks are about to do.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("it never came");
}

impl Stage {
    /// One agent that serves `web`, which is to be protected within five minutes.
    async fn new() -> Self {
        let bench = Bench::new().await;
        bench.coordinator.shutdown().await.unwrap();
        let clock = Arc::new(ManualClock::at(1_000_000 * SECOND as i64));
        let mut settings = CoordinatorSettings::new(bench.dir.path().join("state"));
        let rule = ContinuousRule {
            max_bytes: Some(1 << 20),
            ..ContinuousRule::new("web".parse().unwrap(), 5 * MINUTE)
        };
        settings.continuous = vec![rule];
        let repository = repository(bench.dir.path()).await;
        let opened = Coordinator::open(settings, repository, clock.clone()).await;
        let coordinator = opened.unwrap();
        let bench = Bench {
            channel: connect(&coordinator).await,
            coordinator,
            dir: bench.dir,
        };
        let (agent, messages) = mpsc::channel(16);
        let volume = |name: &str| proto::AgentVolume {
            facts: Some(facts(name)),
            eligible: true,
            ..Default::default()
        };
        let hello = proto::Hello {
            protocol: 1,
            node: "here".into(),
            volumes: Some(proto::VolumeList {
                volumes: vec![volume("web"), volume("other")],
            }),
            ..Default::default()
        };
        let body = Some(Body::Hello(hello));
        agent.send(proto::AgentMessage { body }).await.unwrap();
        let mut jobs = JobsClient::new(bench.channel.clone());
        let orders = jobs.subscribe(ReceiverStream::new(messages)).await;
        let stage = Self {
            clock,
            bench,
            agent,
            orders: orders.unwrap().into_inner(),
        };
        // The one who looks, and the grace of the agent that came.
        until(async || stage.clock.sleepers() == 2).await;
        stage
    }

    async fn say(&self, body: Body) {
        let body = Some(body);
        self.agent.send(proto::AgentMessage { body }).await.unwrap();
    }

    async fn state(&self, exposed_ns: u64, quiet_ns: u64, exposed_bytes: u64) {
        let state = proto::VolumeState {
            volume: "web".into(),
            journal: "trusted".into(),
            exposed_ns,
            quiet_ns,
            exposed_bytes,
            // Tells this message from the one before.
            watched_directories: self.clock.elapsed().as_secs() + exposed_ns + exposed_bytes,
            ..Default::default()
        };
        let told = state.watched_directories;
        self.say(Body::States(proto::VolumeStates {
            states: vec![state],
        }))
        .await;
        until(async || {
            let web = self.web().await;
            web.state
                .is_some_and(|state| state.watched_directories == told)
        })
        .await;
    }

    async fn web(&self) -> proto::VolumeInfo {
        let reply = self.bench.admin().volumes(proto::VolumesRequest {}).await;
        let volumes = reply.unwrap().into_inner().volumes;
        let named = |v: &proto::VolumeInfo| v.facts.as_ref().is_some_and(|f| f.name == "web");
        volumes.into_iter().find(named).unwrap()
    }

    /// Lets time pass; then all volumes have been looked at.
    async fn pass(&self, span: Duration) {
        self.clock.advance(span);
        until(async || self.clock.sleepers() > 0).await;
    }

    async fn jobs(&self) -> Vec<proto::JobInfo> {
        let reply = self.bench.admin().jobs(proto::JobsRequest {}).await;
        reply.unwrap().into_inner().jobs
    }

    /// The order that has come, and nothing else.
    async fn order(&mut self, count: usize) -> proto::Order {
        let jobs = self.jobs().await;
        assert_eq!(jobs.len(), count, "{jobs:?}");
        let order = self.orders.message().await.unwrap().unwrap();
        assert_eq!(order.job, jobs[0].id);
        match &order.body {
            Some(proto::order::Body::Backup(backup)) => assert_eq!(backup.volume, "web"),
            other => panic!("{other:?}"),
        }
        order
    }

    async fn ends(&self, order: &proto::Order, state: proto::JobState) {
        self.say(Body::Report(proto::Report {
            job: order.job.clone(),
            state: state.into(),
            ..Default::default()
        }))
        .await;
        until(async || self.jobs().await[0].ended_ns != 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_backed_up_when_its_exposure_reaches_the_bound() {
    let mut stage = Stage::new().await;
    // Never backed up: at once, and only once.
    stage.pass(Duration::from_secs(10)).await;
    let first = stage.order(1).await;
    stage.pass(20 * MINUTE).await;
    assert_eq!(stage.jobs().await.len(), 1, "one run at a time");
    stage.ends(&first, proto::JobState::Done).await;

    stage.state(0, 0, 0).await;
    stage.pass(10 * MINUTE).await;
    assert_eq!(stage.jobs().await.len(), 1, "nothing has changed");
    assert_eq!(stage.web().await.exposed_ns, 0);

    // The agent says it once; its age goes on counting here.
    stage.state(SECOND, SECOND, 0).await;
    stage.pass(5 * MINUTE - Duration::from_secs(2)).await;
    assert_eq!(stage.jobs().await.len(), 1);
    assert_eq!(stage.web().await.exposed_ns, 299 * SECOND);
    stage.pass(Duration::from_secs(2)).await;
    let second = stage.order(2).await;
    stage.ends(&second, proto::JobState::Failed).await;

    // Tried again, half a minute later, then a whole one.
    stage.pass(Duration::from_secs(28)).await;
    assert_eq!(stage.jobs().await.len(), 2);
    stage.pass(Duration::from_secs(40)).await;
    let third = stage.order(3).await;
    stage.ends(&third, proto::JobState::Failed).await;
    stage.pass(Duration::from_secs(58)).await;
    assert_eq!(stage.jobs().await.len(), 3);
    stage.pass(Duration::from_secs(4)).await;
    let fourth = stage.order(4).await;
    stage.ends(&fourth, proto::JobState::Done).await;
    // What it stored is old no more, though the agent has not said so yet.
    stage.pass(4 * MINUTE).await;
    assert_eq!(stage.jobs().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_count_too_and_a_busy_volume_waits_but_not_for_ever() {
    let mut stage = Stage::new().await;
    stage.pass(Duration::from_secs(10)).await;
    let first = stage.order(1).await;
    stage.ends(&first, proto::JobState::Done).await;
    stage.pass(2 * MINUTE).await;

    stage.state(SECOND, SECOND, 1 << 20).await;
    stage.pass(Duration::from_secs(2)).await;
    assert_eq!(stage.jobs().await.len(), 1, "it is not quiet yet");
    stage.pass(Duration::from_secs(8)).await;
    let second = stage.order(2).await;
    stage.ends(&second, proto::JobState::Done).await;
    // These bytes were told before that run ended.
    stage.pass(2 * MINUTE).await;
    assert_eq!(stage.jobs().await.len(), 2);

    // Never quiet: at twice the age, which is at most that of the run before.
    for _ in 0..60 {
        assert_eq!(stage.jobs().await.len(), 2);
        stage.state(60 * 60 * SECOND, SECOND, 0).await;
        stage.pass(Duration::from_secs(8)).await;
    }
    stage.order(3).await;
}
