//! Files with writers are not forgotten, whatever becomes of their directories meanwhile; a volume that is
//! served no more is left alone soon.

use super::*;
use crate::journal::{Again, Beginning, Journals, Turn};
use crate::rules::Rules;
use crate::scan::{ScanOptions, Scanner};
use crate::sys;
use holdfast_format::id::SnapshotId;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

const KINDS: [&[Kind]; 2] = [&Kind::ALL, &[Kind::Inotify]];

/// A volume and its journal; what can wait is done by the tests themselves.
struct Scene {
    directory: tempfile::TempDir,
    journals: Journals,
    journal: Arc<Journal>,
    rules: Rules,
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("no root: not tested");
    }
    root
}

fn mount_at(path: &Path) {
    let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
    mount(kind, path, kind, flags, None::<&str>).unwrap();
}

impl Scene {
    fn new(kinds: &'static [Kind]) -> Self {
        Self::with(Journals::with(kinds, 1000).unwrap(), "v")
    }

    fn with(journals: Journals, volume: &str) -> Self {
        journals.hold_tending(true);
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let journal = journals.of(volume, directory.path());
        Self {
            directory,
            journals,
            journal,
            rules: Rules::default(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "content").unwrap();
    }

    fn many(&self, directory: &str, count: u32) {
        fs::create_dir(self.at(directory)).unwrap();
        for n in 0..count {
            File::create(self.at(&format!("{directory}/{n}"))).unwrap();
        }
    }

    fn writer(&self, path: &str) -> File {
        let mut options = OpenOptions::new();
        options.write(true).open(self.at(path)).unwrap()
    }

    fn begin(&self) -> Turn {
        let root = Root::open(&self.journal.path).unwrap();
        self.journal.begin(&Beginning {
            root: &root,
            identity: Identity::of(&root).unwrap(),
            rules: &self.rules,
            parent: None,
            started_ns: sys::realtime_ns(),
        })
    }

    fn accept(&self, turn: &Turn) {
        let snapshot = SnapshotId::from_bytes([1; 32]);
        turn.accepted(snapshot, Again::default(), &|_| true);
        self.journals.look_after(&self.journal, &self.rules);
    }

    /// A run that walks, and is accepted; why it does.
    fn walk(&self) -> Option<&'static str> {
        let turn = self.begin();
        let root = Arc::new(Root::open(&self.journal.path).unwrap());
        let options = ScanOptions {
            before_listing: turn.before_listing(),
            ..ScanOptions::default()
        };
        let walk = Scanner::new(root, self.rules.clone(), options);
        assert!(walk.count() > 0);
        self.accept(&turn);
        turn.reason()
    }

    fn seed(&self) -> bool {
        self.journal.seed(&self.rules);
        self.journal.state().seeded
    }

    /// The directory that lies there, as the last run knows.
    fn key(&self, path: &str) -> Key {
        let state = self.journal.state();
        let mut found = state.directories.at(|it| it == path.as_bytes());
        assert_eq!(found.len(), 1, "{path}");
        found.remove(0).0
    }

    /// Whether all of its files may have writers, and the names of those that may.
    fn open(&self, key: &Key) -> (bool, Vec<String>) {
        let list = self.journal.state().open.list();
        let Some(listed) = list.into_iter().find(|listed| listed.key == *key) else {
            return (false, Vec::new());
        };
        let names = listed.names.iter();
        let names = names.map(|(name, _)| String::from_utf8(name.to_vec()).unwrap());
        (listed.all > 0, names.collect())
    }

    fn unprobed(&self) -> Vec<RelPath> {
        let unprobed = self.journal.state().directories.unprobed();
        unprobed.into_iter().map(|(_, path)| path).collect()
    }

    fn exchange(&self, a: &str, b: &str) {
        let flags = RenameFlags::EXCHANGE;
        renameat_with(CWD, self.at(a), CWD, self.at(b), flags).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }
}

/// A name, and the only one.
fn only(name: &str) -> (bool, Vec<String>) {
    (false, vec![name.to_owned()])
}

#[test]
fn files_of_a_directory_that_was_moved_are_not_forgotten() {
    for kinds in KINDS {
        for exchanged in [false, true] {
            let scene = Scene::new(kinds);
            // Written by nobody in the place of one that is.
            scene.write("p/file");
            scene.write("o/file");
            let key = scene.key_after_walk("p");
            let writer = scene.writer("p/file");
            scene.journal.state().open.add(&key, b"file").unwrap();
            match exchanged {
                true => scene.exchange("p", "o"),
                false => {
                    scene.rename("p", "q");
                    fs::create_dir(scene.at("p")).unwrap();
                }
            }
            scene.journal.tidy();
            assert_eq!(scene.open(&key), only("file"), "{kinds:?} {exchanged}");
            scene.journal.state().open.suspect_all(&key).unwrap();
            scene.journal.tidy();
            assert!(scene.open(&key).0, "{kinds:?} {exchanged}");
            if exchanged {
                continue;
            }
            // A run came by.
            scene.walk();
            scene.journal.tidy();
            assert_eq!(scene.open(&key), only("file"), "somebody writes it");
            drop(writer);
            scene.journal.tidy();
            assert_eq!(scene.open(&key), (false, vec![]));
        }
    }
}

