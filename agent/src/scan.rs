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
//! Helpers list directories further on (`upcoming`) while the caller is busy with those before, and the
//! caller's own thread does so where it would have to wait; the order of what comes is the same.
//! When the walk has ended, also early, no helper is left and no descriptor but those that were handed on.
//!
//! One scanner is used by one thread; what it gives can be used by any. Where a journal says what may have
//! changed, [`Targeted`] looks at that and nothing else.

mod either;
mod failure;
mod helpers;
mod item;
mod list;
mod seen;
mod targeted;
mod targets;
mod upcoming;

pub use either::Scan;
pub use item::{
    BeforeListing, Child, Children, DirBatch, Failed, Found, ScanOptions, ScanStats, Scanned,
};
pub use seen::Seen;
pub use targeted::Targeted;
pub use targets::{Known, Targets};

use crate::beneath::{Dir, Root};
use crate::rules::Rules;
use crate::sort::{Names, SortedNames};
use crate::spool::Pending;
use failure::{aborted, problem};
use helpers::{Helpers, Job};
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use list::{Completed, Context, Lister, Long, Looked, Outcome, Task, Turn};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use upcoming::{Next, Upcoming};

/// Batches of a long directory that are looked at ahead, for each helper.
const BATCHES_EACH: usize = 2;

/// A walk in progress.
#[derive(Debug)]
pub struct Scanner {
    context: Arc<Context>,
    lister: Lister,
    helpers: Option<Helpers>,
    state: State,
    upcoming: Upcoming,
    stats: ScanStats,
}

#[derive(Debug)]
enum State {
    /// The root, and then everything in it.
    Start,
    /// This directory.
    From(RelPath),
    Walk,
    /// A directory whose names are looked at in several batches.
    Long(Box<LongWalk>),
    Done,
}

#[derive(Debug)]
struct LongWalk {
    path: Arc<RelPath>,
    dir: Arc<Dir>,
    names: SortedNames,
    /// Batches on their way, in order.
    jobs: VecDeque<Arc<Job>>,
    subdirectories: Pending,
}

impl Scanner {
    /// A walk of everything below `root` that the rules keep, the root itself first.
    pub fn new(root: Arc<Root>, rules: Rules, options: ScanOptions) -> Self {
        options
            .seen
            .begin(root.clone(), rules.clone(), options.began_ns);
        Self::at(State::Start, root, rules, options)
    }

    /// A walk of what lies below a directory: its children first, not itself. What renames hide from it
    /// is not told.
    pub fn below(path: RelPath, root: Arc<Root>, rules: Rules, options: ScanOptions) -> Self {
        Self::at(State::From(path), root, rules, options)
    }

    fn at(state: State, root: Arc<Root>, rules: Rules, options: ScanOptions) -> Self {
        let context = Arc::new(Context {
            temporary: options.temporary_directory.clone().into(),
            root: root.clone(),
            rules,
            options,
        });
        let options = &context.options;
        let helpers = options.helpers;
        Self {
            upcoming: Upcoming::new(root, options.temporary_directory.clone()),
            lister: Lister::new(context.clone()),
            helpers: (helpers > 0).then(|| Helpers::new(context.clone(), helpers)),
            state,
            stats: ScanStats::default(),
            context,
        }
    }

    /// What was met so far.
    pub fn stats(&self) -> ScanStats {
        self.stats
    }

    fn step(&mut self) -> Option<Scanned> {
        loop {
            if self.context.options.cancel.is_cancelled() {
                self.state = State::Done;
            }
            if let Some(helpers) = &mut self.helpers
                && matches!(self.state, State::Walk)
            {
                self.upcoming.look_ahead(helpers);
            }
            let scanned = match std::mem::replace(&mut self.state, State::Walk) {
                State::Start => Some(self.begin()),
                State::From(path) => {
                    let parent = None;
                    let task = Task::Directory { parent, path };
                    let outcome = self.lister.run(task, Turn::Now);
                    self.hand_on(outcome, None)
                }
                State::Walk => match self.upcoming.next() {
                    Ok(Next::End) => {
                        self.state = State::Done;
                        None
                    }
                    Ok(Next::Task(task)) => {
                        let outcome = self.lister.run(task, Turn::Now);
                        self.hand_on(outcome, None)
                    }
                    Ok(Next::Ready(ready)) => {
                        let (outcome, rest) = ready.into_parts();
                        self.hand_on(outcome, rest)
                    }
                    Ok(Next::Job(job)) => {
                        if let Some(helpers) = &self.helpers {
                            helpers.hasten(&job, &mut self.lister);
                        }
                        None
                    }
                    Err(source) => Some(self.abort("keep a large directory's names", source)),
                },
                State::Long(long) => self.batch(long),
                State::Done => {
                    self.end();
                    return None;
                }
            };
            if scanned.is_some() {
                return scanned;
            }
        }
    }

    fn begin(&mut self) -> Scanned {
        let root = &self.context.root;
        let opened = root
            .top()
            .and_then(|dir| dir.stat_self().map(|stat| (Arc::new(dir), stat)));
        match opened {
            Ok((dir, stat)) => {
                self.state = State::From(RelPath::root());
                self.stats.entries_count += 1;
                let found = Found {
                    name: Vec::new(),
                    kind: Kind::Directory,
                    stat,
                    boundary: false,
                };
                Scanned::Root { dir, found }
            }
            Err(errno) => {
                self.state = State::Done;
                Scanned::ListingFailed {
                    path: RelPath::root(),
                    problem: problem("open the root", errno),
                }
            }
        }
    }

