//! The work that is measured: which corpus, which step, which tools; steps are interleaved among the
//! tools, round by round, and the report takes each tool's minimum.

use crate::corpus;
use crate::holdfast::{Embedded, Holdfast};
use crate::measure::Cost;
use crate::target::{FreshTarget, Place, Resident};
use crate::tools::{Peer, PeerRepo};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Runs of one tool at one step.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// One cost per round.
    pub costs: Vec<Cost>,
    /// Bytes added to the store, per round.
    pub added: Vec<u64>,
    /// Bytes of our catalog, frame cache and index after it, of the last round.
    pub state: Option<[u64; 3]>,
    /// Why there is none.
    pub failed: Option<String>,
}

impl Runs {
    /// Fastest wall time.
    pub fn wall(&self) -> Option<Duration> {
        self.costs.iter().map(|c| c.wall).min()
    }

    /// Least CPU time.
    pub fn cpu(&self) -> Option<Duration> {
        self.costs.iter().map(|c| c.cpu).min()
    }

    /// Highest peak of each process.
    pub fn peaks(&self) -> Vec<(String, f64)> {
        let mut peaks: BTreeMap<String, f64> = BTreeMap::new();
        for (name, mib) in self.costs.iter().flat_map(|c| &c.peak_mib) {
            let peak = peaks.entry(name.clone()).or_default();
            *peak = peak.max(*mib);
        }
        peaks.into_iter().collect()
    }

    /// Least CPU time of one of our processes.
    pub fn share(&self, process: &str) -> Option<Duration> {
        let shares = self.costs.iter().flat_map(|c| &c.shares);
        shares
            .filter(|(name, _)| name == process)
            .map(|(_, cpu)| *cpu)
            .min()
    }

    /// Fewest bytes added.
    pub fn added(&self) -> Option<u64> {
        self.added.iter().copied().min()
    }
}

/// One row of the report.
#[derive(Debug, Default)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// Tool by tool, ours first.
    pub tools: Vec<(String, Runs)>,
}

/// A repository of any tool.
pub enum Tool {
    /// Ours: coordinator and agent as two processes.
    Holdfast(Box<Holdfast>),
    /// The same with the change journal.
    Journal(Box<Holdfast>),
    /// Ours, both in one process.
    Embedded(Embedded),
    /// A peer.
    Peer(PeerRepo),
}

impl Tool {
    fn name(&self) -> String {
        match self {
            Tool::Holdfast(_) => "holdfast".into(),
            Tool::Journal(_) => "holdfast, journal".into(),
            Tool::Embedded(_) => "holdfast, one process".into(),
            Tool::Peer(repo) => repo.peer.name().into(),
        }
    }

    fn backup(&mut self, source: &Path) -> io::Result<Cost> {
        match self {
            Tool::Holdfast(holdfast) => holdfast.backup(),
            Tool::Journal(holdfast) => {
                let cost = holdfast.backup()?;
                holdfast.wait_until_trusted()?;
                Ok(cost)
            }
            Tool::Embedded(embedded) => embedded.backup(source),
            Tool::Peer(repo) => repo.backup(source),
        }
    }

    fn restore(&self, source: &Path, target: &Path, over: Over) -> io::Result<Cost> {
        match self {
            Tool::Holdfast(holdfast) | Tool::Journal(holdfast) => {
                holdfast.restore(target, over == Over::Identical)
            }
            Tool::Embedded(embedded) => embedded.restore(target, over == Over::Identical),
            Tool::Peer(repo) => repo.restore(source, target),
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        match self {
            Tool::Holdfast(holdfast) | Tool::Journal(holdfast) => holdfast.bytes(),
            Tool::Embedded(embedded) => embedded.bytes(),
            Tool::Peer(repo) => repo.bytes(),
        }
    }

    fn state(&self) -> Option<[u64; 3]> {
        match self {
            Tool::Holdfast(holdfast) | Tool::Journal(holdfast) => holdfast.state().ok(),
            _ => None,
        }
    }
}

/// What a restore finds in its target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Nothing.
    Empty,
    /// The same tree.
    Identical,
}

