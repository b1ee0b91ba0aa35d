//! The commit of a session: packs durable, record reserved, put, published. Every step can be repeated,
//! and whatever was reserved is what a repetition publishes.

use crate::blocking;
use crate::catalog::{Reservation, SnapshotRow};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::run::Run;
use crate::session::signals::{self, Before, Seen, Size};
use crate::session::tree_task::Counted;
use holdfast_format::names::ObjectName;
use holdfast_format::signals::Signals;
use holdfast_format::snapshot::Snapshot;
use holdfast_format::stats::Stats;
use holdfast_format::tree::Root;
use holdfast_format::wire::SnapshotInfo;
use std::sync::atomic::Ordering;

/// Deletions within this time are one.
const LATELY_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;
/// One snapshot of each such span says how large the volume was then.
const SPAN_NS: i64 = 6 * 3600 * 1_000_000_000;

/// What the agent tells of its run.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its counters.
    pub stats: Stats,
    /// How the volume changed; not judged. `None`: it does not count that.
    pub signals: Option<Signals>,
}

impl Session {
    /// Makes the run a snapshot. `last_seq` is the number of the last message that the agent sent.
    pub(super) async fn commit(
        &self,
        epoch: u64,
        last_seq: u64,
        told: Told,
    ) -> Result<SnapshotInfo> {
        self.lease.check(epoch).await?;
        let mut run = self.run().await?;
        if let Some(id) = run.committed {
            return self.core.snapshot_info(&id).await;
        }
        let reservation = match run.reserved.clone() {
            Some(reservation) => reservation,
            None => {
                if run.seq != last_seq {
                    let rule = format!("commit of {last_seq} messages, but {} came", run.seq);
                    return Err(Error::invalid(rule));
                }
                let reservation = self.kept(self.prepare(&mut run, told)).await?;
                self.reserve(&reservation).await?;
                run.reserved = Some(reservation.clone());
                reservation
            }
        };
        let info = self.core.settle(&reservation).await?;
        run.committed = Some(reservation.snapshot);
        run.reserved = None;
        tracing::info!(
            volume = %self.facts.name,
            snapshot = %reservation.snapshot.short(),
            sequence = reservation.sequence,
            new_bytes = info.stats.new_chunk_bytes,
            stored_bytes = info.stats.stored_bytes,
            problems = info.problems,
            "snapshot committed"
        );
        if let Some(signals) = info.signals.as_ref().filter(|signals| signals.suspicious) {
            self.core.made_suspicious.fetch_add(1, Ordering::Relaxed);
            let reasons: Vec<&str> = signals.reasons.iter().map(|r| r.as_str()).collect();
            tracing::warn!(
                volume = %self.facts.name,
                snapshot = %reservation.snapshot.short(),
                score = signals.score,
                reasons = reasons.join(","),
                "the snapshot is suspicious: earlier ones are kept until somebody acknowledges it"
            );
        }
        Ok(info)
    }

