//! BENCHMARKS.md's tables: minima of the rounds, ratios to the peers, and where a target is missed.

use crate::rows::{Row, Runs};
use std::fmt::Write;
use std::time::Duration;

/// A bound on a ratio, as the table of targets states it.
pub struct Target {
    /// Row it belongs to, by its work.
    pub work: &'static str,
    /// What is compared.
    pub what: What,
    /// Against which tool; `None`: the best peer.
    pub peer: Option<&'static str>,
    /// Must be at most this many times.
    pub must: f64,
}

/// What a target compares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Wall time.
    Wall,
    /// CPU time.
    Cpu,
    /// Bytes added.
    Added,
}

impl What {
    fn of(self, runs: &Runs) -> Option<f64> {
        match self {
            What::Wall => runs.wall().map(|d| d.as_secs_f64()),
            What::Cpu => runs.cpu().map(|d| d.as_secs_f64()),
            What::Added => runs.added().map(|b| b as f64),
        }
    }

    fn word(self) -> &'static str {
        match self {
            What::Wall => "wall",
            What::Cpu => "CPU",
            What::Added => "bytes added",
        }
    }
}

/// The rows as one table: wall s / CPU s / peak MiB / MiB added.
pub fn table(rows: &[Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|r| &r.tools) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut out = format!(
        "| work | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for row in rows {
        let _ = write!(out, "| {} |", row.work);
        for name in &names {
            let cell = match row.tools.iter().find(|(n, _)| n == name) {
                None => "not measured".to_owned(),
                Some((_, runs)) => cell(runs),
            };
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
    out
}

fn cell(runs: &Runs) -> String {
    let (Some(wall), Some(cpu)) = (runs.wall(), runs.cpu()) else {
        return format!(
            "failed: {}",
            runs.failed
                .clone()
                .unwrap_or_default()
                .replace(['\n', '|'], " ")
        );
    };
    let peaks: Vec<String> = runs
        .peaks()
        .iter()
        .map(|(_, mib)| format!("{mib:.0}"))
        .collect();
    let added = runs.added().map_or(String::new(), |b| {
        format!(" / {:.1}", b as f64 / 1_048_576.0)
    });
    format!(
        "{:.2} / {:.2} / {}{added}",
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        peaks.join("+")
    )
}

/// What our processes keep beside the store, after each step.
pub fn state(rows: &[Row]) -> String {
    let mut out = String::from(
        "| after | catalog MiB | frame cache MiB | agent's index MiB | agent CPU s | coordinator CPU s |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Some((_, runs)) = row.tools.iter().find(|(n, _)| n == "holdfast") else {
            continue;
        };
        let seconds = |name| runs.share(name).map_or(0.0, |cpu| cpu.as_secs_f64());
        if let Some(state) = runs.state {
            let [catalog, cache, index] = state.map(|bytes| bytes as f64 / 1_048_576.0);
            let _ = writeln!(
                out,
                "| {} | {catalog:.1} | {cache:.1} | {index:.1} | {:.2} | {:.2} |",
                row.work,
                seconds("agent"),
                seconds("coordinator")
            );
        }
    }
    out
}

/// Bounds that no peer is needed for: memory of our processes over all rows, and the commit row.
pub fn bounds(rows: &[Row]) -> String {
    let ours = || {
        rows.iter()
            .flat_map(|row| row.tools.iter().map(move |(n, runs)| (row, n, runs)))
            .filter(|(_, name, _)| *name == "holdfast")
    };
    let peak = |process: &str| {
        ours()
            .flat_map(|(row, _, runs)| runs.peaks().into_iter().map(move |peak| (row, peak)))
            .filter(|(_, (name, _))| name == process)
            .max_by(|a, b| a.1.1.total_cmp(&b.1.1))
            .map(|(row, (_, mib))| (mib, row.work.as_str()))
    };
    let mut out = String::from("| bound | must be at most | is | |\n|---|---|---|---|\n");
    let mut line = |what: &str, must: f64, unit: &str, is: Option<(f64, &str)>| {
        let Some((is, work)) = is else { return };
        let verdict = if is <= must { "met" } else { "**missed**" };
        let _ = writeln!(
            out,
            "| {what} | {must} {unit} | {is:.2} {unit} ({work}) | {verdict} |"
        );
    };
    line("peak RSS of the agent", 200.0, "MiB", peak("agent"));
    line(
        "peak RSS of the coordinator",
        300.0,
        "MiB",
        peak("coordinator"),
    );
    let commit = ours().find(|(row, ..)| row.work == "B: 100 files changed");
    if let Some((row, _, runs)) = commit {
        let added = runs
            .added()
            .map(|b| (b as f64 / 1_048_576.0, row.work.as_str()));
        line(
            "100 changes of 1,000,000: all bytes added",
            1.0,
            "MiB",
            added,
        );
        let cpu = runs.share("coordinator");
        let cpu = cpu.map(|cpu| (cpu.as_secs_f64() * 1000.0, row.work.as_str()));
        line(
            "100 changes of 1,000,000: coordinator's CPU",
            100.0,
            "ms",
            cpu,
        );
    }
    for (work, wall_ms, cpu_ms) in [
        ("V: 1,000,000 files: nothing changed", 100.0, 30.0),
        ("V: 1,000,000 files: 100 files changed", 500.0, 200.0),
    ] {
        let row = rows.iter().find(|row| row.work == work);
        let runs = row.and_then(|row| row.tools.iter().find(|(n, _)| n == "holdfast, journal"));
        let Some((_, runs)) = runs else { continue };
        let ms = |time: Option<Duration>| time.map(|time| (time.as_secs_f64() * 1000.0, work));
        line("by journal: wall", wall_ms, "ms", ms(runs.wall()));
        line(
            "by journal: CPU of all processes",
            cpu_ms,
            "ms",
            ms(runs.cpu()),
        );
    }
    let insert = ours().find(|(row, ..)| row.work == "G: one byte inserted at the front");
    if let Some((row, _, runs)) = insert {
        let added = runs
            .added()
            .map(|b| (b as f64 / 1_048_576.0, row.work.as_str()));
        line("one byte inserted: bytes added", 1.0, "MiB", added);
    }
    out
}

/// The targets with what was reached.
pub fn targets(rows: &[Row], targets: &[Target]) -> String {
    let mut out = String::from(
        "| work | compared | with | must be at most | is | |\n|---|---|---|---|---|---|\n",
    );
    for target in targets {
        let Some(row) = rows.iter().find(|r| r.work == target.work) else {
            continue;
        };
        let ours = row
            .tools
            .iter()
            .find(|(n, _)| n == "holdfast")
            .and_then(|(_, r)| target.what.of(r));
        let theirs = row
            .tools
            .iter()
            .filter(|(n, _)| !n.starts_with("holdfast") && target.peer.is_none_or(|p| p == n))
            .filter_map(|(n, r)| Some((target.what.of(r)?, n.as_str())))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let (with, is, verdict) = match (ours, theirs) {
            (Some(ours), Some((theirs, name))) if theirs > 0.0 => {
                let ratio = ours / theirs;
                let verdict = if ratio <= target.must {
                    "met"
                } else {
                    "**missed**"
                };
                (name, format!("{ratio:.2} ×"), verdict)
            }
            _ => (
                target.peer.unwrap_or("best peer"),
                "not measured".into(),
                "",
            ),
        };
        let _ = writeln!(
            out,
            "| {} | {} | {with} | {} × | {is} | {verdict} |",
            target.work,
            target.what.word(),
            target.must
        );
    }
    out
}
