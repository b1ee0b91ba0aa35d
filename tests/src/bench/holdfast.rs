//! Holdfast as the benchmark runs it: a coordinator and an agent as two processes, started and idle
//! before anything is timed, asked through the command line.

use crate::measure::{self, Cost, Watched};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The volume of those that serve only one.
pub const VOLUME: &str = "bench";

/// Every file is probed once before a journal is trusted, in the background: millions take their time.
const TRUSTED_WITHIN: Duration = Duration::from_secs(30 * 60);

/// A repository with its two processes; stopped when dropped.
pub struct Holdfast {
    home: PathBuf,
    bin: PathBuf,
    coordinator: Child,
    agent: Child,
    url: String,
    /// Where the agent answers HTTP.
    agent_http: u16,
    /// How many volumes are served.
    volumes: usize,
}

/// One backup, timed without waiting for idle processes around it.
pub struct Ran {
    /// From exec to exit.
    pub wall: Duration,
    /// How the volume was looked at: `journal`, or `walk` and why.
    pub look: String,
    /// Whether something could not be stored as it is, such as a file that changed while it was read.
    pub problems: bool,
}

impl Holdfast {
    /// A new repository below `scratch`, serving `source` as volume `bench`.
    pub fn start(bin: &Path, scratch: &Path, source: &Path) -> io::Result<Self> {
        let home = scratch.join("holdfast");
        Self::start_with(bin, &home, &[(VOLUME, source)], false, false)
    }

    /// The same, with the change journal; waited for after each backup, as it works between them.
    pub fn start_with_journal(bin: &Path, scratch: &Path, source: &Path) -> io::Result<Self> {
        Self::serving(bin, &scratch.join("journal"), &[(VOLUME, source)])
    }

    /// The same in `home`, serving these volumes, by name and place.
    pub fn serving(bin: &Path, home: &Path, volumes: &[(&str, &Path)]) -> io::Result<Self> {
        Self::start_with(bin, home, volumes, false, true)
    }

    /// Waits until the journals of all volumes are trusted.
    pub fn wait_until_trusted(&self) -> io::Result<()> {
        self.wait_until_said("\"journal\": \"trusted\"", TRUSTED_WITHIN)
    }

    /// One backup of `source` with the coordinator under strace: syncs called, objects in the store.
    pub fn syncs(bin: &Path, scratch: &Path, source: &Path) -> io::Result<(u64, u64)> {
        let home = scratch.join("holdfast");
        let mut holdfast = Self::start_with(bin, &home, &[(VOLUME, source)], true, false)?;
        let before = measure::tree_files(&holdfast.home.join("repo"))?;
        let log = holdfast.home.join("syncs");
        let lines = || fs::read_to_string(&log).map_or(0, |text| text.lines().count() as u64);
        let synced = lines();
        let mut backup = holdfast.cli(&["backup", "-q", VOLUME]);
        measure::run("cli", &mut backup, &[], &[0, 3])?;
        let objects = measure::tree_files(&holdfast.home.join("repo"))? - before;
        let _ = holdfast.coordinator.kill();
        Ok((lines() - synced, objects))
    }

    fn start_with(
        bin: &Path,
        home: &Path,
        volumes: &[(&str, &Path)],
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
        let paths: Vec<String> = volumes
            .iter()
            .map(|(name, path)| format!("'{name}={}'", path.display()))
            .collect();
        fs::write(
            home.join("agent.yaml"),
            format!(
                "coordinator: {{url: '{url}'}}\nstate: {{dir: '{}'}}\nvolumes: {{paths: [{}]}}\nhttp: {{listen: '127.0.0.1:{agent_http}'}}\njournal: {{source: {}}}\n",
                at("state/agent"),
                paths.join(", "),
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
            agent_http,
            volumes: volumes.len(),
        };
        holdfast.wait_until_served()?;
        Ok(holdfast)
    }

    /// Stops the agent and starts another: what it knew of changes is gone.
    pub fn restart_agent(&mut self) -> io::Result<()> {
        self.agent.kill()?;
        self.agent.wait()?;
        self.agent = serve(&self.bin, "holdfast-agent", &self.home, false)?;
        self.wait_until_served()
    }

    fn wait_until_served(&self) -> io::Result<()> {
        // The agent's port answers only while it runs: a coordinator remembers the one before.
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.metrics().is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.wait_until_said("\"eligible\": true", Duration::from_secs(30))
    }

    /// Waits until `holdfast volumes` says this of every volume.
    fn wait_until_said(&self, words: &str, most: Duration) -> io::Result<()> {
        let deadline = Instant::now() + most;
        loop {
            let out = self.cli(&["volumes", "-o", "json"]).output()?;
            let told = String::from_utf8_lossy(&out.stdout).into_owned();
            if told.matches(words).count() >= self.volumes {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = String::from_utf8_lossy(&out.stderr).into_owned();
                return Err(io::Error::other(format!(
                    "not every volume is {words}: {told}{said}"
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

    /// The agent, as a process.
    pub fn agent(&self) -> Watched {
        Watched {
            name: "agent".into(),
            pid: self.agent.id(),
        }
    }

    fn watched(&self) -> Vec<Watched> {
        vec![
            self.agent(),
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
            &mut self.cli(&["backup", "-q", VOLUME]),
            &self.watched(),
            &[0, 3],
        )
    }

    /// A backup of one volume while other work goes on: nothing is waited for.
    pub fn back_up(&self, volume: &str) -> io::Result<Ran> {
        let before = self.looks()?;
        let start = Instant::now();
        let out = self.cli(&["backup", "-q", volume]).output()?;
        let wall = start.elapsed();
        if !matches!(out.status.code(), Some(0 | 3)) {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            return Err(io::Error::other(format!("no backup of {volume}: {said}")));
        }
        let after = self.looks()?;
        let look = after
            .into_iter()
            .find(|(look, count)| before.get(look).copied().unwrap_or(0) < *count);
        Ok(Ran {
            wall,
            look: look.map_or_else(|| "not told".to_owned(), |(look, _)| look),
            problems: out.status.code() == Some(3),
        })
    }

    /// How the agent's runs looked at their volumes, counted.
    fn looks(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut looks = BTreeMap::new();
        for line in self.metrics()?.lines() {
            let Some(line) = line.strip_prefix("holdfast_agent_looks_total{") else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\""))?;
                Some(rest.split_once('"')?.0)
            };
            let count = line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
            let words = [label("by"), label("reason")];
            let look = words.map(Option::unwrap_or_default).join(" ");
            looks.insert(look.trim_end().to_owned(), count.unwrap_or(0.0) as u64);
        }
        Ok(looks)
    }

    fn metrics(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.agent_http))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        match reply.starts_with("HTTP/1.1 200") {
            true => Ok(reply),
            false => Err(io::Error::other("the agent tells no metrics")),
        }
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
