//! What a user is told: nothing that is missing is silent, what was printed can be typed again, and an
//! option or name that means nothing is refused.

use holdfast_tests::cli::{Ended, Home, binary, is_root};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
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
