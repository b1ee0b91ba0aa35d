//! Hooks around runs, with everything killed in between: what the pre-hook froze is unfrozen whatever happens. The
//! "container" is a directory with a log of its own; what is said there counts.

mod http;

use crate::cluster::{Cluster, cluster};
use holdfast_tests::processes::until;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

const POD: &str = "web-5ffdf7f97-jl6hv";
const VOLUME: &str = "shop/uploads";
const EVENTS: &str = "v1/events";
/// Each waits as long as there is a file `hold-pre` or `hold-post`.
const PRE: &str =
    "echo freeze >> log; touch in-pre; while [ -e hold-pre ]; do sleep 0.05; done; touch over-pre";
const POST: &str =
    "touch in-post; while [ -e hold-post ]; do sleep 0.05; done; echo unfreeze >> log";

struct Hooked {
    cluster: Cluster,
    room: PathBuf,
}

/// A pod with hooks in annotations, and this time for the watchdog.
fn hooked(unfreeze_after: &str) -> Hooked {
    let hooked = bare();
    hooked.annotate(&[
        ("pre.hook.backup.holdfast.dev/command", &sh(PRE)),
        (
            "pre.hook.backup.holdfast.dev/unfreeze-after",
            unfreeze_after,
        ),
        ("post.hook.backup.holdfast.dev/command", &sh(POST)),
    ]);
    hooked
}

/// The same pod without any.
fn bare() -> Hooked {
    let cluster = cluster();
    let room = cluster.processes.home.at("container");
    fs::create_dir(&room).unwrap();
    cluster.api.run_commands("shop", POD, &room);
    cluster
        .api
        .put("v1/namespaces", json!({"metadata": {"name": "shop"}}));
    Hooked { cluster, room }
}

fn sh(text: &str) -> String {
    json!(["sh", "-c", text]).to_string()
}

impl Hooked {
    fn annotate(&self, annotations: &[(&str, &str)]) {
        let mut pod = self.cluster.pod(POD);
        for (key, value) in annotations {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        self.cluster.api.put("v1/pods", pod);
        until("the hooks are known", || {
            let said = self.cluster.processes.run(["explain", VOLUME]).text();
            said.contains("hook: pod")
        });
    }

    fn touch(&self, name: &str) {
        fs::write(self.room.join(name), "").unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.room.join(name)).unwrap();
    }

    fn until_there(&self, name: &str) {
        until(&format!("{name} is there"), || {
            self.room.join(name).exists()
        });
    }

    /// Its pre-hook has ended, the coordinator knows it, and the order is with the agent.
    fn until_ordered(&self) {
        self.until_there("over-pre");
        until("the run is ordered", || {
            let job = self.newest_job();
            job["reason"] == "" && job["ended"].is_null()
        });
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.room.join("log")).unwrap_or_default();
        text.lines().collect::<Vec<_>>().join(" ")
    }

    fn until_log(&self, expected: &str) {
        until(&format!("the log is {expected}: {}", self.log()), || {
            self.log() == expected
        });
    }

    /// Unfrozen at last, and never frozen twice without an end in between.
    fn until_unfrozen(&self) {
        until("it is unfrozen", || self.log().ends_with("unfreeze"));
        let log = self.log();
        let words: Vec<&str> = log.split(' ').collect();
        assert_eq!(words[0], "freeze", "{log}");
        assert!(
            !words.windows(2).any(|two| two == ["freeze", "freeze"]),
            "{log}"
        );
    }

    /// A backup that is waited for elsewhere.
    fn begin(&self) -> Child {
        let mut command = self
            .cluster
            .processes
            .cli(["backup", VOLUME, "--wait", "-q"]);
        let log = fs::File::create(self.room.join("cli")).unwrap();
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// What a backup says that fails.
    fn fails(&self) -> String {
        let ended = self
            .cluster
            .processes
            .run(["backup", VOLUME, "--wait", "-q"]);
        assert_ne!(ended.code, 0, "it should not be made");
        let jobs = self.cluster.processes.ok(["jobs", "-o", "json"]).text();
        let jobs: Value = serde_json::from_str(&jobs).unwrap();
        jobs[0].to_string()
    }

    fn newest_job(&self) -> Value {
        let jobs = self.cluster.processes.run(["jobs", "-o", "json"]).text();
        let jobs: Value = serde_json::from_str(&jobs).unwrap_or_default();
        jobs[0].clone()
    }

    fn jobs_say(&self, what: &str) -> bool {
        self.newest_job().to_string().contains(what)
    }

    /// The events of this reason.
    fn until_told(&self, reason: &str) {
        until(&format!("{reason} is told"), || {
            let events = self.cluster.api.all(EVENTS);
            events.iter().any(|event| event["reason"] == reason)
        });
    }

    fn backup(&self) {
        self.cluster
            .processes
            .ok(["backup", VOLUME, "--wait", "-q"]);
    }

    fn restart_coordinator(&mut self) {
        self.cluster.processes.start_coordinator();
        self.cluster.until(VOLUME, "eligible");
    }
}

