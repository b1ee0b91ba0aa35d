//! What may have changed since it was last taken: a bounded set that loses detail, never a change.
//!
//! A name is kept per directory, by the key under which its source knows the directory. Too many names in
//! one directory become "everything directly in it"; too many directories or targets become "the volume".
//! Pure: no clock, no system calls.

use super::source::{Event, Handle, Key, What};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;

/// Names of one directory that are kept apart.
const DIRECTORY_NAMES: usize = 4_096;
/// Names of one volume; beyond it whole directories take their place.
const MOST_NAMES: usize = 32_768;
/// A directory with fewer gains nothing from being looked at as a whole.
const FEW: usize = 16;
/// Directories of one volume with changes in them.
const MOST_DIRECTORIES: usize = 65_536;
/// Inodes whose name was taken by another, or is gone.
const MOST_TARGETS: usize = 65_536;
/// Targets more than were known to exist, from which on it is worth while to look.
const CROWD: usize = 8_192;

/// The changes of one volume.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) directories: HashMap<Key, Changes>,
    names_count: usize,
    /// Inodes to which something happened under a name that stood for another inode later: they may
    /// have other names.
    pub(crate) targets: HashSet<Handle>,
    /// How many targets there may be before those that are gone are looked for.
    crowd: usize,
    /// Why nothing less than everything may have changed.
    pub(crate) everything: Option<&'static str>,
}

/// What happened in one directory.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Its own metadata.
    pub(crate) this: bool,
    /// Anything directly in it, whatever the names.
    pub(crate) all: bool,
    /// Of names that are not told apart: a directory came, maybe with the number of one that was there.
    pub(crate) directory_came: bool,
    pub(crate) names: HashMap<Box<[u8]>, Name>,
}

/// What happened to one name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// It came: what it stands for may be new, and if it is a directory, everything below it.
    pub(crate) came: bool,
    /// It was moved away.
    pub(crate) moved_away: bool,
    /// The inode that the last event was about.
    pub(crate) target: Option<Handle>,
    /// And whether that is a directory.
    pub(crate) directory: bool,
    /// A directory came, whatever is there now.
    pub(crate) directory_came: bool,
    /// It came, and went or came again: it may have stood for an inode of which nothing else is known.
    pub(crate) came_and_went: bool,
}

/// Bits that say that names of a directory came or went.
const NAMES: What = What::CREATE
    .and(What::DELETE)
    .and(What::MOVED_FROM)
    .and(What::MOVED_TO);
/// Bits that say that a name came.
const CAME: What = What::CREATE.and(What::MOVED_TO);
/// Bits after which a name, or what it stands for, is not what it was.
const CHANGES: What = NAMES
    .and(What::MODIFY)
    .and(What::CLOSE_WRITE)
    .and(What::ATTRIB);

impl Dirty {
    /// How many names may have changed, as far as they are told apart.
    pub(crate) fn names_count(&self) -> usize {
        self.names_count
    }

    /// What it holds: directories, names and inodes.
    pub(crate) fn entries(&self) -> usize {
        self.directories.len() + self.names_count + self.targets.len()
    }

    /// Takes one event in; whether it was a change.
    pub(crate) fn take_in(&mut self, event: &Event<'_>) -> bool {
        if !event.what.any(CHANGES) {
            return false;
        }
        if self.everything.is_some() {
            return true;
        }
        if !self.directories.contains_key(&event.dir) && self.directories.len() >= MOST_DIRECTORIES
        {
            self.give_up("TooManyDirectories");
            return true;
        }
        let changes = self.directories.entry(event.dir.clone()).or_default();
        changes.this |= event.what.any(NAMES) || event.name.is_empty();
        let mut displaced = None;
        if !event.name.is_empty() {
            if changes.all {
                // Its names are not told apart any more: the inode is all that is left of the event.
                changes.directory_came |= event.directory && event.what.any(CAME);
                displaced = event.target.clone().filter(|_| !event.directory);
            } else {
                let before = changes.names.len();
                displaced = changes.note(event);
                self.names_count += changes.names.len() - before;
                if changes.names.len() > DIRECTORY_NAMES {
                    self.collapse(&event.dir);
                }
            }
        }
        if let Some(target) = displaced {
            self.add_target(target);
        }
        if self.names_count > MOST_NAMES {
            self.collapse_largest();
        }
        true
    }

