//! Protects volumes as policies say: offers the runs that are due, starts them within the limits, follows them
//! to their end, and says how each volume is protected.
//!
//! What it remembers is lost with the process and found again: the last run of a volume is its newest snapshot,
//! so a run that was missed while nobody looked is caught up once, and one that was made is not made again.

mod entries;
mod learn;
mod mounting;
mod running;

pub use entries::{entry, protected_by};
pub use mounting::Mounting;

use self::entries::rule;
use super::events::Reason;
use super::picture::{Picture, PolicyFacts, Volume};
use super::point::moment;
use super::runs::{Look, Runs};
use super::statuses::{ToldFailures, Wanted};
use super::told::{Mistakes, object_of};
use super::words::{Known, said};
use crate::Coordinator;
use crate::error::Result;
use crate::kube::api::PolicyReference;
use crate::policy::due::{Due, History, Rhythm, Schedule};
use crate::policy::queue::{Limits, Queue};
use crate::schedule::Rules;
use holdfast_format::id::JobId;
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a Backup was made or changed.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// What is said of a run that was not started in time.
const MISSED: &str = "nobody was there to start it in time";

/// So long it is waited for what an earlier process said of failures; then the rest goes on without.
const PATIENCE: Duration = Duration::from_secs(60);

struct Guard {
    queue: Queue,
    jobs: HashMap<String, JobId>,
    known: HashMap<String, Known>,
    /// The newest end of a run that was taken in.
    heard_ns: i64,
    rules: Rules,
    mistakes: Mistakes,
    /// Jobs that were stopped, since they took too long.
    overdue: HashSet<JobId>,
    runs: Runs,
    /// Failures that an earlier process told.
    told: ToldFailures,
    /// Since when nodes are without their agents.
    away: learn::Away,
    /// `None`: not in a cluster.
    mounting: Option<Mounting>,
}

/// Begins, once there is a picture; until the coordinator stops.
pub fn start(
    coordinator: &Arc<Coordinator>,
    mut pictures: watch::Receiver<Option<Arc<Picture>>>,
    (wanted, told): (watch::Sender<Arc<Wanted>>, watch::Receiver<ToldFailures>),
    runs: Runs,
    mounting: Option<Mounting>,
) {
    let (clock, stopping) = (coordinator.clock().clone(), coordinator.stopping());
    let rules = coordinator.protect_continuously();
    let coordinator: Weak<Coordinator> = Arc::downgrade(coordinator);
    tokio::spawn(async move {
        let mut guard = Guard {
            queue: Queue::new(Limits::default()),
            jobs: HashMap::new(),
            known: HashMap::new(),
            heard_ns: 0,
            rules,
            mistakes: Mistakes::default(),
            overdue: HashSet::new(),
            runs,
            told: None,
            away: learn::Away::default(),
            mounting,
        };
        let began = clock.elapsed();
        loop {
            tokio::select! {
                () = clock.sleep(LOOK_EVERY) => {}
                changed = pictures.changed() => if changed.is_err() { return },
                // What belongs together mostly comes together.
                () = guard.runs.changed() => clock.sleep(DEBOUNCE).await,
                _ = stopping.requested() => return,
            }
            let picture = pictures.borrow_and_update().clone();
            let (Some(picture), Some(coordinator)) = (picture, coordinator.upgrade()) else {
                continue;
            };
            guard.runs.take_news();
            guard.told.clone_from(&told.borrow());
            let waited = clock.elapsed().saturating_sub(began);
            let is_told = guard.told.is_some() || waited > PATIENCE;
            if !is_told || !guard.runs.is_ready(waited) {
                continue;
            }
            match guard.look(&coordinator, &picture).await {
                Ok(said) => {
                    wanted.send_replace(Arc::new(said));
                }
                Err(error) => {
                    tracing::warn!(%error, "volumes could not be looked at; again in a moment")
                }
            }
        }
    });
}

