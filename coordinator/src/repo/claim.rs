//! Which catalog owns the repository. At most one process believes that it does and writes; whoever
//! sees a claim that beats its own stops for good.
//!
//! A claim is an object with a name of its own: put, then list; highest epoch wins, then lowest catalog
//! id. This needs list-after-write of the store and nothing else. Let T be the limit of every store
//! request: 2 T after a claim is in the store, every process that it beats has either seen it, or has
//! no request under way whose check came before it (a check takes at most T, what follows it too).
//! So a claimant waits 2 T whenever somebody whom it beats may still be at work:
//!
//! | a claim of | and | then |
//! |---|---|---|
//! | our catalog on this host | | its process is dead (we hold the lock of the state directory): go on |
//! | our catalog on another host | a volume moved | wait |
//! | another catalog, released | its holder drained first | go on |
//! | another catalog | no take-over | refuse, naming holder, host and age |
//! | another catalog | take-over, or it appeared while we claimed and we win | wait |
//!
//! In a cluster the host is the node ([`node_identity`]): a node that starts anew is the same one, and the process
//! before is dead with its kernel; a volume that moves is attached to another node. A machine that takes the place of
//! another under its node's name counts as the same: the other must be off before, as for every volume that is
//! attached to one node at a time.
//!
//! Claims that a *completed* claim beats (one that has waited, if it had to) are past. Ours count as
//! completed up to the epoch the catalog remembers: it is to remember the epoch that [`acquire`]
//! returned. Only completed claims are released, so a released claim is proof that it was completed.
//!
//! A holder that lost its claim to a higher one takes it away once it has ended everything: nobody waits
//! for it any longer. A completed claim deletes those it beats. That is safe: their holders stop when they see a higher
//! claim *or miss their own*, and the highest claim is never deleted, so epochs never start again.
//! An older claim is deleted before its release marker: no order of deletes makes one look alive that
//! is not beaten anyway. A loser deletes its own claim, which never was completed.
//!
//! Not covered: two copies of one state directory used at the same time on one host. The second
//! overwrites the first's claim; the first sees other bytes under its name and stops.

use crate::repo::error::{RepoError, Result};
use crate::repo::store::Store;
use crate::repo::writer::Writer;
use holdfast_format::claim::{Claim as Body, ClaimKey, next_epoch, winner};
use holdfast_format::id::CatalogId;
use holdfast_format::names::{OWNER, ObjectName};
use holdfast_format::repository::MAX_REPOSITORY_BYTES;
use holdfast_runtime::clock::Clock;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Who claims, and how.
#[derive(Clone)]
pub struct Claimant {
    /// The catalog's id.
    pub catalog: CatalogId,
    /// Name of this host; the same after a restart, another on another host.
    pub host: String,
    /// Epoch of the last claim that this catalog completed; 0 for none.
    pub completed_epoch: u64,
    /// Take the repository over from another catalog.
    pub take_over: bool,
    /// T: the limit of every store request.
    pub request_limit: Duration,
    /// Tells the time, and waits.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claimant({} on {})", self.catalog, self.host)
    }
}

/// A wait of 2 T that has begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// How long it lasts at most.
    pub at_most: Duration,
    /// Whom we wait for: catalog and host.
    pub holder: String,
}

/// Ownership of the repository by this process.
#[derive(Debug)]
pub struct Claim {
    store: Store,
    writer: Writer,
    mine: ClaimKey,
    body: Vec<u8>,
    /// Why it is lost, once it is.
    lost: Mutex<Option<String>>,
}

/// The claims in the store.
#[derive(Debug, Default)]
struct Survey {
    claims: BTreeSet<(u64, CatalogId)>,
    released: BTreeSet<(u64, CatalogId)>,
}

impl Survey {
    async fn of(store: &Store) -> Result<Self> {
        let mut survey = Survey::default();
        for found in store.list(OWNER).await? {
            match found.name {
                Some(ObjectName::Claim { epoch, catalog }) => {
                    survey.claims.insert((epoch, catalog));
                }
                Some(ObjectName::Released { epoch, catalog }) => {
                    survey.released.insert((epoch, catalog));
                }
                _ => tracing::warn!(object = found.text, "not a claim; left alone"),
            }
        }
        Ok(survey)
    }

