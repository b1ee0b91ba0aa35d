//! What is done for runs at each look: they begin, their volumes are offered to the queue, joined, stopped.

use super::facts::BackupFacts;
use super::plan::{Planned, plan, unreadable};
use super::run::{ADRIFT, Ended, GRACE, Origin, REPLACED, Run, Stop};
use super::writes::{Key, finalizers};
use super::{Runs, tell};
use crate::Coordinator;
use crate::kube::api::{DeletionPolicy, ResultPhase};
use crate::kube::events::Reason;
use crate::kube::guard::{entry, protected_by};
use crate::kube::picture::{Picture, PolicyFacts, Volume};
use crate::kube::words::Known;
use crate::policy::due::Rhythm;
use crate::policy::queue::Queue;
use holdfast_format::id::JobId;
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a person asks for goes before what is due by itself.
const PRIORITY: i32 = 10_000;
/// A job that was asked to stop is asked again after so long.
const STOP_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// A picture of the cluster is no older than this.
const JUDGED_AFTER: SignedDuration = SignedDuration::from_secs(3);

/// What a look goes by.
pub struct Look<'a> {
    /// The coordinator.
    pub coordinator: &'a Arc<Coordinator>,
    /// The cluster.
    pub picture: &'a Picture,
    /// What is remembered of volumes.
    pub known: &'a HashMap<String, Known>,
    /// The queue.
    pub queue: &'a mut Queue,
    /// The volumes that are read now, whoever asked for it.
    pub busy: &'a HashSet<String>,
    /// The time.
    pub now: Timestamp,
}

impl Runs {
    /// Begins what is new, offers, joins and stops.
    pub fn look(&mut self, look: &mut Look<'_>) {
        self.judge_late(look);
        self.begin(look);
        self.stop(look);
        self.place(look);
        self.index();
    }

    /// Judges ends that have waited long enough.
    fn judge_late(&mut self, look: &Look<'_>) {
        let is_due =
            |(_, at): &mut (Ended, Timestamp)| look.now.duration_since(*at) >= JUDGED_AFTER;
        let due: Vec<(Ended, Timestamp)> = self.late.extract_if(.., is_due).collect();
        for (mut ended, _) in due {
            if let Some(volume) = look.picture.volume(&ended.volume) {
                let claim = volume.subject.claim.as_ref();
                ended.uid = claim.map(|claim| claim.uid.clone());
            }
            self.judge(&ended);
        }
    }

    /// Takes over what the objects say.
    pub fn follow_objects(&mut self, look: &mut Look<'_>) {
        let mut gone: Vec<Key> = Vec::new();
        for (key, run) in &mut self.runs {
            let Some(facts) = self.objects.get(key) else {
                if !run.uid.is_empty() {
                    gone.push(key.clone());
                }
                continue;
            };
            let is_its_own = match &run.origin {
                Origin::Schedule { scheduled, .. } => facts.scheduled == Some(*scheduled),
                Origin::Person => true,
            };
            if run.uid.is_empty() && is_its_own {
                run.uid.clone_from(&facts.uid);
            }
            if run.uid != facts.uid {
                gone.push(key.clone());
                continue;
            }
            run.generation = facts.generation;
            if run.completed.is_none() && run.stop.is_none() {
                run.stop = match (facts.deleting, facts.spec.cancel) {
                    (true, _) => Some(Stop::Deleted),
                    (false, true) => Some(Stop::Asked),
                    (false, false) => None,
                };
            }
        }
        for key in gone {
            if let Some(run) = self.runs.get_mut(&key) {
                run.stop = Some(Stop::Deleted);
            }
            self.stop_one(&key, look);
            self.runs.remove(&key);
            self.sent.remove(&key);
        }
        // Said and written.
        let (objects, sent) = (&self.objects, &mut self.sent);
        self.runs.retain(|key, run| {
            let is_written = objects.get(key).is_some_and(BackupFacts::has_ended);
            let is_done = run.completed.is_some() && is_written;
            if is_done {
                sent.remove(key);
            }
            !is_done
        });
        for (key, facts) in &self.objects {
            if facts.has_ended() || self.runs.contains_key(key) {
                continue;
            }
            let origin = match facts.made_by() {
                Some((policy, scheduled)) => {
                    let rhythm = look.picture.policies.get(&policy);
                    let last = match rhythm.and_then(|policy| policy.rhythm.as_ref()) {
                        Some(Rhythm::Schedule(schedule)) => schedule.last_start(scheduled),
                        _ => None,
                    };
                    Origin::Schedule {
                        policy,
                        scheduled,
                        open_until: last.unwrap_or(scheduled),
                    }
                }
                None => Origin::Person,
            };
            let mut run = Run::new(facts, origin, look.now);
            run.stop = match (facts.deleting, facts.spec.cancel) {
                (true, _) => Some(Stop::Deleted),
                (false, true) => Some(Stop::Asked),
                (false, false) => None,
            };
            self.runs.insert(key.clone(), run);
        }
    }

