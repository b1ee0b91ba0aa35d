//! Ready means that every latch was released, not that the process is up.
//!
//! Each part of the start takes a latch; the last release makes the process ready. Draining makes it
//! unready for good.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

/// What still has to happen before this process is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// Holds readiness back until it is dropped.
#[derive(Debug)]
pub struct Latch {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Ready at once, while no latch is held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds readiness back; `name` says in `/readyz` what is waited for, and is used once.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.waits().insert(name);
        Latch {
            readiness: self.clone(),
            name,
        }
    }

    /// Unready from now on: the process is stopping.
    pub fn drain(&self) {
        self.waits().insert("stopping");
    }

    /// What is waited for; empty when ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.waits().iter().copied().collect()
    }

    fn waits(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        // A set of names cannot be left half changed.
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Latch {
    /// The part is ready.
    pub fn release(self) {}
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.waits().remove(self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_latch_makes_ready_and_draining_unready() {
        let readiness = Readiness::new();
        let (store, catalog) = (readiness.latch("store"), readiness.latch("catalog"));
        store.release();
        assert_eq!(readiness.waiting_for(), ["catalog"]);
        drop(catalog);
        assert!(readiness.waiting_for().is_empty());
        readiness.drain();
        assert_eq!(readiness.waiting_for(), ["stopping"]);
    }
}