    fn keys(&self) -> impl Iterator<Item = ClaimKey> + '_ {
        self.claims.iter().map(|(epoch, catalog)| ClaimKey {
            epoch: *epoch,
            catalog: *catalog,
        })
    }

    fn top(&self) -> Option<ClaimKey> {
        winner(self.keys())
    }

    fn is_released(&self, claim: &ClaimKey) -> bool {
        self.released.contains(&(claim.epoch, claim.catalog))
    }

    fn has(&self, claim: &ClaimKey) -> bool {
        self.claims.contains(&(claim.epoch, claim.catalog))
    }

    /// Claims whose holders may still be at work: neither released nor beaten by a completed one.
    fn alive<'a>(&'a self, claimant: &'a Claimant) -> impl Iterator<Item = ClaimKey> + 'a {
        let completed = |claim: &ClaimKey| {
            let ours = claim.catalog == claimant.catalog;
            self.is_released(claim) || ours && claim.epoch <= claimant.completed_epoch
        };
        let past = winner(self.keys().filter(completed));
        self.keys().filter(move |claim| {
            !self.is_released(claim) && !past.is_some_and(|past| past.beats(claim))
        })
    }
}

/// Claims the repository; returns when it is safe to write.
///
/// `notify` is called when a wait of 2 T begins. Dropping the future leaves a claim in the store that
/// was never completed: harmless, but another catalog then needs `take_over`.
///
/// The caller holds the lock of the catalog's state directory, and afterwards makes the catalog
/// remember [`Claim::epoch`], then reconciles with the store, then serves.
pub async fn acquire(
    store: &Store,
    claimant: &Claimant,
    notify: impl Fn(&Waiting) + Send,
) -> Result<Claim> {
    let before = Survey::of(store).await?;
    let mut hosts = BTreeMap::new();
    if let Some(top) = before.top() {
        let foreign = top.catalog != claimant.catalog && !before.is_released(&top);
        if foreign && !claimant.take_over {
            return Err(owned(store, claimant, top).await);
        }
    }
    let epoch = next_epoch(before.keys()).max(claimant.completed_epoch.saturating_add(1));
    let body = Body {
        epoch,
        catalog: claimant.catalog,
        host: claimant.host.clone(),
        started_ns: claimant.clock.now_ns(),
    };
    let writer = Writer::new(store.clone());
    writer.claim(&body).await?;
    let claim = Claim {
        store: store.clone(),
        writer,
        mine: body.key(),
        body: body.encode()?,
        lost: Mutex::new(None),
    };
    let mut waited = Duration::ZERO;
    let whole = 2 * claimant.request_limit;
    let step = (whole / 60).clamp(Duration::from_millis(1), Duration::from_secs(10));
    loop {
        let survey = claim.standing(claimant).await?;
        let mut rival = None;
        for other in survey.alive(claimant).filter(|other| *other != claim.mine) {
            if !is_dead(store, claimant, other, &mut hosts).await? {
                rival = Some(other);
                break;
            }
        }
        // A rival that has gone or released has nothing under way.
        let Some(rival) = rival else { break };
        if waited >= whole {
            break;
        }
        if waited.is_zero() {
            let host = hosts.get(&(rival.epoch, rival.catalog)).cloned().flatten();
            let waiting = Waiting {
                at_most: whole,
                holder: format!(
                    "catalog {} on host {}",
                    rival.catalog,
                    host.as_deref().unwrap_or("unknown")
                ),
            };
            tracing::warn!(
                holder = waiting.holder,
                at_most_seconds = whole.as_secs(),
                "waiting for the earlier owner's requests to end"
            );
            notify(&waiting);
        }
        let started = claimant.clock.elapsed();
        claimant.clock.sleep(step).await;
        waited += claimant.clock.elapsed().saturating_sub(started);
    }
    claim.clear_past().await;
    tracing::info!(epoch, catalog = %claimant.catalog, "claimed the repository");
    Ok(claim)
}

