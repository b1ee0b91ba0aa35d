//! How unusual a run is: a score with its reasons, and whether its snapshot is suspicious. Pure.
//!
//! Deletions are judged by everything that is known of them, by the agent and by the trees themselves: an
//! agent that counts nothing, or tells what is not so, does not switch the interlock off. What would speak for
//! it (that files have only moved) is taken from the trees alone. Nor is one who deletes in steps missed.

use crate::session::tree_task::Counted;
use holdfast_format::signals::{Anomaly, MAX_SCORE, SignalCounts, Signals};
use holdfast_format::snapshot::Snapshot;
use holdfast_format::stats::Stats;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// From this score on a snapshot is suspicious: a mass deletion alone, or two of the others that do not
/// go together in anybody's day's work.
const SUSPICIOUS_SCORE: u8 = 60;
/// What a mass deletion counts at least; the whole volume gone counts 100.
const DELETION_SCORE: u8 = SUSPICIOUS_SCORE;
/// Encryption does not compress; new media files do not either, and come without rewritten ones.
const INCOMPRESSIBLE_SCORE: u8 = 40;
/// A recursive chmod with a new header, a reformatted source tree: unusual, and harmless alone.
const REWRITE_SCORE: u8 = 30;
/// A directory with many files that moves is a user's right.
const RENAME_SCORE: u8 = 20;

/// Fewer files than this are a user's clean-up, however small the volume.
const MIN_FILES: u64 = 1000;
/// A run that drops more than this share of the files drops most of the volume.
const DROPPED_PERCENT: u64 = 50;
/// Few large files (images, databases) are counted in bytes: this share of them, in percent ...
const DROPPED_BYTES_PERCENT: u64 = 90;
/// ... and at least this much, below which it may be a scratch file.
const MIN_BYTES: u64 = GIB;
/// Share of the files that another content makes a mass rewrite, and another name a mass rename, in percent.
const CHANGED_PERCENT: u64 = 30;
/// Share of the bytes that makes a mass rewrite, in percent; databases rewrite much of themselves daily.
const REWRITTEN_BYTES_PERCENT: u64 = 50;

/// Less says nothing about how well a volume's data compresses: a few photographs.
const MIN_SAMPLE_BYTES: u64 = 16 * MIB;
/// Payload in percent of plain bytes from which data does not compress. Encrypted data gives 100.
const INCOMPRESSIBLE_PERCENT: u64 = 95;
/// Up to this share the volume's data has compressed so far: otherwise there is nothing to collapse.
const COMPRESSIBLE_PERCENT: u64 = 80;
/// Runs before weigh in the baseline as many bytes as the volume has, this many times.
const BASELINE_VOLUMES: u64 = 4;

/// How large a volume was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// Regular files, as agents counted them.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Entries, as the trees say.
    pub entries: u64,
}

impl Size {
    /// The larger of both in each respect.
    pub fn or_more(self, other: Self) -> Self {
        Self {
            files: self.files.max(other.files),
            bytes: self.bytes.max(other.bytes),
            entries: self.entries.max(other.entries),
        }
    }
}

/// The volume's newest snapshot before the run.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Regular files, as its agent counted them.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Entries of its tree, as the tree says.
    pub entries: u64,
    /// Plain bytes of frames up to and with it, and bytes of their payloads.
    pub baseline: (u64, u64),
    /// The run's delta was made against it.
    pub is_parent: bool,
    /// The most that the snapshots of the last days had, so that steps add up; zeros: not known.
    pub most: Size,
}

