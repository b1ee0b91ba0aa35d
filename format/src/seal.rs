//! Sealing: what is stored can only be read with its key, and only in the place it was made for.
//!
//! Each sealed object has a clear 64-byte header with a salt of its own; its key is derived from a
//! master (or the key-encryption key) and that salt, so nonces are plain frame numbers. Repository,
//! header and frame number are associated data: bytes moved to another place do not open.

use crate::coding::Reader;
use crate::error::FormatError;
use crate::id::{DomainId, RepositoryId};
use crate::keys::contexts;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::Zeroize;

pub use crate::keys::{DomainKeys, IdKey, Ids, Kek, MasterKey, SealingMaster};

/// Version of the stored format that this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;
/// First bytes of every sealed object.
pub const MAGIC: [u8; 4] = *b"HLDF";
/// Length of a clear header, in bytes.
pub const HEADER_BYTES: usize = 64;
/// Bytes that sealing adds to the plain bytes.
pub const TAG_BYTES: usize = 16;
/// Largest object that is sealed in one piece (everything but packs), in bytes.
pub const MAX_SEALED_OBJECT_BYTES: usize = 16 * 1024 * 1024;
/// Frame number of a pack's footer; of an object in one piece: 0.
pub const FOOTER_NUMBER: u32 = u32::MAX;

/// What a sealed object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Frames of chunks.
    DataPack = 1,
    /// Frames of nodes.
    TreePack = 2,
    /// Frames of chunks and frames of nodes, of one small commit.
    MixedPack = 3,
    /// A snapshot record.
    Snapshot = 4,
    /// A mark.
    Mark = 5,
    /// The keys of a domain generation.
    DomainKeys = 6,
    /// The key-encryption key under a passphrase.
    PassphraseSlot = 7,
    /// The packs of one batch of deletes.
    DeletionRecord = 8,
    /// An index segment.
    Segment = 9,
    /// A snapshot record that carries signals.
    SignalledSnapshot = 10,
}

impl ObjectKind {
    const ALL: [Self; 10] = [
        Self::DataPack,
        Self::TreePack,
        Self::MixedPack,
        Self::Snapshot,
        Self::Mark,
        Self::DomainKeys,
        Self::PassphraseSlot,
        Self::DeletionRecord,
        Self::Segment,
        Self::SignalledSnapshot,
    ];

    /// Whether it is a pack of any kind.
    pub fn is_pack(self) -> bool {
        matches!(self, Self::DataPack | Self::TreePack | Self::MixedPack)
    }

    /// Whether it is a snapshot record of any kind.
    pub fn is_snapshot(self) -> bool {
        matches!(self, Self::Snapshot | Self::SignalledSnapshot)
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataPack => "data pack",
            Self::TreePack => "tree pack",
            Self::MixedPack => "mixed pack",
            Self::Snapshot => "snapshot record",
            Self::Mark => "mark",
            Self::DomainKeys => "domain keys",
            Self::PassphraseSlot => "passphrase slot",
            Self::DeletionRecord => "deletion record",
            Self::Segment => "index segment",
            Self::SignalledSnapshot => "snapshot record with signals",
        }
    }
}

impl TryFrom<u8> for ObjectKind {
    type Error = FormatError;
    fn try_from(number: u8) -> Result<Self, FormatError> {
        let known = Self::ALL.into_iter().find(|kind| *kind as u8 == number);
        known.ok_or_else(|| FormatError::Unsupported {
            what: "object kind",
            found: number.to_string(),
        })
    }
}

/// Which key seals an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum KeyRef {
    /// The repository's key-encryption key (or, for a slot, what the passphrase gives).
    Kek,
    /// A sealing master of a domain generation.
    Domain {
        /// The domain.
        domain: DomainId,
        /// Its generation.
        generation: u32,
        /// Number of the master.
        master: u32,
    },
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kek => f.write_str("the key of the repository"),
            Self::Domain {
                domain,
                generation,
                master,
            } => write!(f, "master {master} of domain {domain}/{generation}"),
        }
    }
}

