//! The contract of a store, on every kind a user would have: a directory, S3 by two servers, Azure.

use holdfast_coordinator::repo::{Store, StoreOptions};
use holdfast_tests::server::Server;
use holdfast_tests::store_contract::store_contract;

/// rclone and moto take any credentials; Azurite has well-known ones.
fn credentials() -> Vec<(String, String)> {
    const AZURITE: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
        ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn options(endpoint: Option<String>) -> StoreOptions {
    StoreOptions {
        variables: credentials(),
        endpoint,
        region: Some("us-east-1".into()),
        path_style: Some(true),
        ..StoreOptions::default()
    }
}

#[tokio::test]
async fn a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open_or_create(
        &dir.path().join("store").to_string_lossy(),
        &StoreOptions::default(),
    );
    store_contract(&store.expect("a store")).await;
}

#[tokio::test]
async fn memory() {
    store_contract(&Store::open("memory:", &StoreOptions::default()).expect("a store")).await;
}

/// S3 by rclone, over a directory.
#[tokio::test]
async fn s3_by_rclone() {
    let Some(server) = Server::rclone() else {
        return;
    };
    let store =
        Store::open("s3://bucket/some/prefix", &options(Some(server.url()))).expect("a store");
    store_contract(&store).await;
}

/// S3 by moto.
#[tokio::test]
async fn s3_by_moto() {
    let Some(server) = Server::moto() else { return };
    let store = Store::open("s3://bucket/prefix", &options(Some(server.url()))).expect("a store");
    store_contract(&store).await;
}

/// Azure by Azurite.
#[tokio::test]
async fn azure_by_azurite() {
    let Some(server) = Server::azurite() else {
        return;
    };
    let store =
        Store::open("az://container/prefix", &options(Some(server.url()))).expect("a store");
    store_contract(&store).await;
}
