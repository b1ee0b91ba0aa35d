//! Snapshot records: the small sealed object that makes a volume's tree visible. Written last.
//!
//! A record is sealed with a master of its domain generation; its id is BLAKE3 of the stored bytes. One that
//! carries signals is an object of another kind, so that a reader that does not know them refuses it by name.

use crate::codec::{put_problem, read_problem};
use crate::coding::{Reader, put_bytes, put_varint};
use crate::entry::Problem;
use crate::error::FormatError;
use crate::id::{DomainId, IdempotencyKey, NodeId, SnapshotId, VolumeId};
use crate::path::{MAX_PATH_BYTES, RelPath};
use crate::seal::ObjectKind;
use crate::signals::Signals;
use crate::stats::Stats;
use crate::volume::VolumeFacts;

/// Most problems that a record lists; all are in the problems tree.
pub const MAX_FIRST_PROBLEMS: usize = 100;
/// Longest text of volume facts, in bytes.
pub const MAX_FACT_BYTES: usize = 4096;

/// Complete state of a volume at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The volume.
    pub volume: VolumeId,
    /// The dedup domain that all its nodes and chunks lie in.
    pub domain: DomainId,
    /// The domain's generation.
    pub generation: u32,
    /// Root of the entries tree.
    pub entries_root: NodeId,
    /// Root of the problems tree; `None` without problems.
    pub problems_root: Option<NodeId>,
    /// The snapshot that this one was made against.
    pub parent: Option<SnapshotId>,
    /// Number within the volume, rising.
    pub sequence: u64,
    /// Start of the run by the agent's clock, nanoseconds since the epoch.
    pub started_ns: i64,
    /// Commit by the coordinator's clock, nanoseconds since the epoch.
    pub received_ns: i64,
    /// The run's idempotency key.
    pub run: IdempotencyKey,
    /// What was known of the volume.
    pub facts: VolumeFacts,
    /// Counters of the run.
    pub stats: Stats,
    /// Problems in the problems tree.
    pub problem_count: u64,
    /// The first of them, in key order, at most `MAX_FIRST_PROBLEMS`.
    pub first_problems: Vec<(RelPath, Problem)>,
    /// How it differs from the snapshot before; `None`: nobody counted it.
    pub signals: Option<Signals>,
}

impl Snapshot {
    /// The id of a record with these stored bytes.
    pub fn id_of(stored: &[u8]) -> SnapshotId {
        SnapshotId::from_bytes(blake3::hash(stored).into())
    }

    /// The kind of object that it is sealed as.
    pub fn kind(&self) -> ObjectKind {
        match self.signals {
            None => ObjectKind::Snapshot,
            Some(_) => ObjectKind::SignalledSnapshot,
        }
    }

    /// Whether it and what is older is kept until somebody has acknowledged it.
    pub fn is_suspicious(&self) -> bool {
        self.signals
            .as_ref()
            .is_some_and(|signals| signals.suspicious)
    }

    /// The plain bytes of the record; sealed by `seal_object` with its `kind`.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check().map_err(|rule| FormatError::Decode {
            what: "snapshot record",
            rule,
            offset: 0,
        })?;
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(self.volume.as_bytes());
        out.extend_from_slice(self.domain.as_bytes());
        put_varint(&mut out, u64::from(self.generation));
        out.extend_from_slice(self.entries_root.as_bytes());
        put_optional(&mut out, self.problems_root.as_ref().map(NodeId::as_bytes));
        put_optional(&mut out, self.parent.as_ref().map(SnapshotId::as_bytes));
        put_varint(&mut out, self.sequence);
        out.extend_from_slice(&self.started_ns.to_le_bytes());
        out.extend_from_slice(&self.received_ns.to_le_bytes());
        out.extend_from_slice(self.run.as_bytes());
        put_facts(&mut out, &self.facts)?;
        self.stats.encode(&mut out);
        put_varint(&mut out, self.problem_count);
        put_varint(&mut out, self.first_problems.len() as u64);
        for (path, problem) in &self.first_problems {
            put_bytes(&mut out, path.as_bytes());
            put_problem(&mut out, problem)?;
        }
        if let Some(signals) = &self.signals {
            signals.encode(&mut out);
        }
        Ok(out)
    }

    /// The record with these plain bytes, of either kind. Whoever opened an object compares its kind with
    /// the record's.
    pub fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("snapshot record", plain);
        let mut snapshot = Self {
            volume: VolumeId::from_bytes(reader.array()?),
            domain: DomainId::from_bytes(reader.array()?),
            generation: reader.varint32()?,
            entries_root: NodeId::from_bytes(reader.array()?),
            problems_root: read_optional(&mut reader)?.map(NodeId::from_bytes),
            parent: read_optional(&mut reader)?.map(SnapshotId::from_bytes),
            sequence: reader.varint()?,
            started_ns: reader.i64()?,
            received_ns: reader.i64()?,
            run: IdempotencyKey::from_bytes(reader.array()?),
            facts: read_facts(&mut reader)?,
            stats: Stats::decode(&mut reader)?,
            problem_count: reader.varint()?,
            first_problems: Vec::new(),
            signals: None,
        };
        for _ in 0..reader.count("problems of a record", MAX_FIRST_PROBLEMS)? {
            let path = RelPath::new(reader.bytes("path", MAX_PATH_BYTES)?)?;
            let problem = read_problem(&mut reader)?;
            snapshot.first_problems.push((path, problem));
        }
        if reader.remaining() > 0 {
            snapshot.signals = Some(Signals::decode(&mut reader)?);
        }
        if let Err(rule) = snapshot.check() {
            return Err(reader.wrong(rule));
        }
        reader.finish()?;
        Ok(snapshot)
    }

    fn check(&self) -> Result<(), &'static str> {
        let listed = self.first_problems.len();
        if listed as u64 != self.problem_count.min(MAX_FIRST_PROBLEMS as u64) {
            return Err("the first problems are not as many as they should be");
        }
        if self.problems_root.is_some() != (self.problem_count > 0) {
            return Err("problems without a tree of them, or the reverse");
        }
        let sorted = |pair: &[(RelPath, Problem)]| pair[0].0 < pair[1].0;
        if !self.first_problems.windows(2).all(sorted) {
            return Err("the first problems are not in key order");
        }
        self.signals.as_ref().map_or(Ok(()), Signals::check)
    }
}

