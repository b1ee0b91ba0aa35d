//! What is said of volumes and policies in the API: phases, reasons, conditions. Pure; what does not change is
//! said the same way again, so that nothing is written for it.

use super::picture::{Picture, Volume};
use super::statuses::{Object, QueueView, Wanted};
use crate::kube::api::{
    ClaimReference, LastBackup, PolicyKind, PolicyPhase, PolicyReference, PolicyStatus, Problem,
    ProtectionPhase, RestorePoint, VolumeKind, VolumeProtectionSpec, VolumeProtectionStatus,
};
use crate::policy::due::Rhythm;
use crate::policy::error::joined;
use crate::policy::queue::Queue;
use crate::policy::subject::State;
use crate::policy::{Outcome, Reason};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

pub use super::point::Point;

/// What is remembered of a volume.
#[derive(Debug, Default)]
pub struct Known {
    /// Whether the catalog was asked since the last run.
    pub is_fresh: bool,
    /// The uid of its claim: one that was made again under its name is another volume.
    pub uid: Option<String>,
    /// Its newest snapshots, newest first.
    pub points: Vec<Point>,
    /// How many it has.
    pub snapshots: usize,
    /// The time of the schedule that a run was offered for.
    pub offered: Option<Timestamp>,
    /// When the next run starts.
    pub next: Option<Timestamp>,
    /// What went wrong with the hooks of its last run: a stable word and the text for people.
    pub hooks: Vec<(String, String)>,
    /// Post-hooks that have not been run yet.
    pub unfinished: Vec<String>,
    /// The runs that failed since the last success.
    pub failure: Option<Failure>,
    /// Since when changes may be in no snapshot.
    pub exposed_since: Option<Timestamp>,
}

impl Known {
    /// Its newest snapshot.
    pub fn newest(&self) -> Option<&Point> {
        self.points.first()
    }

    /// Takes in since when changes may be in no snapshot. What differs by a moment is the same: it is told in
    /// the API, where each change is a write.
    pub fn expose(&mut self, since: Option<Timestamp>) {
        let is_same = match (self.exposed_since, since) {
            (Some(old), Some(new)) => old.duration_since(new).abs() < SAME_MOMENT,
            (old, new) => old == new,
        };
        if !is_same {
            self.exposed_since = since;
        }
    }
}

/// Runs that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When the last one did.
    pub at: Timestamp,
    /// Why: a stable word.
    pub reason: String,
    /// Why, for people.
    pub detail: String,
    /// How many since the last success.
    pub in_a_row: u32,
}

/// Moments that are no further apart are the same.
const SAME_MOMENT: SignedDuration = SignedDuration::from_secs(10);
/// Changes that are younger are not told: of a volume that is backed up all the time, there always are some.
const EXPOSED_TOLD: SignedDuration = SignedDuration::from_secs(60);
/// Restore points in a status, as its schema has it.
pub const MAX_POINTS: usize = 10;
/// Longest text of a reason, as its schema has it.
const MAX_TEXT: usize = 1024;
/// References in a status, as its schema has it.
const MAX_OVERRULED: usize = 16;

