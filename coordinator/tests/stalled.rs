//! Whoever announces large messages and stalls costs little memory, and agents work on beside them. A
//! binary of its own: what it looks at is the memory of the process.

mod support;

use bytes::Bytes;
use holdfast_format::wire::{SESSION_HEADER, session_to_header};
use http_body::Frame;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use support::*;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;

const CONNECTIONS: usize = 4;
const STREAMS: usize = 60;
/// What one message announces, and what is sent of it.
const ANNOUNCED: u32 = 4_000_000;
const SENT: usize = 3_900_000;
/// What all of it may cost. Without a bound it is 936 MB.
const BOUND: u64 = 100 << 20;

/// The beginning of a message, and nothing more.
struct Stalled {
    sent: usize,
}

impl http_body::Body for Stalled {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        static PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];
        let bytes = match self.sent {
            0 => [&[0][..], &ANNOUNCED.to_be_bytes()].concat().into(),
            sent if sent < SENT => Bytes::from_static(&PIECE),
            _ => return Poll::Pending,
        };
        self.sent += bytes.len();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

async fn stall(mut channel: Channel, path: &'static str, session: Option<String>) {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(session) = session {
        request = request.header(SESSION_HEADER, session);
    }
    let request = request.body(Body::new(Stalled { sent: 0 })).unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx))
        .await
        .unwrap();
    if let Ok(response) = channel.call(request).await {
        // Kept open until the server ends it.
        let mut body = response.into_body();
        while let Some(Ok(_)) =
            std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await
        {
        }
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

async fn back_up(bench: &Bench, key: u8) -> Duration {
    let bytes = noise(u64::from(key), 9 << 20);
    let start = Instant::now();
    let mut agent = Agent::begin(bench, "honest", key).await;
    agent.put(dir(""));
    let content = agent.send_content(&bytes);
    agent.put(extents("data", content));
    let snapshot = tokio::time::timeout(Duration::from_secs(60), agent.finish());
    let snapshot = snapshot.await.expect("the backup comes through").unwrap();
    let took = start.elapsed();
    assert_eq!(read_back(bench, &snapshot.id).await["data"], bytes);
    took
}

async fn beside(bench: &Bench, path: &'static str, session: Option<String>, key: u8) {
    // What a backup costs by itself is not the matter.
    back_up(bench, key).await;
    let before = resident_bytes();
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = connect(&bench.coordinator).await;
        for _ in 0..STREAMS {
            stalled.spawn(stall(channel.clone(), path, session.clone()));
        }
    }
    let mut most = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident_bytes());
    }
    let took = back_up(bench, key + 1).await;
    most = most.max(resident_bytes());
    let grown = most.saturating_sub(before);
    println!("{path}: {} MiB more, the backup took {took:?}", grown >> 20);
    assert!(grown < BOUND, "{} MiB more", grown >> 20);
    stalled.shutdown().await;
    // What was used goes back to the system.
    let deadline = Instant::now() + Duration::from_secs(20);
    while resident_bytes() > before + (BOUND >> 1) {
        assert!(Instant::now() < deadline, "{}", resident_bytes());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_cost_little_and_hold_nobody_up() {
    let bench = Bench::new().await;
    beside(&bench, "/holdfast.v1.Backup/Upload", None, 1).await;
    beside(&bench, "/holdfast.v1.Jobs/Subscribe", None, 3).await;
    let begun = Agent::begin(&bench, "stalling", 9).await.begun;
    let session = session_to_header(&begun.session, begun.lease_epoch);
    beside(&bench, "/holdfast.v1.Backup/Upload", Some(session), 5).await;
}

/// A session that is not open is named to the agent, which begins another, before anything is read.
#[tokio::test]
async fn a_session_in_the_headers_must_be_open() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.begun.lease_epoch += 1;
    agent.put(dir(""));
    assert_eq!(reason(&agent.upload().await.unwrap_err()), "LeaseLost");
    agent.begun.session = vec![9; 16].into();
    let unknown = agent.missing(&[]).await.unwrap_err();
    assert_eq!(reason(&unknown), "UnknownSession");
}

/// Without a session's name in its headers a stream brings small messages only.
#[tokio::test]
async fn large_messages_belong_to_sessions() {
    let bench = Bench::new().await;
    let mut agent = Agent::begin(&bench, "web", 1).await;
    agent.put(dir(""));
    agent.put(inline("small", &[1; 1000]));
    agent.send_content(&noise(1, 300_000));
    let refused = agent.upload_unnamed().await.unwrap_err();
    assert_eq!(reason(&refused), "MessageTooLarge");
}
