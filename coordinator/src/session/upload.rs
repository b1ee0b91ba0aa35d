//! One upload stream: messages in, acknowledgements out.
//!
//! Messages are taken in order. Frames are checked on blocking threads ahead of their turn, a few at a
//! time, so that two cores are busy; memory is bounded by that number.

use crate::blocking;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::acks::{AckSender, Acks};
use crate::session::receive::{Verified, verify};
use crate::session::run::Run;
use crate::session::ticket::Ticket;
use futures::{Stream, StreamExt};
use holdfast_format::entry::Problem;
use holdfast_format::frame::Frame;
use holdfast_format::path::RelPath;
use holdfast_format::wire::WireChange;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Messages read ahead of the one that is being taken.
const AHEAD: usize = 4;

/// One message of an upload.
pub struct Message {
    /// 1, 2, 3, ... within the stream.
    pub seq: u64,
    /// What it brings.
    pub body: Body,
}

/// What a message brings.
pub enum Body {
    /// Chunks.
    Frame(Frame),
    /// Changes to the parent's tree, in key order.
    Changes(Vec<WireChange>),
    /// Problems of the run, in key order among themselves.
    Problems(Vec<(RelPath, Problem)>),
}

enum Staged {
    Frame(JoinHandle<Result<Verified>>),
    Changes(Vec<WireChange>),
    Problems(Vec<(RelPath, Problem)>),
}

enum Ready {
    Frame(Verified),
    Changes(Vec<WireChange>),
    Problems(Vec<(RelPath, Problem)>),
}

impl Session {
    /// Takes a stream of messages to its end. Another upload, or a new begin, ends this one.
    pub async fn upload(
        &self,
        epoch: u64,
        messages: impl Stream<Item = Result<Message>> + Send + Unpin,
        replies: AckSender,
    ) -> Result<()> {
        self.lease.check(epoch).await?;
        let mut run = tokio::select! {
            run = self.run.lock() => run,
            () = self.lease.lost() => return Err(Error::LeaseLost),
        };
        if run.committed.is_some() || run.reserved.is_some() {
            return Err(Error::invalid("the run is already committed"));
        }
        run.begin_stream();
        let mut acks = Acks::start(replies);
        let taken = self.take_all(&mut run, epoch, messages, &mut acks).await;
        if taken.is_err() {
            // What came of the tree is of no use without the rest.
            run.begin_stream();
            return taken;
        }
        acks.finish().await.map_or(Ok(()), Err)
    }

    async fn take_all(
        &self,
        run: &mut Run,
        epoch: u64,
        mut messages: impl Stream<Item = Result<Message>> + Send + Unpin,
        acks: &mut Acks,
    ) -> Result<()> {
        let mut stage: VecDeque<(u64, Staged)> = VecDeque::with_capacity(AHEAD);
        let (mut open, mut last) = (true, 0);
        while open || !stage.is_empty() {
            tokio::select! {
                biased;
                () = self.lease.lost() => return Err(Error::LeaseLost),
                message = messages.next(), if open && stage.len() < AHEAD => match message {
                    None => open = false,
                    Some(message) => {
                        let message = message?;
                        self.lease.check(epoch).await?;
                        last += 1;
                        if message.seq != last {
                            let rule = format!("message {} where {last} was due", message.seq);
                            return Err(Error::invalid(rule));
                        }
                        stage.push_back((last, self.stage(message.body)));
                    }
                },
                ready = front(&mut stage), if !stage.is_empty() => {
                    let (seq, ready) = ready?;
                    let tickets = self.take(run, ready).await?;
                    run.seq = seq;
                    acks.mark(seq, tickets);
                }
                error = acks.broken() => return Err(error),
                () = self.core.clock.sleep(self.core.settings.sessions.idle) => {
                    // A silent agent may be waiting for an acknowledgement.
                    self.flush(run).await?;
                }
            }
        }
        Ok(())
    }

    fn stage(&self, body: Body) -> Staged {
        match body {
            Body::Frame(frame) => {
                let domain = self.domain.clone();
                Staged::Frame(tokio::spawn(blocking("check a frame", move || {
                    verify(&domain.ids, frame)
                })))
            }
            Body::Changes(changes) => Staged::Changes(changes),
            Body::Problems(problems) => Staged::Problems(problems),
        }
    }

    async fn take(&self, run: &mut Run, ready: Ready) -> Result<Vec<Arc<Ticket>>> {
        match ready {
            Ready::Frame(verified) => self.take_frame(run, verified).await,
            Ready::Changes(changes) => self.take_changes(run, changes).await.map(|()| Vec::new()),
            Ready::Problems(found) => self.take_problems(run, found).await.map(|()| Vec::new()),
        }
    }

    /// Finishes the packs that hold frames of this session.
    async fn flush(&self, run: &mut Run) -> Result<()> {
        let waiting = run.waiting().to_vec();
        self.core.pool.close(&self.domain, &waiting).await?;
        self.write_holds(run).await
    }
}

/// The first message, once it is ready. Dropping the future loses nothing.
async fn front(stage: &mut VecDeque<(u64, Staged)>) -> Result<(u64, Ready)> {
    let verified = match stage.front_mut() {
        Some((_, Staged::Frame(task))) => Some(task.await),
        _ => None,
    };
    let (seq, staged) = stage
        .pop_front()
        .ok_or_else(|| Error::internal("take a message"))?;
    let ready = match (staged, verified) {
        (Staged::Changes(changes), _) => Ready::Changes(changes),
        (Staged::Problems(problems), _) => Ready::Problems(problems),
        (Staged::Frame(_), Some(Ok(verified))) => Ready::Frame(verified?),
        (Staged::Frame(_), _) => return Err(Error::internal("check a frame")),
    };
    Ok((seq, ready))
}
