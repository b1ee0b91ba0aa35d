//! What a walk has met, so that a look back at its end finds what a rename hid from it.
//!
//! A name that is renamed while a volume is read may be met twice, or never: it leaves a directory that is
//! not listed yet for one that was, or it goes between the listing and the reading. A name that was deleted
//! looks the same. What tells them apart is where the file is afterwards: a directory that changed since its
//! listing began is listed again, and what lies there, is older than the run, and was met under no name, is
//! missing from the snapshot. That is a problem of the directory. What was deleted is nowhere, and what was
//! made meanwhile is younger than the run: directories in which files only come and go stay without a
//! problem.
//!
//! The look back is made only where something can be missing: a directory had changed since the run began
//! when it was listed (what is missed has left one), or a name was gone when it was read. It costs one
//! look at each directory.
//!
//! Bounded: inodes are kept in a filter of fixed size, so that in very large volumes a file may pass for met
//! that was not (of a million files about one in 4,400); directories are in a temporary file. Of an inode
//! with several names a name may be missing without a problem. Where the filesystem has no birth times, the
//! time of the last write stands for them.

use crate::beneath::{Dir, Errno, Root};
use crate::cancel::Cancel;
use crate::error::ItemProblem;
use crate::mount::FsClass;
use crate::rules::Rules;
use crate::scan::Children;
use crate::stat::{Stat, kind_of};
use crate::temporary;
use holdfast_format::entry::Kind;
use holdfast_format::path::{RelPath, escape};
use rustix::fs::FileType;
use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufReader, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of the filter: 4 MiB.
const FILTER_BITS: u64 = 1 << 25;
/// Bits of one line of the processor's cache.
const LINE_BITS: u64 = 512;
/// Bits that one inode sets.
const PROBES: u32 = 4;
/// Inodes that are remembered one by one.
const MOST_INODES: usize = 65_536;
/// Directories made during the run whose contents are looked at.
const MOST_NEW: usize = 10_000;
/// Directories that are named.
const MOST_PROBLEMS: usize = 1000;
/// Times of files come from a clock that lags by up to a tick of the kernel's, 10 ms.
const LAG_NS: i64 = 20_000_000;
/// On a network filesystem they come from another host's clock: what was made in the minute before the run
/// may pass for made meanwhile, so that what is made meanwhile does not pass for missing.
const REMOTE_LAG_NS: i64 = 60_000_000_000;
/// Bytes of the record of directories that are written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// What a walk has met; shared by its thread and those that read.
#[derive(Debug)]
pub struct Seen {
    temporary_directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    walk: Option<Walk>,
    filter: Vec<u64>,
    /// Met under two names: one of them is enough.
    twice: HashSet<u64>,
    /// Met, and gone when it was read.
    lost: HashSet<u64>,
    /// A directory was met, and gone when it was entered.
    lost_directory: bool,
    /// Something may be missing.
    doubt: bool,
    /// Directories that were listed: length of the path, ctime, path.
    record: Vec<u8>,
    file: Option<File>,
    failed: Option<io::Error>,
}

#[derive(Debug, Clone)]
struct Walk {
    root: Arc<Root>,
    rules: Rules,
    began_ns: i64,
}

