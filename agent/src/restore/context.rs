//! What all threads of one restore share.

use super::dirs::DirCache;
use super::links::Links;
use super::marker::{self, Names};
use super::open_files::OpenFiles;
use super::policy::Policy;
use super::report::Tally;
use crate::beneath::{Dir, Errno, Root};
use crate::{Cancel, Error, ItemProblem, Progress};
use holdfast_format::id::SnapshotId;
use holdfast_format::keys::Ids;
use holdfast_format::path::RelPath;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// How much the target is trusted to be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing was there: what is found is in the way.
    Fresh,
    /// An interrupted restore is continued: what is there is compared.
    Resume,
    /// What is there is compared and, where it differs, replaced.
    InPlace,
    /// As `InPlace`, and what the snapshot does not have is removed.
    InPlaceDelete,
}

/// One restore's shared state. Every method may be called by any thread.
pub struct Context {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path of the snapshot that is restored.
    pub path: RelPath,
    /// Keyed ids of the snapshot's domain.
    pub ids: Ids,
    /// The target; `None` in a dry run whose target does not exist.
    pub root: Option<Root>,
    /// What is expected there.
    pub mode: Mode,
    /// A marker of this restore stood there.
    pub resumed: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// What may be restored.
    pub policy: Policy,
    /// Temporary names and the marker's.
    pub names: Names,
    /// Open directories.
    pub dirs: DirCache,
    /// Open temporary files.
    pub files: OpenFiles,
    /// Where finished inodes are, for hard links.
    pub links: Mutex<Links>,
    /// Where temporary files of this process go; never the target.
    pub temporary: Arc<Path>,
    /// The report.
    pub tally: Tally,
    /// Counters for whoever watches.
    pub progress: Arc<Progress>,
    /// Ends the run from outside.
    pub cancel: Cancel,
    stopped: AtomicBool,
    fatal: Mutex<Option<Error>>,
    marked: Mutex<bool>,
    touched: AtomicBool,
    would_touch: AtomicBool,
    rooted: AtomicBool,
    /// Its lock keeps other restores out of the target while this one lives.
    _alone: Option<Dir>,
}

/// A lock whose holder panicked is still good: every section leaves whole values behind.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What a restore is about, as the caller gave it.
pub struct Subject {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path of the snapshot that is restored.
    pub path: RelPath,
    /// Keyed ids of the snapshot's domain.
    pub ids: Ids,
}

/// Where it goes, and what was found there.
pub struct Place {
    /// The target; `None` in a dry run whose target does not exist.
    pub root: Option<Root>,
    /// What is expected there.
    pub mode: Mode,
    /// A marker of this restore stands there.
    pub resumed: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Keeps other restores out of the target.
    pub alone: Option<Dir>,
    /// Where temporary files of this process go; never the target.
    pub temporary: Arc<Path>,
}

impl Context {
    /// Before anything was written.
    pub fn new(
        subject: Subject,
        place: Place,
        policy: Policy,
        names: Names,
        progress: Arc<Progress>,
        cancel: Cancel,
    ) -> Self {
        Self {
            snapshot: subject.snapshot,
            path: subject.path,
            ids: subject.ids,
            root: place.root,
            mode: place.mode,
            resumed: place.resumed,
            dry_run: place.dry_run,
            policy,
            names,
            dirs: DirCache::default(),
            files: OpenFiles::default(),
            links: Mutex::new(Links::new(&place.temporary)),
            temporary: place.temporary,
            tally: Tally::new(place.dry_run),
            progress,
            cancel,
            stopped: AtomicBool::new(false),
            fatal: Mutex::new(None),
            marked: Mutex::new(place.resumed),
            touched: AtomicBool::new(place.resumed && !place.dry_run),
            would_touch: AtomicBool::new(false),
            rooted: AtomicBool::new(false),
            _alone: place.alone,
        }
    }

    /// Ends the run: the first error is the one reported.
    pub fn fail(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether the run is ending early.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.cancel.is_cancelled()
    }

    /// The error that ended the run.
    pub fn error(&self) -> Option<Error> {
        let error = lock(&self.fatal).take();
        error.or_else(|| self.cancel.is_cancelled().then_some(Error::Cancelled))
    }

    /// The entry of the directory that is restored has come: the target stands for it.
    pub fn root_came(&self) {
        self.rooted.store(true, Ordering::Release);
    }

    /// Whether what the snapshot does not have is removed: never when a single file is restored, or when
    /// it is not known what the target stands for.
    pub fn may_delete(&self) -> bool {
        self.mode == Mode::InPlaceDelete && self.rooted.load(Ordering::Acquire)
    }

    /// To be called before the first change: puts the marker down.
    pub fn touch(&self) -> Result<(), Errno> {
        if self.touched.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut marked = lock(&self.marked);
        if !*marked {
            let root = self.root.as_ref().ok_or(Errno::NOENT)?;
            let put = marker::put(&root.top()?, &self.names, &self.snapshot, &self.path);
            put.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            *marked = true;
        }
        self.touched.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether anything was changed.
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Of a dry run: something would be changed.
    pub fn would_touch(&self) {
        self.would_touch.store(true, Ordering::Release);
    }

    /// Of a dry run: whether anything would be.
    pub fn would_be_touched(&self) -> bool {
        self.would_touch.load(Ordering::Acquire)
    }

    /// Takes the marker away: the restore is finished.
    pub fn unmark(&self, root: &Dir) -> Result<(), Errno> {
        match root.unlink(&self.names.marker()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// A path could not be restored. What would hit every further path as well ends the run.
    pub fn item_failed(&self, path: &RelPath, what: &str, errno: Errno) {
        let error = io::Error::from(errno);
        if let Some(fatal) = fatal(path, what, errno) {
            self.fail(fatal);
        } else {
            let name = if path.is_root() {
                ".".to_owned()
            } else {
                path.to_string()
            };
            self.tally.problem(name, problem(what, &error));
            self.progress.problems.add(1);
        }
    }

    /// A path is left out for a reason of its own.
    pub fn leave_out(&self, path: &RelPath, reason: &'static str, detail: impl Into<String>) {
        let name = if path.is_root() {
            ".".to_owned()
        } else {
            path.to_string()
        };
        self.tally.problem(name, ItemProblem::new(reason, detail));
        self.progress.problems.add(1);
    }
}

/// Errors that are the target's, not the path's.
fn fatal(path: &RelPath, what: &str, errno: Errno) -> Option<Error> {
    let reason = match errno {
        Errno::NOSPC | Errno::DQUOT => "TargetFull",
        Errno::ROFS => "TargetReadOnly",
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => "OutOfResources",
        _ => return None,
    };
    let error = io::Error::from(errno);
    let hint = match reason {
        "TargetFull" => "; make room and run the same restore again, it goes on where it stopped",
        _ => "",
    };
    Some(Error::Restore {
        reason,
        detail: format!("{what} {path}: {error}{hint}"),
    })
}

fn problem(what: &str, error: &io::Error) -> ItemProblem {
    let errno = error.raw_os_error().unwrap_or(0);
    let reason = match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => "PermissionDenied",
        Some(Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY) => "InTheWay",
        Some(Errno::LOOP | Errno::NOTDIR) => "ReplacedMeanwhile",
        Some(Errno::XDEV) => "MountBoundary",
        Some(Errno::NAMETOOLONG) => "PathTooLong",
        Some(Errno::NOENT) => "Vanished",
        Some(Errno::FBIG) => "FileTooLarge",
        _ => "WriteFailed",
    };
    ItemProblem {
        reason,
        detail: format!("{what}: {error}"),
        errno,
    }
}
