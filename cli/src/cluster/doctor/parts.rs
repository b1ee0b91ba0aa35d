//! Judges clocks, coordinator, agents, store and certificates.

use super::gather::Told;
use super::nodes::is_linux;
use super::{Facts, Finding, State};
use crate::cluster::api::{name_of, text};
use crate::cluster::find::trouble;
use crate::cluster::view::age;
use holdfast_runtime::certificate;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Clocks may differ by so much.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// A certificate that ends so soon is told of.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Why clocks matter.
pub(super) const OF_CLOCKS: &str = "times of snapshots and schedules are those of these clocks, and certificates and \
                                    tokens fail where they differ much";
/// Pods that are named.
const NAMED: usize = 8;

/// The API server's clock beside ours.
pub fn clock(facts: &Facts) -> Finding {
    let check = "API server";
    match &facts.clock {
        Err(why) => Finding::new(
            check,
            State::Bad,
            why.clone(),
            "everything else is asked through it",
            "check the kubeconfig, its context and the network",
        ),
        Ok(Some((theirs, ours))) if theirs.duration_since(*ours).abs() > SKEW => Finding::new(
            check,
            State::Note,
            format!(
                "its clock and this host's differ by {}",
                age(theirs.duration_since(*ours).abs())
            ),
            OF_CLOCKS,
            "set both by NTP",
        ),
        Ok(_) => Finding::good(check, "answers; its clock agrees with this host's"),
    }
}

/// The coordinator's pod, and the Secret with the way to its key.
pub fn coordinator(facts: &Facts) -> Vec<Finding> {
    let check = "coordinator";
    let found = match &facts.found {
        Ok(found) => found,
        Err(why) => {
            return vec![Finding::new(
                check,
                State::Bad,
                why.clone(),
                "without it nothing is backed up",
                "helm install holdfast deploy/chart, or say where it is with --holdfast-namespace",
            )];
        }
    };
    let mut out = vec![match found.is_ready {
        true => Finding::good(
            check,
            format!(
                "pod {}/{} is ready on {}",
                found.namespace, found.pod, found.node
            ),
        ),
        false => Finding::new(
            check,
            State::Bad,
            format!("pod {}/{}: {}", found.namespace, found.pod, found.why),
            "without it nothing is backed up",
            format!(
                "kubectl holdfast logs coordinator, and kubectl describe -n {} pod {}",
                found.namespace, found.pod
            ),
        ),
    }];
    let volumes = facts.pod["spec"]["volumes"].as_array();
    let mut volumes = volumes.into_iter().flatten();
    let secret = volumes.find(|one| one["name"] == "encryption");
    let secret = secret.map(|one| text(&one["secret"]["secretName"]).to_owned());
    if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
        // The kubelet starts no container before it has mounted the Secret.
        let has_started = facts.pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|one| {
                one["state"]["running"].is_object() || one["restartCount"].as_u64() > Some(0)
            });
        out.push(match has_started || found.is_ready {
            true => Finding::good(
                "repository key",
                format!("Secret {secret} is there; keep a copy outside the cluster"),
            ),
            false => Finding::new(
                "repository key",
                State::Note,
                format!(
                    "the pod has not started: it is not known whether Secret {secret} is there"
                ),
                "who loses it loses the backups",
                format!(
                    "kubectl get -n {} secret {secret}; bring it back from your copy",
                    found.namespace
                ),
            ),
        });
    }
    out
}

/// The agents' pods, on every node that should have one.
pub fn agents(facts: &Facts) -> Vec<Finding> {
    let check = "agents";
    let why = "volumes of a node without an agent are not backed up";
    if facts.found.is_err() {
        return Vec::new();
    }
    let set = match &facts.agents {
        Ok(Some(set)) => set,
        Ok(None) => {
            return vec![Finding::new(
                check,
                State::Bad,
                "there is no DaemonSet of agents beside the coordinator",
                why,
                "install the chart as a whole",
            )];
        }
        Err(error) => {
            let mend = "have the Role holdfast-connect bound to you";
            return vec![Finding::new(
                check,
                State::Note,
                format!("not known: {error}"),
                why,
                mend,
            )];
        }
    };
    let count = |field: &str| set["status"][field].as_u64().unwrap_or(0);
    let (desired, ready) = (count("desiredNumberScheduled"), count("numberReady"));
    let mut out = Vec::new();
    if ready < desired || desired == 0 {
        let bad = facts.agent_pods.iter().map(|pod| (pod, trouble(pod)));
        let bad = bad.filter(|(_, why)| !why.is_empty());
        let named: Vec<String> = bad
            .take(NAMED)
            .map(|(pod, why)| format!("{}: {why}", text(&pod["spec"]["nodeName"])))
            .collect();
        out.push(Finding::new(
            check,
            State::Bad,
            format!("{ready} of {desired} pods are ready. {}", named.join("; ")).trim_end().to_owned(),
            why,
            format!(
                "kubectl holdfast logs agent NODE, and kubectl describe -n {} daemonset {}; a pods directory that is \
                 not there means that agent.kubeletRoot is another one on these nodes",
                name_of(set).0,
                name_of(set).1
            ),
        ));
    } else {
        out.push(Finding::good(
            check,
            format!("{ready} of {desired} pods are ready"),
        ));
    }
    if let Ok(nodes) = &facts.nodes {
        let has_none = |node: &&Value| {
            let mut pods = facts.agent_pods.iter();
            !pods.any(|pod| pod["spec"]["nodeName"] == node["metadata"]["name"])
        };
        let without: Vec<String> = nodes
            .iter()
            .filter(|node| is_linux(node))
            .filter(has_none)
            .map(|node| name_of(node).1.to_owned())
            .collect();
        if !without.is_empty() {
            let detail = format!(
                "no agent's pod ({} of {} nodes)",
                without.len(),
                nodes.len()
            );
            let finding = Finding::new(
                "nodes",
                State::Bad,
                detail,
                why,
                "look at agent.nodeSelector, agent.tolerations and agent.affinity of the chart's values",
            );
            out.push(finding.on(without));
        }
    }
    out
}

