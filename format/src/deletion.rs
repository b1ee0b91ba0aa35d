//! Deletion records: the packs of one batch of deletes, durable before the first of them is deleted.
//!
//! A catalog that is behind its store learns from them which packs it must drop.

use crate::coding::{Reader, put_varint};
use crate::error::FormatError;
use crate::id::PackId;

/// Most packs of one record.
pub const MAX_DELETED_PACKS: usize = 64 * 1024;

/// One batch of deletes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletionRecord {
    /// Number of the batch; also in the object's name.
    pub number: u64,
    /// When it was decided, nanoseconds since the epoch.
    pub time_ns: i64,
    /// The packs, ascending, none twice.
    pub packs: Vec<PackId>,
}

impl DeletionRecord {
    /// The plain bytes of the record; sealed by `seal_object` with kind `DeletionRecord`.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        if self.packs.len() > MAX_DELETED_PACKS {
            return Err(FormatError::Limit {
                what: "packs of a deletion record",
                found: self.packs.len() as u64,
                limit: MAX_DELETED_PACKS as u64,
            });
        }
        if !self.packs.is_sorted_by(|a, b| a < b) {
            return Err(wrong());
        }
        let mut out = Vec::with_capacity(24 + self.packs.len() * PackId::LEN);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.time_ns.to_le_bytes());
        put_varint(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            out.extend_from_slice(pack.as_bytes());
        }
        Ok(out)
    }

    /// The record with these plain bytes.
    pub fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("deletion record", plain);
        let number = reader.u64()?;
        let time_ns = reader.i64()?;
        let count = reader.count("packs of a deletion record", MAX_DELETED_PACKS)?;
        let mut packs = Vec::with_capacity(count.min(reader.remaining() / PackId::LEN));
        for _ in 0..count {
            packs.push(PackId::from_bytes(reader.array()?));
        }
        reader.finish()?;
        if !packs.is_sorted_by(|a, b| a < b) {
            return Err(wrong());
        }
        Ok(Self {
            number,
            time_ns,
            packs,
        })
    }
}

fn wrong() -> FormatError {
    FormatError::Decode {
        what: "deletion record",
        rule: "packs not ascending",
        offset: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_refuse_disorder() {
        let pack = |byte| PackId::from_bytes([byte; 32]);
        let record = |packs: &[u8]| DeletionRecord {
            number: 7,
            time_ns: 8,
            packs: packs.iter().map(|byte| pack(*byte)).collect(),
        };
        for packs in [&[][..], &[1], &[1, 2, 3]] {
            let bytes = record(packs).encode().unwrap();
            assert_eq!(DeletionRecord::decode(&bytes).unwrap(), record(packs));
            assert!(DeletionRecord::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(DeletionRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        assert!(record(&[2, 1]).encode().is_err());
        assert!(record(&[1, 1]).encode().is_err());
        let mut bytes = record(&[1, 2]).encode().unwrap();
        bytes[17..49].fill(3);
        assert!(DeletionRecord::decode(&bytes).is_err());
    }
}
