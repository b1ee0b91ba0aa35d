//! From what was told to what a run looks at: every path that may differ from the index, and no walk.
//!
//! Guarantees: a path that is not among the targets is as the index has it, if the epoch is whole and the
//! index is that of the last accepted run. Where that cannot be had (events about an unknown directory, an
//! inode that cannot be found again, most of the volume changed), the answer is a walk, with the reason.
//!
//! An inode with several names is one: if one of them is looked at, all are. Names that the index has of
//! inodes with one name are found by going through the index, once for all.

mod searches;

use super::dirty::{Changes, Name};
use super::source::{self, Handle, Kind};
use super::turn::Taken;
use crate::Error;
use crate::beneath::{Dir, Errno, Root};
use crate::index::{Index, IndexError, Lookup, Record, trust};
use crate::rules::Rules;
use crate::scan::{Known, ScanOptions, Scanned, Scanner, Targets};
use crate::stat::{Stat, is_unchanged};
use holdfast_format::entry::Kind as EntryKind;
use holdfast_format::path::RelPath;
use holdfast_format::stamp::Host;
use rustix::fd::AsFd;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Single paths of one run; beyond it a walk is as good.
const MOST_TARGETS: usize = 250_000;
/// New entries below directories that came, beyond which a walk is as good, at least.
const MOST_NEW: u64 = 50_000;
/// Times of birth come from a clock that lags by up to a tick.
const LAG_NS: i64 = 20_000_000;

/// Why there are no targets.
#[derive(Debug)]
pub(crate) enum NoPlan {
    /// The volume must be walked.
    Walk(&'static str),
    /// The run cannot go on.
    Failed(Error),
}

impl From<IndexError> for NoPlan {
    fn from(error: IndexError) -> Self {
        Self::Failed(error.into())
    }
}

type Result<T> = std::result::Result<T, NoPlan>;

/// What is not known of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// What it holds.
    Content,
    /// And who may be writing it.
    Writers,
}