/// What the coordinator says: that it can be asked, its store, its certificate, its clock.
pub fn told(facts: &Facts) -> Vec<Finding> {
    if facts.found.is_err() {
        return Vec::new();
    }
    let Told { status, store, .. } = match &facts.told {
        Ok(told) => told,
        Err(why) => {
            return vec![Finding::new(
                "way to the coordinator",
                State::Bad,
                why.clone(),
                "volumes, snapshots, ls and others ask it through the API server",
                "kubectl holdfast logs coordinator; a NetworkPolicy does not keep this way shut, the right to \
                 create pods/portforward does",
            )];
        }
    };
    let ours = env!("CARGO_PKG_VERSION");
    let mut out = vec![match status.version == ours {
        true => Finding::good(
            "way to the coordinator",
            format!("it answers; version {ours}, as this program"),
        ),
        false => Finding::new(
            "way to the coordinator",
            State::Note,
            format!(
                "it answers; its version is {}, this program's {ours}",
                status.version
            ),
            "a verb may be missing on one side",
            format!("install version {} of this program", status.version),
        ),
    }];
    out.push(match (&*store.problem, store.damaged) {
        ("", 0) => Finding::good(
            "store",
            format!("{} can be read and written ({} ms)", status.store, store.took_ms),
        ),
        ("", damaged) => Finding::new(
            "store",
            State::Bad,
            format!("{damaged} objects in {} are damaged or missing", status.store),
            "snapshots that need them cannot be restored in full",
            "kubectl holdfast logs coordinator names them; bring them back from a copy of the store",
        ),
        (problem, _) => Finding::new(
            "store",
            State::Bad,
            format!("{}: {problem} ({})", status.store, store.reason),
            "nothing can be backed up, and perhaps nothing restored",
            "check the store's address, its credentials (credentials.existingSecret) and its room",
        ),
    });
    if status.now_ns != 0 {
        let theirs = Timestamp::from_nanosecond(status.now_ns.into()).unwrap_or_default();
        let skew = theirs.duration_since(facts.now).abs();
        if skew > SKEW {
            let detail = format!(
                "the coordinator's clock and this host's differ by {}",
                age(skew)
            );
            out.push(Finding::new(
                "clocks",
                State::Note,
                detail,
                OF_CLOCKS,
                "set all by NTP",
            ));
        } else {
            out.push(Finding::good(
                "clocks",
                "the coordinator's agrees with this host's",
            ));
        }
    }
    out.extend(certificates(facts, status.certificate_expires_ns));
    out
}

fn certificates(facts: &Facts, expires_ns: i64) -> Option<Finding> {
    let authority = facts.authority.as_ref()?;
    let of_authority = certificate::expires(authority).map(|at| ("the authority's", at));
    let shown = (expires_ns != 0).then_some(("the coordinator's", expires_ns / 1_000_000_000));
    let ends = [of_authority, shown].into_iter().flatten();
    let (whose, at) = ends.min_by_key(|(_, at)| *at)?;
    let at = Timestamp::from_second(at).ok()?;
    let left = at.duration_since(facts.now);
    let detail = format!("{whose} ends first, at {at}");
    Some(match left {
        left if left > SOON => Finding::good("certificates", detail),
        left => Finding::new(
            "certificates",
            if left.is_negative() {
                State::Bad
            } else {
                State::Note
            },
            detail,
            "agents and this program refuse a coordinator whose certificate has ended: nothing is backed up then",
            "tls.mode generated: delete both Secrets of the chart (…-tls, …-agent-tls), helm upgrade, and restart \
             coordinator and agents; else renew it where it comes from",
        ),
    })
}
