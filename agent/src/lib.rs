//! Reads volumes, ships what changed, and writes snapshots back.
//!
//! A backup, station by station: `volumes` finds what may be backed up; `backup` opens a session
//! through `client`; `scan` walks the volume in key order; `backup::compare` merges the walk with
//! `index`; `read` reads what may have changed; `upload` ships frames and entries; after the
//! commit's acknowledgement, and only then, `index` moves forward. `restore` is the way back.
//!
//! Everything that touches a volume is synchronous and runs on blocking threads; what talks to the
//! coordinator is async; they are joined by channels bounded in bytes.

pub mod backup;
pub mod beneath;
pub mod cancel;
pub mod client;
mod condition;
pub mod confine;
pub mod error;
pub mod exposure;
mod faults;
pub mod hold;
pub mod index;
pub mod jobs;
pub mod journal;
pub mod limits;
pub mod metrics;
pub mod mount;
pub mod priority;
pub mod probe;
pub mod program;
pub mod progress;
pub mod read;
pub mod restore;
pub mod rolling;
pub mod rules;
pub mod scan;
pub mod settings;
mod some_paths;
mod sort;
mod spool;
pub mod stat;
mod sys;
pub mod temporary;
pub mod upload;
pub mod volumes;

pub use cancel::Cancel;
pub use error::{Error, ItemProblem, Result};
pub use progress::Progress;

use client::Client;
use holdfast_runtime::http;
use holdfast_runtime::metrics::Metrics;
use holdfast_runtime::readiness::Readiness;
use holdfast_runtime::shutdown::{Drained, Shutdown, Stopper};
use std::sync::Arc;

/// The agent as a process: serves the coordinator's orders, health and metrics, until a signal asks it
/// to stop; then whatever runs is cancelled, and given a bounded time to end.
pub async fn run(
    settings: settings::AgentSettings,
    stopper: Stopper,
    shutdown: Shutdown,
) -> Result<()> {
    let tls = settings.tls.as_ref().map(|tls| tls.load()).transpose();
    let tls = tls.map_err(|error| Error::Io {
        what: "read",
        path: error.path.display().to_string(),
        source: error.source,
    })?;
    let client = Client::connect_lazy(&settings.coordinator, tls)?;
    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    let ready = readiness.latch("coordinator");
    let listening = |source| Error::Io {
        what: "listen on",
        path: settings.http.to_string(),
        source,
    };
    let listener = tokio::net::TcpListener::bind(settings.http)
        .await
        .map_err(listening)?;
    let families = metrics::AgentMetrics::new(&metrics);
    families.landlock.set(settings.serve.confined.abi.into());
    tokio::spawn(http::serve(
        listener,
        readiness.clone(),
        metrics,
        shutdown.clone(),
    ));
    let running = shutdown.running();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let serve = Arc::new(settings.serve);
        if let Err(error) = jobs::serve(client, serve, families, stop, Some(ready)).await {
            tracing::error!(%error, "serving ended");
        }
        drop(running);
    });
    tokio::select! {
        _ = shutdown.requested() => {}
        waited = stopper.on_signals() => waited.map_err(|source| Error::Io {
            what: "wait for signals",
            path: String::new(),
            source,
        })?,
    }
    tracing::info!("stopping");
    readiness.drain();
    if stopper.drain(settings.drain).await == Drained::GraceOver {
        tracing::warn!("some work did not end in time");
    }
    Ok(())
}
