//! Looks at everything that a restore's next step depends on: the cluster as its watches know it, the agents, and
//! where nothing else says it, the API server and the catalog.

use super::choose;
use super::scene::{Choice, Claim, End, Failure, Helper, Job, Scene, User};
use super::{MADE_BY, MARK, Restores};
use crate::Coordinator;
use crate::error::Result;
use crate::kube::api::{
    PathProblem, Restore, RestoreCounts, RestorePhase, RestoreProgress, RestoreSource,
    RestoreStatus, Scaled,
};
use crate::kube::facts::{PodFacts, VolumeFacts};
use crate::kube::plan::claim_name;
use crate::kube::pods::{FOR_BACKUP, HELPER_OF, Helpers, Role, place, restore_node, token};
use crate::kube::world::World;
use holdfast_format::id::JobId;
use holdfast_format::path::escape;
use holdfast_proto::v1::{JobInfo, JobState, Report};
use std::time::Duration;

/// Paths that are named in a status.
const PROBLEMS: usize = 20;
/// Within this time of a start, agents come back.
const SETTLED: Duration = Duration::from_secs(120);

/// The claim that a restore is to.
pub fn claim_of(restore: &Restore) -> &str {
    let target = &restore.spec.target;
    let new = target.new_claim.as_ref().map(|claim| &claim.name[..]);
    let existing = target.existing_claim.as_ref();
    new.or(existing.map(|claim| &claim.name[..]))
        .unwrap_or_default()
}

impl Restores {
    /// One look.
    pub(super) async fn look(
        &self,
        coordinator: &Coordinator,
        restore: &Restore,
        status: &RestoreStatus,
        held: bool,
    ) -> Result<Scene> {
        let meta = &restore.metadata;
        let uid = meta.uid.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let name = claim_of(restore);
        let of = token(uid);
        let choice = match phase {
            RestorePhase::Pending => Some(self.choice(coordinator, restore, status).await?),
            _ => None,
        };
        let volume = claim_name(namespace, name);
        let hub = coordinator.hub();
        let served = hub.serving(&volume);
        let mut scene = Scene {
            now: super::next::moment(coordinator.clock().now_ns()),
            fresh_job: JobId::from_bytes(crate::repo::kek::random()?).to_string(),
            deleting: meta.deletion_timestamp.is_some(),
            held,
            choice,
            claim: None,
            users: Vec::new(),
            refused: served.as_ref().err().cloned(),
            served: served.ok(),
            is_read: hub.is_backing_up(&volume),
            mount_pod: Helper::Absent,
            restore_pod: Helper::Absent,
            is_connected: hub.is_connected(&restore_node(&of)),
            is_settled: coordinator.clock().elapsed() > SETTLED,
            may_mount: false,
            owners: Ok(Vec::new()),
            replicas: Vec::new(),
            job: job(coordinator, status),
        };
        {
            let world = self.world.lock();
            self.cluster(&world, &mut scene, (namespace, name), uid, &of);
        }
        if phase == RestorePhase::ScalingDown {
            scene.owners = self.owners(namespace, &scene.users).await;
        }
        if matches!(phase, RestorePhase::ScalingDown | RestorePhase::ScalingUp) {
            scene.replicas = self.replicas(namespace, &status.scaled).await;
        }
        Ok(scene)
    }

