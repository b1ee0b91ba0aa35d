//! Whether anybody answers at a coordinator's address: asked before anything else, so that a coordinator
//! that is not there is told by its address and the system's own word.

use crate::failure::{Failure, Outcome};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::Uri;

/// How long an address may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Connects once, and says what is wrong where that fails.
pub async fn reach(url: &str) -> Outcome<()> {
    let wrong = || {
        Failure::usage(format!(
            "coordinator {url}: must start with http://, https:// or unix:, e.g. http://127.0.0.1:7270"
        ))
    };
    let answer = async {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(UnixStream::connect(path).await.map(drop));
        }
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let usual = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(usual);
        Ok(TcpStream::connect((host, port)).await.map(drop))
    };
    let why = match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(failure)) => return Err(failure),
        Err(_) => format!("no answer in {} s", ANSWER.as_secs()),
    };
    Err(Failure::failed(format!(
        "cannot reach the coordinator at {url}: {why}; is it running?"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[tokio::test]
    async fn what_is_wrong_names_the_address() {
        for url in ["127.0.0.1:7270", "ftp://a", "nonsense", "http:"] {
            let failure = reach(url).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{url}");
            assert!(
                failure.message.contains("must start with http://"),
                "{}",
                failure.message
            );
        }
        for url in ["http://127.0.0.1:1", "unix:/nowhere/holdfast.sock"] {
            let failure = reach(url).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Failed, "{url}");
            assert!(failure.message.contains(url), "{}", failure.message);
            assert!(failure.message.contains("os error"), "{}", failure.message);
        }
    }
}
