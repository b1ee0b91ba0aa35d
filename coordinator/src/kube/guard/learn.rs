//! What the catalog and the agents say of a volume.

use crate::Coordinator;
use crate::error::Result;
use crate::kube::picture::{Picture, Volume};
use crate::kube::words::{Known, MAX_POINTS, Point};
use crate::schedule::TRUSTED;
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet};

/// Asks the catalog about a volume that is new here, or whose run has ended.
pub async fn learn(coordinator: &Coordinator, known: &mut Known, volume: &Volume) -> Result<()> {
    if known.is_fresh {
        return Ok(());
    }
    let uid = volume.subject.claim.as_ref().map(|claim| &claim.uid);
    let catalog = &coordinator.library().catalog;
    known.is_fresh = true;
    known.uid = uid.cloned();
    (known.points, known.snapshots) = (Vec::new(), 0);
    let Ok(parsed) = volume.subject.id.parse() else {
        return Ok(());
    };
    let Some(bound) = catalog.volume_by_name(&parsed).await? else {
        return Ok(());
    };
    // Snapshots of a claim that had the name before are another volume's.
    if uid.is_some_and(|uid| *uid != bound.facts.pvc_uid) {
        return Ok(());
    }
    let mut snapshots = catalog.snapshots(Some(bound.no)).await?;
    known.snapshots = snapshots.len();
    snapshots.sort_by_key(|row| std::cmp::Reverse(row.sequence));
    let newest = snapshots.iter().take(MAX_POINTS);
    known.points = newest.map(Point::of_row).collect::<Result<_>>()?;
    Ok(())
}

/// A node's agent that is away is told after so long.
const AWAY_TOLD: SignedDuration = SignedDuration::from_secs(60);

/// Since when nodes are without their agents.
#[derive(Default)]
pub struct Away(HashMap<String, Timestamp>);

impl Away {
    /// The nodes whose agents have been away for a while: one that is started again is soon back, and what is told
    /// of all its volumes is many writes.
    pub fn tell(
        &mut self,
        coordinator: &Coordinator,
        picture: &Picture,
        now: Timestamp,
    ) -> HashSet<String> {
        let agents: HashSet<String> = coordinator.hub().agents().into_iter().collect();
        let nodes = picture.volumes.iter();
        let nodes = nodes.filter_map(|volume| volume.node.as_ref());
        let missing: HashSet<&String> = nodes.filter(|node| !agents.contains(*node)).collect();
        self.0.retain(|node, _| missing.contains(node));
        for node in missing {
            self.0.entry(node.clone()).or_insert(now);
        }
        let is_long = |since: &Timestamp| now.duration_since(*since) >= AWAY_TOLD;
        let long = self.0.iter().filter(|(_, since)| is_long(since));
        long.map(|(node, _)| node.clone()).collect()
    }
}

/// Since when volumes have changes that no snapshot has, as far as agents watch them.
pub struct Exposed {
    watched: HashMap<String, Option<SignedDuration>>,
    now: Timestamp,
}

/// As agents say it now.
pub fn exposed(coordinator: &Coordinator, now: Timestamp) -> Exposed {
    let served = coordinator.hub().served(coordinator.clock().elapsed());
    let watched = served.into_iter().filter_map(|served| {
        let (state, _) = served.state?;
        (state.journal == TRUSTED).then(|| {
            let age = i64::try_from(state.exposed_ns).unwrap_or(i64::MAX);
            let age = (age > 0).then(|| SignedDuration::from_nanos(age));
            (served.facts.name, age)
        })
    });
    Exposed {
        watched: watched.collect(),
        now,
    }
}

impl Exposed {
    /// Of a volume; `None`: every change is in a snapshot, or there is no snapshot at all.
    pub fn of(&self, volume: &str, known: &Known) -> Option<Timestamp> {
        let newest = known.newest()?;
        match self.watched.get(volume) {
            Some(age) => self.now.checked_sub((*age)?).ok(),
            None => Some(newest.began),
        }
    }
}
