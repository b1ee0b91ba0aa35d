//! 5,000 pods on 100 nodes: what the coordinator asks the API for, call by call, and what it takes of memory. Pods that come and
//! go on one node: what its agent holds afterwards.

use holdfast_tests::cli::{Home, is_root};
use holdfast_tests::kube::Api;
use holdfast_tests::processes::{Processes, until};
use holdfast_tests::scale::{FakeAgents, Held, Node, Shapes, until_planned};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// `HOLDFAST_SCALE_PODS` asks for another number, not below that of the nodes.
const PODS: usize = 5000;
const NODES: usize = 100;
const NAMESPACES: usize = 50;
/// Volumes that a pod has to be read: a claim's, and two of its own.
const READ: usize = 3;
/// Resident memory at its peak that may not be exceeded: 300 MiB, and the 36 that the program of a development build
/// takes alone.
const MOST_KIB: u64 = (300 + 36) << 10;
/// Objects of a page, as the watches ask for them.
const PAGE: usize = 500;

/// The kinds that are watched, and by nobody else listed.
const KINDS: [&str; 6] = [
    "v1/pods",
    "v1/persistentvolumeclaims",
    "v1/persistentvolumes",
    "v1/namespaces",
    "holdfast.dev/v1alpha1/backups",
    "holdfast.dev/v1alpha1/restores",
];

/// How often each of them was asked for, by a verb.
fn asked(api: &Api, verb: &str) -> BTreeMap<&'static str, u64> {
    let calls = api.calls();
    let of = |kind: &str| calls.get(&format!("{verb} {kind}")).copied().unwrap_or(0);
    KINDS.into_iter().map(|kind| (kind, of(kind))).collect()
}

#[test]
fn five_thousand_pods_cost_one_list_and_one_watch_of_each_kind() {
    let wanted = std::env::var("HOLDFAST_SCALE_PODS").ok();
    let pods: usize = wanted.map_or(PODS, |pods| pods.parse().unwrap());
    let api = Api::new();
    let shapes = Shapes::recorded();
    for number in 0..NAMESPACES {
        let name = format!("team-{number}");
        let namespace = serde_json::json!({"metadata": {"name": name}});
        api.put("v1/namespaces", namespace);
    }
    for number in 0..pods {
        shapes.put(&api, number, NODES, NAMESPACES);
    }
    let home = Home::new();
    let kubeconfig = home.at("kubeconfig");
    api.kubeconfig(&kubeconfig);
    let settings = format!(
        "kubernetes: {{mode: 'on', kubeconfig: '{}'}}\n",
        kubeconfig.display()
    );
    let began = Instant::now();
    let mut processes = Processes::start_with(home, &[], &settings, "");
    processes.agent().kill();
    let agents = FakeAgents::subscribe(&processes.url(), NODES);
    until_planned(&agents, NODES, pods * READ);
    let planned = began.elapsed();

    // One list of each kind, in pages; then one watch.
    let once = |kind: &str| match kind {
        "v1/pods" | "v1/persistentvolumeclaims" | "v1/persistentvolumes" => {
            pods.div_ceil(PAGE) as u64
        }
        _ => 1,
    };
    let lists = |times: u64| -> BTreeMap<&str, u64> {
        KINDS
            .into_iter()
            .map(|kind| (kind, times * once(kind)))
            .collect()
    };
    let watches = |times: u64| -> BTreeMap<&str, u64> {
        KINDS.into_iter().map(|kind| (kind, times)).collect()
    };
    until("all are watched", || {
        asked(&api, "watch").values().all(|times| *times > 0)
    });
    assert_eq!(asked(&api, "list"), lists(1));
    assert_eq!(asked(&api, "watch"), watches(1));

    // A change reaches its one node, and asks for nothing.
    let ending = |number: usize| {
        let mut pod = shapes.pod(number, NODES, NAMESPACES);
        pod["metadata"]["deletionTimestamp"] = serde_json::json!("2026-11-21T03:00:00Z");
        api.put("v1/pods", pod);
    };
    ending(7);
    until_planned(&agents, NODES, (pods - 1) * READ);
    assert_eq!(asked(&api, "list"), lists(1));
    assert_eq!(asked(&api, "watch"), watches(1));

    // A server that was away is followed from where it was left: nothing is listed.
    api.set_away(true);
    until("the server was asked for while it was away", || {
        asked(&api, "watch").values().all(|times| *times > 1)
    });
    api.set_away(false);
    api.put("v1/pods", shapes.pod(7, NODES, NAMESPACES));
    until_planned(&agents, NODES, pods * READ);
    assert_eq!(asked(&api, "list"), lists(1));

    // One that has forgotten is listed once more, by each kind, and then watched: no storm.
    api.forget();
    ending(8);
    until_planned(&agents, NODES, (pods - 1) * READ);
    until("all kinds were listed again", || {
        let listed = asked(&api, "list");
        lists(2).iter().all(|(kind, times)| listed[kind] >= *times)
    });
    let watched = asked(&api, "watch");
    ending(9);
    until_planned(&agents, NODES, (pods - 2) * READ);
    assert_eq!(asked(&api, "list"), lists(2));
    for (kind, times) in asked(&api, "watch") {
        assert!(times <= watched[kind] + 1, "{kind}: {times} {watched:?}");
    }

    let held = Held::by(processes.coordinator().id());
    println!("{pods} pods, {NODES} agents, planned in {planned:?}: {held:?}");
    assert!(
        pods > PODS || held.peak_kib <= MOST_KIB,
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
