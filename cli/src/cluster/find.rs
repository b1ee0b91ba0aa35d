//! Where Holdfast runs: the coordinator's pod, found by the labels of the chart, in any namespace.

use super::Cluster;
use super::api::{code, failure, name_of, text};
use super::kinds::PODS;
use crate::failure::{Failure, Outcome};
use serde_json::Value;

/// Labels of the coordinator's pod.
pub const COORDINATOR: &str =
    "app.kubernetes.io/part-of=holdfast,app.kubernetes.io/component=coordinator";
/// Labels of agents' pods.
pub const AGENT: &str = "app.kubernetes.io/part-of=holdfast,app.kubernetes.io/component=agent";
/// Where it is looked for by who may not look everywhere.
const USUAL: &str = "holdfast";

/// The coordinator's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Namespace that Holdfast runs in.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// What made it: its StatefulSet.
    pub owner: String,
    /// Its release, as the label names it.
    pub instance: String,
    /// Node that it runs on.
    pub node: String,
    /// Its service account.
    pub account: String,
    /// Port of gRPC.
    pub grpc: u16,
    /// Port of health and metrics.
    pub http: u16,
    /// Whether it must be spoken to by TLS.
    pub is_tls: bool,
    /// Whether it says that it is ready.
    pub is_ready: bool,
    /// Why it is not, for people; empty where it is.
    pub why: String,
}

/// Finds it; says where it was looked for if there is none, and which there are if there are several.
pub async fn coordinator(cluster: &Cluster) -> Outcome<Found> {
    let pods = match &cluster.holdfast_namespace {
        Some(namespace) => list(cluster, namespace).await?,
        None => match cluster.list(&PODS, None, COORDINATOR).await {
            Ok(pods) => pods,
            Err(error) if code(&error) == Some(403) => usual(cluster).await?,
            Err(error) => return Err(failure(cluster, "list pods of all namespaces", &error)),
        },
    };
    choose(&pods, cluster.holdfast_namespace.as_deref())
}

async fn list(cluster: &Cluster, namespace: &str) -> Outcome<Vec<Value>> {
    let listed = cluster.list(&PODS, Some(namespace), COORDINATOR).await;
    listed.map_err(|error| {
        failure(
            cluster,
            &format!("list pods of namespace {namespace}"),
            &error,
        )
    })
}

async fn usual(cluster: &Cluster) -> Outcome<Vec<Value>> {
    match cluster.list(&PODS, Some(USUAL), COORDINATOR).await {
        Ok(pods) if !pods.is_empty() => Ok(pods),
        Err(error) if code(&error) != Some(403) => {
            Err(failure(cluster, "list pods of namespace holdfast", &error))
        }
        _ => Err(Failure::with(
            crate::failure::Exit::NotAllowed,
            "you may not list pods of all namespaces, and namespace holdfast shows you no coordinator: say where \
             Holdfast runs with --holdfast-namespace, and have the Role holdfast-connect bound to you there \
             (deploy/README.md)",
        )),
    }
}

/// The one that is meant: of several of one StatefulSet the one that lives.
fn choose(pods: &[Value], namespace: Option<&str>) -> Outcome<Found> {
    let mut found: Vec<Found> = Vec::new();
    for pod in pods {
        let is_leaving = !pod["metadata"]["deletionTimestamp"].is_null();
        let one = read(pod);
        match found
            .iter_mut()
            .find(|other| (&other.namespace, &other.owner) == (&one.namespace, &one.owner))
        {
            Some(other) if is_leaving || other.is_ready => {}
            Some(other) => *other = one,
            None => found.push(one),
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let place = namespace.map_or("any namespace".to_owned(), |name| {
                format!("namespace {name}")
            });
            Err(Failure::failed(format!(
                "no coordinator in {place}: no pod has the labels {COORDINATOR}; is Holdfast installed? \
                 (`helm install holdfast deploy/chart`, deploy/README.md)"
            )))
        }
        _ => {
            let places = found
                .iter()
                .map(|one| format!("{}/{}", one.namespace, one.pod));
            Err(Failure::usage(format!(
                "there are several coordinators: {}; choose one with --holdfast-namespace",
                places.collect::<Vec<_>>().join(", ")
            )))
        }
    }
}

