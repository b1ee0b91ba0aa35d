//! A repository that was written when format version 1 was frozen: this and every later release restores
//! both its snapshots, and can go on with it.

use holdfast_tests::cli::Home;
use holdfast_tests::oracle;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

/// A home whose repository is a copy of the golden one.
fn home() -> Home {
    let home = Home::new();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(testdata().join("repository"))
        .arg(home.repo())
        .status();
    assert!(copied.expect("cp starts").success());
    let key = home.at("repo.key");
    fs::copy(testdata().join("key"), &key).expect("the key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
    home
}

/// What the dumper prints, without owners: not everybody can restore them.
fn tree(dir: &Path) -> String {
    let without_owners = |line: &str| {
        let mut kept = line.replace(", \"uid\": 0", "").replace("\"gid\": 0, ", "");
        for owner in [
            nix::unistd::getuid().as_raw(),
            nix::unistd::getgid().as_raw(),
        ] {
            kept = kept.replace(&format!(", \"uid\": {owner}"), "");
            kept = kept.replace(&format!("\"gid\": {owner}, "), "");
        }
        kept + "\n"
    };
    oracle::dump(dir, false)
        .lines()
        .map(without_owners)
        .collect()
}

#[test]
fn version_1_comes_back() {
    let home = home();
    let expected = fs::read_to_string(testdata().join("tree")).expect("the golden tree");
    let latest = home.restore("golden@latest", "latest");
    assert!(tree(&latest) == expected, "the newest snapshot differs");

    // The first one had a file that the second lacks, and lacked one that it has.
    let first = home.restore("53c14a3e772c", "first");
    assert_eq!(
        fs::read(first.join("d/e/f007")).expect("a file"),
        b"7\n".repeat(7)
    );
    assert!(!first.join("second").exists());

    fs::write(latest.join("third"), b"of the third").expect("a file");
    home.ok([
        "backup",
        &latest.to_string_lossy(),
        "--name",
        "golden",
        "--adopt",
        "-q",
    ]);
    oracle::assert_same(&latest, &home.restore("golden@latest", "third"));
}