    /// Keeps the lease while the work takes long.
    async fn kept<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.core.clock.sleep(self.core.settings.sessions.lease / 4) => {
                    self.lease.check(self.lease.epoch()).await?;
                }
            }
        }
    }

    /// Makes everything durable that the snapshot will name, and its record.
    async fn prepare(&self, run: &mut Run, told: Told) -> Result<Reservation> {
        let mut root = self.parent.as_ref().map(|parent| parent.root);
        let mut counted = None;
        if let Some(tree) = run.tree.take() {
            // Once taken, the entries of this stream are used up: what fails below needs them again.
            run.seq = 0;
            let tree = tree.finish().await?;
            root = Some(tree.root);
            counted = Some(tree.counted);
            run.stats.stored_bytes += tree.stored.bytes;
            tree.stored
                .tickets
                .iter()
                .for_each(|ticket| run.wait_for(ticket));
        }
        let root = root.ok_or_else(|| Error::InvalidChange {
            path: String::new(),
            rule: "a first snapshot needs an entry for the root".into(),
        })?;
        let problems = match run.problems.take() {
            Some(problems) => {
                run.seq = 0;
                problems.finish().await?
            }
            None => Default::default(),
        };
        run.stats.stored_bytes += problems.stored.bytes;
        problems
            .stored
            .tickets
            .iter()
            .for_each(|ticket| run.wait_for(ticket));
        self.make_durable(run).await?;

        let stats = Stats {
            new_chunks: run.stats.new_chunks,
            new_chunk_bytes: run.stats.new_chunk_bytes,
            stored_bytes: run.stats.stored_bytes,
            problems: problems.count,
            ..told.stats
        };
        let mut before = self.before().await?;
        let seen = Seen {
            counted: counted.unwrap_or_else(|| Counted {
                entries: before.as_ref().map_or(0, |before| before.entries),
                ..Counted::default()
            }),
            plain_bytes: run.stats.frame_plain_bytes,
            packed_bytes: run.stats.frame_packed_bytes,
            new_bytes: run.stats.new_chunk_bytes,
        };
        if let Some(before) = before.as_mut().filter(|it| it.loses(&stats, &seen)) {
            before.most = self.most().await?;
        }
        let signals = signals::judge(before.as_ref(), told.signals, &stats, &seen);
        let sequence = self.core.catalog.next_sequence(self.volume.no).await?;
        let record = Snapshot {
            volume: self.volume.id,
            domain: self.domain.keys.domain,
            generation: self.domain.keys.generation,
            entries_root: root,
            problems_root: problems.root,
            parent: self.parent.as_ref().map(|parent| parent.id),
            sequence,
            started_ns: self.started_ns,
            received_ns: self.core.clock.now_ns(),
            run: self.key,
            facts: self.facts.clone(),
            stats,
            problem_count: problems.count,
            first_problems: problems.first,
            signals,
        };
        let (snapshot, sealed) = self.core.repository.seal_snapshot(&record)?;
        let volume = self.volume.id;
        Ok(Reservation {
            key: self.key,
            session: self.id,
            volume: self.volume.no,
            snapshot,
            sequence,
            root,
            problems_root: problems.root,
            object: ObjectName::Snapshot {
                volume,
                id: snapshot,
            }
            .to_string(),
            record: sealed,
            reserved_ns: self.core.clock.now_ns(),
        })
    }

    /// The volume's newest snapshot, whatever the run was made against: an agent that works without a
    /// parent, or against an older one, is judged like any other.
    async fn before(&self) -> Result<Option<Before>> {
        let Some(row) = self.core.catalog.latest(self.volume.no).await? else {
            return Ok(None);
        };
        let record = Snapshot::decode(&row.record)?;
        let is_parent = self
            .parent
            .as_ref()
            .is_some_and(|parent| parent.id == row.id);
        let entries = self.entries_of(&row, &record).await;
        let is_taken = !record.is_suspicious() || row.acknowledged.is_some();
        Ok(Some(Before::of(&record, entries, is_parent, is_taken)))
    }

    /// The most that the volume had lately: not before it was suspicious, or what was told of once, and may have been
    /// acknowledged, would be told of again and again.
    async fn most(&self) -> Result<Size> {
        let since_ns = self.core.clock.now_ns().saturating_sub(LATELY_NS);
        let recent = self.core.catalog.recent(self.volume.no, since_ns, SPAN_NS);
        let mut most = Size::default();
        for row in recent.await? {
            let record = Snapshot::decode(&row.record)?;
            most = most.or_more(Size {
                files: record.stats.files,
                bytes: record.stats.content_bytes,
                entries: self.entries_of(&row, &record).await,
            });
        }
        Ok(most)
    }

    /// Entries of a snapshot as its record counts them, else by the root of its tree; where that is lost, as its
    /// agent told.
    async fn entries_of(&self, row: &SnapshotRow, record: &Snapshot) -> u64 {
        let signals = record.signals.as_ref();
        let counted = signals.map_or(0, |signals| signals.counts.entries);
        if counted > 0 {
            return counted;
        }
        let root = async {
            let view = self.core.library.view_of(row)?;
            blocking("count entries", move || {
                Root::load(&view.ids, &view.nodes(), &view.record.entries_root)
            })
            .await
        };
        match root.await {
            Ok(root) => root.count,
            Err(error) => {
                tracing::warn!(%error, snapshot = %row.id, "its entries cannot be counted");
                let stats = &record.stats;
                let sum = stats.files.saturating_add(stats.directories);
                sum.saturating_add(stats.others)
            }
        }
    }

    /// Finishes the packs that hold frames of this session, and waits for them.
    async fn make_durable(&self, run: &mut Run) -> Result<()> {
        let waiting = run.waiting().to_vec();
        self.core.pool.close(&self.domain, &waiting).await?;
        self.write_holds(run).await?;
        for ticket in waiting {
            ticket.wait().await?;
        }
        Ok(())
    }

    async fn reserve(&self, reservation: &Reservation) -> Result<()> {
        let relied = self.proven().relied();
        let epoch = self.lease.epoch();
        let since = Some(self.stamped_since);
        let catalog = &self.core.catalog;
        catalog
            .reserve(reservation, epoch, relied.clone(), since)
            .await?;
        if relied.failed() {
            catalog.drop_reservation(&reservation.key).await?;
            return Err(Error::internal("read the ids that the commit relies on"));
        }
        Ok(())
    }
}
