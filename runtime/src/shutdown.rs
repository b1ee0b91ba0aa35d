//! One request to stop, seen by everything that listens, and a bounded wait for what still runs.
//!
//! [`Shutdown`] is cheap to clone. Whoever does work that must end in order holds a [`Running`];
//! [`Stopper::drain`] waits until the last one is dropped or the grace is over.

use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Who asked for the stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// SIGTERM: a supervisor.
    Terminate,
    /// SIGINT: a person at the terminal.
    Interrupt,
    /// The program itself.
    Asked,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Drained {
    /// Everything had ended.
    Whole,
    /// The grace was over first.
    GraceOver,
}

/// Sees the request.
#[derive(Clone, Debug)]
pub struct Shutdown {
    request: watch::Receiver<Option<Cause>>,
    running: mpsc::WeakSender<()>,
}

/// Makes the request and waits for the end. One per process or test.
#[derive(Debug)]
pub struct Stopper {
    request: watch::Sender<Option<Cause>>,
    // Kept so that a `Running` can be had until the drain begins.
    running: Option<mpsc::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

/// Work that a drain waits for, until it is dropped.
#[derive(Clone, Debug)]
pub struct Running(#[allow(dead_code, reason = "held for its drop")] mpsc::Sender<()>);

/// A stopper and its first listener.
pub fn channel() -> (Stopper, Shutdown) {
    let (request, requested) = watch::channel(None);
    let (running, ended) = mpsc::channel(1);
    let shutdown = Shutdown {
        request: requested,
        running: running.downgrade(),
    };
    let stopper = Stopper {
        request,
        running: Some(running),
        ended,
    };
    (stopper, shutdown)
}

impl Shutdown {
    /// A shutdown that is never requested: for a program that has no orderly stop.
    pub fn never() -> Self {
        let (stopper, shutdown) = channel();
        // The sender of a watch may go: `requested` then waits for ever.
        drop(stopper);
        shutdown
    }

    /// Whether to stop.
    pub fn is_requested(&self) -> bool {
        self.request.borrow().is_some()
    }

    /// Who asked, once somebody has.
    pub fn cause(&self) -> Option<Cause> {
        *self.request.borrow()
    }

    /// Ends when the stop is requested. May be awaited by many, and again.
    pub async fn requested(&self) -> Cause {
        let mut request = self.request.clone();
        let cause = match request.wait_for(Option::is_some).await {
            Ok(cause) => *cause,
            Err(_) => None,
        };
        match cause {
            Some(cause) => cause,
            // Nobody is left who could ask.
            None => std::future::pending().await,
        }
    }

    /// Takes part in the drain; `None` once the stop is requested: nothing new begins then.
    pub fn running(&self) -> Option<Running> {
        if self.is_requested() {
            return None;
        }
        self.running.upgrade().map(Running)
    }
}

impl Stopper {
    /// Asks everything to stop. The first cause stays.
    pub fn request(&self, cause: Cause) {
        self.request.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(cause);
            }
            first
        });
    }

    /// Asks, then waits until nothing is running or `grace` is over.
    pub async fn drain(mut self, grace: Duration) -> Drained {
        self.request(Cause::Asked);
        drop(self.running.take());
        match tokio::time::timeout(grace, self.ended.recv()).await {
            Ok(_) => Drained::Whole,
            Err(_) => Drained::GraceOver,
        }
    }

    /// Waits for SIGTERM or SIGINT and requests the stop; then for a second one, which says that
    /// the person has lost patience. To be spawned or selected on.
    pub async fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        for _ in 0..2 {
            let cause = tokio::select! {
                _ = terminate.recv() => Cause::Terminate,
                _ = interrupt.recv() => Cause::Interrupt,
            };
            self.request(cause);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_sees_the_first_cause_and_the_drain_waits() {
        let (stopper, shutdown) = channel();
        let running = shutdown.running().unwrap();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(!shutdown.is_requested());
        stopper.request(Cause::Interrupt);
        stopper.request(Cause::Terminate);
        assert_eq!(waiting.await.unwrap(), Cause::Interrupt);
        assert_eq!(shutdown.cause(), Some(Cause::Interrupt));
        assert!(shutdown.running().is_none());
        let drain = tokio::spawn(stopper.drain(Duration::from_secs(60)));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!drain.is_finished());
        drop(running);
        assert_eq!(drain.await.unwrap(), Drained::Whole);
    }

    #[tokio::test]
    async fn the_grace_ends() {
        let (stopper, shutdown) = channel();
        let _running = shutdown.running();
        assert_eq!(
            stopper.drain(Duration::from_millis(1)).await,
            Drained::GraceOver
        );
    }

    #[tokio::test]
    async fn never_is_never() {
        let shutdown = Shutdown::never();
        let waited = tokio::time::timeout(Duration::from_millis(5), shutdown.requested()).await;
        assert!(waited.is_err());
    }
}
