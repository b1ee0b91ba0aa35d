//! Volumes and dedup domains: random ids, and the facts that marks bind them to.

use crate::catalog::dialect::{Conn, DbRow};
use crate::catalog::error::{CatalogError, Doing, Result, bad_row};
use crate::catalog::{Catalog, DomainRow, Volume, VolumeNo, VolumeRow, counters, facts, transact};
use holdfast_format::id::{DomainId, VolumeId};
use holdfast_format::volume::VolumeName;
use sqlx::{AssertSqlSafe, Row};

const COLUMNS: &str = "volume_no, id, domain, facts, bound_ns, last_sequence, losses_seen";

fn volume(row: &DbRow) -> Result<Volume> {
    let doing = "read a volume";
    let id: &[u8] = row.try_get(1).doing(doing)?;
    let domain: &[u8] = row.try_get(2).doing(doing)?;
    let sequence: i64 = row.try_get(5).doing(doing)?;
    let losses: i64 = row.try_get(6).doing(doing)?;
    Ok(Volume {
        no: VolumeNo(row.try_get(0).doing(doing)?),
        id: VolumeId::try_from(id).map_err(|error| bad_row(error.to_string()))?,
        domain: DomainId::try_from(domain).map_err(|error| bad_row(error.to_string()))?,
        facts: facts::decode(row.try_get(3).doing(doing)?)?,
        bound_ns: row.try_get(4).doing(doing)?,
        last_sequence: u64::try_from(sequence).map_err(|_| bad_row("negative sequence"))?,
        losses_seen: u64::try_from(losses).map_err(|_| bad_row("negative losses"))?,
    })
}

/// Binds a volume; its number, old or new.
pub(super) async fn bind(conn: &mut Conn, row: &VolumeRow) -> Result<VolumeNo> {
    if let Some(no) = number(conn, &row.id).await? {
        sqlx::query(
            "UPDATE volumes SET name = $1, facts = $2, bound_ns = $3, domain = $4
             WHERE volume_no = $5 AND bound_ns <= $3",
        )
        .bind(row.facts.name.as_str())
        .bind(facts::encode(&row.facts))
        .bind(row.bound_ns)
        .bind(row.domain.as_bytes().as_slice())
        .bind(no.0)
        .execute(conn)
        .await
        .doing("bind a volume")?;
        return Ok(no);
    }
    let no = counters::take(conn, counters::VOLUMES, 1).await?;
    sqlx::query(
        "INSERT INTO volumes
         (volume_no, id, name, domain, facts, bound_ns, lease_epoch, last_sequence)
         VALUES ($1, $2, $3, $4, $5, $6, 0, 0)",
    )
    .bind(no)
    .bind(row.id.as_bytes().as_slice())
    .bind(row.facts.name.as_str())
    .bind(row.domain.as_bytes().as_slice())
    .bind(facts::encode(&row.facts))
    .bind(row.bound_ns)
    .execute(conn)
    .await
    .doing("bind a volume")?;
    Ok(VolumeNo(no))
}

/// The number of a volume.
pub(super) async fn number(conn: &mut Conn, id: &VolumeId) -> Result<Option<VolumeNo>> {
    let row = sqlx::query("SELECT volume_no FROM volumes WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .doing("find a volume")?;
    row.map(|row| row.try_get(0).map(VolumeNo).doing("find a volume"))
        .transpose()
}

async fn next_sequence(conn: &mut Conn, volume: VolumeNo) -> Result<u64> {
    let row = sqlx::query(
        "UPDATE volumes SET last_sequence = last_sequence + 1 WHERE volume_no = $1
         RETURNING last_sequence",
    )
    .bind(volume.0)
    .fetch_optional(conn)
    .await
    .doing("take a sequence")?;
    let row = row.ok_or_else(|| CatalogError::UnknownVolume {
        volume: volume.0.to_string(),
    })?;
    let value: i64 = row.try_get(0).doing("take a sequence")?;
    u64::try_from(value).map_err(|_| bad_row("negative sequence"))
}

async fn bind_domain(conn: &mut Conn, row: &DomainRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO domains (domain, generation, namespace, bound_ns) VALUES ($1, $2, $3, $4)
         ON CONFLICT (domain, generation) DO UPDATE
         SET namespace = excluded.namespace, bound_ns = excluded.bound_ns
         WHERE excluded.bound_ns > domains.bound_ns",
    )
    .bind(row.id.as_bytes().as_slice())
    .bind(i64::from(row.generation))
    .bind(row.namespace.as_str())
    .bind(row.bound_ns)
    .execute(conn)
    .await
    .doing("bind a domain")?;
    Ok(())
}

