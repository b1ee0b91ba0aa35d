//! Messages of the wire turned into types of the format and back: the only validator of messages.
//!
//! What comes out has obeyed every rule that can be checked without the store. Whoever sends messages
//! may lie about anything; nothing is allocated for a count that is not there.

use crate::chunker::{MAX_CHUNK_BYTES, PROFILES};
use crate::codec::{MAX_DETAIL_BYTES, MAX_REASON_BYTES};
use crate::entry::Problem;
use crate::error::{FormatError, check_limit};
use crate::frame::{Codec, Frame, FrameItem, MAX_FRAME_ITEMS};
use crate::id::{ChunkId, NodeId, SessionId, SnapshotId, VolumeId};
use crate::path::RelPath;
use crate::signals::Signals;
use crate::snapshot::{MAX_FACT_BYTES, MAX_FIRST_PROBLEMS, Snapshot};
use crate::stats::Stats;
use crate::volume::VolumeFacts;
use bytes::Bytes;
use holdfast_proto::v1 as proto;

mod entry;
mod outgoing;
mod signals;

pub use entry::{
    ContentChecker, Limits, MAX_WIRE_EXTENTS, Sender, WireChange, WireContent, WirePart,
    change_from_wire, part_from_wire, put_from_wire,
};
pub use outgoing::{
    entry_to_wire, extents_to_wire, listed_to_wire, long_entry_to_wire, more_to_wire, put_to_wire,
};
pub use signals::{Acknowledgement, signals_from_wire, signals_to_wire};

/// Most changes of one message.
pub const MAX_CHANGES: usize = 1000;
/// Most ids of one FindMissing.
pub const MAX_ASKED_CHUNKS: usize = 8192;
/// Most ids of one Fetch.
pub const MAX_FETCHED_CHUNKS: usize = 65_536;

/// Request header that names the open session a call belongs to, so that it is known before its messages.
pub const SESSION_HEADER: &str = "holdfast-session";

/// The value of [`SESSION_HEADER`]: the session's id in hexadecimal, `/`, its lease epoch.
pub fn session_to_header(session: &[u8], epoch: u64) -> String {
    format!("{}/{epoch}", crate::id::hex(session))
}

/// The session and the epoch in a [`SESSION_HEADER`].
pub fn session_from_header(value: &[u8]) -> Result<(SessionId, u64), FormatError> {
    let wrong = || wrong("session header", "must be the session's id / its epoch");
    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (id, epoch) = text.split_once('/').ok_or_else(wrong)?;
    Ok((id.parse()?, epoch.parse().map_err(|_| wrong())?))
}

fn wrong(what: &'static str, rule: &'static str) -> FormatError {
    FormatError::Decode {
        what,
        rule,
        offset: 0,
    }
}

/// The id in a field; the error names the type of id.
pub fn id_from_wire<T>(bytes: &[u8]) -> Result<T, FormatError>
where
    T: for<'a> TryFrom<&'a [u8], Error = FormatError>,
{
    T::try_from(bytes)
}

/// The id in a field that may be empty.
pub fn optional_id_from_wire<T>(bytes: &[u8]) -> Result<Option<T>, FormatError>
where
    T: for<'a> TryFrom<&'a [u8], Error = FormatError>,
{
    if bytes.is_empty() {
        return Ok(None);
    }
    T::try_from(bytes).map(Some)
}

/// The chunk ids of a request, at most `limit`.
pub fn chunk_ids_from_wire(ids: &[Bytes], limit: usize) -> Result<Vec<ChunkId>, FormatError> {
    check_limit("chunk ids of a request", ids.len(), limit)?;
    ids.iter().map(|id| id_from_wire(id)).collect()
}

impl TryFrom<proto::Frame> for Frame {
    type Error = FormatError;
    fn try_from(message: proto::Frame) -> Result<Self, FormatError> {
        check_limit("items of a frame", message.chunks.len(), MAX_FRAME_ITEMS)?;
        let codec = match message.codec() {
            proto::Codec::Raw => Codec::Raw,
            proto::Codec::Zstd => Codec::Zstd,
            proto::Codec::Unspecified => return Err(wrong("frame", "codec is not known")),
        };
        let item = |chunk: &proto::FrameChunk| {
            let id = id_from_wire::<ChunkId>(&chunk.id)?.into_bytes();
            if chunk.length > MAX_CHUNK_BYTES {
                check_limit(
                    "chunk length",
                    chunk.length as usize,
                    MAX_CHUNK_BYTES as usize,
                )?;
            }
            Ok(FrameItem {
                id,
                length: chunk.length,
            })
        };
        let frame = Self {
            codec,
            plain_length: message.plain_length,
            items: message.chunks.iter().map(item).collect::<Result<_, _>>()?,
            payload: message.payload,
        };
        frame.validate()?;
        Ok(frame)
    }
}

