//! Every kind of object × every kind of damage: found and named, never restored as good data, and
//! whatever does not depend on it still comes back.

use holdfast_tests::cli::{Ended, Home};
use holdfast_tests::fixture;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// What happens to an object.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Missing,
    Empty,
    Truncated,
    FlippedFirst,
    FlippedMiddle,
    FlippedLast,
    Zeroed,
    Swapped,
}

const ALL: [Damage; 8] = [
    Damage::Missing,
    Damage::Empty,
    Damage::Truncated,
    Damage::FlippedFirst,
    Damage::FlippedMiddle,
    Damage::FlippedLast,
    Damage::Zeroed,
    Damage::Swapped,
];

impl Damage {
    fn do_to(self, object: &Path, other: &Path) {
        let mut bytes = fs::read(object).expect("an object");
        let (middle, last) = (bytes.len() / 2, bytes.len() - 1);
        match self {
            Damage::Missing => return fs::remove_file(object).expect("a removal"),
            Damage::Empty => bytes.clear(),
            Damage::Truncated => bytes.truncate(middle),
            Damage::FlippedFirst => bytes[0] ^= 1,
            Damage::FlippedMiddle => bytes[middle] ^= 0x10,
            Damage::FlippedLast => bytes[last] ^= 0x80,
            Damage::Zeroed => bytes.fill(0),
            Damage::Swapped => bytes = fs::read(other).expect("an object"),
        }
        fs::write(object, bytes).expect("a write");
    }
}

/// A home with two volumes, one of them twice, whose repository is copied for every case.
struct Base {
    home: Home,
    source: PathBuf,
    /// The source as the first snapshot of `vol` has it: what `latest` is once the second record is lost.
    first: PathBuf,
}

impl Base {
    fn new() -> Self {
        let home = Home::new();
        let source = home.at("source");
        fixture::contents(&source.join("contents"));
        fixture::links(&source.join("links"));
        home.backup(&source, "vol");
        let first = home.at("first");
        copy_tree(&source, &first);
        fixture::append(&source.join("contents/text"), b"second");
        fs::write(source.join("contents/new"), fixture::noise(77, 2_000_000)).expect("a file");
        home.backup(&source, "vol");
        fixture::contents(&home.at("other"));
        home.backup(&home.at("other"), "other");
        Self {
            home,
            source,
            first,
        }
    }

    /// A copy of this home's repository and key, with the state or without it.
    fn copy(&self, with_state: bool) -> Home {
        let copy = Home::new();
        copy_tree(&self.home.repo(), &copy.repo());
        fs::copy(self.home.at("repo.key"), copy.at("repo.key")).expect("the key");
        if with_state {
            copy_tree(&self.home.at("state"), &copy.at("state"));
        }
        copy
    }

