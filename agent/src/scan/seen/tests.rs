use crate::beneath::Root;
use crate::cancel::Cancel;
use crate::rules::Rules;
use crate::scan::{Found, ScanOptions, Scanned, Scanner, Seen};
use holdfast_format::path::RelPath;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A volume with a run that has begun after everything in it was made.
struct Volume {
    directory: tempfile::TempDir,
    began_ns: i64,
}

impl Volume {
    fn with(files: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        // What is made from now on is younger: the filesystem's clock has moved on.
        let outside = tempfile::tempdir().unwrap();
        let tick = |name: &str| {
            let path = outside.path().join(name);
            fs::write(&path, b"").unwrap();
            let made = fs::metadata(&path).unwrap();
            made.ctime() * 1_000_000_000 + made.ctime_nsec()
        };
        let began_ns = tick("0") + super::LAG_NS + 1;
        while tick("1") < began_ns {
            fs::remove_file(outside.path().join("1")).unwrap();
        }
        Self {
            directory,
            began_ns,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn walk(&self, rules: Rules) -> (Scanner, Arc<Seen>) {
        let options = ScanOptions {
            began_ns: self.began_ns,
            ..ScanOptions::default()
        };
        let seen = options.seen.clone();
        let root = Arc::new(Root::open(self.directory.path()).unwrap());
        (Scanner::new(root, rules, options), seen)
    }
}

/// Goes on until the last batch of a directory was given.
fn until(scanner: &mut Scanner, directory: &str) -> Vec<Found> {
    for scanned in scanner {
        if let Scanned::Batch(batch) = scanned
            && batch.last
            && batch.path.to_string() == directory
        {
            return batch.entries.iter().map(|found| found.to_found()).collect();
        }
    }
    panic!("{directory} was not listed")
}

fn told(seen: &Seen) -> Vec<(String, String)> {
    let found = seen.look_back(&Cancel::new()).unwrap();
    let told = found.into_iter().map(|(path, problem)| {
        assert_eq!(problem.reason, "DirectoryChanged");
        let count = problem.detail.split(' ').next().unwrap().to_owned();
        (path.to_string(), count)
    });
    told.collect()
}

#[test]
fn what_moves_to_a_place_that_was_listed_is_told() {
    let volume = Volume::with(&["cur/a", "new/1", "new/2", "new/3"]);
    let (mut scanner, seen) = volume.walk(Rules::default());
    until(&mut scanner, "cur");
    volume.rename("new/1", "cur/1");
    volume.rename("new/2", "cur/2");
    until(&mut scanner, "new");
    assert!(scanner.next().is_none());
    assert_eq!(told(&seen), [("cur".to_owned(), "2".to_owned())]);
}

/// Logs that are written anew, caches, mail that arrives: nothing that was there is missing.
#[test]
fn what_comes_and_goes_is_no_problem() {
    let volume = Volume::with(&["cur/a", "cur/old", "new/1", "new/2", "tmp/x"]);
    let (mut scanner, seen) = volume.walk(Rules::default());
    until(&mut scanner, "cur");
    for gone in ["cur/old", "new/1"] {
        fs::remove_file(volume.path(gone)).unwrap();
    }
    fs::write(volume.path("tmp/made"), b"").unwrap();
    volume.rename("tmp/made", "cur/made");
    // Written aside and put in place of what was met.
    fs::write(volume.path("cur/.a"), b"").unwrap();
    volume.rename("cur/.a", "cur/a");
    fs::create_dir(volume.path("cur/sub")).unwrap();
    fs::write(volume.path("cur/sub/made"), b"").unwrap();
    let found = until(&mut scanner, "new");
    // One of those that were met goes before it is read.
    fs::remove_file(volume.path("new/2")).unwrap();
    seen.unread(&found[0].stat);
    until(&mut scanner, "tmp");
    assert!(scanner.next().is_none());
    assert_eq!(told(&seen), []);
}

#[test]
fn what_was_met_and_not_read_is_told_where_it_is_unless_it_was_met_again() {
    let volume = Volume::with(&["a/1", "a/2", "b/x"]);
    let (mut scanner, seen) = volume.walk(Rules::default());
    let found = until(&mut scanner, "a");
    volume.rename("a/1", "a/renamed");
    volume.rename("a/2", "b/2");
    for found in &found {
        seen.unread(&found.stat);
    }
    assert_eq!(until(&mut scanner, "b").len(), 2);
    assert!(scanner.next().is_none());
    assert_eq!(told(&seen), [("a".to_owned(), "1".to_owned())]);
}

#[test]
fn directories_that_move_are_told_if_they_were_not_entered() {
    let files = ["a/x", "b/early/1", "b/late/1", "c/x"];
    let volume = Volume::with(&files);
    let (mut scanner, seen) = volume.walk(Rules::default());
    until(&mut scanner, "b");
    // It was met, and is gone when it is to be entered; the other is whole before it moves.
    volume.rename("b/early", "a/early");
    until(&mut scanner, "b/late");
    volume.rename("b/late", "c/late");
    until(&mut scanner, "c");
    while scanner.next().is_some() {}
    let told = told(&seen);
    assert_eq!(told, [("a".to_owned(), "1".to_owned())]);
}

#[test]
fn a_new_directory_is_looked_into_and_what_the_rules_leave_out_is_not() {
    let volume = Volume::with(&["a/x", "b/1", "b/2.log", "b/3"]);
    let rules = Rules::new(&["*.log".to_owned(), "/a/skip".to_owned()], &[]).unwrap();
    let (mut scanner, seen) = volume.walk(rules);
    until(&mut scanner, "a");
    for made in ["a/new", "a/new/deep", "a/skip"] {
        fs::create_dir(volume.path(made)).unwrap();
    }
    volume.rename("b/1", "a/new/deep/1");
    volume.rename("b/2.log", "a/2.log");
    volume.rename("b/3", "a/skip/3");
    until(&mut scanner, "b");
    assert!(scanner.next().is_none());
    assert_eq!(told(&seen), [("a/new/deep".to_owned(), "1".to_owned())]);
}

/// The record of directories may be long: it is read back whole.
#[test]
fn many_directories_are_remembered() {
    let volume = Volume::with(&["0/x", "z/1"]);
    let name = |n: u32| format!("m{n:05}-{}", "long".repeat(20));
    for n in 0..3000 {
        fs::create_dir(volume.path(&name(n))).unwrap();
    }
    let (mut scanner, seen) = volume.walk(Rules::default());
    until(&mut scanner, &name(2999));
    volume.rename("z/1", "0/1");
    until(&mut scanner, "z");
    assert!(scanner.next().is_none());
    assert_eq!(told(&seen), [("0".to_owned(), "1".to_owned())]);
}

/// Many inodes leave few others that pass for met.
#[test]
fn the_filter_tells_inodes_apart() {
    let seen = Seen::new(Path::new("/nowhere"));
    let directory = tempfile::tempdir().unwrap();
    let root = Arc::new(Root::open(directory.path()).unwrap());
    seen.begin(root, Rules::default(), 0);
    let mut state = seen.state();
    for ino in 0..300_000 {
        state.mark(ino * 3);
    }
    assert!((0..300_000).all(|ino| state.has(ino * 3)));
    let wrong = (0..300_000).filter(|ino| state.has(ino * 3 + 1)).count();
    assert!(wrong < 100, "{wrong}");
}

/// Files that are renamed all the time, in a directory and from one to another, are met or told.
#[test]
fn under_renaming_nothing_is_missing_in_silence() {
    let names: Vec<String> = (0..2000).map(|n| format!("in/f{n}-0")).collect();
    let mut files: Vec<&str> = names.iter().map(String::as_str).collect();
    files.extend(["away/x", "to/x"]);
    let volume = Volume::with(&files);
    let all: BTreeSet<u64> = names
        .iter()
        .map(|name| fs::metadata(volume.path(name)).unwrap().ino())
        .collect();
    let (stop, renames) = (AtomicBool::new(false), AtomicU64::new(0));
    let top = volume.directory.path();
    let mut silent = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 0u64.. {
                for n in 0..2000 {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let at = |v: u64| {
                        let directory = ["in", "to", "in", "away"][(v % 4) as usize];
                        top.join(format!("{directory}/f{n}-{v}"))
                    };
                    fs::rename(at(version), at(version + 1)).unwrap();
                    renames.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let (scanner, seen) = volume.walk(Rules::default());
            let mut met = BTreeSet::new();
            for scanned in scanner {
                if let Scanned::Batch(batch) = scanned {
                    met.extend(batch.entries.iter().map(|found| found.stat.ino));
                }
            }
            let missing = all.iter().filter(|ino| !met.contains(ino)).count();
            if missing > 0 && seen.look_back(&Cancel::new()).unwrap().is_empty() {
                silent.push(missing);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(renames.load(Ordering::Relaxed) > 1000);
    // A single file may be renamed again while it is looked for.
    assert!(silent.iter().all(|missing| *missing < 3), "{silent:?}");
}

#[test]
fn a_root_has_no_name() {
    let volume = Volume::with(&["1", "d/x"]);
    let (mut scanner, seen) = volume.walk(Rules::default());
    until(&mut scanner, "");
    volume.rename("d/x", "x");
    until(&mut scanner, "d");
    assert!(scanner.next().is_none());
    let told = seen.look_back(&Cancel::new()).unwrap();
    assert_eq!(told[0].0, RelPath::root());
}
