//! The agent takes away from itself what it does not need (landlock(7)): after its start it can read below the
//! directories of volumes and write below its own and those that restores may write to, and open nothing else,
//! whatever its user and capabilities would allow. What is mounted below these directories later belongs to them.
//!
//! Not restricted are files that were open before, descriptors that can only be looked at (`O_PATH`), inotify and
//! fanotify, and connections.

use crate::settings::AgentSettings;
use crate::sys::landlock::{self, FILES};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The least that is of use: before it nothing could be renamed or linked into another directory (Linux 5.19).
const LEAST_ABI: u32 = 2;
/// What is read at run time beside volumes: mount table, limits and own descriptors; memory and processors.
const SYSTEM: [&str; 2] = ["/proc", "/sys"];
/// What names of hosts are found with. Some are links into directories in which they are replaced.
const NAMES: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
];
const NAME_DIRECTORIES: [&str; 3] = [
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
];
const DEVICES: [&str; 2] = ["/dev/null", "/dev/urandom"];

/// Whether the agent restricts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Landlock {
    /// Where the kernel can and the settings leave something to be restricted.
    #[default]
    Auto,
    /// No.
    Off,
    /// Yes: else the agent does not start.
    Required,
}

impl FromStr for Landlock {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            "required" => Ok(Self::Required),
            _ => Err("must be auto, off or required"),
        }
    }
}

impl fmt::Display for Landlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Required => "required",
        })
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confined {
    /// The version of the kernel's interface that is in force; 0: nothing is restricted.
    pub abi: u32,
    /// For people: what is restricted, or why nothing is.
    pub detail: String,
}

/// It is required and cannot be.
#[derive(Debug, thiserror::Error)]
#[error("agent.landlock is required, but {0}")]
pub struct ConfineError(String);

/// What may be done where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Files and directories that may be read; `None`: all.
    pub read: Option<Vec<PathBuf>>,
    /// Why all.
    pub read_all: String,
    /// Directories that may be written to.
    pub write: Vec<PathBuf>,
}

impl Plan {
    /// What the settings need. Directories of volumes that are not there cannot be named to the kernel, nor can those
    /// behind links that may point elsewhere tomorrow, and a directory on which something is mounted later is not the one
    /// that was named (what is mounted below it belongs to it): then reading stays free.
    pub fn of(settings: &AgentSettings) -> Self {
        let serve = &settings.serve;
        let volumes = &serve.volumes;
        let roots = volumes.kubelet_pods.iter().chain(&volumes.host_roots);
        let mut read: Vec<PathBuf> = roots.cloned().collect();
        let is_steady = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|real| real == *path);
        let read_all = match read.iter().find(|path| !is_steady(path)) {
            _ if !volumes.explicit.is_empty() => {
                Some("something may be mounted on directories of volumes.paths later".to_owned())
            }
            Some(path) => Some(format!(
                "{} is not there, or a link, and may be elsewhere later",
                path.display()
            )),
            None => None,
        };
        let files = settings.tls.iter().flat_map(|tls| {
            let identity = tls.identity.iter();
            let identity = identity.flat_map(|(chain, key)| [chain, key]);
            std::iter::once(&tls.authorities).chain(identity)
        });
        // In a mounted Secret they are links beside what they point to.
        read.extend(files.filter_map(|file| file.parent().map(Path::to_owned)));
        read.extend(
            [&SYSTEM[..], &NAMES, &NAME_DIRECTORIES, &DEVICES]
                .concat()
                .iter()
                .map(PathBuf::from),
        );
        // For the names of functions in a message about a panic.
        read.extend(std::env::current_exe().ok());
        let mut write = vec![settings.state.clone()];
        write.extend(serve.restore_below.iter().cloned());
        Self {
            read: read_all.is_none().then_some(read),
            read_all: read_all.unwrap_or_default(),
            write,
        }
    }
}

/// Restricts this thread and all that it starts from now on: to be called before there are others. What cannot be
/// restricted is told, or an error where it is required.
pub fn confine(settings: &AgentSettings) -> Result<Confined, ConfineError> {
    let free = |detail: String| match settings.landlock {
        Landlock::Required => Err(ConfineError(detail)),
        _ => {
            tracing::info!(detail, "not restricted by Landlock");
            Ok(Confined { abi: 0, detail })
        }
    };
    if settings.landlock == Landlock::Off {
        return free("agent.landlock is off".to_owned());
    }
    if settings.serve.restore_below.is_empty() {
        let detail = "restores may write everywhere; name directories in restore.below, or one that is not there";
        return free(detail.to_owned());
    }
    let abi = landlock::abi();
    if abi < LEAST_ABI {
        return free(format!(
            "this kernel does not have Landlock, or an old one (version {abi}; {LEAST_ABI}, of Linux 5.19, is needed)"
        ));
    }
    let state = &settings.state;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state);
    if let Err(error) = made {
        return free(format!("{}: {error}", state.display()));
    }
    let plan = Plan::of(settings);
    match restrict(&plan, abi) {
        Ok(()) => {
            let detail = match &plan.read {
                Some(_) => "reads volumes, writes its state and below restore.below".to_owned(),
                None => format!(
                    "writes its state and below restore.below; reads everything: {}",
                    plan.read_all
                ),
            };
            tracing::info!(abi, detail, "restricted by Landlock");
            Ok(Confined { abi, detail })
        }
        Err((path, errno)) => free(format!("{path}: {errno}")),
    }
}

/// Puts this thread under the plan. What is not there is passed over: it cannot be opened then.
pub(crate) fn restrict(plan: &Plan, abi: u32) -> Result<(), (String, Errno)> {
    let of_kernel = |errno| ("the kernel".to_owned(), errno);
    let rules = landlock::Rules::new(abi).map_err(of_kernel)?;
    let add = |path: &Path, rights: u64| {
        let failed = |errno| (path.display().to_string(), errno);
        let fd = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        let rights = if is_directory { rights } else { rights & FILES };
        rules.add(&fd, rights).map_err(failed)
    };
    match &plan.read {
        Some(read) => read.iter().try_for_each(|path| add(path, landlock::READ))?,
        None => add(Path::new("/"), landlock::READ)?,
    }
    add(
        Path::new("/dev/null"),
        landlock::READ | landlock::WRITE_FILE,
    )?;
    for path in &plan.write {
        add(path, landlock::all(abi))?;
    }
    rules.restrict_this_thread().map_err(of_kernel)
}

#[cfg(test)]
mod tests;
