//! Judges what each agent says of itself and its node, and names the nodes for which none speaks. What holds of
//! several nodes is said once.

use super::gather::Told;
use super::parts::OF_CLOCKS;
use super::{Facts, Finding, State};
use crate::cluster::api::{name_of, text};
use crate::cluster::find::trouble;
use crate::cluster::view::age;
use crate::commands::doctor::is_new_enough;
use crate::commands::status::is_clock_right;
use holdfast_proto::v1::{AgentCondition, AgentInfo, VolumeInfo, VolumeState};
use jiff::SignedDuration;
use serde_json::Value;
use std::collections::BTreeSet;

const CONNECTED: &str = "agents connected";
/// An agent takes 75 % of the directories that its kernel lets it watch; of these percent it is told before.
const DIRECTORIES_PERCENT: u64 = 60;
/// The same of queues: what else runs on the node has some too.
const QUEUES_PERCENT: u64 = 75;

/// An agent, and what there is to know of its node.
struct Agent<'t> {
    info: &'t AgentInfo,
    /// How it says that it is; `None`: it has not said.
    said: Option<&'t AgentCondition>,
    /// States of the volumes that it serves.
    states: Vec<&'t VolumeState>,
    /// Version of the coordinator.
    version: &'t str,
}

/// One question about an agent.
type Topic = fn(&Agent<'_>) -> Vec<Finding>;

const TOPICS: [Topic; 8] = [
    itself, version, readiness, clock, kernel, journal, limits, landlock,
];

/// Judges them, where the coordinator could be asked.
pub fn nodes(facts: &Facts) -> Vec<Finding> {
    let (Ok(_), Ok(told)) = (&facts.found, &facts.told) else {
        return Vec::new();
    };
    let mut found = of_agents(told);
    let nodes = facts.nodes.as_deref().unwrap_or_default();
    // Without a list of pods each node should have one; else nodes without a pod are told of already.
    let pods = matches!(facts.agents, Ok(Some(_))).then_some(&facts.agent_pods[..]);
    found.extend(unconnected(&told.status.agents, pods, nodes));
    found
}

/// Whether agents belong on it.
pub fn is_linux(node: &Value) -> bool {
    let os = &node["metadata"]["labels"]["kubernetes.io/os"];
    os.is_null() || os == "linux"
}

fn of_agents(told: &Told) -> Vec<Finding> {
    // Restores have agents of their own for a while, under names that no node can have.
    let infos = told.status.agent_infos.iter();
    let agents: Vec<Agent<'_>> = infos
        .filter(|info| !info.node.contains('/'))
        .map(|info| Agent {
            info,
            said: info.condition.as_ref(),
            states: states(&told.volumes, &info.node),
            version: &told.status.version,
        })
        .collect();
    let mut found: Vec<Finding> = Vec::new();
    for topic in TOPICS {
        for agent in &agents {
            for one in topic(agent) {
                let node = agent.info.node.clone();
                let same = found.iter_mut().find(|other| is_same(other, &one));
                match same {
                    Some(other) => other.nodes.push(node),
                    None => found.push(one.on(vec![node])),
                }
            }
        }
    }
    found
}

fn states<'t>(volumes: &'t [VolumeInfo], node: &str) -> Vec<&'t VolumeState> {
    let here = volumes.iter().filter(|volume| volume.agent == node);
    here.filter_map(|volume| volume.state.as_ref()).collect()
}

fn is_same(one: &Finding, other: &Finding) -> bool {
    (&one.check, one.state, &one.detail, &one.mend)
        == (&other.check, other.state, &other.detail, &other.mend)
}

/// What it says that it is.
fn itself(agent: &Agent<'_>) -> Vec<Finding> {
    let Some(said) = agent.said else {
        return vec![Finding::new(
            CONNECTED,
            State::Note,
            "connected, and has said nothing of itself yet",
            "what would keep it from its work is not known",
            "ask again in a minute; an older agent never says it: bring it to the coordinator's version",
        )];
    };
    let mut parts = vec![format!("version {}", agent.info.version)];
    if !said.kernel.is_empty() {
        parts.push(format!("Linux {}", said.kernel));
    }
    let limit = queues_of(&said.journal).and_then(|(directories, _)| {
        Some(format!(" ({directories} {})", limit(said, directories)?))
    });
    parts.push(match &*said.journal {
        "" | "off" | "none" => "changes are not followed".to_owned(),
        journal => format!("changes by {journal}{}", limit.unwrap_or_default()),
    });
    parts.push(match said.landlock {
        0 => "not restricted".to_owned(),
        abi => format!("restricted by Landlock {abi}"),
    });
    if !said.kubelet_pods.is_empty() && said.troubles.is_empty() {
        let pods = &said.kubelet_pods;
        parts.push(format!(
            "pods' volumes below {pods}, where later mounts show"
        ));
    }
    vec![Finding::good(CONNECTED, parts.join(", "))]
}

