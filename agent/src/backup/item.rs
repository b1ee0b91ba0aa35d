//! What travels through a run: items in tree order, in batches, and what became of them.

use super::budget::Permit;
use super::extents::Extents;
use crate::beneath::Dir;
use crate::error::ItemProblem;
use crate::faults::{self, Fault};
use crate::index::{Record, trust};
use crate::scan::{Child, Found, Scan};
use crate::stat::{is_unchanged, type_bits};
use bytes::Bytes;
use holdfast_format::codec::encode_entry;
use holdfast_format::digest::ContentDigest;
use holdfast_format::entry::{Content, Entry, Kind};
use holdfast_format::frame::Frame;
use holdfast_format::path::RelPath;
use holdfast_format::stamp::{Host, Stamp, StatKey, Writers};
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Why a run looks at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// It looks at everything.
    AtEverything,
    /// The journal says that something happened.
    ByEvents,
}

impl Looks {
    /// Why it comes by.
    pub fn of(scan: &Scan) -> Self {
        match scan {
            Scan::Whole(_) => Self::AtEverything,
            Scan::Changes(_) => Self::ByEvents,
        }
    }
}

/// One path that is not simply unchanged.
#[derive(Debug)]
pub struct Item {
    /// Which path.
    pub path: RelPath,
    /// What to do about it.
    pub task: Task,
}

/// What to do about a path.
#[derive(Debug)]
pub enum Task {
    /// The index has it and the volume has not.
    Remove,
    /// Nothing is known of it now.
    Problem {
        /// Why.
        problem: ItemProblem,
        /// Whether the parent has something that stands in its place.
        carried_over: bool,
    },
    /// Look at it: metadata, and content where that may have changed.
    Look(Box<Look>),
    /// Another name of the inode that `first` names in this run.
    Link {
        /// The name's own look, in case the first one failed.
        look: Box<Look>,
        /// The smallest path of the group.
        first: RelPath,
    },
}

/// How to look at a path.
#[derive(Debug)]
pub struct Look {
    /// Where it lies; of the root, the root itself.
    pub dir: Arc<Dir>,
    /// What the scan found.
    pub found: Found,
    /// What the index has.
    pub old: Option<Record>,
    /// How to get at the content of a regular file.
    pub content: Source,
    /// The path it names as its hard link, when it is known already.
    pub hardlink: Option<RelPath>,
    /// Whether further names of this inode are to be expected.
    pub leads_group: bool,
    /// Chunks of it are lost in the store: they are shipped although the parent has the same content.
    pub lost: bool,
    /// What the index has of it would be believed: content that differs has changed without a sign.
    pub unmoved: bool,
}

/// Where the content of a regular file comes from.
#[derive(Debug)]
pub enum Source {
    /// It is read.
    Read,
    /// It is that of this path in the parent, whose record is given: its stamp has not moved.
    Parent(RelPath, Record),
}

/// What became of an item.
#[derive(Debug)]
pub struct Done {
    /// Which path.
    pub path: RelPath,
    /// What to do about it now.
    pub outcome: Outcome,
}

/// What to do about an item, in its turn.
#[derive(Debug)]
pub enum Outcome {
    /// It is gone; it was known.
    Remove,
    /// It could not be read; the parent's entry stands where there is one.
    Problem {
        /// Why.
        problem: ItemProblem,
        /// Whether the parent has something that stands in its place.
        carried_over: bool,
        /// Whether what the parent has there must go: it was something else.
        remove: bool,
        /// Whether other names were to follow it.
        led_group: bool,
    },
    /// It was gone when it was looked at.
    Vanished {
        /// Whether the parent has it.
        known: bool,
        /// Whether other names were to follow it.
        led_group: bool,
    },
    /// It is as follows.
    Stored(Box<Stored>),
    /// Its first name knows.
    Link {
        /// The name's own look.
        look: Box<Look>,
        /// The first name.
        first: RelPath,
    },
}

