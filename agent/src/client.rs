//! The coordinator as the agent sees it: typed calls over one channel, with one mapping of errors.
//!
//! A client is made from a `tonic` channel, so that a program may hand in an in-process one. Clones
//! share the channel; a call may be made from any task.

use crate::error::{Error, Result};
use holdfast_format::wire::{SESSION_HEADER, session_to_header};
use holdfast_proto::v1 as proto;
use proto::backup_client::BackupClient;
use proto::jobs_client::JobsClient;
use proto::restore_client::RestoreClient;
use std::time::Duration;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Protocol that this program speaks.
pub const PROTOCOL: u32 = 1;
/// Largest message taken or sent, bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// How long one unary call may take; a commit writes the whole delta's tree.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of one stream of replies that nobody has read yet.
const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes of one connection that nobody has read yet.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Longest piece of a message that is taken: each costs a system call on either side, and a restore is made of
/// them. The usual 16 KiB are made for browsers.
const FRAME_BYTES: u32 = 256 << 10;

/// The coordinator's services.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Over this channel.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// To a coordinator at a URL, e.g. `http://127.0.0.1:7270` or `unix:/run/holdfast/holdfast.sock`. Connects when it is
    /// first used, and again whenever the connection broke.
    pub fn connect_lazy(url: &str, tls: Option<ClientTlsConfig>) -> Result<Self> {
        let wrong = |error: tonic::transport::Error| Error::Protocol {
            what: "address of the coordinator",
            rule: format!("{url}: {error}"),
        };
        let mut endpoint = windows(Endpoint::from_shared(url.to_owned()).map_err(wrong)?)
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .tcp_nodelay(true);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        Ok(Self::new(endpoint.connect_lazy()))
    }

    /// The channel itself.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Stubs of `Backup`.
    pub fn backup(&self) -> BackupClient<Channel> {
        BackupClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Stubs of `Jobs`.
    pub fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Stubs of `Restore`.
    pub fn restore(&self) -> RestoreClient<Channel> {
        RestoreClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Opens or resumes a session.
    pub async fn begin(&self, request: proto::BeginRequest) -> Result<proto::BeginReply> {
        let call = self.backup().begin(timed(request)).await;
        Ok(call.map_err(refused("begin a session"))?.into_inner())
    }

    /// Which chunks the volume does not hold.
    pub async fn find_missing(
        &self,
        request: proto::FindMissingRequest,
    ) -> Result<proto::FindMissingReply> {
        let (session, epoch) = (request.session.clone(), request.lease_epoch);
        let request = of_session(timed(request), &session, epoch);
        let call = self.backup().find_missing(request).await;
        Ok(call
            .map_err(refused("ask which chunks are missing"))?
            .into_inner())
    }

    /// Makes the snapshot visible.
    pub async fn commit(&self, request: proto::CommitRequest) -> Result<proto::CommitReply> {
        let call = self.backup().commit(timed(request)).await;
        Ok(call.map_err(refused("commit"))?.into_inner())
    }

    /// Gives the lease back. Errors are of no interest: the lease ends by itself.
    pub async fn abort(&self, request: proto::AbortRequest) {
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_secs(1));
        if let Err(status) = self.backup().abort(request).await {
            tracing::debug!(%status, "could not abort the session");
        }
    }
}

/// How much a coordinator may send ahead, and in what pieces.
pub fn windows(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Names the session in the headers: the coordinator takes large messages of open sessions only.
pub fn of_session<T>(
    mut request: tonic::Request<T>,
    session: &[u8],
    epoch: u64,
) -> tonic::Request<T> {
    // Hexadecimal and digits are what a header may hold.
    if let Ok(value) = session_to_header(session, epoch).parse() {
        request.metadata_mut().insert(SESSION_HEADER, value);
    }
    request
}

/// Turns a status into an error that says what was attempted.
pub fn refused(what: &'static str) -> impl FnOnce(Status) -> Error {
    move |status| from_status(what, &status)
}

/// The one mapping of the wire's errors to ours.
pub fn from_status(what: &'static str, status: &Status) -> Error {
    let message = status.message().to_owned();
    if let Some(info) = status.get_details_error_info() {
        return match info.reason.as_str() {
            "Cancelled" => Error::Disconnected { what, message },
            _ => Error::Refused {
                what,
                reason: info.reason,
                message,
            },
        };
    }
    // Without a reason it was the transport that failed, not the coordinator that refused.
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::Aborted
        | Code::Internal => Error::Disconnected { what, message },
        code => Error::Refused {
            what,
            reason: format!("{code:?}"),
            message,
        },
    }
}
