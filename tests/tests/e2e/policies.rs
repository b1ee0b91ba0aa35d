//! Policies from files, without a cluster: runs that are due are made, nothing is made twice, files are read again
//! when they change, and broken ones change nothing.

use holdfast_tests::cli::{Ended, Home};
use holdfast_tests::processes::{Process, Processes, until};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Once a year: due at once where the file is older than that, and then not before the test has ended.
const YEARLY: &str = "\
apiVersion: holdfast.dev/v1alpha1
kind: ClusterBackupPolicy
metadata: {name: yearly}
spec:
  selection: {volumes: {exclude: [scratch]}}
  schedule: {cron: '@yearly'}
  files: {exclude: ['*.tmp']}
";

const CLOSE: &str = "\
---
apiVersion: holdfast.dev/v1alpha1
kind: BackupPolicy
metadata: {name: close, namespace: shop}
spec:
  exposure: {maxAge: 5s, quiet: 0s}
  files: {exclude: ['*.tmp']}
";

/// A file as somebody wrote it years ago.
fn write_long_ago(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(then)
        .unwrap();
}

struct Up {
    home: Home,
    process: Process,
}

impl Up {
    fn start(home: Home) -> Self {
        let socket = home.at("run/holdfast.sock");
        let mut command = home.command(["up", "--policies"]);
        command
            .arg(home.at("policies.yaml"))
            .arg("--socket")
            .arg(&socket);
        for volume in ["web", "shop/orders", "scratch"] {
            let directory = home.at(&volume.replace('/', "-"));
            fs::create_dir_all(&directory).unwrap();
            command
                .arg("--volume")
                .arg(format!("{volume}={}", directory.display()));
        }
        let process = Process::start(&mut command, home.at("up.log"));
        until("it serves", || process.log().contains("serving on unix:"));
        Self { home, process }
    }

    fn ask(&self, args: &[&str]) -> Ended {
        let socket = self.home.at("run/holdfast.sock");
        let mut command = self.home.command(args);
        command
            .env_remove("HOLDFAST_REPO")
            .env("HOLDFAST_COORDINATOR", format!("unix:{}", socket.display()));
        command.output().expect("holdfast starts").into()
    }

    fn volume(&self, name: &str) -> Value {
        volume(&self.ask(&["volumes", "-o", "json"]).text(), name)
    }

    fn end(mut self) -> Home {
        self.process.signal("TERM");
        assert_eq!(self.process.wait().0, 0, "{}", self.process.log());
        self.home
    }
}

fn volume(listed: &str, name: &str) -> Value {
    let listed: Value = serde_json::from_str(listed).unwrap_or_default();
    let mut volumes = listed.as_array().cloned().unwrap_or_default().into_iter();
    volumes
        .find(|volume| volume["name"] == name)
        .unwrap_or_default()
}

