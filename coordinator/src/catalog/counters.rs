//! Counters and single values. A number that was given out is never given out again, whatever happens
//! to what it was for.

use crate::catalog::dialect::Conn;
use crate::catalog::error::{Doing, Result, bad_row};
use crate::catalog::{Catalog, PruneNumber, transact};
use holdfast_format::claim::ClaimKey;
use holdfast_format::id::CatalogId;
use sqlx::Row;

/// Row numbers of chunks and nodes.
pub(super) const ROWS: &str = "rows";
/// Numbers of packs.
pub(super) const PACKS: &str = "packs";
/// Numbers of volumes.
pub(super) const VOLUMES: &str = "volumes";
/// Number of the newest prune.
pub(super) const PRUNE: &str = "prune";
/// Highest deletion record that was applied.
pub(super) const DELETION: &str = "deletion";
/// Highest epoch that this catalog claimed or saw.
pub(super) const CLAIM: &str = "claim";

/// How often something that was counted on was found to be gone; made by a migration.
pub(super) const LOSSES: &str = "losses";

/// Those of the first schema, with what they start at.
pub(super) const ALL: [(&str, i64); 6] = [
    (ROWS, 0),
    (PACKS, 0),
    (VOLUMES, 0),
    (PRUNE, 1),
    (DELETION, 0),
    (CLAIM, 0),
];

/// Name of the claim under which the catalog agreed with its store, in `meta`.
const AGREED: &str = "agreed under";

async fn agreed_under(conn: &mut Conn) -> Result<Option<ClaimKey>> {
    const DOING: &str = "read a claim";
    let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
        .bind(AGREED)
        .fetch_optional(conn)
        .await
        .doing(DOING)?;
    let Some(row) = row else { return Ok(None) };
    let value: &[u8] = row.try_get(0).doing(DOING)?;
    let parts = value.split_first_chunk::<8>();
    let key = parts.and_then(|(epoch, catalog)| {
        Some(ClaimKey {
            epoch: u64::from_le_bytes(*epoch),
            catalog: CatalogId::try_from(catalog).ok()?,
        })
    });
    key.map(Some)
        .ok_or_else(|| bad_row("claim of a wrong length"))
}

async fn set_agreed_under(conn: &mut Conn, claim: &ClaimKey) -> Result<()> {
    let value = [&claim.epoch.to_le_bytes()[..], claim.catalog.as_bytes()].concat();
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(AGREED)
    .bind(value)
    .execute(conn)
    .await
    .doing("remember a claim")?;
    Ok(())
}

/// Takes `count` numbers and returns the first of them.
pub(super) async fn take(conn: &mut Conn, name: &'static str, count: usize) -> Result<i64> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let row = sqlx::query("UPDATE counters SET value = value + $1 WHERE name = $2 RETURNING value")
        .bind(count)
        .bind(name)
        .fetch_optional(conn)
        .await
        .doing("take a number")?
        .ok_or_else(|| bad_row(format!("counter {name} is missing")))?;
    Ok(row.try_get::<i64, _>(0).doing("take a number")? - count + 1)
}

/// The counter's value.
pub(super) async fn read(conn: &mut Conn, name: &'static str) -> Result<i64> {
    let row = sqlx::query("SELECT value FROM counters WHERE name = $1")
        .bind(name)
        .fetch_optional(conn)
        .await
        .doing("read a counter")?
        .ok_or_else(|| bad_row(format!("counter {name} is missing")))?;
    row.try_get(0).doing("read a counter")
}

/// Raises a counter to at least `value`.
pub(super) async fn raise(conn: &mut Conn, name: &'static str, value: u64) -> Result<()> {
    let value = i64::try_from(value).map_err(|_| bad_row(format!("counter {name} of {value}")))?;
    sqlx::query("UPDATE counters SET value = $1 WHERE name = $2 AND value < $1")
        .bind(value)
        .bind(name)
        .execute(conn)
        .await
        .doing("raise a counter")?;
    Ok(())
}

/// Counts a loss.
pub(super) async fn lost(conn: &mut Conn) -> Result<()> {
    take(conn, LOSSES, 1).await.map(drop)
}

impl Catalog {
    async fn counter(&self, name: &'static str) -> Result<i64> {
        let mut conn = self.readers.acquire().await.doing("read a counter")?;
        read(&mut conn, name).await
    }

    async fn unsigned(&self, name: &'static str) -> Result<u64> {
        let value = self.counter(name).await?;
        u64::try_from(value).map_err(|_| bad_row(format!("counter {name} of {value}")))
    }

    /// Number of the newest prune.
    pub async fn prune_number(&self) -> Result<PruneNumber> {
        Ok(PruneNumber(self.counter(PRUNE).await?))
    }

    /// Begins the next prune: from now on everything found present is stamped with its number.
    pub async fn next_prune(&self) -> Result<PruneNumber> {
        transact!(self, "begin a prune", |conn| take(conn, PRUNE, 1).await).map(PruneNumber)
    }

    /// Highest deletion record that was applied to this catalog; 0: none.
    pub async fn deletion_applied(&self) -> Result<u64> {
        self.unsigned(DELETION).await
    }

    /// Highest claim epoch that this catalog had or saw; 0: none.
    pub async fn claim_epoch(&self) -> Result<u64> {
        self.unsigned(CLAIM).await
    }

    /// The claim under which this catalog said the same as its store, at its end; `None`: never. While no
    /// higher claim is in the store, it still does, but for objects that were lost.
    pub async fn agreed_under(&self) -> Result<Option<ClaimKey>> {
        let mut conn = self.readers.acquire().await.doing("read a claim")?;
        agreed_under(&mut conn).await
    }

    /// Remembers a released claim under which the catalog says the same as its store.
    pub async fn set_agreed_under(&self, claim: &ClaimKey) -> Result<()> {
        transact!(self, "remember a claim", |conn| {
            set_agreed_under(conn, claim).await
        })
    }

    /// How often packs, or parts of them, that were counted on were found to be gone.
    pub async fn losses(&self) -> Result<u64> {
        self.unsigned(LOSSES).await
    }

    /// Something may have been lost that nobody can name: every volume has its newest snapshot proven.
    pub async fn doubt_all(&self) -> Result<()> {
        transact!(self, "count a loss", |conn| lost(conn).await)
    }

    /// Remembers a claim epoch; a lower one than before changes nothing.
    pub async fn set_claim_epoch(&self, epoch: u64) -> Result<()> {
        transact!(self, "remember a claim", |conn| raise(conn, CLAIM, epoch)
            .await)
    }
}
