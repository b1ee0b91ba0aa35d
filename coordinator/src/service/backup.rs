//! The `Backup` service: an agent's side of a session.

use super::{MAX_MESSAGE_BYTES, peer, status};
use crate::Coordinator;
use crate::auth::{self, Action};
use crate::error::{Error, Result};
use crate::session::{Begin, Body, Message, PROTOCOL, Told};
use bytes::Bytes;
use futures::StreamExt;
use holdfast_format::FormatError;
use holdfast_format::frame::Frame;
use holdfast_format::id::SessionId;
use holdfast_format::wire::{
    Limits, MAX_ASKED_CHUNKS, MAX_CHANGES, change_from_wire, chunk_ids_from_wire, id_from_wire,
    id_to_wire, optional_id_from_wire, problem_from_wire, signals_from_wire,
};
use holdfast_proto::v1::{
    AbortReply, AbortRequest, Ack, BeginReply, BeginRequest, CommitReply, CommitRequest,
    FindMissingReply, FindMissingRequest, UploadRequest, backup_server::Backup, upload_request,
};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// Acknowledgements that wait for a client that does not read.
const REPLIES: usize = 16;

pub(super) struct BackupService(pub(super) Arc<Coordinator>);

#[tonic::async_trait]
impl Backup for BackupService {
    type UploadStream = ReceiverStream<Result<Ack, Status>>;

    async fn begin(&self, request: Request<BeginRequest>) -> Result<Response<BeginReply>, Status> {
        let peer = peer(&request);
        let begin = begin(request.into_inner()).map_err(status)?;
        auth::authorize(&peer, Action::Backup(&begin.facts)).map_err(status)?;
        let begun = self
            .0
            .sessions()
            .map_err(status)?
            .begin(begin)
            .await
            .map_err(status)?;
        Ok(Response::new(BeginReply {
            session: id_to_wire(begun.session.as_bytes()),
            lease_epoch: begun.epoch,
            lease_seconds: u32::try_from(begun.lease.as_secs()).unwrap_or(u32::MAX),
            volume: id_to_wire(begun.volume.as_bytes()),
            domain: id_to_wire(begun.keys.domain.as_bytes()),
            generation: begun.keys.generation,
            id_key: id_to_wire(begun.keys.id_key.as_bytes()),
            profile: u32::from(begun.profile),
            inline_limit: begun.inline_limit,
            parent: begun
                .parent
                .map(|(id, _)| id_to_wire(id.as_bytes()))
                .unwrap_or_default(),
            parent_sequence: begun.parent.map_or(0, |(_, sequence)| sequence),
            holds_nothing: begun.holds_nothing,
            reread: begun
                .reread
                .iter()
                .map(|path| Bytes::copy_from_slice(path.as_bytes()))
                .collect(),
            parent_damage: begun.parent_damage,
            committed: begun
                .committed
                .map(|id| id_to_wire(id.as_bytes()))
                .unwrap_or_default(),
            features: Vec::new(),
        }))
    }

