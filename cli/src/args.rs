//! What can be typed, and what it means. No decision is made here.

mod cluster;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use cluster::{
    Backup as ClusterBackup, ClusterArgs, ClusterCli, ClusterCommand, Debug as ClusterDebug,
    Logs as ClusterLogs, Restore as ClusterRestore, Status as ClusterStatus,
};
use holdfast_runtime::settings::Span;
use std::path::PathBuf;
use std::time::Duration;

/// Agents tell of changes every few seconds.
pub const MIN_AGE: Duration = Duration::from_secs(5);

/// Back up what containers keep, and bring it back.
#[derive(Parser, Debug)]
#[command(
    name = "holdfast",
    version,
    max_term_width = 80,
    after_help = "EXIT CODES\n  \
        0 done            1 failed            2 wrong usage\n  \
        3 stored or restored, but incomplete (a restore also where stored data is\n    \
          damaged)\n  \
        4 damage found    5 refused           10 no repository\n  \
        11 owned by another coordinator       12 no key, or not the right one\n  \
        13 the coordinator does not allow it  130 interrupted\n\n\
        A snapshot is named by the start of its id, `latest` (where there is one\n\
        volume), `VOLUME@latest` or `VOLUME@TIME` (the newest at or before; RFC 3339\n\
        or a date, UTC). A path follows the first `:/`, as in\n\
        web@latest:/etc/app.conf\n\n\
        With --cluster, or another option of that heading, or called as `kubectl\n\
        holdfast`, it works on a cluster, and has verbs of its own: `holdfast --cluster\n\
        --help` shows them."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Where to work, and how to print.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// Repository to open in this process: a directory, or file://, s3://, gs://, az://
    #[arg(
        long,
        short = 'r',
        env = "HOLDFAST_REPO",
        global = true,
        value_name = "URL",
        help_heading = "Where"
    )]
    pub repo: Option<String>,
    /// Coordinator to ask: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(
        long,
        env = "HOLDFAST_COORDINATOR",
        global = true,
        value_name = "URL",
        help_heading = "Where"
    )]
    pub coordinator: Option<String>,
    /// File of the authorities to trust with https, PEM
    #[arg(
        long,
        env = "HOLDFAST_CA_FILE",
        global = true,
        value_name = "FILE",
        help_heading = "Where"
    )]
    pub ca_file: Option<PathBuf>,
    /// Files of a certificate chain and its key, PEM, where the coordinator asks for them
    #[arg(
        long,
        env = "HOLDFAST_CLIENT_CERT",
        global = true,
        value_name = "CHAIN,KEY",
        help_heading = "Where"
    )]
    pub client_cert: Option<String>,
    /// Key file of the repository
    #[arg(
        long,
        env = "HOLDFAST_KEY_FILE",
        global = true,
        value_name = "FILE",
        help_heading = "Where"
    )]
    pub key_file: Option<PathBuf>,
    /// File that holds the passphrase, in place of the key file; `init` adds it to the repository
    #[arg(
        long,
        env = "HOLDFAST_PASSPHRASE_FILE",
        global = true,
        value_name = "FILE",
        help_heading = "Where"
    )]
    pub passphrase_file: Option<PathBuf>,
    /// Directory for catalog, index and caches
    #[arg(
        long,
        env = "HOLDFAST_STATE_DIR",
        global = true,
        value_name = "DIR",
        help_heading = "Where"
    )]
    pub state_dir: Option<PathBuf>,
    /// Take the repository over from another coordinator (which must be gone for good)
    #[arg(long, global = true, help_heading = "Where")]
    pub take_over: bool,
    /// How to print
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    pub output: Format,
    /// Print only results and errors
    #[arg(long, short = 'q', global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The cluster, where one is worked on: found once the command line is read.
    #[arg(skip)]
    pub at: Option<std::sync::Arc<crate::cluster::Cluster>>,
}

impl Global {
    /// Whether volumes of this namespace are listed.
    pub fn lists(&self, namespace: &str) -> bool {
        let only = self.at.as_ref().and_then(|cluster| cluster.scope());
        only.is_none_or(|only| only == namespace)
    }
}

