//! A running coordinator: opened, served from, shut down.
//!
//! [`Coordinator::open`] owns the repository until [`Coordinator::shutdown`]: it has claimed it, brought
//! the catalog up to the store, and settled what a crash left half-way. A reader needs none of it.

mod examine;
mod protection;
mod volumes;

use crate::browse::{Library, Suspects};
use crate::catalog::{Catalog, Mode};
use crate::core::{Core, spool_dir};
use crate::declared::Standing;
use crate::error::{Error, Result};
use crate::kube::{Brackets, Events, Picture, Wanted};
use crate::metrics::CoordinatorMetrics;
use crate::repo::claim::{Waiting, acquire};
use crate::repo::reconcile::{ObjectProblem, Reconciled, reconcile};
use crate::repo::sweep::sweep;
use crate::repo::{Claim, Claimant, DiskCache, Reader, Repository, StoreUrl};
use crate::schedule::{Hub, Rules};
use crate::service::{self, Intake};
use crate::session::{PackPool, PoolParts, Sessions};
use crate::settings::{Agents, CoordinatorSettings};
use holdfast_format::wire::id_to_wire;
use holdfast_proto::v1::{BackupOrder, StatusReply};
use holdfast_runtime::clock::Clock;
use holdfast_runtime::metrics::Metrics;
use holdfast_runtime::shutdown::{self, Cause, Shutdown, Stopper};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{RwLock, watch};
use tonic::service::Routes;

/// A coordinator in this process.
pub struct Coordinator {
    library: Library,
    /// None for a reader.
    owning: Option<Owning>,
    hub: Hub,
    intake: Intake,
    clock: Arc<dyn Clock>,
    started_ns: i64,
    /// What was missing or damaged at the start.
    damage: Vec<ObjectProblem>,
    stopper: Mutex<Option<Stopper>>,
    stopping: Shutdown,
    /// Where there are policies, what they are for and how they decide, now.
    pictures: OnceLock<Pictures>,
    events: OnceLock<Events>,
    /// Volumes whose snapshots were forgotten or acknowledged, for who follows volumes of a cluster.
    touched: Mutex<HashSet<String>>,
    /// And what is said of its volumes and policies.
    told: OnceLock<watch::Receiver<Arc<Wanted>>>,
    /// Of the certificate that clients are shown; 0: there is none.
    certificate_expires_ns: AtomicI64,
    /// And what surrounds its runs.
    brackets: OnceLock<Arc<Brackets>>,
    /// Where they come from files, how those are doing.
    policy_files: OnceLock<watch::Receiver<Standing>>,
    /// When the next runs of volumes start whose policies have a schedule.
    next_runs: Mutex<HashMap<String, Timestamp>>,
    /// The rules of continuous protection, once somebody goes by them.
    rules: OnceLock<Rules>,
}

type Pictures = watch::Receiver<Option<Arc<Picture>>>;

struct Owning {
    core: Arc<Core>,
    sessions: Arc<Sessions>,
    epoch: u64,
}

impl Coordinator {
    /// Claims the repository, reconciles the catalog with the store, and is then ready to serve.
    pub async fn open(
        settings: CoordinatorSettings,
        repository: Repository,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        Self::open_telling(settings, repository, clock, |_| {}).await
    }

    /// The same; `waiting` is called when an earlier owner's requests must be waited for.
    pub async fn open_telling(
        settings: CoordinatorSettings,
        repository: Repository,
        clock: Arc<dyn Clock>,
        waiting: impl Fn(&Waiting) + Send,
    ) -> Result<Arc<Self>> {
        let spool = spool_dir(&settings);
        std::fs::create_dir_all(&spool)
            .map_err(|source| Error::io(format!("create {}", spool.display()), source))?;
        let id = repository.id();
        let catalog = Arc::new(Catalog::open(&settings.state_dir, &id, Mode::ReadWrite).await?);
        let claimant = Claimant {
            catalog: catalog.id(),
            host: settings.host.clone(),
            completed_epoch: catalog.claim_epoch().await?,
            take_over: settings.take_over,
            request_limit: repository.store().request_limit(),
            clock: clock.clone(),
        };
        let claim = acquire(repository.store(), &claimant, waiting).await?;
        catalog.set_claim_epoch(claim.epoch()).await?;
        let epoch = claim.epoch();
        let found = reconcile(&catalog, &repository, clock.now_ns(), &|_| {}).await?;
        report(&found);
        let swept = sweep(repository.store(), clock.now_ns()).await;
        if swept.files > 0 {
            tracing::info!(
                files = swept.files,
                bytes = swept.bytes,
                "left-over files of killed puts removed"
            );
        }
        if settings.agents == Agents::InProcess {
            let lease = settings.sessions.lease;
            catalog.end_leases(clock.now_ns(), lease).await?;
        }
        let totals = catalog.totals().await?;
        let pool = PackPool::new(PoolParts {
            repository: repository.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            settings: settings.packs,
            spill_dir: spool,
            catalog_ids: match totals.packs {
                0 => 0,
                _ => totals.chunks + totals.nodes,
            },
        });
        let library = library(&settings, catalog.clone(), repository.clone());
        let core = Arc::new(Core {
            library: library.clone(),
            catalog,
            repository,
            claim: RwLock::new(Some(claim)),
            pool,
            clock: clock.clone(),
            settings,
            made_suspicious: AtomicU64::new(0),
        });
        for reserved in core.catalog.unpublished().await? {
            core.settle(&reserved).await?;
        }
        let owning = Owning {
            sessions: Arc::new(Sessions::new(core.clone())),
            core,
            epoch,
        };
        let has_rules = !owning.core.settings.continuous.is_empty();
        let coordinator = Self::new(library, Some(owning), clock, found.problems);
        if has_rules {
            coordinator.protect_continuously();
        }
        Ok(coordinator)
    }

