//! `kubectl holdfast explain pvc/NAME`: why a claim, or each volume of a pod, is protected or is not.

use crate::args::{Explain, Global};
use crate::cluster::Cluster;
use crate::cluster::api::{failure, name_of, text};
use crate::cluster::kinds::PODS;
use crate::cluster::names::Named;
use crate::commands::explain;
use crate::failure::{Failure, Outcome};
use serde_json::Value;

/// Explains what was named; of a pod, each of its volumes.
pub async fn run(global: &Global, cluster: &Cluster, options: Explain) -> Outcome<()> {
    let volumes = match Named::parse(&options.volume, &cluster.namespace)? {
        Named::Claim(namespace, name) => vec![format!("{namespace}/{name}")],
        Named::Volume(name) => vec![name],
        Named::Pod(namespace, name) => {
            let pod = cluster.get(&PODS, &namespace, &name).await;
            let pod = pod.map_err(|error| {
                failure(cluster, &format!("read pod {namespace}/{name}"), &error)
            })?;
            let (volumes, others) = volumes_of(&pod);
            for other in others {
                println!("{namespace}/{name}/{other} holds nothing that is backed up");
            }
            if volumes.is_empty() {
                return Err(Failure::failed(format!(
                    "pod {namespace}/{name} has no claim and no emptyDir"
                )));
            }
            volumes
        }
    };
    explain::all(global, &volumes).await
}

/// Names of the histories of a pod's volumes, and of the volumes that can have none.
fn volumes_of(pod: &Value) -> (Vec<String>, Vec<String>) {
    let (namespace, pod_name) = name_of(pod);
    let (mut volumes, mut others) = (Vec::new(), Vec::new());
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let name = text(&volume["name"]);
        match text(&volume["persistentVolumeClaim"]["claimName"]) {
            "" if volume["ephemeral"].is_object() => {
                volumes.push(format!("{namespace}/{pod_name}-{name}"));
            }
            "" if volume["emptyDir"].is_object() => {
                volumes.push(format!("{namespace}/{pod_name}/{name}"));
            }
            // What the kubelet puts there itself is of no interest to anybody.
            "" if volume["projected"].is_object() => {}
            "" => others.push(name.to_owned()),
            claim => volumes.push(format!("{namespace}/{claim}")),
        }
    }
    (volumes, others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_volume_of_a_pod_is_known_by_its_history() {
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "db-0"},
            "spec": {"volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "own", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "conf", "configMap": {"name": "db"}},
                {"name": "kube-api-access-x", "projected": {}},
            ]},
        });
        let (volumes, others) = volumes_of(&pod);
        assert_eq!(
            volumes,
            ["shop/data-db-0", "shop/db-0/scratch", "shop/db-0-own"]
        );
        assert_eq!(others, ["conf"]);
    }
}