    /// Whether any name came and went, as far as that is known.
    pub(crate) fn may_hide(&self) -> bool {
        self.everything.is_some() || self.directories.values().any(Changes::may_hide)
    }

    /// Counts the names, after directories were put in as they are.
    pub(crate) fn count_names(&mut self) {
        self.names_count = self
            .directories
            .values()
            .map(|changes| changes.names.len())
            .sum();
    }

    /// This may have changed, for a reason of our own.
    pub(crate) fn add_name(&mut self, dir: Key, name: &[u8]) {
        if self.everything.is_some() {
            return;
        }
        let changes = self.directories.entry(dir.clone()).or_default();
        if !changes.all {
            let before = changes.names.len();
            changes.names.entry(name.into()).or_default();
            self.names_count += changes.names.len() - before;
            if changes.names.len() > DIRECTORY_NAMES {
                self.collapse(&dir);
            }
        }
        if self.names_count > MOST_NAMES {
            self.collapse_largest();
        }
        if self.directories.len() > MOST_DIRECTORIES {
            self.give_up("TooManyDirectories");
        }
    }

    /// Everything may have changed; the first reason stays.
    pub(crate) fn give_up(&mut self, reason: &'static str) {
        let everything = Some(self.everything.unwrap_or(reason));
        *self = Self {
            everything,
            ..Self::default()
        };
    }

    /// Adds what was taken before and came to nothing.
    pub(crate) fn put_back(&mut self, other: Self) {
        if let Some(reason) = other.everything.or(self.everything) {
            self.give_up(reason);
            return;
        }
        for target in other.targets {
            self.add_target(target);
        }
        for (key, changes) in other.directories {
            let mut displaced = Vec::new();
            let mine = self.directories.entry(key.clone()).or_default();
            mine.this |= changes.this;
            mine.directory_came |= changes.directory_came;
            if changes.all && !mine.all {
                self.names_count -= mine.names.len();
                displaced.extend(mine.take_all());
            }
            for (name, earlier) in changes.names {
                if mine.all {
                    mine.directory_came |= earlier.directory_came;
                    displaced.extend(earlier.file());
                    continue;
                }
                match mine.names.entry(name) {
                    Entry::Vacant(entry) => {
                        entry.insert(earlier);
                        self.names_count += 1;
                    }
                    Entry::Occupied(mut entry) => {
                        let later = entry.get_mut();
                        later.came |= earlier.came;
                        later.moved_away |= earlier.moved_away;
                        later.came_and_went |= earlier.came_and_went || earlier.came;
                        later.directory_came |= earlier.directory_came;
                        if earlier.target != later.target {
                            displaced.extend(earlier.file());
                        }
                    }
                }
            }
            displaced
                .into_iter()
                .for_each(|target| self.add_target(target));
        }
        if self.names_count > MOST_NAMES {
            self.collapse_largest();
        }
        if self.directories.len() > MOST_DIRECTORIES {
            self.give_up("TooManyDirectories");
        }
    }

    /// Whether targets should be looked at, and those that are gone removed.
    pub(crate) fn is_crowded(&self) -> bool {
        self.targets.len() > self.crowd.max(CROWD)
    }

    /// Keeps the targets that exist; however many do, it is not asked for again at once.
    pub(crate) fn keep_targets(&mut self, exists: impl Fn(&Handle) -> bool) {
        self.targets.retain(exists);
        self.crowd = self.targets.len() + CROWD;
    }

    /// Something happened to an inode under a name that is another's, or nobody's.
    pub(crate) fn add_target(&mut self, target: Handle) {
        self.targets.insert(target);
        if self.targets.len() > MOST_TARGETS {
            self.give_up("TooManyInodes");
        }
    }