impl Guard {
    async fn look(&mut self, coordinator: &Arc<Coordinator>, picture: &Picture) -> Result<Wanted> {
        let now = now(coordinator);
        self.follow(coordinator, picture, now);
        if let Some(events) = coordinator.events() {
            self.mistakes.tell(events, picture);
        }
        for volume in coordinator.take_touched() {
            if let Some(known) = self.known.get_mut(&volume) {
                known.is_fresh = false;
            }
        }
        let mut unfinished = match coordinator.brackets() {
            Some(brackets) => brackets.unfinished(),
            None => HashMap::new(),
        };
        let busy = coordinator.hub().backing_up();
        let exposed = learn::exposed(coordinator, now);
        self.runs.follow_objects(&mut Look {
            coordinator,
            picture,
            known: &self.known,
            queue: &mut self.queue,
            busy: &busy,
            now,
        });
        let mut rules = HashMap::new();
        let mut seen = HashSet::with_capacity(picture.volumes.len());
        for volume in &picture.volumes {
            let name = &volume.subject.id;
            seen.insert(name.clone());
            let is_new = !self.known.contains_key(name);
            self.renew(coordinator, volume)?;
            let known = self.known.entry(name.clone()).or_default();
            learn::learn(coordinator, known, volume).await?;
            if is_new {
                // What succeeded after them has ended them.
                let newest = known.newest().map(|point| point.at);
                let told = self.told.as_ref().and_then(|told| told.get(name));
                known.failure = told.filter(|told| newest < Some(told.at)).cloned();
            }
            if let Some(known) = self.known.get_mut(name) {
                known.expose(exposed.of(name, known));
                known.unfinished = unfinished.remove(name).unwrap_or_default();
            }
            // One that is a policy's is no other rule's, also where the policy's runs are not made now.
            if !volume.decision.outcome.is_left_to_rules() {
                rules.insert(name.clone(), None);
            }
            let Some((policy, reference)) = protected_by(picture, volume) else {
                if !self.runs.wants(name) {
                    self.queue.cancel(name);
                }
                if volume.subject.namespace.deleting
                    && let Some(job) = self.jobs.get(name)
                {
                    coordinator.hub().cancel(job)?;
                }
                continue;
            };
            match &policy.rhythm {
                // It is due when the restore is over.
                _ if self
                    .mounting
                    .as_ref()
                    .is_some_and(|it| it.is_restored(name)) => {}
                // One that runs, whoever asked for it, makes the snapshot that is due.
                Some(Rhythm::Schedule(_)) if busy.contains(name) => {}
                Some(Rhythm::Schedule(schedule)) => {
                    let is_missed = self.offer(volume, policy, reference, schedule, now);
                    if is_missed && let Some(object) = object_of(volume) {
                        coordinator.tell(&object, Reason::MissedStartingDeadline, MISSED);
                    }
                }
                Some(Rhythm::Exposure(bound, windows)) if windows.is_open(now) => {
                    if !volume.is_to_be_mounted() {
                        // What waited for a pod of ours is the bound's again.
                        if !self.runs.wants(name) {
                            self.queue.cancel(name);
                        }
                        rules.insert(name.clone(), Some(rule(bound)));
                    } else if !busy.contains(name) {
                        let known = self.known.entry(name.clone()).or_default();
                        let due = mounting::aged(volume, known, (policy, reference), bound, now);
                        due.map(|entry| self.queue.offer(entry));
                    }
                }
                Some(Rhythm::Exposure(..)) | None => {}
            }
        }
        self.rules.set_of_policies(rules);
        self.known.retain(|name, _| seen.contains(name));
        let next = self.known.iter();
        let next = next.filter_map(|(name, known)| Some((name.clone(), known.next?)));
        coordinator.set_next_runs(next.collect());
        let mut look = Look {
            coordinator,
            picture,
            known: &self.known,
            queue: &mut self.queue,
            busy: &busy,
            now,
        };
        self.runs.look(&mut look);
        for dropped in self.queue.drop_late(now) {
            let (name, why) = (dropped.entry.volume, dropped.why.as_str());
            tracing::warn!(
                volume = name,
                why,
                merged = dropped.merged,
                "the run was not started"
            );
            let note = "no room or no agent before its deadline";
            self.runs.refused(&name, why, note, false);
            self.failed(&name, now, why, note);
            tell(
                coordinator,
                picture,
                &name,
                Reason::MissedStartingDeadline,
                note,
            );
        }
        for run in self.queue.overdue(now) {
            let volume = &run.entry.volume;
            let Some(job) = self.jobs.get(volume) else {
                continue;
            };
            coordinator.hub().cancel(job)?;
            if self.overdue.insert(*job) {
                let note = "the run takes longer than its policy's deadline";
                tracing::warn!(volume, "{note}");
                tell(coordinator, picture, volume, Reason::DeadlineExceeded, note);
            }
        }
        let mounting = self.mounting.as_mut();
        let failed = mounting.map(|it| it.round(coordinator, picture, &self.queue, now));
        for (volume, why) in failed.unwrap_or_default() {
            let finished = self.queue.fail(&volume, now);
            let why = (&why.reason[..], &why.message[..]);
            self.refused(coordinator, picture, &volume, why, finished);
        }
        let mounting = self.mounting.as_ref();
        self.queue.relocate(|name| {
            // Beside a run that somebody else has begun, none starts.
            let volume = picture.volume(name).filter(|_| !busy.contains(name))?;
            match mounting {
                Some(mounting) => mounting.node_of(coordinator, volume),
                None => volume.node.clone(),
            }
        });
        self.start(coordinator, picture, now);
        let look = Look {
            coordinator,
            picture,
            known: &self.known,
            queue: &mut self.queue,
            busy: &busy,
            now,
        };
        self.runs.say(&look);
        let away = self.away.tell(coordinator, picture, now);
        let helpers = self.mounting.as_ref().map(Mounting::helpers);
        Ok(Wanted {
            helpers: helpers.unwrap_or_default(),
            ..said(picture, &self.known, &self.queue, &away, now)
        })
    }

