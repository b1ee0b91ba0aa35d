//! The cluster as its operator reaches it: API server, coordinator behind it, and what their objects say.
//!
//! Everything here works with the rights of the user, and says which one is missing. Objects are read as they
//! are: a cluster may be newer or older than this program.

pub mod api;
pub mod doctor;
pub mod find;
pub mod kinds;
pub mod names;
pub mod redact;
pub mod run;
pub mod trust;
pub mod tunnel;
pub mod view;

use crate::args::ClusterArgs;
use crate::failure::{Failure, Outcome, chain};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How long the API server may take to be reached.
const CONNECT: Duration = Duration::from_secs(10);

/// A cluster whose API server is known.
pub struct Cluster {
    /// The way to its API.
    pub client: Client,
    /// What is meant where no namespace is named.
    pub namespace: String,
    /// Whether all namespaces are meant.
    pub is_all: bool,
    /// Whether a namespace was asked for by name.
    pub is_named: bool,
    /// Where Holdfast runs, if that was said.
    pub holdfast_namespace: Option<String>,
    /// Address of the API server.
    pub server: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster at {}", self.server)
    }
}

impl Cluster {
    /// The one that the options and the environment lead to. Nothing is asked yet.
    pub async fn open(args: &ClusterArgs) -> Outcome<Self> {
        for name in [&args.namespace, &args.holdfast_namespace]
            .into_iter()
            .flatten()
        {
            names::check("namespace", name)?;
        }
        let mut config = config(args).await?;
        config.connect_timeout = Some(CONNECT);
        // Who typed a command wants to know that the server is away, not to wait for minutes.
        config.default_retry = false;
        let namespace = args.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|e| {
            Failure::failed(format!("cannot use the API server {server}: {}", chain(&e)))
        })?;
        Ok(Self {
            client,
            namespace,
            is_all: args.all_namespaces,
            is_named: args.namespace.is_some(),
            holdfast_namespace: args.holdfast_namespace.clone(),
            server,
        })
    }

    /// The one namespace that lists are about; `None`: all.
    pub fn scope(&self) -> Option<&str> {
        (!self.is_all).then_some(&*self.namespace)
    }

    /// The one namespace that an overview is about; `None`: the cluster, unless one was asked for.
    pub fn view_scope(&self) -> Option<&str> {
        (self.is_named && !self.is_all).then_some(&*self.namespace)
    }
}

/// The files that KUBECONFIG names and that are there, as kubectl takes them; `None`: there are none.
fn files() -> Option<Vec<PathBuf>> {
    let named = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    let files: Vec<PathBuf> = match named {
        Some(list) => std::env::split_paths(&list).collect(),
        None => {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
            vec![PathBuf::from(home).join(".kube/config")]
        }
    };
    let there: Vec<PathBuf> = files.into_iter().filter(|file| file.is_file()).collect();
    (!there.is_empty()).then_some(there)
}

async fn config(args: &ClusterArgs) -> Outcome<Config> {
    let files = match &args.kubeconfig {
        Some(file) => Some(vec![file.clone()]),
        None => files(),
    };
    let Some(files) = files else {
        if args.context.is_none()
            && let Ok(config) = Config::incluster()
        {
            return Ok(config);
        }
        return Err(Failure::usage(
            "no way to a cluster: KUBECONFIG names no file that is there, nor is there ~/.kube/config, and this \
             is no pod; give --kubeconfig FILE",
        ));
    };
    let mut merged = Kubeconfig::default();
    for file in &files {
        let wrong = |e: kube::config::KubeconfigError| {
            Failure::usage(format!("kubeconfig {}: {}", file.display(), chain(&e)))
        };
        merged = merged
            .merge(Kubeconfig::read_from(file).map_err(wrong)?)
            .map_err(wrong)?;
    }
    if let Some(context) = &args.context
        && !merged.contexts.iter().any(|one| one.name == *context)
    {
        let known = merged.contexts.iter().map(|one| &*one.name);
        return Err(Failure::usage(format!(
            "the kubeconfig has no context {context:?}; it has: {}",
            known.collect::<Vec<_>>().join(", ")
        )));
    }
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(merged, &options)
        .await
        .map_err(|e| Failure::usage(format!("kubeconfig {}: {}", files[0].display(), chain(&e))))
}
