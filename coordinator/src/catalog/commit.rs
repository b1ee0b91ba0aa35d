//! The two halves of a commit. `reserve` proves in one transaction that everything the record relies on
//! is present, stamps it, and keeps the record's exact bytes; then the record is put; then `publish`
//! makes the snapshot visible. After a crash between them, [`Catalog::unpublished`] lists what is open.

use crate::catalog::dialect::{Conn, DbRow};
use crate::catalog::error::{CatalogError, Doing, MAX_GONE_LISTED, Result, bad_row};
use crate::catalog::lookup::{self, RawId};
use crate::catalog::packs;
use crate::catalog::{
    Catalog, PackNo, PackState, PruneNumber, Reservation, SnapshotRow, VolumeNo, counters,
    sessions, snapshots, transact, volumes,
};
use holdfast_format::id::{IdempotencyKey, NodeId, SessionId, SnapshotId};
use sqlx::{AssertSqlSafe, Row};

const COLUMNS: &str = "run_key, session, volume_no, snapshot, sequence, root, problems_root, \
                       object, record, reserved_ns";
/// Ids that are checked at a time.
const CHECK_BATCH: usize = 4096;

fn decode(row: &DbRow) -> Result<Reservation> {
    const DOING: &str = "read a reservation";
    let wrong = |_| bad_row("reservation");
    let bytes = |column| row.try_get::<&[u8], _>(column).doing(DOING);
    let problems_root: Option<&[u8]> = row.try_get(6).doing(DOING)?;
    let sequence: i64 = row.try_get(4).doing(DOING)?;
    Ok(Reservation {
        key: IdempotencyKey::try_from(bytes(0)?).map_err(wrong)?,
        session: SessionId::try_from(bytes(1)?).map_err(wrong)?,
        volume: VolumeNo(row.try_get(2).doing(DOING)?),
        snapshot: SnapshotId::try_from(bytes(3)?).map_err(wrong)?,
        sequence: u64::try_from(sequence).map_err(|_| bad_row("negative sequence"))?,
        root: NodeId::try_from(bytes(5)?).map_err(wrong)?,
        problems_root: problems_root
            .map(NodeId::try_from)
            .transpose()
            .map_err(wrong)?,
        object: row.try_get(7).doing(DOING)?,
        record: bytes(8)?.to_vec().into(),
        reserved_ns: row.try_get(9).doing(DOING)?,
    })
}

