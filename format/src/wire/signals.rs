//! How a volume changed, as messages tell it: counts are taken as they are, words only where they are known.
//!
//! A run is not lost for a word of a newer agent, and no word of a stranger reaches a record.

use crate::signals::{Anomaly, MAX_SCORE, Mode, SignalCounts, Signals, is_walk_reason};
use holdfast_proto::v1 as proto;

/// Who has taken a suspicious snapshot as it is, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledgement {
    /// When, nanoseconds since the epoch, coordinator's clock.
    pub time_ns: i64,
    /// Who, for people; may be empty.
    pub actor: String,
}

impl From<proto::Acknowledgement> for Acknowledgement {
    fn from(message: proto::Acknowledgement) -> Self {
        Self {
            time_ns: message.time_ns,
            actor: message.actor,
        }
    }
}

impl From<Acknowledgement> for proto::Acknowledgement {
    fn from(known: Acknowledgement) -> Self {
        Self {
            time_ns: known.time_ns,
            actor: known.actor,
        }
    }
}

/// What an agent counted, not judged by anybody yet.
pub fn signals_from_wire(message: proto::Signals) -> Signals {
    let mode = Mode::from_word(&message.mode).unwrap_or_default();
    let told = mode == Mode::Walk && is_walk_reason(&message.reason);
    Signals {
        counts: SignalCounts {
            added_files: message.added_files,
            removed_files: message.removed_files,
            rewritten_files: message.rewritten_files,
            renamed_files: message.renamed_files,
            parent_files: message.parent_files,
            parent_bytes: message.parent_bytes,
            removed_bytes: message.removed_bytes,
            rewritten_plain_bytes: message.rewritten_plain_bytes,
            rewritten_packed_bytes: message.rewritten_packed_bytes,
            parent_entries: message.parent_entries,
            entries: message.entries,
            removed_entries: message.removed_entries,
            baseline_plain_bytes: message.baseline_plain_bytes,
            baseline_packed_bytes: message.baseline_packed_bytes,
        },
        mode,
        walk_reason: if told { message.reason } else { String::new() },
        ..Signals::default()
    }
}

/// The same with what a coordinator made of it: score, reasons, whether it is suspicious. A reason that
/// only a newer coordinator knows is left out.
pub(super) fn judged_from_wire(
    counts: proto::Signals,
    (score, reasons, suspicious): (u32, &[String], bool),
) -> Signals {
    Signals {
        score: u8::try_from(score).unwrap_or(MAX_SCORE).min(MAX_SCORE),
        reasons: reasons
            .iter()
            .filter_map(|r| Anomaly::from_word(r))
            .collect(),
        suspicious,
        ..signals_from_wire(counts)
    }
}

/// The message of the counts.
pub fn signals_to_wire(signals: &Signals) -> proto::Signals {
    let counts = &signals.counts;
    proto::Signals {
        added_files: counts.added_files,
        removed_files: counts.removed_files,
        rewritten_files: counts.rewritten_files,
        renamed_files: counts.renamed_files,
        parent_files: counts.parent_files,
        parent_bytes: counts.parent_bytes,
        removed_bytes: counts.removed_bytes,
        rewritten_plain_bytes: counts.rewritten_plain_bytes,
        rewritten_packed_bytes: counts.rewritten_packed_bytes,
        mode: signals.mode.as_str().to_owned(),
        reason: signals.walk_reason.clone(),
        parent_entries: counts.parent_entries,
        entries: counts.entries,
        removed_entries: counts.removed_entries,
        baseline_plain_bytes: counts.baseline_plain_bytes,
        baseline_packed_bytes: counts.baseline_packed_bytes,
    }
}