    /// Opens the store and the catalog for reading only: no claim, nothing is written. `damage` is what the
    /// caller found when it brought the catalog up to the store.
    pub async fn open_read_only(
        settings: CoordinatorSettings,
        repository: Repository,
        clock: Arc<dyn Clock>,
        damage: Vec<ObjectProblem>,
    ) -> Result<Arc<Self>> {
        let id = repository.id();
        let catalog = Arc::new(Catalog::open(&settings.state_dir, &id, Mode::ReadOnly).await?);
        let library = library(&settings, catalog, repository);
        Ok(Self::new(library, None, clock, damage))
    }

    fn new(
        library: Library,
        owning: Option<Owning>,
        clock: Arc<dyn Clock>,
        damage: Vec<ObjectProblem>,
    ) -> Arc<Self> {
        let (stopper, stopping) = shutdown::channel();
        Arc::new(Self {
            library,
            owning,
            hub: Hub::default(),
            intake: Intake::default(),
            started_ns: clock.now_ns(),
            damage,
            clock,
            stopper: Mutex::new(Some(stopper)),
            stopping,
            pictures: OnceLock::new(),
            events: OnceLock::new(),
            touched: Mutex::default(),
            told: OnceLock::new(),
            certificate_expires_ns: AtomicI64::new(0),
            brackets: OnceLock::new(),
            policy_files: OnceLock::new(),
            next_runs: Mutex::default(),
            rules: OnceLock::new(),
        })
    }

    /// All gRPC services, for a server or an in-process channel.
    pub async fn routes(self: &Arc<Self>) -> Routes {
        service::routes(self.clone()).await
    }

    /// What of messages that are coming in may be in memory.
    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Metrics of this coordinator, read when they are scraped.
    pub fn register_metrics(self: &Arc<Self>, metrics: &Metrics) -> CoordinatorMetrics {
        CoordinatorMetrics::new(self.clone(), metrics)
    }

    /// Ends sessions and streams, makes open packs durable, gives the claim back. Agents resume their
    /// sessions with the next coordinator.
    pub async fn shutdown(&self) -> Result<()> {
        let stopper = {
            let mut stopper = self.stopper.lock().unwrap_or_else(PoisonError::into_inner);
            stopper.take()
        };
        let Some(stopper) = stopper else {
            return Ok(());
        };
        stopper.request(Cause::Asked);
        if let Some(brackets) = self.brackets.get() {
            brackets.drain().await;
        }
        if let Some(owning) = &self.owning {
            owning.sessions.stop().await;
            owning.core.pool.drain().await;
            let released = owning.core.release().await?;
            if let Some(released) = released.filter(|_| self.damage.is_empty()) {
                owning.core.agree(&released).await?;
            }
        }
        self.library.catalog.close().await?;
        Ok(())
    }

    /// What was missing or damaged in the store when it was last looked through.
    pub fn damage(&self) -> &[ObjectProblem] {
        &self.damage
    }

    /// Whether another catalog has taken the repository: this process must stop.
    pub fn is_fenced(&self) -> bool {
        let claim = self
            .owning
            .as_ref()
            .and_then(|o| o.core.claim.try_read().ok());
        claim.is_some_and(|claim| claim.as_ref().is_some_and(Claim::is_lost))
    }

    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    pub(crate) fn sessions(&self) -> Result<&Arc<Sessions>> {
        match &self.owning {
            Some(owning) => Ok(&owning.sessions),
            None => Err(read_only()),
        }
    }

    pub(crate) fn pool_bytes(&self) -> u64 {
        self.owning
            .as_ref()
            .map_or(0, |o| o.core.pool.memory_bytes())
    }

    /// Suspicious snapshots that were committed since the coordinator was opened.
    pub(crate) fn made_suspicious(&self) -> u64 {
        self.owning
            .as_ref()
            .map_or(0, |o| o.core.made_suspicious.load(Ordering::Relaxed))
    }

    pub(crate) fn set_pictures(&self, pictures: Pictures) {
        // Set once: policies come from one cluster, or from one place of files.
        let _ = self.pictures.set(pictures);
    }

