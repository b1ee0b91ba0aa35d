//! Which directories of a volume are watched, and where they were when a run last looked: keys to paths.
//!
//! A path here is as true as the run that brought it; a directory that was renamed since is found under its
//! new name by the change that the rename is. Bounded in directories and bytes of paths.

use super::epoch::Journal;
use super::room::{Fit, Part, Room, Size};
use super::source::Key;
use holdfast_format::path::RelPath;
use std::collections::{HashMap, HashSet};
use std::iter;
use std::mem;
use std::sync::{Arc, Weak};

/// Bytes that a directory costs beside its path, about.
const DIRECTORY_BYTES: usize = 96;

/// The watched directories of one volume.
#[derive(Debug)]
pub(crate) struct Directories {
    known: HashMap<Key, Place>,
    part: Part,
}

#[derive(Debug)]
struct Place {
    path: Box<[u8]>,
    /// Of the last walk that came by.
    walk: u32,
    /// It is gone, or moved out: what its last events tell does not matter.
    gone: bool,
    /// Since the epoch began each file in it was probed, or is among those that may have writers.
    probed: bool,
}

/// The volume has more than its share, and there is no room for another directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// What is to be done about a directory that a walk came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    /// Files in it may have writers of which nothing was told, and were not probed.
    pub(crate) unprobed: bool,
    /// Other volumes have too much of the room.
    pub(crate) crowded: bool,
}

impl Directories {
    /// None yet.
    pub(crate) fn new(room: Arc<Room>, journal: Weak<Journal>) -> Self {
        Self {
            known: HashMap::new(),
            part: Part::new(room, journal),
        }
    }

    /// None any more.
    pub(crate) fn clear(&mut self) {
        self.known = HashMap::new();
        self.part.give_back(self.part.size());
    }

    /// Whether the volume has so much of the room that it is to give way.
    pub(crate) fn is_too_much(&self) -> bool {
        self.part.is_too_much()
    }

    /// A directory is watched, and lies here.
    pub(crate) fn add(&mut self, key: Key, path: &RelPath, walk: u32) -> Result<Added, NoRoom> {
        let path = path.as_bytes();
        let (fit, unprobed) = match self.known.get_mut(&key) {
            Some(place) => {
                let mut fit = Fit::Fits;
                // An older walk, or one in the background, knows nothing better.
                if walk >= place.walk && *place.path != *path {
                    self.part.give_back(size_of(&place.path));
                    place.path = path.into();
                    fit = self.part.take(size_of(path));
                }
                place.walk = place.walk.max(walk);
                // What was gone was not watched for a while.
                place.probed &= !mem::replace(&mut place.gone, false);
                (fit, !place.probed)
            }
            None => {
                let place = Place {
                    path: path.into(),
                    walk,
                    gone: false,
                    probed: false,
                };
                self.known.insert(key, place);
                (self.part.take(size_of(path)), true)
            }
        };
        let crowded = fit == Fit::Crowded;
        match fit {
            Fit::TooMuch => Err(NoRoom),
            Fit::Fits | Fit::Crowded => Ok(Added { unprobed, crowded }),
        }
    }

    /// Where a directory was; `None`: it is not known. An inner `None`: it is gone.
    pub(crate) fn path(&self, key: &Key) -> Option<Option<RelPath>> {
        let place = self.known.get(key)?;
        match place.gone {
            true => Some(None),
            // It was a path when it was taken in.
            false => Some(RelPath::new(&*place.path).ok()),
        }
    }

    /// An epoch begins: none is probed.
    pub(crate) fn begin(&mut self) {
        self.known
            .values_mut()
            .for_each(|place| place.probed = false);
    }

    /// Each file in it was probed, or may have writers.
    pub(crate) fn probed(&mut self, key: &Key) {
        if let Some(place) = self.known.get_mut(key) {
            place.probed = true;
        }
    }

