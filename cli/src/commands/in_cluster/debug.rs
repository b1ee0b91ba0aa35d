//! `kubectl holdfast debug`: a bundle for whoever helps: objects, events, logs, metrics and what `doctor` found,
//! without secrets (`cluster/redact.rs`). What could not be had is named in it.

use crate::args::{ClusterDebug, Global};
use crate::cluster::api::{MOST, name_of, text};
use crate::cluster::find::{self, Found};
use crate::cluster::kinds::{
    BACKUPS, CLUSTER_POLICIES, CONFIG_MAPS, DAEMON_SETS, DEFINITIONS, EVENTS, Kind, NODES, PODS,
    POLICIES, PROTECTIONS, RESTORES, SERVICES, STATEFUL_SETS,
};
use crate::cluster::tunnel::Port;
use crate::cluster::{Cluster, redact};
use crate::failure::{Failure, Outcome};
use crate::tar::{Header, Member, TarWriter};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Bytes of one log.
const LOG_BYTES: i64 = 4 << 20;
/// Objects of one kind.
const OBJECTS: usize = 2_000;
/// Pods whose logs and metrics are taken: the coordinator's, those that are in trouble, then others.
const PODS_TAKEN: usize = 30;

struct Bundle {
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<String>,
}

/// Collects and writes it.
pub async fn run(global: &Global, cluster: &Cluster, options: ClusterDebug) -> Outcome<()> {
    let to_stdout = options.file == Path::new("-");
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "standard output is a terminal: name a file with --file",
        ));
    }
    let mut bundle = Bundle {
        files: Vec::new(),
        missing: Vec::new(),
    };
    bundle.put(
        "version.json",
        &json!({
            "program": env!("CARGO_PKG_VERSION"),
            "server": redact::text(&cluster.server),
            "cluster": cluster.client.apiserver_version().await.ok().map(|info| info.git_version),
        }),
    );
    let found = find::coordinator(cluster).await;
    let findings = super::doctor::findings(global, cluster).await;
    bundle.put("doctor.json", &redact::object(&Value::Array(findings)));
    for (kind, selector) in [
        (&POLICIES, ""),
        (&CLUSTER_POLICIES, ""),
        (&PROTECTIONS, ""),
        (&BACKUPS, ""),
        (&RESTORES, ""),
        (&NODES, ""),
    ] {
        bundle.objects(cluster, kind, None, selector).await;
    }
    bundle.definitions(cluster).await;
    match &found {
        Ok(found) => {
            let here = Some(&*found.namespace);
            const OURS: &str = "app.kubernetes.io/part-of=holdfast";
            for (kind, selector) in [
                (&STATEFUL_SETS, OURS),
                (&DAEMON_SETS, OURS),
                (&SERVICES, OURS),
                (&CONFIG_MAPS, OURS),
                (&EVENTS, ""),
            ] {
                bundle.objects(cluster, kind, here, selector).await;
            }
            bundle.pods(cluster, found, options.tail).await;
        }
        Err(why) => bundle.missing.push(format!("what runs: {}", why.message)),
    }
    let missing = bundle.missing.join("\n");
    bundle.files.push((
        "missing.txt".to_owned(),
        redact::text(&missing).into_bytes(),
    ));
    bundle.write(&options.file, to_stdout)?;
    if !global.quiet && !to_stdout {
        eprintln!(
            "wrote {} with {} files; it has no secrets, but names of volumes, nodes and namespaces: look at it \
             before you send it",
            options.file.display(),
            bundle.files.len()
        );
        for missing in &bundle.missing {
            eprintln!("note: not in it: {missing}");
        }
    }
    Ok(())
}

impl Bundle {
    fn put(&mut self, name: &str, value: &Value) {
        let bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
        self.files.push((name.to_owned(), bytes));
    }

    async fn objects(
        &mut self,
        cluster: &Cluster,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &str,
    ) {
        match cluster.list(kind, namespace, selector).await {
            Ok(list) => {
                let clean: Vec<Value> = list.iter().take(OBJECTS).map(redact::object).collect();
                self.put(
                    &format!("objects/{}.json", kind.plural),
                    &Value::Array(clean),
                );
                if list.len() > OBJECTS {
                    let more = if list.len() >= MOST { "more than " } else { "" };
                    self.missing.push(format!(
                        "{}: {OBJECTS} of {more}{}",
                        kind.plural,
                        list.len()
                    ));
                }
            }
            Err(error) => self.missing.push(format!("{}: {error}", kind.plural)),
        }
    }