impl Scene {
    fn key_after_walk(&self, path: &str) -> Key {
        assert_eq!(self.walk(), Some("FirstRun"));
        assert!(self.seed());
        assert_eq!(self.unprobed(), []);
        self.key(path)
    }
}

#[test]
fn a_directory_that_moves_before_its_turn_is_suspected_when_a_run_comes_by() {
    for kinds in KINDS {
        let scene = Scene::new(kinds);
        scene.write("p/file");
        scene.write("p/below/file");
        scene.walk();
        let (key, below) = (scene.key("p"), scene.key("p/below"));
        scene.rename("p", "q");
        fs::create_dir(scene.at("p")).unwrap();
        assert!(scene.seed());
        let walk = scene.journal.state().walk + 1;
        for (key, at) in [(key, "q"), (below, "q/below")] {
            assert_eq!(scene.open(&key), (false, vec![]));
            let root = Root::open(&scene.journal.path).unwrap();
            let dir = root.dir(&path(at)).unwrap();
            scene.journal.watch(walk, &path(at), &dir);
            assert_eq!(scene.open(&key), (true, vec![]), "{kinds:?} {at}");
            // Once.
            scene.journal.tidy();
            scene.journal.watch(walk + 1, &path(at), &dir);
            assert_eq!(scene.open(&key), (false, vec![]), "{kinds:?} {at}");
        }
    }
}

#[test]
fn a_directory_that_a_run_found_again_is_probed() {
    for kinds in KINDS {
        let scene = Scene::new(kinds);
        scene.write("p/file");
        scene.write("o/file");
        let writer = scene.writer("p/file");
        scene.walk();
        scene.rename("p", "q");
        assert_eq!(scene.walk(), Some("Seeding"));
        let key = scene.key("q");
        // This one is found at the place of another without a run.
        scene.exchange("q", "o");
        assert!(scene.seed());
        assert_eq!(scene.unprobed(), []);
        assert_eq!(scene.open(&key), only("file"));
        drop(writer);
    }
}

#[test]
fn a_directory_that_cannot_be_looked_at_keeps_an_epoch_from_being_trusted() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&Kind::ALL);
    scene.write("a/file");
    scene.write("p/file");
    scene.walk();
    mount_at(&scene.at("p"));
    let seeded = scene.seed();
    umount2(&scene.at("p"), MntFlags::empty()).unwrap();
    assert!(!seeded);
    assert_eq!(scene.journal.standing().mode, "seeding");
    // What was probed is not probed again.
    assert_eq!(scene.unprobed(), [path("p")]);
    assert!(scene.seed());
    assert_eq!(scene.unprobed(), []);
}

#[test]
fn what_the_rules_leave_out_is_watched_before_an_epoch_is_trusted() {
    for kinds in KINDS {
        let mut scene = Scene::new(kinds);
        scene.rules = Rules::new(&["cache/".to_owned()], &[]).unwrap();
        scene.write("a/file");
        scene.write("cache/deep/file");
        scene.walk();
        assert_eq!(scene.unprobed().len(), 2);
        // A run may come by more of them.
        let turn = scene.begin();
        assert!(!scene.seed());
        scene.accept(&turn);
        assert!(scene.seed());
        assert_eq!(scene.unprobed(), []);
        scene.key("cache");
        scene.key("cache/deep");
    }
}

#[test]
fn without_rules_an_epoch_is_trusted_during_a_run() {
    let scene = Scene::new(&Kind::ALL);
    scene.write("a/file");
    scene.walk();
    let turn = scene.begin();
    assert!(scene.seed());
    scene.accept(&turn);
}

#[test]
fn every_epoch_is_probed_anew() {
    let scene = Scene::new(&Kind::ALL);
    scene.write("p/file");
    let key = scene.key_after_walk("p");
    // Nobody is told of opens of our own.
    let writer = scene.writer("p/file");
    scene.journal.state().break_for("Overflow");
    assert_eq!(scene.walk(), Some("Overflow"));
    assert_eq!(scene.unprobed().len(), 2);
    assert!(scene.seed());
    assert_eq!(scene.open(&key), only("file"));
    drop(writer);
}

