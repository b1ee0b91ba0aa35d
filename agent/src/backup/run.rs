//! The threads of one run: a scanner that compares, workers, a sequencer; joined, whatever happens.

use super::batcher::Batcher;
use super::compare::{Compare, Compared};
use super::problems::Problems;
use super::reread::Reread;
use super::sequence::{Sequenced, Sequencer};
use super::shared::Shared;
use super::worker::Worker;
use crate::beneath::Root;
use crate::error::{Error, Result};
use crate::index::{Cursor, Writer};
use crate::journal::Turn;
use crate::priority::Priority;
use crate::read::ReadContext;
use crate::rules::Rules;
use crate::scan::{Scan, ScanOptions, Scanner, Targeted, Targets};
use crate::upload::Outgoing;
use holdfast_format::stamp::Host;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

/// Everything that the threads of a run need.
#[derive(Debug)]
pub struct Pipeline {
    /// Shared by all of them.
    pub shared: Arc<Shared>,
    /// Name of the volume, for errors.
    pub volume: String,
    /// Its root.
    pub root: Arc<Root>,
    /// What to leave out.
    pub rules: Rules,
    /// How to walk.
    pub scan: ScanOptions,
    /// What to look at; `None`: everything.
    pub targets: Option<Targets>,
    /// The journal's part in it.
    pub turn: Option<Arc<Turn>>,
    /// How to read.
    pub read: ReadContext,
    /// Where the index stands.
    pub cursor: Cursor,
    /// Its edits.
    pub writer: Writer,
    /// Whether stamps that were not settled still hold.
    pub host: Host,
    /// What to read whatever its stamp says.
    pub reread: Reread,
    /// The way to the coordinator.
    pub outgoing: Outgoing,
    /// Chunking profile.
    pub profile: u8,
    /// Start of the run.
    pub started_ns: i64,
    /// Threads that read and compress.
    pub workers: usize,
    /// How far all of them step back.
    pub priority: Priority,
}

impl Pipeline {
    /// Runs to the end. When it returns no thread is left, and no descriptor in the volume but the root's.
    pub fn run(self) -> Result<(Compared, Sequenced)> {
        let shared = self.shared.clone();
        let result = self.run_threads();
        shared.pool.close();
        match result {
            Ok(done) => match shared.take_failure() {
                None => Ok(done),
                Some(error) => Err(error),
            },
            // The first failure is the cause; "cancelled" is how the others ended.
            Err(error) => Err(shared.take_failure().unwrap_or(error)),
        }
    }

    fn run_threads(self) -> Result<(Compared, Sequenced)> {
        let Self {
            shared,
            volume,
            root,
            rules,
            scan,
            targets,
            turn,
            read,
            cursor,
            writer,
            host,
            reread,
            outgoing,
            profile,
            started_ns,
            workers,
            priority,
        } = self;
        let shared = &*shared;
        thread::scope(|scope| {
            let (slots, in_order) = channel();
            let mut threads = Vec::new();
            for number in 0..workers {
                let read = read.clone();
                threads.push(spawn(scope, shared, priority, format!("read {number}"), {
                    move || Worker::new(shared, read)?.run()
                })?);
            }
            let compare = spawn(scope, shared, priority, "scan".to_owned(), move || {
                let batcher = Batcher::new(shared, slots);
                let scan = match targets {
                    Some(targets) => {
                        Scan::Changes(Box::new(Targeted::new(root, rules, scan, targets)))
                    }
                    None => Scan::Whole(Box::new(Scanner::new(root, rules, scan))),
                };
                Compare::new(shared, cursor, host, reread, batcher).run(scan, &volume)
            })?;
            let problems = Problems::new(started_ns, &shared.temporary);
            let sequencer = Sequencer::new(shared, outgoing, writer, profile, problems, turn);
            let sequence = spawn(scope, shared, priority, "sequence".to_owned(), move || {
                let sequenced = sequencer.run(&in_order);
                shared.pool.close();
                sequenced
            })?;
            let compared = join(compare);
            let sequenced = join(sequence);
            let worked: Result<Vec<()>> = threads.into_iter().map(join).collect();
            worked?;
            Ok((compared?, sequenced?))
        })
    }
}

/// Starts a thread whose failure (or panic) ends the run.
fn spawn<'scope, 'env, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, 'env>,
    shared: &'scope Shared,
    priority: Priority,
    name: String,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, Result<T>>> {
    thread::Builder::new()
        .name(name)
        .spawn_scoped(scope, move || {
            let guard = EndOnPanic(shared);
            if let Err(errno) = priority.apply() {
                tracing::debug!(%errno, "could not lower a thread's priority");
            }
            let done = work().map_err(|error| {
                shared.fail(error);
                Error::Cancelled
            });
            drop(guard);
            done
        })
        .map_err(|source| {
            shared.fail(Error::Cancelled);
            Error::Io {
                what: "start a thread",
                path: String::new(),
                source,
            }
        })
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle
        .join()
        .unwrap_or_else(|_| Err(Error::Internal("a thread of the run panicked".to_owned())))
}

struct EndOnPanic<'a>(&'a Shared);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0
                .fail(Error::Internal("a thread of the run panicked".to_owned()));
        }
    }
}
