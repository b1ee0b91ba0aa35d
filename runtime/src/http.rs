//! The HTTP side of a process: `/livez` and `/healthz` (it answers), `/readyz` (every latch is released; else 503
//! with what is waited for), `/metrics` (Prometheus text). Nothing here reads a request's body.

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

/// The routes.
pub fn routes(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(scrape).with_state(metrics))
}

/// Serves the routes until the stop is requested and the open requests are answered.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    axum::serve(listener, routes(readiness, metrics))
        .with_graceful_shutdown(async move {
            shutdown.requested().await;
        })
        .await
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let (waiting, troubles) = (readiness.waiting_for(), readiness.troubles());
    if waiting.is_empty() && troubles.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let mut text = String::new();
    if !waiting.is_empty() {
        text.push_str(&format!("waiting for {}\n", waiting.join(", ")));
    }
    for (word, detail) in troubles {
        text.push_str(&format!("{word}: {detail}\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    metrics.refresh().await;
    match metrics.encode() {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn ready_follows_the_latches_and_metrics_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stopper, shutdown) = shutdown::channel();
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let latch = readiness.latch("catalog");
        let troubled = readiness.clone();
        metrics.counter("holdfast_tests_total", "Tests.").inc();
        let server = tokio::spawn(serve(listener, readiness, metrics, shutdown));

        for alive in ["/livez", "/healthz"] {
            assert!(fetch(address, alive).await.starts_with("HTTP/1.1 200"));
        }
        let reply = fetch(address, "/readyz").await;
        assert!(reply.starts_with("HTTP/1.1 503") && reply.contains("waiting for catalog"));
        latch.release();
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        troubled.set_troubles([("NoDisk", "there is none".to_owned())].into());
        let reply = fetch(address, "/readyz").await;
        assert!(reply.starts_with("HTTP/1.1 503") && reply.contains("NoDisk: there is none"));
        troubled.set_troubles(Default::default());
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(
            fetch(address, "/metrics")
                .await
                .contains("holdfast_tests_total 1")
        );
        assert!(fetch(address, "/").await.starts_with("HTTP/1.1 404"));

        let _ = stopper.drain(Duration::from_secs(5)).await;
        server.await.unwrap().unwrap();
    }
}
