//! How volumes are protected: read from the catalog and from what is said of them, so that a restart changes
//! nothing. Where several volumes share labels (those of pods, and those above the cap) the worst of them stands.

use super::VOLUME;
use crate::Coordinator;
use crate::catalog::Newest;
use crate::kube::{HelperRole, Picture, Wanted};
use crate::policy::Outcome;
use crate::policy::due::Rhythm;
use crate::schedule::LABELLED_VOLUMES;
use holdfast_proto::v1::{JobInfo, JobState};
use holdfast_runtime::metrics::{GaugeTable, LabelCap, Metrics, volume_labels};
use jiff::Timestamp;
use prometheus::{Gauge, IntGauge};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One without changes is backed up this often, whatever its bound of exposure.
const DAY: f64 = 86_400.0;
const PHASES: [&str; 5] = [
    "Pending",
    "Protected",
    "Failing",
    "Unprotected",
    "Unsupported",
];
const POLICY_KINDS: [&str; 2] = ["BackupPolicy", "ClusterBackupPolicy"];
const POLICY_PHASES: [&str; 3] = ["Active", "Suspended", "Invalid"];

/// Families of protection.
pub(super) struct Protection {
    last_success: GaugeTable,
    last_problems: GaugeTable,
    suspicious: GaugeTable,
    interval: GaugeTable,
    bound: GaugeTable,
    failures: GaugeTable,
    unprotected: GaugeTable,
    problems: GaugeTable,
    phases: GaugeTable,
    policies: GaugeTable,
    helpers: GaugeTable,
    queued: IntGauge,
    running: IntGauge,
    oldest_wait: Gauge,
    cap: LabelCap,
    rhythms: Mutex<Rhythms>,
}

/// What the policies of a picture promise: computed once for each picture.
#[derive(Default)]
struct Rhythms {
    of: Weak<Picture>,
    promises: HashMap<String, Promise>,
}

/// What a policy promises, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Promise {
    /// The longest time between two runs that begin as planned.
    interval: Option<f64>,
    /// The age that no unprotected change should reach.
    bound: Option<f64>,
}

/// What is told of one volume.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    labels: [String; 2],
    /// When its newest snapshot was committed, in nanoseconds, and the problems of its run.
    newest: Option<(i64, u64)>,
    suspicious: u64,
    promise: Promise,
    failures: u64,
    unprotected: Option<&'static str>,
    problems: u64,
}

