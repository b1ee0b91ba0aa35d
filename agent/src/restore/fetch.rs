//! Chunks from the coordinator: a window's, streamed as frames to the writing threads; and the few that
//! an attribute needs, at once. Bytes are verified by whoever writes them.
//!
//! A broken stream is opened again for what has not come, a few times; what the coordinator does not
//! have is reported to the writers as lost.

use super::context::{Context, lock};
use super::execute::Batch;
use super::pool::{Pool, Work};
use super::window::Window;
use crate::client;
use crate::error::Result;
use crate::{Error, ItemProblem};
use bytes::Bytes;
use holdfast_format::frame::Frame;
use holdfast_format::id::{ChunkId, SnapshotId};
use holdfast_format::keys::Ids;
use holdfast_format::wire::{self, MAX_FETCHED_CHUNKS};
use holdfast_proto::v1 as proto;
use proto::fetch_reply::Body;
use proto::restore_client::RestoreClient;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

/// Frames that are received and not yet written, in KiB of plain and of payload bytes.
const BUDGET_KIB: u32 = 16 * 1024;
/// Tries of one fetch that bring nothing new.
const TRIES: u32 = 6;
/// First pause between tries; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts fetches for the planner.
pub struct Fetcher {
    context: Arc<Context>,
    client: RestoreClient<Channel>,
    pool: Arc<Pool<Batch>>,
    budget: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
}

/// Says that the window's fetch is over, also when its task is dropped.
struct Fetching(Arc<Window>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetched();
    }
}

/// Why chunks do not come.
struct Lost {
    chunks: Vec<ChunkId>,
    reason: &'static str,
    detail: String,
}

impl Fetcher {
    /// To be made inside of a runtime.
    pub fn new(
        context: Arc<Context>,
        client: RestoreClient<Channel>,
        pool: Arc<Pool<Batch>>,
    ) -> Self {
        Self {
            context,
            client,
            pool,
            budget: Arc::new(Semaphore::new(BUDGET_KIB as usize)),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Fetches the window's chunks and returns at once; the window knows when all have come.
    pub fn start(&self, window: Arc<Window>, chunks: Vec<ChunkId>) {
        window.fetching();
        let ending = Fetching(window.clone());
        let (context, client) = (self.context.clone(), self.client.clone());
        let writers = ToWriters {
            window,
            context: context.clone(),
            pool: self.pool.clone(),
            budget: self.budget.clone(),
        };
        self.runtime.spawn(async move {
            let fetched = tokio::select! {
                fetched = fetch(client, &context.snapshot, chunks, &writers) => fetched,
                () = context.cancel.cancelled() => Err(Error::Cancelled),
            };
            if let Err(error) = fetched {
                context.fail(error);
            }
            drop(ending);
        });
    }
}

enum Part {
    Frame(Frame),
    Lost(Lost),
}

/// Who takes what a fetch brings.
trait Take: Send + Sync {
    /// Waits until there is room for it.
    fn take(&self, part: Part) -> impl Future<Output = ()> + Send;
}

/// Queues frames for the writing threads, within the budget.
struct ToWriters {
    window: Arc<Window>,
    context: Arc<Context>,
    pool: Arc<Pool<Batch>>,
    budget: Arc<Semaphore>,
}

impl Take for ToWriters {
    async fn take(&self, part: Part) {
        let window = self.window.clone();
        let work = match part {
            Part::Frame(frame) => {
                let payload = frame.payload.len() as u64;
                let kib = (payload + u64::from(frame.plain_length)) / 1024 + 1;
                let kib = u32::try_from(kib).unwrap_or(BUDGET_KIB).min(BUDGET_KIB);
                let Ok(permit) = self.budget.clone().acquire_many_owned(kib).await else {
                    return; // Never closed.
                };
                self.context.progress.wire_bytes.add(payload);
                Work::Frame(window, frame, permit)
            }
            Part::Lost(lost) => Work::Lost {
                window,
                chunks: lost.chunks,
                reason: lost.reason,
                detail: lost.detail,
            },
        };
        self.window.writing();
        self.pool.push_fetched(work);
    }
}

/// Keeps the verified bytes of the chunks that were wanted.
struct Collect<'a> {
    ids: &'a Ids,
    wanted: HashSet<ChunkId>,
    found: Mutex<Found>,
}

/// Verified bytes of chunks, or why there are none.
pub type Found = HashMap<ChunkId, Result<Bytes, ItemProblem>>;

impl Take for Collect<'_> {
    async fn take(&self, part: Part) {
        let mut found = lock(&self.found);
        match part {
            Part::Lost(lost) => {
                for id in lost.chunks {
                    let detail = format!("chunk {}: {}", id.short(), lost.detail);
                    found.insert(id, Err(ItemProblem::new(lost.reason, detail)));
                }
            }
            Part::Frame(frame) => {
                let opened = frame.open();
                let items = frame.items.iter().map(|item| ChunkId::from_bytes(item.id));
                let damaged = |id: ChunkId| {
                    let detail = format!("chunk {} is damaged", id.short());
                    (id, Err(ItemProblem::new("FrameDamaged", detail)))
                };
                let Ok(plain) = opened else {
                    return found.extend(items.filter(|id| self.wanted.contains(id)).map(damaged));
                };
                for (id, bytes) in frame.slices(&plain) {
                    let id = ChunkId::from_bytes(id);
                    if self.wanted.contains(&id) {
                        let good = self.ids.chunk(bytes) == id;
                        let value = Ok(Bytes::copy_from_slice(bytes));
                        found.extend([if good { (id, value) } else { damaged(id) }]);
                    }
                }
            }
        }
    }
}

