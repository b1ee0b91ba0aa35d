mod ahead;

use super::*;
use crate::beneath::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, FileType as RustixType, Mode, mkdirat, mknodat};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

fn scanner(path: &Path) -> Scanner {
    scanner_with(path, Rules::default(), ScanOptions::default())
}

fn scanner_with(path: &Path, rules: Rules, options: ScanOptions) -> Scanner {
    Scanner::new(Arc::new(Root::open(path).unwrap()), rules, options)
}

/// What this process has open in a directory or below it.
fn open_below(path: &Path) -> Vec<std::path::PathBuf> {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    targets.filter(|target| target.starts_with(path)).collect()
}

/// Every path in the order in which it comes; panics at a problem, or where the order is broken.
fn paths(scanner: &mut Scanner) -> Vec<RelPath> {
    let mut out: Vec<RelPath> = Vec::new();
    let mut open: Option<RelPath> = None;
    for scanned in scanner {
        let batch = match scanned {
            Scanned::Root { .. } => {
                out.push(RelPath::root());
                continue;
            }
            Scanned::Batch(batch) => batch,
            other => panic!("{other:?}"),
        };
        assert!(batch.failed.is_empty());
        if let Some(open) = &open {
            assert_eq!(
                open, &batch.path,
                "batches of a directory follow each other"
            );
        }
        open = (!batch.last).then(|| batch.path.clone());
        for found in batch.entries.iter() {
            let path = batch.path.join(found.name).unwrap();
            assert!(out.last().is_none_or(|last| last < &path), "{path} is late");
            out.push(path);
        }
    }
    assert_eq!(open, None);
    out
}

/// The same by other means: recursion over the standard library, sorted at the end.
fn oracle(path: &Path) -> Vec<RelPath> {
    fn walk(path: &Path, below: &RelPath, out: &mut BTreeSet<RelPath>) {
        out.insert(below.clone());
        if !path.symlink_metadata().unwrap().is_dir() {
            return;
        }
        for entry in path.read_dir().unwrap() {
            let entry = entry.unwrap();
            let next = below.join(entry.file_name().as_bytes()).unwrap();
            walk(&entry.path(), &next, out);
        }
    }
    let mut out = BTreeSet::new();
    walk(path, &RelPath::root(), &mut out);
    out.into_iter().collect()
}

