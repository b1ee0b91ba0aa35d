//! Its services.

use super::{Fake, INLINE, refused};
use crate::error::ItemProblem;
use holdfast_format::id::{ChunkId, SnapshotId};
use holdfast_format::wire::{entry_to_wire, problem_to_wire};
use holdfast_proto::v1 as proto;
use proto::backup_server::Backup;
use proto::restore_server::Restore;
use proto::upload_request::Body;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

#[tonic::async_trait]
impl Backup for Fake {
    type UploadStream = ReceiverStream<Result<proto::Ack, Status>>;

    async fn begin(
        &self,
        request: Request<proto::BeginRequest>,
    ) -> Result<Response<proto::BeginReply>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let known = |id: &[u8]| {
            state
                .snapshots
                .iter()
                .find(|(at, ..)| at.as_bytes().as_slice() == id)
                .map(|(at, ..)| *at)
        };
        let parent = known(&request.parent).or_else(|| state.snapshots.last().map(|(at, ..)| *at));
        let parent = parent.filter(|_| !request.parent_damaged);
        let holds_nothing = state.chunks.is_empty();
        let session = state
            .sessions
            .entry(request.idempotency_key.to_vec())
            .or_default();
        session.parent = parent;
        let committed = session.committed;
        state.put.clear();
        state.removed.clear();
        state.as_in_parent.clear();
        state.messages = 0;
        state.new_chunk_bytes = 0;
        state.repeated_chunk_bytes = 0;
        state.asked = 0;
        let bytes = |id: &SnapshotId| bytes::Bytes::copy_from_slice(id.as_bytes());
        Ok(Response::new(proto::BeginReply {
            session: request.idempotency_key,
            lease_epoch: 1,
            lease_seconds: 60,
            volume: vec![1; 16].into(),
            domain: vec![2; 16].into(),
            generation: 1,
            id_key: vec![7; 32].into(),
            profile: 1,
            inline_limit: INLINE,
            parent: parent.as_ref().map(bytes).unwrap_or_default(),
            holds_nothing,
            reread: Vec::new(),
            committed: committed.as_ref().map(bytes).unwrap_or_default(),
            features: Vec::new(),
            parent_sequence: 0,
            parent_damage: String::new(),
        }))
    }

    async fn find_missing(
        &self,
        request: Request<proto::FindMissingRequest>,
    ) -> Result<Response<proto::FindMissingReply>, Status> {
        let request = request.into_inner();
        assert!(request.chunks.len() <= 8192);
        let mut state = self.state();
        state.asked += 1;
        let lie = state.lie_about_held;
        let missing = request
            .chunks
            .iter()
            .enumerate()
            .filter(|(_, id)| {
                let id = ChunkId::try_from(id.as_ref()).unwrap();
                !lie && !state.chunks.contains_key(&id)
            })
            .map(|(at, _)| at as u32)
            .collect();
        Ok(Response::new(proto::FindMissingReply { missing }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<proto::UploadRequest>>,
    ) -> Result<Response<Self::UploadStream>, Status> {
        let mut messages = request.into_inner();
        let (sender, receiver) = mpsc::channel(4);
        let fake = self.clone();
        tokio::spawn(async move {
            let mut all: Vec<proto::UploadRequest> = Vec::new();
            while let Some(message) = messages.next().await {
                let Ok(message) = message else { return };
                let on_upload = fake.state().on_upload.take();
                if let Some(on_upload) = on_upload {
                    on_upload();
                }
                all.push(message);
                let breaks = fake.state().break_after;
                if breaks.is_some_and(|after| all.len() as u64 >= after) {
                    // Chunks that came are kept, entries are not.
                    let session = all[0].session.to_vec();
                    fake.state().break_after = None;
                    let frames = all
                        .into_iter()
                        .filter(|m| matches!(m.body, Some(Body::Frame(_))))
                        .collect();
                    let _ = fake.apply(&session, frames);
                    let _ = sender.send(Err(Status::unavailable("broken"))).await;
                    return;
                }
                let slow = fake.state().slow;
                if let Some(slow) = slow {
                    tokio::time::sleep(slow).await;
                }
            }
            let Some(first) = all.first() else { return };
            assert!(all.iter().enumerate().all(|(at, m)| m.seq == at as u64 + 1));
            let session = first.session.to_vec();
            let through_seq = all.len() as u64;
            let reply = fake
                .apply(&session, all)
                .map(|()| proto::Ack { through_seq });
            let _ = sender.send(reply).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn commit(
        &self,
        request: Request<proto::CommitRequest>,
    ) -> Result<Response<proto::CommitReply>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        if let Some(reason) = state.refuse_commit.take() {
            return Err(refused(reason, "refused".to_owned()));
        }
        let number = state.snapshots.len() as u8 + 1;
        let parent = {
            let session = &state.sessions[request.session.as_ref()];
            session.parent
        };
        let parent_tree = state
            .snapshots
            .iter()
            .find(|(id, ..)| Some(*id) == parent)
            .map(|(_, tree, _)| tree.clone())
            .unwrap_or_default();
        let session = state.sessions.get_mut(request.session.as_ref()).unwrap();
        let id = match session.committed {
            Some(id) => id,
            None => {
                let id = SnapshotId::from_bytes([number; 32]);
                assert_eq!(session.through, request.last_seq);
                let tree = match request.last_seq {
                    0 => parent_tree,
                    _ => std::mem::take(&mut session.tree),
                };
                let problems = std::mem::take(&mut session.problems);
                session.committed = Some(id);
                state.snapshots.push((id, tree, problems));
                id
            }
        };
        if std::mem::take(&mut state.lose_commit) {
            return Err(Status::unavailable("lost"));
        }
        let problems = state.snapshots.last().unwrap().2.clone();
        Ok(Response::new(proto::CommitReply {
            snapshot: Some(proto::SnapshotInfo {
                id: bytes::Bytes::copy_from_slice(id.as_bytes()),
                volume: vec![1; 16].into(),
                facts: Some(proto::VolumeFacts {
                    name: "v".to_owned(),
                    ..Default::default()
                }),
                root: vec![0; 32].into(),
                problems: problems.len() as u64,
                first_problems: problems.into_iter().take(100).collect(),
                stats: request.stats,
                ..Default::default()
            }),
        }))
    }

    async fn abort(
        &self,
        _request: Request<proto::AbortRequest>,
    ) -> Result<Response<proto::AbortReply>, Status> {
        Ok(Response::new(proto::AbortReply {}))
    }
}

#[tonic::async_trait]
impl Restore for Fake {
    type EntriesStream = ReceiverStream<Result<proto::EntriesReply, Status>>;
    type FetchStream = ReceiverStream<Result<proto::FetchReply, Status>>;

    async fn entries(
        &self,
        request: Request<proto::EntriesRequest>,
    ) -> Result<Response<Self::EntriesStream>, Status> {
        let wanted = request.into_inner().snapshot;
        let (sender, receiver) = mpsc::channel(4);
        let damaged = self.state().damaged.clone();
        let tree = self
            .state()
            .snapshots
            .iter()
            .find(|(id, ..)| id.as_bytes().as_slice() == wanted.as_ref())
            .map(|(_, tree, _)| tree.clone())
            .unwrap();
        tokio::spawn(async move {
            for (path, entry, extents) in tree.into_values() {
                use proto::entry_part::Part;
                let mut parts = Vec::new();
                if damaged.contains(&path.to_string()) {
                    let problem = ItemProblem::new("TreeDamaged", "5 entries from here");
                    let problem = problem.into_problem(false, 0);
                    parts.push(Part::Damaged(problem_to_wire(&path, &problem)));
                } else if extents.is_empty() {
                    parts.push(Part::Entry(entry_to_wire(&path, &entry)));
                } else {
                    let start = holdfast_format::wire::long_entry_to_wire(&path, &entry, 1);
                    parts.push(Part::Entry(start));
                    parts.push(Part::More(holdfast_format::wire::more_to_wire(&extents)));
                    parts.push(Part::EndOfExtents(true));
                }
                let parts = parts
                    .into_iter()
                    .map(|part| proto::EntryPart { part: Some(part) })
                    .collect();
                if sender
                    .send(Ok(proto::EntriesReply { parts }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch(
        &self,
        _request: Request<proto::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn open(
        &self,
        _request: Request<proto::OpenRequest>,
    ) -> Result<Response<proto::OpenReply>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
