//! A coordinator over a store in a temporary directory, and an agent played by hand over an in-process
//! channel: what it sends is exactly what the test says.

#![allow(dead_code, reason = "each test binary uses its part")]

use bytes::Bytes;
use holdfast_coordinator::catalog::Catalog;
use holdfast_coordinator::repo::{CreateOptions, Repository, Store, StoreOptions};
use holdfast_coordinator::{Coordinator, CoordinatorSettings};
use holdfast_format::chunker::Chunker;
use holdfast_format::frame::{Frame, FrameBuilder};
use holdfast_format::id::{CatalogId, RepositoryId};
use holdfast_format::keys::{IdKey, Ids, Kek};
use holdfast_proto::v1 as proto;
use holdfast_runtime::clock::SystemClock;
use hyper_util::rt::TokioIo;
use proto::admin_client::AdminClient;
use proto::backup_client::BackupClient;
use proto::restore_client::RestoreClient;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_types::StatusExt;

/// The key of every test repository.
pub const KEK: [u8; 32] = [7; 32];

/// A running coordinator.
pub struct Bench {
    pub coordinator: Arc<Coordinator>,
    pub channel: Channel,
    pub dir: tempfile::TempDir,
}

impl Bench {
    /// A new repository in a new directory.
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// The same with other settings.
    pub async fn with(change: impl FnOnce(&mut CoordinatorSettings)) -> Self {
        holdfast_runtime::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(&url(dir.path()), &StoreOptions::default()).unwrap();
        let options = CreateOptions {
            id: RepositoryId::from_bytes([1; 16]),
            created_ns: 1,
            profile: None,
            inline_limit: None,
        };
        let repository = Repository::create(store, Kek::from_bytes(KEK), &options);
        let repository = repository.await.unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir_all(&state).unwrap();
        let id = CatalogId::from_bytes([2; 16]);
        let catalog = Catalog::create(&state, &repository.id(), id).await.unwrap();
        catalog.close().await.unwrap();
        let coordinator = open_with(dir.path(), change).await;
        let channel = connect(&coordinator).await;
        Self {
            coordinator,
            channel,
            dir,
        }
    }

    /// The repository of this directory, opened again.
    pub async fn over(dir: tempfile::TempDir) -> Self {
        let coordinator = open(dir.path()).await;
        let channel = connect(&coordinator).await;
        Self {
            coordinator,
            channel,
            dir,
        }
    }

    /// Stops, and starts again over the same directory.
    pub async fn restart(self) -> Self {
        self.coordinator.shutdown().await.unwrap();
        Self::over(self.dir).await
    }

    pub fn backup(&self) -> BackupClient<Channel> {
        BackupClient::new(self.channel.clone())
    }

    pub fn restore(&self) -> RestoreClient<Channel> {
        RestoreClient::new(self.channel.clone()).max_decoding_message_size(4 << 20)
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    /// Objects of the store below a prefix, with their sizes.
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, u64> {
        let root = self.dir.path().join("store").join(prefix);
        let mut out = BTreeMap::new();
        collect(&root, prefix, &mut out);
        out
    }
}

fn collect(dir: &Path, name: &str, out: &mut BTreeMap<String, u64>) {
    let Ok(found) = std::fs::read_dir(dir) else {
        return;
    };
    for found in found {
        let found = found.unwrap();
        let name = format!("{name}/{}", found.file_name().to_str().unwrap());
        match found.file_type().unwrap().is_dir() {
            true => collect(&found.path(), &name, out),
            false => {
                out.insert(name, found.metadata().unwrap().len());
            }
        }
    }
}

fn url(dir: &Path) -> String {
    dir.join("store").to_str().unwrap().to_owned()
}

/// Opens the repository of a directory.
pub async fn open(dir: &Path) -> Arc<Coordinator> {
    open_with(dir, |_| ()).await
}

/// The same with other settings.
pub async fn open_with(
    dir: &Path,
    change: impl FnOnce(&mut CoordinatorSettings),
) -> Arc<Coordinator> {
    let repository = repository(dir).await;
    let mut settings = CoordinatorSettings::new(dir.join("state"));
    change(&mut settings);
    let clock = Arc::new(SystemClock::new());
    Coordinator::open(settings, repository, clock)
        .await
        .unwrap()
}

/// The repository of a directory, without a coordinator.
pub async fn repository(dir: &Path) -> Repository {
    let store = Store::open(&url(dir), &StoreOptions::default()).unwrap();
    Repository::open(store, Kek::from_bytes(KEK)).await.unwrap()
}

/// A channel to a coordinator of this process.
pub async fn connect(coordinator: &Arc<Coordinator>) -> Channel {
    let (client, server) = tokio::io::duplex(1 << 20);
    let routes = coordinator.routes().await;
    tokio::spawn(
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(server))),
    );
    let mut client = Some(client);
    Endpoint::from_static("http://in-process")
        .connect_with_connector(tower::service_fn(move |_| {
            let client = client.take().map(TokioIo::new);
            async move { client.ok_or_else(|| std::io::Error::other("already connected")) }
        }))
        .await
        .unwrap()
}

