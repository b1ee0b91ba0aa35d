//! Counts what is asked of the cluster's API, by verb, kind of object and answer: closed sets of words. A watch is
//! one request for as long as it is followed.

use futures::future::BoxFuture;
use holdfast_runtime::metrics::Metrics;
use http::{Method, Request, Response};
use prometheus::{IntCounterVec, IntGauge};
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Kinds of objects that are named; others are `other`.
const RESOURCES: [&str; 17] = [
    "pods",
    "persistentvolumeclaims",
    "persistentvolumes",
    "namespaces",
    "nodes",
    "events",
    "backuppolicies",
    "clusterbackuppolicies",
    "volumeprotections",
    "backups",
    "restores",
    "deployments",
    "statefulsets",
    "replicasets",
    "storageclasses",
    "volumeattachments",
    "leases",
];
/// Answers that are named; others are `other`.
const CODES: [&str; 13] = [
    "101", "200", "201", "202", "400", "401", "403", "404", "409", "410", "422", "429", "503",
];

/// The layer of a client that counts.
#[derive(Clone)]
pub struct ApiCalls {
    requests: IntCounterVec,
    up: IntGauge,
}

impl ApiCalls {
    /// Makes the families.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.counters(
                "holdfast_api_requests_total",
                "Requests to the cluster's API, by verb, resource and status code; error: there was no answer.",
                &["verb", "resource", "code"],
            ),
            up: metrics.gauge(
                "holdfast_api_up",
                "1 if the cluster's API answered the last request and knew who asked. Watches end after some minutes, so that there is always a last request.",
            ),
        }
    }

    fn ended(&self, verb: &'static str, resource: &'static str, code: Option<u16>) {
        let word = match code {
            None => "error",
            Some(code) => {
                let code = code.to_string();
                CODES
                    .into_iter()
                    .find(|known| *known == code)
                    .unwrap_or("other")
            }
        };
        self.requests
            .with_label_values(&[verb, resource, word])
            .inc();
        let is_up = code.is_some_and(|code| code < 500 && code != 401);
        self.up.set(i64::from(is_up));
    }
}

impl<S> Layer<S> for ApiCalls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            calls: self.clone(),
        }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    calls: ApiCalls,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, resource) = words(request.method(), request.uri());
        let calls = self.calls.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            calls.ended(verb, resource, code);
            answer
        })
    }
}

/// Verb and resource of a request.
fn words(method: &Method, uri: &http::Uri) -> (&'static str, &'static str) {
    let parts: Vec<&str> = uri
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let rest = match parts[..] {
        ["api", _, ref rest @ ..] | ["apis", _, _, ref rest @ ..] => rest,
        _ => &[],
    };
    let rest = match *rest {
        ["namespaces", _, ref rest @ ..] if !rest.is_empty() => rest,
        _ => rest,
    };
    let resource = rest
        .first()
        .and_then(|plural| RESOURCES.into_iter().find(|known| known == plural))
        .unwrap_or("other");
    let is_watch = uri.query().is_some_and(|query| {
        let mut pairs = query.split('&');
        pairs.any(|pair| matches!(pair, "watch" | "watch=true" | "watch=1"))
    });
    let verb = match *method {
        Method::GET if is_watch => "watch",
        Method::GET if rest.len() > 1 => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_verb_and_a_kind_from_closed_sets() {
        for (method, uri, expected) in [
            (Method::GET, "/api/v1/pods?limit=500", ("list", "pods")),
            (
                Method::GET,
                "/api/v1/pods?watch=true&x=1",
                ("watch", "pods"),
            ),
            (Method::GET, "/api/v1/namespaces", ("list", "namespaces")),
            (Method::GET, "/api/v1/namespaces/a", ("get", "namespaces")),
            (
                Method::PATCH,
                "/apis/holdfast.dev/v1alpha1/namespaces/a/volumeprotections/x/status?force=true",
                ("patch", "volumeprotections"),
            ),
            (
                Method::POST,
                "/api/v1/namespaces/a/pods",
                ("create", "pods"),
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/a/pods/x",
                ("delete", "pods"),
            ),
            (Method::GET, "/version", ("list", "other")),
            (Method::GET, "/apis/x.org/v1/secrets", ("list", "other")),
        ] {
            assert_eq!(words(&method, &uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[test]
    fn no_answer_and_no_name_mean_down() {
        let metrics = Metrics::new();
        let calls = ApiCalls::new(&metrics);
        for (code, up) in [
            (Some(200), 1),
            (None, 0),
            (Some(403), 1),
            (Some(503), 0),
            (Some(404), 1),
            (Some(401), 0),
        ] {
            calls.ended("list", "pods", code);
            assert_eq!(calls.up.get(), up, "{code:?}");
        }
        calls.ended("list", "pods", Some(418));
        let text = metrics.encode().unwrap();
        assert!(text.contains("{code=\"other\",resource=\"pods\",verb=\"list\"} 1"));
        assert!(text.contains("{code=\"error\",resource=\"pods\",verb=\"list\"} 1"));
    }
}