fn version(agent: &Agent<'_>) -> Vec<Finding> {
    let theirs = &agent.info.version;
    if theirs == agent.version {
        return Vec::new();
    }
    vec![Finding::new(
        "agent version",
        State::Note,
        format!(
            "version {theirs}, and the coordinator's is {}",
            agent.version
        ),
        "what only one of them knows is not done",
        "wait for the agents' DaemonSet (kubectl rollout status), or helm upgrade so that both have one image",
    )]
}

/// What keeps it from being ready.
fn readiness(agent: &Agent<'_>) -> Vec<Finding> {
    let troubles = agent.said.into_iter().flat_map(|said| &said.troubles);
    let judged = troubles.map(|one| {
        let (check, why, mend) = match &*one.reason {
            "KubeletDirectoryMissing" | "KubeletDirectoryUnreadable" | "KubeletDirectoryWrong" => (
                "kubelet root",
                "no volume of a pod is found on this node; the agent is not ready",
                "set agent.kubeletRoot of the chart's values to what the kubelet has as --root-dir (the directory \
                 itself, no link to it), and helm upgrade",
            ),
            "MountPropagationMissing" => (
                "mount propagation",
                "volumes that are mounted later would be seen as empty directories; the agent is not ready",
                "mountPropagation: HostToContainer for this mount of the DaemonSet, as the chart has it; on the node \
                 it must be shared: findmnt -o TARGET,PROPAGATION",
            ),
            _ => (
                "agent readiness",
                "volumes of this node are not found; the agent is not ready",
                "kubectl holdfast logs agent NODE",
            ),
        };
        let detail = format!("{} ({})", one.detail, one.reason);
        Finding::new(check, State::Bad, detail, why, mend)
    });
    judged.collect()
}

/// The coordinator knows the clock by what the agent says of itself.
fn clock(agent: &Agent<'_>) -> Vec<Finding> {
    if agent.said.is_none() || is_clock_right(agent.info) {
        return Vec::new();
    }
    let ahead = SignedDuration::from_nanos(agent.info.clock_ahead_ns);
    let side = match ahead.is_positive() {
        true => "ahead of",
        false => "behind",
    };
    let detail = format!("its clock is {} {side} the coordinator's", age(ahead.abs()));
    let mend = "set it by NTP, and that of the coordinator's node";
    vec![Finding::new(
        "clocks of nodes",
        State::Note,
        detail,
        OF_CLOCKS,
        mend,
    )]
}

fn kernel(agent: &Agent<'_>) -> Vec<Finding> {
    let release = agent.said.map_or("", |said| &said.kernel);
    if release.is_empty() || is_new_enough(release) {
        return Vec::new();
    }
    vec![Finding::new(
        "kernel",
        State::Bad,
        format!("it runs Linux {release}"),
        "agents need what Linux has since 5.10",
        "bring the node's kernel up, or keep agents off it by agent.nodeSelector: its volumes are unprotected then",
    )]
}

fn journal(agent: &Agent<'_>) -> Vec<Finding> {
    let check = "change journal";
    let said = agent.said.filter(|said| !said.journal_detail.is_empty());
    let Some(said) = said else {
        return Vec::new();
    };
    let detail = &said.journal_detail;
    let finding = match &*said.journal {
        // Somebody chose that.
        "off" => return Vec::new(),
        "none" => Finding::new(
            check,
            State::Note,
            format!("changes cannot be followed: {detail}"),
            "each run walks its volumes as a whole, and nobody knows how far they are ahead of their snapshots",
            "look for what refuses inotify_init1: limits (fs.inotify), or a seccomp profile",
        ),
        journal => Finding::new(
            check,
            State::Note,
            format!("changes come by {journal} and by nothing better: {detail}"),
            "what is deleted or lost from a queue costs a walk of the volume, where fanotify names it",
            "agent.seccompProfile.type Localhost lets fanotify through (deploy/chart/README.md, \"Seccomp\"); all of it \
             is there since Linux 5.17",
        ),
    };
    vec![finding]
}

/// The kernel's limits of watched directories and of queues, one for each volume, where changes come from there.
fn queues_of(journal: &str) -> Option<(&'static str, &'static str)> {
    match journal {
        "inotify" => Some((
            "fs.inotify.max_user_watches",
            "fs.inotify.max_user_instances",
        )),
        "fanotify" | "fanotify without targets" => {
            Some(("fs.fanotify.max_user_marks", "fs.fanotify.max_user_groups"))
        }
        _ => None,
    }
}

fn limit(said: &AgentCondition, name: &str) -> Option<u64> {
    let mut limits = said.limits.iter();
    limits.find(|one| one.name == name).map(|one| one.value)
}

