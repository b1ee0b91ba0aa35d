//! Counts of what is asked of the store. Labels come from closed sets.

use crate::repo::error::RepoError;
use holdfast_runtime::metrics::{Metrics, SECONDS};
use prometheus::{HistogramVec, IntCounterVec};
use std::time::Duration;

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Put,
    Get,
    Head,
    List,
    Delete,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Head => "head",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }
}

/// The families of the store.
#[derive(Clone)]
pub(super) struct StoreMetrics {
    requests: IntCounterVec,
    retries: IntCounterVec,
    seconds: HistogramVec,
    bytes: IntCounterVec,
}

impl StoreMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.counters(
                "holdfast_store_requests_total",
                "Operations on the object store by outcome.",
                &["operation", "outcome"],
            ),
            retries: metrics.counters(
                "holdfast_store_retries_total",
                "Operations on the object store that were tried again.",
                &["operation"],
            ),
            seconds: metrics.histograms(
                "holdfast_store_request_seconds",
                "Duration of operations on the object store, retries included.",
                &["operation"],
                SECONDS,
            ),
            bytes: metrics.counters(
                "holdfast_store_bytes_total",
                "Bytes of objects written to and read from the object store.",
                &["direction"],
            ),
        }
    }
}

impl StoreMetrics {
    pub(super) fn ended<T>(
        &self,
        operation: Operation,
        outcome: &Result<T, RepoError>,
        took: Duration,
    ) {
        let outcome = match outcome {
            Ok(_) => "ok",
            Err(RepoError::ObjectMissing { .. }) => "missing",
            Err(RepoError::StoreFull { .. }) => "full",
            Err(RepoError::StoreRefused { .. }) => "refused",
            Err(_) => "failed",
        };
        let labels = [operation.label(), outcome];
        self.requests.with_label_values(&labels).inc();
        let seconds = self.seconds.with_label_values(&[operation.label()]);
        seconds.observe(took.as_secs_f64());
    }

    pub(super) fn retried(&self, operation: Operation) {
        self.retries.with_label_values(&[operation.label()]).inc();
    }

    pub(super) fn written(&self, bytes: u64) {
        self.bytes.with_label_values(&["written"]).inc_by(bytes);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.bytes.with_label_values(&["read"]).inc_by(bytes);
    }
}
