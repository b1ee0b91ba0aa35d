//! Says within a second that the volumes of this node may have changed.
//!
//! Watched are the mount table, the kubelet's pods directory with the levels below it that root owns (a
//! pod, its `volumes`, a plugin's directory, what lies beside a CSI mount), and the directories that
//! explicit volumes lie in; nothing in a volume, and nothing behind a symlink. An event, an error, a loss
//! of events all mean the same: look again. What is there only the look decides, and it is made at
//! intervals too, so that whatever is missed here costs time and nothing else.

use super::VolumeSettings;
use super::kubelet::is_on_the_way;
use crate::mount::MountWatch;
use crate::stat::{MASK, Stat};
use futures::FutureExt;
use holdfast_format::entry::Kind;
use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, statx};
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use walkdir::WalkDir;

/// What belongs together mostly comes together.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// Between looks that events ask for, at least; and so many times as long as the last look took, so that a
/// tenant who changes things all the time cannot keep the agent busy.
const GAP: Duration = Duration::from_secs(1);
const GAP_TIMES: u32 = 20;
/// Directories that appear while watches are set are watched in another round; the next look goes on.
const ROUNDS: usize = 8;

/// Where hints arrive.
#[derive(Debug)]
pub struct Hints {
    shared: Arc<Shared>,
    /// Without it, what is mounted is seen by the look at intervals.
    #[allow(dead_code)] // it works until it is dropped
    mounts: Option<MountThread>,
    due: Option<Instant>,
    not_before: Instant,
}

/// Sets the watches. One look uses it at a time.
#[derive(Debug)]
pub struct VolumeWatch {
    settings: VolumeSettings,
    shared: Arc<Shared>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Identity>,
    warned: bool,
}

#[derive(Debug, Default)]
struct Shared {
    came: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    wanted: Wanted,
    /// Events were lost, or the watcher failed: nobody knows what it still watches.
    broken: bool,
}

/// Directories, and the names in them that matter; all do where there is no list.
type Wanted = BTreeMap<PathBuf, Option<HashSet<OsString>>>;

/// Tells a directory from one that is made in its place. Where the filesystem has no birth times one with a
/// number that is used again passes for the old one, until a look at an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    dev: u64,
    ino: u64,
    born_ns: i64,
}

/// Watches for the volumes of these settings. The first `VolumeWatch::set` begins it.
pub fn watch(settings: VolumeSettings) -> (VolumeWatch, Hints) {
    let shared = Arc::new(Shared::default());
    let mounts = MountThread::start(shared.clone())
        .inspect_err(|error| tracing::warn!(%error, "the mount table is not watched"));
    let hints = Hints {
        shared: shared.clone(),
        mounts: mounts.ok(),
        due: None,
        not_before: Instant::now(),
    };
    let watch = VolumeWatch {
        settings,
        shared,
        watcher: None,
        watched: BTreeMap::new(),
        warned: false,
    };
    (watch, hints)
}

impl Hints {
    /// Returns when it is time to look again because something may have changed. What came is not lost when
    /// this is dropped before.
    pub async fn changed(&mut self) {
        if self.due.is_none() {
            self.shared.came.notified().await;
        }
        let soon = Instant::now() + DEBOUNCE;
        let due = *self.due.get_or_insert(self.not_before.max(soon));
        tokio::time::sleep_until(due).await;
        self.due = None;
        // What came meanwhile the look sees too.
        let _ = self.shared.came.notified().now_or_never();
    }

    /// A look was made, and took so long.
    pub fn looked(&mut self, took: Duration) {
        self.not_before = Instant::now() + GAP.max(took * GAP_TIMES);
    }
}