fn limits(agent: &Agent<'_>) -> Vec<Finding> {
    let names = agent.said.and_then(|said| queues_of(&said.journal));
    let (Some(said), Some((directories, queues))) = (agent.said, names) else {
        return Vec::new();
    };
    let states = || agent.states.iter();
    let watched: u64 = states().map(|state| state.watched_directories).sum();
    let followed = states().filter(|state| matches!(&*state.journal, "trusted" | "seeding"));
    let followed = u64::try_from(followed.count()).unwrap_or(u64::MAX);
    let refused = |reason: &str| states().filter(|state| state.reason == reason).count();
    let of_directories = Limit {
        name: directories,
        value: limit(said, directories),
        used: watched,
        percent: DIRECTORIES_PERCENT,
        refused: refused("WatchLimit"),
    };
    let of_queues = Limit {
        name: queues,
        value: limit(said, queues),
        used: followed,
        percent: QUEUES_PERCENT,
        refused: refused("InstanceLimit"),
    };
    [of_directories, of_queues]
        .iter()
        .filter_map(Limit::judge)
        .collect()
}

/// A limit of the kernel, and what is used of it.
struct Limit {
    name: &'static str,
    /// `None`: this kernel has no such limit, or the agent did not say.
    value: Option<u64>,
    used: u64,
    /// Share that may be used before it is told of.
    percent: u64,
    /// Volumes for which there was no room.
    refused: usize,
}

impl Limit {
    fn judge(&self) -> Option<Finding> {
        let (name, used) = (self.name, self.used);
        let is_near = self
            .value
            .is_some_and(|value| used.saturating_mul(100) > value.saturating_mul(self.percent));
        let stands = match self.value {
            Some(value) => format!("the agent uses {used} of {value} ({name})"),
            None => format!("the agent uses {used} ({name})"),
        };
        let detail = match self.refused {
            0 if is_near => stands,
            0 => return None,
            1 => format!("1 volume is walked for want of room: {stands}"),
            many => format!("{many} volumes are walked for want of room: {stands}"),
        };
        let more = self.value.map_or(String::new(), |value| {
            format!(", e.g. {name} = {}", value.saturating_mul(4))
        });
        Some(Finding::new(
            "watch limits",
            State::Note,
            detail,
            "a volume for which there is no room is walked as a whole by each run",
            format!(
                "raise {name} on these nodes by a file of /etc/sysctl.d{more}; all processes of the agent's user share it"
            ),
        ))
    }
}

fn landlock(agent: &Agent<'_>) -> Vec<Finding> {
    let free = agent.said.filter(|said| said.landlock == 0);
    let judged = free.map(|said| {
        Finding::new(
            "Landlock",
            State::Note,
            format!("the agent is not restricted: {}", said.landlock_detail),
            "whoever takes it over may read all that is mounted into it, not only volumes",
            "agent.landlock auto, and a kernel that has it: Linux 5.19, with landlock among the modules of lsm=",
        )
    });
    judged.into_iter().collect()
}

/// Nodes that should have a connected agent and have none. `pods`: those of agents, if they are known.
fn unconnected(connected: &[String], pods: Option<&[Value]>, nodes: &[Value]) -> Vec<Finding> {
    let node_of = |pod: &Value| text(&pod["spec"]["nodeName"]).to_owned();
    let expected: BTreeSet<String> = match pods {
        Some(pods) => pods.iter().map(node_of).collect(),
        None => {
            let linux = nodes.iter().filter(|node| is_linux(node));
            linux.map(|node| name_of(node).1.to_owned()).collect()
        }
    };
    let missing = expected.iter().filter(|name| !name.is_empty());
    let missing = missing.filter(|name| !connected.contains(name));
    let mut found: Vec<Finding> = Vec::new();
    for name in missing {
        let node = nodes.iter().find(|node| name_of(node).1 == name);
        let mut here = pods
            .into_iter()
            .flatten()
            .filter(|pod| node_of(pod) == *name);
        let pod = here.next().map(trouble);
        let (detail, mend) = match (node.is_some_and(is_away), pod.as_deref()) {
            (true, _) => (
                "none: the node is not ready".to_owned(),
                "kubectl describe node NODE",
            ),
            (false, Some("")) => (
                "none, though the agent's pod is ready".to_owned(),
                "ask again in a minute; then kubectl holdfast logs agent NODE",
            ),
            (false, Some(why)) => (
                format!("none; of the agent's pod: {why}"),
                "kubectl holdfast logs agent NODE: a foreign or expired certificate, DNS, or a NetworkPolicy on the \
                 way to port 7270 of the coordinator",
            ),
            (false, None) => (
                "none".to_owned(),
                "look at the agents' DaemonSet in the namespace of Holdfast",
            ),
        };
        let why = "volumes of a node without a connected agent are not backed up";
        let one = Finding::new(CONNECTED, State::Bad, detail, why, mend);
        match found.iter_mut().find(|other| is_same(other, &one)) {
            Some(other) => other.nodes.push(name.clone()),
            None => found.push(one.on(vec![name.clone()])),
        }
    }
    found
}

/// Whether its kubelet says that it is not ready, or nothing.
fn is_away(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] != "True")
}

#[cfg(test)]
mod tests;
