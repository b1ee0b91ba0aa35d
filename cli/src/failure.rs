//! Why a command ends, and with which exit code. Every failure says what to do about it.

pub use holdfast_runtime::exit::Exit;
use tonic_types::StatusExt;

/// A command's end other than success.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// For people; may be empty where everything was already printed.
    pub message: String,
}

/// What commands return.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// Exit 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.into(),
        }
    }

    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    /// Another exit code.
    pub fn with(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// The failure of an error with its chain of causes.
    pub fn because(what: &str, error: &dyn std::error::Error) -> Self {
        Self::failed(format!("{what}: {}", chain(error)))
    }
}

/// An error and its causes, each once, joined by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// The first cause of a status, which says more than what was made of it on the way.
fn root(status: &tonic::Status) -> String {
    use std::error::Error;
    let mut at = status.source();
    while let Some(next) = at.and_then(Error::source) {
        at = Some(next);
    }
    at.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

/// The stable reason a status carries; empty where it has none.
pub fn reason_of(status: &tonic::Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// The exit code of a stable reason.
pub fn exit_of(reason: &str) -> Exit {
    match reason {
        "RepositoryMissing" => Exit::NoRepository,
        "RepositoryOwned" | "CatalogBusy" => Exit::Owned,
        "WrongKey" => Exit::WrongKey,
        "NotAllowed" => Exit::NotAllowed,
        "DamageFound" | "PackDamaged" | "PackMissing" | "ChunkMissing" | "FrameDamaged"
        | "ObjectDamaged" => Exit::Damage,
        "VolumeNameTaken" | "VolumeBusy" | "SnapshotPinned" | "NotSuspicious" | "Refused"
        | "TargetNotEmpty" | "TargetBusy" => Exit::Refused,
        "InvalidStoreUrl" => Exit::Usage,
        "Cancelled" => Exit::Interrupted,
        _ => Exit::Failed,
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let reason = reason_of(&status);
        let exit = match reason.as_str() {
            "" if status.code() == tonic::Code::PermissionDenied => Exit::NotAllowed,
            reason => exit_of(reason),
        };
        let message = match (status.code(), reason.as_str()) {
            (tonic::Code::Unavailable, "") => {
                format!("the coordinator cannot be reached: {}", root(&status))
            }
            (_, "") => status.message().to_owned(),
            (_, reason) => format!("{} ({reason})", status.message()),
        };
        Self { exit, message }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
