//! A coordinator over a store in a temporary directory, and an agent played by hand over an in-process
//! channel: what it sends is exactly what the test says.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

use holdfast_coordinator::catalog::{CATALOG_FILE, Catalog};
use holdfast_coordinator::repo::rebuild::rebuild;
use holdfast_coordinator::repo::{CreateOptions, Repository, Store, StoreOptions};
use holdfast_coordinator::{Coordinator, CoordinatorSettings, transport};
use holdfast_format::id::{CatalogId, RepositoryId};
use holdfast_format::keys::Kek;
use holdfast_proto::v1 as proto;
use holdfast_runtime::clock::SystemClock;
use hyper_util::rt::TokioIo;
use proto::admin_client::AdminClient;
use proto::backup_client::BackupClient;
use proto::restore_client::RestoreClient;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

mod agent;
mod reading;

pub use agent::*;
pub use reading::*;

/// The key of every test repository.
pub const KEK: [u8; 32] = [7; 32];

/// A running coordinator.
pub struct Bench {
    pub coordinator: Arc<Coordinator>,
    pub channel: Channel,
    pub dir: tempfile::TempDir,
}

impl Bench {
    /// A new repository in a new directory.
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// The same with other settings.
    pub async fn with(change: impl FnOnce(&mut CoordinatorSettings)) -> Self {
        holdfast_runtime::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(&url(dir.path()), &StoreOptions::default()).unwrap();
        let options = CreateOptions {
            id: RepositoryId::from_bytes([1; 16]),
            created_ns: 1,
            profile: None,
            inline_limit: None,
        };
        let repository = Repository::create(store, Kek::from_bytes(KEK), &options);
        let repository = repository.await.unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir_all(&state).unwrap();
        let id = CatalogId::from_bytes([2; 16]);
        let catalog = Catalog::create(&state, &repository.id(), id).await.unwrap();
        catalog.close().await.unwrap();
        let coordinator = open_with(dir.path(), change).await;
        let channel = connect(&coordinator).await;
        Self {
            coordinator,
            channel,
            dir,
        }
    }

    /// The repository of this directory, opened again.
    pub async fn over(dir: tempfile::TempDir) -> Self {
        let coordinator = open(dir.path()).await;
        let channel = connect(&coordinator).await;
        Self {
            coordinator,
            channel,
            dir,
        }
    }

    /// Stops, and starts again over the same directory.
    pub async fn restart(self) -> Self {
        self.coordinator.shutdown().await.unwrap();
        Self::over(self.dir).await
    }

    pub fn backup(&self) -> BackupClient<Channel> {
        BackupClient::new(self.channel.clone())
    }

    pub fn restore(&self) -> RestoreClient<Channel> {
        RestoreClient::new(self.channel.clone()).max_decoding_message_size(4 << 20)
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    /// Objects of the store below a prefix, with their sizes.
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, u64> {
        let root = self.dir.path().join("store").join(prefix);
        let mut out = BTreeMap::new();
        collect(&root, prefix, &mut out);
        out
    }
}

fn collect(dir: &Path, name: &str, out: &mut BTreeMap<String, u64>) {
    let Ok(found) = std::fs::read_dir(dir) else {
        return;
    };
    for found in found {
        let found = found.unwrap();
        let name = format!("{name}/{}", found.file_name().to_str().unwrap());
        match found.file_type().unwrap().is_dir() {
            true => collect(&found.path(), &name, out),
            false => {
                out.insert(name, found.metadata().unwrap().len());
            }
        }
    }
}

fn url(dir: &Path) -> String {
    dir.join("store").to_str().unwrap().to_owned()
}

/// Opens the repository of a directory.
pub async fn open(dir: &Path) -> Arc<Coordinator> {
    open_with(dir, |_| ()).await
}

/// The same with other settings.
pub async fn open_with(
    dir: &Path,
    change: impl FnOnce(&mut CoordinatorSettings),
) -> Arc<Coordinator> {
    let repository = repository(dir).await;
    let mut settings = CoordinatorSettings::new(dir.join("state"));
    change(&mut settings);
    let clock = Arc::new(SystemClock::new());
    Coordinator::open(settings, repository, clock)
        .await
        .unwrap()
}

/// The same repository after its catalog was lost and built again.
pub async fn lose_the_catalog(bench: Bench) -> Bench {
    bench.coordinator.shutdown().await.unwrap();
    let state = bench.dir.path().join("state");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(state.join(format!("{CATALOG_FILE}{suffix}")));
    }
    let repository = repository(bench.dir.path()).await;
    let id = CatalogId::from_bytes([3; 16]);
    let (catalog, found) = rebuild(&repository, &state, id, 1, &|_| {}).await.unwrap();
    assert_eq!(found.problems, []);
    catalog.close().await.unwrap();
    Bench::over(bench.dir).await
}

/// The repository of a directory, without a coordinator.
pub async fn repository(dir: &Path) -> Repository {
    let store = Store::open(&url(dir), &StoreOptions::default()).unwrap();
    Repository::open(store, Kek::from_bytes(KEK)).await.unwrap()
}

/// A channel to a coordinator of this process.
pub async fn connect(coordinator: &Arc<Coordinator>) -> Channel {
    let (client, server) = tokio::io::duplex(1 << 20);
    let routes = coordinator.routes().await;
    tokio::spawn(
        transport::server()
            .add_routes(routes)
            .serve_with_incoming(transport::pipes(tokio_stream::once(Ok(server)))),
    );
    let mut client = Some(client);
    Endpoint::from_static("http://in-process")
        .connect_with_connector(tower::service_fn(move |_| {
            let client = client.take().map(TokioIo::new);
            async move { client.ok_or_else(|| std::io::Error::other("already connected")) }
        }))
        .await
        .unwrap()
}

/// Bytes that neither repeat nor compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// The reason in a status.
pub fn reason(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}
