//! SIGINT and SIGTERM end a run in order: nothing half-done is left behind, exit 130.

use holdfast_agent::Cancel;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Runs `work`; a signal cancels it through `cancel`, and its end is awaited.
pub async fn cancel_on_interrupt<T>(work: impl Future<Output = T>, cancel: Cancel) -> T {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => done,
        () = interrupted() => {
            cancel.cancel();
            work.await
        }
    }
}

/// Returns at the first SIGINT or SIGTERM.
pub async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
