//! The repository: everything of ours in one object store. The only module that knows the store.
//!
//! [`Repository`] ties a store to its parameters and keys. What is written goes through [`Writer`], what
//! is read of packs through [`Reader`]; [`claim`] says whether this process may write at all.
//!
//! `rebuild → reconcile → segments, reader → cache`; `sweep`; `keyring, snapshots, marks, kek → writer → claim → store → connect → local → direct, url`.

pub mod cache;
pub mod claim;
mod connect;
mod direct;
mod error;
pub mod kek;
mod keyring;
mod local;
pub mod marks;
mod metrics;
mod reader;
pub mod rebuild;
pub mod reconcile;
mod retry;
mod segments;
pub mod snapshots;
mod store;
pub mod sweep;
mod url;
mod writer;

pub use cache::{DiskCache, FrameCache};
pub use claim::{Claim, Claimant, Waiting};
pub use error::{Cause, RepoError, Result};
pub use kek::random;
pub use keyring::{DEFAULT_NAMESPACE, Domain, Keyring, current};
pub use reader::{FrameAddress, PackContents, Reader, StoredFrame};
pub use retry::RetryPolicy;
pub use snapshots::StoredSnapshot;
pub use store::{Listed, Store, StoreOptions};
pub use url::StoreUrl;
pub use writer::Writer;

use holdfast_format::FormatError;
use holdfast_format::id::{DomainId, MarkId, PackId, RepositoryId, SnapshotId, VolumeId};
use holdfast_format::mark::MarkRecord;
use holdfast_format::names::{ObjectName, REPOSITORY};
use holdfast_format::pack::FinishedPack;
use holdfast_format::repository::{MAX_REPOSITORY_BYTES, RepositoryConfig};
use holdfast_format::seal::{DomainKeys, Kek, ObjectKind};
use holdfast_format::snapshot::Snapshot;
use std::sync::Arc;

/// What a new repository is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateOptions {
    /// Its id: random, drawn before so that the key file can be named by it.
    pub id: RepositoryId,
    /// When, nanoseconds since the epoch.
    pub created_ns: i64,
    /// Chunking profile, where it is not the default.
    pub profile: Option<u8>,
    /// Inline limit in bytes, where it is not the default.
    pub inline_limit: Option<u32>,
}

/// An open repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Store,
    config: Arc<RepositoryConfig>,
    keyring: Arc<Keyring>,
    writer: Writer,
}

impl Repository {
    /// The parameters of the repository in this store: what can be known without its key.
    pub async fn find(store: &Store) -> Result<RepositoryConfig> {
        let mut ids = repository_ids(store).await?.into_iter();
        let Some(id) = ids.next() else {
            return Err(RepoError::RepositoryMissing {
                store: store.url_redacted().to_owned(),
            });
        };
        if let Some(second) = ids.next() {
            return Err(RepoError::SeveralRepositories {
                store: store.url_redacted().to_owned(),
                first: id,
                second,
            });
        }
        let name = ObjectName::Repository(id);
        let stored = store
            .get_limited(&name, MAX_REPOSITORY_BYTES as u64)
            .await?;
        let config =
            RepositoryConfig::decode(&stored).map_err(|error| RepoError::of_object(name, error))?;
        if config.id != id {
            return Err(RepoError::ObjectDamaged {
                name: name.to_string(),
                detail: "it is the object of another repository".into(),
            });
        }
        Ok(config)
    }

    /// Opens the repository with its key.
    pub async fn open(store: Store, kek: Kek) -> Result<Self> {
        let config = Self::find(&store).await?;
        match config.check_key(&kek) {
            Ok(()) => {}
            Err(FormatError::WrongKey { repository }) => {
                return Err(RepoError::WrongKey {
                    given: "the key",
                    repository,
                });
            }
            Err(error) => {
                return Err(RepoError::of_object(
                    ObjectName::Repository(config.id),
                    error,
                ));
            }
        }
        let keyring = Keyring::load(&store, config.id, kek).await?;
        Ok(Self {
            writer: Writer::new(store.clone()),
            config: Arc::new(config),
            keyring: Arc::new(keyring),
            store,
        })
    }

