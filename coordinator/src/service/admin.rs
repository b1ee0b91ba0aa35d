//! The `Admin` service: what an operator asks.

use super::{peer, status, stream};
use crate::Coordinator;
use crate::auth::{self, Action};
use crate::browse::{self, Difference, Found, Part};
use crate::error::Result;
use crate::schedule::What;
use holdfast_format::entry::{Content, Entry};
use holdfast_format::id::{JobId, SnapshotId};
use holdfast_format::names::SNAPSHOTS;
use holdfast_format::path::RelPath;
use holdfast_format::wire::{
    SnapshotInfo, WireContent, entry_to_wire, id_from_wire, id_to_wire, listed_to_wire, put_to_wire,
};
use holdfast_proto::v1::{
    self as proto, AcknowledgeReply, AcknowledgeRequest, CancelJobRequest, DiffReply, DiffRequest,
    ExamineReply, ExamineRequest, ExplainReply, ExplainRequest, FindReply, FindRequest,
    ForgetReply, ForgetRequest, JobInfo, JobsReply, JobsRequest, ListReply, ListRequest,
    RestoreOrder, SnapshotsReply, SnapshotsRequest, StartBackupRequest, StartRestoreRequest,
    StatusReply, StatusRequest, VolumesReply, VolumesRequest, WatchJobRequest, admin_server::Admin,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct AdminService(pub(super) Arc<Coordinator>);

#[tonic::async_trait]
impl Admin for AdminService {
    type ListStream = stream::Replies<ListReply>;
    type FindStream = stream::Replies<FindReply>;
    type DiffStream = stream::Replies<DiffReply>;
    type WatchJobStream = stream::Replies<JobInfo>;

    async fn volumes(
        &self,
        request: Request<VolumesRequest>,
    ) -> Result<Response<VolumesReply>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let volumes = self.0.volumes().await.map_err(status)?;
        Ok(Response::new(VolumesReply { volumes }))
    }

    async fn snapshots(
        &self,
        request: Request<SnapshotsRequest>,
    ) -> Result<Response<SnapshotsReply>, Status> {
        auth::authorize(&peer(&request), Action::Read).map_err(status)?;
        let infos = self.snapshot_infos(&request.into_inner().volume).await;
        let snapshots = infos.map_err(status)?.into_iter().map(Into::into).collect();
        let damage = self.0.damage().iter().map(|problem| &problem.object);
        let records = damage.filter(|name| name.starts_with(SNAPSHOTS));
        Ok(Response::new(SnapshotsReply {
            snapshots,
            damaged_records: records.cloned().collect(),
        }))
    }

    async fn list(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        auth::authorize(&peer(&request), Action::Read).map_err(status)?;
        let request = request.into_inner();
        let path = path(request.path).map_err(status)?;
        let view = self.view(&request.snapshot).await.map_err(status)?;
        let parts = browse::list(view, path, request.recursive);
        Ok(stream::reply(parts, |parts| ListReply {
            entries: parts.iter().filter_map(listed).collect(),
        }))
    }

    async fn find(
        &self,
        request: Request<FindRequest>,
    ) -> Result<Response<Self::FindStream>, Status> {
        auth::authorize(&peer(&request), Action::Read).map_err(status)?;
        let request = request.into_inner();
        let library = self.0.library().clone();
        let volume = match request.volume.as_str() {
            "" => None,
            name => Some(self.0.volume(name).await.map_err(status)?.no),
        };
        let found = browse::find(library, volume, request.pattern.to_vec()).await;
        let found = found.map_err(status)?;
        Ok(stream::reply(found, |found: Found| FindReply {
            snapshot: id_to_wire(found.snapshot.as_bytes()),
            info: found.info.map(Into::into),
            entries: found
                .entries
                .iter()
                .map(|(p, e)| listed_to_wire(p, e))
                .collect(),
        }))
    }

    async fn diff(
        &self,
        request: Request<DiffRequest>,
    ) -> Result<Response<Self::DiffStream>, Status> {
        auth::authorize(&peer(&request), Action::Read).map_err(status)?;
        let request = request.into_inner();
        let path = path(request.path).map_err(status)?;
        let from = self.view(&request.from).await.map_err(status)?;
        let to = self.view(&request.to).await.map_err(status)?;
        let differences = browse::diff(from, to, path).map_err(status)?;
        Ok(stream::reply(differences, |items: Vec<Difference>| {
            DiffReply {
                items: items.into_iter().map(difference).collect(),
            }
        }))
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetReply>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let id = snapshot(&request.into_inner().snapshot).map_err(status)?;
        let info = self.0.forget(&id).await.map_err(status)?;
        Ok(Response::new(ForgetReply {
            snapshot: Some(info.into()),
        }))
    }

    async fn acknowledge(
        &self,
        request: Request<AcknowledgeRequest>,
    ) -> Result<Response<AcknowledgeReply>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let request = request.into_inner();
        let id = snapshot(&request.snapshot).map_err(status)?;
        let acknowledged = self.0.acknowledge(&id, &request.actor).await;
        let (info, already) = acknowledged.map_err(status)?;
        Ok(Response::new(AcknowledgeReply {
            snapshot: Some(info.into()),
            already,
        }))
    }

    async fn start_backup(
        &self,
        request: Request<StartBackupRequest>,
    ) -> Result<Response<JobInfo>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let request = request.into_inner();
        let mut order = self.0.order_of(&request.volume);
        // Who names files means these.
        if !request.exclude.is_empty() || !request.include.is_empty() {
            order.exclude = request.exclude;
            order.include = request.include;
        }
        let started = self.start(What::Backup(order), None);
        Ok(Response::new(started.map_err(status)?))
    }

    async fn start_restore(
        &self,
        request: Request<StartRestoreRequest>,
    ) -> Result<Response<JobInfo>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let request = request.into_inner();
        let view = self.view(&request.snapshot).await.map_err(status)?;
        let node = match request.node.as_str() {
            "" => self.0.node_of(&view.record.facts),
            node => node.to_owned(),
        };
        let what = What::Restore {
            volume: view.record.facts.name.to_string(),
            order: RestoreOrder {
                snapshot: request.snapshot,
                path: request.path,
                target: request.target,
                options: request.options,
            },
        };
        let started = self.start(what, Some(&node));
        Ok(Response::new(started.map_err(status)?))
    }

    async fn cancel_job(
        &self,
        request: Request<CancelJobRequest>,
    ) -> Result<Response<JobInfo>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let id = job(&request.into_inner().job).map_err(status)?;
        let info = self.0.hub().cancel(&id).map_err(status)?;
        Ok(Response::new(info))
    }

    async fn jobs(&self, request: Request<JobsRequest>) -> Result<Response<JobsReply>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let jobs = self.0.hub().jobs();
        Ok(Response::new(JobsReply { jobs }))
    }

    async fn watch_job(
        &self,
        request: Request<WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let id = job(&request.into_inner().job).map_err(status)?;
        let watch = self.0.hub().watch(&id).map_err(status)?;
        // The state now, then every change; nothing follows the end.
        let states = futures::stream::unfold(
            (watch, false, false),
            |(mut watch, seen, ended)| async move {
                if ended || (seen && watch.changed().await.is_err()) {
                    return None;
                }
                let info = watch.borrow_and_update().clone();
                let ended = info.ended_ns != 0;
                Some((Ok(info), (watch, true, ended)))
            },
        );
        Ok(Response::new(Box::pin(states)))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusReply>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let reply = self.0.status().await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn examine(
        &self,
        request: Request<ExamineRequest>,
    ) -> Result<Response<ExamineReply>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        Ok(Response::new(self.0.examine().await))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainReply>, Status> {
        auth::authorize(&peer(&request), Action::Administer).map_err(status)?;
        let picture = self.0.picture().ok_or_else(|| {
            status(crate::Error::invalid(
                "there are no policies here, neither of a cluster nor of files: volumes are backed up on \
                 demand, or as the `continuous` rules say",
            ))
        })?;
        let volume = request.into_inner().volume;
        let next = self.0.next_run(&volume);
        let explained = picture.explain(&volume);
        let mut explained =
            explained.ok_or_else(|| status(crate::Error::VolumeNotFound { volume }))?;
        explained.next_run_ns = next.unwrap_or(0);
        Ok(Response::new(explained))
    }
}

