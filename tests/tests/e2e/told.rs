//! What a user is told: nothing that is missing is silent, what was printed can be typed again, and an
//! option or name that means nothing is refused.

use holdfast_tests::cli::{Ended, Home, binary, is_root};
use holdfast_tests::processes::Processes;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A command that may not read what its permissions forbid, root's included.
fn bound(home: &Home, args: &[&str]) -> Ended {
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(binary("holdfast"))
        .args(args);
    home.environment(&mut command);
    command.output().expect("setpriv starts").into()
}

/// A directory of two small files, and its path as text.
fn small(home: &Home, name: &str) -> String {
    let dir = home.at(name);
    fs::create_dir_all(dir.join("etc")).expect("a directory");
    fs::write(dir.join("a"), "a").expect("a file");
    fs::write(dir.join("etc/b"), "b").expect("a file");
    dir.display().to_string()
}

#[test]
fn what_a_snapshot_lacks_is_told_by_every_reader() {
    if !is_root("what_a_snapshot_lacks_is_told_by_every_reader") {
        return;
    }
    let home = Home::new();
    let source = small(&home, "d");
    let secret = home.at("d/secret");
    fs::write(&secret, "secret").expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("a mode");
    let made = bound(&home, &["backup", &source]);
    assert_eq!(made.code, 3, "{made:?}");

    let text = |name: &str| home.at(name).display().to_string();
    let restored = home.ok(["restore", "d@latest", "--target", &text("r1")]);
    assert!(
        restored.stderr.contains("secret (PermissionDenied"),
        "{restored:?}"
    );
    home.ends(
        3,
        ["restore", "d@latest", "--strict", "--target", &text("r2")],
    );
    let json = home.ok(["restore", "d@latest", "-o", "json", "--target", &text("r3")]);
    assert!(
        json.text().contains("\"snapshot_problem_count\": 1"),
        "{}",
        json.text()
    );
    let part = home.ok([
        "restore",
        "d@latest:/etc",
        "--strict",
        "--target",
        &text("r4"),
    ]);
    assert!(!part.stderr.contains("secret"), "{part:?}");

    for verb in ["dump", "ls"] {
        let ended = home.ok([verb, "d@latest"]);
        assert!(ended.stderr.contains("secret"), "{verb}: {ended:?}");
    }
    for verb in ["cat", "ls", "dump"] {
        let ended = home.ends(3, [verb, "d@latest:/secret"]);
        assert!(
            ended.stderr.contains("could not be read"),
            "{verb}: {ended:?}"
        );
        let ended = home.ends(1, [verb, "d@latest:/nope"]);
        assert!(ended.stderr.contains("no such path"), "{verb}: {ended:?}");
    }
    let listed = home.ok(["snapshots", "--problems", "d@latest"]).text();
    assert!(
        listed.contains("secret") && listed.contains("PermissionDenied"),
        "{listed}"
    );
}

#[test]
fn the_time_that_snapshots_prints_selects_that_snapshot() {
    let home = Home::new();
    let source = small(&home, "d");
    home.ok(["backup", &source]);
    let table = home.ok(["snapshots"]).text();
    let time = table.split_whitespace().find(|word| word.ends_with('Z'));
    let name = format!("d@{}", time.expect("a time"));
    assert!(home.ok(["ls", &name]).text().contains("etc"));
}

#[test]
fn a_diff_compares_one_path_that_is_there() {
    let home = Home::new();
    let source = small(&home, "d");
    home.ok(["backup", &source]);
    fs::write(home.at("d/a"), "other").expect("a file");
    fs::write(home.at("d/etc/b"), "other").expect("a file");
    home.ok(["backup", &source]);
    let first = home.ok(["snapshots", "-o", "name"]).text();
    let first = first.lines().next().expect("a snapshot");
    let etc = format!("{first}:/etc");
    for (from, to) in [
        (&*etc, "latest"),
        (first, "latest:/etc"),
        (&*etc, "latest:/etc"),
    ] {
        assert_eq!(
            home.ok(["diff", from, to]).text(),
            "M etc/b\n",
            "{from} {to}"
        );
    }
    home.ends(2, ["diff", &etc, "latest:/a"]);
    let gone = home.ends(1, ["diff", &format!("{first}:/nope"), "latest"]);
    assert!(gone.stderr.contains("no such path"), "{gone:?}");
    assert_eq!(home.ok(["diff", "latest:/etc", "latest"]).text(), "");
}

