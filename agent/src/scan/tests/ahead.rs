//! What helpers must not change, and what a walk that is ahead of its caller must still see to.

use super::*;
use crate::sort::NameSorter;
use proptest::prelude::*;
use rustix::fs::FileType;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn with_helpers(helpers: usize) -> ScanOptions {
    ScanOptions {
        helpers,
        ..ScanOptions::default()
    }
}

/// Paths below `top`: directories where the number says so, else files.
fn plant(top: &Path, paths: &[(Vec<u8>, bool)]) {
    for (names, directory) in paths {
        let mut path = top.to_owned();
        for name in names {
            // A few names, so that paths share their beginnings; of several lengths.
            path.push(format!("{:x}", u32::from(*name) * 7919).repeat(1 + usize::from(name % 3)));
        }
        // Something else may be in its place.
        if *directory {
            let _ = std::fs::create_dir_all(&path);
        } else if let Some(parent) = path.parent() {
            let _ = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, b""));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_order_is_the_same_with_any_number_of_helpers(
        trees in proptest::collection::vec(
            (proptest::collection::vec(0u8..12, 1..6), any::<bool>()), 0..300),
        helpers in 1usize..6,
        batch_entries in 1usize..40,
        sort_budget_bytes in prop_oneof![Just(60usize), Just(2000), Just(1 << 20)],
        pauses in any::<u64>(),
    ) {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        plant(directory.path(), &trees);
        let options = ScanOptions { batch_entries, sort_budget_bytes, ..with_helpers(helpers) };
        let mut scanner = scanner_with(directory.path(), Rules::default(), options);
        let mut found = Vec::new();
        let mut turn = 0;
        for scanned in scanner.by_ref() {
            // Sometimes helpers get far ahead, sometimes the caller must wait for them.
            turn += 1;
            if pauses >> (turn % 64) & 1 == 1 {
                std::thread::yield_now();
            }
            match scanned {
                Scanned::Root { .. } => found.push(RelPath::root()),
                Scanned::Batch(batch) => found.extend(
                    batch.entries.iter().map(|found| batch.path.join(found.name).unwrap())),
                other => panic!("{other:?}"),
            }
        }
        prop_assert_eq!(&found, &oracle(directory.path()));
        prop_assert_eq!(scanner.stats().entries_count, found.len() as u64);
        prop_assert_eq!(open_below(directory.path()).len(), 1, "the root's descriptor alone");
    }
}

/// 60 directories with 30 each, and two files in each of those.
fn wide() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    for n in 0..1800 {
        let path = directory.path().join(format!("{}/{}", n / 30, n % 30));
        std::fs::create_dir_all(&path).unwrap();
        for name in ["a", "b"] {
            std::fs::write(path.join(name), b"").unwrap();
        }
    }
    directory
}

#[test]
fn a_walk_that_is_ended_early_leaves_nothing_open() {
    let directory = wide();
    for steps in [0, 1, 2, 5, 40] {
        for cancelled in [true, false] {
            let options = with_helpers(4);
            let cancel = options.cancel.clone();
            let root = Arc::new(Root::open(directory.path()).unwrap());
            let mut scanner = Scanner::new(root, Rules::default(), options);
            for _ in 0..steps {
                assert!(scanner.next().is_some());
            }
            if cancelled {
                cancel.cancel();
                assert!(scanner.next().is_none());
                assert_eq!(open_below(directory.path()).len(), 1, "the root alone");
            }
            drop(scanner);
            assert_eq!(open_below(directory.path()).len(), 0);
        }
    }
}

#[test]
fn a_look_at_many_names_ends_when_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let options = with_helpers(0);
    let cancel = options.cancel.clone();
    let scanner = scanner_with(directory.path(), Rules::default(), options);
    let mut names = NameSorter::new(directory.path().into(), 1 << 20, Names::default());
    names.push(b"name", FileType::RegularFile, 1).unwrap();
    let task = Task::Names {
        dir: Arc::new(scanner.context.root.top().unwrap()),
        path: Arc::default(),
        names: names.finish_in_memory(),
    };
    cancel.cancel();
    let outcome = Lister::new(scanner.context.clone()).run(task, Turn::Now);
    assert!(matches!(outcome, Outcome::Cancelled), "{outcome:?}");
}

#[test]
fn a_wide_tree_of_many_levels_keeps_few_directories_open() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut path = directory.path().to_owned();
    for _ in 0..60 {
        for sibling in 0..40 {
            std::fs::create_dir(path.join(format!("{sibling:02}"))).unwrap();
        }
        path.push("00");
    }
    const HELPERS: usize = 3;
    let mut most = 0;
    let mut count = 0;
    for scanned in scanner_with(directory.path(), Rules::default(), with_helpers(HELPERS)) {
        match scanned {
            Scanned::Root { .. } => {}
            Scanned::Batch(batch) => count += batch.entries.len(),
            other => panic!("{other:?}"),
        }
        most = most.max(open_below(directory.path()).len());
    }
    assert_eq!(count, 2400);
    assert!(most <= HELPERS * (32 + 4) + 20, "{most}");
}

