//! `kubectl holdfast policies`: the policies of both kinds, when they run next, and what is wrong with them.

use crate::args::{Format, Global};
use crate::cluster::Cluster;
use crate::cluster::api::{failure_of_ours, list_ours, moment, text};
use crate::cluster::kinds::{CLUSTER_POLICIES, POLICIES};
use crate::cluster::view::{age, policy_message};
use crate::failure::Outcome;
use crate::output::{Table, wrapped};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Lists them: those of the namespace, or of all, and those of the cluster.
pub async fn run(global: &Global, cluster: &Cluster) -> Outcome<()> {
    let scope = cluster.scope();
    let mut found = list_ours(cluster, &POLICIES, scope).await?;
    match cluster.list(&CLUSTER_POLICIES, None, "").await {
        Ok(more) => found.extend(more),
        Err(error) => {
            let doing = "list clusterbackuppolicies";
            eprintln!(
                "note: {}",
                failure_of_ours(cluster, &CLUSTER_POLICIES, doing, &error).message
            );
        }
    }
    let now = Timestamp::now();
    let headings = &[
        "NAMESPACE",
        "NAME",
        "PHASE",
        "SCHEDULE",
        "NEXT",
        "VOLUMES",
        "FAILING",
        "OVERRULED",
        "PRIORITY",
        "LAST",
        "AGE",
    ];
    let mut table = Table::new(headings, 7);
    let mut wrong = Vec::new();
    for policy in &found {
        let (status, spec) = (&policy["status"], &policy["spec"]);
        let name = text(&policy["metadata"]["name"]);
        let namespace = match text(&policy["metadata"]["namespace"]) {
            "" => "(cluster)",
            namespace => namespace,
        };
        let phase = match text(&status["phase"]) {
            "" => "Unknown",
            phase => phase,
        };
        if phase != "Active" {
            wrong.push((
                format!("{namespace}/{name} is {phase}: "),
                policy_message(policy),
            ));
        }
        let count = |field: &str| {
            status[field]
                .as_i64()
                .map_or("-".to_owned(), |count| count.to_string())
        };
        let cells = vec![
            namespace.to_owned(),
            name.to_owned(),
            phase.to_owned(),
            rhythm(spec),
            until(&status["nextScheduleTime"], now),
            count("volumes"),
            count("failing"),
            count("overruled"),
            spec["priority"].as_i64().unwrap_or(0).to_string(),
            since(&status["lastScheduleTime"], now),
            since(&policy["metadata"]["creationTimestamp"], now),
        ];
        let document = json!({
            "kind": policy["kind"], "namespace": policy["metadata"]["namespace"], "name": name, "phase": phase,
            "message": policy_message(policy), "spec": spec, "status": status,
        });
        let plural = if namespace == "(cluster)" {
            "clusterbackuppolicy"
        } else {
            "backuppolicy"
        };
        table.push(cells, format!("{plural}/{name}"), document);
    }
    let place = scope.map_or("the cluster".to_owned(), |name| {
        format!("namespace {name}, or of the cluster")
    });
    table.print(
        global.output,
        &format!("no policies in {place}: nothing is protected until there is one; -A lists those of all namespaces"),
    )?;
    if matches!(global.output, Format::Table | Format::Wide) {
        for (heading, why) in wrong {
            println!();
            println!("{}", wrapped(&heading, &why, 80));
        }
    }
    Ok(())
}

/// When it runs, in a few words.
fn rhythm(spec: &Value) -> String {
    match (
        text(&spec["schedule"]["cron"]),
        text(&spec["exposure"]["maxAge"]),
    ) {
        ("", "") => "-".to_owned(),
        ("", max_age) => format!("within {max_age}"),
        (cron, _) => match text(&spec["schedule"]["timeZone"]) {
            "" | "UTC" => cron.to_owned(),
            zone => format!("{cron} {zone}"),
        },
    }
}

fn until(value: &Value, now: Timestamp) -> String {
    match moment(value) {
        None => "-".to_owned(),
        Some(at) if at <= now => "due".to_owned(),
        Some(at) => format!("in {}", age(at.duration_since(now))),
    }
}

fn since(value: &Value, now: Timestamp) -> String {
    moment(value).map_or("-".to_owned(), |at| age(now.duration_since(at)))
}