impl Protection {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let by_volume = |name, help| metrics.table(name, help, &VOLUME);
        Self {
            last_success: by_volume(
                "holdfast_last_success_timestamp_seconds",
                "When the volume's newest snapshot was committed.",
            ),
            last_problems: by_volume(
                "holdfast_last_snapshot_problems",
                "Files that are missing or doubtful in the volume's newest snapshot.",
            ),
            suspicious: by_volume(
                "holdfast_volume_snapshots_suspicious",
                "Suspicious snapshots of the volume that nobody has acknowledged; volumes without one are left out.",
            ),
            interval: by_volume(
                "holdfast_schedule_expected_interval_seconds",
                "Longest time between two successes, as the volume's policy promises.",
            ),
            bound: by_volume(
                "holdfast_volume_exposure_bound_seconds",
                "Age that no unprotected change should reach, as the volume's policy promises.",
            ),
            failures: by_volume(
                "holdfast_consecutive_failures",
                "Runs of the volume that have failed since the last that did not.",
            ),
            unprotected: metrics.table(
                "holdfast_volume_unprotected",
                "1 for each claim that nothing protects, with the reason.",
                &["namespace", "persistentvolumeclaim", "reason"],
            ),
            problems: by_volume(
                "holdfast_volume_problems",
                "What is wrong with how the volume is selected, but does not keep it from being protected.",
            ),
            phases: metrics.table(
                "holdfast_volumes_by_phase",
                "Volumes by the phase of their VolumeProtection.",
                &["phase"],
            ),
            policies: metrics.table(
                "holdfast_policies",
                "Policies by kind and phase.",
                &["kind", "phase"],
            ),
            helpers: metrics.table(
                "holdfast_helper_pods",
                "Helper pods that are there: `mount` has a volume mounted, `restore` writes to one.",
                &["role"],
            ),
            queued: metrics.gauge("holdfast_queue_length", "Runs that are due and wait."),
            running: metrics.gauge("holdfast_queue_running", "Runs of policies that run."),
            oldest_wait: metrics.float_gauge(
                "holdfast_queue_oldest_wait_seconds",
                "How long the run that waits longest has been due.",
            ),
            cap: LabelCap::new(LABELLED_VOLUMES),
            rhythms: Mutex::default(),
        }
    }

    /// Where the catalog cannot be asked, everything stays as it was.
    pub(super) async fn update(&self, coordinator: &Coordinator) {
        let catalog = &coordinator.library().catalog;
        let (Ok(newest), Ok(suspicious)) =
            (catalog.newest().await, catalog.suspicious_counts().await)
        else {
            return;
        };
        // Of equal names the last one is bound now.
        let newest: HashMap<String, (Newest, u64)> = newest
            .into_iter()
            .map(|newest| {
                let count = suspicious.get(&newest.volume).copied().unwrap_or(0);
                (newest.facts.name.to_string(), (newest, count))
            })
            .collect();
        let seen = match (coordinator.picture(), coordinator.told()) {
            (Some(picture), Some(told)) => {
                self.tell_cluster(&told);
                let promises = self.promises(&picture, coordinator.clock().now_ns());
                of_cluster(&picture, &told, &newest, &promises)
            }
            _ => outside(coordinator, newest),
        };
        let there: HashSet<[&str; 2]> = seen
            .iter()
            .map(|seen| seen.labels.each_ref().map(String::as_str))
            .collect();
        coordinator.hub().counts().keep(&there);
        self.cap.keep(|values| match values {
            [namespace, claim] => there.contains(&[&namespace[..], &claim[..]]),
            _ => false,
        });
        self.set(joined(seen.iter(), &self.cap), &seen);
    }

    fn tell_cluster(&self, told: &Wanted) {
        let queue = &told.queue;
        self.queued.set(queue.due as i64);
        let helpers = HelperRole::ALL.into_iter().zip(told.helpers);
        self.helpers
            .set(helpers.map(|(role, count)| ([role.word()], count as f64)));
        self.running.set(queue.running as i64);
        self.oldest_wait.set(queue.oldest_wait.as_secs_f64());
        let mut volumes = PHASES.map(|_| 0.0);
        let mut policies = POLICY_KINDS.map(|_| POLICY_PHASES.map(|_| 0.0));
        for object in &told.objects {
            let phase = object.status["phase"].as_str().unwrap_or_default();
            let kind = POLICY_KINDS.iter().position(|kind| *kind == object.kind);
            let count = match kind {
                None => PHASES
                    .iter()
                    .position(|known| *known == phase)
                    .filter(|_| object.kind == "VolumeProtection")
                    .map(|at| &mut volumes[at]),
                Some(kind) => POLICY_PHASES
                    .iter()
                    .position(|known| *known == phase)
                    .map(|at| &mut policies[kind][at]),
            };
            if let Some(count) = count {
                *count += 1.0;
            }
        }
        let rows = PHASES.into_iter().zip(volumes);
        self.phases.set(rows.map(|(phase, count)| ([phase], count)));
        let rows = POLICY_KINDS.into_iter().zip(policies);
        self.policies.set(rows.flat_map(|(kind, counts)| {
            let phases = POLICY_PHASES.into_iter().zip(counts);
            phases.map(move |(phase, count)| ([kind, phase], count))
        }));
    }

    fn promises(&self, picture: &Arc<Picture>, now_ns: i64) -> HashMap<String, Promise> {
        let mut rhythms = self.rhythms.lock().unwrap_or_else(PoisonError::into_inner);
        if !rhythms
            .of
            .upgrade()
            .is_some_and(|of| Arc::ptr_eq(&of, picture))
        {
            let now = Timestamp::from_nanosecond(now_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
            let policies = picture.policies.iter();
            rhythms.promises = policies
                .filter_map(|(reference, policy)| {
                    Some((reference.to_string(), promise(policy.rhythm.as_ref()?, now)))
                })
                .collect();
            rhythms.of = Arc::downgrade(picture);
        }
        rhythms.promises.clone()
    }

    fn set(&self, rows: BTreeMap<[String; 2], Seen>, seen: &[Seen]) {
        let table = |table: &GaugeTable, value: fn(&Seen) -> Option<f64>| {
            let rows = rows.iter();
            let rows = rows.filter_map(|(labels, row)| Some((labels.each_ref(), value(row)?)));
            table.set(rows);
        };
        table(&self.last_success, |row| Some(row.newest?.0 as f64 / 1e9));
        table(&self.last_problems, |row| Some(row.newest?.1 as f64));
        table(&self.suspicious, |row| {
            (row.suspicious > 0).then_some(row.suspicious as f64)
        });
        table(&self.interval, |row| row.promise.interval);
        table(&self.bound, |row| row.promise.bound);
        table(&self.failures, |row| Some(row.failures as f64));
        table(&self.problems, |row| Some(row.problems as f64));
        let mut unprotected: BTreeMap<[String; 3], f64> = BTreeMap::new();
        for row in seen {
            if let Some(reason) = row.unprotected {
                let [namespace, claim] = capped(&self.cap, &row.labels);
                unprotected.insert([namespace, claim, reason.to_owned()], 1.0);
            }
        }
        self.unprotected.set(unprotected);
    }
}

fn capped(cap: &LabelCap, labels: &[String; 2]) -> [String; 2] {
    let values = cap.values(&labels.each_ref().map(String::as_str));
    // As many come back as went in.
    values.try_into().unwrap_or_default()
}

