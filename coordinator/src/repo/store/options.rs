//! How to reach a store: address, credentials, limits.

use crate::repo::retry::RetryPolicy;
use holdfast_runtime::metrics::Metrics;
use std::fmt;
use std::time::Duration;

/// How to reach a store. Credentials come from variables alone, never from a URL.
#[derive(Clone)]
pub struct StoreOptions {
    /// Variables such as `AWS_ACCESS_KEY_ID`, which win over those of the process.
    pub variables: Vec<(String, String)>,
    /// Address of the service, such as `http://127.0.0.1:9000`; plain HTTP only if it says so.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of a request; else in its host name.
    pub path_style: Option<bool>,
    /// T: no operation takes longer, retries included.
    pub request_limit: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How often an operation is tried.
    pub retry: RetryPolicy,
    /// Where operations are counted.
    pub metrics: Option<Metrics>,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("request_limit", &self.request_limit)
            .finish_non_exhaustive()
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            variables: Vec::new(),
            endpoint: None,
            region: None,
            path_style: None,
            request_limit: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            retry: RetryPolicy::default(),
            metrics: None,
        }
    }
}