impl From<Frame> for proto::Frame {
    fn from(frame: Frame) -> Self {
        let codec = match frame.codec {
            Codec::Raw => proto::Codec::Raw,
            Codec::Zstd => proto::Codec::Zstd,
        };
        // The ids lie in one buffer that all share: one allocation for a frame of thousands.
        let ids: Vec<u8> = frame.items.iter().flat_map(|item| item.id).collect();
        let ids = Bytes::from(ids);
        let chunk = |(index, item): (usize, &FrameItem)| proto::FrameChunk {
            id: ids.slice(index * 32..index * 32 + 32),
            length: item.length,
        };
        Self {
            codec: codec.into(),
            plain_length: frame.plain_length,
            chunks: frame.items.iter().enumerate().map(chunk).collect(),
            payload: frame.payload,
        }
    }
}

impl From<proto::Stats> for Stats {
    fn from(message: proto::Stats) -> Self {
        Self {
            files: message.files,
            directories: message.directories,
            others: message.others,
            content_bytes: message.content_bytes,
            files_read: message.files_read,
            read_bytes: message.read_bytes,
            entries_changed: message.entries_changed,
            new_chunks: message.new_chunks,
            new_chunk_bytes: message.new_chunk_bytes,
            stored_bytes: message.stored_bytes,
            reread_unchanged_bytes: message.reread_unchanged_bytes,
            problems: message.problems,
            wire_bytes: message.wire_bytes,
        }
    }
}

impl From<Stats> for proto::Stats {
    fn from(stats: Stats) -> Self {
        Self {
            files: stats.files,
            directories: stats.directories,
            others: stats.others,
            content_bytes: stats.content_bytes,
            files_read: stats.files_read,
            read_bytes: stats.read_bytes,
            entries_changed: stats.entries_changed,
            new_chunks: stats.new_chunks,
            new_chunk_bytes: stats.new_chunk_bytes,
            stored_bytes: stats.stored_bytes,
            reread_unchanged_bytes: stats.reread_unchanged_bytes,
            problems: stats.problems,
            wire_bytes: stats.wire_bytes,
        }
    }
}

/// A problem with its path. Texts that are too long are cut, not refused: losing the run because of
/// the words of one file's problem would be worse.
pub fn problem_from_wire(message: proto::Problem) -> Result<(RelPath, Problem), FormatError> {
    let path = RelPath::new(message.path)?;
    let reason = &message.reason;
    let word = reason.starts_with(|c: char| c.is_ascii_uppercase())
        && reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !word || reason.len() > MAX_REASON_BYTES {
        return Err(wrong("problem", "reason is not one UpperCamelCase word"));
    }
    let mut detail = message.detail;
    detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
    let problem = Problem {
        reason: message.reason,
        detail,
        errno: message.errno,
        carried_over: message.carried_over,
        since_ns: message.since_ns,
    };
    Ok((path, problem))
}

/// The message of a problem.
pub fn problem_to_wire(path: &RelPath, problem: &Problem) -> proto::Problem {
    proto::Problem {
        path: Bytes::copy_from_slice(path.as_bytes()),
        reason: problem.reason.clone(),
        detail: problem.detail.clone(),
        errno: problem.errno,
        carried_over: problem.carried_over,
        since_ns: problem.since_ns,
    }
}

impl TryFrom<proto::VolumeFacts> for VolumeFacts {
    type Error = FormatError;
    fn try_from(message: proto::VolumeFacts) -> Result<Self, FormatError> {
        let facts = Self {
            name: message.name.parse()?,
            node: message.node,
            source: message.source,
            namespace: message.namespace,
            persistentvolumeclaim: message.persistentvolumeclaim,
            pvc_uid: message.pvc_uid,
            volume_handle: message.volume_handle,
            pod: message.pod,
            pod_uid: message.pod_uid,
            plugin: message.plugin,
            filesystem: message.filesystem,
            source_identity: message.source_identity,
        };
        for text in facts.texts() {
            check_limit("text of volume facts", text.len(), MAX_FACT_BYTES)?;
            if text.chars().any(char::is_control) {
                return Err(wrong("volume facts", "control character in a text"));
            }
        }
        Ok(facts)
    }
}

impl From<VolumeFacts> for proto::VolumeFacts {
    fn from(facts: VolumeFacts) -> Self {
        Self {
            name: facts.name.to_string(),
            node: facts.node,
            source: facts.source,
            namespace: facts.namespace,
            persistentvolumeclaim: facts.persistentvolumeclaim,
            pvc_uid: facts.pvc_uid,
            volume_handle: facts.volume_handle,
            pod: facts.pod,
            pod_uid: facts.pod_uid,
            plugin: facts.plugin,
            filesystem: facts.filesystem,
            source_identity: facts.source_identity,
        }
    }
}

