//! One file per verb: options → call → print.

pub mod acknowledge;
pub mod backup;
pub mod cat;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod explain;
mod find;
pub mod forget;
pub mod in_cluster;
pub mod init;
pub mod jobs;
pub mod key;
pub mod ls;
pub mod rebuild;
pub mod restore;
pub mod snapshots;
pub mod status;
pub mod up;
pub mod volumes;

use crate::args::{Cli, ClusterCli, Command};
use crate::failure::{Exit, Failure, Outcome};
use crate::precedence::Typed;
use crate::selector::{Selection, Selector, id_of};
use holdfast_format::id::{SnapshotId, hex};
use holdfast_proto::v1::{self, admin_client::AdminClient};
use tonic::transport::Channel;

/// Runs the command that was typed.
pub async fn run(typed: Typed) -> Outcome<()> {
    match typed {
        Typed::Here(cli) => here(cli).await,
        Typed::InCluster(cli, program) => in_cluster::run(cli, program).await,
    }
}

async fn here(cli: Cli) -> Outcome<()> {
    let global = &cli.global;
    match cli.command {
        Command::Init(options) => init::run(global, &options).await,
        Command::Up(options) => up::run(global, options).await,
        Command::Backup(options) => backup::run(global, options).await,
        Command::Volumes => volumes::run(global).await,
        Command::Snapshots(options) => snapshots::run(global, options).await,
        Command::Ls(options) => ls::run(global, options).await,
        Command::Cat(options) => cat::run(global, options).await,
        Command::Find(options) => find::run(global, options).await,
        Command::Diff(options) => diff::run(global, options).await,
        Command::Dump(options) => dump::run(global, options).await,
        Command::Restore(options) => restore::run(global, options).await,
        Command::Forget(options) => forget::run(global, options).await,
        Command::Explain(options) => explain::run(global, options).await,
        Command::Acknowledge(options) => acknowledge::run(global, options).await,
        Command::Jobs(options) => jobs::run(global, options).await,
        Command::Status => status::run(global).await,
        Command::Doctor(options) => doctor::run(global, options).await,
        Command::Key(options) => key::run(global, options).await,
        Command::Rebuild => rebuild::run(global).await,
        Command::Completion { shell } => {
            completion(shell);
            Ok(())
        }
    }
}

fn completion(shell: clap_complete::Shell) {
    use clap::CommandFactory;
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "holdfast",
        &mut std::io::stdout(),
    );
}

/// For the verbs of the cluster: of the plugin by the name of its file, which shells complete.
fn completion_of_cluster(shell: clap_complete::Shell, program: &str) {
    use clap::CommandFactory;
    let file = match program {
        "kubectl holdfast" => "kubectl-holdfast",
        _ => "holdfast",
    };
    let mut command = ClusterCli::command();
    clap_complete::generate(shell, &mut command, file, &mut std::io::stdout());
}

/// All snapshots, as the coordinator lists them, and the records that it cannot read.
pub async fn list_snapshots(
    channel: &Channel,
    volume: Option<String>,
) -> Outcome<v1::SnapshotsReply> {
    let request = v1::SnapshotsRequest {
        volume: volume.unwrap_or_default(),
    };
    Ok(admin(channel).snapshots(request).await?.into_inner())
}

/// Refuses to call a snapshot the newest of its volume while a record of that volume cannot be read: it
/// may be newer, and yesterday's data must not pass for today's.
fn sure_of(listed: &v1::SnapshotsReply, info: &v1::SnapshotInfo) -> Outcome<()> {
    let of_volume = format!("snapshots/{}/", hex(&info.volume));
    let mut damaged = listed.damaged_records.iter();
    match damaged.find(|name| name.starts_with(&of_volume)) {
        None => Ok(()),
        Some(name) => Err(Failure::with(
            Exit::Damage,
            format!(
                "{name} is damaged, so which snapshot of the volume is meant is not sure; the newest that \
                 can be read is {}: name it by that id",
                hex(&info.id).get(..12).unwrap_or_default()
            ),
        )),
    }
}

/// The snapshot and path that were typed.
pub async fn select(
    channel: &Channel,
    text: &str,
) -> Outcome<(v1::SnapshotInfo, SnapshotId, Selection)> {
    let selection = Selection::parse(text)?;
    let listed = list_snapshots(channel, None).await?;
    let info = selection.snapshot.resolve(&listed.snapshots)?.clone();
    if !matches!(selection.snapshot, Selector::Id(_)) {
        sure_of(&listed, &info)?;
    }
    let id = id_of(&info)
        .ok_or_else(|| Failure::failed("the coordinator sent an id of the wrong length"))?;
    Ok((info, id, selection))
}

/// A client of the Admin service.
pub fn admin(channel: &Channel) -> AdminClient<Channel> {
    AdminClient::new(channel.clone()).max_decoding_message_size(crate::content::MAX_MESSAGE_BYTES)
}
