//! What metrics are made of: how jobs ended, and which nodes lack their agents.

use super::{Hub, State};
use crate::schedule::counts::JobCounts;
use holdfast_proto::v1::{NodePlan, VolumeFacts};

impl Hub {
    /// What has become of jobs.
    pub fn counts(&self) -> &JobCounts {
        &self.counts
    }

    /// Nodes that have something to read, where a cluster says so: whether the agent of each is connected.
    pub fn nodes(&self) -> Option<Vec<(String, bool)>> {
        let state = self.lock();
        let plans = state.plans.as_ref()?;
        let has_work = |plan: &NodePlan| {
            let mut volumes = plan.volumes.iter();
            volumes.any(|volume| volume.reason.is_empty())
        };
        let nodes = plans.iter().filter(|(_, plan)| has_work(plan));
        let nodes = nodes.map(|(node, _)| (node.clone(), state.agents.contains_key(node)));
        Some(nodes.collect())
    }
}

impl State {
    /// What is known of a volume that an agent lists.
    pub(in crate::schedule) fn facts(&self, name: &str) -> Option<&VolumeFacts> {
        let volumes = self.agents.values().flat_map(|agent| &agent.volumes);
        let mut facts = volumes.filter_map(|volume| volume.facts.as_ref());
        facts.find(|facts| facts.name == name)
    }
}
