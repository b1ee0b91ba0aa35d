//! What goes into the catalog and comes out of it: values, no SQL. Times are nanoseconds since 1970 UTC.

use crate::catalog::error::{Result, bad_row};
use bytes::Bytes;
use holdfast_format::FormatError;
use holdfast_format::frame::Codec;
use holdfast_format::id::{
    DomainId, IdempotencyKey, MarkId, NodeId, PackId, SessionId, SnapshotId, VolumeId,
};
use holdfast_format::mark::{Mark, MarkRecord};
use holdfast_format::seal::{Header, KeyRef, ObjectKind};
use holdfast_format::snapshot::Snapshot;
use holdfast_format::volume::VolumeFacts;
use std::fmt;
use std::time::Duration;

/// The catalog's own number of a volume; means nothing outside this catalog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VolumeNo(pub(super) i64);

/// The catalog's own number of a pack; means nothing outside this catalog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackNo(pub(super) i64);

impl PackNo {
    /// The number, dense from 1: an index for bitmaps.
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }
}

/// Number of the newest prune. What is stamped with it cannot be condemned by that prune.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PruneNumber(pub(super) i64);

/// A volume to bind: its random id and the facts that people know it by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeRow {
    /// Its id.
    pub id: VolumeId,
    /// Its dedup domain.
    pub domain: DomainId,
    /// Its facts, newest known.
    pub facts: VolumeFacts,
    /// When they were stated.
    pub bound_ns: i64,
}

/// A volume of the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Its number here.
    pub no: VolumeNo,
    /// Its id.
    pub id: VolumeId,
    /// Its dedup domain.
    pub domain: DomainId,
    /// Its facts, newest known.
    pub facts: VolumeFacts,
    /// When they were stated.
    pub bound_ns: i64,
    /// Highest snapshot sequence given out.
    pub last_sequence: u64,
    /// Losses that its newest snapshot was proven against.
    pub losses_seen: u64,
}

/// One generation of a dedup domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainRow {
    /// The domain.
    pub id: DomainId,
    /// Its generation.
    pub generation: u32,
    /// The namespace it is for.
    pub namespace: String,
    /// When that was stated.
    pub bound_ns: i64,
}

/// A stored pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackRow {
    /// Its id.
    pub id: PackId,
    /// One of the pack kinds.
    pub kind: ObjectKind,
    /// Domain whose master seals it.
    pub domain: DomainId,
    /// Generation of the domain.
    pub generation: u32,
    /// Number of the master.
    pub master: u32,
    /// Its salt.
    pub salt: [u8; 32],
    /// Stored bytes.
    pub size: u64,
    /// When it was received: what is younger than the grace is not condemned.
    pub received_ns: i64,
}

impl PackRow {
    /// The row of a pack with this header; `None` where the header is not that of a pack.
    pub fn of(id: PackId, header: &Header, size: u64, received_ns: i64) -> Option<Self> {
        match header.key {
            KeyRef::Domain {
                domain,
                generation,
                master,
            } if header.kind.is_pack() => Some(Self {
                id,
                kind: header.kind,
                domain,
                generation,
                master,
                salt: header.salt,
                size,
                received_ns,
            }),
            _ => None,
        }
    }

    /// Its clear header.
    pub fn header(&self) -> Header {
        Header {
            kind: self.kind,
            key: KeyRef::Domain {
                domain: self.domain,
                generation: self.generation,
                master: self.master,
            },
            salt: self.salt,
        }
    }
}

/// What may be done with a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum PackState {
    /// In use.
    Live = 0,
    /// Nothing referred to it; lookups treat it as absent; a reserve revives it.
    Condemned = 1,
    /// Its deletion record is durable; it cannot come back.
    Deleting = 2,
    /// Deleted. The row stays, so that a left-over object is not adopted.
    Gone = 3,
    /// The catalog knows it, the store does not list it: damage. Treated as absent, so that its chunks
    /// are uploaded again; live again once the store lists it.
    Missing = 4,
}