    /// What policies are for and how they decide, now.
    pub(crate) fn picture(&self) -> Option<Arc<Picture>> {
        self.pictures.get()?.borrow().clone()
    }

    pub(crate) fn set_events(&self, events: Events) {
        let _ = self.events.set(events);
    }

    /// Where events are told; `None`: there is no cluster.
    pub(crate) fn events(&self) -> Option<&Events> {
        self.events.get()
    }

    pub(crate) fn set_told(&self, told: watch::Receiver<Arc<Wanted>>) {
        let _ = self.told.set(told);
    }

    /// What was last said of the cluster's volumes and policies.
    pub(crate) fn told(&self) -> Option<Arc<Wanted>> {
        Some(self.told.get()?.borrow().clone())
    }

    /// What an agent is asked for when this volume is backed up, whoever asks: in a cluster as its policy says.
    pub(crate) fn order_of(&self, volume: &str) -> BackupOrder {
        let of_policy = self.picture().and_then(|picture| picture.order_of(volume));
        of_policy.unwrap_or_else(|| BackupOrder {
            volume: volume.to_owned(),
            ..BackupOrder::default()
        })
    }

    /// The snapshots of a volume are others than before, by no run of it.
    pub(crate) fn touch(&self, volume: &str) {
        if self.events.get().is_some() {
            self.touched().insert(volume.to_owned());
        }
    }

    /// The volumes that were touched since this was last asked.
    pub(crate) fn take_touched(&self) -> HashSet<String> {
        std::mem::take(&mut *self.touched())
    }

    fn touched(&self) -> MutexGuard<'_, HashSet<String>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_brackets(&self, brackets: Arc<Brackets>) {
        // Set once, like the pictures.
        let _ = self.brackets.set(brackets);
    }

    pub(crate) fn brackets(&self) -> Option<&Arc<Brackets>> {
        self.brackets.get()
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn stopping(&self) -> Shutdown {
        self.stopping.clone()
    }

    /// What an owner of the repository writes with.
    pub(crate) fn core(&self) -> Result<&Arc<Core>> {
        match &self.owning {
            Some(owning) => Ok(&owning.core),
            None => Err(read_only()),
        }
    }

    pub(crate) async fn status(&self) -> Result<StatusReply> {
        let totals = self.library.catalog.totals().await?;
        let suspicious = self.library.catalog.suspicious_counts().await?;
        let repository = &self.library.repository;
        let owning = self.owning.as_ref();
        Ok(StatusReply {
            version: env!("CARGO_PKG_VERSION").into(),
            repository: id_to_wire(repository.id().as_bytes()),
            store: repository.store().url_redacted().into(),
            format_version: u32::from(repository.config().format_version),
            volumes: totals.volumes,
            snapshots: totals.snapshots,
            chunks: totals.chunks,
            packs: totals.packs,
            pack_bytes: totals.pack_bytes,
            open_sessions: owning.map_or(0, |o| o.sessions.count() as u64),
            agents: self.hub.agents(),
            claim_epoch: owning.map_or(0, |o| o.epoch),
            started_ns: self.started_ns,
            suspicious: suspicious.values().sum(),
            now_ns: self.clock.now_ns(),
            certificate_expires_ns: self.certificate_expires_ns.load(Ordering::Relaxed),
            agent_infos: self.hub.infos(),
            policy_files: self.policy_files().map(Into::into),
        })
    }

    /// Remembers until when the certificate holds that clients are shown.
    pub(crate) fn set_certificate_expiry(&self, at_ns: i64) {
        self.certificate_expires_ns.store(at_ns, Ordering::Relaxed);
    }
}

fn report(found: &Reconciled) {
    if found.was_behind() {
        tracing::warn!(
            packs = found.packs,
            snapshots = found.snapshots,
            marks = found.marks,
            deletions = found.deletions,
            forgotten = found.forgotten.len(),
            "the catalog was behind its store and has been brought up"
        );
    }
    for problem in &found.problems {
        tracing::error!(
            object = problem.object,
            detail = problem.detail,
            "damage in the store"
        );
    }
}

/// What readers work with. A cache that cannot be had costs reads from the store.
fn library(
    settings: &CoordinatorSettings,
    catalog: Arc<Catalog>,
    repository: Repository,
) -> Library {
    let cache = settings.cache;
    let url = repository.store().url_redacted();
    let disk = match StoreUrl::parse(url) {
        // A disk in front of a disk.
        Ok(StoreUrl::Directory(_)) => Ok(None),
        _ => DiskCache::open(&settings.state_dir.join("frames"), cache.disk_bytes),
    };
    let disk = disk.unwrap_or_else(|error| {
        tracing::warn!(%error, "no cache of tree frames on disk");
        None
    });
    let memory = usize::try_from(cache.memory_bytes).unwrap_or(usize::MAX);
    Library {
        catalog,
        reader: Reader::new(repository.clone(), memory, disk),
        repository,
        suspects: Suspects::default(),
    }
}

fn read_only() -> Error {
    Error::NotAllowed {
        detail: "the repository is open for reading only".into(),
    }
}
