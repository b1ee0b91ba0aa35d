//! Runs that something surrounds: their orders wait in the hub until what comes before has been done, and their
//! ends until what comes after has. Who asks for such a run sees an ordinary job.

use super::hub::{Hub, Row, State, apply, ended, send};
use crate::error::{Error, Result};
use holdfast_format::id::JobId;
use holdfast_proto::v1::{JobState, Problem, Report, order};
use std::sync::{Arc, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Decides which backups are surrounded.
pub trait Gate: Send + Sync {
    /// Whether a backup of the volume has to wait for something before it is ordered.
    fn holds(&self, volume: &str) -> bool;
}

/// A run that waits to be released, and whose end waits to be settled. Dropping it does neither.
#[derive(Debug)]
pub struct Held {
    /// The job.
    pub id: JobId,
    /// Its volume.
    pub volume: String,
    /// Comes when the run is over or need not begin: it has ended, was cancelled, or its agent is lost.
    pub over: oneshot::Receiver<()>,
}

/// Asked of each backup, and told of those that are held.
pub(super) struct Gated {
    gate: Arc<dyn Gate>,
    held: mpsc::Sender<Held>,
}

impl std::fmt::Debug for Gated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gated")
    }
}

/// What a row of a held job has besides.
pub(super) struct Bracket {
    /// The order, until it is sent.
    order: Option<order::Body>,
    over: Option<oneshot::Sender<()>>,
    /// How the run ended, until that is told.
    end: Option<Report>,
}

impl Bracket {
    /// Whether its agent knows of it.
    pub(super) fn is_sent(&self) -> bool {
        self.order.is_none()
    }
}

impl Row {
    /// Takes a report in. The end of a held run is kept back.
    pub(super) fn take(&mut self, report: Report, now_ns: i64) {
        match &mut self.bracket {
            Some(bracket) if bracket.end.is_some() => {}
            Some(bracket) if is_end(&report) => {
                bracket.end = Some(report);
                if let Some(over) = bracket.over.take() {
                    // Who waits for it may be gone.
                    let _ = over.send(());
                }
            }
            _ => apply(&self.info, report, now_ns),
        }
    }

    /// Ends a run whose order has not been sent.
    pub(super) fn cancel_unsent(&mut self) -> bool {
        let waits = self
            .bracket
            .as_ref()
            .is_some_and(|bracket| !bracket.is_sent());
        if waits {
            let report = Report {
                job: self.id.as_bytes().to_vec().into(),
                state: JobState::Cancelled.into(),
                ..Report::default()
            };
            // Kept back, so that the time does not matter.
            self.take(report, 0);
        }
        waits
    }
}

impl Gated {
    /// A bracket for the job where its volume's runs have one.
    pub(super) fn hold(&self, id: JobId, volume: &str, order: &order::Body) -> Result<Bracket> {
        let (over, receiver) = oneshot::channel();
        let held = Held {
            id,
            volume: volume.to_owned(),
            over: receiver,
        };
        self.held.try_send(held).map_err(|_| Error::AgentMissing {
            what: format!("volume {volume} (too many runs wait for their hooks)"),
        })?;
        Ok(Bracket {
            order: Some(order.clone()),
            over: Some(over),
            end: None,
        })
    }

    /// Whether it holds a volume's runs.
    pub(super) fn holds(&self, volume: &str) -> bool {
        self.gate.holds(volume)
    }
}

impl Hub {
    /// From now on backups that the gate holds are sent to `held` in place of their agents; `waiting` of them
    /// at most. Called once.
    pub fn set_gate(&self, gate: Arc<dyn Gate>, waiting: usize) -> mpsc::Receiver<Held> {
        let (held, receiver) = mpsc::channel(waiting);
        // A coordinator has one cluster.
        let _ = self.gated.set(Gated { gate, held });
        receiver
    }

    /// Says what a held job waits for.
    pub fn note(&self, id: &JobId, reason: &str, detail: &str) {
        let mut state = self.lock();
        if let Some(row) = state.row(id)
            && !ended(&row.info)
        {
            row.info.send_modify(|info| {
                let last = info.last.get_or_insert_default();
                last.reason = reason.to_owned();
                last.detail = detail.to_owned();
            });
        }
    }

    /// Sends a held job's order to its agent; whether it was sent: not if the job is over.
    pub fn release(&self, id: &JobId) -> Result<bool> {
        let mut state = self.lock();
        let State { agents, jobs, .. } = &mut *state;
        let Some(row) = jobs.iter_mut().find(|row| row.id == *id) else {
            return Ok(false);
        };
        let node = row.info.borrow().node.clone();
        let Some(bracket) = row.bracket.as_mut().filter(|bracket| bracket.end.is_none()) else {
            return Ok(false);
        };
        let Some(order) = bracket.order.clone() else {
            return Ok(false);
        };
        let agent = agents.get(&node).ok_or(Error::AgentMissing {
            what: format!("node {node}"),
        })?;
        send(agent, &node, *id, order)?;
        bracket.order = None;
        row.info.send_modify(|info| {
            let last = info.last.get_or_insert_default();
            last.reason.clear();
            last.detail.clear();
        });
        Ok(true)
    }

    /// Tells how a held job has ended, with these problems besides. `failure` counts where its agent has not
    /// said how it ended: its reason and the text for people.
    pub fn settle(
        &self,
        id: &JobId,
        failure: Option<(&str, String)>,
        problems: Vec<Problem>,
        now_ns: i64,
    ) {
        let mut state = self.lock();
        let Some(at) = state.jobs.iter().position(|row| row.id == *id) else {
            return;
        };
        let row = &mut state.jobs[at];
        let Some(bracket) = row.bracket.take() else {
            return;
        };
        let (reason, detail) =
            failure.unwrap_or(("Internal", "nobody said how it ended".to_owned()));
        let mut report = bracket.end.unwrap_or_else(|| Report {
            job: id.as_bytes().to_vec().into(),
            state: JobState::Failed.into(),
            reason: reason.to_owned(),
            detail,
            ..Report::default()
        });
        // First, so that a long list of files does not push them out.
        let of_files = std::mem::replace(&mut report.problems, problems);
        report.problems.extend(of_files);
        apply(&row.info, report, now_ns);
        self.count_end(&state, at);
    }

    /// Counts the end of a job, if it has come.
    pub(super) fn count_end(&self, state: &State, at: usize) {
        let info = state.jobs[at].info.borrow();
        if info.ended_ns != 0 {
            self.counts.ended(&info, state.facts(&info.volume));
        }
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing comes after it.
pub(super) fn is_end(report: &Report) -> bool {
    matches!(
        report.state(),
        JobState::Done | JobState::Failed | JobState::Cancelled
    )
}

#[cfg(test)]
mod tests;
