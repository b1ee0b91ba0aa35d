//! Part K, Kubernetes by its size: what many pods, nodes and agents cost the coordinator; what an agent costs while
//! nothing happens, and while pods come and go; how soon a volume is seen and let go.

use crate::rows::Plan;
use holdfast_tests::cli::Home;
use holdfast_tests::kube::Api;
use holdfast_tests::processes::{Processes, until};
use holdfast_tests::scale::{FakeAgents, Held, Node, Shapes, until_planned};
use std::fmt::Write;
use std::io;
use std::time::{Duration, Instant};

const PODS: usize = 5000;
const NODES: usize = 100;
const NAMESPACES: usize = 50;
/// Volumes that one pod has to be read.
const READ: usize = 3;
/// Pods of a full node.
const FULL: usize = 110;
/// How long an idle agent is watched, and pods come and go.
const MINUTES: u64 = 3;
const EACH_MINUTE: usize = 500;

/// The part's text, if it is this one.
pub fn part(plan: &Plan, part: &str) -> Option<io::Result<String>> {
    (part == "K").then(|| {
        let mut out = String::from("| what | figure |\n|---|---|\n");
        cluster(&mut out, plan);
        node(&mut out, plan);
        Ok(out)
    })
}

fn row(out: &mut String, what: &str, figure: &str) {
    eprintln!("{what}: {figure}");
    let _ = writeln!(out, "| {what} | {figure} |");
}

fn cluster(out: &mut String, plan: &Plan) {
    let (pods, nodes) = (plan.sized(PODS), plan.sized(NODES));
    let api = Api::new();
    let shapes = Shapes::recorded();
    for number in 0..NAMESPACES {
        let name = format!("team-{number}");
        api.put(
            "v1/namespaces",
            serde_json::json!({"metadata": {"name": name}}),
        );
    }
    for number in 0..pods {
        shapes.put(&api, number, nodes, NAMESPACES);
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
    let began = Instant::now();
    let agents = FakeAgents::subscribe(&processes.url(), nodes);
    until_planned(&agents, nodes, pods * READ);
    let planned = began.elapsed();
    let pid = processes.coordinator().id();
    let first = Held::by(pid);
    let said = "patch holdfast.dev/v1alpha1/volumeprotections";
    let deadline = Instant::now() + Duration::from_secs(600);
    while api.calls().get(said).copied().unwrap_or(0) < 2 * pods as u64 {
        assert!(Instant::now() < deadline, "not every claim was told of");
        std::thread::sleep(Duration::from_millis(500));
    }
    let told = began.elapsed();
    let held = Held::by(pid);
    let name = format!("{pods} pods on {nodes} nodes, {nodes} agents");
    row(
        out,
        &format!("{name}: peak memory of the coordinator"),
        &format!("{:.0} MiB (target: 300)", held.peak_kib as f64 / 1024.0),
    );
    row(
        out,
        &format!("{name}: until every agent has its plan"),
        &format!(
            "{:.1} s, {:.1} s of CPU",
            planned.as_secs_f64(),
            first.cpu_ticks as f64 / 100.0
        ),
    );
    row(
        out,
        &format!("{name}: until every claim's VolumeProtection is written (at most 100 a second)"),
        &format!(
            "{:.0} s, {:.1} s of CPU",
            told.as_secs_f64(),
            held.cpu_ticks as f64 / 100.0
        ),
    );
    let calls: Vec<String> = api
        .calls()
        .iter()
        .map(|(call, count)| format!("{call} {count}"))
        .collect();
    row(out, "all calls of the API until then", &calls.join(", "));
    let before = Held::by(pid).cpu_ticks;
    std::thread::sleep(Duration::from_secs(60));
    let spent = Held::by(pid).cpu_ticks - before;
    row(
        out,
        &format!("{name}: CPU of the idle coordinator"),
        &format!("{:.2} % of a core", spent as f64 / 60.0),
    );
}

fn node(out: &mut String, plan: &Plan) {
    let home = Home::new();
    let pods = home.at("kubelet/pods");
    let mut node = Node::new(pods.clone());
    let words = format!(", kubelet_pods: '{}'", pods.display());
    let mut processes = Processes::start_with(home, &[], "", &words);
    let pid = processes.agent().id();
    let listed = |processes: &Processes| processes.run(["volumes", "-o", "json"]).text();
    let is_seen = |processes: &Processes, number: usize| {
        let volumes: serde_json::Value =
            serde_json::from_str(&listed(processes)).unwrap_or_default();
        let mut volumes = volumes.as_array().into_iter().flatten();
        volumes.any(|volume| {
            let name = volume["name"].as_str().unwrap_or_default();
            name.contains(&Node::volume(number)) && volume["eligible"] == true
        })
    };
    let full = plan.sized(FULL);
    for number in 0..full {
        node.begin(number);
    }
    until("the node is full", || is_seen(&processes, full - 1));
    std::thread::sleep(Duration::from_secs(10));
    let minutes = if plan.size < 1.0 { 1 } else { MINUTES };
    let watched = Duration::from_secs(60 * minutes);
    let before = Held::by(pid);
    std::thread::sleep(watched);
    let spent = Held::by(pid).cpu_ticks - before.cpu_ticks;
    let percent = spent as f64 / watched.as_secs_f64();
    row(
        out,
        &format!("agent with {full} pods, idle for {minutes} min"),
        &format!(
            "{percent:.2} % of a core (target: 1), {} MiB resident",
            before.resident_kib / 1024
        ),
    );

    let (mut seen, mut gone) = (Duration::ZERO, Duration::ZERO);
    for number in full..full + 10 {
        let began = Instant::now();
        node.begin(number);
        until("it is seen", || is_seen(&processes, number));
        seen = seen.max(began.elapsed());
        let began = Instant::now();
        node.end(number);
        until("it is let go", || !is_seen(&processes, number));
        gone = gone.max(began.elapsed());
    }
    row(
        out,
        "longest of ten: a volume's mount until the coordinator lists it",
        &format!("{:.2} s (target: 5)", seen.as_secs_f64()),
    );
    row(
        out,
        "longest of ten: its end until it is let go",
        &format!("{:.2} s (target: 2)", gone.as_secs_f64()),
    );

    let before = Held::by(pid);
    let began = Instant::now();
    let mut number = full + 10;
    let rest = |count: usize| Duration::from_secs_f64(60.0 / EACH_MINUTE as f64 * count as f64);
    let first = number;
    while began.elapsed() < watched {
        node.begin(number);
        if number >= first + 20 {
            node.end(number - 20);
        }
        number += 1;
        std::thread::sleep(rest(number - first).saturating_sub(began.elapsed()));
    }
    let rate = (number - first) as f64 / began.elapsed().as_secs_f64() * 60.0;
    let during = Held::by(pid);
    for left in number.saturating_sub(20).max(first)..number {
        node.end(left);
    }
    until("they are let go", || !is_seen(&processes, number - 1));
    std::thread::sleep(Duration::from_secs(5));
    let after = Held::by(pid);
    row(
        out,
        &format!("agent while {rate:.0} pods a minute come and go, beside {full}"),
        &format!(
            "{:.1} % of a core",
            (during.cpu_ticks - before.cpu_ticks) as f64 / began.elapsed().as_secs_f64()
        ),
    );
    row(
        out,
        "and what it holds before and afterwards",
        &format!(
            "descriptors {} and {}, marks and watches {} and {}, resident {} and {} MiB",
            before.descriptors,
            after.descriptors,
            before.marks,
            after.marks,
            before.resident_kib / 1024,
            after.resident_kib / 1024
        ),
    );
}
