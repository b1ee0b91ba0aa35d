//! What can wait until there is time. Several threads take from it, and none gets a volume that another works
//! on: one that is large, or that hangs, leaves the other threads to the others.

use crate::journal::epoch::Journal;
use crate::rules::Rules;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// Work on one volume's journal.
#[derive(Debug)]
pub(in crate::journal) enum Task {
    /// Find the files that had writers before the epoch began.
    Seed(Box<Rules>),
    /// Forget files that nobody writes any more.
    Tidy,
    /// Forget inodes that exist no more.
    Forget,
}

/// The tasks that wait, in order. Each volume has at most one of a kind.
#[derive(Debug, Default)]
pub(in crate::journal) struct Queue {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Weak<Journal>, Task)>,
    /// Those that a thread works on.
    busy: Vec<Weak<Journal>>,
    ended: bool,
    /// Nobody gets anything.
    #[cfg(test)]
    held: bool,
}

/// A task, and its volume, which nobody else gets until this is dropped.
#[derive(Debug)]
pub(super) struct Work<'q> {
    queue: &'q Queue,
    pub(super) journal: Weak<Journal>,
    pub(super) task: Task,
}

impl Queue {
    /// One more task, in place of one of its kind that waits.
    pub(in crate::journal) fn push(&self, journal: &Arc<Journal>, task: Task) {
        let journal = Arc::downgrade(journal);
        let kind = mem::discriminant(&task);
        let mut state = self.state();
        let is_same = |(other, waits): &(Weak<Journal>, Task)| {
            other.ptr_eq(&journal) && mem::discriminant(waits) == kind
        };
        match state.waiting.iter().position(is_same) {
            Some(at) => state.waiting[at].1 = task,
            // It is short, and there will be too many soon.
            None if matches!(task, Task::Forget) => state.waiting.push_front((journal, task)),
            None => state.waiting.push_back((journal, task)),
        }
        drop(state);
        self.more.notify_all();
    }

    /// The first task whose volume nobody works on; waits for one. `None`: there will be none any more.
    pub(super) fn take(&self) -> Option<Work<'_>> {
        let mut state = self.state();
        while !state.ended {
            if let Some(at) = state.next() {
                let (journal, task) = state.waiting.remove(at)?;
                state.busy.push(journal.clone());
                let queue = self;
                return Some(Work {
                    queue,
                    journal,
                    task,
                });
            }
            let waited = self.more.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// What waits is never done.
    pub(in crate::journal) fn end(&self) {
        self.state().ended = true;
        self.more.notify_all();
    }

    /// Nothing is begun for a while, or again.
    #[cfg(test)]
    pub(in crate::journal) fn hold(&self, held: bool) {
        self.state().held = held;
        self.more.notify_all();
    }

    /// Whether nothing waits or is done.
    #[cfg(test)]
    pub(in crate::journal) fn is_idle(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.busy.is_empty()
    }

    /// Whether somebody is to forget inodes.
    #[cfg(test)]
    pub(in crate::journal) fn is_to_forget(&self) -> bool {
        let state = self.state();
        let mut waiting = state.waiting.iter();
        waiting.any(|(_, task)| matches!(task, Task::Forget))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Lists are consistent after every call on them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&self) -> Option<usize> {
        #[cfg(test)]
        if self.held {
            return None;
        }
        let is_free = |journal: &Weak<Journal>| !self.busy.iter().any(|it| it.ptr_eq(journal));
        self.waiting.iter().position(|(it, _)| is_free(it))
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let journal = &self.journal;
        self.queue.state().busy.retain(|it| !it.ptr_eq(journal));
        self.queue.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::room::Room;
    use crate::journal::share::{Share, Shares};
    use crate::journal::source::Kind;

    fn journal(name: &str) -> Arc<Journal> {
        let (room, share) = (Room::new(1, 1), Share::new(Shares::new(1)));
        Journal::new(name.to_owned(), "/".into(), &Kind::ALL, room, share)
    }

    /// What is taken: the volume and the kind of work.
    fn taken(work: &Work<'_>) -> (String, char) {
        let kind = match work.task {
            Task::Seed(_) => 's',
            Task::Tidy => 't',
            Task::Forget => 'f',
        };
        (work.journal.upgrade().unwrap().volume.clone(), kind)
    }

    #[test]
    fn a_volume_is_never_worked_on_twice_at_once() {
        let queue = Queue::default();
        let (a, b) = (journal("a"), journal("b"));
        queue.push(&a, Task::Seed(Box::default()));
        queue.push(&a, Task::Tidy);
        queue.push(&b, Task::Tidy);
        let first = queue.take().unwrap();
        assert_eq!(taken(&first), ("a".to_owned(), 's'));
        // Another thread is not kept waiting by it.
        let second = queue.take().unwrap();
        assert_eq!(taken(&second), ("b".to_owned(), 't'));
        assert_eq!(queue.state().next(), None);
        drop(second);
        assert_eq!(queue.state().next(), None);
        drop(first);
        assert_eq!(taken(&queue.take().unwrap()), ("a".to_owned(), 't'));
        assert!(queue.is_idle());
    }

    #[test]
    fn what_waits_is_not_asked_for_twice() {
        let queue = Queue::default();
        let (a, b) = (journal("a"), journal("b"));
        for _ in 0..3 {
            queue.push(&a, Task::Tidy);
            queue.push(&b, Task::Tidy);
            queue.push(&a, Task::Seed(Box::default()));
            queue.push(&b, Task::Forget);
        }
        let all = [("b", 'f'), ("a", 't'), ("b", 't'), ("a", 's')];
        for (volume, kind) in all {
            assert_eq!(taken(&queue.take().unwrap()), (volume.to_owned(), kind));
        }
        assert!(queue.is_idle());
    }

    #[test]
    fn who_waits_is_told_of_more_and_of_the_end() {
        let queue = Queue::default();
        let a = journal("a");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let first = queue.take().map(|work| taken(&work));
                (first, queue.take().is_none())
            });
            queue.push(&a, Task::Tidy);
            while !queue.is_idle() {
                std::thread::yield_now();
            }
            queue.end();
            let (first, ended) = waits.join().unwrap();
            assert_eq!(first, Some(("a".to_owned(), 't')));
            assert!(ended);
        });
    }
}
