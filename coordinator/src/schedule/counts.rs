//! Counts of jobs by how they ended, and what they moved. They begin at 0 with the process: what happened before
//! is in the gauges that are read from the catalog. Each job is counted once when it is asked for, and once when
//! it has ended.

use crate::schedule::HookCounts;
use holdfast_proto::v1::{JobInfo, JobState, VolumeFacts};
use holdfast_runtime::metrics::{LONG_SECONDS, LabelCap, Metrics, volume_labels};
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};
use std::collections::HashSet;

/// Volumes with labels of their own; all others share `other`.
pub const LABELLED_VOLUMES: usize = 2000;
const VOLUME: [&str; 2] = ["namespace", "persistentvolumeclaim"];
const RESTORES: &str = "holdfast_restores_total";
/// How Restore objects end.
const RESULTS: [&str; 5] = [
    "Completed",
    "PartiallyFailed",
    "Failed",
    "RolledBack",
    "Cancelled",
];

/// What has become of jobs.
pub struct JobCounts {
    backups: Backups,
    restores: Restores,
    hooks: HookCounts,
    read: IntCounter,
    sent: IntCounter,
    stored: IntCounter,
    cap: LabelCap,
}

struct Backups {
    attempt: IntCounterVec,
    success: IntCounterVec,
    partial: IntCounterVec,
    failure: IntCounterVec,
    cancelled: IntCounterVec,
    seconds: Histogram,
}

struct Restores {
    attempt: IntCounter,
    success: IntCounter,
    partial: IntCounter,
    failure: IntCounter,
    cancelled: IntCounter,
    seconds: Histogram,
    objects: IntCounterVec,
}

impl Default for JobCounts {
    fn default() -> Self {
        let by_volume = |name: &str, help: &str| {
            sound(name, IntCounterVec::new(Opts::new(name, help), &VOLUME))
        };
        let count =
            |name: &str, help: &str| sound(name, IntCounter::with_opts(Opts::new(name, help)));
        let seconds = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(LONG_SECONDS.to_vec());
            sound(name, Histogram::with_opts(opts))
        };
        Self {
            backups: Backups {
                attempt: by_volume(
                    "holdfast_backup_attempt_total",
                    "Backups of a volume that were asked for, by whomever.",
                ),
                success: by_volume(
                    "holdfast_backup_success_total",
                    "Backups of a volume that stored everything.",
                ),
                partial: by_volume(
                    "holdfast_backup_partial_failure_total",
                    "Backups of a volume that made a snapshot in which files are missing or doubtful.",
                ),
                failure: by_volume(
                    "holdfast_backup_failure_total",
                    "Backups of a volume that made no snapshot.",
                ),
                cancelled: by_volume(
                    "holdfast_backup_cancelled_total",
                    "Backups of a volume that somebody stopped.",
                ),
                seconds: seconds(
                    "holdfast_backup_duration_seconds",
                    "From the order to the end of backups that made a snapshot.",
                ),
            },
            restores: Restores {
                attempt: count(
                    "holdfast_restore_attempt_total",
                    "Restores that were asked for.",
                ),
                success: count(
                    "holdfast_restore_success_total",
                    "Restores that wrote everything.",
                ),
                partial: count(
                    "holdfast_restore_partial_failure_total",
                    "Restores that ended with problems of single files.",
                ),
                failure: count("holdfast_restore_failure_total", "Restores that failed."),
                cancelled: count(
                    "holdfast_restore_cancelled_total",
                    "Restores that somebody stopped.",
                ),
                seconds: seconds(
                    "holdfast_restore_duration_seconds",
                    "From the order to the end of restores that did not fail.",
                ),
                objects: results(sound(
                    RESTORES,
                    IntCounterVec::new(
                        Opts::new(
                            RESTORES,
                            "Restore objects that ended, by the phase that they ended in.",
                        ),
                        &["result"],
                    ),
                )),
            },
            hooks: HookCounts::default(),
            read: count(
                "holdfast_bytes_read_total",
                "Bytes that backups read from volumes.",
            ),
            sent: count(
                "holdfast_bytes_sent_total",
                "Payload bytes that backups sent to the coordinator.",
            ),
            stored: count(
                "holdfast_bytes_stored_total",
                "Bytes that backups added to the repository.",
            ),
            cap: LabelCap::new(LABELLED_VOLUMES),
        }
    }
}

