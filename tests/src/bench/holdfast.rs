//! Holdfast as the benchmark runs it: a coordinator and an agent as two processes, started and idle
//! before anything is timed, asked through the command line.

use crate::measure::{self, Cost, Watched};
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A repository with its two processes; stopped when dropped.
pub struct Holdfast {
    home: PathBuf,
    bin: PathBuf,
    coordinator: Child,
    agent: Child,
    url: String,
}

impl Holdfast {
    /// A new repository below `scratch`, serving `source` as volume `bench`.
    pub fn start(bin: &Path, scratch: &Path, source: &Path) -> io::Result<Self> {
        Self::start_with(bin, &scratch.join("holdfast"), source, false, false)
    }

    /// The same, with the change journal; waited for after each backup, as it works between them.
    pub fn start_with_journal(bin: &Path, scratch: &Path, source: &Path) -> io::Result<Self> {
        Self::start_with(bin, &scratch.join("journal"), source, false, true)
    }

    /// Waits until the journal of the volume is trusted.
    pub fn wait_until_trusted(&self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(300);
        while Instant::now() < deadline {
            let out = self.cli(&["volumes", "-o", "json"]).output()?;
            if String::from_utf8_lossy(&out.stdout).contains("\"trusted\"") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Err(io::Error::other("the journal is never trusted"))
    }

    /// One backup of `source` with the coordinator under strace: syncs called, objects in the store.
    pub fn syncs(bin: &Path, scratch: &Path, source: &Path) -> io::Result<(u64, u64)> {
        let home = scratch.join("holdfast");
        let mut holdfast = Self::start_with(bin, &home, source, true, false)?;
        let before = measure::tree_files(&holdfast.home.join("repo"))?;
        let log = holdfast.home.join("syncs");
        let lines = || fs::read_to_string(&log).map_or(0, |text| text.lines().count() as u64);
        let synced = lines();
        let mut backup = holdfast.cli(&["backup", "-q", "bench"]);
        measure::run("cli", &mut backup, &[], &[0, 3])?;
        let objects = measure::tree_files(&holdfast.home.join("repo"))? - before;
        let _ = holdfast.coordinator.kill();
        Ok((lines() - synced, objects))
    }

    fn start_with(
        bin: &Path,
        home: &Path,
        source: &Path,
        traced: bool,
        journal: bool,
    ) -> io::Result<Self> {
        let home = home.to_path_buf();
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home)?;
        let at = |name: &str| home.join(name).to_string_lossy().into_owned();
        let (grpc, http, agent_http) = (free_port()?, free_port()?, free_port()?);
        let url = format!("http://127.0.0.1:{grpc}");
        let mut init = command(bin, "holdfast");
        init.args([
            "init",
            "-q",
            "--repo",
            &at("repo"),
            "--key-file",
            &at("key"),
            "--state-dir",
            &at("cli"),
        ]);
        measure::run("holdfast", &mut init, &[], &[0])?;
        fs::create_dir_all(home.join("state"))?;
        fs::write(
            home.join("coordinator.yaml"),
            format!(
                "repository: {{url: '{}', key_file: '{}'}}\nstate: {{dir: '{}'}}\ngrpc: {{listen: '127.0.0.1:{grpc}'}}\nhttp: {{listen: '127.0.0.1:{http}'}}\n",
                at("repo"),
                at("key"),
                at("state/coordinator")
            ),
        )?;
        fs::write(
            home.join("agent.yaml"),
            format!(
                "coordinator: {{url: '{url}'}}\nstate: {{dir: '{}'}}\nvolumes: {{paths: ['bench={}']}}\nhttp: {{listen: '127.0.0.1:{agent_http}'}}\njournal: {{source: {}}}\n",
                at("state/agent"),
                source.display(),
                if journal { "auto" } else { "'off'" }
            ),
        )?;
        let config = at("coordinator.yaml");
        let mut rebuild = command(bin, "holdfast-coordinator");
        rebuild.args(["rebuild", "--config", &config]);
        measure::run("rebuild", &mut rebuild, &[], &[0])?;
        let coordinator = serve(bin, "holdfast-coordinator", &home, traced)?;
        let agent = serve(bin, "holdfast-agent", &home, false)?;
        let holdfast = Self {
            home,
            bin: bin.to_path_buf(),
            coordinator,
            agent,
            url,
        };
        holdfast.wait_until_served()?;
        Ok(holdfast)
    }

