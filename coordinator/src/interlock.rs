//! Forgetting, and what stands against it: a pin, a hold, or a later snapshot of the volume that is suspicious
//! until somebody has looked at it and acknowledged it.
//!
//! All of it is in the store (records and marks), so a catalog that was built again says the same.

use crate::Coordinator;
use crate::browse::{self, not_found};
use crate::catalog::{MarkRow, SnapshotRow};
use crate::error::{Error, Result};
use crate::pins;
use crate::repo::snapshots;
use holdfast_format::id::SnapshotId;
use holdfast_format::mark::{Mark, MarkRecord};
use holdfast_format::snapshot::Snapshot;
use holdfast_format::wire::SnapshotInfo;

/// Longest name of who acknowledges, in bytes.
const MAX_ACTOR_BYTES: usize = 253;

impl Coordinator {
    /// Removes a snapshot's record, then its row. What a pin, a hold or the interlock keeps is refused.
    pub(crate) async fn forget(&self, id: &SnapshotId) -> Result<SnapshotInfo> {
        let core = self.core()?;
        let row = core
            .catalog
            .snapshot(id)
            .await?
            .ok_or_else(|| not_found(id))?;
        let info = browse::info(&row)?;
        let now_ns = self.clock().now_ns();
        for mark in core.catalog.keeping(id).await? {
            pins::check(id, &mark, now_ns)?;
        }
        // The newest of them keeps everything that any of them keeps.
        if let Some(suspicious) = core.catalog.suspicious(&row.volume).await? {
            check(&row, &suspicious)?;
        }
        let claim = core.claim().await?;
        snapshots::delete(core.repository.store(), &claim, row.volume, *id).await?;
        drop(claim);
        core.catalog.forget(id, now_ns).await?;
        tracing::info!(snapshot = %id, volume = %info.facts.name, "snapshot forgotten");
        self.touch(info.facts.name.as_str());
        Ok(info)
    }

    /// Takes a suspicious snapshot as it is; whether it had been before. One that is not suspicious is refused.
    pub(crate) async fn acknowledge(
        &self,
        id: &SnapshotId,
        actor: &str,
    ) -> Result<(SnapshotInfo, bool)> {
        let core = self.core()?;
        let find = async || {
            let row = core.catalog.snapshot(id).await?;
            row.ok_or_else(|| not_found(id))
        };
        let row = find().await?;
        if !row.suspicious {
            return Err(Error::NotSuspicious { snapshot: *id });
        }
        let already = row.acknowledged.is_some();
        if !already {
            let record = MarkRecord {
                mark: Mark::Acknowledge { snapshot: *id },
                time_ns: self.clock().now_ns(),
                actor: bounded(actor),
            };
            let claim = core.claim().await?;
            claim.check().await?;
            let mark = core.repository.put_mark(&record).await?;
            drop(claim);
            core.catalog
                .add_marks(&[MarkRow::of(mark, &record)?])
                .await?;
            tracing::info!(snapshot = %id, actor = record.actor, "suspicious snapshot acknowledged");
        }
        let info = browse::info(&find().await?)?;
        self.touch(info.facts.name.as_str());
        Ok((info, already))
    }
}

/// Refuses while `suspicious`, which nobody has acknowledged, is this snapshot or a later one.
fn check(row: &SnapshotRow, suspicious: &SnapshotRow) -> Result<()> {
    if row.sequence > suspicious.sequence {
        return Ok(());
    }
    let signals = Snapshot::decode(&suspicious.record)?.signals;
    let signals = signals.unwrap_or_default();
    let reasons: Vec<&str> = signals.reasons.iter().map(|r| r.as_str()).collect();
    let id = suspicious.id.short();
    let which = match row.id == suspicious.id {
        true => "it".to_owned(),
        false => format!("snapshot {id}, made after it,"),
    };
    Err(Error::SnapshotPinned {
        snapshot: row.id,
        why: format!(
            "{which} is suspicious ({}, score {}), and what came before may be needed",
            reasons.join(", "),
            signals.score
        ),
        when: format!(
            "once somebody has looked at it (`holdfast diff`) and said `holdfast acknowledge {id}`"
        ),
    })
}

/// Who it was, for people: one line, not too long.
fn bounded(actor: &str) -> String {
    let mut actor: String = actor.chars().filter(|c| !c.is_control()).collect();
    actor.truncate(actor.floor_char_boundary(MAX_ACTOR_BYTES));
    actor
}
