//! A real Prometheus scrapes a coordinator and an agent: what was promised is there, is the same after a restart, has its
//! row in the document; the alerts are evaluated, and every query of the dashboard is run.

use crate::cluster::{Cluster, cluster};
use holdfast_tests::processes::until;
use holdfast_tests::prometheus::{Prometheus, http_get, http_port, is_installed};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const CLUSTER_POLICIES: &str = "holdfast.dev/v1alpha1/clusterbackuppolicies";
/// Panels that this cluster has nothing for.
const EMPTY: [&str; 8] = [
    "Not protected",
    "Nodes without agent",
    "Certificate ends in",
    "Age of the oldest unprotected change",
    "Bytes that are in no snapshot",
    "Age against the bound",
    "How runs looked at their volumes",
    "Duration",
];

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn scraped(cluster: &mut Cluster) -> (String, String) {
    let coordinator = http_port(cluster.processes.coordinator().id());
    let agent = http_port(cluster.processes.agent().id());
    (
        http_get(coordinator, "/metrics"),
        http_get(agent, "/metrics"),
    )
}

/// Lines of these families, without those that count or tell of this moment.
fn of_the_past(text: &str) -> BTreeSet<String> {
    const PAST: [&str; 10] = [
        "holdfast_last_success_timestamp_seconds",
        "holdfast_last_snapshot_problems",
        "holdfast_schedule_expected_interval_seconds",
        "holdfast_volume_unprotected",
        "holdfast_volumes_by_phase",
        "holdfast_policies",
        "holdfast_snapshots",
        "holdfast_volumes",
        "holdfast_repository_size_bytes",
        "holdfast_node_agent_connected",
    ];
    let is_past = |line: &&str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        PAST.contains(&name)
    };
    text.lines().filter(is_past).map(str::to_owned).collect()
}

/// The dashboard's queries with their panels.
fn queries() -> Vec<(String, String)> {
    let text = fs::read_to_string(tree("deploy/dashboards/holdfast.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap_or_default().to_owned();
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            targets.into_iter().map(move |target| {
                let query = target["expr"].as_str().unwrap().replace("$namespace", ".*");
                (title.clone(), query)
            })
        })
        .collect()
}

