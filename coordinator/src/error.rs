//! Every way the coordinator can fail: precise inside, a stable [`Reason`] and a [`Kind`] at the edge.
//!
//! Messages are lower-case, say what was attempted and what to do, and never hold secret bytes. A
//! caller branches on `reason()` or `kind()`, never on the text.

use crate::catalog::CatalogError;
use crate::repo::RepoError;
use crate::repo::reconcile::ReconcileError;
use holdfast_format::FormatError;
use holdfast_format::id::{ChunkId, SnapshotId};
use std::sync::Arc;

/// The crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something that the coordinator was asked to do and could not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository or its store failed or refused.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The catalog is older than its store and could not be brought up.
    #[error("catalog is behind its store: {detail}")]
    CatalogBehind {
        /// What is missing.
        detail: String,
    },
    /// The catalog failed or refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A file of the state directory or a key file could not be used.
    #[error("cannot {doing}")]
    Io {
        /// What was attempted, with the path.
        doing: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another session holds the volume's lease.
    #[error("volume {volume} is being backed up by another session; try again when it has ended")]
    VolumeBusy {
        /// The volume's name.
        volume: String,
    },
    /// The name belongs to another source.
    #[error(
        "volume name {volume} belongs to {holder}; choose another name, or take it over with --adopt"
    )]
    VolumeNameTaken {
        /// The name.
        volume: String,
        /// The source that has it.
        holder: String,
    },
    /// No volume has this name.
    #[error("no volume is named {volume}")]
    VolumeNotFound {
        /// The name.
        volume: String,
    },
    /// The session's lease went to a later epoch.
    #[error("session lost its lease; begin again with the same idempotency key")]
    LeaseLost,
    /// No open session has this id.
    #[error("session is not open; begin again with the same idempotency key")]
    UnknownSession,
    /// An entry names a chunk that this volume neither holds nor sent.
    #[error("entry {path} names chunk {chunk}, which this volume neither holds nor sent")]
    UnknownChunkReference {
        /// The entry's path, escaped.
        path: String,
        /// The chunk.
        chunk: ChunkId,
    },
    /// An entry claims another length of a chunk than it has.
    #[error("entry {path} says that chunk {chunk} is {claimed} bytes long; it is {length}")]
    WrongChunkLength {
        /// The entry's path, escaped.
        path: String,
        /// The chunk.
        chunk: ChunkId,
        /// What the entry says, in bytes.
        claimed: u32,
        /// What is stored, in bytes.
        length: u32,
    },
    /// A chunk's bytes do not have its id.
    #[error("chunk {chunk} does not match its bytes")]
    InvalidChunkId {
        /// The chunk.
        chunk: ChunkId,
    },
    /// A change cannot be applied to the parent's tree.
    #[error("change of {path} refused: {rule}")]
    InvalidChange {
        /// Its path, escaped.
        path: String,
        /// The rule it broke.
        rule: String,
    },
    /// A request breaks a rule of the protocol.
    #[error("request refused: {rule}")]
    InvalidRequest {
        /// The rule it broke.
        rule: String,
    },
    /// Chunks that the commit relies on were deleted meanwhile.
    #[error("{} chunks were deleted before the commit; send them again", chunks.len())]
    ChunkGone {
        /// Their ids.
        chunks: Vec<[u8; 32]>,
    },
    /// No snapshot has this id.
    #[error("no snapshot {name}")]
    SnapshotNotFound {
        /// As it was asked for.
        name: String,
    },
    /// A mark keeps the snapshot.
    #[error("snapshot {snapshot} is kept: {why}; it can be forgotten {when}")]
    SnapshotPinned {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What keeps it, with the mark's id and reason.
        why: String,
        /// When that ends.
        when: String,
    },
    /// There is nothing to acknowledge.
    #[error("snapshot {snapshot} is not suspicious: there is nothing to acknowledge")]
    NotSuspicious {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// More than one snapshot matches.
    #[error("{name} matches {} snapshots", matches.len())]
    SnapshotAmbiguous {
        /// As it was asked for.
        name: String,
        /// What matches.
        matches: Vec<SnapshotId>,
    },
    /// No job has this id.
    #[error("no job {job}")]
    JobNotFound {
        /// Its id, in hexadecimal.
        job: String,
    },
    /// No agent is connected that could do it.
    #[error("no agent serves {what} now")]
    AgentMissing {
        /// The volume or node.
        what: String,
    },
    /// The agent speaks another protocol.
    #[error("protocol {found} is not supported; this coordinator speaks {supported}")]
    ProtocolUnsupported {
        /// The agent's.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// A message has more items or bytes than allowed.
    #[error("{what} of {found} exceeds the limit of {limit}")]
    MessageTooLarge {
        /// What is limited.
        what: &'static str,
        /// What was sent.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A frame is larger than allowed, or says that it is.
    #[error("frame refused: {detail}")]
    FrameTooLarge {
        /// What is too large.
        detail: String,
    },
    /// Stored bytes are missing or damaged.
    #[error("damage found: {detail}")]
    DamageFound {
        /// What is damaged, with the object's name.
        detail: String,
    },
    /// The caller may not do this.
    #[error("not allowed: {detail}")]
    NotAllowed {
        /// What it was.
        detail: String,
    },
    /// The work was cancelled, or the process is stopping.
    #[error("cancelled: {detail}")]
    Cancelled {
        /// By what.
        detail: String,
    },
    /// The same failure, for one more of those who waited for it.
    #[error("{0}")]
    Shared(Arc<Error>),
    /// The snapshot has nothing at this path.
    #[error("nothing at {path} in the snapshot")]
    PathNotFound {
        /// The path, escaped.
        path: String,
    },
    /// Bytes or a message broke a rule of the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A task of this process died.
    #[error("internal failure while {doing}")]
    Internal {
        /// What was attempted.
        doing: String,
    },
}

macro_rules! reasons {
    ($($name:ident)*) => {
        /// Why something failed: a stable word for machines.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[allow(missing_docs, reason = "each is the reason of the Error of the same name")]
        pub enum Reason { $($name),* }

        impl Reason {
            /// The word itself.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name)),* }
            }
        }
    };
}

reasons! {
    RepositoryMissing RepositoryExists RepositoryOwned WrongKey Unsupported StoreFull
    StoreUnavailable InvalidStoreUrl PathNotFound CatalogMissing CatalogCorrupt CatalogBehind CatalogBusy
    CatalogFailed StateUnavailable VolumeBusy VolumeNameTaken VolumeNotFound LeaseLost
    UnknownSession UnknownChunkReference WrongChunkLength InvalidChunkId InvalidChange InvalidRequest ChunkGone
    SnapshotNotFound SnapshotAmbiguous SnapshotPinned NotSuspicious JobNotFound AgentMissing ProtocolUnsupported
    MessageTooLarge FrameTooLarge DamageFound NotAllowed Cancelled Internal
}

/// What the caller should do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Correct the request; sending it again as it is cannot help.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// It exists already, or belongs to somebody else.
    Conflict,
    /// The state must change first: begin again, send again, rebuild.
    Precondition,
    /// Try again later.
    Unavailable,
    /// There is no room.
    Exhausted,
    /// The caller may not.
    Denied,
    /// Stored data is damaged.
    DataLoss,
    /// Cancelled.
    Cancelled,
    /// A fault of this program.
    Internal,
}