/// What to run.
pub struct Plan {
    /// Where corpora and repositories are made.
    pub scratch: PathBuf,
    /// Peers that are installed and wanted.
    pub peers: Vec<Peer>,
    /// Rounds per step.
    pub rounds: usize,
    /// Whether sources lie on a tmpfs while they are measured: warm, whatever the kernel reclaims.
    pub tmpfs: bool,
    /// Whether the change journal is measured beside the walk.
    pub journal: bool,
    /// Share of the full sizes of parts E, W, Q, V and H: to see that they work.
    pub size: f64,
    /// Directory with our binaries.
    pub bin: PathBuf,
}

/// A step of a scenario.
pub enum Step<'a> {
    /// Back the corpus up.
    Backup(&'a str),
    /// Change the corpus.
    Change(&'a dyn Fn(&Path, u64) -> io::Result<()>),
    /// Restore onto a fresh filesystem, and again over the identical tree.
    Restore(&'a str, &'a str),
}

impl Plan {
    /// Makes (or finds) a corpus.
    pub fn corpus(&self, name: &str) -> io::Result<PathBuf> {
        let root = self.scratch.join("corpora").join(name);
        if !root.exists() {
            eprintln!("making corpus {name}");
            let half = root.with_extension("part");
            let _ = std::fs::remove_dir_all(&half);
            corpus::generate(name, &half, 42)?;
            std::fs::rename(&half, &root)?;
        }
        Ok(root)
    }

    /// So much, or the share of it that is asked for.
    pub fn sized(&self, full: usize) -> usize {
        ((full as f64 * self.size) as usize).max(1)
    }

    /// An empty directory for a source that only one part uses.
    pub fn place(&self, name: &str) -> io::Result<Place> {
        if self.tmpfs {
            return Ok(Place::Memory(Resident::empty(&self.scratch)?));
        }
        let dir = self.scratch.join("places").join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(Place::Disk(dir))
    }

    /// Where a corpus lies while it is measured.
    pub fn placed(&self, name: &str) -> io::Result<Place> {
        let source = self.corpus(name)?;
        match self.tmpfs {
            true => Ok(Place::Memory(Resident::of(&source, &self.scratch)?)),
            false => warm(&source).map(|()| Place::Disk(source)),
        }
    }

    /// One tool after the other does all steps, each `rounds` times but the first: what one reads is no
    /// change to another's journal.
    pub fn apart(
        &self,
        source: &Path,
        [first, nothing, hundred]: [&str; 3],
    ) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let repos = self.scratch.join("repos");
        let mut tools = vec![Tool::Journal(Box::new(Holdfast::start_with_journal(
            &self.bin, &repos, source,
        )?))];
        if self.peers.contains(&Peer::Bupstash) {
            tools.push(Tool::Peer(PeerRepo::create(Peer::Bupstash, &repos)?));
        }
        let now = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs();
        for mut tool in tools {
            let name = tool.name();
            let mut measure = |at: usize, work: &str| -> io::Result<()> {
                eprintln!("{work}: {name}");
                let before = tool.bytes()?;
                let cost = tool.backup(source);
                let added = tool.bytes()?.saturating_sub(before);
                record(&mut rows, at, work, &name, cost, Some(added)).state = tool.state();
                Ok(())
            };
            measure(0, first)?;
            for _ in 0..self.rounds {
                measure(1, nothing)?;
            }
            for round in 0..self.rounds as u64 {
                corpus::touch(source, 100, now + round)?;
                measure(2, hundred)?;
            }
        }
        let _ = std::fs::remove_dir_all(repos);
        Ok(rows)
    }

    /// Runs the steps on `source` with all tools, interleaved, `rounds` times with fresh repositories.
    pub fn scenario(&self, source: &Path, steps: &[Step<'_>]) -> io::Result<Vec<Row>> {
        let mut rows: Vec<Row> = Vec::new();
        let resident = self.tmpfs.then(|| Resident::of(source, &self.scratch));
        let resident = resident.transpose()?;
        let source = resident.as_ref().map_or(source, Resident::path);
        for round in 0..self.rounds {
            if resident.is_none() {
                warm(source)?;
            }
            let mut tools = self.tools(source)?;
            let mut at = 0;
            for step in steps {
                match step {
                    Step::Change(change) => change(source, round as u64)?,
                    Step::Backup(work) => {
                        for tool in &mut tools {
                            let before = tool.bytes()?;
                            eprintln!("round {}: {work}: {}", round + 1, tool.name());
                            let cost = tool.backup(source);
                            let added = tool.bytes()?.saturating_sub(before);
                            let runs = record(&mut rows, at, work, &tool.name(), cost, Some(added));
                            runs.state = tool.state();
                        }
                        at += 1;
                    }
                    Step::Restore(fresh, again) => {
                        for tool in &tools {
                            eprintln!("round {}: {fresh}: {}", round + 1, tool.name());
                            let target = FreshTarget::make(&self.scratch)?;
                            let cost = tool.restore(source, target.path(), Over::Empty);
                            record(&mut rows, at, fresh, &tool.name(), cost, None);
                            let cost = tool.restore(source, target.path(), Over::Identical);
                            record(&mut rows, at + 1, again, &tool.name(), cost, None);
                        }
                        at += 2;
                    }
                }
            }
        }
        let _ = std::fs::remove_dir_all(self.scratch.join("repos"));
        Ok(rows)
    }

    /// Backs up this many empty files in one directory, twice: for its memory, without peers.
    pub fn names(&self, count: usize) -> io::Result<Vec<Row>> {
        let source = Resident::empty(&self.scratch)?;
        eprintln!("making {count} files in one directory");
        corpus::names(source.path(), count)?;
        let repos = self.scratch.join("repos");
        let mut tool = Tool::Holdfast(Box::new(Holdfast::start(&self.bin, &repos, source.path())?));
        let mut rows = Vec::new();
        for (at, work) in ["M: first backup", "M: nothing changed"]
            .into_iter()
            .enumerate()
        {
            let before = tool.bytes()?;
            let cost = tool.backup(source.path());
            let added = tool.bytes()?.saturating_sub(before);
            record(&mut rows, at, work, &tool.name(), cost, Some(added)).state = tool.state();
        }
        Ok(rows)
    }

    fn tools(&self, source: &Path) -> io::Result<Vec<Tool>> {
        let scratch = self.scratch.join("repos");
        let mut tools = vec![Tool::Holdfast(Box::new(Holdfast::start(
            &self.bin, &scratch, source,
        )?))];
        if self.journal {
            let journal = Holdfast::start_with_journal(&self.bin, &scratch, source)?;
            tools.push(Tool::Journal(Box::new(journal)));
        }
        tools.push(Tool::Embedded(Embedded::create(&self.bin, &scratch)?));
        for peer in &self.peers {
            tools.push(Tool::Peer(PeerRepo::create(*peer, &scratch)?));
        }
        Ok(tools)
    }
}

fn record<'a>(
    rows: &'a mut Vec<Row>,
    at: usize,
    work: &str,
    tool: &str,
    cost: io::Result<Cost>,
    added: Option<u64>,
) -> &'a mut Runs {
    if rows.len() <= at {
        rows.resize_with(at + 1, Row::default);
    }
    let row = &mut rows[at];
    row.work = work.to_owned();
    let index = row
        .tools
        .iter()
        .position(|(name, _)| name == tool)
        .unwrap_or_else(|| {
            row.tools.push((tool.to_owned(), Runs::default()));
            row.tools.len() - 1
        });
    let runs = &mut row.tools[index].1;
    match cost {
        Ok(cost) => {
            runs.costs.push(cost);
            runs.added.extend(added);
        }
        Err(error) => runs.failed = Some(error.to_string()),
    }
    runs
}

/// Reads everything once, so that the first tool does not pay for the disk.
fn warm(source: &Path) -> io::Result<()> {
    let status = Command::new("sh")
        .arg("-c")
        .arg("tar -cf - \"$0\" 2>/dev/null | cat >/dev/null")
        .arg(source)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("cannot read the corpus"))
    }
}
