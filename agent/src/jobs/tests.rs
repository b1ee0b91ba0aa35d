//! An agent under a coordinator that gives orders and breaks off.

use super::*;
use crate::backup::BackupOptions;
use crate::backup::tests::fake::Fake;
use crate::volumes::{ExplicitVolume, VolumeSettings};
use bytes::Bytes;
use holdfast_runtime::metrics::Metrics;
use holdfast_runtime::shutdown::{self, Drained, Stopper};
use proto::jobs_server::{Jobs, JobsServer};
use proto::{AgentMessage, JobState, Order, Report, order};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

type Orders = mpsc::Sender<Result<Order, Status>>;

/// Hands every subscription to the test.
#[derive(Clone)]
struct Hub(mpsc::UnboundedSender<(Orders, mpsc::UnboundedReceiver<Body>)>);

#[tonic::async_trait]
impl Jobs for Hub {
    type SubscribeStream = ReceiverStream<Result<Order, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut messages = request.into_inner();
        let (orders, receiver) = mpsc::channel(8);
        let (sender, bodies) = mpsc::unbounded_channel();
        self.0.send((orders, bodies)).unwrap();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if sender.send(message.body.unwrap()).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Bench {
    fake: Fake,
    subscriptions: mpsc::UnboundedReceiver<(Orders, mpsc::UnboundedReceiver<Body>)>,
    stopper: Option<Stopper>,
    serving: tokio::task::JoinHandle<Result<()>>,
    directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// With settings that are changed first, in this directory.
    async fn with(change: impl FnOnce(&mut ServeSettings, &Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("web");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("f"), vec![7; 100_000]).unwrap();
        let fake = Fake::default();
        let (sender, subscriptions) = mpsc::unbounded_channel();
        let routes = tonic::service::Routes::new(JobsServer::new(Hub(sender)));
        let client = fake.serve_with(routes).await;
        let volumes = VolumeSettings {
            node: "node".to_owned(),
            explicit: vec![ExplicitVolume {
                name: "web".parse().unwrap(),
                path: root,
            }],
            ..VolumeSettings::default()
        };
        let backup = BackupOptions::new(&directory.path().join("state"), "node");
        let mut settings = ServeSettings::new(volumes, backup);
        change(&mut settings, directory.path());
        let settings = Arc::new(settings);
        let (stopper, shutdown) = shutdown::channel();
        let running = shutdown.running();
        let metrics = AgentMetrics::new(&Metrics::new());
        let serving = tokio::spawn(async move {
            let served = serve(client, settings, metrics, shutdown, None).await;
            drop(running);
            served
        });
        Self {
            fake,
            subscriptions,
            stopper: Some(stopper),
            serving,
            directory,
        }
    }

    async fn subscription(&mut self) -> (Orders, mpsc::UnboundedReceiver<Body>) {
        let (orders, mut bodies) = self.subscriptions.recv().await.unwrap();
        let Some(Body::Hello(hello)) = bodies.recv().await else {
            panic!("no hello");
        };
        assert_eq!((hello.protocol, hello.node.as_str()), (1, "node"));
        let volumes = hello.volumes.unwrap().volumes;
        assert_eq!(volumes[0].facts.as_ref().unwrap().name, "web");
        assert!(volumes[0].eligible);
        (orders, bodies)
    }

    async fn stop(mut self) {
        let stopper = self.stopper.take().unwrap();
        assert_eq!(stopper.drain(Duration::from_secs(10)).await, Drained::Whole);
        self.serving.await.unwrap().unwrap();
    }
}

fn backup_order(job: u8, volume: &str) -> Result<Order, Status> {
    detecting(job, volume, proto::Detection::Unspecified)
}

fn detecting(job: u8, volume: &str, detection: proto::Detection) -> Result<Order, Status> {
    Ok(Order {
        job: Bytes::from(vec![job; 16]),
        body: Some(order::Body::Backup(proto::BackupOrder {
            volume: volume.to_owned(),
            detection: detection.into(),
            ..Default::default()
        })),
    })
}

async fn last(bodies: &mut mpsc::UnboundedReceiver<Body>, job: u8) -> Report {
    let seen = Mutex::new(Vec::new());
    let wait = async {
        while let Some(body) = bodies.recv().await {
            if let Body::Report(report) = body {
                seen.lock().unwrap().push(report.clone());
                if report.job.as_ref() == [job; 16] && table::has_ended(&report) {
                    return report;
                }
            }
        }
        panic!("the stream ended: {:?}", seen.lock().unwrap())
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap_or_else(|_| panic!("no end: {:?}", seen.lock().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_done_and_reported() {
    let mut bench = Bench::new().await;
    let (orders, mut bodies) = bench.subscription().await;
    orders.send(backup_order(1, "web")).await.unwrap();
    let report = last(&mut bodies, 1).await;
    assert_eq!(report.state(), JobState::Done, "{report:?}");
    assert_eq!(report.snapshot.len(), 32);
    assert_eq!(report.stats.unwrap().files, 1);
    orders.send(backup_order(2, "nothing")).await.unwrap();
    let report = last(&mut bodies, 2).await;
    assert_eq!(report.state(), JobState::Failed);
    assert_eq!(report.reason, "VolumeNotFound");
    orders
        .send(Ok(Order {
            job: Bytes::from(vec![3; 16]),
            body: Some(order::Body::Restore(proto::RestoreOrder {
                snapshot: vec![1; 32].into(),
                target: b"/a/../etc".as_slice().into(),
                ..Default::default()
            })),
        }))
        .await
        .unwrap();
    let report = last(&mut bodies, 3).await;
    assert_eq!(report.reason, "TargetRefused");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_the_subscription_and_is_reported_on_the_next() {
    let mut bench = Bench::new().await;
    let (orders, bodies) = bench.subscription().await;
    bench.fake.state().slow = Some(Duration::from_millis(300));
    orders.send(backup_order(1, "web")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop((orders, bodies));
    let (orders, mut bodies) = bench.subscription().await;
    let report = last(&mut bodies, 1).await;
    assert_eq!(report.state(), JobState::Done, "{report:?}");
    // The same order again (a coordinator that did not hear) does nothing new.
    assert_eq!(bench.fake.state().snapshots.len(), 1);
    drop(orders);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_and_stopping_end_jobs_in_time() {
    let mut bench = Bench::new().await;
    let root = bench.directory.path().join("web");
    for n in 0..40u8 {
        let bytes: Vec<u8> = (0..500_000u32)
            .map(|i| (i.wrapping_mul(2654435761) >> 13) as u8 ^ n)
            .collect();
        fs::write(root.join(format!("n{n}")), bytes).unwrap();
    }
    let (orders, mut bodies) = bench.subscription().await;
    bench.fake.state().slow = Some(Duration::from_millis(300));
    orders.send(backup_order(1, "web")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    orders
        .send(Ok(Order {
            job: Bytes::from(vec![1; 16]),
            body: Some(order::Body::Cancel(proto::CancelOrder {})),
        }))
        .await
        .unwrap();
    let began = Instant::now();
    let report = last(&mut bodies, 1).await;
    assert_eq!(report.state(), JobState::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(2));
    orders.send(backup_order(2, "web")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let began = Instant::now();
    bench.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// The next states that are told.
async fn states(bodies: &mut mpsc::UnboundedReceiver<Body>) -> Vec<proto::VolumeState> {
    let wait = async {
        loop {
            if let Body::States(told) = bodies.recv().await.expect("the stream ended") {
                return told.states;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("no states")
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_say_how_they_stand_and_again_to_whoever_asks_anew() {
    let mut bench = Bench::new().await;
    let (orders, mut bodies) = bench.subscription().await;
    let told = states(&mut bodies).await;
    assert_eq!(told.len(), 1);
    assert_eq!((&*told[0].volume, &*told[0].journal), ("web", "walk"));
    assert_eq!(told[0].reason, "FirstRun");

    orders.send(backup_order(1, "web")).await.unwrap();
    assert_eq!(last(&mut bodies, 1).await.state(), JobState::Done);
    let watched = loop {
        let told = states(&mut bodies).await;
        if told[0].watched_directories > 0 {
            break told;
        }
    };
    assert!(
        ["seeding", "trusted"].contains(&&*watched[0].journal),
        "{watched:?}"
    );
    fs::write(bench.directory.path().join("web/g"), "new").unwrap();
    while states(&mut bodies).await[0].exposed_ns == 0 {}

    drop((orders, bodies));
    let (_orders, mut bodies) = bench.subscription().await;
    assert_eq!(states(&mut bodies).await[0].volume, "web");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_says_how_changes_are_found() {
    let mut bench = Bench::new().await;
    let (orders, mut bodies) = bench.subscription().await;
    let mut job = 0;
    let mut run = async |detection| {
        job += 1;
        orders.send(detecting(job, "web", detection)).await.unwrap();
        let report = last(&mut bodies, job).await;
        assert_eq!(report.state(), JobState::Done, "{report:?}");
        report.stats.unwrap().files_read
    };
    assert_eq!(run(proto::Detection::Unspecified).await, 1);
    // A walk believes a stamp once it is old enough.
    while run(proto::Detection::Walk).await > 0 {}
    assert_eq!(run(proto::Detection::Read).await, 1);
    assert_eq!(run(proto::Detection::Walk).await, 0);
    bench.stop().await;
}

/// The names of the volumes in the next list that has this many.
async fn listed(bodies: &mut mpsc::UnboundedReceiver<Body>, count: usize) -> Vec<String> {
    let wait = async {
        while let Some(body) = bodies.recv().await {
            if let Body::Volumes(list) = body {
                let names = list.volumes.into_iter().filter_map(|it| it.facts);
                let names: Vec<_> = names.map(|facts| facts.name).collect();
                if names.len() == count {
                    return names;
                }
            }
        }
        panic!("the stream ended")
    };
    let told = tokio::time::timeout(Duration::from_secs(20), wait).await;
    told.unwrap_or_else(|_| panic!("no list of {count}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_comes_or_goes_is_told_before_the_next_look() {
    let mut bench = Bench::with(|settings, directory| {
        let pods = directory.join("pods");
        fs::create_dir(&pods).unwrap();
        settings.volumes.kubelet_pods = Some(pods);
        settings.discover_every = Duration::from_secs(3600);
    })
    .await;
    let pods = bench.directory.path().join("pods");
    let pod = pods.join("0a1b2c3d");
    let (_orders, mut bodies) = bench.subscription().await;
    fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/data")).unwrap();
    assert_eq!(listed(&mut bodies, 2).await, ["pods/0a1b2c3d/data", "web"]);
    fs::remove_dir_all(&pod).unwrap();
    assert_eq!(listed(&mut bodies, 1).await, ["web"]);
    // The kubelet's directory itself goes, and comes again.
    fs::remove_dir(&pods).unwrap();
    assert_eq!(listed(&mut bodies, 2).await, ["kubelet-pods", "web"]);
    fs::create_dir(&pods).unwrap();
    assert_eq!(listed(&mut bodies, 1).await, ["web"]);
    fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/data")).unwrap();
    assert_eq!(listed(&mut bodies, 2).await, ["pods/0a1b2c3d/data", "web"]);
    fs::remove_dir_all(bench.directory.path().join("web")).unwrap();
    let wait = async {
        loop {
            if let Some(Body::Volumes(list)) = bodies.recv().await
                && let Some(web) = list.volumes.iter().find(|it| !it.eligible)
            {
                return web.reason.clone();
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert_eq!(told.unwrap(), "PathMissing");
    bench.stop().await;
}
