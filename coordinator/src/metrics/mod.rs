//! Metrics of a coordinator: a closed list of families (`deploy/METRICS.md`), set when a scrape asks.
//!
//! What is told of the past (the last success, problems, what is suspicious) is read from the catalog each time, so
//! that a restart changes nothing. Counts begin at 0 with the process, as counters may. Labels: `namespace` and
//! `persistentvolumeclaim`, capped; `node`, capped; everything else from closed sets.

mod exposure;
mod place;
mod protection;

use crate::Coordinator;
use exposure::Exposure;
use holdfast_runtime::metrics::{GaugeTable, LabelCap, Metrics};
use place::Place;
use prometheus::IntCounter;
use protection::Protection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

const VOLUME: [&str; 2] = ["namespace", "persistentvolumeclaim"];
/// Nodes with labels of their own.
const NODES: usize = 1000;
/// Several scrapes at once are answered by one look.
const FRESH: Duration = Duration::from_millis(500);
/// How often the store is asked whether it answers.
const ASK_STORE_EVERY: Duration = Duration::from_secs(60);

/// Families that `update` sets.
pub struct CoordinatorMetrics {
    coordinator: Arc<Coordinator>,
    families: Families,
    /// When it was last looked.
    looked: Mutex<Option<Duration>>,
}

struct Families {
    gauges: Gauges,
    nodes: GaugeTable,
    node_cap: LabelCap,
    exposure: Exposure,
    protection: Protection,
    place: Place,
    made_suspicious: IntCounter,
    events: IntCounter,
    events_dropped: IntCounter,
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
    agents_expected "holdfast_agents_expected" "Nodes with volumes to read, as the cluster's API says; outside of a cluster those that are connected."
    pack_memory "holdfast_pack_memory_bytes" "Memory of open packs and packs on their way."
    volumes "holdfast_volumes" "Volumes in the catalog."
    snapshots "holdfast_snapshots" "Visible snapshots."
    suspicious "holdfast_snapshots_suspicious" "Suspicious snapshots that nobody has acknowledged."
    chunks "holdfast_chunks" "Chunks in live packs."
    packs "holdfast_packs" "Live packs."
    size "holdfast_repository_size_bytes" "Stored bytes of live packs."
    damage "holdfast_repository_damage" "Objects that were missing or damaged in the store when the coordinator started."
    policies_refused "holdfast_policy_files_refused" "1 when the files of policies have mistakes and what they said before is in force."
    hooks_unfinished "holdfast_hooks_unfinished" "Post-hooks that should have been run and have not been: their volumes may still be frozen."
    fenced "holdfast_fenced" "1 when another catalog has taken the repository."
}

impl Families {
    fn new(metrics: &Metrics) -> Self {
        metrics.set_build("coordinator", env!("CARGO_PKG_VERSION"));
        Self {
            gauges: Gauges::new(metrics),
            nodes: metrics.table(
                "holdfast_node_agent_connected",
                "Of nodes with volumes to read: whether their agent is connected.",
                &["node"],
            ),
            node_cap: LabelCap::new(NODES),
            exposure: Exposure::new(metrics),
            protection: Protection::new(metrics),
            place: Place::new(metrics),
            made_suspicious: metrics.counter(
                "holdfast_snapshots_suspicious_total",
                "Snapshots that were suspicious when they were committed, since the process began.",
            ),
            events: metrics.counter(
                "holdfast_kubernetes_events_total",
                "Events of the cluster's objects that were told to its API.",
            ),
            events_dropped: metrics.counter(
                "holdfast_kubernetes_events_dropped_total",
                "Events that were not told: too many waited, or the API did not take them.",
            ),
        }
    }

    fn nodes(&self, nodes: &[(String, bool)]) {
        self.gauges.agents_expected.set(number(nodes.len() as u64));
        let is_there = |values: &[String]| nodes.iter().any(|(node, _)| values == [&node[..]]);
        self.node_cap.keep(is_there);
        let mut rows = BTreeMap::new();
        for (node, connected) in nodes {
            let all = rows.entry(self.node_cap.values(&[node])).or_insert(true);
            *all &= connected;
        }
        let rows = rows.into_iter().filter_map(|(labels, all)| {
            let node: [String; 1] = labels.try_into().ok()?;
            Some((node, f64::from(u8::from(all))))
        });
        self.nodes.set(rows);
    }
}

