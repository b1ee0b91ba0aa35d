//! Continuous protection at work: looks at every served volume that a rule names, and starts the backups that
//! `continuous` decides on. Its memory is one row per served volume; what is lost with the process is found
//! again in the catalog.

use crate::Coordinator;
use crate::error::Result;
use crate::schedule::continuous::{ContinuousRule, Decision, Seen, Watched, Why, decide};
use crate::schedule::hub::{Served, What};
use crate::schedule::rules::Rules;
use crate::schedule::states::TRUSTED;
use holdfast_format::id::JobId;
use holdfast_proto::v1::JobState;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often all volumes are looked at. Agents tell of changes every few seconds.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A moment on the coordinator's `elapsed`, in nanoseconds; may lie before it began.
type Moment = i64;

/// The rules, and what is remembered of each volume.
pub struct Trigger {
    rules: Rules,
    known: HashMap<String, Known>,
}

#[derive(Default)]
struct Known {
    /// The run that was started here and has not ended.
    job: Option<JobId>,
    started: Option<Moment>,
    ended: Option<Moment>,
    covered: Option<Moment>,
    failures: u32,
}

/// Starts looking, until the coordinator stops.
pub fn start(coordinator: &Arc<Coordinator>, rules: Rules) {
    let (clock, stopping) = (coordinator.clock().clone(), coordinator.stopping());
    let coordinator: Weak<Coordinator> = Arc::downgrade(coordinator);
    tokio::spawn(async move {
        let mut trigger = Trigger::new(rules);
        loop {
            tokio::select! {
                () = clock.sleep(LOOK_EVERY) => {}
                _ = stopping.requested() => return,
            }
            let Some(coordinator) = coordinator.upgrade() else {
                return;
            };
            if let Err(error) = trigger.look(&coordinator).await {
                tracing::warn!(%error, "volumes could not be looked at; again in a moment");
            }
        }
    });
}

impl Trigger {
    /// No volume is known yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            known: HashMap::new(),
        }
    }

    /// Looks at every volume once, and starts what is due.
    pub async fn look(&mut self, coordinator: &Coordinator) -> Result<()> {
        let now = coordinator.clock().elapsed();
        let mut served: HashMap<String, Served> = HashMap::new();
        for one in coordinator.hub().served(now) {
            // The first that serves it is the one that a backup is asked of.
            served.entry(one.facts.name.clone()).or_insert(one);
        }
        self.known.retain(|name, _| served.contains_key(name));
        for (name, served) in &served {
            let Some(rule) = &self.rules.of(name) else {
                continue;
            };
            let known = match self.known.get_mut(name) {
                Some(known) => known,
                None => {
                    let covered = newest(coordinator, name).await?;
                    let known = self.known.entry(name.clone()).or_default();
                    known.covered = covered;
                    known
                }
            };
            known.follow(coordinator);
            if !matches!(known.decide(rule, served, coordinator), Decision::Start(_)) {
                continue;
            }
            // Somebody else may have backed it up.
            known.covered = known.covered.max(newest(coordinator, name).await?);
            if let Decision::Start(why) = known.decide(rule, served, coordinator) {
                known.begin(coordinator, name, why);
            }
        }
        Ok(())
    }
}

impl Known {
    /// Looks how the run goes that was started here.
    fn follow(&mut self, coordinator: &Coordinator) {
        let Some(job) = self.job else { return };
        let info = coordinator
            .hub()
            .watch(&job)
            .map(|job| job.borrow().clone());
        let (ended_ns, state) = match info {
            Ok(info) if info.ended_ns == 0 => return,
            Ok(info) => (info.ended_ns, info.last.unwrap_or_default().state()),
            // Forgotten among many: how it went is not known.
            Err(_) => (coordinator.clock().now_ns(), JobState::Failed),
        };
        let ago = coordinator.clock().now_ns().saturating_sub(ended_ns).max(0);
        self.ended = Some(moment(coordinator).saturating_sub(ago));
        self.job = None;
        if state == JobState::Done {
            self.covered = self.covered.max(self.started);
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn decide(
        &self,
        rule: &ContinuousRule,
        served: &Served,
        coordinator: &Coordinator,
    ) -> Decision {
        let now = moment(coordinator);
        let ago = |at: Option<Moment>| at.map(|at| span(now.saturating_sub(at)));
        let trusted = served.state.as_ref().filter(|(s, _)| s.journal == TRUSTED);
        let watched = trusted.map(|(state, arrived)| {
            // Bytes that were told before a run ended may be those that it has stored.
            let is_newer = self.ended.is_none_or(|ended| nanos(*arrived) > ended);
            Watched {
                exposed: (state.exposed_ns > 0).then(|| Duration::from_nanos(state.exposed_ns)),
                bytes: if is_newer { state.exposed_bytes } else { 0 },
                quiet: Duration::from_nanos(state.quiet_ns),
            }
        });
        let seen = Seen {
            watched,
            running: self.job.is_some() || coordinator.hub().is_backing_up(&served.facts.name),
            covered: ago(self.covered),
            started: ago(self.started),
            ended: ago(self.ended),
            failures: self.failures,
        };
        decide(rule, &seen)
    }

    fn begin(&mut self, coordinator: &Coordinator, name: &str, why: Why) {
        let now = moment(coordinator);
        self.started = Some(now);
        let order = coordinator.order_of(name);
        let started = crate::repo::kek::random()
            .map_err(Into::into)
            .and_then(|id| {
                let id = JobId::from_bytes(id);
                let now_ns = coordinator.clock().now_ns();
                let what = What::Backup(order);
                coordinator.hub().start(id, what, None, now_ns).map(|_| id)
            });
        match started {
            Ok(id) => {
                tracing::info!(volume = name, job = %id, %why, "backup started");
                self.job = Some(id);
            }
            Err(error) => {
                tracing::warn!(volume = name, %error, %why, "backup could not be started");
                self.failures = self.failures.saturating_add(1);
                self.ended = Some(now);
            }
        }
    }
}

/// When the volume's newest snapshot was made; `None`: it has none.
async fn newest(coordinator: &Coordinator, name: &str) -> Result<Option<Moment>> {
    let catalog = &coordinator.library().catalog;
    // A name that no volume can have has no snapshot.
    let Ok(name) = name.parse() else {
        return Ok(None);
    };
    let Some(volume) = catalog.volume_by_name(&name).await? else {
        return Ok(None);
    };
    let row = catalog.latest(volume.no).await?;
    let now_ns = coordinator.clock().now_ns();
    Ok(row.map(|row| {
        let ago = now_ns.saturating_sub(row.received_ns).max(0);
        moment(coordinator).saturating_sub(ago)
    }))
}

fn moment(coordinator: &Coordinator) -> Moment {
    nanos(coordinator.clock().elapsed())
}

fn nanos(span: Duration) -> Moment {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn span(nanos: Moment) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
