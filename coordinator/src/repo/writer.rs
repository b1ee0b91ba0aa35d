//! The only place that puts objects: one method per kind, and what must hold before each.
//!
//! A put returns when the object is durable. What refers to an object is written after it: packs before
//! the records that need them, keys before packs, a deletion record before the first delete.

use crate::repo::claim::Claim;
use crate::repo::error::{RepoError, Result};
use crate::repo::store::Store;
use bytes::Bytes;
use holdfast_format::claim::{Claim as ClaimBody, ClaimKey};
use holdfast_format::id::{DomainId, MarkId, RepositoryId, SnapshotId, VolumeId};
use holdfast_format::mark::MarkRecord;
use holdfast_format::names::ObjectName;
use holdfast_format::pack::FinishedPack;
use holdfast_format::repository::RepositoryConfig;
use holdfast_format::segment::FinishedSegment;
use holdfast_format::snapshot::Snapshot;
use object_store::PutPayload;

/// Puts objects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer(Store);

impl Writer {
    /// A writer to this store.
    pub(super) fn new(store: Store) -> Self {
        Self(store)
    }

    /// A whole pack. Needs no claim: a pack that nothing refers to harms nobody.
    pub async fn pack(&self, pack: &FinishedPack) -> Result<()> {
        let length: usize = pack.parts.iter().map(Bytes::len).sum();
        if length as u64 != pack.stored_bytes {
            // Part of it was taken out of memory: the caller must give it back first.
            return Err(RepoError::Internal {
                doing: "write a pack that is not whole",
            });
        }
        let name = ObjectName::Pack(pack.id);
        self.0
            .put(&name, pack.parts.iter().cloned().collect::<PutPayload>())
            .await
    }

    /// A sealed snapshot record: the last thing of a commit. The claim is checked before, so that a
    /// process that lost it writes none, and after, so that none is acknowledged that was written by a
    /// process which slept between check and put. A record that was written by a process that is then
    /// fenced is complete: its successor adopts it.
    pub async fn snapshot(
        &self,
        claim: &Claim,
        volume: &VolumeId,
        stored: Bytes,
    ) -> Result<SnapshotId> {
        let id = Snapshot::id_of(&stored);
        let name = ObjectName::Snapshot {
            volume: *volume,
            id,
        };
        claim.check().await?;
        self.0.put(&name, stored).await?;
        claim.check().await?;
        Ok(id)
    }

    /// A sealed mark.
    pub async fn mark(&self, stored: Bytes) -> Result<MarkId> {
        let id = MarkRecord::id_of(&stored);
        self.0.put(&ObjectName::Mark(id), stored).await?;
        Ok(id)
    }

    /// A sealed deletion record, before the first delete of its batch.
    pub async fn deletion(&self, claim: &Claim, number: u64, stored: Bytes) -> Result<()> {
        claim.check().await?;
        self.0.put(&ObjectName::Deletion(number), stored).await?;
        claim.check().await
    }

    /// An index segment. Needs no claim: it is derived, and nothing refers to it.
    pub async fn segment(&self, segment: &FinishedSegment) -> Result<()> {
        let name = ObjectName::Segment(segment.id);
        self.0.put(&name, segment.bytes.clone()).await
    }

    /// Sealed keys of a domain generation; before anything that is sealed with them.
    pub(super) async fn domain_keys(
        &self,
        domain: DomainId,
        generation: u32,
        master: u32,
        stored: Bytes,
    ) -> Result<()> {
        let name = ObjectName::DomainKeys {
            domain,
            generation,
            master,
        };
        self.0.put(&name, stored).await
    }

    /// A passphrase slot.
    pub(super) async fn slot(&self, number: [u8; 16], stored: Bytes) -> Result<()> {
        self.0.put(&ObjectName::Slot(number), stored).await
    }

    /// The repository object: from now on there is a repository.
    pub(super) async fn repository(&self, config: &RepositoryConfig) -> Result<()> {
        let name = ObjectName::Repository(config.id);
        self.0.put(&name, Bytes::from(config.encode())).await
    }

    /// Takes the repository object of a creation that lost a race back.
    pub(super) async fn unmake_repository(&self, id: RepositoryId) -> Result<()> {
        self.0.delete(&ObjectName::Repository(id)).await
    }

    /// A claim.
    pub(super) async fn claim(&self, claim: &ClaimBody) -> Result<()> {
        let name = ObjectName::Claim {
            epoch: claim.epoch,
            catalog: claim.catalog,
        };
        self.0.put(&name, Bytes::from(claim.encode()?)).await
    }

    /// A claim that is there, once more as it is.
    pub(super) async fn claim_again(&self, claim: ClaimKey, body: &[u8]) -> Result<()> {
        let name = ObjectName::Claim {
            epoch: claim.epoch,
            catalog: claim.catalog,
        };
        self.0.put(&name, Bytes::copy_from_slice(body)).await
    }

    /// Says that a claim was given back.
    pub(super) async fn released(&self, claim: ClaimKey) -> Result<()> {
        let name = ObjectName::Released {
            epoch: claim.epoch,
            catalog: claim.catalog,
        };
        let body = Bytes::from_static(b"holdfast claim released\n");
        self.0.put(&name, body).await
    }
}
