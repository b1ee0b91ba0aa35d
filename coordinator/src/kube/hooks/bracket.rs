//! One run: what comes before it, the run, what comes after it.

use super::act::{Frozen, NotFrozen, watched};
use super::exec::Running;
use super::finish::by_pod;
use super::locks::Guards;
use super::record::{Unfinished, volume_key};
use super::resolve::{Hooks, Place};
use super::{Brackets, Failure, PICTURE, problem};
use crate::Coordinator;
use crate::kube::api::OnError;
use crate::schedule::{Held, HookEnd};
use holdfast_format::id::JobId;
use holdfast_proto::v1::Problem;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::Receiver;

/// How long after a post-hook failed during its run it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A post-hook that has to run.
pub struct Begun {
    /// Its number in the catalog.
    pub no: i64,
    /// What it is.
    pub record: Unfinished,
    /// The pre-hook's command, which goes on until the watchdog has ended.
    pub running: Option<Running>,
}

/// What comes before has failed, or the run is over.
enum Stop {
    Failed(Failure),
    Over,
}

/// A run whose end is settled in any case.
struct Open {
    brackets: Arc<Brackets>,
    id: JobId,
}

impl Open {
    fn settle(&self, failure: Option<Failure>, problems: Vec<Problem>) {
        if let Some(coordinator) = self.brackets.coordinator.upgrade() {
            let now_ns = coordinator.clock().now_ns();
            let failure = failure.map(|failure| (failure.reason, failure.detail));
            coordinator
                .hub()
                .settle(&self.id, failure, problems, now_ns);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // One that is settled already stays so.
        self.settle(None, Vec::new());
        self.brackets.open.send_modify(|open| *open -= 1);
    }
}

impl Brackets {
    /// Carries a run from its pre-hooks to the last of its post-hooks, and settles its end.
    pub(super) async fn carry(self: Arc<Self>, held: Held) {
        self.open.send_modify(|open| *open += 1);
        let open = Open {
            brackets: self.clone(),
            id: held.id,
        };
        let Held {
            id,
            volume,
            mut over,
        } = held;
        let mut problems = Vec::new();
        let mut begun: Vec<Begun> = Vec::new();
        let mut guards = Guards::new();
        let before = self
            .before(
                &id,
                &volume,
                &mut over,
                &mut guards,
                &mut begun,
                &mut problems,
            )
            .await;
        let failure = match before {
            Ok(()) => self.during(&id, &mut over, &mut begun, &mut problems).await,
            Err(Stop::Over) => None,
            Err(Stop::Failed(failure)) => Some(failure),
        };
        let late = self.after(begun, &mut problems).await;
        for one in &problems {
            tracing::warn!(volume, job = %id, reason = one.reason, detail = one.detail, "hooks");
        }
        self.tell(&volume, failure.as_ref(), &problems);
        open.settle(failure, problems);
        if !late.is_empty() {
            // The locks are kept: no run of these pods is made before.
            let brackets = self.clone();
            tokio::spawn(async move { brackets.finish(late, guards).await });
        }
    }

    /// Waits for the volume and its pods, and runs the pre-hooks.
    async fn before(
        &self,
        id: &JobId,
        volume: &str,
        over: &mut Receiver<()>,
        guards: &mut Guards,
        begun: &mut Vec<Begun>,
        problems: &mut Vec<Problem>,
    ) -> Result<(), Stop> {
        let note = |reason, detail: &str| {
            if let Some(coordinator) = self.coordinator.upgrade() {
                coordinator.hub().note(id, reason, detail);
            }
        };
        note(
            "HooksWaiting",
            "waits for the hooks of other runs, or for the cluster's API",
        );
        let places = tokio::select! {
            biased;
            _ = &mut *over => return Err(Stop::Over),
            _ = self.stopping.requested() => return Err(Stop::Failed(stopped())),
            places = self.prepare(volume, guards, problems) => places.map_err(Stop::Failed)?,
        };
        if !places.is_empty() {
            note("PreHooks", "runs its pre-hooks");
        }
        for place in places {
            let one = self.one_before(id, volume, &place, begun);
            let failed = tokio::select! {
                biased;
                _ = &mut *over => return Err(Stop::Over),
                _ = self.stopping.requested() => return Err(Stop::Failed(stopped())),
                failed = one => failed,
            };
            let Err(failure) = failed else { continue };
            match place.hook.on_error {
                OnError::Fail => return Err(Stop::Failed(failure)),
                OnError::Continue => problems.push(problem(failure.reason, failure.detail)),
            }
        }
        Ok(())
    }

