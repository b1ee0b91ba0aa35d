//! What the queue takes and gives.

use jiff::{SignedDuration, Timestamp};

/// A run that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The volume's key.
    pub volume: String,
    /// The node that reads it; `None`: no pod uses it, and one is made for the run.
    pub node: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// The policy's key; empty of a run without one.
    pub policy: String,
    /// Higher is first.
    pub priority: i32,
    /// Since when it is due.
    pub due: Timestamp,
    /// It is dropped when it has not started by then.
    pub start_by: Option<Timestamp>,
    /// How long it may take.
    pub time_limit: Option<SignedDuration>,
    /// How many runs of this policy may run on one node.
    pub max_per_node: Option<usize>,
    /// How often it has failed.
    pub attempt: u32,
}

impl Entry {
    /// Whether it is too late to start it. At the very moment it is not.
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.start_by.is_some_and(|start_by| now > start_by)
    }
}

/// A run that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What was due.
    pub entry: Entry,
    /// When it was started.
    pub started: Timestamp,
    /// How many others it stands for.
    pub merged: u32,
}

impl Run {
    /// Whether it has taken longer than it may.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let limit = self.entry.time_limit;
        limit.is_some_and(|limit| now.duration_since(self.started) > limit)
    }
}

/// How much at once, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Runs altogether.
    pub total: usize,
    /// Runs on one node.
    pub per_node: usize,
    /// A run that has failed so often is given up until it is due again.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: 64,
            per_node: 2,
            attempts: 6,
        }
    }
}

/// What became of a run that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It waits.
    Queued,
    /// One of its volume waits, and stands for both.
    MergedIntoWaiting,
    /// One of its volume runs, and stands for both.
    MergedIntoRunning,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is a snapshot.
    Done,
    /// There is none.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// What follows the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Nothing.
    Ended {
        /// How many others it stood for.
        merged: u32,
    },
    /// It is tried again.
    Retry {
        /// Not before this.
        at: Timestamp,
        /// How often it has failed.
        attempt: u32,
    },
    /// It has failed too often.
    GivenUp {
        /// How often.
        attempts: u32,
        /// How many others it stood for.
        merged: u32,
    },
    /// No run of this volume was known.
    Unknown,
}

/// A run that was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// What was due.
    pub entry: Entry,
    /// How many others it stood for.
    pub merged: u32,
    /// Why.
    pub why: DropReason,
}

/// Why a run was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It could not be started in time.
    NotStartedInTime,
    /// It was cancelled.
    Cancelled,
}

impl DropReason {
    /// The stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStartedInTime => "NotStartedInTime",
            Self::Cancelled => "Cancelled",
        }
    }
}
