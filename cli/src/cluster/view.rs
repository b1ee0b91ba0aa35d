//! The whole cluster at a glance, made from what API server and coordinator say. Pure: the same facts make the
//! same view, and what cannot be known is said to be unknown.

use super::api::{moment, name_of, text};
use holdfast_proto::v1::{self, JobState};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A run that is due may wait so long for its turn before its volume counts as exposed.
const LATE: SignedDuration = SignedDuration::from_mins(15);
/// Reasons that somebody chose.
const BY_CHOICE: [&str; 6] = [
    "ExcludedByAnnotation",
    "ExcludedByLabel",
    "ExcludedByPolicy",
    "NotAskedFor",
    "PolicySuspended",
    "NamespaceDeleting",
];

/// What was learnt. `Err`: why not.
pub struct Facts {
    /// Of the coordinator.
    pub told: Result<Told, String>,
    /// VolumeProtections.
    pub protections: Result<Vec<Value>, String>,
    /// Policies of both kinds.
    pub policies: Result<Vec<Value>, String>,
    /// Nodes.
    pub nodes: Result<Vec<Value>, String>,
    /// The agents' DaemonSet.
    pub agents: Option<Value>,
    /// When.
    pub now: Timestamp,
}

/// What the coordinator said.
#[derive(Default)]
pub struct Told {
    /// Of itself.
    pub status: v1::StatusReply,
    /// Of volumes.
    pub volumes: Vec<v1::VolumeInfo>,
    /// Of jobs.
    pub jobs: Vec<v1::JobInfo>,
}

/// How well a volume is off, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Its runs fail.
    Failing,
    /// Its newest snapshot is older than its policy allows.
    Exposed,
    /// Nothing protects it, and nobody said so.
    Unprotected,
    /// It cannot be read.
    Unsupported,
    /// It has no snapshot yet.
    Pending,
    /// Nothing protects it, as somebody chose.
    LeftOut,
    /// All is well.
    Protected,
}

impl Group {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Exposed => "exposed",
            Self::Unprotected => "unprotected",
            Self::Unsupported => "unsupported",
            Self::Pending => "pending",
            Self::LeftOut => "left out",
            Self::Protected => "protected",
        }
    }
}

/// One volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// How well it is off.
    pub group: Group,
    /// Its name.
    pub name: String,
    /// For how long it is so, as far as that is known.
    pub since: Option<SignedDuration>,
    /// Why, as a stable word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// A policy that does not work.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name, with its namespace.
    pub name: String,
    /// `Invalid` or `Suspended`.
    pub phase: String,
    /// Why.
    pub message: String,
}

/// Everything, as it is shown.
#[derive(Debug, Default)]
pub struct View {
    /// Volumes, the worst first.
    pub volumes: Vec<Volume>,
    /// How many of each group.
    pub counts: BTreeMap<Group, usize>,
    /// Policies that are active.
    pub active: usize,
    /// Policies that are not.
    pub idle: Vec<Policy>,
    /// Nodes that should have an agent, if that is known.
    pub nodes: Option<usize>,
    /// Those that have none connected.
    pub without_agent: Vec<String>,
    /// Volumes with suspicious snapshots.
    pub suspicious: Vec<String>,
    /// What runs.
    pub running: Vec<v1::JobInfo>,
    /// What needs somebody's attention, for people.
    pub attention: Vec<String>,
}

