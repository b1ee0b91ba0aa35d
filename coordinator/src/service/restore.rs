//! The `Restore` service: a snapshot's entries and chunks as streams.

use super::{peer, status, stream};
use crate::Coordinator;
use crate::auth::{self, Action};
use crate::browse::{self, Fetched, Part, Walk};
use crate::error::Result;
use holdfast_format::id::SnapshotId;
use holdfast_format::path::RelPath;
use holdfast_format::wire::{
    MAX_FETCHED_CHUNKS, chunk_ids_from_wire, entry_to_wire, id_from_wire, id_to_wire,
    listed_to_wire, more_to_wire, problem_to_wire,
};
use holdfast_proto::v1::{
    DamagedChunks, EntriesReply, EntriesRequest, EntryPart, FetchReply, FetchRequest, OpenReply,
    OpenRequest, entry_part, fetch_reply, restore_server::Restore,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct RestoreService(pub(super) Arc<Coordinator>);

#[tonic::async_trait]
impl Restore for RestoreService {
    type EntriesStream = stream::Replies<EntriesReply>;
    type FetchStream = stream::Replies<FetchReply>;

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenReply>, Status> {
        auth::authorize(&peer(&request), Action::Read).map_err(status)?;
        let id = snapshot(&request.into_inner().snapshot).map_err(status)?;
        let view = self.0.library().view(&id).await.map_err(status)?;
        let config = self.0.library().repository.config();
        Ok(Response::new(OpenReply {
            snapshot: Some(view.info().into()),
            id_key: id_to_wire(view.keys.id_key.as_bytes()),
            domain: id_to_wire(view.keys.domain.as_bytes()),
            generation: view.keys.generation,
            profile: u32::from(config.default_profile),
            inline_limit: config.inline_limit,
        }))
    }

    async fn entries(
        &self,
        request: Request<EntriesRequest>,
    ) -> Result<Response<Self::EntriesStream>, Status> {
        auth::authorize(&peer(&request), Action::Read).map_err(status)?;
        let request = request.into_inner();
        let id = snapshot(&request.snapshot).map_err(status)?;
        let path = RelPath::new(request.path).map_err(|error| status(error.into()))?;
        let view = self.0.library().view(&id).await.map_err(status)?;
        let walk = match (request.without_content, request.children_only) {
            (false, false) => Walk::Whole,
            (false, true) => Walk::Children,
            (true, false) => Walk::Listing,
            (true, true) => Walk::ChildrenListing,
        };
        let listing = request.without_content;
        let parts = browse::entries(view, path, walk);
        Ok(stream::reply(parts, move |parts: Vec<Part>| EntriesReply {
            parts: parts
                .into_iter()
                .map(|part| encode(part, listing))
                .collect(),
        }))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        auth::authorize(&peer(&request), Action::Read).map_err(status)?;
        let request = request.into_inner();
        let id = snapshot(&request.snapshot).map_err(status)?;
        let chunks = chunk_ids_from_wire(&request.chunks, MAX_FETCHED_CHUNKS)
            .map_err(|error| status(error.into()))?;
        let view = self.0.library().view(&id).await.map_err(status)?;
        let fetched = browse::fetch(view, chunks);
        Ok(stream::reply(fetched, |fetched| FetchReply {
            body: Some(match fetched {
                Fetched::Frame(frame) => fetch_reply::Body::Frame(frame.into()),
                Fetched::Damaged {
                    chunks,
                    reason,
                    detail,
                } => fetch_reply::Body::Damaged(DamagedChunks {
                    chunks: chunks.iter().map(|id| id_to_wire(id)).collect(),
                    reason: reason.into(),
                    detail,
                }),
            }),
        }))
    }
}

fn snapshot(id: &[u8]) -> Result<SnapshotId> {
    Ok(id_from_wire(id)?)
}

fn encode(part: Part, listing: bool) -> EntryPart {
    let part = match part {
        Part::Entry(path, entry) if listing => {
            entry_part::Part::Entry(listed_to_wire(&path, &entry))
        }
        Part::Entry(path, entry) => entry_part::Part::Entry(entry_to_wire(&path, &entry)),
        Part::More(extents) => entry_part::Part::More(more_to_wire(&extents)),
        Part::End => entry_part::Part::EndOfExtents(true),
        Part::Damaged(path, problem) => entry_part::Part::Damaged(problem_to_wire(&path, &problem)),
    };
    EntryPart { part: Some(part) }
}
