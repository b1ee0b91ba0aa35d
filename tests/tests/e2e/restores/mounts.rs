//! Claims that no pod uses are backed up through a pod of ours, where a policy says so; and that goes, whatever happens.

use super::kubelet::{CLAIMS, PODS, bound, user};
use super::{Cluster, cluster};
use crate::cluster::{POLICIES, PROTECTIONS, policy};
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::until;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

impl Cluster {
    /// A claim with files that no pod uses.
    fn unused(&self) -> PathBuf {
        let path = self.roots.join("pv-idle");
        fs::create_dir_all(&path).unwrap();
        fixture::contents(&path);
        let claim = json!({
            "metadata": {"name": "idle", "namespace": "shop"},
            "spec": {"accessModes": ["ReadWriteOnce"]},
        });
        bound(&self.api, claim, "pv-idle", &path.display().to_string());
        path
    }

    fn unmounted_claims(&self, word: &str) {
        let spec = json!({"exposure": {"maxAge": "1h"}, "unmountedClaims": word});
        self.api.put(POLICIES, policy("all", spec));
    }

    fn protection(&self) -> Value {
        let object = self.api.get(PROTECTIONS, "shop", "idle");
        object
            .map(|object| object["status"].clone())
            .unwrap_or_default()
    }

    fn helpers(&self) -> Vec<Value> {
        let mut pods = self.api.all(PODS);
        pods.retain(|pod| !pod["metadata"]["labels"]["holdfast.dev/helper"].is_null());
        pods
    }

    fn until_says(&self, reason: &str) {
        until(&format!("it says {reason}"), || {
            self.protection()["reason"] == reason
        });
    }

    fn until_backed_up(&self) {
        until("it is backed up", || {
            let said = self.protection();
            said["snapshots"].as_i64() >= Some(1) && said["phase"] == "Protected"
        });
    }
}

#[test]
fn a_claim_that_no_pod_uses_is_backed_up_if_its_policy_says_so_and_the_pod_goes() {
    let cluster = cluster();
    let files = cluster.unused();
    cluster.unmounted_claims("Skip");
    cluster.until_says("NotMounted");
    let message = cluster.protection()["message"].clone();
    let message = message.as_str().unwrap();
    assert!(message.contains("unmountedClaims"), "{message}");

    cluster.kubelet.full.store(true, Ordering::Relaxed);
    cluster.unmounted_claims("Mount");
    until("a pod of ours waits for a node", || {
        cluster.helpers().len() == 1
    });
    let pod = cluster.helpers().remove(0);
    assert_eq!(pod["metadata"]["namespace"], "shop");
    assert_eq!(pod["metadata"]["labels"]["holdfast.dev/helper"], "mount");
    let owner = &pod["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "VolumeProtection");
    assert_eq!(owner["name"], "idle");
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["readOnly"], true);
    let volume = &pod["spec"]["volumes"][0]["persistentVolumeClaim"];
    assert_eq!(volume["claimName"], "idle");

    cluster.kubelet.full.store(false, Ordering::Relaxed);
    cluster.until_backed_up();
    cluster.assert_clean();
    assert_same(
        &files,
        &cluster.processes.restore("shop/idle@latest", "restored"),
    );
    assert_eq!(cluster.protection()["reason"], "SnapshotExists");

    // A claim without a volume is not bound by a backup.
    let claim = json!({
        "metadata": {"name": "waits", "namespace": "shop"},
        "spec": {"accessModes": ["ReadWriteOnce"]},
    });
    cluster.api.put(CLAIMS, claim);
    until("there is nothing to back up", || {
        let object = cluster.api.get(PROTECTIONS, "shop", "waits");
        object.is_some_and(|object| object["status"]["reason"] == "ClaimNotBound")
    });
    let claim = cluster.api.get(CLAIMS, "shop", "waits").unwrap();
    assert!(claim["spec"]["volumeName"].is_null(), "{claim}");
}

#[test]
fn whoever_wants_the_claim_has_it_at_once_and_is_backed_up() {
    let cluster = cluster();
    let files = cluster.unused();
    cluster.kubelet.full.store(true, Ordering::Relaxed);
    cluster.unmounted_claims("Mount");
    until("a pod of ours is there", || cluster.helpers().len() == 1);
    cluster.api.put(PODS, user("shop", "app-0", "app", "idle"));
    cluster.assert_clean();
    cluster.until_backed_up();
    assert_same(
        &files,
        &cluster.processes.restore("shop/idle@latest", "restored"),
    );
    assert!(cluster.helpers().is_empty());
}

#[test]
fn a_coordinator_that_is_killed_leaves_no_pod_behind_and_one_without_the_right_says_so() {
    let mut cluster = cluster();
    cluster.unused();
    cluster.kubelet.full.store(true, Ordering::Relaxed);
    cluster.unmounted_claims("Mount");
    until("a pod of ours is there", || cluster.helpers().len() == 1);
    cluster.processes.coordinator().kill();
    cluster.unmounted_claims("Skip");
    cluster.processes.start_coordinator();
    cluster.assert_clean();
    cluster.until_says("NotMounted");

    cluster.api.set_forbidden(PODS, true);
    cluster.unmounted_claims("Mount");
    cluster.until_says("MountPodsNotAllowed");
    cluster.api.set_forbidden(PODS, false);
    assert!(cluster.helpers().is_empty());
}
