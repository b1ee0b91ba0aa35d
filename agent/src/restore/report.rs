//! What a restore did, or (dry run) would do: values that can be printed.

use super::context::lock;
use super::policy::{Skip, Skipped};
use super::space::{Amount, Space};
use crate::error::ItemProblem;
use holdfast_format::entry::Kind;
use holdfast_format::id::SnapshotId;
use holdfast_format::path::{RelPath, escape};
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Problems named in a report; further ones are only counted.
pub const MAX_PROBLEMS: usize = 10_000;
/// Lines of a plan; further ones are only counted.
pub const MAX_PLAN_ITEMS: usize = 100_000;

/// What is done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Made where nothing was.
    Create = 0,
    /// Content (all or ranges of it) written over what was there, or something of another kind replaced.
    Replace = 1,
    /// Owner, mode, attributes or times set; content was right.
    Metadata = 2,
    /// Removed, with everything below it.
    Delete = 3,
    /// Was as it should be.
    Keep = 4,
}

impl Action {
    const ALL: [Action; 5] = [
        Action::Create,
        Action::Replace,
        Action::Metadata,
        Action::Delete,
        Action::Keep,
    ];

    fn verb(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Replace => "replace",
            Action::Metadata => "metadata",
            Action::Delete => "delete",
            Action::Keep => "keep",
        }
    }
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlanItem {
    /// Path below the target.
    pub path: RelPath,
    /// What would be done.
    pub action: Action,
    /// What the path is to be; `None` for deletions.
    pub kind: Option<Kind>,
    /// Bytes that would be fetched or written from the entry.
    pub bytes: u64,
}

impl fmt::Display for PlanItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_root() {
            ".".to_owned()
        } else {
            escape(self.path.as_bytes())
        };
        write!(f, "{:<8} {path}", self.action.verb())?;
        if self.bytes > 0 {
            write!(f, " ({} bytes)", self.bytes)?;
        }
        Ok(())
    }
}

/// What a dry run found: everything but `Keep`, in key order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The first `MAX_PLAN_ITEMS`, in key order.
    pub items: Vec<PlanItem>,
    /// How many more there are.
    pub more: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{item}")?;
        }
        if self.more > 0 {
            writeln!(f, "... and {} more", self.more)?;
        }
        Ok(())
    }
}

/// A path that was left out or is not wholly as in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// Path below the target, escaped (what a hostile snapshot named may be no path at all).
    pub path: String,
    /// Why.
    pub problem: ItemProblem,
}

impl fmt::Display for RestoreProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        write!(f, "{path}: {} ({})", problem.detail, problem.reason)
    }
}

/// Result of a restore that came to its end.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Where it was written.
    pub target: PathBuf,
    /// An earlier, interrupted run was continued.
    pub resumed: bool,
    /// Paths by what was done to them.
    pub actions: Vec<(Action, u64)>,
    /// Plain bytes of chunks received and verified.
    pub fetched_bytes: u64,
    /// Bytes written into files.
    pub written_bytes: u64,
    /// What was passed over for lack of a right, by kind.
    pub skipped: Vec<(Skip, u64)>,
    /// Paths left out or not wholly restored: the first `MAX_PROBLEMS`.
    pub problems: Vec<RestoreProblem>,
    /// How many there are in all.
    pub problem_count: u64,
    /// Of a dry run: what would be done.
    pub plan: Option<Plan>,
    /// Data and inodes that it takes beyond what it replaces.
    pub needed: Amount,
    /// Of a dry run: what it takes and what the target has; `None` where that does not say.
    pub space: Option<Space>,
    /// Of a dry run: why the run itself would be refused for want of room.
    pub too_small: Option<String>,
}

impl RestoreReport {
    /// Whether everything of the snapshot is there; otherwise exit 3.
    pub fn is_complete(&self) -> bool {
        self.problem_count == 0
    }

    /// Paths to which this was done.
    pub fn count(&self, action: Action) -> u64 {
        let found = self.actions.iter().find(|(a, _)| *a == action);
        found.map_or(0, |(_, count)| *count)
    }

    /// One line per kind of thing passed over, for people.
    pub fn skipped_lines(&self) -> impl Iterator<Item = String> {
        let lines = self.skipped.iter();
        lines.map(|(kind, count)| format!("{count} x {}", kind.describe()))
    }
}

/// Collects the report from all threads.
#[derive(Debug, Default)]
pub struct Tally {
    actions: [AtomicU64; 5],
    /// Plain bytes of chunks received and verified.
    pub fetched_bytes: AtomicU64,
    /// Bytes written into files.
    pub written_bytes: AtomicU64,
    /// Passed over by kind.
    pub skipped: Skipped,
    problems: Mutex<Vec<RestoreProblem>>,
    problem_count: AtomicU64,
    plan: Option<Mutex<Plan>>,
    needed_bytes: AtomicU64,
    needed_inodes: AtomicU64,
}

impl Tally {
    /// Of a run; a dry one writes its plan down.
    pub fn new(dry_run: bool) -> Self {
        Self {
            plan: dry_run.then(Mutex::default),
            ..Self::default()
        }
    }

    /// Something was (or would be) done.
    pub fn did(
        &self,
        action: Action,
        kind: Option<Kind>,
        path: impl FnOnce() -> RelPath,
        bytes: u64,
    ) {
        self.actions[action as usize].fetch_add(1, Ordering::Relaxed);
        if action == Action::Create {
            self.needed_inodes.fetch_add(1, Ordering::Relaxed);
        }
        let Some(plan) = self.plan.as_ref().filter(|_| action != Action::Keep) else {
            return;
        };
        let mut plan = lock(plan);
        if plan.items.len() < MAX_PLAN_ITEMS {
            let path = path();
            plan.items.push(PlanItem {
                path,
                action,
                kind,
                bytes,
            });
        } else {
            plan.more += 1;
        }
    }

    /// What was (or would be) created last is a further name of an inode.
    pub fn needs_no_inode(&self) {
        self.needed_inodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many bytes of data take room that nothing gives back.
    pub fn needs(&self, bytes: u64) {
        self.needed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A path is left out, or not wholly restored.
    pub fn problem(&self, path: String, problem: ItemProblem) {
        tracing::warn!(
            path,
            reason = problem.reason,
            detail = problem.detail,
            "not restored"
        );
        self.problem_count.fetch_add(1, Ordering::Relaxed);
        let mut problems = lock(&self.problems);
        if problems.len() < MAX_PROBLEMS {
            problems.push(RestoreProblem { path, problem });
        }
    }

    /// The report.
    pub fn report(&self, snapshot: SnapshotId, target: PathBuf, resumed: bool) -> RestoreReport {
        let count = |action: &Action| self.actions[*action as usize].load(Ordering::Relaxed);
        let mut problems = lock(&self.problems).clone();
        problems.sort_by(|a, b| a.path.cmp(&b.path));
        RestoreReport {
            snapshot,
            target,
            resumed,
            actions: Action::ALL
                .iter()
                .map(|action| (*action, count(action)))
                .collect(),
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            skipped: self.skipped.counts(),
            problems,
            problem_count: self.problem_count.load(Ordering::Relaxed),
            plan: self.plan.as_ref().map(|plan| {
                let mut plan = lock(plan).clone();
                plan.items.sort();
                plan
            }),
            needed: Amount {
                bytes: self.needed_bytes.load(Ordering::Relaxed),
                inodes: self.needed_inodes.load(Ordering::Relaxed),
            },
            space: None,
            too_small: None,
        }
    }
}
