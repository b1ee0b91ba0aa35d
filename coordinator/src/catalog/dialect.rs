//! What differs between databases, in one place: connecting, placeholders, the begin of a writing
//! transaction, migrations, and which errors mean what. Everything else is common SQL.

use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::path::Path;
use std::time::Duration;

/// A connection of the catalog's database.
pub(super) type Conn = sqlx::SqliteConnection;
/// A row of the catalog's database.
pub(super) type DbRow = sqlx::sqlite::SqliteRow;
/// The database.
pub(super) type Db = sqlx::Sqlite;
/// Connections that only read.
pub(super) type Readers = SqlitePool;

/// Takes the write lock at once: a transaction that reads first and writes later could not be retried
/// by waiting.
pub(super) const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";

/// Migrations in order; entry n leads to schema n + 1. Released ones are never changed.
pub(super) const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/sqlite/0001.sql"),
    include_str!("migrations/sqlite/0002.sql"),
    include_str!("migrations/sqlite/0003.sql"),
    include_str!("migrations/sqlite/0004.sql"),
];

/// Memory of the writer's page cache, KiB.
const WRITER_CACHE_KIB: u32 = 32 * 1024;
/// Memory of each reader's page cache, KiB.
const READER_CACHE_KIB: u32 = 8 * 1024;
/// Connections that read at a time.
const MAX_READERS: u32 = 4;
/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(false)
        .row_buffer_size(512)
        .disable_statement_logging()
}

/// The one connection that writes. Commits are durable when they return.
pub(super) async fn connect_writer(file: &Path, create: bool) -> Result<Conn, sqlx::Error> {
    let mut options = options(file)
        .create_if_missing(create)
        .synchronous(SqliteSynchronous::Full)
        .pragma("temp_store", "memory")
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        // 64 MiB between checkpoints: with random ids a page is then written once for many packs.
        .pragma("wal_autocheckpoint", "16000")
        .pragma("journal_size_limit", "134217728");
    if create {
        options = options.journal_mode(SqliteJournalMode::Wal);
    }
    options.connect().await
}

/// Connections that read beside the writer, of this process or of another.
pub(super) fn readers(file: &Path) -> Readers {
    let options = options(file)
        .read_only(true)
        .pragma("cache_size", format!("-{READER_CACHE_KIB}"));
    SqlitePoolOptions::new()
        .max_connections(MAX_READERS)
        .min_connections(0)
        .acquire_timeout(Duration::from_secs(120))
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

/// The schema version of the file; 0 for an empty one.
pub(super) const READ_SCHEMA: &str = "PRAGMA user_version";

/// The statement that sets the schema version, inside the migration's transaction.
pub(super) fn write_schema(version: i64) -> String {
    format!("PRAGMA user_version = {version}")
}

/// Copies the whole database into a new file named by `$1`.
pub(super) const COPY: &str = "VACUUM INTO $1";
/// Moves everything from the log into the file.
pub(super) const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
/// One row `ok`, or one row for each fault.
pub(super) const QUICK_CHECK: &str = "PRAGMA quick_check(20)";

/// `(?, ?)` for a list of this many values. Long lists use bare marks: numbered ones cost SQLite time
/// quadratic in their count.
pub(super) fn list(columns: usize) -> String {
    let mut out = String::with_capacity(columns * 2 + 2);
    out.push('(');
    for column in 0..columns {
        out.push_str(if column == 0 { "?" } else { ",?" });
    }
    out.push(')');
    out
}

/// `(?, ?), (?, ?)` for this many rows.
pub(super) fn rows(rows: usize, columns: usize) -> String {
    let row = list(columns);
    let mut out = String::with_capacity((row.len() + 1) * rows);
    for index in 0..rows {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&row);
    }
    out
}

/// An expression that joins the chosen rows into one text: `:` between the columns and `;` between the
/// rows; nothing where there is no row. One row of text crosses to the caller many times cheaper than
/// many rows of values.
pub(super) fn joined(columns: &[&str]) -> String {
    format!("group_concat({}, ';')", columns.join(" || ':' || "))
}

/// An expression that gives a blob as hexadecimal digits, in upper case.
pub(super) fn hex(column: &str) -> String {
    format!("hex({column})")
}

fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Whether the same transaction may succeed if it is run again: somebody else had the lock.
pub(super) fn is_retryable(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(5 | 6))
}

/// Whether the file itself is at fault: not a database, or a damaged one.
pub(super) fn is_corrupt(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(11 | 26))
}

/// Whether the database found no room on its disk.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(13))
}

/// Whether the file cannot be a whole database, from its first bytes and its length; `Some` says why.
/// With a log beside it only the header is judged: a checkpoint may have been cut short.
pub(super) fn file_fault(header: &[u8], length: u64, has_log: bool) -> Option<&'static str> {
    if !header.starts_with(b"SQLite format 3\0") || header.len() < 100 {
        return Some("not a catalog file");
    }
    let page = u64::from(u16::from_be_bytes([header[16], header[17]]));
    let page = if page == 1 { 65_536 } else { page };
    let pages = u64::from(u32::from_be_bytes([
        header[28], header[29], header[30], header[31],
    ]));
    (!has_log && length < page * pages).then_some("file is shorter than it says")
}
