//! Marks, indexed. The objects in the store are the truth; a mark never changes.

use crate::catalog::batch::{self, MAX_BATCH};
use crate::catalog::dialect::{Conn, DbRow};
use crate::catalog::error::{Doing, Result, bad_row};
use crate::catalog::lookup::raw_id;
use crate::catalog::{Catalog, MarkRow, transact};
use holdfast_format::id::{MarkId, SnapshotId};
use sqlx::Row;
use std::collections::HashSet;

const DOING: &str = "read a mark";

fn decode(row: &DbRow) -> Result<MarkRow> {
    let subject: Option<&[u8]> = row.try_get(3).doing(DOING)?;
    let kind: i64 = row.try_get(1).doing(DOING)?;
    let body: &[u8] = row.try_get(4).doing(DOING)?;
    Ok(MarkRow {
        id: MarkId::from_bytes(raw_id(row, 0)?),
        kind: u8::try_from(kind).map_err(|_| bad_row("kind of a mark"))?,
        time_ns: row.try_get(2).doing(DOING)?,
        subject: subject
            .map(<[u8; 32]>::try_from)
            .transpose()
            .map_err(|_| bad_row("subject of a mark"))?,
        body: body.to_vec().into(),
    })
}

async fn add(conn: &mut Conn, marks: &[MarkRow]) -> Result<()> {
    batch::insert(
        conn,
        (
            "INSERT INTO marks (id, kind, time_ns, subject, body)",
            " ON CONFLICT (id) DO NOTHING",
        ),
        5,
        marks,
        |query, mark| {
            query
                .bind(mark.id.as_bytes().as_slice())
                .bind(i64::from(mark.kind))
                .bind(mark.time_ns)
                .bind(mark.subject.as_ref().map(|id| id.as_slice()))
                .bind(&mark.body[..])
        },
    )
    .await?;
    Ok(())
}

impl Catalog {
    /// Indexes marks that are durable in the store; known ones change nothing.
    pub async fn add_marks(&self, marks: &[MarkRow]) -> Result<()> {
        transact!(self, "index marks", |conn| add(conn, marks).await)
    }

    /// Whether each of these marks is indexed.
    pub async fn known_marks(&self, ids: &[MarkId]) -> Result<Vec<bool>> {
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let mut known = HashSet::new();
        for ids in ids.chunks(MAX_BATCH) {
            let raw: Vec<[u8; 32]> = ids.iter().map(|id| id.into_bytes()).collect();
            for row in
                batch::select_in(&mut conn, ("SELECT id FROM marks WHERE id", ""), &raw).await?
            {
                known.insert(raw_id(&row, 0)?);
            }
        }
        Ok(ids.iter().map(|id| known.contains(id.as_bytes())).collect())
    }

    /// Pins and holds of a snapshot that no mark has released, oldest first. Holds whose time has
    /// passed are among them.
    pub async fn keeping(&self, snapshot: &SnapshotId) -> Result<Vec<MarkRow>> {
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let rows = sqlx::query(
            "SELECT m.id, m.kind, m.time_ns, m.subject, m.body FROM marks m
             WHERE m.subject = $1 AND m.kind IN ($2, $3) AND NOT EXISTS
             (SELECT 1 FROM marks r WHERE r.subject = m.id AND r.kind = $4)
             ORDER BY m.time_ns, m.id",
        )
        .bind(snapshot.as_bytes().as_slice())
        .bind(i64::from(MarkRow::PIN))
        .bind(i64::from(MarkRow::HOLD))
        .bind(i64::from(MarkRow::RELEASE))
        .fetch_all(&mut *conn)
        .await
        .doing(DOING)?;
        rows.iter().map(decode).collect()
    }

    /// Marks of one kind, or of all, oldest first.
    pub async fn marks(&self, kind: Option<u8>) -> Result<Vec<MarkRow>> {
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let rows = sqlx::query(
            "SELECT id, kind, time_ns, subject, body FROM marks WHERE ($1 < 0 OR kind = $1)
             ORDER BY time_ns, id",
        )
        .bind(kind.map_or(-1, i64::from))
        .fetch_all(&mut *conn)
        .await
        .doing(DOING)?;
        rows.iter().map(decode).collect()
    }
}
