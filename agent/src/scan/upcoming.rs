//! The directories that a walk comes to next, in the order of the tree, as far as they are known.
//!
//! A window of them is worked on ahead of its turn. It is bounded in directories (each holds a descriptor)
//! and in entries; beyond it only names are kept, and long lists of those on disk. What is nearest goes
//! first: a directory that was listed ahead makes room for its subdirectories before its next sibling.

use super::helpers::{Helpers, Job};
use super::list::{Looked, Outcome, Task};
use crate::beneath::{Dir, Root};
use crate::spool::{Pending, Spool};
use holdfast_format::path::RelPath;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// Directories whose subdirectories are being entered that are kept open; others are opened again.
const OPEN_LEVELS: usize = 16;
/// Directories that wait for their turn: for each helper, and at most.
const WINDOW_EACH: usize = 32;
const WINDOW_MOST: usize = 256;
/// Entries of them, beyond which no more are begun.
const WINDOW_ENTRIES: usize = 32 * 1024;
/// Jobs given out for each helper: what is given out is not changed any more when nearer ones come up.
const JOBS_EACH: usize = 4;

/// What comes next.
#[derive(Debug)]
pub(super) struct Upcoming {
    root: Arc<Root>,
    items: VecDeque<Item>,
    /// The directory that was handed on last; those above it are parts of its path, which is kept once, or a
    /// deep tree of long paths would fill the memory.
    here: RelPath,
    /// Directories that were used last, held open.
    recent: VecDeque<Arc<Dir>>,
    spool: Spool,
    /// `Item::Job`s and `Item::Ready`s, and the entries of the latter.
    window: usize,
    entries: usize,
    numbers: u64,
    /// What failed ahead of its turn.
    failed: Option<io::Error>,
}

#[derive(Debug)]
enum Item {
    /// A directory that is worked on.
    Job(Arc<Job>),
    /// One that was.
    Ready(Ready),
    /// Subdirectories of a directory that was listed, not begun yet.
    Rest(Rest),
}

/// A directory whose turn has not come.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) outcome: Outcome,
    /// The number of the `Rest` that its subdirectories have become.
    rest: Option<u64>,
}

#[derive(Debug)]
struct Rest {
    number: u64,
    at: At,
    dir: Weak<Dir>,
    names: Pending,
}

/// The directory that a `Rest` is of.
#[derive(Debug)]
enum At {
    /// It was handed on, and is `here` or above: that many bytes of its path.
    Above(usize),
    /// It is in the window.
    Ahead(Arc<RelPath>),
}

/// What is next.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing.
    End,
    /// This is to be done.
    Task(Task),
    /// This is being done.
    Job(Arc<Job>),
    /// This is done.
    Ready(Ready),
}

impl Upcoming {
    /// A walk of this directory.
    pub(super) fn new(root: Arc<Root>, temporary_directory: PathBuf) -> Self {
        Self {
            root,
            items: VecDeque::new(),
            here: RelPath::root(),
            recent: VecDeque::new(),
            spool: Spool::new(temporary_directory),
            window: 0,
            entries: 0,
            numbers: 0,
            failed: None,
        }
    }

