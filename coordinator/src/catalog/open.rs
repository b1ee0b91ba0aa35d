//! Creating, opening, migrating and closing. A catalog that is missing, damaged, foreign or of another
//! schema is told apart and never touched.

use crate::catalog::dialect::{self, Conn};
use crate::catalog::error::{At, CatalogError, Doing, Result, bad_row};
use crate::catalog::{CATALOG_FILE, Catalog, DirLock, counters};
use holdfast_format::id::{CatalogId, RepositoryId};
use sqlx::{AssertSqlSafe, Connection, Row};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How a catalog is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The one writer; takes the lock of the state directory.
    ReadWrite,
    /// A reader, beside a writer or without one. It changes nothing.
    ReadOnly,
}

const REPOSITORY: &str = "repository";
const CATALOG: &str = "catalog";

impl CatalogError {
    /// Whether the database's file itself is at fault.
    pub fn is_corrupt(&self) -> bool {
        match self {
            CatalogError::Corrupt { .. } | CatalogError::Row { .. } => true,
            CatalogError::Database { source, .. } => dialect::is_corrupt(source),
            _ => false,
        }
    }

    /// Whether the disk of the state directory is full.
    pub fn is_full(&self) -> bool {
        match self {
            CatalogError::Database { source, .. } => dialect::is_full(source),
            CatalogError::Io { source, .. } => source.kind() == ErrorKind::StorageFull,
            _ => false,
        }
    }

    pub(super) fn is_retryable(&self) -> bool {
        matches!(self, CatalogError::Database { source, .. } if dialect::is_retryable(source))
    }

    /// A database error at opening, told as damage where it is that.
    fn at_open(self, dir: &Path) -> Self {
        match &self {
            CatalogError::Database { source, .. } if dialect::is_corrupt(source) => Self::Corrupt {
                dir: dir.to_owned(),
                detail: source.to_string(),
            },
            CatalogError::Row { what } => Self::Corrupt {
                dir: dir.to_owned(),
                detail: what.clone(),
            },
            _ => self,
        }
    }
}

impl Catalog {
    /// A new, empty catalog in a state directory that has none.
    pub async fn create(dir: &Path, repository: &RepositoryId, id: CatalogId) -> Result<Self> {
        let lock = blocking(dir, DirLock::take).await?;
        Self::create_locked(lock, repository, id).await
    }

