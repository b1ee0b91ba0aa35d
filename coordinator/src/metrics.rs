//! Metrics of a coordinator: a closed list of families without labels, set when a scrape asks.

use crate::Coordinator;
use holdfast_runtime::metrics::Metrics;
use std::sync::Arc;

/// Gauges that `update` sets.
pub struct CoordinatorMetrics {
    coordinator: Arc<Coordinator>,
    gauges: Gauges,
}

macro_rules! gauges {
    ($($name:ident $text:literal $help:literal)*) => {
        struct Gauges { $($name: prometheus::IntGauge),* }
        impl Gauges {
            fn new(metrics: &Metrics) -> Self {
                Self { $($name: metrics.gauge($text, $help)),* }
            }
        }
    };
}

gauges! {
    open_sessions "holdfast_open_sessions" "Sessions that are open."
    agents "holdfast_agents" "Agents that are connected."
    pack_memory "holdfast_pack_memory_bytes" "Memory of open packs and packs on their way."
    volumes "holdfast_volumes" "Volumes in the catalog."
    snapshots "holdfast_snapshots" "Visible snapshots."
    chunks "holdfast_chunks" "Chunks in live packs."
    packs "holdfast_packs" "Live packs."
    pack_bytes "holdfast_pack_bytes" "Stored bytes of live packs."
    fenced "holdfast_fenced" "1 when another catalog has taken the repository."
}

impl CoordinatorMetrics {
    pub(crate) fn new(coordinator: Arc<Coordinator>, metrics: &Metrics) -> Self {
        Self {
            coordinator,
            gauges: Gauges::new(metrics),
        }
    }

    /// Sets every gauge; sums over the catalog stay as they were where it cannot be asked.
    pub async fn update(&self) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let gauges = &self.gauges;
        gauges
            .pack_memory
            .set(number(self.coordinator.pool_bytes()));
        gauges.fenced.set(i64::from(self.coordinator.is_fenced()));
        if let Ok(status) = self.coordinator.status().await {
            gauges.open_sessions.set(number(status.open_sessions));
            gauges.agents.set(number(status.agents.len() as u64));
            gauges.volumes.set(number(status.volumes));
            gauges.snapshots.set(number(status.snapshots));
            gauges.chunks.set(number(status.chunks));
            gauges.packs.set(number(status.packs));
            gauges.pack_bytes.set(number(status.pack_bytes));
        }
    }
}
