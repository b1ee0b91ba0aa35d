//! Which volumes this node has, and why the others are not read. Nothing is left out silently:
//! what is excluded, unsupported or not mounted is listed with its reason.

mod explicit;
mod kubelet;
mod plan;
mod trouble;
mod watch;

pub use explicit::ExplicitVolumeError;
pub use plan::{Plan, PlanFile};
pub use trouble::{Troubles, troubles};
pub use watch::{Hints, VolumeWatch, watch};

use crate::mount::{self, Mount};
use holdfast_format::volume::{VolumeFacts, VolumeName};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct VolumeSettings {
    /// Name of this node.
    pub node: String,
    /// The kubelet's pods directory as this process sees it, e.g. `/var/lib/kubelet/pods`.
    pub kubelet_pods: Option<PathBuf>,
    /// Directories given by name.
    pub explicit: Vec<ExplicitVolume>,
    /// Directories of the host in which volumes may lie that no pod's directory shows.
    pub host_roots: Vec<PathBuf>,
    /// What to do with emptyDir volumes in memory.
    pub memory: MemoryVolumes,
}

/// What to do with emptyDir volumes in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryVolumes {
    /// They are like secrets: leave them out.
    #[default]
    Exclude,
    /// Read them.
    Include,
}

/// A directory to be backed up under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplicitVolume {
    /// What people call it.
    pub name: VolumeName,
    /// Its directory; a symlink is resolved once, when volumes are discovered.
    pub path: PathBuf,
}

/// A volume that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeCandidate {
    /// What is known of it.
    pub facts: VolumeFacts,
    /// Its root directory, with no symlink in it.
    pub path: PathBuf,
    /// Whether it can be read.
    pub eligible: Result<(), Ineligible>,
    /// Something to tell people about it, e.g. that its path was a symlink.
    pub note: Option<String>,
    /// Whether other nodes may write to it, of which this one's kernel tells nothing.
    pub shared: bool,
}

/// Why a volume is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ineligible {
    /// Stable reason.
    pub reason: IneligibleReason,
    /// For people.
    pub detail: String,
}

impl Ineligible {
    fn new(reason: IneligibleReason, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { reason, detail }
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason.as_str())
    }
}

/// Whose decision it is that a volume is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Ours, by default.
    Excluded,
    /// Nobody's: this version cannot.
    Unsupported,
    /// Something is wrong, or not ready.
    Failed,
}

/// Why a volume is not read. Closed; the words are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IneligibleReason {
    /// Nothing is mounted where it should be: before its driver published it, or after.
    VolumeNotMounted,
    /// An emptyDir in memory.
    MemoryVolume,
    /// secret, configMap, downwardAPI or projected: comes back from the API's objects.
    ConfigurationVolume,
    /// A raw block device has no files.
    RawBlock,
    /// Huge pages are memory, not files.
    HugePages,
    /// The kubelet's `vol_data.json` is missing or cannot be understood.
    VolumeDataMissing,
    /// The kubelet's `vol_data.json` is of another volume.
    VolumeDataMismatch,
    /// The API's plan for this node does not name it, or names it as not to be read here.
    NotPlanned,
    /// The API's plan and the node's directories say different things of it.
    PlanMismatch,
    /// It lies in a directory of the host that this agent may not read.
    HostRootNotAllowed,
    /// The same volume is already in the list, through another pod or under another name.
    AlreadyListed,
    /// There is no such path.
    PathMissing,
    /// It is no directory.
    NotADirectory,
    /// It lies on proc, sysfs or the like.
    VirtualFilesystem,
    /// No volume name can be made of it.
    NameRefused,
    /// A directory on the way to it cannot be read.
    DirectoryUnreadable,
}

impl IneligibleReason {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VolumeNotMounted => "VolumeNotMounted",
            Self::MemoryVolume => "MemoryVolume",
            Self::ConfigurationVolume => "ConfigurationVolume",
            Self::RawBlock => "RawBlock",
            Self::HugePages => "HugePages",
            Self::VolumeDataMissing => "VolumeDataMissing",
            Self::VolumeDataMismatch => "VolumeDataMismatch",
            Self::NotPlanned => "NotPlanned",
            Self::PlanMismatch => "PlanMismatch",
            Self::HostRootNotAllowed => "HostRootNotAllowed",
            Self::AlreadyListed => "AlreadyListed",
            Self::PathMissing => "PathMissing",
            Self::NotADirectory => "NotADirectory",
            Self::VirtualFilesystem => "VirtualFilesystem",
            Self::NameRefused => "NameRefused",
            Self::DirectoryUnreadable => "DirectoryUnreadable",
        }
    }

    /// Whose decision it is.
    pub fn standing(self) -> Standing {
        match self {
            Self::MemoryVolume
            | Self::ConfigurationVolume
            | Self::NotPlanned
            | Self::AlreadyListed => Standing::Excluded,
            Self::RawBlock | Self::HugePages | Self::VirtualFilesystem => Standing::Unsupported,
            _ => Standing::Failed,
        }
    }
}

/// Discovery is not possible at all.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The mount table cannot be read: nothing could be said of any volume.
    #[error("read /proc/self/mountinfo")]
    Mountinfo(#[source] io::Error),
}

/// Every volume of this node, sorted by name; those that are not read say why. Where there is a plan,
/// volumes of pods are what it and the node's directories agree on.
pub fn discover(
    settings: &VolumeSettings,
    plan: Option<&Plan>,
) -> Result<Vec<VolumeCandidate>, DiscoverError> {
    let mut found = explicit::discover(settings);
    if let Some(pods) = &settings.kubelet_pods {
        let mounts = mount::mounts().map_err(DiscoverError::Mountinfo)?;
        let places = match kubelet::discover(settings, pods, &mounts) {
            Ok(places) => places,
            // It takes nothing from the volumes that were given by name.
            Err(error) => {
                found.extend(kubelet::unlisted(settings, pods, &error));
                Vec::new()
            }
        };
        match plan {
            Some(plan) => found.extend(plan::join(settings, plan, places)),
            None => found.extend(places.into_iter().map(|place| place.candidate)),
        }
    }
    Ok(listed_once(found))
}

/// Sorts, and lets each name stand for one path.
fn listed_once(mut found: Vec<VolumeCandidate>) -> Vec<VolumeCandidate> {
    // What can be read comes before what cannot, so that a broken twin hides nothing.
    found.sort_by(|a, b| {
        let key = |c: &VolumeCandidate| (c.facts.name.clone(), c.eligible.is_err(), c.path.clone());
        key(a).cmp(&key(b))
    });
    let mut first: HashMap<VolumeName, PathBuf> = HashMap::new();
    for candidate in &mut found {
        let path = first
            .entry(candidate.facts.name.clone())
            .or_insert_with(|| candidate.path.clone());
        if *path != candidate.path && candidate.eligible.is_ok() {
            let detail = format!("already listed at {}", path.display());
            let twice = Ineligible::new(IneligibleReason::AlreadyListed, detail);
            candidate.eligible = Err(twice);
        }
    }
    found
}

/// What people call the filesystem with this magic number; its number where it has no name here.
pub(crate) fn filesystem_name(f_type: u64) -> String {
    let name = match f_type {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x00c3_6400 => "ceph",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        _ => return format!("{f_type:#x}"),
    };
    name.to_owned()
}

/// The mount whose point is exactly `path`; the last one hides those before.
fn mounted_at<'m>(mounts: &'m [Mount], path: &std::path::Path) -> Option<&'m Mount> {
    mounts.iter().rev().find(|mount| mount.point == path)
}

#[cfg(test)]
mod tests;
