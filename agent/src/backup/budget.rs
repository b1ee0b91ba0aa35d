//! Memory of a run, in bytes, shared by all of its threads.
//!
//! Work is done in any order but leaves in one order, so what is first in that order may take a
//! reserve that nothing else can: the run always gets on.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting thread looks whether the run was cancelled.
const LOOK: Duration = Duration::from_millis(100);
/// How long a thread waits that could do something else.
const SOON: Duration = Duration::from_millis(2);

/// Bytes that may be in flight.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
    released: Condvar,
    limit: u64,
    reserve: u64,
}

#[derive(Debug)]
struct State {
    used: u64,
    /// What leaves next.
    first: u64,
}

/// Bytes taken from a budget; gives them back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// `limit` bytes for everybody and `reserve` more for what is first.
    pub fn new(limit: u64, reserve: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { used: 0, first: 0 }),
            released: Condvar::new(),
            limit,
            reserve,
        })
    }

    /// Takes bytes for the work of this number, if there are any.
    pub fn try_take(self: &Arc<Self>, number: u64, bytes: u64) -> Option<Permit> {
        let mut state = self.state();
        self.grant(&mut state, number, bytes)
    }

    /// Takes bytes for the work of this number, waiting until there are some.
    pub fn take(self: &Arc<Self>, number: u64, bytes: u64, cancel: &Cancel) -> Result<Permit> {
        let mut state = self.state();
        loop {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if let Some(permit) = self.grant(&mut state, number, bytes) {
                return Ok(permit);
            }
            let waited = self.released.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// As `take`, but gives up after a short while: there may be something better to do.
    pub fn take_soon(
        self: &Arc<Self>,
        number: u64,
        bytes: u64,
        cancel: &Cancel,
    ) -> Result<Option<Permit>> {
        cancel.check()?;
        let state = self.state();
        let waited = self.released.wait_timeout(state, SOON);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        Ok(self.grant(&mut state, number, bytes))
    }

    /// Says which work leaves next.
    pub fn set_first(&self, number: u64) {
        self.state().first = number;
        self.released.notify_all();
    }

    fn grant(self: &Arc<Self>, state: &mut State, number: u64, bytes: u64) -> Option<Permit> {
        let limit = if number == state.first {
            self.limit + self.reserve
        } else {
            self.limit
        };
        // Alone, anything may go: what is larger than the budget must pass too.
        if state.used != 0 && state.used + bytes > limit {
            return None;
        }
        state.used += bytes;
        Some(Permit {
            budget: self.clone(),
            bytes,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked held nothing but two numbers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.budget.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Budget {
    fn give_back(&self, bytes: u64) {
        let mut state = self.state();
        state.used -= bytes;
        drop(state);
        self.released.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_first_always_gets_on() {
        let budget = Budget::new(100, 50);
        let held = budget.try_take(7, 100).unwrap();
        assert!(budget.try_take(8, 1).is_none());
        assert!(budget.try_take(0, 51).is_none());
        let first = budget.try_take(0, 50).unwrap();
        drop(held);
        assert!(budget.try_take(8, 51).is_none());
        drop(first);
        // Alone, more than the whole budget may pass.
        let mut large = budget.try_take(8, 1000).unwrap();
        assert!(budget.try_take(0, 1).is_none());
        large.shrink_to(10);
        assert!(budget.try_take(9, 90).is_some());
        drop(large);
        assert_eq!(budget.state().used, 0);
    }

    #[test]
    fn waiting_ends_with_a_release_or_a_cancellation() {
        let budget = Budget::new(10, 0);
        let cancel = Cancel::new();
        let held = budget.try_take(0, 10).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(1, 5, &cancel).map(|_| ()));
            drop(held);
            assert!(waiting.join().unwrap().is_ok());
        });
        let held = budget.try_take(0, 10).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(1, 5, &cancel).map(|_| ()));
            cancel.cancel();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
        });
        drop(held);
    }
}