    /// The same, with the directory's lock already taken.
    pub async fn create_locked(
        lock: DirLock,
        repository: &RepositoryId,
        id: CatalogId,
    ) -> Result<Self> {
        let dir = lock.dir().to_owned();
        let file = dir.join(CATALOG_FILE);
        if blocking(&dir, |dir| file_length(&dir.join(CATALOG_FILE)))
            .await?
            .unwrap_or(0)
            > 0
        {
            // What was begun and never filled is made again.
            let mut conn = dialect::connect_writer(&file, false)
                .await
                .doing("open catalog")?;
            let found = schema(&mut conn)
                .await
                .map_err(|error| error.at_open(&dir))?;
            conn.close().await.doing("close catalog")?;
            if found > 0 {
                return Err(CatalogError::Exists { dir });
            }
        }
        let doing = "create catalog";
        let mut conn = dialect::connect_writer(&file, true).await.doing(doing)?;
        let mut transaction = conn.begin_with(dialect::BEGIN_WRITE).await.doing(doing)?;
        migrate(&mut transaction, &dialect::MIGRATIONS, 0).await?;
        for (name, value) in [
            (REPOSITORY, repository.as_bytes().as_slice()),
            (CATALOG, id.as_bytes().as_slice()),
        ] {
            sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2)")
                .bind(name)
                .bind(value)
                .execute(&mut *transaction)
                .await
                .doing(doing)?;
        }
        for (name, value) in counters::ALL {
            sqlx::query("INSERT INTO counters (name, value) VALUES ($1, $2)")
                .bind(name)
                .bind(value)
                .execute(&mut *transaction)
                .await
                .doing(doing)?;
        }
        transaction.commit().await.doing(doing)?;
        blocking(&dir, sync_dir).await?;
        Ok(Self::with(&dir, *repository, id, Some(conn), Some(lock)))
    }

    /// The catalog of a state directory.
    pub async fn open(dir: &Path, repository: &RepositoryId, mode: Mode) -> Result<Self> {
        match mode {
            Mode::ReadWrite => {
                blocking(dir, check_file).await?;
                let lock = blocking(dir, DirLock::take).await?;
                Self::open_locked(lock, repository).await
            }
            Mode::ReadOnly => Self::open_read_only(dir, repository).await,
        }
    }

    /// The catalog of a directory whose lock is already taken.
    pub async fn open_locked(lock: DirLock, repository: &RepositoryId) -> Result<Self> {
        let dir = lock.dir().to_owned();
        blocking(&dir, check_file).await?;
        let file = dir.join(CATALOG_FILE);
        let opened = async {
            let mut conn = dialect::connect_writer(&file, false)
                .await
                .doing("open catalog")?;
            let version = schema(&mut conn).await?;
            check_version(&dir, version, Mode::ReadWrite)?;
            upgrade(&mut conn, &dir, &dialect::MIGRATIONS, version).await?;
            let id = check_meta(&mut conn, &dir, repository).await?;
            Ok((conn, id))
        };
        let (conn, id) = opened
            .await
            .map_err(|error: CatalogError| error.at_open(&dir))?;
        Ok(Self::with(&dir, *repository, id, Some(conn), Some(lock)))
    }

    /// Puts a closed catalog from another directory on the same filesystem in the place of the one in
    /// the locked directory, and opens it. What was there is kept as `catalog-replaced.db`. A kill in
    /// between leaves the old catalog, none, or the new one; never a mixture.
    pub async fn install(lock: DirLock, from: &Path, repository: &RepositoryId) -> Result<Self> {
        let from = from.to_owned();
        blocking(lock.dir(), move |dir| install(dir, &from)).await?;
        Self::open_locked(lock, repository).await
    }

    async fn open_read_only(dir: &Path, repository: &RepositoryId) -> Result<Self> {
        blocking(dir, check_file).await?;
        let readers = dialect::readers(&dir.join(CATALOG_FILE));
        let opened = async {
            let mut conn = readers.acquire().await.doing("open catalog")?;
            let version = schema(&mut conn).await?;
            check_version(dir, version, Mode::ReadOnly)?;
            check_meta(&mut conn, dir, repository).await
        };
        let id = opened.await.map_err(|error| error.at_open(dir))?;
        Ok(Self::with(dir, *repository, id, None, None))
    }

    fn with(
        dir: &Path,
        repository: RepositoryId,
        id: CatalogId,
        conn: Option<Conn>,
        lock: Option<DirLock>,
    ) -> Self {
        Self {
            readers: dialect::readers(&dir.join(CATALOG_FILE)),
            dir: dir.into(),
            repository,
            id,
            writer: Arc::new(Mutex::new(conn)),
            lock: Arc::new(std::sync::Mutex::new(lock)),
        }
    }

    /// Writes the log back into the file, closes it and gives up the lock. Later calls fail.
    pub async fn close(&self) -> Result<()> {
        self.readers.close().await;
        if let Some(mut conn) = self.writer.lock().await.take() {
            sqlx::query(dialect::CHECKPOINT)
                .fetch_all(&mut conn)
                .await
                .doing("write back the log")?;
            conn.close().await.doing("close catalog")?;
        }
        let lock = self.lock.lock().map(|mut lock| lock.take());
        drop(lock);
        Ok(())
    }

    /// Reads the whole file and lists its faults; empty: none. For `doctor`: it takes time.
    pub async fn quick_check(&self) -> Result<Vec<String>> {
        let doing = "check catalog";
        let mut conn = self.readers.acquire().await.doing(doing)?;
        let rows = sqlx::query(dialect::QUICK_CHECK)
            .fetch_all(&mut *conn)
            .await
            .doing(doing)?;
        let lines = rows
            .iter()
            .map(|row| row.try_get::<String, _>(0).doing(doing));
        let lines: Vec<String> = lines.collect::<Result<_>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}

/// Runs short file work of a state directory where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let owned = dir.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.unwrap_or_else(|_| Err(std::io::Error::other("task died")).at("use", dir))
}

fn known_schema() -> i64 {
    dialect::MIGRATIONS.len() as i64
}

async fn schema(conn: &mut Conn) -> Result<i64> {
    let row = sqlx::query(dialect::READ_SCHEMA)
        .fetch_one(conn)
        .await
        .doing("read schema version")?;
    row.try_get(0).doing("read schema version")
}

fn check_version(dir: &Path, found: i64, mode: Mode) -> Result<()> {
    let advice = match found {
        // Created and never filled: there is nothing in it.
        0 => {
            return Err(CatalogError::Missing {
                dir: dir.to_owned(),
            });
        }
        found if found > known_schema() => {
            "use the version of holdfast that wrote it, or a later one"
        }
        found if found < known_schema() && mode == Mode::ReadOnly => {
            "open it once for writing, which brings it up"
        }
        _ => return Ok(()),
    };
    Err(CatalogError::Schema {
        dir: dir.to_owned(),
        found,
        known: known_schema(),
        advice,
    })
}

