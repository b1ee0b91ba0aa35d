//! A real Prometheus, where Debian's is installed: it scrapes processes of a test, evaluates the rules of the tree, and
//! answers queries.

use crate::processes::{PATIENCE, Process, until};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The server; killed when dropped.
pub struct Prometheus {
    process: Process,
    targets: PathBuf,
    port: u16,
}

/// Whether there is one.
pub fn is_installed() -> bool {
    let found = Command::new("prometheus")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

impl Prometheus {
    /// Scrapes every half second what `set_targets` names, and evaluates these rules as often.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(dir: &Path, rules: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let (config, targets) = (dir.join("prometheus.yaml"), dir.join("targets.json"));
        fs::write(&targets, "[]").expect("a file");
        let text = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - job_name: holdfast\n  honor_labels: true\n  file_sd_configs: [{{files: ['{}'], refresh_interval: 1s}}]\n",
            rules.display(),
            targets.display(),
        );
        fs::write(&config, text).expect("a file");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0");
        let process = Process::start(&mut command, dir.join("prometheus.log"));
        until("prometheus listens", || {
            !listening(process.id()).is_empty()
                || !Path::new(&format!("/proc/{}", process.id())).exists()
        });
        let port = *listening(process.id()).first().expect("it listens");
        // It answers nothing else before.
        until("prometheus is ready", || {
            http_get(port, "/-/ready").contains("Ready")
        });
        Self {
            process,
            targets,
            port,
        }
    }

    /// Names what is scraped: the processes' ports, each with labels that its service discovery would give it.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn set_targets(&self, targets: &[(u16, &str)]) {
        let targets: Vec<Value> = targets
            .iter()
            .map(|(port, node)| {
                serde_json::json!({"targets": [format!("127.0.0.1:{port}")], "labels": {"node": node}})
            })
            .collect();
        // What is half written would be read.
        let new = self.targets.with_extension("new");
        fs::write(&new, Value::from(targets).to_string()).expect("a file");
        fs::rename(new, &self.targets).expect("a file");
    }

    /// The series that a query has now: labels and value.
    ///
    /// # Panics
    /// Where the query is not understood.
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let answer = self.get(&format!("/api/v1/query?query={}", escaped(query)));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array();
        let series = result.into_iter().flatten().map(|series| {
            let value = series["value"][1]
                .as_str()
                .and_then(|text| text.parse().ok());
            (series["metric"].clone(), value.unwrap_or(f64::NAN))
        });
        series.collect()
    }

    /// Waits until a query has exactly one series, of this value.
    ///
    /// # Panics
    /// Where it does not come to be so.
    pub fn until(&self, query: &str, value: f64) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let found = self.query(query);
            if matches!(found[..], [(_, found)] if found == value) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{query} is not {value}: {found:?}\n{}",
                self.process.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// An answer of its API.
    ///
    /// # Panics
    /// Where there is none.
    pub fn get(&self, path: &str) -> Value {
        serde_json::from_str(&http_get(self.port, path)).expect("an answer of JSON")
    }
}

/// TCP ports on which a process listens.
pub fn listening(pid: u32) -> Vec<u16> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"));
    let sockets: Vec<String> = fds
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?;
            Some(link.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut ports = Vec::new();
    for file in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..] else {
                continue;
            };
            let port = local
                .rsplit_once(':')
                .map(|(_, port)| u16::from_str_radix(port, 16));
            if let Some(Ok(port)) = port
                && sockets.iter().any(|socket| socket == inode)
            {
                ports.push(port);
            }
        }
    }
    ports
}

/// The one port of a process that serves health and metrics only, once it listens.
///
/// # Panics
/// Where it does not.
pub fn http_port(pid: u32) -> u16 {
    until("the process listens", || !listening(pid).is_empty());
    listening(pid)[0]
}

/// The body of an answer.
///
/// # Panics
/// Where there is none.
pub fn http_get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    let request = format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let answer = String::from_utf8(answer).expect("text");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
    body.to_owned()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(byte.into()),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}
