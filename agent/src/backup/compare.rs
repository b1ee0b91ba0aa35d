//! Merges the walk of a volume with the index: what is in one and not in the other, or differs,
//! becomes an item; what is unchanged becomes nothing. One thread, in tree order, synchronous.
//!
//! Absence is believed only where the listing was complete: a directory that could not be listed, or
//! a name that could not be looked at, keeps what the index (and so the parent) has of it.

use super::batcher::Batcher;
use super::first::First;
use super::item::{Item, LinkKey, Look, Looks, Source, Task, hardlink_of};
use super::reread::Reread;
use super::shared::Shared;
use crate::beneath::Dir;
use crate::error::{Error, ItemProblem, Result};
use crate::index::{Cursor, Record, ScratchMap};
use crate::scan::{Child, Children, DirBatch, Failed, Found, Scan, Scanned};
use crate::some_paths::SomePaths;
use crate::stat::{Stat, is_unchanged};
use holdfast_format::entry::Kind;
use holdfast_format::path::{RelPath, escape};
use holdfast_format::stamp::Host;
use std::cmp::Ordering;
use std::collections::BTreeMap;
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
    looks: Looks,
    reread: Reread,
    /// First names seen of inodes with several: `First` coded.
    links: ScratchMap,
    /// Mounts that were directories of the volume before: what the index has below them must go.
    covered: BTreeMap<Vec<u8>, RelPath>,
    entered: Option<RelPath>,
    /// Of a directory that the index does not have: where its inode was, and what lay there.
    moved: Option<(RelPath, Cursor)>,
    batcher: Batcher<'a>,
    /// Files that are done, and their bytes, not told yet.
    done_files: u64,
    done_bytes: u64,
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
    /// The first names of inodes that have further names elsewhere.
    pub linked_elsewhere: SomePaths,
}

impl<'a> Compare<'a> {
    /// A merge that is about to begin.
    pub fn new(
        shared: &'a Shared,
        cursor: Cursor,
        host: Host,
        reread: Reread,
        batcher: Batcher<'a>,
    ) -> Self {
        Self {
            shared,
            cursor,
            host,
            looks: Looks::AtEverything,
            reread,
            links: ScratchMap::new(LINKS_BYTES, &shared.temporary),
            covered: BTreeMap::new(),
            entered: None,
            moved: None,
            batcher,
            done_files: 0,
            done_bytes: 0,
            compared: Compared::default(),
        }
    }