/// Makes it.
pub fn view(facts: &Facts) -> View {
    let mut view = View::default();
    let told = facts.told.as_ref().ok();
    let bounds = bounds(facts.policies.as_ref().map_or(&[], |list| list));
    let states: HashMap<&str, &v1::VolumeInfo> = told
        .iter()
        .flat_map(|told| &told.volumes)
        .filter_map(|volume| Some((&*volume.facts.as_ref()?.name, volume)))
        .collect();
    for object in facts.protections.iter().flatten() {
        let name = text(&object["spec"]["volume"]);
        view.volumes.push(volume(
            object,
            states.get(name).copied(),
            &bounds,
            facts.now,
        ));
    }
    view.volumes
        .sort_by(|a, b| (a.group, b.since, &a.name).cmp(&(b.group, a.since, &b.name)));
    for volume in &view.volumes {
        *view.counts.entry(volume.group).or_default() += 1;
    }
    for object in facts.policies.iter().flatten() {
        let phase = text(&object["status"]["phase"]);
        match phase {
            "Active" => view.active += 1,
            _ => view.idle.push(Policy {
                name: policy_name(object),
                phase: match phase {
                    "" => "Unknown".to_owned(),
                    phase => phase.to_owned(),
                },
                message: policy_message(object),
            }),
        }
    }
    if let (Ok(nodes), Some(told)) = (&facts.nodes, told) {
        let wanted = wanted_nodes(nodes, facts.agents.as_ref());
        let connected: BTreeSet<&str> = told.status.agents.iter().map(String::as_str).collect();
        view.nodes = Some(wanted.len());
        view.without_agent = wanted
            .into_iter()
            .filter(|node| !connected.contains(&**node))
            .collect();
    }
    for volume in told.iter().flat_map(|told| &told.volumes) {
        if volume.suspicious > 0 {
            let name = volume.facts.as_ref().map(|facts| facts.name.clone());
            view.suspicious.push(name.unwrap_or_default());
        }
    }
    let running = told
        .iter()
        .flat_map(|told| &told.jobs)
        .filter(|job| job.ended_ns == 0);
    view.running = running.cloned().collect();
    view.attention = attention(facts, &view);
    view
}

/// Names of the nodes that are to have an agent: those that the DaemonSet's selector is for.
fn wanted_nodes(nodes: &[Value], agents: Option<&Value>) -> Vec<String> {
    let selector = agents.map(|set| &set["spec"]["template"]["spec"]["nodeSelector"]);
    let selector = selector.and_then(Value::as_object);
    let wanted = nodes.iter().filter(|node| {
        let labels = &node["metadata"]["labels"];
        let mut asked = selector.into_iter().flatten();
        asked.all(|(key, value)| labels[key] == *value)
    });
    wanted.map(|node| name_of(node).1.to_owned()).collect()
}

/// How far volumes of a policy may be ahead, by the policy's kind, namespace and name.
fn bounds(policies: &[Value]) -> HashMap<String, SignedDuration> {
    let bound = |policy: &Value| {
        let age = holdfast_coordinator::duration(text(&policy["spec"]["exposure"]["maxAge"]));
        Some((key(policy), SignedDuration::try_from(age.ok()?).ok()?))
    };
    policies.iter().filter_map(bound).collect()
}

fn key(policy: &Value) -> String {
    let (namespace, name) = name_of(policy);
    format!("{namespace}/{name}")
}

fn volume(
    object: &Value,
    info: Option<&v1::VolumeInfo>,
    bounds: &HashMap<String, SignedDuration>,
    now: Timestamp,
) -> Volume {
    let status = &object["status"];
    let reason = text(&status["reason"]).to_owned();
    let message = text(&status["message"]).to_owned();
    let age = |value: &Value| moment(value).map(|at| now.duration_since(at));
    let success = age(&status["lastSuccess"]["time"]);
    let mut one = Volume {
        group: Group::Protected,
        name: text(&object["spec"]["volume"]).to_owned(),
        since: None,
        reason,
        message,
    };
    match text(&status["phase"]) {
        "Failing" => {
            one.group = Group::Failing;
            one.since = success;
        }
        "Unprotected" if BY_CHOICE.contains(&&*one.reason) => one.group = Group::LeftOut,
        "Unprotected" => one.group = Group::Unprotected,
        "Unsupported" => one.group = Group::Unsupported,
        "Protected" => {
            if let Some((since, message)) = exposed(object, info, bounds, now) {
                one.group = Group::Exposed;
                one.since = Some(since);
                one.reason = "Exposed".to_owned();
                one.message = message;
            }
        }
        _ => {
            one.group = Group::Pending;
            if one.reason.is_empty() {
                one.reason = "NotSeenYet".to_owned();
            }
        }
    }
    one
}

