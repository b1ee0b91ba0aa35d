//! The repository object: what a reader must know before anything else. Text, in clear, written once.
//!
//! It tells a wrong key, an unknown version and an unknown required feature from damage, by name.

use crate::chunker::Profile;
use crate::entry::MAX_INLINE_LIMIT;
use crate::error::FormatError;
use crate::id::{RepositoryId, hex, unhex};
use crate::keys::{Kek, contexts};
use crate::seal::FORMAT_VERSION;

/// Longest repository object, in bytes.
pub const MAX_REPOSITORY_BYTES: usize = 4096;
/// Inline limit of a new repository, in bytes.
pub const DEFAULT_INLINE_LIMIT: u32 = 512;
/// Number of the chunking profile of a new repository.
pub const DEFAULT_PROFILE: u8 = 1;
/// Required features that this program knows.
pub const KNOWN_FEATURES: &[&str] = &[];

/// Parameters of a repository; none of them ever changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepositoryConfig {
    /// Version of the stored format.
    pub format_version: u16,
    /// Its id; also in the object's name.
    pub id: RepositoryId,
    /// When it was made, nanoseconds since the epoch.
    pub created_ns: i64,
    /// Chunking profiles that contents may name, ascending.
    pub profiles: Vec<u8>,
    /// The profile that new contents are cut with.
    pub default_profile: u8,
    /// Files up to this size are kept in their entries, in bytes.
    pub inline_limit: u32,
    /// Names of features that a reader must know, ascending.
    pub required_features: Vec<String>,
    /// Tells whether a key is the one of this repository.
    pub key_check: [u8; 32],
    /// Keyed hash of all lines above, so that a changed parameter is seen.
    pub seal: [u8; 32],
}

impl RepositoryConfig {
    /// The parameters of a new repository with this key.
    pub fn new(id: RepositoryId, kek: &Kek, created_ns: i64) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            id,
            created_ns,
            profiles: vec![DEFAULT_PROFILE],
            default_profile: DEFAULT_PROFILE,
            inline_limit: DEFAULT_INLINE_LIMIT,
            required_features: Vec::new(),
            key_check: [0; 32],
            seal: [0; 32],
        }
        .sealed(kek)
    }

    /// The same parameters, with key check and seal made for this key: after a field was set.
    pub fn sealed(mut self, kek: &Kek) -> Self {
        self.key_check = key_check(kek, &self.id);
        self.seal = seal(kek, &self.parameters());
        self
    }

    /// Its stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let text = self.parameters();
        format!("{text}seal {}\n", hex(&self.seal)).into_bytes()
    }

    fn parameters(&self) -> String {
        let profiles: Vec<String> = self.profiles.iter().map(u8::to_string).collect();
        format!(
            "holdfast repository\nformat {}\nid {}\ncreated_ns {}\nprofiles {}\n\
             default_profile {}\ninline_limit {}\nrequired_features {}\nkey_check {}\n",
            self.format_version,
            self.id,
            self.created_ns,
            profiles.join(","),
            self.default_profile,
            self.inline_limit,
            self.required_features.join(","),
            hex(&self.key_check),
        )
    }

    /// The parameters with these stored bytes. Refuses by name a version or feature it does not know.
    pub fn decode(stored: &[u8]) -> Result<Self, FormatError> {
        let mut lines = Lines::new(stored)?;
        if lines.next() != Some("holdfast repository") {
            return Err(wrong("not a repository object"));
        }
        let version = lines.value("format")?;
        if version != FORMAT_VERSION.to_string() {
            return Err(unsupported("format version", version));
        }
        let config = Self {
            format_version: FORMAT_VERSION,
            id: lines.value("id")?.parse()?,
            created_ns: lines.number("created_ns")?,
            profiles: lines
                .value("profiles")?
                .split(',')
                .map(|number| number.parse().map_err(|_| wrong("profile is no number")))
                .collect::<Result<_, _>>()?,
            default_profile: lines.number("default_profile")?,
            inline_limit: lines.number("inline_limit")?,
            required_features: match lines.value("required_features")? {
                "" => Vec::new(),
                names => names.split(',').map(str::to_owned).collect(),
            },
            key_check: lines.key("key_check")?,
            seal: lines.key("seal")?,
        };
        config.check()?;
        if config.encode() != stored {
            return Err(wrong("not as this version writes it"));
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), FormatError> {
        for feature in &self.required_features {
            if !KNOWN_FEATURES.contains(&feature.as_str()) {
                return Err(unsupported("required feature", feature));
            }
        }
        for number in &self.profiles {
            Profile::by_number(*number)?;
        }
        if !self.profiles.is_sorted_by(|a, b| a < b)
            || !self.profiles.contains(&self.default_profile)
        {
            return Err(wrong("profiles not ascending, or without the default"));
        }
        if self.inline_limit > MAX_INLINE_LIMIT {
            return Err(FormatError::Limit {
                what: "inline limit",
                found: u64::from(self.inline_limit),
                limit: u64::from(MAX_INLINE_LIMIT),
            });
        }
        Ok(())
    }

    /// Whether this is the repository's key, and the parameters are those it was made with.
    pub fn check_key(&self, kek: &Kek) -> Result<(), FormatError> {
        if key_check(kek, &self.id) != self.key_check {
            return Err(FormatError::WrongKey {
                repository: self.id,
            });
        }
        if seal(kek, &self.parameters()) != self.seal {
            return Err(FormatError::Unsealed {
                what: "repository object",
            });
        }
        Ok(())
    }
}

