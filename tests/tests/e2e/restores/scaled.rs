//! Restores that scale the same owner down do so one after the other, and it has its replicas again at the end.

use super::kubelet::{PODS, SETS, bound};
use super::{cluster, in_place};
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::until;
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::Ordering;

/// Two restores into two volumes of one pod: the second waits, since the first to end would start the pod while the
/// other still writes, and since an owner that is at 0 meanwhile does not say how many replicas it had.
#[test]
fn two_restores_that_scale_one_owner_come_one_after_the_other() {
    let cluster = cluster();
    let logs = cluster.roots.join("pv-logs");
    fixture::contents(&logs);
    let claim = json!({
        "metadata": {"name": "logs", "namespace": "shop"},
        "spec": {"accessModes": ["ReadWriteOnce"]},
    });
    bound(&cluster.api, claim, "pv-logs", &logs.display().to_string());
    let mut set = cluster.api.get(SETS, "shop", "db").unwrap();
    set["spec"]["more"] = json!("logs");
    cluster.api.put(SETS, set);
    cluster.api.delete(PODS, "shop", "db-0");
    until("both volumes are served", || {
        let listed = cluster.processes.run(["volumes", "-o", "json"]).text();
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        let volumes = listed.as_array().into_iter().flatten();
        volumes
            .filter(|volume| volume["eligible"] == true)
            .filter(|volume| volume["name"] == "shop/logs" || volume["name"] == "shop/orders")
            .count()
            == 2
    });
    fs::write(logs.join("extra"), "is to go").unwrap();

    // The first one waits in the middle of its work.
    cluster.kubelet.idle.store(true, Ordering::Relaxed);
    let spec = |claim: &str| {
        in_place(json!({
            "target": {"existingClaim": {"name": claim}},
            "scaleDown": true, "safetySnapshot": false,
        }))
    };
    cluster.restore("shop", "first", spec("orders"));
    until("the first one waits for its pod", || {
        cluster.status("shop", "first")["phase"] == "Restoring"
    });
    assert_eq!(cluster.replicas(), 0);
    cluster.restore("shop", "second", spec("logs"));
    // By the time that this one has ended, which came later, the second has been looked at.
    let nothing = json!({
        "source": {"claim": {"name": "none"}},
        "target": {"newClaim": {"name": "x", "size": "1Gi", "accessModes": ["ReadWriteOnce"]}},
    });
    cluster.restore("other", "third", nothing);
    let third = cluster.ends("other", "third");
    assert_eq!(third["phase"], "Failed", "{third}");
    let second = cluster.status("shop", "second");
    assert!(second["claim"].is_null(), "{second}");

    cluster.kubelet.idle.store(false, Ordering::Relaxed);
    for name in ["first", "second"] {
        let status = cluster.ends("shop", name);
        assert_eq!(status["phase"], "Completed", "{status}");
        let scaled = &status["scaled"][0];
        assert_eq!(scaled["name"], "db", "{status}");
        assert_eq!(scaled["replicas"], 1, "{status}");
    }
    cluster.assert_clean();
    assert_same(&cluster.orders, &logs);
}