#[test]
fn everything_is_found_in_key_order() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    for name in ["a", "a.b", "a/x", "a/x/y", "a b", "b/c/d", "empty"] {
        std::fs::create_dir_all(top.join(name)).unwrap();
    }
    for name in [
        &b"a/\xff"[..],
        b"a.b/\n",
        b"a/x/1",
        b"a!",
        b"a-",
        b"b/c/d/e",
        b"z",
    ] {
        std::fs::write(top.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    symlink("/etc", top.join("link")).unwrap();
    symlink("a", top.join("a/x/link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap();
    mknodat(CWD, top.join("fifo"), RustixType::Fifo, Mode::RUSR, 0).unwrap();
    if rustix::process::geteuid().is_root() {
        let null = rustix::fs::makedev(1, 3);
        let device = top.join("null");
        mknodat(CWD, device, RustixType::CharacterDevice, Mode::RUSR, null).unwrap();
    }
    let expected = oracle(top);
    for (batch_entries, sort_budget_bytes, helpers) in
        [(256, 1 << 24, 0), (1, 1 << 24, 0), (2, 100, 0), (2, 100, 3)]
    {
        let options = ScanOptions {
            batch_entries,
            sort_budget_bytes,
            helpers,
            ..ScanOptions::default()
        };
        let mut scanner = scanner_with(top, Rules::default(), options);
        assert_eq!(paths(&mut scanner), expected);
        assert_eq!(scanner.stats().entries_count, expected.len() as u64);
    }
}

#[test]
fn metadata_is_what_stat_says() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), b"four").unwrap();
    std::fs::hard_link(directory.path().join("file"), directory.path().join("twin")).unwrap();
    let mut scanner = scanner(directory.path());
    assert!(matches!(scanner.next(), Some(Scanned::Root { .. })));
    let Some(Scanned::Batch(batch)) = scanner.next() else {
        panic!("no batch")
    };
    let stat = *batch.entries.get(0).unwrap().stat;
    let expected = std::fs::metadata(directory.path().join("file")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(stat.size, 4);
    assert_eq!(
        (stat.ino, stat.nlink, stat.dev),
        (expected.ino(), 2, expected.dev())
    );
    let ns = |s: i64, n: i64| s * 1_000_000_000 + n;
    assert_eq!(stat.mtime_ns, ns(expected.mtime(), expected.mtime_nsec()));
    assert_eq!(stat.ctime_ns, ns(expected.ctime(), expected.ctime_nsec()));
    assert_eq!(stat.mode, expected.mode() & 0o7777);
    assert_eq!(stat.key(), batch.entries.get(1).unwrap().stat.key());
    assert_eq!(stat.key().mode, expected.mode());
}

#[test]
fn rules_leave_out_and_do_not_enter() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["keep/cache", "cache", "keep/deep"] {
        std::fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    for name in [
        "keep/cache/x",
        "cache/y",
        "keep/deep/z.log",
        "keep/deep/z",
        "a.log",
    ] {
        std::fs::write(directory.path().join(name), b"").unwrap();
    }
    let rules = Rules::new(&["/cache".to_owned(), "*.log".to_owned()], &[]).unwrap();
    let mut scanner = scanner_with(directory.path(), rules, ScanOptions::default());
    let found: Vec<String> = paths(&mut scanner).iter().map(|p| p.to_string()).collect();
    let expected = [
        "",
        "keep",
        "keep/cache",
        "keep/deep",
        "keep/cache/x",
        "keep/deep/z",
    ];
    assert_eq!(found, expected);
    assert_eq!(scanner.stats().excluded_count, 3);
}

#[test]
fn a_large_directory_is_sorted_on_disk() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let top = directory.path();
    for n in 0..200_000u64 {
        // Names in no order, of many lengths.
        let name = format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        std::fs::File::create(top.join(name)).unwrap();
    }
    for helpers in [0, 2] {
        let options = ScanOptions {
            sort_budget_bytes: 1 << 20,
            helpers,
            ..ScanOptions::default()
        };
        let mut scanner = scanner_with(top, Rules::default(), options);
        assert_eq!(paths(&mut scanner).len(), 200_001);
        assert_eq!(scanner.stats().spilled_count, 1);
    }
}

#[test]
fn many_subdirectories_are_entered_in_order() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    for n in 0..20_000 {
        let name = directory.path().join(format!("{:07}", n * 7919 % 20_000));
        std::fs::create_dir(&name).unwrap();
        if n % 50 == 0 {
            std::fs::write(name.join("file"), b"").unwrap();
        }
    }
    for helpers in [0, 2] {
        let options = ScanOptions {
            helpers,
            ..ScanOptions::default()
        };
        let found = paths(&mut scanner_with(
            directory.path(),
            Rules::default(),
            options,
        ));
        assert_eq!(found, oracle(directory.path()));
    }
}

