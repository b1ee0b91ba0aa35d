//! The three processes as an operator runs them: a coordinator and an agent with settings files, on a
//! unix socket, and `holdfast` that asks them. Everything lies in a [`Home`]; what still runs is killed
//! when the test ends.

use crate::cli::{Ended, Home, binary};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A process; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command whose output, both kinds, goes to a log that is appended to.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .expect("the process starts");
        Self { child, log }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed, and what those printed that had the same log before.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(
            sent.is_ok_and(|s| s.success()),
            "SIG{name} could not be sent"
        );
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its exit code, if it has ended; -1: by a signal.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("a process of ours");
        status.map(|status| status.code().unwrap_or(-1))
    }

    /// Its exit code once it has ended; and how long that took.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn wait(&mut self) -> (i32, Duration) {
        let began = Instant::now();
        loop {
            if let Some(code) = self.ended() {
                return (code, began.elapsed());
            }
            assert!(
                began.elapsed() < PATIENCE,
                "it does not end: {}",
                self.log()
            );
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process is killed too.
        self.kill();
    }
}

/// Takes from a command the variables that are meant for the tests: the processes refuse what they do not know.
pub fn without_variables(command: &mut Command) {
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("HOLDFAST_")) {
        command.env_remove(key);
    }
}

/// Waits until something is so.
///
/// # Panics
/// Where it does not become so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(20));
    }
}

/// A coordinator's and an agent's settings in a home, and the processes while they run.
pub struct Processes {
    /// Repository, key and logs.
    pub home: Home,
    /// The coordinator.
    pub coordinator: Option<Process>,
    /// The agent.
    pub agent: Option<Process>,
}

impl Processes {
    /// A new repository; its coordinator and an agent run. The agent serves these volumes, each an empty
    /// directory of that name in the home.
    pub fn start(volumes: &[&str]) -> Self {
        let processes = Self::start_with(Home::new(), volumes, "", "");
        processes.until_served();
        processes
    }

    /// The same in a home that is there, with more lines of settings for the coordinator and more words
    /// on the agent's volumes (`, key: value`). Nothing is waited for.
    pub fn start_with(home: Home, volumes: &[&str], coordinator: &str, agent: &str) -> Self {
        for volume in volumes {
            fs::create_dir(home.at(volume)).expect("a directory");
        }
        home.ok(["init", "-q"]);
        let mut processes = Self {
            home,
            coordinator: None,
            agent: None,
        };
        processes.write_settings(volumes, coordinator, agent);
        processes.start_coordinator();
        processes.start_agent();
        processes
    }

    fn write_settings(&self, volumes: &[&str], more_coordinator: &str, more_volumes: &str) {
        let at = |name: &str| self.home.at(name).display().to_string();
        let paths = volumes.iter().map(|name| format!("'{name}={}'", at(name)));
        fs::create_dir_all(self.home.at("state")).expect("a directory");
        // The shortest leases there are: a volume whose agent was killed is free after one.
        let coordinator = format!(
            "repository: {{url: '{}', key_file: '{}'}}\nstate: {{dir: '{}'}}\ngrpc: {{listen: 'unix:{}'}}\n\
             http: {{listen: '127.0.0.1:0'}}\nsessions: {{lease: 30s}}\nlog: {{format: text}}\n{more_coordinator}",
            at("repo"),
            at("repo.key"),
            at("state/coordinator"),
            self.socket().display(),
        );
        // With it the agent restricts itself, where the kernel can, as it does in a cluster.
        let agent = format!(
            "coordinator: {{url: '{}'}}\nstate: {{dir: '{}'}}\nvolumes: {{paths: [{}]{more_volumes}}}\n\
             restore: {{below: ['{}']}}\nhttp: {{listen: '127.0.0.1:0'}}\nlog: {{format: text}}\n",
            self.url(),
            at("state/agent"),
            paths.collect::<Vec<_>>().join(", "),
            at(""),
        );
        fs::write(self.home.at("coordinator.yaml"), coordinator).expect("a file");
        fs::write(self.home.at("agent.yaml"), agent).expect("a file");
    }

