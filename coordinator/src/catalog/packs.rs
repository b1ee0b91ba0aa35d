//! Packs and their states. What the store lists and what the catalog knows are compared through these
//! methods, a page at a time.

use crate::catalog::batch::{self, MAX_BATCH};
use crate::catalog::dialect::{self, Conn, DbRow};
use crate::catalog::error::{Doing, Result, bad_row};
use crate::catalog::{Catalog, PackInfo, PackNo, PackRow, PackState, Totals, counters, transact};
use holdfast_format::id::{DomainId, PackId};
use holdfast_format::pack::PackFrame;
use holdfast_format::seal::ObjectKind;
use sqlx::{AssertSqlSafe, Row};
use std::collections::HashMap;

/// A pack with what its footer lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackImport {
    /// The pack.
    pub pack: PackRow,
    /// Its frames.
    pub frames: Vec<PackFrame>,
}

/// Where a frame lies in its pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramePlace {
    /// Its number.
    pub frame_no: u32,
    /// Where it begins.
    pub offset: u64,
    /// Its sealed bytes.
    pub stored_length: u32,
}

pub(super) const PACK_COLUMNS: &str = "pack_no, id, state, kind, domain, generation, master, salt, \
                                       size, received_ns, chunk_count, node_count";

/// A pack from [`PACK_COLUMNS`].
pub(super) fn pack_info(row: &DbRow) -> Result<PackInfo> {
    const DOING: &str = "read a pack";
    let bytes = |column| row.try_get::<&[u8], _>(column).doing(DOING);
    let number = |column| row.try_get::<i64, _>(column).doing(DOING);
    let wrong = |what: &str| bad_row(format!("pack row: {what}"));
    let count = |column| u64::try_from(number(column)?).map_err(|_| wrong("negative count"));
    let small = |column| u32::try_from(number(column)?).map_err(|_| wrong("number"));
    let kind = u8::try_from(number(3)?).ok();
    let pack = PackRow {
        id: PackId::try_from(bytes(1)?).map_err(|_| wrong("id"))?,
        kind: kind
            .and_then(|kind| ObjectKind::try_from(kind).ok())
            .ok_or_else(|| wrong("kind"))?,
        domain: DomainId::try_from(bytes(4)?).map_err(|_| wrong("domain"))?,
        generation: small(5)?,
        master: small(6)?,
        salt: bytes(7)?.try_into().map_err(|_| wrong("salt"))?,
        size: count(8)?,
        received_ns: number(9)?,
    };
    Ok(PackInfo {
        no: PackNo(number(0)?),
        state: PackState::from_number(number(2)?)?,
        pack,
        chunk_count: count(10)?,
        node_count: count(11)?,
    })
}

/// Numbers, states and sizes of packs by id.
pub(super) async fn states(
    conn: &mut Conn,
    ids: &[PackId],
) -> Result<HashMap<PackId, (PackNo, PackState, u64)>> {
    const DOING: &str = "look up packs";
    let mut out = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(MAX_BATCH) {
        let raw: Vec<[u8; 32]> = ids.iter().map(|id| id.into_bytes()).collect();
        let head = "SELECT id, pack_no, state, size FROM packs WHERE id";
        for row in batch::select_in(conn, (head, ""), &raw).await? {
            let id: &[u8] = row.try_get(0).doing(DOING)?;
            let id = PackId::try_from(id).map_err(|_| bad_row("pack id"))?;
            let no = PackNo(row.try_get(1).doing(DOING)?);
            let state = PackState::from_number(row.try_get(2).doing(DOING)?)?;
            let size: i64 = row.try_get(3).doing(DOING)?;
            let size = u64::try_from(size).map_err(|_| bad_row("size of a pack"))?;
            out.insert(id, (no, state, size));
        }
    }
    Ok(out)
}

