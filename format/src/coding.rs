//! The few shapes all stored bytes are made of: fixed little-endian integers, canonical varints, and
//! counted strings whose length is checked against a cap before anything is allocated.
//!
//! A varint is LEB128 in its shortest form, at most ten bytes; a longer form is refused, so that equal
//! values have equal bytes. A reader refuses what ends early and, by `finish`, what goes on too long.

use crate::error::FormatError;

/// Appends an unsigned LEB128 varint in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that `put_varint` appends for this value.
pub fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a signed value as a zigzag varint.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends the length as a varint, then the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads stored bytes from front to back; every error names what was read and where.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader of these bytes; `what` names them in errors.
    pub fn new(what: &'static str, input: &'a [u8]) -> Self {
        Self { what, input, at: 0 }
    }

    /// An error at the current place.
    pub fn wrong(&self, rule: &'static str) -> FormatError {
        FormatError::Decode {
            what: self.what,
            rule,
            offset: self.at,
        }
    }

    /// Where the next byte is read from.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.input.len() - self.at
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let bytes = self
            .at
            .checked_add(length)
            .and_then(|end| self.input.get(self.at..end))
            .ok_or_else(|| self.wrong("ends too early"))?;
        self.at += length;
        Ok(bytes)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian u16.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A little-endian u32.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian u64.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A little-endian i64.
    pub fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A byte that must be 0 or 1.
    pub fn flag(&mut self) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong("flag is neither 0 nor 1")),
        }
    }

    /// A varint in its shortest form.
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for index in 0..10 {
            let byte = self.u8()?;
            if index == 9 && byte > 1 {
                return Err(self.wrong("varint above 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if byte == 0 && index > 0 {
                    return Err(self.wrong("varint not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.wrong("varint above ten bytes"))
    }

    /// A varint that fits 32 bits.
    pub fn varint32(&mut self) -> Result<u32, FormatError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.wrong("value above 32 bits"))
    }

    /// A zigzag varint.
    pub fn signed(&mut self) -> Result<i64, FormatError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A count or length that may not exceed `limit`; checked before anything is allocated for it.
    pub fn count(&mut self, name: &'static str, limit: usize) -> Result<usize, FormatError> {
        let found = self.varint()?;
        if found > limit as u64 {
            return Err(FormatError::Limit {
                what: name,
                found,
                limit: limit as u64,
            });
        }
        Ok(found as usize)
    }

    /// A counted byte string of at most `limit` bytes.
    pub fn bytes(&mut self, name: &'static str, limit: usize) -> Result<&'a [u8], FormatError> {
        let length = self.count(name, limit)?;
        self.take(length)
    }

    /// A counted UTF-8 text of at most `limit` bytes.
    pub fn text(&mut self, name: &'static str, limit: usize) -> Result<String, FormatError> {
        let bytes = self.bytes(name, limit)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.wrong("text is not UTF-8")),
        }
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.input[self.at..];
        self.at = self.input.len();
        rest
    }

    /// Refuses bytes that were not read.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.remaining() == 0 {
            Ok(())
        } else {
            Err(self.wrong("bytes after the end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_forms_of_varints_are_refused() {
        for bad in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0xff; 10],
            &[0x80; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x80],
            &[],
        ] {
            assert!(Reader::new("test", bad).varint().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_length_above_its_cap_is_refused_before_it_is_read() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert!(matches!(
            Reader::new("test", &bytes).bytes("name", 10),
            Err(FormatError::Limit { limit: 10, .. })
        ));
    }

    proptest! {
        #[test]
        fn integers_round_trip(value: u64, shift in 0u32..64, signed: i64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_length(value));
            put_signed(&mut bytes, signed);
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert_eq!(reader.signed().unwrap(), signed);
            reader.finish().unwrap();
        }

        #[test]
        fn a_varint_that_is_read_has_these_bytes_only(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new("test", &bytes);
            if let Ok(value) = reader.varint() {
                let mut again = Vec::new();
                put_varint(&mut again, value);
                prop_assert_eq!(&bytes[..reader.position()], &again[..]);
            }
        }
    }
}
