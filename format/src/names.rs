//! Names of stored objects: the only place that knows them, in both directions.
//!
//! A name that parses prints as itself. Ids are lower-case hexadecimal.

use crate::error::FormatError;
use crate::id::{
    CatalogId, DomainId, MarkId, PackId, RepositoryId, SnapshotId, VolumeId, hex, unhex,
};
use std::fmt;
use std::str::FromStr;

/// Prefix of the repository object.
pub const REPOSITORY: &str = "repository/";
/// Prefix of passphrase slots.
pub const SLOTS: &str = "keys/slots/";
/// Prefix of the keys of domains.
pub const DOMAINS: &str = "keys/domains/";
/// Prefix of packs.
pub const PACKS: &str = "packs/";
/// Prefix of snapshot records.
pub const SNAPSHOTS: &str = "snapshots/";
/// Prefix of marks.
pub const MARKS: &str = "marks/";
/// Prefix of deletion records.
pub const DELETIONS: &str = "deletions/";
/// Prefix of index segments.
pub const SEGMENTS: &str = "segments/";
/// Prefix of claims.
pub const OWNER: &str = "owner/";

/// The name of any object of a repository.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ObjectName {
    /// `repository/<id>`
    Repository(RepositoryId),
    /// `keys/slots/<32 hexadecimal digits>`
    Slot([u8; 16]),
    /// `keys/domains/<domain>/<generation>-<master>`, decimal; master is the highest number in it.
    DomainKeys {
        /// The domain.
        domain: DomainId,
        /// Its generation.
        generation: u32,
        /// Highest master in the object.
        master: u32,
    },
    /// `packs/<first two digits>/<id>`
    Pack(PackId),
    /// `snapshots/<volume>/<id>`
    Snapshot {
        /// The volume.
        volume: VolumeId,
        /// The snapshot.
        id: SnapshotId,
    },
    /// `marks/<id>`
    Mark(MarkId),
    /// `deletions/<number, 16 decimal digits>`
    Deletion(u64),
    /// `segments/<64 hexadecimal digits>`
    Segment([u8; 32]),
    /// `owner/<epoch, 16 decimal digits>-<catalog>`
    Claim {
        /// Epoch of the claim.
        epoch: u64,
        /// Who claims.
        catalog: CatalogId,
    },
    /// `owner/<epoch, 16 decimal digits>-<catalog>.released`: its holder has given the claim back.
    Released {
        /// Epoch of the claim.
        epoch: u64,
        /// Who had claimed.
        catalog: CatalogId,
    },
}

/// Highest number or epoch that sixteen decimal digits hold.
pub const MAX_NUMBER: u64 = 9_999_999_999_999_999;

/// Prefix of the snapshot records of one volume.
pub fn snapshots_of(volume: &VolumeId) -> String {
    format!("{SNAPSHOTS}{volume}/")
}

/// Prefix of the keys of one domain.
pub fn keys_of(domain: &DomainId) -> String {
    format!("{DOMAINS}{domain}/")
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(id) => write!(f, "{REPOSITORY}{id}"),
            Self::Slot(id) => write!(f, "{SLOTS}{}", hex(id)),
            Self::DomainKeys {
                domain,
                generation,
                master,
            } => write!(f, "{DOMAINS}{domain}/{generation}-{master}"),
            Self::Pack(id) => write!(f, "{PACKS}{}/{id}", hex(&id.as_bytes()[..1])),
            Self::Snapshot { volume, id } => write!(f, "{SNAPSHOTS}{volume}/{id}"),
            Self::Mark(id) => write!(f, "{MARKS}{id}"),
            Self::Deletion(number) => write!(f, "{DELETIONS}{number:016}"),
            Self::Segment(id) => write!(f, "{SEGMENTS}{}", hex(id)),
            Self::Claim { epoch, catalog } => write!(f, "{OWNER}{epoch:016}-{catalog}"),
            Self::Released { epoch, catalog } => {
                write!(f, "{OWNER}{epoch:016}-{catalog}.released")
            }
        }
    }
}

impl FromStr for ObjectName {
    type Err = FormatError;
    fn from_str(name: &str) -> Result<Self, FormatError> {
        // Whatever is not exactly what we would write is not ours.
        match parse(name) {
            Some(parsed) if parsed.to_string() == name => Ok(parsed),
            _ => Err(FormatError::Name {
                name: name.chars().take(120).collect(),
                rule: "not the name of an object of holdfast",
            }),
        }
    }
}

