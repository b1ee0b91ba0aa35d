//! Asks for everything that is judged. What cannot be asked for says why, and keeps nothing else from being asked.

use super::account;
use super::definitions::{OURS, There};
use super::rights::{Allowed, OF_USER, Right};
use crate::args::Global;
use crate::cluster::api::{Answer, code, failure, list_ours};
use crate::cluster::find::{self, Found};
use crate::cluster::kinds::{
    CLUSTER_POLICIES, CONFIG_MAPS, DAEMON_SETS, DEFINITIONS, NODES, PODS, POLICIES,
    REVIEWS_OF_OTHERS, SELF_REVIEWS,
};
use crate::cluster::{Cluster, trust, tunnel};
use crate::commands::admin;
use futures::future::join_all;
use holdfast_proto::v1;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Questions about rights that are asked at once.
const AT_ONCE: usize = 8;

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
    /// What the coordinator's account may do, in the order of `account::rights`; one answer: why nobody says.
    pub of_account: Vec<Allowed>,
    /// Templates of the pods that the coordinator makes; `None`: it is given none.
    pub helpers: Result<Option<Value>, String>,
    /// Policies of both kinds.
    pub policies: Result<Vec<Value>, String>,
    /// The certificate of the authority, PEM; `None`: there is no TLS.
    pub authority: Option<Vec<u8>>,
    /// What the coordinator says.
    pub told: Result<Told, String>,
    /// When.
    pub now: Timestamp,
}

/// What the coordinator says.
#[derive(Debug, Default)]
pub struct Told {
    /// Of itself and its agents.
    pub status: v1::StatusReply,
    /// Of its store.
    pub store: v1::ExamineReply,
    /// Of volumes.
    pub volumes: Vec<v1::VolumeInfo>,
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
        helpers: Ok(None),
        policies: Ok(Vec::new()),
        authority: None,
        told: Err("there is no coordinator".to_owned()),
        now: Timestamp::now(),
        found,
    };
    if let Ok(found) = facts.found.clone() {
        of_holdfast(global, cluster, &found, &mut facts).await;
    }
    let namespace = facts
        .found
        .as_ref()
        .map_or("holdfast", |found| &found.namespace)
        .to_owned();
    facts.of_user = reviews(cluster, OF_USER, &namespace, None).await;
    facts
}

/// What is where Holdfast runs, and what it says itself.
async fn of_holdfast(global: &Global, cluster: &Cluster, found: &Found, facts: &mut Facts) {
    let said = |doing: &str, error: &kube::Error| failure(cluster, doing, error).message;
    let here = Some(&*found.namespace);
    let pod = cluster.get(&PODS, &found.namespace, &found.pod).await;
    facts.helpers = match pod.as_ref().map(account::helpers_of) {
        Err(error) => Err(said("read the coordinator's pod", error)),
        Ok(None) => Ok(None),
        Ok(Some(name)) => {
            let map = cluster.get(&CONFIG_MAPS, &found.namespace, name).await;
            let doing = format!("read ConfigMap {name}");
            map.map(Some).map_err(|e| said(&doing, &e))
        }
    };
    facts.pod = pod.unwrap_or_default();
    let sets = cluster.list(&DAEMON_SETS, here, find::AGENT).await;
    facts.agents = sets
        .map(|sets| sets.into_iter().next())
        .map_err(|e| said("list daemonsets", &e));
    facts.agent_pods = cluster
        .list(&PODS, here, find::AGENT)
        .await
        .unwrap_or_default();
    let trust = trust::find(cluster, found, global).await;
    facts.authority = trust.ok().flatten().map(|trust| trust.authorities);
    facts.told = ask(global, cluster, found).await;
    facts.policies = policies(cluster).await;
    let account = format!(
        "system:serviceaccount:{}:{}",
        found.namespace, found.account
    );
    let rights: Vec<Right> = account::rights()
        .into_iter()
        .map(|(_, right)| right)
        .collect();
    facts.of_account = reviews(cluster, &rights, &found.namespace, Some(&account)).await;
}

async fn policies(cluster: &Cluster) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for kind in [&POLICIES, &CLUSTER_POLICIES] {
        let listed = list_ours(cluster, kind, None).await;
        all.extend(listed.map_err(|e| e.message)?);
    }
    Ok(all)
}

async fn ask(global: &Global, cluster: &Cluster, found: &Found) -> Result<Told, String> {
    let channel = tunnel::channel(cluster, found, global)
        .await
        .map_err(|e| e.message)?;
    let told = async {
        let mut admin = admin(&channel);
        let status = admin.status(v1::StatusRequest {}).await?.into_inner();
        let store = match admin.examine(v1::ExamineRequest {}).await {
            Ok(store) => store.into_inner(),
            // An older coordinator.
            Err(refused) if refused.code() == tonic::Code::Unimplemented => {
                v1::ExamineReply::default()
            }
            Err(refused) => return Err(refused),
        };
        let volumes = admin.volumes(v1::VolumesRequest {}).await?.into_inner();
        Ok(Told {
            status,
            store,
            volumes: volumes.volumes,
        })
    };
    told.await
        .map_err(|status| crate::failure::Failure::from(status).message)
}

/// Asks whether the user, or somebody else, may do all this. Where the first question is refused the others would be
/// too: there is one answer then.
async fn reviews(
    cluster: &Cluster,
    rights: &[Right],
    here: &str,
    user: Option<&str>,
) -> Vec<Allowed> {
    let Some((first, rest)) = rights.split_first() else {
        return Vec::new();
    };
    let refused = |error: kube::Error| match (code(&error), user) {
        (Some(403), Some(_)) => {
            "you may not ask what others may do (create subjectaccessreviews)".to_owned()
        }
        (_, Some(_)) => failure(cluster, "ask what the coordinator may do", &error).message,
        (_, None) => failure(cluster, "ask what you may do", &error).message,
    };
    let answer = review(cluster, first, here, user).await;
    let mut answers = vec![answer.map_err(refused)];
    if answers[0].is_err() {
        return answers;
    }
    for some in rest.chunks(AT_ONCE) {
        let asked = some.iter().map(|right| review(cluster, right, here, user));
        let said = join_all(asked).await;
        answers.extend(said.into_iter().map(|answer| answer.map_err(refused)));
    }
    answers
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
