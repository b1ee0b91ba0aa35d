//! The hub between operators and agents: an order reaches the one connected agent that serves its
//! volume, and every watcher sees the job's last state. Bounded: the newest jobs, one row per agent.
//!
//! It speaks in the messages of the `Jobs` service: they are state of this process and never stored.

mod condition;
mod connections;

use crate::error::{Error, Result};
use crate::schedule::brackets::{Bracket, Gated, is_end};
use crate::schedule::counts::JobCounts;
use crate::schedule::states::States;
use holdfast_format::id::JobId;
use holdfast_proto::v1::{
    AgentInfo, AgentVolume, BackupOrder, CancelOrder, JobInfo, JobState, NodePlan, Order, Report,
    RestoreOrder, VolumeFacts, VolumeState, order,
};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Jobs remembered, ended ones first to go.
const MAX_JOBS: usize = 1000;
/// Longest text kept from a report, in bytes.
const MAX_TEXT: usize = 4096;
/// Problems kept from a report.
const MAX_PROBLEMS: usize = 100;
/// How long a job may be unheard of after its agent went away.
pub const AGENT_GRACE: Duration = Duration::from_secs(60);
/// And after its agent came back: one that still has the job says so at once.
pub const RETURN_GRACE: Duration = Duration::from_secs(10);

/// What a job does.
#[derive(Debug, Clone)]
pub enum What {
    /// Back up the named volume.
    Backup(BackupOrder),
    /// Restore, for the named volume.
    Restore {
        /// The volume that the snapshot is of.
        volume: String,
        /// The order.
        order: RestoreOrder,
    },
}

impl What {
    fn word(&self) -> &'static str {
        match self {
            What::Backup(_) => "backup",
            What::Restore { .. } => "restore",
        }
    }

    fn volume(&self) -> &str {
        match self {
            What::Backup(order) => &order.volume,
            What::Restore { volume, .. } => volume,
        }
    }
}

/// Connected agents and their jobs.
#[derive(Default)]
pub struct Hub {
    pub(super) state: Mutex<State>,
    /// Backups that have to wait for something first.
    pub(super) gated: OnceLock<Gated>,
    pub(super) counts: JobCounts,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) jobs: VecDeque<Row>,
    connections: u64,
    /// What each node has to read, where a cluster says so.
    plans: Option<BTreeMap<String, NodePlan>>,
}

pub(super) struct Agent {
    connection: u64,
    orders: mpsc::Sender<Order>,
    plan: watch::Sender<Option<NodePlan>>,
    volumes: Vec<AgentVolume>,
    states: States,
    info: AgentInfo,
}

impl Agent {
    fn lists(&self) -> impl Fn(&str) -> bool + use<> {
        let names = self.volumes.iter().filter_map(|v| v.facts.as_ref());
        let names: HashSet<String> = names.map(|facts| facts.name.clone()).collect();
        move |name| names.contains(name)
    }
}

pub(super) struct Row {
    pub(super) id: JobId,
    pub(super) info: watch::Sender<JobInfo>,
    /// Of a run that something surrounds.
    pub(super) bracket: Option<Bracket>,
    /// The coming or going of its agent since which nobody has reported it; `None` where it was
    /// reported since, or started later.
    unheard_since: Option<u64>,
}

/// A volume that an agent serves now.
#[derive(Debug, Clone)]
pub struct Served {
    /// The volume.
    pub facts: VolumeFacts,
    /// Its state as it is now, and when it arrived; `None`: nothing was said of it.
    pub state: Option<(VolumeState, Duration)>,
}

/// What is sent to an agent.
#[derive(Debug)]
pub struct Sent {
    /// Orders, each once.
    pub orders: mpsc::Receiver<Order>,
    /// The node's plan as it is now, where there is one.
    pub plan: watch::Receiver<Option<NodePlan>>,
}

/// An agent's subscription. Give it back with `Hub::disconnect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    node: String,
    number: u64,
}

impl Connection {
    /// The agent's node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The number of its coming, as `Hub::expire` takes it.
    pub fn event(&self) -> u64 {
        self.number
    }
}

