//! Metrics of a coordinator, set when a scrape asks: a closed list of families. Labels: `namespace` and
//! `persistentvolumeclaim` of served volumes, capped; `mode` from a closed set.

use crate::Coordinator;
use crate::schedule::{JOURNAL_WORDS, TRUSTED};
use holdfast_runtime::metrics::{LabelCap, Metrics};
use prometheus::{GaugeVec, IntCounter, IntGaugeVec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Volumes with labels of their own.
const VOLUMES: usize = 500;
const VOLUME: [&str; 2] = ["namespace", "persistentvolumeclaim"];

/// Families that `update` sets.
pub struct CoordinatorMetrics {
    coordinator: Arc<Coordinator>,
    gauges: Gauges,
    volumes: VolumeGauges,
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
    pack_memory "holdfast_pack_memory_bytes" "Memory of open packs and packs on their way."
    volumes "holdfast_volumes" "Volumes in the catalog."
    snapshots "holdfast_snapshots" "Visible snapshots."
    suspicious "holdfast_snapshots_suspicious" "Suspicious snapshots that nobody has acknowledged."
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
            volumes: VolumeGauges::new(metrics),
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

    /// Sets every family; sums over the catalog stay as they were where it cannot be asked.
    pub async fn update(&self) {
        let gauges = &self.gauges;
        gauges
            .pack_memory
            .set(number(self.coordinator.pool_bytes()));
        gauges.fenced.set(i64::from(self.coordinator.is_fenced()));
        let made = self.coordinator.made_suspicious();
        self.made_suspicious
            .inc_by(made.saturating_sub(self.made_suspicious.get()));
        let told = self.coordinator.events().map(|events| events.counts());
        let told = told.unwrap_or_default();
        let raise =
            |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(&self.events, told.told);
        raise(&self.events_dropped, told.dropped);
        self.volumes.update(&self.coordinator);
        if let Ok(status) = self.coordinator.status().await {
            gauges.open_sessions.set(number(status.open_sessions));
            gauges.agents.set(number(status.agents.len() as u64));
            gauges.volumes.set(number(status.volumes));
            gauges.snapshots.set(number(status.snapshots));
            gauges.suspicious.set(number(status.suspicious));
            gauges.chunks.set(number(status.chunks));
            gauges.packs.set(number(status.packs));
            gauges.pack_bytes.set(number(status.pack_bytes));
        }
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// How far served volumes are ahead of their newest snapshots.
struct VolumeGauges {
    seconds: GaugeVec,
    bytes: IntGaugeVec,
    journal: IntGaugeVec,
    cap: LabelCap,
}

/// Volumes of the same labels: the oldest change, the sum of bytes, and how many have which journal.
#[derive(Default)]
struct Sum {
    exposed: Option<(u64, u64)>,
    journals: [i64; JOURNAL_WORDS.len()],
}

impl VolumeGauges {
    fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.float_gauges(
                "holdfast_volume_exposed_seconds",
                "Age of the oldest change of a served volume that is in no snapshot, as a trusted journal knows.",
                &VOLUME,
            ),
            bytes: metrics.gauges(
                "holdfast_volume_exposed_bytes",
                "Bytes of a served volume that changed since its newest snapshot, about, as a trusted journal knows.",
                &VOLUME,
            ),
            journal: metrics.gauges(
                "holdfast_volume_journal",
                "Served volumes by what their journal is worth: trusted, seeding, walk or off.",
                &["namespace", "persistentvolumeclaim", "mode"],
            ),
            cap: LabelCap::new(VOLUMES),
        }
    }

    fn update(&self, coordinator: &Coordinator) {
        let mut sums: BTreeMap<Vec<String>, Sum> = BTreeMap::new();
        for served in coordinator.hub().served(coordinator.clock().elapsed()) {
            let Some((state, _)) = served.state else {
                continue;
            };
            let labels = [
                &*served.facts.namespace,
                &*served.facts.persistentvolumeclaim,
            ];
            let sum = sums.entry(self.cap.values(&labels)).or_default();
            if state.journal == TRUSTED {
                let (age, bytes) = sum.exposed.unwrap_or_default();
                let bytes = bytes.saturating_add(state.exposed_bytes);
                sum.exposed = Some((age.max(state.exposed_ns), bytes));
            }
            let word = JOURNAL_WORDS.iter().position(|word| *word == state.journal);
            sum.journals[word.unwrap_or(JOURNAL_WORDS.len() - 1)] += 1;
        }
        // What is not served any more, or not watched, has no number.
        self.seconds.reset();
        self.bytes.reset();
        self.journal.reset();
        for (labels, sum) in &sums {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            if let Some((age, bytes)) = sum.exposed {
                let seconds = age as f64 / 1e9;
                self.seconds.with_label_values(&labels).set(seconds);
                self.bytes.with_label_values(&labels).set(number(bytes));
            }
            for (word, count) in JOURNAL_WORDS.iter().zip(sum.journals) {
                let labels = [labels[0], labels[1], word];
                self.journal.with_label_values(&labels).set(count);
            }
        }
    }
}
