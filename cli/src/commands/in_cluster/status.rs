//! `kubectl holdfast status`: the whole cluster on one screen. It ends with 0 where it could be told, and with
//! --strict only where nothing needs attention.

use super::ask;
use crate::args::{ClusterStatus, Format, Global};
use crate::cluster::api::{list_ours, text};
use crate::cluster::find::{self, Found};
use crate::cluster::kinds::{CLUSTER_POLICIES, DAEMON_SETS, Kind, NODES, POLICIES, PROTECTIONS};
use crate::cluster::view::{Facts, Group, Told, View, age, job_line, view};
use crate::cluster::{Cluster, api};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{bytes, document, fit, wrapped};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Volumes of each group that are named.
const NAMED: usize = 5;
/// Columns.
const WIDTH: usize = 80;

/// Looks, and prints.
pub async fn run(global: &Global, cluster: &Cluster, options: &ClusterStatus) -> Outcome<()> {
    let (found, facts) = look(global, cluster).await;
    let view = view(&facts);
    match global.output {
        Format::Json | Format::Yaml => {
            document(global.output, &as_document(&found, &facts, &view))?;
        }
        Format::Name => {
            let bad = view
                .volumes
                .iter()
                .filter(|one| one.group != Group::Protected);
            bad.for_each(|one| println!("{}", one.name));
        }
        Format::Table | Format::Wide => {
            let named = if global.output == Format::Wide {
                usize::MAX
            } else {
                NAMED
            };
            print(&found, &facts, &view, named);
        }
    }
    let failed = |message: String| match global.output {
        Format::Table | Format::Wide => Failure::failed(message),
        _ => Failure::with(Exit::Failed, ""),
    };
    if let Err(why) = &facts.told {
        return Err(failed(why.clone()));
    }
    if let Err(why) = &facts.protections {
        return Err(failed(why.clone()));
    }
    match view.attention.is_empty() || !options.strict {
        true => Ok(()),
        false => Err(failed(format!(
            "it needs attention (--strict): {}",
            view.attention.join(", ")
        ))),
    }
}

async fn look(global: &Global, cluster: &Cluster) -> (Result<Found, String>, Facts) {
    let scope = cluster.view_scope();
    let ours = async |kind: &Kind| list_ours(cluster, kind, scope).await.map_err(|e| e.message);
    let found = find::coordinator(cluster).await.map_err(|e| e.message);
    let told = match &found {
        Ok(found) => ask(global, cluster, found).await.map_err(|e| e.message),
        Err(why) => Err(why.clone()),
    };
    let (protections, of_namespaces, of_cluster, nodes) = tokio::join!(
        ours(&PROTECTIONS),
        ours(&POLICIES),
        ours(&CLUSTER_POLICIES),
        cluster.list(&NODES, None, ""),
    );
    let policies = of_namespaces.and_then(|mut list| {
        // Who may see one namespace only may not see those of the cluster.
        match (of_cluster, scope) {
            (Ok(more), _) => list.extend(more),
            (Err(_), Some(_)) => {}
            (Err(why), None) => return Err(why),
        }
        Ok(list)
    });
    let agents = match &found {
        Ok(found) => {
            let sets = cluster
                .list(&DAEMON_SETS, Some(&found.namespace), find::AGENT)
                .await;
            sets.ok().and_then(|sets| sets.into_iter().next())
        }
        Err(_) => None,
    };
    let mut told = told;
    if let (Some(scope), Ok(told)) = (scope, &mut told) {
        let is_here = |name: &str| name.split('/').next() == Some(scope);
        told.volumes
            .retain(|one| one.facts.as_ref().is_some_and(|facts| is_here(&facts.name)));
        told.jobs.retain(|job| is_here(&job.volume));
    }
    let facts = Facts {
        told,
        protections,
        policies,
        nodes: nodes.map_err(|e| api::failure(cluster, "list nodes", &e).message),
        agents,
        now: Timestamp::now(),
    };
    (found, facts)
}

/// A heading and what is said under it, in lines that fit.
fn line(heading: &str, said: &str) {
    println!("{}", wrapped(&format!("{heading:<12}"), said, WIDTH));
}

fn print(found: &Result<Found, String>, facts: &Facts, view: &View, named: usize) {
    match (found, &facts.told) {
        (Ok(found), told) => {
            let version = told.as_ref().map_or("", |told| &told.status.version);
            let state = match &*found.why {
                "" => "ready".to_owned(),
                why => format!("NOT READY: {why}"),
            };
            line(
                "coordinator",
                format!("{version} in {}/{}, {state}", found.namespace, found.pod).trim_start(),
            );
        }
        (Err(_), _) => line("coordinator", "NOT FOUND"),
    }
    match &facts.told {
        Ok(told) => print_store(told),
        Err(why) if found.is_ok() => line("", why),
        Err(_) => {}
    }
    line("agents", &agents(facts, view));
    line("volumes", &volumes(facts, view));
    line("policies", &policies(facts, view));
    if !view.suspicious.is_empty() {
        line(
            "suspicious",
            &format!(
                "{}: see `kubectl holdfast snapshots`",
                some(&view.suspicious)
            ),
        );
    }
    let running: Vec<String> = view.running.iter().map(job_line).collect();
    if !running.is_empty() {
        line("running", &some(&running));
    }
    for policy in view.idle.iter().filter(|policy| policy.phase == "Invalid") {
        println!();
        println!(
            "{}",
            wrapped(
                &format!("policy {} is invalid: ", policy.name),
                &policy.message,
                WIDTH
            )
        );
    }
    for group in [
        Group::Failing,
        Group::Exposed,
        Group::Unprotected,
        Group::Unsupported,
        Group::Pending,
    ] {
        print_group(view, group, named);
    }
}