impl From<ReconcileError> for Error {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Store(error) => error.into(),
            ReconcileError::Catalog(error) => error.into(),
        }
    }
}

impl Error {
    /// An IO error with what was attempted.
    pub fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io {
            doing: doing.into(),
            source,
        }
    }

    /// A request that breaks a rule of the protocol.
    pub fn invalid(rule: impl Into<String>) -> Self {
        Error::InvalidRequest { rule: rule.into() }
    }

    /// A task of this process died.
    pub fn internal(doing: impl Into<String>) -> Self {
        Error::Internal {
            doing: doing.into(),
        }
    }

    /// The stable word for it.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Repo(error) => repo_reason(error),
            Error::Shared(error) => error.reason(),
            Error::PathNotFound { .. } => Reason::PathNotFound,
            Error::CatalogBehind { .. } => Reason::CatalogBehind,
            Error::Catalog(error) => catalog_reason(error),
            Error::Io { .. } => Reason::StateUnavailable,
            Error::VolumeBusy { .. } => Reason::VolumeBusy,
            Error::VolumeNameTaken { .. } => Reason::VolumeNameTaken,
            Error::VolumeNotFound { .. } => Reason::VolumeNotFound,
            Error::LeaseLost => Reason::LeaseLost,
            Error::UnknownSession => Reason::UnknownSession,
            Error::UnknownChunkReference { .. } => Reason::UnknownChunkReference,
            Error::WrongChunkLength { .. } => Reason::WrongChunkLength,
            Error::SnapshotPinned { .. } => Reason::SnapshotPinned,
            Error::NotSuspicious { .. } => Reason::NotSuspicious,
            Error::InvalidChunkId { .. } => Reason::InvalidChunkId,
            Error::InvalidChange { .. } => Reason::InvalidChange,
            Error::InvalidRequest { .. } => Reason::InvalidRequest,
            Error::ChunkGone { .. } => Reason::ChunkGone,
            Error::SnapshotNotFound { .. } => Reason::SnapshotNotFound,
            Error::SnapshotAmbiguous { .. } => Reason::SnapshotAmbiguous,
            Error::JobNotFound { .. } => Reason::JobNotFound,
            Error::AgentMissing { .. } => Reason::AgentMissing,
            Error::ProtocolUnsupported { .. } => Reason::ProtocolUnsupported,
            Error::MessageTooLarge { .. } => Reason::MessageTooLarge,
            Error::FrameTooLarge { .. } => Reason::FrameTooLarge,
            Error::DamageFound { .. } => Reason::DamageFound,
            Error::NotAllowed { .. } => Reason::NotAllowed,
            Error::Cancelled { .. } => Reason::Cancelled,
            Error::Format(error) => format_reason(error),
            Error::Internal { .. } => Reason::Internal,
        }
    }

    /// What the caller should do about it.
    pub fn kind(&self) -> Kind {
        match self.reason() {
            Reason::InvalidStoreUrl
            | Reason::UnknownChunkReference
            | Reason::WrongChunkLength
            | Reason::InvalidChunkId
            | Reason::InvalidChange
            | Reason::InvalidRequest
            | Reason::SnapshotAmbiguous
            | Reason::MessageTooLarge
            | Reason::FrameTooLarge => Kind::Invalid,
            Reason::RepositoryMissing
            | Reason::VolumeNotFound
            | Reason::SnapshotNotFound
            | Reason::PathNotFound
            | Reason::JobNotFound => Kind::NotFound,
            Reason::RepositoryExists | Reason::VolumeNameTaken => Kind::Conflict,
            Reason::RepositoryOwned
            | Reason::Unsupported
            | Reason::CatalogMissing
            | Reason::CatalogCorrupt
            | Reason::CatalogBehind
            | Reason::LeaseLost
            | Reason::UnknownSession
            | Reason::ChunkGone
            | Reason::SnapshotPinned
            | Reason::NotSuspicious
            | Reason::AgentMissing
            | Reason::ProtocolUnsupported => Kind::Precondition,
            Reason::StoreUnavailable
            | Reason::CatalogBusy
            | Reason::CatalogFailed
            | Reason::StateUnavailable
            | Reason::VolumeBusy => Kind::Unavailable,
            Reason::StoreFull => Kind::Exhausted,
            Reason::WrongKey | Reason::NotAllowed => Kind::Denied,
            Reason::DamageFound => Kind::DataLoss,
            Reason::Cancelled => Kind::Cancelled,
            Reason::Internal => Kind::Internal,
        }
    }
}

