//! Keys, and what is derived from them. Every key is wiped when dropped and never printed.
//!
//! Nothing here is random: key bytes and salts are arguments.

use crate::chunker::GearTable;
use crate::error::FormatError;
use crate::id::{ChunkId, DomainId, NodeId};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Contexts of every BLAKE3 `derive_key` of format version 1; the same list stands in FORMAT.md.
pub mod contexts {
    /// Id key → key of `ChunkId`.
    pub const CHUNK_ID: &str = "holdfast.dev 2026-11 v1 chunk id";
    /// Id key → key of `NodeId`, for nodes of trees and lists.
    pub const NODE_ID: &str = "holdfast.dev 2026-11 v1 node id";
    /// Id key → key of node boundaries.
    pub const BOUNDARY: &str = "holdfast.dev 2026-11 v1 node boundary";
    /// Id key → stream of the gear table.
    pub const GEAR: &str = "holdfast.dev 2026-11 v1 gear table";
    /// Id key → key of content digests.
    pub const CONTENT_DIGEST: &str = "holdfast.dev 2026-11 v1 content digest";
    /// Sealing master and salt → key of one sealed object.
    pub const SEAL_BY_MASTER: &str = "holdfast.dev 2026-11 v1 seal by domain master";
    /// Key-encryption key and salt → key of one sealed object.
    pub const SEAL_BY_KEK: &str = "holdfast.dev 2026-11 v1 seal by key-encryption key";
    /// Output of the passphrase hash and salt → key of a passphrase slot.
    pub const PASSPHRASE_SLOT: &str = "holdfast.dev 2026-11 v1 passphrase slot";
    /// Key-encryption key and repository id → key check of the repository object.
    pub const KEY_CHECK: &str = "holdfast.dev 2026-11 v1 key check";
    /// Key-encryption key and parameters → seal of the repository object.
    pub const REPOSITORY_SEAL: &str = "holdfast.dev 2026-11 v1 repository seal";
    /// Key-encryption key → public number of the key file.
    pub const KEY_FINGERPRINT: &str = "holdfast.dev 2026-11 v1 key fingerprint";
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The key with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = FormatError;
            fn try_from(bytes: &[u8]) -> Result<Self, FormatError> {
                <[u8; 32]>::try_from(bytes).map(Self).map_err(|_| FormatError::Decode {
                    what: stringify!($name),
                    rule: "not 32 bytes",
                    offset: 0,
                })
            }
        }
    };
}

secret!(
    /// The key-encryption key of a repository: seals the keys of domains, marks and other records of
    /// the whole repository. It comes from a key file or a passphrase slot.
    Kek
);
secret!(
    /// The id key of one generation of a dedup domain: ids, cut points and node boundaries come from
    /// it. An agent holds it in memory for a session; it opens nothing.
    IdKey
);
secret!(
    /// Key bytes of a sealing master.
    MasterKey
);

/// A numbered key that seals the packs and snapshot records of a domain generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealingMaster {
    /// Its number; what is sealed names it.
    pub number: u32,
    /// Its key.
    pub key: MasterKey,
}

impl SealingMaster {
    /// The master with this number and key.
    pub const fn from_bytes(number: u32, key: [u8; 32]) -> Self {
        Self {
            number,
            key: MasterKey::from_bytes(key),
        }
    }
}

/// The keys of one generation of a dedup domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainKeys {
    /// The domain.
    pub domain: DomainId,
    /// Its generation; the id key is fixed for it.
    pub generation: u32,
    /// The id key.
    pub id_key: IdKey,
    /// At least one, ascending by number.
    pub masters: Vec<SealingMaster>,
}

impl DomainKeys {
    /// The master that new objects are sealed with: the one with the highest number.
    pub fn current(&self) -> Option<&SealingMaster> {
        self.masters.last()
    }

    /// The master with this number.
    pub fn master(&self, number: u32) -> Option<&SealingMaster> {
        self.masters.iter().find(|master| master.number == number)
    }
}

impl IdKey {
    /// The hash functions of this key.
    pub fn ids(&self) -> Ids {
        let derive = |context| blake3::derive_key(context, &self.0);
        Ids {
            chunk: derive(contexts::CHUNK_ID),
            node: derive(contexts::NODE_ID),
            boundary: derive(contexts::BOUNDARY),
            digest: derive(contexts::CONTENT_DIGEST),
        }
    }

    /// The gear table of this key: numbers from the XOF, little-endian.
    pub fn gear(&self) -> GearTable {
        let mut stream = blake3::Hasher::new_derive_key(contexts::GEAR)
            .update(&self.0)
            .finalize_xof();
        GearTable::from_stream(|| {
            let mut number = [0; 8];
            stream.fill(&mut number);
            u64::from_le_bytes(number)
        })
    }
}

/// The keyed hash functions of one domain generation.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Ids {
    chunk: [u8; 32],
    node: [u8; 32],
    boundary: [u8; 32],
    digest: [u8; 32],
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids(secret)")
    }
}

impl Ids {
    /// The id of a chunk with these plain bytes.
    pub fn chunk(&self, bytes: &[u8]) -> ChunkId {
        ChunkId::from_bytes(blake3::keyed_hash(&self.chunk, bytes).into())
    }

    /// The id of a node with these plain bytes. Nodes of trees and of lists share the function, so
    /// that a reader can check a node it knows only by its id; their first byte tells them apart.
    pub fn node(&self, bytes: &[u8]) -> NodeId {
        NodeId::from_bytes(blake3::keyed_hash(&self.node, bytes).into())
    }

    /// Key of the hash that decides where nodes end.
    pub fn boundary_key(&self) -> &[u8; 32] {
        &self.boundary
    }

    /// Key of content digests.
    pub(crate) fn digest_key(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl Kek {
    /// Sixteen bytes that tell keys apart and reveal nothing of them, for people and log lines.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out.copy_from_slice(&blake3::derive_key(contexts::KEY_FINGERPRINT, &self.0)[..16]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let keys = DomainKeys {
            domain: DomainId::from_bytes([1; 16]),
            generation: 1,
            id_key: IdKey::from_bytes([0x77; 32]),
            masters: vec![SealingMaster::from_bytes(1, [0x77; 32])],
        };
        let shown = format!("{keys:?} {:?} {:?}", keys.id_key.ids(), keys.id_key.gear());
        assert!(!shown.contains("77") && !shown.contains("119"), "{shown}");
    }

    #[test]
    fn every_context_gives_another_function() {
        let ids = IdKey::from_bytes([3; 32]).ids();
        assert_ne!(ids.chunk(b"x").as_bytes(), ids.node(b"x").as_bytes());
        let other = IdKey::from_bytes([4; 32]).ids();
        assert_ne!(ids.chunk(b"x"), other.chunk(b"x"));
        let all = [ids.chunk, ids.node, ids.boundary, ids.digest];
        for (index, key) in all.iter().enumerate() {
            assert!(!all[..index].contains(key));
        }
    }
}
