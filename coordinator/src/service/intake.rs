//! What of requests may lie in memory before they are whole messages; one for all listeners of a process.
//!
//! gRPC collects a message before anybody sees it, and whoever announces one and stalls keeps its bytes. So
//! every request's body is watched as it comes in. A message has a limit by its method. Before the first
//! byte of one above [`FREE_BYTES`] is passed on, its length is taken from a budget, and given back when the
//! next one is asked for; until then it stays in the connection's window, and the peer waits. The budget of
//! open sessions is one, of which each has a share; that of everybody else is another, smaller, with a share
//! for each connection. A stream belongs to a session when its headers name one ([`SESSION_HEADER`]), and
//! only then may it send what an upload sends. A message that does not come on ends its stream.

use super::transport::Connection;
use crate::Coordinator;
use crate::error::Result;
use bytes::Bytes;
use futures::future::{Either, Ready, ready};
use holdfast_format::id::SessionId;
use holdfast_format::wire::{SESSION_HEADER, session_from_header};
use http_body::{Frame, SizeHint};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// Most bytes of messages of open sessions that are coming in or have not been taken.
const SESSION_BYTES: usize = 32 << 20;
/// The same of one session: the largest message and a question beside it.
const SHARE_BYTES: usize = super::MAX_MESSAGE_BYTES + ASKED;
/// The same of everybody else.
const OTHER_BYTES: usize = 24 << 20;
/// A message up to this size costs its stream no more than the stream itself does.
const FREE_BYTES: usize = 8 << 10;
/// Requests without a session that may wait for the budget.
const OTHERS_WAITING: usize = 64;
/// How long such a request waits for it.
const OTHERS_WAIT: Duration = Duration::from_secs(30);
/// Seconds that a message may take, beside those for its length.
const PATIENCE: u32 = 20;
/// The slowest link that counts as one, in bytes a second: of a session, and of others.
const SLOWEST: (usize, usize) = (32 << 10, 256 << 10);
/// The length field of a message, and the flag before it.
const HEADER: usize = 5;

/// Largest request of a method that is in no table, in bytes: a path and a few ids.
const SMALL: usize = 64 << 10;
/// 8,192 ids with their tags.
const ASKED: usize = 288 << 10;
/// 65,536 ids with their tags.
const FETCHED: usize = 2240 << 10;
/// Rules of what to leave out, typed by people.
const ORDERED: usize = 256 << 10;

/// Largest message of a method: with an open session, and without.
fn limits(path: &str) -> (usize, usize) {
    match path {
        "/holdfast.v1.Backup/Upload" => (super::MAX_MESSAGE_BYTES, SMALL),
        "/holdfast.v1.Backup/FindMissing" => (ASKED, SMALL),
        // A list of all volumes of a node, or a report with its problems.
        "/holdfast.v1.Jobs/Subscribe" => (super::MAX_MESSAGE_BYTES, super::MAX_MESSAGE_BYTES),
        "/holdfast.v1.Restore/Fetch" => (FETCHED, FETCHED),
        "/holdfast.v1.Admin/StartBackup" => (ORDERED, ORDERED),
        _ => (SMALL, SMALL),
    }
}

/// The budgets of a coordinator.
pub(crate) struct Intake {
    sessions: Arc<Semaphore>,
    others: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Of sessions that have requests.
    shares: Mutex<HashMap<SessionId, Weak<Semaphore>>>,
}

impl Intake {
    fn share(&self, session: SessionId) -> Arc<Semaphore> {
        // A map of numbers is never half changed.
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&session).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(SHARE_BYTES));
        shares.insert(session, Arc::downgrade(&share));
        share
    }
}

impl Default for Intake {
    fn default() -> Self {
        let places = |n| Arc::new(Semaphore::new(n));
        Self {
            sessions: places(SESSION_BYTES),
            others: places(OTHER_BYTES),
            waiting: places(OTHERS_WAITING),
            shares: Mutex::default(),
        }
    }
}

/// What was taken, of a share and of a budget.
#[derive(Debug)]
struct Permit {
    _share: Option<OwnedSemaphorePermit>,
    _budget: OwnedSemaphorePermit,
}

type Taken = Pin<Box<dyn Future<Output = Result<Permit, Status>> + Send>>;

/// What a request may send, and from which budget.
struct Allowed {
    limit: usize,
    budget: Arc<Semaphore>,
    /// What the session, or else the connection, may have of it.
    share: Option<Arc<Semaphore>>,
    /// Places to wait in and how long, where waiting has an end.
    waiting: Option<(Arc<Semaphore>, Duration)>,
    /// Seconds that a message may take, beside those for its length.
    patience: u32,
    /// Bytes a second that it must come with.
    slowest: usize,
}

impl Allowed {
    fn take(&self, bytes: usize) -> Taken {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let budget = self.budget.clone();
        let busy = || Status::unavailable("too many large requests are coming in: try again later");
        let share = self.share.clone();
        let (places, wait) = match self.waiting.clone() {
            Some((places, wait)) => (Some(places), wait),
            None => (None, Duration::MAX),
        };
        let take = async move {
            // The share first: who waits for its own keeps nothing from others.
            let share = match share {
                Some(share) => Some(share.acquire_many_owned(bytes).await.map_err(|_| busy())?),
                None => None,
            };
            let _place = match places {
                Some(places) => Some(places.try_acquire_owned().map_err(|_| busy())?),
                None => None,
            };
            let budget = budget.acquire_many_owned(bytes).await;
            Ok(Permit {
                _share: share,
                _budget: budget.map_err(|_| busy())?,
            })
        };
        Box::pin(async move {
            let taken = tokio::time::timeout(wait, take).await;
            taken.map_err(|_| busy())?
        })
    }
}