impl Before {
    /// What the record of the newest snapshot says. `is_taken`: it is not suspicious, or somebody has
    /// taken it as it is.
    pub fn of(record: &Snapshot, entries: u64, is_parent: bool, is_taken: bool) -> Self {
        let stats = &record.stats;
        let baseline = match &record.signals {
            // Whatever its record was made by, this much was new, and became so much.
            None => (stats.new_chunk_bytes, stats.stored_bytes),
            Some(signals) => {
                let counts = &signals.counts;
                let earlier = (counts.baseline_plain_bytes, counts.baseline_packed_bytes);
                // What may be an attacker's work is no measure for the next run.
                match is_taken {
                    false => earlier,
                    true => (
                        earlier.0.saturating_add(counts.rewritten_plain_bytes),
                        earlier.1.saturating_add(counts.rewritten_packed_bytes),
                    ),
                }
            }
        };
        Self {
            files: stats.files,
            bytes: stats.content_bytes,
            entries,
            baseline: bounded(baseline, stats.content_bytes),
            is_parent,
            most: Size::default(),
        }
    }

    /// Whether the run has less of anything: only then can it be the step that makes a mass deletion of those before.
    pub fn loses(&self, stats: &Stats, seen: &Seen) -> bool {
        stats.files < self.files
            || stats.content_bytes < self.bytes
            || seen.counted.entries < self.entries
    }
}

/// How much is gone, of how much. A run that has less is counted with the runs before it.
fn dropped(before: u64, most: u64, now: u64) -> (u64, u64) {
    let of = match now < before {
        true => before.max(most),
        false => before,
    };
    (of.saturating_sub(now), of)
}

