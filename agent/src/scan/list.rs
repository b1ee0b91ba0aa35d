//! Opens a directory, lists it, and looks at what lies in it: the work of a walk that any thread can do,
//! for any directory, at any time. It decides nothing about order.

use super::failure::{ListError, problem};
use super::item::{Children, Failed, ScanOptions, ScanStats};
use crate::beneath::{Dir, Errno, Root};
use crate::error::ItemProblem;
use crate::faults::{self, Fault};
use crate::rules::Rules;
use crate::sort::{NameSorter, Names, SortedNames};
use crate::spool::Pending;
use crate::stat::{Stat, kind_of};
use holdfast_format::entry::Kind;
use holdfast_format::path::{MAX_PATH_BYTES, RelPath, check_name};
use rustix::fs::FileType;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;

/// Buffer for one getdents call.
pub(super) const LIST_BUFFER_BYTES: usize = 64 * 1024;
/// Listings of a directory that changed meanwhile, before their names are taken as they are.
const LISTINGS: usize = 3;

/// What all threads of a walk share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) root: Arc<Root>,
    pub(super) rules: Rules,
    pub(super) options: ScanOptions,
    pub(super) temporary: Arc<Path>,
}

/// Something to be done by any thread.
#[derive(Debug)]
pub(super) enum Task {
    /// Open, list and look.
    Directory {
        /// The directory it lies in; `None`: it is resolved from the root.
        parent: Option<Arc<Dir>>,
        path: RelPath,
    },
    /// Look at some names of a directory that was listed.
    Names {
        dir: Arc<Dir>,
        path: Arc<RelPath>,
        names: Names,
    },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A directory with all that lies in it.
    Directory {
        path: RelPath,
        dir: Arc<Dir>,
        looked: Looked,
    },
    /// A directory with more names than a batch may have: none is looked at yet.
    Long(Box<Long>),
    /// Some names.
    Names(Looked),
    /// A directory that was removed since it was found.
    Vanished(RelPath),
    /// A directory of which nothing is known.
    Failed(RelPath, ItemProblem),
    /// The walk cannot go on.
    Aborted(&'static str, io::Error),
    /// The walk is to end.
    Cancelled,
}

/// What lies under some names of a directory.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) entries: Children,
    pub(super) failed: Vec<Failed>,
    /// Names of directories to be entered.
    pub(super) subdirectories: Pending,
    pub(super) stats: ScanStats,
}

/// A directory with many names, whose listing may be in progress.
#[derive(Debug)]
pub(super) struct Long {
    pub(super) path: RelPath,
    pub(super) dir: Arc<Dir>,
    listing: Listing,
}

/// The names of a directory as they come.
#[derive(Debug)]
struct Listing {
    sorter: NameSorter,
    /// The directory when the present listing of it began, and when the first one did.
    before: Stat,
    began_ns: i64,
    attempt: usize,
    complete: bool,
}

/// Whether a directory's turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has: a long listing is made now.
    Now,
    /// It has not: a long listing would take memory for too long, and is left after its first names.
    Later,
}

/// One thread's tools.
#[derive(Debug)]
pub(super) struct Lister {
    context: Arc<Context>,
    buffer: Vec<MaybeUninit<u8>>,
    /// Memory for names, when it is not in use.
    names: Names,
    order: Vec<(u64, usize)>,
    stats: Vec<Option<Result<Stat, Errno>>>,
}