#[test]
fn prometheus_sees_what_happens_and_the_past_outlives_a_restart() {
    if !is_installed() {
        eprintln!("prometheus is not installed: not tried");
        return;
    }
    let mut cluster = cluster();
    cluster
        .api
        .put("v1/namespaces", json!({"metadata": {"name": "shop"}}));
    // Once a day, at the hour that is furthest away: what was missed is caught up, no other run falls due.
    #[allow(
        clippy::disallowed_methods,
        reason = "the coordinator goes by the machine's clock"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let hour = (now.as_secs() / 3600 + 12) % 24;
    let spec = json!({"schedule": {"cron": format!("30 {hour} * * *")}});
    let mut policy = crate::cluster::policy("nightly", spec);
    policy["metadata"]["namespace"] = Value::Null;
    policy["kind"] = json!("ClusterBackupPolicy");
    cluster.api.put(CLUSTER_POLICIES, policy);
    let rules = tree("deploy/alerts/holdfast.yaml");
    let prometheus = Prometheus::start(&cluster.processes.home.at("prometheus"), &rules);
    let follow = |cluster: &mut Cluster| {
        let coordinator = http_port(cluster.processes.coordinator().id());
        let agent = http_port(cluster.processes.agent().id());
        prometheus.set_targets(&[(coordinator, ""), (agent, "node-1")]);
    };
    follow(&mut cluster);
    prometheus.until("sum(up)", 2.0);

    // One volume is backed up, the other one's mount is missing: both are seen.
    let uploads = "{namespace=\"shop\",persistentvolumeclaim=\"uploads\"}";
    let orders = "{namespace=\"shop\",persistentvolumeclaim=\"orders\"}";
    prometheus.until(&format!("holdfast_backup_success_total{uploads}"), 1.0);
    prometheus.until(
        &format!("time() - holdfast_last_success_timestamp_seconds{uploads} < bool 120"),
        1.0,
    );
    prometheus.until(
        &format!("holdfast_schedule_expected_interval_seconds{uploads}"),
        86_400.0,
    );
    prometheus.until(
        &format!("holdfast_consecutive_failures{orders} >= bool 1"),
        1.0,
    );
    prometheus.until("holdfast_volumes_by_phase{phase=\"Failing\"}", 1.0);
    prometheus.until("holdfast_volumes_by_phase{phase=\"Protected\"}", 2.0);
    prometheus.until("holdfast_volumes_by_phase{phase=\"Pending\"}", 0.0);
    prometheus.until(
        "holdfast_policies{phase=\"Active\",kind=\"ClusterBackupPolicy\"}",
        1.0,
    );
    prometheus.until("holdfast_node_agent_connected{node=\"node-1\"}", 1.0);
    prometheus.until("count(holdfast_build_info)", 2.0);
    prometheus.until("holdfast_api_up", 1.0);
    prometheus.until("holdfast_storage_location_up", 1.0);
    prometheus.until(
        "sum(holdfast_api_requests_total{verb=\"watch\",resource=\"pods\"})",
        1.0,
    );
    cluster.processes.restore("shop/uploads@latest", "restored");
    prometheus.until("holdfast_agent_connected{node=\"node-1\"}", 1.0);

    // The rules are evaluated without an error.
    until("the rules were evaluated", || {
        let answer = prometheus.get("/api/v1/rules");
        let groups = answer["data"]["groups"].as_array().cloned();
        let rules: Vec<Value> = groups
            .into_iter()
            .flatten()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        assert!(
            rules.iter().all(|rule| rule["health"] != "err"),
            "{rules:?}"
        );
        rules.len() > 20 && rules.iter().all(|rule| rule["health"] == "ok")
    });

    // Every query of the dashboard is understood, and has something to show.
    let mut nothing = queries();
    assert!(nothing.len() > 20);
    nothing.retain(|(panel, query)| {
        prometheus.query(query).is_empty() && !EMPTY.contains(&&panel[..])
    });
    assert!(nothing.is_empty(), "these show nothing: {nothing:#?}");

    // What is scraped has its row in the document, by name and type.
    let (coordinator, agent) = scraped(&mut cluster);
    let document = fs::read_to_string(tree("deploy/METRICS.md")).unwrap();
    let lines = coordinator.lines().chain(agent.lines());
    let rows = lines.filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some(format!("| `{name}` | {kind} |"))
    });
    let missing: Vec<String> = rows.filter(|row| !document.contains(row)).collect();
    assert!(missing.is_empty(), "{missing:#?}");

    // A restart of both changes nothing of what is told of the past; what fails goes on being counted from there.
    let failed = format!("holdfast_consecutive_failures{orders}");
    let failures = prometheus.query(&failed)[0].1;
    let before = of_the_past(&coordinator);
    assert!(before.len() >= 12, "{before:?}");
    cluster.processes.coordinator().kill();
    cluster.processes.agent().kill();
    cluster.processes.start_coordinator();
    cluster.processes.start_agent();
    follow(&mut cluster);
    cluster.until("shop/uploads", "eligible");
    let mut last = BTreeSet::new();
    let deadline = std::time::Instant::now() + holdfast_tests::processes::PATIENCE;
    while last != before {
        assert!(
            std::time::Instant::now() < deadline,
            "lost: {:#?}\nnew: {:#?}",
            before.difference(&last),
            last.difference(&before)
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
        last = of_the_past(&scraped(&mut cluster).0);
    }
    prometheus.until("sum(up)", 2.0);
    prometheus.until(&format!("{failed} >= bool {failures}"), 1.0);

    // A node that loses its agent is on its way to an alert.
    cluster.processes.agent().kill();
    prometheus.until("holdfast_node_agent_connected{node=\"node-1\"}", 0.0);
    prometheus.until(
        "ALERTS{alertname=\"HoldfastAgentMissing\",alertstate=\"pending\",node=\"node-1\"}",
        1.0,
    );
}
