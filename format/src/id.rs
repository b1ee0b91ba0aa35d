//! Ids as newtypes: a pack id cannot stand where a snapshot id is wanted.
//!
//! All print as lower-case hexadecimal and parse from it; none is `Default`.

use crate::error::FormatError;
use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Its bytes, by value.
            pub const fn into_bytes(self) -> [u8; $len] {
                self.0
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = FormatError;
            fn from_str(text: &str) -> Result<Self, FormatError> {
                let wrong = || FormatError::Id {
                    kind: stringify!($name),
                    expected: $len,
                    found: text.chars().take(80).collect(),
                };
                let bytes = unhex(text).ok_or_else(wrong)?;
                <[u8; $len]>::try_from(bytes).map(Self).map_err(|_| wrong())
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = FormatError;
            fn try_from(bytes: &[u8]) -> Result<Self, FormatError> {
                <[u8; $len]>::try_from(bytes).map(Self).map_err(|_| FormatError::Id {
                    kind: stringify!($name),
                    expected: $len,
                    found: hex(&bytes[..bytes.len().min(40)]),
                })
            }
        }
    };
}

id!(
    /// A chunk: keyed BLAKE3 of its plain bytes under the domain generation's chunk key.
    ChunkId, 32);
id!(
    /// A tree or list node: keyed BLAKE3 of its plain bytes under the domain generation's node key.
    NodeId, 32);
id!(
    /// A pack: BLAKE3 of its stored bytes.
    PackId, 32);
id!(
    /// A snapshot: BLAKE3 of its record's stored bytes.
    SnapshotId, 32);
id!(
    /// A mark: BLAKE3 of its stored bytes.
    MarkId, 32);
id!(
    /// A dedup domain; random.
    DomainId, 16);
id!(
    /// A volume; random, bound to facts by a mark.
    VolumeId, 16);
id!(
    /// A repository; random, drawn by `init`.
    RepositoryId, 16);
id!(
    /// A catalog; random, drawn when the catalog is created.
    CatalogId, 16);
id!(
    /// An upload session; random.
    SessionId, 16);
id!(
    /// A job; random.
    JobId, 16);
id!(
    /// Chosen by an agent, the same for every retry of one run.
    IdempotencyKey, 16);

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

/// The bytes of a hexadecimal string of even length; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    let text = text.as_bytes();
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

/// A prefix of a snapshot id as people type it: 4 to 64 hexadecimal digits, any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

impl IdPrefix {
    /// Whether the id's hexadecimal form starts with this prefix.
    pub fn matches(&self, id: &SnapshotId) -> bool {
        id.to_string().starts_with(&self.0)
    }
}

impl FromStr for IdPrefix {
    type Err = FormatError;
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let ok = (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if ok {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(FormatError::Id {
                kind: "snapshot id prefix",
                expected: 32,
                found: text.chars().take(80).collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_refuses_rest() {
        let id = ChunkId::from_bytes([0xa5; 32]);
        assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
        for bad in [
            "",
            "a",
            "zz",
            &"a5".repeat(31),
            &"a5".repeat(33),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<ChunkId>().is_err(), "{bad}");
        }
        assert!("abc".parse::<IdPrefix>().is_err());
        assert!(
            "ABCD"
                .parse::<IdPrefix>()
                .unwrap()
                .matches(&SnapshotId::from_bytes({
                    let mut b = [0; 32];
                    b[0] = 0xab;
                    b[1] = 0xcd;
                    b
                }))
        );
    }
}
