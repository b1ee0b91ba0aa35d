//! The runs that are due: which is next, within what nodes and the whole can bear. Deterministic: the same
//! calls give the same answers. Time is an argument.
//!
//! Every run that is offered ends in exactly one way: it is started, merged into one of its volume that waits
//! or runs (and counted there), dropped because it could not be started in time, or cancelled. At most one run
//! of a volume waits or runs. Of what may start, the highest priority is first; of one priority, the namespace
//! with the fewest running runs, then the one whose last start is longest ago, then what has been due longest.
//! So no namespace starves another of the same priority.

mod entry;

pub use entry::{DropReason, Dropped, End, Entry, Finished, Limits, Offered, Run};

use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// The first wait after a failed run; it doubles with each further one.
const RETRY_FIRST: SignedDuration = SignedDuration::from_secs(30);
/// The longest.
const RETRY_MAX: SignedDuration = SignedDuration::from_mins(30);

/// Runs that wait, and those that run.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    waiting: BTreeMap<String, Waiting>,
    running: BTreeMap<String, Run>,
    busy: Busy,
    /// The number of the last start of a namespace.
    served: HashMap<String, u64>,
    starts: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    entry: Entry,
    /// Not before this: a run that failed is tried again later.
    from: Timestamp,
    merged: u32,
}

/// How many runs there are.
#[derive(Debug, Default)]
struct Busy {
    nodes: HashMap<String, usize>,
    namespaces: HashMap<String, usize>,
    policies: HashMap<(String, String), usize>,
}

impl Queue {
    /// Nothing waits, nothing runs.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            busy: Busy::default(),
            served: HashMap::new(),
            starts: 0,
        }
    }

    /// Adds a run that is due.
    pub fn offer(&mut self, entry: Entry) -> Offered {
        if let Some(run) = self.running.get_mut(&entry.volume) {
            run.merged = run.merged.saturating_add(1);
            return Offered::MergedIntoRunning;
        }
        match self.waiting.get_mut(&entry.volume) {
            Some(waiting) => {
                waiting.merge(entry);
                Offered::MergedIntoWaiting
            }
            None => {
                let waiting = Waiting {
                    from: entry.due,
                    entry,
                    merged: 0,
                };
                self.waiting.insert(waiting.entry.volume.clone(), waiting);
                Offered::Queued
            }
        }
    }

    /// Starts the next run, if one may start. `is_ready` says whether a node (`None`: of an unmounted volume,
    /// which has none yet) takes runs.
    pub fn pop(&mut self, now: Timestamp, is_ready: impl Fn(Option<&str>) -> bool) -> Option<Run> {
        if self.running.len() >= self.limits.total {
            return None;
        }
        let may_start = |waiting: &&Waiting| {
            let entry = &waiting.entry;
            waiting.from <= now
                && !entry.is_late(now)
                && self.busy.has_room(entry, &self.limits)
                && is_ready(entry.node.as_deref())
        };
        let next = self
            .waiting
            .values()
            .filter(may_start)
            .min_by_key(|waiting| {
                let entry = &waiting.entry;
                let running = self
                    .busy
                    .namespaces
                    .get(&entry.namespace)
                    .copied()
                    .unwrap_or(0);
                let served = self.served.get(&entry.namespace).copied().unwrap_or(0);
                (
                    Reverse(entry.priority),
                    running,
                    served,
                    entry.due,
                    &entry.volume,
                )
            })?;
        let volume = next.entry.volume.clone();
        let next = self.waiting.remove(&volume)?;
        let run = Run {
            started: now,
            merged: next.merged,
            entry: next.entry,
        };
        self.start(run.clone());
        Some(run)
    }

    /// Notes how a run ended.
    pub fn finish(&mut self, volume: &str, end: End, now: Timestamp) -> Finished {
        let Some(run) = self.running.remove(volume) else {
            return Finished::Unknown;
        };
        self.busy.leave(&run.entry);
        match end {
            End::Failed => self.again(run.entry, run.merged, now),
            End::Done | End::Cancelled => Finished::Ended { merged: run.merged },
        }
    }

    /// Notes that a run that waits cannot be started: it has failed.
    pub fn fail(&mut self, volume: &str, now: Timestamp) -> Finished {
        match self.waiting.remove(volume) {
            Some(waiting) => self.again(waiting.entry, waiting.merged, now),
            None => Finished::Unknown,
        }
    }

    fn again(&mut self, entry: Entry, merged: u32, now: Timestamp) -> Finished {
        let failures = entry.attempt.saturating_add(1);
        if failures >= self.limits.attempts {
            return Finished::GivenUp {
                attempts: failures,
                merged,
            };
        }
        let at = now
            .saturating_add(retry(failures))
            .unwrap_or(Timestamp::MAX);
        let waiting = Waiting {
            entry: Entry {
                attempt: failures,
                // It has been started in time.
                start_by: None,
                ..entry
            },
            from: at,
            merged,
        };
        self.waiting.insert(waiting.entry.volume.clone(), waiting);
        Finished::Retry {
            at,
            attempt: failures,
        }
    }

    /// Takes a waiting run out. One that runs must be stopped and then finished.
    pub fn cancel(&mut self, volume: &str) -> Option<Dropped> {
        let waiting = self.waiting.remove(volume)?;
        Some(waiting.dropped(DropReason::Cancelled))
    }

    /// Takes out what could not be started in time.
    pub fn drop_late(&mut self, now: Timestamp) -> Vec<Dropped> {
        let is_late = |waiting: &Waiting| waiting.entry.is_late(now);
        let late = self.waiting.extract_if(.., |_, waiting| is_late(waiting));
        late.map(|(_, waiting)| waiting.dropped(DropReason::NotStartedInTime))
            .collect()
    }

    /// Runs that have taken longer than they may, and are to be cancelled.
    pub fn overdue(&self, now: Timestamp) -> impl Iterator<Item = &Run> {
        self.running.values().filter(move |run| run.is_overdue(now))
    }

    /// Whether a run of a volume waits.
    pub fn is_waiting(&self, volume: &str) -> bool {
        self.waiting.contains_key(volume)
    }

    /// Whether a run of a volume runs.
    pub fn is_running(&self, volume: &str) -> bool {
        self.running.contains_key(volume)
    }

    /// Takes over where the volumes of waiting runs are now: a pod may have moved since.
    pub fn relocate(&mut self, node_of: impl Fn(&str) -> Option<String>) {
        for (volume, waiting) in &mut self.waiting {
            waiting.entry.node = node_of(volume);
        }
    }

    /// What waits, by volume, with the time from which it may start.
    pub fn waiting(&self) -> impl Iterator<Item = (&Entry, Timestamp)> {
        self.waiting
            .values()
            .map(|waiting| (&waiting.entry, waiting.from))
    }

    /// What runs, by volume.
    pub fn running(&self) -> impl Iterator<Item = &Run> {
        self.running.values()
    }

    fn start(&mut self, run: Run) {
        self.starts += 1;
        self.served.insert(run.entry.namespace.clone(), self.starts);
        self.busy.enter(&run.entry);
        self.running.insert(run.entry.volume.clone(), run);
    }
}