    /// Runs to the end of the walk.
    pub fn run(mut self, mut scan: Scan, volume: &str) -> Result<Compared> {
        self.looks = Looks::of(&scan);
        for scanned in &mut scan {
            self.shared.stop.check()?;
            match scanned {
                Scanned::Root { dir, found } => {
                    let old = self.cursor.root()?;
                    self.shared.progress.directories.add(1);
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
        if let Scan::Whole(_) = scan {
            let progress = &self.shared.progress;
            progress.total_files.set(progress.files.get());
            progress.total_bytes.set(progress.content_bytes.get());
        }
        self.links_elsewhere()?;
        let stats = scan.stats();
        self.compared.excluded_count = stats.excluded_count;
        self.compared.boundary_count = stats.boundary_count;
        self.batcher.finish()?;
        Ok(self.compared)
    }

    fn batch(&mut self, batch: DirBatch) -> Result<()> {
        let DirBatch {
            path,
            dir,
            entries,
            failed,
            absent,
            whole,
            last,
        } = batch;
        if self.entered.as_ref() != Some(&path) {
            self.uncover(Some(&path))?;
            self.cursor.enter(&path)?;
            self.entered = Some(path.clone());
            self.moved = None;
            if whole
                && self.cursor.peek()?.is_none()
                && let Ok(stat) = dir.stat_self()
            {
                self.moved = self.cursor.directory_of(stat.ino)?;
            }
            self.reread.enter(&path);
        }
        self.count(&entries);
        let mut entries = entries.iter().peekable();
        let mut failed = failed.into_iter().peekable();
        let mut absent = absent.into_iter().peekable();
        loop {
            if failed.peek().is_none() && absent.peek().is_none() {
                for found in entries {
                    self.child(&path, &dir, found, whole)?;
                }
                break;
            }
            let names = [
                entries.peek().map(|found| found.name),
                failed.peek().map(|failed| failed.name.as_slice()),
                absent.peek().map(Vec::as_slice),
            ];
            let Some(first) = names.iter().flatten().min() else {
                break;
            };
            let which = names.iter().position(|name| name.as_ref() == Some(first));
            match which {
                Some(0) => {
                    let Some(found) = entries.next() else { break };
                    self.child(&path, &dir, found, whole)?;
                }
                Some(1) => {
                    let Some(Failed { name, problem }) = failed.next() else {
                        break;
                    };
                    let known = self.reach(&path, &name, whole)?;
                    if known {
                        self.cursor.pass();
                    }
                    self.unknown(&path, &name, problem, known)?;
                }
                _ => {
                    let Some(name) = absent.next() else { break };
                    if self.reach(&path, &name, whole)? {
                        self.cursor.pass();
                        let path = path.join(&name)?;
                        self.shared.is_absent(path.clone());
                        self.gone(path)?;
                    }
                }
            }
        }
        self.tell_done();
        if last && whole {
            while let Some((name, _)) = self.cursor.take()? {
                self.gone(path.join(&name)?)?;
            }
        }
        self.batcher.rest()
    }

    /// Whether the index has a name; if so, that is next in it. Where the directory was listed, what it has
    /// before that name is gone.
    fn reach(&mut self, directory: &RelPath, name: &[u8], whole: bool) -> Result<bool> {
        loop {
            let Some((known, _)) = self.cursor.peek()? else {
                return Ok(false);
            };
            match known.cmp(name) {
                Ordering::Equal => return Ok(true),
                Ordering::Greater => return Ok(false),
                Ordering::Less => {
                    let path = whole.then(|| directory.join(known)).transpose()?;
                    self.cursor.pass();
                    path.map_or(Ok(()), |path| self.gone(path))?;
                }
            }
        }
    }

    /// Something is there: mostly as it was, and then that is all.
    fn child(
        &mut self,
        directory: &RelPath,
        dir: &Arc<Dir>,
        found: Child<'_>,
        whole: bool,
    ) -> Result<()> {
        let mut old = None;
        if self.reach(directory, found.name, whole)?
            && let Some((_, record)) = self.cursor.peek()?
        {
            let as_before =
                !self.reread.is_here() && record.is_as_before(&found, self.host, self.looks);
            old = (!as_before).then_some(*record);
            self.cursor.pass();
            if as_before {
                self.done(found.stat);
                return Ok(());
            }
        }
        self.present(directory.join(found.name)?, dir, found.to_found(), old)
    }

    /// Counts what is there.
    fn count(&self, entries: &Children) {
        let (files, bytes, directories) = entries.counts();
        let progress = &self.shared.progress;
        progress.files.add(files);
        progress.content_bytes.add(bytes);
        progress.directories.add(directories);
        progress
            .others
            .add(entries.len() as u64 - files - directories);
    }

    /// Nothing is to be done about something.
    fn done(&mut self, stat: &Stat) {
        if stat.kind == Kind::File {
            self.done_files += 1;
            self.done_bytes += stat.size;
        }
    }

    fn tell_done(&mut self) {
        let progress = &self.shared.progress;
        progress
            .done_files
            .add(std::mem::take(&mut self.done_files));
        progress
            .done_bytes
            .add(std::mem::take(&mut self.done_bytes));
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

    /// Inodes that have more names than were met: a write by one of those is not seen in this volume.
    fn links_elsewhere(&mut self) -> Result<()> {
        let found = &mut self.compared.linked_elsewhere;
        self.links.drain(|_, stored| {
            let first = First::decode(stored)?;
            if first.seen < first.names {
                found.push(first.path);
            }
            Ok::<(), Error>(())
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

    /// Something is there, and more than a glance is needed.
    fn present(
        &mut self,
        path: RelPath,
        dir: &Arc<Dir>,
        found: Found,
        old: Option<Record>,
    ) -> Result<()> {
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
        let unmoved = is_unchanged(stamp.as_ref(), &found.stat, self.host);
        let in_flight = old.is_some_and(|old| old.may_be_in_flight(self.looks));
        let clean = unmoved && !in_flight && !self.reread.has(&path);
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
            self.done(&found.stat);
            return Ok(());
        }
        let mut look = Box::new(Look {
            dir: dir.clone(),
            old,
            content: Source::Read,
            hardlink: hardlink.cloned(),
            leads_group: linked && first.is_none(),
            lost: self.reread.names(&path),
            unmoved,
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
            && !record.may_be_in_flight(self.looks)
            && is_unchanged(stamp.as_ref(), &found.stat, self.host)
            && !self.reread.has(path);
        if !same {
            return Ok(None);
        }
        let from = directory.join(&found.name)?;
        Ok((!self.reread.has(&from)).then_some((from, record)))
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
                    names: found.stat.nlink,
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
        if self.covered.is_empty() {
            return Ok(());
        }
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
