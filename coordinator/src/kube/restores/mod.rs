//! Runs restores: looks at each, decides (`next`), writes the decision down, and does it.
//!
//! A restore's status is written by this process alone, so what it wrote last is what holds, whatever the watch has
//! told so far.

mod act;
mod choose;
pub mod hands;
mod look;
mod next;
pub mod scene;

use super::events::{self, Events, Reason};
use super::facts::{Facts, key};
use super::pods::{HELPER_OF, Helpers, token};
use super::watch;
use super::world::{Change, Shared};
use crate::Coordinator;
use crate::kube::api::{API_VERSION, Restore, RestorePhase, RestoreStatus};
use crate::kube::plan::claim_name;
use hands::{Hands, Undone};
use next::Action;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch as channel;

/// Holds a Restore until what is in the way was undone.
const FINALIZER: &str = "holdfast.dev/restore";
/// On a claim: the uid of the Restore that made it.
const MADE_BY: &str = "holdfast.dev/restore";
/// On a claim that a restore made and filled: the snapshot.
const MARK: &str = "holdfast.dev/restored-from";
/// How often restores are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Progress is written so far apart.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Restores at once where nothing is said.
const MOST: usize = 4;

/// The volumes that are being restored to: nothing else is to be done with them.
pub type Restoring = channel::Receiver<Arc<HashSet<String>>>;

impl Facts for Restore {
    type Object = Self;

    fn of(object: Self) -> Self {
        object
    }
}

/// What restores work with.
pub struct Restores {
    hands: Hands,
    world: Shared,
    helpers: Option<Arc<Helpers>>,
}

/// A restore, and what was last written of it.
struct Entry {
    object: Restore,
    status: RestoreStatus,
    told: Option<Duration>,
}

/// Begins; until the coordinator stops.
pub fn start(
    coordinator: &Arc<Coordinator>,
    client: kube::Client,
    world: Shared,
    helpers: Option<Arc<Helpers>>,
) -> Restoring {
    let (sender, restoring) = channel::channel(Arc::default());
    let stopping = coordinator.stopping();
    let mut news = watch::one::<Restore>(&client, &stopping);
    let clock = coordinator.clock().clone();
    let coordinator: Weak<Coordinator> = Arc::downgrade(coordinator);
    let restores = Restores {
        hands: Hands::new(client),
        world,
        helpers,
    };
    tokio::spawn(async move {
        let mut entries: Option<BTreeMap<String, Entry>> = None;
        loop {
            tokio::select! {
                change = news.recv() => match change {
                    Some(change) => take(&mut entries, change),
                    None => return,
                },
                () = clock.sleep(LOOK_EVERY), if has_work(entries.as_ref()) => {}
                _ = stopping.requested() => return,
            }
            while let Ok(change) = news.try_recv() {
                take(&mut entries, change);
            }
            let (Some(entries), Some(coordinator)) = (&mut entries, coordinator.upgrade()) else {
                continue;
            };
            // What is missing may only be unknown yet.
            let is_known = {
                let world = restores.world.lock();
                world.is_whole() && world.has_namespaces()
            };
            if is_known {
                restores.round(&coordinator, entries).await;
                let busy = entries.values().filter(|entry| entry.is_begun());
                let busy: HashSet<String> = busy.map(Entry::volume).collect();
                sender.send_if_modified(|sent| {
                    let differs = **sent != busy;
                    *sent = Arc::new(busy);
                    differs
                });
                restores.sweep(entries).await;
            }
        }
    });
    restoring
}

fn has_work(entries: Option<&BTreeMap<String, Entry>>) -> bool {
    entries.is_some_and(|entries| entries.values().any(Entry::has_work))
}

fn take(entries: &mut Option<BTreeMap<String, Entry>>, change: Change<Restore>) {
    let uid_of = |object: &Restore| object.metadata.uid.clone().unwrap_or_default();
    match change {
        Change::All(objects) => {
            let mut old = entries.take().unwrap_or_default();
            let known = objects.into_values().map(|object| {
                let uid = uid_of(&object);
                let before = old.remove(&uid);
                (uid, Entry::of(object, before))
            });
            *entries = Some(known.collect());
        }
        Change::Put(key, object) => {
            if let Some(entries) = entries {
                let uid = uid_of(&object);
                let before = entries.remove(&uid);
                // Another one that had the name is gone, whether or not that was told.
                entries.retain(|_, entry| entry.key() != key);
                entries.insert(uid, Entry::of(object, before));
            }
        }
        Change::Gone(key) => {
            if let Some(entries) = entries {
                entries.retain(|_, entry| entry.key() != key);
            }
        }
    }
}

