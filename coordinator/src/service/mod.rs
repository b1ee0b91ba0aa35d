//! The gRPC services: decode, authorise, call, encode. No logic lives here.
//!
//! Every refusal is a `tonic::Status` whose details hold a `google.rpc.ErrorInfo` with the stable
//! reason, in the domain [`ERROR_DOMAIN`].

mod admin;
mod backup;
mod intake;
mod jobs;
mod restore;
mod stream;
pub mod transport;

pub(crate) use intake::Intake;

use crate::Coordinator;
use crate::auth::Peer;
use crate::catalog::CatalogError;
use crate::error::{Error, Kind};
use crate::repo::RepoError;
use holdfast_proto::v1::admin_server::AdminServer;
use holdfast_proto::v1::backup_server::BackupServer;
use holdfast_proto::v1::jobs_server::JobsServer;
use holdfast_proto::v1::restore_server::RestoreServer;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::service::Routes;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of every `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "holdfast.dev";
/// Largest message taken from a peer, in bytes; what `intake` lets in of a method may be less.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// All services of a coordinator, with gRPC health and reflection.
pub(crate) async fn routes(coordinator: Arc<Coordinator>) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    let limit = MAX_MESSAGE_BYTES;
    health
        .set_serving::<RestoreServer<restore::RestoreService>>()
        .await;
    health
        .set_serving::<AdminServer<admin::AdminService>>()
        .await;
    if coordinator.sessions().is_ok() {
        health
            .set_serving::<BackupServer<backup::BackupService>>()
            .await;
        health.set_serving::<JobsServer<jobs::JobsService>>().await;
    }
    let backup = BackupServer::new(backup::BackupService(coordinator.clone()));
    let jobs = JobsServer::new(jobs::JobsService(coordinator.clone()));
    let restore = RestoreServer::new(restore::RestoreService(coordinator.clone()));
    let admin = AdminServer::new(admin::AdminService(coordinator.clone()));
    let with = &coordinator;
    let mut routes = Routes::builder();
    routes
        .add_service(watched(health_service, with))
        .add_service(watched(backup.max_decoding_message_size(limit), with))
        .add_service(watched(jobs.max_decoding_message_size(limit), with))
        .add_service(watched(restore.max_decoding_message_size(limit), with))
        .add_service(watched(admin.max_decoding_message_size(limit), with));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(holdfast_proto::DESCRIPTORS)
        .build_v1();
    match reflection {
        Ok(reflection) => {
            routes.add_service(watched(reflection, with));
        }
        // Descriptors are compiled in; whoever calls can do without them.
        Err(error) => tracing::error!(%error, "no gRPC reflection"),
    }
    routes.routes()
}

fn watched<S>(service: S, coordinator: &Arc<Coordinator>) -> intake::Watched<S> {
    intake::Watched::new(service, coordinator.clone())
}

/// Who calls: until identities exist, whoever the listener let in.
fn peer<T>(_request: &Request<T>) -> Peer {
    Peer::Local
}

/// The one mapping from our errors to the wire's.
pub fn status(error: Error) -> Status {
    let code = match error.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::AlreadyExists,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Unavailable => Code::Unavailable,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Denied => Code::PermissionDenied,
        Kind::DataLoss => Code::DataLoss,
        Kind::Cancelled => Code::Cancelled,
        Kind::Internal => Code::Internal,
    };
    let reason = error.reason().as_str();
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata(&error));
    Status::with_error_details(code, message, details)
}

/// What a machine may want beside the reason.
fn metadata(error: &Error) -> HashMap<String, String> {
    let mut map = HashMap::new();
    let mut put = |key: &str, value: String| {
        map.insert(key.to_owned(), value);
    };
    match error {
        Error::UnknownChunkReference { path, chunk }
        | Error::WrongChunkLength { path, chunk, .. } => {
            put("path", path.clone());
            put("chunk", chunk.to_string());
        }
        Error::InvalidChunkId { chunk } => put("chunk", chunk.to_string()),
        Error::InvalidChange { path, .. } => put("path", path.clone()),
        Error::VolumeBusy { volume }
        | Error::VolumeNotFound { volume }
        | Error::VolumeNameTaken { volume, .. } => put("volume", volume.clone()),
        Error::ChunkGone { chunks }
        | Error::Catalog(CatalogError::ChunkGone { ids: chunks, .. }) => {
            // As many as fit beside the message in 8 KiB of headers.
            let ids: Vec<_> = chunks
                .iter()
                .take(32)
                .map(|c| holdfast_format::id::hex(c))
                .collect();
            put("chunks", ids.join(","));
        }
        Error::SnapshotPinned { snapshot, .. } => put("snapshot", snapshot.to_string()),
        Error::SnapshotAmbiguous { matches, .. } => {
            let ids: Vec<_> = matches.iter().take(32).map(ToString::to_string).collect();
            put("matches", ids.join(","));
        }
        Error::Repo(
            RepoError::ObjectDamaged { name, .. }
            | RepoError::ObjectTruncated { name, .. }
            | RepoError::ObjectMissing { name },
        ) => put("object", name.clone()),
        Error::Repo(RepoError::Owned { holder, host, .. }) => {
            put("catalog", holder.catalog.to_string());
            put("epoch", holder.epoch.to_string());
            put("host", host.clone());
        }
        Error::Shared(error) => return metadata(error),
        _ => {}
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::id::ChunkId;

    #[test]
    fn a_refusal_carries_its_reason_and_what_it_is_about() {
        let chunk = ChunkId::from_bytes([3; 32]);
        let status = status(Error::UnknownChunkReference {
            path: "a/b".into(),
            chunk,
        });
        assert_eq!(status.code(), Code::InvalidArgument);
        let info = status.get_error_details().error_info().unwrap().clone();
        assert_eq!(info.reason, "UnknownChunkReference");
        assert_eq!(info.domain, ERROR_DOMAIN);
        assert_eq!(info.metadata["chunk"], chunk.to_string());
    }

    #[test]
    fn causes_are_in_the_message() {
        let status = status(Error::io("open /x", std::io::Error::other("broken")));
        assert_eq!(status.message(), "cannot open /x: broken");
        assert_eq!(status.code(), Code::Unavailable);
    }
}
