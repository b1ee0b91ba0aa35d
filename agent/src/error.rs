//! One error for the agent's library; each variant says what was attempted and on what.
//!
//! A bad file is never an error here: it is an [`ItemProblem`], data in the report.

use holdfast_format::FormatError;
use holdfast_format::entry::Problem;
use std::io;

/// Result of the agent's library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can stop a run, a restore or the agent itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator answered with a reason.
    #[error("{what}: {message}")]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// Stable UpperCamelCase word.
        reason: String,
        /// The coordinator's words.
        message: String,
    },
    /// The connection broke, or could not be made; worth another try.
    #[error("{what}: connection to the coordinator failed: {message}")]
    Disconnected {
        /// What was attempted.
        what: &'static str,
        /// The transport's words.
        message: String,
    },
    /// The coordinator sent what it may not send.
    #[error("{what}: the coordinator's answer breaks a rule")]
    Answer {
        /// What was attempted.
        what: &'static str,
        /// The rule.
        #[source]
        source: FormatError,
    },
    /// The coordinator's answer contradicts itself or the protocol.
    #[error("{what}: {rule}")]
    Protocol {
        /// What was attempted.
        what: &'static str,
        /// What was wrong.
        rule: String,
    },
    /// A rule of the format was broken by the agent's own data.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The volume is not (or no longer) the mount that was found at the start.
    #[error("volume {volume} is not mounted as it was at the start: {detail}")]
    VolumeUnmounted {
        /// Name of the volume.
        volume: String,
        /// What differs.
        detail: String,
    },
    /// The volume's root could not be read.
    #[error("volume {volume} cannot be read: {detail}")]
    VolumeUnreadable {
        /// Name of the volume.
        volume: String,
        /// Why.
        detail: String,
    },
    /// No volume of that name is served here, or it may not be read.
    #[error("volume {volume}: {detail}")]
    VolumeRefused {
        /// Name of the volume.
        volume: String,
        /// Stable UpperCamelCase word.
        reason: String,
        /// For people.
        detail: String,
    },
    /// Another run of the same volume is going on in this agent or on this state directory.
    #[error("another run of volume {volume} is going on")]
    VolumeBusy {
        /// Name of the volume.
        volume: String,
    },
    /// The agent's index could not be read or written.
    #[error("index: {what}: {detail}")]
    Index {
        /// What was attempted.
        what: &'static str,
        /// The store's words.
        detail: String,
    },
    /// A system call outside a volume failed.
    #[error("{what} {path}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Escaped path.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A restore cannot start or go on.
    #[error("restore: {detail}")]
    Restore {
        /// Stable UpperCamelCase word.
        reason: &'static str,
        /// For people.
        detail: String,
    },
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A thread of the run ended by a panic; a bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The stable UpperCamelCase word of this error.
    pub fn reason(&self) -> &str {
        match self {
            Error::Refused { reason, .. } | Error::VolumeRefused { reason, .. } => reason,
            Error::Disconnected { .. } => "CoordinatorUnavailable",
            Error::Answer { .. } | Error::Protocol { .. } => "ProtocolViolation",
            Error::Format(_) => "InvalidChange",
            Error::VolumeUnmounted { .. } => "VolumeUnmounted",
            Error::VolumeUnreadable { .. } => "VolumeUnreadable",
            Error::VolumeBusy { .. } => "VolumeBusy",
            Error::Index { .. } => "IndexUnavailable",
            Error::Io { .. } => "InputOutput",
            Error::Restore { reason, .. } => reason,
            Error::Cancelled => "Cancelled",
            Error::Internal(_) => "Internal",
        }
    }

    /// Whether the same call may succeed when it is made again a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Disconnected { .. } => true,
            Error::Refused { reason, .. } => {
                matches!(
                    reason.as_str(),
                    "StoreUnavailable" | "LeaseLost" | "UnknownSession" | "ShuttingDown"
                )
            }
            _ => false,
        }
    }
}

/// A failure of one path that does not stop the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemProblem {
    /// Stable UpperCamelCase word, e.g. `PermissionDenied`.
    pub reason: &'static str,
    /// For people.
    pub detail: String,
    /// 0: none.
    pub errno: i32,
}

impl ItemProblem {
    /// A problem without an errno.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            errno: 0,
        }
    }

    /// The problem that a failed system call makes; `what` says what was attempted.
    pub fn from_io(what: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let reason = match errno {
            libc::EACCES | libc::EPERM => "PermissionDenied",
            libc::ENOENT | libc::ENOTDIR => "Vanished",
            libc::ELOOP => "ReplacedBySymlink",
            libc::EXDEV => "MountBoundary",
            libc::ENAMETOOLONG => "PathTooLong",
            libc::ESTALE => "Stale",
            libc::EAGAIN => "Busy",
            libc::E2BIG => "TooLarge",
            libc::EMFILE | libc::ENFILE | libc::ENOMEM => "OutOfResources",
            _ => "ReadFailed",
        };
        Self {
            reason,
            detail: format!("{what}: {error}"),
            errno,
        }
    }

    /// As it stands in a snapshot.
    pub fn into_problem(self, carried_over: bool, since_ns: i64) -> Problem {
        Problem {
            reason: self.reason.to_owned(),
            detail: self.detail,
            errno: self.errno,
            carried_over,
            since_ns,
        }
    }
}
