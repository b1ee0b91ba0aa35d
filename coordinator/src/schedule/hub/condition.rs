//! How agents say that they are themselves: the last word of each, cut to size.

use super::{Connection, Hub, cut};
use holdfast_proto::v1::{AgentCondition, AgentInfo};

/// Troubles and limits kept of what an agent says of itself.
const MAX_TROUBLES: usize = 20;
/// Clocks that differ by more are told.
const MAX_SKEW_NS: u64 = 30_000_000_000;

impl Hub {
    /// Takes in how the agent says that it is itself.
    pub fn set_condition(&self, connection: &Connection, said: AgentCondition, now_ns: i64) {
        let mut state = self.lock();
        if let Some(agent) = state.agents.get_mut(&connection.node)
            && agent.connection == connection.number
        {
            let ahead = said.now_ns.saturating_sub(now_ns);
            if ahead.unsigned_abs() > MAX_SKEW_NS {
                let (node, seconds) = (&connection.node, ahead / 1_000_000_000);
                tracing::warn!(
                    node,
                    seconds,
                    "the node's clock is ahead of the coordinator's by so much"
                );
            }
            agent.info.clock_ahead_ns = ahead;
            agent.info.condition = Some(bounded_condition(said));
        }
    }

    /// What is known of the connected agents, by node.
    pub fn infos(&self) -> Vec<AgentInfo> {
        let state = self.lock();
        state
            .agents
            .values()
            .map(|agent| agent.info.clone())
            .collect()
    }
}

fn bounded_condition(mut said: AgentCondition) -> AgentCondition {
    said.troubles.truncate(MAX_TROUBLES);
    said.limits.truncate(MAX_TROUBLES);
    let troubles = said.troubles.iter_mut();
    let texts = troubles.flat_map(|trouble| [&mut trouble.reason, &mut trouble.detail]);
    let names = said.limits.iter_mut().map(|limit| &mut limit.name);
    let own = [
        &mut said.journal,
        &mut said.journal_detail,
        &mut said.landlock_detail,
        &mut said.kernel,
        &mut said.kubelet_pods,
    ];
    texts.chain(names).chain(own).for_each(cut);
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::v1::{Hello, Trouble};

    #[test]
    fn what_an_agent_says_of_itself_is_kept_while_it_is_connected() {
        let hub = Hub::default();
        let hello = |node: &str| Hello {
            node: node.into(),
            version: "1".into(),
            boot_id: "b".repeat(1000),
            ..Hello::default()
        };
        let (a, _sent) = hub.connect(hello("a"));
        assert_eq!(hub.infos()[0].condition, None);
        assert!(hub.infos()[0].boot_id.len() < 200);
        let trouble = Trouble {
            reason: "Word".into(),
            detail: "x".repeat(10_000),
        };
        let said = AgentCondition {
            now_ns: 1_040_000_000_000,
            troubles: vec![trouble; 1000],
            kernel: "6".repeat(10_000),
            kubelet_pods: "/p".repeat(10_000),
            ..AgentCondition::default()
        };
        hub.set_condition(&a, said.clone(), 1_000_000_000_000);
        let info = hub.infos().remove(0);
        assert_eq!(info.clock_ahead_ns, 40_000_000_000);
        let kept = info.condition.unwrap();
        assert_eq!(kept.troubles.len(), MAX_TROUBLES);
        assert!(kept.troubles[0].detail.len() < 5000);
        assert!(kept.kernel.len() < 5000 && kept.kubelet_pods.len() < 5000);
        // A later connection of the node knows nothing yet, and the earlier one is not heard.
        let (again, _sent) = hub.connect(hello("a"));
        hub.set_condition(&a, said, 0);
        assert_eq!(hub.infos()[0].condition, None);
        hub.disconnect(&again);
        assert!(hub.infos().is_empty());
    }
}