    /// Takes the locks, and asks the API where the hooks run.
    async fn prepare(
        &self,
        volume: &str,
        guards: &mut Guards,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<Place>, Failure> {
        // The sender is this one's.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
        let locked = self.locks.take(vec![volume_key(volume)]).await;
        guards.extend(locked);
        let mut pictures = self.pictures.clone();
        let picture = async {
            let found = pictures.wait_for(Option::is_some).await;
            found.ok().and_then(|picture| picture.clone())
        };
        let waited = self.coordinator.upgrade().map(|it| it.clock().elapsed());
        let waited = waited.unwrap_or_default().saturating_sub(self.started);
        let patience = PICTURE.saturating_sub(waited);
        let Ok(Some(picture)) = tokio::time::timeout(patience, picture).await else {
            let detail = "it is not known whether it has hooks, and none was run: the cluster's API has not been \
                          read since the coordinator was started";
            problems.push(problem("HooksUnknown", detail));
            return Ok(Vec::new());
        };
        let hooks = Hooks::of(&picture, volume);
        if hooks.is_empty() {
            return Ok(Vec::new());
        }
        let found = match hooks.places(&self.actor.client).await {
            Ok((places, told)) => {
                problems.extend(told.into_iter().map(|what| problem("HookSkipped", what)));
                places
            }
            Err(failure) if hooks.may_fail() => {
                problems.push(problem(failure.reason, failure.detail));
                return Ok(Vec::new());
            }
            Err(failure) => return Err(failure),
        };
        let keys: Vec<String> = found.iter().map(Place::key).collect();
        guards.extend(self.locks.take(keys.clone()).await);
        // Waiting may have taken long; what is under the names now may be others.
        let (again, _) = hooks.places(&self.actor.client).await?;
        if again.iter().map(Place::key).ne(keys) {
            let detail = "its pods have changed while it waited for the hooks of others";
            return Err(Failure::new("HookFailed", detail));
        }
        Ok(again)
    }

    /// Remembers the post-hook, then runs the pre-hook. What has to be undone is in `begun` from the moment on
    /// at which it may have to be, also if this is dropped.
    async fn one_before(
        &self,
        id: &JobId,
        volume: &str,
        place: &Place,
        begun: &mut Vec<Begun>,
    ) -> Result<(), Failure> {
        let token = match watched(place) {
            Some(_) => Some(random()?),
            None => None,
        };
        let at = match &place.hook.post {
            Some(post) => {
                let record = Unfinished {
                    job: id.to_string(),
                    volume: volume.to_owned(),
                    hook: place.hook.name.clone(),
                    namespace: place.namespace.clone(),
                    pod: place.pod.clone(),
                    uid: place.uid.clone(),
                    ip: place.ip.clone(),
                    container: place.post.clone(),
                    post: post.clone(),
                    token: token.clone(),
                    unfreeze_after: place.hook.unfreeze_after,
                    watch: String::new(),
                    run: String::new(),
                };
                let no = self.remember(&record).await?;
                begun.push(Begun {
                    no,
                    record,
                    running: None,
                });
                Some(begun.len() - 1)
            }
            None => None,
        };
        if place.hook.pre.is_none() {
            return Ok(());
        }
        let frozen = self.actor.freeze(place, token.as_deref()).await;
        self.count(match &frozen {
            Ok(_) => HookEnd::PreDone,
            Err(_) => HookEnd::PreFailed,
        });
        match frozen {
            Ok(Frozen { running, processes }) => {
                let Some(one) = at.and_then(|at| begun.get_mut(at)) else {
                    return Ok(());
                };
                one.running = running;
                if let Some((watch, run)) = processes {
                    (one.record.watch, one.record.run) = (watch, run);
                    self.change(one.no, &one.record).await;
                }
                Ok(())
            }
            Err(NotFrozen {
                failure,
                maybe_begun,
                running,
            }) => {
                if let Some(at) = at {
                    if maybe_begun {
                        begun[at].running = running;
                    } else {
                        let one = begun.remove(at);
                        self.forget(one.no, &one.record.volume).await;
                    }
                }
                Err(failure)
            }
        }
    }

    /// Has the run made, and waits until it is over. A freeze does not last longer than its hook says.
    async fn during(
        &self,
        id: &JobId,
        over: &mut Receiver<()>,
        begun: &mut Vec<Begun>,
        problems: &mut Vec<Problem>,
    ) -> Option<Failure> {
        let coordinator = self.coordinator.upgrade()?;
        match coordinator.hub().release(id) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                let reason = error.reason().as_str();
                return Some(Failure::new(reason, error.to_string()));
            }
        }
        let clock = coordinator.clock().clone();
        // The coordinator must be able to end meanwhile.
        drop::<Arc<Coordinator>>(coordinator);
        let longest = begun.iter().map(|one| one.record.unfreeze_after).min();
        let melts = async {
            match longest {
                Some(longest) => clock.sleep(longest).await,
                None => std::future::pending().await,
            }
        };
        let is_stopping = tokio::select! {
            _ = &mut *over => return None,
            _ = self.stopping.requested() => true,
            () = melts => false,
        };
        if begun.is_empty() {
            // There is nothing to undo.
            return Some(stopped());
        }
        let why = match is_stopping {
            true => "the coordinator was stopped",
            false => "the run took longer than unfreezeAfter",
        };
        let detail = format!("post-hooks were run before the volume was read to its end: {why}");
        problems.push(problem("HookEndedEarly", detail));
        let late = self.after(std::mem::take(begun), problems).await;
        // Those that failed are tried again while the run goes on, and when it is over.
        begun.extend(late.into_iter().rev());
        if is_stopping {
            return Some(stopped());
        }
        loop {
            tokio::select! {
                _ = &mut *over => return None,
                _ = self.stopping.requested() => return Some(stopped()),
                () = clock.sleep(AGAIN), if !begun.is_empty() => {}
            }
            // What goes wrong again was told.
            let late = self.after(std::mem::take(begun), &mut Vec::new()).await;
            begun.extend(late.into_iter().rev());
        }
    }

