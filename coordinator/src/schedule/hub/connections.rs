//! Agents come, say what they have, and go; what they had to do is failed when they stay away.

use super::{Agent, Connection, Hub, Sent, State, ended};
use crate::schedule::brackets::Bracket;
use crate::schedule::states::States;
use holdfast_proto::v1::{AgentInfo, AgentVolume, Hello, JobState, NodePlan, Report, VolumeState};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Volumes that one agent may list.
const MAX_VOLUMES: usize = 10_000;
/// Longest version or boot id of an agent, in characters.
const MAX_WORD: usize = 128;
/// Orders waiting for an agent that does not read.
const MAX_ORDERS: usize = 64;

impl Hub {
    /// Takes an agent in; a later connection of the same node replaces an earlier one.
    pub fn connect(&self, hello: Hello) -> (Connection, Sent) {
        let (orders, receiver) = mpsc::channel(MAX_ORDERS);
        let mut state = self.lock();
        state.connections += 1;
        let number = state.connections;
        let volumes = hello.volumes.map(|list| list.volumes).unwrap_or_default();
        let plan = watch::Sender::new(state.plan_of(&hello.node));
        let sent = Sent {
            orders: receiver,
            plan: plan.subscribe(),
        };
        let agent = Agent {
            connection: number,
            orders,
            plan,
            volumes: bounded(volumes),
            states: States::default(),
            info: AgentInfo {
                node: hello.node.clone(),
                version: hello.version.chars().take(MAX_WORD).collect(),
                protocol: hello.protocol,
                boot_id: hello.boot_id.chars().take(MAX_WORD).collect(),
                ..AgentInfo::default()
            },
        };
        state.agents.insert(hello.node.clone(), agent);
        state.hear_again(&hello.node, number);
        let node = hello.node;
        (Connection { node, number }, sent)
    }

    /// Replaces the plans of all nodes; one that is not named has nothing to read.
    pub fn set_plans(&self, plans: BTreeMap<String, NodePlan>) {
        let mut state = self.lock();
        state.plans = Some(plans);
        for (node, agent) in &state.agents {
            let plan = state.plan_of(node);
            agent.plan.send_if_modified(|sent| {
                let differs = *sent != plan;
                *sent = plan;
                differs
            });
        }
    }

    /// Replaces the agent's list of volumes.
    pub fn set_volumes(&self, connection: &Connection, volumes: Vec<AgentVolume>) {
        let mut state = self.lock();
        if let Some(agent) = state.agents.get_mut(&connection.node)
            && agent.connection == connection.number
        {
            agent.volumes = bounded(volumes);
            agent.states.keep(agent.lists());
        }
    }

    /// Takes in what the agent says of volumes that it lists. With the agent, it goes.
    pub fn set_states(&self, connection: &Connection, states: Vec<VolumeState>, now: Duration) {
        let mut state = self.lock();
        if let Some(agent) = state.agents.get_mut(&connection.node)
            && agent.connection == connection.number
        {
            let is_listed = agent.lists();
            agent.states.take(states, is_listed, now);
        }
    }

    /// The agent's stream has ended; the number of this event.
    pub fn disconnect(&self, connection: &Connection) -> u64 {
        let mut state = self.lock();
        let current = state.agents.get(&connection.node).map(|a| a.connection);
        if current == Some(connection.number) {
            state.agents.remove(&connection.node);
        }
        state.connections += 1;
        let event = state.connections;
        state.hear_again(&connection.node, event);
        event
    }

    /// Fails the node's jobs that nobody has reported since it went away or came back, which was this
    /// event. Called `AGENT_GRACE` after the one, `RETURN_GRACE` after the other; what comes or goes
    /// later has its own.
    pub fn expire(&self, node: &str, event: u64, now_ns: i64) {
        let mut state = self.lock();
        for at in 0..state.jobs.len() {
            let row = &mut state.jobs[at];
            if row.unheard_since == Some(event) && !ended(&row.info) {
                let report = Report {
                    job: row.id.as_bytes().to_vec().into(),
                    state: JobState::Failed.into(),
                    reason: "AgentLost".into(),
                    detail: format!(
                        "the agent on {node} stopped reporting: it ended, or cannot reach the \
                         coordinator; look at it, then start the {} again",
                        row.info.borrow().what
                    ),
                    ..Report::default()
                };
                row.take(report, now_ns);
                self.count_end(&state, at);
            }
        }
    }
}

impl State {
    fn plan_of(&self, node: &str) -> Option<NodePlan> {
        let plans = self.plans.as_ref()?;
        Some(plans.get(node).cloned().unwrap_or_default())
    }

    /// This node's jobs are to be reported again.
    fn hear_again(&mut self, node: &str, event: u64) {
        for row in &mut self.jobs {
            let is_known = row.bracket.as_ref().is_none_or(Bracket::is_sent);
            if is_known && row.info.borrow().node == node {
                row.unheard_since = Some(event);
            }
        }
    }
}

fn bounded(mut volumes: Vec<AgentVolume>) -> Vec<AgentVolume> {
    volumes.truncate(MAX_VOLUMES);
    volumes
}
