//! Backups: one object for each run that a person asks for or that a schedule makes. Their status is the memory:
//! a coordinator that was started again goes on with what it finds there.
//!
//! A run wants volumes; `guard`'s queue decides when each is read, and one job serves every run that wants the
//! same of its volume. Runs that keep a bound of exposure are many, and have no objects.
//!
//! `guard` calls, in this order: `take_news`, `ended`, `follow_objects`, `due`, `look`, `refused`, `started`, `say`.

pub mod deletion;
pub mod facts;
mod history;
mod life;
mod plan;
mod run;
mod said;
mod steps;
#[cfg(test)]
mod tests;
mod writes;

pub use run::Ended;
pub use steps::Look;
pub use writes::Writes;

use self::deletion::Deletions;
use self::facts::{BackupFacts, POLICY, SCHEDULED_AT};
use self::plan::Chosen;
use self::run::{Origin, Run};
use self::writes::Key;
use super::events::{self, Events, Reason};
use super::picture::{PolicyFacts, Volume};
use super::world::Change;
use crate::kube::api::{
    API_VERSION, Backup, BackupSpec, BackupStatus, FilesSpec, PolicyKind, PolicyReference,
    ResultPhase, RunPolicy,
};
use crate::policy::due::Schedule;
use holdfast_format::id::JobId;
use holdfast_proto::v1::JobState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// Without the definition of their kind no Backups are ever listed; policies do not wait longer for them.
const LISTED_WITHIN: Duration = Duration::from_secs(10);
/// Longest name of a policy within a Backup's, so that the name is not too long.
const MAX_POLICY: usize = 230;
/// Longest value of a label.
const MAX_LABEL: usize = 63;

/// All Backups.
pub struct Runs {
    news: Receiver<Change<BackupFacts>>,
    objects: BTreeMap<Key, BackupFacts>,
    is_listed: bool,
    /// Whether there are any: without a cluster there are not.
    has_objects: bool,
    /// Those that have not ended, or whose end is not written yet.
    runs: BTreeMap<Key, Run>,
    /// Of each policy and namespace, the newest time of the schedule that a Backup was made for.
    made: HashMap<(PolicyReference, String), Timestamp>,
    /// Volumes that a schedule wants, with a Backup or without.
    due: HashSet<String>,
    /// What reads a volume, and which files.
    jobs: HashMap<String, Job>,
    /// The runs that want a volume.
    wanted: HashMap<String, Vec<Key>>,
    writes: Writes,
    deletions: Deletions,
    sent: HashMap<Key, Sent>,
    /// Ends without a snapshot that are not judged yet.
    late: Vec<(Ended, Timestamp)>,
    /// Deletions whose outcome was told, by uid.
    told: HashSet<String>,
    looked: Option<Timestamp>,
}

struct Job {
    id: JobId,
    /// As a Backup says; `None`: as the policy does.
    files: Option<FilesSpec>,
}

struct Sent {
    status: BackupStatus,
    at: Timestamp,
}

impl Runs {
    /// None yet.
    pub fn new(news: Receiver<Change<BackupFacts>>, writes: Writes) -> Self {
        Self {
            news,
            objects: BTreeMap::new(),
            is_listed: false,
            has_objects: true,
            runs: BTreeMap::new(),
            made: HashMap::new(),
            due: HashSet::new(),
            jobs: HashMap::new(),
            wanted: HashMap::new(),
            writes,
            deletions: Deletions::default(),
            sent: HashMap::new(),
            late: Vec::new(),
            told: HashSet::new(),
            looked: None,
        }
    }

    /// There never are any, as without a cluster: runs are made, and no objects stand for them.
    pub fn without_objects() -> Self {
        let (_, news) = tokio::sync::mpsc::channel(1);
        Self {
            has_objects: false,
            ..Self::new(news, Writes::new())
        }
    }

    /// Ends when somebody made, changed or deleted a Backup. Can be dropped.
    pub async fn changed(&mut self) {
        loop {
            match self.news.recv().await {
                Some(change) => {
                    if self.take(change) {
                        return;
                    }
                }
                // The coordinator stops.
                None => std::future::pending().await,
            }
        }
    }

    /// Takes in what has happened to Backups.
    pub fn take_news(&mut self) {
        while let Ok(change) = self.news.try_recv() {
            self.take(change);
        }
    }

    /// Whether Backups are known, or never will be.
    pub fn is_ready(&self, waited: Duration) -> bool {
        self.is_listed || !self.has_objects || waited >= LISTED_WITHIN
    }