fn repo_reason(error: &RepoError) -> Reason {
    match error {
        RepoError::RepositoryMissing { .. } => Reason::RepositoryMissing,
        RepoError::RepositoryExists { .. }
        | RepoError::NotEmpty { .. }
        | RepoError::SeveralRepositories { .. } => Reason::RepositoryExists,
        RepoError::WrongKey { .. } | RepoError::KeyFile { .. } | RepoError::Passphrase { .. } => {
            Reason::WrongKey
        }
        RepoError::Unsupported { .. } => Reason::Unsupported,
        RepoError::Owned { .. } | RepoError::Fenced { .. } => Reason::RepositoryOwned,
        RepoError::StoreFull { .. } => Reason::StoreFull,
        RepoError::StoreRefused { .. } | RepoError::StoreUnavailable { .. } => {
            Reason::StoreUnavailable
        }
        RepoError::StoreUrl { .. } => Reason::InvalidStoreUrl,
        RepoError::ObjectMissing { .. }
        | RepoError::ObjectTruncated { .. }
        | RepoError::ObjectDamaged { .. } => Reason::DamageFound,
        RepoError::Io { .. } => Reason::StateUnavailable,
        RepoError::Format(error) => format_reason(error),
        RepoError::Internal { .. } => Reason::Internal,
    }
}

