//! The open sessions: begin (or resume) one, find one, end one. At most one per volume.

use crate::Core;
use crate::catalog::{BeginSession, Volume, VolumeRow};
use crate::error::{Error, Result};
use crate::session::doubt::Doubt;
use crate::session::proof::Proof;
use crate::session::{Lease, Parent, Session, SessionParts, Told};
use holdfast_format::id::{DomainId, IdempotencyKey, SessionId, SnapshotId, VolumeId};
use holdfast_format::keys::DomainKeys;
use holdfast_format::mark::{Mark, MarkRecord};
use holdfast_format::path::RelPath;
use holdfast_format::snapshot::Snapshot;
use holdfast_format::volume::VolumeFacts;
use holdfast_format::wire::SnapshotInfo;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sessions silent for this long leave memory; their keys can still resume them.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Committed sessions whose answer can be asked for again by their ids.
const MAX_DONE: usize = 1000;

/// What opens or resumes a session.
pub struct Begin {
    /// The same for every retry of one run.
    pub key: IdempotencyKey,
    /// The volume.
    pub facts: VolumeFacts,
    /// The snapshot that the agent's index describes.
    pub parent: Option<SnapshotId>,
    /// Start of the run by the agent's clock.
    pub started_ns: i64,
    /// Take the name over although another source had it.
    pub adopt: bool,
    /// The parent cannot be read: there is to be none, and what is stored is doubted.
    pub parent_damaged: bool,
}

/// What an agent needs to go on.
pub struct Begun {
    /// The session.
    pub session: SessionId,
    /// Its lease epoch.
    pub epoch: u64,
    /// How long the lease lasts after a message.
    pub lease: Duration,
    /// The volume.
    pub volume: VolumeId,
    /// Keys of its domain generation. Only the id key may leave this process.
    pub keys: Arc<DomainKeys>,
    /// Chunking profile.
    pub profile: u8,
    /// Files up to this size are inline, in bytes.
    pub inline_limit: u32,
    /// The parent to work against, with its sequence.
    pub parent: Option<(SnapshotId, u64)>,
    /// No chunk of the volume is held.
    pub holds_nothing: bool,
    /// What is to be read again whatever its stamp says.
    pub reread: Vec<RelPath>,
    /// What is missing of the snapshot that would be, or is, the parent; empty: nothing.
    pub parent_damage: String,
    /// The run was committed before.
    pub committed: Option<SnapshotId>,
}

/// The open sessions.
pub struct Sessions {
    core: Arc<Core>,
    open: Mutex<HashMap<SessionId, Arc<Session>>>,
    /// Ids that were given to agents whose runs were committed before: they ask for the commit again.
    done: Mutex<VecDeque<(SessionId, SnapshotId)>>,
    /// Begins come one after the other: each may end another session.
    beginning: tokio::sync::Mutex<()>,
}