    /// Whether a run wants this volume.
    pub fn wants(&self, volume: &str) -> bool {
        self.wanted.contains_key(volume)
    }

    /// Whether somebody still waits for a run of this volume: a schedule, or a Backup that has no end of it yet.
    pub fn waits_for(&self, volume: &str) -> bool {
        let is_open = |run: &Run| {
            let target = run.targets.get(volume);
            target.is_some_and(|target| !target.has_ended())
        };
        self.due.contains(volume) || self.runs.values().any(is_open)
    }

    /// Whether it is worth a look at once.
    fn take(&mut self, change: Change<BackupFacts>) -> bool {
        match change {
            Change::All(objects) => {
                self.objects = objects.into_iter().collect();
                self.is_listed = true;
                true
            }
            Change::Put(key, facts) => {
                let matters = match self.objects.get(&key) {
                    Some(known) => {
                        known.generation != facts.generation
                            || known.deleting != facts.deleting
                            || known.is_held() != facts.is_held()
                    }
                    // One that was made here is known.
                    None => !self.runs.contains_key(&key),
                };
                self.objects.insert(key, facts);
                matters
            }
            Change::Gone(key) => self.objects.remove(&key).is_some(),
        }
    }

    /// A volume is due by its policy's schedule: it becomes part of that time's Backup.
    pub fn due(
        &mut self,
        (reference, policy): (&PolicyReference, &PolicyFacts),
        schedule: &Schedule,
        volume: &Volume,
        scheduled: Timestamp,
        now: Timestamp,
    ) {
        let subject = &volume.subject;
        self.due.insert(subject.id.clone());
        if !self.is_listed {
            return;
        }
        let namespace = &subject.namespace.name;
        let Some(key) = self.key_of(reference, namespace, scheduled) else {
            return;
        };
        let made = (reference.clone(), namespace.clone());
        if !self.runs.contains_key(&key) {
            if self.made.get(&made).is_some_and(|made| *made >= scheduled) {
                // It was deleted meanwhile.
                return;
            }
            self.supersede(reference, namespace, &key.1);
            let origin = Origin::Schedule {
                policy: reference.clone(),
                scheduled,
                open_until: schedule.last_start(scheduled).unwrap_or(scheduled),
            };
            let backup = object(reference, &policy.uid, &key, scheduled);
            let run = Run::scheduled(&key, backup.spec.clone(), origin, now);
            self.writes
                .put(&key, |write| write.create = Some(Box::new(backup)));
            self.runs.insert(key.clone(), run);
            self.made.insert(made, scheduled);
        }
        if let Some(run) = self.runs.get_mut(&key) {
            let chosen = Chosen {
                volume: subject.id.clone(),
                uid: subject.claim.as_ref().map(|claim| claim.uid.clone()),
            };
            run.want(&chosen);
        }
    }

    /// The Backup of a policy, namespace and time: one that runs, or one to make. `None`: it has ended.
    fn key_of(
        &self,
        reference: &PolicyReference,
        namespace: &str,
        scheduled: Timestamp,
    ) -> Option<Key> {
        let is_its_own = |run: &Run| matches!(&run.origin, Origin::Schedule { policy, .. } if policy == reference);
        // A policy of the cluster may have the name of one of the namespace.
        for suffix in ["", "-c"] {
            let name = format!("{}{suffix}", name(&reference.name, scheduled));
            let key = (namespace.to_owned(), name);
            match (self.runs.get(&key), self.objects.get(&key)) {
                (Some(run), _) if is_its_own(run) && run.completed.is_none() => return Some(key),
                (Some(run), _) if is_its_own(run) => return None,
                (None, None) => return Some(key),
                (None, Some(known)) => {
                    let made_by = known.made_by();
                    if made_by.is_some_and(|(by, _)| by == *reference) {
                        return None;
                    }
                }
                (Some(_), _) => {}
            }
        }
        None
    }

    /// What still waits for an earlier run of the schedule is done by the later one.
    fn supersede(&mut self, reference: &PolicyReference, namespace: &str, by: &str) {
        for run in self.runs.values_mut() {
            let is_earlier = run.namespace == namespace
                && matches!(&run.origin, Origin::Schedule { policy, .. } if policy == reference);
            if !is_earlier {
                continue;
            }
            if let Origin::Schedule { open_until, .. } = &mut run.origin {
                *open_until = Timestamp::MIN;
            }
            for target in run.targets.values_mut() {
                if target.result.phase == ResultPhase::Pending {
                    let waited = target.result.reason.clone().unwrap_or_default();
                    let detail = format!("it waited ({waited}) until {by} was due");
                    target.end(ResultPhase::Failed, "Superseded", &detail);
                }
            }
        }
    }

