//! The catalog: an index of the store plus running state. The store is the truth; what is here can be
//! built again from it. The only SQL of the crate is below this folder, and callers see none of it.
//!
//! One process writes, any number read beside it. Every method that changes something is one
//! transaction and durable when it returns; dropping its future rolls it back. Methods may be called
//! concurrently from any task.
//!
//! Imports go down this list.

mod batch;
mod commit;
mod counters;
mod dialect;
mod error;
mod facts;
mod held;
mod hooks;
mod lock;
mod lookup;
mod marks;
mod newest;
mod open;
mod packs;
mod register;
mod rows;
mod sessions;
mod snapshots;
mod volumes;

pub use error::{CatalogError, Holder, MAX_GONE_LISTED, Result};
pub use lock::DirLock;
pub use newest::Newest;
pub use open::Mode;
pub use packs::{FramePlace, PackImport};
pub use rows::{
    BeginSession, Begun, DomainRow, Location, MarkRow, PackInfo, PackNo, PackRow, PackState,
    PruneNumber, Registered, Reservation, SnapshotRow, Totals, Volume, VolumeNo, VolumeRow,
};
pub use sessions::RESUMABLE;

#[cfg(test)]
mod tests;

use dialect::{Conn, Readers};
use holdfast_format::id::{CatalogId, RepositoryId};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Name of the catalog's file in its state directory.
pub const CATALOG_FILE: &str = "catalog.db";

/// An open catalog. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Catalog {
    dir: Arc<Path>,
    repository: RepositoryId,
    id: CatalogId,
    /// The one connection that writes; none where the catalog is open for reading or closed.
    writer: Arc<Mutex<Option<Conn>>>,
    readers: Readers,
    lock: Arc<std::sync::Mutex<Option<DirLock>>>,
}

impl Catalog {
    /// The catalog's own random id: its identity in claims.
    pub fn id(&self) -> CatalogId {
        self.id
    }

    /// The repository that it describes.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Its state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalog({} in {})", self.id, self.dir.display())
    }
}

/// Runs `$body` in a writing transaction, again if another process was in the way, and commits it. The
/// body is one call that returns `Result`: it must not return from the caller, and may run twice.
macro_rules! transact {
    ($catalog:expr, $doing:expr, |$conn:ident| $body:expr) => {{
        use sqlx::Connection as _;
        use $crate::catalog::error::Doing as _;
        let doing: &'static str = $doing;
        let mut guard = $catalog.writer.lock().await;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let writer = guard
                .as_mut()
                .ok_or($crate::catalog::CatalogError::ReadOnly { doing })?;
            let mut transaction = writer
                .begin_with($crate::catalog::dialect::BEGIN_WRITE)
                .await
                .doing(doing)?;
            let outcome = {
                let $conn: &mut $crate::catalog::dialect::Conn = &mut transaction;
                $body
            };
            let outcome = match outcome {
                Ok(value) => transaction.commit().await.doing(doing).map(|()| value),
                // Dropping it would roll back too, but later.
                Err(error) => match transaction.rollback().await.doing(doing) {
                    Ok(()) => Err(error),
                    Err(_) => Err(error),
                },
            };
            match outcome {
                Err(error) if error.is_retryable() && attempts < 4 => continue,
                outcome => break outcome,
            }
        }
    }};
}
use transact;
