//! Somebody exchanges directories for symbolic links while we work: nothing outside a volume is ever
//! read into a snapshot, and nothing outside a target is ever written.

use holdfast_tests::cli::Home;
use holdfast_tests::fixture;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MARKER: &[u8] = b"THIS LIES OUTSIDE AND IS NOBODY'S BUSINESS";

/// Twenty seconds, or five minutes.
fn length() -> Duration {
    match std::env::var_os("HOLDFAST_SOAK") {
        Some(_) => Duration::from_secs(300),
        None => Duration::from_secs(20),
    }
}

/// Exchanges two names, again and again, until told to stop; how often.
fn exchange(a: &Path, b: &Path, stop: &AtomicBool) -> u64 {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let done = rustix::fs::renameat_with(
            rustix::fs::CWD,
            a,
            rustix::fs::CWD,
            b,
            rustix::fs::RenameFlags::EXCHANGE,
        );
        times += u64::from(done.is_ok());
        if times % 64 == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    times
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_directory_exchanged_for_a_link_lets_nothing_from_outside_in() {
    let home = Home::new();
    let (source, outside) = (home.at("source"), home.at("outside"));
    fs::create_dir(&outside).expect("a directory");
    fs::create_dir_all(source.join("dir")).expect("a directory");
    for n in 0..60 {
        let name = format!("f{n:02}");
        fs::write(source.join("dir").join(&name), fixture::noise(n, 5_000)).expect("a file");
        let mut bytes = MARKER.to_vec();
        bytes.extend(fixture::noise(n + 100, 5_000));
        fs::write(outside.join(&name), bytes).expect("a file");
    }
    symlink(&outside, source.join("link")).expect("a link");
    let (stop, runs) = (AtomicBool::new(false), AtomicU64::new(0));
    let exchanged = std::thread::scope(|scope| {
        let (dir, link) = (source.join("dir"), source.join("link"));
        let attacker = scope.spawn({
            let stop = &stop;
            move || exchange(&dir, &link, stop)
        });
        let began = Instant::now();
        while began.elapsed() < length() {
            let args = [
                OsStr::new("backup"),
                source.as_os_str(),
                "--name".as_ref(),
                "vol".as_ref(),
                "-q".as_ref(),
            ];
            let ended = home.run(args);
            assert!(matches!(ended.code, 0 | 3), "{ended:?}");
            runs.fetch_add(1, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        attacker.join().expect("no panic")
    });
    println!(
        "{} backups, {exchanged} exchanges",
        runs.load(Ordering::Relaxed)
    );
    assert!(exchanged > 1000, "only {exchanged} exchanges");
    let listed = home.ok(["snapshots", "-o", "name"]).text();
    for snapshot in listed.lines() {
        let dump = home.run(["dump", snapshot]);
        assert_eq!(dump.code, 0, "{}", dump.stderr);
        assert!(
            !holds(&dump.stdout, MARKER),
            "{snapshot} holds what lies outside"
        );
    }
    // Left in peace it is read whole.
    home.backup(&source, "vol");
    let dump = home.ok(["dump", "latest"]);
    assert!(!holds(&dump.stdout, MARKER));
}

#[test]
fn a_target_exchanged_for_a_link_lets_nothing_out() {
    let home = Home::new();
    let (source, outside) = (home.at("source"), home.at("outside"));
    fs::create_dir(&outside).expect("a directory");
    for n in 0..60 {
        let name = format!("f{n:02}");
        fs::create_dir_all(source.join("dir/sub")).expect("a directory");
        fs::write(source.join("dir").join(&name), fixture::noise(n, 5_000)).expect("a file");
        fs::write(source.join("dir/sub").join(&name), "small").expect("a file");
    }
    fs::write(outside.join("f00"), MARKER).expect("a file");
    fs::create_dir(outside.join("sub")).expect("a directory");
    fs::write(outside.join("sub/f00"), MARKER).expect("a file");
    home.backup(&source, "vol");
    let before = holdfast_tests::oracle::dump(&outside, false);
    let target = home.at("target");
    fs::create_dir_all(target.join("dir/sub")).expect("a directory");
    symlink(&outside, target.join("link")).expect("a link");
    let stop = AtomicBool::new(false);
    let mut runs = 0;
    let exchanged = std::thread::scope(|scope| {
        let (dir, link) = (target.join("dir"), target.join("link"));
        let attacker = scope.spawn({
            let stop = &stop;
            move || exchange(&dir, &link, stop)
        });
        let began = Instant::now();
        while began.elapsed() < length() {
            let args = [
                OsStr::new("restore"),
                "latest".as_ref(),
                "-q".as_ref(),
                "--in-place".as_ref(),
                "--target".as_ref(),
                target.as_os_str(),
            ];
            let ended = home.run(args);
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
            assert!(matches!(ended.code, 0 | 1 | 3), "{ended:?}");
            runs += 1;
            // What the next run has to do: the directory's files go, by a descriptor of the directory
            // itself, never through the link.
            for name in ["dir", "link"] {
                empty(&target.join(name));
            }
        }
        stop.store(true, Ordering::Relaxed);
        attacker.join().expect("no panic")
    });
    println!("{runs} restores, {exchanged} exchanges");
    assert!(exchanged > 1000, "only {exchanged} exchanges");
    assert_eq!(
        holdfast_tests::oracle::dump(&outside, false),
        before,
        "something was written outside"
    );
}

/// Removes the files of a directory that is no link.
fn empty(dir: &Path) {
    use rustix::fs::{AtFlags, Mode, OFlags};
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(open) = rustix::fs::open(dir, flags, Mode::empty()) else {
        return;
    };
    for n in 0..60 {
        let _ = rustix::fs::unlinkat(&open, format!("f{n:02}"), AtFlags::empty());
    }
}
