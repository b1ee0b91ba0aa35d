//! Every way the repository can fail. Each names the object or the store, and says what to do where
//! there is something to do; none holds a key or a credential.

use holdfast_format::FormatError;
use holdfast_format::claim::ClaimKey;
use holdfast_format::id::RepositoryId;
use std::path::{Path, PathBuf};

/// What a store or the system said.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// This module's results.
pub type Result<T, E = RepoError> = std::result::Result<T, E>;

/// Something that the repository was asked to do and could not.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// There is no repository at this URL.
    #[error("no repository at {store}: create it with `holdfast init`")]
    RepositoryMissing {
        /// URL without credentials.
        store: String,
    },
    /// There already is a repository at this URL.
    #[error("{store} already holds repository {repository}")]
    RepositoryExists {
        /// URL without credentials.
        store: String,
        /// Its id.
        repository: RepositoryId,
    },
    /// The place holds something that is not ours.
    #[error("{store} is not empty and holds no repository ({found}): choose an empty place")]
    NotEmpty {
        /// URL without credentials.
        store: String,
        /// One of the things that are there.
        found: String,
    },
    /// Two repositories in one place: something was copied together.
    #[error("{store} holds more than one repository ({first} and {second}): move one away")]
    SeveralRepositories {
        /// URL without credentials.
        store: String,
        /// One of them.
        first: RepositoryId,
        /// Another.
        second: RepositoryId,
    },
    /// The key or passphrase is not the one of this repository.
    #[error("{given} does not open repository {repository}")]
    WrongKey {
        /// What was tried: "the key", "the passphrase".
        given: &'static str,
        /// The repository.
        repository: RepositoryId,
    },
    /// A version or feature that this program does not know.
    #[error(
        "object {name}: {what} {found} is not supported by this version of holdfast; use a newer one"
    )]
    Unsupported {
        /// The object.
        name: String,
        /// What has the version.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// Another catalog owns the repository.
    #[error(
        "repository is owned by catalog {} on host {host} (epoch {}, since {age}): stop it there, or take over with --take-over, which waits up to ten minutes for what it has under way",
        holder.catalog, holder.epoch
    )]
    Owned {
        /// The claim that wins.
        holder: ClaimKey,
        /// Host that the holder runs on.
        host: String,
        /// How long ago it was claimed, for people.
        age: String,
    },
    /// Our claim was lost: this process must not write any more.
    #[error("claim {} on the repository is lost ({detail}): this process writes no more; start it again", mine.epoch)]
    Fenced {
        /// Our claim.
        mine: ClaimKey,
        /// To whom.
        detail: String,
    },
    /// The store has no room.
    #[error("store is full: {object} could not be written; make room and try again")]
    StoreFull {
        /// The object.
        object: String,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// The store answers, and says no.
    #[error("store refused to {doing}: {advice}")]
    StoreRefused {
        /// What was attempted, with the object's name.
        doing: String,
        /// What to do about it.
        advice: &'static str,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// The store does not answer, or not as it should.
    #[error("store failed to {doing}")]
    StoreUnavailable {
        /// What was attempted, with the object's name.
        doing: String,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// The URL or its options are wrong.
    #[error("store {url}: {detail}")]
    StoreUrl {
        /// URL without credentials.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// An object that must exist is not in the store.
    #[error("object {name} is missing in the store")]
    ObjectMissing {
        /// Its name.
        name: String,
    },
    /// An object is shorter than it must be.
    #[error("object {name} is truncated: {found} bytes of at least {expected}")]
    ObjectTruncated {
        /// Its name.
        name: String,
        /// Bytes that it must have at least.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// An object's bytes are not what they must be.
    #[error("object {name} is damaged: {detail}")]
    ObjectDamaged {
        /// Its name.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A key file cannot be used.
    #[error("key file {}: {detail}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        detail: String,
    },
    /// A passphrase cannot be used.
    #[error("passphrase: {detail}")]
    Passphrase {
        /// What is wrong with it.
        detail: String,
    },
    /// A local file or directory could not be used.
    #[error("cannot {doing}")]
    Io {
        /// What was attempted, with the path.
        doing: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A value that was to be stored breaks a rule of the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The system gave no random bytes, or a task of this process died.
    #[error("internal failure: cannot {doing}")]
    Internal {
        /// What was attempted.
        doing: &'static str,
    },
}

impl RepoError {
    /// An IO error with what was attempted at which path.
    pub(crate) fn io(doing: &str, path: &Path, source: std::io::Error) -> Self {
        RepoError::Io {
            doing: format!("{doing} {}", path.display()),
            source,
        }
    }

    /// What a broken rule of the format means for an object that was read: a newer version, or
    /// damage.
    pub(crate) fn of_object(name: impl ToString, error: FormatError) -> Self {
        match error {
            FormatError::Unsupported { what, found } => RepoError::Unsupported {
                name: name.to_string(),
                what,
                found,
            },
            error => RepoError::ObjectDamaged {
                name: name.to_string(),
                detail: error.to_string(),
            },
        }
    }

    /// Whether it is about one object only, so that the others may be read on.
    pub(super) fn is_of_object(&self) -> bool {
        self.is_damage() || matches!(self, RepoError::Unsupported { .. } | RepoError::Format(_))
    }

    /// Whether stored bytes are missing or not what they must be; trying again does not help.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            RepoError::ObjectMissing { .. }
                | RepoError::ObjectTruncated { .. }
                | RepoError::ObjectDamaged { .. }
        )
    }
}