impl AdminService {
    async fn view(&self, id: &[u8]) -> Result<browse::View> {
        self.0.library().view(&snapshot(id)?).await
    }

    async fn snapshot_infos(&self, volume: &str) -> Result<Vec<SnapshotInfo>> {
        let volume = match volume {
            "" => None,
            name => Some(self.0.volume(name).await?.no),
        };
        let rows = self.0.library().catalog.snapshots(volume).await?;
        rows.iter().map(browse::info).collect()
    }

    fn start(&self, what: What, node: Option<&str>) -> Result<JobInfo> {
        let id = JobId::from_bytes(crate::repo::kek::random()?);
        let now = self.0.clock().now_ns();
        self.0.hub().start(id, what, node, now)
    }
}

fn snapshot(id: &[u8]) -> Result<SnapshotId> {
    Ok(id_from_wire(id)?)
}

fn job(id: &[u8]) -> Result<JobId> {
    Ok(id_from_wire(id)?)
}

fn path(bytes: bytes::Bytes) -> Result<RelPath> {
    Ok(RelPath::new(bytes)?)
}

fn listed(part: &Part) -> Option<proto::Entry> {
    match part {
        Part::Entry(path, entry) => Some(listed_to_wire(path, entry)),
        Part::More(_) | Part::End | Part::Damaged(..) => None,
    }
}

fn difference(item: Difference) -> proto::DiffItem {
    let encode = |entry: Entry| side(&item.path, &entry);
    proto::DiffItem {
        from: item.from.map(encode),
        to: item.to.map(encode),
    }
}

/// An entry of a difference. A list is told by its root in place of the extents: it is there to be
/// compared, not to be restored from.
fn side(path: &RelPath, entry: &Entry) -> proto::Entry {
    let Content::List { profile, root, .. } = &entry.content else {
        return entry_to_wire(path, entry);
    };
    let first = Vec::new();
    let content = WireContent::LongExtents {
        profile: *profile,
        first,
    };
    let mut message = put_to_wire(path, entry, content);
    if let Some(proto::Content {
        body: Some(proto::content::Body::Extents(extents)),
    }) = &mut message.content
    {
        extents.extents.push(proto::Extent {
            chunk: id_to_wire(root.as_bytes()),
            length: entry.size,
        });
    }
    message
}
