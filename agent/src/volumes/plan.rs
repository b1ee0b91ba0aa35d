//! The API's plan for this node, joined with what is there: a volume is read only where both agree.
//!
//! The coordinator sends the plan; the last one is kept in a file, so that an agent that starts while
//! nobody can be asked goes on by it. Where the two sides disagree, both are named and nothing is read.

use super::kubelet::Located;
use super::{Ineligible, IneligibleReason, VolumeCandidate, VolumeSettings, explicit};
use holdfast_format::error::FormatError;
use holdfast_format::path::escape;
use holdfast_format::volume::VolumeFacts;
use holdfast_proto::v1 as proto;
use prost::Message;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

/// A plan of ten thousand volumes is smaller.
const MAX_PLAN_BYTES: u64 = 16 << 20;
/// The word for a storage driver's volumes, whose handles can be compared.
const CSI: &str = "kubernetes.io/csi";
/// And for directories that die with their pods.
const EMPTY_DIR: &str = "kubernetes.io/empty-dir";

/// What the API says is in use on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    volumes: Vec<Planned>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    facts: VolumeFacts,
    pods: Vec<String>,
    directory: String,
    host_path: Option<PathBuf>,
    shared: bool,
    refused: Option<String>,
}

impl TryFrom<proto::NodePlan> for Plan {
    type Error = FormatError;

    fn try_from(plan: proto::NodePlan) -> Result<Self, FormatError> {
        let volumes = plan.volumes.into_iter().map(|volume| {
            let refused = (!volume.reason.is_empty())
                .then(|| format!("{} ({})", volume.detail, volume.reason));
            let host_path = Some(PathBuf::from(&volume.host_path));
            Ok(Planned {
                facts: volume.facts.unwrap_or_default().try_into()?,
                pods: volume.pods,
                directory: volume.directory,
                host_path: host_path.filter(|path| !path.as_os_str().is_empty()),
                shared: volume.shared,
                refused,
            })
        });
        let volumes = volumes.collect::<Result<_, FormatError>>()?;
        Ok(Self { volumes })
    }
}

impl Plan {
    /// The directories of pods in which volumes of the plan show.
    pub fn pods(&self) -> Vec<&str> {
        let volumes = self
            .volumes
            .iter()
            .filter(|volume| volume.refused.is_none());
        let mut pods: Vec<&str> = volumes
            .flat_map(|volume| &volume.pods)
            .map(String::as_str)
            .collect();
        pods.sort_unstable();
        pods.dedup();
        pods
    }
}

/// The volumes of the plan, each with what is there of it, and what is there beside them.
pub(super) fn join(
    settings: &VolumeSettings,
    plan: &Plan,
    places: Vec<Located>,
) -> Vec<VolumeCandidate> {
    let mut by_place: HashMap<(String, String), Vec<VolumeCandidate>> = HashMap::new();
    for place in places {
        let key = (place.candidate.facts.pod_uid.clone(), place.directory);
        by_place.entry(key).or_default().push(place.candidate);
    }
    let mut joined = Vec::with_capacity(plan.volumes.len());
    for planned in &plan.volumes {
        let mut shown = Vec::new();
        for pod in &planned.pods {
            let key = (pod.clone(), planned.directory.clone());
            shown.extend(by_place.remove(&key).unwrap_or_default());
        }
        joined.push(planned.join(settings, shown));
    }
    // What no pod of the plan uses: one that has just come or gone, or configuration, which is never
    // planned and has a reason of its own.
    joined.extend(by_place.into_values().flatten().map(unplanned));
    joined
}

fn unplanned(mut candidate: VolumeCandidate) -> VolumeCandidate {
    let is_known = candidate
        .eligible
        .as_ref()
        .is_err_and(|why| why.reason != IneligibleReason::VolumeNotMounted);
    if !is_known {
        let detail = format!(
            "the API names no pod {} on this node that uses it",
            candidate.facts.pod_uid
        );
        candidate.eligible = Err(Ineligible::new(IneligibleReason::NotPlanned, detail));
    }
    candidate
}

impl Planned {
    fn join(&self, settings: &VolumeSettings, shown: Vec<VolumeCandidate>) -> VolumeCandidate {
        let mut candidate = match &self.host_path {
            Some(path) => self.on_host(settings, path),
            None => self.in_pods(shown),
        };
        candidate.facts.node.clone_from(&settings.node);
        candidate.shared = self.shared;
        if let Some(refused) = &self.refused {
            let why = Ineligible::new(IneligibleReason::NotPlanned, refused);
            candidate.eligible = Err(why);
        }
        candidate
    }