/// The reservation of a run.
pub(super) async fn reservation(
    conn: &mut Conn,
    key: &IdempotencyKey,
) -> Result<Option<Reservation>> {
    let sql = format!("SELECT {COLUMNS} FROM reservations WHERE run_key = $1");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(key.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .doing("find a reservation")?;
    row.as_ref().map(decode).transpose()
}

/// The snapshot that a run became, and its volume.
pub(super) async fn committed(
    conn: &mut Conn,
    key: &IdempotencyKey,
) -> Result<Option<(SnapshotId, VolumeNo)>> {
    const DOING: &str = "find a committed run";
    let row = sqlx::query(
        "SELECT id, volume_no FROM snapshots WHERE run_key = $1 ORDER BY received_ns LIMIT 1",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_optional(conn)
    .await
    .doing(DOING)?;
    let Some(row) = row else { return Ok(None) };
    let id: &[u8] = row.try_get(0).doing(DOING)?;
    let id = SnapshotId::try_from(id).map_err(|error| bad_row(error.to_string()))?;
    Ok(Some((id, VolumeNo(row.try_get(1).doing(DOING)?))))
}

/// Checks and stamps every id, and revives condemned packs that hold one.
async fn rely(
    conn: &mut Conn,
    relied: &mut (dyn Iterator<Item = RawId> + Send),
    prune: PruneNumber,
) -> Result<()> {
    let mut gone = Vec::new();
    let mut gone_count = 0;
    loop {
        let ids: Vec<RawId> = relied.take(CHECK_BATCH).collect();
        if ids.is_empty() {
            break;
        }
        let ids = lookup::sorted(&ids);
        let known = lookup::known(conn, &ids).await?;
        let mut revived = Vec::new();
        let mut stale = Vec::new();
        for id in ids {
            match known.get(&id) {
                Some(known) if matches!(known.state, PackState::Live | PackState::Condemned) => {
                    if known.state == PackState::Condemned {
                        revived.push(PackNo(known.pack_no));
                    }
                    if known.stamp < prune.0 {
                        stale.push(id);
                    }
                }
                _ => {
                    gone_count += 1;
                    if gone.len() < MAX_GONE_LISTED {
                        gone.push(id);
                    }
                }
            }
        }
        lookup::stamp(conn, &stale, prune).await?;
        revived.sort_unstable();
        revived.dedup();
        packs::change_state(conn, &revived, &[PackState::Condemned], PackState::Live).await?;
    }
    if gone_count > 0 {
        return Err(CatalogError::ChunkGone {
            ids: gone,
            count: gone_count,
        });
    }
    Ok(())
}

async fn reserve(
    conn: &mut Conn,
    reservation: &Reservation,
    epoch: u64,
    relied: &mut (dyn Iterator<Item = RawId> + Send),
    stamped_since: Option<PruneNumber>,
) -> Result<()> {
    if let Some((snapshot, _)) = committed(conn, &reservation.key).await? {
        return Err(CatalogError::AlreadyCommitted { snapshot });
    }
    sessions::check_lease(conn, &reservation.session, epoch).await?;
    match self::reservation(conn, &reservation.key).await? {
        Some(before) if before.record == reservation.record => return Ok(()),
        Some(before) => {
            return Err(CatalogError::AlreadyReserved {
                snapshot: before.snapshot,
            });
        }
        None => {}
    }
    let prune = PruneNumber(counters::read(conn, counters::PRUNE).await?);
    // Everything was stamped with the newest number already: no prune can have condemned it.
    if stamped_since != Some(prune) {
        rely(conn, relied, prune).await?;
    }
    sqlx::query(
        "INSERT INTO reservations (run_key, session, volume_no, snapshot, sequence, root,
         problems_root, object, record, reserved_ns)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(reservation.key.as_bytes().as_slice())
    .bind(reservation.session.as_bytes().as_slice())
    .bind(reservation.volume.0)
    .bind(reservation.snapshot.as_bytes().as_slice())
    .bind(reservation.sequence as i64)
    .bind(reservation.root.as_bytes().as_slice())
    .bind(
        reservation
            .problems_root
            .as_ref()
            .map(|id| id.as_bytes().as_slice()),
    )
    .bind(reservation.object.as_str())
    .bind(&reservation.record[..])
    .bind(reservation.reserved_ns)
    .execute(conn)
    .await
    .doing("reserve a snapshot")?;
    Ok(())
}

async fn publish(conn: &mut Conn, snapshot: &SnapshotRow) -> Result<()> {
    const DOING: &str = "publish a snapshot";
    let volume = volumes::number(conn, &snapshot.volume).await?;
    let volume = volume.ok_or_else(|| CatalogError::UnknownVolume {
        volume: snapshot.volume.to_string(),
    })?;
    snapshots::insert(conn, volume, snapshot).await?;
    sqlx::query(
        "UPDATE volumes SET last_sequence = $1 WHERE volume_no = $2 AND last_sequence < $1",
    )
    .bind(snapshot.sequence as i64)
    .bind(volume.0)
    .execute(&mut *conn)
    .await
    .doing(DOING)?;
    drop_reserved(conn, &snapshot.run_key).await?;
    sqlx::query("UPDATE sessions SET state = 1, snapshot = $1 WHERE run_key = $2")
        .bind(snapshot.id.as_bytes().as_slice())
        .bind(snapshot.run_key.as_bytes().as_slice())
        .execute(conn)
        .await
        .doing(DOING)?;
    Ok(())
}

async fn drop_reserved(conn: &mut Conn, key: &IdempotencyKey) -> Result<()> {
    sqlx::query("DELETE FROM reservations WHERE run_key = $1")
        .bind(key.as_bytes().as_slice())
        .execute(conn)
        .await
        .doing("drop a reservation")?;
    Ok(())
}

impl Catalog {
    /// Reserves a record before it is put: checks the lease, checks and stamps every relied-on chunk and
    /// node, keeps the record. `relied` is read only if a prune began after `stamped_since` (the number
    /// that `begin` gave), so it may be costly to make; it need not name what the parent's tree names.
    /// `ChunkGone` lists what must be uploaded again. The same record again is no error.
    pub async fn reserve(
        &self,
        reservation: &Reservation,
        epoch: u64,
        relied: impl Iterator<Item = [u8; 32]> + Send + Clone,
        stamped_since: Option<PruneNumber>,
    ) -> Result<()> {
        transact!(self, "reserve a snapshot", |conn| {
            let mut relied = relied.clone();
            reserve(conn, reservation, epoch, &mut relied, stamped_since).await
        })
    }

    /// Makes a snapshot visible whose record is durable in the store. Again: no change. Its reservation
    /// and session end with it; neither need exist, so records found in the store come in here too.
    pub async fn publish(&self, snapshot: &SnapshotRow) -> Result<()> {
        transact!(self, "publish a snapshot", |conn| publish(conn, snapshot)
            .await)
    }

    /// The run's reservation.
    pub async fn reservation(&self, key: &IdempotencyKey) -> Result<Option<Reservation>> {
        let mut conn = self.readers.acquire().await.doing("find a reservation")?;
        reservation(&mut conn, key).await
    }

    /// The snapshot that a run became.
    pub async fn committed(&self, key: &IdempotencyKey) -> Result<Option<SnapshotId>> {
        let mut conn = self.readers.acquire().await.doing("find a committed run")?;
        Ok(committed(&mut conn, key).await?.map(|(id, _)| id))
    }

    /// Reservations that were neither published nor dropped.
    pub async fn unpublished(&self) -> Result<Vec<Reservation>> {
        let mut conn = self.readers.acquire().await.doing("list reservations")?;
        let sql = format!("SELECT {COLUMNS} FROM reservations ORDER BY reserved_ns, run_key");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut *conn)
            .await
            .doing("list reservations")?;
        rows.iter().map(decode).collect()
    }

    /// Drops a reservation whose record is not in the store and will not be put.
    pub async fn drop_reservation(&self, key: &IdempotencyKey) -> Result<()> {
        transact!(self, "drop a reservation", |conn| drop_reserved(conn, key)
            .await)
    }
}
