//! The open packs of all dedup domains, and packs on their way to the store.
//!
//! Sessions of a domain share its open packs. Memory is bounded: packs on their way take part of the
//! budget and whoever fills a pack waits for room before it goes on; open packs above the rest spill.
//! Packs on their way never wait for a session, so no session waits for another one's memory.

use crate::blocking;
use crate::catalog::{Catalog, PackRow, VolumeNo};
use crate::error::{Error, Result};
use crate::repo::Repository;
use crate::session::filter::Filter;
use crate::session::open_pack::{OpenPack, Recipe};
use crate::session::ticket::Ticket;
use crate::settings::PackSettings;
use holdfast_format::frame::Frame;
use holdfast_format::id::DomainId;
use holdfast_format::keys::{DomainKeys, Ids};
use holdfast_format::pack::ItemKind;
use holdfast_runtime::clock::Clock;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where an id is.
#[derive(Clone, Debug)]
pub enum Presence {
    /// Nowhere.
    Absent,
    /// In a pack that is open or on its way.
    Pending(Arc<Ticket>),
    /// In the catalog.
    Stored,
}

/// One dedup domain generation and its open packs.
pub struct Domain {
    /// Its keys.
    pub keys: Arc<DomainKeys>,
    /// Its hash functions.
    pub ids: Ids,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    data: Option<OpenPack>,
    tree: Option<OpenPack>,
    pending: HashMap<[u8; 32], Arc<Ticket>>,
}

/// All open packs of the process.
#[derive(Clone)]
pub struct PackPool(Arc<Shared>);

/// What a pool is made of.
pub struct PoolParts {
    /// Where packs go.
    pub repository: Repository,
    /// Where they are registered.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Numbers.
    pub settings: PackSettings,
    /// Directory for spilled packs; exists and is ours.
    pub spill_dir: PathBuf,
    /// About how many chunks and nodes the catalog knows.
    pub catalog_ids: u64,
}

struct Shared {
    repository: Repository,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    settings: PackSettings,
    spill_dir: PathBuf,
    filter: Filter,
    domains: Mutex<HashMap<(DomainId, u32), Arc<Domain>>>,
    /// Bytes of all open packs.
    open: AtomicU64,
    /// Room for packs on their way, in KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
}

impl PackPool {
    /// An empty pool.
    pub fn new(parts: PoolParts) -> Self {
        let room = parts.settings.budget_bytes * 2 / 3 / 1024;
        let room_kib = u32::try_from(room).unwrap_or(u32::MAX >> 4);
        Self(Arc::new(Shared {
            repository: parts.repository,
            catalog: parts.catalog,
            clock: parts.clock,
            settings: parts.settings,
            spill_dir: parts.spill_dir,
            filter: Filter::new(parts.catalog_ids),
            domains: Mutex::default(),
            open: AtomicU64::new(0),
            room: Arc::new(Semaphore::new(room_kib as usize)),
            room_kib,
        }))
    }

    /// The domain generation with these keys.
    pub fn domain(&self, keys: &Arc<DomainKeys>) -> Arc<Domain> {
        let mut domains = lock(&self.0.domains);
        let domain = domains
            .entry((keys.domain, keys.generation))
            .or_insert_with(|| {
                Arc::new(Domain {
                    keys: keys.clone(),
                    ids: keys.id_key.ids(),
                    state: Mutex::default(),
                })
            });
        domain.clone()
    }

    /// Where each id is; an id that was being registered meanwhile may be said to be absent, which
    /// costs its bytes twice and nothing else.
    pub async fn presence(&self, domain: &Domain, ids: &[[u8; 32]]) -> Result<Vec<Presence>> {
        let mut found: Vec<Presence> = {
            let state = lock(&domain.state);
            let pending = |id| match state.pending.get(id) {
                Some(ticket) => Presence::Pending(ticket.clone()),
                None => Presence::Absent,
            };
            ids.iter().map(pending).collect()
        };
        let ask: Vec<usize> = (0..ids.len())
            .filter(|n| matches!(found[*n], Presence::Absent) && self.0.filter.may_hold(&ids[*n]))
            .collect();
        if !ask.is_empty() {
            let asked: Vec<[u8; 32]> = ask.iter().map(|n| ids[*n]).collect();
            let present = self.0.catalog.present(&asked).await?;
            let absent = present.iter().filter(|present| !**present).count();
            if self.0.filter.answered_absent(absent as u64) {
                tokio::spawn(self.clone().fill_filter());
            }
            for (n, present) in ask.into_iter().zip(present) {
                if present {
                    found[n] = Presence::Stored;
                }
            }
        }
        Ok(found)
    }

