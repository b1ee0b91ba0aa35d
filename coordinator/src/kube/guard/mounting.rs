//! Volumes that no pod uses are mounted for their runs, by pods of ours that do nothing, where a policy asks for it.
//! Such a pod goes when its run has ended, however; when a pod that is not ours wants the claim; and when nobody knows
//! of a run, as after a restart.
//!
//! Nothing is remembered that the cluster does not say: pods are found by their labels.

mod step;

use self::step::{MountPod, Scene, Step, Want, step};
use super::entries::{entry, protected_by};
use crate::Coordinator;
use crate::kube::api::{API_VERSION, PolicyReference, UnmountedClaims, VolumeProtection};
use crate::kube::facts::{PodFacts, Source};
use crate::kube::picture::{Picture, PolicyFacts, Volume};
use crate::kube::plan::claim_name;
use crate::kube::pods::{FOR_BACKUP, Helpers, Role, mount_pod, token};
use crate::kube::restores::Restoring;
use crate::kube::restores::hands::{Hands, Undone};
use crate::kube::restores::scene::Failure;
use crate::kube::words::Known;
use crate::kube::world::{Shared, World};
use crate::policy::due::Bound;
use crate::policy::queue::{Entry, Queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many at once, whatever the installer says: each may have a volume attached.
const MOST: usize = 4;
/// A call that is not answered is made again.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// A pod that was made is seen by then.
const SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// A pod of ours: its namespace and for which claim it is.
type Key = (String, String);

/// The pods.
pub struct Mounting {
    client: Client,
    world: Shared,
    helpers: Option<Arc<Helpers>>,
    restoring: Restoring,
    /// Since when each is known.
    seen: HashMap<Key, Seen>,
    /// Volumes that are read through one.
    mounted: HashSet<String>,
    calls: Calls,
}

struct Seen {
    since: Timestamp,
    is_found: bool,
}

/// Calls of the API under way, one for each pod; and those that were refused for good.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<CallsNow>>);

#[derive(Default)]
struct CallsNow {
    busy: HashSet<Key>,
    refused: HashMap<Key, Failure>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, CallsNow> {
        // Every change of it is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim that is looked at.
struct Claim<'v> {
    volume: &'v Volume,
    name: &'v str,
    want: Want,
    /// Who is first: higher priority, then due for longer.
    rank: (Reverse<i32>, Timestamp),
}

impl Mounting {
    /// No pod is known yet.
    pub fn new(
        client: Client,
        world: Shared,
        helpers: Option<Arc<Helpers>>,
        restoring: Restoring,
    ) -> Self {
        Self {
            client,
            world,
            helpers,
            restoring,
            seen: HashMap::new(),
            mounted: HashSet::new(),
            calls: Calls::default(),
        }
    }

    /// Whether a restore writes to a volume: nobody else has it then.
    pub fn is_restored(&self, volume: &str) -> bool {
        self.restoring.borrow().contains(volume)
    }

    /// How many helper pods are there: those that mount a volume, and those that write to one.
    pub fn helpers(&self) -> [usize; 2] {
        let world = self.world.lock();
        let helpers = world.pods().filter_map(|pod| pod.helper.as_ref());
        let mut counts = [0; 2];
        for helper in helpers {
            for (role, count) in Role::ALL.into_iter().zip(&mut counts) {
                *count += usize::from(helper.role == role.word());
            }
        }
        counts
    }

    /// The node on which a run of a volume may start now.
    pub fn node_of(&self, coordinator: &Coordinator, volume: &Volume) -> Option<String> {
        let name = &volume.subject.id;
        // The pod has a node before that has the volume.
        let is_there = !self.mounted.contains(name) || coordinator.hub().serving(name).is_ok();
        let node = volume.node.clone();
        node.filter(|_| is_there && !self.is_restored(name))
    }

    /// Makes the pods that runs wait for, and deletes those that nobody waits for. The runs that have failed by that.
    pub fn round(
        &mut self,
        coordinator: &Coordinator,
        picture: &Picture,
        queue: &Queue,
        now: Timestamp,
    ) -> Vec<(String, Failure)> {
        let claims = claims(picture, queue, &coordinator.hub().backing_up(), now);
        let (pods, used) = {
            let world = self.world.lock();
            let pods = pods(&world);
            let named = claims.iter().map(|(key, claim)| (key, claim.name));
            let mounted = pods
                .iter()
                .filter_map(|(key, pod)| Some((key, claim_of(pod)?)));
            let used = named.chain(mounted);
            let used = used.filter(|(key, claim)| is_used(&world, &key.0, claim));
            let used: HashSet<Key> = used.map(|(key, _)| key.clone()).collect();
            (pods, used)
        };
        self.see(&pods, now);
        let mut keys: Vec<&Key> = claims.keys().collect();
        keys.sort_by_key(|key| (claims[*key].rank, *key));
        let unknown = pods.keys().filter(|key| !claims.contains_key(*key));
        let keys: Vec<Key> = keys.into_iter().chain(unknown).cloned().collect();
        self.mounted.clear();
        let mut failed = Vec::new();
        for key in keys {
            let claim = claims.get(&key);
            let pod = pods.get(&key);
            if let Some(claim) = claim
                && pod.is_some()
            {
                self.mounted.insert(claim.volume.subject.id.clone());
            }
            if self.calls.lock().busy.contains(&key) {
                continue;
            }
            let scene = self.scene(coordinator, &key, claim, (pod, used.contains(&key)), now);
            match (step(&scene), claim) {
                (Step::Make, Some(claim)) => {
                    let since = now;
                    let is_found = false;
                    self.seen.insert(key.clone(), Seen { since, is_found });
                    self.make(&key, claim);
                }
                (Step::Delete, _) => self.delete(&key),
                (Step::Fail(why), Some(claim)) => {
                    failed.push((claim.volume.subject.id.clone(), why));
                    match pod {
                        Some(_) => self.delete(&key),
                        None => drop(self.seen.remove(&key)),
                    }
                }
                (Step::Stay | Step::Make | Step::Fail(_), _) => {}
            }
        }
        failed
    }

    fn see(&mut self, pods: &HashMap<Key, PodFacts>, now: Timestamp) {
        for key in pods.keys() {
            self.seen.entry(key.clone()).or_insert(Seen {
                since: now,
                is_found: true,
            });
        }
        self.seen.retain(|key, seen| {
            pods.contains_key(key)
                || (!seen.is_found && now.duration_since(seen.since) < SEEN_WITHIN)
        });
    }

    fn scene(
        &self,
        coordinator: &Coordinator,
        key: &Key,
        claim: Option<&Claim<'_>>,
        (pod, is_used): (Option<&PodFacts>, bool),
        now: Timestamp,
    ) -> Scene {
        let name = claim.map(|claim| claim.volume.subject.id.clone());
        let name = name.or_else(|| Some(claim_name(&key.0, claim_of(pod?)?)));
        let template = self.helpers.as_ref().and_then(|it| it.mount.as_ref());
        let off = || {
            Failure::new(
                "MountPodsNotAllowed",
                "no pod uses the claim, and pods that mount it for its backups are not to be made \
                 (coordinator.mountPods.enabled in the chart)",
            )
        };
        let most = template.map_or(0, |template| template.most.min(MOST));
        let others = self.seen.keys().filter(|other| *other != key).count();
        let refused = self.calls.lock().refused.remove(key);
        Scene {
            want: claim.map_or(Want::Nothing, |claim| claim.want),
            is_used,
            is_restored: name.as_ref().is_some_and(|name| self.is_restored(name)),
            pod: match (pod, self.seen.get(key)) {
                (Some(pod), _) if pod.ending => MountPod::Ending {
                    is_deleted: pod.deleting,
                },
                (Some(_), Some(seen)) => MountPod::There {
                    age: now.duration_since(seen.since),
                    is_found: seen.is_found,
                },
                (None, _) | (Some(_), None) => MountPod::Absent,
            },
            refused: refused.or_else(|| template.is_none().then(off)),
            has_room: others < most,
            unserved: name.and_then(|name| unserved(coordinator, &name, pod)),
        }
    }

    fn make(&self, key: &Key, claim: &Claim<'_>) {
        let Some(template) = self.helpers.as_ref().and_then(|it| it.mount.as_ref()) else {
            return;
        };
        let (namespace, name) = (key.0.clone(), claim.name.to_owned());
        let mut pod = mount_pod(template, &namespace, &name, &key.1, None, true);
        let (hands, client) = (Hands::new(self.client.clone()), self.client.clone());
        tracing::info!(
            volume = claim.volume.subject.id,
            "no pod uses it; one is made that mounts it for its backup"
        );
        self.call(key, async move {
            // It goes with what is said of the volume. Where nothing is said yet, its deadline has to do.
            let protections: Api<VolumeProtection> = Api::namespaced(client, &namespace);
            let found = protections.get_opt(&name).await.ok().flatten();
            pod.metadata.owner_references = found.and_then(|found| {
                let owner = OwnerReference {
                    api_version: API_VERSION.to_owned(),
                    kind: "VolumeProtection".to_owned(),
                    name: found.metadata.name?,
                    uid: found.metadata.uid?,
                    ..OwnerReference::default()
                };
                Some(vec![owner])
            });
            hands.make_pod(&pod).await
        });
    }

    fn delete(&self, key: &Key) {
        let hands = Hands::new(self.client.clone());
        let (namespace, pod) = (key.0.clone(), Role::Mount.name(&key.1));
        self.call(key, async move {
            let deleted = hands.delete_pod(&namespace, &pod, 0).await;
            if let Err(error) = deleted {
                tracing::warn!(%error, pod, namespace, "a mount pod cannot be deleted; again in a moment");
            }
            Ok(())
        });
    }

    fn call(&self, key: &Key, call: impl Future<Output = Result<(), Undone>> + Send + 'static) {
        let (calls, key) = (self.calls.clone(), key.clone());
        calls.lock().busy.insert(key.clone());
        tokio::spawn(async move {
            let ended = tokio::time::timeout(CALL_LIMIT, call).await;
            let mut calls = calls.lock();
            calls.busy.remove(&key);
            match ended {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(Undone::Later(why))) => tracing::warn!(why, "a mount pod was not made"),
                Ok(Err(Undone::Refused(failure))) => {
                    let reason = match &failure.reason[..] {
                        "Forbidden" => "MountPodsNotAllowed",
                        _ => "MountPodRefused",
                    };
                    calls
                        .refused
                        .insert(key, Failure::new(reason, failure.message));
                }
            }
        });
    }
}

/// Claims that no pod uses, that their policies have mounted, and whose runs are due or go on.
fn claims<'p>(
    picture: &'p Picture,
    queue: &Queue,
    busy: &HashSet<String>,
    now: Timestamp,
) -> BTreeMap<Key, Claim<'p>> {
    let due = queue.waiting();
    let due = due.filter(|(entry, from)| *from <= now && !entry.is_late(now));
    let due = due.map(|(entry, _)| (&entry.volume, Want::Due, rank(entry)));
    let running = queue.running();
    let running = running.map(|run| (&run.entry.volume, Want::Runs, rank(&run.entry)));
    // Those that an earlier process started, too.
    let busy = busy
        .iter()
        .map(|volume| (volume, Want::Runs, (Reverse(0), now)));
    let mut claims = BTreeMap::new();
    for (name, want, rank) in due.chain(running).chain(busy) {
        let Some(volume) = picture.volume(name) else {
            continue;
        };
        let Some(claim) = &volume.subject.claim else {
            continue;
        };
        let policy = protected_by(picture, volume).map(|(policy, _)| &policy.spec);
        if policy.is_none_or(|spec| spec.unmounted_claims != UnmountedClaims::Mount) {
            continue;
        }
        let of = format!("{FOR_BACKUP}{}", token(&claim.uid));
        let key = (volume.subject.namespace.name.clone(), of);
        let claim = Claim {
            volume,
            name: &claim.name,
            want,
            rank,
        };
        claims.insert(key, claim);
    }
    claims
}

