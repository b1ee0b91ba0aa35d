//! The agent's families: a fixed list (`deploy/METRICS.md`), set once per finished run from its counters. When a
//! volume was last backed up is the coordinator's to tell: it is in the catalog, and outlives both processes.
//!
//! Labels: `namespace` and `persistentvolumeclaim` of the volume, capped; `result` and `what` from
//! closed sets.

use crate::error::Error;
use crate::exposure::MODES;
use crate::progress::ProgressView;
use crate::rolling::Findings;
use holdfast_format::volume::VolumeFacts;
use holdfast_proto::v1::VolumeState;
use holdfast_runtime::metrics::{GaugeTable, LabelCap, Metrics, volume_labels};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Volumes with labels of their own.
const VOLUMES: usize = 500;
const VOLUME: [&str; 2] = ["namespace", "persistentvolumeclaim"];

/// The oldest change, files, bytes, and how many volumes have which journal.
type Sum = (u64, u64, u64, [u32; MODES.len()]);

/// All families of an agent.
#[derive(Debug, Clone)]
pub struct AgentMetrics {
    runs: IntCounterVec,
    read_bytes: IntCounterVec,
    sent_bytes: IntCounterVec,
    new_chunk_bytes: IntCounterVec,
    reread_unchanged_bytes: IntCounterVec,
    problems: IntCounterVec,
    looks: IntCounterVec,
    again_files: IntCounter,
    again_bytes: IntCounter,
    silent_changes: IntCounter,
    missed_changes: IntCounter,
    exposed_seconds: GaugeTable,
    exposed_files: GaugeTable,
    exposed_bytes: GaugeTable,
    journal: GaugeTable,
    /// Indexes that were built again.
    pub index_rebuilds: IntCounter,
    /// The version of Landlock that is in force.
    pub landlock: IntGauge,
    /// What keeps the agent from its work, by reason.
    troubles: IntGaugeVec,
    /// Jobs that run now.
    pub running: IntGauge,
    /// Whether the coordinator is connected.
    pub connected: IntGauge,
    /// Volumes that may be backed up.
    pub volumes: IntGauge,
    /// Volumes that may not.
    pub volumes_left_out: IntGauge,
    cap: Arc<LabelCap>,
}

impl AgentMetrics {
    /// Sets which of the reasons hold, a closed set.
    pub fn troubled(&self, reasons: impl Iterator<Item = &'static str>) {
        self.troubles.reset();
        for reason in reasons {
            self.troubles.with_label_values(&[reason]).set(1);
        }
    }

    /// Makes the families.
    pub fn new(metrics: &Metrics) -> Self {
        metrics.set_build("agent", env!("CARGO_PKG_VERSION"));
        let counters = |name, help| metrics.counters(name, help, &VOLUME);
        let runs = metrics.counters(
            "holdfast_agent_jobs_total",
            "Jobs that ended, by kind and result.",
            &["what", "result"],
        );
        // The first of each is to be seen as one more.
        for what in ["backup", "restore"] {
            for result in ["done", "cancelled", "failed"] {
                runs.with_label_values(&[what, result]).inc_by(0);
            }
        }
        Self {
            runs,
            read_bytes: counters(
                "holdfast_agent_read_bytes_total",
                "Bytes read from volumes.",
            ),
            sent_bytes: counters(
                "holdfast_agent_sent_bytes_total",
                "Payload bytes sent to the coordinator.",
            ),
            new_chunk_bytes: counters(
                "holdfast_agent_new_chunk_bytes_total",
                "Plain bytes of chunks that the volume did not hold.",
            ),
            reread_unchanged_bytes: counters(
                "holdfast_agent_reread_unchanged_bytes_total",
                "Bytes read again that had not changed.",
            ),
            problems: counters(
                "holdfast_agent_problems_total",
                "Files that could not be stored as they are.",
            ),
            looks: metrics.counters(
                "holdfast_agent_looks_total",
                "How finished backups looked at their volume: by its journal, or by a walk and why.",
                &["by", "reason"],
            ),
            again_files: metrics.counter(
                "holdfast_agent_rolling_reread_files_total",
                "Files read again within their period, though nothing said that they changed.",
            ),
            again_bytes: metrics.counter(
                "holdfast_agent_rolling_reread_bytes_total",
                "Bytes of those files.",
            ),
            silent_changes: metrics.counter(
                "holdfast_agent_silent_changes_total",
                "Files found to hold something else though neither times nor size had changed.",
            ),
            missed_changes: metrics.counter(
                "holdfast_agent_missed_changes_total",
                "Changed files of which a trusted journal knew nothing.",
            ),
            exposed_seconds: metrics.table(
                "holdfast_agent_volume_exposed_seconds",
                "Age of the volume's oldest change that is in no snapshot, as its journal knows.",
                &VOLUME,
            ),
            exposed_files: metrics.table(
                "holdfast_agent_volume_exposed_files",
                "Files that may have changed since the volume's newest snapshot, about.",
                &VOLUME,
            ),
            exposed_bytes: metrics.table(
                "holdfast_agent_volume_exposed_bytes",
                "Bytes that may have changed since the volume's newest snapshot, about.",
                &VOLUME,
            ),
            journal: metrics.table(
                "holdfast_agent_volume_journal",
                "Volumes by what their journal is worth: trusted, seeding, walk or off.",
                &["namespace", "persistentvolumeclaim", "mode"],
            ),
            index_rebuilds: metrics.counter(
                "holdfast_agent_index_rebuilds_total",
                "Indexes that were built again from the parent's entries.",
            ),
            landlock: metrics.gauge(
                "holdfast_agent_landlock_abi",
                "Version of Landlock by which the agent is restricted; 0: it is not.",
            ),
            troubles: metrics.gauges(
                "holdfast_agent_troubles",
                "What keeps the agent from its work, and it unready: 1 for each reason that holds.",
                &["reason"],
            ),
            running: metrics.gauge("holdfast_agent_jobs_running", "Jobs that run now."),
            connected: metrics.gauge(
                "holdfast_agent_connected",
                "1 while the coordinator is connected.",
            ),
            volumes: metrics.gauge("holdfast_agent_volumes", "Volumes that may be backed up."),
            volumes_left_out: metrics.gauge(
                "holdfast_agent_volumes_left_out",
                "Volumes that are listed and not backed up.",
            ),
            cap: Arc::new(LabelCap::new(VOLUMES)),
        }
    }