    /// The files that a job of the volume is to read; `None`: those that the policy says.
    pub fn files(&self, volume: &str) -> Option<FilesSpec> {
        if self.due.contains(volume) {
            return None;
        }
        let keys = self.wanted.get(volume)?;
        let mut runs: Vec<&Run> = keys.iter().filter_map(|key| self.runs.get(key)).collect();
        runs.sort_by_key(|run| (run.seen, &run.name));
        let waits = |run: &&&Run| run.waits(volume);
        runs.iter().find(waits)?.spec.files.clone()
    }

    /// A job reads a volume now, these files.
    pub fn started(&mut self, volume: &str, job: JobId, files: Option<FilesSpec>) {
        for run in self.runs.values_mut() {
            let is_same = run.spec.files == files;
            if let Some(target) = run.targets.get_mut(volume)
                && target.result.phase == ResultPhase::Pending
            {
                match is_same && run.stop.is_none() {
                    true => target.run(job),
                    false => target.is_offered = false,
                }
            }
        }
        let job = Job { id: job, files };
        self.jobs.insert(volume.to_owned(), job);
    }

    /// A job has ended. One that failed is judged when it is known what has become of its claim meanwhile: an agent
    /// lets go of a volume before the cluster is looked at again.
    pub fn ended(&mut self, ended: Ended, now: Timestamp) {
        let job = self.jobs.get(&ended.volume);
        if let Some(job) = job.filter(|job| job.id == ended.job) {
            if !ended.is_retried && job.files.is_none() {
                self.due.remove(&ended.volume);
            }
            self.jobs.remove(&ended.volume);
        }
        match ended.report.state() {
            JobState::Done => self.judge(&ended),
            _ => self.late.push((ended, now)),
        }
    }

    fn judge(&mut self, ended: &Ended) {
        for run in self.runs.values_mut() {
            run.ended(ended);
        }
    }

    /// A run of a volume could not be started, and is tried again or not.
    pub fn refused(&mut self, volume: &str, reason: &str, detail: &str, is_retried: bool) {
        for run in self.runs.values_mut() {
            run.refused(volume, reason, detail, is_retried);
        }
        if !is_retried {
            self.due.remove(volume);
        }
    }
}

/// A Backup, as events name it.
fn reference(run: &Run) -> ObjectReference {
    events::object(
        API_VERSION,
        "Backup",
        Some(&run.namespace),
        &run.name,
        &run.uid,
    )
}

fn tell(events: Option<&Events>, run: &Run, reason: Reason, note: String) {
    if let Some(events) = events
        && !run.uid.is_empty()
    {
        events.tell(&reference(run), reason, note);
    }
}

/// `<policy>-<YYYYMMDDhhmmss>`.
fn name(policy: &str, scheduled: Timestamp) -> String {
    let policy = &policy[..policy.floor_char_boundary(MAX_POLICY)];
    let time = scheduled.strftime("%Y%m%d%H%M%S");
    format!("{policy}-{time}")
}

/// What a label can hold of a name; the end of a long one says which it is.
fn label(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let kept = &name[..name.floor_char_boundary(MAX_LABEL - 9)];
    format!("{kept}-{:08x}", sum >> 32)
}

/// The Backup that a schedule makes.
fn object(reference: &PolicyReference, uid: &str, key: &Key, scheduled: Timestamp) -> Backup {
    let policy = RunPolicy {
        kind: reference.kind,
        name: reference.name.clone(),
    };
    let spec = BackupSpec {
        policy: Some(policy),
        ..BackupSpec::default()
    };
    // It goes with its policy. Snapshots are no objects, and stay.
    let owner = (reference.kind == PolicyKind::BackupPolicy).then(|| OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: reference.kind.to_string(),
        name: reference.name.clone(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    });
    let mut backup = Backup::new(&key.1, spec);
    let labels = [
        (POLICY, label(&reference.name)),
        ("app.kubernetes.io/managed-by", "holdfast".to_owned()),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value));
    let annotations = [(SCHEDULED_AT.to_owned(), scheduled.to_string())];
    backup.metadata = ObjectMeta {
        namespace: Some(key.0.clone()),
        labels: Some(labels.into_iter().collect()),
        annotations: Some(annotations.into_iter().collect()),
        owner_references: owner.map(|owner| vec![owner]),
        ..backup.metadata
    };
    backup
}