/// One row for each set of labels: the worst of the volumes that have it.
fn joined<'s>(seen: impl Iterator<Item = &'s Seen>, cap: &LabelCap) -> BTreeMap<[String; 2], Seen> {
    let mut rows: BTreeMap<[String; 2], Seen> = BTreeMap::new();
    let less = |one: Option<f64>, two: Option<f64>| match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    };
    for volume in seen {
        let labels = capped(cap, &volume.labels);
        let Some(row) = rows.get_mut(&labels) else {
            rows.insert(labels, volume.clone());
            continue;
        };
        row.newest = match (row.newest, volume.newest) {
            (Some((at, problems)), Some((other, more))) => {
                Some((at.min(other), problems.saturating_add(more)))
            }
            (one, two) => one.or(two),
        };
        row.suspicious += volume.suspicious;
        row.promise.interval = less(row.promise.interval, volume.promise.interval);
        row.promise.bound = less(row.promise.bound, volume.promise.bound);
        row.failures = row.failures.max(volume.failures);
        row.problems += volume.problems;
    }
    rows
}

/// The volumes of the cluster: every claim, and of what lives with a pod what is protected.
fn of_cluster(
    picture: &Picture,
    told: &Wanted,
    newest: &HashMap<String, (Newest, u64)>,
    promises: &HashMap<String, Promise>,
) -> Vec<Seen> {
    let protections = told
        .objects
        .iter()
        .filter(|object| object.kind == "VolumeProtection");
    let said: HashMap<&str, &serde_json::Value> = protections
        .filter_map(|object| Some((object.spec.as_ref()?["volume"].as_str()?, &object.status)))
        .collect();
    let mut seen = Vec::with_capacity(picture.volumes.len());
    for volume in &picture.volumes {
        let subject = &volume.subject;
        let claim = subject.claim.as_ref();
        let mut row = Seen {
            labels: [
                subject.namespace.name.clone(),
                claim.map(|claim| claim.name.clone()).unwrap_or_default(),
            ],
            ..Seen::default()
        };
        match &volume.decision.outcome {
            Outcome::Protected(policy) => {
                let promise = promises.get(&policy.to_string());
                row.promise = promise.copied().unwrap_or_default();
            }
            Outcome::Unprotected { .. } if claim.is_none() => continue,
            Outcome::Unprotected { reason, .. } => row.unprotected = Some(reason.as_str()),
        }
        if let Some((newest, suspicious)) = newest.get(&subject.id) {
            // Snapshots of a claim that had the name before are another volume's.
            if claim.is_none_or(|claim| claim.uid == newest.facts.pvc_uid) {
                row.newest = newest.snapshot;
            }
            row.suspicious = *suspicious;
        }
        if let Some(said) = said.get(&subject.id[..]) {
            row.failures = said["consecutiveFailures"].as_u64().unwrap_or(0);
            row.problems = said["problems"].as_array().map_or(0, Vec::len) as u64;
        }
        seen.push(row);
    }
    seen
}

/// Outside of a cluster: what has snapshots, and what agents serve.
fn outside(coordinator: &Coordinator, newest: HashMap<String, (Newest, u64)>) -> Vec<Seen> {
    let mut failures = in_a_row(&coordinator.hub().jobs());
    let mut seen: Vec<Seen> = newest
        .into_values()
        .map(|(newest, suspicious)| {
            let (facts, name) = (&newest.facts, newest.facts.name.as_str());
            let labels = volume_labels(&facts.namespace, &facts.persistentvolumeclaim, name);
            Seen {
                labels: labels.map(str::to_owned),
                newest: newest.snapshot,
                suspicious,
                failures: failures.remove(name).unwrap_or(0),
                ..Seen::default()
            }
        })
        .collect();
    for served in coordinator.hub().served(coordinator.clock().elapsed()) {
        let facts = &served.facts;
        let labels = volume_labels(&facts.namespace, &facts.persistentvolumeclaim, &facts.name);
        seen.push(Seen {
            labels: labels.map(str::to_owned),
            failures: failures.remove(&facts.name).unwrap_or(0),
            ..Seen::default()
        });
    }
    seen
}

/// How many backups of each volume have failed since the last that did not, as far as jobs are remembered; the
/// newest job comes first.
fn in_a_row(jobs: &[JobInfo]) -> HashMap<String, u64> {
    let mut failures: HashMap<String, u64> = HashMap::new();
    let mut settled = HashSet::new();
    let ended = jobs
        .iter()
        .filter(|job| job.what == "backup" && job.ended_ns != 0);
    for job in ended {
        match job.last.as_ref().map(|last| last.state()) {
            Some(JobState::Cancelled) => {}
            Some(JobState::Failed) if !settled.contains(&job.volume) => {
                *failures.entry(job.volume.clone()).or_default() += 1;
            }
            _ => {
                settled.insert(&job.volume);
            }
        }
    }
    failures
}

fn promise(rhythm: &Rhythm, now: Timestamp) -> Promise {
    match rhythm {
        Rhythm::Schedule(schedule) => Promise {
            interval: schedule.longest_gap(now).map(|gap| gap.as_secs_f64()),
            bound: None,
        },
        Rhythm::Exposure(bound, _) => {
            let age = bound.max_age.as_secs_f64();
            Promise {
                interval: Some(age.max(DAY)),
                bound: Some(age),
            }
        }
    }
}

#[cfg(test)]
mod tests;
