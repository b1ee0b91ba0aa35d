//! Visible snapshots. A forgotten one is hidden, and its row stays while something may still name it.

use crate::catalog::dialect::{Conn, DbRow};
use crate::catalog::error::{Doing, Result, bad_row};
use crate::catalog::{Catalog, SnapshotRow, VolumeNo, transact};
use holdfast_format::id::{IdPrefix, IdempotencyKey, NodeId, SnapshotId, VolumeId};
use sqlx::{AssertSqlSafe, Row};
use std::collections::HashMap;

const SELECT: &str = "SELECT s.id, v.id, s.sequence, s.started_ns, s.received_ns, s.parent, s.root, \
                      s.problems_root, s.run_key, s.problem_count, s.stored_bytes, s.record, \
                      s.suspicious, CASE s.suspicious WHEN 1 THEN (SELECT m.body FROM marks m \
                      WHERE m.subject = s.id AND m.kind = 6 ORDER BY m.time_ns, m.id LIMIT 1) END \
                      FROM snapshots s JOIN volumes v ON v.volume_no = s.volume_no";

/// Visible, suspicious, and no mark of kind `MarkRow::ACKNOWLEDGE` about it.
const UNACKNOWLEDGED: &str = "s.suspicious = 1 AND s.forgotten_ns IS NULL AND NOT EXISTS \
                              (SELECT 1 FROM marks m WHERE m.subject = s.id AND m.kind = 6)";

/// Of one volume: the first of each span of time since then, none older than the newest suspicious one, also where
/// that was acknowledged and forgotten. However often snapshots are made, few thousands of rows are looked at.
const RECENT: &str = "s.volume_no = $1 AND s.forgotten_ns IS NULL AND s.sequence IN \
                      (SELECT MIN(n.sequence) FROM snapshots n WHERE n.volume_no = $1 \
                      AND n.forgotten_ns IS NULL AND n.received_ns >= $2 AND n.sequence >= \
                      COALESCE((SELECT MAX(d.sequence) FROM snapshots d WHERE d.volume_no = $1 \
                      AND d.suspicious = 1), 0) AND n.sequence > (SELECT MAX(x.sequence) - 10000 \
                      FROM snapshots x WHERE x.volume_no = $1) GROUP BY n.received_ns / $3)";

fn decode(row: &DbRow) -> Result<SnapshotRow> {
    const DOING: &str = "read a snapshot";
    let wrong = |_| bad_row("snapshot");
    let bytes = |column| row.try_get::<&[u8], _>(column).doing(DOING);
    let maybe = |column| row.try_get::<Option<&[u8]>, _>(column).doing(DOING);
    let count = |column| {
        let number: i64 = row.try_get(column).doing(DOING)?;
        u64::try_from(number).map_err(|_| bad_row("negative count of a snapshot"))
    };
    Ok(SnapshotRow {
        id: SnapshotId::try_from(bytes(0)?).map_err(wrong)?,
        volume: VolumeId::try_from(bytes(1)?).map_err(wrong)?,
        sequence: count(2)?,
        started_ns: row.try_get(3).doing(DOING)?,
        received_ns: row.try_get(4).doing(DOING)?,
        parent: maybe(5)?
            .map(SnapshotId::try_from)
            .transpose()
            .map_err(wrong)?,
        root: NodeId::try_from(bytes(6)?).map_err(wrong)?,
        problems_root: maybe(7)?.map(NodeId::try_from).transpose().map_err(wrong)?,
        run_key: IdempotencyKey::try_from(bytes(8)?).map_err(wrong)?,
        problem_count: count(9)?,
        stored_bytes: count(10)?,
        record: bytes(11)?.to_vec().into(),
        suspicious: row.try_get::<i64, _>(12).doing(DOING)? != 0,
        acknowledged: maybe(13)?.map(|body| body.to_vec().into()),
    })
}

/// Inserts a snapshot, or makes a forgotten one visible whose record is there again.
pub(super) async fn insert(
    conn: &mut Conn,
    volume: VolumeNo,
    snapshot: &SnapshotRow,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO snapshots (id, volume_no, sequence, started_ns, received_ns, parent, root,
         problems_root, run_key, problem_count, stored_bytes, record, suspicious)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (id) DO UPDATE SET forgotten_ns = NULL",
    )
    .bind(snapshot.id.as_bytes().as_slice())
    .bind(volume.0)
    .bind(snapshot.sequence as i64)
    .bind(snapshot.started_ns)
    .bind(snapshot.received_ns)
    .bind(snapshot.parent.as_ref().map(|id| id.as_bytes().as_slice()))
    .bind(snapshot.root.as_bytes().as_slice())
    .bind(
        snapshot
            .problems_root
            .as_ref()
            .map(|id| id.as_bytes().as_slice()),
    )
    .bind(snapshot.run_key.as_bytes().as_slice())
    .bind(snapshot.problem_count as i64)
    .bind(snapshot.stored_bytes as i64)
    .bind(&snapshot.record[..])
    .bind(i64::from(snapshot.suspicious))
    .execute(conn)
    .await
    .doing("insert a snapshot")?;
    Ok(())
}