/// Everything that is to be said.
pub fn said(
    picture: &Picture,
    known: &HashMap<String, Known>,
    queue: &Queue,
    away: &HashSet<String>,
    now: Timestamp,
) -> Wanted {
    let nothing = Known::default();
    let waiting: HashSet<&str> = queue
        .waiting()
        .map(|(entry, _)| &entry.volume[..])
        .collect();
    let running: HashSet<&str> = queue.running().map(|run| &run.entry.volume[..]).collect();
    let mut objects = Vec::new();
    let mut counts: HashMap<&PolicyReference, Sum> = HashMap::new();
    for volume in &picture.volumes {
        let known = known.get(&volume.subject.id).unwrap_or(&nothing);
        if let Outcome::Protected(reference) = &volume.decision.outcome {
            let sum = counts.entry(reference).or_default();
            sum.volumes += 1;
            sum.failing += i64::from(known.failure.is_some());
            sum.newest = sum.newest.max(known.newest().map(|point| point.at));
        }
        for other in &volume.decision.overruled {
            counts.entry(&other.policy).or_default().overruled += 1;
        }
        let name = &volume.subject.id[..];
        let busy = waiting.contains(name) || running.contains(name);
        objects.extend(protection(volume, known, busy, away, now));
    }
    for (reference, policy) in &picture.policies {
        let sum = counts.get(reference).copied().unwrap_or_default();
        let volumes = sum.volumes;
        let (phase, ready) = match (policy.errors.is_empty(), policy.spec.suspend) {
            (false, _) => {
                let said = cut(joined(&policy.errors));
                (PolicyPhase::Invalid, condition(false, "Invalid", said, now))
            }
            (true, true) => {
                let said = "no runs are started".to_owned();
                (
                    PolicyPhase::Suspended,
                    condition(false, "Suspended", said, now),
                )
            }
            (true, false) => {
                let said = format!("protects {volumes} volumes");
                (PolicyPhase::Active, condition(true, "Active", said, now))
            }
        };
        let (last, next) = match &policy.rhythm {
            Some(Rhythm::Schedule(schedule)) => schedule.around(policy.created, now),
            _ => (None, None),
        };
        let next = next.filter(|_| !policy.spec.suspend);
        let status = PolicyStatus {
            phase: Some(phase),
            conditions: vec![Condition {
                observed_generation: policy.generation,
                ..ready
            }],
            volumes: Some(volumes),
            failing: Some(sum.failing),
            overruled: Some(sum.overruled),
            last_schedule_time: last.map(Time),
            next_schedule_time: next.map(Time),
            last_successful_time: sum.newest.map(|at| Time(minute(at))),
            observed_generation: policy.generation,
        };
        objects.push(Object {
            kind: match reference.kind {
                PolicyKind::BackupPolicy => "BackupPolicy",
                PolicyKind::ClusterBackupPolicy => "ClusterBackupPolicy",
            },
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
            spec: None,
            owner: None,
            status: json(&status),
        });
    }
    Wanted {
        objects,
        queue: view(queue, now),
        helpers: [0; 2],
    }
}

fn view(queue: &Queue, now: Timestamp) -> QueueView {
    let due = || queue.waiting().filter(|(_, from)| *from <= now);
    let oldest = due().map(|(entry, _)| now.duration_since(entry.due)).max();
    QueueView {
        due: due().count(),
        running: queue.running().count(),
        oldest_wait: oldest
            .and_then(|wait| wait.try_into().ok())
            .unwrap_or_default(),
    }
}

/// What is summed up for a policy.
#[derive(Clone, Copy, Default)]
struct Sum {
    volumes: i64,
    failing: i64,
    overruled: i64,
    newest: Option<Timestamp>,
}

/// The minute of a moment: a policy with many volumes has new snapshots all the time.
fn minute(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap_or(at)
}

/// Of every claim, and of what lives with a pod where a policy protects it.
fn protection(
    volume: &Volume,
    known: &Known,
    busy: bool,
    away: &HashSet<String>,
    now: Timestamp,
) -> Option<Object> {
    let subject = &volume.subject;
    let claim = subject.claim.as_ref();
    let (phase, reason, message, policy) = judge(volume, known, busy);
    let (name, owner) = match (claim, subject.pods.first()) {
        (Some(claim), _) => (claim.name.clone(), Some(claim)),
        (None, Some(pod)) if phase != ProtectionPhase::Unprotected => {
            (format!("{}.{}", pod.name, pod.volume), None)
        }
        _ => return None,
    };
    let spec = VolumeProtectionSpec {
        volume: subject.id.clone(),
        kind: subject.kind.unwrap_or(VolumeKind::PersistentVolumeClaim),
        claim: claim.map(|claim| ClaimReference {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
        }),
    };
    let is_ready = phase == ProtectionPhase::Protected;
    let status = VolumeProtectionStatus {
        phase: Some(phase),
        reason: Some(reason.clone()),
        message: Some(message.clone()),
        conditions: vec![condition(is_ready, &reason, message, now)],
        policy,
        overruled: overruled(volume),
        node: volume.node.clone(),
        last_success: known.newest().map(|point| LastBackup {
            time: Time(point.at),
            snapshot: Some(point.id.clone()),
            reason: None,
            message: None,
        }),
        last_failure: known.failure.as_ref().map(|failure| LastBackup {
            time: Time(failure.at),
            snapshot: None,
            reason: Some(cut(failure.reason.clone())),
            message: Some(cut(failure.detail.clone())),
        }),
        consecutive_failures: known
            .failure
            .as_ref()
            .map(|failure| failure.in_a_row.into()),
        next_run_time: known.next.map(Time),
        exposed_since: known
            .exposed_since
            .filter(|since| now.duration_since(*since) >= EXPOSED_TOLD)
            .map(Time),
        restore_points: restore_points(known),
        snapshots: i64::try_from(known.snapshots).ok(),
        problems: problems(volume, known, away),
    };
    Some(Object {
        kind: "VolumeProtection",
        namespace: Some(subject.namespace.name.clone()),
        name,
        owner: owner.map(|claim| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "name": claim.name, "uid": claim.uid,
            })
        }),
        spec: Some(json(&spec)),
        status: json(&status),
    })
}