impl CoordinatorMetrics {
    pub(crate) fn new(coordinator: Arc<Coordinator>, metrics: &Metrics) -> Self {
        coordinator.hub().counts().register(metrics);
        Self {
            families: Families::new(metrics),
            looked: Mutex::new(None),
            coordinator,
        }
    }

    /// Sets every family; sums over the catalog stay as they were where it cannot be asked.
    pub async fn update(&self) {
        let mut looked = self.looked.lock().await;
        let now = self.coordinator.clock().elapsed();
        if looked.is_some_and(|looked| now < looked + FRESH) {
            return;
        }
        self.look().await;
        *looked = Some(now);
    }

    /// Asks the store at intervals whether it answers. Never returns.
    pub async fn watch_store(&self) {
        loop {
            self.families.place.ask_store(&self.coordinator).await;
            tokio::time::sleep(ASK_STORE_EVERY).await;
        }
    }

    async fn look(&self) {
        let (families, coordinator) = (&self.families, &self.coordinator);
        let gauges = &families.gauges;
        gauges.pack_memory.set(number(coordinator.pool_bytes()));
        gauges.fenced.set(i64::from(coordinator.is_fenced()));
        let unfinished = coordinator.brackets().map(|it| it.unfinished());
        let unfinished = unfinished.unwrap_or_default();
        let unfinished: usize = unfinished.values().map(Vec::len).sum();
        gauges.hooks_unfinished.set(number(unfinished as u64));
        let files = coordinator.policy_files();
        let refused = files.is_some_and(|files| !files.mistakes.is_empty());
        gauges.policies_refused.set(i64::from(refused));
        gauges.damage.set(number(coordinator.damage().len() as u64));
        let raise =
            |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(&families.made_suspicious, coordinator.made_suspicious());
        let told = coordinator.events().map(|events| events.counts());
        let told = told.unwrap_or_default();
        raise(&families.events, told.told);
        raise(&families.events_dropped, told.dropped);
        families.exposure.update(coordinator);
        families.protection.update(coordinator).await;
        families.place.update(coordinator);
        let agents = number(coordinator.hub().agents().len() as u64);
        gauges.agents.set(agents);
        match coordinator.hub().nodes() {
            Some(nodes) => families.nodes(&nodes),
            None => gauges.agents_expected.set(agents),
        }
        if let Ok(status) = coordinator.status().await {
            gauges.open_sessions.set(number(status.open_sessions));
            gauges.volumes.set(number(status.volumes));
            gauges.snapshots.set(number(status.snapshots));
            gauges.suspicious.set(number(status.suspicious));
            gauges.chunks.set(number(status.chunks));
            gauges.packs.set(number(status.packs));
            gauges.size.set(number(status.pack_bytes));
        }
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::ApiCalls;
    use crate::repo::{Store, StoreOptions};
    use crate::schedule::JobCounts;
    use std::path::Path;

    /// Every family of the process, also those that have no value until something has happened.
    #[test]
    fn the_document_has_every_family() {
        let metrics = Metrics::new();
        Families::new(&metrics);
        JobCounts::default().register(&metrics);
        ApiCalls::new(&metrics);
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            metrics: Some(metrics.clone()),
            ..StoreOptions::default()
        };
        Store::open(&dir.path().display().to_string(), &options).unwrap();
        crate::server::certificate_ends(&metrics, 0);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/METRICS.md");
        holdfast_runtime::metrics::check_document(&file, "coordinator", &metrics).unwrap();
    }

    #[test]
    fn nodes_above_the_cap_share_a_row_that_is_as_well_as_the_worst() {
        let metrics = Metrics::new();
        let families = Families::new(&metrics);
        let mut nodes: Vec<(String, bool)> =
            (0..NODES + 2).map(|n| (format!("n{n}"), true)).collect();
        nodes[NODES].1 = false;
        families.nodes(&nodes);
        let text = metrics.encode().unwrap();
        assert!(text.contains("holdfast_node_agent_connected{node=\"other\"} 0"));
        assert!(text.contains("holdfast_node_agent_connected{node=\"n7\"} 1"));
        assert!(text.contains(&format!("holdfast_agents_expected {}", NODES + 2)));
        families.nodes(&nodes[..1]);
        let text = metrics.encode().unwrap();
        assert_eq!(text.matches("connected{").count(), 1, "{text}");
    }
}
