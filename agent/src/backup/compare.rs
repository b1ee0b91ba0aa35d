//! Merges the walk of a volume with the index: what is in one and not in the other, or differs,
//! becomes an item; what is unchanged becomes nothing. One thread, in tree order, synchronous.
//!
//! Absence is believed only where the listing was complete: a directory that could not be listed, or
//! a name that could not be looked at, keeps what the index (and so the parent) has of it.

use super::batcher::Batcher;
use super::item::{Item, LinkKey, Look, Source, Task, hardlink_of};
use super::shared::Shared;
use crate::beneath::Dir;
use crate::error::{Error, ItemProblem, Result};
use crate::index::{Cursor, Record, ScratchMap};
use crate::scan::{DirBatch, Failed, Found, Scanned, Scanner};
use holdfast_format::entry::Kind;
use holdfast_format::path::{RelPath, escape};
use holdfast_format::stamp::{Host, Verdict, unchanged};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Memory for the first names of linked inodes before they move to disk.
const LINKS_BYTES: usize = 8 << 20;
/// Mounts inside a volume that are named in the report.
const BOUNDARIES_NAMED: usize = 100;

/// The merge of one run.
#[derive(Debug)]
pub struct Compare<'a> {
    shared: &'a Shared,
    cursor: Cursor,
    host: Host,
    reread: HashSet<RelPath>,
    /// First names seen of inodes with several: `First` coded.
    links: ScratchMap,
    /// Mounts that were directories of the volume before: what the index has below them must go.
    covered: BTreeMap<Vec<u8>, RelPath>,
    entered: Option<RelPath>,
    /// Of a directory that the index does not have: where its inode was, and what lay there.
    moved: Option<(RelPath, Cursor)>,
    batcher: Batcher<'a>,
    compared: Compared,
}

/// What the merge met.
#[derive(Debug, Default, Clone)]
pub struct Compared {
    /// Mounts inside the volume, the first ones by name.
    pub boundaries: Vec<RelPath>,
    /// How many there are.
    pub boundary_count: u64,
    /// Entries that the rules left out.
    pub excluded_count: u64,
    /// Whether anything was carried over without a look at it.
    pub carried_over: bool,
}

/// What is known of an inode's first name in this run.
struct First {
    path: RelPath,
    unchanged: bool,
    seen: u32,
}

impl<'a> Compare<'a> {
    /// A merge that is about to begin.
    pub fn new(
        shared: &'a Shared,
        cursor: Cursor,
        host: Host,
        reread: HashSet<RelPath>,
        batcher: Batcher<'a>,
    ) -> Self {
        Self {
            shared,
            cursor,
            host,
            reread,
            links: ScratchMap::new(LINKS_BYTES, &shared.temporary),
            covered: BTreeMap::new(),
            entered: None,
            moved: None,
            batcher,
            compared: Compared::default(),
        }
    }

    /// Runs to the end of the walk.
    pub fn run(mut self, mut scanner: Scanner, volume: &str) -> Result<Compared> {
        for scanned in &mut scanner {
            self.shared.stop.check()?;
            match scanned {
                Scanned::Root { dir, found } => {
                    let old = self.cursor.root()?;
                    self.present(RelPath::root(), &dir, found, old)?;
                }
                Scanned::Batch(batch) => self.batch(batch)?,
                Scanned::ListingFailed { path, problem } if path.is_root() => {
                    return Err(Error::VolumeUnreadable {
                        volume: volume.to_owned(),
                        detail: problem.detail,
                    });
                }
                Scanned::ListingFailed { path, problem } => self.listing_failed(path, problem)?,
                Scanned::Aborted { what, source } => {
                    return Err(Error::Io {
                        what,
                        path: String::new(),
                        source,
                    });
                }
            }
        }
        // A walk that was cancelled ends early, and must not look complete.
        self.shared.stop.check()?;
        self.uncover(None)?;
        let progress = &self.shared.progress;
        progress.total_files.set(progress.files.get());
        progress.total_bytes.set(progress.content_bytes.get());
        self.compared.excluded_count = scanner.stats().excluded_count;
        self.compared.boundary_count = scanner.stats().boundary_count;
        self.batcher.finish()?;
        Ok(self.compared)
    }

