//! Every file is read again within a period, whatever its stamp says (the contract's C5): what no time
//! and no event told of is found, counted, said in the next snapshot's report, and costs the filesystem's
//! type its trust on this node.
//!
//! A path has a fixed place in the period, by a hash; a pass reads the files whose places lie between
//! the end of the pass before and now. It works at a low priority beside runs: it holds the volume's
//! index only while it lists what is due, and a run that wants it then is let through at once.

mod distrust;
mod list;
mod reread;
mod window;

pub use distrust::Distrusted;

use crate::cancel::Cancel;
use crate::index::{Index, trust};
use crate::journal::Journals;
use crate::limits::RateLimit;
use crate::mount::Identity;
use crate::progress::Progress;
use crate::some_paths::SomePaths;
use holdfast_format::chunker::Chunker;
use holdfast_format::id::SnapshotId;
use holdfast_format::keys::Ids;
use holdfast_format::path::RelPath;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use window::Position;

/// The period, where none is chosen.
pub const PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Passes of a period: each hour of seven days has one.
const PASSES: u32 = 7 * 24;

/// What passes and runs tell each other. Clones share it.
#[derive(Debug, Clone)]
pub struct Rolling(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    period: Duration,
    volumes: Mutex<HashMap<String, Arc<Volume>>>,
    distrusted: Distrusted,
}

#[derive(Debug, Default)]
struct Volume {
    /// Who may use the volume's index.
    index: Arc<tokio::sync::Mutex<()>>,
    /// Runs that wait for it.
    waiting: AtomicUsize,
    /// Runs that had it.
    runs: AtomicU64,
    known: Mutex<Option<Known>>,
    /// What the next run must read.
    wanted: Mutex<SomePaths>,
    /// The volume is served no more: nothing of it may stay open.
    gone: Cancel,
}

/// How the files of a volume were read by its last accepted run, so that they are read alike.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Where the volume is.
    pub(crate) path: PathBuf,
    /// Its mount.
    pub(crate) identity: Identity,
    /// Its index.
    pub(crate) index: PathBuf,
    /// The snapshot that the index then described.
    pub(crate) snapshot: SnapshotId,
    /// Names chunks.
    pub(crate) ids: Ids,
    /// Cuts contents.
    pub(crate) chunker: Chunker,
    /// Largest content that stands in its entry, in bytes.
    pub(crate) inline_limit: u32,
}

/// A run has the volume's index until this is dropped.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

/// Counted among those that wait, also if it never gets there.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How a pass reads.
#[derive(Debug, Clone)]
pub struct PassOptions {
    /// Boot id of this kernel.
    pub boot_id: String,
    /// Name of this node.
    pub node: String,
    /// Bytes read per second.
    pub rate: RateLimit,
    /// Now, nanoseconds since the epoch.
    pub now_ns: i64,
    /// At most this part of the period is read, and the rest another time: the period is then as long as
    /// passes are rare. `None`: whatever is due.
    pub most: Option<Duration>,
    /// What should have told of changes.
    pub journals: Option<Journals>,
    /// How far it is: files and bytes done.
    pub progress: Arc<Progress>,
    /// Ends it.
    pub cancel: Cancel,
}

/// What a pass did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Files that were read again.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that hold something else although nothing says that they changed. The next run tells.
    pub silent: Vec<RelPath>,
    /// Files that hold something else than was read of them while somebody may have been writing them: no
    /// filesystem's fault. The next run tells.
    pub in_flight: Vec<RelPath>,
    /// Changed files of which the journal knew nothing. The next run walks.
    pub untold: Vec<RelPath>,
}

impl Rolling {
    /// Reads every file again within this period. What was found of filesystems is kept in
    /// `index_directory`.
    pub fn new(period: Duration, index_directory: &std::path::Path) -> Self {
        Self(Arc::new(Inner {
            period: period.max(Duration::from_millis(1)),
            volumes: Mutex::default(),
            distrusted: Distrusted::read(index_directory),
        }))
    }

    /// How often a volume should be looked at.
    pub fn every(&self) -> Duration {
        (self.0.period / PASSES).max(Duration::from_secs(1))
    }

    /// The volumes that runs were made of and that are there.
    pub fn volumes(&self) -> Vec<String> {
        lock(&self.0.volumes).keys().cloned().collect()
    }

    /// The volumes that are not among these are gone.
    pub fn retain(&self, volumes: &HashSet<String>) {
        lock(&self.0.volumes).retain(|name, volume| {
            let there = volumes.contains(name);
            if !there {
                volume.gone.cancel();
            }
            there
        });
    }

    /// The filesystem types whose metadata is not believed.
    pub fn distrusted(&self) -> &Distrusted {
        &self.0.distrusted
    }

    /// The volume's index is the caller's until the guard is dropped.
    pub(crate) async fn hold(&self, volume: &str) -> Held {
        let volume = self.volume(volume);
        let waiting = Waiting::new(&volume.waiting);
        let guard = volume.index.clone().lock_owned().await;
        drop(waiting);
        volume.runs.fetch_add(1, Ordering::SeqCst);
        Held(guard)
    }

