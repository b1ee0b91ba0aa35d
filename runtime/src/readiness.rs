//! Ready means that every latch was released, not that the process is up.
//!
//! Each part of the start takes a latch; the last release makes the process ready. Draining makes it
//! unready for good. A trouble makes it unready for as long as it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// What still has to happen before this process is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waits: BTreeSet<&'static str>,
    troubles: BTreeMap<&'static str, String>,
}

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
        self.state().waits.insert(name);
        Latch {
            readiness: self.clone(),
            name,
        }
    }

    /// Unready from now on: the process is stopping.
    pub fn drain(&self) {
        self.state().waits.insert("stopping");
    }

    /// What is waited for; empty when ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.state().waits.iter().copied().collect()
    }

    /// What keeps the process from its work now, each with a stable word; in place of what was said before.
    pub fn set_troubles(&self, troubles: BTreeMap<&'static str, String>) {
        self.state().troubles = troubles;
    }

    /// What keeps the process from its work now.
    pub fn troubles(&self) -> BTreeMap<&'static str, String> {
        self.state().troubles.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one call on one collection.
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Latch {
    /// The part is ready.
    pub fn release(self) {}

    /// Of what it is a latch.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.state().waits.remove(self.name);
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

    #[test]
    fn troubles_come_and_go() {
        let readiness = Readiness::new();
        readiness.set_troubles([("Word", "what".to_owned())].into());
        assert_eq!(readiness.troubles().len(), 1);
        readiness.set_troubles(BTreeMap::new());
        assert!(readiness.troubles().is_empty());
    }
}
