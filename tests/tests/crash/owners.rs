//! One owner of a repository: whoever comes second is refused by name and exit 11, readers are not, and
//! an owner that was paused while another claimed writes no record and deletes nothing when it wakes.

use holdfast_tests::cli::{Ended, Home};
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::{Process, Processes, until};
use std::fs;
use std::process::{Command, Output, Stdio};

/// A refusal that a person can act on: who has it, and what to do.
fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, 11, "{ended:?}");
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "no {word:?} in {}",
            ended.stderr
        );
    }
}

/// Settings and catalog of a second coordinator on the same repository, with a state of its own.
fn second_settings(processes: &Processes) {
    let first = fs::read_to_string(processes.home.at("coordinator.yaml")).expect("settings");
    let second = first
        .replace("state/coordinator", "state/second")
        .replace("coordinator.sock", "second.sock");
    fs::write(processes.home.at("second.yaml"), second).expect("a file");
    let rebuilt = processes
        .command("holdfast-coordinator", "second")
        .arg("rebuild")
        .output()
        .expect("the coordinator starts");
    assert!(rebuilt.status.success(), "{rebuilt:?}");
}

fn run(mut command: Command) -> Ended {
    Ended::from(command.output().expect("it starts"))
}

/// Names and sizes of what a fenced owner must leave as it is: everything but packs and claims.
fn records(home: &Home) -> Vec<(String, u64)> {
    let mut all = home.objects();
    all.retain(|(name, _)| !name.starts_with("packs/") && !name.starts_with("owner/"));
    all
}

#[test]
fn while_a_coordinator_owns_the_repository_others_are_refused() {
    let mut processes = Processes::start(&["web"]);
    let source = processes.home.at("web");
    fixture::contents(&source);
    processes.ok(["backup", "web"]);
    let objects = processes.home.objects();

    second_settings(&processes);
    let second = run(processes.command("holdfast-coordinator", "second"));
    assert_refused(&second, &["owned by catalog", "on host", "--take-over"]);
    let same = run(processes.command("holdfast-coordinator", "coordinator"));
    let pid = processes.coordinator().id().to_string();
    assert_refused(&same, &["in use", &pid]);

    let embedded = processes.home.run(["backup".as_ref(), source.as_os_str()]);
    assert_refused(&embedded, &["owned by catalog", "on host", "--take-over"]);
    let embedded = processes.home.run(["forget", "web@latest"]);
    assert_refused(&embedded, &["owned by catalog"]);
    assert_eq!(
        objects,
        processes.home.objects(),
        "somebody who was refused wrote"
    );

    // Readers need no claim.
    assert_eq!(
        processes
            .home
            .ok(["snapshots", "-o", "name"])
            .text()
            .lines()
            .count(),
        1
    );
    assert_same(
        &source,
        &processes.home.restore("web@latest", "by-a-reader"),
    );

    // And the owner goes on.
    fixture::append(&source.join("text"), b"more");
    processes.ok(["backup", "web"]);
    processes.coordinator().signal("TERM");
    processes.coordinator().wait();
    // What it gave back can be had, by the one and the other.
    processes
        .home
        .ok(["backup".as_ref(), source.as_os_str(), "--adopt".as_ref()]);
    assert_same(&source, &processes.home.restore("web@latest", "at-the-end"));
}

#[test]
fn while_a_command_owns_the_repository_another_is_refused() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source);
    home.backup(&source, "vol");
    fs::write(source.join("large"), fixture::noise(3, 8 << 20)).expect("a file");
    let slow = |rate: &str| {
        let mut command = home.command(["backup".as_ref(), source.as_os_str()]);
        command.args(["--name", "vol", "-q", "--read-rate", rate]);
        command
    };
    let mut first = Process::start(&mut slow("100K"), home.at("first.log"));
    let claims = || {
        home.objects()
            .iter()
            .filter(|(name, _)| name.starts_with("owner/"))
            .count()
    };
    let before = claims();
    until("the first has claimed", || {
        claims() > before || first_claimed(&home)
    });
    let again = run(slow("1G"));
    assert_refused(&again, &["in use", &first.id().to_string()]);
    let mut elsewhere = slow("1G");
    elsewhere.env("HOLDFAST_STATE_DIR", home.at("another-state"));
    assert_refused(&run(elsewhere), &["owned by catalog", "--take-over"]);
    assert_eq!(
        home.ok(["snapshots", "-o", "name"]).text().lines().count(),
        1
    );
    first.signal("INT");
    assert_eq!(first.wait().0, 130, "{}", first.log());
    assert_eq!(
        home.ok(["snapshots", "-o", "name"]).text().lines().count(),
        1
    );
    let mut elsewhere = slow("1G");
    elsewhere.env("HOLDFAST_STATE_DIR", home.at("another-state"));
    let ended = run(elsewhere);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_same(&source, &home.restore("vol@latest", "restored"));
}

/// Whether the newest claim is not released: its owner is at work.
fn first_claimed(home: &Home) -> bool {
    let mut owners: Vec<_> = home.objects().into_iter().map(|(name, _)| name).collect();
    owners.retain(|name| name.starts_with("owner/"));
    owners.len() == 1
}

#[test]
fn a_paused_owner_is_fenced_when_it_wakes() {
    let mut processes = Processes::start(&["web"]);
    let source = processes.home.at("web");
    fixture::contents(&source);
    processes.ok(["backup", "web"]);
    second_settings(&processes);
    let claims = |home: &Home| {
        home.objects()
            .iter()
            .filter(|(name, _)| name.starts_with("owner/"))
            .count()
    };
    let before = claims(&processes.home);

    // Paused in a backup that takes its time.
    processes.restart_agent_with("backup: {read_rate: 4MiB}");
    fs::write(source.join("large"), fixture::noise(8, 24 << 20)).expect("a file");
    let waiting = processes
        .cli(["backup", "web"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("holdfast starts");
    until("the backup runs", || {
        processes.run(["jobs"]).text().contains("running")
    });
    processes.coordinator().signal("STOP");

    // Another claims; it then waits for 2 T before it writes.
    let mut command = processes.command("holdfast-coordinator", "second");
    let mut second = Process::start(command.arg("--take-over"), processes.home.at("second.log"));
    until("the second has claimed", || {
        assert_eq!(second.ended(), None, "{}", second.log());
        claims(&processes.home) > before
    });
    let then = records(&processes.home);
    processes.coordinator().signal("CONT");
    let (code, _) = processes.coordinator().wait();
    assert_eq!(code, 11, "{}", processes.coordinator().log());
    let told: Output = waiting.wait_with_output().expect("holdfast ends");
    let told = Ended::from(told);
    assert!(matches!(told.code, 1 | 11), "{told:?}");
    assert!(!told.stderr.is_empty());
    assert_eq!(
        records(&processes.home),
        then,
        "the fenced owner wrote or deleted"
    );

    // Started again it is refused, and says by whom.
    let again = run(processes.command("holdfast-coordinator", "coordinator"));
    assert_refused(&again, &["owned by catalog", "--take-over"]);
    assert_eq!(records(&processes.home), then);
    assert_eq!(second.ended(), None, "{}", second.log());

    if std::env::var_os("HOLDFAST_SOAK").is_some() {
        let url = format!("unix:{}", processes.home.at("second.sock").display());
        let began = std::time::Instant::now();
        while began.elapsed().as_secs() < 900 && !second.log().contains("serving") {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        let ended = run({
            let mut command = processes.cli(["snapshots", "-o", "name"]);
            command.env("HOLDFAST_COORDINATOR", url);
            command
        });
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(ended.text().lines().count(), 1);
    }
}
