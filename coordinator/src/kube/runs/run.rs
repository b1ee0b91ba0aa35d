//! One run: its volumes, how far each is, and what ends it. Pure; time is an argument.

use super::facts::BackupFacts;
use super::plan::{Chosen, Planned, Refusal, within};
use crate::kube::api::{BackupPhase, BackupSpec, PolicyReference, ResultPhase, VolumeResult};
use crate::kube::words::Point;
use holdfast_format::id::JobId;
use holdfast_proto::v1::{JobState, Report};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// What a Backup names may come a moment after it.
pub const GRACE: SignedDuration = SignedDuration::from_secs(10);
/// A volume that a pod uses may be without a node for so long.
pub const ADRIFT: SignedDuration = SignedDuration::from_secs(60);
/// Longest text of a result, as its schema has it.
const MAX_TEXT: usize = 1024;

/// Failures that may be over soon. After others, who asked for the run is told at once.
const TRANSIENT: [&str; 10] = [
    "ShuttingDown",
    "AgentLost",
    "VolumeBusy",
    "LeaseLost",
    "UnknownSession",
    "StoreUnavailable",
    "StateUnavailable",
    "CatalogBusy",
    "CoordinatorUnavailable",
    "Unavailable",
];

/// Who made it.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// Somebody.
    Person,
    /// A policy's schedule.
    Schedule {
        /// The policy.
        policy: PolicyReference,
        /// The time of the schedule.
        scheduled: Timestamp,
        /// Volumes may be added until then.
        open_until: Timestamp,
    },
}

/// Why it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `spec.cancel`.
    Asked,
    /// The Backup is deleted.
    Deleted,
    /// The namespace is.
    NamespaceDeleting,
}

impl Stop {
    /// Why, as one stable word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Asked => "Cancelled",
            Self::Deleted => "BackupDeleted",
            Self::NamespaceDeleting => "NamespaceDeleting",
        }
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The uid of its object; empty: that is not there yet.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// Who made it.
    pub origin: Origin,
    /// What it says.
    pub spec: BackupSpec,
    /// Since when it is known to this process.
    pub seen: Timestamp,
    /// When its volumes were chosen.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Its volumes.
    pub targets: BTreeMap<String, Target>,
    /// What was left out.
    pub left_out: Vec<(String, &'static str)>,
    /// Why there is no run.
    pub refusal: Option<Refusal>,
    /// Why it is stopped.
    pub stop: Option<Stop>,
    /// Whether a volume of it has been read or tried: it does not wait any more.
    pub has_run: bool,
    /// Whether its volumes are chosen.
    pub is_begun: bool,
    /// Whether its end was told.
    pub is_end_told: bool,
}

/// A volume of a run.
#[derive(Clone, Debug)]
pub struct Target {
    /// How far it is.
    pub result: VolumeResult,
    /// What reads it.
    pub job: Option<JobId>,
    /// Whether the queue has it.
    pub is_offered: bool,
    /// Since when it has no node.
    pub adrift: Option<Timestamp>,
    /// When its job was last asked to stop.
    pub stopped: Option<Timestamp>,
}

impl Target {
    /// One that waits.
    pub fn new(chosen: &Chosen) -> Self {
        Self {
            result: VolumeResult {
                claim: within(&chosen.volume).to_owned(),
                uid: chosen.uid.clone(),
                phase: ResultPhase::Pending,
                snapshot: None,
                reason: None,
                detail: None,
                files: None,
                bytes: None,
                added_bytes: None,
            },
            job: None,
            is_offered: false,
            adrift: None,
            stopped: None,
        }
    }

    /// Whether nothing more becomes of it.
    pub fn has_ended(&self) -> bool {
        !matches!(
            self.result.phase,
            ResultPhase::Pending | ResultPhase::Running
        )
    }

    /// It waits, for this.
    pub fn wait(&mut self, reason: &str, detail: &str) {
        self.result.phase = ResultPhase::Pending;
        self.job = None;
        self.say(reason, detail);
    }

    /// It is read by a job.
    pub fn run(&mut self, job: JobId) {
        self.result.phase = ResultPhase::Running;
        (self.result.reason, self.result.detail) = (None, None);
        (self.result.files, self.result.bytes) = (None, None);
        self.job = Some(job);
        self.stopped = None;
    }

    /// It has ended without a snapshot.
    pub fn end(&mut self, phase: ResultPhase, reason: &str, detail: &str) {
        self.result.phase = phase;
        self.job = None;
        (self.result.files, self.result.bytes) = (None, None);
        self.say(reason, detail);
    }