fn ends(mut child: Child) -> bool {
    child.wait().unwrap().success()
}

#[test]
fn a_run_is_surrounded_by_its_hooks_and_all_is_said() {
    let hooked = hooked("10m");
    hooked.backup();
    assert_eq!(hooked.log(), "freeze unfreeze");
    assert_eq!(hooked.cluster.processes.snapshots().len(), 1);
    let said = hooked.cluster.processes.ok(["explain", VOLUME]).text();
    assert!(
        said.contains("hook of its annotations; before: runs sh -c"),
        "{said}"
    );
    // A volume without hooks has none.
    let calls = hooked.cluster.api.calls();
    assert_eq!(
        calls.get("get v1/pods"),
        Some(&6),
        "once to resolve, once more when nobody else has the pod, once right before the pre-hook, once to end, two \
         commands: {calls:?}"
    );
    // Two that are asked for together come one after the other.
    let (a, b) = (hooked.begin(), hooked.begin());
    let (a, b) = (ends(a), ends(b));
    assert!(a || b);
    hooked.until_unfrozen();
}

/// Kills the coordinator at a stage of a run, and starts it again or not.
fn killed(stage: &str, unfreeze_after: &str, again: bool) {
    let mut hooked = hooked(unfreeze_after);
    match stage {
        "pre" => hooked.touch("hold-pre"),
        "run" => hooked.cluster.processes.agent().signal("STOP"),
        _ => hooked.touch("hold-post"),
    }
    let mut waiting = hooked.begin();
    match stage {
        "pre" => hooked.until_there("in-pre"),
        "run" => hooked.until_ordered(),
        _ => hooked.until_there("in-post"),
    }
    hooked.cluster.processes.coordinator().kill();
    if stage == "post" {
        hooked.remove("hold-post");
    }
    if again {
        // An agent that is stopped says nothing.
        hooked.cluster.processes.start_coordinator();
    }
    hooked.until_unfrozen();
    let _ = waiting.kill();
    let _ = waiting.wait();
    if stage == "run" {
        hooked.cluster.processes.agent().signal("CONT");
    }
    if stage == "pre" {
        hooked.remove("hold-pre");
    }
    if !again {
        hooked.cluster.processes.start_coordinator();
    }
    hooked.cluster.until(VOLUME, "eligible");
    // What was left runs first; then the volume is backed up again, frozen and unfrozen.
    until("it can be backed up again", || {
        let ended = hooked
            .cluster
            .processes
            .run(["backup", VOLUME, "--wait", "-q"]);
        ended.code == 0
    });
    hooked.until_unfrozen();
    assert!(
        hooked.log().matches(" freeze").count() >= 1,
        "{}",
        hooked.log()
    );
}

#[test]
fn a_coordinator_that_is_killed_before_the_pre_hook_has_ended_unfreezes_first() {
    killed("pre", "10m", true);
}

#[test]
fn a_coordinator_that_is_killed_during_the_run_unfreezes_first() {
    killed("run", "10m", true);
}

#[test]
fn a_coordinator_that_is_killed_in_the_post_hook_unfreezes_first() {
    killed("post", "10m", true);
}