impl Entry {
    fn of(object: Restore, before: Option<Self>) -> Self {
        let status = object.status.clone().unwrap_or_default();
        match before {
            Some(before) => Self { object, ..before },
            None => Self {
                status,
                object,
                told: None,
            },
        }
    }

    fn phase(&self) -> RestorePhase {
        self.status.phase.unwrap_or_default()
    }

    fn is_held(&self) -> bool {
        let finalizers = self.object.metadata.finalizers.as_deref();
        finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
    }

    fn has_work(&self) -> bool {
        !self.phase().is_final() || self.is_held()
    }

    /// Whether it has touched anything, and not ended.
    fn is_begun(&self) -> bool {
        !self.phase().is_final() && self.status.claim.is_some()
    }

    fn key(&self) -> (String, String) {
        key(&self.object.metadata)
    }

    fn namespace(&self) -> &str {
        self.object
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    fn volume(&self) -> String {
        claim_name(self.namespace(), look::claim_of(&self.object))
    }

    /// What no two restores have at once: the volume; and, where pods are scaled down, those of the namespace: one
    /// that has ended would start them while another still writes.
    fn keys(&self) -> Vec<String> {
        let mut keys = vec![self.volume()];
        if self.object.spec.scale_down {
            // No volume has such a name.
            keys.push(format!("scale:{}", self.namespace()));
        }
        keys
    }
}

impl Restores {
    async fn round(&self, coordinator: &Coordinator, entries: &mut BTreeMap<String, Entry>) {
        let template = self.helpers.as_ref().and_then(|it| it.restore.as_ref());
        let most = template.map_or(MOST, |template| template.most);
        let mut running = entries.values().filter(|entry| entry.is_begun()).count();
        let mut taken: HashSet<String> = entries
            .values()
            .filter(|entry| entry.is_begun())
            .flat_map(Entry::keys)
            .collect();
        let mut of_namespaces: HashMap<String, usize> = HashMap::new();
        for entry in entries.values().filter(|entry| entry.is_begun()) {
            *of_namespaces
                .entry(entry.namespace().to_owned())
                .or_default() += 1;
        }
        let mut waiting: Vec<&mut Entry> = entries
            .values_mut()
            .filter(|entry| entry.has_work())
            .collect();
        waiting.sort_by_key(|entry| {
            let made = entry.object.metadata.creation_timestamp.as_ref();
            (!entry.is_begun(), made.map(|time| time.0))
        });
        for entry in waiting {
            if !entry.is_begun() && !entry.phase().is_final() {
                let is_leaving =
                    entry.object.spec.cancel || entry.object.metadata.deletion_timestamp.is_some();
                // Two into one volume would undo each other.
                let is_taken = entry.keys().iter().any(|key| taken.contains(key));
                // One namespace does not keep all others waiting.
                let of_namespace = of_namespaces.get(entry.namespace()).copied();
                let has_its_share = of_namespace.unwrap_or(0) >= most.div_ceil(2);
                if !is_leaving && (running >= most || is_taken || has_its_share) {
                    continue;
                }
            }
            let was_begun = entry.is_begun();
            if let Err(error) = self.step(coordinator, entry).await {
                tracing::warn!(
                    %error,
                    restore = entry.object.metadata.name,
                    namespace = entry.object.metadata.namespace,
                    "the restore cannot go on; again in a moment"
                );
            }
            if entry.is_begun() && !was_begun {
                running += 1;
                taken.extend(entry.keys());
                *of_namespaces
                    .entry(entry.namespace().to_owned())
                    .or_default() += 1;
            }
        }
    }

    /// One step: looks, decides, writes, does.
    async fn step(&self, coordinator: &Coordinator, entry: &mut Entry) -> Result<(), Undone> {
        let held = entry.is_held();
        let looked = self
            .look(coordinator, &entry.object, &entry.status, held)
            .await;
        let scene = looked.map_err(|error| Undone::Later(error.to_string()))?;
        let mut decided = next::next(&entry.object.spec, &entry.status, &scene);
        decided.status.observed_generation = entry.object.metadata.generation;
        self.say(coordinator, entry, decided.status).await?;
        for action in &decided.actions {
            if matches!(action, Action::Hold | Action::LetGo) {
                self.hold(entry, *action == Action::Hold).await?;
                continue;
            }
            let done = self
                .act(coordinator, &entry.object, &entry.status, action)
                .await;
            match done {
                Ok(()) => {}
                Err(Undone::Refused(failure)) => {
                    let spec = &entry.object.spec;
                    let status = next::refused(spec, &entry.status, &scene, &failure);
                    return self.say(coordinator, entry, status).await;
                }
                Err(later) => return Err(later),
            }
        }
        Ok(())
    }

