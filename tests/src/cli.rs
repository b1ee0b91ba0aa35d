//! `holdfast` as a subprocess, with a repository, key and state of its own in a temporary directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory with everything that a user of holdfast has.
pub struct Home {
    dir: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; -1: killed by a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Ended {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Path of one of our binaries, built beside this test.
///
/// # Panics
/// Where it was not built: `make test` builds it first.
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("this test has a path");
    let path = exe
        .ancestors()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    path.unwrap_or_else(|| {
        panic!("{name} is not built: run `cargo build --workspace --bins` first")
    })
}

impl Home {
    /// A new one.
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A path in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The repository's directory.
    pub fn repo(&self) -> PathBuf {
        self.at("repo")
    }

    /// A command with this home's environment.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(binary("holdfast"));
        self.environment(&mut command);
        command.args(args);
        command
    }

    /// Gives any command this home's environment.
    pub fn environment(&self, command: &mut Command) {
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("HOLDFAST_")) {
            command.env_remove(key);
        }
        command
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.at("state"))
            .env("XDG_CONFIG_HOME", self.at("config"))
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("HOLDFAST_REPO", self.repo())
            .env("HOLDFAST_STATE_DIR", self.at("state"))
            .env("HOLDFAST_KEY_FILE", self.at("repo.key"))
            .stdin(Stdio::null());
    }

    /// Runs a command to its end, whatever that is.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        self.command(args).output().expect("holdfast starts").into()
    }

    /// Runs a command that must end with 0.
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        self.ends(0, args)
    }

    /// Runs a command that must end with `code`.
    pub fn ends<A: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = A>) -> Ended {
        let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let ended = self.run(&args);
        assert_eq!(
            ended.code,
            code,
            "holdfast {args:?}\n--- stdout\n{}\n--- stderr\n{}",
            ended.text(),
            ended.stderr
        );
        ended
    }

    /// Backs a directory up under a name.
    pub fn backup(&self, dir: &Path, name: &str) -> Ended {
        self.ok([
            OsStr::new("backup"),
            dir.as_os_str(),
            "--name".as_ref(),
            name.as_ref(),
            "-q".as_ref(),
        ])
    }

    /// Restores into a new directory of this home, whose path it returns.
    pub fn restore(&self, snapshot: &str, into: &str) -> PathBuf {
        let target = self.at(into);
        self.ok([
            OsStr::new("restore"),
            snapshot.as_ref(),
            "--special".as_ref(),
            "-q".as_ref(),
            "--target".as_ref(),
            target.as_os_str(),
        ]);
        target
    }

    /// Names and sizes of all objects in the repository, sorted.
    pub fn objects(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        list(&self.repo(), &self.repo(), &mut found);
        found.sort();
        found
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

fn list(root: &Path, dir: &Path, found: &mut Vec<(String, u64)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            list(root, &entry.path(), found);
        } else if let Ok(name) = entry.path().strip_prefix(root) {
            found.push((name.to_string_lossy().into_owned(), meta.len()));
        }
    }
}

/// Whether this test may mount and make devices; says why it is skipped where it may not.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped, it needs root");
    }
    root
}
