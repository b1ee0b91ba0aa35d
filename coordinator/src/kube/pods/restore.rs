//! A pod that writes to one volume: an agent under a name of its own, which takes restores below that volume's root
//! and nothing else.

use super::{Place, Role, Template, named};
use k8s_openapi::api::core::v1::{EnvVar, HostPathVolumeSource, Pod, Volume, VolumeMount};

/// The name under which the agent of a restore subscribes. No node of a cluster can have it.
pub fn restore_node(of: &str) -> String {
    format!("restore/{of}")
}

/// What a restore pod may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// It only looks.
    pub read_only: bool,
    /// File capabilities and devices too.
    pub special: bool,
}

/// What only special files need.
const SPECIAL: [&str; 2] = ["SETFCAP", "MKNOD"];

/// The pod that writes to a volume on this node, for the restore with this token.
pub fn restore_pod(
    template: &Template,
    namespace: &str,
    of: &str,
    node: &str,
    place: &Place,
    access: Access,
) -> Pod {
    let mut pod = template.pod.clone();
    pod.metadata = named(template, namespace, Role::Restore, of);
    let mut spec = pod.spec.take().unwrap_or_default();
    // The volume is there, whatever the node's taints: nothing is left to schedule.
    spec.node_name = Some(node.to_owned());
    let shown = place.shown.display().to_string();
    spec.volumes.get_or_insert_default().push(Volume {
        name: "target".to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: shown.clone(),
            // Must be there: a directory made in its place would not be the volume.
            type_: Some("Directory".to_owned()),
        }),
        ..Volume::default()
    });
    for container in &mut spec.containers {
        let security = container.security_context.as_mut();
        let added = security
            .and_then(|security| security.capabilities.as_mut())
            .and_then(|capabilities| capabilities.add.as_mut());
        if let (Some(added), false) = (added, access.special) {
            added.retain(|name| !SPECIAL.contains(&&name[..]));
        }
        let env = container.env.get_or_insert_default();
        env.push(variable("HOLDFAST_AGENT_NODE", restore_node(of)));
        env.push(variable(
            "HOLDFAST_RESTORE_BELOW",
            place.root.display().to_string(),
        ));
        container
            .volume_mounts
            .get_or_insert_default()
            .push(VolumeMount {
                name: "target".to_owned(),
                mount_path: shown.clone(),
                read_only: Some(access.read_only),
                mount_propagation: Some("HostToContainer".to_owned()),
                ..VolumeMount::default()
            });
    }
    pod.spec = Some(spec);
    pod
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    }
}