    fn cluster(
        &self,
        world: &World,
        scene: &mut Scene,
        (namespace, name): (&str, &str),
        uid: &str,
        of: &str,
    ) {
        let claim = world.claim(namespace, name);
        let volume = claim.and_then(|claim| world.volume(claim.volume.as_deref()?));
        scene.claim = claim.map(|claim| Claim {
            uid: claim.uid.clone(),
            is_ours: claim.annotations.get(MADE_BY).is_some_and(|by| by == uid),
            is_marked: claim.annotations.contains_key(MARK),
        });
        let helpers = self.helpers.as_deref();
        scene.may_mount = helpers.is_some_and(|helpers| helpers.mount.is_some());
        let users = world.users(namespace, name);
        let others = users.filter(|pod| !is_for(pod, of));
        scene.users = others.map(|pod| user(helpers, pod, volume)).collect();
        // Its neighbours on a node may be all that its agent knows of the volume.
        for at in 0..scene.users.len() {
            let node = scene.users[at].node.clone();
            let mut others = scene.users.iter().enumerate();
            let alone =
                !others.any(|(other, user)| other != at && user.node == node && !user.ended);
            scene.users[at].is_known_mounted |= alone;
        }
        let helper = |pod: Option<&PodFacts>| match pod {
            None => Helper::Absent,
            Some(pod) if pod.ending => Helper::Ending {
                deleted: pod.deleting,
            },
            Some(pod) => Helper::There {
                user: user(helpers, pod, volume),
                why: pod
                    .helper
                    .as_ref()
                    .map(|helper| helper.why.clone())
                    .unwrap_or_default(),
            },
        };
        scene.mount_pod = helper(world.pod(namespace, &Role::Mount.name(of)));
        let ours = helpers.map_or("", |helpers| &helpers.namespace);
        scene.restore_pod = helper(world.pod(ours, &Role::Restore.name(of)));
    }

    async fn choice(
        &self,
        coordinator: &Coordinator,
        restore: &Restore,
        status: &RestoreStatus,
    ) -> Result<std::result::Result<Choice, Failure>> {
        let spec = &restore.spec;
        let namespace = restore.metadata.namespace.as_deref().unwrap_or_default();
        if self
            .helpers
            .as_ref()
            .is_none_or(|helpers| helpers.restore.is_none())
        {
            return Ok(Err(Failure::new(
                "RestoresOff",
                "restores in this cluster are turned off (coordinator.restores.enabled in the chart)",
            )));
        }
        if let Err(failure) = paths(restore) {
            return Ok(Err(failure));
        }
        let source = match &status.snapshot {
            // Chosen once; a newer one is another restore's.
            Some(chosen) => RestoreSource {
                snapshot: Some(chosen.id.clone()),
                ..RestoreSource::default()
            },
            None => spec.source.clone(),
        };
        if let Some(of) = source
            .claim
            .as_ref()
            .and_then(|claim| claim.namespace.as_deref())
            && let Err(failure) = choose::may_have(&self.world.lock(), namespace, of, "")
        {
            return Ok(Err(failure));
        }
        let found = choose::find(coordinator, &source, namespace).await?;
        // Whoever may not have a snapshot does not learn that there is one.
        let hidden = || {
            let message = format!(
                "there is no such snapshot, or it is of a namespace that does not let {namespace} have it by its \
                 annotation {}",
                choose::RESTORE_TO
            );
            Failure::new("SnapshotMissing", message)
        };
        let info = match found {
            Ok(info) => info,
            Err(failure) if source.claim.is_some() => return Ok(Err(failure)),
            Err(_) => return Ok(Err(hidden())),
        };
        let world = self.world.lock();
        let facts = &info.facts;
        if choose::may_have(&world, namespace, &facts.namespace, facts.name.as_str()).is_err() {
            return Ok(Err(hidden()));
        }
        let source = world.claim(&facts.namespace, &facts.persistentvolumeclaim);
        Ok(Ok(choose::choice(spec, &info, source)))
    }

    /// What makes the pods again that use the claim, with the replicas it has.
    async fn owners(
        &self,
        namespace: &str,
        users: &[User],
    ) -> std::result::Result<Vec<Scaled>, Failure> {
        let mut owners: Vec<Scaled> = Vec::new();
        for user in users.iter().filter(|user| !user.ending) {
            let found = self.hands.owner(namespace, user).await?;
            let is_known = |known: &Scaled| known.kind == found.kind && known.name == found.name;
            if !owners.iter().any(is_known) {
                owners.push(found);
            }
        }
        Ok(owners)
    }