#[test]
fn up_protects_volumes_as_a_file_says_and_remembers_what_was_made() {
    let home = Home::new();
    write_long_ago(&home.at("policies.yaml"), &format!("{YEARLY}{CLOSE}"));
    let up = Up::start(home);
    fs::write(up.home.at("web/a.tmp"), "left out").unwrap();
    fs::write(up.home.at("shop-orders/a"), "1").unwrap();
    until("the yearly run is made", || {
        up.volume("web")["snapshots"] == 1
    });
    until("the shop is backed up", || {
        up.volume("shop/orders")["snapshots"].as_u64() >= Some(1)
    });
    let web = up.volume("web");
    assert_eq!(web["policy"], "ClusterBackupPolicy yearly", "{web}");
    assert!(web["next_run"].is_string(), "{web}");
    let orders = up.volume("shop/orders");
    assert_eq!(orders["policy"], "BackupPolicy shop/close", "{orders}");
    assert_eq!(up.volume("scratch")["unprotected"], "NoPolicyMatches");

    // A change is protected within its bound, without what the policy leaves out.
    fs::write(up.home.at("shop-orders/b"), "2").unwrap();
    fs::write(up.home.at("shop-orders/c.tmp"), "2").unwrap();
    until("the change is in a snapshot", || {
        up.ask(&["ls", "shop/orders@latest"]).text().contains('b')
    });
    let listed = up.ask(&["ls", "shop/orders@latest"]).text();
    assert!(!listed.contains("c.tmp"), "{listed}");

    let said = up.ask(&["explain", "scratch"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.text().contains("spec.selection.volumes.exclude"),
        "{said:?}"
    );
    let said = up.ask(&["explain", "web"]).text();
    assert!(
        said.contains("is protected by ClusterBackupPolicy yearly"),
        "{said}"
    );
    assert!(said.contains("next run "), "{said}");
    let status = up.ask(&["status"]).text();
    assert!(status.contains("policies     2 of "), "{status}");

    // The newest snapshot is the memory: what was made is not made again.
    let up = Up::start(up.end());
    until("the next run is known", || {
        up.volume("web")["next_run"].is_string()
    });
    assert_eq!(up.volume("web")["snapshots"], 1);
    assert_eq!(up.volume("scratch")["snapshots"], 0);
    up.end();
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_until_it_is_right_again() {
    let home = Home::new();
    let directory = home.at("policies");
    fs::create_dir(&directory).unwrap();
    let file = directory.join("yearly.yaml");
    write_long_ago(&file, YEARLY);
    let settings = format!("policies: {{file: '{}'}}\n", directory.display());
    let processes = Processes::start_with(home, &["web", "scratch"], &settings, "");
    let ask = |args: &[&str]| processes.run(args).text();
    let policy = |name: &str| volume(&ask(&["volumes", "-o", "json"]), name)["policy"].clone();
    let mistakes = || {
        let status: Value =
            serde_json::from_str(&ask(&["status", "-o", "json"])).unwrap_or_default();
        status["policy_files"]["mistakes"].clone()
    };
    until("the yearly run is made", || {
        volume(&ask(&["volumes", "-o", "json"]), "web")["snapshots"] == 1
    });
    assert_eq!(mistakes(), serde_json::json!([]));

    let broken = YEARLY
        .replace("@yearly", "61 * * * *")
        .replace("exclude: [scratch]", "omit: [scratch]");
    fs::write(&file, broken).unwrap();
    until("the mistakes are told", || {
        mistakes().as_array().is_some_and(|told| told.len() == 1)
    });
    let told = mistakes().to_string();
    for part in [
        "yearly.yaml:5: ",
        "ClusterBackupPolicy yearly",
        "spec.selection.volumes.omit",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(policy("web"), "ClusterBackupPolicy yearly");
    let doctor = processes.run(["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(
        doctor
            .text()
            .contains("is not in force, but what it said before"),
        "{doctor:?}"
    );

    // Right again, and another one beside it.
    fs::write(&file, YEARLY).unwrap();
    let rest = "\
apiVersion: holdfast.dev/v1alpha1
kind: ClusterBackupPolicy
metadata: {name: rest}
spec:
  selection: {volumes: {include: [scratch]}}
  schedule: {cron: '@yearly'}
  suspend: true
";
    fs::write(directory.join("more.yaml"), rest).unwrap();
    processes.coordinator.as_ref().unwrap().signal("HUP");
    until("the other policy has its volume", || {
        policy("scratch") == "ClusterBackupPolicy rest"
    });
    assert_eq!(mistakes(), serde_json::json!([]));
    let scratch = volume(&ask(&["volumes", "-o", "json"]), "scratch");
    assert_eq!(scratch["unprotected"], "PolicySuspended", "{scratch}");
}

#[test]
fn files_are_checked_before_anything_goes_by_them() {
    let home = Home::new();
    let file = home.at("policies.yaml");
    let text = YEARLY.replace(
        "volumes: {exclude: [scratch]}",
        "podSelector: {}, storageClasses: [fast]",
    );
    fs::write(&file, text).unwrap();
    let path = file.display().to_string();
    let refused = home.run(["doctor", "--policies", &path]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for field in ["podSelector", "storageClasses"] {
        let part = format!(
            "policies.yaml:5: ClusterBackupPolicy yearly: spec.selection.{field}: needs a cluster"
        );
        assert!(refused.text().contains(&part), "{refused:?}");
    }
    let refused = home.run(["up", "--policies", &path, "--volume", "a=/tmp"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("2 mistakes in the policies"),
        "{refused:?}"
    );
    fs::write(&file, YEARLY).unwrap();
    let right = home.run(["doctor", "--policies", &path]);
    assert!(
        right.text().contains("ClusterBackupPolicy yearly"),
        "{right:?}"
    );
}
