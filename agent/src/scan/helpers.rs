//! Threads that do a walk's work ahead of its turn. They are started when there is work for the first
//! time, and have ended when this is dropped: none of them holds a descriptor then.

use super::list::{Context, Lister, Outcome, Task, Turn};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The helpers of one walk.
#[derive(Debug)]
pub(super) struct Helpers {
    context: Arc<Context>,
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    wanted: usize,
}

/// One task, and what came of it.
#[derive(Debug)]
pub(super) struct Job {
    state: Mutex<State>,
    done: AtomicBool,
}

#[derive(Debug)]
enum State {
    Waiting(Task),
    Running,
    Done(Outcome),
    Taken,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    /// For helpers: there is a job, or the end.
    work: Condvar,
    /// For the walk: the job that it waits for is done, or the helpers have nothing more to do.
    progress: Condvar,
    /// Jobs that are not done.
    unfinished: AtomicUsize,
}

#[derive(Debug, Default)]
struct QueueState {
    jobs: VecDeque<Arc<Job>>,
    idle: usize,
    waited_for: Option<Arc<Job>>,
    closed: bool,
}

impl Job {
    pub(super) fn new(task: Task) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::Waiting(task)),
            done: AtomicBool::new(false),
        })
    }

    /// What came of it, once.
    pub(super) fn take(&self) -> Option<Outcome> {
        if !self.done.load(Ordering::Acquire) {
            return None;
        }
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The task, for whoever comes first.
    fn claim(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Waiting(_)) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Running) {
            State::Waiting(task) => Some(task),
            _ => None,
        }
    }

    fn finish(&self, outcome: Outcome) {
        *lock(&self.state) = State::Done(outcome);
        self.done.store(true, Ordering::Release);
    }
}

impl Helpers {
    pub(super) fn new(context: Arc<Context>, wanted: usize) -> Self {
        Self {
            context,
            queue: Arc::default(),
            threads: Vec::new(),
            wanted,
        }
    }

    /// How many there are, or will be.
    pub(super) fn count(&self) -> usize {
        self.wanted
    }

    /// Jobs that are not done.
    pub(super) fn unfinished(&self) -> usize {
        self.queue.unfinished.load(Ordering::Relaxed)
    }

    /// More to do, in this order.
    pub(super) fn push(&mut self, jobs: Vec<Arc<Job>>) {
        if jobs.is_empty() {
            return;
        }
        self.start();
        let count = jobs.len();
        self.queue.unfinished.fetch_add(count, Ordering::Relaxed);
        let mut state = lock(&self.queue.state);
        state.jobs.extend(jobs);
        let wake = state.idle.min(count);
        drop(state);
        for _ in 0..wake {
            self.queue.work.notify_one();
        }
    }

    /// Sees to it that a job gets done, or at least something: does the job if nobody has begun it, else
    /// another one, else waits for it.
    pub(super) fn hasten(&self, job: &Arc<Job>, lister: &mut Lister) {
        let mut state = lock(&self.queue.state);
        if let Some(task) = job.claim() {
            // Mostly it is the first one. Helpers pass over what is left of others.
            if state
                .jobs
                .front()
                .is_some_and(|first| Arc::ptr_eq(first, job))
            {
                state.jobs.pop_front();
            }
            drop(state);
            self.queue.done(job, lister.run(task, Turn::Now));
            return;
        }
        while let Some(other) = state.jobs.pop_front() {
            if let Some(task) = other.claim() {
                drop(state);
                self.queue.done(&other, lister.run(task, Turn::Later));
                return;
            }
        }
        if !job.done.load(Ordering::Acquire) {
            state.waited_for = Some(job.clone());
            let waited = self.queue.progress.wait(state);
            waited.unwrap_or_else(PoisonError::into_inner).waited_for = None;
        }
    }

    fn start(&mut self) {
        while self.threads.len() < self.wanted {
            let (context, queue) = (self.context.clone(), self.queue.clone());
            let name = format!("scan {}", self.threads.len() + 1);
            let started = std::thread::Builder::new().name(name).spawn(move || {
                if let Err(errno) = context.options.priority.apply() {
                    tracing::debug!(%errno, "could not lower a thread's priority");
                }
                queue.work(Lister::new(context));
            });
            match started {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    // Whoever walks does everything alone.
                    tracing::warn!(%error, "a thread of the walk could not be started");
                    self.wanted = self.threads.len();
                }
            }
        }
    }
}

impl Queue {
    fn work(&self, mut lister: Lister) {
        let mut state = lock(&self.state);
        while !state.closed {
            let Some(job) = state.jobs.pop_front() else {
                state.idle += 1;
                let woken = self.work.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            if let Some(task) = job.claim() {
                let run = catch_unwind(AssertUnwindSafe(|| lister.run(task, Turn::Later)));
                let broken = |_| {
                    let source = io::Error::other("a thread of the walk panicked");
                    Outcome::Aborted("walk the volume", source)
                };
                self.done(&job, run.unwrap_or_else(broken));
            }
            drop(job);
            state = lock(&self.state);
        }
    }

    fn done(&self, job: &Arc<Job>, outcome: Outcome) {
        job.finish(outcome);
        self.unfinished.fetch_sub(1, Ordering::Relaxed);
        let state = lock(&self.state);
        if let Some(waited_for) = &state.waited_for
            && (Arc::ptr_eq(waited_for, job) || state.jobs.is_empty())
        {
            drop(state);
            self.progress.notify_one();
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.queue.work.notify_all();
        for thread in self.threads.drain(..) {
            // Its panic was told where it happened.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panicked left plain values.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
