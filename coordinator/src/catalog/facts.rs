//! Volume facts as one column: texts with lengths, in stored order. What is read back is checked.

use crate::catalog::error::{Result, bad_row};
use holdfast_format::volume::VolumeFacts;

pub(super) fn encode(facts: &VolumeFacts) -> Vec<u8> {
    let mut out = Vec::new();
    for text in std::iter::once(facts.name.as_str()).chain(facts.texts().map(String::as_str)) {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<VolumeFacts> {
    let mut rest = bytes;
    let name = text(&mut rest)?;
    let name = name
        .parse()
        .map_err(|_| bad_row(format!("volume name {name:?}")))?;
    let mut facts = VolumeFacts::named(name);
    for slot in facts.texts_mut() {
        *slot = text(&mut rest)?.to_owned();
    }
    if rest.is_empty() {
        Ok(facts)
    } else {
        Err(bad_row("volume facts are too long"))
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    let wrong = || bad_row("volume facts are cut off");
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (text, after) = after.split_at_checked(length).ok_or_else(wrong)?;
    *rest = after;
    std::str::from_utf8(text).map_err(|_| bad_row("volume facts are not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_back_and_damage_is_told() {
        let mut facts = VolumeFacts::named("web/data".parse().unwrap());
        for (index, text) in facts.texts_mut().into_iter().enumerate() {
            *text = "é".repeat(index * 7);
        }
        let bytes = encode(&facts);
        assert_eq!(decode(&bytes).unwrap(), facts);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
