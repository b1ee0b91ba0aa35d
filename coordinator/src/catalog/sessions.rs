//! Sessions and the leases they hold on volumes. A lease lasts as long after the last message as whoever
//! begins the next session says; a later epoch ends an earlier one, and whoever names an old epoch is
//! refused. A session can be resumed with its idempotency key for [`RESUMABLE`].

use crate::catalog::commit;
use crate::catalog::dialect::{Conn, DbRow};
use crate::catalog::error::{CatalogError, Doing, Result, bad_row};
use crate::catalog::{BeginSession, Begun, Catalog, PruneNumber, counters, transact};
use holdfast_format::id::{SessionId, SnapshotId, VolumeId};
use sqlx::Row;
use std::time::Duration;

/// How long after its last message a session can be resumed.
pub const RESUMABLE: Duration = Duration::from_secs(24 * 3600);

const RESUMABLE_NS: i64 = RESUMABLE.as_nanos() as i64;
/// A message is written down only if the one written down is older than this, so a lease may end this
/// much early: far less than the shortest that settings allow.
const TOUCH_GRAIN_NS: i64 = 5_000_000_000;

const DOING: &str = "begin a session";

/// Whether a lease touched at `last_ns` still holds. A clock that was set back far ends it: nobody is
/// locked out until the clock has caught up.
fn is_leased(last_ns: i64, now_ns: i64, lease: Duration) -> bool {
    u128::from(now_ns.abs_diff(last_ns)) < lease.as_nanos()
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

async fn begin(conn: &mut Conn, wanted: &BeginSession) -> Result<Begun> {
    let volume = wanted.volume;
    let stamped_since = PruneNumber(counters::read(conn, counters::PRUNE).await?);
    if let Some((snapshot, of)) = commit::committed(conn, &wanted.key).await? {
        if of != volume {
            return Err(CatalogError::KeyReused);
        }
        return Ok(Begun {
            session: wanted.id,
            epoch: 0,
            resumed: false,
            committed: Some(snapshot),
            reserved: None,
            stamped_since,
        });
    }
    forget_old(conn, wanted.now_ns).await?;
    check_free(conn, wanted).await?;
    let row = sqlx::query(
        "UPDATE volumes SET lease_epoch = lease_epoch + 1 WHERE volume_no = $1
         RETURNING lease_epoch",
    )
    .bind(volume.0)
    .fetch_optional(&mut *conn)
    .await
    .doing(DOING)?
    .ok_or_else(|| CatalogError::UnknownVolume {
        volume: volume.0.to_string(),
    })?;
    let epoch: i64 = row.try_get(0).doing(DOING)?;

    let mut begun = Begun {
        session: wanted.id,
        epoch: u64::try_from(epoch).map_err(|_| bad_row("negative epoch"))?,
        resumed: false,
        committed: None,
        reserved: commit::reservation(conn, &wanted.key).await?,
        stamped_since,
    };
    let before =
        sqlx::query("SELECT id, volume_no, stamped_since FROM sessions WHERE run_key = $1")
            .bind(wanted.key.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await
            .doing(DOING)?;
    if let Some(row) = before {
        if row.try_get::<i64, _>(1).doing(DOING)? != volume.0 {
            return Err(CatalogError::KeyReused);
        }
        begun.session = session_id(&row, 0)?;
        begun.stamped_since = PruneNumber(row.try_get(2).doing(DOING)?);
        begun.resumed = true;
    }
    sqlx::query(
        "INSERT INTO sessions (id, run_key, volume_no, node, parent, state, epoch, opened_ns,
         last_ns, stamped_since) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $7, $8)
         ON CONFLICT (run_key) DO UPDATE SET node = excluded.node, parent = excluded.parent,
         epoch = excluded.epoch, last_ns = excluded.last_ns",
    )
    .bind(begun.session.as_bytes().as_slice())
    .bind(wanted.key.as_bytes().as_slice())
    .bind(volume.0)
    .bind(wanted.node.as_str())
    .bind(wanted.parent.as_ref().map(|id| id.as_bytes().as_slice()))
    .bind(epoch)
    .bind(wanted.now_ns)
    .bind(begun.stamped_since.0)
    .execute(conn)
    .await
    .doing(DOING)?;
    Ok(begun)
}

/// Drops sessions that can no longer be resumed. One with a reserved record stays until that is settled.
async fn forget_old(conn: &mut Conn, now_ns: i64) -> Result<()> {
    sqlx::query(
        "DELETE FROM sessions WHERE last_ns < $1
         AND run_key NOT IN (SELECT run_key FROM reservations)",
    )
    .bind(now_ns.saturating_sub(RESUMABLE_NS))
    .execute(conn)
    .await
    .doing("forget old sessions")?;
    Ok(())
}

/// Refuses while another run's lease on the volume holds.
async fn check_free(conn: &mut Conn, wanted: &BeginSession) -> Result<()> {
    let rows = sqlx::query(
        "SELECT s.id, s.last_ns, v.id FROM sessions s JOIN volumes v ON v.volume_no = s.volume_no
         WHERE s.volume_no = $1 AND s.state = 0 AND s.run_key <> $2 AND s.epoch = v.lease_epoch",
    )
    .bind(wanted.volume.0)
    .bind(wanted.key.as_bytes().as_slice())
    .fetch_all(conn)
    .await
    .doing(DOING)?;
    for row in rows {
        let last_ns: i64 = row.try_get(1).doing(DOING)?;
        if is_leased(last_ns, wanted.now_ns, wanted.lease) {
            let volume: &[u8] = row.try_get(2).doing(DOING)?;
            return Err(CatalogError::VolumeBusy {
                volume: VolumeId::try_from(volume).map_err(|error| bad_row(error.to_string()))?,
                holder: session_id(&row, 0)?,
                remaining_ns: last_ns
                    .saturating_add(nanoseconds(wanted.lease))
                    .saturating_sub(wanted.now_ns),
            });
        }
    }
    Ok(())
}

