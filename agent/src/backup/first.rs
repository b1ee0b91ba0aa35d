//! What a run remembers of inodes with several names while it comes by their names, in tree order.

use super::item::Look;
use crate::error::{Error, Result};
use crate::index::Record;
use holdfast_format::path::RelPath;

/// What is known of an inode's first name in this run.
pub struct First {
    /// Which.
    pub path: RelPath,
    /// Whether it is as the index has it.
    pub unchanged: bool,
    /// Names of the inode that were met.
    pub seen: u32,
    /// How many names the inode has.
    pub names: u32,
}

impl First {
    /// As a value of a table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + self.path.as_bytes().len());
        out.push(u8::from(self.unchanged));
        out.extend_from_slice(&self.seen.to_le_bytes());
        out.extend_from_slice(&self.names.to_le_bytes());
        out.extend_from_slice(self.path.as_bytes());
        out
    }

    /// From a value of a table.
    pub fn decode(stored: &[u8]) -> Result<Self> {
        let broken = || Error::Internal("a first name that cannot be decoded".to_owned());
        let (unchanged, rest) = stored.split_first().ok_or_else(broken)?;
        let (seen, rest) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        let (names, path) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        Ok(Self {
            path: RelPath::new(path)?,
            unchanged: *unchanged == 1,
            seen: u32::from_le_bytes(*seen),
            names: u32::from_le_bytes(*names),
        })
    }

    /// What the parent has of the first name, when that is what this name must get: the first name is
    /// unchanged, and this one is the same inode in the same state.
    pub fn record(&self, look: &Look) -> Option<Record> {
        let old = look.old.as_ref()?;
        let same = old.stamp().map(|stamp| stamp.stat) == Some(look.found.stat.key());
        (self.unchanged && same).then_some(*old)
    }
}
