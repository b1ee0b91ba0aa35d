//! What sessions of a coordinator work with, and the second half of every commit.

use crate::browse::{self, Library};
use crate::catalog::{Catalog, DomainRow, Reservation, SnapshotRow};
use crate::error::{Error, Result};
use crate::repo::claim::Claim;
use crate::repo::{Repository, snapshots};
use crate::session::PackPool;
use crate::settings::CoordinatorSettings;
use holdfast_format::claim::ClaimKey;
use holdfast_format::id::{DomainId, SnapshotId};
use holdfast_format::names::ObjectName;
use holdfast_format::wire::SnapshotInfo;
use holdfast_runtime::clock::Clock;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{RwLock, RwLockReadGuard};

/// Directory of spilled frames and spools, inside the state directory.
const SPOOL: &str = "spool";

/// What sessions of a coordinator work with.
pub struct Core {
    /// What readers work with.
    pub library: Library,
    /// The catalog, open for writing.
    pub catalog: Arc<Catalog>,
    /// The repository.
    pub repository: Repository,
    /// Our ownership of it, until it is given back.
    pub claim: RwLock<Option<Claim>>,
    /// Open packs.
    pub pool: PackPool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Numbers.
    pub settings: CoordinatorSettings,
    /// Suspicious snapshots that were committed here.
    pub made_suspicious: AtomicU64,
}

impl Core {
    /// Where spools go.
    pub fn spool_dir(&self) -> PathBuf {
        spool_dir(&self.settings)
    }

    /// Our claim, for a write that needs it. While it is held the claim is not given back.
    pub async fn claim(&self) -> Result<RwLockReadGuard<'_, Claim>> {
        let claim = self.claim.read().await;
        RwLockReadGuard::try_map(claim, Option::as_ref).map_err(|_| Error::Cancelled {
            detail: "the coordinator is stopping".into(),
        })
    }

    /// Gives the claim back once no write is under way. The claim that was given back; one that was
    /// lost is not.
    pub async fn release(&self) -> Result<Option<ClaimKey>> {
        let Some(claim) = self.claim.write().await.take() else {
            return Ok(None);
        };
        let released = (!claim.is_lost()).then(|| claim.key());
        claim.release().await?;
        Ok(released)
    }

    /// Lets readers know that the catalog, which is about to be closed, says the same as its store since
    /// this claim, which was given back.
    pub async fn agree(&self, released: &ClaimKey) -> Result<()> {
        // A reserved record may be in the store without being visible here.
        if self.catalog.unpublished().await?.is_empty() {
            self.catalog.set_agreed_under(released).await?;
        }
        Ok(())
    }

    /// The second half of a commit: the reserved record durable in the store, then visible. Harmless
    /// when repeated.
    pub async fn settle(&self, reserved: &Reservation) -> Result<SnapshotInfo> {
        let name: ObjectName = reserved.object.parse()?;
        let keyring = self.repository.keyring();
        let (_, record) = snapshots::open(keyring, &name, &reserved.record)?;
        let volume = record.volume;
        let stored = reserved.record.clone();
        let stored_bytes = stored.len() as u64;
        let claim = self.claim().await?;
        let id = self
            .repository
            .put_snapshot(&claim, &volume, stored)
            .await?;
        if id != reserved.snapshot {
            return Err(Error::internal("put the record that was reserved"));
        }
        let row = SnapshotRow::of(id, &record, stored_bytes)?;
        self.catalog.publish(&row).await?;
        Ok(SnapshotInfo::of(id, &record))
    }

    /// What the wire tells of a visible snapshot.
    pub async fn snapshot_info(&self, id: &SnapshotId) -> Result<SnapshotInfo> {
        let row = self.catalog.snapshot(id).await?;
        let row = row.ok_or_else(|| browse::not_found(id))?;
        browse::info(&row)
    }

    /// The dedup domain of a namespace, made when it is new.
    pub async fn ensure_domain(&self, namespace: &str) -> Result<DomainId> {
        let now = self.clock.now_ns();
        let domain = self.repository.ensure_domain(namespace, now).await?;
        let row = DomainRow {
            id: domain.id,
            generation: domain.generation,
            namespace: domain.namespace,
            bound_ns: now,
        };
        self.catalog.bind_domain(&row).await?;
        Ok(domain.id)
    }
}

/// Where spools of a coordinator with these settings go.
pub fn spool_dir(settings: &CoordinatorSettings) -> PathBuf {
    settings.state_dir.join(SPOOL)
}
