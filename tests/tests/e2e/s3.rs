//! A repository in S3, through the command line and the usual variables: the round trip, what reading
//! costs in requests, and what wrong credentials and a dead endpoint say.

use holdfast_tests::cli::{Ended, Home};
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::server::Server;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// `holdfast` on `s3://bucket/some/prefix` of this endpoint.
fn command<A: AsRef<OsStr>>(home: &Home, url: &str, args: &[A]) -> Command {
    let mut command = home.command(args);
    command
        .env("HOLDFAST_REPO", "s3://bucket/some/prefix")
        .env("AWS_ENDPOINT_URL", url)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1");
    command
}

fn run<A: AsRef<OsStr>>(home: &Home, url: &str, args: &[A]) -> Ended {
    command(home, url, args)
        .output()
        .expect("holdfast starts")
        .into()
}

fn ok<A: AsRef<OsStr>>(home: &Home, url: &str, args: &[A]) -> String {
    let ended = run(home, url, args);
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.text()
}

fn round_trip(server: &Server) {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source.join("contents"));
    fixture::names(&source.join("names"));
    let url = server.url();
    // A bucket is only ever made a repository by `init`.
    let early = run(&home, &url, &[OsStr::new("backup"), source.as_os_str()]);
    assert_eq!(early.code, 10, "{early:?}");
    assert!(early.stderr.contains("init"), "{}", early.stderr);
    ok(&home, &url, &["init"]);
    let backup = [
        OsStr::new("backup"),
        source.as_os_str(),
        "-o".as_ref(),
        "json".as_ref(),
    ];
    ok(&home, &url, &backup);
    let again = ok(&home, &url, &backup);
    assert!(again.contains("\"entries_changed\": 0"), "{again}");
    let status = ok(&home, &url, &["status", "-o", "json"]);
    assert!(status.contains("\"snapshots\": 2"), "{status}");
    assert!(ok(&home, &url, &["ls", "-R", "latest"]).contains("size-4097"));
    let target = home.at("restored");
    let target_text = target.display().to_string();
    ok(
        &home,
        &url,
        &["restore", "latest", "--special", "--target", &target_text],
    );
    assert_same(&source, &target);
    // Another host, with nothing but the key.
    let elsewhere = Home::new();
    fs::copy(home.at("repo.key"), elsewhere.at("repo.key")).expect("the key");
    let target = elsewhere.at("restored");
    let target_text = target.display().to_string();
    ok(
        &elsewhere,
        &url,
        &["restore", "latest", "--special", "--target", &target_text],
    );
    assert_same(&source, &target);
}

#[test]
fn a_round_trip_through_rclone() {
    let Some(server) = Server::rclone() else {
        return;
    };
    round_trip(&server);
}

#[test]
fn a_round_trip_through_moto() {
    let Some(server) = Server::moto() else { return };
    round_trip(&server);
}

#[test]
fn wrong_credentials_and_a_dead_endpoint_are_told_clearly() {
    let home = Home::new();
    fs::write(home.at("repo.key"), "").expect("a file");
    let began = Instant::now();
    let dead = run(&home, "http://127.0.0.1:1", &["snapshots"]);
    assert_eq!(dead.code, 1, "{dead:?}");
    assert!(dead.stderr.contains("127.0.0.1:1"), "{}", dead.stderr);
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    let Some(server) = Server::rclone_guarded("someone", "else") else {
        return;
    };
    let began = Instant::now();
    let wrong = run(&home, &server.url(), &["snapshots"]);
    assert!(matches!(wrong.code, 1 | 13), "{wrong:?}");
    let said = wrong.stderr.to_lowercase();
    assert!(
        [
            "credential",
            "denied",
            "forbidden",
            "not allowed",
            "access key"
        ]
        .iter()
        .any(|w| said.contains(w)),
        "{}",
        wrong.stderr
    );
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

/// Small reading commands do not read the store through.
#[test]
fn reading_costs_few_requests() {
    let Some(server) = Server::moto() else { return };
    let home = Home::new();
    let source = home.at("source");
    fs::create_dir(&source).expect("a directory");
    let url = server.url();
    ok(&home, &url, &["init", "-q"]);
    for n in 0..50 {
        // Every run leaves a pack and a record.
        fs::write(source.join(format!("f{n}")), fixture::noise(n, 20_000)).expect("a file");
        ok(
            &home,
            &url,
            &[OsStr::new("backup"), source.as_os_str(), "-q".as_ref()],
        );
    }
    for args in [
        vec!["snapshots"],
        vec!["ls", "source@latest"],
        vec!["status"],
    ] {
        let before = server.requests();
        let began = Instant::now();
        ok(&home, &url, &args);
        let (took, requests) = (began.elapsed(), server.requests() - before);
        println!("{args:?}: {requests} requests, {took:?}");
        assert!(requests <= 30, "{args:?} took {requests} requests");
    }
}