    /// Emits what came of a directory, in its turn.
    fn hand_on(&mut self, outcome: Outcome, rest: Option<u64>) -> Option<Scanned> {
        match outcome {
            Outcome::Directory { path, dir, looked } => {
                let Looked {
                    entries,
                    failed,
                    subdirectories,
                    stats,
                } = looked;
                self.stats.add(&stats);
                let entered = self.upcoming.entered(&path, &dir, subdirectories, rest);
                if let Err(source) = entered {
                    return Some(self.abort("keep a large directory's names", source));
                }
                Some(Scanned::Batch(DirBatch {
                    path,
                    dir,
                    entries,
                    failed,
                    absent: Vec::new(),
                    whole: true,
                    last: true,
                }))
            }
            Outcome::Long(long) => self.enter_long(*long),
            Outcome::Vanished(path) => {
                self.stats.vanished_count += 1;
                Some(match self.context.root.top() {
                    Ok(top) => Scanned::Batch(DirBatch {
                        path,
                        dir: Arc::new(top),
                        entries: Children::default(),
                        failed: Vec::new(),
                        absent: Vec::new(),
                        whole: true,
                        last: true,
                    }),
                    Err(errno) => Scanned::ListingFailed {
                        path,
                        problem: problem("open the root", errno),
                    },
                })
            }
            Outcome::Failed(path, problem) => Some(Scanned::ListingFailed { path, problem }),
            Outcome::Aborted(what, source) => Some(self.abort(what, source)),
            Outcome::Cancelled if self.context.options.cancel.is_cancelled() => {
                self.state = State::Done;
                None
            }
            // Whatever is missed must not look like the end of the tree.
            Outcome::Cancelled | Outcome::Names(_) => {
                Some(self.abort("walk the volume", io::Error::other("a step was left out")))
            }
        }
    }

    fn enter_long(&mut self, long: Long) -> Option<Scanned> {
        let Completed {
            path,
            dir,
            names,
            stats,
        } = match self.lister.complete(long) {
            Ok(completed) => completed,
            Err(outcome) => return self.hand_on(*outcome, None),
        };
        self.stats.add(&stats);
        self.state = State::Long(Box::new(LongWalk {
            path: Arc::new(path),
            dir,
            names,
            jobs: VecDeque::new(),
            subdirectories: self.upcoming.spool().begin(),
        }));
        None
    }

    /// The next batch of a long directory.
    fn batch(&mut self, mut long: Box<LongWalk>) -> Option<Scanned> {
        let most = self.context.options.batch_entries.max(1);
        let take = |long: &mut LongWalk| {
            let mut names = Names::default();
            long.names.take(most, &mut names).map(|()| Task::Names {
                dir: long.dir.clone(),
                path: long.path.clone(),
                names,
            })
        };
        let ahead = self.helpers.as_ref().map_or(0, Helpers::count) * BATCHES_EACH;
        let mut jobs = Vec::new();
        while long.jobs.len() < ahead && !long.names.is_done() {
            match take(&mut long) {
                Ok(task) => jobs.push(Job::new(task)),
                Err(source) => return Some(self.abort("read a large directory's names", source)),
            }
            long.jobs.extend(jobs.last().cloned());
        }
        let outcome = match (long.jobs.front(), &mut self.helpers) {
            (Some(job), Some(helpers)) => {
                helpers.push(jobs);
                self.upcoming.look_ahead(helpers);
                match job.take() {
                    Some(outcome) => {
                        long.jobs.pop_front();
                        outcome
                    }
                    None => {
                        helpers.hasten(job, &mut self.lister);
                        self.state = State::Long(long);
                        return None;
                    }
                }
            }
            _ => match take(&mut long) {
                Ok(task) => self.lister.run(task, Turn::Now),
                Err(source) => return Some(self.abort("read a large directory's names", source)),
            },
        };
        let Outcome::Names(looked) = outcome else {
            return self.hand_on(outcome, None);
        };
        match self.batch_of(long, looked) {
            Ok(batch) => Some(Scanned::Batch(batch)),
            Err(source) => Some(self.abort("keep a large directory's names", source)),
        }
    }

    fn batch_of(&mut self, mut long: Box<LongWalk>, looked: Looked) -> io::Result<DirBatch> {
        let Looked {
            entries,
            failed,
            mut subdirectories,
            stats,
        } = looked;
        self.stats.add(&stats);
        let spool = self.upcoming.spool();
        while let Some(name) = spool.pop(&mut subdirectories)? {
            spool.push(&mut long.subdirectories, &name)?;
        }
        let last = long.jobs.is_empty() && long.names.is_done();
        let batch = DirBatch {
            path: (*long.path).clone(),
            dir: long.dir.clone(),
            entries,
            failed,
            absent: Vec::new(),
            whole: true,
            last,
        };
        if last {
            let mut names = long.subdirectories;
            spool.complete(&mut names)?;
            self.upcoming.entered_long(&long.path, &long.dir, names);
            self.state = State::Walk;
        } else {
            self.state = State::Long(long);
        }
        Ok(batch)
    }

    fn abort(&mut self, what: &'static str, source: io::Error) -> Scanned {
        self.state = State::Done;
        aborted(what, source)
    }

    /// Lets go of everything, and waits until the helpers have.
    fn end(&mut self) {
        self.state = State::Done;
        self.upcoming.clear();
        self.helpers = None;
    }
}

impl Iterator for Scanner {
    type Item = Scanned;

    /// The next part of the walk; `None` at its end, and soon after it was cancelled.
    fn next(&mut self) -> Option<Scanned> {
        self.step()
    }
}

#[cfg(test)]
mod tests;
