//! On which line of a text of YAML documents a field stands: the text is parsed again as far as the field, and
//! the parser is stopped there. Slow, and for mistakes only.

use crate::kube::api::schema::Step;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The line of a field of the document with this number, or of the nearest field around it that is there.
pub fn line_of(text: &str, document: usize, steps: &[Step]) -> Option<usize> {
    (0..=steps.len()).rev().find_map(|length| {
        let document = serde_norway::Deserializer::from_str(text).nth(document)?;
        let ended = Seek(&steps[..length]).deserialize(document);
        let error = ended
            .err()
            .filter(|error| error.to_string().contains(HERE))?;
        Some(error.location()?.line())
    })
}

/// Stops the parser; no text of a policy.
const HERE: &str = "\u{1}here\u{1}";

struct Seek<'s>(&'s [Step]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seek<'_> {
    fn scalar<E: Error>(&self) -> Result<(), E> {
        match self.0 {
            [] => Err(E::custom(HERE)),
            _ => Ok(()),
        }
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar()
    }
    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.scalar()
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (wanted, rest) = match self.0 {
            [] => return Err(A::Error::custom(HERE)),
            [Step::Key(wanted), rest @ ..] => (Some(wanted), rest),
            _ => (None, self.0),
        };
        let key = || Key {
            wanted,
            is_last: rest.is_empty(),
        };
        while let Some(is_wanted) = map.next_key_seed(key())? {
            match is_wanted {
                true => map.next_value_seed(Seek(rest))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (wanted, rest) = match self.0 {
            [] => return Err(A::Error::custom(HERE)),
            [Step::Index(wanted), rest @ ..] => (Some(*wanted), rest),
            _ => (None, self.0),
        };
        for index in 0.. {
            let more = match wanted == Some(index) {
                true => list.next_element_seed(Seek(rest))?.is_some(),
                false => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// A key of a mapping: whether it is the wanted one. The last one stops the parser itself: what is below may
/// stand on another line.
struct Key<'s> {
    wanted: Option<&'s String>,
    is_last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        struct Compare<'s>(Key<'s>);
        impl<'de> Visitor<'de> for Compare<'_> {
            type Value = bool;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
                let is_wanted = self.0.wanted.is_some_and(|wanted| wanted == key);
                match is_wanted && self.0.is_last {
                    true => Err(E::custom(HERE)),
                    false => Ok(is_wanted),
                }
            }
        }
        // What is no text is no wanted key, and a mistake that was found before.
        deserializer.deserialize_str(Compare(self))
    }
}

/// The documents of a text, each with the line on which it begins.
pub fn documents(text: &str) -> Result<Vec<serde_norway::Value>, (Option<usize>, String)> {
    let mut found = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let read = serde_norway::Value::deserialize(document);
        let read = read.map_err(|error| {
            let line = error.location().map(|location| location.line());
            (line, error.to_string())
        });
        found.push(read?);
    }
    Ok(found)
}
