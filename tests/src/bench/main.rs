//! `holdfast-bench`: runs holdfast and whatever peers are installed on the same corpora, on the same
//! machine, in the same run, and writes BENCHMARKS.md.

mod corpus;
mod holdfast;
mod journal;
mod measure;
mod memory;
mod pipeline;
mod report;
mod rows;
mod scale;
mod target;
mod tools;

use holdfast::Holdfast;
use report::{Target, What};
use rows::{Plan, Row, Step};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tools::{PEERS, Peer};

const USAGE: &str = "usage: holdfast-bench [--only A,B,C,S,D,G,J,V,H,E,W,Q,K,M,F,P] [--rounds N] [--peers bupstash,restic,...] [--scratch DIR]
       [--source disk|tmpfs] [--size FRACTION] [--out FILE [--section NAME]]
       holdfast-bench corpus NAME DIR [SEED] | touch DIR N SEED | dirty FILE FRACTION SEED | insert FILE";

/// The bounds that the project has set itself.
const TARGETS: &[Target] = &[
    target("A: first backup", What::Wall, Some("bupstash"), 1.0),
    target("A: first backup", What::Cpu, Some("bupstash"), 1.1),
    target("A: first backup", What::Added, Some("bupstash"), 1.05),
    target("A: nothing changed", What::Wall, Some("bupstash"), 0.8),
    target("A: 100 files changed", What::Added, Some("restic"), 1.5),
    target("A: 100 files changed", What::Wall, Some("bupstash"), 0.8),
    target("A: restore", What::Wall, None, 1.0),
    target("A: restore over an identical tree", What::Wall, None, 1.0),
    target("B: first backup", What::Wall, Some("bupstash"), 1.0),
    target("B: first backup", What::Added, None, 1.0),
    target("C: first backup of big.db", What::Wall, None, 0.8),
    target(
        "C: first backup of big.db",
        What::Added,
        Some("bupstash"),
        1.1,
    ),
    target("C: 1 % of the pages rewritten", What::Added, None, 0.2),
    target("C: restore of big.db", What::Wall, None, 1.0),
    target("D: first backup", What::Wall, Some("bupstash"), 0.9),
    target("D: first backup", What::Added, Some("bupstash"), 1.05),
    target("D: restore", What::Wall, None, 1.0),
];

const fn target(work: &'static str, what: What, peer: Option<&'static str>, must: f64) -> Target {
    Target {
        work,
        what,
        peer,
        must,
    }
}

struct Options {
    only: Vec<String>,
    out: Option<PathBuf>,
    /// Which measured section of the document is replaced.
    section: String,
    plan: Plan,
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["corpus", name, dir] => return Ok(corpus::generate(name, dir.as_ref(), 42)?),
        ["corpus", name, dir, seed] => {
            return Ok(corpus::generate(name, dir.as_ref(), seed.parse()?)?);
        }
        ["touch", dir, count, seed] => {
            return Ok(corpus::touch(dir.as_ref(), count.parse()?, seed.parse()?)?);
        }
        ["dirty", file, fraction, seed] => {
            return Ok(corpus::dirty(
                file.as_ref(),
                fraction.parse()?,
                seed.parse()?,
            )?);
        }
        ["insert", file] => return Ok(corpus::insert_front(file.as_ref())?),
        _ => {}
    }
    let mut options = parse(&words)?;
    let _resident = memory::Resident::hold();
    let mut rows = Vec::new();
    let mut tables = String::new();
    for part in &options.only.clone() {
        options.plan.journal = part == "J";
        let table = journal::part(&options.plan, part).or_else(|| scale::part(&options.plan, part));
        let measured = match table {
            Some(table) => table
                .map(|table| tables.push_str(&table))
                .map_err(Into::into),
            None => measure_part(&options.plan, part).map(|measured| rows.extend(measured)),
        };
        // Hours of other rows are not lost to one that fails.
        if let Err(error) = measured {
            eprintln!("part {part} is not measured: {error}");
            let _ = writeln!(tables, "Part {part} was not measured: {error}");
        }
    }
    let mut text = machine(&options.plan);
    if !rows.is_empty() {
        text.push_str(&tools(&options.plan));
        text.push_str(&report::table(&rows));
        for (title, table) in [
            ("\n#### Beside the store\n\n", report::state(&rows)),
            ("\n#### Targets\n\n", report::targets(&rows, TARGETS)),
            ("\n", report::bounds(&rows)),
        ] {
            // Not its head alone.
            if table.lines().count() > 2 {
                text.push_str(title);
                text.push_str(&table);
            }
        }
    }
    text.push_str(&tables);
    if options.only.iter().any(|p| p == "F") {
        let source = options.plan.corpus("D")?;
        let repos = options.plan.scratch.join("repos");
        let line = match Holdfast::syncs(&options.plan.bin, &repos, &source) {
            Ok((syncs, objects)) => format!(
                "Under strace, the coordinator called fsync or fdatasync {syncs} times for the {objects} objects of a first backup of D."
            ),
            Err(error) => format!("Syncs were not counted: {error}"),
        };
        let _ = writeln!(text, "\n{line}");
    }
    if options.only.iter().any(|p| p == "P") {
        let file = options.plan.corpus("C")?.join("big.db");
        text.push_str("\n#### The pipeline alone\n\n");
        text.push_str(&pipeline::table(&file)?);
    }
    match options.out {
        Some(path) => write_section(&path, &options.section, &text)?,
        None => print!("{text}"),
    }
    Ok(())
}

