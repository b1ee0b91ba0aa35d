//! Room for watched directories, shared by the volumes of an agent: how many, and memory for what is known of
//! them. Where it is short, a volume that has more than its fair share gives way; one with less never does.

use super::epoch::Journal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Directories, and bytes of what is known of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) directories: usize,
    pub(crate) bytes: usize,
}

/// What may be short.
const MEASURES: [fn(&Size) -> usize; 2] = [|size| size.directories, |size| size.bytes];

/// What there is for all volumes.
#[derive(Debug)]
pub(crate) struct Room {
    most: Size,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: Size,
    volumes: HashMap<u64, Volume>,
    next: u64,
}

#[derive(Debug)]
struct Volume {
    size: Size,
    journal: Weak<Journal>,
}

/// One volume's part. Dropped, it gives all back.
#[derive(Debug)]
pub(crate) struct Part {
    room: Arc<Room>,
    id: u64,
}

/// Whether there was room. What was taken is counted either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// There was.
    Fits,
    /// Another volume has more than its share, and is to give way.
    Crowded,
    /// This volume has more than its share, and is to give way.
    TooMuch,
}

impl Room {
    /// So many directories, and so much memory for what is known of them.
    pub(crate) fn new(directories: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            most: Size { directories, bytes },
            held: Mutex::default(),
        })
    }

    /// Volumes that have more than their share give way, until there is enough. Not for who holds a
    /// journal's state: theirs are asked for.
    pub(super) fn make(&self) {
        while let Some(journal) = self.largest() {
            match journal.upgrade() {
                Some(journal) => journal.give_way(),
                None => return, // It is about to give everything back.
            }
        }
    }

    /// The volume that has the most of what is short; `None`: nothing is.
    fn largest(&self) -> Option<Weak<Journal>> {
        let held = self.held();
        let mut measures = MEASURES.into_iter();
        let short = measures.find(|measure| measure(&held.all) > measure(&self.most))?;
        // All have more than there is, so that one has more than its share.
        let largest = held.volumes.values().max_by_key(|it| short(&it.size))?;
        Some(largest.journal.clone())
    }

    /// Whether something is short that a volume has more than its share of.
    fn is_too_much(&self, held: &Held, size: &Size) -> bool {
        let volumes = held.volumes.len().max(1);
        MEASURES.into_iter().any(|measure| {
            let most = measure(&self.most);
            measure(&held.all) > most && measure(size) > most / volumes
        })
    }

    fn is_short(&self, held: &Held) -> bool {
        let mut measures = MEASURES.into_iter();
        measures.any(|measure| measure(&held.all) > measure(&self.most))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Numbers that are consistent after every call on them.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// One more volume, which has nothing.
    pub(crate) fn new(room: Arc<Room>, journal: Weak<Journal>) -> Self {
        let mut held = room.held();
        let id = held.next;
        held.next += 1;
        let size = Size::default();
        held.volumes.insert(id, Volume { size, journal });
        drop(held);
        Self { room, id }
    }

    /// The volume has so much more.
    pub(crate) fn take(&self, more: Size) -> Fit {
        let mut held = self.room.held();
        let mut size = Size::default();
        if let Some(volume) = held.volumes.get_mut(&self.id) {
            volume.size.directories += more.directories;
            volume.size.bytes += more.bytes;
            size = volume.size;
        }
        held.all.directories += more.directories;
        held.all.bytes += more.bytes;
        match (
            self.room.is_short(&held),
            self.room.is_too_much(&held, &size),
        ) {
            (false, _) => Fit::Fits,
            (true, false) => Fit::Crowded,
            (true, true) => Fit::TooMuch,
        }
    }

    /// And so much less.
    pub(crate) fn give_back(&self, less: Size) {
        let mut held = self.room.held();
        if let Some(volume) = held.volumes.get_mut(&self.id) {
            volume.size.directories -= less.directories;
            volume.size.bytes -= less.bytes;
            held.all.directories -= less.directories;
            held.all.bytes -= less.bytes;
        }
    }

    /// What the volume has.
    pub(crate) fn size(&self) -> Size {
        let held = self.room.held();
        held.volumes
            .get(&self.id)
            .map_or(Size::default(), |it| it.size)
    }

    /// Whether the volume is to give way.
    pub(crate) fn is_too_much(&self) -> bool {
        let size = self.size();
        self.room.is_too_much(&self.room.held(), &size)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.give_back(self.size());
        self.room.held().volumes.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(directories: usize) -> Size {
        Size {
            directories,
            bytes: 0,
        }
    }

    #[test]
    fn who_has_more_than_a_share_gives_way() {
        let room = Room::new(100, 1000);
        let part = || Part::new(room.clone(), Weak::new());
        let (large, small) = (part(), part());
        assert_eq!(large.take(directories(99)), Fit::Fits, "nobody wants it");
        assert_eq!(small.take(directories(1)), Fit::Fits);
        assert_eq!(small.take(directories(1)), Fit::Crowded);
        assert!(large.is_too_much() && !small.is_too_much());
        assert_eq!(large.take(directories(1)), Fit::TooMuch);
        large.give_back(large.size());
        assert_eq!(small.take(directories(98)), Fit::Fits, "nobody wants it");
        assert_eq!(large.take(directories(50)), Fit::Crowded);
        assert_eq!(small.take(directories(1)), Fit::TooMuch);
        drop(small);
        assert_eq!(large.take(directories(50)), Fit::Fits);
        assert_eq!(large.take(directories(1)), Fit::TooMuch);
    }

    #[test]
    fn memory_is_shared_like_directories() {
        let room = Room::new(100, 1000);
        let part = || Part::new(room.clone(), Weak::new());
        let (deep, many) = (part(), part());
        let size = |directories, bytes| Size { directories, bytes };
        assert_eq!(deep.take(size(1, 950)), Fit::Fits);
        assert_eq!(many.take(size(60, 60)), Fit::Crowded);
        assert!(deep.is_too_much());
        assert!(!many.is_too_much(), "directories are not short");
        deep.give_back(size(0, 900));
        assert_eq!(many.take(size(1, 1)), Fit::Fits);
    }
}
