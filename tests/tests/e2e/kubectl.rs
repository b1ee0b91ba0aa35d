//! `kubectl holdfast` as kubectl calls it: the coordinator of a cluster is found and reached through the API server,
//! with TLS inside, and every verb works there; what is missing is said.

mod help;
mod runs;
mod verbs;

use holdfast_tests::cli::{Ended, Home, binary};
use holdfast_tests::fixture;
use holdfast_tests::kube::{Api, Place};
use holdfast_tests::processes::{Processes, until};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

const PODS: &str = include_str!("../../fixtures/kube/pods.json");
const CLAIMS: &str = include_str!("../../fixtures/kube/persistentvolumeclaims.json");
const VOLUMES: &str = include_str!("../../fixtures/kube/persistentvolumes.json");
const COORDINATOR: &str = "holdfast-coordinator-0";
const BACKUPS: &str = "holdfast.dev/v1alpha1/backups";
const RESTORES: &str = "holdfast.dev/v1alpha1/restores";
/// Stands where a secret would.
const WORD: &str = "planted-secret-7f3a";

/// The recorded cluster of one node, Holdfast in it behind TLS, and a user.
struct Cluster {
    api: Api,
    processes: Processes,
    uploads: PathBuf,
    plugin: PathBuf,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// An authority and a certificate by it, as the chart makes them.
fn certificates(home: &Home) {
    let run = |args: &[&str]| {
        let done = Command::new("openssl")
            .args(args)
            .output()
            .expect("openssl starts");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    let at = |name: &str| home.at(name).display().to_string();
    let new = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let mut authority = vec!["req", "-x509", "-subj", "/CN=authority", "-days", "3650"];
    let (ca, ca_key) = (at("ca.crt"), at("ca.key"));
    authority.extend(new);
    authority.extend([
        "-keyout",
        &ca_key,
        "-out",
        &ca,
        "-addext",
        "keyUsage=critical,keyCertSign",
    ]);
    run(&authority);
    let (request, key, names, certificate) =
        (at("c.csr"), at("tls.key"), at("names"), at("tls.crt"));
    let mut asked = vec![
        "req",
        "-new",
        "-subj",
        "/CN=coordinator",
        "-keyout",
        &key,
        "-out",
        &request,
    ];
    asked.extend(new);
    run(&asked);
    let alternative = "subjectAltName=DNS:holdfast-coordinator.holdfast.svc,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n";
    fs::write(home.at("names"), alternative).expect("a file");
    run(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "3650",
        "-extfile",
        &names,
        "-out",
        &certificate,
    ]);
}

fn ready() -> Value {
    json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "restartCount": 0, "state": {"running": {}}}],
    })
}

fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/part-of": "holdfast", "app.kubernetes.io/component": component,
        "app.kubernetes.io/instance": "holdfast",
    })
}

