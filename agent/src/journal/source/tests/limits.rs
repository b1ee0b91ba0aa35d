//! Queues that are full and watches that are used up.

use super::*;
use std::path::Path;
use std::process::Command;

/// Set in the process that runs a test where the limits are low.
const INSIDE: &str = "HOLDFAST_TEST_LOW_LIMITS";

#[test]
fn a_full_queue_is_told_and_goes_on() {
    for (kind, file) in [
        (Kind::Fanotify, "/proc/sys/fs/fanotify/max_queued_events"),
        (Kind::Inotify, "/proc/sys/fs/inotify/max_queued_events"),
    ] {
        if !sources().contains(&kind) {
            continue;
        }
        let limit: usize = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        if limit > 100_000 {
            println!("{kind:?} has a queue of {limit}: not tested");
            continue;
        }
        let watched = Watched::new(places().last().unwrap(), kind);
        watched.told();
        for n in 0..=limit {
            File::create(watched.at(&n.to_string())).unwrap();
        }
        let (mut events, mut overflows) = (0, 0);
        let count = watched.source.drain(&mut |told| match told {
            Told::Event(_) => events += 1,
            Told::Overflow => overflows += 1,
            Told::Unmounted => panic!("nothing was unmounted"),
        });
        assert_eq!(count.unwrap(), events + overflows);
        assert_eq!((events, overflows), (limit, 1), "{kind:?}");
        // What comes after is told.
        assert_eq!(watched.told(), []);
        File::create(watched.at("after")).unwrap();
        let after = watched.told();
        assert!(!after.is_empty());
        assert!(after.iter().all(|event| event.at == "/after"));
    }
}

/// Runs the ignored test `name` in a user namespace whose limits are set by `script`.
fn with_limits(script: &str, name: &str) {
    let test = format!("journal::source::tests::limits::{name}");
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-euc"])
        .arg(format!("{script}\nexec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output();
    let Ok(done) = done else {
        println!("there is no unshare: not tested");
        return;
    };
    let said = String::from_utf8_lossy(&done.stdout);
    let failed = String::from_utf8_lossy(&done.stderr);
    if !said.contains("running 1 test") {
        println!("no user namespaces here, not tested: {failed}");
        return;
    }
    assert!(done.status.success(), "{said}\n{failed}");
}

fn assert_inside() {
    let inside = std::env::var_os(INSIDE).is_some();
    assert!(inside, "this is run by another test");
}

/// Each kind has its own.
const FEW_WATCHES: &str = "echo 3 > /proc/sys/user/max_fanotify_marks
echo 3 > /proc/sys/user/max_inotify_watches";

#[test]
fn used_up_watches_are_a_limit() {
    with_limits(FEW_WATCHES, "watches_are_used_up");
}

#[test]
#[ignore = "run by used_up_watches_are_a_limit"]
fn watches_are_used_up() {
    assert_inside();
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        for n in 0..3 {
            fs::create_dir(watched.at(&n.to_string())).unwrap();
        }
        // Two are watched already.
        let watch = |name: &str| watched.source.watch(watched.open(name).as_fd());
        watch("0").unwrap();
        assert_eq!(watch("1"), Err(WatchError::Limit(Errno::NOSPC)), "{kind:?}");
        // Once more costs nothing, and an ended one makes room.
        watch("0").unwrap();
        let below = watched.open("below");
        let key = watched.key("below/");
        watched.source.unwatch(&key, Some(below.as_fd()));
        watch("1").unwrap();
        // Another source finds none.
        let refused = open(watched.open("2").as_fd(), &[kind]);
        let errno = Errno::NOSPC;
        assert_eq!(refused.unwrap_err(), OpenError::Limit { kind, errno });
    }
}

/// Each kind has its own.
const FEW_SOURCES: &str = "echo 1 > /proc/sys/user/max_fanotify_groups
echo 1 > /proc/sys/user/max_inotify_instances";

#[test]
fn used_up_sources_are_a_limit() {
    with_limits(FEW_SOURCES, "sources_are_used_up");
}

#[test]
#[ignore = "run by used_up_sources_are_a_limit"]
fn sources_are_used_up() {
    assert_inside();
    let directory = tempfile::tempdir().unwrap();
    let root = place::open_path(directory.path());
    let open = || open(root.as_fd(), &Kind::ALL);
    let mut held = Vec::new();
    if sources().contains(&Kind::Fanotify) {
        let (first, _) = open().unwrap();
        assert_eq!(first.kind(), Kind::Fanotify);
        held.push(first);
    }
    // The next best; then none.
    let (next, _) = open().unwrap();
    assert_eq!(next.kind(), Kind::Inotify);
    held.push(next);
    let (kind, errno) = (Kind::Inotify, Errno::MFILE);
    assert_eq!(open().unwrap_err(), OpenError::Limit { kind, errno });
    held.clear();
    open().unwrap();
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let proc = place::open_path(Path::new("/proc/self"));
    let refused = open(proc.as_fd(), &[Kind::Fanotify, Kind::Untargeted]).unwrap_err();
    assert!(matches!(refused, OpenError::Refused { .. }), "{refused:?}");
    assert!(open(proc.as_fd(), &[]).is_err());
}