    fn batch(&mut self, batch: DirBatch) -> Result<()> {
        let DirBatch {
            path,
            dir,
            entries,
            failed,
            last,
        } = batch;
        if self.entered.as_ref() != Some(&path) {
            self.uncover(Some(&path))?;
            self.cursor.enter(&path)?;
            self.entered = Some(path.clone());
            self.moved = None;
            if self.cursor.peek()?.is_none()
                && let Ok(stat) = dir.stat_self()
            {
                self.moved = self.cursor.directory_of(stat.ino)?;
            }
        }
        let mut entries = entries.into_iter().peekable();
        let mut failed = failed.into_iter().peekable();
        loop {
            let take_failed = match (entries.peek(), failed.peek()) {
                (None, None) => break,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(found), Some(failed)) => failed.name < found.name,
            };
            if take_failed {
                if let Some(Failed { name, problem }) = failed.next() {
                    let old = self.reach(&path, &name)?;
                    self.unknown(&path, &name, problem, old.is_some())?;
                }
            } else if let Some(found) = entries.next() {
                let old = self.reach(&path, &found.name)?;
                self.present(path.join(&found.name)?, &dir, found, old)?;
            }
        }
        if last {
            while let Some((name, _)) = self.cursor.take()? {
                self.gone(path.join(&name)?)?;
            }
        }
        self.batcher.rest()
    }

    /// Passes what the index has before a name, which is gone, and takes what it has of the name.
    fn reach(&mut self, directory: &RelPath, name: &[u8]) -> Result<Option<Record>> {
        loop {
            let Some((known, record)) = self.cursor.peek()? else {
                return Ok(None);
            };
            if known > name {
                return Ok(None);
            }
            let same = known == name;
            let path = (!same).then(|| directory.join(known)).transpose()?;
            self.cursor.pass();
            match path {
                None => return Ok(Some(record)),
                Some(path) => self.gone(path)?,
            }
        }
    }

    fn gone(&mut self, path: RelPath) -> Result<()> {
        self.batcher.push(Item {
            path,
            task: Task::Remove,
        })
    }

    fn unknown(
        &mut self,
        directory: &RelPath,
        name: &[u8],
        problem: ItemProblem,
        carried_over: bool,
    ) -> Result<()> {
        self.compared.carried_over |= carried_over;
        // A name that no path may hold, or a path too long, is a problem of its directory.
        let (path, problem) = match directory.join(name) {
            Ok(path) => (path, problem),
            Err(_) => {
                let detail = format!("{}: {}", escape(name), problem.detail);
                (directory.clone(), ItemProblem { detail, ..problem })
            }
        };
        self.batcher.push(Item {
            path,
            task: Task::Problem {
                problem,
                carried_over,
            },
        })
    }

    fn listing_failed(&mut self, path: RelPath, problem: ItemProblem) -> Result<()> {
        self.uncover(Some(&path))?;
        self.cursor.enter(&path)?;
        self.entered = None;
        let carried_over = self.cursor.peek()?.is_some();
        self.compared.carried_over |= carried_over;
        self.batcher.push(Item {
            path,
            task: Task::Problem {
                problem,
                carried_over,
            },
        })
    }

    /// Something is there.
    fn present(
        &mut self,
        path: RelPath,
        dir: &Arc<Dir>,
        found: Found,
        old: Option<Record>,
    ) -> Result<()> {
        let progress = &self.shared.progress;
        match found.kind {
            Kind::File => {
                progress.files.add(1);
                progress.content_bytes.add(found.stat.size);
            }
            Kind::Directory => progress.directories.add(1),
            _ => progress.others.add(1),
        }
        let same_kind = old.as_ref().is_some_and(|old| old.kind == found.kind);
        if found.boundary {
            if self.compared.boundaries.len() < BOUNDARIES_NAMED {
                self.compared.boundaries.push(path.clone());
            }
            if found.kind != Kind::Directory {
                let problem = ItemProblem::new("MountedOver", "something is mounted over it");
                let task = Task::Problem {
                    problem,
                    carried_over: old.is_some(),
                };
                self.compared.carried_over |= old.is_some();
                return self.batcher.push(Item { path, task });
            }
            if same_kind {
                self.covered.insert(path.children_prefix(), path.clone());
            }
        }
        let stamp = old.as_ref().filter(|_| same_kind).and_then(Record::stamp);
        let verdict = unchanged(stamp.as_ref(), &found.stat.key(), self.host);
        let lost = !self.reread.is_empty() && self.reread.contains(&path);
        let clean = verdict == Verdict::Unchanged && !lost;
        let linked = found.stat.nlink > 1 && found.kind != Kind::Directory;
        let moved = match found.kind {
            Kind::File if old.is_none() && !linked => self.moved_from(&path, &found)?,
            _ => None,
        };
        let first = if linked {
            self.first_name(&path, &found, clean)?
        } else {
            None
        };
        let hardlink = first.as_ref().map(|first| &first.path);
        if let (true, Some(record)) = (clean, &old)
            && record.hardlink == hardlink_of(hardlink)
        {
            if found.kind == Kind::File {
                progress.done_files.add(1);
                progress.done_bytes.add(found.stat.size);
            }
            return Ok(());
        }
        let mut look = Box::new(Look {
            dir: dir.clone(),
            old,
            content: Source::Read,
            hardlink: hardlink.cloned(),
            leads_group: linked && first.is_none(),
            lost,
            found,
        });
        let task = match (first, old) {
            // Its own stamp stands: only the name of its first link differs.
            (_, Some(record)) if clean => {
                look.content = Source::Parent(path.clone(), record);
                Task::Look(look)
            }
            _ if moved.is_some() => {
                if let Some((from, record)) = moved {
                    look.content = Source::Parent(from, record);
                }
                Task::Look(look)
            }
            (Some(first), _) if look.found.kind == Kind::File => match first.record(&look) {
                Some(record) => {
                    look.content = Source::Parent(first.path, record);
                    Task::Look(look)
                }
                None => Task::Link {
                    look,
                    first: first.path,
                },
            },
            _ => Task::Look(look),
        };
        self.batcher.push(Item { path, task })
    }

    /// The path in the parent that has the content of a file in a directory that was renamed: the same
    /// inode in the same state, down to its ctime, which no program can set.
    fn moved_from(&mut self, path: &RelPath, found: &Found) -> Result<Option<(RelPath, Record)>> {
        let Some((directory, there)) = &mut self.moved else {
            return Ok(None);
        };
        let Some(record) = there.find(&found.name)? else {
            return Ok(None);
        };
        let stamp = record.stamp();
        let same = record.kind == Kind::File
            && unchanged(stamp.as_ref(), &found.stat.key(), self.host) == Verdict::Unchanged
            && !self.reread.contains(path);
        if !same {
            return Ok(None);
        }
        let from = directory.join(&found.name)?;
        Ok((!self.reread.contains(&from)).then_some((from, record)))
    }

    /// What is known of the inode's first name, if this is another one; else this becomes it.
    fn first_name(&mut self, path: &RelPath, found: &Found, clean: bool) -> Result<Option<First>> {
        let key = LinkKey::of(found).to_bytes();
        let first = match self.links.get(&key)? {
            None => {
                let first = First {
                    path: path.clone(),
                    unchanged: clean,
                    seen: 1,
                };
                self.links.insert(key.to_vec(), first.encode())?;
                return Ok(None);
            }
            Some(stored) => First::decode(&stored)?,
        };
        let first = First {
            seen: first.seen + 1,
            ..first
        };
        if first.seen >= found.stat.nlink {
            self.links.forget(&key);
        } else {
            self.links.insert(key.to_vec(), first.encode())?;
        }
        Ok(Some(first))
    }

    /// Removes what the index has below mounts that lie before a directory (or all of them).
    fn uncover(&mut self, before: Option<&RelPath>) -> Result<()> {
        let before = before.map(RelPath::children_prefix);
        while let Some(next) = self.covered.first_entry() {
            if before.as_ref().is_some_and(|before| next.key() >= before) {
                break;
            }
            let path = next.remove();
            self.cursor.enter(&path)?;
            self.entered = None;
            while let Some((name, _)) = self.cursor.take()? {
                self.gone(path.join(&name)?)?;
            }
        }
        Ok(())
    }
}

impl First {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(5 + self.path.as_bytes().len());
        out.push(u8::from(self.unchanged));
        out.extend_from_slice(&self.seen.to_le_bytes());
        out.extend_from_slice(self.path.as_bytes());
        out
    }

    fn decode(stored: &[u8]) -> Result<Self> {
        let broken = || Error::Internal("a first name that cannot be decoded".to_owned());
        let (unchanged, rest) = stored.split_first().ok_or_else(broken)?;
        let (seen, path) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        Ok(Self {
            path: RelPath::new(path)?,
            unchanged: *unchanged == 1,
            seen: u32::from_le_bytes(*seen),
        })
    }

    /// What the parent has of the first name, when that is what this name must get: the first name is
    /// unchanged, and this one is the same inode in the same state.
    fn record(&self, look: &Look) -> Option<Record> {
        let old = look.old.as_ref()?;
        let same = old.stamp().map(|stamp| stamp.stat) == Some(look.found.stat.key());
        (self.unchanged && same).then_some(*old)
    }
}
