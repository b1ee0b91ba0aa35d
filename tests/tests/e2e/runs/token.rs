//! A token that has expired: the coordinator goes on with the one that takes its place, without a restart.

use super::with_namespace;
use crate::cluster::Cluster;
use holdfast_tests::processes::until;
use serde_json::json;
use std::fs;
use std::path::Path;

/// What a kubeconfig's command says, which is to be asked again each time.
fn write(file: &Path, token: &str) {
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": token, "expirationTimestamp": "2020-01-01T00:00:00Z"},
    });
    // At once: it may be read at any moment.
    let new = file.with_extension("new");
    fs::write(&new, credential.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

/// Watches and writes go on by themselves once the token that the API takes is there.
#[test]
fn a_token_that_was_renewed_is_used_without_a_restart() {
    let mut cluster = with_namespace();
    let home = &cluster.processes.home;
    let (kubeconfig, credential) = (home.at("kubeconfig"), home.at("credential"));
    write(&credential, "one");
    cluster.api.kubeconfig_by(&kubeconfig, &credential);
    cluster.api.take_only("one");
    cluster.processes.coordinator().kill();
    cluster.processes.start_coordinator();
    cluster.until("shop/uploads", "eligible");
    cluster.until("shop/db-0/scratch", "eligible");
    cluster.backup("before", json!({"claim": "uploads"}));
    cluster.run_is("before", "Completed");
    let process = cluster.processes.coordinator().id();

    let refused = |cluster: &Cluster| {
        let calls = cluster.api.calls();
        calls.get("unauthorized").copied().unwrap_or(0)
    };
    let refused_before = refused(&cluster);
    cluster.api.take_only("two");
    until("it is refused again and again", || {
        refused(&cluster) >= refused_before + 10
    });
    // What happens now is not seen, and volumes are backed up all the while.
    cluster.api.delete("v1/pods", "shop", "db-0");
    cluster.backup("meanwhile", json!({"claim": "uploads"}));
    cluster
        .processes
        .ok(["backup", "shop/uploads", "--wait", "-q"]);

    write(&credential, "two");
    cluster.until("shop/db-0/scratch", "none");
    cluster.run_is("meanwhile", "Completed");
    let coordinator = cluster.processes.coordinator();
    assert_eq!((coordinator.ended(), coordinator.id()), (None, process));
}