/// A service whose requests are watched as they come in.
#[derive(Clone)]
pub(super) struct Watched<S> {
    service: S,
    coordinator: Arc<Coordinator>,
}

impl<S> Watched<S> {
    pub(super) fn new(service: S, coordinator: Arc<Coordinator>) -> Self {
        Self {
            service,
            coordinator,
        }
    }

    fn allow(&self, request: &http::Request<Body>) -> Result<Allowed> {
        let intake = self.coordinator.intake();
        let (with_session, without) = limits(request.uri().path());
        let connection = request.extensions().get::<Connection>();
        let Some(session) = request.headers().get(SESSION_HEADER) else {
            return Ok(Allowed {
                limit: without,
                budget: intake.others.clone(),
                share: connection.map(|connection| connection.share.clone()),
                waiting: Some((intake.waiting.clone(), OTHERS_WAIT)),
                patience: PATIENCE,
                slowest: SLOWEST.1,
            });
        };
        let (id, epoch) = session_from_header(session.as_bytes())?;
        self.coordinator.sessions()?.open(&id, epoch)?;
        Ok(Allowed {
            limit: with_session,
            budget: intake.sessions.clone(),
            share: Some(intake.share(id)),
            waiting: None,
            patience: PATIENCE,
            slowest: SLOWEST.0,
        })
    }
}

impl<S: NamedService> NamedService for Watched<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Watched<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Self::Response, Infallible>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.allow(&request) {
            Ok(allowed) => {
                let request = request.map(|body| Body::new(Incoming::new(body, allowed)));
                Either::Right(self.service.call(request))
            }
            Err(error) => Either::Left(ready(Ok(super::status(error).into_http()))),
        }
    }
}

/// A request's body.
struct Incoming {
    body: Body,
    allowed: Allowed,
    framing: Framing,
    /// Bytes that came and are not passed on.
    bytes: Bytes,
    /// How many of them may be.
    checked: usize,
    /// The message that is coming in, or that was passed on last, if it had to be paid for.
    permit: Option<Permit>,
    /// It has been passed on whole.
    passed: bool,
    taking: Option<Taken>,
    seconds: Option<Interval>,
    /// Seconds that are left for the message.
    patience: u32,
    /// No message has been announced yet.
    nothing_yet: bool,
}

impl Incoming {
    fn new(body: Body, allowed: Allowed) -> Self {
        Self {
            body,
            patience: allowed.patience,
            allowed,
            framing: Framing::default(),
            bytes: Bytes::new(),
            checked: 0,
            permit: None,
            passed: false,
            taking: None,
            seconds: None,
            nothing_yet: true,
        }
    }

    /// Checks what came; whether a message in it must be paid for first.
    fn check(&mut self) -> Result<bool, Status> {
        while self.checked < self.bytes.len() && !self.passed {
            let (seen, mark) = self.framing.advance(&self.bytes[self.checked..]);
            self.checked += seen;
            match mark {
                Some(Mark::Announced(length)) => {
                    self.nothing_yet = false;
                    let limit = self.allowed.limit;
                    if length > limit {
                        // In the words of tonic's own limit.
                        return Err(Status::out_of_range(format!(
                            "Error, decoded message length too large: found {length} bytes, the limit is: \
                             {limit} bytes"
                        )));
                    }
                    let seconds = u32::try_from(length / self.allowed.slowest).unwrap_or(u32::MAX);
                    self.patience = self.allowed.patience.saturating_add(seconds);
                    if length > FREE_BYTES {
                        self.taking = Some(self.allowed.take(length));
                        return Ok(true);
                    }
                }
                Some(Mark::Ended) => self.passed = self.permit.is_some(),
                None => {}
            }
        }
        Ok(false)
    }

    /// Whether a message has been coming in for too long. Time counts only where it is waited for.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.nothing_yet && !self.framing.is_inside() {
            return false;
        }
        let seconds = self.seconds.get_or_insert_with(|| {
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            seconds
        });
        while seconds.poll_tick(cx).is_ready() {
            self.patience = self.patience.saturating_sub(1);
            if self.patience == 0 {
                return true;
            }
        }
        false
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if std::mem::take(&mut this.passed) {
            // Whoever asks for more has taken the message.
            this.permit = None;
        }
        loop {
            if let Some(taking) = &mut this.taking {
                let taken = ready!(taking.as_mut().poll(cx));
                this.taking = None;
                match taken {
                    Ok(permit) => this.permit = Some(permit),
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
            }
            match this.check() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            if this.checked > 0 {
                let piece = this.bytes.split_to(std::mem::take(&mut this.checked));
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => this.bytes = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending if this.is_stalled(cx) => {
                    let status = Status::deadline_exceeded("a message did not come on");
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where in its sequence of messages a body is.
#[derive(Default)]
struct Framing {
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// A message of this length begins after these bytes.
    Announced(usize),
    /// One ends after them.
    Ended,
}

impl Framing {
    fn is_inside(&self) -> bool {
        self.have > 0 || self.left > 0
    }

    /// Goes on to the next mark, or to the end of the bytes; over how many of them.
    fn advance(&mut self, bytes: &[u8]) -> (usize, Option<Mark>) {
        if self.left > 0 {
            let seen = self.left.min(bytes.len());
            self.left -= seen;
            return (seen, (self.left == 0).then_some(Mark::Ended));
        }
        let seen = (HEADER - self.have).min(bytes.len());
        self.header[self.have..self.have + seen].copy_from_slice(&bytes[..seen]);
        self.have += seen;
        if self.have < HEADER {
            return (seen, None);
        }
        self.have = 0;
        let [_, length @ ..] = self.header;
        self.left = u32::from_be_bytes(length) as usize;
        (seen, Some(Mark::Announced(self.left)))
    }
}

#[cfg(test)]
mod tests;