    /// A backup has ended.
    pub fn backed_up(
        &self,
        facts: &VolumeFacts,
        result: Result<(), &Error>,
        counters: &ProgressView,
    ) {
        self.ended("backup", result);
        let labels = self.cap.values(&labels(facts));
        let add = |family: &IntCounterVec, n| family.with_label_values(&labels).inc_by(n);
        add(&self.read_bytes, counters.read_bytes);
        add(&self.sent_bytes, counters.wire_bytes);
        add(&self.new_chunk_bytes, counters.new_chunk_bytes);
        add(
            &self.reread_unchanged_bytes,
            counters.reread_unchanged_bytes,
        );
        add(&self.problems, counters.problems);
    }

    /// A finished backup looked at what its journal told (`None`), or walked the volume for this reason.
    pub fn looked(&self, walk: Option<&'static str>) {
        let by = match walk {
            None => ["journal", ""],
            Some(reason) => ["walk", reason],
        };
        self.looks.with_label_values(&by).inc();
    }

    /// Files were read again.
    pub fn read_again(&self, findings: &Findings) {
        let count = |paths: &[_]| u64::try_from(paths.len()).unwrap_or(u64::MAX);
        self.again_files.inc_by(findings.files);
        self.again_bytes.inc_by(findings.bytes);
        self.silent_changes.inc_by(count(&findings.silent));
        self.missed_changes.inc_by(count(&findings.untold));
    }

    /// How the volumes stand now. Volumes of the same labels are one: the oldest change, and sums.
    pub fn exposed(&self, states: &[(VolumeFacts, VolumeState)]) {
        let mut sums: BTreeMap<Vec<String>, Sum> = BTreeMap::new();
        for (facts, state) in states {
            let sum = sums.entry(self.cap.values(&labels(facts))).or_default();
            sum.0 = sum.0.max(state.exposed_ns);
            sum.1 = sum.1.saturating_add(state.exposed_files);
            sum.2 = sum.2.saturating_add(state.exposed_bytes);
            let mode = MODES.iter().position(|mode| *mode == state.journal);
            sum.3[mode.unwrap_or(MODES.len() - 1)] += 1;
        }
        // A volume that is gone has no exposure.
        let rows = || {
            sums.iter()
                .map(|(labels, sum)| ([&labels[0], &labels[1]], sum))
        };
        let of = |value: fn(&Sum) -> f64| rows().map(move |(labels, sum)| (labels, value(sum)));
        self.exposed_seconds.set(of(|sum| sum.0 as f64 / 1e9));
        self.exposed_files.set(of(|sum| sum.1 as f64));
        self.exposed_bytes.set(of(|sum| sum.2 as f64));
        self.journal
            .set(rows().flat_map(|([namespace, claim], sum)| {
                let modes = MODES.iter().zip(sum.3);
                modes.map(move |(mode, count)| ([&namespace[..], claim, mode], f64::from(count)))
            }));
    }

    /// A restore has ended.
    pub fn restored(&self, result: Result<(), &Error>) {
        self.ended("restore", result);
    }

    fn ended(&self, what: &str, result: Result<(), &Error>) {
        let result = match result {
            Ok(()) => "done",
            Err(Error::Cancelled) => "cancelled",
            Err(_) => "failed",
        };
        self.runs.with_label_values(&[what, result]).inc();
    }
}

fn labels(facts: &VolumeFacts) -> [&str; 2] {
    let name = facts.name.as_str();
    volume_labels(&facts.namespace, &facts.persistentvolumeclaim, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_document_has_every_family() {
        let metrics = Metrics::new();
        AgentMetrics::new(&metrics);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/METRICS.md");
        holdfast_runtime::metrics::check_document(&file, "agent", &metrics).unwrap();
    }
}
