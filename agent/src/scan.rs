//! Walks a volume in the order of the tree, in bounded memory, with problems as data.
//!
//! Order: a directory's children by name, then what lies below each of its subdirectories in the
//! same order; this is the order of [`RelPath::to_key`]. Guarantees:
//! - A name that is not between two names of a directory's batches was absent from a complete
//!   listing, read through a descriptor whose mount was checked after it. Where that cannot be
//!   said, the directory is reported as [`Scanned::ListingFailed`] and nothing of it is emitted.
//! - Memory does not grow with the number of entries in a directory or in the tree, and the number
//!   of open descriptors does not grow with the depth.
//! - Nothing outside the root is looked at; mounts inside are not entered.
//! - What a rename hid is told: a directory that changes while it is listed is listed again, and every name
//!   of any listing is looked at; what was met nowhere all the same, [`Seen`] finds at the end.
//!
//! One scanner is used by one thread; what it gives can be used by any.

mod item;
mod seen;

pub use item::{DirBatch, Failed, Found, ScanOptions, ScanStats, Scanned};
pub use seen::Seen;

use crate::beneath::{Dir, Errno, Root};
use crate::error::ItemProblem;
use crate::rules::Rules;
use crate::sort::{Listed, NameSorter, Scratch, SortedNames};
use crate::spool::{Pending, Spool};
use crate::stat::{Stat, kind_of};
use holdfast_format::entry::Kind;
use holdfast_format::path::{MAX_PATH_BYTES, RelPath, check_name};
use rustix::fs::FileType;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Buffer for one getdents call.
const LIST_BUFFER_BYTES: usize = 64 * 1024;
/// Directories above the present one that are kept open; the others are opened again when needed.
const OPEN_LEVELS: usize = 16;
/// Listings of a directory that changed meanwhile, before their names are taken as they are.
const LISTINGS: usize = 3;
/// How often a long listing looks whether it is cancelled.
const CANCEL_EVERY: usize = 4096;

/// A walk in progress.
#[derive(Debug)]
pub struct Scanner {
    root: Arc<Root>,
    rules: Rules,
    options: ScanOptions,
    state: State,
    levels: Vec<Level>,
    /// Path of the deepest level; one for all, or a deep tree of long paths would fill the memory.
    here: RelPath,
    spool: Spool,
    scratch: Scratch,
    buffer: Vec<MaybeUninit<u8>>,
    stats: ScanStats,
}

#[derive(Debug)]
enum State {
    Start,
    /// The root's children are next.
    Top(Arc<Dir>),
    Listing(Box<Listing>),
    Descend,
    Done,
}

/// A directory whose children are being emitted.
#[derive(Debug)]
struct Listing {
    path: RelPath,
    dir: Arc<Dir>,
    names: SortedNames,
    subdirectories: Pending,
}

/// A directory whose subdirectories are being entered.
#[derive(Debug)]
struct Level {
    /// `None` when it was closed to bound the number of descriptors.
    dir: Option<Arc<Dir>>,
    subdirectories: Pending,
}

/// Why a listing ended.
enum ListError {
    Errno(Errno),
    Spill(io::Error),
    Mount,
    Cancelled,
}

