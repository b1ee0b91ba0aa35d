//! The verbs of `kubectl holdfast`. Those that `holdfast` has too are the same, through the cluster.

mod backup;
mod debug;
mod doctor;
mod explain;
mod logs;
mod policies;
mod restore;
mod status;

use super::{acknowledge, cat, diff, dump, find, forget, jobs, ls, snapshots, volumes};
use crate::args::{ClusterCli, ClusterCommand, Global};
use crate::cluster::find::Found;
use crate::cluster::view::Told;
use crate::cluster::{Cluster, names, tunnel};
use crate::failure::Outcome;
use holdfast_proto::v1;
use std::sync::Arc;

/// Runs the command that was typed.
pub async fn run(cli: ClusterCli, program: &'static str) -> Outcome<()> {
    if let ClusterCommand::Completion { shell } = cli.command {
        super::completion_of_cluster(shell, program);
        return Ok(());
    }
    let cluster = Arc::new(Cluster::open(&cli.global.cluster).await?);
    let mut global = cli.global;
    global.at = Some(cluster.clone());
    let here = &cluster.namespace[..];
    let (global, cluster) = (&global, &*cluster);
    match cli.command {
        ClusterCommand::Status(options) => status::run(global, cluster, &options).await,
        ClusterCommand::Policies => policies::run(global, cluster).await,
        ClusterCommand::Explain(options) => explain::run(global, cluster, options).await,
        ClusterCommand::Backup(options) => backup::run(global, cluster, options).await,
        ClusterCommand::Restore(options) => restore::run(global, cluster, options).await,
        ClusterCommand::Doctor => doctor::run(global, cluster).await,
        ClusterCommand::Logs(options) => logs::run(cluster, options).await,
        ClusterCommand::Debug(options) => debug::run(global, cluster, options).await,
        ClusterCommand::Volumes => volumes::run(global).await,
        ClusterCommand::Snapshots(mut options) => {
            options.volume = named(options.volume, here)?;
            options.problems = options
                .problems
                .map(|text| names::selector(&text, here))
                .transpose()?;
            snapshots::run(global, options).await
        }
        ClusterCommand::Ls(mut options) => {
            options.snapshot = names::selector(&options.snapshot, here)?;
            ls::run(global, options).await
        }
        ClusterCommand::Cat(mut options) => {
            options.snapshot = names::selector(&options.snapshot, here)?;
            cat::run(global, options).await
        }
        ClusterCommand::Find(mut options) => {
            options.volume = named(options.volume, here)?;
            find::run(global, options).await
        }
        ClusterCommand::Diff(mut options) => {
            options.from = names::selector(&options.from, here)?;
            options.to = names::selector(&options.to, here)?;
            diff::run(global, options).await
        }
        ClusterCommand::Dump(mut options) => {
            options.snapshot = names::selector(&options.snapshot, here)?;
            dump::run(global, options).await
        }
        ClusterCommand::Forget(mut options) => {
            options.snapshot = names::selector(&options.snapshot, here)?;
            forget::run(global, options).await
        }
        ClusterCommand::Acknowledge(mut options) => {
            options.snapshot = names::selector(&options.snapshot, here)?;
            acknowledge::run(global, options).await
        }
        ClusterCommand::Jobs(options) => jobs::run(global, options).await,
        ClusterCommand::Completion { .. } => Ok(()),
    }
}

fn named(volume: Option<String>, namespace: &str) -> Outcome<Option<String>> {
    volume
        .map(|text| names::volume(&text, namespace))
        .transpose()
}

/// Asks the coordinator of the cluster: what it says of itself, of volumes and of jobs.
async fn ask(global: &Global, cluster: &Cluster, found: &Found) -> Outcome<Told> {
    let channel = tunnel::channel(cluster, found, global).await?;
    let mut admin = super::admin(&channel);
    Ok(Told {
        status: admin.status(v1::StatusRequest {}).await?.into_inner(),
        volumes: admin
            .volumes(v1::VolumesRequest {})
            .await?
            .into_inner()
            .volumes,
        jobs: admin.jobs(v1::JobsRequest {}).await?.into_inner().jobs,
    })
}