#[test]
fn names_of_places_that_holdfast_does_not_know_make_no_directory() {
    let home = Home::new();
    for url in ["sftp:u@host:/x", "b2:bucket:x", "b2://bucket/x"] {
        let mut command = home.command([OsStr::new("init"), "--repo".as_ref(), url.as_ref()]);
        let ended: Ended = command
            .current_dir(home.at(""))
            .output()
            .expect("holdfast starts")
            .into();
        assert_eq!(ended.code, 2, "{url}: {ended:?}");
        assert!(!home.at("b2:bucket:x").exists() && !home.at("sftp:u@host:").exists());
    }
}

#[test]
fn a_dry_run_of_hard_links_says_what_the_run_does() {
    let home = Home::new();
    let source = small(&home, "d");
    for link in ["z1", "z2"] {
        fs::hard_link(home.at("d/a"), home.at("d").join(link)).expect("a link");
    }
    home.ok(["backup", &source]);
    let target = home.restore("d@latest", "r").display().to_string();
    let counts = |more: &[&str]| {
        let mut args = vec![
            "restore",
            "d@latest",
            "--in-place",
            "-o",
            "json",
            "-t",
            &target,
        ];
        args.extend(more);
        let json = home.ok(args).text();
        let of = |key: &str| {
            let at = json.find(&format!("\"{key}\": ")).expect("a count");
            let rest = &json[at + key.len() + 4..];
            rest[..rest.find([',', '\n']).expect("an end")].to_owned()
        };
        ["created", "replaced", "metadata", "deleted", "kept"].map(of)
    };
    for change in ["mode", "link removed", "link replaced", "nothing"] {
        match change {
            "mode" => {
                fs::set_permissions(home.at("r/a"), fs::Permissions::from_mode(0o600))
                    .expect("a mode");
            }
            "link removed" => fs::remove_file(home.at("r/z2")).expect("a removal"),
            "link replaced" => {
                fs::remove_file(home.at("r/z1")).expect("a removal");
                fs::write(home.at("r/z1"), "a").expect("a file");
            }
            _ => {}
        }
        let planned = counts(&["--dry-run"]);
        assert_eq!(planned, counts(&[]), "{change}");
    }
}

#[test]
fn options_that_mean_nothing_are_refused_and_what_was_typed_wins() {
    let home = Home::new();
    let source = small(&home, "d");
    let pass = home.at("pw").display().to_string();
    fs::write(home.at("pw"), "sesame\n").expect("a file");
    let key = home.at("repo.key").display().to_string();
    let made = home.ok(["init", "-q", "--passphrase-file", &pass]);
    assert!(made.stderr.contains(&key), "where the key is: {made:?}");
    // The passphrase opens it too, and wins over the exported key file.
    fs::rename(&key, home.at("away")).expect("a rename");
    home.ok(["snapshots", "--passphrase-file", &pass]);
    let hint = home.ends(12, ["snapshots"]);
    assert!(hint.stderr.contains("--passphrase-file"), "{hint:?}");
    let hint = home.ends(10, ["snapshots", "--repo", &source]);
    assert!(hint.stderr.contains("check --repo"), "{hint:?}");
    home.ends(
        12,
        [
            "snapshots",
            "--passphrase-file",
            &home.at("none").display().to_string(),
        ],
    );
    fs::rename(home.at("away"), &key).expect("a rename");
    home.ends(
        2,
        ["snapshots", "--passphrase-file", &pass, "--key-file", &key],
    );
    home.ends(2, ["backup", &source, "--no-wait"]);
    home.ends(2, ["key", "list", "--coordinator", "http://127.0.0.1:1"]);
    for option in [
        &["--key-file", &key][..],
        &["--take-over"],
        &["--state-dir", "s"],
    ] {
        let mut args = vec!["snapshots", "--coordinator", "http://127.0.0.1:1"];
        args.extend(option);
        let ended = home.ends(2, args);
        assert!(ended.stderr.contains(option[0]), "{ended:?}");
    }
    // HOLDFAST_REPO is exported, --coordinator is typed.
    let ended = home.ends(1, ["snapshots", "--coordinator", "http://127.0.0.1:1"]);
    assert!(
        ended
            .stderr
            .contains("cannot reach the coordinator at http://127.0.0.1:1"),
        "{ended:?}"
    );
    let ended = home.ends(2, ["snapshots", "--coordinator", "127.0.0.1:1"]);
    assert!(
        ended.stderr.contains("must start with http://"),
        "{ended:?}"
    );
    let listed = home.ok(["key", "list", "-o", "json"]).text();
    assert!(listed.contains("\"passphrases\": 1"), "{listed}");
    for args in [&["backup", &source, "--exclude", "["][..], &["find", "["]] {
        let ended = home.ends(2, args);
        assert!(ended.stderr.contains("pattern '['"), "{ended:?}");
    }
    home.ok(["backup", &source]);
    let target = home.at("r").display().to_string();
    let printed = home.ok(["restore", "latest", "-o", "name", "--target", &target]);
    assert_eq!(printed.text(), format!("{target}\n"));
    for option in ["--dry-run", "--strict", "-ojson"] {
        home.ends(
            2,
            [
                "restore", "latest", "--node", "n", "--target", &target, option,
            ],
        );
    }
}