fn parse(words: &[&str]) -> Result<Options, Box<dyn std::error::Error>> {
    let bin = std::env::current_exe()?
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default();
    let mut options = Options {
        only: "A B C S D G J V H E W Q K M F P"
            .split(' ')
            .map(String::from)
            .collect(),
        out: None,
        section: "everything".to_owned(),
        plan: Plan {
            scratch: PathBuf::from(".bench"),
            peers: PEERS
                .iter()
                .copied()
                .filter(|p| p.version().is_some())
                .collect(),
            rounds: 3,
            tmpfs: false,
            journal: false,
            size: 1.0,
            bin,
        },
    };
    for pair in words.chunks(2) {
        let [key, value] = pair else {
            return Err(USAGE.into());
        };
        match *key {
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            "--rounds" => options.plan.rounds = value.parse()?,
            "--source" => options.plan.tmpfs = *value == "tmpfs",
            "--size" => options.plan.size = value.parse()?,
            "--scratch" => options.plan.scratch = value.into(),
            "--out" => options.out = Some(value.into()),
            "--section" => options.section = (*value).to_owned(),
            "--peers" => {
                let wanted: Vec<&str> = value.split(',').collect();
                options.plan.peers.retain(|p| wanted.contains(&p.name()));
            }
            _ => return Err(USAGE.into()),
        }
    }
    std::fs::create_dir_all(&options.plan.scratch)?;
    options.plan.scratch = options.plan.scratch.canonicalize()?;
    Ok(options)
}

fn measure_part(plan: &Plan, part: &str) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    // Sources may be what an earlier run changed: the same bytes again would be no change.
    let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
    let touch = |root: &std::path::Path, round: u64| corpus::touch(root, 100, now + round);
    let rows = match part {
        "A" => plan.scenario(
            &plan.corpus("A")?,
            &[
                Step::Backup("A: first backup"),
                Step::Backup("A: nothing changed"),
                Step::Change(&touch),
                Step::Backup("A: 100 files changed"),
                Step::Restore("A: restore", "A: restore over an identical tree"),
            ],
        )?,
        "B" => plan.scenario(
            &plan.corpus("B")?,
            &[
                Step::Backup("B: first backup"),
                Step::Backup("B: nothing changed"),
                Step::Change(&touch),
                Step::Backup("B: 100 files changed"),
            ],
        )?,
        "C" => {
            let source = split(plan, "C", "big.db")?;
            plan.scenario(
                &source,
                &[
                    Step::Backup("C: first backup of big.db"),
                    Step::Restore("C: restore of big.db", "C: restore of big.db over itself"),
                    Step::Change(&|root, round| {
                        corpus::dirty(&root.join("big.db"), 0.01, now + round)
                    }),
                    Step::Backup("C: 1 % of the pages rewritten"),
                ],
            )?
        }
        "S" => plan.scenario(
            &split(plan, "C", "sparse.img")?,
            &[
                Step::Backup("C: first backup of sparse.img"),
                Step::Restore(
                    "C: restore of sparse.img",
                    "C: restore of sparse.img over itself",
                ),
            ],
        )?,
        "D" => plan.scenario(
            &plan.corpus("D")?,
            &[
                Step::Backup("D: first backup"),
                Step::Backup("D: nothing changed"),
                Step::Restore("D: restore", "D: restore over an identical tree"),
            ],
        )?,
        "G" => plan.scenario(
            &plan.corpus("G")?,
            &[
                Step::Backup("G: first backup"),
                Step::Change(&|root, _| corpus::insert_front(&root.join("one.bin"))),
                Step::Backup("G: one byte inserted at the front"),
            ],
        )?,
        "J" => {
            let mut rows = Vec::new();
            for (corpus, files) in [("J", "10,000"), ("A", "200,000"), ("B", "1,000,000")] {
                let works = [
                    "first backup",
                    "nothing",
                    "1 file",
                    "100 files",
                    "10,000 files",
                ]
                .map(|what| format!("J: {files} files: {what}"));
                let change = |count| {
                    move |root: &std::path::Path, round: u64| {
                        corpus::touch(root, count, now + round + count as u64)
                    }
                };
                let (one, hundred, many) = (change(1), change(100), change(10_000));
                let steps = [
                    Step::Backup(&works[0]),
                    Step::Backup(&works[1]),
                    Step::Change(&one),
                    Step::Backup(&works[2]),
                    Step::Change(&hundred),
                    Step::Backup(&works[3]),
                    Step::Change(&many),
                    Step::Backup(&works[4]),
                ];
                rows.extend(plan.scenario(&plan.corpus(corpus)?, &steps)?);
            }
            rows
        }
        "V" => {
            let mut rows = Vec::new();
            let volumes = [("J", "10,000"), ("A", "200,000"), ("B", "1,000,000")];
            for (corpus, files) in volumes.into_iter().take(plan.sized(3)) {
                let works = sizes(files);
                let place = plan.placed(corpus)?;
                rows.extend(plan.apart(place.path(), works.each_ref().map(String::as_str))?);
            }
            rows
        }
        "H" => {
            let dirs = plan.sized(100_000);
            let place = plan.place("H")?;
            eprintln!("making {} files", dirs * 50);
            corpus::mostly_empty(place.path(), &mut corpus::Rng::new(42), dirs)?;
            let works = sizes(if plan.size < 1.0 {
                "a share of 5,000,000"
            } else {
                "5,000,000"
            });
            plan.apart(place.path(), works.each_ref().map(String::as_str))?
        }
        "M" => plan.names(5_000_000)?,
        "F" | "P" => Vec::new(),
        other => return Err(format!("there is no part {other}\n{USAGE}").into()),
    };
    Ok(rows)
}