/// The baseline with the weight of a few volumes, so that what is newer counts more.
fn bounded((plain, packed): (u64, u64), volume_bytes: u64) -> (u64, u64) {
    let most = volume_bytes
        .max(MIN_SAMPLE_BYTES)
        .saturating_mul(BASELINE_VOLUMES);
    if plain <= most {
        return (plain, packed);
    }
    let scaled = u128::from(packed) * u128::from(most) / u128::from(plain);
    (most, u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// What the coordinator saw of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// In the trees.
    pub counted: Counted,
    /// Plain bytes of frames with chunks that the repository did not hold.
    pub plain_bytes: u64,
    /// Bytes of their payloads.
    pub packed_bytes: u64,
    /// Plain bytes of the chunks that the repository did not hold.
    pub new_bytes: u64,
}

/// The signals of a run's record: the agent's, with what was seen, and judged. `None` where the agent told
/// nothing and nothing is unusual: such a record is as it always was.
pub fn judge(
    before: Option<&Before>,
    told: Option<Signals>,
    stats: &Stats,
    seen: &Seen,
) -> Option<Signals> {
    let is_told = told.is_some();
    let mut signals = told.unwrap_or_default();
    let counts = &mut signals.counts;
    if !is_told && let Some(before) = before {
        counts.parent_files = before.files;
        counts.parent_bytes = before.bytes;
    }
    counts.rewritten_plain_bytes = seen.plain_bytes;
    counts.rewritten_packed_bytes = seen.packed_bytes;
    counts.entries = seen.counted.entries;
    counts.parent_entries = before.map_or(0, |before| before.entries);
    counts.removed_entries = seen.counted.removed;
    let baseline = before.map_or((0, 0), |before| before.baseline);
    (counts.baseline_plain_bytes, counts.baseline_packed_bytes) = baseline;

    let found = before.map_or([None; 4], |before| {
        [
            (Anomaly::MassDeletion, deletion(before, counts, stats, seen)),
            (Anomaly::MassRewrite, rewrite(before, counts, stats, seen)),
            (Anomaly::Incompressible, incompressible(counts)),
            (Anomaly::MassRename, rename(before, counts, seen)),
        ]
        .map(|(anomaly, score)| (score > 0).then_some((anomaly, score)))
    });
    let mut score = 0u8;
    for (anomaly, points) in found.into_iter().flatten() {
        score = score.saturating_add(points).min(MAX_SCORE);
        signals.reasons.push(anomaly);
    }
    signals.score = score;
    signals.suspicious = score >= SUSPICIOUS_SCORE;
    (is_told || score > 0).then_some(signals)
}

/// By the largest share, in percent, of any count of files or entries that says that most is gone, else of bytes.
fn deletion(before: &Before, counts: &SignalCounts, stats: &Stats, seen: &Seen) -> u8 {
    let counted = &seen.counted;
    // A moved directory is gone from one place and whole in another. What is not there cannot have moved, and
    // what the agent calls renamed may be anything.
    let kept = counted.entries.saturating_add(counted.removed);
    let added = kept.saturating_sub(before.entries);
    let moved = counted.moved.min(added);
    let gone = match before.is_parent {
        true => counted.removed.saturating_sub(moved),
        false => 0,
    };
    let files = [
        dropped(before.files, before.most.files, stats.files),
        (counts.removed_files, files_before(before, counts)),
        dropped(before.entries, before.most.entries, counted.entries),
        (gone, before.entries),
    ];
    let files = files
        .into_iter()
        .filter(|(dropped, of)| *dropped >= MIN_FILES && is_above(*dropped, *of, DROPPED_PERCENT));
    let bytes = dropped(before.bytes, before.most.bytes, stats.content_bytes);
    let bytes = Some(bytes).filter(|(dropped, of)| {
        *dropped >= MIN_BYTES && is_above(*dropped, *of, DROPPED_BYTES_PERCENT)
    });
    let most = files.chain(bytes).map(|(dropped, of)| percent(dropped, of));
    most.max().map_or(0, |share| {
        let above = share.saturating_sub(DROPPED_PERCENT).min(50);
        // 50 % → the least, 100 % → 100.
        let more = u64::from(MAX_SCORE - DELETION_SCORE) * above / 50;
        DELETION_SCORE + u8::try_from(more).unwrap_or(0)
    })
}

/// Many files, or most of the bytes, are new without being more.
fn rewrite(before: &Before, counts: &SignalCounts, stats: &Stats, seen: &Seen) -> u8 {
    let files = counts.rewritten_files >= MIN_FILES
        && is_above(counts.rewritten_files, counts.parent_files, CHANGED_PERCENT);
    let grown = stats.content_bytes.saturating_sub(before.bytes);
    let replaced = seen.new_bytes.saturating_sub(grown);
    let bytes = replaced >= MIN_BYTES && is_above(replaced, before.bytes, REWRITTEN_BYTES_PERCENT);
    if files || bytes { REWRITE_SCORE } else { 0 }
}

/// New data does not compress, what came before did.
fn incompressible(counts: &SignalCounts) -> u8 {
    let now = (counts.rewritten_plain_bytes, counts.rewritten_packed_bytes);
    let before = (counts.baseline_plain_bytes, counts.baseline_packed_bytes);
    let collapsed = now.0 >= MIN_SAMPLE_BYTES
        && before.0 >= MIN_SAMPLE_BYTES
        && percent(now.1, now.0) >= INCOMPRESSIBLE_PERCENT
        && percent(before.1, before.0) <= COMPRESSIBLE_PERCENT;
    if collapsed { INCOMPRESSIBLE_SCORE } else { 0 }
}

/// Many contents have another name.
fn rename(before: &Before, counts: &SignalCounts, seen: &Seen) -> u8 {
    let (renamed, of) = (seen.counted.moved, files_before(before, counts));
    let many = renamed >= MIN_FILES && is_above(renamed, of, CHANGED_PERCENT);
    if many { RENAME_SCORE } else { 0 }
}

/// Files of the snapshot before: who claims more of them now would seem to lose less.
fn files_before(before: &Before, counts: &SignalCounts) -> u64 {
    match before.files {
        0 => counts.parent_files,
        files => files.min(counts.parent_files.max(1)),
    }
}

fn percent(part: u64, of: u64) -> u64 {
    let share = u128::from(part) * 100 / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Whether `part` is more than so many percent of `of`.
fn is_above(part: u64, of: u64, share: u64) -> bool {
    u128::from(part) * 100 > u128::from(of) * u128::from(share)
}

#[cfg(test)]
mod tests;
