//! Reading, listing and deleting snapshot records, and deletion records: what a catalog is rebuilt from.

use crate::repo::claim::Claim;
use crate::repo::error::{RepoError, Result};
use crate::repo::keyring::Keyring;
use crate::repo::store::{Listed, Store, several};
use futures::{Stream, StreamExt};
use holdfast_format::deletion::DeletionRecord;
use holdfast_format::id::{SnapshotId, VolumeId};
use holdfast_format::names::{DELETIONS, ObjectName, SNAPSHOTS};
use holdfast_format::seal::{Header, KeyRef, MAX_SEALED_OBJECT_BYTES, ObjectKind};
use holdfast_format::snapshot::Snapshot;

/// A record with what the store says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The record.
    pub record: Snapshot,
    /// Bytes of the object.
    pub size: u64,
}

/// One snapshot record.
pub async fn read(
    store: &Store,
    keyring: &Keyring,
    volume: VolumeId,
    id: SnapshotId,
) -> Result<StoredSnapshot> {
    let name = ObjectName::Snapshot { volume, id };
    let stored = store
        .get_limited(&name, MAX_SEALED_OBJECT_BYTES as u64)
        .await?;
    let damaged = |detail: &str| RepoError::ObjectDamaged {
        name: name.to_string(),
        detail: detail.to_owned(),
    };
    if Snapshot::id_of(&stored) != id {
        return Err(damaged("its bytes do not have its name"));
    }
    let (_, record) = open(keyring, &name, &stored)?;
    if record.volume != volume {
        return Err(damaged("it is a record of another volume"));
    }
    // What the record says of its domain decides which keys open its tree: it must be what sealed it.
    let header = Header::decode(&stored).map_err(|error| RepoError::of_object(name, error))?;
    let sealed = matches!(header.key, KeyRef::Domain { domain, generation, .. }
        if domain == record.domain && generation == record.generation);
    if !sealed {
        return Err(damaged("it is sealed by another domain than its own"));
    }
    Ok(StoredSnapshot {
        id,
        record,
        size: stored.len() as u64,
    })
}

/// The plain bytes of a sealed record of either kind, and what they say.
pub fn open(keyring: &Keyring, name: &ObjectName, stored: &[u8]) -> Result<(Vec<u8>, Snapshot)> {
    let header = Header::decode(stored).map_err(|error| RepoError::of_object(name, error))?;
    let kind = match header.kind {
        kind if kind.is_snapshot() => kind,
        // Refused by its name.
        _ => ObjectKind::Snapshot,
    };
    let plain = keyring.open(name, kind, stored)?;
    let record = Snapshot::decode(&plain).map_err(|error| RepoError::of_object(name, error))?;
    if record.kind() != kind {
        return Err(RepoError::ObjectDamaged {
            name: name.to_string(),
            detail: "it is a record of another kind than it says".into(),
        });
    }
    Ok((plain, record))
}

/// All snapshot records, in no order; each that cannot be read is an error of its own and ends nothing.
pub fn read_all<'a>(
    store: &'a Store,
    keyring: &'a Keyring,
) -> impl Stream<Item = Result<StoredSnapshot>> + 'a {
    let reads = list(store).filter_map(move |found| async move {
        let key = match found {
            Ok(found) => match found.name {
                Some(ObjectName::Snapshot { volume, id }) => Ok((volume, id)),
                _ => return None,
            },
            Err(error) => Err(error),
        };
        Some(async move {
            let (volume, id) = key?;
            read(store, keyring, volume, id).await
        })
    });
    several(reads)
}

/// The names of all snapshot records.
pub fn list(store: &Store) -> impl Stream<Item = Result<Listed>> + 'static {
    store.list_stream(SNAPSHOTS)
}

/// Forgets a snapshot: deletes its record, durably.
pub async fn delete(store: &Store, claim: &Claim, volume: VolumeId, id: SnapshotId) -> Result<()> {
    claim.check().await?;
    store.delete(&ObjectName::Snapshot { volume, id }).await
}

/// Numbers of all deletion records, ascending.
pub async fn deletion_numbers(store: &Store) -> Result<Vec<u64>> {
    let listed = store.list(DELETIONS).await?;
    let mut numbers: Vec<u64> = listed
        .iter()
        .filter_map(|found| match found.name {
            Some(ObjectName::Deletion(number)) => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// One deletion record.
pub async fn read_deletion(
    store: &Store,
    keyring: &Keyring,
    number: u64,
) -> Result<DeletionRecord> {
    let name = ObjectName::Deletion(number);
    let stored = store
        .get_limited(&name, MAX_SEALED_OBJECT_BYTES as u64)
        .await?;
    let plain = keyring.open(&name, ObjectKind::DeletionRecord, &stored)?;
    let record =
        DeletionRecord::decode(&plain).map_err(|error| RepoError::of_object(name, error))?;
    if record.number != number {
        return Err(RepoError::ObjectDamaged {
            name: name.to_string(),
            detail: "it has the number of another record".into(),
        });
    }
    Ok(record)
}
