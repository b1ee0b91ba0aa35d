//! An agent played by hand: what it sends is exactly what the test says.

use super::Bench;
use bytes::Bytes;
use holdfast_format::chunker::Chunker;
use holdfast_format::frame::{Frame, FrameBuilder};
use holdfast_format::keys::{IdKey, Ids};
use holdfast_proto::v1 as proto;
use proto::backup_client::BackupClient;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

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

    /// A request that names the session in its headers.
    pub fn named<T>(&self, message: T) -> tonic::Request<T> {
        use holdfast_format::wire::{SESSION_HEADER, session_to_header};
        let mut request = tonic::Request::new(message);
        let session = session_to_header(&self.begun.session, self.begun.lease_epoch);
        request
            .metadata_mut()
            .insert(SESSION_HEADER, session.parse().unwrap());
        request
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
        let request = self.named(stream);
        let mut acks = self.client.upload(request).await?.into_inner();
        let mut through = 0;
        while let Some(ack) = acks.message().await? {
            assert!(ack.through_seq > through);
            through = ack.through_seq;
        }
        Ok(through)
    }

    /// The same, without the session in the headers.
    pub async fn upload_unnamed(&mut self) -> Result<(), tonic::Status> {
        let messages = std::mem::take(&mut self.messages);
        let call = self.client.upload(tokio_stream::iter(messages)).await?;
        let mut acks = call.into_inner();
        while acks.message().await?.is_some() {}
        Ok(())
    }

    /// Sends everything that was queued, waits for the first acknowledgement, and hangs up.
    pub async fn upload_until_acknowledged(&mut self) -> u64 {
        let messages = std::mem::take(&mut self.messages);
        let stream = tokio_stream::iter(messages).chain(tokio_stream::pending());
        let request = self.named(stream);
        let mut acks = self.client.upload(request).await.unwrap().into_inner();
        acks.message().await.unwrap().unwrap().through_seq
    }

    pub async fn commit(&mut self, last_seq: u64) -> Result<proto::SnapshotInfo, tonic::Status> {
        self.commit_telling(last_seq, proto::Stats::default(), None)
            .await
    }

    /// Commits, with what the agent says of its run.
    pub async fn commit_telling(
        &mut self,
        last_seq: u64,
        stats: proto::Stats,
        signals: Option<proto::Signals>,
    ) -> Result<proto::SnapshotInfo, tonic::Status> {
        let request = proto::CommitRequest {
            session: self.begun.session.clone(),
            lease_epoch: self.begun.lease_epoch,
            last_seq,
            stats: Some(stats),
            signals,
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

    /// Uploads what was queued and commits it, with what the agent says of its run.
    pub async fn finish_telling(
        mut self,
        stats: proto::Stats,
        signals: proto::Signals,
    ) -> proto::SnapshotInfo {
        let last = self.messages.len() as u64;
        if last > 0 {
            self.upload().await.unwrap();
        }
        let made = self.commit_telling(last, stats, Some(signals)).await;
        made.unwrap()
    }

    pub async fn missing(&mut self, chunks: &[Bytes]) -> Result<Vec<u32>, tonic::Status> {
        let request = proto::FindMissingRequest {
            session: self.begun.session.clone(),
            lease_epoch: self.begun.lease_epoch,
            chunks: chunks.to_vec(),
        };
        let request = self.named(request);
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
