//! Which files may have writers: opened by somebody since the epoch began, or before it and not seen closed.
//!
//! A store through a mapping changes a file without an event, so every file in this set is looked at by each
//! run. It leaves the set when the writer probe finds nobody, and nothing was told of it meanwhile.
//! Bounded: too many names in a directory become "every file directly in it". Pure.

use super::source::{Handle, Key, Kind, What};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::mem;

/// Names of one volume.
const MOST_NAMES: usize = 32_768;
/// From so many on, it is worth while to probe before the next run.
const MANY_NAMES: usize = 8_192;
/// Directories of one volume.
const MOST_DIRECTORIES: usize = 32_768;

/// The files of one volume.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    directories: HashMap<Key, Files>,
    names_count: usize,
}

/// Those of one directory.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Every file in it; counts up each time that this becomes true again.
    pub(crate) all: u32,
    names: HashMap<Box<[u8]>, File>,
}

#[derive(Debug, Clone)]
pub(crate) struct File {
    /// The inode that was opened under this name.
    pub(crate) target: Option<Handle>,
    told: Told,
}

/// What was told of a name since it was last about to be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Open,
    OpenAndClose,
    More,
}

/// A directory's files at one moment.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) key: Key,
    /// Not 0: every file in it.
    pub(crate) all: u32,
    /// Names, with the inodes that were opened under them.
    pub(crate) names: Vec<(Box<[u8]>, Option<Handle>)>,
}

