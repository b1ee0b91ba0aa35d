//! Volumes found below a kubelet's pods directory, which root owns: `<pod uid>/volumes/<plugin>/<name>`
//! and `<pod uid>/volumeDevices/...`, joined with the mount table.
//!
//! Not looked at, because it is the same data again or none: `volume-subpaths`, `plugins`,
//! `containers`, and the names that kubelet gives what it is tearing down.

use super::{
    Ineligible, IneligibleReason, MemoryVolumes, VolumeCandidate, VolumeSettings, filesystem_name,
    mounted_at,
};
use crate::mount::Mount;
use holdfast_format::path::escape;
use holdfast_format::volume::{VolumeFacts, VolumeName};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// A `vol_data.json` is a few hundred bytes.
const MAX_VOLUME_DATA_BYTES: u64 = 64 * 1024;

/// What the kubelet writes beside a CSI mount.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeData {
    #[serde(rename = "specVolID")]
    spec_vol_id: String,
    volume_handle: String,
    driver_name: String,
    volume_lifecycle_mode: String,
}

/// One `volumes/<plugin>/<name>` or `volumeDevices/<plugin>/<name>`.
struct Place<'a> {
    pod_uid: &'a str,
    plugin: &'a str,
    name: &'a str,
    path: &'a Path,
}

/// What was found out about a place.
struct Answer {
    facts: VolumeFacts,
    path: PathBuf,
    eligible: Result<(), Ineligible>,
}

/// What stands in the list for a pods directory that cannot be read.
pub(super) fn unlisted(
    settings: &VolumeSettings,
    pods: &Path,
    error: &io::Error,
) -> Option<VolumeCandidate> {
    let mut facts = VolumeFacts::named("kubelet-pods".parse().ok()?);
    facts.node.clone_from(&settings.node);
    facts.source = escape(pods.as_os_str().as_bytes());
    let reason = match error.kind() {
        io::ErrorKind::NotFound => IneligibleReason::PathMissing,
        _ => IneligibleReason::DirectoryUnreadable,
    };
    let detail = format!("the kubelet's pods directory {}: {error}", pods.display());
    tracing::error!(detail, "volumes of pods are not looked for");
    Some(VolumeCandidate {
        facts,
        path: pods.to_owned(),
        eligible: Err(Ineligible::new(reason, detail)),
        note: None,
        shared: false,
    })
}

/// A volume that was found, and the name of its directory below a plugin's.
#[derive(Debug)]
pub(super) struct Located {
    pub directory: String,
    pub candidate: VolumeCandidate,
}

pub(super) fn discover(
    settings: &VolumeSettings,
    pods: &Path,
    mounts: &[Mount],
) -> io::Result<Vec<Located>> {
    // A symlinked kubelet root is resolved once; the mount table names real paths.
    let pods = std::fs::canonicalize(pods)?;
    let heard = mount_over(mounts, &pods).is_some_and(is_propagated_to);
    let mut found = Vec::new();
    let walk = WalkDir::new(&pods)
        .min_depth(1)
        .max_depth(4)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_on_the_way);
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                if error.depth() == 0 {
                    return Err(error.into());
                }
                found.extend(
                    unreadable(settings, &pods, &error).map(|candidate| Located {
                        directory: String::new(),
                        candidate,
                    }),
                );
                continue;
            }
        };
        if entry.depth() < 4 {
            continue;
        }
        let Some(place) = place_of(&pods, entry.path()) else {
            continue;
        };
        let mut answer = ask(settings, &place, mounts, entry.path(), &pods);
        if let (Err(why), false) = (&mut answer.eligible, heard)
            && why.reason == IneligibleReason::VolumeNotMounted
        {
            why.detail.push_str(
                "; mounts made on the host do not reach this process (mountPropagation: HostToContainer is needed)",
            );
        }
        found.push(Located {
            directory: place.name.to_owned(),
            candidate: VolumeCandidate {
                facts: answer.facts,
                path: answer.path,
                eligible: answer.eligible,
                note: None,
                shared: false,
            },
        });
    }
    Ok(found)
}

/// Whether the walk goes on below an entry.
pub(super) fn is_on_the_way(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_bytes();
    match entry.depth() {
        1 => entry.file_type().is_dir(),
        2 => matches!(name, b"volumes" | b"volumeDevices") && entry.file_type().is_dir(),
        3 => entry.file_type().is_dir(),
        4 => !is_teardown(name),
        _ => true,
    }
}

/// Names that kubelet gives a volume while it is being torn down, or wraps another in.
fn is_teardown(name: &[u8]) -> bool {
    name.starts_with(b"wrapped_") || name.windows(10).any(|part| part == b".deleting~")
}

