//! The jobs of this agent and what is to be said of each. Bounded by the orders taken.

use crate::cancel::Cancel;
use crate::progress::{Progress, ProgressView};
use bytes::Bytes;
use holdfast_proto::v1 as proto;
use proto::{JobState, Report};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Jobs by id.
#[derive(Debug, Default)]
pub struct Table {
    rows: Mutex<HashMap<Bytes, Row>>,
    changed: Notify,
}

#[derive(Debug)]
struct Row {
    names: Names,
    cancel: Cancel,
    progress: Arc<Progress>,
    state: JobState,
    /// The last word, once it has ended.
    end: Option<Report>,
    told: Option<(JobState, ProgressView, Instant)>,
}

/// What a job does and for which volume, as every report of it says.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// `backup` or `restore`.
    pub what: &'static str,
    /// Name of the volume; empty where the order does not say.
    pub volume: String,
}

/// Whether a report is a job's last.
pub fn has_ended(report: &Report) -> bool {
    matches!(
        report.state(),
        JobState::Done | JobState::Failed | JobState::Cancelled
    )
}

impl Table {
    /// Takes a job in; `None` when it is known already.
    pub fn add(
        &self,
        job: Bytes,
        names: Names,
        cancel: Cancel,
        progress: Arc<Progress>,
    ) -> Option<()> {
        let mut rows = self.rows();
        if rows.contains_key(&job) {
            return None;
        }
        let row = Row {
            names,
            cancel,
            progress,
            state: JobState::Queued,
            end: None,
            told: None,
        };
        rows.insert(job, row);
        self.changed.notify_one();
        Some(())
    }

    /// The job has begun.
    pub fn begin(&self, job: &Bytes) {
        if let Some(row) = self.rows().get_mut(job) {
            row.state = JobState::Running;
            self.changed.notify_one();
        }
    }

    /// The job has ended with this report; its id, state and counters are filled in.
    pub fn end(&self, job: &Bytes, state: JobState, report: Report) {
        if let Some(row) = self.rows().get_mut(job) {
            let mut last = filled(job, &row.names, state, &row.progress.view());
            last.reason = report.reason;
            last.detail = report.detail;
            last.snapshot = report.snapshot;
            last.problems = report.problems;
            last.restored = report.restored;
            if report.stats.is_some() {
                last.stats = report.stats;
            }
            row.state = state;
            row.end = Some(last);
            self.changed.notify_one();
        }
    }

    /// Cancels a job; whether it was known.
    pub fn cancel(&self, job: &Bytes) -> bool {
        let rows = self.rows();
        rows.get(job).map(|row| row.cancel.cancel()).is_some()
    }

    /// Cancels the backups of volumes that this is true of.
    pub fn cancel_backups(&self, gone: impl Fn(&str) -> bool) {
        let rows = self.rows();
        let backups = rows.values().filter(|row| row.names.what == "backup");
        backups
            .filter(|row| gone(&row.names.volume))
            .for_each(|row| row.cancel.cancel());
    }

    /// Cancels every job.
    pub fn cancel_all(&self) {
        self.rows().values().for_each(|row| row.cancel.cancel());
    }

    /// How many have not ended.
    pub fn running(&self) -> usize {
        self.rows().values().filter(|row| row.end.is_none()).count()
    }

    /// Everything is to be said again: there is a new listener.
    pub fn all_again(&self) {
        self.rows().values_mut().for_each(|row| row.told = None);
    }

    /// What is to be said now: what has changed, and what has been silent for so long.
    pub fn due(&self, alive_every: Duration) -> Vec<Report> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (job, row) in self.rows().iter_mut() {
            let view = row.progress.view();
            let news = match &row.told {
                None => true,
                Some((state, told, at)) => {
                    *state != row.state
                        || *told != view
                        || now.duration_since(*at) >= alive_every
                        || row.end.is_some()
                }
            };
            if news {
                row.told = Some((row.state, view, now));
                due.push(match &row.end {
                    Some(end) => end.clone(),
                    None => filled(job, &row.names, row.state, &view),
                });
            }
        }
        due
    }

    /// Waits until a job has come, begun or ended since this was waited for last.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The job's last report has been given.
    pub fn forget(&self, job: &Bytes) {
        self.rows().remove(job);
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<Bytes, Row>> {
        // Rows are consistent after every call on them.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn filled(job: &Bytes, names: &Names, state: JobState, view: &ProgressView) -> Report {
    Report {
        job: job.clone(),
        what: names.what.to_owned(),
        volume: names.volume.clone(),
        state: state.into(),
        stats: Some(view.stats()),
        total_bytes: view.total_bytes,
        done_bytes: view.done_bytes,
        total_files: view.total_files,
        done_files: view.done_files,
        ..Report::default()
    }
}
