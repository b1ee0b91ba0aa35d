//! Volumes given as `name=path`.

use super::{ExplicitVolume, Ineligible, IneligibleReason, VolumeCandidate, VolumeSettings};
use crate::mount::FsClass;
use holdfast_format::path::escape;
use holdfast_format::volume::{VolumeFacts, VolumeName};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// `name=path` cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum ExplicitVolumeError {
    /// There is no `=` with something on both sides.
    #[error("volume {0:?} must be NAME=PATH")]
    Form(String),
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] holdfast_format::FormatError),
}

impl FromStr for ExplicitVolume {
    type Err = ExplicitVolumeError;
    fn from_str(text: &str) -> Result<Self, ExplicitVolumeError> {
        let wrong = || ExplicitVolumeError::Form(text.to_owned());
        let (name, path) = text.split_once('=').ok_or_else(wrong)?;
        if path.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.parse::<VolumeName>()?,
            path: PathBuf::from(path),
        })
    }
}

pub(super) fn discover(settings: &VolumeSettings) -> Vec<VolumeCandidate> {
    let candidates = settings.explicit.iter();
    candidates
        .map(|volume| candidate(&settings.node, volume))
        .collect()
}

fn candidate(node: &str, volume: &ExplicitVolume) -> VolumeCandidate {
    let mut facts = VolumeFacts::named(volume.name.clone());
    facts.node = node.to_owned();
    facts.plugin = "directory".to_owned();
    let path = match std::fs::canonicalize(&volume.path) {
        Ok(path) => path,
        Err(error) => {
            facts.source = escape(volume.path.as_os_str().as_bytes());
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => IneligibleReason::PathMissing,
                _ => IneligibleReason::DirectoryUnreadable,
            };
            let detail = format!("{}: {error}", volume.path.display());
            return VolumeCandidate {
                facts,
                path: volume.path.clone(),
                eligible: Err(Ineligible::new(reason, detail)),
                note: None,
                shared: false,
            };
        }
    };
    facts.source = escape(path.as_os_str().as_bytes());
    facts.source_identity = facts.source.clone();
    let symlink = std::fs::symlink_metadata(&volume.path).is_ok_and(|m| m.is_symlink());
    let note = symlink.then(|| {
        let (from, to) = (volume.path.display(), path.display());
        format!("{from} is a symlink; what is backed up is {to}")
    });
    let eligible = readable(&path, &mut facts);
    VolumeCandidate {
        facts,
        path,
        eligible,
        note,
        shared: false,
    }
}

/// Whether it is a directory on a filesystem that holds data. Its filesystem becomes a fact.
pub(super) fn readable(path: &std::path::Path, facts: &mut VolumeFacts) -> Result<(), Ineligible> {
    if !path.is_dir() {
        let detail = format!("{} is no directory", path.display());
        return Err(Ineligible::new(IneligibleReason::NotADirectory, detail));
    }
    let statfs = rustix::fs::statfs(path).map_err(|errno| {
        let detail = format!("{}: {}", path.display(), std::io::Error::from(errno));
        Ineligible::new(IneligibleReason::DirectoryUnreadable, detail)
    })?;
    let f_type = statfs.f_type as u64 & 0xffff_ffff;
    facts.filesystem = super::filesystem_name(f_type);
    match FsClass::of(f_type) {
        FsClass::Virtual(filesystem) => {
            let detail = format!("{} is on {filesystem}", path.display());
            Err(Ineligible::new(IneligibleReason::VirtualFilesystem, detail))
        }
        _ => Ok(()),
    }
}
