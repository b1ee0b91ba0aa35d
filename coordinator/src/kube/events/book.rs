//! Which event is written next, and what became of those before. Pure: time is an argument.

use super::{Counts, Reason};
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Events that wait.
pub const WAITING: usize = 1024;
/// Events that are remembered, so that the same again only raises their count.
pub const REMEMBERED: usize = 4096;
/// The same again within so much time of the last is one event.
pub const AGAIN: Duration = Duration::from_secs(600);
/// A count is raised at most so often.
pub const RAISE_EVERY: Duration = Duration::from_secs(10);
/// A namespace that refuses events is not asked again for so long.
pub const FORBIDDEN_FOR: Duration = Duration::from_secs(300);
/// Namespaces that are known to refuse events.
const FORBIDDEN: usize = 1024;
/// Longest name of an event, in bytes, before its number.
const MAX_NAME: usize = 200;

/// What is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The object.
    pub about: ObjectReference,
    /// What happened to it.
    pub reason: Reason,
    /// In words.
    pub note: String,
}

type Key = (String, String, String, String, Reason);

impl Fact {
    fn key(&self) -> Key {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let about = &self.about;
        (
            text(&about.kind),
            text(&about.namespace),
            text(&about.name),
            text(&about.uid),
            self.reason,
        )
    }
}

/// An event to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// What is told; of several, the newest.
    pub fact: Fact,
    /// The event's name.
    pub name: String,
    /// Whether it is there, and its count is raised.
    pub raises: bool,
    /// How often it has happened.
    pub count: i32,
    /// When first, nanoseconds since 1970.
    pub first_ns: i64,
    /// And last.
    pub last_ns: i64,
    /// How many of the count are new.
    fresh: i32,
}

/// What the API said to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is written.
    Taken,
    /// Not this one.
    Refused(String),
    /// None in this namespace.
    Forbidden(String),
    /// Nothing, or that it cannot now.
    Away(String),
}

struct Pending {
    fact: Fact,
    count: i32,
    first_ns: i64,
    last_ns: i64,
}

struct Told {
    name: String,
    count: i32,
    first_ns: i64,
    last_ns: i64,
    written: Duration,
}

/// Events that wait, and those that were told.
#[derive(Default)]
pub struct Book {
    order: VecDeque<Key>,
    pending: HashMap<Key, Pending>,
    told: HashMap<Key, Told>,
    /// By namespace, until when it is not asked.
    forbidden: HashMap<String, Duration>,
    numbers: u64,
    counts: Counts,
    is_refusal_said: bool,
}

impl Book {
    /// Adds a fact. Where too many wait, the oldest goes.
    pub fn add(&mut self, fact: Fact, now_ns: i64) {
        let key = fact.key();
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.count = pending.count.saturating_add(1);
            pending.last_ns = now_ns;
            pending.fact = fact;
            return;
        }
        if self.order.len() >= WAITING
            && let Some(oldest) = self.order.pop_front()
        {
            let gone = self.pending.remove(&oldest);
            self.drop_count(gone.map_or(0, |gone| gone.count));
        }
        self.order.push_back(key.clone());
        let pending = Pending {
            fact,
            count: 1,
            first_ns: now_ns,
            last_ns: now_ns,
        };
        self.pending.insert(key, pending);
    }

    /// Takes out the event to be written next, if one may be. It is given back with [`Book::settle`].
    pub fn next(&mut self, now_ns: i64, now: Duration) -> Option<Write> {
        self.forbidden.retain(|_, until| *until > now);
        let may_be_written = |key: &Key| {
            let is_recent = self
                .told
                .get(key)
                .is_some_and(|told| now < told.written + RAISE_EVERY);
            !is_recent && !self.forbidden.contains_key(&key.1)
        };
        let at = self.order.iter().position(may_be_written)?;
        let key = self.order.remove(at)?;
        let pending = self.pending.remove(&key)?;
        let again_ns = i64::try_from(AGAIN.as_nanos()).unwrap_or(i64::MAX);
        let known = self.told.get(&key);
        let known = known.filter(|told| pending.first_ns.saturating_sub(told.last_ns) < again_ns);
        Some(match known {
            Some(told) => Write {
                name: told.name.clone(),
                raises: true,
                count: told.count.saturating_add(pending.count),
                first_ns: told.first_ns,
                last_ns: pending.last_ns,
                fresh: pending.count,
                fact: pending.fact,
            },
            None => Write {
                name: self.name(&key.2, now_ns),
                raises: false,
                count: pending.count,
                first_ns: pending.first_ns,
                last_ns: pending.last_ns,
                fresh: pending.count,
                fact: pending.fact,
            },
        })
    }

    /// Takes in what became of a write.
    pub fn settle(&mut self, write: Write, answer: Answer, now: Duration) {
        let key = write.fact.key();
        match answer {
            Answer::Taken => {
                self.is_refusal_said = false;
                self.counts.told += u64::try_from(write.fresh).unwrap_or(0);
                self.forget_oldest();
                let told = Told {
                    name: write.name,
                    count: write.count,
                    first_ns: write.first_ns,
                    last_ns: write.last_ns,
                    written: now,
                };
                self.told.insert(key, told);
            }
            Answer::Refused(error) => {
                tracing::debug!(
                    error,
                    event = write.name,
                    "an event is refused by the cluster's API"
                );
                self.drop_count(write.fresh);
            }
            Answer::Forbidden(error) => {
                if !self.is_refusal_said {
                    tracing::warn!(
                        error,
                        namespace = key.1,
                        "events may not be written: the coordinator's role lacks create and patch of events"
                    );
                }
                self.is_refusal_said = true;
                if self.forbidden.len() < FORBIDDEN {
                    self.forbidden
                        .insert(key.1.clone(), now.saturating_add(FORBIDDEN_FOR));
                }
                self.put_back(key, write);
            }
            Answer::Away(_) => self.put_back(key, write),
        }
    }

    /// What became of events so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.told.len()
    }

    #[cfg(test)]
    pub fn waiting(&self) -> Vec<(String, Reason, String)> {
        let of = |key: &Key| {
            let fact = &self.pending[key].fact;
            (key.2.clone(), fact.reason, fact.note.clone())
        };
        self.order.iter().map(of).collect()
    }

    /// First in the queue again, unless it was told anew meanwhile, or the queue is full of newer ones.
    fn put_back(&mut self, key: Key, write: Write) {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.count = pending.count.saturating_add(write.fresh);
            return;
        }
        if self.order.len() >= WAITING {
            return self.drop_count(write.fresh);
        }
        let pending = Pending {
            fact: write.fact,
            count: write.fresh,
            first_ns: write.last_ns,
            last_ns: write.last_ns,
        };
        self.order.push_front(key.clone());
        self.pending.insert(key, pending);
    }

    fn drop_count(&mut self, count: i32) {
        self.counts.dropped += u64::try_from(count).unwrap_or(0);
    }

    fn forget_oldest(&mut self) {
        if self.told.len() < REMEMBERED {
            return;
        }
        // Half of them at once: looking for the oldest takes as long for one.
        let mut times: Vec<Duration> = self.told.values().map(|told| told.written).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        self.told.retain(|_, told| told.written > middle);
    }

    /// Unlike any other, also of earlier processes.
    fn name(&mut self, object: &str, now_ns: i64) -> String {
        self.numbers = self.numbers.wrapping_add(1);
        let mut at = MAX_NAME.min(object.len());
        while !object.is_char_boundary(at) {
            at -= 1;
        }
        let object = object[..at].trim_end_matches(['.', '-']);
        format!("{object}.{now_ns:x}{:03x}", self.numbers % 0x1000)
    }
}
