//! What can be typed where the cluster is worked on: `kubectl holdfast …`, or `holdfast --cluster …`.

use super::{
    Acknowledge, Cat, Diff, Dump, Explain, Find, Forget, Global, Jobs, Ls, Snapshots, parse_age,
};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Which cluster, and what of it.
#[derive(Args, Debug, Clone, Default)]
pub struct ClusterArgs {
    /// Work on the cluster that the kubeconfig leads to (`holdfast --cluster --help`)
    #[arg(long, global = true, help_heading = "Cluster")]
    pub cluster: bool,
    /// Kubeconfig, in place of those that KUBECONFIG names
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, in place of its current one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// Namespace, in place of the context's
    #[arg(
        long,
        short = 'n',
        global = true,
        value_name = "NAME",
        help_heading = "Cluster"
    )]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(
        long,
        short = 'A',
        global = true,
        conflicts_with = "namespace",
        help_heading = "Cluster"
    )]
    pub all_namespaces: bool,
    /// Namespace that Holdfast runs in; without it, it is looked for
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub holdfast_namespace: Option<String>,
}

/// Protect the volumes of a cluster, and bring them back.
#[derive(Parser, Debug)]
#[command(
    name = "holdfast",
    version,
    max_term_width = 80,
    after_help = "EXIT CODES\n  \
        0 done            1 failed            2 wrong usage\n  \
        3 stored or restored, but incomplete\n  \
        4 damage found    5 refused           13 not allowed\n  \
        130 interrupted (what was started in the cluster goes on)\n\n\
        `status` and `doctor` end with 1 where they found what keeps volumes from being\n\
        protected: `doctor` always, `status` with --strict.\n\n\
        A claim is named as NAME or pvc/NAME in the namespace, or as NAMESPACE/NAME. A\n\
        snapshot is named by the start of its id, CLAIM@latest or CLAIM@TIME (RFC 3339\n\
        or a date, UTC). A path follows the first `:/`: uploads@latest:/etc/app.conf"
)]
pub struct ClusterCli {
    /// Where, and how to print.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// The whole cluster on one screen: what is protected, and what is not
    Status(Status),
    /// List policies, and what is wrong with them
    Policies,
    /// Say why a claim or a pod's volumes are protected, or are not
    Explain(Explain),
    /// Back up claims now
    Backup(Backup),
    /// Bring a claim back: as it was at a time, in place, as a new claim, or here
    Restore(Restore),
    /// List volumes, and why some are not protected
    Volumes,
    /// List snapshots
    Snapshots(Snapshots),
    /// List what a snapshot holds
    Ls(Ls),
    /// Write one file of a snapshot to standard output
    Cat(Cat),
    /// History of the paths that match a pattern, over snapshots
    Find(Find),
    /// What changed between two snapshots: + added, - removed, M content, m metadata
    Diff(Diff),
    /// Write a snapshot to standard output as a tar archive
    Dump(Dump),
    /// Remove a snapshot
    Forget(Forget),
    /// Take a suspicious snapshot as it is, so that older ones may be forgotten again
    Acknowledge(Acknowledge),
    /// List jobs of the agents, or follow or cancel one
    Jobs(Jobs),
    /// What would fail in this cluster, why that matters, and how to mend it
    Doctor,
    /// Print the logs of the coordinator, of agents, or what they say of a volume
    Logs(Logs),
    /// Write a support bundle without secrets
    Debug(Debug),
    /// Print a completion script for a shell
    Completion {
        /// Shell
        shell: clap_complete::Shell,
    },
}

/// `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// End with 1 where something needs attention
    #[arg(long)]
    pub strict: bool,
}

/// `backup`.
#[derive(Args, Debug)]
pub struct Backup {
    /// Claims
    #[arg(value_name = "CLAIM", required_unless_present_any = ["policy", "all"])]
    pub claims: Vec<String>,
    /// All volumes that this policy protects in the namespace
    #[arg(long, value_name = "NAME", conflicts_with_all = ["claims", "all"])]
    pub policy: Option<String>,
    /// All claims of the namespace that are not kept out of backups
    #[arg(long, conflicts_with = "claims")]
    pub all: bool,
    /// Follow the run until it has ended, and end as it did
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up waiting after this long (the run goes on; suffixes s, m, h)
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = parse_age)]
    pub timeout: Option<Duration>,
}

/// `restore`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("into").args(["to_claim", "in_place", "target"]))]
pub struct Restore {
    /// Claim that was backed up; with --target a snapshot: SNAPSHOT[:/PATH]
    #[arg(value_name = "CLAIM")]
    pub claim: String,
    /// Newest snapshot at or before this time (RFC 3339 or a date, UTC), or `latest`
    #[arg(long, value_name = "TIME", conflicts_with = "snapshot")]
    pub as_of: Option<String>,
    /// This snapshot
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<String>,
    /// Restore into a new claim of this name
    #[arg(long, value_name = "NAME")]
    pub to_claim: Option<String>,
    /// Restore over what the claim holds now; what differs is overwritten
    #[arg(long)]
    pub in_place: bool,
    /// Restore into a directory of this host: new or empty
    #[arg(long, short = 't', value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Restore only this file or directory of the volume
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub path: Option<String>,
    /// With --to-claim: make the claim in this namespace
    #[arg(long, value_name = "NAME", requires = "to_claim", conflicts_with_all = ["in_place", "target"])]
    pub to_namespace: Option<String>,
    /// With --to-claim: storage class, in place of the recorded one
    #[arg(long, value_name = "NAME", requires = "to_claim", conflicts_with_all = ["in_place", "target"])]
    pub storage_class: Option<String>,
    /// With --in-place: stop the claim's pods meanwhile, by scaling what owns them to zero
    #[arg(long, requires = "in_place", conflicts_with_all = ["to_claim", "target"])]
    pub scale_down: bool,
    /// With --in-place: remove what the snapshot does not hold
    #[arg(long, requires = "in_place", conflicts_with_all = ["to_claim", "target"])]
    pub delete: bool,
    /// With --scale-down: put the claim back as it was where the restore does not succeed
    #[arg(long, requires = "scale_down")]
    pub rollback: bool,
    /// Compare what was restored with the snapshot, byte by byte
    #[arg(long, conflicts_with = "target")]
    pub verify: bool,
    /// Restore setuid and setgid bits, capabilities and devices too
    #[arg(long)]
    pub special: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Follow the restore until it has ended, and end as it did
    #[arg(long, conflicts_with = "target")]
    pub wait: bool,
    /// With --wait: give up waiting after this long (the restore goes on; suffixes s, m, h)
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = parse_age)]
    pub timeout: Option<Duration>,
    /// With --in-place: do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// `logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// `coordinator` (the default), `agent`, or a volume: what both say of it
    #[arg(value_name = "WHO|VOLUME")]
    pub who: Option<String>,
    /// With `agent`: its node; without it, all
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Go on with what is printed from now on
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only what is not older than this (suffixes s, m, h)
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub since: Option<Duration>,
    /// Last lines of each pod
    #[arg(long, value_name = "LINES", default_value_t = 1000)]
    pub tail: u32,
    /// Logs of the container before the last restart
    #[arg(long, short = 'p', conflicts_with = "follow")]
    pub previous: bool,
}

/// `debug`.
#[derive(Args, Debug)]
pub struct Debug {
    /// File to write, `-` for standard output
    #[arg(
        long,
        short = 'f',
        value_name = "FILE",
        default_value = "holdfast-debug.tar"
    )]
    pub file: PathBuf,
    /// Last lines of each container's log
    #[arg(long, value_name = "LINES", default_value_t = 2000)]
    pub tail: u32,
}