/// How to print.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// One name per line
    Name,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a repository and its key file
    Init(Init),
    /// Serve coordinator and agent on this host
    Up(Up),
    /// Make a snapshot of a directory (--repo), or of volumes that agents serve (--coordinator)
    Backup(Backup),
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
    /// Write a snapshot, a directory of it or one file back
    Restore(Restore),
    /// Remove a snapshot
    Forget(Forget),
    /// Take a suspicious snapshot as it is, so that older ones may be forgotten again
    Acknowledge(Acknowledge),
    /// Say why a volume is protected by a policy, or is not
    Explain(Explain),
    /// List jobs, or follow or cancel one
    Jobs(Jobs),
    /// What the coordinator is and holds
    Status,
    /// What would fail here, and how to fix it
    Doctor(Doctor),
    /// Add a passphrase as a second way to the key
    #[command(subcommand)]
    Key(Key),
    /// Build the catalog again from the store alone
    Rebuild,
    /// Print a completion script for a shell
    Completion {
        /// Shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
pub struct Init {
    /// Do nothing where there is a repository already
    #[arg(long)]
    pub if_missing: bool,
}

#[derive(Args, Debug)]
pub struct Up {
    /// Volume to serve (repeatable)
    #[arg(long = "volume", value_name = "NAME=DIR")]
    pub volumes: Vec<String>,
    /// A kubelet's pods directory to serve, e.g. /var/lib/kubelet/pods
    #[arg(long, value_name = "DIR")]
    pub kubelet_pods: Option<PathBuf>,
    /// TCP address to listen on beside the unix socket
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Allow plaintext on an address that is not loopback
    #[arg(long)]
    pub insecure_listen: bool,
    /// Unix socket to listen on
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Back volumes up by themselves, before a change is older than this (suffixes s, m, h)
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub continuous: Option<Duration>,
    /// Policies that say which volumes are backed up when: a YAML file, or a directory of such files
    #[arg(long, value_name = "FILE")]
    pub policies: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Backup {
    /// Directories (with --repo) or volume names (with --coordinator)
    #[arg(required = true, value_name = "PATH|VOLUME")]
    pub what: Vec<std::ffi::OsString>,
    /// Name of the volume; without it, the directory's last component
    #[arg(long)]
    pub name: Option<String>,
    /// Leave out what matches (gitignore syntax; repeatable)
    #[arg(long, short = 'e', value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Take only what matches (gitignore syntax; repeatable)
    #[arg(long, short = 'i', value_name = "GLOB")]
    pub include: Vec<String>,
    /// Take the name over although another directory had it
    #[arg(long)]
    pub adopt: bool,
    /// Read at most this many bytes per second (suffixes K, M, G)
    #[arg(long, value_name = "RATE", value_parser = parse_bytes)]
    pub read_rate: Option<u64>,
    /// Send at most this many bytes per second (suffixes K, M, G)
    #[arg(long, value_name = "RATE", value_parser = parse_bytes)]
    pub send_rate: Option<u64>,
    /// Do not read unchanged files again (of a volume, a seventh for each day since the last time, at most
    /// one, once the snapshot is stored)
    #[arg(long)]
    pub no_reread: bool,
    /// With --coordinator: return as soon as the jobs are accepted
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// With --coordinator: wait until the jobs have ended (the default)
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args, Debug)]
pub struct Snapshots {
    /// Only this volume
    pub volume: Option<String>,
    /// What could not be read when this snapshot was made
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "volume")]
    pub problems: Option<String>,
}

#[derive(Args, Debug)]
pub struct Ls {
    /// SNAPSHOT[:/PATH]
    pub snapshot: String,
    /// The whole subtree
    #[arg(long, short = 'R')]
    pub recursive: bool,
}

#[derive(Args, Debug)]
pub struct Cat {
    /// SNAPSHOT:/PATH
    pub snapshot: String,
}