    /// What was scaled, as it is now; what cannot be asked for is left out.
    async fn replicas(&self, namespace: &str, scaled: &[Scaled]) -> Vec<(Scaled, Option<i32>)> {
        let mut now = Vec::new();
        for scaled in scaled.iter().filter(|scaled| !scaled.restored) {
            match self
                .hands
                .replicas(namespace, &scaled.kind, &scaled.name)
                .await
            {
                Ok(replicas) => now.push((scaled.clone(), replicas)),
                Err(error) => {
                    tracing::warn!(%error, kind = scaled.kind, name = scaled.name, "its replicas cannot be read");
                }
            }
        }
        now
    }
}

/// Whether a pod is this restore's own.
/// Whether a pod is the restore's own, or one for a backup, which goes by itself now.
fn is_for(pod: &PodFacts, of: &str) -> bool {
    let is_ours = |label: &String| label == of || label.starts_with(FOR_BACKUP);
    pod.helper.is_some() && pod.labels.get(HELPER_OF).is_some_and(is_ours)
}

fn user(helpers: Option<&Helpers>, pod: &PodFacts, volume: Option<&VolumeFacts>) -> User {
    let off = || Failure::new("RestoresOff", "restores in this cluster are turned off");
    let place = match (helpers, volume) {
        (None, _) => Err(off()),
        (_, None) => Err(Failure::new("ClaimNotBound", "the claim has no volume")),
        (Some(helpers), Some(volume)) => place(
            &helpers.kubelet_pods,
            &helpers.host_roots,
            &pod.directory,
            volume,
        )
        .map_err(|why| Failure::new(why.reason(), why.to_string())),
    };
    let phase = pod.phase.as_deref();
    User {
        name: pod.name.clone(),
        directory: pod.directory.clone(),
        node: pod.node.clone(),
        ending: pod.ending,
        ended: matches!(phase, Some("Succeeded" | "Failed")),
        // The kubelet has mounted all volumes by then.
        is_known_mounted: phase == Some("Running"),
        controller: pod.controller.clone(),
        place,
    }
}

fn paths(restore: &Restore) -> std::result::Result<(), Failure> {
    let spec = &restore.spec;
    for (field, path) in [("path", &spec.path), ("targetPath", &spec.target_path)] {
        let Some(path) = path else { continue };
        if let Err(error) = super::act::rel_path(path) {
            let message = format!("spec.{field}: {error}; give it as in var/lib/data");
            return Err(Failure::new("PathInvalid", message));
        }
    }
    Ok(())
}

fn job(coordinator: &Coordinator, status: &RestoreStatus) -> Option<Job> {
    let id = status.job.as_ref()?.id.parse().ok()?;
    let info = coordinator.hub().watch(&id).ok()?.borrow().clone();
    Some(told(&info))
}

/// What is told of a job.
fn told(info: &JobInfo) -> Job {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let report = info.last.clone().unwrap_or_default();
    Job {
        progress: RestoreProgress {
            files_done: count(report.done_files),
            total_files: count(report.total_files),
            bytes_done: count(report.done_bytes),
            total_bytes: count(report.total_bytes),
        },
        end: (info.ended_ns != 0).then(|| end(report)),
    }
}

fn end(report: Report) -> End {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    match report.state() {
        JobState::Done => {
            let done = report.restored.unwrap_or_default();
            let problems = report.problems.iter().take(PROBLEMS).map(|it| PathProblem {
                path: escape(&it.path),
                reason: it.reason.clone(),
                message: it.detail.clone(),
            });
            End::Done {
                snapshot: hex(&report.snapshot),
                counts: RestoreCounts {
                    created: count(done.created),
                    replaced: count(done.replaced),
                    metadata: count(done.metadata),
                    deleted: count(done.deleted),
                    kept: count(done.kept),
                    written_bytes: count(done.written_bytes),
                },
                problems: problems.collect(),
                problem_count: count(done.problems),
                detail: report.detail,
            }
        }
        JobState::Cancelled => End::Cancelled,
        _ => End::Failed(Failure::new(report.reason, report.detail)),
    }
}

fn hex(id: &[u8]) -> String {
    use std::fmt::Write;
    id.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
