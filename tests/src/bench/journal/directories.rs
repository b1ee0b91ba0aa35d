//! What it takes to watch 200,000 directories: memory of the agent and of the kernel, and how much longer than
//! a plain walk the run takes with which an epoch begins.

use super::watches::Watches;
use super::{BOUNDS, bound, inode_bytes, slab_bytes};
use crate::corpus;
use crate::holdfast::{Holdfast, Ran, VOLUME};
use crate::measure::settle;
use crate::rows::Plan;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// A run with what the agent used for it.
#[derive(Clone, Copy)]
struct Timed {
    wall: Duration,
    cpu: Duration,
}

/// One source, walked and watched.
struct Watching {
    /// Nothing changed, no journal.
    walk: Timed,
    /// Nothing changed, an epoch begins.
    epoch: Timed,
    /// From the end of that run until the journal is trusted.
    seeding: Timed,
    /// Nothing changed, by journal.
    told: Timed,
    /// Of the agent: idle before its first run, peak of the walk with which an epoch begins, trusted.
    mib: [f64; 3],
    /// Growth of the kernel's small objects from the walked to the watched source: all, and unreclaimable.
    slab: [i64; 2],
}

/// The tables, and the bounds.
pub fn tables(plan: &Plan) -> io::Result<String> {
    let count = plan.sized(200_000);
    let _room = Watches::of(count)?;
    let wide = {
        let place = plan.place("directories")?;
        eprintln!("making {count} directories");
        corpus::directories(place.path(), count)?;
        watching(plan, place.path())?
    };
    let (corpus, directories) = match plan.size < 1.0 {
        true => ("J", 200),
        false => ("B", 20_000),
    };
    let many = watching(plan, plan.placed(corpus)?.path())?;
    let mut out = format!(
        "Nothing changed: a walk by an agent without a journal; the run with which an epoch begins (the first of a new agent process); what that agent does afterwards until the journal is trusted (every file is probed, at low priority); a run by journal. Wall s / CPU s of the agent, minima of {} rounds.\n\n",
        plan.rounds
    );
    let _ = writeln!(
        out,
        "| source | walk | epoch begins | until trusted | by journal |\n|---|---|---|---|---|"
    );
    let wide_name = format!("{count} directories, one file in each");
    let many_name = format!("corpus {corpus}: 50 files in each of {directories} directories");
    for (name, of) in [(&wide_name, &wide), (&many_name, &many)] {
        let cells = [of.walk, of.epoch, of.seeding, of.told].map(cell);
        let _ = writeln!(out, "| {name} | {} |", cells.join(" | "));
    }
    out.push_str(
        "\n| source | agent RSS MiB: idle | peak while an epoch begins | trusted | kernel slab, growth MiB | unreclaimable, bytes a directory |\n|---|---|---|---|---|---|\n",
    );
    for (name, directories, of) in [(&wide_name, count, &wide), (&many_name, directories, &many)] {
        let [idle, peak, trusted] = of.mib;
        let _ = writeln!(
            out,
            "| {name} | {idle:.0} | {peak:.0} | {trusted:.0} | {:.1} | {:.0} |",
            of.slab[0] as f64 / 1_048_576.0,
            of.slab[1] as f64 / directories as f64
        );
    }
    out.push_str("\nThe growth is from the walked source to the watched one, so that inodes and names are in memory both times.");
    let sizes: Vec<String> = ["ext4", "xfs", "btrfs", "shmem"]
        .into_iter()
        .filter_map(|kind| Some(format!("{kind} {}", inode_bytes(kind)?)))
        .collect();
    let _ = writeln!(
        out,
        " A watch also keeps its directory's inode in memory, in bytes: {}.",
        sizes.join(", ")
    );
    out.push_str(BOUNDS);
    let rss = wide.mib[1].max(wide.mib[2]);
    out.push_str(&bound(
        "RSS of the agent, most directories",
        200.0,
        "MiB",
        rss,
    ));
    let times = many.epoch.wall.as_secs_f64() / many.walk.wall.as_secs_f64();
    out.push_str(&bound(
        "epoch start, most files: wall, of a walk's",
        2.0,
        "×",
        times,
    ));
    Ok(out)
}

fn cell(timed: Timed) -> String {
    format!(
        "{:.2} / {:.2}",
        timed.wall.as_secs_f64(),
        timed.cpu.as_secs_f64()
    )
}

fn watching(plan: &Plan, source: &Path) -> io::Result<Watching> {
    let repos = plan.scratch.join("repos");
    let walking = Holdfast::start(&plan.bin, &repos, source)?;
    walking.back_up(VOLUME)?;
    let walks = rounds(plan, || run(&walking, "walk"))?;
    drop(walking);
    let before = slab_bytes()?;
    let mut holdfast = Holdfast::start_with_journal(&plan.bin, &repos, source)?;
    let idle = holdfast.agent().resident_mib()[1];
    holdfast.back_up(VOLUME)?;
    holdfast.wait_until_trusted()?;
    let (mut epochs, mut seedings, mut peak) = (Vec::new(), Vec::new(), 0f64);
    for _ in 0..plan.rounds {
        holdfast.restart_agent()?;
        epochs.push(run(&holdfast, "walk FirstRun")?);
        let agent = holdfast.agent();
        let (cpu, began) = (agent.cpu()?, Instant::now());
        holdfast.wait_until_trusted()?;
        let wall = began.elapsed();
        settle(std::slice::from_ref(&agent))?;
        let cpu = agent.cpu()?.saturating_sub(cpu);
        seedings.push(Timed { wall, cpu });
        peak = peak.max(agent.resident_mib()[0]);
    }
    let trusted = holdfast.agent().resident_mib()[1];
    let after = slab_bytes()?;
    let told = rounds(plan, || run(&holdfast, "journal"))?;
    Ok(Watching {
        walk: least(&walks),
        epoch: least(&epochs),
        seeding: least(&seedings),
        told: least(&told),
        mib: [idle, peak, trusted],
        slab: [after[0] - before[0], after[1] - before[1]],
    })
}

fn rounds<T>(plan: &Plan, mut one: impl FnMut() -> io::Result<T>) -> io::Result<Vec<T>> {
    (0..plan.rounds).map(|_| one()).collect()
}

/// A run that must look at its volume like this.
fn run(holdfast: &Holdfast, look: &str) -> io::Result<Timed> {
    let agent = holdfast.agent();
    settle(std::slice::from_ref(&agent))?;
    let before = agent.cpu()?;
    let Ran { wall, look: is, .. } = holdfast.back_up(VOLUME)?;
    let cpu = agent.cpu()?.saturating_sub(before);
    match is.starts_with(look) {
        true => Ok(Timed { wall, cpu }),
        false => Err(io::Error::other(format!("a run by {is} instead of {look}"))),
    }
}

fn least(all: &[Timed]) -> Timed {
    let least = |of: fn(&Timed) -> Duration| all.iter().map(of).min().unwrap_or_default();
    Timed {
        wall: least(|timed| timed.wall),
        cpu: least(|timed| timed.cpu),
    }
}