    /// The objects of the repository by the first component of their names.
    fn by_kind(&self) -> BTreeMap<String, Vec<String>> {
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, _) in self.home.objects() {
            let kind = name.split('/').next().unwrap_or_default().to_owned();
            kinds.entry(kind).or_default().push(name);
        }
        kinds
    }

    /// Fails where a restored file differs from the source: wrong bytes are the one thing forbidden.
    fn assert_no_wrong_bytes(&self, restored: &Path, what: &str) -> (usize, usize) {
        let (mut good, mut absent) = (0, 0);
        let mut pending = vec![self.source.clone()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).expect("a directory").flatten() {
                let path = entry.path();
                let there = restored.join(path.strip_prefix(&self.source).expect("below"));
                if entry.file_type().expect("a type").is_dir() {
                    pending.push(path);
                } else if entry.file_type().expect("a type").is_file() {
                    match fs::read(&there) {
                        Ok(bytes) => {
                            let known = [&self.source, &self.first].map(|tree| {
                                let name = path.strip_prefix(&self.source).expect("below");
                                fs::read(tree.join(name)).ok()
                            });
                            assert!(
                                known.contains(&Some(bytes)),
                                "{what}: {} was restored with wrong bytes",
                                there.display()
                            );
                            good += 1;
                        }
                        Err(_) => absent += 1,
                    }
                }
            }
        }
        (good, absent)
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else if entry.file_type().expect("a type").is_file() {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn restore(home: &Home, target: &Path) -> Ended {
    home.run([
        OsStr::new("restore"),
        "vol@latest".as_ref(),
        "--target".as_ref(),
        target.as_os_str(),
    ])
}

#[test]
fn damaged_packs_lose_only_what_they_held() {
    let base = Base::new();
    let packs = base.by_kind().remove("packs").expect("packs");
    let mut incomplete = 0;
    for (number, pack) in packs.iter().enumerate() {
        for damage in ALL {
            let what = format!("{pack} {damage:?}");
            let home = base.copy(true);
            let other = home.repo().join(&packs[(number + 1) % packs.len()]);
            damage.do_to(&home.repo().join(pack), &other);
            let target = home.at("restored");
            let ended = restore(&home, &target);
            let (good, absent) = base.assert_no_wrong_bytes(&target, &what);
            match ended.code {
                0 => assert_eq!(absent, 0, "{what}: exit 0, but {absent} files are missing"),
                3 | 4 => {
                    incomplete += 1;
                    let said = ended.stderr.clone() + &ended.text();
                    let id = pack.rsplit('/').next().unwrap_or_default();
                    assert!(
                        said.contains(&id[..8]),
                        "{what}: the damaged object is not named:\n{said}"
                    );
                }
                code => panic!(
                    "{what}: exit {code}, {good} files came back\n{}\n{}",
                    ended.text(),
                    ended.stderr
                ),
            }
        }
    }
    assert!(
        incomplete > 0,
        "no damage was ever noticed: the test tests nothing"
    );
}

#[test]
fn other_damaged_objects_are_named_by_rebuild() {
    let base = Base::new();
    for (kind, objects) in base.by_kind() {
        // Released claims are advice; packs have their own test.
        if kind == "owner" || kind == "packs" {
            continue;
        }
        for damage in ALL {
            let home = base.copy(false);
            let object = home.repo().join(&objects[0]);
            let other = home.repo().join(objects.get(1).unwrap_or(&objects[0]));
            if matches!(damage, Damage::Swapped) && objects.len() < 2 {
                continue;
            }
            damage.do_to(&object, &other);
            let what = format!("{} {damage:?}", objects[0]);
            let ended = home.run(["rebuild"]);
            let said = ended.stderr.clone() + &ended.text();
            let target = home.at("restored");
            let restored = restore(&home, &target);
            base.assert_no_wrong_bytes(&target, &what);
            assert!(
                !said.contains("panicked") && !restored.stderr.contains("panicked"),
                "{what}: {said}"
            );
            // What is missing leaves no trace to be named by; everything else must be told, by name.
            if !matches!(damage, Damage::Missing) {
                assert_ne!(
                    ended.code, 0,
                    "{what}: rebuild says that all is well: {said}"
                );
                let name = objects[0].rsplit('/').next().unwrap_or_default();
                assert!(
                    said.contains(&name[..8.min(name.len())]),
                    "{what}: not named:\n{said}"
                );
            }
        }
    }
}

#[test]
fn the_store_and_the_key_are_enough() {
    let base = Base::new();
    let home = base.copy(false);
    let listed = base.home.ok(["snapshots", "-o", "json"]).text();
    home.ok(["rebuild"]);
    assert_eq!(home.ok(["snapshots", "-o", "json"]).text(), listed);
    let target = home.at("restored");
    let ended = restore(&home, &target);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (good, absent) = base.assert_no_wrong_bytes(&target, "rebuilt");
    assert!(good > 10 && absent == 0);
    // And it goes on: the next backup works and is right.
    fixture::append(&base.source.join("contents/text"), b"third");
    home.backup(&base.source, "vol");
    let target = home.at("again");
    assert_eq!(restore(&home, &target).code, 0);
    assert_eq!(
        base.assert_no_wrong_bytes(&target, "after the rebuild").1,
        0
    );
}

#[test]
fn a_wrong_key_is_told_before_anything_is_written() {
    let base = Base::new();
    let home = base.copy(false);
    let other = Home::new();
    fixture::contents(&other.at("x"));
    other.backup(&other.at("x"), "x");
    fs::copy(other.at("repo.key"), home.at("repo.key")).expect("a key");
    let before = home.objects();
    for args in [
        vec!["snapshots"],
        vec!["rebuild"],
        vec!["restore", "latest", "--target", "/nonexistent/x"],
    ] {
        assert_eq!(home.run(&args).code, 12, "{args:?}");
    }
    let backup = home.run([
        OsStr::new("backup"),
        base.source.as_os_str(),
        "--name".as_ref(),
        "vol".as_ref(),
    ]);
    assert_eq!(backup.code, 12, "{}", backup.stderr);
    assert_eq!(home.objects(), before);
}

#[test]
fn an_older_catalog_is_made_right_by_its_store() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source);
    home.backup(&source, "vol");
    copy_tree(&home.at("state"), &home.at("old-state"));
    for round in 0..3 {
        fs::write(
            source.join(format!("new-{round}")),
            fixture::noise(round + 50, 300_000),
        )
        .expect("a file");
        home.backup(&source, "vol");
    }
    let first = home
        .ok(["snapshots", "-o", "name"])
        .text()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    home.ok(["forget", &first]);
    let listed = home.ok(["snapshots", "-o", "name"]).text();
    fs::remove_dir_all(home.at("state")).expect("a removal");
    fs::rename(home.at("old-state"), home.at("state")).expect("a rename");
    assert_eq!(home.ok(["snapshots", "-o", "name"]).text(), listed);
    holdfast_tests::oracle::assert_same(&source, &home.restore("vol@latest", "restored"));
    fixture::append(&source.join("text"), b"more");
    home.backup(&source, "vol");
    holdfast_tests::oracle::assert_same(&source, &home.restore("vol@latest", "again"));
}
