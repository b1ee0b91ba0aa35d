//! The journal of one volume: events taken in, and whether they may be believed.
//!
//! An epoch begins with a walk that watches each directory right before it lists it. It is whole as long as
//! every event since was told: no overflow, no watch that could not be made, the same mount, the same mounts
//! inside, the same rules. It is trusted once the files that had writers before it began are known too, and
//! then only by a run whose parent is the snapshot of the last accepted run. Whatever breaks it costs a walk,
//! with a reason, and never a backup.

use super::directories::{Directories, NoRoom};
use super::dirty::Dirty;
use super::open_files::{Listed, OpenFiles};
use super::room::Room;
use super::share::Share;
use super::source::{self, Event, Key, Kind, OpenError, Source, Told, WatchError, What};
use crate::beneath::{Dir, Root};
use crate::cancel::Cancel;
use crate::faults::{self, Fault};
use crate::mount::{FsClass, Identity};
use crate::some_paths::SomePaths;
use holdfast_format::id::SnapshotId;
use holdfast_format::path::RelPath;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a volume that had no room for its watches is walked before they are tried for again.
const LIMITED: Duration = Duration::from_secs(600);
/// A volume is walked at least this often: a write by another name in a directory that is not watched (outside
/// of the volume, or new and gone again) is told by no source.
const WALK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Files that were opened are probed between runs at most this often.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// One volume's journal; lives as long as its agent serves the volume.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Name of the volume.
    pub(crate) volume: String,
    /// Its root directory.
    pub(crate) path: PathBuf,
    pub(super) kinds: &'static [Kind],
    pub(super) room: Arc<Room>,
    pub(super) state: Mutex<State>,
    /// Files probed since others were left some time.
    pub(super) probed: AtomicUsize,
    /// The volume is served no more, or has another journal: nothing of it may stay open for this one.
    pub(super) gone: Cancel,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) source: Option<Arc<dyn Source>>,
    pub(super) ground: Option<Ground>,
    /// Why a walk is needed; `None`: the epoch is whole.
    pub(super) broken: Option<&'static str>,
    /// Whether the files that had writers before the epoch began are known.
    pub(super) seeded: bool,
    /// Counts walks and epochs.
    pub(super) walk: u32,
    /// The walk that the epoch began with.
    pub(super) epoch: u32,
    /// The walk that was accepted last.
    pub(super) accepted: u32,
    pub(super) directories: Directories,
    pub(super) dirty: Dirty,
    pub(super) open: OpenFiles,
    pub(super) last: Option<Last>,
    pub(super) changes: Changes,
    /// When a walk was accepted last.
    pub(super) walked: Option<Instant>,
    /// No watches are tried for before this.
    limited: Option<Instant>,
    /// When files that were opened were probed last.
    tidied: Option<Instant>,
    /// Of what all volumes' sets may hold.
    share: Share,
}

/// What the events are about; another ground, another epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) identity: Identity,
    /// Mounts at and below the root.
    pub(super) mounts: u64,
    /// Rules of what is left out.
    pub(super) rules: u64,
}

/// What the last accepted run leaves behind.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) snapshot: SnapshotId,
    /// When it began, by the clock of the filesystem.
    pub(super) started_ns: i64,
    /// What was born later is in no index.
    pub(super) known_ns: i64,
    pub(super) again: Again,
}

/// Paths that a run must look at though nothing is told of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Again {
    /// Their stamps are not to be believed.
    pub(crate) unsettled: SomePaths,
    /// They, or what lies below them, could not be read.
    pub(crate) unknown: SomePaths,
    /// They have names outside of what is watched.
    pub(crate) elsewhere: SomePaths,
}

/// When the volume changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changes {
    /// The oldest change that no accepted run began after.
    pub(super) first: Option<Instant>,
    /// The newest change.
    pub(super) newest: Option<Instant>,
}

