//! Objects that hold keys: the keys of a domain, under the key of the repository; and that key itself,
//! under a passphrase. The passphrase hash is done elsewhere: its output is an argument.

use crate::coding::{Reader, put_varint};
use crate::error::FormatError;
use crate::id::{DomainId, RepositoryId};
use crate::keys::{DomainKeys, IdKey, Kek, SealingMaster};
use crate::seal::{
    HEADER_BYTES, Header, KeyMaterial, KeyRef, ObjectKind, Opener, Sealer, TAG_BYTES,
};
use zeroize::{Zeroize, Zeroizing};

/// Most masters of one domain generation.
pub const MAX_MASTERS: usize = 4096;

impl DomainKeys {
    /// The plain bytes; sealed by `seal_object` with kind `DomainKeys` and the repository's key.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        self.check()?;
        let mut out = Zeroizing::new(Vec::with_capacity(60 + 36 * self.masters.len()));
        out.extend_from_slice(self.domain.as_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(self.id_key.as_bytes());
        put_varint(&mut out, self.masters.len() as u64);
        for master in &self.masters {
            out.extend_from_slice(&master.number.to_le_bytes());
            out.extend_from_slice(master.key.as_bytes());
        }
        Ok(out)
    }

    /// The keys with these plain bytes.
    pub fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("domain keys", plain);
        let mut keys = Self {
            domain: DomainId::from_bytes(reader.array()?),
            generation: reader.u32()?,
            id_key: IdKey::from_bytes(reader.array()?),
            masters: Vec::new(),
        };
        for _ in 0..reader.count("masters of a domain", MAX_MASTERS)? {
            let number = reader.u32()?;
            keys.masters
                .push(SealingMaster::from_bytes(number, reader.array()?));
        }
        reader.finish()?;
        keys.check()?;
        Ok(keys)
    }

    fn check(&self) -> Result<(), FormatError> {
        let rising = self.masters.is_sorted_by(|a, b| a.number < b.number);
        if self.masters.is_empty() || !rising {
            return Err(FormatError::Decode {
                what: "domain keys",
                rule: "no master, or numbers not rising",
                offset: 0,
            });
        }
        Ok(())
    }
}

/// Parameters of Argon2id version 0x13 with 32 bytes of output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassphraseHash {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PassphraseHash {
    /// What new slots use: 64 MiB, three passes, one lane.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };

    /// Refuses parameters that Argon2id does not have, or that would exhaust the reader.
    fn check(&self) -> Result<(), FormatError> {
        for (what, found, limit) in [
            (
                "memory of the passphrase hash in KiB",
                self.memory_kib,
                1 << 21,
            ),
            ("passes of the passphrase hash", self.passes, 64),
            ("lanes of the passphrase hash", self.lanes, 16),
        ] {
            if found > limit {
                return Err(FormatError::Limit {
                    what,
                    found: u64::from(found),
                    limit: u64::from(limit),
                });
            }
        }
        if self.passes == 0 || self.lanes == 0 || self.memory_kib < 8 * self.lanes {
            return Err(wrong("impossible parameters of the passphrase hash"));
        }
        Ok(())
    }
}

/// A passphrase slot as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySlot {
    /// Parameters of the passphrase hash.
    pub hash: PassphraseHash,
    /// Salt of the passphrase hash, and of the slot.
    pub salt: [u8; 32],
    sealed: [u8; 32 + TAG_BYTES],
}

/// Number of Argon2id in a slot.
const ARGON2ID: u8 = 1;
const SLOT_BYTES: usize = HEADER_BYTES + 1 + 3 * 4 + 32 + TAG_BYTES;

impl KeySlot {
    /// The stored bytes of a slot. `hashed` is the hash of the passphrase under these parameters and
    /// this salt, which is random and used for no other slot.
    pub fn seal(
        repository: &RepositoryId,
        hash: PassphraseHash,
        salt: [u8; 32],
        hashed: &[u8; 32],
        kek: &Kek,
    ) -> Result<Vec<u8>, FormatError> {
        hash.check()?;
        let header = slot_header(salt);
        let mut out = header.encode().to_vec();
        out.push(ARGON2ID);
        for value in [hash.memory_kib, hash.passes, hash.lanes] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        let key = KeyMaterial::Passphrase(hashed);
        Sealer::new(repository, &header, key).seal_into(0, &[kek.as_bytes()], &mut out)?;
        Ok(out)
    }

