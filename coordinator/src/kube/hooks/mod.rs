//! Hooks around every run of a volume, whoever asked for it. The post-hook runs whatever happens: while this process
//! lives it runs it; what it has not run when it ends is in the catalog and runs first when it is started again;
//! and where nobody is left, the watchdog that the pre-hook started in the container does.

mod act;
mod bracket;
mod exec;
mod finish;
mod http;
mod locks;
mod record;
mod resolve;
mod script;

use super::picture::Picture;
use crate::Coordinator;
use crate::schedule::{Gate, HookEnd};
use act::Actor;
use holdfast_proto::v1::{Problem, Report};
use holdfast_runtime::shutdown::Shutdown;
use kube::Client;
use locks::Locks;
use record::volume_key;
use resolve::Hooks;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Runs that wait for their hooks, at most.
const WAITING: usize = 1000;
/// How long runs wait for the first picture of the cluster; after that they are made without hooks, and it is
/// told.
const PICTURE: Duration = Duration::from_secs(15);
/// How long a shutdown waits for post-hooks. What is not run by then runs after the next start.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Why hooks could not be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// As one stable word.
    pub reason: &'static str,
    /// For people.
    pub detail: String,
    /// Whether it is only that the cluster's API cannot be asked.
    pub is_away: bool,
}

impl Failure {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            reason,
            detail,
            is_away: false,
        }
    }
}

/// The hooks of all runs.
pub struct Brackets {
    actor: Actor,
    coordinator: Weak<Coordinator>,
    pictures: watch::Receiver<Option<Arc<Picture>>>,
    /// Whether the unfinished post-hooks of the process before are known.
    ready: watch::Sender<bool>,
    locks: Locks,
    /// Post-hooks that have not been run: by volume and number, what they are and why not.
    unfinished: Mutex<HashMap<String, BTreeMap<i64, String>>>,
    /// Runs that are in brackets; closed when the coordinator stops.
    open: watch::Sender<usize>,
    started: Duration,
    stopping: Shutdown,
}

impl Gate for Brackets {
    fn holds(&self, volume: &str) -> bool {
        if !*self.ready.borrow() || self.locks.is_taken(&volume_key(volume)) {
            return true;
        }
        match &*self.pictures.borrow() {
            Some(picture) => !Hooks::of(picture, volume).is_empty(),
            None => true,
        }
    }
}

/// From now on runs are made with their hooks, until the coordinator stops.
pub fn start(
    coordinator: &Arc<Coordinator>,
    client: Client,
    pictures: watch::Receiver<Option<Arc<Picture>>>,
) -> Arc<Brackets> {
    let brackets = Arc::new(Brackets {
        actor: Actor { client },
        coordinator: Arc::downgrade(coordinator),
        pictures,
        ready: watch::Sender::new(false),
        locks: Locks::default(),
        unfinished: Mutex::default(),
        open: watch::Sender::new(0),
        started: coordinator.clock().elapsed(),
        stopping: coordinator.stopping(),
    });
    let mut held = coordinator.hub().set_gate(brackets.clone(), WAITING);
    let (recovering, carrying) = (brackets.clone(), brackets.clone());
    tokio::spawn(async move { recovering.recover().await });
    tokio::spawn(async move {
        while let Some(held) = held.recv().await {
            let brackets = carrying.clone();
            // At most so many as there are jobs.
            tokio::spawn(brackets.carry(held));
        }
    });
    brackets
}

impl Brackets {
    /// What is unfinished, for the states of volumes: volume, and what is told of it.
    pub fn unfinished(&self) -> HashMap<String, Vec<String>> {
        let unfinished = self.waiting();
        let said = unfinished.iter().filter(|(_, posts)| !posts.is_empty());
        said.map(|(volume, posts)| (volume.clone(), posts.values().cloned().collect()))
            .collect()
    }

    /// Waits until runs have had their post-hooks, which they get when the coordinator stops; not for long.
    pub async fn drain(&self) {
        let mut open = self.open.subscribe();
        let drained = open.wait_for(|open| *open == 0);
        // What is not done by then is in the catalog.
        let _ = tokio::time::timeout(SHUTDOWN, drained).await;
    }

    fn count(&self, end: HookEnd) {
        if let Some(coordinator) = self.coordinator.upgrade() {
            coordinator.hub().counts().hooks().ended(end);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<i64, String>>> {
        // Every change is complete before anything can panic.
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a report says of hooks.
pub fn problems_of(report: &Report) -> Vec<(String, String)> {
    let problems = report
        .problems
        .iter()
        .filter(|one| one.reason.starts_with("Hook"));
    problems
        .map(|one| (one.reason.clone(), one.detail.clone()))
        .collect()
}

/// A problem of a run.
fn problem(reason: &str, detail: impl Into<String>) -> Problem {
    Problem {
        reason: reason.to_owned(),
        detail: detail.into(),
        ..Problem::default()
    }
}
