//! The newest visible snapshot of each volume, in one look.

use crate::catalog::dialect::DbRow;
use crate::catalog::error::{Doing, Result, bad_row};
use crate::catalog::{Catalog, facts};
use holdfast_format::id::VolumeId;
use holdfast_format::volume::VolumeFacts;
use sqlx::Row;

/// A volume and its newest snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    /// The volume.
    pub volume: VolumeId,
    /// What it is bound to.
    pub facts: VolumeFacts,
    /// Its newest visible snapshot: when it was committed, and the problems of its run.
    pub snapshot: Option<(i64, u64)>,
}

impl Catalog {
    /// Every volume with its newest visible snapshot; of equal names the one that was bound last comes last.
    pub async fn newest(&self) -> Result<Vec<Newest>> {
        const DOING: &str = "find the newest snapshots";
        let mut conn = self.readers.acquire().await.doing(DOING)?;
        let rows = sqlx::query(
            "SELECT v.id, v.facts, s.received_ns, s.problem_count FROM volumes v
             LEFT JOIN snapshots s ON s.id = (SELECT n.id FROM snapshots n
                WHERE n.volume_no = v.volume_no AND n.forgotten_ns IS NULL
                ORDER BY n.sequence DESC LIMIT 1)
             ORDER BY v.name, v.bound_ns, v.volume_no",
        )
        .fetch_all(&mut *conn)
        .await
        .doing(DOING)?;
        let newest = |row: &DbRow| {
            let id: &[u8] = row.try_get(0).doing(DOING)?;
            let at: Option<i64> = row.try_get(2).doing(DOING)?;
            let problems: Option<i64> = row.try_get(3).doing(DOING)?;
            let problems = u64::try_from(problems.unwrap_or_default()).unwrap_or(0);
            Ok(Newest {
                volume: VolumeId::try_from(id).map_err(|error| bad_row(error.to_string()))?,
                facts: facts::decode(row.try_get(1).doing(DOING)?)?,
                snapshot: at.map(|at| (at, problems)),
            })
        };
        rows.iter().map(newest).collect()
    }
}