impl Catalog {
    /// Binds a volume id to facts, or to newer facts; older ones than known change nothing.
    pub async fn bind_volume(&self, row: &VolumeRow) -> Result<VolumeNo> {
        transact!(self, "bind a volume", |conn| bind(conn, row).await)
    }

    /// Remembers that the volume's newest snapshot relies on nothing that was lost so far.
    pub async fn set_losses_seen(&self, volume: VolumeNo, losses: u64) -> Result<()> {
        let losses = i64::try_from(losses).map_err(|_| bad_row("losses"))?;
        transact!(self, "remember a proof", |conn| {
            sqlx::query("UPDATE volumes SET losses_seen = $1 WHERE volume_no = $2")
                .bind(losses)
                .bind(volume.0)
                .execute(conn)
                .await
                .doing("remember a proof")
                .map(drop)
        })
    }

    /// The volume that a name was bound to last.
    pub async fn volume_by_name(&self, name: &VolumeName) -> Result<Option<Volume>> {
        let mut conn = self.readers.acquire().await.doing("find a volume")?;
        let sql = format!(
            "SELECT {COLUMNS} FROM volumes WHERE name = $1
             ORDER BY bound_ns DESC, volume_no DESC LIMIT 1"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(name.as_str())
            .fetch_optional(&mut *conn)
            .await
            .doing("find a volume")?;
        row.as_ref().map(volume).transpose()
    }

    /// The volume with this id.
    pub async fn volume_by_id(&self, id: &VolumeId) -> Result<Option<Volume>> {
        let mut conn = self.readers.acquire().await.doing("find a volume")?;
        let sql = format!("SELECT {COLUMNS} FROM volumes WHERE id = $1");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await
            .doing("find a volume")?;
        row.as_ref().map(volume).transpose()
    }

    /// All volumes, by name; of equal names the one bound last comes first.
    pub async fn volumes(&self) -> Result<Vec<Volume>> {
        let mut conn = self.readers.acquire().await.doing("list volumes")?;
        let sql =
            format!("SELECT {COLUMNS} FROM volumes ORDER BY name, bound_ns DESC, volume_no DESC");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut *conn)
            .await
            .doing("list volumes")?;
        rows.iter().map(volume).collect()
    }

    /// The next snapshot sequence of a volume; never given out twice.
    pub async fn next_sequence(&self, volume: VolumeNo) -> Result<u64> {
        transact!(self, "take a sequence", |conn| next_sequence(conn, volume)
            .await)
    }

    /// Remembers a generation of a domain and its namespace.
    pub async fn bind_domain(&self, row: &DomainRow) -> Result<()> {
        transact!(self, "bind a domain", |conn| bind_domain(conn, row).await)
    }

    /// All generations of all domains.
    pub async fn domains(&self) -> Result<Vec<DomainRow>> {
        let doing = "list domains";
        let mut conn = self.readers.acquire().await.doing(doing)?;
        let rows = sqlx::query(
            "SELECT domain, generation, namespace, bound_ns FROM domains
             ORDER BY namespace, bound_ns, domain, generation",
        )
        .fetch_all(&mut *conn)
        .await
        .doing(doing)?;
        let domain = |row: &DbRow| {
            let id: &[u8] = row.try_get(0).doing(doing)?;
            let generation: i64 = row.try_get(1).doing(doing)?;
            Ok(DomainRow {
                id: DomainId::try_from(id).map_err(|error| bad_row(error.to_string()))?,
                generation: u32::try_from(generation).map_err(|_| bad_row("generation"))?,
                namespace: row.try_get(2).doing(doing)?,
                bound_ns: row.try_get(3).doing(doing)?,
            })
        };
        rows.iter().map(domain).collect()
    }
}
