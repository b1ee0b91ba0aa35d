//! Lists and watches: pages, labels and fields, bookmarks, and what was forgotten.

use super::path::{Target, is_selected};
use super::{Cluster, Shared, Words, reply};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Between bookmarks.
const BOOKMARKS: Duration = Duration::from_secs(2);

/// The objects of a kind, in pages.
pub fn listed(cluster: &Cluster, target: &Target, query: &Words) -> Response {
    let limit = query.get("limit").and_then(|limit| limit.parse().ok());
    let after: usize = query
        .get("continue")
        .and_then(|after| after.parse().ok())
        .unwrap_or(0);
    let empty = BTreeMap::new();
    let objects = cluster.objects.get(&target.kind).unwrap_or(&empty);
    let wanted: Vec<&Value> = objects
        .iter()
        .filter(|((namespace, _), _)| target.holds(namespace))
        .map(|(_, object)| object)
        .filter(|object| is_selected(object, query))
        .collect();
    let end = wanted
        .len()
        .min(after + limit.unwrap_or(usize::MAX - after));
    let mut meta = json!({"resourceVersion": cluster.version.to_string()});
    if end < wanted.len() {
        meta["continue"] = json!(end.to_string());
    }
    let list = json!({
        "kind": "List",
        "apiVersion": target.api_version(),
        "metadata": meta,
        "items": wanted[after.min(end)..end],
    });
    reply(200, &list)
}

/// Their changes since a version.
pub fn watched(shared: Arc<Shared>, target: Target, query: &Words) -> Response {
    let from = query.get("resourceVersion").and_then(|v| v.parse().ok());
    let mut seen: u64 = from.unwrap_or(0);
    let tokens = shared.lock().tokens;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(16);
    let mut news = shared.version.subscribe();
    tokio::spawn(async move {
        // Also while others are told of changes all the time.
        let mut bookmarks = tokio::time::interval(BOOKMARKS);
        bookmarks.reset();
        loop {
            let mut lines = Vec::new();
            let version = {
                let cluster = shared.lock();
                if cluster.away || cluster.tokens != tokens {
                    return;
                }
                if seen < cluster.forgotten {
                    let gone = json!({
                        "kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": "Expired", "code": 410, "message": "too old resource version",
                    });
                    lines.push(json!({"type": "ERROR", "object": gone}));
                } else {
                    let news = cluster.log.partition_point(|event| event.version <= seen);
                    let events = cluster.log.range(news..).filter(|event| {
                        event.kind == target.kind && target.holds(&event.namespace)
                    });
                    lines.extend(
                        events.map(|event| json!({"type": event.what, "object": event.object})),
                    );
                }
                cluster.version
            };
            seen = seen.max(version);
            let expired = lines.iter().any(|line| line["type"] == "ERROR");
            for line in lines {
                if sender.send(Ok(format!("{line}\n").into())).await.is_err() {
                    return;
                }
            }
            if expired {
                return;
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
                _ = bookmarks.tick() => {
                    let bookmark = json!({
                        "type": "BOOKMARK",
                        "object": {
                            "kind": target.object_kind(), "apiVersion": target.api_version(),
                            "metadata": {"resourceVersion": seen.to_string()},
                        },
                    });
                    if sender.send(Ok(format!("{bookmark}\n").into())).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    Body::from_stream(ReceiverStream::new(receiver)).into_response()
}
