//! The durable list of unfinished post-hooks. What a row says is the business of who wrote it.

use crate::catalog::dialect::Conn;
use crate::catalog::error::{Doing, Result};
use crate::catalog::{Catalog, transact};
use sqlx::Row;

async fn add(conn: &mut Conn, body: &str) -> Result<i64> {
    let row = sqlx::query("INSERT INTO unfinished_hooks (body) VALUES ($1) RETURNING no")
        .bind(body)
        .fetch_one(conn)
        .await
        .doing("add a hook")?;
    row.try_get(0).doing("add a hook")
}

async fn change(conn: &mut Conn, no: i64, body: &str) -> Result<()> {
    let query = sqlx::query("UPDATE unfinished_hooks SET body = $2 WHERE no = $1");
    let changed = query.bind(no).bind(body).execute(conn).await;
    changed.doing("change a hook").map(drop)
}

async fn remove(conn: &mut Conn, no: i64) -> Result<()> {
    let query = sqlx::query("DELETE FROM unfinished_hooks WHERE no = $1").bind(no);
    query.execute(conn).await.doing("remove a hook").map(drop)
}

impl Catalog {
    /// Remembers a post-hook, until it is removed; its number, higher than all before.
    pub async fn add_hook(&self, body: &str) -> Result<i64> {
        transact!(self, "add a hook", |conn| add(conn, body).await)
    }

    /// Remembers something else of it.
    pub async fn change_hook(&self, no: i64, body: &str) -> Result<()> {
        transact!(self, "change a hook", |conn| change(conn, no, body).await)
    }

    /// Forgets it; one that is not there is no error.
    pub async fn remove_hook(&self, no: i64) -> Result<()> {
        transact!(self, "remove a hook", |conn| remove(conn, no).await)
    }

    /// All of them, the first first.
    pub async fn hooks(&self) -> Result<Vec<(i64, String)>> {
        const DOING: &str = "read hooks";
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let query = sqlx::query("SELECT no, body FROM unfinished_hooks ORDER BY no");
        let rows = query.fetch_all(&mut *conn).await.doing(DOING)?;
        let read = |row: &crate::catalog::dialect::DbRow| {
            Ok((row.try_get(0).doing(DOING)?, row.try_get(1).doing(DOING)?))
        };
        rows.iter().map(read).collect()
    }
}