    /// The coordinator's socket.
    pub fn socket(&self) -> PathBuf {
        self.home.at("coordinator.sock")
    }

    /// The coordinator's URL.
    pub fn url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// A command of one of the processes with settings file `{settings}.yaml`.
    pub fn command(&self, name: &str, settings: &str) -> Command {
        let mut command = Command::new(binary(name));
        without_variables(&mut command);
        command
            .arg("--config")
            .arg(self.home.at(&format!("{settings}.yaml")));
        command
    }

    /// Starts the coordinator.
    pub fn start_coordinator(&mut self) {
        let mut command = self.command("holdfast-coordinator", "coordinator");
        let log = self.home.at("coordinator.log");
        self.coordinator = Some(Process::start(&mut command, log));
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) {
        let mut command = self.command("holdfast-agent", "agent");
        let log = self.home.at("agent.log");
        self.agent = Some(Process::start(&mut command, log));
    }

    /// Starts the agent again with one more line of settings.
    pub fn restart_agent_with(&mut self, line: &str) {
        let file = self.home.at("agent.yaml");
        let settings = fs::read_to_string(&file).expect("settings");
        fs::write(&file, format!("{settings}{line}\n")).expect("a file");
        self.agent().kill();
        self.start_agent();
        let connected = "connected to the coordinator";
        until("the agent is back", || {
            self.agent().log().matches(connected).count() > 1
        });
    }

    /// Waits until the volumes are served.
    pub fn until_served(&self) {
        until("the volumes are served", || {
            let volumes = self.run(["volumes", "-o", "json"]).text();
            volumes.contains("\"eligible\": true") && !volumes.contains("\"eligible\": false")
        });
    }

    /// The running coordinator.
    pub fn coordinator(&mut self) -> &mut Process {
        self.coordinator
            .as_mut()
            .expect("the coordinator was started")
    }

    /// The running agent.
    pub fn agent(&mut self) -> &mut Process {
        self.agent.as_mut().expect("the agent was started")
    }

    /// `holdfast --coordinator URL …`.
    pub fn cli<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.home.command(args);
        command
            .env_remove("HOLDFAST_REPO")
            .env("HOLDFAST_COORDINATOR", self.url());
        command
    }

    /// Runs it to its end, whatever that is.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        self.cli(args).output().expect("holdfast starts").into()
    }

    /// Runs it; it must end with 0.
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{}\n{}", ended.text(), ended.stderr);
        ended
    }

    /// Ids of all snapshots.
    pub fn snapshots(&self) -> Vec<String> {
        let listed = self.ok(["snapshots", "-o", "name"]).text();
        listed.lines().map(str::to_owned).collect()
    }

    /// Restores into a new directory, whose path it returns.
    pub fn restore(&self, snapshot: &str, into: &str) -> PathBuf {
        let target = self.home.at(into);
        let _ = fs::remove_dir_all(&target);
        self.ok([
            OsStr::new("restore"),
            snapshot.as_ref(),
            "--special".as_ref(),
            "-q".as_ref(),
            "--target".as_ref(),
            target.as_os_str(),
        ]);
        target
    }
}

/// Lets a process be killed, or its calls fail, by strace from now on; returns when strace is attached.
///
/// # Panics
/// Where strace cannot attach.
pub fn inject(process: &Process, calls: &str, fault: &str, log: &Path) -> Process {
    let _ = fs::remove_file(log);
    let said = log.with_extension("strace-said");
    let _ = fs::remove_file(&said);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-o"])
        .arg(log)
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:{fault}")])
        .args(["-p", &process.id().to_string()]);
    let strace = Process::start(&mut command, said);
    until("strace is attached", || strace.log().contains("attached"));
    strace
}
