//! Tells the agent how far its messages are durable, as packs become so.

use crate::error::{Error, Result};
use crate::session::ticket::Ticket;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What an upload answers: a sequence number through which everything is durable.
pub type AckSender = mpsc::Sender<u64>;

/// A message and what it waits for.
type Mark = (u64, Vec<Arc<Ticket>>);

/// Sends acknowledgements in order.
pub struct Acks {
    marks: mpsc::UnboundedSender<Mark>,
    task: JoinHandle<Option<Error>>,
}

impl Acks {
    /// Sends to `replies`.
    pub fn start(replies: AckSender) -> Self {
        // One mark per message whose frames are in open packs: bounded by their memory.
        let (marks, receiver) = mpsc::unbounded_channel();
        Self {
            marks,
            task: tokio::spawn(send(receiver, replies)),
        }
    }

    /// The message with this number is durable when these tickets are.
    pub fn mark(&self, seq: u64, tickets: Vec<Arc<Ticket>>) {
        // Where the task has ended, `broken` tells.
        let _ = self.marks.send((seq, tickets));
    }

    /// Ends when no more can be acknowledged: a pack failed, or nobody listens. Not to be called
    /// again then.
    pub async fn broken(&mut self) -> Error {
        ended((&mut self.task).await).unwrap_or_else(|| Error::Cancelled {
            detail: "the agent has hung up".into(),
        })
    }

    /// Acknowledges what is durable now; what is not is left to the commit. The failure of a pack,
    /// if one failed.
    pub async fn finish(self) -> Option<Error> {
        drop(self.marks);
        ended(self.task.await)
    }
}

fn ended(task: Result<Option<Error>, tokio::task::JoinError>) -> Option<Error> {
    task.unwrap_or_else(|_| Some(Error::internal("acknowledge messages")))
}

async fn send(mut marks: mpsc::UnboundedReceiver<Mark>, replies: AckSender) -> Option<Error> {
    let mut waiting: VecDeque<Mark> = VecDeque::new();
    loop {
        while let Ok(mark) = marks.try_recv() {
            waiting.push_back(mark);
        }
        let mut through = None;
        while let Some((seq, _)) =
            waiting.pop_front_if(|(_, tickets)| tickets.iter().all(|t| t.is_durable()))
        {
            through = Some(seq);
        }
        if let Some(seq) = through {
            if replies.send(seq).await.is_err() {
                return None;
            }
            continue;
        }
        let ticket = waiting
            .front()
            .and_then(|(_, tickets)| tickets.iter().find(|t| !t.is_durable()));
        tokio::select! {
            waited = wait(ticket) => if let Err(error) = waited {
                return Some(error);
            },
            mark = marks.recv() => match mark {
                Some(mark) => waiting.push_back(mark),
                None => return None,
            },
            () = replies.closed() => return None,
        }
    }
}

async fn wait(ticket: Option<&Arc<Ticket>>) -> Result<()> {
    match ticket {
        Some(ticket) => ticket.wait().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[tokio::test]
    async fn acknowledgements_follow_the_tickets_in_order() {
        let (sender, mut replies) = mpsc::channel(8);
        let acks = Acks::start(sender);
        let (a, b) = (Ticket::new(), Ticket::new());
        acks.mark(1, vec![a.clone()]);
        acks.mark(2, vec![b.clone()]);
        acks.mark(3, vec![]);
        b.durable();
        tokio::task::yield_now().await;
        assert!(replies.try_recv().is_err(), "1 is not durable yet");
        a.durable();
        let mut through = 0;
        while through < 3 {
            through = replies.recv().await.unwrap();
        }
        acks.mark(4, vec![Ticket::new()]);
        assert!(acks.finish().await.is_none());
        assert!(replies.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_failed_pack_breaks_them() {
        let (sender, _replies) = mpsc::channel(8);
        let mut acks = Acks::start(sender);
        let ticket = Ticket::new();
        acks.mark(1, vec![ticket.clone()]);
        ticket.failed(Arc::new(Error::LeaseLost));
        assert_eq!(acks.broken().await.reason(), Reason::LeaseLost);
    }
}