impl Seen {
    /// Nothing yet; a long record of directories will lie in this directory.
    pub fn new(temporary_directory: &Path) -> Self {
        Self {
            temporary_directory: temporary_directory.to_owned(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends the run; nobody looks back then.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A walk begins. What is older than `began_ns` was there before.
    pub(super) fn begin(&self, root: Arc<Root>, rules: Rules, began_ns: i64) {
        let lag_ns = match root.class() {
            FsClass::Remote => REMOTE_LAG_NS,
            _ => LAG_NS,
        };
        *self.state() = State {
            walk: Some(Walk {
                root,
                rules,
                began_ns: began_ns.saturating_sub(lag_ns),
            }),
            filter: vec![0; (FILTER_BITS / 64) as usize],
            ..State::default()
        };
    }

    /// A directory was listed: its ctime before and after.
    pub(super) fn listed(&self, path: &RelPath, before_ns: i64, after_ns: i64) {
        let mut state = self.state();
        let Some(began_ns) = state.walk.as_ref().map(|walk| walk.began_ns) else {
            return; // Nobody will look back.
        };
        state.doubt |= after_ns >= began_ns;
        state.mark(path_number(path));
        let bytes = path.as_bytes();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        state.record.extend_from_slice(&length.to_le_bytes());
        state.record.extend_from_slice(&before_ns.to_le_bytes());
        state.record.extend_from_slice(bytes);
        if state.record.len() >= WRITE_BYTES
            && let Err(error) = state.write(&self.temporary_directory)
        {
            state.failed = Some(error);
        }
    }

    /// A directory could not be listed; that is its own problem.
    pub(super) fn entered(&self, path: &RelPath) {
        self.state().mark(path_number(path));
    }

    /// These entries are handed on.
    pub(super) fn met(&self, entries: &Children) {
        let mut state = self.state();
        for found in entries.iter() {
            let stat = found.stat;
            let again = !state.mark(stat.ino);
            if again && stat.nlink == 1 && state.twice.len() < MOST_INODES {
                state.twice.insert(stat.ino);
            }
        }
    }

    /// A name that was listed and cannot be looked at; that is its own problem.
    pub(super) fn refused(&self, ino: u64) {
        self.state().mark(ino);
    }

    /// A name was gone when it was looked at.
    pub(super) fn vanished(&self) {
        self.state().doubt = true;
    }

    /// A directory was gone when it was entered.
    pub(super) fn directory_vanished(&self) {
        let mut state = self.state();
        (state.doubt, state.lost_directory) = (true, true);
    }

    /// Something that was met was gone when it was read.
    pub fn unread(&self, stat: &Stat) {
        let mut state = self.state();
        state.doubt = true;
        // What has other names is met, and read, by them.
        if stat.nlink <= 1 && state.lost.len() < MOST_INODES {
            state.lost.insert(stat.ino);
        }
    }

    /// Directories in which something lies that was there when the run began and was not met: after the
    /// walk, and after everything was read.
    pub fn look_back(&self, cancel: &Cancel) -> io::Result<Vec<(RelPath, ItemProblem)>> {
        let mut state = self.state();
        let (true, Some(walk)) = (state.doubt, state.walk.clone()) else {
            return Ok(Vec::new());
        };
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let rest = std::mem::take(&mut state.record);
        let mut record: Box<dyn Read> = match state.file.take() {
            None => Box::new(io::Cursor::new(rest)),
            Some(mut file) => {
                file.rewind()?;
                Box::new(BufReader::new(file).chain(io::Cursor::new(rest)))
            }
        };
        let mut back = Back {
            state: &state,
            walk: &walk,
            buffer: vec![MaybeUninit::uninit(); super::list::LIST_BUFFER_BYTES],
            new: Vec::new(),
            problems: Vec::new(),
        };
        let mut head = [0; 12];
        while read_head(&mut record, &mut head)? && back.problems.len() < MOST_PROBLEMS {
            if cancel.is_cancelled() {
                break;
            }
            let [a, b, c, d, ctime @ ..] = head;
            let mut path = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
            record.read_exact(&mut path)?;
            let Ok(path) = RelPath::new(path) else {
                continue;
            };
            back.directory(path, Some(i64::from_le_bytes(ctime)));
            while let Some(path) = back.new.pop() {
                back.directory(path, None);
            }
        }
        Ok(back.problems)
    }
}

impl State {
    /// Marks a number; whether it was not marked before.
    fn mark(&mut self, number: u64) -> bool {
        let mut new = false;
        for bit in bits(number) {
            if let Some(word) = self.filter.get_mut((bit / 64) as usize) {
                new |= *word & (1 << (bit % 64)) == 0;
                *word |= 1 << (bit % 64);
            }
        }
        new
    }

    fn has(&self, number: u64) -> bool {
        bits(number).all(|bit| {
            let word = self.filter.get((bit / 64) as usize);
            word.is_some_and(|word| word & (1 << (bit % 64)) != 0)
        })
    }

    /// Whether an inode is in the snapshot under some name.
    fn is_stored(&self, ino: u64) -> bool {
        self.has(ino) && (!self.lost.contains(&ino) || self.twice.contains(&ino))
    }

    fn write(&mut self, directory: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(temporary::file_in(directory)?),
        };
        file.write_all(&self.record)?;
        self.record.clear();
        Ok(())
    }
}

/// The look back.
struct Back<'a> {
    state: &'a State,
    walk: &'a Walk,
    buffer: Vec<MaybeUninit<u8>>,
    /// Made during the run: what lies there was moved there, or made too.
    new: Vec<RelPath>,
    problems: Vec<(RelPath, ItemProblem)>,
}

impl Back<'_> {
    /// Looks at a directory, unless its ctime is still this one. One that is gone has nothing in it.
    fn directory(&mut self, path: RelPath, ctime_ns: Option<i64>) {
        let Ok(dir) = self.walk.root.dir(&path) else {
            return;
        };
        match dir.stat_self() {
            Ok(stat) if Some(stat.ctime_ns) != ctime_ns => {}
            _ => return,
        }
        let (mut count, mut first) = (0u64, Vec::new());
        let mut buffer = std::mem::take(&mut self.buffer);
        // Gone, or unreadable, in the middle: what was found is told.
        let _ = dir.list(&mut buffer, |name, file_type, ino| {
            let name = name.to_bytes();
            if self.is_missing(&path, &dir, name, file_type, ino) {
                count += 1;
                if first.is_empty() {
                    first = name.to_vec();
                }
            }
            Ok::<(), Errno>(())
        });
        self.buffer = buffer;
        if count > 0 {
            let detail = format!(
                "{count} names came into it by renames while the volume was read and are in the snapshot under \
                 no name; the first is {}",
                escape(&first)
            );
            let problem = ItemProblem::new("DirectoryChanged", detail);
            self.problems.push((path, problem));
        }
    }

