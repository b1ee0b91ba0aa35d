//! What the agent knows of each volume since the last accepted run: stamps and content digests.
//!
//! An index describes exactly one snapshot and names it. It moves to the next in one transaction,
//! made only after the commit's acknowledgement; a run that fails leaves it as it was. It is never
//! the truth: one that is missing, damaged, foreign or of an older format is discarded with a reason
//! and built again from the parent's entries, without stamps, so that every file is read once.
//!
//! One process has an index open at a time, and one run uses it at a time.
//!
//! Layout: `blocks` maps the key of a directory's children and the first name covered to a packed
//! block of children; `inodes` has one row per directory, and per name of an inode with more than one.

mod cursor;
mod lookup;
mod meta;
mod record;
mod scratch;
mod writer;

pub use cursor::Cursor;
pub use lookup::Lookup;
pub use meta::{Meta, Totals};
pub use record::{Record, trust};
pub use scratch::ScratchMap;
pub use writer::{Changed, Writer};

use holdfast_format::path::RelPath;
use record::Damaged;
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadTransaction, StorageError, TableDefinition,
    WriteTransaction,
};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BLOCKS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("blocks");
const INODES: TableDefinition<&[u8], ()> = TableDefinition::new("inodes");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const META_KEY: &str = "description";

/// Memory that the store may use for pages, read and to be written.
const CACHE_BYTES: usize = 24 << 20;

/// Why an index was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// There was none.
    Missing,
    /// It could not be believed.
    Damaged,
    /// It is of a format that this program does not read.
    OlderFormat,
    /// It describes another volume, repository, or generation of keys.
    Foreign,
    /// It was taken with other chunking parameters.
    OtherParameters,
    /// It describes a snapshot that is not the parent.
    OtherParent,
}

impl Discarded {
    /// Stable UpperCamelCase word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "IndexMissing",
            Self::Damaged => "IndexDamaged",
            Self::OlderFormat => "IndexOlderFormat",
            Self::Foreign => "IndexForeign",
            Self::OtherParameters => "IndexOtherParameters",
            Self::OtherParent => "IndexOtherParent",
        }
    }
}

/// An index could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Its bytes cannot be believed: discard it.
    #[error("the index is damaged ({0})")]
    Damaged(String),
    /// Another process, or another run of this one, has it open.
    #[error("the index is in use by another process")]
    Busy,
    /// The disk or the directory failed.
    #[error("{what}: {detail}")]
    Store {
        /// What was attempted.
        what: &'static str,
        /// The store's words.
        detail: String,
    },
}

impl From<Damaged> for IndexError {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged.to_string())
    }
}

impl From<IndexError> for crate::Error {
    fn from(error: IndexError) -> Self {
        let what = match &error {
            IndexError::Damaged(_) => "read it",
            IndexError::Busy => "open it",
            IndexError::Store { what, .. } => what,
        };
        Self::Index {
            what,
            detail: error.to_string(),
        }
    }
}