/// A path as it was read.
#[derive(Debug)]
pub struct Stored {
    /// Metadata; its `content` is empty.
    pub entry: Entry,
    /// Content.
    pub content: FileContent,
    /// For the index.
    pub record: Record,
    /// What the index has.
    pub old: Option<Record>,
    /// To be reported though it is stored.
    pub problem: Option<ItemProblem>,
    /// The inode of which further names are to be expected, and how many.
    pub leads: Option<(LinkKey, u32)>,
}

/// What a regular file holds, before it goes on the wire.
#[derive(Debug)]
pub enum FileContent {
    /// No bytes, or no regular file.
    Empty,
    /// All bytes.
    Inline(Bytes),
    /// Chunks and holes.
    Extents(Extents),
    /// As in the parent at this path.
    AsInParent(RelPath),
}

/// An inode, told apart from one that got its number later where the filesystem lets us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// Device; subvolumes of btrfs share inode numbers.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time.
    pub btime_ns: i64,
}

impl LinkKey {
    /// The inode of what was found.
    pub fn of(found: &Found) -> Self {
        Self {
            dev: found.stat.dev,
            ino: found.stat.ino,
            btime_ns: found.stat.btime_ns,
        }
    }

    /// As the key of a table.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&self.dev.to_be_bytes());
        out[8..16].copy_from_slice(&self.ino.to_be_bytes());
        out[16..].copy_from_slice(&self.btime_ns.to_be_bytes());
        out
    }
}

/// Items for one worker, and the way back for what becomes of them.
#[derive(Debug)]
pub struct Batch {
    /// Its place in the order.
    pub number: u64,
    /// In tree order.
    pub items: Vec<Item>,
    /// Content that will be read for it, as far as is known.
    pub content_bytes: u64,
    /// Where everything that comes of it goes.
    pub pieces: Sender<Piece>,
    /// Memory it may use.
    pub permit: Permit,
}

/// What comes of a batch.
#[derive(Debug)]
pub enum Piece {
    /// One part of its chunks: a frame, or nothing where all of them are held.
    Part(Option<Frame>, Option<Permit>),
    /// All items are done; so many parts were made of them.
    Finished {
        /// In tree order.
        done: Vec<Done>,
        /// Parts, whether they have come back yet or not.
        parts: usize,
        /// Memory of the batch.
        permit: Permit,
    },
}

impl Record {
    /// The stamp in it.
    pub fn stamp(&self) -> Option<Stamp> {
        (self.trust & trust::STAMPED != 0).then(|| Stamp {
            stat: StatKey {
                size: self.size,
                mtime_ns: self.mtime_ns,
                ctime_ns: self.ctime_ns,
                ino: self.ino,
                mode: self.mode | type_bits(self.kind),
                uid: self.uid,
                gid: self.gid,
            },
            racy: self.trust & trust::RACY != 0,
            inconsistent: self.trust & trust::INCONSISTENT != 0,
            settled: self.trust & trust::SETTLED != 0,
        })
    }

    /// Whether nothing is to be done about something with one name.
    pub fn is_as_before(&self, found: &Child<'_>, host: Host, looks: Looks) -> bool {
        let stat = found.stat;
        let one_name = stat.nlink <= 1 || stat.kind == Kind::Directory;
        !found.boundary
            && one_name
            && self.kind == stat.kind
            && self.hardlink.is_none()
            && !self.may_be_in_flight(looks)
            && is_unchanged(self.stamp().as_ref(), stat, host)
    }

    /// Whether the file may hold more than was read of it though its times are the same: a write(2) that was under
    /// way then is stamped with the time of its beginning, and told of at its end.
    pub fn may_be_in_flight(&self, looks: Looks) -> bool {
        let busy = self.trust & trust::BUSY != 0 && !faults::on(Fault::BelieveBusy);
        match looks {
            // An event named it, or what lies above it. What is open and idle is not looked at.
            Looks::ByEvents => busy,
            // Nothing tells. One more read ends the doubt, or a database would be read by every walk.
            Looks::AtEverything => busy && self.trust & trust::TWICE == 0,
        }
    }