fn key_check(kek: &Kek, id: &RepositoryId) -> [u8; 32] {
    derive(contexts::KEY_CHECK, kek, id.as_bytes())
}

fn seal(kek: &Kek, parameters: &str) -> [u8; 32] {
    derive(contexts::REPOSITORY_SEAL, kek, parameters.as_bytes())
}

fn derive(context: &str, kek: &Kek, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(kek.as_bytes()).update(bytes);
    hasher.finalize().into()
}

/// Lines of `name value`, each ended by a newline; shared by the objects that are text.
pub(crate) struct Lines<'a>(std::str::Split<'a, char>);

impl<'a> Lines<'a> {
    pub(crate) fn new(stored: &'a [u8]) -> Result<Self, FormatError> {
        if stored.len() > MAX_REPOSITORY_BYTES {
            return Err(FormatError::Limit {
                what: "text object",
                found: stored.len() as u64,
                limit: MAX_REPOSITORY_BYTES as u64,
            });
        }
        match std::str::from_utf8(stored) {
            Ok(text) => Ok(Self(text.split('\n'))),
            Err(_) => Err(wrong("not UTF-8")),
        }
    }

    pub(crate) fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    pub(crate) fn value(&mut self, name: &'static str) -> Result<&'a str, FormatError> {
        self.next()
            .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .ok_or(FormatError::Decode {
                what: "text object",
                rule: "a line is missing or not in its place",
                offset: 0,
            })
    }

    pub(crate) fn number<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
    ) -> Result<T, FormatError> {
        let value = self.value(name)?;
        value.parse().map_err(|_| wrong("value is no number"))
    }

    fn key(&mut self, name: &'static str) -> Result<[u8; 32], FormatError> {
        let bytes = unhex(self.value(name)?).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| wrong("value is not 32 bytes"))
    }
}

fn wrong(rule: &'static str) -> FormatError {
    FormatError::Decode {
        what: "text object",
        rule,
        offset: 0,
    }
}

fn unsupported(what: &'static str, found: &str) -> FormatError {
    FormatError::Unsupported {
        what,
        found: found.chars().take(80).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kek() -> Kek {
        Kek::from_bytes([1; 32])
    }

    fn config() -> RepositoryConfig {
        RepositoryConfig::new(RepositoryId::from_bytes([2; 16]), &kek(), 3)
    }

    fn decode(text: &str) -> Result<RepositoryConfig, FormatError> {
        RepositoryConfig::decode(text.as_bytes())
    }

    #[test]
    fn parameters_round_trip_and_no_changed_byte_passes() {
        let stored = config().encode();
        assert_eq!(RepositoryConfig::decode(&stored).unwrap(), config());
        config().check_key(&kek()).unwrap();
        for place in 0..stored.len() {
            for bit in [1, 4, 16, 32, 128] {
                let mut damaged = stored.clone();
                damaged[place] ^= bit;
                let passed =
                    RepositoryConfig::decode(&damaged).and_then(|config| config.check_key(&kek()));
                assert!(passed.is_err(), "byte {place}");
            }
        }
        for length in 0..stored.len() {
            assert!(RepositoryConfig::decode(&stored[..length]).is_err());
        }
    }

    #[test]
    fn a_wrong_key_is_told_apart() {
        assert!(matches!(
            config().check_key(&Kek::from_bytes([9; 32])),
            Err(FormatError::WrongKey { .. })
        ));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let text = String::from_utf8(config().encode()).unwrap();
        let later = decode(&text.replace("format 1", "format 2")).unwrap_err();
        assert!(later.to_string().contains("format version 2"), "{later}");
        let feature = text.replace("required_features ", "required_features erasure-codes");
        let feature = decode(&feature).unwrap_err();
        assert!(feature.to_string().contains("erasure-codes"), "{feature}");
        assert!(decode(&text.replace("profiles 1", "profiles 1,9")).is_err());
        assert!(decode(&text.replace("profiles 1", "profiles 01")).is_err());
        assert!(decode(&text.replace("profiles 1", "profiles 2")).is_err());
        assert!(decode(&text.replace("inline_limit 512", "inline_limit 8193")).is_err());
        assert!(decode(&format!("{text}\n")).is_err());
        assert!(decode(&format!("{text}more 1\n")).is_err());
        assert!(decode(&text.replace('\n', "\r\n")).is_err());
    }
}
