//! Post-hooks: tried once at the end of a run, then again and again, also those of a process before.

use super::act::Outcome;
use super::bracket::{Begun, GOODBYE};
use super::locks::Guards;
use super::record::Unfinished;
use super::script::By;
use super::{Brackets, Failure, problem};
use crate::kube::events::{self, Reason};
use crate::schedule::HookEnd;
use holdfast_proto::v1::Problem;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Between attempts; the last again and again.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
/// A post-hook that was run so often and failed each time is given up: the volume is to be backed up again.
const FAILURES: u32 = 6;
/// One that an API that answers has refused for so long too.
const REFUSED: Duration = Duration::from_secs(3600);

/// Why it was not run yet.
struct Tried {
    failures: u32,
    refused_since: Option<Duration>,
}

impl Brackets {
    /// Tries a post-hook once. What was not run is given back, with the reason.
    pub(super) async fn once(
        &self,
        mut one: Begun,
        problems: &mut Vec<Problem>,
    ) -> Option<(Begun, Failure)> {
        let outcome = self.actor.unfreeze(&one.record).await;
        let record = &one.record;
        match outcome {
            Outcome::Ran(by) => {
                if by == By::Watchdog {
                    let detail = format!(
                        "{} had been run by the watchdog in the container",
                        name(record)
                    );
                    problems.push(problem("HookWatchdogFired", detail));
                    self.count(HookEnd::PostByWatchdog);
                } else {
                    self.count(HookEnd::PostDone);
                }
                self.forget(one.no, &record.volume).await;
                part(&mut one);
                None
            }
            Outcome::Gone => {
                let detail = format!("{} was not run: the pod is gone", name(record));
                problems.push(problem("HookPodGone", detail));
                self.count(HookEnd::PostPodGone);
                self.forget(one.no, &record.volume).await;
                None
            }
            Outcome::Failed(why) => {
                let failure = Failure::new("HookPostFailed", format!("{}: {why}", name(record)));
                self.count(HookEnd::PostFailed);
                self.wait_for(&one, &failure);
                Some((one, failure))
            }
            Outcome::Unable(ref why) | Outcome::Away(ref why) => {
                let detail = format!("{} could not be run yet: {why}", name(record));
                let mut failure = Failure::new("HookPostPending", detail);
                failure.is_away = matches!(outcome, Outcome::Away(_));
                self.wait_for(&one, &failure);
                Some((one, failure))
            }
        }
    }

    /// Tries post-hooks until each was run, its pod is gone, or it is given up. Runs of their volumes and pods wait
    /// as long as `guards` are held, which is as long as this lasts.
    pub(super) async fn finish(self: Arc<Self>, late: Vec<Begun>, guards: Guards) {
        let this = &self;
        let each = by_pod(late).into_iter().map(|all| async move {
            for one in all {
                this.finish_one(one).await;
            }
        });
        futures::future::join_all(each).await;
        drop(guards);
    }

    async fn finish_one(&self, mut one: Begun) {
        let Some(clock) = self.coordinator.upgrade().map(|it| it.clock().clone()) else {
            return;
        };
        let mut tried = Tried {
            failures: 0,
            refused_since: None,
        };
        for pause in PAUSES
            .iter()
            .chain(std::iter::repeat(&PAUSES[PAUSES.len() - 1]))
        {
            let mut problems = Vec::new();
            let (volume, said) = (one.record.volume.clone(), name(&one.record));
            let (again, failure) = match self.once(one, &mut problems).await {
                None => {
                    if problems.is_empty() {
                        problems.push(problem("HookPostDone", format!("{said} was run")));
                    }
                    for one in &problems {
                        tracing::info!(volume, reason = one.reason, detail = one.detail, "hooks");
                    }
                    self.tell(&volume, None, &problems);
                    return;
                }
                Some(again) => again,
            };
            one = again;
            tracing::warn!(
                volume = one.record.volume,
                reason = failure.reason,
                detail = failure.detail,
                "a post-hook is tried again"
            );
            if tried.is_enough(&failure, clock.elapsed()) {
                tracing::error!(volume, detail = failure.detail, "a post-hook is given up");
                self.count(HookEnd::PostGivenUp);
                let failure = Failure::new("HookGivenUp", failure.detail);
                self.tell(&volume, Some(&failure), &[]);
                self.forget(one.no, &volume).await;
                return;
            }
            tokio::select! {
                () = clock.sleep(*pause) => {}
                // It is in the catalog.
                _ = self.stopping.requested() => return,
            }
        }
    }

