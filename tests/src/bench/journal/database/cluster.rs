//! A PostgreSQL of our own, reached through a socket in a directory that only it has, and pgbench against it.
//! Stopped when dropped. As root both run as the user `postgres`, or `nobody`: the server refuses root.

use nix::unistd::{Gid, Uid, User, chown, geteuid};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Clients at once.
pub const CLIENTS: u32 = 2;
/// Transactions of a hundred that sort on disk.
pub const SORTS: u32 = 4;
/// Transactions of a hundred that fill a temporary table.
pub const TABLES: u32 = 4;

const SORT: &str = "SELECT count(*) FROM (SELECT md5(aid::text) AS d FROM pgbench_accounts WHERE aid <= 30000 ORDER BY d OFFSET 1) AS sorted;\n";
const TABLE: &str = "BEGIN;\nCREATE TEMPORARY TABLE taken ON COMMIT DROP AS SELECT aid, filler FROM pgbench_accounts WHERE aid <= 5000;\nSELECT count(*) FROM taken;\nEND;\n";
const SETTINGS: &str = "listen_addresses = ''\nshared_buffers = 64MB\nwork_mem = 64kB\ntemp_buffers = 800kB\ncheckpoint_timeout = 30s\nmax_wal_size = 256MB\n";

/// A server with its data in a volume of its own.
pub struct Cluster {
    programs: PathBuf,
    user: Option<User>,
    home: PathBuf,
    volume: PathBuf,
    /// Where the socket lies: its path must be short.
    socket: tempfile::TempDir,
}

/// What clients noticed in one turn.
pub struct Sample {
    /// Of pgbench's own transactions, sorted.
    latencies_us: Vec<u64>,
    /// Transactions of all kinds a second, per turn.
    rates: Vec<f64>,
}

impl Cluster {
    /// A server that runs, with pgbench's tables, in `home`, which must not exist yet.
    pub fn make(home: &Path, scale: usize) -> io::Result<Self> {
        let user = match geteuid().is_root() {
            false => None,
            true => ["postgres", "nobody"]
                .into_iter()
                .find_map(|name| User::from_name(name).ok().flatten()),
        };
        let cluster = Self {
            programs: programs()?,
            user,
            home: home.to_owned(),
            volume: home.join("volume"),
            socket: tempfile::tempdir()?,
        };
        fs::create_dir_all(&cluster.volume)?;
        for path in [home, &cluster.volume, cluster.socket.path()] {
            let (uid, gid) = cluster.ids();
            chown(path, uid, gid)?;
        }
        cluster.done(cluster.command("initdb").args([
            "--no-locale",
            "-E",
            "UTF8",
            "-A",
            "trust",
            "-U",
            "bench",
            "-D",
        ]))?;
        let settings = cluster.volume.join("data/postgresql.auto.conf");
        let socket = cluster.socket.path().display();
        fs::write(
            settings,
            format!("{SETTINGS}unix_socket_directories = '{socket}'\n"),
        )?;
        fs::write(home.join("sort.sql"), SORT)?;
        fs::write(home.join("table.sql"), TABLE)?;
        let mut start = cluster.command("pg_ctl");
        start.args(["start", "-w", "-t", "60", "-l"]);
        start.arg(home.join("server.log")).arg("-D");
        cluster.done(&mut start)?;
        let mut fill = cluster.client("pgbench");
        fill.args(["-i", "-q", "-s", &scale.to_string(), "postgres"]);
        cluster.run(&mut fill)?;
        Ok(cluster)
    }

    /// The directory that is backed up.
    pub fn volume(&self) -> &Path {
        &self.volume
    }

    /// Starts clients that work for so long.
    pub fn bench(&self, span: Duration) -> io::Result<Child> {
        let script = |name: &str, weight: u32| {
            let path = self.home.join(name);
            format!("{}@{weight}", path.display())
        };
        let mut bench = self.client("pgbench");
        bench
            .args(["-n", "-l", "-c", &CLIENTS.to_string()])
            .args(["-T", &span.as_secs().to_string()])
            .args(["-b", &format!("tpcb-like@{}", 100 - SORTS - TABLES)])
            .args(["-f", &script("sort.sql", SORTS)])
            .args(["-f", &script("table.sql", TABLES)])
            .arg(format!("--log-prefix={}", self.home.join("log").display()))
            .arg("postgres");
        let said = fs::File::create(self.home.join("bench.log"))?;
        bench.stdout(said.try_clone()?).stderr(said).spawn()
    }

