//! How Backups are told of, and how they end: their status, their time, what goes with them.

use super::deletion::{self, Deletion};
use super::facts::BackupFacts;
use super::history::to_remove;
use super::run::Run;
use super::said::status;
use super::steps::Look;
use super::writes::finalizers;
use super::{Runs, Sent, tell};
use crate::kube::api::{API_VERSION, BackupPhase, BackupStatus};
use crate::kube::events::{self, Reason};
use jiff::{SignedDuration, Timestamp};

/// Progress is told so often.
const PROGRESS_EVERY: SignedDuration = SignedDuration::from_secs(10);
/// An end that the API does not show is told again after so long.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// A run whose object could not be made is forgotten so long after its end.
const UNMADE_FOR: SignedDuration = SignedDuration::from_mins(10);
/// It is looked for Backups whose time is over so often.
const REMOVE_EVERY: SignedDuration = SignedDuration::from_secs(10);

impl Runs {
    /// Says how runs are, ends those that are over, removes what is more than is kept.
    pub fn say(&mut self, look: &Look<'_>) {
        let now = look.now;
        for (key, run) in &mut self.runs {
            if run.is_over(now) && run.completed.is_none() {
                run.completed = Some(now);
            }
            let said = status(run, now);
            run.has_run |= said.phase == Some(BackupPhase::Running);
            if run.completed.is_some() && !run.is_end_told && !run.uid.is_empty() {
                run.is_end_told = true;
                let (reason, note) = end(run, &said);
                tell(look.coordinator.events(), run, reason, note);
            }
            let Some(said) = news(self.sent.get(key), said, now) else {
                continue;
            };
            // Types of ours, whose keys are texts.
            let value = serde_json::to_value(&said).unwrap_or_default();
            self.writes.put(key, |write| write.status = Some(value));
            let sent = Sent {
                status: said,
                at: now,
            };
            self.sent.insert(key.clone(), sent);
        }
        self.runs.retain(|_, run| {
            let ended = run.completed.filter(|_| run.uid.is_empty());
            ended.is_none_or(|ended| now.duration_since(ended) < UNMADE_FOR)
        });
        let (runs, objects) = (&self.runs, &self.objects);
        self.sent.retain(|key, _| runs.contains_key(key));
        self.told
            .retain(|uid| objects.values().any(|facts| facts.uid == *uid));
        self.made
            .retain(|(policy, _), _| look.picture.policies.contains_key(policy));
        self.due
            .retain(|volume| look.picture.volume(volume).is_some());
        self.delete(look);
        let is_time = self
            .looked
            .is_none_or(|looked| now.duration_since(looked) >= REMOVE_EVERY);
        if is_time {
            self.looked = Some(now);
            self.remove(look);
        }
    }

    /// Removes what has ended and is more than is kept.
    fn remove(&self, look: &Look<'_>) {
        let policies = &look.picture.policies;
        let removed = to_remove(
            self.objects.values(),
            |reference| policies.get(reference).map(|policy| &policy.spec),
            look.now,
        );
        for facts in removed {
            let key = (facts.namespace.clone(), facts.name.clone());
            let uid = facts.uid.clone();
            self.writes.put(&key, |write| write.delete = Some(uid));
        }
    }

    /// Goes on with Backups that are deleted and take their snapshots with them.
    fn delete(&mut self, look: &Look<'_>) {
        let deleted = self
            .objects
            .iter()
            .filter(|(_, facts)| facts.deleting && facts.is_held());
        for (key, facts) in deleted {
            let run = self.runs.get(key);
            if run.is_some_and(|run| run.completed.is_none()) {
                continue;
            }
            let snapshots = snapshots(run, facts);
            let is_ending = look.picture.deleting.contains(&facts.namespace);
            let state = self
                .deletions
                .go_on(look.coordinator, &facts.uid, &snapshots, is_ending);
            let is_news = !self.told.contains(&facts.uid);
            let about = events::object(
                API_VERSION,
                "Backup",
                Some(&facts.namespace),
                &facts.name,
                &facts.uid,
            );
            let is_over = match &state {
                Deletion::Runs => false,
                Deletion::Waits { why } => {
                    if is_news {
                        look.coordinator
                            .tell(&about, Reason::RepositoryUnreachable, why.clone());
                    }
                    // A namespace goes, whatever the repository says; the snapshots stay.
                    is_ending
                }
                Deletion::Done { kept } => {
                    if !kept.is_empty() && is_news {
                        look.coordinator
                            .tell(&about, Reason::SnapshotsKept, kept.join("; "));
                    }
                    kept.is_empty() || !is_news
                }
            };
            let is_said = matches!(&state, Deletion::Runs)
                || matches!(&state, Deletion::Done { kept } if kept.is_empty());
            if !is_said && is_news {
                let condition = deletion::condition(&state, look.now);
                self.writes
                    .put(key, |write| write.deletion = Some(condition));
            }
            match &state {
                // The next try is news again.
                Deletion::Runs => self.told.remove(&facts.uid),
                _ => self.told.insert(facts.uid.clone()),
            };
            if is_over {
                let held = finalizers(&facts.finalizers, false);
                let version = facts.version.clone();
                self.writes
                    .put(key, |write| write.finalizers = Some((held, version)));
            }
        }
        let objects = &self.objects;
        self.deletions
            .keep(|uid| objects.values().any(|facts| facts.uid == uid));
    }
}

/// The newest first.
fn snapshots(run: Option<&Run>, facts: &BackupFacts) -> Vec<String> {
    match run {
        Some(run) => run
            .targets
            .values()
            .filter_map(|target| target.result.snapshot.clone())
            .collect(),
        None => facts.snapshots.clone(),
    }
}

/// What is to be written, if anything is.
fn news(sent: Option<&Sent>, mut said: BackupStatus, now: Timestamp) -> Option<BackupStatus> {
    let Some(sent) = sent else {
        return Some(said);
    };
    // A condition whose status is the same has not changed since.
    for condition in &mut said.conditions {
        let mut old = sent.status.conditions.iter();
        let same = old.find(|old| old.type_ == condition.type_ && old.status == condition.status);
        if let Some(same) = same {
            condition.last_transition_time = same.last_transition_time.clone();
        }
    }
    let since = now.duration_since(sent.at);
    let is_final = said.phase.is_some_and(BackupPhase::is_final);
    if said == sent.status {
        return (is_final && since >= AGAIN).then_some(said);
    }
    let is_urgent = is_final || said.phase != sent.status.phase;
    (is_urgent || since >= PROGRESS_EVERY).then_some(said)
}

fn end(run: &Run, said: &BackupStatus) -> (Reason, String) {
    let counts = said.volumes.unwrap_or_default();
    let message = said.message.clone().unwrap_or_default();
    let note = format!("{} of {} volumes", counts.done, counts.total);
    let note = match message.is_empty() {
        true => note,
        false => format!("{note}; {message}"),
    };
    let reason = match run.phase() {
        BackupPhase::Completed => Reason::BackupCompleted,
        BackupPhase::PartiallyFailed => Reason::BackupPartial,
        BackupPhase::Cancelled => Reason::BackupCancelled,
        _ => Reason::BackupFailed,
    };
    (reason, note)
}