/// What the chart has made, as far as it is looked at; a secret word wherever one can be.
fn installed(api: &Api, home: &Home, image: &str) {
    let authority = fs::read_to_string(home.at("ca.crt")).expect("a file");
    let planted = json!({
        "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"x\":\"{WORD}\"}}"),
        "holdfast.dev/tls": "required", "vault.example/token": WORD,
    });
    let pod = |component: &str, name: &str, ports: Value| {
        json!({
            "kind": "Pod",
            "metadata": {
                "namespace": "holdfast", "name": name, "labels": labels(component), "annotations": planted,
                "ownerReferences": [{"kind": "StatefulSet", "name": "holdfast-coordinator"}],
            },
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "holdfast-coordinator",
                "containers": [{
                    "name": component, "image": image, "ports": ports, "args": [format!("--password={WORD}")],
                    "env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": WORD}],
                }],
                "volumes": [
                    {"name": "encryption", "secret": {"secretName": "holdfast-encryption"}},
                    {"name": "helpers", "configMap": {"name": "holdfast-helpers"}},
                ],
            },
            "status": ready(),
        })
    };
    let ports =
        json!([{"name": "grpc", "containerPort": 7270}, {"name": "http", "containerPort": 7271}]);
    api.put("v1/pods", pod("coordinator", COORDINATOR, ports));
    api.put(
        "v1/pods",
        pod(
            "agent",
            "holdfast-agent-x",
            json!([{"name": "http", "containerPort": 7272}]),
        ),
    );
    api.put("v1/configmaps", json!({
        "kind": "ConfigMap",
        "metadata": {"namespace": "holdfast", "name": "holdfast-coordinator-trust", "labels": labels("trust")},
        "data": {"server-name": "holdfast-coordinator.holdfast.svc", "ca.crt": authority},
    }));
    api.put("v1/configmaps", json!({
        "kind": "ConfigMap",
        "metadata": {"namespace": "holdfast", "name": "holdfast-coordinator", "labels": labels("coordinator")},
        "data": {
            "coordinator.yaml": format!("repository: {{url: 's3://key:{WORD}@bucket/p'}}\npassword: {WORD}\n"),
            "other": WORD,
        },
    }));
    api.put("v1/configmaps", json!({
        "kind": "ConfigMap",
        "metadata": {"namespace": "holdfast", "name": "holdfast-helpers", "labels": labels("coordinator")},
        "data": {"helpers.yaml": "mount: {most: 4}\nrestore: {most: 4}\n"},
    }));
    api.put(
        "v1/secrets",
        json!({
            "kind": "Secret", "metadata": {"namespace": "holdfast", "name": "holdfast-encryption"},
            "data": {"passphrase": WORD}, "stringData": {"passphrase": WORD},
        }),
    );
    api.put(
        "v1/events",
        json!({
            "kind": "Event", "metadata": {"namespace": "holdfast", "name": "e"},
            "message": format!("cannot reach https://user:{WORD}@store/x?token={WORD}"),
        }),
    );
    api.put("apps/v1/daemonsets", json!({
        "kind": "DaemonSet",
        "metadata": {"namespace": "holdfast", "name": "holdfast-agent", "labels": labels("agent"), "annotations": planted},
        "spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}},
        "status": {"desiredNumberScheduled": 1, "numberReady": 1},
    }));
    api.put(
        "v1/nodes",
        json!({"metadata": {"name": "node-1", "labels": {"kubernetes.io/os": "linux"}}}),
    );
    let line = format!(
        "{{\"volume\":\"shop/uploads\",\"url\":\"s3://key:{WORD}@b\",\"token\":\"{WORD}\"}}\n"
    );
    api.print_log("holdfast", COORDINATOR, "coordinator", &line);
    api.print_log("holdfast", COORDINATOR, "coordinator", "of nothing\n");
    api.print_log(
        "holdfast",
        "holdfast-agent-x",
        "agent",
        "{\"volume\":\"shop/uploads\",\"said\":\"by the agent\"}\n",
    );
}

fn cluster() -> Cluster {
    let home = Home::new();
    let (pods, roots) = (home.at("kubelet/pods"), home.at("local-path"));
    let uploads = roots.join("pvc-uploads");
    fs::create_dir_all(&uploads).unwrap();
    // Its kubelet has a directory of each pod; the volumes that are read lie elsewhere.
    let recorded: Value = serde_json::from_str(PODS).unwrap();
    for pod in recorded["items"].as_array().unwrap() {
        fs::create_dir_all(pods.join(pod["metadata"]["uid"].as_str().unwrap())).unwrap();
    }
    fixture::contents(&uploads);
    certificates(&home);
    let api = Api::new();
    api.put_list("v1/pods", PODS);
    api.put_list("v1/persistentvolumeclaims", CLAIMS);
    api.put_list("v1/persistentvolumes", VOLUMES);
    let name = "pvc-7c0c2d1e-hostpath";
    let mut volume = api.get("v1/persistentvolumes", "", name).unwrap();
    volume["spec"]["hostPath"]["path"] = json!(uploads);
    api.put("v1/persistentvolumes", volume);
    api.put("v1/namespaces", json!({"metadata": {"name": "shop"}}));
    installed(&api, &home, "holdfast:0.1.0");
    api.kubeconfig(&home.at("kubeconfig"));
    api.kubeconfig_as(&home.at("kubeconfig-user"), "user");
    let plugin = home.at("kubectl-holdfast");
    std::os::unix::fs::symlink(binary("holdfast"), &plugin).unwrap();
    let coordinator = format!(
        "kubernetes: {{mode: 'on', kubeconfig: '{}'}}\n",
        home.at("kubeconfig").display()
    );
    let agent = format!(
        ", kubelet_pods: '{}', host_roots: ['{}'], discover_every: 1s",
        pods.display(),
        roots.display()
    );
    let mut processes = Processes::start_with(home, &[], &coordinator, &agent);
    processes.agent().kill();
    processes.coordinator().kill();
    // The same behind TLS, on ports that are known.
    let (grpc, http) = (free_port(), free_port());
    let at = |name: &str| processes.home.at(name).display().to_string();
    let socket = processes.url();
    let rewrite = |file: &str, changes: &[(String, String)]| {
        let file = processes.home.at(file);
        let mut text = fs::read_to_string(&file).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from.as_str()), "{from}: {text}");
            text = text.replacen(from.as_str(), to, 1);
        }
        fs::write(file, text).unwrap();
    };
    let tls = format!(
        "listen: '127.0.0.1:{grpc}', tls_cert: '{}', tls_key: '{}'",
        at("tls.crt"),
        at("tls.key")
    );
    rewrite(
        "coordinator.yaml",
        &[
            (format!("listen: '{socket}'"), tls),
            (
                "http: {listen: '127.0.0.1:0'}".to_owned(),
                format!("http: {{listen: '127.0.0.1:{http}'}}"),
            ),
        ],
    );
    rewrite(
        "agent.yaml",
        &[
            (
                format!("url: '{socket}'"),
                format!(
                    "url: 'https://127.0.0.1:{grpc}', tls_ca: '{}'",
                    at("ca.crt")
                ),
            ),
            (
                "http:".to_owned(),
                "agent: {node: node-1}\nhttp:".to_owned(),
            ),
        ],
    );
    let place = |port: u16| Place::Tcp(([127, 0, 0, 1], port).into());
    api.serve_port("holdfast", COORDINATOR, 7270, place(grpc));
    api.serve_port("holdfast", COORDINATOR, 7271, place(http));
    processes.start_coordinator();
    processes.start_agent();
    let cluster = Cluster {
        api,
        processes,
        uploads,
        plugin,
    };
    until("shop/uploads is served", || {
        let listed = cluster
            .run("kubeconfig", &["volumes", "-n", "shop", "-o", "json"])
            .text();
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        let mut volumes = listed.as_array().into_iter().flatten();
        volumes.any(|one| one["name"] == "shop/uploads" && one["eligible"] == true)
    });
    cluster
}