    async fn fill_filter(self) {
        let filter = &self.0.filter;
        filter.begin();
        let domains: Vec<Arc<Domain>> = lock(&self.0.domains).values().cloned().collect();
        for domain in domains {
            // What is not pending any more is in the catalog, which is read after this.
            let pending = lock(&domain.state);
            pending.pending.keys().for_each(|id| filter.add(id));
        }
        if let Err(error) = filter.fill(&self.0.catalog).await {
            tracing::warn!(%error, "lookups stay as slow as they are");
        }
    }

    /// Puts a frame into the domain's open pack; `holder` holds its chunks once the ticket is durable.
    pub async fn add(
        &self,
        domain: &Arc<Domain>,
        frame: Frame,
        kind: ItemKind,
        holder: Option<VolumeNo>,
    ) -> Result<Arc<Ticket>> {
        // Queue behind whoever waits for room with a full pack.
        drop(self.0.room.acquire().await);
        let (pool, domain) = (self.clone(), domain.clone());
        let (ticket, full) = blocking("seal a frame", move || {
            let added = pool.push(&domain, frame, kind, holder)?;
            pool.spill_surplus()?;
            Ok((added.0, added.1.map(|pack| (domain, pack))))
        })
        .await?;
        if let Some((domain, pack)) = full {
            self.send_off(domain, pack).await;
        }
        Ok(ticket)
    }

    /// Finishes the domain's open packs that have one of these tickets. Their fate comes with the
    /// tickets.
    pub async fn close(&self, domain: &Arc<Domain>, tickets: &[Arc<Ticket>]) -> Result<()> {
        let (data, tree) = {
            let mut state = lock(&domain.state);
            let data = state.data.take_if(|pack| pack.is_one_of(tickets));
            let tree = state.tree.take_if(|pack| pack.is_one_of(tickets));
            (data, tree)
        };
        let packs: Vec<OpenPack> = match (data, tree) {
            (Some(data), Some(tree)) => {
                let salt = || self.salt();
                match data.merge(tree, &self.recipe(&domain.keys, &salt)) {
                    Ok(mixed) => vec![mixed],
                    Err((data, tree)) => vec![data, tree],
                }
            }
            (data, tree) => data.into_iter().chain(tree).collect(),
        };
        for pack in packs {
            self.0
                .open
                .fetch_sub(pack.memory_bytes(), Ordering::Relaxed);
            self.send_off(domain.clone(), pack).await;
        }
        Ok(())
    }

    /// Finishes every open pack and waits until all are durable or have failed.
    pub async fn drain(&self) {
        let domains: Vec<Arc<Domain>> = lock(&self.0.domains).values().cloned().collect();
        for domain in domains {
            let tickets: Vec<Arc<Ticket>> = {
                let state = lock(&domain.state);
                let open = state.data.iter().chain(&state.tree);
                open.map(|pack| pack.ticket().clone()).collect()
            };
            let closed = self.close(&domain, &tickets).await;
            for ticket in tickets.iter().filter(|_| closed.is_ok()) {
                // Sessions that rely on it learn of a failure by themselves.
                let _ = ticket.wait().await;
            }
        }
        drop(self.0.room.acquire_many(self.0.room_kib).await);
    }

    /// Bytes of open packs and of packs on their way, for metrics.
    pub fn memory_bytes(&self) -> u64 {
        let free = self.0.room.available_permits() as u64;
        let on_their_way = (u64::from(self.0.room_kib)).saturating_sub(free) * 1024;
        self.0.open.load(Ordering::Relaxed) + on_their_way
    }

    fn push(
        &self,
        domain: &Domain,
        frame: Frame,
        kind: ItemKind,
        holder: Option<VolumeNo>,
    ) -> Result<(Arc<Ticket>, Option<OpenPack>)> {
        let salt = || self.salt();
        let recipe = self.recipe(&domain.keys, &salt);
        let mut state = lock(&domain.state);
        let State {
            data,
            tree,
            pending,
        } = &mut *state;
        let slot = match kind {
            ItemKind::Chunk => data,
            ItemKind::Node => tree,
        };
        let pack = slot.get_or_insert_with(|| OpenPack::new(kind));
        let ticket = pack.ticket().clone();
        for item in &frame.items {
            self.0.filter.add(&item.id);
            pending.entry(item.id).or_insert_with(|| ticket.clone());
        }
        let before = pack.memory_bytes();
        let pushed = pack.push(frame, kind, holder, &recipe);
        let after = pack.memory_bytes();
        self.0.open.fetch_add(after, Ordering::Relaxed);
        self.0.open.fetch_sub(before, Ordering::Relaxed);
        pushed?;
        let full = slot.take_if(|pack| pack.is_full(&recipe));
        if let Some(pack) = &full {
            self.0
                .open
                .fetch_sub(pack.memory_bytes(), Ordering::Relaxed);
        }
        Ok((ticket, full))
    }