    /// Makes a repository in an empty place, and opens it. The caller has stored the key safely before.
    ///
    /// Of two that are made at the same time in one place at most one stays: each looks again after its
    /// put, and takes its own back if it is not alone.
    pub async fn create(store: Store, kek: Kek, options: &CreateOptions) -> Result<Self> {
        if let Some(found) = store.first_found().await? {
            return Err(not_empty(&store, found).await);
        }
        let mut config = RepositoryConfig::new(options.id, &kek, options.created_ns);
        if let Some(profile) = options.profile {
            config.profiles = vec![profile];
            config.default_profile = profile;
        }
        if let Some(limit) = options.inline_limit {
            config.inline_limit = limit;
        }
        let config = config.sealed(&kek);
        // What this program would refuse to read is not written.
        RepositoryConfig::decode(&config.encode())?;
        let writer = Writer::new(store.clone());
        writer.repository(&config).await?;
        let others = repository_ids(&store).await?;
        if let Some(other) = others.into_iter().find(|id| *id != options.id) {
            writer.unmake_repository(options.id).await?;
            return Err(RepoError::RepositoryExists {
                store: store.url_redacted().to_owned(),
                repository: other,
            });
        }
        Self::open(store, kek).await
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its parameters.
    pub fn config(&self) -> &RepositoryConfig {
        &self.config
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.config.id
    }

    /// The keys of its domains.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// What puts objects.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The domain of a namespace, made if there is none.
    pub async fn ensure_domain(&self, namespace: &str, now_ns: i64) -> Result<Domain> {
        let (store, writer) = (&self.store, &self.writer);
        self.keyring.ensure(store, writer, namespace, now_ns).await
    }

    /// The keys of a domain generation; the store is asked once for those that are not known.
    pub async fn domain_keys(&self, domain: &DomainId, generation: u32) -> Result<Arc<DomainKeys>> {
        match self.keyring.domain(domain, generation) {
            Err(RepoError::ObjectMissing { .. }) => {
                self.keyring.refresh(&self.store).await?;
                self.keyring.domain(domain, generation)
            }
            known => known,
        }
    }

    /// Puts a whole pack.
    pub async fn put_pack(&self, pack: &FinishedPack) -> Result<()> {
        self.writer.pack(pack).await
    }

    /// Seals a snapshot record: the bytes to be reserved, then put.
    pub fn seal_snapshot(&self, record: &Snapshot) -> Result<(SnapshotId, bytes::Bytes)> {
        let keys = self.keyring.domain(&record.domain, record.generation)?;
        let plain = record.encode()?;
        let sealed = self.keyring.seal_in_domain(&keys, record.kind(), &plain)?;
        Ok((Snapshot::id_of(&sealed), sealed))
    }

    /// Puts a sealed snapshot record; the claim holds before and after.
    pub async fn put_snapshot(
        &self,
        claim: &Claim,
        volume: &VolumeId,
        sealed: bytes::Bytes,
    ) -> Result<SnapshotId> {
        self.writer.snapshot(claim, volume, sealed).await
    }

    /// Seals and puts a mark.
    pub async fn put_mark(&self, record: &MarkRecord) -> Result<MarkId> {
        let sealed = self.keyring.seal(ObjectKind::Mark, &record.encode()?)?;
        self.writer.mark(sealed).await
    }

    /// Seals and puts a deletion record, before the first of its packs is deleted.
    pub async fn put_deletion(
        &self,
        claim: &Claim,
        record: &holdfast_format::deletion::DeletionRecord,
    ) -> Result<()> {
        let sealed = self
            .keyring
            .seal(ObjectKind::DeletionRecord, &record.encode()?)?;
        self.writer.deletion(claim, record.number, sealed).await
    }

    /// Deletes a pack that a durable deletion record names.
    pub async fn delete_pack(&self, id: PackId) -> Result<()> {
        self.store.delete(&ObjectName::Pack(id)).await
    }

    /// One snapshot record.
    pub async fn read_snapshot(&self, volume: VolumeId, id: SnapshotId) -> Result<StoredSnapshot> {
        snapshots::read(&self.store, &self.keyring, volume, id).await
    }
}

async fn repository_ids(store: &Store) -> Result<Vec<RepositoryId>> {
    let listed = store.list(REPOSITORY).await?;
    let ids = listed.iter().filter_map(|found| match found.name {
        Some(ObjectName::Repository(id)) => Some(id),
        _ => None,
    });
    Ok(ids.collect())
}

/// Why a place cannot take a new repository.
async fn not_empty(store: &Store, found: String) -> RepoError {
    let place = store.url_redacted().to_owned();
    match repository_ids(store).await {
        Ok(ids) => match ids.first() {
            Some(repository) => RepoError::RepositoryExists {
                store: place,
                repository: *repository,
            },
            None => RepoError::NotEmpty {
                store: place,
                found,
            },
        },
        Err(error) => error,
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
