//! Where things are kept: whether the store answers, and how full the disk of the catalog is.

use crate::Coordinator;
use crate::repo::Repository;
use holdfast_runtime::metrics::Metrics;
use prometheus::{Gauge, IntGauge};
use std::time::Duration;

/// A store that takes longer is as good as away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Families of places.
pub(super) struct Place {
    store_up: IntGauge,
    state_size: Gauge,
    state_free: Gauge,
}

impl Place {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let store_up = metrics.gauge(
            "holdfast_storage_location_up",
            "1 if the store answered when it was last asked for the repository's configuration: once a minute.",
        );
        // It has just been opened.
        store_up.set(1);
        Self {
            store_up,
            state_size: metrics.float_gauge(
                "holdfast_state_size_bytes",
                "Size of the filesystem that holds the catalog.",
            ),
            state_free: metrics.float_gauge(
                "holdfast_state_free_bytes",
                "What is free of the filesystem that holds the catalog.",
            ),
        }
    }

    pub(super) async fn ask_store(&self, coordinator: &Coordinator) {
        let repository = &coordinator.library().repository;
        let found = Repository::find(repository.store());
        let answer = tokio::time::timeout(PATIENCE, found).await;
        let is_up = match answer {
            Ok(Ok(config)) => config.id == repository.id(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the store does not answer as it should");
                false
            }
            Err(_) => {
                tracing::warn!(seconds = PATIENCE.as_secs(), "the store does not answer");
                false
            }
        };
        self.store_up.set(i64::from(is_up));
    }

    pub(super) fn update(&self, coordinator: &Coordinator) {
        let Ok(core) = coordinator.core() else { return };
        if let Ok(place) = rustix::fs::statvfs(&core.settings.state_dir) {
            let bytes = |blocks: u64| blocks as f64 * place.f_frsize as f64;
            self.state_size.set(bytes(place.f_blocks));
            self.state_free.set(bytes(place.f_bavail));
        }
    }
}