fn rank(entry: &Entry) -> (Reverse<i32>, Timestamp) {
    (Reverse(entry.priority), entry.due)
}

/// The pods of ours that mount claims for backups.
fn pods(world: &World) -> HashMap<Key, PodFacts> {
    let ours = world.pods().filter(|pod| is_ours(pod));
    let keyed = ours.map(|pod| {
        let of = pod.helper.as_ref().map(|helper| helper.of.clone());
        let key = (pod.namespace.clone(), of.unwrap_or_default());
        (key, pod.clone())
    });
    keyed.collect()
}

fn is_ours(pod: &PodFacts) -> bool {
    pod.helper.as_ref().is_some_and(|helper| {
        // Of another name it is somebody's who has copied our labels.
        helper.role == Role::Mount.word()
            && helper.of.starts_with(FOR_BACKUP)
            && pod.name == Role::Mount.name(&helper.of)
    })
}

/// The claim that a pod of ours mounts.
fn claim_of(pod: &PodFacts) -> Option<&str> {
    let mut volumes = pod.volumes.iter();
    volumes.find_map(|volume| match &volume.source {
        Source::Claim(claim) => Some(&claim[..]),
        _ => None,
    })
}

/// Whether a pod that is not ours has a claim, will have it, or has not let go of it.
fn is_used(world: &World, namespace: &str, claim: &str) -> bool {
    let mut users = world.users(namespace, claim);
    users.any(|pod| {
        let has_ended = matches!(pod.phase.as_deref(), Some("Succeeded" | "Failed"));
        !has_ended && !is_ours(pod)
    })
}

/// Why no agent reads a volume.
fn unserved(coordinator: &Coordinator, volume: &str, pod: Option<&PodFacts>) -> Option<String> {
    let why = coordinator.hub().serving(volume).err()?;
    let helper = pod.and_then(|pod| Some((&pod.name, pod.helper.as_ref()?)));
    Some(match helper {
        Some((name, helper)) if !helper.why.is_empty() => {
            format!("pod {name} mounts it and does not run: {}", helper.why)
        }
        _ => why,
    })
}

/// A run of a volume that no pod uses, under a bound of exposure: nothing watches its changes, so it is due when its
/// newest snapshot is as old as the bound.
pub fn aged(
    volume: &Volume,
    known: &mut Known,
    (policy, reference): (&PolicyFacts, &PolicyReference),
    bound: &Bound,
    now: Timestamp,
) -> Option<Entry> {
    let newest = known.newest().map(|point| point.at);
    let age = SignedDuration::try_from(bound.max_age.max(bound.min_interval)).ok()?;
    let last = newest.max(known.offered);
    if last.is_some_and(|last| now.duration_since(last) < age) {
        return None;
    }
    known.offered = Some(now);
    Some(entry(volume, Some(policy), &reference.to_string(), now))
}