    /// "Everything directly in it" takes the place of a directory's names.
    fn collapse(&mut self, key: &Key) {
        let Some(changes) = self.directories.get_mut(key) else {
            return;
        };
        self.names_count -= changes.names.len();
        for target in changes.take_all() {
            self.add_target(target);
        }
    }

    fn collapse_largest(&mut self) {
        while self.names_count > MOST_NAMES / 2 && self.everything.is_none() {
            let largest = self
                .directories
                .iter()
                .max_by_key(|(_, changes)| changes.names.len());
            let Some(key) = largest.map(|(key, _)| key.clone()) else {
                return;
            };
            if self.directories[&key].names.len() < FEW {
                // A few names in each of very many directories.
                self.give_up("TooManyNames");
                return;
            }
            self.collapse(&key);
        }
    }
}

impl Changes {
    /// Notes an event about a name; the inode that it stood for before, if that was another.
    fn note(&mut self, event: &Event<'_>) -> Option<Handle> {
        let name = match self.names.get_mut(event.name) {
            Some(name) => name,
            None => self.names.entry(event.name.into()).or_default(),
        };
        let came = event.what.any(CAME);
        let went = event.what.any(What::DELETE.and(What::MOVED_FROM));
        name.came_and_went |= (came || went) && name.came || came && went;
        name.came |= came;
        name.directory_came |= came && event.directory;
        name.moved_away |= event.what.any(What::MOVED_FROM);
        match (&event.target, &name.target) {
            (None, _) => None,
            (new, old) if new == old => None,
            (new, _) => {
                let was_directory = mem::replace(&mut name.directory, event.directory);
                let old = mem::replace(&mut name.target, new.clone());
                old.filter(|_| !was_directory)
            }
        }
    }

    /// Forgets the names; the inodes that they stood for, but for directories.
    fn take_all(&mut self) -> Vec<Handle> {
        self.all = true;
        let names = mem::take(&mut self.names);
        self.directory_came |= names.values().any(|name| name.directory_came);
        names.into_values().filter_map(Name::file).collect()
    }

    /// Whether a name came and went that no source but one with targets knows the inode of: it may have been a second
    /// one of any file.
    pub(crate) fn may_hide(&self) -> bool {
        self.all || self.names.values().any(|name| name.came_and_went)
    }
}

