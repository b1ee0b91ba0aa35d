//! A ticket is the fate of one open pack: waiting, durable (in the store and in the catalog), or failed.

use crate::error::{Error, Result};
use std::sync::Arc;
use tokio::sync::watch;

/// Shared by everybody whose frames are in the pack.
#[derive(Debug)]
pub struct Ticket(watch::Sender<Fate>);

#[derive(Debug, Clone)]
enum Fate {
    Waiting,
    Durable,
    Failed(Arc<Error>),
}

impl Ticket {
    /// The ticket of a new pack.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Fate::Waiting)))
    }

    /// The pack is in the store and its rows are in the catalog.
    pub fn durable(&self) {
        self.0.send_replace(Fate::Durable);
    }

    /// The pack could not be written; nothing in it may be relied on.
    pub fn failed(&self, error: Arc<Error>) {
        self.0.send_replace(Fate::Failed(error));
    }

    /// Whether it is durable already.
    pub fn is_durable(&self) -> bool {
        matches!(*self.0.borrow(), Fate::Durable)
    }

    /// Waits for the pack's fate.
    pub async fn wait(&self) -> Result<()> {
        let mut fate = self.0.subscribe();
        let fate = fate.wait_for(|fate| !matches!(fate, Fate::Waiting)).await;
        match fate.as_deref() {
            Ok(Fate::Failed(error)) => Err(Error::Shared(error.clone())),
            Ok(_) => Ok(()),
            // Cannot be: `self` holds the sender.
            Err(_) => Err(Error::internal("wait for a pack")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[tokio::test]
    async fn everybody_learns_the_fate_whenever_they_ask() {
        let ticket = Ticket::new();
        let early = tokio::spawn({
            let ticket = ticket.clone();
            async move { ticket.wait().await }
        });
        assert!(!ticket.is_durable());
        ticket.durable();
        early.await.unwrap().unwrap();
        ticket.wait().await.unwrap();
        assert!(ticket.is_durable());

        let ticket = Ticket::new();
        ticket.failed(Arc::new(Error::LeaseLost));
        assert_eq!(ticket.wait().await.unwrap_err().reason(), Reason::LeaseLost);
    }
}
