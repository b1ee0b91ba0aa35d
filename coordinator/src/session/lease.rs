//! A session's hold on its volume: lost when the volume goes to a later epoch, kept by messages.
//!
//! This process owns the catalog, so whether a lease is lost is known here at once; the catalog is told
//! of activity a few times per lease, not at every message.

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use holdfast_format::id::SessionId;
use holdfast_runtime::clock::Clock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The lease of one begun session.
pub struct Lease {
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    session: SessionId,
    epoch: u64,
    every: Duration,
    told: Mutex<Duration>,
    lost: watch::Sender<bool>,
}

impl Lease {
    /// A lease that begins now.
    pub fn new(
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        session: SessionId,
        epoch: u64,
        lasts: Duration,
    ) -> Self {
        let told = Mutex::new(clock.elapsed());
        Self {
            catalog,
            clock,
            session,
            epoch,
            every: lasts / 6,
            told,
            lost: watch::Sender::new(false),
        }
    }

    /// Its epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Another epoch has begun; whoever waits in `lost` is told.
    pub fn lose(&self) {
        self.lost.send_replace(true);
    }

    /// Ends when the lease is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        if lost.wait_for(|lost| *lost).await.is_err() {
            // Cannot be: `self` holds the sender.
            std::future::pending().await
        }
    }

    /// A message came: fails when the lease is lost, and keeps it otherwise.
    pub async fn check(&self, epoch: u64) -> Result<()> {
        if epoch != self.epoch || *self.lost.borrow() {
            return Err(Error::LeaseLost);
        }
        let now = self.clock.elapsed();
        let due = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let due = now.saturating_sub(*told) >= self.every;
            if due {
                *told = now;
            }
            due
        };
        if due {
            let now_ns = self.clock.now_ns();
            let touched = self.catalog.touch(&self.session, self.epoch, now_ns).await;
            if touched.is_err() {
                self.lose();
            }
            touched?;
        }
        Ok(())
    }

    /// When the catalog was last told of activity.
    pub fn heard(&self) -> Duration {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