fn put_optional(out: &mut Vec<u8>, id: Option<&[u8; 32]>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        out.extend_from_slice(id);
    }
}

fn read_optional(reader: &mut Reader<'_>) -> Result<Option<[u8; 32]>, FormatError> {
    match reader.flag()? {
        true => reader.array().map(Some),
        false => Ok(None),
    }
}

/// Appends the name and the texts of facts.
pub(crate) fn put_facts(out: &mut Vec<u8>, facts: &VolumeFacts) -> Result<(), FormatError> {
    put_bytes(out, facts.name.as_str().as_bytes());
    for text in facts.texts() {
        check_text(text)?;
        put_bytes(out, text.as_bytes());
    }
    Ok(())
}

/// Reads what `put_facts` appended.
pub(crate) fn read_facts(reader: &mut Reader<'_>) -> Result<VolumeFacts, FormatError> {
    let mut facts = VolumeFacts::named(reader.text("volume name", 253)?.parse()?);
    for text in facts.texts_mut() {
        *text = reader.text("text of volume facts", MAX_FACT_BYTES)?;
    }
    Ok(facts)
}

pub(crate) fn check_text(text: &str) -> Result<(), FormatError> {
    if text.len() > MAX_FACT_BYTES {
        return Err(FormatError::Limit {
            what: "text of volume facts",
            found: text.len() as u64,
            limit: MAX_FACT_BYTES as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Anomaly;

    fn problem() -> Problem {
        Problem {
            reason: "PermissionDenied".to_owned(),
            detail: "open: permission denied".to_owned(),
            errno: 13,
            carried_over: true,
            since_ns: 5,
        }
    }

    fn snapshot(problems: u64) -> Snapshot {
        let mut facts = VolumeFacts::named("web".parse().unwrap());
        facts.source = "/srv/web".to_owned();
        let path = |index: u64| RelPath::new(format!("f{index:04}")).unwrap();
        Snapshot {
            volume: VolumeId::from_bytes([1; 16]),
            domain: DomainId::from_bytes([2; 16]),
            generation: 3,
            entries_root: NodeId::from_bytes([4; 32]),
            problems_root: (problems > 0).then(|| NodeId::from_bytes([5; 32])),
            parent: (problems > 1).then(|| SnapshotId::from_bytes([6; 32])),
            sequence: 7,
            started_ns: -8,
            received_ns: 9,
            run: IdempotencyKey::from_bytes([10; 16]),
            facts,
            stats: Stats {
                files: 11,
                ..Stats::default()
            },
            problem_count: problems,
            first_problems: (0..problems.min(100))
                .map(|i| (path(i), problem()))
                .collect(),
            signals: None,
        }
    }

    fn signals() -> Signals {
        Signals {
            score: 80,
            reasons: vec![Anomaly::MassDeletion],
            suspicious: true,
            ..Signals::default()
        }
    }

    #[test]
    fn records_round_trip_and_refuse_every_other_length() {
        for problems in [0, 1, 2, 100, 1000] {
            let snapshot = snapshot(problems);
            let bytes = snapshot.encode().unwrap();
            assert_eq!(Snapshot::decode(&bytes).unwrap(), snapshot);
            assert!(Snapshot::decode(&[&bytes[..], &[0]].concat()).is_err());
            for length in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
                assert!(Snapshot::decode(&bytes[..length]).is_err());
            }
        }
    }

    #[test]
    fn signals_follow_the_record_and_make_it_another_kind() {
        for problems in [0, 2] {
            let plain = snapshot(problems);
            let before = plain.encode().unwrap();
            let signalled = Snapshot {
                signals: Some(signals()),
                ..plain.clone()
            };
            let bytes = signalled.encode().unwrap();
            assert!(bytes.starts_with(&before));
            assert_eq!(Snapshot::decode(&bytes).unwrap(), signalled);
            assert!(Snapshot::decode(&[&bytes[..], &[0]].concat()).is_err());
            for length in before.len() + 1..bytes.len() {
                assert!(Snapshot::decode(&bytes[..length]).is_err(), "{length}");
            }
            assert_eq!(plain.kind(), ObjectKind::Snapshot);
            assert_eq!(signalled.kind(), ObjectKind::SignalledSnapshot);
            assert!(signalled.is_suspicious() && !plain.is_suspicious());
        }
    }

    #[test]
    fn a_record_that_contradicts_itself_is_neither_written_nor_read() {
        let changes: [fn(&mut Snapshot); 6] = [
            |snapshot| snapshot.problem_count += 1,
            |snapshot| snapshot.problems_root = None,
            |snapshot| snapshot.first_problems.swap(0, 1),
            |snapshot| snapshot.first_problems[1].0 = snapshot.first_problems[0].0.clone(),
            |snapshot| snapshot.facts.pod = "x".repeat(MAX_FACT_BYTES + 1),
            |snapshot| {
                snapshot.signals = Some(Signals {
                    score: 0,
                    ..signals()
                })
            },
        ];
        for change in changes {
            let mut snapshot = snapshot(2);
            change(&mut snapshot);
            assert!(snapshot.encode().is_err());
        }
    }
}
