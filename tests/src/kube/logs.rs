//! `pods/NAME/log`: what a test printed there, from the beginning or its last lines, once or followed.

use super::path::Target;
use super::{Shared, Words, status};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// By the pod's namespace and name, and its container.
#[derive(Default)]
pub struct Logs(BTreeMap<(String, String, String), String>);

impl Logs {
    /// Adds to one.
    pub fn print(&mut self, namespace: &str, pod: &str, container: &str, text: &str) {
        let key = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        self.0.entry(key).or_default().push_str(text);
    }

    fn find(&self, target: &Target, container: &str) -> Option<&str> {
        let (namespace, pod) = target.key();
        let key = (namespace, pod, container.to_owned());
        self.0.get(&key).map(String::as_str)
    }
}

/// Answers with it.
pub fn read(logs: &Logs, shared: &Arc<Shared>, target: &Target, query: &Words) -> Response {
    let container = query.get("container").cloned().unwrap_or_default();
    let Some(text) = logs.find(target, &container) else {
        return status(404, "NotFound", "no such pod or container");
    };
    let most = query.get("tailLines").and_then(|most| most.parse().ok());
    let lines = text.lines().count();
    let from = lines.saturating_sub(most.unwrap_or(usize::MAX));
    let shown: String = text.split_inclusive('\n').skip(from).collect();
    if query.get("follow").is_none_or(|word| word != "true") {
        return shown.into_response();
    }
    let (mut at, shared, target) = (text.len(), shared.clone(), target.clone());
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(16);
    let mut news = shared.version.subscribe();
    tokio::spawn(async move {
        let mut part = shown;
        loop {
            if !part.is_empty() && sender.send(Ok(part.into())).await.is_err() {
                return;
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            let cluster = shared.lock();
            let text = cluster.logs.find(&target, &container).unwrap_or_default();
            part = text.get(at..).unwrap_or_default().to_owned();
            at = text.len();
        }
    });
    Body::from_stream(ReceiverStream::new(receiver)).into_response()
}
