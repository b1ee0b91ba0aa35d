//! The tools that are compared: how each makes a repository, backs up, restores, and what it stores.
//!
//! A peer is used if it is installed; nothing is downloaded here. Every tool encrypts by default, and
//! conserve, which cannot, says so in the report.

use crate::measure::{self, Cost};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Restic,
    Rustic,
    Bupstash,
    Conserve,
    Borg,
}

/// All peers.
pub const PEERS: [Peer; 5] = [
    Peer::Restic,
    Peer::Rustic,
    Peer::Bupstash,
    Peer::Conserve,
    Peer::Borg,
];

impl Peer {
    /// Its command.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Restic => "restic",
            Peer::Rustic => "rustic",
            Peer::Bupstash => "bupstash",
            Peer::Conserve => "conserve",
            Peer::Borg => "borg",
        }
    }

    /// Its version, or `None` where it is not installed.
    pub fn version(self) -> Option<String> {
        let flag = if self == Peer::Restic {
            "version"
        } else {
            "--version"
        };
        let out = Command::new(self.name())
            .arg(flag)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&out.stdout)
            .lines()
            .next()?
            .trim()
            .to_owned();
        (out.status.success() && !text.is_empty()).then_some(text)
    }
}

/// A peer's repository in a scratch directory.
pub struct PeerRepo {
    /// The peer.
    pub peer: Peer,
    home: PathBuf,
    runs: u32,
}

impl PeerRepo {
    /// A new repository below `scratch`, with caches and keys beside it.
    pub fn create(peer: Peer, scratch: &Path) -> io::Result<Self> {
        let home = scratch.join(peer.name());
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home)?;
        std::fs::write(home.join("password"), "benchmark")?;
        let repo = Self {
            peer,
            home,
            runs: 0,
        };
        if peer == Peer::Bupstash {
            repo.done(&["new-key", "-o", &repo.at("key")])?;
        }
        match peer {
            Peer::Restic => repo.done(&["init"])?,
            Peer::Rustic => repo.done(&["init"])?,
            Peer::Bupstash => repo.done(&["init"])?,
            Peer::Conserve => repo.done(&["init", &repo.at("repo")])?,
            Peer::Borg => repo.done(&["init", "-e", "repokey-blake2"])?,
        }
        Ok(repo)
    }

    fn at(&self, name: &str) -> String {
        self.home.join(name).to_string_lossy().into_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.peer.name());
        command
            .env("HOME", &self.home)
            .env("XDG_CACHE_HOME", self.at("cache"))
            .env("XDG_CONFIG_HOME", self.at("config"))
            .env("RESTIC_REPOSITORY", self.at("repo"))
            .env("RESTIC_PASSWORD_FILE", self.at("password"))
            .env("RUSTIC_REPOSITORY", self.at("repo"))
            .env("RUSTIC_PASSWORD_FILE", self.at("password"))
            .env("BUPSTASH_REPOSITORY", self.at("repo"))
            .env("BUPSTASH_KEY", self.at("key"))
            .env("BORG_REPO", self.at("repo"))
            .env("BORG_PASSPHRASE", "benchmark")
            .env("BORG_BASE_DIR", self.at("borg"))
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
        command
    }

    fn done(&self, args: &[&str]) -> io::Result<()> {
        measure::run(self.peer.name(), self.command().args(args), &[], &[0]).map(|_| ())
    }

    /// The arguments of a backup of `source`, as they stand in the report.
    pub fn backup_args(&self, source: &str) -> Vec<String> {
        let words: Vec<&str> = match self.peer {
            Peer::Restic => vec!["backup", "-q", source],
            Peer::Rustic => vec!["--no-progress", "backup", source],
            Peer::Bupstash => vec!["put", "-q", "name=bench", source],
            Peer::Conserve => {
                return vec![
                    "backup".into(),
                    "--no-progress".into(),
                    self.at("repo"),
                    source.into(),
                ];
            }
            Peer::Borg => {
                return vec![
                    "create".into(),
                    "-C".into(),
                    "zstd,3".into(),
                    format!("::run{}", self.runs),
                    source.into(),
                ];
            }
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// Backs `source` up.
    pub fn backup(&mut self, source: &Path) -> io::Result<Cost> {
        self.runs += 1;
        let args = self.backup_args(&source.to_string_lossy());
        if self.peer == Peer::Bupstash {
            // It prints the item's id, which a restore needs.
            let mut command = self.command_named("sh");
            let script = format!("exec bupstash \"$@\" > {}", self.at("item"));
            command.args(["-c", &script, "bupstash"]).args(args);
            return measure::run(self.peer.name(), &mut command, &[], &[0]);
        }
        measure::run(self.peer.name(), self.command().args(args), &[], &[0, 3])
    }

    /// Restores the newest backup below `target`, which is empty, and syncs it.
    pub fn restore(&self, source: &Path, target: &Path) -> io::Result<Cost> {
        let (source, to) = (
            source.to_string_lossy().into_owned(),
            target.to_string_lossy().into_owned(),
        );
        let script = match self.peer {
            Peer::Restic => format!("restic restore -q latest --target {to}"),
            Peer::Rustic => format!("rustic --no-progress restore latest:{source} {to}"),
            Peer::Bupstash => format!(
                "bupstash restore -q --into {to} id=$(cat {})",
                self.at("item")
            ),
            Peer::Conserve => format!(
                "conserve restore --no-progress --force-overwrite {} {to}",
                self.at("repo")
            ),
            Peer::Borg => format!("cd {to} && borg extract ::run{}", self.runs),
        };
        let mut command = self.command_named("sh");
        command.args(["-c", &format!("{script} && sync -f {to}")]);
        measure::run(self.peer.name(), &mut command, &[], &[0])
    }

    fn command_named(&self, program: &str) -> Command {
        let template = self.command();
        let mut command = Command::new(program);
        for (key, value) in template.get_envs() {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        command
    }

    /// Bytes in the store.
    pub fn bytes(&self) -> io::Result<u64> {
        measure::tree_bytes(&self.home.join("repo"))
    }
}
