//! The way to a port of a pod through the API server, as `kubectl port-forward` goes it, without a port of this
//! host. A way that breaks says which pod and port it led to.

use super::Cluster;
use super::find::Found;
use super::trust;
use crate::args::Global;
use crate::failure::{Exit, Failure, Outcome, chain};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Error};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tonic::transport::{Channel, Endpoint};

/// How long the coordinator may take to answer through it.
const ANSWER: Duration = Duration::from_secs(20);
/// Bytes of one answer over HTTP.
const MOST: u64 = 16 << 20;

/// A port of a pod.
#[derive(Debug, Clone)]
pub struct Port {
    namespace: String,
    pod: String,
    number: u16,
}

impl Port {
    /// Of the coordinator's pod.
    pub fn of(found: &Found, number: u16) -> Self {
        Self {
            namespace: found.namespace.clone(),
            pod: found.pod.clone(),
            number,
        }
    }

    /// Of another pod.
    pub fn new(namespace: &str, pod: &str, number: u16) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            number,
        }
    }

    fn name(&self) -> String {
        format!("pod {}/{}, port {}", self.namespace, self.pod, self.number)
    }

    /// Opens a way to it.
    pub async fn open(&self, client: &Client) -> io::Result<Tunnel> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let refused = |error: Error| {
            let why = match &error {
                Error::Api(status) if status.code == 403 => format!(
                    "{}; you need the rights to get and create pods/portforward there: have the Role holdfast-connect \
                     bound to you (deploy/README.md)",
                    status.message
                ),
                Error::Api(status) => status.message.clone(),
                error => chain(error),
            };
            let kind = match &error {
                Error::Api(status) if status.code == 403 => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, format!("no way to {}: {why}", self.name()))
        };
        let opened = pods.portforward(&self.pod, &[self.number]).await;
        let mut forwarder = opened.map_err(refused)?;
        let gone = || io::Error::other(format!("no way to {}", self.name()));
        let stream = forwarder.take_stream(self.number).ok_or_else(gone)?;
        let broken = forwarder.take_error(self.number).ok_or_else(gone)?;
        Ok(Tunnel {
            stream,
            broken: Some(broken.boxed()),
            port: self.clone(),
        })
    }

    /// Asks for a page over HTTP: its status and its text, of which at most the first bytes.
    pub async fn page(&self, client: &Client, path: &str) -> io::Result<(u16, String)> {
        let asked = async {
            let mut tunnel = self.open(client).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            tunnel.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            let read = (&mut tunnel).take(MOST).read_to_end(&mut answer).await;
            // The end of the answer is the end of the way.
            match read {
                Err(error) if answer.is_empty() => Err(error),
                _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
            }
        };
        let late = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} does not answer", self.name()),
            )
        };
        let answer = tokio::time::timeout(ANSWER, asked)
            .await
            .map_err(|_| late())??;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let body = if chunked {
            unchunked(body)
        } else {
            body.to_owned()
        };
        Ok((status.unwrap_or(0), body))
    }
}

/// The parts of a chunked body, joined.
fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        let Some(part) = rest.get(..size).filter(|part| !part.is_empty()) else {
            break;
        };
        out.push_str(part);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}

/// Bytes to and from a port.
pub struct Tunnel {
    stream: DuplexStream,
    /// What the other end says when it cannot go on.
    broken: Option<BoxFuture<'static, Option<String>>>,
    port: Port,
}

impl Tunnel {
    fn error(&self, why: &str) -> io::Error {
        let text = format!("the way to {} broke: {why}", self.port.name());
        io::Error::new(io::ErrorKind::ConnectionAborted, text)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let is_end = matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if !is_end && read.is_ready() {
            return read;
        }
        if let Some(broken) = &mut self.broken
            && let Poll::Ready(said) = broken.poll_unpin(cx)
        {
            self.broken = None;
            if let Some(said) = said {
                return Poll::Ready(Err(self.error(said.trim())));
            }
        }
        match is_end {
            true => Poll::Ready(Err(self.error("it was closed at the other end"))),
            false => Poll::Pending,
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(written.map_err(|e| self.error(&e.to_string())))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A channel to the coordinator's services. A way that breaks is made again by the next call.
pub async fn channel(cluster: &Cluster, found: &Found, global: &Global) -> Outcome<Channel> {
    let trust = trust::find(cluster, found, global).await?;
    let (scheme, host) = match &trust {
        Some(trust) => ("https", &*trust.server_name),
        None => ("http", &*found.pod),
    };
    let wrong =
        |e: tonic::transport::Error| Failure::failed(format!("{scheme}://{host}: {}", chain(&e)));
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{}", found.grpc))
        .map_err(wrong)?
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    if let Some(trust) = &trust {
        endpoint = endpoint.tls_config(trust.config(global)?).map_err(wrong)?;
    }
    let (port, client) = (Port::of(found, found.grpc), cluster.client.clone());
    let connector = tower::service_fn(move |_| {
        let (port, client) = (port.clone(), client.clone());
        async move { port.open(&client).await.map(TokioIo::new) }
    });
    let opened = tokio::time::timeout(ANSWER, endpoint.connect_with_connector(connector)).await;
    match opened {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(broken(found, trust.is_some(), &error)),
        Err(_) => Err(Failure::failed(format!(
            "the coordinator, pod {}/{}, port {}, does not answer within {} s{}; see `holdfast logs coordinator`",
            found.namespace,
            found.pod,
            found.grpc,
            ANSWER.as_secs(),
            because(found)
        ))),
    }
}

fn because(found: &Found) -> String {
    match &*found.why {
        "" => String::new(),
        why => format!(" ({why})"),
    }
}

/// What it means that no connection stands.
fn broken(found: &Found, is_tls: bool, error: &tonic::transport::Error) -> Failure {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let refused = causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    let said = chain(error);
    let said = said.trim_start_matches("transport error: ");
    let hint = match () {
        () if refused => String::new(),
        () if said.contains("certificate") || said.contains("InvalidCertificate") => format!(
            "; its certificate is checked by ConfigMap {}: was it made again since?",
            trust::config_map(found)
        ),
        () if !is_tls => format!(
            "; without ConfigMap {} it is spoken to without TLS",
            trust::config_map(found)
        ),
        () => "; see `holdfast logs coordinator`".to_owned(),
    };
    let exit = if refused {
        Exit::NotAllowed
    } else {
        Exit::Failed
    };
    Failure::with(
        exit,
        format!(
            "the coordinator, pod {}/{}{}, cannot be reached: {said}{hint}",
            found.namespace,
            found.pod,
            because(found)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::unchunked;

    #[test]
    fn parts_are_joined() {
        assert_eq!(unchunked("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
        assert_eq!(unchunked(""), "");
    }
}