    /// It has a snapshot.
    pub fn done(&mut self, point: &Point) {
        let result = &mut self.result;
        result.phase = match point.problems {
            0 => ResultPhase::Completed,
            _ => ResultPhase::Partial,
        };
        result.snapshot = Some(point.id.clone());
        result.files = Some(point.files);
        result.bytes = Some(point.bytes);
        result.added_bytes = Some(point.added_bytes);
        (result.reason, result.detail) = (None, None);
        if point.problems > 0 {
            result.reason = Some("FilesNotRead".to_owned());
            let detail = format!("{} files could not be read", point.problems);
            result.detail = Some(detail);
        }
        self.job = None;
    }

    fn say(&mut self, reason: &str, detail: &str) {
        let text = |text: &str| Some(cut(text)).filter(|text| !text.is_empty());
        self.result.reason = text(reason);
        self.result.detail = text(detail);
    }
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its volume.
    pub volume: String,
    /// The job.
    pub job: JobId,
    /// Its last report.
    pub report: Report,
    /// Whether it is tried again.
    pub is_retried: bool,
    /// Whether it was stopped because it took too long.
    pub is_overdue: bool,
    /// The uid that the volume's claim has now.
    pub uid: Option<String>,
}

impl Run {
    /// One that is new, or that an earlier process knew.
    pub fn new(facts: &BackupFacts, origin: Origin, now: Timestamp) -> Self {
        Self {
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            uid: facts.uid.clone(),
            generation: facts.generation,
            origin,
            spec: facts.spec.clone(),
            seen: now,
            started: facts.started,
            completed: None,
            targets: BTreeMap::new(),
            left_out: Vec::new(),
            refusal: None,
            stop: None,
            has_run: facts.phase == Some(BackupPhase::Running),
            is_begun: false,
            is_end_told: false,
        }
    }

    /// One that a schedule makes now. Its volumes come one by one.
    pub fn scheduled(
        (namespace, name): &(String, String),
        spec: BackupSpec,
        origin: Origin,
        now: Timestamp,
    ) -> Self {
        Self {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: String::new(),
            generation: 0,
            origin,
            spec,
            seen: now,
            started: Some(now),
            completed: None,
            targets: BTreeMap::new(),
            left_out: Vec::new(),
            refusal: None,
            stop: None,
            has_run: false,
            is_begun: true,
            is_end_told: false,
        }
    }

    /// It wants this volume too, and the queue has that already.
    pub fn want(&mut self, chosen: &Chosen) {
        let target = self.targets.entry(chosen.volume.clone());
        let target = target.or_insert_with(|| Target::new(chosen));
        target.is_offered = true;
    }

    /// Whether it waits for this volume.
    pub fn waits(&self, volume: &str) -> bool {
        let target = self.targets.get(volume);
        target.is_some_and(|target| target.result.phase == ResultPhase::Pending)
    }

    /// There is no run.
    pub fn refuse(&mut self, refusal: Refusal, now: Timestamp) {
        self.is_begun = true;
        self.refusal = Some(refusal);
        self.started.get_or_insert(now);
        self.completed = Some(now);
    }

    /// A run of the volume could not be started.
    pub fn refused(&mut self, volume: &str, reason: &str, detail: &str, is_retried: bool) {
        let is_person = self.origin == Origin::Person;
        let Some(target) = self.targets.get_mut(volume) else {
            return;
        };
        if target.result.phase != ResultPhase::Pending {
            return;
        }
        match is_retried && (!is_person || TRANSIENT.contains(&reason)) {
            true => target.wait(reason, &format!("{detail}; tried again")),
            false => target.end(ResultPhase::Failed, reason, detail),
        }
    }