impl Journal {
    pub(super) fn new(
        volume: String,
        path: PathBuf,
        kinds: &'static [Kind],
        room: Arc<Room>,
        share: Share,
    ) -> Arc<Self> {
        Arc::new_cyclic(|journal| {
            let directories = Directories::new(room.clone(), journal.clone());
            let state = State {
                source: None,
                ground: None,
                broken: Some("FirstRun"),
                seeded: false,
                walk: 0,
                epoch: 0,
                accepted: 0,
                directories,
                dirty: Dirty::default(),
                open: OpenFiles::default(),
                last: None,
                changes: Changes::default(),
                walked: None,
                limited: None,
                tidied: None,
                share,
            };
            Self {
                volume,
                path,
                kinds,
                room,
                state: Mutex::new(state),
                probed: AtomicUsize::new(0),
                gone: Cancel::new(),
            }
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic in a reader of events leaves a set that may lack some.
        self.state
            .lock()
            .unwrap_or_else(|poisoned: PoisonError<_>| {
                let mut state: MutexGuard<'_, State> = poisoned.into_inner();
                state.break_for("Internal");
                state
            })
    }

    /// Takes in what is queued: a barrier. Everything that was done before this call is known after it.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        state.drain(&self.volume);
        let entries = state.dirty.entries() + state.open.entries();
        if !state.share.hold(entries) {
            state.break_for("TooManyChanges");
            state.dirty.give_up("TooManyChanges");
            state.open = OpenFiles::default();
            state.share.hold(0);
        }
    }

    /// Where events come from.
    pub(super) fn source(&self) -> Option<Arc<dyn Source>> {
        self.state().source.clone()
    }

    /// Whether so many files were opened that those which were closed should be forgotten before the next
    /// run; true once in a while only.
    pub(super) fn wants_tidying(&self) -> bool {
        let mut state = self.state();
        let due = state.tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY);
        let wants = due && state.seeded && state.open.is_crowded();
        if wants {
            state.tidied = Some(Instant::now());
        }
        wants
    }

    /// Whether it holds so many inodes that those which exist no more should be forgotten.
    pub(super) fn wants_forgetting(&self) -> bool {
        self.state().dirty.is_crowded()
    }

    /// Gives up what is watched, if the volume still has too much of the room.
    pub(super) fn give_way(&self) {
        let mut state = self.state();
        if state.directories.is_too_much() {
            tracing::warn!(volume = %self.volume, "others need the room of what is watched here");
            state.give_way();
        }
    }

    /// Watches a directory that is about to be listed by this walk. A failure breaks the epoch.
    pub(super) fn watch(&self, walk: u32, path: &RelPath, dir: &Dir) {
        use rustix::fd::AsFd;
        let source = {
            let state = self.state();
            if state.broken.is_some() {
                return; // The epoch has ended already: the walk goes on without.
            }
            match &state.source {
                Some(source) => source.clone(),
                None => return,
            }
        };
        let watched = source.watch(dir.as_fd());
        let mut state = self.state();
        let is_same = |now: &Arc<dyn Source>| Arc::ptr_eq(now, &source);
        if !state.source.as_ref().is_some_and(is_same) {
            return; // It was given up meanwhile: the key is of no use.
        }
        match watched {
            Ok(key) => match state.directories.add(key.clone(), path, walk) {
                Err(NoRoom) => state.give_way(),
                Ok(added) => {
                    // Files in it may have been opened before it was watched, or it was elsewhere when its files
                    // were to be probed. Until the epoch is trusted, what is unprobed is probed.
                    if added.unprobed && state.seeded {
                        state.suspect_all(&key);
                    }
                    drop(state);
                    if added.crowded {
                        self.room.make();
                    }
                }
            },
            // It is listed next, and found to be gone.
            Err(WatchError::Gone) => {}
            Err(error) => {
                if state.broken.is_none() {
                    tracing::warn!(volume = %self.volume, %path, %error, "a directory cannot be watched");
                }
                match error {
                    WatchError::Limit(_) => state.give_way(),
                    WatchError::Unsupported(_) => state.break_for("WatchUnsupported"),
                    _ => state.break_for("WatchFailed"),
                }
            }
        }
    }