    /// Above the budget the largest open pack goes to a file, until the rest fits.
    fn spill_surplus(&self) -> Result<()> {
        while self.memory_bytes() > self.0.settings.budget_bytes {
            let domains: Vec<Arc<Domain>> = lock(&self.0.domains).values().cloned().collect();
            let mut largest: Option<(u64, Arc<Domain>, ItemKind)> = None;
            for domain in domains {
                let state = lock(&domain.state);
                for (pack, kind) in [
                    (&state.data, ItemKind::Chunk),
                    (&state.tree, ItemKind::Node),
                ] {
                    let bytes = pack.as_ref().map_or(0, OpenPack::spillable_bytes);
                    if bytes > largest.as_ref().map_or(0, |(bytes, ..)| *bytes) {
                        largest = Some((bytes, domain.clone(), kind));
                    }
                }
            }
            let Some((_, domain, kind)) = largest else {
                return Ok(());
            };
            let mut state = lock(&domain.state);
            let slot = match kind {
                ItemKind::Chunk => &mut state.data,
                ItemKind::Node => &mut state.tree,
            };
            if let Some(pack) = slot {
                let before = pack.memory_bytes();
                pack.spill(&self.0.spill_dir)?;
                let freed = before.saturating_sub(pack.memory_bytes());
                self.0.open.fetch_sub(freed, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Waits for room, then lets the pack go its way.
    async fn send_off(&self, domain: Arc<Domain>, pack: OpenPack) {
        let kib = u32::try_from(pack.stored_bytes() / 1024 + 1).unwrap_or(u32::MAX);
        let permits = kib.min(self.0.room_kib);
        let room = self.0.room.clone().acquire_many_owned(permits).await;
        let pool = self.clone();
        tokio::spawn(async move { pool.carry(domain, pack, room.ok()).await });
    }

    /// Finish, put, register; then everybody who has the ticket knows.
    async fn carry(&self, domain: Arc<Domain>, pack: OpenPack, room: Option<OwnedSemaphorePermit>) {
        let tickets = pack.tickets().to_vec();
        let result = self.put(&domain, pack).await.map_err(Arc::new);
        lock(&domain.state)
            .pending
            .retain(|_, ticket| !tickets.iter().any(|gone| Arc::ptr_eq(gone, ticket)));
        if let Err(error) = &result {
            tracing::warn!(%error, "a pack could not be written");
        }
        for ticket in &tickets {
            match &result {
                Ok(()) => ticket.durable(),
                Err(error) => ticket.failed(error.clone()),
            }
        }
        drop(room);
    }

    async fn put(&self, domain: &Arc<Domain>, pack: OpenPack) -> Result<()> {
        let (pool, keys) = (self.clone(), domain.keys.clone());
        let closed = blocking("finish a pack", move || {
            let salt = || pool.salt();
            pack.close(&pool.recipe(&keys, &salt))
        })
        .await?;
        let shared = &self.0;
        shared.repository.put_pack(&closed.pack).await?;
        let row = PackRow::of(
            closed.pack.id,
            &closed.pack.header,
            closed.pack.stored_bytes,
            shared.clock.now_ns(),
        )
        .ok_or_else(|| Error::internal("describe a pack"))?;
        let frames = &closed.pack.frames;
        let done = shared
            .catalog
            .register_pack(&row, frames, &closed.held)
            .await?;
        match done.missing.is_empty() {
            true => Ok(()),
            false => Err(Error::ChunkGone {
                chunks: done.missing,
            }),
        }
    }

    fn recipe<'a>(
        &'a self,
        keys: &'a DomainKeys,
        salt: &'a dyn Fn() -> Result<[u8; 32]>,
    ) -> Recipe<'a> {
        Recipe {
            repository: self.0.repository.id(),
            keys,
            salt,
            mixed_bytes: self.0.settings.mixed_bytes,
            target_bytes: self.0.settings.target_bytes,
        }
    }

    fn salt(&self) -> Result<[u8; 32]> {
        Ok(crate::repo::kek::random()?)
    }
}

/// Every change under these locks is complete before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
