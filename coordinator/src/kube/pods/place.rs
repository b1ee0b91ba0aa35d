//! Where a node has a volume: the directory that is written to, and the one above it that a restore pod is shown.
//! Pure.
//!
//! What is shown is never the mount itself. A pod that had it for its own would keep the device from being detached;
//! of the directory above, an unmounting by the kubelet reaches the pod.

use crate::kube::facts::{Origin, VolumeFacts};
use std::path::{Component, Path, PathBuf};

/// Where a node has a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What a restore pod is shown of the node.
    pub shown: PathBuf,
    /// The volume's root, at or below it.
    pub root: PathBuf,
}

/// Why a volume cannot be written to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// It has no files.
    #[error("a raw block volume has no files")]
    RawBlock,
    /// The kubelet's directory of it has no known name.
    #[error("volumes of this kind have no known place below the kubelet's directory")]
    UnknownPlugin,
    /// It lies where nobody allowed us to go.
    #[error("{0} of the node is below none of the chart's agent.hostRoots")]
    HostRootNotAllowed(String),
    /// Its name would lead elsewhere.
    #[error("{0} is no name of a directory")]
    BadName(String),
}

impl Unplaced {
    /// As one stable word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::RawBlock => "RawBlock",
            Self::UnknownPlugin => "UnsupportedVolume",
            Self::HostRootNotAllowed(_) => "HostRootNotAllowed",
            Self::BadName(_) => "BadName",
        }
    }
}

/// Where the node of the pod with this directory has the volume.
pub fn place(
    pods: &Path,
    host_roots: &[PathBuf],
    pod: &str,
    volume: &VolumeFacts,
) -> Result<Place, Unplaced> {
    if volume.block {
        return Err(Unplaced::RawBlock);
    }
    let plugin = match &volume.origin {
        Origin::HostPath(path) => {
            let path = Path::new(path);
            let mut parts = path.components();
            let is_plain =
                parts.all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            let mut roots = host_roots.iter();
            if !is_plain || !roots.any(|root| path.starts_with(root) && path != root) {
                return Err(Unplaced::HostRootNotAllowed(path.display().to_string()));
            }
            return Ok(Place {
                shown: path.to_owned(),
                root: path.to_owned(),
            });
        }
        Origin::Csi { .. } => "kubernetes.io~csi",
        Origin::Other { plugin, .. } => match plugin.split_once('/') {
            Some(("kubernetes.io", "local-volume")) => "kubernetes.io~local-volume",
            Some(("kubernetes.io", "nfs")) => "kubernetes.io~nfs",
            Some(("kubernetes.io", "iscsi")) => "kubernetes.io~iscsi",
            _ => return Err(Unplaced::UnknownPlugin),
        },
    };
    for name in [pod, &volume.name] {
        let mut parts = Path::new(name).components();
        let is_one = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
        // A comma would divide a setting.
        if !is_one || name.contains(',') {
            return Err(Unplaced::BadName(name.to_owned()));
        }
    }
    let above = pods.join(pod).join("volumes").join(plugin);
    let own = above.join(&volume.name);
    Ok(match &volume.origin {
        Origin::Csi { .. } => Place {
            root: own.join("mount"),
            shown: own,
        },
        _ => Place {
            root: own,
            shown: above,
        },
    })
}