    /// Has a source that watches this ground, or a reason why not.
    pub(super) fn stand_on(&self, root: &Root, ground: Ground) -> Result<(), &'static str> {
        use rustix::fd::AsFd;
        if root.is_distrusted() {
            return Err("FilesystemDistrusted");
        }
        if !matches!(root.class(), FsClass::Trusted | FsClass::Memory) {
            return Err("FilesystemNotWatched");
        }
        let mut state = self.state();
        if state.ground.as_ref() != Some(&ground) {
            let same_mount = state
                .ground
                .as_ref()
                .is_some_and(|before| before.identity == ground.identity);
            match &state.ground {
                None => {}
                Some(before) if before.identity != ground.identity => {
                    state.break_for("MountChanged")
                }
                Some(before) if before.mounts != ground.mounts => state.break_for("MountsChanged"),
                Some(_) => state.break_for("RulesChanged"),
            }
            if !same_mount {
                // The old watches, if they live, are of another mount.
                state.source = None;
            }
            state.ground = Some(ground);
        }
        if state.broken == Some("WatchLimit") {
            // What was watched is of use to others; there may be room again later.
            state.source = None;
            state.directories.clear();
            let until = *state
                .limited
                .get_or_insert_with(|| Instant::now() + LIMITED);
            if Instant::now() < until {
                return Err("WatchLimit");
            }
            state.limited = None;
        }
        if state.source.is_none() {
            state.directories.clear();
            state.break_for("AgentStarted");
            let top = root.top().map_err(|_| "WatchFailed")?;
            match source::open(top.as_fd(), self.kinds) {
                Ok((source, _)) => state.source = Some(source),
                Err(error) => {
                    tracing::warn!(volume = %self.volume, %error, "the volume is not watched");
                    return Err(match error {
                        OpenError::Limit { .. } => "InstanceLimit",
                        OpenError::Refused { .. } => "WatchUnsupported",
                    });
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// The epoch ends; the first reason stays.
    pub(super) fn break_for(&mut self, reason: &'static str) {
        self.broken = Some(self.broken.unwrap_or(reason));
        self.seeded = false;
    }

    /// There is no room: what is watched is of use to others.
    fn give_way(&mut self) {
        self.break_for("WatchLimit");
        self.source = None;
        self.directories.clear();
    }

    /// Any file directly in a directory may have writers.
    fn suspect_all(&mut self, key: &Key) {
        match self.open.suspect_all(key) {
            Ok(()) => self.directories.probed(key),
            Err(_) => self.break_for("TooManyOpenFiles"),
        }
    }

    /// The files that may have writers.
    pub(super) fn open_files(&self) -> Vec<Listed> {
        match faults::on(Fault::NoOpenFiles) {
            true => Vec::new(),
            false => self.open.list(),
        }
    }

    /// Whether it is time for a walk, whatever was told: it finds what no source tells.
    pub(super) fn is_walk_due(&self) -> bool {
        self.walked.is_none_or(|at| at.elapsed() >= WALK_EVERY)
    }

    /// A new epoch begins with this walk: nothing is known, everything will be looked at.
    pub(super) fn begin_epoch(&mut self, walk: u32) {
        self.broken = None;
        self.seeded = false;
        self.epoch = walk;
        self.directories.begin();
        self.open = OpenFiles::default();
        self.last = None;
    }

    pub(super) fn drain(&mut self, volume: &str) {
        let Some(source) = self.source.clone() else {
            return;
        };
        let kind = source.kind();
        let drained = source.drain(&mut |told| match told {
            Told::Event(event) => self.take_in(&event, kind),
            Told::Overflow if faults::on(Fault::IgnoreOverflow) => {}
            Told::Overflow => self.break_for("Overflow"),
            Told::Unmounted => self.break_for("Unmounted"),
        });
        if let Err(error) = drained {
            tracing::error!(volume, %error, "the kernel's events cannot be read");
            self.break_for("EventsUnreadable");
            self.source = None;
        }
    }

    fn take_in(&mut self, event: &Event<'_>, kind: Kind) {
        if event.what.any(What::SELF_GONE) && event.name.is_empty() {
            self.directories.ended(&event.dir);
            self.open.directory_gone(&event.dir);
        }
        let by_others = !event.own || !kind.tells_own();
        let opened = event.what.any(What::OPEN.and(What::CLOSE_NOWRITE)) && by_others;
        // What came may have been open before, under another name or none.
        let came = event.what.any(What::CREATE.and(What::MOVED_TO));
        if (opened || came) && !event.directory && !event.name.is_empty() {
            let what = match came {
                true => event.what.and(What::OPEN),
                false => event.what,
            };
            let target = event.target.clone();
            match self.open.take_in(&event.dir, event.name, what, target) {
                Ok(None) => {}
                Ok(Some(displaced)) => {
                    self.dirty.add_target(displaced);
                }
                Err(_) => self.break_for("TooManyOpenFiles"),
            }
        }
        if self.dirty.take_in(event) {
            let now = Instant::now();
            self.changes.first.get_or_insert(now);
            self.changes.newest = Some(now);
        }
        if let Some(reason) = self.dirty.everything {
            self.break_for(reason);
        }
    }
}
