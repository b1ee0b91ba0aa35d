//! A walk of a whole volume, or a look at what may have changed in it: both give the same.

use super::{ScanStats, Scanned, Scanner, Targeted};

/// Where the parts of a run come from.
#[derive(Debug)]
pub enum Scan {
    /// Everything.
    Whole(Box<Scanner>),
    /// What a journal says may have changed.
    Changes(Box<Targeted>),
}

impl Scan {
    /// What was met so far.
    pub fn stats(&self) -> ScanStats {
        match self {
            Self::Whole(scanner) => scanner.stats(),
            Self::Changes(targeted) => targeted.stats(),
        }
    }
}

impl Iterator for Scan {
    type Item = Scanned;

    fn next(&mut self) -> Option<Scanned> {
        match self {
            Self::Whole(scanner) => scanner.next(),
            Self::Changes(targeted) => targeted.next(),
        }
    }
}
