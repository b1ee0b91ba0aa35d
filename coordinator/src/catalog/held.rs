//! `held(volume, row)`: sets of row numbers in segments of 4,096, a list while small, then a bitmap. A
//! volume's chunks were registered together, so their numbers are neighbours and cost a bit each; the
//! worst case is 2 bytes and a share of a row. Row numbers are never used twice: what stays behind when
//! a chunk's row is dropped means nothing.

use crate::catalog::batch;
use crate::catalog::dialect::Conn;
use crate::catalog::error::{Doing, Result, bad_row};
use crate::catalog::{Catalog, VolumeNo};
use sqlx::Row;
use std::collections::{BTreeMap, HashMap};

const SEGMENT_ROWS: i64 = 4096;
const BITMAP_BYTES: usize = 512;

/// The rows of one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Segment(Box<[u64; 64]>);

impl Segment {
    fn empty() -> Self {
        Self(Box::new([0; 64]))
    }

    fn insert(&mut self, position: u16) {
        self.0[usize::from(position >> 6) & 63] |= 1 << (position & 63);
    }

    fn contains(&self, position: u16) -> bool {
        self.0[usize::from(position >> 6) & 63] & (1 << (position & 63)) != 0
    }

    fn encode(&self) -> Vec<u8> {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        if count as usize * 2 >= BITMAP_BYTES {
            return self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        }
        (0..SEGMENT_ROWS as u16)
            .filter(|position| self.contains(*position))
            .flat_map(u16::to_le_bytes)
            .collect()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut segment = Self::empty();
        if bytes.len() == BITMAP_BYTES {
            for (word, bytes) in segment.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
        } else if bytes.len() < BITMAP_BYTES && bytes.len().is_multiple_of(2) {
            for pair in bytes.as_chunks::<2>().0 {
                let position = u16::from_le_bytes(*pair);
                if i64::from(position) >= SEGMENT_ROWS {
                    return Err(bad_row("held row outside of its segment"));
                }
                segment.insert(position);
            }
        } else {
            return Err(bad_row("held segment has a wrong length"));
        }
        Ok(segment)
    }
}

fn place(row_no: i64) -> (i64, u16) {
    // A remainder by 4,096 of a number that is never negative fits.
    (row_no / SEGMENT_ROWS, (row_no % SEGMENT_ROWS) as u16)
}

/// The volume's segments with these numbers.
async fn load(
    conn: &mut Conn,
    volume: VolumeNo,
    segments: &[i64],
) -> Result<HashMap<i64, Segment>> {
    let head = format!(
        "SELECT segment, rows FROM held WHERE volume_no = {} AND segment",
        volume.0
    );
    let mut out = HashMap::with_capacity(segments.len());
    for wanted in segments.chunks(batch::MAX_BATCH) {
        for row in batch::select_in_numbers(conn, (&head, ""), wanted).await? {
            let number = row.try_get(0).doing("read held rows")?;
            let rows: &[u8] = row.try_get(1).doing("read held rows")?;
            out.insert(number, Segment::decode(rows)?);
        }
    }
    Ok(out)
}

/// Whether the volume holds each of these rows.
pub(super) async fn contains(conn: &mut Conn, volume: VolumeNo, rows: &[i64]) -> Result<Vec<bool>> {
    let mut wanted: Vec<i64> = rows.iter().map(|row| place(*row).0).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let segments = load(conn, volume, &wanted).await?;
    let held = |row: &i64| {
        let (segment, position) = place(*row);
        segments
            .get(&segment)
            .is_some_and(|segment| segment.contains(position))
    };
    Ok(rows.iter().map(held).collect())
}

/// Adds rows to what the volume holds.
pub(super) async fn add(conn: &mut Conn, volume: VolumeNo, rows: &[i64]) -> Result<()> {
    let mut added: BTreeMap<i64, Vec<u16>> = BTreeMap::new();
    for row in rows {
        let (segment, position) = place(*row);
        added.entry(segment).or_default().push(position);
    }
    let wanted: Vec<i64> = added.keys().copied().collect();
    let mut segments = load(conn, volume, &wanted).await?;
    let mut changed = Vec::with_capacity(added.len());
    for (number, positions) in added {
        let before = segments.remove(&number);
        let mut segment = before.clone().unwrap_or_else(Segment::empty);
        positions
            .into_iter()
            .for_each(|position| segment.insert(position));
        if before.as_ref() != Some(&segment) {
            changed.push((number, segment.encode()));
        }
    }
    batch::insert(
        conn,
        (
            "INSERT INTO held (volume_no, segment, rows)",
            " ON CONFLICT (volume_no, segment) DO UPDATE SET rows = excluded.rows",
        ),
        3,
        &changed,
        |query, (number, rows)| query.bind(volume.0).bind(*number).bind(rows.as_slice()),
    )
    .await?;
    Ok(())
}

impl Catalog {
    /// Whether no chunk of this volume is held: a first backup need not ask.
    pub async fn holds_nothing(&self, volume: VolumeNo) -> Result<bool> {
        let mut conn = self.readers.acquire().await.doing("read held rows")?;
        let row = sqlx::query("SELECT 1 FROM held WHERE volume_no = $1 LIMIT 1")
            .bind(volume.0)
            .fetch_optional(&mut *conn)
            .await
            .doing("read held rows")?;
        Ok(row.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_round_trip_at_every_density() {
        for step in [1, 2, 15, 16, 17, 100, 4095] {
            let mut segment = Segment::empty();
            (0..4096)
                .step_by(step)
                .for_each(|position| segment.insert(position));
            let bytes = segment.encode();
            assert!(bytes.len() <= BITMAP_BYTES);
            assert_eq!(Segment::decode(&bytes).unwrap(), segment);
        }
        assert_eq!(Segment::decode(&[]).unwrap(), Segment::empty());
        for bad in [&[0][..], &[0; 511], &[0; 513], &[0, 16]] {
            assert!(Segment::decode(bad).is_err());
        }
    }
}