impl Waiting {
    /// One run for both: as urgent as the more urgent, where the volume is now.
    fn merge(&mut self, other: Entry) {
        self.merged = self.merged.saturating_add(1);
        let mine = &mut self.entry;
        if other.priority > mine.priority {
            // Somebody wants it now, whatever failed before.
            self.from = other.due.min(self.from);
            mine.priority = other.priority;
            mine.policy = other.policy;
            mine.max_per_node = other.max_per_node;
            mine.time_limit = other.time_limit;
            mine.attempt = other.attempt;
        }
        mine.node = other.node;
        mine.start_by = match (mine.start_by, other.start_by) {
            (Some(mine), Some(other)) => Some(mine.max(other)),
            _ => None,
        };
        mine.due = mine.due.min(other.due);
    }

    fn dropped(self, why: DropReason) -> Dropped {
        Dropped {
            entry: self.entry,
            merged: self.merged,
            why,
        }
    }
}

impl Busy {
    fn has_room(&self, entry: &Entry, limits: &Limits) -> bool {
        let Some(node) = &entry.node else {
            return true;
        };
        if self
            .nodes
            .get(node)
            .is_some_and(|runs| *runs >= limits.per_node)
        {
            return false;
        }
        let Some(most) = entry.max_per_node else {
            return true;
        };
        let key = (entry.policy.clone(), node.clone());
        self.policies.get(&key).is_none_or(|runs| *runs < most)
    }

    fn enter(&mut self, entry: &Entry) {
        *self.namespaces.entry(entry.namespace.clone()).or_default() += 1;
        if let Some(node) = &entry.node {
            *self.nodes.entry(node.clone()).or_default() += 1;
            let key = (entry.policy.clone(), node.clone());
            *self.policies.entry(key).or_default() += 1;
        }
    }

    fn leave(&mut self, entry: &Entry) {
        less(&mut self.namespaces, &entry.namespace);
        if let Some(node) = &entry.node {
            less(&mut self.nodes, node);
            less(&mut self.policies, &(entry.policy.clone(), node.clone()));
        }
    }
}

/// One less; what reaches none is forgotten.
fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// How long after so many failures a run is tried again.
pub fn retry(failures: u32) -> SignedDuration {
    let doubled = 1i32
        .checked_shl(failures.saturating_sub(1))
        .filter(|factor| *factor > 0);
    let wait = doubled.and_then(|factor| RETRY_FIRST.checked_mul(factor));
    wait.unwrap_or(RETRY_MAX).min(RETRY_MAX)
}

#[cfg(test)]
mod tests;