/// Waits for changes of the mount table; ends when this is dropped.
#[derive(Debug)]
struct MountThread {
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl MountThread {
    fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let mut mounts = MountWatch::new()?;
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let ended = end.clone();
        let wait = move || {
            loop {
                match mounts.wait(ended.as_fd()) {
                    Ok(true) => shared.came.notify_one(),
                    Ok(false) => return,
                    Err(error) => {
                        return tracing::warn!(%error, "the mount table is not watched any more");
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("mounts".to_owned())
            .spawn(wait)?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for MountThread {
    fn drop(&mut self) {
        let ended = rustix::io::write(&self.end, &1u64.to_ne_bytes());
        if let (Ok(_), Some(thread)) = (ended, self.thread.take()) {
            // Its panic was told where it happened.
            let _ = thread.join();
        }
    }
}

impl VolumeWatch {
    /// Watches what there is to be watched now: a look that follows sees all that no event will tell of.
    /// Blocks.
    pub fn set(&mut self) {
        for _ in 0..ROUNDS {
            match self.watch(wanted(&self.settings)) {
                Ok(0) => {
                    self.warned = false;
                    return;
                }
                Ok(_) => {}
                Err(error) => {
                    if !self.warned {
                        tracing::warn!(
                            %error,
                            "not all places where volumes appear can be watched (limits: \
                             fs.inotify.max_user_watches, max_user_instances); some are seen only by the \
                             look at intervals"
                        );
                    }
                    self.warned = true;
                    return;
                }
            }
        }
    }

    /// Makes these the watched directories; how many of them are new.
    fn watch(&mut self, wanted: Wanted) -> notify::Result<usize> {
        let paths: Vec<PathBuf> = wanted.keys().cloned().collect();
        let broken = {
            let mut state = self.shared.state();
            state.wanted = wanted;
            std::mem::take(&mut state.broken)
        };
        // Taken out: if the watcher's thread has died the calls below panic, and the next look makes another.
        let mut watcher = match self.watcher.take().filter(|_| !broken) {
            Some(watcher) => watcher,
            None => {
                self.watched.clear();
                self.shared.clone().watcher()?
            }
        };
        self.watched.retain(|path, _| {
            let stays = paths.binary_search(path).is_ok();
            if !stays {
                // The kernel has let go of what is gone.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        let (mut new, mut failed) = (0, None);
        for path in paths {
            let Some(identity) = Identity::of(&path) else {
                continue;
            };
            match self.watched.remove(&path) {
                Some(known) if known == identity => {}
                known => {
                    if known.is_some() {
                        let _ = watcher.unwatch(&path);
                    }
                    match watcher.watch(&path, RecursiveMode::NonRecursive) {
                        Ok(()) => new += 1,
                        Err(error) if is_missing(&error) => continue,
                        Err(error) => {
                            failed = Some(error);
                            continue;
                        }
                    }
                }
            }
            self.watched.insert(path, identity);
        }
        self.watcher = Some(watcher);
        failed.map_or(Ok(new), Err)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watcher(self: Arc<Self>) -> notify::Result<RecommendedWatcher> {
        let config = Config::default().with_follow_symlinks(false);
        RecommendedWatcher::new(move |event| self.take(event), config)
    }

    fn take(&self, event: notify::Result<Event>) {
        let mut state = self.state();
        let hint = match &event {
            Err(_) => true,
            Ok(event) => event.need_rescan() || matters(event, &state.wanted),
        };
        state.broken |= event.map_or(true, |event| event.need_rescan());
        drop(state);
        if hint {
            self.came.notify_one();
        }
    }
}

/// Whether an event is a reason to look.
fn matters(event: &Event, wanted: &Wanted) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        // Our own looks open and list what they watch.
        EventKind::Access(_) => return false,
        _ => {}
    }
    let named = |path: &PathBuf| match (
        path.parent().and_then(|at| wanted.get(at)),
        path.file_name(),
    ) {
        (Some(Some(names)), Some(name)) => names.contains(name) || wanted.contains_key(path),
        _ => true,
    };
    event.paths.is_empty() || event.paths.iter().any(named)
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The directories to be watched that are there now.
fn wanted(settings: &VolumeSettings) -> Wanted {
    let mut wanted = Wanted::new();
    if let Some(pods) = &settings.kubelet_pods {
        add_name(&mut wanted, pods);
        if let Ok(pods) = std::fs::canonicalize(pods) {
            add_name(&mut wanted, &pods);
            let below = WalkDir::new(&pods)
                .max_depth(4)
                .into_iter()
                .filter_entry(|entry| match entry.depth() {
                    0 => true,
                    // A CSI volume has its data beside its mount; what others have there is the tenant's.
                    4 => is_on_the_way(entry) && entry.file_type().is_dir() && is_csi(entry.path()),
                    _ => is_on_the_way(entry),
                });
            wanted.extend(below.flatten().map(|entry| (entry.into_path(), None)));
        }
    }
    for volume in &settings.explicit {
        add_name(&mut wanted, &volume.path);
        if let Ok(path) = std::fs::canonicalize(&volume.path) {
            add_name(&mut wanted, &path);
        }
    }
    wanted
}

fn is_csi(path: &Path) -> bool {
    path.parent().and_then(Path::file_name) == Some(OsStr::new("kubernetes.io~csi"))
}

/// Waits for this name in its directory; where that is missing, for the directory in the one above.
fn add_name(wanted: &mut Wanted, path: &Path) {
    let Ok(path) = std::path::absolute(path) else {
        return;
    };
    for path in path.ancestors() {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        if let Ok(parent) = std::fs::canonicalize(parent) {
            let names = wanted.entry(parent).or_insert_with(|| Some(HashSet::new()));
            if let Some(names) = names {
                names.insert(name.to_owned());
            }
            return;
        }
    }
}

impl Identity {
    /// Of a directory; nothing where there is none.
    fn of(path: &Path) -> Option<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = Stat::from(&statx(CWD, path, flags, MASK).ok()?);
        (stat.kind == Kind::Directory).then_some(Self {
            dev: stat.dev,
            ino: stat.ino,
            born_ns: stat.btime_ns,
        })
    }
}

#[cfg(test)]
mod tests;
