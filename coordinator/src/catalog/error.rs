//! Every way the catalog can fail. A damaged or missing catalog is told apart from a failing statement,
//! because the first is mended by `rebuild` and the second by trying again.

use crate::catalog::PackState;
use holdfast_format::id::{PackId, RepositoryId, SessionId, SnapshotId, VolumeId};
use std::fmt;
use std::path::{Path, PathBuf};

/// Most ids that [`CatalogError::ChunkGone`] lists; a client sends these again and asks again.
pub const MAX_GONE_LISTED: usize = 65_536;

/// Something that the catalog was asked to do and could not.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no catalog in the state directory.
    #[error("no catalog in {}: build it from the store with `rebuild`", dir.display())]
    Missing {
        /// State directory.
        dir: PathBuf,
    },
    /// The catalog's file cannot be used.
    #[error(
        "catalog in {} is damaged ({detail}): move it away and build it from the store with `rebuild`",
        dir.display()
    )]
    Corrupt {
        /// State directory.
        dir: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// There already is a catalog in the state directory.
    #[error("{} already holds a catalog", dir.display())]
    Exists {
        /// State directory.
        dir: PathBuf,
    },
    /// Another process writes this catalog.
    #[error("catalog in {} is in use by {holder} ({} is locked)", dir.display(), lock.display())]
    InUse {
        /// State directory.
        dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// Who holds it.
        holder: Holder,
    },
    /// The catalog belongs to another repository.
    #[error("catalog in {} belongs to repository {found}, not to {expected}", dir.display())]
    ForeignRepository {
        /// State directory.
        dir: PathBuf,
        /// Whose it is.
        found: RepositoryId,
        /// Whose it should be.
        expected: RepositoryId,
    },
    /// The catalog's schema is not this program's.
    #[error("catalog in {} has schema {found}, this program knows {known}: {advice}", dir.display())]
    Schema {
        /// State directory.
        dir: PathBuf,
        /// Version found.
        found: i64,
        /// Version that this program writes.
        known: i64,
        /// What to do about it.
        advice: &'static str,
    },
    /// The catalog was opened for reading only.
    #[error("catalog is open for reading only, cannot {doing}")]
    ReadOnly {
        /// What was attempted.
        doing: &'static str,
    },
    /// A file of the state directory could not be used.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("catalog failed to {doing}")]
    Database {
        /// What was attempted.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds what no version of this program writes.
    #[error("catalog is damaged: {what}; build it from the store with `rebuild`")]
    Row {
        /// What is wrong.
        what: String,
    },
    /// Another session holds the volume's lease.
    #[error("volume {volume} is leased to session {holder} for another {} s", remaining_ns / 1_000_000_000)]
    VolumeBusy {
        /// The volume.
        volume: VolumeId,
        /// The session that has it.
        holder: SessionId,
        /// Nanoseconds until its lease ends, unless it sends.
        remaining_ns: i64,
    },
    /// No volume of this number or id is bound.
    #[error("no volume {volume} in the catalog")]
    UnknownVolume {
        /// Its id or number.
        volume: String,
    },
    /// An idempotency key was used for another volume.
    #[error("idempotency key belongs to a run of another volume")]
    KeyReused,
    /// The session's lease went to a later epoch.
    #[error("session {session} lost its lease")]
    LeaseLost {
        /// The session.
        session: SessionId,
    },
    /// No open session has this id.
    #[error("session {session} is not open")]
    UnknownSession {
        /// As asked.
        session: SessionId,
    },
    /// The run was committed before.
    #[error("run was already committed as snapshot {snapshot}")]
    AlreadyCommitted {
        /// Its snapshot.
        snapshot: SnapshotId,
    },
    /// The run has reserved another record, which is to be put and published or dropped first.
    #[error("run has already reserved snapshot {snapshot}")]
    AlreadyReserved {
        /// The reserved snapshot.
        snapshot: SnapshotId,
    },
    /// What a commit relies on is not there any more.
    #[error("{count} chunks or nodes that the commit relies on are gone")]
    ChunkGone {
        /// Up to [`MAX_GONE_LISTED`] of them.
        ids: Vec<[u8; 32]>,
        /// How many there are.
        count: u64,
    },
    /// A pack is being deleted or was deleted: nothing may rely on it.
    #[error("pack {pack} is {state} and cannot be registered")]
    PackGone {
        /// The pack.
        pack: PackId,
        /// Its state.
        state: PackState,
    },
}

/// Who holds a lock, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(pub(super) Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// The results of the catalog.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

/// Names what was attempted.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| CatalogError::Database { doing, source })
    }
}

/// Names what was attempted and the file.
pub(super) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| CatalogError::Io {
            doing,
            path: path.to_owned(),
            source,
        })
    }
}

/// A row that cannot be.
pub(super) fn bad_row(what: impl Into<String>) -> CatalogError {
    CatalogError::Row { what: what.into() }
}