/// An agent's side of a session.
pub struct Agent {
    pub client: BackupClient<Channel>,
    pub begun: proto::BeginReply,
    pub ids: Ids,
    pub key: IdKey,
    messages: Vec<proto::UploadRequest>,
}

/// Facts of an explicit volume.
pub fn facts(name: &str) -> proto::VolumeFacts {
    proto::VolumeFacts {
        name: name.into(),
        node: "here".into(),
        source: format!("/srv/{name}"),
        source_identity: format!("/srv/{name}"),
        plugin: "explicit".into(),
        ..Default::default()
    }
}

pub fn begin_request(name: &str, key: u8) -> proto::BeginRequest {
    proto::BeginRequest {
        protocol: 1,
        idempotency_key: vec![key; 16].into(),
        volume: Some(facts(name)),
        started_ns: 1_000,
        ..Default::default()
    }
}

impl Agent {
    pub async fn begin(bench: &Bench, name: &str, key: u8) -> Self {
        Self::try_begin(bench, begin_request(name, key))
            .await
            .unwrap()
    }

    pub async fn try_begin(
        bench: &Bench,
        request: proto::BeginRequest,
    ) -> Result<Self, tonic::Status> {
        let mut client = bench.backup();
        let begun = client.begin(request).await?.into_inner();
        let key = IdKey::from_bytes(begun.id_key.as_ref().try_into().unwrap());
        Ok(Self {
            client,
            ids: key.ids(),
            key,
            begun,
            messages: Vec::new(),
        })
    }