impl Name {
    /// The inode, unless it is a directory: that has no other names.
    fn file(self) -> Option<Handle> {
        self.target.filter(|_| !self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: i32) -> Key {
        Key::Watch(n)
    }

    fn handle(n: u32) -> Option<Handle> {
        Some(Handle::new(1, &n.to_le_bytes()))
    }

    fn event<'a>(dir: i32, name: &'a [u8], what: What, target: Option<Handle>) -> Event<'a> {
        Event {
            dir: key(dir),
            name,
            what,
            target,
            directory: false,
            own: false,
        }
    }

    #[test]
    fn what_is_read_is_no_change() {
        let mut dirty = Dirty::default();
        assert!(!dirty.take_in(&event(1, b"a", What::OPEN, handle(1))));
        assert!(dirty.directories.is_empty());
        assert!(dirty.take_in(&event(1, b"a", What::OPEN.and(What::MODIFY), handle(1))));
        assert!(!dirty.directories[&key(1)].this);
        assert!(dirty.take_in(&event(1, b"b", What::CREATE, handle(2))));
        assert!(dirty.directories[&key(1)].this);
        assert_eq!(dirty.names_count(), 2);
    }

    #[test]
    fn an_inode_whose_name_went_to_another_is_kept() {
        let mut dirty = Dirty::default();
        dirty.take_in(&event(1, b"c", What::CREATE, handle(7)));
        dirty.take_in(&event(1, b"c", What::MODIFY, handle(7)));
        assert!(dirty.targets.is_empty());
        dirty.take_in(&event(1, b"c", What::MOVED_TO, handle(8)));
        assert_eq!(dirty.targets, HashSet::from([handle(7).unwrap()]));
    }

    #[test]
    fn a_file_whose_name_went_to_a_directory_is_kept_and_a_directory_is_not() {
        let of = |what, target, directory| Event {
            directory,
            ..event(1, b"n", what, handle(target))
        };
        let mut dirty = Dirty::default();
        dirty.take_in(&of(What::CREATE, 7, false));
        dirty.take_in(&of(What::CREATE, 8, true));
        assert_eq!(dirty.targets, HashSet::from([handle(7).unwrap()]));
        dirty.take_in(&of(What::CREATE, 9, false));
        assert_eq!(dirty.targets.len(), 1);
        assert!(dirty.directories[&key(1)].may_hide());
    }

    #[test]
    fn that_a_directory_came_outlives_the_names() {
        for late in [false, true] {
            let mut dirty = Dirty::default();
            let came = Event {
                directory: true,
                ..event(1, b"s", What::CREATE, handle(1 << 20))
            };
            if !late {
                dirty.take_in(&came);
            }
            for n in 0..=DIRECTORY_NAMES as u32 {
                dirty.take_in(&event(1, &n.to_be_bytes(), What::MODIFY, handle(n)));
            }
            if late {
                assert!(!dirty.directories[&key(1)].directory_came);
                dirty.take_in(&came);
            }
            let changes = &dirty.directories[&key(1)];
            assert!(changes.all && changes.directory_came);
            // Directories have no other names.
            assert_eq!(dirty.targets.len(), DIRECTORY_NAMES + 1);
            let mut later = Dirty::default();
            later.put_back(dirty);
            assert!(later.directories[&key(1)].directory_came);
        }
    }

    #[test]
    fn loses_detail_and_never_a_change() {
        let mut dirty = Dirty::default();
        for n in 0..=DIRECTORY_NAMES as u32 {
            dirty.take_in(&event(1, &n.to_be_bytes(), What::MODIFY, handle(n)));
        }
        let changes = &dirty.directories[&key(1)];
        assert!(changes.all && changes.names.is_empty());
        assert_eq!(dirty.names_count(), 0);
        assert_eq!(dirty.targets.len(), DIRECTORY_NAMES + 1);
        dirty.take_in(&event(1, b"later", What::MODIFY, handle(1 << 20)));
        assert_eq!(dirty.targets.len(), DIRECTORY_NAMES + 2);
        for dir in 2..200 {
            for n in 0..1000u32 {
                dirty.take_in(&event(dir, &n.to_be_bytes(), What::ATTRIB, None));
            }
        }
        assert!(dirty.names_count() <= MOST_NAMES);
        assert_eq!(dirty.directories.len(), 199);
        assert!(dirty.everything.is_none());
        for n in 0..=MOST_DIRECTORIES as i32 {
            dirty.take_in(&event(n, b"", What::ATTRIB, None));
        }
        assert_eq!(dirty.everything, Some("TooManyDirectories"));
        let mut dirty = Dirty::default();
        for n in 0..=MOST_NAMES as i32 {
            dirty.take_in(&event(n, b"x", What::MODIFY, None));
        }
        assert_eq!(dirty.everything, Some("TooManyNames"));
        assert!(dirty.directories.is_empty());
    }

    #[test]
    fn what_is_put_back_is_there_again() {
        let mut taken = Dirty::default();
        taken.take_in(&event(1, b"a", What::CREATE, handle(1)));
        taken.take_in(&event(1, b"b", What::MODIFY, handle(2)));
        taken.take_in(&event(2, b"", What::ATTRIB, None));
        let mut dirty = Dirty::default();
        dirty.take_in(&event(1, b"a", What::MOVED_TO, handle(3)));
        dirty.put_back(taken);
        let changes = &dirty.directories[&key(1)];
        assert!(changes.names[&b"a"[..]].came);
        assert_eq!(changes.names[&b"a"[..]].target, handle(3));
        assert_eq!(dirty.targets, HashSet::from([handle(1).unwrap()]));
        assert_eq!(dirty.names_count(), 2);
        assert!(dirty.directories[&key(2)].this);
        let mut all = Dirty::default();
        all.give_up("Overflow");
        dirty.put_back(all);
        assert_eq!(dirty.everything, Some("Overflow"));
    }
}
