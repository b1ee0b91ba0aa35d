//! One run's use of a volume's journal: what it takes out is given back unless the run is accepted.

use super::dirty::{self, Dirty};
use super::epoch::{Again, Changes, Ground, Journal, Last};
use super::open_files::Listed;
use super::plan::{NoPlan, Planner};
use super::source::{self, Handle, Key, Kind};
use crate::beneath::Root;
use crate::index::Index;
use crate::mount::{self, Identity};
use crate::rules::Rules;
use crate::scan::{BeforeListing, ScanOptions, Targets};
use holdfast_format::id::SnapshotId;
use holdfast_format::path::RelPath;
use rustix::fd::AsFd;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a run says of itself when it begins.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    /// The volume's root.
    pub(crate) root: &'a Root,
    /// Its mount.
    pub(crate) identity: Identity,
    /// What is left out.
    pub(crate) rules: &'a Rules,
    /// The snapshot that the index describes with stamps, and that the run builds on; `None`: another, or
    /// none.
    pub(crate) parent: Option<SnapshotId>,
    /// When it began, by the clock of the filesystem.
    pub(crate) started_ns: i64,
}

/// A run between its beginning and its end.
#[derive(Debug)]
pub(crate) struct Turn {
    journal: Arc<Journal>,
    walk: u32,
    started_ns: i64,
    /// Why it walks the volume; `None`: it looks at what changed.
    reason: Option<&'static str>,
    watches: bool,
    taken: Mutex<Option<Taken>>,
}

/// What a run took out of the journal.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(super) dirty: Dirty,
    /// The changes by directory; `None`: the directory is gone.
    pub(super) directories: Vec<(Option<RelPath>, dirty::Changes)>,
    keys: Vec<Key>,
    /// Files that may have writers, by directory; `None`: it is gone.
    pub(super) open: Vec<(Option<RelPath>, Listed)>,
    pub(super) unsettled: Vec<RelPath>,
    pub(super) unknown: Vec<RelPath>,
    pub(super) elsewhere: Vec<RelPath>,
    known_ns: i64,
    changes: Changes,
    /// Names that a target was found under.
    suspects: Vec<RelPath>,
    /// Paths that were not there.
    absent: Vec<RelPath>,
}

impl Journal {
    /// A run begins: whatever was done before this is known to it.
    pub(crate) fn begin(self: &Arc<Self>, run: &Beginning<'_>) -> Turn {
        let ground = Ground {
            identity: run.identity,
            mounts: mounts_below(&self.path),
            rules: run.rules.fingerprint(),
        };
        let mut reason = self.stand_on(run.root, ground).err();
        self.drain();
        let mut state = self.state();
        state.walk += 1;
        let walk = state.walk;
        let watches = reason.is_none();
        if let Some(reason) = state.dirty.everything {
            // Which inodes had other names is not known any more.
            state.break_for(reason);
        }
        let believed = state.last.as_ref().map(|last| last.snapshot);
        reason = reason
            .or(state.broken)
            .or((!state.seeded).then_some("Seeding"))
            .or(state.is_walk_due().then_some("WalkDue"))
            .or((believed.is_none() || believed != run.parent).then_some("OtherParent"))
            .or(state
                .last
                .as_ref()
                .and_then(|last| last.again.is_too_much()));
        let is_hidden = reason.is_some() && state.hides_unseen(|dirty| dirty.may_hide());
        let taken = match reason {
            None => {
                let (taken, whole) = state.take();
                if !whole {
                    // There may be directories of which nothing is told.
                    reason = Some("UnknownDirectory");
                    state.break_for("UnknownDirectory");
                }
                taken
            }
            // The walk will see it all.
            Some(_) => Taken {
                dirty: std::mem::take(&mut state.dirty),
                changes: std::mem::take(&mut state.changes),
                ..Taken::default()
            },
        };
        if reason.is_some() && watches && (state.broken.is_some() || is_hidden) {
            state.begin_epoch(walk);
        }
        drop(state);
        Turn {
            journal: self.clone(),
            walk,
            started_ns: run.started_ns,
            reason,
            watches,
            taken: Mutex::new(Some(taken)),
        }
    }
}