    /// A claim that was made again under its name is another volume: what is known of the old one does not count,
    /// and a run of it is stopped.
    fn renew(&mut self, coordinator: &Coordinator, volume: &Volume) -> Result<()> {
        let name = &volume.subject.id;
        let uid = volume.subject.claim.as_ref().map(|claim| &claim.uid);
        let Some(known) = self.known.get_mut(name) else {
            return Ok(());
        };
        if known.uid.as_ref() == uid {
            return Ok(());
        }
        let is_new = known.uid.is_some();
        *known = Known {
            uid: uid.cloned(),
            ..Known::default()
        };
        if is_new && let Some(job) = self.jobs.get(name) {
            coordinator.hub().cancel(job)?;
        }
        Ok(())
    }

    /// Offers a run that is due; whether one was not started in time.
    fn offer(
        &mut self,
        volume: &Volume,
        policy: &PolicyFacts,
        reference: &PolicyReference,
        schedule: &Schedule,
        now: Timestamp,
    ) -> bool {
        let name = &volume.subject.id;
        let known = self.known.entry(name.clone()).or_default();
        let newest = known.newest().map(|point| point.at);
        let history = History {
            since: policy.created,
            last: newest.max(known.offered),
        };
        let share = schedule.share_of_jitter(&policy.uid, name);
        match schedule.due(&history, share, now) {
            Due::Now { scheduled, missed } => {
                known.offered = Some(scheduled);
                known.next = schedule.start_after(scheduled, share);
                if missed > 0 {
                    tracing::info!(
                        volume = name,
                        missed,
                        "runs were missed; one makes up for them"
                    );
                }
                let mut entry = entry(volume, Some(policy), &reference.to_string(), now);
                let starting = policy.spec.starting_deadline.as_deref();
                let starting = starting.and_then(|text| crate::policy::values::duration(text).ok());
                entry.start_by = starting
                    .and_then(|span| SignedDuration::try_from(span).ok())
                    .and_then(|span| now.checked_add(span).ok());
                self.queue.offer(entry);
                self.runs
                    .due((reference, policy), schedule, volume, scheduled, now);
            }
            Due::TooLate { scheduled, next } => {
                known.offered = Some(scheduled);
                known.next = next;
                self.failed(name, now, "MissedStartingDeadline", MISSED);
                return true;
            }
            Due::Waiting { opens, .. } => known.next = Some(opens),
            Due::Later { next } => known.next = next,
        }
        false
    }
}

/// Tells something of a volume.
fn tell(
    coordinator: &Coordinator,
    picture: &Picture,
    volume: &str,
    reason: Reason,
    note: impl Into<String>,
) {
    if let Some(object) = picture.volume(volume).and_then(object_of) {
        coordinator.tell(&object, reason, note);
    }
}

fn now(coordinator: &Coordinator) -> Timestamp {
    moment(coordinator.clock().now_ns())
}