/// Finds the targets of one run.
pub(super) struct Planner<'a> {
    root: Arc<Root>,
    rules: &'a Rules,
    kind: Kind,
    options: ScanOptions,
    index: &'a Index,
    lookup: Lookup,
    /// What was born later is in no index.
    known_ns: i64,
    targets: Targets,
    /// The directory that was used last.
    open: Option<(RelPath, Option<Arc<Dir>>)>,
    /// Inodes with one name that were looked at under it.
    seen: HashSet<u64>,
    /// Inodes to which something happened under names that are not theirs now.
    hidden: HashMap<Handle, Doubt>,
    /// Inodes whose names must be searched for.
    search: HashSet<u64>,
    /// Names that stand for inodes found otherwise: they may have writers.
    pub(super) suspects: Vec<RelPath>,
    new_count: u64,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        root: &Arc<Root>,
        rules: &'a Rules,
        kind: Kind,
        options: ScanOptions,
        index: &'a Index,
        known_ns: i64,
    ) -> Result<Self> {
        Ok(Self {
            root: root.clone(),
            rules,
            kind,
            options,
            index,
            lookup: index.lookup()?,
            known_ns: known_ns.saturating_add(LAG_NS),
            targets: Targets::default(),
            open: None,
            seen: HashSet::new(),
            hidden: HashMap::new(),
            search: HashSet::new(),
            suspects: Vec::new(),
            new_count: 0,
        })
    }

    /// The targets of what was taken.
    pub(super) fn plan(mut self, taken: &Taken) -> Result<(Targets, Vec<RelPath>)> {
        if let Some(reason) = taken.dirty.everything {
            return Err(NoPlan::Walk(reason));
        }
        for (path, changes) in &taken.directories {
            match path {
                Some(path) => self.directory(path, changes)?,
                // Gone: what stood there stands elsewhere, or nowhere.
                None => {
                    if self.kind == Kind::Inotify && changes.may_hide() {
                        return Err(NoPlan::Walk("HiddenLink"));
                    }
                    let names = changes.names.values();
                    names.for_each(|name| self.hide(name.target.as_ref(), Doubt::Content));
                }
            }
        }
        for (path, listed) in &taken.open {
            let names = listed.names.iter();
            let Some(path) = path else {
                names.for_each(|(_, target)| self.hide(target.as_ref(), Doubt::Writers));
                continue;
            };
            if listed.all > 0 {
                self.everything_in(path, false)?;
            }
            for (name, target) in names {
                self.suspect(path, name, target.as_ref())?;
            }
        }
        for path in &taken.unsettled {
            self.again(path, false)?;
        }
        for path in &taken.unknown {
            self.again(path, true)?;
        }
        for path in &taken.elsewhere {
            if let Some(parent) = path.parent() {
                self.suspect(&parent, path.name(), None)?;
            }
        }
        let targets = taken.dirty.targets.iter();
        targets.for_each(|target| self.hide(Some(target), Doubt::Writers));
        self.find_hidden()?;
        self.search()?;
        Ok((self.targets, self.suspects))
    }

    fn directory(&mut self, path: &RelPath, changes: &Changes) -> Result<()> {
        if changes.this || changes.all {
            self.itself(path)?;
        }
        if changes.all {
            if self.kind == Kind::Inotify {
                // Any of the names may have been a second one of any file.
                return Err(NoPlan::Walk("HiddenLink"));
            }
            self.everything_in(path, changes.directory_came)?;
        }
        for (name, what) in &changes.names {
            self.name(path, name, what)?;
        }
        Ok(())
    }

    /// A directory's own metadata.
    fn itself(&mut self, path: &RelPath) -> Result<()> {
        if path.is_root() {
            self.targets.add(path, Known::Other);
            return Ok(());
        }
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let Some(dir) = self.dir(&parent)? else {
            return Ok(());
        };
        let old = self.lookup.get(path)?;
        let known = match (dir.stat(path.name()), &old) {
            (Ok(stat), Some(old)) if is_same_directory(&stat, old) => {
                if is_known(old, &stat) {
                    return Ok(());
                }
                Known::Directory(stat.ino)
            }
            // It went, or another came: that is a change of its name.
            _ => return Ok(()),
        };
        self.add(path, known)
    }

    /// Something happened to a name.
    fn name(&mut self, directory: &RelPath, name: &[u8], what: &Name) -> Result<()> {
        // No path of the volume can be longer.
        let Ok(path) = directory.join(name) else {
            return Ok(());
        };
        let Some(dir) = self.dir(directory)? else {
            if self.kind == Kind::Inotify && what.came {
                // Nobody can say what it was a name of.
                return Err(NoPlan::Walk("HiddenLink"));
            }
            self.hide(what.target.as_ref(), Doubt::Content);
            return Ok(());
        };
        let found = dir.stat(name);
        if self.kind == Kind::Inotify
            && what.came
            && (what.came_and_went || matches!(found, Err(Errno::NOENT)))
        {
            // It may have been a second name of any file.
            return Err(NoPlan::Walk("HiddenLink"));
        }
        if let Some(target) = &what.target
            && !what.directory
            && source::handle_of(dir.as_fd(), name).as_ref() != Ok(target)
        {
            self.hide(Some(target), Doubt::Content);
        }
        match found {
            Ok(stat) => self.present(&path, &stat, what.came),
            Err(Errno::NOENT) => self.absent(&path),
            Err(_) => self.add(&path, Known::Other),
        }
    }

    /// Something is there now.
    fn present(&mut self, path: &RelPath, stat: &Stat, came: bool) -> Result<()> {
        let is_directory = stat.kind == EntryKind::Directory;
        if !self.rules.keeps_with_parents(path, is_directory) {
            return self.left_out(path, stat, came);
        }
        let old = self.lookup.get(path)?;
        let same = old.as_ref().is_some_and(|old| is_same_directory(stat, old));
        if let Some(old) = &old
            && !same
        {
            self.was(path, old, stat.ino)?;
        }
        if is_directory {
            if same && !came {
                return self.add(path, Known::Directory(stat.ino));
            }
            self.add(path, Known::Other)?;
            return self.below(path);
        }
        self.linked(stat)?;
        self.add(path, Known::Other)
    }

    /// Nothing is there now.
    fn absent(&mut self, path: &RelPath) -> Result<()> {
        if let Some(old) = self.lookup.get(path)? {
            self.was(path, &old, 0)?;
            self.add(path, Known::Other)?;
        }
        Ok(())
    }

    /// Something else than now was there: what shared an inode with it, or with what lay below it, is not
    /// what it was.
    fn was(&mut self, path: &RelPath, old: &Record, ino: u64) -> Result<()> {
        if old.kind == EntryKind::Directory {
            for ino in self.lookup.linked_below(path)? {
                self.names_of(ino)?;
            }
        } else if old.trust & trust::LINKED != 0 && old.ino != ino {
            self.names_of(old.ino)?;
        }
        Ok(())
    }

    /// The rules leave it out, but it may be another name of what they keep; directories are watched for that.
    fn left_out(&mut self, path: &RelPath, stat: &Stat, came: bool) -> Result<()> {
        if stat.kind != EntryKind::Directory {
            return self.linked(stat);
        }
        if came {
            let (root, rules) = (self.root.clone(), Rules::default());
            let walk = Scanner::below(path.clone(), root, rules, self.options.clone());
            self.look_through(walk)?;
        }
        Ok(())
    }

    /// Everything below a directory is new, or was moved.
    fn below(&mut self, path: &RelPath) -> Result<()> {
        if self.targets.walks(path) {
            return Ok(());
        }
        // What the rules leave out is watched too: it may hold other names of what they keep.
        let (root, rules) = (self.root.clone(), Rules::default());
        let walk = Scanner::below(path.clone(), root, rules, self.options.clone());
        self.look_through(walk)?;
        self.targets.add_below(path);
        Ok(())
    }

    /// Looks for inodes with names elsewhere; the walk watches the directories.
    fn look_through(&mut self, walk: Scanner) -> Result<()> {
        let most = self.index.meta().map_or(0, |meta| meta.totals.files / 2);
        for scanned in walk {
            if let Scanned::Batch(batch) = scanned {
                for found in batch.entries.iter() {
                    if found.stat.kind != EntryKind::Directory {
                        self.linked(found.stat)?;
                    }
                }
                self.new_count += batch.entries.len() as u64;
                if self.new_count > most.max(MOST_NEW) {
                    return Err(NoPlan::Walk("MostChanged"));
                }
            }
        }
        match self.options.cancel.is_cancelled() {
            true => Err(NoPlan::Failed(Error::Cancelled)),
            false => Ok(()),
        }
    }

    /// An inode was met: all its names are looked at.
    fn linked(&mut self, stat: &Stat) -> Result<()> {
        if stat.nlink <= 1 {
            self.seen.insert(stat.ino);
            return Ok(());
        }
        // One that had a single name when it was looked at last is not known as one with several.
        if self.names_of(stat.ino)? < stat.nlink as usize && self.is_old(stat) {
            self.search.insert(stat.ino);
        }
        Ok(())
    }

    /// The names that the index has of an inode with several become targets; how many those are.
    fn names_of(&mut self, ino: u64) -> Result<usize> {
        let paths = self.lookup.paths_of(ino)?;
        for path in &paths {
            self.add(path, Known::Other)?;
        }
        Ok(paths.len())
    }

    /// Whether the index may know the inode. A birth that is yet to come was told by another clock.
    fn is_old(&self, stat: &Stat) -> bool {
        let born = stat.btime_ns;
        born == 0 || born < self.known_ns || born > crate::sys::realtime_ns()
    }

    /// A name that may have changed without an event: it is a target only if it has.
    fn suspect(&mut self, directory: &RelPath, name: &[u8], target: Option<&Handle>) -> Result<()> {
        let Ok(path) = directory.join(name) else {
            return Ok(());
        };
        let Some(dir) = self.dir(directory)? else {
            self.hide(target, Doubt::Writers);
            return Ok(());
        };
        if let Some(target) = target
            && source::handle_of(dir.as_fd(), name).as_ref() != Ok(target)
        {
            self.hide(Some(target), Doubt::Writers);
        }
        match dir.stat(name) {
            Ok(stat) if stat.kind == EntryKind::Directory => Ok(()),
            Ok(stat) => {
                let old = self.lookup.get(&path)?;
                if old.is_some_and(|old| is_known(&old, &stat)) {
                    self.seen.insert(stat.ino);
                    return Ok(());
                }
                self.present(&path, &stat, false)
            }
            Err(Errno::NOENT) => self.absent(&path),
            Err(_) => self.add(&path, Known::Other),
        }
    }

    /// A path that the last run could not settle; or nothing is known of it, and of what lies below it.
    fn again(&mut self, path: &RelPath, unknown: bool) -> Result<()> {
        let Some(parent) = path.parent() else {
            self.targets.add(path, Known::Other);
            return Ok(());
        };
        let Some(dir) = self.dir(&parent)? else {
            return Ok(());
        };
        match dir.stat(path.name()) {
            Ok(stat) if stat.kind == EntryKind::Directory => {
                let old = self.lookup.get(path)?;
                let same = old.is_some_and(|old| is_same_directory(&stat, &old));
                self.present(path, &stat, unknown || !same)
            }
            Ok(stat) => self.present(path, &stat, unknown),
            Err(Errno::NOENT) => self.absent(path),
            Err(_) => self.add(path, Known::Other),
        }
    }

    /// Something happened to an inode under a name that is not its own now.
    fn hide(&mut self, target: Option<&Handle>, doubt: Doubt) {
        if let Some(target) = target {
            let known = self.hidden.entry(target.clone()).or_insert(doubt);
            *known = (*known).max(doubt);
        }
    }

    fn add(&mut self, path: &RelPath, known: Known) -> Result<()> {
        self.targets.add(path, known);
        match self.targets.names_count() > MOST_TARGETS {
            true => Err(NoPlan::Walk("MostChanged")),
            false => Ok(()),
        }
    }

    /// A directory, open; `None`: it is not there any more.
    fn dir(&mut self, path: &RelPath) -> Result<Option<Arc<Dir>>> {
        if let Some((known, dir)) = &self.open
            && known == path
        {
            return Ok(dir.clone());
        }
        let dir = match self.root.dir(path) {
            Ok(dir) => Some(Arc::new(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
            Err(_) => return Err(NoPlan::Walk("DirectoryUnreadable")),
        };
        self.open = Some((path.clone(), dir.clone()));
        Ok(dir)
    }
}

fn is_same_directory(stat: &Stat, old: &Record) -> bool {
    stat.kind == EntryKind::Directory && old.kind == EntryKind::Directory && old.ino == stat.ino
}

/// Whether the index has exactly this, and believes it.
fn is_known(old: &Record, stat: &Stat) -> bool {
    is_unchanged(old.stamp().as_ref(), stat, Host::SameBoot)
}