fn print_store(told: &Told) {
    let status = &told.status;
    line(
        "store",
        &format!(
            "{}: {} snapshots, {} in {} packs",
            status.store,
            status.snapshots,
            bytes(status.pack_bytes),
            status.packs
        ),
    );
}

fn agents(facts: &Facts, view: &View) -> String {
    let connected = facts.told.as_ref().map(|told| told.status.agents.len());
    match (connected, view.nodes) {
        (Err(_), _) => "not known".to_owned(),
        (Ok(connected), None) => format!("{connected} connected; you may not list nodes"),
        (Ok(_), Some(nodes)) => {
            let missing = &view.without_agent;
            match missing.is_empty() {
                true => format!("connected on all {nodes} nodes"),
                false => format!(
                    "connected on {} of {nodes} nodes; NONE ON {}",
                    nodes - missing.len(),
                    some(missing)
                ),
            }
        }
    }
}

fn volumes(facts: &Facts, view: &View) -> String {
    if let Err(why) = &facts.protections {
        return why.clone();
    }
    let count = |group: Group| view.counts.get(&group).copied().unwrap_or(0);
    let mut said: Vec<String> = [
        Group::Protected,
        Group::Exposed,
        Group::Failing,
        Group::Unprotected,
    ]
    .map(|group| format!("{} {}", count(group), group.word()))
    .into();
    for group in [Group::Pending, Group::Unsupported, Group::LeftOut] {
        if count(group) > 0 {
            said.push(format!("{} {}", count(group), group.word()));
        }
    }
    said.join(", ")
}

fn policies(facts: &Facts, view: &View) -> String {
    if let Err(why) = &facts.policies {
        return why.clone();
    }
    if view.active == 0 && view.idle.is_empty() {
        return "none: nothing is protected until there is one (deploy/README.md)".to_owned();
    }
    let mut said = vec![format!("{} active", view.active)];
    for phase in ["Suspended", "Invalid", "Unknown"] {
        let of = view.idle.iter().filter(|policy| policy.phase == phase);
        let names: Vec<String> = of.map(|policy| policy.name.clone()).collect();
        if !names.is_empty() {
            said.push(format!(
                "{} {} ({})",
                names.len(),
                phase.to_lowercase(),
                some(&names)
            ));
        }
    }
    said.join(", ")
}

/// The first few of many.
fn some(names: &[String]) -> String {
    let mut said = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        said.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    said
}

fn print_group(view: &View, group: Group, named: usize) {
    let of: Vec<_> = view
        .volumes
        .iter()
        .filter(|one| one.group == group)
        .collect();
    if of.is_empty() {
        return;
    }
    println!();
    println!("{} ({})", group.word().to_uppercase(), of.len());
    for one in of.iter().take(named) {
        let since = one
            .since
            .map_or_else(String::new, |since| format!("{}, ", age(since)));
        let why = match &*one.message {
            "" => format!("{since}{}", one.reason),
            message => format!("{since}{}: {message}", one.reason),
        };
        println!("  {}", one.name);
        println!("    {}", fit(&why, WIDTH - 4));
    }
    if of.len() > named {
        println!(
            "  and {} more: `kubectl holdfast status -o wide`",
            of.len() - named
        );
    }
}

fn as_document(found: &Result<Found, String>, facts: &Facts, view: &View) -> Value {
    let told = facts.told.as_ref();
    let status = told.as_ref().ok().map(|told| &told.status);
    json!({
        "coordinator": match found {
            Ok(found) => json!({
                "namespace": found.namespace, "pod": found.pod, "ready": found.is_ready, "message": found.why,
                "version": status.map(|status| &status.version), "store": status.map(|status| &status.store),
                "snapshots": status.map(|status| status.snapshots), "reached": told.is_ok(),
                "error": told.as_ref().err(),
            }),
            Err(why) => json!({"reached": false, "error": why}),
        },
        "agents": {
            "connected": status.map(|status| &status.agents), "nodes": view.nodes,
            "nodesWithoutAgent": view.without_agent,
        },
        "counts": view.counts.iter().map(|(group, count)| (group.word().replace(' ', "-"), json!(count)))
            .collect::<serde_json::Map<_, _>>(),
        "volumes": view.volumes.iter().map(|one| json!({
            "name": one.name, "state": one.group.word().replace(' ', "-"), "reason": one.reason, "message": one.message,
            "forSeconds": one.since.map(|since| since.as_secs()),
        })).collect::<Vec<_>>(),
        "policies": facts.policies.as_ref().ok().map(|list| list.iter().map(|policy| json!({
            "name": crate::cluster::view::policy_name(policy), "phase": text(&policy["status"]["phase"]),
            "message": crate::cluster::view::policy_message(policy),
        })).collect::<Vec<_>>()),
        "suspicious": view.suspicious,
        "running": view.running.iter().map(crate::commands::jobs::as_document).collect::<Vec<_>>(),
        "attention": view.attention,
    })
}