    fn wait_until_served(&self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let out = self.cli(&["volumes", "-o", "json"]).output()?;
            if String::from_utf8_lossy(&out.stdout).contains("\"eligible\": true") {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = String::from_utf8_lossy(&out.stderr).into_owned();
                return Err(io::Error::other(format!(
                    "coordinator and agent do not come up: {said}"
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn cli(&self, args: &[&str]) -> Command {
        let mut command = command(&self.bin, "holdfast");
        command.args(["--coordinator", &self.url]).args(args);
        command
    }

    fn watched(&self) -> Vec<Watched> {
        vec![
            Watched {
                name: "agent".into(),
                pid: self.agent.id(),
            },
            Watched {
                name: "coordinator".into(),
                pid: self.coordinator.id(),
            },
        ]
    }

    /// `holdfast backup bench --coordinator URL`, from exec to exit.
    pub fn backup(&self) -> io::Result<Cost> {
        measure::run(
            "cli",
            &mut self.cli(&["backup", "-q", "bench"]),
            &self.watched(),
            &[0, 3],
        )
    }

    /// `holdfast restore bench@latest --coordinator URL`; it syncs the target itself.
    pub fn restore(&self, target: &Path, in_place: bool) -> io::Result<Cost> {
        let target = target.to_string_lossy().into_owned();
        let mut args = vec![
            "restore",
            "-q",
            "--special",
            "bench@latest",
            "--target",
            &target,
        ];
        if in_place {
            args.push("--in-place");
        }
        measure::run("cli", &mut self.cli(&args), &self.watched(), &[0])
    }

    /// Bytes in the store.
    pub fn bytes(&self) -> io::Result<u64> {
        measure::tree_bytes(&self.home.join("repo"))
    }

    /// Bytes of what the two processes keep beside the store: catalog (without the frame cache), frame
    /// cache, and the agent's index.
    pub fn state(&self) -> io::Result<[u64; 3]> {
        let bytes = |name: &str| match self.home.join("state").join(name) {
            path if path.is_dir() => measure::tree_bytes(&path),
            _ => Ok(0),
        };
        let cache = bytes("coordinator/frames")?;
        Ok([bytes("coordinator")? - cache, cache, bytes("agent")?])
    }
}

/// Agent and coordinator in the command's own process, with a repository of its own.
pub struct Embedded {
    home: PathBuf,
    bin: PathBuf,
}

impl Embedded {
    /// A new repository below `scratch`.
    pub fn create(bin: &Path, scratch: &Path) -> io::Result<Self> {
        let home = scratch.join("embedded");
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home)?;
        let embedded = Self {
            home,
            bin: bin.to_path_buf(),
        };
        measure::run("holdfast", &mut embedded.cli(&["init", "-q"]), &[], &[0])?;
        Ok(embedded)
    }

    fn cli(&self, args: &[&str]) -> Command {
        let mut command = command(&self.bin, "holdfast");
        command
            .args(args)
            .arg("--repo")
            .arg(self.home.join("repo"))
            .arg("--key-file")
            .arg(self.home.join("key"))
            .arg("--state-dir")
            .arg(self.home.join("state"));
        command
    }

    /// `holdfast backup SOURCE --name bench --repo REPO`.
    pub fn backup(&self, source: &Path) -> io::Result<Cost> {
        let source = source.to_string_lossy();
        let args = ["backup", "-q", &source, "--name", "bench"];
        measure::run("embedded", &mut self.cli(&args), &[], &[0, 3])
    }

    /// `holdfast restore bench@latest --repo REPO`.
    pub fn restore(&self, target: &Path, in_place: bool) -> io::Result<Cost> {
        let target = target.to_string_lossy();
        let mut args = vec![
            "restore",
            "-q",
            "--special",
            "bench@latest",
            "--target",
            &target,
        ];
        if in_place {
            args.push("--in-place");
        }
        measure::run("embedded", &mut self.cli(&args), &[], &[0])
    }

    /// Bytes in the store.
    pub fn bytes(&self) -> io::Result<u64> {
        measure::tree_bytes(&self.home.join("repo"))
    }
}

impl Drop for Holdfast {
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.coordinator] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn command(bin: &Path, name: &str) -> Command {
    let mut command = Command::new(bin.join(name));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("HOLDFAST_")) {
        command.env_remove(key);
    }
    command
}

fn serve(bin: &Path, name: &str, home: &Path, traced: bool) -> io::Result<Child> {
    let log = File::create(home.join(format!("{name}.log")))?;
    let config = format!("{}.yaml", name.trim_start_matches("holdfast-"));
    let mut process = command(bin, name);
    if traced {
        process = Command::new("strace");
        process
            .args([
                "-f",
                "-D",
                "-qq",
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                "signal=none",
                "-o",
            ])
            .arg(home.join("syncs"))
            .arg(bin.join(name));
    }
    process
        .arg("--config")
        .arg(home.join(config))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