    /// Runs post-hooks, in each pod the last first; those that failed are given back, in the order in which they are
    /// tried again.
    async fn after(&self, begun: Vec<Begun>, problems: &mut Vec<Problem>) -> Vec<Begun> {
        let pods = by_pod(begun.into_iter().rev());
        let each = pods.into_iter().map(|all| async move {
            let (mut late, mut told) = (Vec::new(), Vec::new());
            for one in all {
                if let Some((one, failure)) = self.once(one, &mut told).await {
                    told.push(problem(failure.reason, failure.detail));
                    late.push(one);
                }
            }
            (late, told)
        });
        let mut late = Vec::new();
        for (of_pod, told) in futures::future::join_all(each).await {
            late.extend(of_pod);
            problems.extend(told);
        }
        late
    }
}

fn stopped() -> Failure {
    let detail = "the coordinator was stopped; an agent that has the run goes on with it";
    Failure::new("Stopped", detail)
}

/// A word that no other run has.
fn random() -> Result<String, Failure> {
    let bytes: [u8; 16] = crate::repo::kek::random()
        .map_err(|error: crate::repo::RepoError| Failure::new("Internal", error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How long the connection of a pre-hook is kept after its watchdog was told to end: until then the watchdog has a
/// parent that looks after it.
pub const GOODBYE: Duration = Duration::from_secs(5);