impl Hub {
    /// Records a report, if the job is this node's and has not ended. A job that nobody here started
    /// was asked for by an earlier process: it is taken in, so that who waits for it can go on.
    pub fn report(&self, connection: &Connection, report: Report, now_ns: i64) {
        let mut state = self.lock();
        let known = |row: &Row| row.id.as_bytes()[..] == report.job[..];
        if !state.jobs.iter().any(known) {
            state.adopt(&connection.node, &report, now_ns);
        }
        let Some(at) = state.jobs.iter().position(known) else {
            return;
        };
        let row = &mut state.jobs[at];
        if row.info.borrow().node == connection.node && !ended(&row.info) {
            row.unheard_since = None;
            row.take(report, now_ns);
            self.count_end(&state, at);
        }
    }

    /// Sends an order to the agent that serves the volume (or to `node`), and remembers the job.
    pub fn start(&self, id: JobId, what: What, node: Option<&str>, now_ns: i64) -> Result<JobInfo> {
        let gated = match &what {
            What::Backup(order) => self.gated.get().filter(|gated| gated.holds(&order.volume)),
            What::Restore { .. } => None,
        };
        let mut state = self.lock();
        let node = match node {
            Some(node) => node.to_owned(),
            None => state.serving(what.volume())?,
        };
        let agent = state.agents.get(&node).ok_or(Error::AgentMissing {
            what: format!("node {node}"),
        })?;
        let info = JobInfo {
            id: id.as_bytes().to_vec().into(),
            what: what.word().into(),
            volume: what.volume().into(),
            node: node.clone(),
            created_ns: now_ns,
            ended_ns: 0,
            last: Some(Report {
                job: id.as_bytes().to_vec().into(),
                state: JobState::Queued.into(),
                ..Report::default()
            }),
        };
        let body = match what {
            What::Backup(order) => order::Body::Backup(order),
            What::Restore { order, .. } => order::Body::Restore(order),
        };
        let bracket = match gated {
            Some(gated) => Some(gated.hold(id, &info.volume, &body)?),
            None => send(agent, &node, id, body).map(|()| None)?,
        };
        self.counts.started(&info, state.facts(&info.volume));
        state.remember(id, info.clone(), bracket);
        Ok(info)
    }

    /// Asks the job's agent to stop it; the job ends when the agent says so. One that has ended, or
    /// whose agent is gone, is only returned.
    pub fn cancel(&self, id: &JobId) -> Result<JobInfo> {
        let mut state = self.lock();
        let info = state.job(id)?.info.borrow().clone();
        let waits = state.row(id).is_some_and(|row| row.cancel_unsent());
        if info.ended_ns == 0
            && !waits
            && let Some(agent) = state.agents.get(&info.node)
        {
            send(agent, &info.node, *id, order::Body::Cancel(CancelOrder {}))?;
        }
        Ok(info)
    }

    /// All remembered jobs, newest first.
    pub fn jobs(&self) -> Vec<JobInfo> {
        let state = self.lock();
        state.jobs.iter().map(|r| r.info.borrow().clone()).collect()
    }

    /// The job's state now and from now on.
    pub fn watch(&self, id: &JobId) -> Result<watch::Receiver<JobInfo>> {
        Ok(self.lock().job(id)?.info.subscribe())
    }

    /// Connected nodes, by name.
    pub fn agents(&self) -> Vec<String> {
        self.lock().agents.keys().cloned().collect()
    }

    /// Whether an agent of this name is connected.
    pub fn is_connected(&self, node: &str) -> bool {
        self.lock().agents.contains_key(node)
    }

    /// The node whose agent may read a volume; else what is said against it.
    pub fn serving(&self, volume: &str) -> std::result::Result<String, String> {
        self.lock().serving(volume).map_err(|error| match error {
            Error::AgentMissing { what } => format!("no agent reads {what}"),
            error => error.to_string(),
        })
    }

    /// What the connected agents list: node and volume.
    pub fn volumes(&self) -> Vec<(String, AgentVolume)> {
        let state = self.lock();
        let agents = state.agents.iter();
        agents
            .flat_map(|(node, agent)| agent.volumes.iter().map(|v| (node.clone(), v.clone())))
            .collect()
    }

