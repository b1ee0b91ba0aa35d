//! The websockets of the API: a request that asks for one becomes one, in Kubernetes' channel protocol: the first
//! byte of each message is its channel.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::future::Future;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// A websocket whose messages belong to channels.
pub struct Socket(WebSocketStream<TokioIo<Upgraded>>);

impl Socket {
    /// Sends bytes on a channel; `false`: nobody listens any more.
    pub async fn send(&mut self, channel: u8, bytes: &[u8]) -> bool {
        let message = [&[channel], bytes].concat();
        self.0.send(Message::binary(message)).await.is_ok()
    }

    /// The next bytes that come, and their channel; `None`: the other side has closed it.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Binary(bytes) => {
                    let (channel, bytes) = bytes.split_first()?;
                    return Some((*channel, bytes.to_vec()));
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Closes it in order.
    pub async fn close(mut self) {
        let _ = self.0.close(None).await;
    }
}

/// Whether a request asks for a websocket.
pub fn is_asked(parts: &Parts) -> bool {
    parts.extensions.get::<OnUpgrade>().is_some() && parts.headers.contains_key("sec-websocket-key")
}

/// Answers a request that asks for one; `serve` gets it once it stands.
pub fn open<F: Future<Output = ()> + Send + 'static>(
    mut parts: Parts,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response<Body> {
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let key = parts.headers.get("sec-websocket-key");
    let (Some(upgrade), Some(key)) = (upgrade, key) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let stream = TokioIo::new(upgraded);
            serve(Socket(
                WebSocketStream::from_raw_socket(stream, Role::Server, None).await,
            ))
            .await;
        }
    });
    let headers = [
        ("connection", "Upgrade".to_owned()),
        ("upgrade", "websocket".to_owned()),
        ("sec-websocket-accept", accept),
        ("sec-websocket-protocol", "v4.channel.k8s.io".to_owned()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
