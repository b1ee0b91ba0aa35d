//! Questions to the API server, and what a refused one means for the user.

use super::Cluster;
use super::kinds::Kind;
use crate::failure::{Exit, Failure, Outcome, chain};
use http::{Request, header};
use jiff::Timestamp;
use kube::Error;
use serde_json::Value;

/// Objects of one page.
const PAGE: u32 = 500;
/// Objects of a list, at most: more are cut off, and said to be.
pub const MOST: usize = 50_000;

/// What the API server answered, or why it did not.
pub type Answer<T> = Result<T, Error>;

fn request(method: &str, path: &str, body: Vec<u8>) -> Answer<Request<Vec<u8>>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(Error::HttpError)
}

impl Cluster {
    /// The objects of a kind; `selector` is one of labels, and may be empty.
    pub async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &str,
    ) -> Answer<Vec<Value>> {
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let mut path = format!("{}?limit={PAGE}", kind.path(namespace, None));
            for (name, value) in [("labelSelector", selector), ("continue", &*next)] {
                if !value.is_empty() {
                    path.push_str(&format!("&{name}={}", encoded(value)));
                }
            }
            let mut page: Value = self
                .client
                .request(request("GET", &path, Vec::new())?)
                .await?;
            if let Value::Array(items) = page["items"].take() {
                found.extend(items);
            }
            next = text(&page["metadata"]["continue"]).to_owned();
            if next.is_empty() || found.len() >= MOST {
                return Ok(found);
            }
        }
    }

    /// One object.
    pub async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Answer<Value> {
        let path = kind.path(Some(namespace), Some(name));
        self.client
            .request(request("GET", &path, Vec::new())?)
            .await
    }

    /// Makes an object. The server refuses fields that it does not know, in place of ignoring them.
    pub async fn create(&self, kind: &Kind, namespace: &str, object: &Value) -> Answer<Value> {
        let path = kind.path(Some(namespace), None);
        let path = format!("{path}?fieldValidation=Strict&fieldManager=kubectl-holdfast");
        let body = serde_json::to_vec(object).map_err(Error::SerdeError)?;
        self.client.request(request("POST", &path, body)?).await
    }

    /// What the API server's clock says, and when it was asked, as this host's clock has it.
    pub async fn clock(&self) -> Answer<Option<(Timestamp, Timestamp)>> {
        let asked = request("GET", "/version", Vec::new())?;
        let (parts, body) = asked.into_parts();
        let before = Timestamp::now();
        let answer = self
            .client
            .send(Request::from_parts(parts, body.into()))
            .await?;
        let date = answer.headers().get(header::DATE);
        let date = date.and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        Ok(date.map(|date| (date.timestamp(), before)))
    }
}

/// A text in a query.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A text of an object; empty where there is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A time of an object.
pub fn moment(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// Namespace and name of an object.
pub fn name_of(object: &Value) -> (&str, &str) {
    let meta = &object["metadata"];
    (text(&meta["namespace"]), text(&meta["name"]))
}

/// The HTTP status of a refusal.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// A refused question as a command's end: `doing` is such as `list pods of all namespaces`.
pub fn failure(cluster: &Cluster, doing: &str, error: &Error) -> Failure {
    match error {
        Error::Api(status) if status.code == 401 => Failure::with(
            Exit::NotAllowed,
            format!(
                "the cluster does not know you (401): log in again, or check the kubeconfig; while trying to {doing}"
            ),
        ),
        Error::Api(status) if status.code == 403 => Failure::with(
            Exit::NotAllowed,
            format!(
                "you may not {doing}: {}; ask for the ClusterRole holdfast-view, or holdfast-operator to change \
                 things (deploy/README.md)",
                status.message
            ),
        ),
        Error::Api(status) => Failure::failed(format!("cannot {doing}: {}", status.message)),
        error => Failure::failed(format!(
            "cannot {doing}: the API server {} cannot be reached: {}",
            cluster.server,
            chain(error)
        )),
    }
}

/// The same for objects of ours, whose kind a cluster may not know.
pub fn failure_of_ours(cluster: &Cluster, kind: &Kind, doing: &str, error: &Error) -> Failure {
    match code(error) {
        Some(404) => Failure::failed(format!(
            "cannot {doing}: the cluster does not know {}.{}; bring its definitions up: `kubectl apply \
             --server-side -f deploy/chart/crds` of the version that is installed",
            kind.plural,
            kind.group()
        )),
        _ => failure(cluster, doing, error),
    }
}

/// Lists a kind of ours in a namespace or in all, as the user may.
pub async fn list_ours(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
) -> Outcome<Vec<Value>> {
    let listed = cluster.list(kind, namespace, "").await;
    listed.map_err(|error| {
        let place = namespace.map_or("all namespaces".to_owned(), |name| {
            format!("namespace {name}")
        });
        let doing = format!("list {} of {place}", kind.plural);
        failure_of_ours(cluster, kind, &doing, &error)
    })
}
