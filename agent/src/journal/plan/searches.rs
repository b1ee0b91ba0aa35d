//! Where names are not told: a whole directory's, those of an inode that lost one, those in the index.

use super::{Doubt, EntryKind, Handle, NoPlan, Planner, Result, Stat, is_known, is_same_directory};
use crate::beneath::read::stat_fd;
use crate::beneath::{Dir, Errno};
use crate::journal::source;
use crate::scan::Known;
use holdfast_format::path::RelPath;
use rustix::fd::AsFd;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Entries of a directory whose names are not told apart that are looked at one by one.
const MOST_LISTED: usize = 200_000;
/// How often a handle that is refused is tried, and the time between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

impl Planner<'_> {
    /// Anything directly in a directory may have changed. `came`: a directory may be another than the one that the
    /// index has under its name and number, since numbers are used again.
    pub(super) fn everything_in(&mut self, directory: &RelPath, came: bool) -> Result<()> {
        let Some(dir) = self.dir(directory)? else {
            return Ok(());
        };
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let listed = dir.list(&mut buffer, |name, _, _| {
            names.push(name.to_bytes().into());
            match names.len() > MOST_LISTED {
                true => Err(Errno::TOOBIG),
                false => Ok(()),
            }
        });
        match listed {
            Ok(()) => {}
            Err(Errno::TOOBIG) => return Err(NoPlan::Walk("LargeDirectory")),
            Err(_) => return Err(NoPlan::Walk("DirectoryUnreadable")),
        }
        names.sort_unstable();
        let mut cursor = self.index.cursor()?;
        cursor.enter(directory)?;
        while let Some((name, _)) = cursor.take()? {
            if names
                .binary_search_by(|known| (**known).cmp(&name))
                .is_err()
                && let Ok(path) = directory.join(&name)
            {
                self.absent(&path)?;
            }
        }
        for name in names {
            let Ok(path) = directory.join(&name) else {
                continue;
            };
            match dir.stat(&name) {
                Ok(stat) => {
                    let old = self.lookup.get(&path)?;
                    if old.is_some_and(|old| is_known(&old, &stat)) {
                        self.seen.insert(stat.ino);
                    } else {
                        let same = old.is_some_and(|old| is_same_directory(&stat, &old));
                        self.present(&path, &stat, came || !same)?;
                    }
                }
                Err(Errno::NOENT) => self.absent(&path)?,
                Err(_) => self.add(&path, Known::Other)?,
            }
        }
        Ok(())
    }

    /// Inodes whose names went: if they live and are older than the index, they have others.
    pub(super) fn find_hidden(&mut self) -> Result<()> {
        if self.hidden.is_empty() {
            return Ok(());
        }
        let top = match self.root.top() {
            Ok(top) => top,
            Err(_) => return Err(NoPlan::Walk("DirectoryUnreadable")),
        };
        for (handle, doubt) in std::mem::take(&mut self.hidden) {
            let Some(stat) = self.stat_of(&top, &handle)? else {
                continue;
            };
            // What it holds was looked at; who may be writing it was not.
            let met = stat.nlink == 1 && doubt == Doubt::Content && self.seen.contains(&stat.ino);
            if stat.nlink == 0 || stat.kind == EntryKind::Directory || met {
                continue;
            }
            let paths = self.lookup.paths_of(stat.ino)?;
            if paths.len() < stat.nlink as usize && self.is_old(&stat) {
                self.search.insert(stat.ino);
            }
            for path in paths {
                self.add(&path, Known::Other)?;
                self.suspects.push(path);
            }
        }
        Ok(())
    }

    /// What a handle names is; `None`: it exists no more. One that is just being removed may be refused for a moment.
    fn stat_of(&self, top: &Dir, handle: &Handle) -> Result<Option<Stat>> {
        let mut refused = Errno::IO;
        for _ in 0..TRIES {
            let found = source::find(top.as_fd(), handle);
            match found.and_then(|fd| fd.map(|fd| stat_fd(fd.as_fd())).transpose()) {
                Ok(stat) => return Ok(stat),
                Err(errno) => refused = errno,
            }
            std::thread::sleep(PAUSE);
        }
        tracing::warn!(errno = %refused, ?handle, "a file's handle is refused");
        Err(NoPlan::Walk("HandleRefused"))
    }

    pub(super) fn search(&mut self) -> Result<()> {
        if self.search.is_empty() {
            return Ok(());
        }
        let mut paths = Vec::new();
        let search = std::mem::take(&mut self.search);
        self.lookup.search(&search, |path, _| paths.push(path))?;
        for path in paths {
            self.add(&path, Known::Other)?;
            self.suspects.push(path);
        }
        Ok(())
    }
}