/// Moves packs from one of the states `from` to `to`; how many moved.
pub(super) async fn change_state(
    conn: &mut Conn,
    packs: &[PackNo],
    from: &[PackState],
    to: PackState,
) -> Result<u64> {
    let mut changed = 0;
    let from: Vec<String> = from
        .iter()
        .map(|state| (*state as u8).to_string())
        .collect();
    for range in batch::ranges(packs.len()) {
        let sql = format!(
            "UPDATE packs SET state = {} WHERE state IN ({}) AND pack_no IN {}",
            to as u8,
            from.join(","),
            dialect::list(range.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for pack in &packs[range] {
            query = query.bind(pack.0);
        }
        let done = query.execute(&mut *conn).await.doing("change packs")?;
        changed += done.rows_affected();
    }
    Ok(changed)
}

/// Drops the packs of a deletion record; whether any index row may have gone with them.
async fn apply_deletion(conn: &mut Conn, number: u64, packs: &[PackId]) -> Result<bool> {
    const DOING: &str = "apply a deletion";
    let known = states(conn, packs).await?;
    let live =
        |(no, state, _): &(PackNo, PackState, u64)| (*state != PackState::Gone).then_some(*no);
    let dropped: Vec<PackNo> = known.values().filter_map(live).collect();
    let before = [
        PackState::Live,
        PackState::Condemned,
        PackState::Deleting,
        PackState::Missing,
    ];
    change_state(conn, &dropped, &before, PackState::Gone).await?;
    // Chunks are clustered by id: each statement reads them all, so there are few statements.
    for packs in dropped.chunks(MAX_BATCH) {
        for table in ["chunks", "frames"] {
            let list = dialect::list(packs.len());
            let sql = format!("DELETE FROM {table} WHERE pack_no IN {list}");
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for pack in packs {
                query = query.bind(pack.0);
            }
            query.execute(&mut *conn).await.doing(DOING)?;
        }
    }
    // A pack that was never known leaves a row too: its object may still be listed.
    let mut unknown: Vec<PackId> = packs.to_vec();
    unknown.retain(|id| !known.contains_key(id));
    unknown.sort_unstable();
    unknown.dedup();
    let first = counters::take(conn, counters::PACKS, unknown.len()).await?;
    let rows: Vec<(i64, PackId)> = (first..).zip(unknown).collect();
    batch::insert(
        conn,
        (
            "INSERT INTO packs (pack_no, id, state, kind, domain, generation, master, salt, size, \
             received_ns, chunk_count, node_count)",
            "",
        ),
        12,
        &rows,
        |query, (no, id)| {
            query
                .bind(*no)
                .bind(id.as_bytes().as_slice())
                .bind(PackState::Gone as i64)
                .bind(ObjectKind::DataPack as i64)
                .bind([0; 16].as_slice())
                .bind(0_i64)
                .bind(0_i64)
                .bind([0; 32].as_slice())
                .bind(0_i64)
                .bind(0_i64)
                .bind(0_i64)
                .bind(0_i64)
        },
    )
    .await?;
    counters::raise(conn, counters::DELETION, number).await?;
    Ok(!dropped.is_empty())
}

async fn forget_frames(conn: &mut Conn, pack: PackNo, frames: &[u32]) -> Result<u64> {
    let mut forgotten = 0;
    for frames in frames.chunks(MAX_BATCH) {
        let list = dialect::list(frames.len());
        let sql = format!(
            "DELETE FROM chunks WHERE pack_no = {} AND frame_no IN {list}",
            pack.0
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for frame in frames {
            query = query.bind(i64::from(*frame));
        }
        let done = query.execute(&mut *conn).await;
        forgotten += done.doing("forget unreadable frames")?.rows_affected();
    }
    Ok(forgotten)
}

impl Catalog {
    /// Number, state and size of each of these packs; `None`: not known.
    pub async fn pack_states(
        &self,
        ids: &[PackId],
    ) -> Result<Vec<Option<(PackNo, PackState, u64)>>> {
        let mut conn = self.readers.acquire().await.doing("look up packs")?;
        let known = states(&mut conn, ids).await?;
        Ok(ids.iter().map(|id| known.get(id).copied()).collect())
    }

    /// Up to `limit` packs of any state after `after`, by number; empty at the end.
    pub async fn packs(&self, after: Option<PackNo>, limit: u32) -> Result<Vec<PackInfo>> {
        let mut conn = self.readers.acquire().await.doing("list packs")?;
        let sql = format!(
            "SELECT {PACK_COLUMNS} FROM packs WHERE pack_no > $1 ORDER BY pack_no LIMIT $2"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(after.map_or(0, |no| no.0))
            .bind(i64::from(limit))
            .fetch_all(&mut *conn)
            .await
            .doing("list packs")?;
        rows.iter().map(pack_info).collect()
    }

    /// A pack and where its frames lie; `None`: not known, or gone.
    pub async fn pack_frames(&self, pack: &PackId) -> Result<Option<(PackInfo, Vec<FramePlace>)>> {
        const DOING: &str = "look up a pack";
        let mut conn = self.readers.begin().await.doing(DOING)?;
        let sql = format!("SELECT {PACK_COLUMNS} FROM packs WHERE id = $1");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(pack.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await
            .doing(DOING)?;
        let Some(info) = row.as_ref().map(pack_info).transpose()? else {
            return Ok(None);
        };
        if info.state == PackState::Gone {
            return Ok(None);
        }
        let rows = sqlx::query(
            "SELECT frame_no, start, stored_length FROM frames WHERE pack_no = $1 ORDER BY frame_no",
        )
        .bind(info.no.0)
        .fetch_all(&mut *conn)
        .await
        .doing(DOING)?;
        let place = |row: &DbRow| {
            let number = |column| row.try_get::<i64, _>(column).doing(DOING);
            let wrong = |_| bad_row("frame row: number");
            Ok(FramePlace {
                frame_no: u32::try_from(number(0)?).map_err(wrong)?,
                offset: u64::try_from(number(1)?).map_err(wrong)?,
                stored_length: u32::try_from(number(2)?).map_err(wrong)?,
            })
        };
        let frames = rows.iter().map(place).collect::<Result<_>>()?;
        Ok(Some((info, frames)))
    }

    /// Drops the rows of everything that lies in these frames of a pack: it counts as absent, and gets
    /// a place again with the next pack that brings it. How many ids that were.
    pub async fn forget_frames(&self, pack: PackNo, frames: &[u32]) -> Result<u64> {
        transact!(self, "forget unreadable frames", |conn| {
            let forgotten = forget_frames(conn, pack, frames).await?;
            if forgotten > 0 {
                counters::lost(conn).await?;
            }
            Ok(forgotten)
        })
    }

    /// Marks live or condemned packs that the store does not list: what is in them counts as absent.
    pub async fn packs_missing(&self, packs: &[PackNo]) -> Result<u64> {
        let from = [PackState::Live, PackState::Condemned];
        transact!(self, "mark missing packs", |conn| {
            let changed = change_state(conn, packs, &from, PackState::Missing).await?;
            if changed > 0 {
                counters::lost(conn).await?;
            }
            Ok(changed)
        })
    }

    /// Makes packs live again that were missing and are listed now.
    pub async fn packs_found(&self, packs: &[PackNo]) -> Result<u64> {
        transact!(self, "mark found packs", |conn| {
            change_state(conn, packs, &[PackState::Missing], PackState::Live).await
        })
    }

    /// Applies deletion record `number`: its packs are gone, with their rows, and it is remembered as
    /// the highest applied. `true`: known packs went, so an id may be left without a row although
    /// another pack has a copy; the caller registers footers again.
    pub async fn apply_deletion(&self, number: u64, packs: &[PackId]) -> Result<bool> {
        transact!(self, "apply a deletion", |conn| {
            apply_deletion(conn, number, packs).await
        })
    }

    /// Sums over the catalog. Reads every pack's row, no chunk's.
    pub async fn totals(&self) -> Result<Totals> {
        const DOING: &str = "sum up the catalog";
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM volumes),
                    (SELECT COUNT(*) FROM snapshots WHERE forgotten_ns IS NULL),
                    COALESCE(SUM(chunk_count), 0), COALESCE(SUM(node_count), 0),
                    COUNT(*), COALESCE(SUM(size), 0),
                    (SELECT COUNT(*) FROM sessions WHERE state = 0)
             FROM packs WHERE state = 0",
        )
        .fetch_one(&mut *conn)
        .await
        .doing(DOING)?;
        let sum = |column: usize| {
            let value: i64 = row.try_get(column).doing(DOING)?;
            u64::try_from(value).map_err(|_| bad_row("negative sum"))
        };
        Ok(Totals {
            volumes: sum(0)?,
            snapshots: sum(1)?,
            chunks: sum(2)?,
            nodes: sum(3)?,
            packs: sum(4)?,
            pack_bytes: sum(5)?,
            open_sessions: sum(6)?,
        })
    }
}
