//! Does what was decided.

use super::hands::Undone;
use super::look::claim_of;
use super::next::{Action, Written};
use super::scene::{ClaimWanted, Failure};
use super::{MADE_BY, MARK, Restores};
use crate::Coordinator;
use crate::error::Error;
use crate::kube::api::{API_VERSION, Restore, RestoreStatus};
use crate::kube::plan::claim_name;
use crate::kube::pods::{Role, mount_pod, restore_node, restore_pod, token};
use crate::schedule::What;
use holdfast_format::error::FormatError;
use holdfast_format::id::{JobId, SnapshotId};
use holdfast_format::path::RelPath;
use holdfast_proto::v1::{BackupOrder, RestoreOptions, RestoreOrder};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

/// Between asking a restore pod to end and killing it.
const GRACE: u32 = 5;

impl Restores {
    /// Does one thing.
    pub(super) async fn act(
        &self,
        coordinator: &Coordinator,
        restore: &Restore,
        status: &RestoreStatus,
        action: &Action,
    ) -> Result<(), Undone> {
        let meta = &restore.metadata;
        let uid = meta.uid.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let of = token(uid);
        let name = claim_of(restore);
        match action {
            // Of the object itself: see `step`.
            Action::Hold | Action::LetGo => Ok(()),
            Action::MakeClaim(wanted) => {
                let claim = new_claim(restore, namespace, name, wanted);
                self.hands.make_claim(&claim).await
            }
            Action::MarkClaim => {
                let snapshot = status.snapshot.as_ref().map(|chosen| &chosen.id);
                let marks = json!({ MARK: snapshot });
                self.hands.annotate_claim(namespace, name, marks).await
            }
            Action::MakeMountPod { read_only } => {
                let template = self.helpers.as_ref().and_then(|it| it.mount.as_ref());
                let template = template.ok_or_else(|| off("MountPodsOff"))?;
                let owner = Some(owner(restore));
                let pod = mount_pod(template, namespace, name, &of, owner, *read_only);
                self.hands.make_pod(&pod).await
            }
            Action::DeleteMountPod => {
                let pod = Role::Mount.name(&of);
                self.hands.delete_pod(namespace, &pod, 0).await
            }
            Action::MakeRestorePod {
                node,
                place,
                access,
            } => {
                let helpers = self.helpers.as_ref().ok_or_else(|| off("RestoresOff"))?;
                let template = helpers.restore.as_ref();
                let template = template.ok_or_else(|| off("RestoresOff"))?;
                let pod = restore_pod(template, &helpers.namespace, &of, node, place, *access);
                self.hands.make_pod(&pod).await
            }
            Action::DeleteRestorePod => {
                let Some(helpers) = &self.helpers else {
                    return Ok(());
                };
                let pod = Role::Restore.name(&of);
                self.hands.delete_pod(&helpers.namespace, &pod, GRACE).await
            }
            Action::BackUp { job, node } => {
                let order = BackupOrder {
                    volume: claim_name(namespace, name),
                    ..BackupOrder::default()
                };
                start(coordinator, job, What::Backup(order), node)
            }
            Action::Write { job, order } => {
                let what = What::Restore {
                    volume: claim_name(namespace, name),
                    order: written(order)?,
                };
                start(coordinator, job, what, &restore_node(&of))
            }
            Action::CancelJob(job) => {
                if let Ok(id) = job.parse() {
                    // One that nobody knows has nothing to stop.
                    let _ = coordinator.hub().cancel(&id);
                }
                Ok(())
            }
            Action::Scale {
                kind,
                name,
                replicas,
            } => self.hands.scale(namespace, kind, name, *replicas).await,
        }
    }
}

fn off(reason: &str) -> Undone {
    Undone::Refused(Failure::new(reason, "these pods are not to be made"))
}

fn start(coordinator: &Coordinator, job: &str, what: What, node: &str) -> Result<(), Undone> {
    let later = |error: Error| Undone::Later(error.to_string());
    let id: JobId = job
        .parse()
        .map_err(|error: FormatError| Undone::Later(error.to_string()))?;
    let hub = coordinator.hub();
    if hub.watch(&id).is_ok() {
        return Ok(());
    }
    let now_ns = coordinator.clock().now_ns();
    hub.start(id, what, Some(node), now_ns)
        .map(drop)
        .map_err(later)
}

fn written(order: &Written) -> Result<RestoreOrder, Undone> {
    let wrong = |error: FormatError| Undone::Refused(Failure::new("Refused", error.to_string()));
    let snapshot: SnapshotId = order.snapshot.parse().map_err(wrong)?;
    let path = rel_path(&order.path).map_err(wrong)?;
    let below = rel_path(&order.target_path).map_err(wrong)?;
    let mut target = order.place.root.as_os_str().as_bytes().to_vec();
    if !below.is_root() {
        target.push(b'/');
        target.extend_from_slice(below.as_bytes());
    }
    Ok(RestoreOrder {
        snapshot: snapshot.as_bytes().to_vec().into(),
        path: path.as_bytes().to_vec().into(),
        target: target.into(),
        options: Some(RestoreOptions {
            // Also a new volume: its file system may have made something, and what was begun goes on.
            in_place: true,
            delete_extras: order.delete_extras,
            special: order.special,
            dry_run: order.dry_run,
        }),
    })
}

/// A path of a spec: with or without slashes around it.
pub fn rel_path(text: &str) -> Result<RelPath, FormatError> {
    RelPath::new(text.trim_matches('/').as_bytes().to_vec())
}

fn owner(restore: &Restore) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: "Restore".to_owned(),
        name: restore.metadata.name.clone().unwrap_or_default(),
        uid: restore.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn new_claim(
    restore: &Restore,
    namespace: &str,
    name: &str,
    wanted: &ClaimWanted,
) -> PersistentVolumeClaim {
    let uid = restore.metadata.uid.clone().unwrap_or_default();
    let requests = BTreeMap::from([("storage".to_owned(), Quantity(wanted.size.clone()))]);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            annotations: Some(BTreeMap::from([(MADE_BY.to_owned(), uid)])),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/created-by".to_owned(),
                "holdfast".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(wanted.access_modes.clone()),
            storage_class_name: wanted.storage_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(requests),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