/// Who holds the repository now, if anybody: for `status` and `doctor`.
pub async fn holder(store: &Store) -> Result<Option<Body>> {
    let survey = Survey::of(store).await?;
    match survey.top().filter(|top| !survey.is_released(top)) {
        Some(top) => read(store, top).await,
        None => Ok(None),
    }
}

/// The highest claim in the store, if it was given back: then nobody owns the repository, and nobody has
/// written to it since.
pub async fn released(store: &Store) -> Result<Option<ClaimKey>> {
    let survey = Survey::of(store).await?;
    Ok(survey.top().filter(|top| survey.is_released(top)))
}

/// Whether a claim's process is known to be dead: ours, on this host.
async fn is_dead(
    store: &Store,
    claimant: &Claimant,
    claim: ClaimKey,
    hosts: &mut BTreeMap<(u64, CatalogId), Option<String>>,
) -> Result<bool> {
    let key = (claim.epoch, claim.catalog);
    let host = match hosts.get(&key) {
        Some(host) => host.clone(),
        None => {
            // One that cannot be read may be anybody's.
            let host = match read(store, claim).await {
                Ok(body) => body.map(|body| body.host),
                Err(error) if error.is_damage() => None,
                Err(error) => return Err(error),
            };
            hosts.insert(key, host.clone());
            host
        }
    };
    Ok(claim.catalog == claimant.catalog && host.as_deref() == Some(claimant.host.as_str()))
}

