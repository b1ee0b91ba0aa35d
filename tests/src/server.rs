//! Real servers for tests, from the tools that `scripts/test-deps.sh` installed; each on a free port of
//! the loopback, stopped when dropped. `None` where the tool is not there, which is said.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that runs.
pub struct Server {
    child: Child,
    port: u16,
    path: &'static str,
    dir: tempfile::TempDir,
}

fn tool(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let path = root.join("target/test-tools").join(name);
    if !path.exists() {
        eprintln!(
            "skipped: {} is not installed; run scripts/test-deps.sh",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Server {
    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.path)
    }

    fn start(command: &mut Command, port: u16, path: &'static str, dir: tempfile::TempDir) -> Self {
        let log = fs::File::create(dir.path().join("server.log")).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let server = Self {
            child,
            port,
            path,
            dir,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                Instant::now() < deadline,
                "the server does not answer on port {port}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// How many requests it has logged.
    pub fn requests(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
        log.matches(" HTTP/1.1\"").count()
    }

    /// `rclone serve s3` over a directory with a bucket named `bucket`; any credentials do.
    pub fn rclone() -> Option<Self> {
        Self::rclone_with(&[])
    }

    /// The same, for these credentials only.
    pub fn rclone_guarded(id: &str, secret: &str) -> Option<Self> {
        Self::rclone_with(&["--auth-key", &format!("{id},{secret}")])
    }

    fn rclone_with(more: &[&str]) -> Option<Self> {
        let rclone = tool("py/bin/rclone")?;
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("data/bucket")).expect("a bucket");
        let port = free_port();
        let mut command = Command::new(rclone);
        command
            .args(["serve", "s3", "--addr"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("--config")
            .arg(dir.path().join("rclone.conf"))
            .args(more)
            .arg(dir.path().join("data"));
        Some(Self::start(&mut command, port, "", dir))
    }

    /// moto's S3 with a bucket named `bucket`.
    pub fn moto() -> Option<Self> {
        let moto = tool("py/bin/moto_server")?;
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let mut command = Command::new(moto);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = Self::start(&mut command, port, "", dir);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let request = "PUT /bucket HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        assert!(
            reply.starts_with("HTTP/1.1 200"),
            "moto makes no bucket: {reply}"
        );
        Some(server)
    }

    /// Azurite with a container named `container`.
    pub fn azurite() -> Option<Self> {
        let azurite = tool("npm/node_modules/.bin/azurite-blob")?;
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let mut command = Command::new(azurite);
        command
            .args([
                "--silent",
                "--skipApiVersionCheck",
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port.to_string(),
                "--location",
            ])
            .arg(dir.path());
        let server = Self::start(&mut command, port, "/devstoreaccount1", dir);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/azure_container.py");
        let made = Command::new("python3")
            .arg(script)
            .arg(server.url())
            .output()
            .expect("python3 starts");
        assert!(
            made.status.success(),
            "azurite makes no container: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