#[test]
fn an_installer_makes_a_repository_once_and_its_passphrase_opens_it() {
    let home = Home::new();
    let pass = home.at("pw").display().to_string();
    fs::write(home.at("pw"), "sesame\n").expect("a file");
    let key = home.at("repo.key").display().to_string();
    // As a run that was killed before it added the passphrase leaves it.
    home.ok(["init", "-q", "--if-missing"]);
    let repository = home.ok(["status", "-o", "json"]).text();
    home.ok(["init", "--if-missing", "--passphrase-file", &pass]);
    fs::rename(&key, home.at("away")).expect("a rename");
    for _ in 0..2 {
        // The key file was the first run's alone, and none is made beside it.
        home.ok(["init", "--if-missing", "--passphrase-file", &pass]);
        assert!(!Path::new(&key).exists());
    }
    let same = home.ok(["status", "-o", "json", "--passphrase-file", &pass]);
    let id = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        value["repository"].to_string()
    };
    assert_eq!(id(&repository), id(&same.text()));
    fs::write(home.at("pw"), "another\n").expect("a file");
    home.ends(12, ["init", "--if-missing", "--passphrase-file", &pass]);
}

#[test]
fn a_coordinator_makes_the_catalog_of_a_new_repository_and_of_no_other() {
    let mut processes = Processes::start(&["web"]);
    processes.ok(["backup", "web", "--wait", "-q"]);
    processes.coordinator().signal("TERM");
    processes.coordinator().wait();
    let state = processes.home.at("state/coordinator");
    fs::rename(&state, processes.home.at("lost")).expect("a rename");
    processes.start_coordinator();
    let (code, _) = processes.coordinator().wait();
    assert_eq!(code, 1);
    let said = processes.coordinator().log();
    assert!(
        said.contains("no catalog in") && said.contains("rebuild"),
        "{said}"
    );
    assert!(!state.join("catalog.sqlite").exists());
}

#[test]
fn a_key_belongs_to_one_repository_and_failures_leave_nothing() {
    let home = Home::new();
    home.ok(["init"]);
    let second = home.at("second").display().to_string();
    let refused = home.ends(5, ["init", "--repo", &second]);
    assert!(
        refused.stderr.contains("is the key of repository"),
        "{refused:?}"
    );
    assert!(!home.at("second").exists(), "a directory was left");
    let ended: Ended = home
        .command(["up", "--socket", &home.at("x.sock").display().to_string()])
        .env("HOLDFAST_KEY_FILE", home.at("none"))
        .output()
        .expect("holdfast starts")
        .into();
    assert_eq!(ended.code, 12, "{ended:?}");
    assert!(ended.stderr.contains("no volume is served"), "{ended:?}");
    assert!(!home.at("x.sock").exists(), "a socket was left");
    let twice = ["up", "--volume", "a=/x", "--volume", "a=/y"];
    assert!(home.ends(2, twice).stderr.contains("given twice"));
}

#[test]
fn names_and_patterns_that_would_mislead_are_told() {
    let home = Home::new();
    let source = small(&home, "d");
    for name in ["latest", "a/../b", "a/", "ün"] {
        home.ends(2, ["backup", &source, "--name", name]);
    }
    let made = home.ok(["backup", &source, "--include", "nomatch"]);
    assert!(
        made.stderr.contains("no file matches --include"),
        "{made:?}"
    );
    let text = home.ok(["volumes"]).text();
    assert!(!text.contains("not served"), "{text}");
    let text = home.ok(["status"]).text();
    assert!(
        !text.contains("sessions") && !text.contains("claim"),
        "{text}"
    );
    let hint = home.ends(2, ["cat", "d:/a"]);
    assert!(hint.stderr.contains("d@latest"), "{hint:?}");
}
