//! `kubectl holdfast logs`: what the coordinator or agents print, or what both say of a volume.

use crate::args::ClusterLogs;
use crate::cluster::api::{failure, name_of, text};
use crate::cluster::find::{self, Found};
use crate::cluster::kinds::PODS;
use crate::cluster::{Cluster, names};
use crate::failure::{Failure, Outcome};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use serde_json::Value;
use std::io::Write;
use tokio::sync::mpsc;

/// Lines that wait to be printed.
const LINES: usize = 1024;

/// A container whose log is read.
struct Source {
    pod: String,
    container: String,
    /// Stands before each line; empty where there is one source.
    mark: String,
}

/// Prints them.
pub async fn run(cluster: &Cluster, options: ClusterLogs) -> Outcome<()> {
    let who = options.who.as_deref().unwrap_or("coordinator");
    let is_agent = matches!(who, "agent" | "agents");
    if options.node.is_some() && !is_agent {
        return Err(Failure::usage("a node goes with `agent`: logs agent NODE"));
    }
    let volume = match who {
        "coordinator" | "agent" | "agents" => None,
        volume => Some(names::volume(volume, &cluster.namespace)?),
    };
    let found = find::coordinator(cluster).await?;
    let mut sources = Vec::new();
    if is_agent || volume.is_some() {
        sources = agents(cluster, &found, options.node.as_deref()).await?;
    }
    if !is_agent {
        sources.push(of_coordinator(&found, volume.is_some()));
    }
    print(cluster, &found, sources, volume, &options).await
}

fn of_coordinator(found: &Found, is_one_of_several: bool) -> Source {
    let name = "coordinator".to_owned();
    Source {
        pod: found.pod.clone(),
        mark: if is_one_of_several {
            name.clone()
        } else {
            String::new()
        },
        container: name,
    }
}

/// The agents' containers: of a node, or all.
async fn agents(cluster: &Cluster, found: &Found, node: Option<&str>) -> Outcome<Vec<Source>> {
    let namespace = &found.namespace;
    let listed = cluster.list(&PODS, Some(namespace), find::AGENT).await;
    let doing = format!("list pods of namespace {namespace}");
    let pods = listed.map_err(|error| failure(cluster, &doing, &error))?;
    let on = |pod: &Value| text(&pod["spec"]["nodeName"]).to_owned();
    let chosen: Vec<&Value> = pods
        .iter()
        .filter(|pod| node.is_none_or(|node| on(pod) == node))
        .collect();
    if chosen.is_empty() {
        let nodes: Vec<String> = pods.iter().map(on).collect();
        return Err(Failure::failed(match node {
            Some(node) => format!(
                "there is no agent on node {node:?}; there are agents on: {}",
                nodes.join(", ")
            ),
            None => format!("there is no agent in namespace {namespace}"),
        }));
    }
    let source = |pod: &&Value| Source {
        pod: name_of(pod).1.to_owned(),
        container: "agent".to_owned(),
        mark: if node.is_some() {
            String::new()
        } else {
            on(pod)
        },
    };
    Ok(chosen.iter().map(source).collect())
}

async fn print(
    cluster: &Cluster,
    found: &Found,
    sources: Vec<Source>,
    volume: Option<String>,
    options: &ClusterLogs,
) -> Outcome<()> {
    let (sender, mut lines) = mpsc::channel::<Result<String, Failure>>(LINES);
    for source in sources {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &found.namespace);
        let params = LogParams {
            container: Some(source.container.clone()),
            follow: options.follow,
            previous: options.previous,
            since_seconds: options
                .since
                .and_then(|since| i64::try_from(since.as_secs()).ok()),
            tail_lines: Some(options.tail.into()),
            ..LogParams::default()
        };
        let opened = pods.log_stream(&source.pod, &params).await;
        let doing = format!("read the log of pod {}/{}", found.namespace, source.pod);
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                // One that has just started has none; the others have.
                eprintln!("note: {}", failure(cluster, &doing, &error).message);
                continue;
            }
        };
        let (sender, volume) = (sender.clone(), volume.clone());
        tokio::spawn(async move {
            let mut lines = stream.lines();
            while let Some(line) = lines.next().await {
                let said = match line {
                    Ok(line)
                        if volume
                            .as_deref()
                            .is_some_and(|name| !speaks_of(&line, name)) =>
                    {
                        continue;
                    }
                    Ok(line) if source.mark.is_empty() => Ok(line),
                    Ok(line) => Ok(format!("{}: {line}", source.mark)),
                    Err(error) => Err(Failure::failed(format!("cannot {doing}: {error}"))),
                };
                if sender.send(said).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut any = false;
    while let Some(line) = lines.recv().await {
        any = true;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", line?)?;
        out.flush()?;
    }
    if !any && let Some(volume) = volume {
        eprintln!(
            "nothing was said of {volume} in the last {} lines of each log; --tail takes more",
            options.tail
        );
    }
    Ok(())
}

/// Whether a line is about a volume: its name stands there as a whole.
fn speaks_of(line: &str, volume: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    line.match_indices(volume).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + volume.len()..].chars().next();
        !before.is_some_and(is_inner) && !after.is_some_and(|c| is_inner(c) && c != '.')
    })
}

#[cfg(test)]
mod tests {
    use super::speaks_of;

    #[test]
    fn a_volume_is_meant_by_its_whole_name() {
        for line in [
            r#"{"volume":"shop/db","message":"backup started"}"#,
            "INFO backup started volume=shop/db job=1",
            "shop/db.",
        ] {
            assert!(speaks_of(line, "shop/db"), "{line}");
        }
        for line in [
            "volume=shop/db-1",
            "volume=bishop/db",
            "volume=shop/db/scratch",
            "volume=shop/d",
        ] {
            assert!(!speaks_of(line, "shop/db"), "{line}");
        }
    }
}