/// Brings an older catalog up to the last of these migrations: a copy first, then all or none.
pub(super) async fn upgrade(
    conn: &mut Conn,
    dir: &Path,
    migrations: &[&'static str],
    from: i64,
) -> Result<()> {
    let doing = "migrate catalog";
    if from >= migrations.len() as i64 {
        return Ok(());
    }
    copy(conn, dir, from).await?;
    let mut transaction = conn.begin_with(dialect::BEGIN_WRITE).await.doing(doing)?;
    migrate(&mut transaction, migrations, from).await?;
    transaction.commit().await.doing(doing)
}

async fn migrate(conn: &mut Conn, migrations: &[&'static str], from: i64) -> Result<()> {
    let doing = "migrate catalog";
    for (version, migration) in (1..).zip(migrations) {
        if version > from {
            let statements = [*migration, &dialect::write_schema(version)].join("\n");
            sqlx::raw_sql(AssertSqlSafe(statements))
                .execute(&mut *conn)
                .await
                .doing(doing)?;
        }
    }
    Ok(())
}

/// Copies the catalog before a migration: `catalog-schema-N.db` beside it.
async fn copy(conn: &mut Conn, dir: &Path, version: i64) -> Result<()> {
    let target = dir.join(format!("catalog-schema-{version}.db"));
    let name = target.to_string_lossy().into_owned();
    let clear = target.clone();
    blocking(dir, move |_| match std::fs::remove_file(&clear) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).at("replace catalog copy", &clear)
        }
        _ => Ok(()),
    })
    .await?;
    sqlx::query(dialect::COPY)
        .bind(name)
        .execute(conn)
        .await
        .doing("copy catalog")?;
    blocking(dir, move |dir| {
        File::open(&target)
            .and_then(|file| file.sync_all())
            .at("sync catalog copy", &target)?;
        sync_dir(dir)
    })
    .await
}

async fn check_meta(conn: &mut Conn, dir: &Path, repository: &RepositoryId) -> Result<CatalogId> {
    let found: RepositoryId = meta(conn, REPOSITORY).await?;
    if found != *repository {
        return Err(CatalogError::ForeignRepository {
            dir: dir.to_owned(),
            found,
            expected: *repository,
        });
    }
    for (name, _) in counters::ALL {
        counters::read(conn, name).await?;
    }
    meta(conn, CATALOG).await
}

async fn meta<T>(conn: &mut Conn, name: &'static str) -> Result<T>
where
    T: for<'b> TryFrom<&'b [u8]>,
{
    let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
        .bind(name)
        .fetch_optional(conn)
        .await
        .doing("read catalog")?
        .ok_or_else(|| bad_row(format!("{name} id is missing")))?;
    let value: &[u8] = row.try_get(0).doing("read catalog")?;
    T::try_from(value).map_err(|_| bad_row(format!("{name} id has a wrong length")))
}

fn file_length(file: &Path) -> Result<Option<u64>> {
    match std::fs::metadata(file) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", file),
    }
}

/// What can be told of the file without reading it: missing, not ours, or cut off.
fn check_file(dir: &Path) -> Result<()> {
    let path = dir.join(CATALOG_FILE);
    let missing = || CatalogError::Missing {
        dir: dir.to_owned(),
    };
    let length = file_length(&path)?.ok_or_else(missing)?;
    let log = file_length(&dir.join(format!("{CATALOG_FILE}-wal")))?.unwrap_or(0);
    if length == 0 && log == 0 {
        return Err(missing());
    }
    let mut header = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(100).read_to_end(&mut header))
        .at("read", &path)?;
    match dialect::file_fault(&header, length, log > 0) {
        Some(detail) => Err(CatalogError::Corrupt {
            dir: dir.to_owned(),
            detail: detail.into(),
        }),
        None => Ok(()),
    }
}

fn install(dir: &Path, from: &Path) -> Result<()> {
    let new = from.join(CATALOG_FILE);
    File::open(&new)
        .and_then(|file| file.sync_all())
        .at("sync new catalog", &new)?;
    // A log belongs to its file and to no other: it goes first out of the way, and with it.
    for suffix in ["-shm", "-wal", ""] {
        let old = dir.join(format!("{CATALOG_FILE}{suffix}"));
        let kept = dir.join(format!("catalog-replaced.db{suffix}"));
        let moved = match suffix {
            "-shm" => std::fs::remove_file(&old),
            _ => {
                match std::fs::remove_file(&kept) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(error).at("remove", &kept);
                    }
                    _ => {}
                }
                std::fs::rename(&old, &kept)
            }
        };
        match moved {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).at("move away", &old);
            }
            _ => {}
        }
    }
    sync_dir(dir)?;
    let place = dir.join(CATALOG_FILE);
    std::fs::rename(&new, &place).at("put in place", &place)?;
    sync_dir(dir)
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .at("sync state directory", dir)
}
