//! What a command costs: wall time, CPU seconds of every process that took part, peak memory of each.

use nix::sys::resource::{UsageWho, getrusage};
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The cost of one run.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// From exec to exit.
    pub wall: Duration,
    /// User and system time of the command, its children and the watched processes, until none of
    /// these has used any for a second.
    pub cpu: Duration,
    /// The share of each watched process in it.
    pub shares: Vec<(String, Duration)>,
    /// Peak resident memory, by process name, in MiB.
    pub peak_mib: Vec<(String, f64)>,
}

/// A process that runs all along and whose work counts: coordinator, agent.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its name in the report.
    pub name: String,
    /// Its id.
    pub pid: u32,
}

impl Watched {
    /// User and system time so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The second field is the name in parentheses, which may hold spaces: count from its end.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|f| f.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// From now on the peak is that of what follows.
    pub fn reset_peak(&self) -> io::Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5")
    }

    /// Peak and present resident memory, in MiB.
    pub fn resident_mib(&self) -> [f64; 2] {
        ["VmHWM:", "VmRSS:"].map(|what| memory_mib(self.pid, what).unwrap_or(0.0))
    }
}

/// The highest peak among a process and its children: a shell's is not what is asked for.
fn peak_of_family(pid: u32) -> Option<f64> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|child| peak_mib(child.parse().ok()?))
        .chain(peak_mib(pid))
        .max_by(f64::total_cmp)
}

fn peak_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "VmHWM:")
}

fn memory_mib(pid: u32, what: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with(what))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<f64>()
        .ok()
        .map(|kib| kib / 1024.0)
}

fn children_cpu() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time =
        |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// No command is measured for longer than this: what takes so long is stopped, and its cell says so.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Runs a command to its end; an exit code that is not among `accepted` is an error with its output.
pub fn run(
    name: &str,
    command: &mut Command,
    watched: &[Watched],
    accepted: &[i32],
) -> io::Result<Cost> {
    // What runs all along is idle when it begins: other tools may have given it something to do.
    settle(watched)?;
    let before: Vec<Duration> = watched.iter().map(Watched::cpu).collect::<Result<_, _>>()?;
    watched.iter().try_for_each(Watched::reset_peak)?;
    let log = tempfile::tempfile()?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    let children = children_cpu()?;
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut peak: f64 = 0.0;
    let status = loop {
        if let Some(mib) = peak_of_family(child.id()) {
            peak = peak.max(mib);
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > LONGEST {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other("stopped after 15 minutes"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = start.elapsed();
    if !status.code().is_some_and(|code| accepted.contains(&code)) {
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        return Err(io::Error::other(format!(
            "{} ended with {status}: {}",
            words.join(" "),
            tail(log)?
        )));
    }
    let mut cpu = children_cpu()? - children;
    let mut peaks = vec![(name.to_owned(), peak)];
    settle(watched)?;
    let mut shares = Vec::new();
    for (process, before) in watched.iter().zip(before) {
        let share = process.cpu()?.saturating_sub(before);
        cpu += share;
        shares.push((process.name.clone(), share));
        peaks.push((process.name.clone(), peak_mib(process.pid).unwrap_or(0.0)));
    }
    Ok(Cost {
        wall,
        cpu,
        shares,
        peak_mib: peaks,
    })
}

/// Waits until no watched process has used CPU for a second (at most a minute).
pub fn settle(watched: &[Watched]) -> io::Result<()> {
    let sum = || {
        watched
            .iter()
            .map(Watched::cpu)
            .sum::<io::Result<Duration>>()
    };
    let (mut last, mut quiet) = (sum()?, 0);
    for _ in 0..300 {
        if watched.is_empty() || quiet >= 5 {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        let now = sum()?;
        // One clock tick of housekeeping (timers) is not work.
        quiet = if now.saturating_sub(last) <= Duration::from_millis(10) {
            quiet + 1
        } else {
            0
        };
        last = now;
    }
    Ok(())
}

fn tail(mut log: std::fs::File) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let end = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(end.saturating_sub(2000)))?;
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Sum of the sizes of all files below a directory.
pub fn tree_bytes(root: &std::path::Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() {
            tree_bytes(&entry.path())?
        } else {
            meta.len()
        };
    }
    Ok(sum)
}

/// Number of files below a directory.
pub fn tree_files(root: &std::path::Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        count += match entry.file_type()?.is_dir() {
            true => tree_files(&entry.path())?,
            false => 1,
        };
    }
    Ok(count)
}
