//! Sorted maps of a run that outgrow memory: beyond a bound they move to an unnamed temporary store.
//!
//! For what is small on almost every volume and large on a few: names of linked inodes, problems.

use super::IndexError;
use crate::temporary;
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Result<T, E = IndexError> = std::result::Result<T, E>;

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const CACHE_BYTES: usize = 4 << 20;
/// What a row of the map costs beside its bytes, about.
const ROW_OVERHEAD_BYTES: usize = 96;

/// A sorted map from bytes to bytes.
#[derive(Debug)]
pub struct ScratchMap {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
    limit_bytes: usize,
    directory: PathBuf,
    store: Option<Store>,
}

/// One transaction that is never committed: nothing of it is of use to anybody else.
struct Store {
    transaction: Option<WriteTransaction>,
    _database: Database,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl ScratchMap {
    /// An empty map that uses about so much memory, and beyond it a file in `directory`.
    pub fn new(limit_bytes: usize, directory: &Path) -> Self {
        Self {
            rows: BTreeMap::new(),
            bytes: 0,
            limit_bytes,
            directory: directory.to_owned(),
            store: None,
        }
    }

    /// Adds or replaces a row.
    pub fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.bytes += key.len() + value.len() + ROW_OVERHEAD_BYTES;
        if let Some(old) = self.rows.insert(key, value) {
            // The key was there: only its value's growth counts, nearly.
            self.bytes -= old.len() + ROW_OVERHEAD_BYTES;
        }
        if self.bytes > self.limit_bytes {
            self.spill()?;
        }
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.rows.get(key) {
            return Ok(Some(value.clone()));
        }
        let Some(transaction) = self.transaction() else {
            return Ok(None);
        };
        let table = transaction.open_table(ROWS).map_err(failed)?;
        let value = table.get(key).map_err(failed)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    /// Removes a key that is still in memory; one that has moved to the store stays there.
    pub fn forget(&mut self, key: &[u8]) {
        if let Some(value) = self.rows.remove(key) {
            let freed = key.len() + value.len() + ROW_OVERHEAD_BYTES;
            self.bytes = self.bytes.saturating_sub(freed);
        }
    }

    /// Gives every row in order and empties the map.
    pub fn drain<E: From<IndexError>>(
        &mut self,
        mut give: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.store.is_some() {
            self.spill()?;
            let Some(transaction) = self.transaction() else {
                return Ok(());
            };
            let table = transaction.open_table(ROWS).map_err(failed)?;
            for row in table.iter().map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                give(key.value(), value.value())?;
            }
        }
        for (key, value) in &self.rows {
            give(key, value)?;
        }
        *self = Self::new(self.limit_bytes, &self.directory);
        Ok(())
    }

    fn transaction(&self) -> Option<&WriteTransaction> {
        self.store.as_ref()?.transaction.as_ref()
    }

    fn spill(&mut self) -> Result<()> {
        if self.store.is_none() {
            let file = temporary::file_in(&self.directory).map_err(failed)?;
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_file(file)
                .map_err(failed)?;
            let transaction = database.begin_write().map_err(failed)?;
            self.store = Some(Store {
                transaction: Some(transaction),
                _database: database,
            });
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let Some(transaction) = self.transaction() else {
            return Ok(());
        };
        let mut table = transaction.open_table(ROWS).map_err(failed)?;
        for (key, value) in rows {
            table
                .insert(key.as_slice(), value.as_slice())
                .map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The transaction before its database.
        drop(self.transaction.take());
    }
}

fn failed(error: impl std::fmt::Display) -> IndexError {
    IndexError::Store {
        what: "keep a large table in a temporary file",
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_map_below_and_above_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        for limit in [1 << 20, 4000] {
            let mut map = ScratchMap::new(limit, directory.path());
            let mut model = BTreeMap::new();
            for n in 0..1000u32 {
                let key = (n * 7919 % 500).to_be_bytes().to_vec();
                let value = n.to_string().into_bytes();
                map.insert(key.clone(), value.clone()).unwrap();
                model.insert(key, value);
            }
            assert_eq!(map.store.is_some(), limit == 4000);
            for (key, value) in &model {
                assert_eq!(map.get(key).unwrap().as_ref(), Some(value));
            }
            assert_eq!(map.get(b"none").unwrap(), None);
            let mut all = Vec::new();
            map.drain(|key, value| {
                all.push((key.to_vec(), value.to_vec()));
                Ok::<(), IndexError>(())
            })
            .unwrap();
            assert!(all == model.into_iter().collect::<Vec<_>>());
            assert_eq!(map.get(&0u32.to_be_bytes()).unwrap(), None);
        }
    }
}
