//! `holdfast up`: one command serves a host; others ask it through its socket; it stops in time.

use holdfast_tests::cli::{Ended, Home};
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::{Process, until};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

fn up(home: &Home, volume: &str, socket: &Path) -> Process {
    let mut command = home.command(["up", "--volume", volume]);
    command.arg("--socket").arg(socket);
    let process = Process::start(&mut command, home.at("up.log"));
    until("it serves", || process.log().contains("serving on unix:"));
    process
}

/// `holdfast --coordinator unix:SOCKET …`
fn ask<A: AsRef<OsStr>>(home: &Home, socket: &Path, args: &[A]) -> Ended {
    let mut command = home.command(args);
    command
        .env_remove("HOLDFAST_REPO")
        .env("HOLDFAST_COORDINATOR", format!("unix:{}", socket.display()));
    command.output().expect("holdfast starts").into()
}

fn well(ended: Ended) -> String {
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.text()
}

#[test]
fn a_host_is_served_and_asked_through_a_socket() {
    let home = Home::new();
    let source = home.at("web");
    fixture::contents(&source);
    let socket = home.at("run/holdfast.sock");
    let mut serving = up(&home, &format!("web={}", source.display()), &socket);
    let mode = fs::symlink_metadata(&socket).expect("a socket");
    assert!(mode.file_type().is_socket());
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    until("the volume is served", || {
        well(ask(&home, &socket, &["volumes", "-o", "json"])).contains("\"eligible\": true")
    });
    let made = well(ask(
        &home,
        &socket,
        &["backup", "web", "--wait", "-o", "name"],
    ));
    let listed = well(ask(&home, &socket, &["snapshots", "-o", "name"]));
    assert_eq!(made, listed);
    let target = home.at("restored");
    let text = target.display().to_string();
    well(ask(
        &home,
        &socket,
        &["restore", "web@latest", "--special", "--target", &text],
    ));
    assert_same(&source, &target);
    let path = ask(&home, &socket, &["backup", "/srv/web"]);
    assert_eq!(path.code, 2, "a path is no volume: {path:?}");
    let unknown = ask(&home, &socket, &["backup", "nobody"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("nobody"), "{}", unknown.stderr);

    // Every format of what is printed.
    for verb in ["jobs", "status", "volumes", "snapshots"] {
        let json = well(ask(&home, &socket, &[verb, "-o", "json"]));
        assert!(json.starts_with(['{', '[']), "{verb}: {json}");
        let yaml = well(ask(&home, &socket, &[verb, "-o", "yaml"]));
        assert!(yaml.contains(": ") && !yaml.contains('{'), "{verb}: {yaml}");
        let name = well(ask(&home, &socket, &[verb, "-o", "name"]));
        assert_eq!(name.split_whitespace().count(), 1, "{verb}: {name}");
    }
    let job = well(ask(&home, &socket, &["jobs", "-o", "name"]));
    let watched = well(ask(
        &home,
        &socket,
        &["jobs", "--watch", job.trim(), "-o", "json"],
    ));
    assert!(watched.contains("\"state\": \"done\""), "{watched}");
    let again = well(ask(&home, &socket, &["backup", "web", "-o", "json"]));
    assert!(again.contains("\"volume\": \"web\""), "{again}");

    // It owns the repository: others may read.
    let refused = home.run([OsStr::new("backup"), source.as_os_str()]);
    assert_eq!(refused.code, 11, "{refused:?}");
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    home.ok(["snapshots"]);
    let second = home
        .command(["up", "--socket"])
        .arg(&socket)
        .output()
        .expect("it starts");
    assert_eq!(second.status.code(), Some(1), "{second:?}");

    serving.signal("TERM");
    let (code, took) = serving.wait();
    assert_eq!(code, 0, "{}", serving.log());
    assert!(took < Duration::from_secs(10), "the end took {took:?}");
    assert!(!socket.exists(), "the socket is left behind");
    let gone = ask(&home, &socket, &["snapshots"]);
    assert_eq!(gone.code, 1);
    assert!(
        gone.stderr.contains("cannot reach the coordinator"),
        "{}",
        gone.stderr
    );
    // The claim was given back.
    home.ok([OsStr::new("backup"), source.as_os_str(), "-q".as_ref()]);
}

#[test]
fn a_stop_ends_what_runs_in_time() {
    let home = Home::new();
    let source = home.at("web");
    fs::create_dir(&source).expect("a directory");
    // Seconds of work: many small files, and some that do not compress.
    for n in 0..4 {
        fs::write(
            source.join(format!("large-{n}")),
            fixture::noise(n, 96 << 20),
        )
        .expect("a file");
    }
    let socket = home.at("holdfast.sock");
    let mut serving = up(&home, &format!("web={}", source.display()), &socket);
    until("the volume is served", || {
        well(ask(&home, &socket, &["volumes", "-o", "json"])).contains("\"eligible\": true")
    });
    let mut command = home.command(["backup", "web", "--wait"]);
    command
        .env_remove("HOLDFAST_REPO")
        .env("HOLDFAST_COORDINATOR", format!("unix:{}", socket.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let waiting = command.spawn().expect("holdfast starts");
    until("the backup runs", || {
        let jobs = well(ask(&home, &socket, &["jobs", "-o", "json"]));
        !jobs.contains("\"state\": \"queued\"") && jobs.contains("\"state\"")
    });
    serving.signal("TERM");
    let (_, took) = serving.wait();
    // It takes 9 s at most to give up on jobs; the rest is for a disk that others are busy on.
    assert!(
        took < Duration::from_secs(60),
        "the end took {took:?}: {}",
        serving.log()
    );
    assert!(!serving.log().contains("panicked"), "{}", serving.log());
    let mut waiting = waiting;
    let _ = waiting.kill();
    let _ = waiting.wait();
    let left = home.ok(["snapshots", "-o", "name"]).text().lines().count();
    assert!(left <= 1);
    home.ok([OsStr::new("backup"), source.as_os_str(), "-q".as_ref()]);
    assert_same(&source, &home.restore("web@latest", "restored"));
}

#[test]
fn volumes_are_backed_up_by_themselves() {
    let home = Home::new();
    let source = home.at("web");
    fixture::contents(&source);
    let socket = home.at("run/holdfast.sock");
    let volume = format!("web={}", source.display());
    let too_often = home.run(["up", "--volume", &volume, "--continuous", "1s"]);
    assert_eq!(too_often.code, 2, "{too_often:?}");

    let mut command = home.command(["up", "--volume", &volume, "--continuous", "5s"]);
    command.arg("--socket").arg(&socket);
    let mut serving = Process::start(&mut command, home.at("up.log"));
    until("it serves", || serving.log().contains("serving on unix:"));
    let count = || {
        let listed = well(ask(&home, &socket, &["snapshots", "-o", "name"]));
        listed.lines().count()
    };
    until("it has made a first snapshot", || count() > 0);
    fs::write(source.join("new"), "of a moment ago").expect("a file");
    until("the new file is in a snapshot", || {
        ask(&home, &socket, &["cat", "web@latest:/new"]).text() == "of a moment ago"
    });
    let table = well(ask(&home, &socket, &["volumes"]));
    let mut lines = table.lines();
    let heading = lines.next().expect("a heading");
    assert!(heading.contains("JOURNAL  EXPOSED"), "{table}");
    assert!(lines.all(|line| line.chars().count() <= 80), "{table}");
    let json = well(ask(&home, &socket, &["volumes", "-o", "json"]));
    for part in [
        "\"journal\": \"",
        "\"exposed_seconds\": ",
        "\"exposed_at_most\": ",
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
    serving.signal("TERM");
    let (code, _) = serving.wait();
    assert_eq!(code, 0, "{}", serving.log());
}