    /// What the clients noticed, who have ended like this.
    pub fn sample(&self, status: ExitStatus, span: Duration) -> io::Result<Sample> {
        if !status.success() {
            let said = fs::read_to_string(self.home.join("bench.log"))?;
            return Err(io::Error::other(format!("pgbench: {status}: {said}")));
        }
        let (mut latencies_us, mut count) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.home)? {
            let path = entry?.path();
            if !path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"log."))
            {
                continue;
            }
            // Client, number, microseconds, script, and when.
            for line in fs::read_to_string(&path)?.lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                let (Some(Ok(latency)), Some(script)) =
                    (fields.get(2).map(|field| field.parse()), fields.get(3))
                else {
                    continue;
                };
                count += 1;
                if *script == "0" {
                    latencies_us.push(latency);
                }
            }
            fs::remove_file(path)?;
        }
        Ok(Sample {
            latencies_us,
            rates: vec![f64::from(count) / span.as_secs_f64()],
        })
    }

    /// Stops the server; its data stay.
    pub fn stop(&self) -> io::Result<()> {
        let mut stop = self.command("pg_ctl");
        self.done(stop.args(["stop", "-w", "-m", "fast", "-D"]))
    }

    fn ids(&self) -> (Option<Uid>, Option<Gid>) {
        let user = self.user.as_ref();
        (user.map(|user| user.uid), user.map(|user| user.gid))
    }

    /// One of its programs, as the user it runs as.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn client(&self, program: &str) -> Command {
        let mut command = self.command(program);
        command
            .arg("-h")
            .arg(self.socket.path())
            .args(["-U", "bench"]);
        command
    }

    /// Runs a program whose last argument is the data directory.
    fn done(&self, command: &mut Command) -> io::Result<()> {
        self.run(command.arg(self.volume.join("data")))
    }

    fn run(&self, command: &mut Command) -> io::Result<()> {
        // Not a pipe: the server would keep it open.
        let log = fs::File::create(self.home.join("last.log"))?;
        let status = command.stdout(log.try_clone()?).stderr(log).status()?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(self.home.join("last.log"))?;
        let program = command.get_program().display();
        Err(io::Error::other(format!("{program} failed: {said}")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.volume.join("data/postmaster.pid").exists() {
            let _ = self.stop();
        }
    }
}

impl Sample {
    /// One of all turns.
    pub fn of_all(samples: Vec<Self>) -> Self {
        let mut all = Self {
            latencies_us: Vec::new(),
            rates: Vec::new(),
        };
        for sample in samples {
            all.latencies_us.extend(sample.latencies_us);
            all.rates.extend(sample.rates);
        }
        all.latencies_us.sort_unstable();
        all.rates.sort_by(f64::total_cmp);
        all
    }

    /// Transactions a second: the middle one of the turns.
    pub fn rate(&self) -> f64 {
        self.rates.get(self.rates.len() / 2).copied().unwrap_or(0.0)
    }

    /// Of pgbench's own transactions: mean, what 99 of a hundred are below, longest.
    pub fn latency_ms(&self) -> [f64; 3] {
        let all = &self.latencies_us;
        let count = all.len().max(1);
        let at = |place: usize| all.get(place).map_or(0.0, |us| *us as f64 / 1000.0);
        let mean = all.iter().sum::<u64>() as f64 / count as f64 / 1000.0;
        [mean, at(all.len() * 99 / 100), at(count - 1)]
    }
}

/// Where its programs are: Debian keeps them out of the way.
fn programs() -> io::Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists() && bin.join("pgbench").exists())
        .collect();
    found.sort();
    found
        .pop()
        .ok_or_else(|| io::Error::other("PostgreSQL is not installed; run scripts/bench-deps.sh"))
}