    /// Cuts bytes as the session's profile says, queues frames, and gives the extents.
    pub fn send_content(&mut self, bytes: &[u8]) -> Vec<proto::Extent> {
        let profile = holdfast_format::chunker::Profile::by_number(self.begun.profile as u8);
        let chunker = Chunker::new(profile.unwrap(), self.key.gear());
        let mut extents = Vec::new();
        let mut frame = FrameBuilder::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunker.first_chunk(rest));
            rest = after;
            let id = self.ids.chunk(chunk);
            frame.push(id.into_bytes(), chunk).unwrap();
            extents.push(extent(id.as_bytes(), chunk.len()));
            if frame.is_full() {
                self.frame(std::mem::take(&mut frame).finish(1).unwrap());
            }
        }
        if !frame.is_empty() {
            self.frame(frame.finish(1).unwrap());
        }
        extents
    }

    pub fn frame(&mut self, frame: Frame) {
        self.push(proto::upload_request::Body::Frame(frame.into()));
    }

    pub fn changes(&mut self, changes: Vec<proto::Change>) {
        self.push(proto::upload_request::Body::Changes(proto::Changes {
            changes,
        }));
    }

    pub fn put(&mut self, entry: proto::Entry) {
        self.changes(vec![put(entry)]);
    }

    pub fn problems(&mut self, problems: Vec<proto::Problem>) {
        self.push(proto::upload_request::Body::Problems(proto::Problems {
            problems,
        }));
    }

    pub fn push(&mut self, body: proto::upload_request::Body) {
        let seq = self.messages.len() as u64 + 1;
        let first = seq == 1;
        self.messages.push(proto::UploadRequest {
            session: if first {
                self.begun.session.clone()
            } else {
                Bytes::new()
            },
            lease_epoch: if first { self.begun.lease_epoch } else { 0 },
            seq,
            body: Some(body),
        });
    }

    /// Leaves a queued message out; the others keep their numbers.
    pub fn skip_message(&mut self, index: usize) {
        let session = self.messages[0].session.clone();
        let gone = self.messages.remove(index);
        if let Some(next) = self.messages.get_mut(index) {
            next.seq = gone.seq + 1;
        } else {
            self.messages[index - 1].seq = gone.seq;
        }
        self.messages[0].session = session;
    }

    /// Sends the queued messages the other way round, numbered anew.
    pub fn reverse_messages(&mut self) {
        let (session, epoch) = (
            self.messages[0].session.clone(),
            self.messages[0].lease_epoch,
        );
        self.messages.reverse();
        for (seq, message) in (1..).zip(&mut self.messages) {
            message.seq = seq;
        }
        self.messages[0].session = session;
        self.messages[0].lease_epoch = epoch;
    }

    /// Sends everything that was queued, and gives the last acknowledgement.
    pub async fn upload(&mut self) -> Result<u64, tonic::Status> {
        let messages = std::mem::take(&mut self.messages);
        let stream = tokio_stream::iter(messages);
        let mut acks = self.client.upload(stream).await?.into_inner();
        let mut through = 0;
        while let Some(ack) = acks.message().await? {
            assert!(ack.through_seq > through);
            through = ack.through_seq;
        }
        Ok(through)
    }

    /// Sends everything that was queued, waits for the first acknowledgement, and hangs up.
    pub async fn upload_until_acknowledged(&mut self) -> u64 {
        let messages = std::mem::take(&mut self.messages);
        let stream = tokio_stream::iter(messages).chain(tokio_stream::pending());
        let mut acks = self.client.upload(stream).await.unwrap().into_inner();
        acks.message().await.unwrap().unwrap().through_seq
    }

    pub async fn commit(&mut self, last_seq: u64) -> Result<proto::SnapshotInfo, tonic::Status> {
        let request = proto::CommitRequest {
            session: self.begun.session.clone(),
            lease_epoch: self.begun.lease_epoch,
            last_seq,
            stats: Some(proto::Stats::default()),
        };
        let reply = self.client.commit(request).await?.into_inner();
        Ok(reply.snapshot.unwrap())
    }

    /// Uploads what was queued and commits it.
    pub async fn finish(mut self) -> Result<proto::SnapshotInfo, tonic::Status> {
        let last = self.messages.len() as u64;
        if last > 0 {
            self.upload().await?;
        }
        self.commit(last).await
    }

    pub async fn missing(&mut self, chunks: &[Bytes]) -> Result<Vec<u32>, tonic::Status> {
        let request = proto::FindMissingRequest {
            session: self.begun.session.clone(),
            lease_epoch: self.begun.lease_epoch,
            chunks: chunks.to_vec(),
        };
        Ok(self
            .client
            .find_missing(request)
            .await?
            .into_inner()
            .missing)
    }
}

pub fn extent(id: &[u8], length: usize) -> proto::Extent {
    proto::Extent {
        chunk: Bytes::copy_from_slice(id),
        length: length as u64,
    }
}

pub fn put(entry: proto::Entry) -> proto::Change {
    proto::Change {
        change: Some(proto::change::Change::Put(entry)),
    }
}

pub fn remove(path: &str) -> proto::Change {
    proto::Change {
        change: Some(proto::change::Change::Remove(Bytes::copy_from_slice(
            path.as_bytes(),
        ))),
    }
}

pub fn dir(path: &str) -> proto::Entry {
    proto::Entry {
        path: Bytes::copy_from_slice(path.as_bytes()),
        kind: proto::Kind::Directory.into(),
        mode: 0o755,
        ..Default::default()
    }
}

pub fn file(path: &str, size: usize, body: proto::content::Body) -> proto::Entry {
    proto::Entry {
        path: Bytes::copy_from_slice(path.as_bytes()),
        kind: proto::Kind::File.into(),
        mode: 0o644,
        mtime_ns: 5,
        size: size as u64,
        content: Some(proto::Content { body: Some(body) }),
        ..Default::default()
    }
}

pub fn inline(path: &str, bytes: &[u8]) -> proto::Entry {
    let body = proto::content::Body::Inline(Bytes::copy_from_slice(bytes));
    file(path, bytes.len(), body)
}

pub fn extents(path: &str, extents: Vec<proto::Extent>) -> proto::Entry {
    let size: u64 = extents.iter().map(|e| e.length).sum();
    let body = proto::content::Body::Extents(proto::Extents {
        profile: 1,
        extents,
    });
    file(path, size as usize, body)
}