/// There are too many to be told apart in any way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl OpenFiles {
    /// What it holds: directories and names.
    pub(crate) fn entries(&self) -> usize {
        self.directories.len() + self.names_count
    }

    /// Whether they should be probed soon.
    pub(crate) fn is_crowded(&self) -> bool {
        self.names_count >= MANY_NAMES || self.directories.values().any(|files| files.all > 0)
    }

    /// Takes in that a name was opened, or closed again; an inode that the name stood for before.
    pub(crate) fn take_in(
        &mut self,
        key: &Key,
        name: &[u8],
        what: What,
        target: Option<Handle>,
    ) -> Result<Option<Handle>, TooMany> {
        let opened = what.any(What::OPEN);
        if !opened {
            if what.any(What::CLOSE_NOWRITE)
                && let Some(files) = self.directories.get_mut(key)
                && let Some(file) = files.names.get_mut(name)
            {
                file.told = match file.told {
                    Told::Open => Told::OpenAndClose,
                    _ => Told::More,
                };
            }
            return Ok(None);
        }
        let files = self.files(key)?;
        let told = |before: Told| match (before, what.any(What::CLOSE_NOWRITE)) {
            (Told::Nothing, false) => Told::Open,
            _ => Told::More,
        };
        let mut displaced = None;
        match files.names.get_mut(name) {
            Some(file) => {
                file.told = told(file.told);
                if file.target != target {
                    displaced = mem::replace(&mut file.target, target);
                }
            }
            None => {
                let told = told(Told::Nothing);
                files.names.insert(name.into(), File { target, told });
                self.names_count += 1;
            }
        }
        self.bound();
        Ok(displaced)
    }

    /// A name may have writers, for a reason of our own; nobody is about to probe it.
    pub(crate) fn add(&mut self, key: &Key, name: &[u8]) -> Result<(), TooMany> {
        let files = self.files(key)?;
        match files.names.get_mut(name) {
            // Whoever probes it now did not know.
            Some(file) => file.told = Told::More,
            None => {
                let (target, told) = (None, Told::More);
                files.names.insert(name.into(), File { target, told });
                self.names_count += 1;
                self.bound();
            }
        }
        Ok(())
    }

    /// A name may have writers, for a reason of our own; it is about to be probed.
    pub(crate) fn suspect(&mut self, key: &Key, name: &[u8]) -> Result<(), TooMany> {
        let files = self.files(key)?;
        match files.names.get_mut(name) {
            Some(file) => file.told = Told::Nothing,
            None => {
                let file = File {
                    target: None,
                    told: Told::Nothing,
                };
                files.names.insert(name.into(), file);
                self.names_count += 1;
                self.bound();
            }
        }
        Ok(())
    }

    /// Any file directly in a directory may have writers.
    pub(crate) fn suspect_all(&mut self, key: &Key) -> Result<(), TooMany> {
        self.files(key)?.all += 1;
        Ok(())
    }

    /// The probe found nobody, after [`suspect`](Self::suspect): the name leaves the set, unless something
    /// was told of it that was not the probe itself.
    pub(crate) fn quiet(&mut self, key: &Key, name: &[u8], kind: Kind) {
        let expected = match kind.tells_own() {
            true => Told::Nothing,
            false => Told::OpenAndClose,
        };
        let Some(files) = self.directories.get_mut(key) else {
            return;
        };
        if files
            .names
            .get(name)
            .is_some_and(|file| file.told == expected)
        {
            files.names.remove(name);
            self.names_count -= 1;
            if files.names.is_empty() && files.all == 0 {
                self.directories.remove(key);
            }
        }
    }

    /// There is no such name any more.
    pub(crate) fn gone(&mut self, key: &Key, name: &[u8]) {
        if let Some(files) = self.directories.get_mut(key)
            // It may have come again since it was looked for.
            && files.names.get(name).is_some_and(|file| file.told == Told::Nothing)
            && files.names.remove(name).is_some()
        {
            self.names_count -= 1;
            if files.names.is_empty() && files.all == 0 {
                self.directories.remove(key);
            }
        }
    }

    /// Every file of the directory was probed one by one since `all` had this value.
    pub(crate) fn all_probed(&mut self, key: &Key, all: u32) {
        if let Some(files) = self.directories.get_mut(key)
            && files.all == all
        {
            files.all = 0;
            if files.names.is_empty() {
                self.directories.remove(key);
            }
        }
    }

    /// A directory is gone, with its files.
    pub(crate) fn directory_gone(&mut self, key: &Key) {
        if let Some(files) = self.directories.remove(key) {
            self.names_count -= files.names.len();
        }
    }

    /// All of them as they are now: per directory, whether every file in it, and the names.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let of = |files: &Files| {
            let names = files.names.iter();
            names
                .map(|(name, file)| (name.clone(), file.target.clone()))
                .collect()
        };
        let all = self.directories.iter();
        all.map(|(key, files)| Listed {
            key: key.clone(),
            all: files.all,
            names: of(files),
        })
        .collect()
    }

    fn files(&mut self, key: &Key) -> Result<&mut Files, TooMany> {
        if !self.directories.contains_key(key) && self.directories.len() >= MOST_DIRECTORIES {
            return Err(TooMany);
        }
        Ok(self.directories.entry(key.clone()).or_default())
    }

    /// "Every file directly in it" takes the place of the names of the largest directories. Half of the names go at once,
    /// so that this is done once for very many of them.
    fn bound(&mut self) {
        if self.names_count <= MOST_NAMES {
            return;
        }
        let mut all: Vec<&mut Files> = self.directories.values_mut().collect();
        all.sort_unstable_by_key(|files| Reverse(files.names.len()));
        for files in all {
            if self.names_count <= MOST_NAMES / 2 {
                return;
            }
            self.names_count -= files.names.len();
            files.names = HashMap::new();
            files.all += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::Watch(1);

    fn open(files: &mut OpenFiles, name: &[u8]) {
        assert_eq!(files.take_in(&KEY, name, What::OPEN, None), Ok(None));
    }

    #[test]
    fn leaves_only_when_nobody_has_it_and_nothing_was_told() {
        for kind in [Kind::Fanotify, Kind::Inotify] {
            let own = |files: &mut OpenFiles| {
                if kind == Kind::Inotify {
                    open(files, b"a");
                    files
                        .take_in(&KEY, b"a", What::CLOSE_NOWRITE, None)
                        .unwrap();
                }
            };
            let mut files = OpenFiles::default();
            open(&mut files, b"a");
            files.quiet(&KEY, b"a", kind);
            assert_eq!(files.names_count, 1, "it was not probed");
            files.suspect(&KEY, b"a").unwrap();
            own(&mut files);
            open(&mut files, b"a");
            files.quiet(&KEY, b"a", kind);
            assert_eq!(files.names_count, 1, "it was opened since");
            files.suspect(&KEY, b"a").unwrap();
            own(&mut files);
            files.quiet(&KEY, b"a", kind);
            assert_eq!(files.names_count, 0);
            assert!(files.list().is_empty());
        }
    }

    #[test]
    fn too_many_names_become_every_file() {
        let mut files = OpenFiles::default();
        for n in 0..=MOST_NAMES as u32 {
            open(&mut files, &n.to_be_bytes());
        }
        assert_eq!(files.names_count, 0);
        let [listed] = &files.list()[..] else {
            panic!()
        };
        assert_eq!((&listed.key, listed.all, listed.names.len()), (&KEY, 1, 0));
        files.suspect(&KEY, b"x").unwrap();
        files.quiet(&KEY, b"x", Kind::Fanotify);
        files.all_probed(&KEY, 1);
        assert!(files.list().is_empty());
    }

    #[test]
    fn half_of_the_names_go_at_once() {
        let mut files = OpenFiles::default();
        let most = MOST_NAMES as u32;
        let mut n = 0;
        let mut one_more = |files: &mut OpenFiles| {
            // A few in each of very many directories.
            let key = Key::Watch((n / 4 % (MOST_DIRECTORIES as u32)) as i32);
            let name = n.to_be_bytes();
            n += 1;
            files.take_in(&key, &name, What::OPEN, None).unwrap();
        };
        (0..most).for_each(|_| one_more(&mut files));
        assert_eq!(files.names_count, MOST_NAMES);
        one_more(&mut files);
        // Whole directories go.
        let left = MOST_NAMES / 2 - 3;
        assert_eq!(files.names_count, left);
        let of = |files: &OpenFiles| {
            let list = files.list();
            let names: usize = list.iter().map(|listed| listed.names.len()).sum();
            let all = list.iter().filter(|listed| listed.all > 0).count();
            (names, all)
        };
        assert_eq!(of(&files), (left, MOST_NAMES / 8 + 1));
        (0..most / 2 + 3).for_each(|_| one_more(&mut files));
        assert_eq!(files.names_count, MOST_NAMES, "not again at once");
        // Names of our own are bounded too.
        for n in 0..most * 2 {
            files.suspect(&KEY, &n.to_be_bytes()).unwrap();
            assert!(files.names_count <= MOST_NAMES);
        }
        assert_eq!(of(&files).0, files.names_count);
    }

    #[test]
    fn what_is_added_while_it_is_probed_stays() {
        let mut files = OpenFiles::default();
        files.suspect(&KEY, b"a").unwrap();
        files.add(&KEY, b"a").unwrap();
        files.quiet(&KEY, b"a", Kind::Fanotify);
        assert_eq!(files.names_count, 1);
        files.suspect(&KEY, b"a").unwrap();
        files.quiet(&KEY, b"a", Kind::Fanotify);
        files.add(&KEY, b"a").unwrap();
        assert_eq!(files.names_count, 1);
    }

    #[test]
    fn an_inode_whose_name_went_to_another_is_told() {
        let mut files = OpenFiles::default();
        let handle = |n| Some(Handle::new(1, &[n]));
        files.take_in(&KEY, b"a", What::OPEN, handle(1)).unwrap();
        let displaced = files.take_in(&KEY, b"a", What::OPEN, handle(2)).unwrap();
        assert_eq!(displaced, handle(1));
    }

    #[test]
    fn what_is_opened_or_comes_while_it_is_looked_for_stays() {
        let mut files = OpenFiles::default();
        files.suspect_all(&KEY).unwrap();
        open(&mut files, b"a");
        files.all_probed(&KEY, 1);
        assert_eq!(
            files.list()[0].names.len(),
            1,
            "it was opened while all were probed"
        );
        files.suspect(&KEY, b"a").unwrap();
        open(&mut files, b"a");
        files.gone(&KEY, b"a");
        assert_eq!(files.names_count, 1, "it came again");
        files.suspect(&KEY, b"a").unwrap();
        files.gone(&KEY, b"a");
        assert!(files.list().is_empty());
    }
}
