//! A pod that does nothing but have a volume mounted. It runs in the claim's namespace, so it has no right at all.

use super::{Role, Template, named};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Where it has the volume. Nothing in it looks there.
const MOUNT_PATH: &str = "/volume";

/// The pod that has a claim mounted, for the object with this token.
pub fn mount_pod(
    template: &Template,
    namespace: &str,
    claim: &str,
    of: &str,
    owner: Option<OwnerReference>,
    read_only: bool,
) -> Pod {
    let mut pod = template.pod.clone();
    pod.metadata = named(template, namespace, Role::Mount, of);
    pod.metadata.owner_references = owner.map(|owner| vec![owner]);
    let mut spec = pod.spec.take().unwrap_or_default();
    spec.volumes.get_or_insert_default().push(Volume {
        name: "volume".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            // The kubelet would attach it so too, and some drivers cannot: only the mount below is.
            read_only: None,
        }),
        ..Volume::default()
    });
    for container in &mut spec.containers {
        container
            .volume_mounts
            .get_or_insert_default()
            .push(VolumeMount {
                name: "volume".to_owned(),
                mount_path: MOUNT_PATH.to_owned(),
                read_only: Some(read_only),
                ..VolumeMount::default()
            });
    }
    pod.spec = Some(spec);
    pod
}