    /// What a run of the volume must read, whatever the stamps say.
    pub(crate) fn wanted(&self, volume: &str) -> Vec<RelPath> {
        let volume = self.volume(volume);
        let wanted = lock(&volume.wanted);
        wanted.iter().cloned().collect()
    }

    /// A run was accepted: these paths are done, and this is how its files were read.
    pub(crate) fn accepted(
        &self,
        volume: &str,
        done: &HashSet<RelPath>,
        known: Known,
        now_ns: i64,
    ) {
        let volume = self.volume(volume);
        let mut wanted = lock(&volume.wanted);
        let mut rest = SomePaths::default();
        let left = wanted.iter().filter(|path| !done.contains(path));
        left.for_each(|path| rest.push(path.clone()));
        *wanted = rest;
        drop(wanted);
        let position = Position::of(&known.index);
        if position.get().is_none() {
            position.set(now_ns);
        }
        *lock(&volume.known) = Some(known);
    }

    /// Reads what is due of a volume. Blocks; at the caller's thread's priority. Nothing is due of a
    /// volume that no run was made of since the agent started.
    pub fn pass(&self, volume: &str, options: &PassOptions) -> crate::Result<Findings> {
        let name = volume;
        let volume = self.volume(name);
        let mut findings = Findings::default();
        let Some(index) = lock(&volume.known)
            .as_ref()
            .map(|known| known.index.clone())
        else {
            return Ok(findings);
        };
        let position = Position::of(&index);
        let last = position.get().unwrap_or(options.now_ns);
        let period_ns = i64::try_from(self.0.period.as_nanos()).unwrap_or(i64::MAX);
        let every_ns = period_ns / i64::from(PASSES);
        // A clock that was set back: the files due meanwhile are read in the next period.
        if last > options.now_ns {
            position.set(options.now_ns);
        }
        let (mut from, until) = window::due(last, options.now_ns, period_ns, options.most);
        while until - from >= every_ns.max(1) {
            let Some((due, listed)) = self.due(&volume, from..until, options, period_ns)? else {
                break; // A run has the index: later.
            };
            let runs = volume.runs.load(Ordering::SeqCst);
            let reading = reread::Reading {
                known: &listed.known,
                host: listed.host,
                options,
                is_running: &|| volume.index.try_lock().is_err(),
                is_since: &|| volume.runs.load(Ordering::SeqCst) != runs,
                gone: &volume.gone,
                volume: name,
            };
            let found = reading.all(listed.files)?;
            if !found.silent.is_empty() {
                self.0.distrusted.add(listed.f_type, name, &found.silent[0]);
            }
            let mut wanted = lock(&volume.wanted);
            let all = [&found.silent, &found.in_flight, &found.untold];
            for path in all.into_iter().flatten() {
                wanted.push(path.clone());
            }
            drop(wanted);
            if !found.in_flight.is_empty() {
                Self::doubt(&volume, &listed.known, found.in_flight.clone())?;
            }
            findings.add(found);
            if volume.gone.is_cancelled() {
                break;
            }
            position.set(due);
            from = due;
        }
        Ok(findings)
    }

    /// The files of the next window and its end; `None` while a run has the volume.
    fn due(
        &self,
        volume: &Volume,
        time: Range<i64>,
        options: &PassOptions,
        period_ns: i64,
    ) -> crate::Result<Option<(i64, list::Listed)>> {
        let Ok(_held) = volume.index.try_lock() else {
            return Ok(None);
        };
        let Some(known) = lock(&volume.known).clone() else {
            return Ok(None);
        };
        let (index, _) = Index::open(&known.index)?;
        let give_way =
            || volume.waiting.load(Ordering::SeqCst) > 0 || options.cancel.is_cancelled();
        list::due(&index, known, time, options, period_ns, &give_way)
    }

    /// These are read by the next run, also if that is one of another process, and walks.
    fn doubt(volume: &Volume, known: &Known, mut paths: Vec<RelPath>) -> crate::Result<()> {
        let Ok(_held) = volume.index.try_lock() else {
            return Ok(()); // A run of this process reads what is wanted.
        };
        let (mut index, _) = Index::open(&known.index)?;
        let Some(mut meta) = index.meta().cloned() else {
            return Ok(());
        };
        if meta.snapshot != known.snapshot {
            return Ok(());
        }
        let (mut lookup, mut writer) = (index.lookup()?, index.writer()?);
        paths.sort_by_cached_key(RelPath::to_key);
        for path in paths {
            if let Some(mut record) = lookup.get(&path)? {
                record.trust &= !trust::TWICE;
                writer.put(&path, &record)?;
            }
        }
        meta.totals = writer.totals();
        index.advance(writer, meta)?;
        Ok(())
    }

    fn volume(&self, name: &str) -> Arc<Volume> {
        lock(&self.0.volumes)
            .entry(name.to_owned())
            .or_default()
            .clone()
    }
}

impl Findings {
    /// Together.
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.silent.extend(other.silent);
        self.in_flight.extend(other.in_flight);
        self.untold.extend(other.untold);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
