//! One upload stream: messages leave in the order they are given, within a bound in bytes.
//!
//! The stream is opened when the first message is due. A run that has nothing to say for a while
//! sends an empty message, so that the session's lease lasts. `finish` returns once the coordinator has
//! taken everything; what it has not acknowledged as durable by then, the commit makes durable.

use crate::backup::budget::{Budget, Permit};
use crate::cancel::Cancel;
use crate::client::{Client, from_status, of_session};
use crate::error::{Error, Result};
use crate::limits::RateLimit;
use bytes::Bytes;
use holdfast_proto::v1 as proto;
use proto::upload_request::Body;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes given and not yet taken by the connection.
const WINDOW_BYTES: u64 = 6 << 20;
/// What a message costs beside its payload, about.
const MESSAGE_BYTES: u64 = 256;
/// Longest silence.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The session that a stream belongs to.
#[derive(Debug, Clone)]
pub struct SessionRef {
    /// Its id.
    pub session: Bytes,
    /// Its fencing epoch.
    pub lease_epoch: u64,
}

/// The giving end; used by one synchronous thread.
#[derive(Debug)]
pub struct Outgoing {
    messages: mpsc::UnboundedSender<(Body, u64, Permit)>,
    window: Arc<Budget>,
    stop: Cancel,
}

impl Outgoing {
    /// Gives a message of about so many bytes; waits while too many are on their way.
    pub fn send(&self, body: Body, bytes: u64) -> Result<()> {
        let permit = self.window.take(0, bytes + MESSAGE_BYTES, &self.stop)?;
        self.messages
            .send((body, bytes, permit))
            .map_err(|_| Error::Cancelled)
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Uploading(JoinHandle<Result<u64>>);

impl Uploading {
    /// Waits until all that was given is taken; the number of the last message, 0: none was sent.
    pub async fn finish(self) -> Result<u64> {
        match self.0.await {
            Ok(sent) => sent,
            Err(error) => Err(Error::Internal(format!("the upload broke: {error}"))),
        }
    }
}

/// Starts a stream. `failed` is called with the error that ended it early.
pub fn start(
    client: Client,
    session: SessionRef,
    rate: RateLimit,
    stop: Cancel,
    failed: impl FnOnce(&Error) + Send + 'static,
) -> (Outgoing, Uploading) {
    let (messages, given) = mpsc::unbounded_channel();
    let outgoing = Outgoing {
        messages,
        window: Budget::new(WINDOW_BYTES, 0),
        stop: stop.clone(),
    };
    let task = tokio::spawn(async move {
        let sent = tokio::select! {
            biased;
            sent = run(&client, session, rate, given) => sent,
            () = stop.cancelled() => Err(Error::Cancelled),
        };
        if let Err(error) = &sent {
            failed(error);
        }
        sent
    });
    (outgoing, Uploading(task))
}

async fn run(
    client: &Client,
    session: SessionRef,
    rate: RateLimit,
    mut given: mpsc::UnboundedReceiver<(Body, u64, Permit)>,
) -> Result<u64> {
    let first = match tokio::time::timeout(KEEP_ALIVE, given.recv()).await {
        Ok(None) => return Ok(0),
        Ok(Some(first)) => Some(first),
        Err(_) => None,
    };
    // One message waits here while the connection takes the one before.
    let (sender, receiver) = mpsc::channel(1);
    let request = tonic::Request::new(ReceiverStream::new(receiver));
    let request = of_session(request, &session.session, session.lease_epoch);
    let feed = feed(session, rate, first, given, sender);
    let mut stubs = client.backup();
    let take = async {
        let call = stubs.upload(request).await;
        let mut acks = call
            .map_err(|status| from_status("upload", &status))?
            .into_inner();
        // Frames of a small run stay in an open pack until the commit, so that it writes one pack: a
        // stream that ends in order has been taken whole, acknowledged or not.
        while acks
            .message()
            .await
            .map_err(|status| from_status("upload", &status))?
            .is_some()
        {}
        Ok::<(), Error>(())
    };
    // When the call fails, the feeding ends because nobody takes its messages.
    let (sent, taken) = tokio::join!(feed, take);
    taken?;
    Ok(sent)
}

/// Numbers the messages and hands them to the connection; how many there were.
async fn feed(
    session: SessionRef,
    rate: RateLimit,
    first: Option<(Body, u64, Permit)>,
    mut given: mpsc::UnboundedReceiver<(Body, u64, Permit)>,
    sender: mpsc::Sender<proto::UploadRequest>,
) -> u64 {
    let mut seq = 0;
    let next_request = |seq: &mut u64, body: Body| {
        *seq += 1;
        let first = *seq == 1;
        proto::UploadRequest {
            session: if first {
                session.session.clone()
            } else {
                Bytes::new()
            },
            lease_epoch: if first { session.lease_epoch } else { 0 },
            seq: *seq,
            body: Some(body),
        }
    };
    let mut next = Some(first);
    loop {
        let message = match next.take() {
            Some(message) => message,
            None => match tokio::time::timeout(KEEP_ALIVE, given.recv()).await {
                Ok(Some(message)) => Some(message),
                Ok(None) => return seq,
                Err(_) => None,
            },
        };
        let (body, bytes, permit) = match message {
            Some((body, bytes, permit)) => (body, bytes, Some(permit)),
            None => (Body::Changes(proto::Changes::default()), 0, None),
        };
        let mut wait = rate.take(bytes, Instant::now());
        while !wait.is_zero() {
            // A slow link must not cost the lease.
            let pause = wait.min(KEEP_ALIVE);
            tokio::time::sleep(pause).await;
            wait -= pause;
            if !wait.is_zero() {
                let nothing = Body::Changes(proto::Changes::default());
                if sender.send(next_request(&mut seq, nothing)).await.is_err() {
                    return seq;
                }
            }
        }
        let request = next_request(&mut seq, body);
        if sender.send(request).await.is_err() {
            return seq;
        }
        drop(permit);
    }
}