    /// Of the definitions of our kinds their versions: the rest is known.
    async fn definitions(&mut self, cluster: &Cluster) {
        match cluster.list(&DEFINITIONS, None, "").await {
            Ok(list) => {
                let ours = list
                    .iter()
                    .filter(|one| one["spec"]["group"] == "holdfast.dev");
                let short = ours.map(|one| {
                    json!({
                        "name": name_of(one).1, "conditions": one["status"]["conditions"],
                        "versions": one["spec"]["versions"].as_array().into_iter().flatten()
                            .map(|version| version["name"].clone()).collect::<Vec<_>>(),
                    })
                });
                self.put(
                    "objects/customresourcedefinitions.json",
                    &redact::object(&short.collect()),
                );
            }
            Err(error) => self
                .missing
                .push(format!("customresourcedefinitions: {error}")),
        }
    }

    /// Pods of ours, what they print, and their metrics.
    async fn pods(&mut self, cluster: &Cluster, found: &Found, tail: u32) {
        const OURS: &str = "app.kubernetes.io/part-of=holdfast";
        let listed = cluster.list(&PODS, Some(&found.namespace), OURS).await;
        let mut pods = match listed {
            Ok(pods) => pods,
            Err(error) => return self.missing.push(format!("pods: {error}")),
        };
        self.put(
            "objects/pods.json",
            &Value::Array(pods.iter().map(redact::object).collect()),
        );
        pods.sort_by_key(|pod| (name_of(pod).1 != found.pod, find::trouble(pod).is_empty()));
        if pods.len() > PODS_TAKEN {
            self.missing.push(format!(
                "logs and metrics: of {PODS_TAKEN} of {} pods",
                pods.len()
            ));
        }
        for pod in pods.iter().take(PODS_TAKEN) {
            self.logs(cluster, pod, tail).await;
            let (namespace, name) = name_of(pod);
            let port = match name == found.pod {
                true => found.http,
                false => find::port(pod, "http", 7272),
            };
            let port = Port::new(namespace, name, port);
            for page in ["metrics", "readyz"] {
                match port.page(&cluster.client, &format!("/{page}")).await {
                    Ok((_, body)) => self.files.push((
                        format!("pods/{name}/{page}.txt"),
                        redact::text(&body).into_bytes(),
                    )),
                    Err(error) => {
                        self.missing.push(format!("{page} of {name}: {error}"));
                        break;
                    }
                }
            }
        }
    }

    async fn logs(&mut self, cluster: &Cluster, pod: &Value, tail: u32) {
        let (namespace, name) = name_of(pod);
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let spec = &pod["spec"];
        let lists = ["initContainers", "containers"];
        let containers = lists
            .into_iter()
            .flat_map(|list| spec[list].as_array().into_iter().flatten());
        for container in containers {
            let container = text(&container["name"]);
            let statuses = pod["status"]["containerStatuses"].as_array();
            let restarted = statuses.into_iter().flatten().any(|one| {
                one["name"] == container && one["restartCount"].as_u64().unwrap_or(0) > 0
            });
            for previous in [false, true] {
                if previous && !restarted {
                    continue;
                }
                let params = LogParams {
                    container: Some(container.to_owned()),
                    previous,
                    tail_lines: Some(tail.into()),
                    limit_bytes: Some(LOG_BYTES),
                    ..LogParams::default()
                };
                let mark = if previous { ".previous" } else { "" };
                match pods.logs(name, &params).await {
                    Ok(said) => self.files.push((
                        format!("pods/{name}/{container}{mark}.log"),
                        redact::text(&said).into_bytes(),
                    )),
                    Err(error) => self
                        .missing
                        .push(format!("log of {name}/{container}{mark}: {error}")),
                }
            }
        }
    }

    fn write(&self, file: &Path, to_stdout: bool) -> Outcome<()> {
        let out: Box<dyn Write> = match to_stdout {
            true => Box::new(std::io::stdout().lock()),
            false => Box::new(std::fs::File::create(file).map_err(|error| {
                Failure::failed(format!("cannot write {}: {error}", file.display()))
            })?),
        };
        let mut tar = TarWriter::new(out);
        for (name, bytes) in &self.files {
            let path = format!("holdfast-debug/{name}");
            tar.member(&Header {
                member: Member::File,
                path: path.as_bytes(),
                mode: 0o600,
                uid: 0,
                gid: 0,
                mtime_ns: 0,
                size: bytes.len() as u64,
                link: b"",
                major: 0,
                minor: 0,
                xattrs: Vec::new(),
            })?;
            tar.data(bytes)?;
        }
        tar.finish()?;
        Ok(())
    }
}
