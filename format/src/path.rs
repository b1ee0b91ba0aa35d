//! Relative paths as bytes, and the order of the tree.
//!
//! A `RelPath` is proof that joining it to a directory names something beneath it, by text: no empty,
//! `.` or `..` component, no NUL, no leading or trailing slash. The empty path is the volume's root.

use crate::error::FormatError;
use std::cmp::Ordering;
use std::fmt;

/// Longest path, in bytes; a longer one is a problem of its volume's report.
pub const MAX_PATH_BYTES: usize = 32 * 1024;
/// Longest component, in bytes (NAME_MAX of every Linux filesystem).
pub const MAX_NAME_BYTES: usize = 255;

/// A validated path below a volume's root, `/`-joined.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(Vec<u8>);

impl RelPath {
    /// The volume's root.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The path with these bytes, if they obey every rule.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, FormatError> {
        let bytes = bytes.into();
        let wrong = |rule| {
            Err(FormatError::Path {
                path: escape(&bytes),
                rule,
            })
        };
        if bytes.len() > MAX_PATH_BYTES {
            return wrong("longer than 32768 bytes");
        }
        if !bytes.is_empty() {
            for name in bytes.split(|b| *b == b'/') {
                if let Err(rule) = check_name(name) {
                    return wrong(rule);
                }
            }
        }
        Ok(Self(bytes))
    }

    /// This path with one more component.
    pub fn join(&self, name: &[u8]) -> Result<Self, FormatError> {
        let wrong = |rule| FormatError::Path {
            path: escape(name),
            rule,
        };
        check_name(name).map_err(wrong)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !self.0.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        if bytes.len() > MAX_PATH_BYTES {
            return Err(wrong("path longer than 32768 bytes"));
        }
        Ok(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the volume's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its components, from the top; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The directory it lies in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// Whether it is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0 == other.0
            || (self.0.starts_with(&other.0) && self.0.get(other.0.len()) == Some(&b'/'))
    }

    /// Its key in the tree: the parent's components joined by 0x00, then 0x00 0x00, then the name;
    /// the root's key is empty. Bytewise order of keys is the order of the tree: a directory's
    /// children are one range, and so is its subtree.
    pub fn to_key(&self) -> Vec<u8> {
        if self.is_root() {
            return Vec::new();
        }
        let cut = self.0.iter().rposition(|b| *b == b'/');
        let mut key = Vec::with_capacity(self.0.len() + 2);
        if let Some(cut) = cut {
            key.extend(
                self.0[..cut]
                    .iter()
                    .map(|b| if *b == b'/' { 0 } else { *b }),
            );
        }
        key.extend_from_slice(&[0, 0]);
        key.extend_from_slice(self.name());
        key
    }

    /// The path of a key, if it is one.
    pub fn from_key(key: &[u8]) -> Result<Self, FormatError> {
        let wrong = |rule| FormatError::Path {
            path: escape(key),
            rule,
        };
        if key.is_empty() {
            return Ok(Self::root());
        }
        let cut = key
            .windows(2)
            .position(|w| w == [0, 0])
            .ok_or_else(|| wrong("key without 0x00 0x00"))?;
        let mut bytes: Vec<u8> = key[..cut]
            .iter()
            .map(|b| if *b == 0 { b'/' } else { *b })
            .collect();
        let name = &key[cut + 2..];
        // Otherwise another path's key, or the root's, would stand for the same path.
        if name.is_empty() || key.contains(&b'/') {
            return Err(wrong("key without a name, or with a slash"));
        }
        if cut > 0 {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// The key that every direct child's key starts with.
    pub fn children_prefix(&self) -> Vec<u8> {
        let mut key: Vec<u8> = self
            .0
            .iter()
            .map(|b| if *b == b'/' { 0 } else { *b })
            .collect();
        key.extend_from_slice(&[0, 0]);
        key
    }

    /// The key that every descendant's key starts with (empty for the root: everything but itself).
    pub fn subtree_prefix(&self) -> Vec<u8> {
        let mut key: Vec<u8> = self
            .0
            .iter()
            .map(|b| if *b == b'/' { 0 } else { *b })
            .collect();
        if !key.is_empty() {
            key.push(0);
        }
        key
    }

    /// Order of the tree: that of the keys.
    pub fn cmp_key(&self, other: &Self) -> Ordering {
        self.to_key().cmp(&other.to_key())
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_key(other)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({})", escape(&self.0))
    }
}

/// Whether these bytes may be one component of a path; the rule that is broken otherwise.
pub fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("empty component"),
        b"." | b".." => Err("component . or .."),
        _ if name.len() > MAX_NAME_BYTES => Err("component longer than 255 bytes"),
        _ if name.contains(&0) => Err("NUL in a component"),
        _ if name.contains(&b'/') => Err("slash in a component"),
        _ => Ok(()),
    }
}

/// Bytes for people: printable UTF-8 as it is, backslash doubled, everything else as `\xNN`.
/// Control characters never reach a terminal or a log through it.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() || is_invisible(c) => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        out.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                c => out.push(c),
            }
        }
        for byte in part.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Characters that reorder or hide text on a terminal (bidirectional controls, zero width).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn rules_are_enforced() {
        for bad in ["/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(RelPath::new(vec![b'a'; 256]).is_err());
        assert!(RelPath::new(b"a/".repeat(20_000)).is_err());
        assert!(RelPath::new(b"\xff\x1b/...".to_vec()).is_ok());
    }

    #[test]
    fn keys_group_children_then_subtrees() {
        let mut paths: Vec<_> = ["", "a", "a.b", "a/x", "a/x/y", "a/z", "a.b/q", "b"]
            .iter()
            .map(|p| path(p))
            .collect();
        paths.sort();
        let text: Vec<_> = paths.iter().map(|p| p.to_string()).collect();
        assert_eq!(text, ["", "a", "a.b", "b", "a/x", "a/z", "a/x/y", "a.b/q"]);
    }

    #[test]
    fn a_path_has_one_key() {
        for bad in [
            &b"\0\0"[..],
            b"a\0\0",
            b"\0\0a/b",
            b"a/b\0\0c",
            b"\0\0\0a",
            b"a\0\0\0b",
            b"a",
        ] {
            assert!(RelPath::from_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn escape_hides_no_control() {
        assert_eq!(
            escape(b"a\nb\x1b[0m\\\xff\xe2\x80\xae"),
            "a\\x0ab\\x1b[0m\\\\\\xff\\xe2\\x80\\xae"
        );
    }

    proptest! {
        #[test]
        fn key_round_trips_and_prefixes_hold(parts in proptest::collection::vec("[a-c\\x01\\xff]{1,3}", 0..5), cut in 0usize..5) {
            let full = path(&parts.join("/"));
            prop_assert_eq!(&RelPath::from_key(&full.to_key()).unwrap(), &full);
            let above = path(&parts[..cut.min(parts.len())].join("/"));
            prop_assert!(full.is_within(&above));
            if above != full {
                prop_assert!(full.to_key().starts_with(&above.subtree_prefix()));
                prop_assert!(above.cmp_key(&full) == Ordering::Less);
            }
            if full.parent().as_ref() == Some(&above) {
                prop_assert!(full.to_key().starts_with(&above.children_prefix()));
            }
        }
    }
}
