//! Which directories of a volume are watched, and where they were when a run last looked: keys to paths.
//!
//! A path here is as true as the run that brought it; a directory that was renamed since is found under its
//! new name by the change that the rename is. Bounded in directories and bytes of paths.

use super::source::Key;
use holdfast_format::path::RelPath;
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a directory costs beside its path, about.
const DIRECTORY_BYTES: usize = 96;

/// Room for watched directories, shared by the volumes of an agent.
#[derive(Debug)]
pub(crate) struct Room {
    directories: AtomicUsize,
    most_directories: usize,
    bytes: AtomicUsize,
    most_bytes: usize,
}

impl Room {
    /// So many directories, and so much memory for what is known of them.
    pub(crate) fn new(most_directories: usize, most_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            directories: AtomicUsize::new(0),
            most_directories,
            bytes: AtomicUsize::new(0),
            most_bytes,
        })
    }

    fn take(&self, bytes: usize) -> bool {
        let directories = self.directories.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        directories <= self.most_directories && bytes <= self.most_bytes
    }

    fn give_back(&self, directories: usize, bytes: usize) {
        self.directories.fetch_sub(directories, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The watched directories of one volume.
#[derive(Debug)]
pub(crate) struct Directories {
    known: HashMap<Key, Place>,
    bytes: usize,
    room: Arc<Room>,
}

#[derive(Debug)]
struct Place {
    path: Box<[u8]>,
    /// Of the last walk that came by.
    walk: u32,
    /// It is gone, or moved out: what its last events tell does not matter.
    gone: bool,
}

/// There is no room for another directory.
#[derive(Debug)]
pub(crate) struct NoRoom;

/// Whether a directory was not watched before.
#[derive(Debug)]
pub(crate) struct New(pub(crate) bool);

impl Directories {
    pub(crate) fn new(room: Arc<Room>) -> Self {
        Self {
            known: HashMap::new(),
            bytes: 0,
            room,
        }
    }

    /// A directory is watched, and lies here.
    pub(crate) fn add(&mut self, key: Key, path: &RelPath, walk: u32) -> Result<New, NoRoom> {
        let bytes = path.as_bytes().len() + DIRECTORY_BYTES;
        if let Some(place) = self.known.get_mut(&key) {
            // An older walk, or one in the background, knows nothing better.
            if walk >= place.walk && *place.path != *path.as_bytes() {
                let before = place.path.len() + DIRECTORY_BYTES;
                place.path = path.as_bytes().into();
                self.bytes = self.bytes + bytes - before;
                self.room.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.room.bytes.fetch_sub(before, Ordering::Relaxed);
            }
            place.walk = place.walk.max(walk);
            // What was gone was not watched for a while.
            return Ok(New(mem::replace(&mut place.gone, false)));
        }
        let place = Place {
            path: path.as_bytes().into(),
            walk,
            gone: false,
        };
        self.known.insert(key, place);
        self.bytes += bytes;
        match self.room.take(bytes) {
            true => Ok(New(true)),
            false => Err(NoRoom),
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

    /// A watch has ended by itself.
    pub(crate) fn ended(&mut self, key: &Key) {
        if let Some(place) = self.known.get_mut(key) {
            place.gone = true;
        }
    }

    /// What lies at or below these paths is gone or elsewhere, but for what this walk came by.
    pub(crate) fn left(&mut self, paths: &[RelPath], walk: u32) -> Vec<Key> {
        let mut ended = Vec::new();
        if paths.is_empty() {
            return ended;
        }
        for (key, place) in &mut self.known {
            let lies_below = |path: &RelPath| {
                let rest = place.path.strip_prefix(path.as_bytes());
                path.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            };
            if !place.gone && place.walk < walk && paths.iter().any(lies_below) {
                place.gone = true;
                ended.push(key.clone());
            }
        }
        ended
    }

    /// Forgets what is gone, whose last events have been told by now; what that was.
    pub(crate) fn forget_gone(&mut self) -> Vec<Key> {
        let (mut count, mut bytes, mut gone) = (0, 0, Vec::new());
        self.known.retain(|key, place| {
            if place.gone {
                gone.push(key.clone());
                count += 1;
                bytes += place.path.len() + DIRECTORY_BYTES;
            }
            !place.gone
        });
        self.bytes = self.bytes.saturating_sub(bytes);
        self.room.give_back(count, bytes);
        if count > 0 {
            self.known.shrink_to(self.known.len() * 2);
        }
        gone
    }

    /// What this walk did not come by is gone: the keys of it.
    pub(crate) fn only(&mut self, walk: u32) -> Vec<Key> {
        let mut ended = Vec::new();
        for (key, place) in &mut self.known {
            if place.walk < walk && !place.gone {
                place.gone = true;
                ended.push(key.clone());
            }
        }
        ended
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
}

impl Drop for Directories {
    fn drop(&mut self) {
        self.room.give_back(self.known.len(), self.bytes);
    }
}