    /// Whether the files of a known directory are not probed.
    pub(crate) fn is_unprobed(&self, key: &Key) -> bool {
        self.known
            .get(key)
            .is_some_and(|place| !place.gone && !place.probed)
    }

    /// Those whose files are not probed, with their places.
    pub(crate) fn unprobed(&self) -> Vec<(Key, RelPath)> {
        let all = self.known.iter();
        all.filter(|(_, place)| !place.gone && !place.probed)
            .filter_map(|(key, place)| Some((key.clone(), RelPath::new(&*place.path).ok()?)))
            .collect()
    }

    /// Those at these paths.
    pub(crate) fn at(&self, is_meant: impl Fn(&[u8]) -> bool) -> Vec<(Key, Box<[u8]>)> {
        let all = self.known.iter();
        all.filter(|(_, place)| !place.gone && is_meant(&place.path))
            .map(|(key, place)| (key.clone(), place.path.clone()))
            .collect()
    }

    /// A watch has ended by itself.
    pub(crate) fn ended(&mut self, key: &Key) {
        if let Some(place) = self.known.get_mut(key) {
            place.gone = true;
        }
    }

    /// What lies at or below these paths is gone or elsewhere, but for what this walk came by. Takes time by the
    /// directories, however many paths there are.
    pub(crate) fn left(&mut self, paths: &[RelPath], walk: u32) -> Vec<Key> {
        if paths.is_empty() {
            return Vec::new();
        }
        let left: HashSet<&[u8]> = paths.iter().map(RelPath::as_bytes).collect();
        self.end(|place| {
            place.walk < walk && with_parents(&place.path).any(|path| left.contains(path))
        })
    }

    /// Forgets what is gone, whose last events have been told by now; what that was.
    pub(crate) fn forget_gone(&mut self) -> Vec<Key> {
        let (mut size, mut gone) = (Size::default(), Vec::new());
        self.known.retain(|key, place| {
            if place.gone {
                gone.push(key.clone());
                size.directories += 1;
                size.bytes += size_of(&place.path).bytes;
            }
            !place.gone
        });
        self.part.give_back(size);
        if !gone.is_empty() {
            self.known.shrink_to(self.known.len() * 2);
        }
        gone
    }

    /// What this walk did not come by is gone: the keys of it.
    pub(crate) fn only(&mut self, walk: u32) -> Vec<Key> {
        self.end(|place| place.walk < walk)
    }

