//! Registering a durable pack: its row, its frames, a row for each new id, and what volumes hold of it,
//! in one transaction. Registering it again changes nothing.

use crate::catalog::batch;
use crate::catalog::dialect::Conn;
use crate::catalog::error::{CatalogError, Doing, Result};
use crate::catalog::lookup::{self, Known, RawId};
use crate::catalog::packs;
use crate::catalog::{
    Catalog, PackImport, PackNo, PackRow, PackState, PruneNumber, Registered, VolumeNo, counters,
    transact,
};
use holdfast_format::id::ChunkId;
use holdfast_format::pack::{ItemKind, PackFrame};
use std::collections::HashMap;

struct ChunkRow {
    id: RawId,
    row_no: i64,
    frame_no: u32,
    start: u32,
    length: u32,
}

struct Items {
    /// By id, each once.
    rows: Vec<ChunkRow>,
    chunks: usize,
    nodes: usize,
}

fn items(frames: &[PackFrame]) -> Items {
    let count = frames.iter().map(|frame| frame.items.len()).sum();
    let mut rows = Vec::with_capacity(count);
    let (mut chunks, mut nodes) = (0, 0);
    for frame in frames {
        for item in &frame.items {
            match item.kind {
                ItemKind::Chunk => chunks += 1,
                ItemKind::Node => nodes += 1,
            }
            rows.push(ChunkRow {
                id: item.id,
                row_no: 0,
                frame_no: frame.frame_no,
                start: item.offset_in_frame,
                length: item.length,
            });
        }
    }
    // Stable: of two copies in one pack the first counts.
    rows.sort_by_key(|row| row.id);
    rows.dedup_by_key(|row| row.id);
    Items {
        rows,
        chunks,
        nodes,
    }
}

/// The pack's row; live afterwards.
async fn pack_row(conn: &mut Conn, pack: &PackRow, items: &Items) -> Result<PackNo> {
    let known = packs::states(conn, &[pack.id]).await?.remove(&pack.id);
    match known {
        Some((no, PackState::Live, _)) => Ok(no),
        Some((no, PackState::Condemned | PackState::Missing, _)) => {
            let from = [PackState::Condemned, PackState::Missing];
            packs::change_state(conn, &[no], &from, PackState::Live).await?;
            Ok(no)
        }
        Some((_, state @ (PackState::Deleting | PackState::Gone), _)) => {
            Err(CatalogError::PackGone {
                pack: pack.id,
                state,
            })
        }
        None => {
            let no = counters::take(conn, counters::PACKS, 1).await?;
            sqlx::query(
                "INSERT INTO packs (pack_no, id, state, kind, domain, generation, master, salt,
                 size, received_ns, chunk_count, node_count)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            )
            .bind(no)
            .bind(pack.id.as_bytes().as_slice())
            .bind(PackState::Live as i64)
            .bind(pack.kind as i64)
            .bind(pack.domain.as_bytes().as_slice())
            .bind(i64::from(pack.generation))
            .bind(i64::from(pack.master))
            .bind(pack.salt.as_slice())
            .bind(pack.size as i64)
            .bind(pack.received_ns)
            .bind(items.chunks as i64)
            .bind(items.nodes as i64)
            .execute(conn)
            .await
            .doing("register a pack")?;
            Ok(PackNo(no))
        }
    }
}

async fn frame_rows(conn: &mut Conn, no: PackNo, frames: &[PackFrame]) -> Result<()> {
    batch::insert(
        conn,
        (
            "INSERT INTO frames (pack_no, frame_no, start, stored_length, codec, plain_length)",
            " ON CONFLICT (pack_no, frame_no) DO NOTHING",
        ),
        6,
        frames,
        |query, frame| {
            query
                .bind(no.0)
                .bind(i64::from(frame.frame_no))
                .bind(frame.offset as i64)
                .bind(i64::from(frame.stored_length))
                .bind(frame.codec as i64)
                .bind(i64::from(frame.plain_length))
        },
    )
    .await?;
    Ok(())
}

/// Inserts rows for these items; how many rows were inserted or changed.
async fn chunk_rows(
    conn: &mut Conn,
    no: PackNo,
    prune: PruneNumber,
    rows: &[ChunkRow],
    conflict: &str,
) -> Result<u64> {
    let head = "INSERT INTO chunks (id, row_no, pack_no, frame_no, item_start, item_length, stamp)";
    batch::insert(conn, (head, conflict), 7, rows, |query, row| {
        query
            .bind(row.id.as_slice())
            .bind(row.row_no)
            .bind(no.0)
            .bind(i64::from(row.frame_no))
            .bind(i64::from(row.start))
            .bind(i64::from(row.length))
            .bind(prune.0)
    })
    .await
}