    /// The first place that can be read; else the first that is there; else none.
    fn in_pods(&self, shown: Vec<VolumeCandidate>) -> VolumeCandidate {
        let best = shown
            .iter()
            .position(|candidate| candidate.eligible.is_ok());
        let Some(found) = shown.into_iter().nth(best.unwrap_or(0)) else {
            let detail = format!(
                "the API says that pod {} uses it as {}, but the node has no such directory",
                self.pods.join(", "),
                self.directory
            );
            return self.without(IneligibleReason::VolumeNotMounted, &detail);
        };
        // Of a volume that dies with its pod, the name is all that the API says; the kind must be that one, too.
        let is_other = self.facts.plugin == EMPTY_DIR && found.facts.plugin != self.facts.plugin;
        let found_plugin = found.facts.plugin.clone();
        let facts = VolumeFacts {
            source: found.facts.source,
            filesystem: found.facts.filesystem,
            pod_uid: found.facts.pod_uid,
            plugin: found.facts.plugin,
            ..self.facts.clone()
        };
        let differs =
            self.facts.plugin == CSI && self.facts.volume_handle != found.facts.volume_handle;
        let eligible = match found.eligible {
            Ok(()) if differs => Err(Ineligible::new(
                IneligibleReason::PlanMismatch,
                format!(
                    "the API says that its handle is {:?}, the node that it is {:?}",
                    self.facts.volume_handle, found.facts.volume_handle
                ),
            )),
            Ok(()) if is_other => Err(Ineligible::new(
                IneligibleReason::PlanMismatch,
                format!("the API says that it is an emptyDir, the node that it is {found_plugin}"),
            )),
            eligible => eligible,
        };
        VolumeCandidate {
            facts,
            path: found.path,
            eligible,
            note: found.note,
            shared: self.shared,
        }
    }

    fn without(&self, reason: IneligibleReason, detail: &str) -> VolumeCandidate {
        VolumeCandidate {
            facts: self.facts.clone(),
            path: self.host_path.clone().unwrap_or_default(),
            eligible: Err(Ineligible::new(reason, detail)),
            note: None,
            shared: self.shared,
        }
    }

    /// A directory of the host, where the agent may read it: beneath an allowed root, all links resolved.
    fn on_host(&self, settings: &VolumeSettings, path: &Path) -> VolumeCandidate {
        let allowed = |path: &Path| {
            let roots = settings.host_roots.iter();
            let mut roots = roots.filter_map(|root| fs::canonicalize(root).ok());
            roots.any(|root| path.starts_with(&root) && path != root)
        };
        let plain = path
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
        let named = settings
            .host_roots
            .iter()
            .any(|root| path.starts_with(root));
        if !plain || !named {
            let detail = format!(
                "it lies at {} of the host: add a directory above it to volumes.host_roots",
                path.display()
            );
            return self.without(IneligibleReason::HostRootNotAllowed, &detail);
        }
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::NotFound => IneligibleReason::PathMissing,
                    _ => IneligibleReason::DirectoryUnreadable,
                };
                return self.without(reason, &format!("{}: {error}", path.display()));
            }
        };
        if !allowed(&real) {
            let detail = format!(
                "{} leads to {}, which lies below none of volumes.host_roots",
                path.display(),
                real.display()
            );
            return self.without(IneligibleReason::HostRootNotAllowed, &detail);
        }
        let mut facts = self.facts.clone();
        facts.source = escape(real.as_os_str().as_bytes());
        let eligible = explicit::readable(&real, &mut facts);
        VolumeCandidate {
            facts,
            path: real,
            eligible,
            note: None,
            shared: self.shared,
        }
    }
}

/// Where the last plan is kept.
#[derive(Debug, Clone)]
pub struct PlanFile {
    path: PathBuf,
}

impl PlanFile {
    /// In the agent's state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            path: state.join("plan"),
        }
    }

    /// The plan that was kept; `None` where there is none, or it cannot be read: another will come.
    pub fn load(&self) -> Option<Plan> {
        let read = || -> io::Result<Plan> {
            if fs::metadata(&self.path)?.len() > MAX_PLAN_BYTES {
                return Err(io::Error::other("larger than any plan"));
            }
            let bytes = fs::read(&self.path)?;
            let plan = proto::NodePlan::decode(&bytes[..]).map_err(io::Error::other)?;
            Plan::try_from(plan).map_err(io::Error::other)
        };
        match read() {
            Ok(plan) => Some(plan),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%error, %path, "the last plan of this node cannot be read");
                None
            }
        }
    }

    /// Keeps a plan in place of the one before.
    pub fn keep(&self, plan: &proto::NodePlan) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(directory)?;
        }
        let staged = self.path.with_extension("new");
        let mut file = fs::File::create(&staged)?;
        file.write_all(&plan.encode_to_vec())?;
        file.sync_data()?;
        fs::rename(staged, &self.path)
    }
}

#[cfg(test)]
mod tests;