    /// The slot with these stored bytes: what must be hashed with what.
    pub fn decode(stored: &[u8]) -> Result<Self, FormatError> {
        if stored.len() != SLOT_BYTES {
            return Err(wrong("not as long as a slot is"));
        }
        let header = Header::decode(stored)?;
        if header != slot_header(header.salt) {
            return Err(FormatError::WrongKind {
                expected: ObjectKind::PassphraseSlot.name(),
                found: header.kind.name(),
            });
        }
        let mut reader = Reader::new("passphrase slot", &stored[HEADER_BYTES..]);
        let algorithm = reader.u8()?;
        if algorithm != ARGON2ID {
            return Err(FormatError::Unsupported {
                what: "passphrase hash",
                found: algorithm.to_string(),
            });
        }
        let hash = PassphraseHash {
            memory_kib: reader.u32()?,
            passes: reader.u32()?,
            lanes: reader.u32()?,
        };
        hash.check()?;
        let sealed = reader.array()?;
        reader.finish()?;
        Ok(Self {
            hash,
            salt: header.salt,
            sealed,
        })
    }

    /// The repository's key, if this is the hash of the right passphrase.
    pub fn open(&self, repository: &RepositoryId, hashed: &[u8; 32]) -> Result<Kek, FormatError> {
        let header = slot_header(self.salt);
        let opener = Opener::new(repository, &header, KeyMaterial::Passphrase(hashed));
        let mut plain = opener.open(0, &self.sealed)?;
        let kek = Kek::try_from(&plain[..]);
        plain.zeroize();
        kek
    }
}

fn slot_header(salt: [u8; 32]) -> Header {
    Header {
        kind: ObjectKind::PassphraseSlot,
        key: KeyRef::Kek,
        salt,
    }
}

fn wrong(rule: &'static str) -> FormatError {
    FormatError::Decode {
        what: "passphrase slot",
        rule,
        offset: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_keys_round_trip_with_rising_numbers_only() {
        let keys = |numbers: &[u32]| DomainKeys {
            domain: DomainId::from_bytes([1; 16]),
            generation: 2,
            id_key: IdKey::from_bytes([3; 32]),
            masters: numbers
                .iter()
                .map(|number| SealingMaster::from_bytes(*number, [*number as u8; 32]))
                .collect(),
        };
        let good = keys(&[1, 2, 5]);
        let bytes = good.encode().unwrap();
        assert_eq!(DomainKeys::decode(&bytes).unwrap(), good);
        assert_eq!(good.current().unwrap().number, 5);
        assert!(good.master(3).is_none());
        assert!(DomainKeys::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(DomainKeys::decode(&[&bytes[..], &[0]].concat()).is_err());
        for bad in [&[][..], &[2, 1], &[1, 1]] {
            assert!(keys(bad).encode().is_err());
        }
    }

    #[test]
    fn a_slot_opens_with_its_hash_only_and_no_changed_byte_passes() {
        let repository = RepositoryId::from_bytes([1; 16]);
        let kek = Kek::from_bytes([2; 32]);
        let hash = PassphraseHash::DEFAULT;
        let stored = KeySlot::seal(&repository, hash, [3; 32], &[4; 32], &kek).unwrap();
        let slot = KeySlot::decode(&stored).unwrap();
        assert_eq!((slot.hash, slot.salt), (hash, [3; 32]));
        assert_eq!(slot.open(&repository, &[4; 32]).unwrap(), kek);
        assert!(slot.open(&repository, &[5; 32]).is_err());
        assert!(
            slot.open(&RepositoryId::from_bytes([9; 16]), &[4; 32])
                .is_err()
        );
        for place in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[place] ^= 1;
            let Ok(slot) = KeySlot::decode(&damaged) else {
                continue;
            };
            // Other parameters give another hash, which the caller would pass here.
            let changed = slot.hash != hash;
            assert!(
                changed || slot.open(&repository, &[4; 32]).is_err(),
                "{place}"
            );
        }
        assert!(KeySlot::decode(&stored[1..]).is_err());
    }

    #[test]
    fn a_slot_cannot_exhaust_its_reader() {
        let repository = RepositoryId::from_bytes([1; 16]);
        let kek = Kek::from_bytes([2; 32]);
        for (memory_kib, passes, lanes) in [(u32::MAX, 3, 1), (8, 65, 1), (8, 1, 17), (7, 1, 1)] {
            let hash = PassphraseHash {
                memory_kib,
                passes,
                lanes,
            };
            assert!(KeySlot::seal(&repository, hash, [3; 32], &[4; 32], &kek).is_err());
        }
    }
}
