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
        let home = scratch.join("holdfast");
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
                "coordinator: {{url: '{url}'}}\nstate: {{dir: '{}'}}\nvolumes: {{paths: ['bench={}']}}\nhttp: {{listen: '127.0.0.1:{agent_http}'}}\n",
                at("state/agent"),
                source.display()
            ),
        )?;
        let config = at("coordinator.yaml");
        let mut rebuild = command(bin, "holdfast-coordinator");
        rebuild.args(["rebuild", "--config", &config]);
        measure::run("rebuild", &mut rebuild, &[], &[0])?;
        let coordinator = serve(bin, "holdfast-coordinator", &home)?;
        let agent = serve(bin, "holdfast-agent", &home)?;
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

fn serve(bin: &Path, name: &str, home: &Path) -> io::Result<Child> {
    let log = File::create(home.join(format!("{name}.log")))?;
    let config = format!("{}.yaml", name.trim_start_matches("holdfast-"));
    command(bin, name)
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