#[test]
fn suspects_are_those_of_the_directory_that_the_run_came_by() {
    for kinds in KINDS {
        let scene = Scene::new(kinds);
        scene.write("p/file");
        let key = scene.key_after_walk("p");
        scene.rename("p", "q");
        scene.write("p/file");
        let paths = [path("p/file"), path("none/file"), path("")];
        scene.journal.suspect_all(&paths);
        assert_eq!(scene.open(&key), only("file"));
    }
}

#[test]
fn a_large_directory_is_probed_in_pieces() {
    let scene = Scene::new(&Kind::ALL);
    scene.many("d", 1000);
    let writer = scene.writer("d/777");
    let key = scene.key_after_walk("d");
    assert_eq!(scene.open(&key), only("777"));
    drop(writer);
}

#[test]
fn work_on_a_volume_that_is_served_no_more_ends() {
    let scene = Scene::new(&Kind::ALL);
    scene.many("d", 20_000);
    scene.walk();
    scene.journals.hold_tending(false);
    while scene.journal.state().open.entries() == 0 {
        thread::yield_now();
    }
    let began = Instant::now();
    scene.journals.retain(&HashSet::new());
    scene.journals.await_tending();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(!scene.journal.state().seeded);
    assert!(scene.unprobed().contains(&path("d")));
    // Nor is it begun again.
    assert!(!scene.seed());
}

#[test]
fn a_journal_without_a_volume_knows() {
    let scene = Scene::new(&[Kind::Inotify]);
    let elsewhere = scene.directory.path().join("elsewhere");
    let other = scene.journals.of("v", &elsewhere);
    assert!(scene.journal.gone.is_cancelled() && !other.gone.is_cancelled());
    scene.journals.let_go_of("v");
    assert!(other.gone.is_cancelled());
    let last = scene.journals.of("v", &elsewhere);
    assert!(!last.gone.is_cancelled());
    drop(scene);
    assert!(last.gone.is_cancelled());
}

#[test]
fn a_volume_can_be_unmounted_while_it_is_worked_on() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&Kind::ALL);
    mount_at(scene.directory.path());
    scene.many("d", 60_000);
    scene.walk();
    scene.journals.hold_tending(false);
    while scene.journal.state().open.entries() == 0 {
        thread::yield_now();
    }
    let until = Instant::now() + Duration::from_secs(2);
    while umount2(scene.directory.path(), MntFlags::empty()).is_err() {
        assert!(Instant::now() < until, "it is held");
    }
    assert!(!scene.journal.state().seeded, "it was not worked on");
}

#[test]
fn inodes_that_are_gone_are_forgotten_beside_the_reader() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&Kind::ALL);
    scene.many("elsewhere", 9000);
    let elsewhere = File::open(scene.at("elsewhere")).unwrap();
    let handle = |name: &str| source::handle_of(elsewhere.as_fd(), name.as_bytes()).unwrap();
    let mut handles: Vec<Handle> = (0..9000).map(|n| handle(&n.to_string())).collect();
    fs::remove_dir_all(scene.at("elsewhere")).unwrap();
    scene.write("file");
    scene.walk();
    let top = File::open(scene.directory.path()).unwrap();
    let living = source::handle_of(top.as_fd(), b"file").unwrap();
    handles.push(living.clone());
    for handle in handles {
        scene.journal.state().dirty.add_target(handle);
    }
    scene.journal.drain();
    let count = || scene.journal.state().dirty.targets.len();
    assert_eq!(count(), 9001, "the reader looks for none");
    // It asks for it when it is told something.
    scene.write("other");
    scene.journals.await_forgetting();
    scene.journals.hold_tending(false);
    scene.journals.await_tending();
    let state = scene.journal.state();
    assert!(state.dirty.targets.contains(&living));
    assert!(state.dirty.targets.len() < 10);
}

#[test]
fn a_small_volume_is_not_broken_by_a_large_one() {
    let journals = Journals::with(&Kind::ALL, 64).unwrap();
    let large = Scene::with(journals.clone(), "large");
    let small = Scene::with(journals, "small");
    for n in 0..60 {
        large.write(&format!("{n}/file"));
    }
    small.write("a/b/file");
    large.walk();
    small.walk();
    let broken = |scene: &Scene| scene.journal.state().broken;
    assert_eq!((broken(&large), broken(&small)), (None, None));
    assert!(large.seed() && small.seed());
    // There are 64 now.
    small.write("a/c/file");
    assert_eq!(small.walk(), Some("OtherParent"));
    assert_eq!(broken(&small), None);
    assert_eq!(broken(&large), Some("WatchLimit"));
    // At once.
    assert_eq!(large.journal.state().directories.len(), 0);
    assert!(large.journal.source().is_none());
    assert_eq!(large.walk(), Some("WatchLimit"));
    assert_eq!(broken(&small), None);
}
