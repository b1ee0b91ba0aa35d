//! A store without room, and a disk with a bad block: told clearly, nothing lost, and all is well again
//! when the cause is gone.

use holdfast_tests::cli::{Ended, Home, is_root};
use holdfast_tests::fixture;
use holdfast_tests::image::Image;
use holdfast_tests::oracle::assert_same;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

#[test]
fn a_full_store_is_told_and_loses_nothing() {
    if !is_root("a_full_store") {
        return;
    }
    for kind in ["tmpfs", "ext4"] {
        let home = Home::new();
        let store = Image::make(kind, 32);
        let repo = store.path().join("repo");
        let run = |args: &[&OsStr]| -> Ended {
            let mut command = home.command(args);
            command.env("HOLDFAST_REPO", &repo);
            command.output().expect("holdfast starts").into()
        };
        let source = home.at("source");
        fixture::contents(&source);
        let backup = [OsStr::new("backup"), source.as_os_str()];
        let first = run(&backup);
        assert_eq!(first.code, 0, "{first:?}");
        let kept = home.at("kept");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&source)
            .arg(&kept)
            .status();
        assert!(copied.is_ok_and(|s| s.success()));
        // Something else fills the store's filesystem; what is left is too little.
        let ballast = store.path().join("ballast");
        let room = rustix::fs::statvfs(store.path()).expect("a filesystem");
        let spare = (room.f_bavail * room.f_frsize).saturating_sub(4 << 20);
        fs::write(&ballast, vec![1; usize::try_from(spare).expect("small")]).expect("a file");
        fs::write(source.join("new"), fixture::noise(1, 12 << 20)).expect("a file");
        let full = run(&backup);
        assert_eq!(full.code, 1, "{kind}: {full:?}");
        let said = full.stderr.to_lowercase();
        assert!(
            said.contains("no space") || said.contains("full"),
            "{kind}: {}",
            full.stderr
        );
        assert!(!full.stderr.contains("panicked"), "{kind}: {}", full.stderr);
        // Readable while it is full.
        let listed = run(&["snapshots", "-o", "name"].map(OsStr::new));
        assert_eq!(
            (listed.code, listed.text().lines().count()),
            (0, 1),
            "{kind}: {listed:?}"
        );
        let target = home.at("while-full");
        let restore = ["restore", "latest", "--special", "-q", "--target"].map(OsStr::new);
        let restored = run(&[&restore[..], &[target.as_os_str()]].concat());
        assert_eq!(restored.code, 0, "{kind}: {restored:?}");
        assert_same(&kept, &target);
        // Room again.
        fs::remove_file(&ballast).expect("a removal");
        let after = run(&backup);
        assert_eq!(after.code, 0, "{kind}: {after:?}");
        let target = home.at("after");
        let restored = run(&[&restore[..], &[target.as_os_str()]].concat());
        assert_eq!(restored.code, 0, "{kind}: {restored:?}");
        assert_same(&source, &target);
    }
}

#[test]
fn a_bad_block_costs_one_file() {
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    if !traced.is_ok_and(|s| s.success()) {
        eprintln!("a_bad_block: skipped, strace does not work here");
        return;
    }
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source);
    let bad = source.join("size-3000001");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(home.at("strace.log"))
        .arg("-P")
        .arg(&bad)
        .args([
            "-e",
            "trace=pread64,read,preadv",
            "-e",
            "inject=pread64,read,preadv:error=EIO:when=2+",
        ])
        .arg(holdfast_tests::cli::binary("holdfast"))
        .arg("backup")
        .arg(&source)
        .args(["--name", "vol"]);
    home.environment(&mut command);
    let ended = Ended::from(command.output().expect("strace starts"));
    let log = fs::read_to_string(home.at("strace.log")).unwrap_or_default();
    assert!(log.contains("INJECTED"), "no error was injected: {log}");
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("size-3000001"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("os error 5") || ended.stderr.contains("Input/output"),
        "{}",
        ended.stderr
    );
    let target = home.restore("latest", "restored");
    assert!(
        !target.join("size-3000001").exists(),
        "a file with a hole in its truth"
    );
    assert_eq!(
        fs::read(target.join("text")).expect("a file"),
        fs::read(source.join("text")).expect("a file")
    );
    // A disk that works again.
    home.backup(&source, "vol");
    assert_same(&source, &home.restore("latest", "healed"));
}