/// What the wire tells of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// The volume.
    pub volume: VolumeId,
    /// What was known of the volume.
    pub facts: VolumeFacts,
    /// Number within the volume.
    pub sequence: u64,
    /// Start of the run, nanoseconds since the epoch, agent's clock.
    pub started_ns: i64,
    /// Commit, nanoseconds since the epoch, coordinator's clock.
    pub received_ns: i64,
    /// The snapshot it was made against.
    pub parent: Option<SnapshotId>,
    /// Root of the entries tree.
    pub root: NodeId,
    /// Counters of the run.
    pub stats: Stats,
    /// Problems in all.
    pub problems: u64,
    /// The first of them.
    pub first_problems: Vec<(RelPath, Problem)>,
    /// Root of the problems tree.
    pub problems_root: Option<NodeId>,
    /// How it differs from the snapshot before.
    pub signals: Option<Signals>,
    /// Who has taken it as it is, if it is suspicious. No part of the record: a mark says so.
    pub acknowledged: Option<Acknowledgement>,
}

impl SnapshotInfo {
    /// What the wire tells of this record.
    pub fn of(id: SnapshotId, snapshot: &Snapshot) -> Self {
        Self {
            id,
            volume: snapshot.volume,
            facts: snapshot.facts.clone(),
            sequence: snapshot.sequence,
            started_ns: snapshot.started_ns,
            received_ns: snapshot.received_ns,
            parent: snapshot.parent,
            root: snapshot.entries_root,
            stats: snapshot.stats,
            problems: snapshot.problem_count,
            first_problems: snapshot.first_problems.clone(),
            problems_root: snapshot.problems_root,
            signals: snapshot.signals.clone(),
            acknowledged: None,
        }
    }
}

impl TryFrom<proto::SnapshotInfo> for SnapshotInfo {
    type Error = FormatError;
    fn try_from(message: proto::SnapshotInfo) -> Result<Self, FormatError> {
        let listed = message.first_problems.len();
        check_limit("problems of a snapshot", listed, MAX_FIRST_PROBLEMS)?;
        let facts = message.facts.ok_or_else(|| wrong("snapshot", "no facts"))?;
        let first = message.first_problems.into_iter().map(problem_from_wire);
        Ok(Self {
            id: id_from_wire(&message.id)?,
            volume: id_from_wire(&message.volume)?,
            facts: facts.try_into()?,
            sequence: message.sequence,
            started_ns: message.started_ns,
            received_ns: message.received_ns,
            parent: optional_id_from_wire(&message.parent)?,
            root: id_from_wire(&message.root)?,
            stats: message.stats.unwrap_or_default().into(),
            problems: message.problems,
            first_problems: first.collect::<Result<_, _>>()?,
            problems_root: optional_id_from_wire(&message.problems_root)?,
            signals: message.signals.map(|counts| {
                let judged = (message.score, &message.reasons[..], message.suspicious);
                signals::judged_from_wire(counts, judged)
            }),
            acknowledged: message.acknowledged.map(Into::into),
        })
    }
}

impl From<SnapshotInfo> for proto::SnapshotInfo {
    fn from(info: SnapshotInfo) -> Self {
        let problem = |(path, problem): &(RelPath, Problem)| problem_to_wire(path, problem);
        let judged = info.signals.as_ref();
        let reasons = judged.map_or(&[][..], |signals| &signals.reasons);
        Self {
            id: id_to_wire(info.id.as_bytes()),
            volume: id_to_wire(info.volume.as_bytes()),
            facts: Some(info.facts.into()),
            sequence: info.sequence,
            started_ns: info.started_ns,
            received_ns: info.received_ns,
            parent: info
                .parent
                .map_or_else(Bytes::new, |id| id_to_wire(id.as_bytes())),
            root: id_to_wire(info.root.as_bytes()),
            stats: Some(info.stats.into()),
            problems: info.problems,
            first_problems: info.first_problems.iter().map(problem).collect(),
            problems_root: info
                .problems_root
                .map_or_else(Bytes::new, |id| id_to_wire(id.as_bytes())),
            score: judged.map_or(0, |signals| u32::from(signals.score)),
            reasons: reasons.iter().map(|r| r.as_str().to_owned()).collect(),
            suspicious: judged.is_some_and(|signals| signals.suspicious),
            signals: judged.map(signals_to_wire),
            acknowledged: info.acknowledged.map(Into::into),
        }
    }
}

/// The field of an id.
pub fn id_to_wire(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Whether the format knows a profile of this number.
pub(crate) fn is_profile(number: u32) -> bool {
    PROFILES
        .iter()
        .any(|profile| u32::from(profile.number) == number)
}

#[cfg(test)]
mod tests;