#[test]
fn without_a_coordinator_the_watchdog_unfreezes_what_the_pre_hook_has_begun() {
    killed("pre", "5s", false);
}

#[test]
fn without_a_coordinator_the_watchdog_unfreezes() {
    killed("run", "5s", false);
}

#[test]
fn without_a_coordinator_the_watchdog_runs_a_post_hook_that_died() {
    killed("post", "5s", false);
}

#[test]
fn a_coordinator_that_is_stopped_unfreezes_before_it_ends() {
    let mut hooked = hooked("10m");
    hooked.cluster.processes.agent().signal("STOP");
    let mut waiting = hooked.begin();
    hooked.until_ordered();
    hooked.cluster.processes.coordinator().signal("TERM");
    hooked.cluster.processes.coordinator().wait();
    assert_eq!(hooked.log(), "freeze unfreeze");
    let _ = waiting.kill();
    let _ = waiting.wait();
    hooked.cluster.processes.agent().signal("CONT");
    hooked.restart_coordinator();
    assert_eq!(hooked.log(), "freeze unfreeze", "nothing was left");
}

#[test]
fn an_agent_that_is_killed_during_the_run_ends_the_freeze() {
    let mut hooked = hooked("10m");
    hooked.cluster.processes.agent().signal("STOP");
    let waiting = hooked.begin();
    hooked.until_ordered();
    hooked.cluster.processes.agent().kill();
    hooked.cluster.processes.start_agent();
    hooked.until_log("freeze unfreeze");
    assert!(!ends(waiting));
    assert!(hooked.jobs_say("AgentLost"), "{}", hooked.newest_job());
}

#[test]
fn a_run_that_takes_longer_than_the_freeze_may_is_told_and_goes_on() {
    let mut hooked = hooked("3s");
    hooked.cluster.processes.agent().signal("STOP");
    let waiting = hooked.begin();
    hooked.until_log("freeze unfreeze");
    hooked.cluster.processes.agent().signal("CONT");
    assert!(ends(waiting) || hooked.cluster.processes.snapshots().len() == 1);
    until("it is told", || hooked.jobs_say("HookEndedEarly"));
    assert_eq!(hooked.log(), "freeze unfreeze");
    hooked.until_told("HookEndedEarly");
}

#[test]
fn a_run_that_is_cancelled_is_unfrozen_wherever_it_is() {
    let mut hooked = hooked("10m");
    hooked.touch("hold-pre");
    let waiting = hooked.begin();
    hooked.until_there("in-pre");
    assert!(hooked.jobs_say("PreHooks"), "{}", hooked.newest_job());
    let id = hooked.newest_job()["id"].as_str().unwrap().to_owned();
    hooked.cluster.processes.ok(["jobs", "--cancel", &id]);
    hooked.until_log("freeze unfreeze");
    assert!(!ends(waiting));
    hooked.remove("hold-pre");
    hooked.remove("in-pre");
    // And one that has begun.
    hooked.cluster.processes.agent().signal("STOP");
    let waiting = hooked.begin();
    hooked.until_ordered();
    let id = hooked.newest_job()["id"].as_str().unwrap().to_owned();
    hooked.cluster.processes.ok(["jobs", "--cancel", &id]);
    hooked.cluster.processes.agent().signal("CONT");
    hooked.until_log("freeze unfreeze freeze unfreeze");
    let _ = ends(waiting);
}

#[test]
fn a_connection_that_is_cut_freezes_nothing_for_good() {
    let mut hooked = hooked("10m");
    hooked.touch("hold-pre");
    let waiting = hooked.begin();
    hooked.until_there("in-pre");
    hooked.cluster.api.cut_commands();
    // The run is not made, and what was begun is ended.
    hooked.until_log("freeze unfreeze");
    assert!(!ends(waiting));
    assert!(
        hooked.jobs_say("connection was cut"),
        "{}",
        hooked.newest_job()
    );
    assert!(hooked.jobs_say("HookFailed"), "{}", hooked.newest_job());
    assert!(hooked.cluster.processes.snapshots().is_empty());
    hooked.remove("hold-pre");
    // Cut while the volume is read: the freeze holds, and ends with the run.
    hooked.cluster.processes.agent().signal("STOP");
    let waiting = hooked.begin();
    hooked.until_ordered();
    hooked.cluster.api.cut_commands();
    assert_eq!(hooked.log(), "freeze unfreeze freeze");
    hooked.cluster.processes.agent().signal("CONT");
    assert!(ends(waiting));
    assert_eq!(hooked.log(), "freeze unfreeze freeze unfreeze");
}

