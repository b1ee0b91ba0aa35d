//! What is remembered of one snapshot of a volume.

use crate::browse;
use crate::catalog::SnapshotRow;
use crate::error::Result;
use holdfast_proto::v1::Report;
use jiff::Timestamp;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// When it was committed, by the coordinator's clock.
    pub at: Timestamp,
    /// When its run began.
    pub began: Timestamp,
    /// Its id.
    pub id: String,
    /// Its files.
    pub files: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Bytes that its run added to the repository.
    pub added_bytes: i64,
    /// Files that could not be read.
    pub problems: i64,
    /// Whether somebody should look at it.
    pub is_suspicious: bool,
}

impl Point {
    /// As the catalog has it.
    pub fn of_row(row: &SnapshotRow) -> Result<Self> {
        let stats = browse::info(row)?.stats;
        Ok(Self {
            at: moment(row.received_ns),
            began: moment(row.started_ns.min(row.received_ns)),
            id: row.id.to_string(),
            files: number(stats.files),
            bytes: number(stats.content_bytes),
            added_bytes: number(row.stored_bytes),
            problems: number(row.problem_count),
            is_suspicious: row.suspicious && row.acknowledged.is_none(),
        })
    }

    /// As the agent tells it that made it.
    pub fn of_report(report: &Report) -> Self {
        let stats = report.stats.unwrap_or_default();
        let id = report.snapshot.iter().map(|byte| format!("{byte:02x}"));
        Self {
            at: Timestamp::UNIX_EPOCH,
            began: Timestamp::UNIX_EPOCH,
            id: id.collect(),
            files: number(stats.files),
            bytes: number(stats.content_bytes),
            added_bytes: number(stats.stored_bytes),
            problems: number(stats.problems),
            is_suspicious: false,
        }
    }
}

/// A moment, by nanoseconds since 1970.
pub fn moment(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(ns.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
