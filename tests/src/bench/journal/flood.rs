//! A tenant who makes 20,000 events a second for a minute, while another volume is backed up: what that costs
//! the agent, and whose journal survives it.

use super::{BOUNDS, bound, middle_and_longest};
use crate::corpus::{self, Rng};
use crate::holdfast::{Holdfast, Ran};
use crate::rows::Plan;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Events a second.
const RATE: u64 = 20_000;
/// Events come in bursts, as they do.
const BURST: Duration = Duration::from_millis(10);
/// Time between two backups of the other volume.
const BETWEEN: Duration = Duration::from_secs(5);
const DIRECTORIES: usize = 1000;
/// Made files that are there at once.
const MADE: u64 = 1000;

/// A minute's worth of what the agent did.
struct Minute {
    cores: f64,
    peak_mib: f64,
    rate: f64,
    runs: Vec<Ran>,
}

/// The table, and the bounds.
pub fn table(plan: &Plan) -> io::Result<String> {
    let place = plan.place("flood")?;
    let [noisy, other] = ["noisy", "other"].map(|name| place.path().join(name));
    let files = plan.sized(100_000);
    eprintln!("making {files} files for the noisy volume and 10,000 for the other");
    let mut rng = Rng::new(42);
    corpus::many_files(&other, &mut rng, 10_000, 200)?;
    for n in 0..files {
        let directory = noisy.join((n % DIRECTORIES).to_string());
        if n < DIRECTORIES {
            fs::create_dir_all(&directory)?;
        }
        fs::write(directory.join(n.to_string()), b"first")?;
    }
    let span = Duration::from_secs(plan.sized(60) as u64);
    let volumes = [("noisy", noisy.as_path()), ("other", other.as_path())];
    let holdfast = Holdfast::serving(&plan.bin, &plan.scratch.join("repos/flood"), &volumes)?;
    for (volume, _) in volumes {
        holdfast.back_up(volume)?;
    }
    holdfast.wait_until_trusted()?;
    for (volume, _) in volumes {
        holdfast.back_up(volume)?;
    }
    eprintln!("a quiet time of {span:?}");
    let quiet = minute(&holdfast, &other, span, || Ok(0))?;
    eprintln!("the same with {RATE} events a second");
    let flooded = minute(&holdfast, &other, span, || flood(&noisy, files, span))?;
    let after = holdfast.back_up("noisy")?;
    let then = holdfast.back_up("other")?;

    let mut out = format!(
        "Two volumes, both by journal: one of {files} files in {DIRECTORIES} directories, whose tenant writes over its files, one after the other, and makes and removes others; one of 10,000 files, of which 10 change before each backup, one every {} s. {} s without the tenant, then {} s with it.\n\n",
        BETWEEN.as_secs(),
        span.as_secs(),
        span.as_secs()
    );
    let _ = writeln!(
        out,
        "| | events a second | agent CPU, cores | agent peak RSS MiB | runs of the other volume | by journal | wall s, middle | longest |\n|---|---|---|---|---|---|---|---|"
    );
    for (name, minute) in [("quiet", &quiet), ("flood", &flooded)] {
        let [middle, longest] = middle_and_longest(minute.runs.iter().map(|r| r.wall).collect());
        let told = minute.runs.iter().filter(|run| run.look == "journal");
        let _ = writeln!(
            out,
            "| {name} | {:.0} | {:.3} | {:.0} | {} | {} | {middle:.2} | {longest:.2} |",
            minute.rate,
            minute.cores,
            minute.peak_mib,
            minute.runs.len(),
            told.count(),
        );
    }
    let _ = writeln!(
        out,
        "\nThe run of the noisy volume that followed: {} ({:.2} s); then of the other: {} ({:.2} s).",
        after.look,
        after.wall.as_secs_f64(),
        then.look,
        then.wall.as_secs_f64()
    );
    let walked = flooded.runs.iter().chain([&then]);
    let walked = walked.filter(|run| run.look != "journal").count();
    out.push_str(BOUNDS);
    out.push_str(&bound("CPU of the agent", 0.5, "cores", flooded.cores));
    out.push_str(&bound(
        "the other volume's walks",
        0.0,
        "runs",
        walked as f64,
    ));
    Ok(out)
}

/// Backs the other volume up now and then, for so long, while something else is done.
fn minute(
    holdfast: &Holdfast,
    other: &Path,
    span: Duration,
    beside: impl FnOnce() -> io::Result<u64> + Send,
) -> io::Result<Minute> {
    let agent = holdfast.agent();
    agent.reset_peak()?;
    let (before, began) = (agent.cpu()?, Instant::now());
    let (runs, events) = std::thread::scope(|scope| {
        let beside = scope.spawn(beside);
        let mut runs = Vec::new();
        let mut due = began;
        while began.elapsed() < span {
            due += BETWEEN;
            std::thread::sleep(
                due.min(began + span)
                    .saturating_duration_since(Instant::now()),
            );
            corpus::touch(other, 10, due.duration_since(began).as_secs() + 1)?;
            runs.push(holdfast.back_up("other")?);
        }
        let events = beside.join().map_err(|_| io::Error::other("no flood"))??;
        Ok::<_, io::Error>((runs, events))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Minute {
        cores: agent.cpu()?.saturating_sub(before).as_secs_f64() / seconds,
        peak_mib: agent.resident_mib()[0],
        rate: events as f64 / span.as_secs_f64(),
        runs,
    })
}

/// Makes events for so long; how many. Each step is three, whatever the kernel merges: an old file written, a new
/// one made and written, and one that was made earlier removed.
fn flood(root: &Path, files: usize, span: Duration) -> io::Result<u64> {
    let began = Instant::now();
    let (mut events, mut step) = (0, 0u64);
    while began.elapsed() < span {
        let due = (RATE as f64 * began.elapsed().as_secs_f64()) as u64;
        while events < due {
            let n = step as usize % files;
            let directory = root.join((n % DIRECTORIES).to_string());
            let mut old = OpenOptions::new()
                .write(true)
                .open(directory.join(n.to_string()))?;
            old.write_all(&step.to_le_bytes())?;
            let made = |step: u64| {
                let directory = root.join((step as usize % DIRECTORIES).to_string());
                directory.join(format!("made-{step}"))
            };
            fs::write(made(step), b"made")?;
            events += 2;
            if let Some(old) = step.checked_sub(MADE) {
                fs::remove_file(made(old))?;
                events += 1;
            }
            step += 1;
        }
        std::thread::sleep(BURST);
    }
    Ok(events)
}
