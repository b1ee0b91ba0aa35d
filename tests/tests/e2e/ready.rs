//! An agent that would find nothing is not ready and says why, until it would; it restricts itself, and says so.

use holdfast_tests::cli::{Home, binary, is_root};
use holdfast_tests::processes::{Process, Processes, until, without_variables};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

/// A port that nobody has, and that the kernel gives to nobody who only wants any.
fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    let mut ports = (0..1000).map(|n| 20_000 + (first + 7 * n) % 12_000);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(is_free).expect("a free port")
}

/// An agent that serves a kubelet's pods directory, and where it answers.
fn node(home: Home, pods: &Path) -> (Processes, u16) {
    let volumes = format!(", kubelet_pods: '{}', discover_every: 1s", pods.display());
    let mut processes = Processes::start_with(home, &["web"], "", &volumes);
    let port = free_port();
    let file = processes.home.at("agent.yaml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(
        file,
        settings.replace("127.0.0.1:0", &format!("127.0.0.1:{port}")),
    )
    .unwrap();
    processes.agent().kill();
    (processes, port)
}

fn get(port: u16, path: &str) -> String {
    let mut reply = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut reply);
    }
    reply
}

fn is_ready(port: u16) -> bool {
    get(port, "/readyz").starts_with("HTTP/1.1 200")
}

#[test]
fn a_kubelets_directory_that_is_not_there_is_told_until_it_is() {
    let home = Home::new();
    let pods = home.at("kubelet/pods");
    let (mut processes, port) = node(home, &pods);
    processes.start_agent();
    until("it says what is missing", || {
        get(port, "/readyz").contains("KubeletDirectoryMissing")
    });
    let said = get(port, "/readyz");
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(said.contains(&pods.display().to_string()), "{said}");
    assert!(said.contains("agent.kubeletRoot"), "{said}");
    assert!(
        get(port, "/metrics")
            .contains("holdfast_agent_troubles{reason=\"KubeletDirectoryMissing\"} 1")
    );
    // The coordinator knows too, and volumes that have nothing to do with it are served.
    let agents = || -> Value {
        let status = processes.run(["status", "-o", "json"]).text();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        status["agent_infos"][0].clone()
    };
    until("the coordinator knows", || {
        agents()["troubles"][0]["reason"] == "KubeletDirectoryMissing"
    });
    let doctor = processes.run(["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(
        doctor.text().contains("KubeletDirectoryMissing"),
        "{doctor:?}"
    );
    processes.ok(["backup", "web", "--wait", "-q"]);

    fs::create_dir_all(&pods).unwrap();
    until("it is ready", || is_ready(port));
    until("the coordinator knows", || {
        agents()["troubles"] == serde_json::json!([])
    });
    let agent = agents();
    assert!(
        agent["clock_ahead_seconds"].as_f64().unwrap().abs() < 30.0,
        "{agent}"
    );
    assert!(
        agent["limits"]["fs.inotify.max_user_watches"].is_u64(),
        "{agent}"
    );
    assert_eq!(agent["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_mount_without_propagation_is_told() {
    if !is_root("a_mount_without_propagation_is_told") {
        return;
    }
    for (kind, ready) in [("private", false), ("slave", true)] {
        let home = Home::new();
        let pods = home.at("pods");
        fs::create_dir(&pods).unwrap();
        let (mut processes, port) = node(home, &pods);
        // As a container runtime does it: the directory shared on the host, bound into a namespace of its own.
        let script = "mount --bind \"$0\" \"$0\" && mount --make-shared \"$0\" && exec unshare --mount --propagation \
                      unchanged sh -c 'mount --bind \"$0\" \"$0\" && mount --make-\"$1\" \"$0\" && shift && exec \"$@\"' \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        without_variables(&mut command);
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(&pods)
            .arg(kind)
            .arg(binary("holdfast-agent"))
            .arg("--config")
            .arg(processes.home.at("agent.yaml"));
        processes.agent = Some(Process::start(&mut command, processes.home.at("agent.log")));
        match ready {
            true => until("it is ready", || is_ready(port)),
            false => {
                until("it says what is missing", || {
                    get(port, "/readyz").contains("MountPropagationMissing")
                });
                let said = get(port, "/readyz");
                assert!(said.contains("mountPropagation: HostToContainer"), "{said}");
            }
        }
    }
}

#[test]
fn an_agent_restricts_itself_and_still_does_its_work() {
    let mut processes = Processes::start(&["web"]);
    let log = processes.agent().log();
    if log.contains("this kernel does not have Landlock") {
        eprintln!("this kernel has no Landlock: not tried");
        return;
    }
    assert!(log.contains("restricted by Landlock"), "{log}");
    fs::write(processes.home.at("web/a"), "a").unwrap();
    processes.ok(["backup", "web", "--wait", "-q"]);
    let restored = processes.restore("web@latest", "restored");
    assert_eq!(fs::read_to_string(restored.join("a")).unwrap(), "a");
    // Required and impossible: it does not start.
    let file = processes.home.at("agent.yaml");
    let settings = fs::read_to_string(&file).unwrap();
    let at = settings.find("restore: ").unwrap();
    let end = at + settings[at..].find('\n').unwrap();
    let without = format!(
        "{}{}\nagent: {{landlock: required}}\n",
        &settings[..at],
        &settings[end + 1..]
    );
    fs::write(&file, without).unwrap();
    processes.agent().kill();
    processes.start_agent();
    assert_eq!(processes.agent().wait().0, 1);
    assert!(
        processes
            .agent()
            .log()
            .contains("agent.landlock is required, but restores may write everywhere")
    );
}