/// A key that seals or opens.
#[derive(Clone, Copy, Debug)]
pub enum KeyMaterial<'a> {
    /// For `KeyRef::Kek`.
    Kek(&'a Kek),
    /// For `KeyRef::Domain`.
    Master(&'a SealingMaster),
    /// For a passphrase slot: output of the passphrase hash.
    Passphrase(&'a [u8; 32]),
}

impl KeyMaterial<'_> {
    fn derive(&self, salt: &[u8; 32]) -> [u8; 32] {
        let (context, key) = match self {
            Self::Kek(kek) => (contexts::SEAL_BY_KEK, kek.as_bytes()),
            Self::Master(master) => (contexts::SEAL_BY_MASTER, master.key.as_bytes()),
            Self::Passphrase(key) => (contexts::PASSPHRASE_SLOT, *key),
        };
        *blake3::Hasher::new_derive_key(context)
            .update(key)
            .update(salt)
            .finalize()
            .as_bytes()
    }
}

/// The clear start of a sealed object: what it is, and what opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What it is.
    pub kind: ObjectKind,
    /// What opens it.
    pub key: KeyRef,
    /// Random, never used for another object.
    pub salt: [u8; 32],
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[6] = self.kind as u8;
        if let KeyRef::Domain {
            domain,
            generation,
            master,
        } = &self.key
        {
            out[7] = 1;
            out[8..24].copy_from_slice(domain.as_bytes());
            out[24..28].copy_from_slice(&generation.to_le_bytes());
            out[28..32].copy_from_slice(&master.to_le_bytes());
        }
        out[32..].copy_from_slice(&self.salt);
        out
    }

    /// The header that these bytes start with.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("object header", bytes);
        if reader.array()? != MAGIC {
            return Err(reader.wrong("not an object of holdfast"));
        }
        let version = reader.u16()?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Unsupported {
                what: "format version",
                found: version.to_string(),
            });
        }
        let kind = ObjectKind::try_from(reader.u8()?)?;
        let tag = reader.u8()?;
        let domain = DomainId::from_bytes(reader.array()?);
        let (generation, master) = (reader.u32()?, reader.u32()?);
        let key = match tag {
            0 if domain.as_bytes() == &[0; 16] && generation == 0 && master == 0 => KeyRef::Kek,
            0 => return Err(reader.wrong("domain named beside the repository's key")),
            1 => KeyRef::Domain {
                domain,
                generation,
                master,
            },
            _ => return Err(reader.wrong("unknown kind of key")),
        };
        Ok(Self {
            kind,
            key,
            salt: reader.array()?,
        })
    }
}

/// The derived key of one object with its associated data.
struct Seal {
    kind: ObjectKind,
    key: LessSafeKey,
    associated: [u8; 16 + HEADER_BYTES + 4],
}

impl Seal {
    fn new(repository: &RepositoryId, header: &Header, key: KeyMaterial<'_>) -> Self {
        let mut derived = key.derive(&header.salt);
        let unbound = UnboundKey::new(&AES_256_GCM, &derived)
            .unwrap_or_else(|_| unreachable!("AES-256-GCM takes 32 bytes"));
        derived.zeroize();
        let mut associated = [0; 16 + HEADER_BYTES + 4];
        associated[..16].copy_from_slice(repository.as_bytes());
        associated[16..16 + HEADER_BYTES].copy_from_slice(&header.encode());
        Self {
            kind: header.kind,
            key: LessSafeKey::new(unbound),
            associated,
        }
    }

    fn place(&self, number: u32) -> (Nonce, Aad<[u8; 16 + HEADER_BYTES + 4]>) {
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&number.to_be_bytes());
        let mut associated = self.associated;
        associated[16 + HEADER_BYTES..].copy_from_slice(&number.to_le_bytes());
        (Nonce::assume_unique_for_key(nonce), Aad::from(associated))
    }
}