#[test]
fn a_deep_tree_needs_few_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(directory.path()).unwrap();
    let mut at = root.top().unwrap();
    for level in 0..800 {
        // Two children a level, so that every level is come back to.
        for name in ["a-rather-long-name", "z"] {
            mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        }
        if level % 2 == 0 {
            let _ = mkdirat(&at, "b", Mode::from_raw_mode(0o755));
        }
        at = at.open_dir(b"a-rather-long-name").unwrap();
    }
    drop(at);
    for (helpers, bound) in [(0, 20), (2, 2 * (32 + 4) + 20)] {
        let options = ScanOptions {
            helpers,
            ..ScanOptions::default()
        };
        let (mut count, mut most) = (0, 0);
        let scanner = scanner_with(directory.path(), Rules::default(), options);
        for (turn, scanned) in scanner.enumerate() {
            match scanned {
                Scanned::Root { .. } => {}
                Scanned::Batch(batch) => count += batch.entries.len(),
                other => panic!("{other:?}"),
            }
            if turn % 16 == 0 {
                most = most.max(open_below(directory.path()).len());
            }
        }
        assert_eq!(count, 2000);
        assert!(most <= bound, "{most} with {helpers} helpers");
    }
}

#[test]
fn what_goes_away_meanwhile_is_gone_and_what_is_replaced_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    for name in ["a-gone", "b-file", "c-link", "d-stays"] {
        std::fs::create_dir(top.join(name)).unwrap();
        std::fs::write(top.join(name).join("x"), b"").unwrap();
    }
    let mut scanner = scanner(top);
    assert!(matches!(scanner.next(), Some(Scanned::Root { .. })));
    assert!(matches!(scanner.next(), Some(Scanned::Batch(b)) if b.entries.len() == 4 && b.last));
    for name in ["a-gone", "b-file", "c-link"] {
        std::fs::remove_dir_all(top.join(name)).unwrap();
    }
    std::fs::write(top.join("b-file"), b"").unwrap();
    symlink("/etc", top.join("c-link")).unwrap();
    let Some(Scanned::Batch(gone)) = scanner.next() else {
        panic!("no batch")
    };
    assert_eq!(gone.path.as_bytes(), b"a-gone");
    assert!(gone.entries.is_empty() && gone.last);
    for name in ["b-file", "c-link"] {
        let next = scanner.next();
        let Some(Scanned::ListingFailed { path, problem }) = next else {
            panic!("{next:?}")
        };
        assert_eq!(path.to_string(), name);
        assert_eq!(problem.reason, "ReplacedDuringScan");
    }
    assert!(matches!(scanner.next(), Some(Scanned::Batch(b)) if b.entries.len() == 1));
    assert!(scanner.next().is_none());
    assert!(scanner.next().is_none());
    assert_eq!(scanner.stats().vanished_count, 1);
}

#[test]
fn a_directory_that_may_not_be_read_is_unknown_and_the_rest_goes_on() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().to_owned();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&top, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("a", 0o700), ("b", 0o755)] {
        std::fs::create_dir(top.join(name)).unwrap();
        std::fs::write(top.join(name).join("x"), b"").unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(top.join(name), mode).unwrap();
    }
    // The filesystem's view of who asks belongs to the thread.
    let seen = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        scanner(&top).collect::<Vec<_>>()
    });
    let seen = seen.join().unwrap();
    assert_eq!(seen.len(), 4);
    let Scanned::ListingFailed { path, problem } = &seen[2] else {
        panic!("{:?}", seen[2])
    };
    assert_eq!(path.as_bytes(), b"a");
    assert_eq!(problem.reason, "PermissionDenied");
    assert_eq!(problem.errno, libc::EACCES);
    assert!(
        matches!(&seen[3], Scanned::Batch(b) if b.path.as_bytes() == b"b" && b.entries.len() == 1)
    );
}

