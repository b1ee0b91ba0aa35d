//! 5,000 pods on 100 nodes: what the coordinator asks the API for, call by call, and what it takes of memory. Pods that come and
//! go on one node: what its agent holds afterwards.

use holdfast_tests::cli::{Home, is_root};
use holdfast_tests::kube::Api;
use holdfast_tests::processes::{Processes, until};
use holdfast_tests::scale::{FakeAgents, Held, Node, Shapes, until_planned};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

const PODS: usize = 5000;
const NODES: usize = 100;
const NAMESPACES: usize = 50;
/// Volumes that a pod has to be read: a claim's, and two of its own.
const READ: usize = 3;
/// Objects of a page, as the watches ask for them.
const PAGE: usize = 500;

fn lists(api: &Api) -> BTreeMap<String, u64> {
    let mut calls = api.calls();
    calls.retain(|call, _| call.starts_with("list v1/") || call.starts_with("watch v1/"));
    calls
}

#[test]
fn five_thousand_pods_cost_one_list_and_one_watch_of_each_kind() {
    let api = Api::new();
    let shapes = Shapes::recorded();
    for number in 0..PODS {
        shapes.put(&api, number, NODES, NAMESPACES);
    }
    let home = Home::new();
    let kubeconfig = home.at("kubeconfig");
    api.kubeconfig(&kubeconfig);
    let settings = format!(
        "kubernetes: {{mode: 'on', kubeconfig: '{}'}}\n",
        kubeconfig.display()
    );
    let mut processes = Processes::start_with(home, &[], &settings, "");
    processes.agent().kill();
    let agents = FakeAgents::subscribe(&processes.url(), NODES);
    until_planned(&agents, NODES, PODS * READ);

    // Pages of each kind; then a watch of each.
    let pages = (PODS / PAGE) as u64;
    let kinds = [
        ("v1/pods", pages),
        ("v1/persistentvolumeclaims", pages),
        ("v1/persistentvolumes", pages),
        ("v1/namespaces", 1),
    ];
    until("all are watched", || {
        let calls = api.calls();
        kinds
            .iter()
            .all(|(kind, _)| calls.contains_key(&format!("watch {kind}")))
    });
    let first = lists(&api);
    for (kind, pages) in kinds {
        assert_eq!(first[&format!("list {kind}")], pages, "{first:?}");
        assert_eq!(first[&format!("watch {kind}")], 1, "{first:?}");
    }

    // A change reaches its one node, and asks for nothing.
    let mut pod = shapes.pod(7, NODES, NAMESPACES);
    pod["metadata"]["deletionTimestamp"] = serde_json::json!("2026-11-21T03:00:00Z");
    api.put("v1/pods", pod);
    until_planned(&agents, NODES, (PODS - 1) * READ);
    assert_eq!(lists(&api), first);

    // A server that was away is followed from where it was left: nothing is listed.
    let listed = |calls: &BTreeMap<String, u64>| {
        let mut calls = calls.clone();
        calls.retain(|call, _| call.starts_with("list "));
        calls
    };
    api.set_away(true);
    let refused = api.calls()["watch v1/pods"];
    until("the server was asked for while it was away", || {
        api.calls()["watch v1/pods"] > refused
    });
    api.set_away(false);
    api.put("v1/pods", shapes.pod(7, NODES, NAMESPACES));
    until_planned(&agents, NODES, PODS * READ);
    assert_eq!(listed(&lists(&api)), listed(&first));

    // One that has forgotten is listed once more, by each kind: no storm.
    api.forget();
    let mut pod = shapes.pod(8, NODES, NAMESPACES);
    pod["metadata"]["deletionTimestamp"] = serde_json::json!("2026-11-21T03:00:00Z");
    api.put("v1/pods", pod);
    until_planned(&agents, NODES, (PODS - 1) * READ);
    until("all kinds were listed again", || {
        let calls = api.calls();
        kinds
            .iter()
            .all(|(kind, pages)| calls[&format!("list {kind}")] >= 2 * pages)
    });
    std::thread::sleep(Duration::from_secs(2));
    let again = listed(&lists(&api));
    for (kind, pages) in kinds {
        assert_eq!(again[&format!("list {kind}")], 2 * pages, "{again:?}");
    }

    let held = Held::by(processes.coordinator().id());
    println!("{PODS} pods, {NODES} agents: {held:?}");
    assert!(
        held.peak_kib <= 300 << 10,
        "the coordinator took {} MiB",
        held.peak_kib >> 10
    );
}

#[test]
fn pods_that_come_and_go_leave_nothing_with_the_agent() {
    if !is_root("pods that come and go") {
        return;
    }
    let home = Home::new();
    let pods = home.at("kubelet/pods");
    let mut node = Node::new(pods.clone());
    let words = format!(", kubelet_pods: '{}'", pods.display());
    let mut processes = Processes::start_with(home, &[], "", &words);
    let pid = processes.agent().id();
    let listed = |processes: &Processes| processes.run(["volumes", "-o", "json"]).text();
    let is_listed = |processes: &Processes, number: usize| {
        let volumes: serde_json::Value =
            serde_json::from_str(&listed(processes)).unwrap_or_default();
        let mut volumes = volumes.as_array().into_iter().flatten();
        volumes.any(|volume| {
            let name = volume["name"].as_str().unwrap_or_default();
            name.contains(&Node::volume(number)) && volume["eligible"] == true
        })
    };
    let name_of = |processes: &Processes, number: usize| {
        let volumes: serde_json::Value = serde_json::from_str(&listed(processes)).unwrap();
        let volumes = volumes.as_array().unwrap().iter();
        let mut names = volumes.filter_map(|volume| volume["name"].as_str());
        let name = names.find(|name| name.contains(&Node::volume(number)));
        name.unwrap().to_owned()
    };
    let mut next = 0;
    let mut round = |processes: &Processes, node: &mut Node, backed_up: usize, only_seen: usize| {
        let numbers: Vec<usize> = (next..next + backed_up + only_seen).collect();
        next += numbers.len();
        numbers.iter().for_each(|number| node.begin(*number));
        let last = *numbers.last().unwrap();
        until("the volumes are seen", || is_listed(processes, last));
        for number in &numbers[..backed_up] {
            let name = name_of(processes, *number);
            processes.ok(["backup", &name, "--wait", "-q"]);
        }
        numbers.iter().for_each(|number| node.end(*number));
        until("nothing is listed", || {
            !listed(processes).contains("\"eligible\": true")
        });
    };
    // What is made once is made by the first.
    round(&processes, &mut node, 3, 20);
    let settled = |before: Option<Held>| {
        let mut held = Held::by(pid);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while let Some(before) = before
            && (held.marks > before.marks || held.descriptors > before.descriptors)
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(100));
            held = Held::by(pid);
        }
        held
    };
    std::thread::sleep(Duration::from_secs(2));
    let before = settled(None);
    for _ in 0..3 {
        round(&processes, &mut node, 3, 60);
    }
    let after = settled(Some(before));
    println!("before: {before:?}\nafter: {after:?}");
    assert!(after.marks <= before.marks, "{before:?} {after:?}");
    assert!(
        after.descriptors <= before.descriptors,
        "{before:?} {after:?}"
    );
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(grown <= 32 << 10, "{grown} KiB more: {before:?} {after:?}");
    assert!(fs::read_dir(pods).unwrap().next().is_none());
}