fn restore_points(known: &Known) -> Vec<RestorePoint> {
    let points = known.points.iter().take(MAX_POINTS);
    points
        .map(|point| RestorePoint {
            time: Time(point.at),
            snapshot: point.id.clone(),
            bytes: Some(point.bytes),
            problems: Some(point.problems).filter(|problems| *problems > 0),
            suspicious: point.is_suspicious,
        })
        .collect()
}

fn overruled(volume: &Volume) -> Vec<PolicyReference> {
    let overruled = volume.decision.overruled.iter().take(MAX_OVERRULED);
    overruled.map(|other| (*other.policy).clone()).collect()
}

fn problems(volume: &Volume, known: &Known, away: &HashSet<String>) -> Vec<Problem> {
    let away = volume.node.as_ref().filter(|node| away.contains(*node));
    let away =
        away.map(|node| format!("the agent of node {node} is not connected; runs wait for it"));
    let away = away.iter().map(|said| ("NodeUnreachable", said));
    let unfinished = known.unfinished.iter();
    let unfinished = unfinished.map(|what| ("HookPostPending", what));
    let of_hooks = known.hooks.iter().map(|(reason, what)| (&reason[..], what));
    let of_objects = volume.decision.problems.iter();
    let of_objects = of_objects.map(|problem| (problem.reason, &problem.message));
    let said = unfinished.chain(of_hooks).chain(away).chain(of_objects);
    said.take(MAX_OVERRULED)
        .map(|(reason, message)| Problem {
            reason: reason.to_owned(),
            message: cut(message.clone()),
        })
        .collect()
}

type Judged = (ProtectionPhase, String, String, Option<PolicyReference>);

fn judge(volume: &Volume, known: &Known, busy: bool) -> Judged {
    match &volume.decision.outcome {
        Outcome::Unprotected {
            reason,
            message,
            policy,
        } => {
            let phase = match (reason, &volume.subject.state) {
                (Reason::UnsupportedVolume, _) | (_, State::Unsupported { .. }) => {
                    ProtectionPhase::Unsupported
                }
                _ => ProtectionPhase::Unprotected,
            };
            let policy = policy.as_ref().map(|policy| (**policy).clone());
            (phase, reason.to_string(), cut(message.clone()), policy)
        }
        Outcome::Protected(policy) => {
            let (phase, reason, message) = match (&known.failure, known.newest()) {
                (Some(failure), _) => (
                    ProtectionPhase::Failing,
                    failure.reason.clone(),
                    format!("{} (failed {} times)", failure.detail, failure.in_a_row),
                ),
                (None, Some(_)) => (
                    ProtectionPhase::Protected,
                    "SnapshotExists".to_owned(),
                    format!("protected by {policy}"),
                ),
                (None, None) if busy => (
                    ProtectionPhase::Pending,
                    "FirstBackupDue".to_owned(),
                    "its first backup waits or runs".to_owned(),
                ),
                (None, None) => (
                    ProtectionPhase::Pending,
                    "NoSnapshotYet".to_owned(),
                    "its first backup is not due yet".to_owned(),
                ),
            };
            let reason = if reason.is_empty() {
                "Failed".to_owned()
            } else {
                cut(reason)
            };
            (phase, reason, cut(message), Some((**policy).clone()))
        }
    }
}

fn condition(is_ready: bool, reason: &str, message: String, now: Timestamp) -> Condition {
    Condition {
        type_: "Ready".to_owned(),
        status: if is_ready { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        // `statuses` keeps the one before while the status is the same.
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

fn cut(mut text: String) -> String {
    let mut at = MAX_TEXT.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
    text
}

fn json(value: &impl serde::Serialize) -> Value {
    // Types of ours, whose keys are texts.
    serde_json::to_value(value).unwrap_or_default()
}