/// Whether a protected volume is further ahead of its newest snapshot than its policy allows: for how long,
/// and why.
fn exposed(
    object: &Value,
    info: Option<&v1::VolumeInfo>,
    bounds: &HashMap<String, SignedDuration>,
    now: Timestamp,
) -> Option<(SignedDuration, String)> {
    let status = &object["status"];
    let policy = &status["policy"];
    let policy = format!("{}/{}", text(&policy["namespace"]), text(&policy["name"]));
    if let (Some(bound), Some(info)) = (bounds.get(&policy), info) {
        let ahead = i64::try_from(info.exposed_ns).unwrap_or(i64::MAX);
        let ahead = SignedDuration::from_nanos(ahead);
        // A run is started at the bound, and takes its time.
        if ahead > *bound + *bound {
            let message = format!("its policy allows {}", age(*bound));
            return Some((ahead, message));
        }
    }
    let next = moment(&status["nextRunTime"])?;
    let late = now.duration_since(next);
    (late > LATE).then(|| (late, format!("a run was due at {next} and was not made")))
}

/// A time span for people.
pub fn age(span: SignedDuration) -> String {
    let ns = u64::try_from(span.as_nanos().max(0)).unwrap_or(u64::MAX);
    crate::output::age(ns)
}

/// A policy's name: those of the cluster stand without a namespace.
pub fn policy_name(policy: &Value) -> String {
    match name_of(policy) {
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

/// What is wrong with it, for people.
pub fn policy_message(policy: &Value) -> String {
    let conditions = policy["status"]["conditions"].as_array();
    let mut wrong = conditions
        .into_iter()
        .flatten()
        .filter(|one| one["status"] == "False");
    match wrong.next() {
        Some(one) => text(&one["message"]).to_owned(),
        None if policy["status"]["phase"].is_null() => {
            "the coordinator has not looked at it yet".to_owned()
        }
        None => String::new(),
    }
}

/// What a job is, and how far.
pub fn job_line(job: &v1::JobInfo) -> String {
    let last = job.last.clone().unwrap_or_default();
    let far = match (last.state(), last.total_bytes) {
        (JobState::Queued | JobState::Unspecified, _) => "queued".to_owned(),
        (_, 0) => crate::output::bytes(last.done_bytes),
        (_, total) => format!("{} %", last.done_bytes.min(total) * 100 / total),
    };
    format!("{} of {} ({far})", job.what, job.volume)
}

fn attention(facts: &Facts, view: &View) -> Vec<String> {
    let mut found = Vec::new();
    if let Err(why) = &facts.told {
        found.push(format!("the coordinator cannot be asked: {why}"));
    }
    for (what, why) in [
        ("volumes", facts.protections.as_ref().err()),
        ("policies", facts.policies.as_ref().err()),
    ] {
        if let Some(why) = why {
            found.push(format!("{what} cannot be listed: {why}"));
        }
    }
    let count = |group: Group| view.counts.get(&group).copied().unwrap_or(0);
    for group in [Group::Failing, Group::Exposed, Group::Unprotected] {
        match count(group) {
            0 => {}
            1 => found.push(format!("1 volume is {}", group.word())),
            many => found.push(format!("{many} volumes are {}", group.word())),
        }
    }
    let invalid = view.idle.iter().filter(|policy| policy.phase == "Invalid");
    match invalid.count() {
        0 => {}
        1 => found.push("1 policy is invalid".to_owned()),
        many => found.push(format!("{many} policies are invalid")),
    }
    if !view.without_agent.is_empty() {
        let count = view.without_agent.len();
        let nodes = if count == 1 { "node has" } else { "nodes have" };
        found.push(format!("{count} {nodes} no agent"));
    }
    if !view.suspicious.is_empty() {
        found.push(format!(
            "{} volumes have suspicious snapshots",
            view.suspicious.len()
        ));
    }
    found
}

#[cfg(test)]
mod tests;