#[test]
fn while_the_api_is_away_the_watchdog_unfreezes_and_runs_wait() {
    let mut hooked = hooked("6s");
    hooked.cluster.processes.agent().signal("STOP");
    let waiting = hooked.begin();
    hooked.until_ordered();
    hooked.cluster.api.set_away(true);
    hooked.until_log("freeze unfreeze");
    hooked.cluster.processes.agent().signal("CONT");
    let _ = ends(waiting);
    // The next run waits until it is known that the post-hook was run.
    let next = hooked.begin();
    until("it waits", || hooked.jobs_say("HooksWaiting"));
    hooked.cluster.api.set_away(false);
    assert!(ends(next));
    assert_eq!(hooked.log(), "freeze unfreeze freeze unfreeze");
}

#[test]
fn a_pre_hook_that_fails_decides_by_its_on_error() {
    let hooked = hooked("10m");
    let fails = sh("echo freeze >> log; echo the reason; exit 3");
    hooked.annotate(&[("pre.hook.backup.holdfast.dev/command", &fails)]);
    until("the new hook is known", || {
        hooked
            .cluster
            .processes
            .ok(["explain", VOLUME])
            .text()
            .contains("the reason")
    });
    let said = hooked.fails();
    for word in ["HookFailed", "exit code 3", "the reason", POD] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(hooked.log(), "freeze unfreeze");
    assert!(hooked.cluster.processes.snapshots().is_empty());
    hooked.until_told("HookFailed");
    hooked.annotate(&[("pre.hook.backup.holdfast.dev/on-error", "Continue")]);
    hooked.backup();
    assert_eq!(hooked.log(), "freeze unfreeze freeze unfreeze");
    assert!(hooked.jobs_say("HookFailed"));
}

#[test]
fn nothing_is_frozen_without_a_shell_or_without_the_right() {
    let hooked = hooked("10m");
    hooked.touch("no-shell");
    let said = hooked.fails();
    assert!(
        said.contains("HookNeedsShell") && said.contains("http"),
        "{said}"
    );
    hooked.remove("no-shell");
    hooked.cluster.api.set_forbidden("v1/pods/exec", true);
    let said = hooked.fails();
    assert!(
        said.contains("HookNotAllowed") && said.contains("coordinator.hooks.enabled"),
        "{said}"
    );
    assert_eq!(hooked.log(), "");
    hooked.cluster.api.set_forbidden("v1/pods/exec", false);
    hooked.backup();
    assert_eq!(hooked.log(), "freeze unfreeze");
    // Without a watchdog no shell of the wrapper is needed.
    hooked.touch("no-shell");
    hooked.annotate(&[("pre.hook.backup.holdfast.dev/watchdog", "Off")]);
    until("it is backed up without a watchdog", || {
        hooked
            .cluster
            .processes
            .run(["backup", VOLUME, "--wait", "-q"])
            .code
            == 0
    });
    assert_eq!(hooked.log(), "freeze unfreeze freeze unfreeze");
}

#[test]
fn a_pod_that_goes_while_it_is_frozen_holds_nothing_up() {
    let mut hooked = hooked("10m");
    hooked.cluster.processes.agent().signal("STOP");
    let waiting = hooked.begin();
    hooked.until_ordered();
    // Another one under its name is not unfrozen in its place.
    let mut pod = hooked.cluster.pod(POD);
    pod["metadata"]["uid"] = json!("made-again");
    hooked.cluster.api.put("v1/pods", pod);
    hooked.cluster.processes.agent().signal("CONT");
    let _ = ends(waiting);
    until("it is told", || hooked.jobs_say("HookPodGone"));
    assert_eq!(hooked.log(), "freeze");
}