    /// Chooses the volumes of what is new.
    fn begin(&mut self, look: &Look<'_>) {
        for (key, run) in &mut self.runs {
            if run.is_begun {
                continue;
            }
            let Some(facts) = self.objects.get(key) else {
                continue;
            };
            let is_new = facts.started.is_none();
            // What must hold it is there before there is anything to hold it for.
            if facts.spec.deletion_policy == DeletionPolicy::Delete
                && !facts.is_held()
                && !facts.deleting
            {
                let held = finalizers(&facts.finalizers, true);
                let version = facts.version.clone();
                self.writes
                    .put(key, |write| write.finalizers = Some((held, version)));
                continue;
            }
            let planned = match (run.stop, plan(&run.spec, &run.namespace, look.picture)) {
                // One that is stopped has what it had.
                (Some(_), _) => Planned::default(),
                (None, Ok(planned)) => planned,
                (None, Err(_)) if !is_new => Planned::default(),
                (None, Err(refusal)) => {
                    let is_early = look.now.duration_since(run.seen) < GRACE;
                    if !(refusal.may_come && is_early) {
                        run.refuse(refusal, look.now);
                    }
                    continue;
                }
            };
            let newest = |volume: &str| look.known.get(volume).and_then(Known::newest);
            run.begin(planned, &facts.results, newest, look.now);
            let note = format!("{} volumes", run.targets.len());
            if is_new && run.stop.is_none() {
                tell(look.coordinator.events(), run, Reason::BackupStarted, note);
            }
        }
    }

    /// Stops runs that are to be stopped.
    fn stop(&mut self, look: &mut Look<'_>) {
        for run in self.runs.values_mut() {
            if run.completed.is_none()
                && run.stop.is_none()
                && look.picture.deleting.contains(&run.namespace)
            {
                run.stop = Some(Stop::NamespaceDeleting);
            }
        }
        let stopped = self
            .runs
            .iter()
            .filter(|(_, run)| run.stop.is_some() && run.completed.is_none());
        let stopped: Vec<Key> = stopped.map(|(key, _)| key.clone()).collect();
        for key in stopped {
            self.stop_one(&key, look);
        }
    }

    fn stop_one(&mut self, key: &Key, look: &mut Look<'_>) {
        let Some(run) = self.runs.get(key) else {
            return;
        };
        let by_schedule = run.origin != Origin::Person;
        let (why, now) = (run.stop.unwrap_or(Stop::Deleted), look.now);
        let open = run.targets.iter().filter(|(_, target)| !target.has_ended());
        let open: Vec<(String, Option<JobId>, Option<Timestamp>)> = open
            .map(|(volume, target)| (volume.clone(), target.job, target.stopped))
            .collect();
        for (volume, job, stopped) in open {
            let others = self
                .wanted
                .get(&volume)
                .is_some_and(|keys| keys.iter().any(|other| other != key));
            // What a schedule wants beside this run goes on.
            let is_shared = others || (!by_schedule && self.due.contains(&volume));
            if !is_shared {
                self.due.remove(&volume);
            }
            let Some(target) = self
                .runs
                .get_mut(key)
                .and_then(|run| run.targets.get_mut(&volume))
            else {
                continue;
            };
            match job {
                Some(job) if !is_shared => {
                    let is_time = stopped.is_none_or(|at| now.duration_since(at) >= STOP_AGAIN);
                    if is_time {
                        target.stopped = Some(now);
                        // One that is not known any more has ended.
                        if look.coordinator.hub().cancel(&job).is_err() {
                            target.end(ResultPhase::Cancelled, why.reason(), "");
                        }
                    }
                }
                _ => {
                    if !is_shared && !look.queue.is_running(&volume) {
                        look.queue.cancel(&volume);
                    }
                    target.end(ResultPhase::Cancelled, why.reason(), "");
                }
            }
        }
    }