/// What parts V and H do, by the size of the volume.
fn sizes(files: &str) -> [String; 3] {
    ["first backup", "nothing changed", "100 files changed"]
        .map(|what| format!("V: {files} files: {what}"))
}

/// One file of a corpus as a directory of its own, by hard link: nothing is copied.
fn split(plan: &Plan, corpus: &str, file: &str) -> std::io::Result<PathBuf> {
    let whole = plan.corpus(corpus)?;
    let dir = plan
        .scratch
        .join("corpora")
        .join(format!("{corpus}-{file}"));
    if !dir.exists() {
        std::fs::create_dir_all(&dir)?;
        std::fs::rename(whole.join(file), dir.join(file))?;
        std::os::unix::fs::symlink(dir.join(file), whole.join(file))?;
    }
    Ok(dir)
}

fn machine(plan: &Plan) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown", |l| l.trim_start_matches([' ', '\t', ':']));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let share = match plan.size < 1.0 {
        true => format!(" Reduced to {} of the full sizes: no figures.", plan.size),
        false => String::new(),
    };
    format!(
        "Measured on {model}, {cores} cores, Linux {}; warm cache, local store, fsync on, encryption on; {} rounds, interleaved, minima.{share}\n\n",
        kernel.trim(),
        plan.rounds
    )
}

fn tools(plan: &Plan) -> String {
    let mut text = format!(
        "- holdfast {}: coordinator and agent as two processes, `holdfast backup NAME --coordinator URL`, `holdfast restore`\n",
        env!("CARGO_PKG_VERSION")
    );
    for peer in &plan.peers {
        let note = if *peer == Peer::Conserve {
            " (does not encrypt)"
        } else {
            ""
        };
        let _ = writeln!(text, "- {}{note}", peer.version().unwrap_or_default());
    }
    for peer in PEERS.iter().filter(|p| !plan.peers.contains(p)) {
        let why = peer.version().map_or("not installed", |_| "not asked for");
        let _ = writeln!(text, "- {}: not measured ({why})", peer.name());
    }
    text.push_str("\nEach cell: wall s / CPU s of all processes / peak RSS MiB (ours: agent+coordinator+cli) / MiB added.\n\n");
    text
}

/// Replaces one measured section of the document, between its two marks; the rest of it stays.
fn write_section(path: &std::path::Path, section: &str, text: &str) -> std::io::Result<()> {
    const END: &str = "<!-- end of measured -->\n";
    let begin = format!("<!-- measured: {section} -->\n");
    let mut old = std::fs::read_to_string(path).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
    if !old.contains(&begin) {
        old.push_str(&format!("\n{begin}{END}"));
    }
    let (before, rest) = old.split_once(&begin).unwrap_or((&old, END));
    let after = rest.split_once(END).map_or("", |(_, after)| after);
    std::fs::write(path, format!("{before}{begin}{text}{END}{after}"))
}