    /// What is remembered of a file that somebody may have been writing when it was read: bits of `trust`.
    pub fn busy_bits(
        old: Option<&Self>,
        writers: Writers,
        stamp: &Stamp,
        digest: ContentDigest,
    ) -> u8 {
        let stood_still = |old: &Self| {
            let before = old.stamp().map(|stamp| stamp.stat);
            before == Some(stamp.stat) && old.content == Some(digest)
        };
        match writers {
            Writers::None => 0,
            Writers::MaybeSome if stamp.settled && old.is_some_and(stood_still) => {
                trust::BUSY | trust::TWICE
            }
            Writers::MaybeSome => trust::BUSY,
        }
    }

    /// Whether both stand for the same entry.
    pub fn same_entry(&self, other: &Self) -> bool {
        (self.kind, self.mode, self.uid, self.gid, self.mtime_ns)
            == (other.kind, other.mode, other.uid, other.gid, other.mtime_ns)
            && (self.kind != Kind::File || self.size == other.size)
            && self.content == other.content
            && self.extra == other.extra
            && self.hardlink == other.hardlink
    }
}

/// Digest of what an entry has beyond a plain file's metadata; `None` where it has nothing more.
pub fn extra_of(entry: &Entry) -> Result<Option<[u8; 16]>, holdfast_format::FormatError> {
    if entry.xattrs.is_empty() && entry.target.is_empty() && entry.rdev == 0 {
        return Ok(None);
    }
    let bare = Entry {
        kind: entry.kind,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime_ns: 0,
        size: 0,
        xattrs: entry.xattrs.clone(),
        target: entry.target.clone(),
        rdev: entry.rdev,
        content: Content::Empty,
        hardlink: None,
    };
    Ok(Some(cut(blake3::hash(&encode_entry(&bare)?))))
}

/// Digest of the path that an entry names as its hard link.
pub fn hardlink_of(path: Option<&RelPath>) -> Option<[u8; 16]> {
    path.map(|path| cut(blake3::hash(path.as_bytes())))
}

fn cut(hash: blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: ContentDigest = ContentDigest([7; 16]);

    fn stamp(ctime_ns: i64, settled: bool) -> Stamp {
        let stat = StatKey {
            size: 5,
            mtime_ns: 1,
            ctime_ns,
            ino: 3,
            mode: 0o644 | type_bits(Kind::File),
            uid: 0,
            gid: 0,
        };
        Stamp {
            stat,
            racy: false,
            inconsistent: false,
            settled,
        }
    }

    fn record(of: &Stamp, bits: u8) -> Record {
        let stat = &of.stat;
        Record {
            kind: Kind::File,
            mode: 0o644,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            ino: stat.ino,
            trust: trust::STAMPED | bits,
            content: Some(DIGEST),
            extra: None,
            hardlink: None,
        }
    }

    #[test]
    fn a_second_read_that_finds_the_same_under_old_times_ends_the_doubt_of_walks() {
        let now = stamp(2, true);
        let before = record(&now, trust::BUSY);
        let bits = Record::busy_bits;
        let busy = Writers::MaybeSome;
        assert_eq!(bits(Some(&before), Writers::None, &now, DIGEST), 0);
        assert_eq!(bits(None, busy, &now, DIGEST), trust::BUSY);
        let twice = trust::BUSY | trust::TWICE;
        assert_eq!(bits(Some(&before), busy, &now, DIGEST), twice);
        // Other bytes, other times, or times that are young.
        let other = ContentDigest([8; 16]);
        assert_eq!(bits(Some(&before), busy, &now, other), trust::BUSY);
        let later = stamp(3, true);
        assert_eq!(bits(Some(&before), busy, &later, DIGEST), trust::BUSY);
        let young = stamp(2, false);
        assert_eq!(bits(Some(&before), busy, &young, DIGEST), trust::BUSY);
    }

    #[test]
    fn what_was_read_while_it_was_written_is_read_when_something_is_told_of_it() {
        let doubted = |bits| {
            let record = record(&stamp(2, true), bits);
            [Looks::ByEvents, Looks::AtEverything].map(|looks| record.may_be_in_flight(looks))
        };
        assert_eq!(doubted(0), [false, false]);
        assert_eq!(doubted(trust::BUSY), [true, true]);
        assert_eq!(doubted(trust::BUSY | trust::TWICE), [true, false]);
    }
}
