//! Pods of ours that help with one volume and then go. A *mount pod* does nothing: because it is there, some node's
//! kubelet attaches and mounts the volume, and the node's agent finds it as it finds any other. A *restore pod* is an
//! agent with the rights to write, on the node that has the volume, and sees no other.
//!
//! Images, rights and places are the installer's: their templates come from a file. Here they get names, a node and
//! a volume.

mod mount;
mod place;
mod restore;

pub use mount::mount_pod;
#[cfg(test)]
use place::Unplaced;
pub use place::{Place, place};
pub use restore::{Access, restore_node, restore_pod};

use crate::error::{Error, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The label of such a pod: `mount` or `restore`.
pub const HELPER: &str = "holdfast.dev/helper";
/// And whom it helps: the [`token`] of that object.
pub const HELPER_OF: &str = "holdfast.dev/helper-of";

/// How the value of that label begins where a mount pod is there for a backup, not for a restore.
pub const FOR_BACKUP: &str = "backup-";

/// What a helper is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It has a volume mounted.
    Mount,
    /// It writes to one.
    Restore,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Mount, Self::Restore];

    /// As labels have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Restore => "restore",
        }
    }

    /// The name of the pod that helps with this.
    pub fn name(self, of: &str) -> String {
        format!("holdfast-{}-{of}", self.word())
    }
}

/// Stands for an object in names and labels: the same for the same uid, and short enough for both.
pub fn token(uid: &str) -> String {
    blake3::hash(uid.as_bytes()).to_hex()[..16].to_owned()
}

/// What the installer says of helper pods.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Helpers {
    /// The namespace of restore pods: our own.
    pub namespace: String,
    /// The kubelets' directory of pods.
    pub kubelet_pods: PathBuf,
    /// Directories of nodes in which volumes of type hostPath may lie.
    #[serde(default)]
    pub host_roots: Vec<PathBuf>,
    /// Pods that have a volume mounted; none: they are not to be made.
    #[serde(default)]
    pub mount: Option<Template>,
    /// Pods that write to one; none: nothing is restored in the cluster.
    #[serde(default)]
    pub restore: Option<Template>,
}

/// How pods of a kind are made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// So many at once.
    pub most: usize,
    /// The pod.
    pub pod: Pod,
}

impl Helpers {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong =
            |why: String| Error::invalid(format!("kubernetes.helpers: {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let read: Self = serde_norway::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let templates = [("mount", &read.mount), ("restore", &read.restore)];
        for (name, template) in templates {
            let Some(template) = template else { continue };
            let spec = template.pod.spec.as_ref();
            if spec.is_none_or(|spec| spec.containers.len() != 1) {
                return Err(wrong(format!("{name}.pod must have one container")));
            }
            if template.most == 0 {
                return Err(wrong(format!("{name}.most must be at least 1")));
            }
        }
        if !read.kubelet_pods.is_absolute() || read.namespace.is_empty() {
            return Err(wrong(
                "kubelet_pods must be an absolute path, and namespace must be set".to_owned(),
            ));
        }
        Ok(read)
    }
}

/// Name, namespace and labels of a helper, over those of its template.
fn named(template: &Template, namespace: &str, role: Role, of: &str) -> ObjectMeta {
    let mut meta = ObjectMeta {
        name: Some(role.name(of)),
        namespace: Some(namespace.to_owned()),
        ..template.pod.metadata.clone()
    };
    let labels = meta.labels.get_or_insert_with(BTreeMap::new);
    labels.insert(HELPER.to_owned(), role.word().to_owned());
    labels.insert(HELPER_OF.to_owned(), of.to_owned());
    labels.insert(
        "app.kubernetes.io/managed-by".to_owned(),
        "holdfast".to_owned(),
    );
    meta
}

#[cfg(test)]
mod tests;
