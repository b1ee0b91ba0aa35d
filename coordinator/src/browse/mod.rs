//! Reading snapshots: their entries, what differs, what matches, and the chunks. Needs no claim.
//!
//! Trees are walked on blocking threads, which send what they find through channels bounded in
//! messages of bounded size: memory does not grow with a snapshot.

mod diff;
mod entries;
mod fetch;
mod find;
mod nodes;

pub use diff::{Difference, diff};
pub use entries::{Part, Walk, entries, list};
pub use fetch::{Fetched, fetch};
pub use find::{Found, find};
pub use nodes::Nodes;

use crate::catalog::{Catalog, SnapshotRow};
use crate::error::{Error, Result};
use crate::repo::{Reader, Repository};
use holdfast_format::id::{PackId, SnapshotId};
use holdfast_format::keys::{DomainKeys, Ids};
use holdfast_format::mark::MarkRecord;
use holdfast_format::snapshot::Snapshot;
use holdfast_format::wire::{Acknowledgement, SnapshotInfo};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Messages of a stream that wait for a slow reader.
const AHEAD: usize = 4;

/// A stream of results, filled by a blocking thread.
pub type Results<T> = mpsc::Receiver<Result<T>>;

/// What readers of snapshots work with.
#[derive(Clone)]
pub struct Library {
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The repository.
    pub repository: Repository,
    /// Reads its packs.
    pub reader: Reader,
    /// Packs of which something could not be read.
    pub suspects: Suspects,
}

/// Packs of which something could not be read since this process began. Clones share them.
#[derive(Clone, Default)]
pub struct Suspects(Arc<Mutex<BTreeSet<PackId>>>);

impl Suspects {
    /// One more.
    pub fn add(&self, pack: PackId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pack);
    }

    /// All of them, which are none any more.
    pub fn take(&self) -> BTreeSet<PackId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A snapshot that is being read.
#[derive(Clone)]
pub struct View {
    /// Its id.
    pub id: SnapshotId,
    /// Its record.
    pub record: Arc<Snapshot>,
    /// Keys of its domain generation.
    pub keys: Arc<DomainKeys>,
    /// The hash functions of these keys.
    pub ids: Ids,
    acknowledged: Option<Acknowledgement>,
    library: Library,
}

impl Library {
    /// Opens a visible snapshot.
    pub async fn view(&self, id: &SnapshotId) -> Result<View> {
        let row = self.catalog.snapshot(id).await?;
        let row = row.ok_or_else(|| not_found(id))?;
        let record = Snapshot::decode(&row.record)?;
        // Keys may have been made since this process began.
        self.repository
            .domain_keys(&record.domain, record.generation)
            .await?;
        self.view_of(&row)
    }

    /// Opens the snapshot of a catalog row.
    pub fn view_of(&self, row: &SnapshotRow) -> Result<View> {
        let record = Snapshot::decode(&row.record)?;
        let keys = self
            .repository
            .keyring()
            .domain(&record.domain, record.generation)?;
        Ok(View {
            id: row.id,
            ids: keys.id_key.ids(),
            record: Arc::new(record),
            acknowledged: acknowledged(row)?,
            keys,
            library: self.clone(),
        })
    }
}

impl View {
    /// Where its nodes come from, for blocking threads of this runtime.
    pub fn nodes(&self) -> Nodes {
        Nodes::new(self.library.clone())
    }

    /// What the wire tells of it.
    pub fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            acknowledged: self.acknowledged.clone(),
            ..SnapshotInfo::of(self.id, &self.record)
        }
    }
}

/// What the wire tells of a catalog row.
pub fn info(row: &SnapshotRow) -> Result<SnapshotInfo> {
    let record = Snapshot::decode(&row.record)?;
    Ok(SnapshotInfo {
        acknowledged: acknowledged(row)?,
        ..SnapshotInfo::of(row.id, &record)
    })
}

/// Who has taken a suspicious snapshot as it is.
fn acknowledged(row: &SnapshotRow) -> Result<Option<Acknowledgement>> {
    let mark = row
        .acknowledged
        .as_ref()
        .map(|mark| MarkRecord::decode(mark));
    let mark = mark.transpose()?;
    Ok(mark.map(|mark| Acknowledgement {
        time_ns: mark.time_ns,
        actor: mark.actor,
    }))
}

pub(crate) fn not_found(id: &SnapshotId) -> Error {
    Error::SnapshotNotFound {
        name: id.to_string(),
    }
}

/// Runs a walk on a blocking thread; its error is the last thing in the stream. A reader that goes
/// away ends it at its next message.
fn stream<T: Send + 'static>(
    walk: impl FnOnce(&mut dyn FnMut(T) -> Result<()>) -> Result<()> + Send + 'static,
) -> Results<T> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut send = |item| {
            sender
                .blocking_send(Ok(item))
                .map_err(|_| Error::Cancelled {
                    detail: "the reader has hung up".into(),
                })
        };
        if let Err(error) = walk(&mut send) {
            // Where the reader has gone, nobody is told.
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}
