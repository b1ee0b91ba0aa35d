//! Asks for everything that is judged. What cannot be asked for says why, and keeps nothing else from being asked.

use super::definitions::{OURS, There};
use super::rights::{Allowed, OF_ACCOUNT, OF_USER, Right};
use crate::args::Global;
use crate::cluster::api::{Answer, code, failure};
use crate::cluster::find::{self, Found};
use crate::cluster::kinds::{
    DAEMON_SETS, DEFINITIONS, NODES, PODS, REVIEWS_OF_OTHERS, SELF_REVIEWS,
};
use crate::cluster::{Cluster, trust, tunnel};
use crate::commands::admin;
use holdfast_proto::v1;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What was learnt. `Err`: why not, for people.
pub struct Facts {
    /// The API server's clock and ours then.
    pub clock: Result<Option<(Timestamp, Timestamp)>, String>,
    /// Definitions, in the order of `definitions::OURS`.
    pub definitions: Vec<There>,
    /// The coordinator's pod.
    pub found: Result<Found, String>,
    /// As an object.
    pub pod: Value,
    /// The agents' DaemonSet; `None`: there is none.
    pub agents: Result<Option<Value>, String>,
    /// Pods of agents.
    pub agent_pods: Vec<Value>,
    /// Nodes.
    pub nodes: Result<Vec<Value>, String>,
    /// What the user may do, in the order of `rights::OF_USER`.
    pub of_user: Vec<Allowed>,
    /// What the coordinator's account may do, in the order of `rights::OF_ACCOUNT`.
    pub of_account: Vec<Allowed>,
    /// The certificate of the authority, PEM; `None`: there is no TLS.
    pub authority: Option<Vec<u8>>,
    /// What the coordinator says of itself, and of its store.
    pub told: Result<(v1::StatusReply, v1::ExamineReply), String>,
    /// When.
    pub now: Timestamp,
}

/// Asks.
pub async fn gather(global: &Global, cluster: &Cluster) -> Facts {
    let said = |doing: &str, error: &kube::Error| failure(cluster, doing, error).message;
    let clock = cluster
        .clock()
        .await
        .map_err(|e| said("ask for the version", &e));
    let mut definitions = Vec::new();
    for (plural, _) in OURS {
        let name = format!("{plural}.holdfast.dev");
        definitions.push(match cluster.get(&DEFINITIONS, "", &name).await {
            Ok(one) => Ok(Some(one)),
            Err(error) if code(&error) == Some(404) => Ok(None),
            Err(error) => Err(said(&format!("read definition {name}"), &error)),
        });
    }
    let found = find::coordinator(cluster).await.map_err(|e| e.message);
    let nodes = cluster.list(&NODES, None, "").await;
    let nodes = nodes.map_err(|e| said("list nodes", &e));
    let mut facts = Facts {
        clock,
        definitions,
        pod: Value::Null,
        agents: Ok(None),
        agent_pods: Vec::new(),
        nodes,
        of_user: Vec::new(),
        of_account: Vec::new(),
        authority: None,
        told: Err("there is no coordinator".to_owned()),
        now: Timestamp::now(),
        found,
    };
    if let Ok(found) = facts.found.clone() {
        let here = Some(&*found.namespace);
        let pod = cluster.get(&PODS, &found.namespace, &found.pod).await;
        facts.pod = pod.unwrap_or_default();
        let sets = cluster.list(&DAEMON_SETS, here, find::AGENT).await;
        facts.agents = sets
            .map(|sets| sets.into_iter().next())
            .map_err(|e| said("list daemonsets", &e));
        facts.agent_pods = cluster
            .list(&PODS, here, find::AGENT)
            .await
            .unwrap_or_default();
        let trust = trust::find(cluster, &found, global).await;
        facts.authority = trust.ok().flatten().map(|trust| trust.authorities);
        facts.told = ask(global, cluster, &found).await;
        let account = format!(
            "system:serviceaccount:{}:{}",
            found.namespace, found.account
        );
        for right in OF_ACCOUNT {
            let answer = review(cluster, right, &found.namespace, Some(&account)).await;
            let stop = answer.is_err();
            facts
                .of_account
                .push(answer.map_err(|e| said("ask what the coordinator may do", &e)));
            if stop {
                break;
            }
        }
    }
    let namespace = facts
        .found
        .as_ref()
        .map_or("holdfast", |found| &found.namespace)
        .to_owned();
    for right in OF_USER {
        let answer = review(cluster, right, &namespace, None).await;
        facts
            .of_user
            .push(answer.map_err(|e| said("ask what you may do", &e)));
    }
    facts
}

async fn ask(
    global: &Global,
    cluster: &Cluster,
    found: &Found,
) -> Result<(v1::StatusReply, v1::ExamineReply), String> {
    let channel = tunnel::channel(cluster, found, global)
        .await
        .map_err(|e| e.message)?;
    let told = async {
        let status = admin(&channel)
            .status(v1::StatusRequest {})
            .await?
            .into_inner();
        let store = admin(&channel).examine(v1::ExamineRequest {}).await;
        let store = match store {
            Ok(store) => store.into_inner(),
            // An older coordinator.
            Err(refused) if refused.code() == tonic::Code::Unimplemented => {
                v1::ExamineReply::default()
            }
            Err(refused) => return Err(refused),
        };
        Ok((status, store))
    };
    told.await
        .map_err(|status| crate::failure::Failure::from(status).message)
}

async fn review(cluster: &Cluster, right: &Right, here: &str, user: Option<&str>) -> Answer<bool> {
    let mut spec = json!({"resourceAttributes": {
        "verb": right.verb, "group": right.group, "resource": right.plural, "subresource": right.part,
        "namespace": if right.is_here { here } else { "" },
    }});
    let (kind, word) = match user {
        Some(user) => {
            spec["user"] = json!(user);
            (&REVIEWS_OF_OTHERS, "SubjectAccessReview")
        }
        None => (&SELF_REVIEWS, "SelfSubjectAccessReview"),
    };
    let asked = json!({"apiVersion": kind.api_version(), "kind": word, "spec": spec});
    let answer = cluster.create(kind, "", &asked).await?;
    Ok(answer["status"]["allowed"] == true)
}
