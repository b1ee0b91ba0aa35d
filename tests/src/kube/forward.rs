//! `pods/NAME/portforward`: bytes of a port of a pod go to a process of the test, and back.

use super::path::Target;
use super::socket::{self, Socket};
use super::{Cluster, Shared, Words, status};
use axum::http::request::Parts;
use axum::response::Response;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

/// Bytes of one message.
const PART: usize = 32 << 10;

/// Where a port of a pod is served.
#[derive(Clone, Debug)]
pub enum Place {
    /// At an address.
    Tcp(SocketAddr),
    /// At a unix socket.
    Unix(PathBuf),
    /// Nobody listens.
    Nowhere,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Place {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Place::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Place::Nowhere => return Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

impl Cluster {
    /// A port of a pod, to whatever serves it.
    pub(super) fn forwarded(
        &self,
        shared: &Shared,
        target: &Target,
        query: &Words,
        parts: Parts,
    ) -> Response {
        let pod = Target {
            part: None,
            ..target.clone()
        };
        if self.find(&pod).is_none() {
            return status(404, "NotFound", "no such pod");
        }
        let port = query.get("ports").and_then(|port| port.parse().ok());
        let Some(port) = port.filter(|_| socket::is_asked(&parts)) else {
            return status(400, "BadRequest", "a websocket for one port is needed");
        };
        let (namespace, name) = target.key();
        let place = self.places.get(&(namespace, name, port)).cloned();
        let place = place.unwrap_or(Place::Nowhere);
        open(parts, port, place, shared.cuts.subscribe())
    }
}

/// Forwards until one side ends, or `broken` changes.
fn open(parts: Parts, port: u16, place: Place, mut broken: watch::Receiver<u64>) -> Response {
    socket::open(parts, move |mut socket| async move {
        // The first message of both channels names the port.
        for channel in [0, 1] {
            socket.send(channel, &port.to_le_bytes()).await;
        }
        match place.connect().await {
            Ok(stream) => pump(socket, stream, &mut broken).await,
            Err(error) => {
                let said =
                    format!("failed to connect to localhost:{port} inside namespace: {error}");
                socket.send(1, said.as_bytes()).await;
                let _ = socket.next().await;
            }
        }
    })
}

async fn pump(mut socket: Socket, stream: Box<dyn Stream>, broken: &mut watch::Receiver<u64>) {
    broken.mark_unchanged();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut part = vec![0; PART];
    loop {
        tokio::select! {
            read = reader.read(&mut part) => match read {
                Ok(count) if count > 0 => {
                    if !socket.send(0, &part[..count]).await {
                        return;
                    }
                }
                _ => return socket.close().await,
            },
            came = socket.next() => match came {
                Some((0, bytes)) => {
                    if writer.write_all(&bytes).await.is_err() {
                        return socket.close().await;
                    }
                }
                Some(_) => {}
                None => return,
            },
            _ = broken.changed() => {
                let said = "lost connection to pod";
                socket.send(1, said.as_bytes()).await;
                return socket.close().await;
            }
        }
    }
}