    /// Takes over what a process before has left: post-hooks run first. After this runs may begin.
    pub(super) async fn recover(self: Arc<Self>) {
        let left = loop {
            let Some(coordinator) = self.coordinator.upgrade() else {
                return;
            };
            match coordinator.library().catalog.hooks().await {
                Ok(left) => break left,
                Err(error) => {
                    tracing::warn!(%error, "unfinished hooks cannot be read; again in a moment");
                }
            }
            let clock = coordinator.clock().clone();
            drop(coordinator);
            tokio::select! {
                () = clock.sleep(PAUSES[0]) => {}
                _ = self.stopping.requested() => return,
            }
        };
        let mut by_volume: HashMap<String, Vec<Begun>> = HashMap::new();
        for (no, body) in left {
            match serde_json::from_str::<Unfinished>(&body) {
                Ok(record) => {
                    let volume = by_volume.entry(record.volume.clone()).or_default();
                    volume.push(Begun {
                        no,
                        record,
                        running: None,
                    });
                }
                Err(error) => {
                    tracing::error!(no, %error, "an unfinished hook is not understood, and left alone")
                }
            }
        }
        for (volume, mut begun) in by_volume {
            begun.reverse();
            let mut guards = Guards::new();
            for one in &begun {
                // What another volume's hooks have already is locked as well.
                guards.extend(
                    one.record
                        .keys()
                        .iter()
                        .filter_map(|key| self.locks.try_take(key)),
                );
                let detail = format!("{} was left by the coordinator before", name(&one.record));
                self.wait_for(one, &Failure::new("HookPostPending", detail));
            }
            tracing::warn!(
                volume,
                hooks = begun.len(),
                "unfinished post-hooks of the coordinator before run now"
            );
            tokio::spawn(self.clone().finish(begun, guards));
        }
        self.ready.send_replace(true);
    }

    /// Remembers a post-hook before its pre-hook is sent.
    pub(super) async fn remember(&self, record: &Unfinished) -> Result<i64, Failure> {
        let failure = |detail: String| Failure::new("HookNotRemembered", detail);
        let body = serde_json::to_string(record).map_err(|error| failure(error.to_string()))?;
        let coordinator = self.coordinator.upgrade();
        let coordinator = coordinator.ok_or_else(|| failure("the coordinator ends".to_owned()))?;
        let added = coordinator.library().catalog.add_hook(&body).await;
        added.map_err(|error| failure(error.to_string()))
    }

    pub(super) async fn change(&self, no: i64, record: &Unfinished) {
        let Some(coordinator) = self.coordinator.upgrade() else {
            return;
        };
        // Without it the watchdog is not told that all is done, and runs the post-hook once more.
        if let Ok(body) = serde_json::to_string(record)
            && let Err(error) = coordinator.library().catalog.change_hook(no, &body).await
        {
            tracing::warn!(%error, "the watchdog of a hook cannot be remembered");
        }
    }

    pub(super) async fn forget(&self, no: i64, volume: &str) {
        {
            let mut waiting = self.waiting();
            if let Some(posts) = waiting.get_mut(volume) {
                posts.remove(&no);
                if posts.is_empty() {
                    waiting.remove(volume);
                }
            }
        }
        let Some(coordinator) = self.coordinator.upgrade() else {
            return;
        };
        if let Err(error) = coordinator.library().catalog.remove_hook(no).await {
            tracing::warn!(%error, "a finished hook cannot be removed; it runs once more after a restart");
        }
    }

