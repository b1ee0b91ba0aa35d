//! Probes the files of one directory: those without writers leave the set of those that may have some.
//!
//! What is open keeps others from unmounting the volume, so the directory is open for one listing or some
//! hundred files, and is found again by its key after each.

use super::Ended;
use crate::beneath::{Dir, read::stat_fd};
use crate::journal::epoch::Journal;
use crate::journal::source::{Key, Source};
use crate::probe::WriterProbe;
use crate::stat::Stat;
use crate::sys;
use holdfast_format::entry::Kind as EntryKind;
use holdfast_format::path::RelPath;
use rustix::fd::AsFd;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::hash::{DefaultHasher, Hasher};
use std::mem::MaybeUninit;

/// Buffer for one getdents call.
pub(super) const LIST_BYTES: usize = 64 * 1024;
/// Files that are probed before the events about them are read, and the directory closed. On a slow disk a
/// file takes some milliseconds.
const AT_ONCE: usize = 128;
/// Names of a directory that are kept at once.
const MOST_NAMES: usize = 131_072;
/// A directory with more is listed in so many parts instead of one, and each of those again.
const SPLIT: u64 = 4;
/// Beyond any directory that a filesystem can hold.
const MOST_PARTS: u64 = 1 << 20;

/// One directory, which may be anywhere by now.
pub(super) struct Probing<'a> {
    pub(super) journal: &'a Journal,
    pub(super) source: &'a dyn Source,
    pub(super) epoch: u32,
    /// Where it was found.
    pub(super) path: &'a RelPath,
    pub(super) key: &'a Key,
    /// What changed since is to be looked at by the next run.
    pub(super) changed_since_ns: Option<i64>,
}

/// Part `n` of so many.
#[derive(Debug, Clone, Copy)]
struct Part {
    n: u64,
    of: u64,
}

/// What a file is found to be.
enum Found {
    Quiet,
    Changed,
    Busy,
    ChangedAndBusy,
    NoFile,
}

