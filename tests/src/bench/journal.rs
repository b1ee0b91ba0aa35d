//! The parts of the benchmark that ask what the change journal costs and survives: our agent beside other
//! work, where the comparison is with itself and with a bound, not with a peer.

mod database;
mod directories;
mod flood;
mod watches;

use crate::rows::Plan;
use std::io;
use std::time::Duration;

/// The tables of part E (events), W (watched directories) or Q (PostgreSQL); `None`: another part.
pub fn part(plan: &Plan, name: &str) -> Option<io::Result<String>> {
    match name {
        "E" => Some(flood::table(plan)),
        "W" => Some(directories::tables(plan)),
        "Q" => Some(database::table(plan)),
        _ => None,
    }
}

/// A line of a table of bounds.
fn bound(what: &str, must: f64, unit: &str, is: f64) -> String {
    let verdict = if is <= must { "met" } else { "**missed**" };
    format!("| {what} | {must} {unit} | {is:.3} {unit} | {verdict} |\n")
}

const BOUNDS: &str = "\n| bound | must be at most | is | |\n|---|---|---|---|\n";

/// The middle one, and the longest.
fn middle_and_longest(mut walls: Vec<Duration>) -> [f64; 2] {
    walls.sort();
    let at = |place: usize| walls.get(place).map_or(0.0, Duration::as_secs_f64);
    [at(walls.len() / 2), at(walls.len().saturating_sub(1))]
}

/// Bytes of the kernel's small objects: all, and those that are never given up.
fn slab_bytes() -> io::Result<[i64; 2]> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<i64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::other(format!("the kernel does not tell {name}")))
    };
    Ok([field("Slab:")?, field("SUnreclaim:")?])
}

/// Bytes of one inode of this kind of filesystem in the kernel's memory, if it tells (to root).
fn inode_bytes(kind: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/slabinfo").ok()?;
    let name = format!("{kind}_inode_cache ");
    let line = text.lines().find(|line| line.starts_with(&name))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