impl JobCounts {
    /// Has them printed.
    pub fn register(&self, metrics: &Metrics) {
        let (backups, restores) = (&self.backups, &self.restores);
        for family in backups.by_volume() {
            metrics.adopt(family);
        }
        for family in [
            &restores.attempt,
            &restores.success,
            &restores.partial,
            &restores.failure,
            &restores.cancelled,
            &self.read,
            &self.sent,
            &self.stored,
        ] {
            metrics.adopt(family);
        }
        metrics.adopt(&backups.seconds);
        metrics.adopt(&restores.seconds);
        metrics.adopt(&restores.objects);
        self.hooks.register(metrics);
    }

    /// Those of hooks.
    pub fn hooks(&self) -> &HookCounts {
        &self.hooks
    }

    /// A Restore object has ended, in this phase.
    pub fn restore_ended(&self, phase: &str) {
        if RESULTS.contains(&phase) {
            self.restores.objects.with_label_values(&[phase]).inc();
        }
    }

    /// A job was asked for.
    pub fn started(&self, info: &JobInfo, facts: Option<&VolumeFacts>) {
        match info.what.as_str() {
            "backup" => self.add(&self.backups.attempt, info, facts),
            _ => self.restores.attempt.inc(),
        }
    }

    /// A job has ended, as its last report says.
    pub fn ended(&self, info: &JobInfo, facts: Option<&VolumeFacts>) {
        let Some(last) = &info.last else { return };
        let stats = last.stats.unwrap_or_default();
        let is_partial = stats.problems > 0 || !last.problems.is_empty();
        let (backups, restores) = (&self.backups, &self.restores);
        let (of_backup, of_restore, seconds) = match (last.state(), is_partial) {
            (JobState::Done, false) => (&backups.success, &restores.success, true),
            (JobState::Done, true) => (&backups.partial, &restores.partial, true),
            (JobState::Cancelled, _) => (&backups.cancelled, &restores.cancelled, false),
            _ => (&backups.failure, &restores.failure, false),
        };
        let took = info.ended_ns.saturating_sub(info.created_ns).max(0) as f64 / 1e9;
        if info.what == "backup" {
            self.add(of_backup, info, facts);
            self.read.inc_by(stats.read_bytes);
            self.sent.inc_by(stats.wire_bytes);
            self.stored.inc_by(stats.stored_bytes);
            if seconds {
                backups.seconds.observe(took);
            }
        } else {
            of_restore.inc();
            if seconds {
                restores.seconds.observe(took);
            }
        }
    }

    /// These volumes are there: each has its counts, from 0, so that the first failure is seen as one; those of
    /// volumes that are gone go.
    pub fn keep(&self, there: &HashSet<[&str; 2]>) {
        let is_there = |values: &[String]| match values {
            [namespace, claim] => there.contains(&[&namespace[..], &claim[..]]),
            _ => false,
        };
        self.cap.keep(is_there);
        for family in self.backups.by_volume() {
            for metric in family
                .collect()
                .iter()
                .flat_map(|family| family.get_metric())
            {
                let label = |name: &str| {
                    let mut pairs = metric.get_label().iter();
                    pairs
                        .find(|pair| pair.name() == name)
                        .map(|pair| pair.value())
                };
                let labels = VOLUME.map(|name| label(name).unwrap_or_default());
                if labels != ["other"; 2] && !there.contains(&labels) {
                    let _ = family.remove_label_values(&labels);
                }
            }
        }
        for labels in there {
            let labels = self.cap.values(labels);
            for family in self.backups.by_volume() {
                family.with_label_values(&labels).inc_by(0);
            }
        }
    }

    fn add(&self, family: &IntCounterVec, info: &JobInfo, facts: Option<&VolumeFacts>) {
        let labels = match facts {
            Some(facts) => {
                volume_labels(&facts.namespace, &facts.persistentvolumeclaim, &info.volume)
            }
            None => of_name(&info.volume),
        };
        family.with_label_values(&self.cap.values(&labels)).inc();
    }
}

impl Backups {
    fn by_volume(&self) -> [&IntCounterVec; 5] {
        [
            &self.attempt,
            &self.success,
            &self.partial,
            &self.failure,
            &self.cancelled,
        ]
    }
}

/// Each is there from 0, so that the first failure is seen as one.
fn results(family: IntCounterVec) -> IntCounterVec {
    for result in RESULTS {
        family.with_label_values(&[result]).inc_by(0);
    }
    family
}

