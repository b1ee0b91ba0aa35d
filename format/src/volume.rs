//! What people know a volume by: its name and the facts that bind its random id.

use crate::error::FormatError;
use std::fmt;
use std::str::FromStr;

/// A volume's name: `[A-Za-z0-9][A-Za-z0-9._/-]*`, at most 253 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VolumeName(String);

impl VolumeName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = FormatError;
    fn from_str(name: &str) -> Result<Self, FormatError> {
        let wrong = |rule| {
            Err(FormatError::Name {
                name: name.chars().take(80).collect(),
                rule,
            })
        };
        if name.len() > 253 {
            return wrong("longer than 253 bytes");
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return wrong("must start with a letter or a digit");
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
        {
            return wrong("may hold only letters, digits and . _ / -");
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Facts about a volume; stored with each snapshot, and in the mark that binds its id. All may be
/// empty but the name. Texts are at most 4,096 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeFacts {
    /// What people call it.
    pub name: VolumeName,
    /// The node it was read on.
    pub node: String,
    /// Where it was read, escaped.
    pub source: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes claim.
    pub persistentvolumeclaim: String,
    /// The claim's uid: a new uid under an old name is a new volume.
    pub pvc_uid: String,
    /// CSI volume handle.
    pub volume_handle: String,
    /// Pod it was found through.
    pub pod: String,
    /// That pod's uid.
    pub pod_uid: String,
    /// Volume plugin.
    pub plugin: String,
    /// Filesystem type.
    pub filesystem: String,
    /// Stable identity of an explicit path: its canonical path, escaped.
    pub source_identity: String,
}

impl VolumeFacts {
    /// Facts with nothing but a name.
    pub fn named(name: VolumeName) -> Self {
        let empty = String::new;
        Self {
            name,
            node: empty(),
            source: empty(),
            namespace: empty(),
            persistentvolumeclaim: empty(),
            pvc_uid: empty(),
            volume_handle: empty(),
            pod: empty(),
            pod_uid: empty(),
            plugin: empty(),
            filesystem: empty(),
            source_identity: empty(),
        }
    }

    /// The texts in stored order, after the name.
    pub fn texts(&self) -> [&String; 11] {
        [
            &self.node,
            &self.source,
            &self.namespace,
            &self.persistentvolumeclaim,
            &self.pvc_uid,
            &self.volume_handle,
            &self.pod,
            &self.pod_uid,
            &self.plugin,
            &self.filesystem,
            &self.source_identity,
        ]
    }

    /// The texts in stored order, to be filled in.
    pub fn texts_mut(&mut self) -> [&mut String; 11] {
        [
            &mut self.node,
            &mut self.source,
            &mut self.namespace,
            &mut self.persistentvolumeclaim,
            &mut self.pvc_uid,
            &mut self.volume_handle,
            &mut self.pod,
            &mut self.pod_uid,
            &mut self.plugin,
            &mut self.filesystem,
            &mut self.source_identity,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "web-1", "ns/claim", "A.b_c"] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        for bad in ["", "-rf", "/a", ".a", "a b", "ä", "a@b", "a:b"] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
    }
}