impl From<Errno> for ListError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Scanner {
    /// A walk of everything below `root` that the rules keep.
    pub fn new(root: Arc<Root>, rules: Rules, options: ScanOptions) -> Self {
        options
            .seen
            .begin(root.clone(), rules.clone(), options.began_ns);
        Self {
            root,
            rules,
            state: State::Start,
            levels: Vec::new(),
            here: RelPath::root(),
            spool: Spool::new(options.temporary_directory.clone()),
            scratch: Scratch::default(),
            buffer: vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES],
            stats: ScanStats::default(),
            options,
        }
    }

    /// What was met so far.
    pub fn stats(&self) -> ScanStats {
        self.stats
    }

    fn step(&mut self) -> Option<Scanned> {
        loop {
            if self.options.cancel.is_cancelled() {
                self.state = State::Done;
            }
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => {
                    self.levels.clear();
                    return None;
                }
                State::Start => return Some(self.begin()),
                State::Top(dir) => {
                    if let Some(failed) = self.enter(RelPath::root(), Ok(dir)) {
                        return Some(failed);
                    }
                }
                State::Listing(listing) => return Some(self.batch(listing)),
                State::Descend => {
                    if let Some(scanned) = self.descend() {
                        return Some(scanned);
                    }
                }
            }
        }
    }

    fn begin(&mut self) -> Scanned {
        let opened = self
            .root
            .top()
            .and_then(|dir| dir.stat_self().map(|stat| (Arc::new(dir), stat)));
        match opened {
            Ok((dir, stat)) => {
                self.state = State::Top(dir.clone());
                self.stats.entries_count += 1;
                let found = Found {
                    name: Vec::new(),
                    kind: Kind::Directory,
                    stat,
                    boundary: false,
                };
                Scanned::Root { dir, found }
            }
            Err(errno) => Scanned::ListingFailed {
                path: RelPath::root(),
                problem: problem("open the root", errno),
            },
        }
    }

    /// Opens the next subdirectory of the deepest level, or leaves that level.
    fn descend(&mut self) -> Option<Scanned> {
        let Some(level) = self.levels.last_mut() else {
            self.state = State::Done;
            return None;
        };
        let name = match self.spool.pop(&mut level.subdirectories) {
            Err(source) => return Some(aborted("read the names of a large directory", source)),
            Ok(None) => {
                if let Some(level) = self.levels.pop() {
                    self.spool.discard(level.subdirectories);
                    self.here = self.here.parent().unwrap_or(RelPath::root());
                }
                self.state = State::Descend;
                return None;
            }
            Ok(Some(name)) => name,
        };
        // Its length was checked when it was found.
        let Ok(path) = self.here.join(&name) else {
            self.state = State::Descend;
            return None;
        };
        let opened = match &level.dir {
            Some(dir) => Ok(dir.clone()),
            None => self.root.dir(&self.here).map(Arc::new),
        };
        let opened = opened.and_then(|dir| {
            level.dir = Some(dir.clone());
            dir.open_dir(&name)
        });
        if level.subdirectories.is_empty() {
            level.dir = None;
        }
        self.enter(path, opened.map(Arc::new))
    }

    /// Lists a directory; on success its batches are next.
    fn enter(&mut self, path: RelPath, opened: Result<Arc<Dir>, Errno>) -> Option<Scanned> {
        self.state = State::Descend;
        let listed = match opened {
            Ok(dir) => self.list(&path, &dir).map(|names| (dir, names)),
            Err(errno) => Err(ListError::Errno(errno)),
        };
        let problem = match listed {
            Ok((dir, names)) => {
                self.stats.directories_count += 1;
                self.state = State::Listing(Box::new(Listing {
                    path,
                    dir,
                    names,
                    subdirectories: self.spool.begin(),
                }));
                return None;
            }
            Err(ListError::Cancelled) => {
                self.state = State::Done;
                return None;
            }
            // It was removed since it was found. That its path is absent is proven by this very
            // answer, so it is a directory without children, and no problem.
            Err(ListError::Errno(Errno::NOENT)) if !path.is_root() => {
                self.stats.vanished_count += 1;
                self.options.seen.directory_vanished();
                return match self.root.top() {
                    Ok(top) => Some(Scanned::Batch(DirBatch {
                        path,
                        dir: Arc::new(top),
                        entries: Vec::new(),
                        failed: Vec::new(),
                        last: true,
                    })),
                    Err(errno) => Some(Scanned::ListingFailed {
                        path,
                        problem: problem("open the root", errno),
                    }),
                };
            }
            Err(ListError::Errno(errno)) => problem("list the directory", errno),
            Err(ListError::Spill(error)) => {
                let mut problem = ItemProblem::from_io("sort a large directory on disk", &error);
                problem.reason = "SpillFailed";
                problem
            }
            Err(ListError::Mount) => ItemProblem::new(
                "MountChanged",
                "the directory is no longer on the volume's mount",
            ),
        };
        self.options.seen.entered(&path);
        Some(Scanned::ListingFailed { path, problem })
    }

    /// All names of a directory, from a complete listing. If it changes meanwhile, those of every listing:
    /// a rename during one may hide a file that was there all the time.
    fn list(&mut self, path: &RelPath, dir: &Dir) -> Result<SortedNames, ListError> {
        let mut before = dir.stat_self()?;
        let began_ns = before.ctime_ns;
        let scratch = std::mem::take(&mut self.scratch);
        let budget = self.options.sort_budget_bytes;
        let mut sorter = NameSorter::new(&self.options.temporary_directory, budget, scratch);
        let cancel = &self.options.cancel;
        let mut count = 0;
        let mut attempt = 1;
        loop {
            let listed = dir.list(&mut self.buffer, |name, file_type, ino| {
                count += 1;
                if count % CANCEL_EVERY == 0 && cancel.is_cancelled() {
                    return Err(ListError::Cancelled);
                }
                sorter
                    .push(name.to_bytes(), file_type, ino)
                    .map_err(ListError::Spill)
            });
            let checked = listed.and_then(|()| {
                let after = dir.stat_self()?;
                if after.mnt_id == self.root.stat().mnt_id {
                    Ok(after)
                } else {
                    Err(ListError::Mount)
                }
            });
            let after = match checked {
                Ok(after) => after,
                Err(error) => {
                    self.scratch = sorter.into_scratch();
                    return Err(error);
                }
            };
            let quiet = before.ctime_ns == after.ctime_ns && before.mtime_ns == after.mtime_ns;
            if quiet || attempt == LISTINGS || sorter.spilled() {
                self.options.seen.listed(path, began_ns, after.ctime_ns);
                self.stats.spilled_count += u64::from(sorter.spilled());
                return sorter.finish().map_err(ListError::Spill);
            }
            before = after;
            attempt += 1;
        }
    }

    /// The next batch of a directory.
    fn batch(&mut self, mut listing: Box<Listing>) -> Scanned {
        let mut names: Vec<Listed> = Vec::with_capacity(self.options.batch_entries.min(64));
        let prefix_bytes = listing.path.as_bytes().len() + 1;
        let mut full = listing.path.as_bytes().to_vec();
        full.push(b'/');
        let mut failed = Vec::new();
        while names.len() + failed.len() < self.options.batch_entries.max(1) {
            let listed = match listing.names.next() {
                Ok(Some(listed)) => listed,
                Ok(None) => break,
                Err(source) => return aborted("read a large directory's names", source),
            };
            if check_name(&listed.name).is_err() {
                // A filesystem that lists such a name cannot be asked about it.
                self.options.seen.refused(listed.ino);
                failed.push(Failed {
                    problem: ItemProblem::new("NameRefused", "the name is not possible"),
                    name: listed.name,
                });
                continue;
            }
            if prefix_bytes + listed.name.len() > MAX_PATH_BYTES {
                self.options.seen.refused(listed.ino);
                failed.push(Failed {
                    problem: ItemProblem::new("PathTooLong", "the path is above 32768 bytes"),
                    name: listed.name,
                });
                continue;
            }
            let known = listed.file_type != FileType::Unknown;
            if known && !self.keeps(&mut full, prefix_bytes, &listed.name, listed.file_type) {
                continue;
            }
            names.push(listed);
        }
        let mut entries = Vec::with_capacity(names.len());
        let stats = self.stat_all(&listing.dir, &names);
        for (listed, stat) in names.into_iter().zip(stats) {
            let stat = match stat {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    self.stats.vanished_count += 1;
                    self.options.seen.vanished();
                    continue;
                }
                Err(errno) => {
                    self.options.seen.refused(listed.ino);
                    failed.push(Failed {
                        name: listed.name,
                        problem: problem("stat", errno),
                    });
                    continue;
                }
            };
            if listed.file_type == FileType::Unknown {
                let file_type = match stat.kind {
                    Kind::Directory => FileType::Directory,
                    _ => FileType::RegularFile,
                };
                if !self.keeps(&mut full, prefix_bytes, &listed.name, file_type) {
                    continue;
                }
            }
            let boundary = stat.mount_root || stat.mnt_id != self.root.stat().mnt_id;
            self.stats.boundary_count += u64::from(boundary);
            if stat.kind == Kind::Directory && !boundary {
                let pushed = self.spool.push(&mut listing.subdirectories, &listed.name);
                if let Err(source) = pushed {
                    return aborted("keep a large directory's names", source);
                }
            }
            entries.push(Found {
                name: listed.name,
                kind: stat.kind,
                stat,
                boundary,
            });
        }
        self.options.seen.met(&entries);
        failed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.stats.entries_count += entries.len() as u64;
        let last = listing.names.is_done();
        let batch = DirBatch {
            path: listing.path.clone(),
            dir: listing.dir.clone(),
            entries,
            failed,
            last,
        };
        if let Err(source) = self.leave(listing, last) {
            return aborted("keep a large directory's names", source);
        }
        Scanned::Batch(batch)
    }

    /// Goes on with the listing, or with its subdirectories when it is at its end.
    fn leave(&mut self, mut listing: Box<Listing>, last: bool) -> io::Result<()> {
        if !last {
            self.state = State::Listing(listing);
            return Ok(());
        }
        self.scratch = listing.names.into_scratch();
        self.spool.complete(&mut listing.subdirectories)?;
        self.here = listing.path;
        self.levels.push(Level {
            dir: Some(listing.dir),
            subdirectories: listing.subdirectories,
        });
        if let Some(far) = self.levels.len().checked_sub(OPEN_LEVELS + 1) {
            self.levels[far].dir = None;
        }
        self.state = State::Descend;
        Ok(())
    }

    fn keeps(
        &mut self,
        full: &mut Vec<u8>,
        prefix_bytes: usize,
        name: &[u8],
        file_type: FileType,
    ) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        full.truncate(prefix_bytes);
        full.extend_from_slice(name);
        let directory = kind_of(file_type) == Kind::Directory;
        // The root's children have no slash before them.
        let path = full.strip_prefix(b"/").unwrap_or(full);
        let kept = self.rules.keeps(path, directory);
        self.stats.excluded_count += u64::from(!kept);
        kept
    }

    /// Metadata of all names, asked for in the order of the disk.
    fn stat_all(&self, dir: &Dir, names: &[Listed]) -> Vec<Result<Stat, Errno>> {
        let mut order: Vec<(u64, usize)> = names
            .iter()
            .enumerate()
            .map(|(at, listed)| (listed.ino, at))
            .collect();
        order.sort_unstable();
        let mut stats = vec![Err(Errno::NOENT); names.len()];
        for (_, at) in order {
            stats[at] = dir.stat(&names[at].name);
        }
        stats
    }
}

impl Iterator for Scanner {
    type Item = Scanned;

    /// The next part of the walk; `None` at its end, and soon after it was cancelled.
    fn next(&mut self) -> Option<Scanned> {
        self.step()
    }
}

fn problem(attempted: &str, errno: Errno) -> ItemProblem {
    let mut problem = ItemProblem::from_io(attempted, &errno.into());
    if matches!(errno, Errno::NOTDIR | Errno::LOOP | Errno::XDEV) {
        problem.reason = "ReplacedDuringScan";
    }
    problem
}

fn aborted(what: &'static str, source: io::Error) -> Scanned {
    Scanned::Aborted { what, source }
}

#[cfg(test)]
mod tests;
