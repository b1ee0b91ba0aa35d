//! Names with `*` (any characters, also none) and `?` (one), matched as a whole. Matching takes at most the
//! product of both lengths.

/// A name, or a pattern of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Any,
    Literal,
    Pattern,
}

impl Glob {
    /// Reads one. Names of Kubernetes objects have letters, digits, `-`, `.`, `_`, `:` and `/`.
    pub fn new(text: &str) -> Result<Self, String> {
        let known = |c: char| c.is_ascii_alphanumeric() || "-._:/*?".contains(c);
        if text.is_empty() {
            return Err("is empty; write a name, or a pattern such as 'shop-*'".to_owned());
        }
        if let Some(other) = text.chars().find(|c| !known(*c)) {
            return Err(format!(
                "'{text}' has '{other}', which no name has; write a name, or a pattern with * and ?"
            ));
        }
        let kind = match text {
            "*" => Kind::Any,
            _ if text.contains(['*', '?']) => Kind::Pattern,
            _ => Kind::Literal,
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
        })
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self.kind {
            Kind::Any => true,
            Kind::Literal => self.text == name,
            Kind::Pattern => matches(self.text.as_bytes(), name.as_bytes()),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and what of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_patterns_match() {
        for (glob, name, expected) in [
            ("shop", "shop", true),
            ("shop", "shop2", false),
            ("*", "", true),
            ("shop-*", "shop-", true),
            ("shop-*", "shop", false),
            ("*-prod", "a-prod-prod", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("t?st", "test", true),
            ("t?st", "tst", false),
            ("kube-*", "my-kube-x", false),
        ] {
            assert_eq!(
                Glob::new(glob).unwrap().matches(name),
                expected,
                "{glob} {name}"
            );
        }
        for wrong in ["", "a b", "[a]", "!x", "ä"] {
            assert!(Glob::new(wrong).is_err(), "{wrong}");
        }
    }

    /// The obvious way.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                naive(&pattern[1..], name) || (!name.is_empty() && naive(pattern, &name[1..]))
            }
            (Some(p), Some(n)) if *p == b'?' || p == n => naive(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matches_as_the_obvious_way_does(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let glob = Glob::new(&pattern).unwrap();
            prop_assert_eq!(glob.matches(&name), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
