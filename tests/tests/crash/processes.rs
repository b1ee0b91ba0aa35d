//! Coordinator and agent as two processes, one of them killed at a system call of a running backup and
//! started again: the run is finished or leaves nothing, whoever waits is told the truth, and the next
//! run is right.

use crate::{can_trace, next};
use holdfast_tests::cli::Ended;
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use holdfast_tests::processes::{Process, Processes, inject, until};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// Which of the two is killed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Victim {
    Coordinator,
    Agent,
}

/// How a run with a kill in it ended.
struct Round {
    /// The waiting `holdfast backup`.
    cli: Ended,
    /// Whether the victim died.
    died: bool,
}

/// One backup whose victim is killed at the n-th of these calls in any of its threads, and started again.
fn round(processes: &mut Processes, victim: Victim, volume: &str, calls: &str, n: usize) -> Round {
    let log = processes.home.at("strace.log");
    let target = match victim {
        Victim::Coordinator => processes.coordinator(),
        Victim::Agent => processes.agent(),
    };
    let mut strace = inject(target, calls, &format!("signal=SIGKILL:when={n}"), &log);
    let mut backup = processes.cli(["backup", volume, "--wait"]);
    let backup = backup.stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = backup.spawn().expect("holdfast starts");
    let asked = std::thread::spawn(move || waiting.wait_with_output().expect("holdfast ends"));
    let mut died = false;
    until("the backup has ended", || {
        let target = match victim {
            Victim::Coordinator => &mut processes.coordinator,
            Victim::Agent => &mut processes.agent,
        };
        if !died && target.as_mut().and_then(Process::ended).is_some() {
            died = true;
            match victim {
                Victim::Coordinator => processes.start_coordinator(),
                Victim::Agent => processes.start_agent(),
            }
        }
        asked.is_finished()
    });
    // Told to end it lets go of the process in order.
    strace.signal("TERM");
    strace.wait();
    let cli = asked.join().expect("no panic").into();
    // It may have died of a call that came after the run; then it is started for the next one.
    let fired = fs::read_to_string(&log).is_ok_and(|log| log.contains("SIGKILL"));
    if fired && !died {
        died = true;
        match victim {
            Victim::Coordinator => {
                processes.coordinator().wait();
                processes.start_coordinator();
            }
            Victim::Agent => {
                processes.agent().wait();
                processes.start_agent();
            }
        }
    }
    Round { cli, died }
}

fn change(source: &Path, n: usize) {
    fs::write(
        source.join(format!("new-{}", n % 3)),
        fixture::noise(n as u64 + 1, 700_000),
    )
    .expect("a file");
    fixture::append(&source.join("text"), b"changed");
}

/// Kills the victim at ever later places of ever new runs, and checks what is left each time.
fn kill_everywhere(victim: Victim, calls: &[&str]) {
    if !can_trace("kill_everywhere") {
        return;
    }
    // A killed agent's volume is free after a lease: each of its runs has a volume of its own.
    let names: Vec<String> = (0..40).map(|n| format!("web-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut processes = Processes::start(&names);
    for name in &names {
        fixture::contents(&processes.home.at(name));
    }
    let mut runs = 0;
    let mut killed = Vec::new();
    for calls in calls {
        let mut n = 1;
        loop {
            let volume = match victim {
                Victim::Coordinator => names[0],
                Victim::Agent => names[runs],
            };
            let source = processes.home.at(volume);
            change(&source, runs);
            runs += 1;
            let before = processes.snapshots();
            let round = round(&mut processes, victim, volume, calls, n);
            processes.until_served();
            let what = format!(
                "{victim:?} killed at {calls} #{n}: exit {}, {}",
                round.cli.code, round.cli.stderr
            );
            println!("{what}");
            assert!(!round.cli.stderr.contains("panicked"), "{what}");
            let after = processes.snapshots();
            let made = after.len() - before.len();
            assert!(made <= 1, "{what}: {made} snapshots of one run");
            match (round.cli.code, victim) {
                (0, _) => assert_eq!(
                    made, 1,
                    "{what}: told that it is done, and there is nothing"
                ),
                // Who killed the agent killed the run; a run outlives its coordinator.
                (1, Victim::Agent) => assert!(round.cli.stderr.contains("agent"), "{what}"),
                _ => panic!("{what}"),
            }
            if made == 1 {
                let restored = processes.restore(&format!("{volume}@latest"), "after-kill");
                assert_same(&source, &restored);
            }
            if !round.died || runs == names.len() {
                break;
            }
            killed.push(volume);
            n = match std::env::var_os("HOLDFAST_SOAK") {
                Some(_) => next(n),
                None if victim == Victim::Agent => 16 * n,
                None => 4 * n,
            };
        }
    }
    println!("{victim:?}: killed at {} places", killed.len());
    assert!(!killed.is_empty(), "nobody was killed");
    for volume in [killed[0], killed[killed.len() - 1]] {
        let mut ended = processes.run(["backup", volume]);
        until("the lease is over", || {
            if ended.code == 5 {
                assert!(ended.stderr.contains(volume), "{}", ended.stderr);
                std::thread::sleep(std::time::Duration::from_secs(1));
                ended = processes.run(["backup", volume]);
            }
            ended.code != 5
        });
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let restored = processes.restore(&format!("{volume}@latest"), "at-the-end");
        assert_same(&processes.home.at(volume), &restored);
    }
}

#[test]
fn a_coordinator_killed_in_a_backup_is_resumed_by_its_agent() {
    kill_everywhere(
        Victim::Coordinator,
        &[
            "fsync,fdatasync",
            "rename,renameat,renameat2,link,linkat",
            "pwrite64",
        ],
    );
}

#[test]
fn an_agent_killed_in_a_backup_leaves_one_snapshot_or_none() {
    kill_everywhere(Victim::Agent, &["openat2", "fsync,fdatasync", "pread64"]);
}