async fn forget(conn: &mut Conn, id: &SnapshotId, now_ns: i64) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE snapshots SET forgotten_ns = $1 WHERE id = $2 AND forgotten_ns IS NULL",
    )
    .bind(now_ns)
    .bind(id.as_bytes().as_slice())
    .execute(conn)
    .await
    .doing("forget a snapshot")?;
    Ok(done.rows_affected() > 0)
}

impl Catalog {
    /// Visible snapshots of one volume or of all, by volume name, then sequence.
    pub async fn snapshots(&self, volume: Option<VolumeNo>) -> Result<Vec<SnapshotRow>> {
        let mut conn = self.readers.acquire().await.doing("list snapshots")?;
        let sql = format!(
            "{SELECT} WHERE s.forgotten_ns IS NULL AND ($1 = 0 OR s.volume_no = $1)
             ORDER BY v.name, v.volume_no, s.sequence, s.received_ns, s.id"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(volume.map_or(0, |volume| volume.0))
            .fetch_all(&mut *conn)
            .await
            .doing("list snapshots")?;
        rows.iter().map(decode).collect()
    }

    /// A visible snapshot.
    pub async fn snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotRow>> {
        let mut conn = self.readers.acquire().await.doing("find a snapshot")?;
        let sql = format!("{SELECT} WHERE s.id = $1 AND s.forgotten_ns IS NULL");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await
            .doing("find a snapshot")?;
        row.as_ref().map(decode).transpose()
    }

    /// Ids of visible snapshots that begin like this, in order.
    pub async fn snapshots_by_prefix(&self, prefix: &IdPrefix) -> Result<Vec<SnapshotId>> {
        let mut ids = self.snapshot_ids().await?;
        ids.retain(|id| prefix.matches(id));
        Ok(ids)
    }

    /// Ids of all visible snapshots, in order.
    pub async fn snapshot_ids(&self) -> Result<Vec<SnapshotId>> {
        const DOING: &str = "list snapshots";
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let rows = sqlx::query("SELECT id FROM snapshots WHERE forgotten_ns IS NULL ORDER BY id")
            .fetch_all(&mut *conn)
            .await
            .doing(DOING)?;
        let id = |row: &DbRow| {
            let id: &[u8] = row.try_get(0).doing(DOING)?;
            SnapshotId::try_from(id).map_err(|error| bad_row(error.to_string()))
        };
        rows.iter().map(id).collect()
    }

    /// The newest visible snapshot of a volume: the highest sequence.
    pub async fn latest(&self, volume: VolumeNo) -> Result<Option<SnapshotRow>> {
        let mut conn = self.readers.acquire().await.doing("find a snapshot")?;
        let sql = format!(
            "{SELECT} WHERE s.volume_no = $1 AND s.forgotten_ns IS NULL
             ORDER BY s.sequence DESC, s.received_ns DESC, s.id LIMIT 1"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(volume.0)
            .fetch_optional(&mut *conn)
            .await
            .doing("find a snapshot")?;
        row.as_ref().map(decode).transpose()
    }

    /// Visible snapshots of a volume that were received since then, the first of each span of so many
    /// nanoseconds, in order. None is older than the newest suspicious one, whatever has become of that.
    pub async fn recent(
        &self,
        volume: VolumeNo,
        since_ns: i64,
        span_ns: i64,
    ) -> Result<Vec<SnapshotRow>> {
        let mut conn = self.readers.acquire().await.doing("list snapshots")?;
        let sql = format!("{SELECT} WHERE {RECENT} ORDER BY s.sequence, s.received_ns, s.id");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(volume.0)
            .bind(since_ns)
            .bind(span_ns.max(1))
            .fetch_all(&mut *conn)
            .await
            .doing("list snapshots")?;
        rows.iter().map(decode).collect()
    }

    /// The newest suspicious snapshot of a volume that nobody has acknowledged.
    pub async fn suspicious(&self, volume: &VolumeId) -> Result<Option<SnapshotRow>> {
        let mut conn = self.readers.acquire().await.doing("find a snapshot")?;
        let sql = format!(
            "{SELECT} WHERE v.id = $1 AND {UNACKNOWLEDGED}
             ORDER BY s.sequence DESC, s.received_ns DESC, s.id LIMIT 1"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(volume.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await
            .doing("find a snapshot")?;
        row.as_ref().map(decode).transpose()
    }

    /// How many suspicious snapshots of each volume nobody has acknowledged; volumes without one are not named.
    pub async fn suspicious_counts(&self) -> Result<HashMap<VolumeId, u64>> {
        const DOING: &str = "count suspicious snapshots";
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let sql = format!(
            "SELECT v.id, COUNT(*) FROM snapshots s JOIN volumes v ON v.volume_no = s.volume_no
             WHERE {UNACKNOWLEDGED} GROUP BY v.id"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *conn).await;
        let count = |row: &DbRow| {
            let id: &[u8] = row.try_get(0).doing(DOING)?;
            let id = VolumeId::try_from(id).map_err(|error| bad_row(error.to_string()))?;
            let count: i64 = row.try_get(1).doing(DOING)?;
            Ok((id, u64::try_from(count).unwrap_or(0)))
        };
        rows.doing(DOING)?.iter().map(count).collect()
    }

    /// Hides a snapshot whose record was deleted; whether it was visible.
    pub async fn forget(&self, id: &SnapshotId, now_ns: i64) -> Result<bool> {
        transact!(self, "forget a snapshot", |conn| forget(conn, id, now_ns)
            .await)
    }
}
