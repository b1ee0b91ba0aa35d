//! The coordinator: owns a repository, receives backups, serves restores.
//!
//! A frame from an agent is opened with a cap, its chunks are hashed again, what is new goes into its
//! domain's open pack; the pack is put, then registered, then acknowledged. Changes are applied to the
//! parent's tree as they arrive. A commit reserves its record in the catalog, puts it, publishes it.
//!
//! Imports inside the crate go down this list, never up:
//! `service → session, browse, declared → kube → policy, schedule, restore_plan → repo → catalog → format`. Of `repo` only
//! `reconcile` and `rebuild`, which bring a catalog up to its store, use `catalog`. `repo` never names
//! tonic, `service` never names object_store, and `catalog` has the only SQL.

mod auth;
mod browse;
pub mod catalog;
mod coordinator;
mod core;
pub mod declared;
pub mod error;
mod interlock;
mod kube;
mod metrics;
mod pins;
mod policy;
pub mod program;
pub mod repo;
mod restore_plan;
mod schedule;
pub mod server;
mod service;
mod session;
pub mod settings;

pub use coordinator::Coordinator;
pub use error::{Error, Kind, Reason, Result};
pub use policy::values::duration;
pub use schedule::{ContinuousRule, VolumePattern};
pub use service::{ERROR_DOMAIN, MAX_MESSAGE_BYTES, status, transport};
pub use session::PROTOCOL;
pub use settings::CoordinatorSettings;

use crate::core::Core;

/// Runs work that keeps a core busy, or waits for a file, on a thread made for it.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::internal(doing)),
    }
}