/// Seals the pieces of one object. Numbers must rise, so that no nonce is used twice.
pub struct Sealer {
    seal: Seal,
    next: Option<u32>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(next {:?})", self.next)
    }
}

impl Sealer {
    /// A sealer of the object with this header. The salt must not have been used before.
    pub fn new(repository: &RepositoryId, header: &Header, key: KeyMaterial<'_>) -> Self {
        Self {
            seal: Seal::new(repository, header, key),
            next: Some(0),
        }
    }

    /// The sealed bytes of a piece.
    pub fn seal(&mut self, number: u32, plain: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::with_capacity(plain.len() + TAG_BYTES);
        self.seal_into(number, &[plain], &mut out)?;
        Ok(out)
    }

    /// Appends the sealed bytes of a piece, given in parts.
    pub fn seal_into(
        &mut self,
        number: u32,
        plain: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        if self.next.is_none_or(|next| number < next) {
            return Err(FormatError::Codec {
                what: "seal",
                detail: format!("frame number {number} was used before"),
            });
        }
        self.next = number.checked_add(1);
        let start = out.len();
        out.reserve(plain.iter().map(|part| part.len()).sum::<usize>() + TAG_BYTES);
        plain.iter().for_each(|part| out.extend_from_slice(part));
        let (nonce, associated) = self.seal.place(number);
        let tag = self
            .seal
            .key
            .seal_in_place_separate_tag(nonce, associated, &mut out[start..])
            .map_err(|_| FormatError::Codec {
                what: self.seal.kind.name(),
                detail: "too long to be sealed".to_owned(),
            })?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// Opens the pieces of one object.
pub struct Opener(Seal);

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(secret)")
    }
}

impl Opener {
    /// An opener of the object with this header.
    pub fn new(repository: &RepositoryId, header: &Header, key: KeyMaterial<'_>) -> Self {
        Self(Seal::new(repository, header, key))
    }

    /// The plain bytes of a piece.
    pub fn open(&self, number: u32, stored: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut bytes = stored.to_vec();
        let (nonce, associated) = self.0.place(number);
        let length = self
            .0
            .key
            .open_in_place(nonce, associated, &mut bytes)
            .map_err(|_| FormatError::Unsealed {
                what: self.0.kind.name(),
            })?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// The stored bytes of an object in one piece: header, then its sealed bytes.
pub fn seal_object(
    repository: &RepositoryId,
    header: &Header,
    key: KeyMaterial<'_>,
    plain: &[u8],
) -> Result<Vec<u8>, FormatError> {
    check_limit(plain.len() + HEADER_BYTES + TAG_BYTES)?;
    let mut out = header.encode().to_vec();
    Sealer::new(repository, header, key).seal_into(0, &[plain], &mut out)?;
    Ok(out)
}

/// The plain bytes of an object in one piece. `key_for` gives the key its header names.
pub fn open_object<'k>(
    repository: &RepositoryId,
    expected: ObjectKind,
    key_for: impl Fn(&KeyRef) -> Option<KeyMaterial<'k>>,
    stored: &[u8],
) -> Result<Vec<u8>, FormatError> {
    check_limit(stored.len())?;
    let header = Header::decode(stored)?;
    if header.kind != expected {
        return Err(FormatError::WrongKind {
            expected: expected.name(),
            found: header.kind.name(),
        });
    }
    let key = key_for(&header.key).ok_or_else(|| FormatError::KeyMissing {
        what: expected.name(),
        key: header.key.to_string(),
    })?;
    Opener::new(repository, &header, key).open(0, &stored[HEADER_BYTES..])
}

fn check_limit(length: usize) -> Result<(), FormatError> {
    if length > MAX_SEALED_OBJECT_BYTES {
        return Err(FormatError::Limit {
            what: "sealed object",
            found: length as u64,
            limit: MAX_SEALED_OBJECT_BYTES as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
