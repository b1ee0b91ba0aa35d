//! What keeps a snapshot from being forgotten: pins until they are released, holds until their time.

use crate::catalog::MarkRow;
use crate::error::{Error, Result};
use holdfast_format::id::SnapshotId;
use holdfast_format::mark::{Mark, MarkRecord};

const HOUR_NS: i64 = 3_600_000_000_000;

/// Refuses while this mark, which nothing has released, keeps the snapshot.
pub fn check(snapshot: &SnapshotId, mark: &MarkRow, now_ns: i64) -> Result<()> {
    let record = MarkRecord::decode(&mark.body)?;
    let (kind, reason, when) = match &record.mark {
        Mark::Pin { reason, .. } => ("pin", reason, "once that pin is released".to_owned()),
        Mark::Hold {
            until_ns, reason, ..
        } if *until_ns > now_ns => {
            // Rounded up: whoever comes back then is not sent away again.
            let hours = until_ns.abs_diff(now_ns).div_ceil(HOUR_NS.unsigned_abs());
            let when = format!("in {hours} h, or once that hold is released");
            ("hold", reason, when)
        }
        _ => return Ok(()),
    };
    let by = match record.actor.as_str() {
        "" => String::new(),
        actor => format!(" by {actor}"),
    };
    let because = match reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    Err(Error::SnapshotPinned {
        snapshot: *snapshot,
        why: format!("{kind} {}{by}{because}", mark.id.short()),
        when,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;
    use holdfast_format::id::MarkId;

    fn row(mark: Mark) -> MarkRow {
        let record = MarkRecord {
            mark,
            time_ns: 1,
            actor: "ann".into(),
        };
        MarkRow::of(MarkId::from_bytes([0xab; 32]), &record).unwrap()
    }

    #[test]
    fn a_pin_keeps_for_ever_and_a_hold_until_its_time() {
        let snapshot = SnapshotId::from_bytes([1; 32]);
        let reason = "audit".to_owned();
        let pin = row(Mark::Pin {
            snapshot,
            reason: reason.clone(),
        });
        let error = check(&snapshot, &pin, i64::MAX).unwrap_err();
        assert_eq!(error.reason(), Reason::SnapshotPinned);
        let text = error.to_string();
        for part in ["pin abab", "by ann", "(audit)", "once that pin is released"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let hold = row(Mark::Hold {
            snapshot,
            until_ns: 10 * HOUR_NS,
            reason,
        });
        let error = check(&snapshot, &hold, HOUR_NS + 1).unwrap_err();
        assert!(error.to_string().contains("in 9 h"), "{error}");
        check(&snapshot, &hold, 10 * HOUR_NS).unwrap();
    }
}