impl Cluster {
    fn command(&self, program: &Path, kubeconfig: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        self.processes.home.environment(&mut command);
        for name in ["HOLDFAST_REPO", "HOLDFAST_STATE_DIR", "HOLDFAST_KEY_FILE"] {
            command.env_remove(name);
        }
        // Of a list, files that are not there are left out.
        let list = format!(
            "/nowhere/config:{}",
            self.processes.home.at(kubeconfig).display()
        );
        command
            .env("KUBECONFIG", list)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .args(args);
        command
    }

    /// `kubectl holdfast …` as a user.
    fn run(&self, kubeconfig: &str, args: &[&str]) -> Ended {
        let mut command = self.command(&self.plugin, kubeconfig, args);
        command.output().expect("it starts").into()
    }

    /// The same; it must end with `code`.
    fn ends(&self, code: i32, args: &[&str]) -> Ended {
        let ended = self.run("kubeconfig-user", args);
        assert_eq!(
            ended.code,
            code,
            "{args:?}\n{}\n{}",
            ended.text(),
            ended.stderr
        );
        ended
    }

    fn ok(&self, args: &[&str]) -> Ended {
        self.ends(0, args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let ended = self.run("kubeconfig-user", args);
        serde_json::from_str(&ended.text()).unwrap_or_else(|_| panic!("{args:?}: {ended:?}"))
    }

    /// What is shown in a terminal of 80 columns, without escape sequences.
    fn shown(&self, args: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/terminal.py");
        let output = self.processes.home.at("shown");
        let mut command = self.command(Path::new("python3"), "kubeconfig-user", &[]);
        command
            .arg(script)
            .arg("80")
            .arg(&output)
            .arg("--")
            .arg(&self.plugin)
            .args(args);
        command.env("TERM", "xterm-256color");
        command.output().expect("python3 starts");
        let shown = fs::read_to_string(output).unwrap_or_default();
        let mut parts = shown.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let end = part
                .find(|c: char| c.is_ascii_alphabetic())
                .map_or(part.len(), |at| at + 1);
            text + &part[end..]
        })
    }

    /// Makes a volume's first snapshot, through the coordinator.
    fn back_up(&self) {
        let url = fs::read_to_string(self.processes.home.at("agent.yaml")).unwrap();
        let url = url.split('\'').nth(1).unwrap().to_owned();
        let ca = self.processes.home.at("ca.crt").display().to_string();
        let args = [
            "backup",
            "shop/uploads",
            "--wait",
            "-q",
            "--coordinator",
            &url,
            "--ca-file",
            &ca,
        ];
        let ended: Ended = self
            .command(&binary("holdfast"), "kubeconfig", &args)
            .output()
            .unwrap()
            .into();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }

    /// The one object of a kind that is there, once it is.
    fn made(&self, kind: &str, namespace: &str, after: &[String]) -> (String, Value) {
        let mut found = None;
        until(&format!("a new one of {kind} is there"), || {
            let names = self.api.names(kind, namespace);
            found = names.into_iter().find(|name| !after.contains(name));
            found.is_some()
        });
        let name = found.unwrap();
        let object = self.api.get(kind, namespace, &name).unwrap();
        (name, object)
    }
}

fn assert_fits(what: &str, shown: &str) {
    for line in shown.lines().filter(|line| !line.contains("/tmp/")) {
        let width = line.trim_end().chars().count();
        assert!(width <= 80, "{what}: {width} columns: {line:?}");
    }
}