pub fn as_in_parent(path: &str, of: &str) -> proto::Entry {
    let of = Bytes::copy_from_slice(of.as_bytes());
    file(path, 0, proto::content::Body::AsInParent(of))
}

/// Bytes that neither repeat nor compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// The reason in a status.
pub fn reason(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

/// Every file of a snapshot with its bytes, read through `Entries` and `Fetch`.
pub async fn read_back(bench: &Bench, snapshot: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (entries, damaged) = read_entries(bench, snapshot, "").await;
    assert!(damaged.is_empty(), "{damaged:?}");
    let wanted: Vec<Bytes> = entries
        .iter()
        .flat_map(|(_, extents)| extents.iter().map(|e| e.chunk.clone()))
        .filter(|id| !id.is_empty())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let (chunks, damaged) = fetch(bench, snapshot, wanted).await;
    assert!(damaged.is_empty(), "{damaged:?}");
    let mut out = BTreeMap::new();
    for (entry, extents) in entries {
        let path = String::from_utf8(entry.path.to_vec()).unwrap();
        let mut bytes = Vec::new();
        if let Some(proto::Content {
            body: Some(proto::content::Body::Inline(inline)),
        }) = &entry.content
        {
            bytes.extend_from_slice(inline);
        }
        for extent in &extents {
            match extent.chunk.is_empty() {
                true => bytes.resize(bytes.len() + extent.length as usize, 0),
                false => bytes.extend_from_slice(&chunks[&extent.chunk]),
            }
        }
        assert_eq!(bytes.len() as u64, entry.size, "{path}");
        out.insert(path, bytes);
    }
    out
}

/// Entries with all their extents, and what was damaged.
pub async fn read_entries(
    bench: &Bench,
    snapshot: &[u8],
    path: &str,
) -> (Vec<(proto::Entry, Vec<proto::Extent>)>, Vec<proto::Problem>) {
    use proto::entry_part::Part;
    let request = proto::EntriesRequest {
        snapshot: Bytes::copy_from_slice(snapshot),
        path: Bytes::copy_from_slice(path.as_bytes()),
        ..Default::default()
    };
    let mut replies = bench.restore().entries(request).await.unwrap().into_inner();
    let mut entries: Vec<(proto::Entry, Vec<proto::Extent>)> = Vec::new();
    let mut damaged = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        for part in reply.parts {
            match part.part.unwrap() {
                Part::Entry(entry) => {
                    let extents = match &entry.content {
                        Some(proto::Content {
                            body: Some(proto::content::Body::Extents(e)),
                        }) => e.extents.clone(),
                        _ => Vec::new(),
                    };
                    entries.push((entry, extents));
                }
                Part::More(more) => entries.last_mut().unwrap().1.extend(more.extents),
                Part::EndOfExtents(_) => {}
                Part::Damaged(problem) => damaged.push(problem),
            }
        }
    }
    (entries, damaged)
}

/// Chunks by id, each checked against the id key, and what was damaged.
pub async fn fetch(
    bench: &Bench,
    snapshot: &[u8],
    chunks: Vec<Bytes>,
) -> (BTreeMap<Bytes, Vec<u8>>, Vec<proto::DamagedChunks>) {
    let open = proto::OpenRequest {
        snapshot: Bytes::copy_from_slice(snapshot),
    };
    let opened = bench.restore().open(open).await.unwrap().into_inner();
    let ids = IdKey::from_bytes(opened.id_key.as_ref().try_into().unwrap()).ids();
    let request = proto::FetchRequest {
        snapshot: Bytes::copy_from_slice(snapshot),
        chunks,
    };
    let mut replies = bench.restore().fetch(request).await.unwrap().into_inner();
    let (mut found, mut damaged) = (BTreeMap::new(), Vec::new());
    while let Some(reply) = replies.message().await.unwrap() {
        match reply.body.unwrap() {
            proto::fetch_reply::Body::Frame(frame) => {
                let frame = Frame::try_from(frame).unwrap();
                let plain = frame.open().unwrap();
                holdfast_format::frame::verify_chunks(&ids, &frame, &plain).unwrap();
                for (id, bytes) in frame.slices(&plain) {
                    found.insert(Bytes::copy_from_slice(&id), bytes.to_vec());
                }
            }
            proto::fetch_reply::Body::Damaged(found) => damaged.push(found),
        }
    }
    (found, damaged)
}