#[derive(Args, Debug)]
pub struct Find {
    /// Pattern (gitignore syntax), e.g. '*.conf' or /etc/app.conf
    pub pattern: String,
    /// Only this volume
    #[arg(long)]
    pub volume: Option<String>,
}

#[derive(Args, Debug)]
pub struct Diff {
    /// SNAPSHOT[:/PATH]
    pub from: String,
    /// SNAPSHOT[:/PATH]; a path on either side holds for both
    pub to: String,
}

#[derive(Args, Debug)]
pub struct Dump {
    /// SNAPSHOT[:/PATH]
    pub snapshot: String,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// SNAPSHOT[:/PATH]
    pub snapshot: String,
    /// Directory to restore into: new or empty, unless --in-place
    #[arg(long, short = 't', value_name = "DIR")]
    pub target: PathBuf,
    /// Restore over what is there: write only files and ranges that differ
    #[arg(long)]
    pub in_place: bool,
    /// With --in-place: remove what the snapshot does not hold
    #[arg(long, requires = "in_place")]
    pub delete: bool,
    /// Restore setuid and setgid bits, capabilities and devices too
    #[arg(long)]
    pub special: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Exit 3 where owners, devices or capabilities could not be restored, or where the snapshot itself
    /// is incomplete
    #[arg(long)]
    pub strict: bool,
    /// With --coordinator: restore on this agent's node in place of here (without --dry-run, --strict
    /// and -o, as a job reports no plan and no counts)
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
}

#[derive(Args, Debug)]
pub struct Forget {
    /// SNAPSHOT
    pub snapshot: String,
}

#[derive(Args, Debug)]
pub struct Explain {
    /// Volume, in a cluster NAMESPACE/CLAIM or NAMESPACE/POD/VOLUME
    pub volume: String,
}

#[derive(Args, Debug)]
pub struct Acknowledge {
    /// SNAPSHOT
    pub snapshot: String,
}

#[derive(Args, Debug)]
pub struct Jobs {
    /// Follow this job until it has ended
    #[arg(long, value_name = "JOB", conflicts_with = "cancel")]
    pub watch: Option<String>,
    /// Cancel this job
    #[arg(long, value_name = "JOB")]
    pub cancel: Option<String>,
}

#[derive(Args, Debug)]
pub struct Doctor {
    /// Directories that are to be backed up
    pub paths: Vec<PathBuf>,
    /// Policies that are to be gone by: a YAML file, or a directory of such files
    #[arg(long, value_name = "FILE")]
    pub policies: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Key {
    /// Let a passphrase open the repository too (read from --new-passphrase-file)
    AddPassphrase {
        /// File that holds the new passphrase
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: PathBuf,
    },
    /// List the ways to the key
    List,
}

/// `5m` → how old the oldest change may become that is in no snapshot.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let age = text
        .parse::<Span>()
        .map_err(|rule| format!("{text:?} {rule}"))?;
    if age.0 < MIN_AGE {
        return Err(format!("{text:?} must be at least {}", Span(MIN_AGE)));
    }
    Ok(age.0)
}

/// `10M` → bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.trim_end_matches(['B', 'b']).to_ascii_uppercase() {
        t if t.ends_with('K') => (t[..t.len() - 1].to_owned(), 1u64 << 10),
        t if t.ends_with('M') => (t[..t.len() - 1].to_owned(), 1 << 20),
        t if t.ends_with('G') => (t[..t.len() - 1].to_owned(), 1 << 30),
        t => (t, 1),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a number of bytes, e.g. 10M"))?;
    let bytes = number * factor as f64;
    if bytes.is_finite() && bytes >= 1.0 && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err(format!("{text:?} must be at least one byte"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
        ClusterCli::command().debug_assert();
    }

    #[test]
    fn ages_are_parsed() {
        assert_eq!(parse_age("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "1s", "-5m"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_parsed() {
        assert_eq!(parse_bytes("10M"), Ok(10 << 20));
        assert_eq!(parse_bytes("1.5k"), Ok(1536));
        for bad in ["", "M", "-1", "0", "nan"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