    /// What comes first of all that is known.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            match self.items.front() {
                None => return Ok(Next::End),
                Some(Item::Rest(_)) => match self.task_of(0)? {
                    Some(task) => return Ok(Next::Task(task)),
                    None => {
                        if let Some(Item::Rest(rest)) = self.items.pop_front() {
                            self.spool.discard(rest.names);
                        }
                    }
                },
                Some(Item::Job(job)) => match job.take() {
                    None => return Ok(Next::Job(job.clone())),
                    Some(outcome) => {
                        self.items.pop_front();
                        self.window -= 1;
                        return Ok(Next::Ready(Ready {
                            outcome,
                            rest: None,
                        }));
                    }
                },
                Some(Item::Ready(_)) => {
                    if let Some(Item::Ready(ready)) = self.items.pop_front() {
                        self.window -= 1;
                        self.entries -= entries_of(&ready.outcome);
                        return Ok(Next::Ready(ready));
                    }
                }
            }
        }
    }

    /// A directory is handed on; its subdirectories come next.
    pub(super) fn entered(
        &mut self,
        path: &RelPath,
        dir: &Arc<Dir>,
        subdirectories: Pending,
        of: Option<u64>,
    ) -> io::Result<()> {
        self.here.clone_from(path);
        let at = match of {
            Some(number) => Some(self.position(number).ok_or_else(lost)?),
            None if subdirectories.is_empty() => None,
            None => {
                self.insert_rest(0, At::Above(0), dir, subdirectories);
                Some(0)
            }
        };
        let Some(Item::Rest(rest)) = at.and_then(|at| self.items.get_mut(at)) else {
            return Ok(());
        };
        rest.at = At::Above(path.as_bytes().len());
        self.spool.adopt(&mut rest.names)?;
        self.keep_open(dir.clone());
        Ok(())
    }

    /// The same of a directory whose subdirectories are in the spool already.
    pub(super) fn entered_long(&mut self, path: &RelPath, dir: &Arc<Dir>, subdirectories: Pending) {
        self.here.clone_from(path);
        let above = At::Above(path.as_bytes().len());
        self.insert_rest(0, above, dir, subdirectories);
        self.keep_open(dir.clone());
    }

    /// Where the names of a long directory's subdirectories go.
    pub(super) fn spool(&mut self) -> &mut Spool {
        &mut self.spool
    }

    /// Gives helpers what they can do now.
    pub(super) fn look_ahead(&mut self, helpers: &mut Helpers) {
        let most = JOBS_EACH * helpers.count();
        let unfinished = helpers.unfinished();
        if 2 * unfinished > most {
            return;
        }
        let window = (WINDOW_EACH * helpers.count()).min(WINDOW_MOST);
        let mut jobs = Vec::new();
        let mut at = 0;
        while unfinished + jobs.len() < most
            && self.window < window
            && self.entries < WINDOW_ENTRIES
        {
            match self.items.get_mut(at) {
                None => break,
                Some(Item::Job(job)) => match job.take() {
                    None => at += 1,
                    Some(outcome) => {
                        self.entries += entries_of(&outcome);
                        self.items[at] = Item::Ready(Ready {
                            outcome,
                            rest: None,
                        });
                    }
                },
                Some(Item::Ready(ready)) => {
                    if let Some((path, dir, names)) = subdirectories_of(ready) {
                        let number = self.insert_rest(at + 1, At::Ahead(path), &dir, names);
                        if let Some(Item::Ready(ready)) = self.items.get_mut(at) {
                            ready.rest = Some(number);
                        }
                    }
                    at += 1;
                }
                Some(Item::Rest(_)) => {
                    match self.task_of(at) {
                        Ok(None) => {}
                        Ok(Some(task)) => {
                            let job = Job::new(task);
                            self.items.insert(at, Item::Job(job.clone()));
                            self.window += 1;
                            jobs.push(job);
                        }
                        Err(error) => {
                            self.failed = Some(error);
                            break;
                        }
                    }
                    at += 1;
                }
            }
        }
        helpers.push(jobs);
    }

    /// Forgets everything, and closes what is open.
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.recent.clear();
    }

    /// The next subdirectory of a `Rest`.
    fn task_of(&mut self, at: usize) -> io::Result<Option<Task>> {
        let Some(Item::Rest(rest)) = self.items.get_mut(at) else {
            return Ok(None);
        };
        let Some(name) = self.spool.pop(&mut rest.names)? else {
            return Ok(None);
        };
        // Their names and lengths were checked when they were found.
        let directory = match &rest.at {
            At::Above(bytes) => {
                let path = self.here.as_bytes().get(..*bytes).ok_or_else(lost)?;
                Arc::new(RelPath::new(path).map_err(io::Error::other)?)
            }
            At::Ahead(path) => path.clone(),
        };
        let path = directory.join(&name).map_err(io::Error::other)?;
        // Where it cannot be opened again, whoever does the task finds out why.
        let parent = rest.dir.upgrade().or_else(|| {
            let dir = self.root.dir(&directory).ok().map(Arc::new)?;
            rest.dir = Arc::downgrade(&dir);
            Some(dir)
        });
        if let Some(parent) = &parent
            && matches!(rest.at, At::Above(_))
        {
            self.keep_open(parent.clone());
        }
        Ok(Some(Task::Directory { parent, path }))
    }

    fn insert_rest(&mut self, place: usize, at: At, dir: &Arc<Dir>, names: Pending) -> u64 {
        self.numbers += 1;
        let rest = Rest {
            number: self.numbers,
            at,
            dir: Arc::downgrade(dir),
            names,
        };
        self.items.insert(place, Item::Rest(rest));
        self.numbers
    }

    /// The place of a `Rest`.
    fn position(&self, number: u64) -> Option<usize> {
        let is_it = |item: &Item| matches!(item, Item::Rest(rest) if rest.number == number);
        self.items.iter().position(is_it)
    }

    fn keep_open(&mut self, dir: Arc<Dir>) {
        let known = self.recent.iter().rposition(|it| Arc::ptr_eq(it, &dir));
        if known.is_some_and(|at| at + 1 == self.recent.len()) {
            return;
        }
        if let Some(at) = known {
            self.recent.remove(at);
        }
        self.recent.push_back(dir);
        if self.recent.len() > OPEN_LEVELS {
            self.recent.pop_front();
        }
    }
}

impl Ready {
    /// What came of it, and which `Rest` its subdirectories have become.
    pub(super) fn into_parts(self) -> (Outcome, Option<u64>) {
        (self.outcome, self.rest)
    }
}

/// A walk that goes on without what it cannot find would take it for deleted.
fn lost() -> io::Error {
    io::Error::other("the walk has lost its place")
}

fn entries_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Directory { looked, .. } => looked.entries.len(),
        Outcome::Long(long) => long.names_count(),
        _ => 0,
    }
}

/// Its subdirectories, if there are any that were not taken yet.
fn subdirectories_of(ready: &mut Ready) -> Option<(Arc<RelPath>, Arc<Dir>, Pending)> {
    match &mut ready.outcome {
        Outcome::Directory {
            path,
            dir,
            looked: Looked { subdirectories, .. },
        } if ready.rest.is_none() && !subdirectories.is_empty() => {
            let names = std::mem::take(subdirectories);
            Some((Arc::new(path.clone()), dir.clone(), names))
        }
        _ => None,
    }
}