    async fn find_missing(
        &self,
        request: Request<FindMissingRequest>,
    ) -> Result<Response<FindMissingReply>, Status> {
        auth::authorize(&peer(&request), Action::Session).map_err(status)?;
        let request = request.into_inner();
        let missing = self.find(request).await.map_err(status)?;
        Ok(Response::new(FindMissingReply { missing }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<Self::UploadStream>, Status> {
        auth::authorize(&peer(&request), Action::Session).map_err(status)?;
        let mut messages = request.into_inner();
        let first = messages.message().await;
        let first = first.map_err(|broke| status(broken(&broke)))?;
        let Some(first) = first else {
            // A stream without messages brings nothing and is complete.
            let (_, receiver) = mpsc::channel(1);
            return Ok(Response::new(ReceiverStream::new(receiver)));
        };
        let id = id_from_wire::<SessionId>(&first.session).map_err(|e| status(e.into()))?;
        let epoch = first.lease_epoch;
        let sessions = self.0.sessions().map_err(status)?;
        let session = sessions.open(&id, epoch).map_err(status)?;
        let limits = session.limits();
        let decode = move |message: std::result::Result<UploadRequest, Status>| match message {
            Ok(message) => decode(message, &limits),
            Err(status) => Err(broken(&status)),
        };
        let messages = futures::stream::once(async { Ok(first) }).chain(messages);
        let (sender, receiver) = mpsc::channel(REPLIES);
        let (acks, mut through) = mpsc::channel(REPLIES);
        tokio::spawn(async move {
            let replies = sender.clone();
            let forward = async move {
                while let Some(through_seq) = through.recv().await {
                    if replies.send(Ok(Ack { through_seq })).await.is_err() {
                        break;
                    }
                }
            };
            let messages = std::pin::pin!(messages.map(decode));
            let (taken, ()) = tokio::join!(session.upload(epoch, messages, acks), forward);
            if let Err(error) = taken {
                tracing::warn!(session = %session.id, %error, "upload ended");
                // A client that has gone does not hear it.
                let _ = sender.send(Err(status(error))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn commit(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<CommitReply>, Status> {
        auth::authorize(&peer(&request), Action::Session).map_err(status)?;
        let request = request.into_inner();
        let id = id_from_wire::<SessionId>(&request.session).map_err(|e| status(e.into()))?;
        let told = Told {
            stats: request.stats.unwrap_or_default().into(),
            signals: request.signals.map(signals_from_wire),
        };
        let sessions = self.0.sessions().map_err(status)?.clone();
        // On its own task: a client that hangs up does not stop a commit half-way.
        let commit = tokio::spawn(async move {
            sessions
                .commit(&id, request.lease_epoch, request.last_seq, told)
                .await
        });
        let info = commit
            .await
            .map_err(|_| status(Error::internal("commit")))?
            .map_err(status)?;
        Ok(Response::new(CommitReply {
            snapshot: Some(info.into()),
        }))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<AbortReply>, Status> {
        auth::authorize(&peer(&request), Action::Session).map_err(status)?;
        let request = request.into_inner();
        let id = id_from_wire::<SessionId>(&request.session).map_err(|e| status(e.into()))?;
        let sessions = self.0.sessions().map_err(status)?;
        let reason: String = request.reason.chars().take(200).collect();
        sessions
            .abort(&id, request.lease_epoch, &reason)
            .await
            .map_err(status)?;
        Ok(Response::new(AbortReply {}))
    }
}

impl BackupService {
    async fn find(&self, request: FindMissingRequest) -> Result<Vec<u32>> {
        let id = id_from_wire::<SessionId>(&request.session)?;
        let chunks = chunk_ids_from_wire(&request.chunks, MAX_ASKED_CHUNKS)?;
        let session = self.0.sessions()?.open(&id, request.lease_epoch)?;
        session.find_missing(request.lease_epoch, &chunks).await
    }
}

fn begin(request: BeginRequest) -> Result<Begin> {
    if request.protocol != PROTOCOL {
        return Err(Error::ProtocolUnsupported {
            found: request.protocol,
            supported: PROTOCOL,
        });
    }
    let facts = request
        .volume
        .ok_or_else(|| Error::invalid("a session needs the volume's facts"))?;
    Ok(Begin {
        key: id_from_wire(&request.idempotency_key)?,
        facts: facts.try_into()?,
        parent: optional_id_from_wire(&request.parent)?,
        started_ns: request.started_ns,
        adopt: request.adopt,
        parent_damaged: request.parent_damaged,
    })
}

fn decode(message: UploadRequest, limits: &Limits) -> Result<Message> {
    let body = match message.body {
        Some(upload_request::Body::Frame(frame)) => {
            Body::Frame(Frame::try_from(frame).map_err(frame_error)?)
        }
        Some(upload_request::Body::Changes(changes)) => {
            check_count("changes of a message", changes.changes.len())?;
            let changes = changes.changes.into_iter();
            Body::Changes(
                changes
                    .map(|c| change_from_wire(c, limits))
                    .collect::<Result<_, _>>()?,
            )
        }
        Some(upload_request::Body::Problems(problems)) => {
            check_count("problems of a message", problems.problems.len())?;
            let problems = problems.problems.into_iter();
            Body::Problems(problems.map(problem_from_wire).collect::<Result<_, _>>()?)
        }
        None => return Err(Error::invalid("an upload message without a body")),
    };
    Ok(Message {
        seq: message.seq,
        body,
    })
}

/// Why a stream of messages ended early: a message above the limit, or the connection.
fn broken(status: &Status) -> Error {
    if status.code() != Code::OutOfRange {
        return Error::Cancelled {
            detail: format!("the upload broke off ({})", status.message()),
        };
    }
    let words = status.message().split(|c: char| !c.is_ascii_digit());
    let mut numbers = words.filter_map(|word| word.parse().ok());
    let usual = MAX_MESSAGE_BYTES as u64;
    Error::MessageTooLarge {
        what: "message",
        found: numbers.next().unwrap_or(usual + 1),
        limit: numbers.next().unwrap_or(usual),
    }
}

fn frame_error(error: FormatError) -> Error {
    match error {
        FormatError::Limit { .. } => Error::FrameTooLarge {
            detail: error.to_string(),
        },
        error => error.into(),
    }
}

fn check_count(what: &'static str, count: usize) -> Result<()> {
    if count > MAX_CHANGES {
        return Err(Error::MessageTooLarge {
            what,
            found: count as u64,
            limit: MAX_CHANGES as u64,
        });
    }
    Ok(())
}