    /// Finds each volume that is wanted its place: in the queue, with a job that runs, or nowhere.
    fn place(&mut self, look: &mut Look<'_>) {
        let hub = look.coordinator.hub();
        let agents: HashSet<String> = hub.agents().into_iter().collect();
        let mut foreign: Option<HashMap<String, JobId>> = None;
        for run in self.runs.values_mut() {
            if run.stop.is_some() || run.completed.is_some() {
                continue;
            }
            let (files, is_person) = (run.spec.files.clone(), run.origin == Origin::Person);
            for (name, target) in &mut run.targets {
                if target.has_ended() {
                    continue;
                }
                let Some(volume) = look.picture.volume(name) else {
                    let detail = "the claim, or the pod that it lives with, was deleted";
                    let job = target.job;
                    target.end(ResultPhase::Failed, "VolumeDeleted", detail);
                    look.queue.cancel(name);
                    stop_job(look.coordinator, job);
                    continue;
                };
                let uid = volume.subject.claim.as_ref().map(|claim| &claim.uid);
                if uid != target.result.uid.as_ref() {
                    let job = target.job;
                    target.end(ResultPhase::Failed, "ClaimReplaced", REPLACED);
                    stop_job(look.coordinator, job);
                    continue;
                }
                if let Some(job) = target.job {
                    match hub.watch(&job).map(|job| job.borrow().clone()) {
                        Ok(info) => {
                            let report = info.last.unwrap_or_default();
                            target.result.files = i64::try_from(report.done_files).ok();
                            target.result.bytes = i64::try_from(report.done_bytes).ok();
                        }
                        // Forgotten among many: how it went is not known.
                        Err(_) => {
                            target.wait("Unknown", "what became of its job is not known");
                            target.is_offered = false;
                        }
                    }
                    continue;
                }
                if look.queue.is_running(name) {
                    match self.jobs.get(name) {
                        Some(job) if job.files == files => target.run(job.id),
                        _ => target.wait("Queued", "a run of the volume with other files is first"),
                    }
                    continue;
                }
                if look.busy.contains(name) {
                    let jobs = foreign.get_or_insert_with(|| backups(look.coordinator));
                    if files.is_none()
                        && let Some(job) = jobs.get(name)
                    {
                        target.run(*job);
                    }
                    continue;
                }
                if let Some((reason, detail)) = unreadable(volume) {
                    target.end(ResultPhase::Failed, &reason, &detail);
                    continue;
                }
                if volume.node.is_none() && !volume.is_to_be_mounted() {
                    let since = *target.adrift.get_or_insert(look.now);
                    let detail = "its pods are on no node yet";
                    match look.now.duration_since(since) > ADRIFT {
                        true => target.end(ResultPhase::Failed, "NoNode", detail),
                        false => target.wait("NoNode", detail),
                    }
                    continue;
                }
                target.adrift = None;
                let is_told = target.result.reason.as_deref().is_none_or(|told| {
                    ["Queued", "NodeUnreachable", "NoNode", "NotMounted"].contains(&told)
                });
                match &volume.node {
                    Some(node) if !agents.contains(node) => {
                        let detail = format!(
                            "the agent of node {node} is not connected; it is backed up when that is back"
                        );
                        target.wait("NodeUnreachable", &detail);
                    }
                    Some(_) if is_told => target.wait("Queued", "it waits for its turn"),
                    None if is_told => {
                        target.wait(
                            "NotMounted",
                            "it waits for a pod of Holdfast's that mounts it",
                        );
                    }
                    _ => {}
                }
                if !target.is_offered || !look.queue.is_waiting(name) {
                    let (policy, reference) = protecting(look.picture, volume);
                    let mut entry = entry(volume, policy, &reference, look.now);
                    if is_person {
                        entry.priority = entry.priority.saturating_add(PRIORITY);
                        entry.start_by = None;
                    }
                    look.queue.offer(entry);
                    target.is_offered = true;
                }
            }
        }
    }

    /// Which runs want which volumes.
    fn index(&mut self) {
        self.wanted.clear();
        for (key, run) in &self.runs {
            if run.completed.is_some() {
                continue;
            }
            for (volume, target) in &run.targets {
                if !target.has_ended() {
                    let keys = self.wanted.entry(volume.clone()).or_default();
                    keys.push(key.clone());
                }
            }
        }
    }
}

fn protecting<'p>(picture: &'p Picture, volume: &'p Volume) -> (Option<&'p PolicyFacts>, String) {
    match protected_by(picture, volume) {
        Some((policy, reference)) => (Some(policy), reference.to_string()),
        None => (None, String::new()),
    }
}

fn stop_job(coordinator: &Coordinator, job: Option<JobId>) {
    if let Some(job) = job {
        // One that is not known any more has ended.
        let _ = coordinator.hub().cancel(&job);
    }
}

/// The backups that run, by volume.
fn backups(coordinator: &Coordinator) -> HashMap<String, JobId> {
    let jobs = coordinator.hub().jobs().into_iter();
    let running = jobs.filter(|info| info.ended_ns == 0 && info.what == "backup");
    running
        .filter_map(|info| {
            let id = <[u8; 16]>::try_from(&info.id[..]).ok()?;
            Some((info.volume, JobId::from_bytes(id)))
        })
        .collect()
}