impl PackState {
    pub(super) fn from_number(number: i64) -> Result<Self> {
        Ok(match number {
            0 => Self::Live,
            1 => Self::Condemned,
            2 => Self::Deleting,
            3 => Self::Gone,
            4 => Self::Missing,
            _ => return Err(bad_row(format!("pack state {number}"))),
        })
    }
}

impl fmt::Display for PackState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Condemned => "condemned",
            Self::Deleting => "being deleted",
            Self::Gone => "deleted",
            Self::Missing => "missing in the store",
        })
    }
}

/// A pack as the catalog knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackInfo {
    /// Its number here.
    pub no: PackNo,
    /// Its state.
    pub state: PackState,
    /// Its facts.
    pub pack: PackRow,
    /// Chunks in it.
    pub chunk_count: u64,
    /// Tree and list nodes in it.
    pub node_count: u64,
}

/// Where the bytes of a chunk or node lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// Its pack.
    pub pack: PackId,
    /// The pack's number here.
    pub pack_no: PackNo,
    /// The pack's clear header: with the repository and the named master it opens the frame.
    pub header: Header,
    /// The pack's stored bytes.
    pub pack_size: u64,
    /// The frame.
    pub frame_no: u32,
    /// The frame's offset in the pack, in bytes.
    pub offset: u64,
    /// The frame's bytes as stored.
    pub stored_length: u32,
    /// How the frame's payload is coded.
    pub codec: Codec,
    /// The frame's plain bytes.
    pub plain_length: u32,
    /// Offset of the item in the frame's plain bytes.
    pub item_offset: u32,
    /// The item's plain bytes.
    pub item_length: u32,
}

/// What a registration did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registered {
    /// The pack's number.
    pub pack_no: PackNo,
    /// Items that were not known before.
    pub new_count: u64,
    /// Ids that were to be held but are not present: they must be uploaded again.
    pub missing: Vec<[u8; 32]>,
}

/// What opens or resumes a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BeginSession {
    /// A random id for the session if it is a new one.
    pub id: SessionId,
    /// The same for every retry of one run.
    pub key: IdempotencyKey,
    /// The volume.
    pub volume: VolumeNo,
    /// The node that reads it.
    pub node: String,
    /// The parent that the run works against.
    pub parent: Option<SnapshotId>,
    /// How long another run's lease lasts after its last message.
    pub lease: Duration,
    /// The time.
    pub now_ns: i64,
}

/// An open session, or a run that was committed before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    /// The session.
    pub session: SessionId,
    /// Its lease epoch: later calls must name it.
    pub epoch: u64,
    /// Whether it existed before.
    pub resumed: bool,
    /// The run's snapshot, if it was committed; then no session is open.
    pub committed: Option<SnapshotId>,
    /// The run's record that was reserved and not published: put it and publish it, or drop it.
    pub reserved: Option<Reservation>,
    /// Every id that this session was told to be present, or registered, or holds, is stamped with at
    /// least this number. `reserve` needs it.
    pub stamped_since: PruneNumber,
}

/// A snapshot record that is about to be put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// The run.
    pub key: IdempotencyKey,
    /// Its session.
    pub session: SessionId,
    /// Its volume.
    pub volume: VolumeNo,
    /// The record's id.
    pub snapshot: SnapshotId,
    /// The snapshot's sequence.
    pub sequence: u64,
    /// Root of the entries tree.
    pub root: NodeId,
    /// Root of the problems tree.
    pub problems_root: Option<NodeId>,
    /// The record's object name.
    pub object: String,
    /// The record's exact stored bytes.
    pub record: Bytes,
    /// When it was reserved.
    pub reserved_ns: i64,
}