const KEEP: &str = " ON CONFLICT (id) DO NOTHING";
const MOVE: &str = " ON CONFLICT (id) DO UPDATE SET pack_no = excluded.pack_no, \
                    frame_no = excluded.frame_no, item_start = excluded.item_start, \
                    item_length = excluded.item_length, stamp = excluded.stamp";

/// Registers one pack; what is known of its ids afterwards, and how many were new.
async fn register(
    conn: &mut Conn,
    pack: &PackRow,
    frames: &[PackFrame],
) -> Result<(PackNo, HashMap<RawId, Known>, u64)> {
    let prune = PruneNumber(counters::read(conn, counters::PRUNE).await?);
    let mut items = items(frames);
    let no = pack_row(conn, pack, &items).await?;
    frame_rows(conn, no, frames).await?;

    // Nearly always all are new: inserting tells, without a look before. Numbers of those that are not
    // are lost, which leaves gaps and nothing worse.
    let first = counters::take(conn, counters::ROWS, items.rows.len()).await?;
    for (row_no, row) in (first..).zip(&mut items.rows) {
        row.row_no = row_no;
    }
    let new = chunk_rows(conn, no, prune, &items.rows, KEEP).await?;
    let here = |row: &ChunkRow| Known {
        row_no: row.row_no,
        stamp: prune.0,
        pack_no: no.0,
        state: PackState::Live,
        length: row.length,
    };
    let mut known: HashMap<RawId, Known> =
        items.rows.iter().map(|row| (row.id, here(row))).collect();
    if new < items.rows.len() as u64 {
        let ids: Vec<RawId> = items.rows.iter().map(|row| row.id).collect();
        known = lookup::known(conn, &ids).await?;
        // A row of a live pack stays where it is: whoever located it may be reading it. A row whose
        // pack is gone or going keeps its number and gets a new place.
        items
            .rows
            .retain(|row| !known.get(&row.id).is_some_and(Known::is_present));
        chunk_rows(conn, no, prune, &items.rows, MOVE).await?;
        for row in &mut items.rows {
            row.row_no = known.get(&row.id).map_or(row.row_no, |known| known.row_no);
            known.insert(row.id, here(row));
        }
        lookup::stamp_present(conn, &known).await?;
    }
    Ok((no, known, new))
}

async fn register_held(
    conn: &mut Conn,
    pack: &PackRow,
    frames: &[PackFrame],
    held_by: &[(VolumeNo, Vec<ChunkId>)],
) -> Result<Registered> {
    let (pack_no, mut known, new_count) = register(conn, pack, frames).await?;
    let mut missing = Vec::new();
    for (volume, ids) in held_by {
        let ids: Vec<RawId> = ids.iter().map(|id| id.into_bytes()).collect();
        let others: Vec<RawId> = ids
            .iter()
            .filter(|id| !known.contains_key(*id))
            .copied()
            .collect();
        known.extend(lookup::known(conn, &lookup::sorted(&others)).await?);
        let mut held = HashMap::with_capacity(ids.len());
        for id in ids {
            match known.get(&id).filter(|known| known.is_present()) {
                Some(known) => {
                    held.insert(id, *known);
                }
                None => missing.push(id),
            }
        }
        lookup::hold(conn, *volume, &held).await?;
    }
    Ok(Registered {
        pack_no,
        new_count,
        missing: lookup::sorted(&missing),
    })
}

async fn import(conn: &mut Conn, imports: &[PackImport]) -> Result<u64> {
    let mut new = 0;
    for import in imports {
        new += register(conn, &import.pack, &import.frames).await?.2;
    }
    Ok(new)
}

impl Catalog {
    /// Registers a pack that is durable in the store, and what volumes hold: of this pack, and of
    /// others that were found present meanwhile. Everything is stamped with the newest prune number.
    pub async fn register_pack(
        &self,
        pack: &PackRow,
        frames: &[PackFrame],
        held_by: &[(VolumeNo, Vec<ChunkId>)],
    ) -> Result<Registered> {
        transact!(self, "register a pack", |conn| {
            register_held(conn, pack, frames, held_by).await
        })
    }

    /// Registers packs that were found in the store, in one transaction; how many ids were new. Nobody
    /// holds them.
    pub async fn import_packs(&self, imports: &[PackImport]) -> Result<u64> {
        transact!(self, "import packs", |conn| import(conn, imports).await)
    }
}