    /// Whether a backup of the volume runs or waits.
    pub fn is_backing_up(&self, volume: &str) -> bool {
        let state = self.lock();
        state.jobs.iter().any(|row| {
            let info = row.info.borrow();
            info.ended_ns == 0 && info.what == "backup" && info.volume == volume
        })
    }

    /// The volumes whose backups run or wait.
    pub fn backing_up(&self) -> HashSet<String> {
        let state = self.lock();
        let jobs = state.jobs.iter().map(|row| row.info.borrow());
        let running = jobs.filter(|info| info.ended_ns == 0 && info.what == "backup");
        running.map(|info| info.volume.clone()).collect()
    }

    /// What agents say of volumes that they list and may read: volume, its state now, and when that
    /// arrived.
    pub fn served(&self, now: Duration) -> Vec<Served> {
        let state = self.lock();
        let mut out: Vec<Served> = Vec::new();
        for agent in state.agents.values() {
            for volume in agent.volumes.iter().filter(|volume| volume.eligible) {
                let facts = volume.facts.clone().unwrap_or_default();
                out.push(Served {
                    state: agent.states.at(&facts.name, now),
                    facts,
                });
            }
        }
        out
    }
}

impl State {
    fn adopt(&mut self, node: &str, report: &Report, now_ns: i64) {
        let Ok(id) = <[u8; 16]>::try_from(&report.job[..]) else {
            return;
        };
        let (mut what, mut volume) = (report.what.clone(), report.volume.clone());
        cut(&mut what);
        cut(&mut volume);
        let info = JobInfo {
            id: report.job.clone(),
            what,
            volume,
            node: node.to_owned(),
            created_ns: now_ns,
            ..JobInfo::default()
        };
        self.remember(JobId::from_bytes(id), info, None);
    }

    fn remember(&mut self, id: JobId, info: JobInfo, bracket: Option<Bracket>) {
        if self.jobs.len() >= MAX_JOBS {
            let gone = self.jobs.iter().rposition(|row| ended(&row.info));
            let last = self.jobs.len() - 1;
            self.jobs.remove(gone.unwrap_or(last));
        }
        let info = watch::Sender::new(info);
        self.jobs.push_front(Row {
            id,
            info,
            bracket,
            unheard_since: None,
        });
    }

    fn job(&self, id: &JobId) -> Result<&Row> {
        let row = self.jobs.iter().find(|row| row.id == *id);
        row.ok_or_else(|| Error::JobNotFound {
            job: id.to_string(),
        })
    }

    pub(super) fn row(&mut self, id: &JobId) -> Option<&mut Row> {
        self.jobs.iter_mut().find(|row| row.id == *id)
    }

    fn serving(&self, volume: &str) -> Result<String> {
        let mut refused = None;
        for (node, agent) in &self.agents {
            for candidate in &agent.volumes {
                let named = candidate.facts.as_ref().is_some_and(|f| f.name == volume);
                if named && candidate.eligible {
                    return Ok(node.clone());
                }
                if named {
                    refused = Some(format!(
                        "{volume} ({} on {node}: {})",
                        candidate.reason, candidate.detail
                    ));
                }
            }
        }
        Err(Error::AgentMissing {
            what: refused.unwrap_or_else(|| format!("volume {volume}")),
        })
    }
}

pub(super) fn send(agent: &Agent, node: &str, id: JobId, body: order::Body) -> Result<()> {
    let order = Order {
        job: id.as_bytes().to_vec().into(),
        body: Some(body),
    };
    agent
        .orders
        .try_send(order)
        .map_err(|_| Error::AgentMissing {
            what: format!("node {node} (its agent does not take orders)"),
        })
}

pub(super) fn ended(info: &watch::Sender<JobInfo>) -> bool {
    info.borrow().ended_ns != 0
}

pub(super) fn apply(info: &watch::Sender<JobInfo>, mut report: Report, now_ns: i64) {
    report.problems.truncate(MAX_PROBLEMS);
    cut(&mut report.reason);
    cut(&mut report.detail);
    let end = is_end(&report);
    info.send_modify(|info| {
        info.ended_ns = if end { now_ns } else { 0 };
        info.last = Some(report);
    });
}

fn cut(text: &mut String) {
    let mut at = MAX_TEXT.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
}

mod seen;
#[cfg(test)]
mod tests;