#[test]
fn a_directory_that_is_replaced_while_it_waits_is_read_as_it_was_listed() {
    let outside = tempfile::tempdir().unwrap();
    for name in ["canary", "sub/canary"] {
        let path = outside.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"canary").unwrap();
    }
    let inside = tempfile::tempdir().unwrap();
    let top = inside.path();
    for name in ["a", "b", "c", "d", "e"] {
        std::fs::create_dir_all(top.join(name).join("sub")).unwrap();
        std::fs::write(top.join(name).join("sub/good"), b"good").unwrap();
    }
    let begun = Arc::new(Mutex::new(Vec::new()));
    let told = begun.clone();
    let tell = move |path: &RelPath, _: &Dir| told.lock().unwrap().push(path.to_string());
    let options = ScanOptions {
        before_listing: Some(BeforeListing::new(tell)),
        ..with_helpers(1)
    };
    let mut scanner = scanner_with(top, Rules::default(), options);
    for _ in 0..3 {
        assert!(scanner.next().is_some());
    }
    // One helper does one after the other: when it has come to `d` it is done with `c`.
    while !begun.lock().unwrap().iter().any(|path| path == "d") {
        std::thread::yield_now();
    }
    std::fs::rename(top.join("c"), top.join("was-c")).unwrap();
    symlink(outside.path(), top.join("c")).unwrap();
    let mut files = HashMap::new();
    for scanned in scanner {
        let Scanned::Batch(batch) = scanned else {
            panic!("{scanned:?}")
        };
        for found in batch.entries.iter() {
            assert_ne!(found.name, b"canary", "in {}", batch.path);
            if found.stat.kind == Kind::File {
                let file = std::fs::File::from(batch.dir.open_file(found.name).unwrap());
                let text = std::io::read_to_string(file).unwrap();
                files.insert(batch.path.join(found.name).unwrap().to_string(), text);
            }
        }
    }
    assert_eq!(files.get("c/sub/good").map(String::as_str), Some("good"));
    assert!(files.len() >= 4, "{files:?}");
}

#[test]
fn every_directory_is_told_of_once_and_before_it_is_listed() {
    let directory = wide();
    for helpers in [0, 3] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let name = format!("made-meanwhile-{helpers}");
        let made = name.clone();
        let tell = move |_: &RelPath, dir: &Dir| {
            counted.fetch_add(1, Ordering::Relaxed);
            mknodat(dir, made.as_str(), RustixType::RegularFile, Mode::RUSR, 0).unwrap();
        };
        let options = ScanOptions {
            before_listing: Some(BeforeListing::new(tell)),
            ..with_helpers(helpers)
        };
        let mut directories = 0;
        for scanned in scanner_with(directory.path(), Rules::default(), options) {
            let Scanned::Batch(batch) = scanned else {
                continue;
            };
            directories += 1;
            let mut names = batch.entries.iter().map(|found| found.name);
            assert!(names.any(|it| it == name.as_bytes()), "{}", batch.path);
        }
        assert_eq!((directories, count.load(Ordering::Relaxed)), (1861, 1861));
    }
}

#[test]
fn a_helper_that_breaks_ends_the_walk() {
    let directory = wide();
    let broken = Arc::new(AtomicBool::new(false));
    let told = broken.clone();
    let tell = move |path: &RelPath, _: &Dir| {
        let helper = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("scan "));
        if helper {
            told.store(true, Ordering::Release);
            panic!("on purpose");
        }
        // The caller's own thread waits until a helper has taken something.
        while !path.is_root() && !told.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    };
    let options = ScanOptions {
        before_listing: Some(BeforeListing::new(tell)),
        ..with_helpers(2)
    };
    let mut scanner = scanner_with(directory.path(), Rules::default(), options);
    let last = scanner.by_ref().last();
    assert!(matches!(last, Some(Scanned::Aborted { .. })), "{last:?}");
    assert!(scanner.next().is_none());
    assert!(broken.load(Ordering::Acquire));
}

#[test]
fn a_walk_may_begin_at_a_directory() {
    let directory = wide();
    let whole = paths(&mut scanner(directory.path()));
    for (at, helpers) in [("7", 0), ("7", 2), ("7/3", 2), ("", 2)] {
        let at = RelPath::new(at).unwrap();
        let root = Arc::new(Root::open(directory.path()).unwrap());
        let options = with_helpers(helpers);
        let mut below = Scanner::below(at.clone(), root, Rules::default(), options);
        let expected: Vec<_> = whole
            .iter()
            .filter(|path| path.is_within(&at) && **path != at)
            .cloned()
            .collect();
        assert_eq!(paths(&mut below), expected);
    }
}