/// Unmounts when the test ends, however it does.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn mounts_inside_are_boundaries() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("volume");
    for name in ["bind", "inner", "plain"] {
        std::fs::create_dir_all(top.join(name)).unwrap();
        std::fs::write(top.join(name).join("under"), b"").unwrap();
    }
    std::fs::create_dir(directory.path().join("other")).unwrap();
    std::fs::write(directory.path().join("other/secret"), b"").unwrap();
    std::fs::write(top.join("file"), b"").unwrap();
    let other = directory.path().join("other");
    let none = None::<&str>;
    // The same device, so that comparing devices would not show it.
    mount(
        Some(&other),
        &top.join("bind"),
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    let _bind = Mounted(top.join("bind"));
    mount(
        Some("tmpfs"),
        &top.join("inner"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    let _inner = Mounted(top.join("inner"));
    let secret = other.join("secret");
    mount(
        Some(&secret),
        &top.join("file"),
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    let _file = Mounted(top.join("file"));
    let seen: Vec<_> = scanner(&top).collect();
    assert_eq!(seen.len(), 3, "{seen:?}");
    let Scanned::Batch(batch) = &seen[1] else {
        panic!("{:?}", seen[1])
    };
    let boundaries: Vec<bool> = batch.entries.iter().map(|e| e.boundary).collect();
    assert_eq!(boundaries, [true, true, true, false]);
    for name in [&b"bind"[..], b"inner"] {
        assert_eq!(batch.dir.open_dir(name).unwrap_err(), Errno::XDEV);
    }
    assert_eq!(batch.dir.open_file(b"file").unwrap_err(), Errno::XDEV);
}

#[test]
fn a_cancelled_walk_ends_and_closes_what_it_had_open() {
    let directory = tempfile::tempdir().unwrap();
    for n in 0..100 {
        std::fs::create_dir(directory.path().join(n.to_string())).unwrap();
    }
    let options = ScanOptions::default();
    let cancel = options.cancel.clone();
    let mut scanner = scanner_with(directory.path(), Rules::default(), options);
    for _ in 0..10 {
        assert!(scanner.next().is_some());
    }
    cancel.cancel();
    assert!(scanner.next().is_none());
    assert_eq!(open_below(directory.path()).len(), 1, "the root alone");
}

/// Tells a thread to end when it goes.
struct Ending<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn no_swapping_of_a_directory_for_a_symlink_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(outside.path().join("target/sub")).unwrap();
    for name in ["target/canary", "target/sub/canary"] {
        std::fs::write(outside.path().join(name), b"canary").unwrap();
    }
    let inside = tempfile::tempdir().unwrap();
    let top = inside.path().to_owned();
    for name in ["d", "e/d"] {
        std::fs::create_dir_all(top.join(name).join("sub")).unwrap();
        std::fs::write(top.join(name).join("good"), b"good").unwrap();
        let link = top.join(format!("{name}.link"));
        symlink(outside.path().join("target"), link).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let done = std::sync::atomic::Ordering::Relaxed;
    let (mut scans, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{RenameFlags, renameat_with};
            while !stop.load(done) {
                for name in ["d", "e/d"] {
                    let (a, b) = (top.join(name), top.join(format!("{name}.link")));
                    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        // Ends the other thread also where an assertion fails.
        let _ending = Ending(&stop);
        let start = std::time::Instant::now();
        let seconds = std::time::Duration::from_secs;
        // Until it was met in the middle of an exchange, on a machine with other work on it too.
        while start.elapsed() < seconds(2) || (refused == 0 && start.elapsed() < seconds(60)) {
            scans += 1;
            let options = ScanOptions {
                helpers: scans % 3,
                ..ScanOptions::default()
            };
            for scanned in scanner_with(&top, Rules::default(), options) {
                let batch = match scanned {
                    Scanned::Batch(batch) => batch,
                    Scanned::ListingFailed { .. } => {
                        refused += 1;
                        continue;
                    }
                    _ => continue,
                };
                for found in batch.entries.iter() {
                    assert_ne!(found.name, b"canary", "in {}", batch.path);
                    if let Ok(file) = batch.dir.open_file(found.name) {
                        let mut bytes = Vec::new();
                        let mut file = std::fs::File::from(file);
                        if std::io::Read::read_to_end(&mut file, &mut bytes).is_ok() {
                            assert_ne!(bytes, b"canary");
                        }
                    }
                }
            }
        }
    });
    assert!(
        scans > 10 && refused > 0,
        "{scans} scans, {refused} refused"
    );
}