impl Sessions {
    /// None yet.
    pub fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            open: Mutex::default(),
            done: Mutex::default(),
            beginning: tokio::sync::Mutex::default(),
        }
    }

    /// Opens a session, or resumes the one with this key.
    pub async fn begin(&self, begin: Begin) -> Result<Begun> {
        let core = &self.core;
        core.examine_suspects().await?;
        let proof = self.prove(&begin).await?;
        let doubted = begin.parent_damaged || proof.broken;
        let _one = self.beginning.lock().await;
        let volume = self.volume(&begin.facts, begin.adopt).await?;
        let keys = self.keys(&volume.domain).await?;
        let parent = match doubted {
            true => None,
            false => self.parent(&volume, &keys, begin.parent).await?,
        };
        let wanted = BeginSession {
            id: SessionId::from_bytes(crate::repo::kek::random()?),
            key: begin.key,
            volume: volume.no,
            node: begin.facts.node.clone(),
            parent: parent.as_ref().map(|parent| parent.id),
            lease: core.settings.sessions.lease,
            now_ns: core.clock.now_ns(),
        };
        let row = core.catalog.begin(&wanted).await;
        let row = row.map_err(|error| busy(error.into(), &begin.facts))?;
        self.end_others(&volume.id).await;
        let mut begun = Begun {
            session: row.session,
            epoch: row.epoch,
            lease: core.settings.sessions.lease,
            volume: volume.id,
            keys: keys.clone(),
            profile: core.repository.config().default_profile,
            inline_limit: core.repository.config().inline_limit,
            parent: parent.as_ref().map(|parent| (parent.id, parent.sequence)),
            holds_nothing: core.catalog.holds_nothing(volume.no).await?,
            reread: proof.reread,
            parent_damage: proof.detail,
            committed: row.committed,
        };
        if begun.committed.is_none() {
            // The session that was ended above may have got that far.
            begun.committed = core.catalog.committed(&begin.key).await?;
        }
        if begun.committed.is_none()
            && let Some(reserved) = core.catalog.reservation(&begin.key).await?
        {
            core.settle(&reserved).await?;
            begun.committed = Some(reserved.snapshot);
        }
        if let Some(snapshot) = begun.committed {
            self.remember(begun.session, snapshot);
            return Ok(begun);
        }
        let lease = Lease::new(
            core.catalog.clone(),
            core.clock.clone(),
            row.session,
            row.epoch,
            core.settings.sessions.lease,
        );
        let session = Session::new(SessionParts {
            core: core.clone(),
            id: row.session,
            key: begin.key,
            lease,
            domain: core.pool.domain(&keys),
            volume,
            facts: begin.facts,
            parent,
            started_ns: begin.started_ns,
            stamped_since: row.stamped_since,
            doubt: doubted.then(Doubt::default),
        });
        self.lock().insert(row.session, Arc::new(session));
        Ok(begun)
    }

    /// What the parent is worth that the run would have. It may take long, and holds nobody up.
    async fn prove(&self, begin: &Begin) -> Result<Proof> {
        let known = self.core.catalog.volume_by_name(&begin.facts.name).await?;
        let Some(volume) = known.filter(|_| !begin.parent_damaged) else {
            return Ok(Proof::default());
        };
        let keys = self.keys(&volume.domain).await?;
        match self.parent(&volume, &keys, begin.parent).await? {
            Some(parent) => self.core.prove(&volume, &parent.id).await,
            None => Ok(Proof::default()),
        }
    }

    /// The open session with this id and epoch.
    pub fn open(&self, id: &SessionId, epoch: u64) -> Result<Arc<Session>> {
        let session = self.lock().get(id).cloned().ok_or(Error::UnknownSession)?;
        if session.lease.epoch() != epoch {
            return Err(Error::LeaseLost);
        }
        Ok(session)
    }

    /// Makes the run's snapshot visible; the same answer however often it is asked.
    pub async fn commit(
        &self,
        id: &SessionId,
        epoch: u64,
        last_seq: u64,
        told: Told,
    ) -> Result<SnapshotInfo> {
        let session = match self.open(id, epoch) {
            Err(Error::UnknownSession) => {
                let snapshot = self.committed(id).ok_or(Error::UnknownSession)?;
                return self.core.snapshot_info(&snapshot).await;
            }
            session => session?,
        };
        let info = session.commit(epoch, last_seq, told).await?;
        // Nothing but its answer is needed any more.
        self.remember(*id, info.id);
        self.lock().remove(id);
        Ok(info)
    }

    fn remember(&self, session: SessionId, snapshot: SnapshotId) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.truncate(MAX_DONE - 1);
        done.push_front((session, snapshot));
    }

    fn committed(&self, session: &SessionId) -> Option<SnapshotId> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let found = done.iter().find(|(id, _)| id == session);
        found.map(|(_, snapshot)| *snapshot)
    }

    /// Ends a session without a snapshot.
    pub async fn abort(&self, id: &SessionId, epoch: u64, reason: &str) -> Result<()> {
        let session = self.open(id, epoch)?;
        session.lease.check(epoch).await?;
        tracing::info!(session = %id, volume = %session.volume.facts.name, reason, "session aborted");
        session.lease.lose();
        self.lock().remove(id);
        self.core.catalog.end(id, epoch).await?;
        Ok(())
    }

    /// Number of open sessions.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Ends every session of this process; their keys can resume them.
    pub async fn stop(&self) {
        let sessions: Vec<Arc<Session>> = self.lock().drain().map(|(_, session)| session).collect();
        for session in sessions {
            session.stop().await;
        }
    }

    /// Ends other sessions of the volume, waiting for a commit that is under way; forgets silent ones.
    async fn end_others(&self, volume: &VolumeId) {
        let now = self.core.clock.elapsed();
        let gone: Vec<Arc<Session>> = {
            let mut open = self.lock();
            let silent = |s: &Session| now.saturating_sub(s.lease.heard()) > FORGET_AFTER;
            let ended = open.extract_if(|_, s| s.volume.id == *volume || silent(s));
            ended.map(|(_, session)| session).collect()
        };
        for session in gone {
            session.stop().await;
        }
    }

    /// The volume with these facts: the one it was before, or a new one.
    async fn volume(&self, facts: &VolumeFacts, adopt: bool) -> Result<Volume> {
        let core = &self.core;
        let known = core.catalog.volume_by_name(&facts.name).await?;
        let mut new = false;
        let (id, domain, state) = match known {
            Some(known) if same_source(&known.facts, facts) => {
                if known.facts == *facts {
                    return Ok(known);
                }
                // What a pod is called changes often and is in every snapshot; it binds nothing.
                (known.id, known.domain, false)
            }
            Some(known) if adopt && known.facts.namespace == facts.namespace => {
                (known.id, known.domain, true)
            }
            Some(known) if is_place(facts) && is_place(&known.facts) => {
                return Err(Error::VolumeNameTaken {
                    volume: facts.name.to_string(),
                    holder: format!("{} on {}", known.facts.source, known.facts.node),
                });
            }
            // A new claim or handle under an old name, or another namespace, is another volume.
            _ => {
                new = true;
                let id = VolumeId::from_bytes(crate::repo::kek::random()?);
                (id, self.domain(facts).await?, true)
            }
        };
        let now = core.clock.now_ns();
        if state {
            let facts = facts.clone();
            let record = MarkRecord {
                mark: Mark::Volume { id, domain, facts },
                time_ns: now,
                actor: String::new(),
            };
            core.repository.put_mark(&record).await?;
        }
        let row = VolumeRow {
            id,
            domain,
            facts: facts.clone(),
            bound_ns: now,
        };
        let no = core.catalog.bind_volume(&row).await?;
        if new {
            // Nothing of it can have been lost so far.
            let losses = core.catalog.losses().await?;
            core.catalog.set_losses_seen(no, losses).await?;
        }
        let volume = core.catalog.volume_by_id(&id).await?;
        volume.ok_or_else(|| Error::internal("bind a volume"))
    }

    async fn domain(&self, facts: &VolumeFacts) -> Result<DomainId> {
        self.core.ensure_domain(&facts.namespace).await
    }

    /// The keys of a domain's newest generation.
    async fn keys(&self, domain: &DomainId) -> Result<Arc<DomainKeys>> {
        let known = self.core.repository.keyring().generations();
        let generations = known.iter().filter(|(id, _)| id == domain);
        let newest = generations.map(|(_, generation)| *generation).max();
        Ok(self
            .core
            .repository
            .domain_keys(domain, newest.unwrap_or(1))
            .await?)
    }

    /// The agent's parent where it can be one, else the newest visible snapshot that can. A snapshot
    /// of another volume, domain or generation is no parent.
    async fn parent(
        &self,
        volume: &Volume,
        keys: &DomainKeys,
        wanted: Option<SnapshotId>,
    ) -> Result<Option<Parent>> {
        let catalog = &self.core.catalog;
        let mut rows = Vec::new();
        if let Some(wanted) = wanted {
            rows.extend(catalog.snapshot(&wanted).await?);
        }
        rows.extend(catalog.latest(volume.no).await?);
        for row in rows {
            let record = Snapshot::decode(&row.record)?;
            let fits = record.volume == volume.id
                && record.domain == keys.domain
                && record.generation == keys.generation;
            if fits {
                return Ok(Some(Parent {
                    id: row.id,
                    sequence: row.sequence,
                    root: record.entries_root,
                    problems_root: record.problems_root,
                }));
            }
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        // A map of sessions cannot be left half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the volume is only known by where it lies.
fn is_place(facts: &VolumeFacts) -> bool {
    facts.pvc_uid.is_empty() && facts.volume_handle.is_empty()
}

/// Whether both facts are of the same thing: the same claim, the same handle of a storage driver, or the
/// same directory of the same node.
fn same_source(known: &VolumeFacts, facts: &VolumeFacts) -> bool {
    if known.namespace != facts.namespace || known.pvc_uid != facts.pvc_uid {
        return false;
    }
    // A driver's handle is one thing in the whole cluster, on whichever node it is mounted now.
    if !facts.pvc_uid.is_empty() || !facts.volume_handle.is_empty() {
        return known.volume_handle == facts.volume_handle;
    }
    known.volume_handle.is_empty()
        && known.node == facts.node
        && known.source_identity == facts.source_identity
}

fn busy(error: Error, facts: &VolumeFacts) -> Error {
    match error.reason() {
        crate::Reason::VolumeBusy => Error::VolumeBusy {
            volume: facts.name.to_string(),
        },
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(node: &str, identity: &str, uid: &str) -> VolumeFacts {
        let mut facts = VolumeFacts::named("web".parse().unwrap());
        facts.node = node.into();
        facts.source_identity = identity.into();
        facts.pvc_uid = uid.into();
        facts
    }

    #[test]
    fn a_source_is_a_claim_or_a_directory_of_a_node() {
        let same = |a, b| same_source(&a, &b);
        assert!(same(facts("a", "/srv", ""), facts("a", "/srv", "")));
        assert!(!same(facts("a", "/srv", ""), facts("b", "/srv", "")));
        assert!(!same(facts("a", "/srv", ""), facts("a", "/opt", "")));
        assert!(
            same(facts("a", "", "u1"), facts("b", "x", "u1")),
            "a claim moves between nodes"
        );
        assert!(!same(facts("a", "", "u1"), facts("a", "", "u2")));
        let disk = |node, handle: &str| VolumeFacts {
            volume_handle: handle.into(),
            ..facts(node, "", "")
        };
        assert!(
            same(disk("a", "h1"), disk("b", "h1")),
            "a disk moves between nodes"
        );
        assert!(
            !same(disk("a", "h1"), disk("a", "h2")),
            "another disk under the old name"
        );
        assert!(!same(facts("a", "", ""), disk("a", "h1")));
    }
}
