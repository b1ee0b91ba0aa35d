//! Marks: small immutable objects that state one fact each, sealed with the key of the repository.
//!
//! A mark is never changed or taken back but by another mark that releases it.

use crate::coding::{Reader, put_bytes};
use crate::error::FormatError;
use crate::id::{DomainId, MarkId, SnapshotId, VolumeId};
use crate::snapshot::{check_text, put_facts, read_facts};
use crate::volume::VolumeFacts;

/// Longest actor, namespace or reason, in bytes.
pub const MAX_MARK_TEXT_BYTES: usize = 4096;

/// The fact.
#[allow(
    clippy::large_enum_variant,
    reason = "marks are few, and held one at a time"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mark {
    /// A dedup domain exists, for this namespace.
    Domain {
        /// The domain.
        id: DomainId,
        /// Its generation.
        generation: u32,
        /// What its volumes have in common.
        namespace: String,
    },
    /// A volume's id is bound to these facts. A later mark of the same volume renews them.
    Volume {
        /// The volume.
        id: VolumeId,
        /// The domain it is stored in.
        domain: DomainId,
        /// What it is known by.
        facts: VolumeFacts,
    },
    /// A snapshot may not be forgotten.
    Pin {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why.
        reason: String,
    },
    /// A snapshot may not be forgotten before a time.
    Hold {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Until then, nanoseconds since the epoch.
        until_ns: i64,
        /// Why.
        reason: String,
    },
    /// An earlier pin or hold is over.
    Release {
        /// The mark that is released.
        mark: MarkId,
    },
    /// A person has looked at a suspicious snapshot and takes it as it is.
    Acknowledge {
        /// The snapshot.
        snapshot: SnapshotId,
    },
}

/// A mark with who made it, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkRecord {
    /// The fact.
    pub mark: Mark,
    /// When, nanoseconds since the epoch.
    pub time_ns: i64,
    /// Who, for people; may be empty.
    pub actor: String,
}

const DOMAIN: u8 = 1;
const VOLUME: u8 = 2;
const PIN: u8 = 3;
const HOLD: u8 = 4;
const RELEASE: u8 = 5;
const ACKNOWLEDGE: u8 = 6;

impl MarkRecord {
    /// The id of a mark with these stored bytes.
    pub fn id_of(stored: &[u8]) -> MarkId {
        MarkId::from_bytes(blake3::hash(stored).into())
    }

    /// The plain bytes of the mark; sealed by `seal_object` with kind `Mark`.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&self.time_ns.to_le_bytes());
        put_text(&mut out, &self.actor)?;
        match &self.mark {
            Mark::Domain {
                id,
                generation,
                namespace,
            } => {
                out.push(DOMAIN);
                out.extend_from_slice(id.as_bytes());
                out.extend_from_slice(&generation.to_le_bytes());
                put_text(&mut out, namespace)?;
            }
            Mark::Volume { id, domain, facts } => {
                out.push(VOLUME);
                out.extend_from_slice(id.as_bytes());
                out.extend_from_slice(domain.as_bytes());
                put_facts(&mut out, facts)?;
            }
            Mark::Pin { snapshot, reason } => {
                out.push(PIN);
                out.extend_from_slice(snapshot.as_bytes());
                put_text(&mut out, reason)?;
            }
            Mark::Hold {
                snapshot,
                until_ns,
                reason,
            } => {
                out.push(HOLD);
                out.extend_from_slice(snapshot.as_bytes());
                out.extend_from_slice(&until_ns.to_le_bytes());
                put_text(&mut out, reason)?;
            }
            Mark::Release { mark } => {
                out.push(RELEASE);
                out.extend_from_slice(mark.as_bytes());
            }
            Mark::Acknowledge { snapshot } => {
                out.push(ACKNOWLEDGE);
                out.extend_from_slice(snapshot.as_bytes());
            }
        }
        Ok(out)
    }

    /// The mark with these plain bytes.
    pub fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("mark", plain);
        let time_ns = reader.i64()?;
        let actor = read_text(&mut reader)?;
        let mark = match reader.u8()? {
            DOMAIN => Mark::Domain {
                id: DomainId::from_bytes(reader.array()?),
                generation: reader.u32()?,
                namespace: read_text(&mut reader)?,
            },
            VOLUME => Mark::Volume {
                id: VolumeId::from_bytes(reader.array()?),
                domain: DomainId::from_bytes(reader.array()?),
                facts: read_facts(&mut reader)?,
            },
            PIN => Mark::Pin {
                snapshot: SnapshotId::from_bytes(reader.array()?),
                reason: read_text(&mut reader)?,
            },
            HOLD => Mark::Hold {
                snapshot: SnapshotId::from_bytes(reader.array()?),
                until_ns: reader.i64()?,
                reason: read_text(&mut reader)?,
            },
            RELEASE => Mark::Release {
                mark: MarkId::from_bytes(reader.array()?),
            },
            ACKNOWLEDGE => Mark::Acknowledge {
                snapshot: SnapshotId::from_bytes(reader.array()?),
            },
            other => {
                return Err(FormatError::Unsupported {
                    what: "kind of mark",
                    found: other.to_string(),
                });
            }
        };
        reader.finish()?;
        Ok(Self {
            mark,
            time_ns,
            actor,
        })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), FormatError> {
    check_text(text)?;
    put_bytes(out, text.as_bytes());
    Ok(())
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, FormatError> {
    reader.text("text of a mark", MAX_MARK_TEXT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_round_trip_and_refuse_every_other_length() {
        let snapshot = SnapshotId::from_bytes([1; 32]);
        let reason = "law".to_owned();
        let marks = [
            Mark::Domain {
                id: DomainId::from_bytes([2; 16]),
                generation: 3,
                namespace: "default".to_owned(),
            },
            Mark::Volume {
                id: VolumeId::from_bytes([4; 16]),
                domain: DomainId::from_bytes([2; 16]),
                facts: VolumeFacts::named("web".parse().unwrap()),
            },
            Mark::Pin {
                snapshot,
                reason: reason.clone(),
            },
            Mark::Hold {
                snapshot,
                until_ns: 7,
                reason,
            },
            Mark::Release {
                mark: MarkId::from_bytes([5; 32]),
            },
            Mark::Acknowledge { snapshot },
        ];
        for mark in marks {
            let record = MarkRecord {
                mark,
                time_ns: -6,
                actor: "root@host".to_owned(),
            };
            let bytes = record.encode().unwrap();
            assert_eq!(MarkRecord::decode(&bytes).unwrap(), record);
            assert!(MarkRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
            for length in 0..bytes.len() {
                assert!(MarkRecord::decode(&bytes[..length]).is_err());
            }
        }
    }

    #[test]
    fn texts_have_a_limit() {
        let record = MarkRecord {
            mark: Mark::Release {
                mark: MarkId::from_bytes([5; 32]),
            },
            time_ns: 0,
            actor: "x".repeat(MAX_MARK_TEXT_BYTES + 1),
        };
        assert!(record.encode().is_err());
    }
}
