//! One error for every rule of the format that can be broken; each names what broke it.
//!
//! Messages are lower-case, say what was found, and never hold secret bytes.

use crate::id::{ChunkId, NodeId, RepositoryId};

/// A byte string, message or argument broke a rule of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// An id had the wrong length or was not hexadecimal.
    #[error("{kind} must be {expected} bytes in hexadecimal, found {found:?}")]
    Id {
        /// Name of the id type.
        kind: &'static str,
        /// Bytes expected.
        expected: usize,
        /// What was found, cut to 80 characters.
        found: String,
    },
    /// A relative path broke a rule.
    #[error("path {path}: {rule}")]
    Path {
        /// The path, escaped.
        path: String,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// A volume or node name broke a rule.
    #[error("name {name:?}: {rule}")]
    Name {
        /// The name.
        name: String,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// An entry is not possible.
    #[error("entry {path}: {rule}")]
    Entry {
        /// Path of the entry, escaped; empty while it is not known.
        path: String,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// Bytes that end too early, go on too long, or hold an impossible value.
    #[error("{what}: {rule} at byte {offset}")]
    Decode {
        /// What was being decoded.
        what: &'static str,
        /// The rule that was broken.
        rule: &'static str,
        /// Offset in the input.
        offset: usize,
    },
    /// A length above its limit; nothing was allocated for it.
    #[error("{what} of {found} exceeds the limit of {limit}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// What was claimed.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A version or feature that this program does not know.
    #[error("{what} {found} is not supported by this version of holdfast")]
    Unsupported {
        /// What has the version.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// A chunk's bytes do not have its id.
    #[error("chunk {0} does not match its id")]
    ChunkMismatch(ChunkId),
    /// A node's bytes do not have its id.
    #[error("tree node {0} does not match its id")]
    NodeMismatch(NodeId),
    /// A node is not where it should be.
    #[error("tree node {0} is missing")]
    NodeMissing(NodeId),
    /// A sealed object could not be opened: wrong key, or changed bytes.
    #[error("{what} cannot be opened: wrong key or damaged")]
    Unsealed {
        /// What was being opened.
        what: &'static str,
    },
    /// An object of another kind stands where this kind was expected.
    #[error("expected a {expected}, found a {found}")]
    WrongKind {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// The key that an object names is not at hand.
    #[error("{what} is sealed with {key}, which is not known")]
    KeyMissing {
        /// What is sealed.
        what: &'static str,
        /// Which key it names.
        key: String,
    },
    /// The key is not the one of this repository.
    #[error("this is not the key of repository {repository}")]
    WrongKey {
        /// The repository.
        repository: RepositoryId,
    },
    /// A change to a tree is not possible.
    #[error("change of {path}: {rule}")]
    Change {
        /// Path of the change, escaped.
        path: String,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// The codec could not compress or decompress.
    #[error("{what}: {detail}")]
    Codec {
        /// What was being coded.
        what: &'static str,
        /// The library's word.
        detail: String,
    },
}

/// Refuses what is more than `limit`.
pub(crate) fn check_limit<N>(what: &'static str, found: N, limit: N) -> Result<(), FormatError>
where
    N: PartialOrd + TryInto<u64>,
{
    if found <= limit {
        return Ok(());
    }
    Err(FormatError::Limit {
        what,
        found: found.try_into().unwrap_or(u64::MAX),
        limit: limit.try_into().unwrap_or(u64::MAX),
    })
}