    fn is_missing(
        &mut self,
        path: &RelPath,
        dir: &Dir,
        name: &[u8],
        file_type: FileType,
        ino: u64,
    ) -> bool {
        // The type is a hint, and unknown on some filesystems.
        let maybe_directory =
            kind_of(file_type) == Kind::Directory || file_type == FileType::Unknown;
        let entered = !maybe_directory || !self.state.lost_directory;
        if self.state.is_stored(ino) && entered {
            return false;
        }
        let (Ok(stat), Ok(path)) = (dir.stat(name), path.join(name)) else {
            return false;
        };
        let directory = stat.kind == Kind::Directory;
        let boundary = stat.mount_root || stat.mnt_id != self.walk.root.stat().mnt_id;
        if boundary || !self.walk.rules.keeps(path.as_bytes(), directory) {
            return false;
        }
        // A directory that was met, but under another path, may have been gone when it was entered.
        let whole = !directory || !self.state.lost_directory || self.state.has(path_number(&path));
        if self.state.is_stored(stat.ino) && whole {
            return false;
        }
        let born_ns = match stat.btime_ns {
            0 => stat.mtime_ns,
            born_ns => born_ns,
        };
        if born_ns < self.walk.began_ns {
            return true;
        }
        if directory && self.new.len() < MOST_NEW {
            self.new.push(path);
        }
        false
    }
}

/// A directory's path beside the numbers of inodes.
fn path_number(path: &RelPath) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.as_bytes().hash(&mut hasher);
    hasher.finish()
}

/// The bits that stand for a number: all within 64 bytes, which the processor fetches at once.
fn bits(number: u64) -> impl Iterator<Item = u64> {
    // The finishing steps of splitmix64 spread numbers that follow each other.
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let line = mixed % (FILTER_BITS / LINE_BITS) * LINE_BITS;
    let within = mixed / (FILTER_BITS / LINE_BITS);
    (0..PROBES).map(move |n| line + (within >> (n * LINE_BITS.ilog2())) % LINE_BITS)
}

/// Whether there is another record.
fn read_head(record: &mut impl Read, head: &mut [u8; 12]) -> io::Result<bool> {
    match record.read_exact(head) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