fn read(pod: &Value) -> Found {
    let (namespace, name) = name_of(pod);
    let spec = &pod["spec"];
    let label = |name: &str| text(&pod["metadata"]["labels"][name]).to_owned();
    let owner = text(&pod["metadata"]["ownerReferences"][0]["name"]);
    let owner = match owner {
        "" => name.trim_end_matches("-0"),
        owner => owner,
    };
    let why = trouble(pod);
    Found {
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        owner: owner.to_owned(),
        instance: label("app.kubernetes.io/instance"),
        node: text(&spec["nodeName"]).to_owned(),
        account: match text(&spec["serviceAccountName"]) {
            "" => "default".to_owned(),
            account => account.to_owned(),
        },
        grpc: port(pod, "grpc", 7270),
        http: port(pod, "http", 7271),
        is_tls: pod["metadata"]["annotations"]["holdfast.dev/tls"] == "required",
        is_ready: why.is_empty(),
        why,
    }
}

/// A port of a pod's containers, by its name.
pub fn port(pod: &Value, wanted: &str, usual: u16) -> u16 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
    let named = ports.find(|port| port["name"] == wanted);
    let number = named.and_then(|port| port["containerPort"].as_u64());
    number
        .and_then(|number| u16::try_from(number).ok())
        .unwrap_or(usual)
}

/// Why a pod is not ready, for people; empty where it is.
pub fn trouble(pod: &Value) -> String {
    let status = &pod["status"];
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "it is being deleted".to_owned();
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for one in status[list].as_array().into_iter().flatten() {
            for state in ["waiting", "terminated"] {
                let state = &one["state"][state];
                let reason = text(&state["reason"]);
                if !reason.is_empty() && reason != "Completed" {
                    let restarts = one["restartCount"].as_u64().unwrap_or(0);
                    return format!(
                        "container {} is {reason}, restarted {restarts} times: {}",
                        text(&one["name"]),
                        text(&state["message"])
                    )
                    .trim_end_matches([':', ' '])
                    .to_owned();
                }
            }
        }
    }
    let conditions = status["conditions"].as_array();
    let condition = |kind: &str| {
        let mut conditions = conditions.into_iter().flatten();
        conditions.find(|one| one["type"] == kind)
    };
    if let Some(unscheduled) = condition("PodScheduled").filter(|one| one["status"] == "False") {
        return format!("it waits for a node: {}", text(&unscheduled["message"]));
    }
    match condition("Ready") {
        Some(ready) if ready["status"] == "True" => String::new(),
        _ if text(&status["phase"]) == "Running" => "it runs, and is not ready yet".to_owned(),
        _ => format!("it is {}", text(&status["phase"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(namespace: &str, name: &str, ready: &str) -> Value {
        json!({
            "metadata": {
                "namespace": namespace, "name": name,
                "labels": {"app.kubernetes.io/instance": "release"},
                "ownerReferences": [{"kind": "StatefulSet", "name": "holdfast-coordinator"}],
            },
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "holdfast-coordinator",
                "containers": [{"name": "coordinator", "ports": [
                    {"name": "grpc", "containerPort": 9000}, {"name": "http", "containerPort": 9001},
                ]}],
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    #[test]
    fn the_one_that_lives_is_chosen_and_several_are_named() {
        let found = choose(&[pod("hf", "c-0", "True")], None).unwrap();
        assert_eq!((found.grpc, found.http, found.is_ready), (9000, 9001, true));
        assert_eq!(found.owner, "holdfast-coordinator");
        let mut leaving = pod("hf", "c-old", "True");
        leaving["metadata"]["deletionTimestamp"] = json!("2026-11-21T02:00:00Z");
        for pods in [
            [leaving.clone(), pod("hf", "c-0", "True")],
            [pod("hf", "c-0", "True"), leaving],
        ] {
            assert_eq!(choose(&pods, None).unwrap().pod, "c-0");
        }
        let several = choose(
            &[pod("hf", "c-0", "True"), pod("other", "c-0", "True")],
            None,
        );
        let several = several.unwrap_err();
        assert!(
            several.message.contains("hf/c-0, other/c-0"),
            "{}",
            several.message
        );
        let none = choose(&[], Some("hf")).unwrap_err();
        assert!(none.message.contains("namespace hf"), "{}", none.message);
    }

    #[test]
    fn what_keeps_a_pod_from_being_ready_is_said() {
        let mut one = pod("hf", "c-0", "False");
        assert_eq!(trouble(&one), "it runs, and is not ready yet");
        one["status"]["containerStatuses"] = json!([{
            "name": "coordinator", "restartCount": 7,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m"}},
        }]);
        let said = trouble(&one);
        assert_eq!(
            said,
            "container coordinator is CrashLoopBackOff, restarted 7 times: back-off 5m"
        );
        one["status"] = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"},
        ]});
        assert_eq!(
            trouble(&one),
            "it waits for a node: 0/3 nodes are available"
        );
    }
}