    /// Takes in which volumes it is about. `known` is what an earlier process said of them, `newest` the newest
    /// snapshot of a volume: one that was made since the run began is the run's.
    pub fn begin<'p>(
        &mut self,
        planned: Planned,
        known: &[VolumeResult],
        newest: impl Fn(&str) -> Option<&'p Point>,
        now: Timestamp,
    ) {
        self.is_begun = true;
        let is_new = self.started.is_none();
        let started = *self.started.get_or_insert(now);
        self.left_out = planned.left_out;
        for chosen in planned.volumes {
            let made = newest(&chosen.volume).filter(|point| !is_new && point.at >= started);
            let before = known
                .iter()
                .find(|known| known.claim == within(&chosen.volume));
            // A schedule's run is about the volumes that its policy offers.
            let is_wanted = self.origin == Origin::Person || before.is_some() || made.is_some();
            if is_wanted && !self.targets.contains_key(&chosen.volume) {
                let target = resumed(&chosen, before, made);
                self.targets.insert(chosen.volume, target);
            }
        }
        // What an earlier process had is part of the run, also where it is not chosen any more.
        for before in known {
            let volume = format!("{}/{}", self.namespace, before.claim);
            self.targets.entry(volume.clone()).or_insert_with(|| {
                let chosen = Chosen {
                    volume,
                    uid: before.uid.clone(),
                };
                resumed(&chosen, Some(before), None)
            });
        }
    }

    /// Takes in how a job ended.
    pub fn ended(&mut self, ended: &Ended) {
        let is_person = self.origin == Origin::Person;
        let is_stopped = self.stop;
        let Some(target) = self.targets.get_mut(&ended.volume) else {
            return;
        };
        if target.job != Some(ended.job) || target.has_ended() {
            return;
        }
        if target.result.uid != ended.uid {
            return target.end(ResultPhase::Failed, "ClaimReplaced", REPLACED);
        }
        let report = &ended.report;
        let reason = match report.reason.as_str() {
            "" => "Unknown",
            reason => reason,
        };
        match (report.state(), is_stopped) {
            (JobState::Done, _) => target.done(&Point::of_report(report)),
            (_, Some(stop)) => target.end(ResultPhase::Cancelled, stop.reason(), ""),
            (JobState::Cancelled, None) if ended.is_overdue => {
                let detail = "it took longer than its policy's deadline";
                target.end(ResultPhase::Failed, "DeadlineExceeded", detail);
            }
            (JobState::Cancelled, None) => {
                let detail = "somebody stopped it";
                target.end(ResultPhase::Cancelled, "Cancelled", detail);
            }
            _ if ended.is_retried && (!is_person || TRANSIENT.contains(&reason)) => {
                target.wait(reason, &format!("{}; tried again", report.detail));
            }
            _ => target.end(ResultPhase::Failed, reason, &report.detail),
        }
    }

    /// Whether nothing more becomes of it.
    pub fn is_over(&self, now: Timestamp) -> bool {
        if self.refusal.is_some() || self.completed.is_some() {
            return true;
        }
        let is_open = match self.origin {
            Origin::Schedule { open_until, .. } => now <= open_until && self.stop.is_none(),
            Origin::Person => self.started.is_none() && self.stop.is_none(),
        };
        !is_open && self.targets.values().all(Target::has_ended)
    }

    /// It in one word.
    pub fn phase(&self) -> BackupPhase {
        let has = |phase: ResultPhase| {
            let mut targets = self.targets.values();
            targets.any(|target| target.result.phase == phase)
        };
        if self.refusal.is_some() {
            return BackupPhase::Failed;
        }
        if self.completed.is_none() {
            let mut targets = self.targets.values();
            let is_running = targets.any(|target| target.result.phase != ResultPhase::Pending);
            return match is_running || self.has_run {
                true => BackupPhase::Running,
                false => BackupPhase::Pending,
            };
        }
        if self.stop.is_some() && (has(ResultPhase::Cancelled) || self.targets.is_empty()) {
            return BackupPhase::Cancelled;
        }
        if self.targets.is_empty() {
            // What was due has been done before it began.
            return BackupPhase::Completed;
        }
        let has_made = has(ResultPhase::Completed) || has(ResultPhase::Partial);
        let lacks = has(ResultPhase::Partial) || has(ResultPhase::Failed);
        match (has_made, lacks || has(ResultPhase::Cancelled)) {
            (true, false) => BackupPhase::Completed,
            (true, true) => BackupPhase::PartiallyFailed,
            (false, _) if !lacks && has(ResultPhase::Cancelled) => BackupPhase::Cancelled,
            (false, _) => BackupPhase::Failed,
        }
    }
}

/// What is said where a claim was made again under its name.
pub const REPLACED: &str =
    "the claim was deleted, and one of its name is another volume; make another Backup for that";

fn resumed(chosen: &Chosen, before: Option<&VolumeResult>, made: Option<&Point>) -> Target {
    let mut target = Target::new(chosen);
    if let Some(before) = before {
        if before.uid != chosen.uid {
            target.result.uid.clone_from(&before.uid);
            target.end(ResultPhase::Failed, "ClaimReplaced", REPLACED);
            return target;
        }
        target.result = before.clone();
        if target.has_ended() {
            return target;
        }
        target.result.phase = ResultPhase::Pending;
    }
    if let Some(made) = made {
        target.done(made);
    }
    target
}

/// A text that is not too long.
pub fn cut(text: &str) -> String {
    let mut text = text.to_owned();
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}
