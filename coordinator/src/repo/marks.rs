//! Reading and listing marks. They are few and small; the catalog indexes them.

use crate::repo::error::{RepoError, Result};
use crate::repo::keyring::Keyring;
use crate::repo::store::{Store, several};
use futures::{Stream, StreamExt};
use holdfast_format::id::MarkId;
use holdfast_format::mark::MarkRecord;
use holdfast_format::names::{MARKS, ObjectName};
use holdfast_format::seal::{MAX_SEALED_OBJECT_BYTES, ObjectKind};

/// One mark.
pub async fn read(store: &Store, keyring: &Keyring, id: MarkId) -> Result<MarkRecord> {
    let name = ObjectName::Mark(id);
    let stored = store
        .get_limited(&name, MAX_SEALED_OBJECT_BYTES as u64)
        .await?;
    if MarkRecord::id_of(&stored) != id {
        return Err(RepoError::ObjectDamaged {
            name: name.to_string(),
            detail: "its bytes do not have its name".into(),
        });
    }
    let plain = keyring.open(&name, ObjectKind::Mark, &stored)?;
    MarkRecord::decode(&plain).map_err(|error| RepoError::of_object(name, error))
}

/// All marks, in no order; each that cannot be read is an error of its own and ends nothing.
pub fn read_all<'a>(
    store: &'a Store,
    keyring: &'a Keyring,
) -> impl Stream<Item = Result<(MarkId, MarkRecord)>> + 'a {
    let reads = store
        .list_stream(MARKS)
        .filter_map(move |found| async move {
            let id = match found {
                Ok(found) => match found.name {
                    Some(ObjectName::Mark(id)) => Ok(id),
                    _ => return None,
                },
                Err(error) => Err(error),
            };
            Some(async move {
                let id = id?;
                Ok((id, read(store, keyring, id).await?))
            })
        });
    several(reads)
}
