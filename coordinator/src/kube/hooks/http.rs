//! Sends the requests of hooks. No redirect is followed and of the answer little is read: whoever writes policies
//! of a namespace can make the coordinator ask the pods of that namespace, and nobody else.

use crate::policy::hooks::{Request, Target};
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What is read of an answer.
const BODY: usize = 4096;

/// A client for an address. Of a plain one no authorities are needed, which an image may not have.
fn client(address: &str) -> Result<Client, String> {
    let builder = Client::builder().redirect(Policy::none()).no_proxy();
    let builder = match address.starts_with("https:") {
        true => builder,
        false => builder.tls_certs_only([]),
    };
    builder.build().map_err(|error| chain(&error))
}

/// Where a request goes, for a pod of this address.
pub fn address(request: &Request, ip: &str) -> Result<String, String> {
    match &request.target {
        Target::Url(url) => Ok(url.clone()),
        Target::Pod(port, path) => {
            let ip: IpAddr = ip
                .parse()
                .map_err(|_| "the pod has no address".to_owned())?;
            Ok(format!("http://{}{path}", SocketAddr::new(ip, *port)))
        }
    }
}

/// Sends a request. `unfreeze_after`: how long what it asks for may last, which is told in a header.
pub async fn send(
    request: &Request,
    ip: &str,
    unfreeze_after: Option<Duration>,
    timeout: Duration,
) -> Result<(), String> {
    let method = format!("{:?}", request.method).to_uppercase();
    let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
    let address = address(request, ip)?;
    let mut building = client(&address)?.request(method, address).timeout(timeout);
    for (name, value) in &request.headers {
        building = building.header(name, value);
    }
    if let Some(after) = unfreeze_after {
        building = building.header("holdfast-unfreeze-after", after.as_secs());
    }
    let mut answer = building.send().await.map_err(|error| chain(&error))?;
    let status = answer.status().as_u16();
    let is_expected = match request.expected {
        Some(expected) => status == expected,
        None => (200..300).contains(&status),
    };
    if is_expected {
        return Ok(());
    }
    let mut body = Vec::new();
    while body.len() < BODY
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(BODY - body.len())]);
    }
    let said = String::from_utf8_lossy(&body).trim().to_owned();
    Err(format!("it was answered with status {status}: {said}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