fn parse(name: &str) -> Option<ObjectName> {
    let (prefix, rest) = name.split_once('/')?;
    Some(match prefix {
        "repository" => ObjectName::Repository(rest.parse().ok()?),
        "keys" => parse_key(rest)?,
        "packs" => ObjectName::Pack(rest.split_once('/')?.1.parse().ok()?),
        "snapshots" => {
            let (volume, id) = rest.split_once('/')?;
            ObjectName::Snapshot {
                volume: volume.parse().ok()?,
                id: id.parse().ok()?,
            }
        }
        "marks" => ObjectName::Mark(rest.parse().ok()?),
        "deletions" => ObjectName::Deletion(number(rest)?),
        "segments" => ObjectName::Segment(unhex(rest)?.try_into().ok()?),
        "owner" => {
            let (epoch, catalog) = rest.split_once('-')?;
            let epoch = number(epoch)?;
            match catalog.strip_suffix(".released") {
                Some(catalog) => ObjectName::Released {
                    epoch,
                    catalog: catalog.parse().ok()?,
                },
                None => ObjectName::Claim {
                    epoch,
                    catalog: catalog.parse().ok()?,
                },
            }
        }
        _ => return None,
    })
}

fn parse_key(rest: &str) -> Option<ObjectName> {
    if let Some(slot) = rest.strip_prefix("slots/") {
        return Some(ObjectName::Slot(unhex(slot)?.try_into().ok()?));
    }
    let (domain, numbers) = rest.strip_prefix("domains/")?.split_once('/')?;
    let (generation, master) = numbers.split_once('-')?;
    Some(ObjectName::DomainKeys {
        domain: domain.parse().ok()?,
        generation: generation.parse().ok()?,
        master: master.parse().ok()?,
    })
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_format_says_and_parse_back() {
        let id = [0xab; 32];
        let short = [0xcd; 16];
        let cases = [
            (
                ObjectName::Repository(RepositoryId::from_bytes(short)),
                format!("repository/{}", "cd".repeat(16)),
            ),
            (
                ObjectName::Slot(short),
                format!("keys/slots/{}", "cd".repeat(16)),
            ),
            (
                ObjectName::DomainKeys {
                    domain: DomainId::from_bytes(short),
                    generation: 2,
                    master: 5,
                },
                format!("keys/domains/{}/2-5", "cd".repeat(16)),
            ),
            (
                ObjectName::Pack(PackId::from_bytes(id)),
                format!("packs/ab/{}", "ab".repeat(32)),
            ),
            (
                ObjectName::Snapshot {
                    volume: VolumeId::from_bytes(short),
                    id: SnapshotId::from_bytes(id),
                },
                format!("snapshots/{}/{}", "cd".repeat(16), "ab".repeat(32)),
            ),
            (
                ObjectName::Mark(MarkId::from_bytes(id)),
                format!("marks/{}", "ab".repeat(32)),
            ),
            (
                ObjectName::Deletion(42),
                "deletions/0000000000000042".to_owned(),
            ),
            (
                ObjectName::Segment(id),
                format!("segments/{}", "ab".repeat(32)),
            ),
            (
                ObjectName::Claim {
                    epoch: 7,
                    catalog: CatalogId::from_bytes(short),
                },
                format!("owner/0000000000000007-{}", "cd".repeat(16)),
            ),
            (
                ObjectName::Released {
                    epoch: MAX_NUMBER,
                    catalog: CatalogId::from_bytes(short),
                },
                format!("owner/9999999999999999-{}.released", "cd".repeat(16)),
            ),
        ];
        for (name, text) in cases {
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse::<ObjectName>().unwrap(), name);
            assert!(text.to_uppercase().parse::<ObjectName>().is_err());
            assert!(format!("{text}/").parse::<ObjectName>().is_err());
            assert!(format!("x{text}").parse::<ObjectName>().is_err());
            assert!(text[..text.len() - 1].parse::<ObjectName>().is_err());
        }
    }

    #[test]
    fn strange_names_are_refused() {
        let id = "ab".repeat(32);
        for bad in [
            "",
            "packs",
            "packs/",
            &format!("packs/cd/{id}"),
            &format!("packs/{id}"),
            "deletions/42",
            "deletions/+000000000000042",
            "owner/0000000000000007",
            &format!("keys/domains/{}/02-1", "cd".repeat(16)),
            &format!("keys/domains/{}/+2-1", "cd".repeat(16)),
        ] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
        }
    }
}