fn session_id(row: &DbRow, column: usize) -> Result<SessionId> {
    let id: &[u8] = row.try_get(column).doing(DOING)?;
    SessionId::try_from(id).map_err(|error| bad_row(error.to_string()))
}

/// Refuses unless the session is open and its epoch is the volume's newest; when it was last heard of.
pub(super) async fn check_lease(conn: &mut Conn, session: &SessionId, epoch: u64) -> Result<i64> {
    const DOING: &str = "check a lease";
    let row = sqlx::query(
        "SELECT s.state, s.epoch, v.lease_epoch, s.last_ns
         FROM sessions s JOIN volumes v ON v.volume_no = s.volume_no WHERE s.id = $1",
    )
    .bind(session.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .doing(DOING)?;
    let row = row.filter(|row| row.try_get::<i64, _>(0).is_ok_and(|state| state == 0));
    let row = row.ok_or(CatalogError::UnknownSession { session: *session })?;
    let own: i64 = row.try_get(1).doing(DOING)?;
    let newest: i64 = row.try_get(2).doing(DOING)?;
    if i64::try_from(epoch).is_ok_and(|epoch| epoch == own && epoch == newest) {
        row.try_get(3).doing(DOING)
    } else {
        Err(CatalogError::LeaseLost { session: *session })
    }
}

async fn touch(conn: &mut Conn, session: &SessionId, epoch: u64, now_ns: i64) -> Result<()> {
    check_lease(conn, session, epoch).await?;
    sqlx::query("UPDATE sessions SET last_ns = $1 WHERE id = $2")
        .bind(now_ns)
        .bind(session.as_bytes().as_slice())
        .execute(conn)
        .await
        .doing("extend a lease")?;
    Ok(())
}

async fn end(conn: &mut Conn, session: &SessionId, epoch: u64) -> Result<()> {
    check_lease(conn, session, epoch).await?;
    sqlx::query("DELETE FROM sessions WHERE id = $1")
        .bind(session.as_bytes().as_slice())
        .execute(conn)
        .await
        .doing("end a session")?;
    Ok(())
}

async fn end_leases(conn: &mut Conn, now_ns: i64, lease: Duration) -> Result<()> {
    sqlx::query("UPDATE sessions SET last_ns = $1 WHERE last_ns > $1")
        .bind(now_ns.saturating_sub(nanoseconds(lease)))
        .execute(conn)
        .await
        .doing("end the leases")?;
    Ok(())
}

impl Catalog {
    /// Opens a session, or resumes the one of the same key with a new epoch. A run that was committed
    /// is answered with its snapshot. `VolumeBusy` while another run's lease holds.
    pub async fn begin(&self, wanted: &BeginSession) -> Result<Begun> {
        transact!(self, DOING, |conn| begin(conn, wanted).await)
    }

    /// A message of the session arrived: extends its lease. `LeaseLost` when a later epoch has it. Cheap
    /// enough for every message: it writes once in five seconds.
    pub async fn touch(&self, session: &SessionId, epoch: u64, now_ns: i64) -> Result<()> {
        let mut conn = self.readers.acquire().await.doing("check a lease")?;
        let last_ns = check_lease(&mut conn, session, epoch).await?;
        drop(conn);
        if now_ns.abs_diff(last_ns) < TOUCH_GRAIN_NS as u64 {
            return Ok(());
        }
        transact!(self, "extend a lease", |conn| {
            touch(conn, session, epoch, now_ns).await
        })
    }

    /// Ends a session without a snapshot and gives its lease back. What it stored stays held.
    pub async fn end(&self, session: &SessionId, epoch: u64) -> Result<()> {
        transact!(self, "end a session", |conn| end(conn, session, epoch)
            .await)
    }

    /// Ends the leases of all sessions, which last this long: for a process that holds every agent
    /// itself, and so knows that those of its predecessors are gone. The sessions stay resumable.
    pub async fn end_leases(&self, now_ns: i64, lease: Duration) -> Result<()> {
        transact!(self, "end the leases", |conn| {
            end_leases(conn, now_ns, lease).await
        })
    }

    /// The parents of open sessions: roots, like visible snapshots.
    pub async fn open_parents(&self) -> Result<Vec<SnapshotId>> {
        const DOING: &str = "list parents of open sessions";
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let rows = sqlx::query(
            "SELECT DISTINCT parent FROM sessions WHERE state = 0 AND parent IS NOT NULL",
        )
        .fetch_all(&mut *conn)
        .await
        .doing(DOING)?;
        let parent = |row: &DbRow| {
            let id: &[u8] = row.try_get(0).doing(DOING)?;
            SnapshotId::try_from(id).map_err(|error| bad_row(error.to_string()))
        };
        rows.iter().map(parent).collect()
    }
}
