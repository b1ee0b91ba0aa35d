//! Locks by name, made when they are first asked for and forgotten when nobody has them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// The locks.
#[derive(Debug, Default)]
pub struct Locks(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// Some of them, held.
pub type Guards = Vec<OwnedMutexGuard<()>>;

impl Locks {
    fn of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(name.to_owned()).or_default().clone()
    }

    /// Waits for them, one after the other in the order of their names, so that nobody waits for ever.
    pub async fn take(&self, mut names: Vec<String>) -> Guards {
        names.sort();
        names.dedup();
        let mut guards = Vec::with_capacity(names.len());
        for name in names {
            guards.push(self.of(&name).lock_owned().await);
        }
        guards
    }

    /// Takes one at once; `None`: somebody has it.
    pub fn try_take(&self, name: &str) -> Option<OwnedMutexGuard<()>> {
        self.of(name).try_lock_owned().ok()
    }

    /// Whether somebody has it.
    pub fn is_taken(&self, name: &str) -> bool {
        let locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.get(name).is_some_and(|lock| lock.try_lock().is_err())
    }
}