/// The body of a claim; `None` where it was deleted meanwhile.
async fn read(store: &Store, claim: ClaimKey) -> Result<Option<Body>> {
    let name = name_of(claim);
    match store.get_limited(&name, MAX_REPOSITORY_BYTES as u64).await {
        Ok(bytes) => Body::decode(&bytes)
            .map(Some)
            .map_err(|error| RepoError::of_object(name, error)),
        Err(RepoError::ObjectMissing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn name_of(claim: ClaimKey) -> ObjectName {
    ObjectName::Claim {
        epoch: claim.epoch,
        catalog: claim.catalog,
    }
}

async fn owned(store: &Store, claimant: &Claimant, holder: ClaimKey) -> RepoError {
    let body = read(store, holder).await.ok().flatten();
    let age = body.as_ref().map(|body| {
        let nanos = claimant.clock.now_ns().saturating_sub(body.started_ns);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    });
    RepoError::Owned {
        holder,
        host: body.map_or_else(|| "unknown".into(), |body| body.host),
        age: age.map_or_else(|| "an unknown time".into(), for_people),
    }
}

fn for_people(age: Duration) -> String {
    match age.as_secs() {
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

impl Claim {
    /// Its epoch; the catalog is to remember it.
    pub fn epoch(&self) -> u64 {
        self.mine.epoch
    }

    /// What its name says.
    pub fn key(&self) -> ClaimKey {
        self.mine
    }

    /// Lists the claims again. An error other than [`RepoError::Fenced`] says that the store could not
    /// be asked: nothing may be written, but the claim may still be ours.
    pub async fn check(&self) -> Result<()> {
        if let Some(detail) = self.lost_to() {
            return Err(self.fenced(detail));
        }
        let survey = Survey::of(&self.store).await?;
        let top = survey.top();
        if let Some(top) = top.filter(|top| top.beats(&self.mine)) {
            return Err(self.lose(format!(
                "catalog {} claimed epoch {}",
                top.catalog, top.epoch
            )));
        }
        if !survey.has(&self.mine) {
            return Err(self.lose("it is no longer in the store".into()));
        }
        if survey.is_released(&self.mine) {
            return Err(self.lose("it was released".into()));
        }
        let name = name_of(self.mine);
        match self
            .store
            .get_limited(&name, MAX_REPOSITORY_BYTES as u64)
            .await
        {
            Ok(bytes) if bytes == self.body => Ok(()),
            Ok(_) => Err(self.lose("a copy of this catalog claimed the same epoch".into())),
            Err(error) if error.is_damage() => Err(self.lose(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Proves that the store can be read and written: the claim is looked for, and written again as it is.
    pub async fn prove(&self) -> Result<()> {
        self.check().await?;
        self.writer.claim_again(self.mine, &self.body).await
    }

    /// Whether a check has found the claim lost.
    pub fn is_lost(&self) -> bool {
        self.lost_to().is_some()
    }

    /// Gives the repository back. The caller has ended everything that writes. A claim that was lost is
    /// not released: where a higher one beats it, it is taken away, and whoever waits for us goes on.
    pub async fn release(self) -> Result<()> {
        if !self.is_lost() {
            return self.writer.released(self.mine).await;
        }
        let survey = Survey::of(&self.store).await?;
        if survey.top().is_some_and(|top| top.beats(&self.mine)) {
            let name = name_of(self.mine);
            let limit = MAX_REPOSITORY_BYTES as u64;
            // A copy of this catalog has the same name, and other bytes.
            if matches!(self.store.get_limited(&name, limit).await, Ok(bytes) if bytes == self.body)
            {
                self.store.delete(&name).await?;
            }
        }
        Ok(())
    }

    /// While claiming: the claims in the store, or that we have lost; then our claim is taken back.
    async fn standing(&self, claimant: &Claimant) -> Result<Survey> {
        let survey = Survey::of(&self.store).await?;
        match survey.top() {
            Some(top) if top == self.mine => Ok(survey),
            Some(top) if top.beats(&self.mine) => {
                if let Err(error) = self.store.delete(&name_of(self.mine)).await {
                    tracing::warn!(%error, "could not take a lost claim back; it does no harm");
                }
                Err(owned(&self.store, claimant, top).await)
            }
            // Listed after it was written, and not there: no claim is safe on such a store.
            _ => Err(RepoError::StoreUnavailable {
                doing: format!("list {}", name_of(self.mine)),
                source: "the store does not list what was written before".into(),
            }),
        }
    }

    /// Deletes the claims that this one, now completed, beats. What fails is left for the next.
    async fn clear_past(&self) {
        let survey = match Survey::of(&self.store).await {
            Ok(survey) => survey,
            Err(_) => return,
        };
        let past = survey.keys().filter(|claim| self.mine.beats(claim));
        for claim in past {
            if self.store.delete(&name_of(claim)).await.is_err() {
                // A store that forbids deletes: the claims stay, and do no harm.
                return;
            }
        }
        for (epoch, catalog) in survey.released.iter().copied() {
            if self.mine.beats(&ClaimKey { epoch, catalog }) {
                let name = ObjectName::Released { epoch, catalog };
                let _ = self.store.delete(&name).await;
            }
        }
    }

    fn lose(&self, detail: String) -> RepoError {
        tracing::error!(
            epoch = self.mine.epoch,
            detail,
            "the claim on the repository is lost"
        );
        let mut lost = self
            .lost
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        *lost = Some(detail.clone());
        self.fenced(detail)
    }

    fn lost_to(&self) -> Option<String> {
        let lost = self
            .lost
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        lost.clone()
    }

    fn fenced(&self, detail: String) -> RepoError {
        RepoError::Fenced {
            mine: self.mine,
            detail,
        }
    }
}

/// Tells nodes of a cluster apart in claims, where the machine's own id cannot be seen: by the name that the cluster
/// knows the node by, which stays when it starts anew. Shown to people.
pub fn node_identity(node: &str) -> String {
    format!("{node} (node)")
}

/// Tells hosts apart in claims: the host's name, and the machine's or, in a container, the boot's id,
/// so that a pod of the same name on another node is another host. Shown to people.
pub fn host_identity() -> String {
    let read = |path| std::fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = read("/etc/machine-id").filter(|id| id.trim().len() == 32);
    let (kind, id) = match machine {
        Some(id) => ("machine", id),
        None => (
            "boot",
            read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        ),
    };
    // The machine's id is not for others to know: a hash of it serves as well.
    let digest = blake3::derive_key(
        "holdfast.dev 2026-11 v1 host identity",
        id.trim().as_bytes(),
    );
    let name: String = name
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    format!("{name} ({kind} {})", holdfast_format::id::hex(&digest[..4]))
}

#[cfg(test)]
mod tests;