impl Probing<'_> {
    /// Every file directly in the directory, which is open now. `false`: it went elsewhere meanwhile, and some are not
    /// probed.
    pub(super) fn everything(&self, dir: Dir) -> Result<bool, Ended> {
        let mut dir = Some(dir);
        let mut parts = vec![Part { n: 0, of: 1 }];
        while let Some(part) = parts.pop() {
            let Some(dir) = self.or_open(dir.take())? else {
                return Ok(false);
            };
            match self.list(&dir, part)? {
                Some(names) => {
                    if !self.these(dir, &names)? {
                        return Ok(false);
                    }
                }
                None if part.of >= MOST_PARTS => return Err(Errno::TOOBIG.into()),
                None => parts.extend(part.parts()),
            }
        }
        Ok(true)
    }

    /// These files of the directory, which is open now. `false` as above.
    pub(super) fn these(&self, dir: Dir, names: &[Box<[u8]>]) -> Result<bool, Ended> {
        let mut dir = Some(dir);
        for names in names.chunks(AT_ONCE) {
            let Some(dir) = self.or_open(dir.take())? else {
                return Ok(false);
            };
            self.probe(dir, names)?;
        }
        Ok(true)
    }

    fn or_open(&self, dir: Option<Dir>) -> Result<Option<Dir>, Ended> {
        if dir.is_some() {
            return Ok(dir);
        }
        let there = self.journal.directory_at(self.source, self.path)?;
        Ok(there.and_then(|(dir, key)| (key == *self.key).then_some(dir)))
    }

    /// Names of files, of one part; `None`: they are too many.
    fn list(&self, dir: &Dir, part: Part) -> Result<Option<Vec<Box<[u8]>>>, Ended> {
        let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut too_many = false;
        let listed = dir.list(&mut buffer, |name, file_type, _| {
            self.journal.check_served()?;
            let name = name.to_bytes();
            let may_be_file = matches!(file_type, FileType::RegularFile | FileType::Unknown);
            if may_be_file && part.has(name) {
                names.push(name.into());
                too_many = names.len() > MOST_NAMES;
            }
            match too_many {
                true => Err(Ended::Over),
                false => Ok(()),
            }
        });
        match listed {
            _ if too_many => Ok(None),
            listed => listed.map(|()| Some(names)),
        }
    }

    fn probe(&self, dir: Dir, names: &[Box<[u8]>]) -> Result<(), Ended> {
        {
            let mut state = self.journal.state();
            if state.epoch != self.epoch || state.broken.is_some() {
                return Err(Ended::Over);
            }
            for name in names {
                if state.open.suspect(self.key, name).is_err() {
                    state.break_for("TooManyOpenFiles");
                    return Err(Ended::Over);
                }
            }
        }
        // From now on this process ignores the signal of a lease that is waited for.
        WriterProbe::new();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            self.journal.check_served()?;
            found.push(self.look(&dir, name));
        }
        drop(dir);
        let mut state = self.journal.state();
        state.drain(&self.journal.volume);
        if state.epoch != self.epoch {
            return Err(Ended::Over);
        }
        let kind = self.source.kind();
        for (name, found) in names.iter().zip(found) {
            match found {
                Found::Quiet => state.open.quiet(self.key, name, kind),
                Found::Changed => {
                    state.open.quiet(self.key, name, kind);
                    state.dirty.add_name(self.key.clone(), name);
                }
                Found::ChangedAndBusy => state.dirty.add_name(self.key.clone(), name),
                Found::Busy => {}
                Found::NoFile => state.open.gone(self.key, name),
            }
        }
        drop(state);
        self.journal.forget_dead();
        self.journal.pause_after(names.len());
        Ok(())
    }

    fn look(&self, dir: &Dir, name: &[u8]) -> Found {
        match dir.stat(name) {
            Ok(stat) if stat.kind == EntryKind::File => {}
            Ok(_) | Err(Errno::NOENT) => return Found::NoFile,
            Err(_) => return Found::Busy,
        }
        // One that cannot be opened by us may be open for others.
        let Ok(file) = dir.open_file(name) else {
            return Found::Busy;
        };
        let stat = stat_fd(file.as_fd());
        let changed = |stat: &Stat| {
            let newest = stat.ctime_ns.max(stat.mtime_ns);
            self.changed_since_ns.is_some_and(|since| newest >= since)
        };
        let changed = stat.as_ref().map_or(true, changed);
        let quiet = sys::lease_until_closed(file).is_ok();
        match (quiet, changed) {
            (true, false) => Found::Quiet,
            (true, true) => Found::Changed,
            (false, true) => Found::ChangedAndBusy,
            (false, false) => Found::Busy,
        }
    }
}

impl Part {
    /// Whether a name is of this part: always of the same one.
    fn has(self, name: &[u8]) -> bool {
        if self.of == 1 {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(name);
        hasher.finish() % self.of == self.n
    }

    /// The same in smaller ones.
    fn parts(self) -> impl Iterator<Item = Self> {
        (0..SPLIT).map(move |n| Self {
            n: self.n + n * self.of,
            of: self.of * SPLIT,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_of_one_part() {
        let whole = Part { n: 0, of: 1 };
        let mut parts: Vec<Part> = whole.parts().collect();
        let last = parts.pop().unwrap();
        parts.extend(last.parts());
        let mut counts = vec![0; parts.len()];
        for n in 0..10_000u32 {
            let name = n.to_be_bytes();
            assert!(whole.has(&name));
            let of: Vec<usize> = (0..parts.len())
                .filter(|at| parts[*at].has(&name))
                .collect();
            assert_eq!(of.len(), 1);
            counts[of[0]] += 1;
        }
        assert!(
            counts.iter().all(|count| (400..3000).contains(count)),
            "{counts:?}"
        );
    }
}