/// The labels of a volume of which nobody says more than its name: of a claim it is made of both.
fn of_name(name: &str) -> [&str; 2] {
    match name.split_once('/') {
        Some((namespace, claim)) if !claim.contains('/') => [namespace, claim],
        Some((namespace, _)) => [namespace, ""],
        None => ["", name],
    }
}

/// # Panics
/// Where a name breaks Prometheus's rules: names are constants, so the first test finds it.
fn sound<T>(name: &str, made: prometheus::Result<T>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => panic!("metric {name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::v1::{Problem, Report, Stats};

    fn job(what: &str, volume: &str, state: JobState, problems: u64) -> JobInfo {
        JobInfo {
            what: what.into(),
            volume: volume.into(),
            created_ns: 1_000_000_000,
            ended_ns: 8_000_000_000,
            last: Some(Report {
                state: state.into(),
                stats: Some(Stats {
                    problems,
                    read_bytes: 100,
                    wire_bytes: 10,
                    stored_bytes: 5,
                    ..Stats::default()
                }),
                ..Report::default()
            }),
            ..JobInfo::default()
        }
    }

    fn text(counts: &JobCounts) -> String {
        let metrics = Metrics::new();
        counts.register(&metrics);
        metrics.encode().unwrap()
    }

    #[test]
    fn each_end_is_counted_once_by_what_it_was() {
        let counts = JobCounts::default();
        let facts = VolumeFacts {
            namespace: "shop".into(),
            persistentvolumeclaim: "db".into(),
            ..VolumeFacts::default()
        };
        for (state, problems) in [
            (JobState::Done, 0),
            (JobState::Done, 0),
            (JobState::Done, 3),
            (JobState::Failed, 0),
            (JobState::Cancelled, 0),
        ] {
            let info = job("backup", "shop/db", state, problems);
            counts.started(&info, Some(&facts));
            counts.ended(&info, Some(&facts));
        }
        let mut restore = job("restore", "shop/db", JobState::Done, 0);
        counts.ended(&restore, None);
        restore.last.as_mut().unwrap().problems = vec![Problem::default()];
        counts.ended(&restore, None);
        counts.ended(&job("restore", "", JobState::Failed, 0), None);
        for phase in ["Failed", "RolledBack", "Failed", "Restoring"] {
            counts.restore_ended(phase);
        }
        let text = text(&counts);
        let volume = "{namespace=\"shop\",persistentvolumeclaim=\"db\"}";
        for line in [
            format!("holdfast_backup_attempt_total{volume} 5"),
            format!("holdfast_backup_success_total{volume} 2"),
            format!("holdfast_backup_partial_failure_total{volume} 1"),
            format!("holdfast_backup_failure_total{volume} 1"),
            format!("holdfast_backup_cancelled_total{volume} 1"),
            "holdfast_backup_duration_seconds_sum 21".to_owned(),
            "holdfast_backup_duration_seconds_count 3".to_owned(),
            "holdfast_bytes_read_total 500".to_owned(),
            "holdfast_restore_success_total 1".to_owned(),
            "holdfast_restore_partial_failure_total 1".to_owned(),
            "holdfast_restore_failure_total 1".to_owned(),
            "holdfast_restores_total{result=\"Failed\"} 2".to_owned(),
            "holdfast_restores_total{result=\"RolledBack\"} 1".to_owned(),
            "holdfast_restores_total{result=\"Completed\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn volumes_begin_at_zero_and_go_when_they_are_gone() {
        let counts = JobCounts::default();
        counts.keep(&HashSet::from([["shop", "db"], ["", "data"]]));
        let zero =
            "holdfast_backup_failure_total{namespace=\"shop\",persistentvolumeclaim=\"db\"} 0";
        assert!(text(&counts).contains(zero));
        counts.keep(&HashSet::from([["", "data"]]));
        let after = text(&counts);
        assert!(!after.contains("shop"), "{after}");
        assert!(after.contains("persistentvolumeclaim=\"data\"} 0"));
    }

    #[test]
    fn a_name_says_what_it_is_of() {
        assert_eq!(of_name("shop/db"), ["shop", "db"]);
        assert_eq!(of_name("shop/db-0/scratch"), ["shop", ""]);
        assert_eq!(of_name("data"), ["", "data"]);
    }
}