/// A visible snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRow {
    /// Its id.
    pub id: SnapshotId,
    /// Its volume.
    pub volume: VolumeId,
    /// Per volume, monotonic.
    pub sequence: u64,
    /// When the run started, by the agent's clock.
    pub started_ns: i64,
    /// When it was committed, by the coordinator's clock.
    pub received_ns: i64,
    /// Its parent.
    pub parent: Option<SnapshotId>,
    /// Root of the entries tree.
    pub root: NodeId,
    /// Root of the problems tree.
    pub problems_root: Option<NodeId>,
    /// The run that made it.
    pub run_key: IdempotencyKey,
    /// Problems of the run.
    pub problem_count: u64,
    /// Stored bytes of its record.
    pub stored_bytes: u64,
    /// The record, opened: what `format::snapshot` encodes.
    pub record: Bytes,
    /// It and what is older is kept until somebody has acknowledged it.
    pub suspicious: bool,
    /// The first mark that acknowledges it, opened; only of a suspicious one, and only as it is read.
    pub acknowledged: Option<Bytes>,
}

impl SnapshotRow {
    /// The row of a record: with its id and its stored bytes.
    pub fn of(id: SnapshotId, record: &Snapshot, stored_bytes: u64) -> Result<Self, FormatError> {
        Ok(Self {
            id,
            volume: record.volume,
            sequence: record.sequence,
            started_ns: record.started_ns,
            received_ns: record.received_ns,
            parent: record.parent,
            root: record.entries_root,
            problems_root: record.problems_root,
            run_key: record.run,
            problem_count: record.problem_count,
            stored_bytes,
            record: record.encode()?.into(),
            suspicious: record.is_suspicious(),
            acknowledged: None,
        })
    }
}

/// A mark, as indexed here; the object in the store is the truth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkRow {
    /// Its id.
    pub id: MarkId,
    /// Its kind, as the format numbers it.
    pub kind: u8,
    /// When it was made.
    pub time_ns: i64,
    /// The snapshot or mark it is about.
    pub subject: Option<[u8; 32]>,
    /// The mark, opened.
    pub body: Bytes,
}

impl MarkRow {
    /// The row of a mark.
    pub fn of(id: MarkId, record: &MarkRecord) -> Result<Self, FormatError> {
        let (kind, subject) = match &record.mark {
            Mark::Domain { .. } => (Self::DOMAIN, None),
            Mark::Volume { .. } => (Self::VOLUME, None),
            Mark::Pin { snapshot, .. } => (Self::PIN, Some(snapshot.into_bytes())),
            Mark::Hold { snapshot, .. } => (Self::HOLD, Some(snapshot.into_bytes())),
            Mark::Release { mark } => (Self::RELEASE, Some(mark.into_bytes())),
            Mark::Acknowledge { snapshot } => (Self::ACKNOWLEDGE, Some(snapshot.into_bytes())),
        };
        Ok(Self {
            id,
            kind,
            time_ns: record.time_ns,
            subject,
            body: record.encode()?.into(),
        })
    }

    /// A dedup domain exists.
    pub const DOMAIN: u8 = 1;
    /// A volume is bound.
    pub const VOLUME: u8 = 2;
    /// A snapshot is pinned.
    pub const PIN: u8 = 3;
    /// A snapshot is held until a time.
    pub const HOLD: u8 = 4;
    /// A pin or hold is over.
    pub const RELEASE: u8 = 5;
    /// A suspicious snapshot was acknowledged.
    pub const ACKNOWLEDGE: u8 = 6;
}

/// Sums over the catalog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Volumes.
    pub volumes: u64,
    /// Visible snapshots.
    pub snapshots: u64,
    /// Chunks in live packs.
    pub chunks: u64,
    /// Tree and list nodes in live packs.
    pub nodes: u64,
    /// Live packs.
    pub packs: u64,
    /// Their stored bytes.
    pub pack_bytes: u64,
    /// Sessions that were neither committed nor ended.
    pub open_sessions: u64,
}