impl super::epoch::State {
    /// Whether a walk would lose what may be writing a file by a name that came and went: without targets nobody can
    /// say which file that was, so all have to be probed.
    fn hides_unseen(&self, may_hide: impl FnOnce(&Dirty) -> bool) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(|source| source.kind() != Kind::Fanotify) && may_hide(&self.dirty)
    }

    /// Takes what a run has to look at; whether it is known where all of it lies.
    fn take(&mut self) -> (Taken, bool) {
        let mut taken = Taken {
            changes: std::mem::take(&mut self.changes),
            ..Taken::default()
        };
        let mut whole = true;
        let mut dirty = std::mem::take(&mut self.dirty);
        for (key, changes) in std::mem::take(&mut dirty.directories) {
            // A directory tells of itself before it is watched; what came is told by its parent.
            let of_itself = changes.names.is_empty() && !changes.all;
            whole &= self.directories.path(&key).is_some() || of_itself;
            let path = self.directories.path(&key).flatten();
            taken.directories.push((path, changes));
            taken.keys.push(key);
        }
        taken.dirty = dirty;
        for listed in self.open_files() {
            whole &= self.directories.path(&listed.key).is_some();
            let path = self.directories.path(&listed.key).flatten();
            taken.open.push((path, listed));
        }
        if let Some(last) = &self.last {
            let all = |paths: &crate::some_paths::SomePaths| paths.iter().cloned().collect();
            taken.unsettled = all(&last.again.unsettled);
            taken.unknown = all(&last.again.unknown);
            taken.elsewhere = all(&last.again.elsewhere);
            taken.known_ns = last.known_ns;
        }
        (taken, whole)
    }
}

impl Taken {
    /// Whether it has names that came and went.
    fn may_hide(&self) -> bool {
        let mut changes = self.directories.iter().map(|(_, changes)| changes);
        self.dirty.may_hide() || changes.any(dirty::Changes::may_hide)
    }

    /// Inodes that something happened to under names which are not theirs now: those that a walk does not find out.
    fn hidden(&self, root: &Root, path_of: impl Fn(&Key) -> Option<RelPath>) -> Vec<Handle> {
        let mut hidden: Vec<Handle> = self.dirty.targets.iter().cloned().collect();
        let told = self.dirty.directories.iter();
        let planned = self.keys.iter().zip(self.directories.iter());
        let planned = planned.map(|(key, (_, changes))| (key, changes));
        for (key, changes) in told.chain(planned) {
            let dir = path_of(key).and_then(|path| root.dir(&path).ok());
            for (name, what) in &changes.names {
                let Some(target) = what.target.as_ref().filter(|_| !what.directory) else {
                    continue;
                };
                let there = dir.as_ref().map(|dir| source::handle_of(dir.as_fd(), name));
                if !there.is_some_and(|there| there.as_ref() == Ok(target)) {
                    hidden.push(target.clone());
                }
            }
        }
        hidden
    }

    /// As it was taken out.
    fn into_dirty(self) -> Dirty {
        let mut dirty = self.dirty;
        let changes = self.directories.into_iter().map(|(_, changes)| changes);
        dirty.directories = self.keys.into_iter().zip(changes).collect();
        dirty.count_names();
        dirty
    }
}

impl Again {
    /// Whether there was more than could be kept.
    fn is_too_much(&self) -> Option<&'static str> {
        let lists = [&self.unsettled, &self.unknown, &self.elsewhere];
        let complete = lists.iter().all(|list| list.complete().is_some());
        (!complete).then_some("TooManyUnsettled")
    }
}

impl Turn {
    /// Why the run walks the volume; `None`: it looks at what changed.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// What is done with each directory before it is listed.
    pub(crate) fn before_listing(&self) -> Option<BeforeListing> {
        let (journal, walk) = (self.journal.clone(), self.walk);
        let watch = move |path: &RelPath, dir: &crate::beneath::Dir| journal.watch(walk, path, dir);
        self.watches.then(|| BeforeListing::new(watch))
    }

    /// The paths to look at; `None`: the volume must be walked, as `reason` says then.
    pub(crate) fn targets(
        &mut self,
        root: &Arc<Root>,
        rules: &Rules,
        index: &Index,
        options: ScanOptions,
    ) -> crate::Result<Option<Targets>> {
        let taken = self.taken.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = taken else {
            return Ok(None);
        };
        if self.reason.is_some() {
            return Ok(None);
        }
        let kind = match &self.journal.state().source {
            Some(source) => source.kind(),
            None => return Ok(None),
        };
        let planned = Planner::new(root, rules, kind, options, index, taken.known_ns);
        match planned.and_then(|planner| planner.plan(taken)) {
            Ok((targets, suspects)) => {
                taken.suspects = suspects;
                Ok(Some(targets))
            }
            Err(NoPlan::Walk(reason)) => {
                self.reason = Some(reason);
                let mut state = self.journal.state();
                if state.hides_unseen(|_| taken.may_hide()) {
                    state.begin_epoch(self.walk);
                }
                Ok(None)
            }
            Err(NoPlan::Failed(error)) => Err(error),
        }
    }

