//! Statements over many rows, in few sizes, so that prepared statements are used again.

use crate::catalog::dialect::{self, Conn, Db, DbRow};
use crate::catalog::error::{Doing, Result, bad_row};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row};
use std::ops::Range;
use std::str::Split;

/// Most rows or ids of one statement.
pub(super) const MAX_BATCH: usize = 500;
const SIZES: [usize; 7] = [MAX_BATCH, 256, 128, 64, 16, 4, 1];

/// Ranges that cover `0..len`, each as long as one of a few sizes.
pub(super) fn ranges(len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= len - start)?;
        start += size;
        Some(start - size..start)
    })
}

/// The smallest of the sizes that so many fit: a list of them is filled up with repetitions, which a set does
/// not mind, and is one statement.
pub(super) fn filled_up(len: usize) -> usize {
    let fitting = SIZES.into_iter().rev().find(|size| *size >= len);
    fitting.unwrap_or(len)
}

/// The rows of `SELECT … IN (ids)`; `head` ends before the list, `tail` begins after it. At most
/// [`MAX_BATCH`] ids. Each row comes once, in no order.
pub(super) async fn select_in<T: AsRef<[u8]>>(
    conn: &mut Conn,
    (head, tail): (&str, &str),
    ids: &[T],
) -> Result<Vec<DbRow>> {
    let Some(last) = ids.last() else {
        return Ok(Vec::new());
    };
    let size = filled_up(ids.len());
    let sql = format!("{head} IN {}{tail}", dialect::list(size));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for index in 0..size {
        query = query.bind(ids.get(index).unwrap_or(last).as_ref());
    }
    query.fetch_all(conn).await.doing("look up rows")
}

/// The rows of `SELECT joined(hex(id), numbers…) … IN (ids)`: each id with its `N` numbers.
pub(super) async fn joined_in<const N: usize>(
    conn: &mut Conn,
    (head, tail): (&str, &str),
    ids: &[[u8; 32]],
) -> Result<Vec<([u8; 32], [i64; N])>> {
    let rows = select_in(conn, (head, tail), ids).await?;
    take_apart(&rows, |columns| {
        Some((id(columns.next()?)?, numbers(columns)?))
    })
}

/// Rows of joined text, taken apart by `part`, which must take every column.
pub(super) fn take_apart<T>(
    rows: &[DbRow],
    part: impl Fn(&mut Split<'_, char>) -> Option<T>,
) -> Result<Vec<T>> {
    let mut out = Vec::new();
    for row in rows {
        let text: Option<&str> = row.try_get(0).doing("look up rows")?;
        for row in text.unwrap_or_default().split_terminator(';') {
            let mut columns = row.split(':');
            let value = part(&mut columns).filter(|_| columns.next().is_none());
            out.push(value.ok_or_else(|| bad_row("joined row cannot be taken apart"))?);
        }
    }
    Ok(out)
}

/// The next `N` columns.
pub(super) fn numbers<const N: usize>(columns: &mut Split<'_, char>) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = columns.next()?.parse().ok()?;
    }
    Some(numbers)
}

fn id(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'A'..=b'F' => Some(c - b'A' + 10),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut id = [0; 32];
    for (byte, [high, low]) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(id)
}

/// The same with numbers.
pub(super) async fn select_in_numbers(
    conn: &mut Conn,
    (head, tail): (&str, &str),
    numbers: &[i64],
) -> Result<Vec<DbRow>> {
    let Some(last) = numbers.last() else {
        return Ok(Vec::new());
    };
    let size = filled_up(numbers.len());
    let sql = format!("{head} IN {}{tail}", dialect::list(size));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for index in 0..size {
        query = query.bind(*numbers.get(index).unwrap_or(last));
    }
    query.fetch_all(conn).await.doing("look up rows")
}

/// Inserts `items` in their order; `bind` binds the `columns` values of one. How many rows were inserted
/// or changed.
pub(super) async fn insert<T, F>(
    conn: &mut Conn,
    (head, tail): (&str, &str),
    columns: usize,
    items: &[T],
    bind: F,
) -> Result<u64>
where
    F: for<'q> Fn(
        Query<'q, Db, <Db as sqlx::Database>::Arguments>,
        &'q T,
    ) -> Query<'q, Db, <Db as sqlx::Database>::Arguments>,
{
    let mut changed = 0;
    for range in ranges(items.len()) {
        let sql = format!(
            "{head} VALUES {}{tail}",
            dialect::rows(range.len(), columns)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for item in &items[range] {
            query = bind(query, item);
        }
        let done = query.execute(&mut *conn).await.doing("insert rows")?;
        changed += done.rows_affected();
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once_and_in_order() {
        for len in [0, 1, 7, 8, 63, 64, 65, 499, 500, 501, 1077, 5000] {
            let mut next = 0;
            for range in ranges(len) {
                assert_eq!(range.start, next);
                assert!(SIZES.contains(&range.len()));
                next = range.end;
            }
            assert_eq!(next, len);
        }
    }
}
