//! How claims, pods and snapshots are named on the command line, in the namespace that is meant.

use crate::failure::{Failure, Outcome};

/// What a name names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A claim: namespace and name.
    Claim(String, String),
    /// All volumes of a pod: namespace and name.
    Pod(String, String),
    /// A volume that lives with its pod, by the name of its history: `NAMESPACE/POD/VOLUME`.
    Volume(String),
}

impl Named {
    /// `NAME`, `pvc/NAME`, `claim/NAME`, `pod/NAME`, `NAMESPACE/CLAIM` or `NAMESPACE/POD/VOLUME`.
    pub fn parse(text: &str, namespace: &str) -> Outcome<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let here = namespace.to_owned();
        let named = match parts.as_slice() {
            [
                "pvc" | "pvcs" | "claim" | "persistentvolumeclaim" | "persistentvolumeclaims",
                name,
            ] => Self::Claim(here, (*name).to_owned()),
            ["pod" | "pods" | "po", name] => Self::Pod(here, (*name).to_owned()),
            [name] => Self::Claim(here, (*name).to_owned()),
            [namespace, name] => Self::Claim((*namespace).to_owned(), (*name).to_owned()),
            [_, _, _] => Self::Volume(text.to_owned()),
            _ => {
                return Err(Failure::usage(format!(
                    "{text:?} names no volume: use NAME, pvc/NAME, pod/NAME, NAMESPACE/CLAIM or \
                     NAMESPACE/POD/VOLUME"
                )));
            }
        };
        match &named {
            Self::Claim(namespace, name) | Self::Pod(namespace, name) => {
                check("namespace", namespace)?;
                check("name", name)?;
            }
            Self::Volume(_) => parts.iter().try_for_each(|part| check("name", part))?,
        }
        Ok(named)
    }

    /// A claim; anything else is refused.
    pub fn claim(text: &str, namespace: &str) -> Outcome<(String, String)> {
        match Self::parse(text, namespace)? {
            Self::Claim(namespace, name) => Ok((namespace, name)),
            _ => Err(Failure::usage(format!(
                "{text:?} is no claim: name one as NAME, pvc/NAME or NAMESPACE/NAME"
            ))),
        }
    }
}

/// The name of a volume's history: that of a claim is `NAMESPACE/CLAIM`.
pub fn volume(text: &str, namespace: &str) -> Outcome<String> {
    match Named::parse(text, namespace)? {
        Named::Claim(namespace, name) => Ok(format!("{namespace}/{name}")),
        Named::Volume(name) => Ok(name),
        Named::Pod(..) => Err(Failure::usage(format!(
            "{text:?} is a pod: `explain` takes one; name a claim here"
        ))),
    }
}

/// `uploads@latest:/etc` in a namespace is `shop/uploads@latest:/etc`; ids are as they are.
pub fn selector(text: &str, namespace: &str) -> Outcome<String> {
    match text.split_once('@') {
        // A path may have an @, but none of a snapshot that is named by its id stands before `:/`.
        Some((claim, rest)) if !claim.contains(":/") => {
            Ok(format!("{}@{rest}", volume(claim, namespace)?))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Refuses what can be no object's name, so that a path of the API means what it says.
pub fn check(what: &str, name: &str) -> Outcome<()> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let edges = [name.bytes().next(), name.bytes().last()];
    let fits = name.len() <= 253
        && name
            .bytes()
            .all(|byte| is_inner(byte) || matches!(byte, b'-' | b'.'))
        && edges.into_iter().all(|edge| edge.is_some_and(is_inner));
    match fits {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "{name:?} cannot be a {what}: lower-case letters, digits, - and . only, and at most 253"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubectl_and_of_histories() {
        for (text, expected) in [
            ("db", "shop/db"),
            ("pvc/db", "shop/db"),
            ("claim/db", "shop/db"),
            ("bank/db", "bank/db"),
            ("bank/web-0/scratch", "bank/web-0/scratch"),
        ] {
            assert_eq!(volume(text, "shop").unwrap(), expected);
        }
        let pod = Named::parse("pod/web-0", "shop").unwrap();
        assert_eq!(pod, Named::Pod("shop".into(), "web-0".into()));
        for wrong in [
            "",
            "pod/web-0",
            "a/b/c/d",
            "Db",
            "a//b",
            "../x",
            "a b",
            "-a",
            "a/..",
            "a?x=1",
        ] {
            let refused = volume(wrong, "shop").unwrap_err();
            assert_eq!(refused.exit, crate::failure::Exit::Usage, "{wrong}");
        }
        assert!(Named::claim("pod/db", "shop").is_err());
    }

    #[test]
    fn snapshots_are_named_by_claims_of_the_namespace() {
        for (text, expected) in [
            ("db@latest", "shop/db@latest"),
            ("pvc/db@2026-11-21:/a@b", "shop/db@2026-11-21:/a@b"),
            ("bank/db@latest:/x", "bank/db@latest:/x"),
            ("0a1b2c:/a@b", "0a1b2c:/a@b"),
            ("latest", "latest"),
        ] {
            assert_eq!(selector(text, "shop").unwrap(), expected);
        }
    }
}