fn place_of<'a>(pods: &Path, path: &'a Path) -> Option<Place<'a>> {
    let below = path.strip_prefix(pods).ok()?;
    let parts: Vec<&OsStr> = below.iter().collect();
    let [pod_uid, kind, plugin, name] = parts.as_slice() else {
        return None;
    };
    // Names that are no text are no names of Kubernetes.
    Some(Place {
        pod_uid: pod_uid.to_str()?,
        plugin: if *kind == "volumeDevices" {
            "volumeDevices"
        } else {
            plugin.to_str()?
        },
        name: name.to_str()?,
        path,
    })
}

/// A directory on the way that cannot be read hides volumes: that is said, not passed over. One
/// that is gone belonged to a pod that is gone.
fn unreadable(
    settings: &VolumeSettings,
    pods: &Path,
    error: &walkdir::Error,
) -> Option<VolumeCandidate> {
    let io = error.io_error()?;
    if io.kind() == std::io::ErrorKind::NotFound {
        return None;
    }
    let path = error.path()?;
    let pod_uid = path.strip_prefix(pods).ok()?.iter().next()?.to_str()?;
    let (mut facts, _) = facts_named(&format!("pods/{pod_uid}"));
    facts.node.clone_from(&settings.node);
    facts.pod_uid = pod_uid.to_owned();
    facts.source = escape(path.as_os_str().as_bytes());
    let detail = format!("{}: {io}", path.display());
    Some(VolumeCandidate {
        facts,
        path: path.to_owned(),
        eligible: Err(Ineligible::new(
            IneligibleReason::DirectoryUnreadable,
            detail,
        )),
        note: None,
        shared: false,
    })
}

fn ask(
    settings: &VolumeSettings,
    place: &Place<'_>,
    mounts: &[Mount],
    entry: &Path,
    pods: &Path,
) -> Answer {
    let mut answer = match place.plugin {
        "volumeDevices" => refused(
            place,
            IneligibleReason::RawBlock,
            "a raw block volume has no files",
        ),
        "kubernetes.io~empty-dir" => empty_dir(settings, place, mounts),
        "kubernetes.io~configmap"
        | "kubernetes.io~secret"
        | "kubernetes.io~downward-api"
        | "kubernetes.io~projected" => refused(
            place,
            IneligibleReason::ConfigurationVolume,
            "its content comes from the API's objects, and may be credentials",
        ),
        "kubernetes.io~csi" => csi(place, mounts),
        _ => mounted(place, mounts, place.path),
    };
    let facts = &mut answer.facts;
    facts.node.clone_from(&settings.node);
    facts.pod_uid = place.pod_uid.to_owned();
    facts.plugin = match place.plugin {
        // The plugin of a block volume is the directory above its name.
        "volumeDevices" => entry
            .parent()
            .and_then(Path::file_name)
            .map(|plugin| plugin.to_string_lossy().replacen('~', "/", 1))
            .unwrap_or_default(),
        plugin => plugin.replacen('~', "/", 1),
    };
    let below = answer.path.strip_prefix(pods).unwrap_or(&answer.path);
    facts.source = escape(below.as_os_str().as_bytes());
    answer
}

fn empty_dir(settings: &VolumeSettings, place: &Place<'_>, mounts: &[Mount]) -> Answer {
    let mount = mounted_at(mounts, place.path);
    let mut answer = plain(place, mount);
    if answer.eligible.is_err() {
        return answer;
    }
    let filesystem = mount.map_or("", |mount| mount.filesystem.as_str());
    let reason = match filesystem {
        "hugetlbfs" => Some((IneligibleReason::HugePages, "huge pages are not files")),
        "tmpfs" if settings.memory == MemoryVolumes::Exclude => Some((
            IneligibleReason::MemoryVolume,
            "an emptyDir in memory is left out by default",
        )),
        _ => None,
    };
    if let Some((reason, detail)) = reason {
        answer.eligible = Err(Ineligible::new(reason, detail));
    }
    answer
}

fn csi(place: &Place<'_>, mounts: &[Mount]) -> Answer {
    let path = place.path.join("mount");
    let data = match read_volume_data(&place.path.join("vol_data.json")) {
        Ok(data) => data,
        Err(detail) => {
            let mut answer = refused(place, IneligibleReason::VolumeDataMissing, &detail);
            answer.path = path;
            return answer;
        }
    };
    let mut answer = mounted(place, mounts, &path);
    if data.volume_lifecycle_mode != "Ephemeral" {
        // A persistent volume has one name in the whole cluster, whichever pod uses it.
        let (facts, named) = facts_named(&format!("pv/{}", place.name));
        answer.facts = VolumeFacts {
            filesystem: answer.facts.filesystem,
            ..facts
        };
        answer.eligible = answer.eligible.and(named);
    }
    answer.facts.volume_handle = format!("{}/{}", data.driver_name, data.volume_handle);
    if !data.spec_vol_id.is_empty() && data.spec_vol_id != place.name {
        answer.eligible = Err(Ineligible::new(
            IneligibleReason::VolumeDataMismatch,
            format!("vol_data.json is of {:?}", data.spec_vol_id),
        ));
    }
    answer
}

