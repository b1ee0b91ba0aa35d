//! Which chunks and nodes are present, and where. Only live packs count. Whoever is told "present" may
//! rely on it until its commit: the answer stamps the row with the newest prune number in the same
//! transaction, and `reserve` checks again if a prune began since.

use crate::catalog::batch::{self, MAX_BATCH};
use crate::catalog::dialect::{self, Conn, DbRow};
use crate::catalog::error::{Doing, Result, bad_row};
use crate::catalog::packs::{PACK_COLUMNS, pack_info};
use crate::catalog::{
    Catalog, Location, PackInfo, PackNo, PackState, PruneNumber, VolumeNo, counters, held, transact,
};
use holdfast_format::frame::Codec;
use holdfast_format::id::ChunkId;
use sqlx::{AssertSqlSafe, Row};
use std::collections::HashMap;

/// An id that is 32 bytes: of a chunk or of a node.
pub(super) type RawId = [u8; 32];

/// What the index knows of an id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub row_no: i64,
    pub stamp: i64,
    pub pack_no: i64,
    pub state: PackState,
    /// Plain bytes of the chunk or node.
    pub length: u32,
}

impl Known {
    pub fn is_present(&self) -> bool {
        self.state == PackState::Live
    }
}

/// Sorted, each once: neighbours in the table are then looked up together.
pub(super) fn sorted(ids: &[RawId]) -> Vec<RawId> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// What the index knows of these ids, whatever the state of their packs.
pub(super) async fn known(conn: &mut Conn, ids: &[RawId]) -> Result<HashMap<RawId, Known>> {
    let id = dialect::hex("c.id");
    let head = format!(
        "SELECT {} FROM chunks c JOIN packs p ON p.pack_no = c.pack_no WHERE c.id",
        dialect::joined(&[
            &id,
            "c.row_no",
            "c.stamp",
            "c.pack_no",
            "p.state",
            "c.item_length"
        ])
    );
    let mut out = HashMap::new();
    for ids in ids.chunks(MAX_BATCH) {
        let rows = batch::joined_in(conn, (&head, ""), ids).await?;
        out.reserve(rows.len());
        for (id, [row_no, stamp, pack_no, state, length]) in rows {
            let known = Known {
                row_no,
                stamp,
                pack_no,
                state: PackState::from_number(state)?,
                length: u32::try_from(length).map_err(|_| bad_row("length of a chunk"))?,
            };
            out.insert(id, known);
        }
    }
    Ok(out)
}

pub(super) fn raw_id(row: &DbRow, column: usize) -> Result<RawId> {
    let id: &[u8] = row.try_get(column).doing("read an id")?;
    RawId::try_from(id).map_err(|_| bad_row("id that is not 32 bytes"))
}

