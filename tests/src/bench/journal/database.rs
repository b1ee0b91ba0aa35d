//! A volume in which PostgreSQL works: how many of a hundred runs were walks, what clients of the database notice of
//! them, and whether the last snapshot is what the stopped database left.

mod cluster;

use super::{BOUNDS, bound, middle_and_longest};
use crate::holdfast::{Holdfast, Ran, VOLUME};
use crate::rows::Plan;
use crate::target::FreshTarget;
use cluster::{Cluster, Sample};
use holdfast_tests::oracle;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// From the begin of one run to that of the next, if the first has ended.
const EVERY: Duration = Duration::from_millis(2500);
/// Times that the sides take turns.
const TURNS: usize = 5;

/// The table, and the bounds.
pub fn table(plan: &Plan) -> io::Result<String> {
    let wanted = plan.sized(100);
    // Whole seconds, as pgbench takes them.
    let span = (EVERY * wanted.div_ceil(TURNS) as u32).as_secs().max(1);
    let span = Duration::from_secs(span);
    let scale = plan.sized(20);
    // On a disk, wherever other sources lie: no database is on a tmpfs.
    let home = plan.scratch.join("database");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    eprintln!("making two databases");
    let served = Cluster::make(&home.join("served"), scale)?;
    let alone = Cluster::make(&home.join("alone"), scale)?;
    let repos = plan.scratch.join("repos");
    let holdfast = Holdfast::start_with_journal(&plan.bin, &repos, served.volume())?;
    holdfast.back_up(VOLUME)?;
    holdfast.wait_until_trusted()?;
    holdfast.back_up(VOLUME)?;
    let (mut with, mut without, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let agent = holdfast.agent();
    let mut cpu = Duration::ZERO;
    for turn in 0..TURNS {
        // Who comes first changes.
        for side in [turn % 2, (turn + 1) % 2] {
            eprintln!("turn {}: {}", turn + 1, ["without", "with"][side]);
            if side == 0 {
                let bench = alone.bench(span)?;
                without.push(alone.sample(bench.wait_with_output()?.status, span)?);
                continue;
            }
            let before = agent.cpu()?;
            let mut bench = served.bench(span)?;
            let most = (wanted - runs.len()).min(wanted.div_ceil(TURNS));
            runs.extend(back_up_beside(&holdfast, &mut bench, most)?);
            with.push(served.sample(bench.wait()?, span)?);
            cpu += agent.cpu()?.saturating_sub(before);
        }
    }
    served.stop()?;
    alone.stop()?;
    let last = holdfast.back_up(VOLUME)?;
    let target = FreshTarget::make(&plan.scratch)?;
    holdfast.restore(target.path(), false)?;
    let same = same(served.volume(), target.path())?;
    drop(target);
    std::fs::remove_dir_all(&home)?;

    let seconds = with.len() as f64 * span.as_secs_f64();
    let mut out = format!(
        "PostgreSQL (scale {scale}, fsync on) on disk, {} clients of pgbench: of a hundred transactions {} of its own, {} sort what does not fit their memory, {} fill a temporary table. One such database is in a volume that is backed up every {:.1} s; the other is the same and is not. They take turns, {} s each, {TURNS} times, while the other is idle. Medians of the turns; the 99th of a hundred over all.\n\n",
        cluster::CLIENTS,
        100 - cluster::SORTS - cluster::TABLES,
        cluster::SORTS,
        cluster::TABLES,
        EVERY.as_secs_f64(),
        span.as_secs(),
    );
    out.push_str("| | transactions a second | latency ms: mean | 99 % below | longest |\n|---|---|---|---|---|\n");
    let (without, with) = (Sample::of_all(without), Sample::of_all(with));
    for (name, side) in [
        ("without an agent", &without),
        ("probed and backed up", &with),
    ] {
        let [mean, high, longest] = side.latency_ms();
        let _ = writeln!(
            out,
            "| {name} | {:.0} | {mean:.2} | {high:.2} | {longest:.0} |",
            side.rate()
        );
    }
    let mut looks: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &runs {
        *looks.entry(&run.look).or_default() += 1;
    }
    let looks: Vec<String> = looks.iter().map(|(l, n)| format!("{n} by {l}")).collect();
    let [middle, longest] = middle_and_longest(runs.iter().map(|run| run.wall).collect());
    let _ = writeln!(
        out,
        "\n{} runs: {}; {middle:.2} s (longest {longest:.2} s); {} named files that changed while they were read; the agent used {:.3} cores. The database stopped and backed up once more (by {}), its restore is {}.",
        runs.len(),
        looks.join(", "),
        runs.iter().filter(|run| run.problems).count(),
        cpu.as_secs_f64() / seconds,
        last.look,
        if same {
            "the same tree"
        } else {
            "**another tree**"
        },
    );
    let walked = runs.iter().filter(|run| run.look != "journal").count();
    out.push_str(BOUNDS);
    let share = walked as f64 * 100.0 / runs.len().max(1) as f64;
    out.push_str(&bound("share of runs that walked", 1.0, "%", share));
    Ok(out)
}

/// Runs at intervals, so many at most, until pgbench ends.
fn back_up_beside(holdfast: &Holdfast, bench: &mut Child, most: usize) -> io::Result<Vec<Ran>> {
    let mut runs = Vec::new();
    let mut due = Instant::now();
    while runs.len() < most && bench.try_wait()?.is_none() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        runs.push(holdfast.back_up(VOLUME)?);
        due = (due + EVERY).max(Instant::now());
    }
    Ok(runs)
}

/// Whether a dumper that knows nothing of us sees the same in both.
fn same(source: &Path, restored: &Path) -> io::Result<bool> {
    let dump = |path: &Path| {
        let path = path.to_owned();
        let dumping = std::thread::spawn(move || oracle::dump(&path, false));
        dumping.join().map_err(|_| io::Error::other("no dump"))
    };
    Ok(dump(source)? == dump(restored)?)
}
