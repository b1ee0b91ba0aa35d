//! How a coordinator's services meet the network: the one server that every listener uses, with its limits.
//!
//! What a peer can make this process keep without a request being served is bounded per connection (streams,
//! windows, headers) and by the number of connections; messages that are coming in are the matter of `intake`.

use super::MAX_MESSAGE_BYTES;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// Streams of one connection.
const MAX_STREAMS: u32 = 64;
/// Bytes of one stream that nobody has read yet.
const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes of one connection that nobody has read yet: a stream that waits does not hold up the others.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Largest header list taken from a peer, in bytes.
pub(super) const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Longest piece of a message on the wire. A whole one is held before any of its stream's limits count: by
/// all connections of a listener together 32 MiB.
const FRAME_BYTES: u32 = 64 << 10;
/// Connections of one listener; an agent has one.
const MAX_CONNECTIONS: usize = 512;
/// How long a new connection may be silent.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// A server with the limits of a coordinator.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .initial_stream_window_size(Some(STREAM_WINDOW))
        .initial_connection_window_size(Some(CONNECTION_WINDOW))
        .max_frame_size(Some(FRAME_BYTES))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

/// The connections of a TCP listener, as many at once as are allowed.
pub fn tcp(listener: TcpListener) -> impl Stream<Item = io::Result<Counted<TcpStream>>> {
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        stream.inspect(|stream| {
            // Small messages wait for nobody.
            let _ = stream.set_nodelay(true);
        })
    });
    counted(incoming, MAX_CONNECTIONS, FIRST_BYTE)
}

/// The connections of a unix socket, as many at once as are allowed.
pub fn unix(listener: UnixListener) -> impl Stream<Item = io::Result<Counted<UnixStream>>> {
    counted(
        UnixListenerStream::new(listener),
        MAX_CONNECTIONS,
        FIRST_BYTE,
    )
}

/// Connections inside this process.
pub fn pipes(
    incoming: impl Stream<Item = io::Result<DuplexStream>>,
) -> impl Stream<Item = io::Result<Counted<DuplexStream>>> {
    counted(incoming, MAX_CONNECTIONS, FIRST_BYTE)
}

fn counted<C>(
    incoming: impl Stream<Item = io::Result<C>>,
    most: usize,
    first_byte: Duration,
) -> impl Stream<Item = io::Result<Counted<C>>> {
    let places = Arc::new(Semaphore::new(most));
    incoming.filter_map(move |connection| {
        let stream = match connection {
            Ok(stream) => stream,
            Err(error) => return Some(Err(error)),
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(most, "a connection is refused: there are too many");
            return None;
        };
        Some(Ok(Counted {
            stream,
            silent: Some(Box::pin(tokio::time::sleep(first_byte))),
            known: Connection::default(),
            _place: place,
        }))
    })
}

/// A connection that has its place among those that are allowed.
pub struct Counted<C> {
    stream: C,
    /// Until the first byte has come.
    silent: Option<Pin<Box<Sleep>>>,
    known: Connection,
    _place: OwnedSemaphorePermit,
}

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What requests of it that name no session may take of the budget in `intake`.
    pub(super) share: Arc<Semaphore>,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            share: Arc::new(Semaphore::new(MAX_MESSAGE_BYTES)),
        }
    }
}

impl<C> Connected for Counted<C> {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.known.clone()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.silent = None;
        } else if let Some(silent) = &mut self.silent
            && silent.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed_and_their_places_come_back() {
        let pipes = (0..3).map(|_| tokio::io::duplex(16));
        let (ours, theirs): (Vec<_>, Vec<_>) = pipes.unzip();
        let (given, incoming) = tokio::sync::mpsc::channel(4);
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        let mut connections = std::pin::pin!(counted(incoming.map(Ok), 1, FIRST_BYTE));
        let mut theirs = theirs.into_iter();
        given.send(theirs.next().unwrap()).await.unwrap();
        let first = connections.next().await.unwrap().unwrap();
        given.send(theirs.next().unwrap()).await.unwrap();
        let refused = tokio::time::timeout(Duration::from_millis(50), connections.next()).await;
        assert!(refused.is_err());
        let mut ours = ours.into_iter().skip(1);
        assert_eq!(ours.next().unwrap().read(&mut [0; 1]).await.unwrap(), 0);
        drop(first);
        given.send(theirs.next().unwrap()).await.unwrap();
        assert!(connections.next().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed() {
        let (_ours, theirs) = tokio::io::duplex(16);
        let mut connections = std::pin::pin!(counted(
            tokio_stream::once(Ok(theirs)),
            1,
            Duration::from_millis(50),
        ));
        let mut connection = connections.next().await.unwrap().unwrap();
        let read = connection.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::TimedOut);
    }
}
