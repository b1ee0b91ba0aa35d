//! Claims: which catalog owns a repository. Each is an object of its own, so nothing is ever overwritten.
//!
//! The claim with the highest epoch wins; among equal epochs the lowest catalog id. Nothing expires by age.

use crate::error::FormatError;
use crate::id::CatalogId;
use crate::repository::Lines;
use std::cmp::Ordering;

/// Longest host name in a claim, in bytes.
pub const MAX_HOST_BYTES: usize = 253;

/// What a claim's name says; enough to know who wins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ClaimKey {
    /// Its epoch.
    pub epoch: u64,
    /// Whose it is.
    pub catalog: CatalogId,
}

impl ClaimKey {
    /// Whether this claim wins over the other.
    pub fn beats(&self, other: &Self) -> bool {
        self.rank(other) == Ordering::Greater
    }

    fn rank(&self, other: &Self) -> Ordering {
        let epochs = self.epoch.cmp(&other.epoch);
        epochs.then_with(|| other.catalog.cmp(&self.catalog))
    }
}

/// The claim that wins; `None` of none.
pub fn winner(claims: impl IntoIterator<Item = ClaimKey>) -> Option<ClaimKey> {
    claims.into_iter().max_by(ClaimKey::rank)
}

/// The epoch above all of these.
pub fn next_epoch(claims: impl IntoIterator<Item = ClaimKey>) -> u64 {
    let highest = claims.into_iter().map(|claim| claim.epoch).max();
    highest.map_or(1, |epoch| epoch.saturating_add(1))
}

/// The body of a claim. It is for people and for the rule "same catalog, same host"; the name decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Its epoch.
    pub epoch: u64,
    /// Whose it is.
    pub catalog: CatalogId,
    /// Host that the catalog runs on.
    pub host: String,
    /// When it was made, nanoseconds since the epoch.
    pub started_ns: i64,
}

impl Claim {
    /// What its name says.
    pub fn key(&self) -> ClaimKey {
        ClaimKey {
            epoch: self.epoch,
            catalog: self.catalog,
        }
    }

    /// Its stored bytes: text, in clear.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check_host(&self.host)?;
        Ok(format!(
            "holdfast claim\nepoch {}\ncatalog {}\nhost {}\nstarted_ns {}\n",
            self.epoch, self.catalog, self.host, self.started_ns
        )
        .into_bytes())
    }

    /// The claim with these stored bytes.
    pub fn decode(stored: &[u8]) -> Result<Self, FormatError> {
        let mut lines = Lines::new(stored)?;
        if lines.next() != Some("holdfast claim") {
            return Err(wrong("not a claim"));
        }
        let claim = Self {
            epoch: lines.number("epoch")?,
            catalog: lines.value("catalog")?.parse()?,
            host: lines.value("host")?.to_owned(),
            started_ns: lines.number("started_ns")?,
        };
        if claim.encode()? != stored {
            return Err(wrong("not as this version writes it"));
        }
        Ok(claim)
    }
}

fn check_host(host: &str) -> Result<(), FormatError> {
    if host.len() > MAX_HOST_BYTES || host.chars().any(char::is_control) {
        return Err(wrong("host above 253 bytes or with control characters"));
    }
    Ok(())
}

fn wrong(rule: &'static str) -> FormatError {
    FormatError::Decode {
        what: "claim",
        rule,
        offset: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(epoch: u64, catalog: u8) -> ClaimKey {
        ClaimKey {
            epoch,
            catalog: CatalogId::from_bytes([catalog; 16]),
        }
    }

    #[test]
    fn the_highest_epoch_wins_then_the_lowest_catalog() {
        let claims = [key(1, 1), key(3, 9), key(3, 4), key(2, 0)];
        assert_eq!(winner(claims), Some(key(3, 4)));
        assert_eq!(winner(claims.into_iter().rev()), Some(key(3, 4)));
        assert_eq!(winner([]), None);
        assert!(key(3, 4).beats(&key(3, 9)) && !key(3, 9).beats(&key(3, 4)));
        assert!(!key(3, 4).beats(&key(3, 4)));
        assert_eq!((next_epoch(claims), next_epoch([])), (4, 1));
    }

    #[test]
    fn claims_round_trip_and_refuse_what_differs() {
        let claim = Claim {
            epoch: 7,
            catalog: CatalogId::from_bytes([1; 16]),
            host: "node 1".to_owned(),
            started_ns: 8,
        };
        let bytes = claim.encode().unwrap();
        assert_eq!(Claim::decode(&bytes).unwrap(), claim);
        for length in 0..bytes.len() {
            assert!(Claim::decode(&bytes[..length]).is_err());
        }
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("epoch 7", "epoch 07"),
            ("epoch 7", "epoch +7"),
            ("claim", "clam"),
        ] {
            assert!(
                Claim::decode(text.replace(from, to).as_bytes()).is_err(),
                "{to}"
            );
        }
        let host = "a\nepoch 9".to_owned();
        assert!(Claim { host, ..claim }.encode().is_err());
    }
}