impl Lister {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            buffer: vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES],
            names: Names::default(),
            order: Vec::new(),
            stats: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, task: Task, turn: Turn) -> Outcome {
        match task {
            Task::Directory { parent, path } => self.directory(parent, path, turn),
            Task::Names { dir, path, names } => match self.look(&dir, &path, &names) {
                Some(looked) => Outcome::Names(looked),
                None => Outcome::Cancelled,
            },
        }
    }

    fn directory(&mut self, parent: Option<Arc<Dir>>, path: RelPath, turn: Turn) -> Outcome {
        let (dir, listing) = match self.begin(parent, &path, turn) {
            Ok((dir, listing)) => (Arc::new(dir), listing),
            Err(error) => return self.failed(path, error),
        };
        let most = self.context.options.batch_entries.max(1);
        if !listing.complete || listing.sorter.spilled() || listing.sorter.len() > most {
            return Outcome::Long(Box::new(Long { path, dir, listing }));
        }
        let names = listing.sorter.finish_in_memory();
        let looked = self.look(&dir, &path, &names);
        self.names = names;
        let Some(mut looked) = looked else {
            return Outcome::Cancelled;
        };
        looked.stats.directories_count = 1;
        Outcome::Directory { path, dir, looked }
    }

    /// Opens a directory and lists it, or the first names of it.
    fn begin(
        &mut self,
        parent: Option<Arc<Dir>>,
        path: &RelPath,
        turn: Turn,
    ) -> Result<(Dir, Listing), ListError> {
        let context = self.context.clone();
        let options = &context.options;
        let dir = match parent {
            Some(parent) => parent.open_dir(path.name())?,
            None => context.root.dir(path)?,
        };
        if let Some(before) = &options.before_listing {
            before.call(path, &dir);
        }
        #[cfg(test)]
        if faults::switches::is_refused(path) {
            return Err(Errno::IO.into());
        }
        let before = dir.stat_self()?;
        let directory = context.temporary.clone();
        let scratch = std::mem::take(&mut self.names);
        let mut listing = Listing {
            sorter: NameSorter::new(directory, options.sort_budget_bytes, scratch),
            began_ns: before.ctime_ns,
            before,
            attempt: 1,
            complete: false,
        };
        let most = match turn {
            Turn::Now => usize::MAX,
            Turn::Later => options.batch_entries.max(1),
        };
        match self.proceed(path, &dir, &mut listing, most) {
            Ok(()) => Ok((dir, listing)),
            Err(error) => {
                self.names = listing.sorter.into_scratch();
                Err(error)
            }
        }
    }

    /// All names of a long directory.
    pub(super) fn complete(&mut self, long: Long) -> Result<Completed, Box<Outcome>> {
        let Long {
            path,
            dir,
            mut listing,
        } = long;
        if !listing.complete
            && let Err(error) = self.proceed(&path, &dir, &mut listing, usize::MAX)
        {
            return Err(Box::new(self.failed(path, error)));
        }
        let stats = ScanStats {
            directories_count: 1,
            spilled_count: u64::from(listing.sorter.spilled()),
            ..ScanStats::default()
        };
        match listing.sorter.finish() {
            Ok(names) => Ok(Completed {
                path,
                dir,
                names,
                stats,
            }),
            Err(error) => Err(Box::new(self.failed(path, ListError::Spill(error)))),
        }
    }

    /// Goes on until the listing is complete, or has more than so many names. If the directory changes
    /// meanwhile, the names of every listing count: a rename during one may hide a file that was there all
    /// the time.
    fn proceed(
        &mut self,
        path: &RelPath,
        dir: &Dir,
        listing: &mut Listing,
        most: usize,
    ) -> Result<(), ListError> {
        let Context { root, options, .. } = &*self.context;
        loop {
            let sorter = &mut listing.sorter;
            while dir.list_some(&mut self.buffer, |name, file_type, ino| {
                sorter
                    .push(name.to_bytes(), file_type, ino)
                    .map_err(ListError::Spill)
            })? {
                if options.cancel.is_cancelled() {
                    return Err(ListError::Cancelled);
                }
                if sorter.len() > most || sorter.spilled() && most < usize::MAX {
                    return Ok(());
                }
            }
            let after = dir.stat_self()?;
            if after.mnt_id != root.stat().mnt_id {
                return Err(ListError::Mount);
            }
            let before = &listing.before;
            let quiet = before.ctime_ns == after.ctime_ns && before.mtime_ns == after.mtime_ns;
            if quiet || listing.attempt == LISTINGS || sorter.spilled() {
                listing.complete = true;
                let seen = &options.seen;
                seen.listed(path, listing.began_ns, after.ctime_ns);
                return Ok(());
            }
            listing.before = after;
            listing.attempt += 1;
            dir.rewind()?;
        }
    }

    /// What lies under these names of a directory; nothing when it is cancelled.
    fn look(&mut self, dir: &Dir, path: &RelPath, names: &Names) -> Option<Looked> {
        let context = self.context.clone();
        let Context { root, options, .. } = &*context;
        let seen = &options.seen;
        let mut looked = Looked::default();
        let mut full = Filter::new(&context.rules, path);
        self.order.clear();
        self.stats.clear();
        self.stats.resize(names.len(), None);
        for (at, listed) in names.iter().enumerate() {
            let refused = if check_name(listed.name).is_err() {
                // A filesystem that lists such a name cannot be asked about it.
                ItemProblem::new("NameRefused", "the name is not possible")
            } else if full.prefix_bytes + listed.name.len() > MAX_PATH_BYTES {
                ItemProblem::new("PathTooLong", "the path is above 32768 bytes")
            } else {
                let known = listed.file_type != FileType::Unknown;
                if !known || full.keeps(listed.name, listed.file_type) {
                    self.order.push((listed.ino, at));
                }
                continue;
            };
            seen.refused(listed.ino);
            looked.fail(listed.name, refused);
        }
        // Metadata is asked for in the order of the disk.
        self.order.sort_unstable();
        for (_, at) in &self.order {
            if options.cancel.is_cancelled() {
                return None;
            }
            self.stats[*at] = Some(dir.stat(names.get(*at).name));
        }
        looked.entries = Children::with_capacity(self.order.len());
        for (listed, stat) in names.iter().zip(&self.stats) {
            let stat = match stat {
                None => continue,
                Some(Ok(stat)) => stat,
                Some(Err(Errno::NOENT)) => {
                    looked.stats.vanished_count += 1;
                    seen.vanished();
                    continue;
                }
                Some(Err(errno)) => {
                    seen.refused(listed.ino);
                    looked.fail(listed.name, problem("stat", *errno));
                    continue;
                }
            };
            if listed.file_type == FileType::Unknown {
                let file_type = match stat.kind {
                    Kind::Directory => FileType::Directory,
                    _ => FileType::RegularFile,
                };
                if !full.keeps(listed.name, file_type) {
                    continue;
                }
            }
            let boundary = stat.mount_root || stat.mnt_id != root.stat().mnt_id;
            looked.stats.boundary_count += u64::from(boundary);
            if stat.kind == Kind::Directory && !boundary {
                looked.subdirectories.gather(listed.name);
            }
            looked.entries.push(listed.name, *stat, boundary);
        }
        seen.met(&looked.entries);
        looked.stats.entries_count = looked.entries.len() as u64;
        looked.stats.excluded_count = full.excluded_count;
        Some(looked)
    }

    fn failed(&self, path: RelPath, error: ListError) -> Outcome {
        let seen = &self.context.options.seen;
        let problem = match error {
            ListError::Cancelled => return Outcome::Cancelled,
            // It was removed since it was found. That its path is absent is proven by this very
            // answer, so it is a directory without children, and no problem.
            ListError::Errno(errno)
                if !path.is_root()
                    && (errno == Errno::NOENT || faults::on(Fault::TrustAbsence)) =>
            {
                seen.directory_vanished();
                return Outcome::Vanished(path);
            }
            ListError::Errno(errno) => problem("list the directory", errno),
            ListError::Spill(error) => {
                let mut problem = ItemProblem::from_io("sort a large directory on disk", &error);
                problem.reason = "SpillFailed";
                problem
            }
            ListError::Mount => ItemProblem::new(
                "MountChanged",
                "the directory is no longer on the volume's mount",
            ),
        };
        seen.entered(&path);
        Outcome::Failed(path, problem)
    }
}