/// Hands over frames that hold the chunks, and which chunks are lost: every chunk is in one or the
/// other (or in several frames).
async fn fetch(
    mut client: RestoreClient<Channel>,
    snapshot: &SnapshotId,
    chunks: Vec<ChunkId>,
    taker: &impl Take,
) -> Result<()> {
    let mut missing: HashSet<ChunkId> = chunks.iter().copied().collect();
    let mut tries = 0;
    loop {
        let wanted = chunks.iter().filter(|id| missing.contains(id));
        let request = proto::FetchRequest {
            snapshot: Bytes::copy_from_slice(snapshot.as_bytes()),
            chunks: wanted
                .map(|id| Bytes::copy_from_slice(id.as_bytes()))
                .collect(),
        };
        let before = missing.len();
        match stream(&mut client, request, &mut missing, taker).await {
            Ok(()) => break,
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => {
                tries = if missing.len() < before { 1 } else { tries + 1 };
                if tries >= TRIES {
                    return Err(error);
                }
                tokio::time::sleep(PAUSE * (1 << tries)).await;
            }
        }
    }
    if !missing.is_empty() {
        let chunks = missing.into_iter().collect();
        let detail = "the coordinator did not send it".to_owned();
        let reason = "ChunkMissing";
        taker
            .take(Part::Lost(Lost {
                chunks,
                reason,
                detail,
            }))
            .await;
    }
    Ok(())
}

async fn stream(
    client: &mut RestoreClient<Channel>,
    request: proto::FetchRequest,
    missing: &mut HashSet<ChunkId>,
    taker: &impl Take,
) -> Result<()> {
    let status = |status| client::from_status("fetch chunks", &status);
    let broken = |source| Error::Answer {
        what: "fetch chunks",
        source,
    };
    let mut replies = client.fetch(request).await.map_err(status)?.into_inner();
    while let Some(reply) = replies.message().await.map_err(status)? {
        match reply.body {
            Some(Body::Frame(frame)) => {
                let frame = Frame::try_from(frame).map_err(broken)?;
                for item in &frame.items {
                    missing.remove(&ChunkId::from_bytes(item.id));
                }
                taker.take(Part::Frame(frame)).await;
            }
            Some(Body::Damaged(damaged)) => {
                let chunks = wire::chunk_ids_from_wire(&damaged.chunks, MAX_FETCHED_CHUNKS);
                let mut chunks = chunks.map_err(broken)?;
                chunks.retain(|id| missing.remove(id));
                let lost = Lost {
                    chunks,
                    reason: reason(&damaged.reason),
                    detail: damaged.detail,
                };
                taker.take(Part::Lost(lost)).await;
            }
            None => {}
        }
    }
    Ok(())
}

/// The closed set of reasons; a newer coordinator's word is damage all the same.
fn reason(word: &str) -> &'static str {
    match word {
        "ChunkMissing" => "ChunkMissing",
        "PackMissing" => "PackMissing",
        "FrameDamaged" => "FrameDamaged",
        _ => "PackDamaged",
    }
}

/// The verified bytes of a few chunks (values of attributes), or why there are none.
pub async fn fetch_now(
    client: RestoreClient<Channel>,
    snapshot: &SnapshotId,
    ids: &Ids,
    chunks: Vec<ChunkId>,
) -> Result<Found> {
    let collect = Collect {
        ids,
        wanted: chunks.iter().copied().collect(),
        found: Mutex::default(),
    };
    for chunks in chunks.chunks(MAX_FETCHED_CHUNKS) {
        fetch(client.clone(), snapshot, chunks.to_vec(), &collect).await?;
    }
    Ok(collect
        .found
        .into_inner()
        .unwrap_or_else(|e| e.into_inner()))
}