    async fn say(
        &self,
        coordinator: &Coordinator,
        entry: &mut Entry,
        status: RestoreStatus,
    ) -> Result<(), Undone> {
        if status == entry.status {
            return Ok(());
        }
        let now = coordinator.clock().elapsed();
        let is_progress = {
            let mut same = entry.status.clone();
            same.progress.clone_from(&status.progress);
            same == status
        };
        if is_progress && entry.told.is_some_and(|told| now < told + TELL_EVERY) {
            return Ok(());
        }
        if entry.status.phase != status.phase {
            tracing::info!(
                restore = entry.object.metadata.name,
                namespace = entry.object.metadata.namespace,
                phase = ?status.phase.unwrap_or_default(),
                message = status.message,
                "restore"
            );
        }
        if entry.status.phase != status.phase
            && let Some(events) = coordinator.events()
        {
            tell(events, &entry.object, &entry.status, &status);
        }
        let value = |status: &RestoreStatus| serde_json::to_value(status).unwrap_or(Value::Null);
        let (before, after) = (value(&entry.status), value(&status));
        entry.object = self.hands.say(&entry.object, &before, &after).await?;
        let phase = status.phase.unwrap_or_default();
        if phase.is_final() && phase != entry.phase() {
            let counts = coordinator.hub().counts();
            counts.restore_ended(&format!("{phase:?}"));
        }
        entry.status = status;
        entry.told = Some(now);
        Ok(())
    }

    async fn hold(&self, entry: &mut Entry, hold: bool) -> Result<(), Undone> {
        let finalizers = entry.object.metadata.finalizers.clone().unwrap_or_default();
        let mut finalizers: Vec<String> = finalizers
            .into_iter()
            .filter(|one| one != FINALIZER)
            .collect();
        if hold {
            finalizers.push(FINALIZER.to_owned());
        }
        entry.object = self
            .hands
            .set_finalizers(&entry.object, &finalizers)
            .await?;
        Ok(())
    }

    /// Deletes restore pods that no restore is waiting for: those of a Restore whose finalizer was taken away by
    /// force. Mount pods of such go with their owner.
    async fn sweep(&self, entries: &BTreeMap<String, Entry>) {
        let Some(helpers) = &self.helpers else { return };
        let wanted: HashSet<String> = entries
            .iter()
            .filter(|(_, entry)| entry.has_work())
            .map(|(uid, _)| token(uid))
            .collect();
        let left: Vec<String> = {
            let world = self.world.lock();
            let pods = world.pods_of(&helpers.namespace);
            let ours = pods.filter(|pod| {
                let helper = pod.helper.as_ref();
                helper.is_some_and(|helper| helper.role == "restore") && !pod.deleting
            });
            let left = ours.filter(|pod| {
                let of = pod.labels.get(HELPER_OF);
                of.is_none_or(|of| !wanted.contains(of))
            });
            left.map(|pod| pod.name.clone()).collect()
        };
        for pod in left {
            if let Err(error) = self.hands.delete_pod(&helpers.namespace, &pod, 0).await {
                tracing::warn!(%error, pod, "a restore pod that nobody waits for cannot be deleted");
            }
        }
    }
}

/// Tells how it begins and ends, of the Restore and of its claim.
fn tell(events: &Events, restore: &Restore, before: &RestoreStatus, now: &RestoreStatus) {
    use RestorePhase as P;
    let phase = now.phase.unwrap_or_default();
    let reason = match phase {
        P::Completed => Reason::RestoreCompleted,
        P::PartiallyFailed => Reason::RestorePartial,
        P::Failed => Reason::RestoreFailed,
        P::RolledBack => Reason::RestoreRolledBack,
        P::Cancelled => Reason::RestoreCancelled,
        P::ScalingDown | P::Mounting if before.phase.unwrap_or_default() == P::Pending => {
            Reason::RestoreStarted
        }
        _ => return,
    };
    let meta = &restore.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let uid = meta.uid.as_deref().unwrap_or_default();
    let chosen = now.snapshot.as_ref();
    let snapshot = chosen.map_or(String::new(), |chosen| {
        let short: String = chosen.id.chars().take(8).collect();
        format!("snapshot {short} of {}: ", chosen.volume)
    });
    let why = now.reason.as_ref().map(|reason| format!(" ({reason})"));
    let message = now.message.as_deref().unwrap_or_default();
    let note = format!("{snapshot}{message}{}", why.unwrap_or_default());
    let object = events::object(API_VERSION, "Restore", Some(namespace), name, uid);
    events.tell(&object, reason, note.clone());
    if let Some(claim) = &now.claim
        && let Some(uid) = &claim.uid
    {
        let claim = events::claim(namespace, &claim.name, uid);
        events.tell(&claim, reason, format!("restore {name}: {note}"));
    }
}