fn catalog_reason(error: &CatalogError) -> Reason {
    match error {
        CatalogError::Missing { .. } => Reason::CatalogMissing,
        CatalogError::Corrupt { .. }
        | CatalogError::Row { .. }
        | CatalogError::ForeignRepository { .. } => Reason::CatalogCorrupt,
        CatalogError::InUse { .. } => Reason::CatalogBusy,
        CatalogError::Schema { .. } => Reason::Unsupported,
        CatalogError::Io { .. } => Reason::StateUnavailable,
        CatalogError::Database { .. } if error.is_full() => Reason::StoreFull,
        CatalogError::Database { .. } if error.is_corrupt() => Reason::CatalogCorrupt,
        CatalogError::Exists { .. }
        | CatalogError::ReadOnly { .. }
        | CatalogError::Database { .. }
        | CatalogError::PackGone { .. } => Reason::CatalogFailed,
        CatalogError::VolumeBusy { .. } => Reason::VolumeBusy,
        CatalogError::UnknownVolume { .. } => Reason::VolumeNotFound,
        CatalogError::KeyReused
        | CatalogError::AlreadyCommitted { .. }
        | CatalogError::AlreadyReserved { .. } => Reason::InvalidRequest,
        CatalogError::LeaseLost { .. } => Reason::LeaseLost,
        CatalogError::UnknownSession { .. } => Reason::UnknownSession,
        CatalogError::ChunkGone { .. } => Reason::ChunkGone,
    }
}

/// Errors of the format come from messages and from stored bytes; where they come from stored bytes,
/// `repo` says so with `ObjectDamaged` and they do not arrive here.
fn format_reason(error: &FormatError) -> Reason {
    match error {
        FormatError::ChunkMismatch(_) => Reason::InvalidChunkId,
        FormatError::NodeMismatch(_)
        | FormatError::NodeMissing(_)
        | FormatError::Unsealed { .. }
        | FormatError::WrongKind { .. } => Reason::DamageFound,
        FormatError::KeyMissing { .. } => Reason::WrongKey,
        FormatError::Change { .. } | FormatError::Entry { .. } | FormatError::Path { .. } => {
            Reason::InvalidChange
        }
        FormatError::Limit { .. } => Reason::MessageTooLarge,
        FormatError::Unsupported { .. } => Reason::Unsupported,
        FormatError::WrongKey { .. } => Reason::WrongKey,
        FormatError::Id { .. }
        | FormatError::Name { .. }
        | FormatError::Decode { .. }
        | FormatError::Codec { .. } => Reason::InvalidRequest,
    }
}