impl Long {
    /// Names that it holds in memory.
    pub(super) fn names_count(&self) -> usize {
        self.listing.sorter.len()
    }
}

/// A long directory whose names are all known.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) path: RelPath,
    pub(super) dir: Arc<Dir>,
    pub(super) names: SortedNames,
    pub(super) stats: ScanStats,
}

impl Looked {
    fn fail(&mut self, name: &[u8], problem: ItemProblem) {
        // Names that are refused come before those whose look failed.
        let at = self.failed.partition_point(|it| it.name.as_slice() < name);
        let name = name.to_vec();
        self.failed.insert(at, Failed { name, problem });
    }
}

/// The rules, asked about names of one directory.
struct Filter<'r> {
    rules: &'r Rules,
    full: Vec<u8>,
    prefix_bytes: usize,
    excluded_count: u64,
}

impl<'r> Filter<'r> {
    fn new(rules: &'r Rules, directory: &RelPath) -> Self {
        let mut full = Vec::new();
        if !rules.is_empty() {
            full.extend_from_slice(directory.as_bytes());
            full.push(b'/');
        }
        Self {
            rules,
            full,
            prefix_bytes: directory.as_bytes().len() + 1,
            excluded_count: 0,
        }
    }

    fn keeps(&mut self, name: &[u8], file_type: FileType) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        self.full.truncate(self.prefix_bytes);
        self.full.extend_from_slice(name);
        let directory = kind_of(file_type) == Kind::Directory;
        // The root's children have no slash before them.
        let path = self.full.strip_prefix(b"/").unwrap_or(&self.full);
        let kept = self.rules.keeps(path, directory);
        self.excluded_count += u64::from(!kept);
        kept
    }
}