    fn take(&self) -> Option<Taken> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.take()
    }

    /// Whose.
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Of paths that were not there: those that were moved away since the run began. They may be in the
    /// snapshot under no name.
    pub(crate) fn moved_away(&self, absent: Vec<RelPath>) -> Vec<RelPath> {
        if absent.is_empty() || self.reason.is_some() {
            return Vec::new();
        }
        self.journal.drain();
        let state = self.journal.state();
        let mut moved = HashSet::new();
        for (key, changes) in &state.dirty.directories {
            if let Some(Some(directory)) = state.directories.path(key) {
                let names = changes.names.iter().filter(|(_, what)| what.moved_away);
                moved.extend(names.filter_map(|(name, _)| directory.join(name).ok()));
            }
        }
        drop(state);
        let found = absent.iter().filter(|path| moved.contains(path));
        let found = found.cloned().collect();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = taken.as_mut() {
            taken.absent = absent;
        }
        found
    }

    /// The run's snapshot is durable: what it took is protected.
    pub(crate) fn accepted(
        &self,
        snapshot: SnapshotId,
        mut again: Again,
        looked_at: &dyn Fn(&RelPath) -> bool,
    ) {
        let journal = self.journal.clone();
        let taken = self.take().unwrap_or_default();
        let hidden = self.hidden(&taken);
        let mut state = journal.state();
        let mut ended = Vec::new();
        // The next run finds out what they are, and who may be writing them.
        for target in hidden {
            state.dirty.add_target(target);
        }
        for key in state.directories.forget_gone() {
            state.open.directory_gone(&key);
        }
        if self.reason.is_some() {
            state.walked = Some(Instant::now());
            // A later walk in the same epoch has come by everything but what the rules leave out.
            if self.watches && state.broken.is_none() && state.epoch == self.walk {
                ended = state.directories.only(self.walk);
            }
        } else {
            ended = state.directories.left(&taken.absent, self.walk);
            if let Some(last) = &state.last {
                let still = last.again.elsewhere.iter().filter(|path| !looked_at(path));
                still.for_each(|path| again.elsewhere.push(path.clone()));
            }
        }
        state.last = Some(Last {
            snapshot,
            started_ns: self.started_ns,
            known_ns: crate::sys::realtime_ns(),
            again,
        });
        let source = state.source.clone();
        drop(state);
        if let Some(source) = source {
            end_watches(&journal.path, source.as_ref(), &ended);
            journal.suspect_all(&taken.suspects);
        }
    }
}

impl Turn {
    /// What a walk within an epoch would lose. One that begins an epoch loses nothing: every file is probed after it.
    fn hidden(&self, taken: &Taken) -> Vec<Handle> {
        let journal = &self.journal;
        let is_within = {
            let state = journal.state();
            self.reason.is_some() && state.broken.is_none() && state.epoch != self.walk
        };
        if !is_within {
            return Vec::new();
        }
        match Root::open(&journal.path) {
            Ok(root) => taken.hidden(&root, |key| journal.state().directories.path(key).flatten()),
            Err(_) => {
                journal.state().break_for("DirectoryUnreadable");
                Vec::new()
            }
        }
    }
}

impl Drop for Turn {
    /// A run that was not accepted has protected nothing.
    fn drop(&mut self) {
        let Some(taken) = self.take() else {
            return;
        };
        let mut state = self.journal.state();
        if let Some(first) = taken.changes.first {
            let earliest = state.changes.first.map_or(first, |later| later.min(first));
            state.changes.first = Some(earliest);
            state.changes.newest = state.changes.newest.or(taken.changes.newest);
        }
        if self.reason.is_some() {
            // What the walk saw is nowhere: the next run walks too.
            state.break_for("RunFailed");
        } else {
            state.dirty.put_back(taken.into_dirty());
        }
    }
}

/// Ends the watches on directories that have left the volume and live on.
fn end_watches(path: &Path, source: &dyn source::Source, ended: &[Key]) {
    if ended.is_empty() {
        return;
    }
    let top = Root::open(path).ok().and_then(|root| root.top().ok());
    for key in ended {
        let dir = match (key, &top) {
            (Key::Handle(handle), Some(top)) => source::find(top.as_fd(), handle).ok().flatten(),
            _ => None,
        };
        source.unwatch(key, dir.as_ref().map(AsFd::as_fd));
    }
}

/// A number that is another when anything is mounted or unmounted at or below a directory.
fn mounts_below(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    match mount::mounts() {
        Ok(mounts) => {
            for mount in mounts.iter().filter(|mount| mount.point.starts_with(path)) {
                (mount.id, &mount.device, &mount.root, &mount.point).hash(&mut hasher);
            }
        }
        // Never the same twice.
        Err(_) => crate::sys::monotonic_ns().hash(&mut hasher),
    }
    hasher.finish()
}