/// Stamps rows with a prune number; older stamps only.
pub(super) async fn stamp(conn: &mut Conn, ids: &[RawId], prune: PruneNumber) -> Result<()> {
    for range in batch::ranges(ids.len()) {
        let (number, ids_list) = (prune.0, dialect::list(range.len()));
        let sql = format!(
            "UPDATE chunks SET stamp = {number} WHERE stamp < {number} AND id IN {ids_list}"
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for id in &ids[range] {
            query = query.bind(id.as_slice());
        }
        query.execute(&mut *conn).await.doing("stamp chunks")?;
    }
    Ok(())
}

/// Stamps those of the present ids whose stamp is older.
pub(super) async fn stamp_present(conn: &mut Conn, known: &HashMap<RawId, Known>) -> Result<()> {
    let prune = PruneNumber(counters::read(conn, counters::PRUNE).await?);
    let stale = |(id, known): (&RawId, &Known)| {
        (known.is_present() && known.stamp < prune.0).then_some(*id)
    };
    let mut ids: Vec<RawId> = known.iter().filter_map(stale).collect();
    ids.sort_unstable();
    stamp(conn, &ids, prune).await
}

/// Adds those of these ids that are present to what the volume holds, and stamps them.
pub(super) async fn hold(
    conn: &mut Conn,
    volume: VolumeNo,
    known: &HashMap<RawId, Known>,
) -> Result<()> {
    stamp_present(conn, known).await?;
    let present = known.values().filter(|known| known.is_present());
    let rows: Vec<i64> = present.map(|known| known.row_no).collect();
    held::add(conn, volume, &rows).await
}

/// Which of these ids are present and held: `known` of the held ones.
async fn held_known(
    conn: &mut Conn,
    volume: VolumeNo,
    ids: &[RawId],
) -> Result<HashMap<RawId, Known>> {
    let mut known = known(conn, ids).await?;
    known.retain(|_, known| known.is_present());
    let (ids, rows): (Vec<RawId>, Vec<i64>) =
        known.iter().map(|(id, known)| (*id, known.row_no)).unzip();
    for (id, held) in ids.iter().zip(held::contains(conn, volume, &rows).await?) {
        if !held {
            known.remove(id);
        }
    }
    Ok(known)
}

async fn stamped_held(
    conn: &mut Conn,
    volume: VolumeNo,
    ids: &[RawId],
) -> Result<HashMap<RawId, Known>> {
    let known = held_known(conn, volume, ids).await?;
    stamp_present(conn, &known).await?;
    Ok(known)
}

async fn stamped(conn: &mut Conn, ids: &[RawId]) -> Result<HashMap<RawId, Known>> {
    let known = known(conn, ids).await?;
    stamp_present(conn, &known).await?;
    Ok(known)
}

async fn hold_present(
    conn: &mut Conn,
    volume: VolumeNo,
    ids: &[RawId],
) -> Result<HashMap<RawId, Known>> {
    let known = known(conn, ids).await?;
    hold(conn, volume, &known).await?;
    Ok(known)
}

fn raw(ids: &[ChunkId]) -> Vec<RawId> {
    ids.iter().map(|id| id.into_bytes()).collect()
}

fn lengths(ids: &[RawId], known: &HashMap<RawId, Known>) -> Vec<Option<u32>> {
    let length = |id| known.get(id).map(|known: &Known| known.length);
    ids.iter().map(length).collect()
}

fn present(ids: &[RawId], known: &HashMap<RawId, Known>) -> Vec<bool> {
    let is_present = |id| known.get(id).is_some_and(Known::is_present);
    ids.iter().map(is_present).collect()
}

impl Catalog {
    /// The lengths in bytes of those of these chunks that the volume holds: it sent them, or was found
    /// to have them, and they are present. `None`: not held. What is held is also stamped.
    pub async fn held(&self, volume: VolumeNo, ids: &[ChunkId]) -> Result<Vec<Option<u32>>> {
        let ids = raw(ids);
        let wanted = sorted(&ids);
        let mut conn = self.readers.begin().await.doing("look up chunks")?;
        let prune = counters::read(&mut conn, counters::PRUNE).await?;
        let known = held_known(&mut conn, volume, &wanted).await?;
        drop(conn);
        if known.values().all(|known| known.stamp >= prune) {
            return Ok(lengths(&ids, &known));
        }
        let known = transact!(self, "stamp held chunks", |conn| {
            stamped_held(conn, volume, &wanted).await
        })?;
        Ok(lengths(&ids, &known))
    }

    /// Whether each of these chunks or nodes is present in the repository. What is present is stamped.
    /// For the coordinator's own decision what to store, never for an answer to an agent.
    pub async fn present(&self, ids: &[RawId]) -> Result<Vec<bool>> {
        let wanted = sorted(ids);
        let mut conn = self.readers.begin().await.doing("look up chunks")?;
        let prune = counters::read(&mut conn, counters::PRUNE).await?;
        let known = known(&mut conn, &wanted).await?;
        drop(conn);
        let stale = |known: &Known| known.is_present() && known.stamp < prune;
        if !known.values().any(stale) {
            return Ok(present(ids, &known));
        }
        let known = transact!(self, "stamp chunks", |conn| stamped(conn, &wanted).await)?;
        Ok(present(ids, &known))
    }

    /// Adds chunks that are present to what the volume holds; `false` for those that are not present
    /// and must be stored. Only for chunks whose bytes the volume has shown.
    pub async fn hold(&self, volume: VolumeNo, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let ids = raw(ids);
        let wanted = sorted(&ids);
        let known = transact!(self, "hold chunks", |conn| {
            hold_present(conn, volume, &wanted).await
        })?;
        Ok(present(&ids, &known))
    }

    /// Ids after this one, ascending, at most so many: of all chunks and nodes, whatever became of their
    /// packs.
    pub async fn ids(&self, after: Option<&RawId>, limit: u32) -> Result<Vec<RawId>> {
        const DOING: &str = "list ids";
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let rows = sqlx::query("SELECT id FROM chunks WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.map_or(&[][..], |id| &id[..]))
            .bind(i64::from(limit))
            .fetch_all(&mut *conn)
            .await
            .doing(DOING)?;
        rows.iter().map(|row| raw_id(row, 0)).collect()
    }

    /// Where each of these chunks or nodes lies; `None`: not present. For what is written now: ids in a
    /// condemned pack are not found.
    pub async fn locate(&self, ids: &[RawId]) -> Result<Vec<Option<Location>>> {
        self.locate_in(ids, |state| state == PackState::Live).await
    }

    /// The same for a reader of a snapshot that was visible when it began: a condemned pack is still
    /// there, and is read.
    pub async fn locate_to_read(&self, ids: &[RawId]) -> Result<Vec<Option<Location>>> {
        let readable = |state| matches!(state, PackState::Live | PackState::Condemned);
        self.locate_in(ids, readable).await
    }

    async fn locate_in(
        &self,
        ids: &[RawId],
        wanted: impl Fn(PackState) -> bool,
    ) -> Result<Vec<Option<Location>>> {
        let unique = sorted(ids);
        let mut conn = self.readers.begin().await.doing("look up chunks")?;
        let items = items(&mut conn, &unique).await?;
        let mut packs = packs_of(&mut conn, &items).await?;
        packs.retain(|_, pack| wanted(pack.state));
        let frames = frames_of(&mut conn, &items, |pack| packs.contains_key(&pack)).await?;
        drop(conn);
        let mut found = HashMap::with_capacity(items.len());
        for item in items {
            let Some(pack) = packs.get(&item.pack_no) else {
                continue;
            };
            let frame = frames
                .get(&(item.pack_no, item.frame_no))
                .ok_or_else(|| bad_row(format!("a frame of pack {} is missing", pack.pack.id)))?;
            found.insert(item.id, place(&item, pack, frame)?);
        }
        Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
    }
}

struct Item {
    id: RawId,
    pack_no: i64,
    frame_no: i64,
    start: i64,
    length: i64,
}

struct Frame {
    start: i64,
    stored_length: i64,
    codec: i64,
    plain_length: i64,
}

async fn items(conn: &mut Conn, ids: &[RawId]) -> Result<Vec<Item>> {
    let id = dialect::hex("id");
    let head = format!(
        "SELECT {} FROM chunks WHERE id",
        dialect::joined(&[&id, "pack_no", "frame_no", "item_start", "item_length"])
    );
    let mut out = Vec::with_capacity(ids.len());
    for ids in ids.chunks(MAX_BATCH) {
        let rows = batch::joined_in(conn, (&head, ""), ids).await?;
        let item = |(id, [pack_no, frame_no, start, length]): (RawId, [i64; 4])| Item {
            id,
            pack_no,
            frame_no,
            start,
            length,
        };
        out.extend(rows.into_iter().map(item));
    }
    Ok(out)
}

async fn packs_of(conn: &mut Conn, items: &[Item]) -> Result<HashMap<i64, PackInfo>> {
    let mut numbers: Vec<i64> = items.iter().map(|item| item.pack_no).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let head = format!("SELECT {PACK_COLUMNS} FROM packs WHERE pack_no");
    let mut out = HashMap::with_capacity(numbers.len());
    for numbers in numbers.chunks(MAX_BATCH) {
        for row in batch::select_in_numbers(conn, (&head, ""), numbers).await? {
            let pack = pack_info(&row)?;
            out.insert(pack.no.0, pack);
        }
    }
    Ok(out)
}

/// The frames of these items in wanted packs. Items that lie together share frames, and items far apart
/// have one each: either way as many rows are read as are needed.
async fn frames_of(
    conn: &mut Conn,
    items: &[Item],
    wanted: impl Fn(i64) -> bool,
) -> Result<HashMap<(i64, i64), Frame>> {
    let mut keys: Vec<(i64, i64)> = items
        .iter()
        .filter(|item| wanted(item.pack_no))
        .map(|item| (item.pack_no, item.frame_no))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let columns = [
        "pack_no",
        "frame_no",
        "start",
        "stored_length",
        "codec",
        "plain_length",
    ];
    let joined = dialect::joined(&columns);
    let mut out = HashMap::with_capacity(keys.len());
    for keys in keys.chunks(MAX_BATCH) {
        let size = batch::filled_up(keys.len());
        let sql = format!(
            "SELECT {joined} FROM frames WHERE (pack_no, frame_no) IN (VALUES {})",
            dialect::rows(size, 2)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (pack_no, frame_no) in (keys.iter().chain(keys.last().into_iter().cycle())).take(size) {
            query = query.bind(*pack_no).bind(*frame_no);
        }
        let rows = query.fetch_all(&mut *conn).await.doing("look up frames")?;
        for [pack_no, frame_no, start, stored_length, codec, plain_length] in
            batch::take_apart(&rows, batch::numbers)?
        {
            let frame = Frame {
                start,
                stored_length,
                codec,
                plain_length,
            };
            out.insert((pack_no, frame_no), frame);
        }
    }
    Ok(out)
}

fn place(item: &Item, pack: &PackInfo, frame: &Frame) -> Result<Location> {
    let wrong = || bad_row("place of a chunk");
    let small = |number: i64| u32::try_from(number).map_err(|_| wrong());
    let codec = u8::try_from(frame.codec).map_err(|_| wrong())?;
    Ok(Location {
        pack: pack.pack.id,
        pack_no: PackNo(item.pack_no),
        header: pack.pack.header(),
        pack_size: pack.pack.size,
        frame_no: small(item.frame_no)?,
        offset: u64::try_from(frame.start).map_err(|_| wrong())?,
        stored_length: small(frame.stored_length)?,
        codec: Codec::try_from(codec).map_err(|_| wrong())?,
        plain_length: small(frame.plain_length)?,
        item_offset: small(item.start)?,
        item_length: small(item.length)?,
    })
}