/// A volume that is there only while something is mounted on its directory.
fn mounted(place: &Place<'_>, mounts: &[Mount], path: &Path) -> Answer {
    let Some(mount) = mounted_at(mounts, path) else {
        let detail = match std::fs::symlink_metadata(path) {
            Ok(_) => format!("nothing is mounted at {}", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        };
        let mut answer = refused(place, IneligibleReason::VolumeNotMounted, &detail);
        answer.path = path.to_owned();
        return answer;
    };
    let mut answer = plain(place, Some(mount));
    answer.path = path.to_owned();
    // Local volumes are persistent volumes always; of other plugins the directory's name may be
    // the pod's own word for a volume that is written out in its spec.
    if place.plugin == "kubernetes.io~local-volume" {
        let (facts, named) = facts_named(&format!("pv/{}", place.name));
        answer.facts = VolumeFacts {
            filesystem: answer.facts.filesystem,
            ..facts
        };
        answer.eligible = answer.eligible.and(named);
    } else if place.plugin != "kubernetes.io~csi" {
        answer.facts.volume_handle = mount.source.clone();
    }
    answer
}

/// A directory that is the volume.
fn plain(place: &Place<'_>, mount: Option<&Mount>) -> Answer {
    let (mut facts, named) = facts_named(&format!("pods/{}/{}", place.pod_uid, place.name));
    facts.filesystem = match mount {
        Some(mount) => mount.filesystem.clone(),
        None => rustix::fs::statfs(place.path)
            .map(|statfs| filesystem_name(statfs.f_type as u64 & 0xffff_ffff))
            .unwrap_or_default(),
    };
    let directory = std::fs::symlink_metadata(place.path).is_ok_and(|m| m.is_dir());
    let is_directory = if directory {
        Ok(())
    } else {
        let detail = format!("{} is no directory", place.path.display());
        Err(Ineligible::new(IneligibleReason::NotADirectory, detail))
    };
    Answer {
        facts,
        path: place.path.to_owned(),
        eligible: named.and(is_directory),
    }
}

fn refused(place: &Place<'_>, reason: IneligibleReason, detail: &str) -> Answer {
    let (facts, _) = facts_named(&format!("pods/{}/{}", place.pod_uid, place.name));
    Answer {
        facts,
        path: place.path.to_owned(),
        eligible: Err(Ineligible::new(reason, detail)),
    }
}

/// Facts under a name; where it breaks a rule, under what is left of it, and not eligible.
fn facts_named(name: &str) -> (VolumeFacts, Result<(), Ineligible>) {
    if let Ok(name) = name.parse::<VolumeName>() {
        return (VolumeFacts::named(name), Ok(()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let replaced: String = name
        .chars()
        .take(200)
        .map(|c| if allowed(c) { c } else { '_' })
        .collect();
    let refused = Ineligible::new(
        IneligibleReason::NameRefused,
        format!("{name:?} is no name for a volume"),
    );
    let named = replaced
        .parse::<VolumeName>()
        .map(VolumeFacts::named)
        .unwrap_or_else(|_| unreachable_name());
    (named, Err(refused))
}

/// Every name given to `facts_named` starts with a letter and is replaced to fit; this is what
/// stands in for one that would not.
fn unreachable_name() -> VolumeFacts {
    const UNNAMED: &str = "unnamed";
    match UNNAMED.parse() {
        Ok(name) => VolumeFacts::named(name),
        Err(_) => unreachable!("a constant name that obeys every rule"),
    }
}

fn read_volume_data(path: &Path) -> Result<VolumeData, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = open_beside(path).map_err(|error| wrong(&error))?;
    let mut text = Vec::new();
    file.take(MAX_VOLUME_DATA_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| wrong(&error))?;
    serde_json::from_slice(&text).map_err(|error| wrong(&error))
}

/// A file that the kubelet wrote beside a mount. Where the mount is gone a tenant may have left something
/// else under its name: a FIFO would never open, and a device does things when it is opened.
fn open_beside(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// The mount that a path lies on: of those at one place the last hides the others.
pub(super) fn mount_over<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())
}

/// Whether mounts made on the host later reach this one.
pub(super) fn is_propagated_to(mount: &Mount) -> bool {
    let mut fields = mount.propagation.iter();
    fields.any(|field| field.starts_with("shared:") || field.starts_with("master:"))
}