    fn wait_for(&self, one: &Begun, failure: &Failure) {
        let mut waiting = self.waiting();
        let posts = waiting.entry(one.record.volume.clone()).or_default();
        posts.insert(one.no, failure.detail.clone());
    }

    /// Tells what happened to people who look at the volume.
    pub(super) fn tell(&self, volume: &str, failure: Option<&Failure>, problems: &[Problem]) {
        let Some(coordinator) = self.coordinator.upgrade() else {
            return;
        };
        let (Some(events), Some(picture)) = (coordinator.events(), coordinator.picture()) else {
            return;
        };
        let found = picture
            .volumes
            .iter()
            .find(|found| found.subject.id == volume);
        let Some(subject) = found.map(|volume| &volume.subject) else {
            return;
        };
        let namespace = &subject.namespace.name;
        let about = match (&subject.claim, subject.pods.first()) {
            (Some(claim), _) => events::claim(namespace, &claim.name, &claim.uid),
            (None, Some(pod)) => events::object("v1", "Pod", Some(namespace), &pod.name, ""),
            (None, None) => return,
        };
        let failed = failure.map(|failure| (failure.reason, &failure.detail[..]));
        let problems = problems
            .iter()
            .map(|one| (&one.reason[..], &one.detail[..]));
        for (reason, detail) in failed.into_iter().chain(problems) {
            if let Some(reason) = event(reason) {
                events.tell(&about, reason, detail);
            }
        }
    }
}

impl Tried {
    /// Whether it is given up.
    fn is_enough(&mut self, failure: &Failure, now: Duration) -> bool {
        if failure.reason == "HookPostFailed" {
            self.failures += 1;
            self.refused_since = None;
            return self.failures >= FAILURES;
        }
        if failure.is_away {
            // Nobody has refused anything: as long as it lasts.
            self.refused_since = None;
            return false;
        }
        let since = *self.refused_since.get_or_insert(now);
        now.saturating_sub(since) >= REFUSED
    }
}

/// The event for a word; what is not about hooks is told by others.
fn event(reason: &str) -> Option<Reason> {
    const ALL: [Reason; 15] = [
        Reason::HookFailed,
        Reason::HookInvalid,
        Reason::HookNeedsShell,
        Reason::HookNoWatchdog,
        Reason::HookNotAllowed,
        Reason::HookNotRemembered,
        Reason::HookSkipped,
        Reason::HooksUnknown,
        Reason::HookEndedEarly,
        Reason::HookPostFailed,
        Reason::HookPostPending,
        Reason::HookWatchdogFired,
        Reason::HookPodGone,
        Reason::HookPostDone,
        Reason::HookGivenUp,
    ];
    ALL.into_iter().find(|one| one.as_str() == reason)
}

/// One after the other in a pod; a pod that cannot be reached keeps no other frozen.
pub(super) fn by_pod(all: impl IntoIterator<Item = Begun>) -> Vec<Vec<Begun>> {
    let mut by_pod: Vec<Vec<Begun>> = Vec::new();
    for one in all {
        let mut pods = by_pod.iter_mut();
        match pods.find(|all| all.iter().any(|it| it.record.uid == one.record.uid)) {
            Some(all) => all.push(one),
            None => by_pod.push(vec![one]),
        }
    }
    by_pod
}

/// Lets go of the connection of a pre-hook, when its command has ended.
fn part(one: &mut Begun) {
    if let Some(mut running) = one.running.take() {
        tokio::spawn(async move {
            // Cut by then, it costs a process that nobody waits for.
            let _ = tokio::time::timeout(GOODBYE, running.wait(|_| false)).await;
        });
    }
}

fn name(record: &Unfinished) -> String {
    format!("post-hook {} in pod {}", record.hook, record.pod)
}
