//! What a person sees: bars and colours on a terminal only and never wider than it; plain lines
//! elsewhere; Ctrl-C ends a run soon and leaves nothing half-done.

use holdfast_tests::cli::{Ended, Home};
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::{Process, until};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A name that is not short.
const LONG: &str = "production-shop/database-volume-with-a-name-0";
const ESCAPE: char = '\x1b';
/// An interrupted run ends within 2 s; the rest is for a machine that does other things too.
const SOON: Duration = Duration::from_secs(6);

/// Runs a command in a terminal of 80 columns; standard output of the result is what was shown.
fn in_terminal(home: &Home, interrupt_at: Option<&str>, args: &[&str]) -> Ended {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/terminal.py");
    let mut command = Command::new("python3");
    command.arg(script).arg("80").arg(home.at("shown"));
    if let Some(text) = interrupt_at {
        command.args(["--interrupt-at", text]);
    }
    command
        .arg("--")
        .arg(holdfast_tests::cli::binary("holdfast"))
        .args(args);
    home.environment(&mut command);
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    let mut ended = Ended::from(command.output().expect("python3 starts"));
    ended.stdout = fs::read(home.at("shown")).unwrap_or_default();
    ended
}

/// The lines that were on the screen at any time, without escape sequences.
fn lines(shown: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = shown.chars();
    while let Some(c) = rest.next() {
        if c == ESCAPE {
            // `ESC [ … letter`
            rest.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain.split(['\r', '\n']).map(str::to_owned).collect()
}

fn assert_fits(what: &str, shown: &str) {
    // Paths and the names of volumes are as long as they are.
    let free = |line: &&String| {
        !line.contains("/tmp/") && !line.contains(LONG) && !line.starts_with("SNAPSHOT ")
    };
    for line in lines(shown).iter().filter(free) {
        let width = line.chars().count();
        assert!(width <= 80, "{what}: {width} columns: {line:?}");
    }
}

/// A volume of a few megabytes.
fn volume(home: &Home) -> (String, &'static str) {
    let source = home.at("source");
    fixture::contents(&source);
    fs::write(source.join("large"), fixture::noise(5, 6 << 20)).expect("a file");
    (source.display().to_string(), LONG)
}

#[test]
fn bars_and_colours_are_on_a_terminal_only() {
    let home = Home::new();
    let (source, name) = volume(&home);
    let backup = ["backup", &source, "--name", name, "--read-rate", "4M"];
    let shown = in_terminal(&home, None, &backup);
    assert_eq!(shown.code, 0, "{}", shown.text());
    assert!(shown.text().contains(ESCAPE), "no bar on a terminal");
    assert!(shown.text().contains("backup of …"), "{}", shown.text());
    assert_fits("a first backup", &shown.text());
    // The second one knows how much there is.
    fs::write(home.at("source/large"), fixture::noise(6, 6 << 20)).expect("a file");
    let shown = in_terminal(&home, None, &backup);
    assert!(shown.text().contains("eta"), "{}", shown.text());
    assert_fits("a second backup", &shown.text());
    let target = home.at("restored").display().to_string();
    let shown = in_terminal(&home, None, &["restore", "latest", "--target", &target]);
    assert_eq!(shown.code, 0, "{}", shown.text());
    assert_fits("a restore", &shown.text());

    let shown = in_terminal(&home, None, &["snapshots"]).text();
    assert!(
        shown.contains(LONG),
        "a name is never cut in a table: {shown}"
    );
}

#[test]
fn tables_fit_a_terminal_and_are_plain_in_a_pipe() {
    let home = Home::new();
    let (source, _) = volume(&home);
    home.backup(Path::new(&source), "web");
    fixture::append(&home.at("source/text"), b"more");
    home.backup(Path::new(&source), "web");
    let id = home.ok(["snapshots", "-o", "name"]).text();
    let ids: Vec<&str> = id.lines().collect();
    let tables: [&[&str]; 7] = [
        &["snapshots"],
        &["volumes"],
        &["ls", "latest"],
        &["ls", "-R", "latest"],
        &["find", "text"],
        &["diff", ids[0], ids[1]],
        &["status"],
    ];
    for args in tables {
        let shown = in_terminal(&home, None, args);
        assert_eq!(shown.code, 0, "{args:?}: {}", shown.text());
        assert_fits(&format!("{args:?}"), &shown.text());
        let piped = home.ok(args.iter());
        assert!(
            !piped.text().contains(ESCAPE),
            "{args:?}: escapes in a pipe"
        );
        assert!(
            !piped.stderr.contains(ESCAPE),
            "{args:?}: escapes in a pipe"
        );
    }
    assert!(
        in_terminal(&home, None, &["snapshots"])
            .text()
            .contains("\x1b[1m")
    );
    for args in [
        vec!["--help"],
        vec!["backup", "--help"],
        vec!["restore", "--help"],
    ] {
        assert_fits(
            &format!("{args:?}"),
            &in_terminal(&home, None, &args).text(),
        );
    }
}

#[test]
fn without_a_terminal_a_long_run_says_plain_lines() {
    let home = Home::new();
    let (source, name) = volume(&home);
    let ended = home.ok(["backup", &source, "--name", name, "--read-rate", "800K"]);
    let said: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|l| l.starts_with(&format!("backup of {LONG}: ")))
        .collect();
    assert!(
        !said.is_empty(),
        "no line in more than ten seconds: {}",
        ended.stderr
    );
    assert!(
        said.iter()
            .all(|line| line.contains("files") && line.contains("/s")),
        "{said:?}"
    );
    assert!(!ended.stderr.contains(ESCAPE) && !ended.text().contains(ESCAPE));
    let quiet = home.ok(["backup", &source, "--name", name, "-q"]);
    assert!(
        quiet.stderr.is_empty() && quiet.stdout.is_empty(),
        "{quiet:?}"
    );
}

fn snapshots(home: &Home) -> usize {
    home.ok(["snapshots", "-o", "name"]).text().lines().count()
}

#[test]
fn an_interrupted_backup_leaves_nothing_half_done() {
    let home = Home::new();
    let (source, name) = volume(&home);
    home.backup(Path::new(&source), name);
    for round in 0..2 {
        fs::write(home.at("source/large"), fixture::noise(20 + round, 6 << 20)).expect("a file");
        let slow = [
            "backup",
            &source,
            "--name",
            name,
            "-q",
            "--read-rate",
            "200K",
        ];
        let mut run = Process::start(&mut home.command(slow), home.at("log"));
        let spool = home.at("state");
        until("it reads", || {
            assert_eq!(run.ended(), None, "{}", run.log());
            reads(run.id(), &spool.with_file_name("source"))
        });
        run.signal("INT");
        let (code, took) = run.wait();
        assert_eq!(code, 130, "{}", run.log());
        assert!(took < SOON, "the end took {took:?}");
        assert!(!run.log().contains("panicked"), "{}", run.log());
        assert_eq!(snapshots(&home), 1);
    }
    home.backup(Path::new(&source), name);
    assert_same(Path::new(&source), &home.restore("latest", "restored"));
    // Ctrl-C typed at a terminal is the same, and the bar is taken away.
    fs::write(home.at("source/large"), fixture::noise(40, 6 << 20)).expect("a file");
    let slow = ["backup", &source, "--name", name, "--read-rate", "200K"];
    let shown = in_terminal(&home, Some("files"), &slow);
    assert_eq!(shown.code, 130, "{}", shown.text());
    // The terminal itself shows the key.
    assert_fits("an interrupted backup", &shown.text().replace("^C", ""));
    assert_eq!(snapshots(&home), 2);
}

/// Whether a process has a file below this directory open.
fn reads(pid: u32, below: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|path| path.starts_with(below) && path != below)
}

#[test]
fn an_interrupted_restore_can_be_run_again() {
    let home = Home::new();
    let (source, name) = volume(&home);
    home.backup(Path::new(&source), name);
    let target = home.at("target");
    let target_text = target.display().to_string();
    let args = ["restore", "latest", "-q", "--target", &target_text];
    // Every write of data takes its time.
    let mut command = Command::new("strace");
    command
        .args([
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=pwrite64,pwritev,write",
        ])
        .args(["-e", "inject=pwrite64,pwritev:delay_enter=300000"])
        .arg(holdfast_tests::cli::binary("holdfast"))
        .args(args);
    home.environment(&mut command);
    let mut run = Process::start(&mut command, home.at("log"));
    until("it writes", || {
        if run.ended().is_some() {
            return true;
        }
        reads(run.id(), &target)
    });
    run.signal("INT");
    let (code, took) = run.wait();
    assert_eq!(code, 130, "{}", run.log());
    assert!(took < SOON, "the end took {took:?}");
    home.ok(args);
    assert_same(Path::new(&source), &target);
}