/// Turns the store's errors into ours, saying what was attempted.
trait Fault<T> {
    fn fault(self, what: &'static str) -> Result<T, IndexError>;
}

impl<T, E: Into<redb::Error>> Fault<T> for Result<T, E> {
    fn fault(self, what: &'static str) -> Result<T, IndexError> {
        self.map_err(|error| match error.into() {
            redb::Error::DatabaseAlreadyOpen => IndexError::Busy,
            redb::Error::Corrupted(detail) => IndexError::Damaged(detail),
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => IndexError::Damaged(error.to_string()),
            error => IndexError::Store {
                what,
                detail: error.to_string(),
            },
        })
    }
}

/// The index of one volume.
#[derive(Debug)]
pub struct Index {
    database: Arc<Database>,
    path: PathBuf,
    meta: Option<Meta>,
}

impl Index {
    /// Opens the index in this file, or an empty one with the reason why the old one is gone.
    pub fn open(path: &Path) -> Result<(Self, Option<Discarded>), IndexError> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| store("make its directory", &error))?;
        }
        let existed = fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
        match Self::try_open(path) {
            Ok(index) => {
                let reason = match (&index.meta, existed) {
                    (Some(_), _) => None,
                    (None, _) => Some(Discarded::Missing),
                };
                Ok((index, reason))
            }
            Err(Broken::No(error)) => Err(error),
            Err(Broken::Yes(reason)) => {
                fs::remove_file(path).map_err(|error| store("remove a damaged index", &error))?;
                match Self::try_open(path) {
                    Ok(index) => Ok((index, Some(reason))),
                    Err(Broken::No(error)) => Err(error),
                    Err(Broken::Yes(_)) => Err(IndexError::Damaged(
                        "a new index is damaged at once".to_owned(),
                    )),
                }
            }
        }
    }

    fn try_open(path: &Path) -> Result<Self, Broken> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(Broken::from)?;
        let mut index = Self {
            database: Arc::new(database),
            path: path.to_owned(),
            meta: None,
        };
        let found = match index.rows() {
            Ok(rows) => rows.meta(),
            Err(error) => Err(error),
        };
        match found {
            Ok(meta) => index.meta = meta,
            Err(IndexError::Damaged(_)) => return Err(Broken::Yes(Discarded::Damaged)),
            Err(error) => return Err(Broken::No(error)),
        }
        if index.meta.is_none() {
            index.clear().map_err(Broken::No)?;
        }
        Ok(index)
    }

    /// What the index describes; `None`: nothing.
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it may be used for a run that works against this parent.
    pub fn fits(&self, wanted: &Meta) -> Result<(), Discarded> {
        let Some(meta) = &self.meta else {
            return Err(Discarded::Missing);
        };
        if (meta.volume, meta.domain, meta.generation)
            != (wanted.volume, wanted.domain, wanted.generation)
        {
            Err(Discarded::Foreign)
        } else if (meta.profile, meta.inline_limit) != (wanted.profile, wanted.inline_limit) {
            Err(Discarded::OtherParameters)
        } else if meta.snapshot != wanted.snapshot {
            Err(Discarded::OtherParent)
        } else {
            Ok(())
        }
    }

    /// Forgets everything, durably.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        self.meta = None;
        let transaction = begin(&self.database)?;
        transaction.delete_table(BLOCKS).fault("clear the index")?;
        transaction.delete_table(INODES).fault("clear the index")?;
        transaction.delete_table(META).fault("clear the index")?;
        transaction.open_table(BLOCKS).fault("clear the index")?;
        transaction.open_table(INODES).fault("clear the index")?;
        transaction.open_table(META).fault("clear the index")?;
        transaction.commit().fault("clear the index")
    }

    /// A position before the first record, in the state of this moment.
    pub fn cursor(&self) -> Result<Cursor, IndexError> {
        Cursor::new(&self.rows()?)
    }

    /// Answers single questions, in the state of this moment.
    pub fn lookup(&self) -> Result<Lookup, IndexError> {
        Lookup::new(self)
    }

    /// Begins the edits of one run. Nothing is visible before its `commit`.
    pub fn writer(&self) -> Result<Writer, IndexError> {
        Writer::new(self)
    }

    /// Commits a run's edits: the index now describes the snapshot that `meta` names.
    pub fn advance(&mut self, writer: Writer, meta: Meta) -> Result<(), IndexError> {
        writer.commit(&meta)?;
        self.meta = Some(meta);
        Ok(())
    }

    /// The names of a directory, or of an inode that had more than one, in tree order; empty for all
    /// others.
    pub fn paths_of(&self, ino: u64) -> Result<Vec<RelPath>, IndexError> {
        paths_of(&self.rows()?.inodes()?, ino)
    }

    fn rows(&self) -> Result<Rows, IndexError> {
        Ok(Rows {
            transaction: redb::ReadableDatabase::begin_read(&*self.database)
                .fault("read the index")?,
        })
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, IndexError> {
    let mut transaction = database.begin_write().fault("begin to write the index")?;
    // A tenant chooses the names in it: the stronger commit, which also opens at once after a kill.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// The index's rows as they were at one moment.
struct Rows {
    transaction: ReadTransaction,
}

impl Rows {
    fn blocks(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, IndexError> {
        self.transaction
            .open_table(BLOCKS)
            .fault("open the index's blocks")
    }

    fn inodes(&self) -> Result<ReadOnlyTable<&'static [u8], ()>, IndexError> {
        self.transaction
            .open_table(INODES)
            .fault("open the index's inodes")
    }

    fn meta(&self) -> Result<Option<Meta>, IndexError> {
        let table = match self.transaction.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error).fault("open the index's description"),
        };
        let stored = table.get(META_KEY).fault("read the index's description")?;
        match stored {
            Some(stored) => Ok(Some(Meta::decode(stored.value())?)),
            None => Ok(None),
        }
    }
}

/// See [`Index::paths_of`].
fn paths_of(
    inodes: &ReadOnlyTable<&'static [u8], ()>,
    ino: u64,
) -> Result<Vec<RelPath>, IndexError> {
    let start = writer::link_key(ino, &[]);
    let mut paths = Vec::new();
    let range = inodes
        .range::<&[u8]>(start.as_slice()..)
        .fault("read the index's inodes")?;
    for row in range {
        let (key, _) = row.fault("read the index's inodes")?;
        let Some(path) = key.value().strip_prefix(start.as_slice()) else {
            break;
        };
        let path =
            RelPath::from_key(path).map_err(|error| IndexError::Damaged(error.to_string()))?;
        paths.push(path);
    }
    Ok(paths)
}

/// Whether a failure to open means that the file is worth nothing.
enum Broken {
    Yes(Discarded),
    No(IndexError),
}

impl From<DatabaseError> for Broken {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::UpgradeRequired(_) => Self::Yes(Discarded::OlderFormat),
            DatabaseError::RepairAborted => Self::Yes(Discarded::Damaged),
            DatabaseError::Storage(StorageError::Corrupted(_)) => Self::Yes(Discarded::Damaged),
            // The store's word for a file that is no database of its.
            DatabaseError::Storage(StorageError::Io(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::Yes(Discarded::Damaged)
            }
            error => Self::No(match Err::<(), _>(error).fault("open the index") {
                Err(error) => error,
                Ok(()) => IndexError::Busy,
            }),
        }
    }
}

fn store(what: &'static str, error: &io::Error) -> IndexError {
    IndexError::Store {
        what,
        detail: error.to_string(),
    }
}

/// Name of the file that holds the index of the volume of this name.
pub fn file_name(volume: &str) -> String {
    let hash = blake3::hash(volume.as_bytes());
    let readable: String = volume
        .chars()
        .map(|c| if c == '/' { '_' } else { c })
        .take(64)
        .collect();
    format!("{readable}-{}.redb", &hash.to_hex()[..12])
}

#[cfg(test)]
mod tests;
