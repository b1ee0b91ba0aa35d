//! Killed at every write of a backup and of a restore: afterwards one snapshot or none, all earlier ones
//! whole, and the next run right. EIO and ENOSPC at the n-th call likewise. The faults are injected into
//! the shipped binary by strace: there is no hook in the code.

mod owners;
mod processes;

use holdfast_tests::cli::{Ended, Home};
use holdfast_tests::fixture;
use holdfast_tests::oracle::assert_same;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Whether faults can be injected here; says why not.
fn can_trace(test: &str) -> bool {
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    let ok = traced.is_ok_and(|s| s.success());
    if !ok {
        eprintln!("{test}: skipped, strace does not work here");
    }
    ok
}

/// Runs holdfast with a fault at the n-th of these system calls, counted over all threads; and whether
/// it was reached.
fn with_fault(home: &Home, calls: &str, fault: &str, n: usize, args: &[&OsStr]) -> (Ended, bool) {
    let log = home.at("strace.log");
    let _ = fs::remove_file(&log);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .args([
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={calls}:{fault}:when={n}"),
        ])
        .arg(holdfast_tests::cli::binary("holdfast"))
        .args(args);
    home.environment(&mut command);
    let ended: Ended = command.output().expect("strace starts").into();
    let log = fs::read_to_string(&log).unwrap_or_default();
    (
        ended,
        log.contains("(INJECTED)") || log.contains("killed by SIGKILL"),
    )
}

fn backup_args(source: &Path) -> Vec<&OsStr> {
    vec![
        "backup".as_ref(),
        source.as_os_str(),
        "--name".as_ref(),
        "vol".as_ref(),
        "-q".as_ref(),
    ]
}

/// The n-th calls that are tried: each of the first ones, then ever wider steps, so that a run of many
/// calls takes minutes and not hours. `HOLDFAST_SOAK` tries every one.
fn next(n: usize) -> usize {
    if std::env::var_os("HOLDFAST_SOAK").is_some() || n < 12 {
        n + 1
    } else {
        n + n / 6
    }
}

#[test]
fn a_backup_killed_at_any_write_leaves_one_snapshot_or_none() {
    if !can_trace("a_backup_killed_at_any_write") {
        return;
    }
    // strace counts per thread, so each call in `calls` is a place of its own in many threads.
    for calls in [
        "fsync,fdatasync",
        "rename,renameat,renameat2",
        "pwrite64",
        "openat",
    ] {
        let mut n = 1;
        loop {
            let home = Home::new();
            let source = home.at("source");
            fixture::contents(&source);
            home.backup(&source, "vol");
            let first = home.ok(["snapshots", "-o", "name"]).text();
            fs::write(source.join("new"), fixture::noise(n as u64, 400_000)).expect("a file");
            fixture::append(&source.join("text"), b"changed");
            let (_, reached) = with_fault(&home, calls, "signal=SIGKILL", n, &backup_args(&source));
            let listed = home.ok(["snapshots", "-o", "name"]).text();
            let what = format!("{calls} #{n}");
            assert!(
                listed.starts_with(&first),
                "{what}: an earlier snapshot is gone"
            );
            assert!(
                listed.lines().count() <= 2,
                "{what}: more than one snapshot of one run:\n{listed}"
            );
            if listed.lines().count() == 2 {
                assert_same(&source, &home.restore("vol@latest", "after-kill"));
            }
            home.backup(&source, "vol");
            assert_same(&source, &home.restore("vol@latest", "after-next"));
            if !reached {
                println!("{calls}: {n} places");
                break;
            }
            n = next(n);
        }
    }
}

/// Whether the marker of an unfinished restore stands there (DESIGN.md, "Restore").
fn is_unfinished(target: &Path) -> bool {
    names(target).any(|name| name.starts_with(".holdfast-restore-"))
}

fn is_empty(target: &Path) -> bool {
    names(target).next().is_none()
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| {
        entry
            .expect("a name")
            .file_name()
            .to_string_lossy()
            .into_owned()
    })
}

#[test]
fn a_restore_killed_at_any_write_is_finished_by_the_next() {
    if !can_trace("a_restore_killed_at_any_write") {
        return;
    }
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source.join("contents"));
    fixture::links(&source.join("links"));
    home.backup(&source, "vol");
    for calls in [
        "renameat2,renameat,rename",
        "pwrite64,write",
        "openat",
        "fchmod,fchown,utimensat",
    ] {
        let mut n = 1;
        loop {
            let target = home.at("target");
            let args: Vec<&OsStr> = vec![
                "restore".as_ref(),
                "vol@latest".as_ref(),
                "-q".as_ref(),
                "--target".as_ref(),
                target.as_os_str(),
            ];
            let (_, reached) = with_fault(&home, calls, "signal=SIGKILL", n, &args);
            // One that was killed after its marker went had finished; whatever stands there is then whole.
            if reached && (is_unfinished(&target) || is_empty(&target)) {
                home.ok(&args);
            }
            assert_same(&source, &target);
            fs::remove_dir_all(&target).expect("a removal");
            if !reached {
                println!("{calls}: {n} places");
                break;
            }
            n = next(n);
        }
    }
}

#[test]
fn errors_of_the_store_never_make_a_snapshot_that_is_not_whole() {
    if !can_trace("errors_of_the_store") {
        return;
    }
    for (calls, error) in [
        ("fsync,fdatasync", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("rename,renameat,renameat2,linkat", "EIO"),
    ] {
        let mut n = 1;
        loop {
            let home = Home::new();
            let source = home.at("source");
            fixture::contents(&source);
            home.backup(&source, "vol");
            fs::write(source.join("new"), fixture::noise(n as u64, 400_000)).expect("a file");
            let (ended, reached) = with_fault(
                &home,
                calls,
                &format!("error={error}"),
                n,
                &backup_args(&source),
            );
            let listed = home.ok(["snapshots", "-o", "name"]).text();
            let what = format!("{calls} {error} #{n}: {}", ended.stderr);
            assert!(!ended.stderr.contains("panicked"), "{what}");
            if ended.code == 0 {
                assert_eq!(
                    listed.lines().count(),
                    2,
                    "{what}: exit 0 without a snapshot"
                );
            }
            if listed.lines().count() == 2 {
                assert_same(&source, &home.restore("vol@latest", "after-error"));
            }
            home.backup(&source, "vol");
            assert_same(&source, &home.restore("vol@latest", "after-next"));
            if !reached {
                break;
            }
            n = next(n);
        }
    }
}