    /// Where all of them are.
    pub(crate) fn paths(&self) -> Vec<RelPath> {
        let there = self.known.values().filter(|place| !place.gone);
        there
            .filter_map(|place| RelPath::new(&*place.path).ok())
            .collect()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    fn end(&mut self, is_gone: impl Fn(&Place) -> bool) -> Vec<Key> {
        let mut ended = Vec::new();
        for (key, place) in &mut self.known {
            if !place.gone && is_gone(place) {
                place.gone = true;
                ended.push(key.clone());
            }
        }
        ended
    }
}

fn size_of(path: &[u8]) -> Size {
    Size {
        directories: 1,
        bytes: path.len() + DIRECTORY_BYTES,
    }
}

/// A path and those of all directories above it, the root's, which is empty, last.
fn with_parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::successors(Some(path), |path| {
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => Some(&path[..at]),
            None => (!path.is_empty()).then_some(&path[..0]),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn none() -> Directories {
        Directories::new(Room::new(1 << 20, 1 << 30), Weak::new())
    }

    fn of(paths: &[&str]) -> Directories {
        let mut directories = none();
        for (n, text) in paths.iter().enumerate() {
            let added = directories.add(Key::Watch(n as i32), &path(text), 1);
            assert!(added.unwrap().unprobed);
        }
        directories
    }

    #[test]
    fn what_lies_below_a_path_that_is_left_is_gone() {
        let paths = ["", "a", "a/b", "a/b/c", "ab", "a/bc", "d"];
        let cases: [(&[&str], &[i32]); 5] = [
            (&["a/b"], &[2, 3]),
            (&["a"], &[1, 2, 3, 5]),
            (&["a/b/c", "d", "d/file", "e"], &[3, 6]),
            (&[""], &[0, 1, 2, 3, 4, 5, 6]),
            (&[], &[]),
        ];
        for (left, expected) in cases {
            let mut directories = of(&paths);
            let left: Vec<RelPath> = left.iter().map(|text| path(text)).collect();
            assert_eq!(directories.left(&left, 1), [], "this walk came by");
            let mut ended = directories.left(&left, 2);
            ended.sort_by_key(|key| match key {
                Key::Watch(watch) => *watch,
                Key::Handle(_) => i32::MAX,
            });
            let expected: Vec<Key> = expected.iter().copied().map(Key::Watch).collect();
            assert_eq!(ended, expected);
            assert_eq!(directories.left(&left, 2), [], "once");
        }
    }

    #[test]
    fn many_paths_that_are_left_take_no_more_time_than_few() {
        let mut directories = none();
        for n in 0..50_000 {
            let path = path(&format!("a/directory/with/some/others/above/{n}"));
            directories.add(Key::Watch(n), &path, 1).unwrap();
        }
        let left: Vec<RelPath> = (0..20_000)
            .map(|n| path(&format!("a/directory/with/some/others/above/file-{n}")))
            .collect();
        let began = Instant::now();
        assert_eq!(directories.left(&left, 2), []);
        // One by one it would be 10^9 comparisons.
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_directory_is_unprobed_until_it_is_probed_in_its_epoch() {
        let mut directories = of(&["", "a"]);
        let (root, a) = (Key::Watch(0), Key::Watch(1));
        directories.probed(&root);
        directories.probed(&a);
        assert_eq!(directories.unprobed(), []);
        let unprobed = |added: Result<Added, NoRoom>| added.unwrap().unprobed;
        assert!(!unprobed(directories.add(a.clone(), &path("b"), 2)));
        directories.ended(&a);
        assert_eq!(directories.unprobed(), [], "it is gone");
        // Nothing was told of it for a while.
        assert!(unprobed(directories.add(a.clone(), &path("b"), 3)));
        assert_eq!(directories.unprobed(), [(a.clone(), path("b"))]);
        directories.probed(&a);
        directories.begin();
        assert_eq!(directories.unprobed().len(), 2);
        assert!(unprobed(directories.add(a, &path("b"), 4)));
    }

    #[test]
    fn what_is_known_is_counted_in_the_room() {
        let room = Room::new(3, 10_000);
        let new = || Directories::new(room.clone(), Weak::new());
        let mut directories = new();
        let mut add = |n, text: &str| directories.add(Key::Watch(n), &path(text), n as u32);
        add(1, "a").unwrap();
        add(1, "longer").unwrap();
        add(2, "b").unwrap();
        add(3, "c").unwrap();
        assert_eq!(add(4, "d"), Err(NoRoom));
        let bytes = 4 * DIRECTORY_BYTES + "longerbcd".len();
        let size = |directories, bytes| Size { directories, bytes };
        assert_eq!(directories.part.size(), size(4, bytes));
        assert!(directories.is_too_much());
        directories.ended(&Key::Watch(4));
        assert_eq!(directories.forget_gone(), [Key::Watch(4)]);
        assert_eq!(
            directories.part.size(),
            size(3, bytes - 1 - DIRECTORY_BYTES)
        );
        let mut other = new();
        let added = other.add(Key::Watch(1), &path("a"), 1).unwrap();
        assert!(added.crowded && directories.is_too_much());
        directories.clear();
        assert_eq!(directories.part.size(), Size::default());
        drop(directories);
        assert_eq!(other.part.size(), size(1, 1 + DIRECTORY_BYTES));
    }
}
