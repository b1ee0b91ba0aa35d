//! Snapshots that are made while files are written: every word is one that its file had meanwhile at that place, a file
//! that is of several moments is told, and the first run afterwards has what the disk has.

mod process;

use super::*;
use crate::backup::tests::fake::Tree;
use process::{BLOCK, WORDS, Way, Writers, files, generations};
use std::collections::{BTreeMap, BTreeSet};

/// What was seen of the snapshots.
#[derive(Debug, Default)]
struct Seen {
    /// Made by journal.
    told: u32,
    /// Made by walk.
    walked: u32,
    /// Files that were reported as changed while they were read.
    reported: u32,
    /// Torn blocks in those.
    torn: u32,
    /// Torn blocks in others, which only one write can have torn.
    in_flight: u32,
}

/// Each word's generation in every file that is written in place.
fn on_disk(root: &Path) -> BTreeMap<String, Vec<u32>> {
    files()
        .filter(|(way, _)| way.in_place())
        .map(|(_, name)| {
            let bytes = fs::read(root.join(&name)).unwrap();
            let words = generations(&name, &bytes).unwrap();
            (name, words)
        })
        .collect()
}

/// Blocks of which not all words are of one generation.
fn torn(words: &[u32]) -> usize {
    let blocks = words.chunks(WORDS);
    blocks
        .filter(|block| block.len() < WORDS || block.iter().any(|word| *word != block[0]))
        .count()
}

/// Whether these words can be those of a file whose times did not move while it was read: they are of one moment, but
/// for one write that may have been under way all along, of which any part is there. Stores into a mapped page
/// show in the times once, until it is written back.
fn of_one_moment(way: Way, words: &[u32]) -> bool {
    let newest = *words.iter().max().unwrap();
    let blocks = words.chunks(WORDS).zip(way.at(newest, words.len() / WORDS));
    match way {
        Way::Mapped => torn(&words[WORDS..]) == 0,
        Way::Long => {
            let others: BTreeSet<u32> = words.iter().copied().filter(|n| *n != newest).collect();
            others.len() <= 1
        }
        _ => blocks.into_iter().all(|(block, [before, then])| {
            let under_way = then == newest;
            let fits = |word: &u32| *word == then || (under_way && *word == before);
            block.iter().all(fits)
        }),
    }
}

/// Whether each write after a look shows in the times here; before Linux 6.13 two in one tick look alike.
fn tells_each_write(directory: &Path) -> bool {
    let path = directory.join("times");
    let mut last = None;
    let tells = (0..100).all(|n| {
        fs::write(&path, [n]).unwrap();
        let now = path.metadata().unwrap().modified().unwrap();
        last.replace(now) != Some(now)
    });
    fs::remove_file(path).unwrap();
    tells
}

impl Bench {
    fn reported(&self) -> BTreeSet<String> {
        let state = self.fake.state();
        let problems = &state.snapshots.last().unwrap().2;
        let told = problems.iter().map(|problem| {
            let path = String::from_utf8(problem.path.to_vec()).unwrap();
            let known = ["ChangedWhileRead", "DirectoryChanged"];
            assert!(
                known.contains(&problem.reason.as_str()),
                "{path}: {}",
                problem.reason
            );
            path
        });
        told.collect()
    }

    /// One run while others write; its snapshot must be one of that time.
    async fn run_beside(&self, seen: &mut Seen, times_tell: bool) {
        let root = &self.volume.path;
        let before = on_disk(root);
        let report = self.try_run().await.unwrap();
        let after = on_disk(root);
        match report.walk {
            None => seen.told += 1,
            Some(_) => seen.walked += 1,
        }
        let reported = self.reported();
        let tree: Tree = self.fake.latest();
        let stored: BTreeMap<String, Vec<u8>> = tree
            .values()
            .filter(|(_, entry, _)| entry.kind == holdfast_format::entry::Kind::File)
            .map(|(path, entry, extents)| (path.to_string(), self.fake.content(entry, extents)))
            .collect();
        for (way, name) in files() {
            let Some(bytes) = stored.get(&name) else {
                // Between two names, which is told.
                assert!(!way.in_place() && !reported.is_empty(), "{name} is missing");
                continue;
            };
            let words = generations(&name, bytes).unwrap();
            let torn = torn(&words);
            if !way.in_place() {
                // Nobody ever writes over what is there.
                let first = words[0];
                assert!(
                    words.iter().all(|word| *word == first),
                    "{name} is of two files"
                );
                assert_eq!(bytes.len() % BLOCK, 0, "{name}");
                continue;
            }
            let [before, after] = [&before[&name], &after[&name]];
            assert_eq!(words.len(), before.len(), "{name}");
            for (at, word) in words.iter().enumerate() {
                let meanwhile = before[at]..=after[at];
                assert!(
                    meanwhile.contains(word),
                    "{name}: word {at} is of {word}, the file was at {meanwhile:?}"
                );
            }
            if reported.contains(&name) {
                seen.reported += 1;
                seen.torn += torn as u32;
            } else {
                seen.in_flight += torn as u32;
                let explained = !times_tell || of_one_moment(way, &words);
                assert!(explained, "{name} is of several moments in silence");
            }
        }
    }
}

/// Writers beside runs, and runs after them.
async fn written_meanwhile(kinds: &'static [Kind], directory: &Path) {
    let times_tell = tells_each_write(directory);
    let bench = Bench::new_in(directory).await.with_journals(kinds);
    let mut writers = Writers::start(&bench.volume.path);
    bench.run().await;
    until_trusted(&bench).await;
    let mut seen = Seen::default();
    let rounds = match std::env::var_os("HOLDFAST_SOAK") {
        Some(_) => 300,
        None => 5,
    };
    for _ in 0..rounds {
        writers.write();
        for _ in 0..4 {
            bench.run_beside(&mut seen, times_tell).await;
        }
        writers.quiet();
        let report = bench.run().await;
        assert_eq!(report.snapshot.first_problems, []);
    }
    eprintln!(
        "{kinds:?} in {}, every write shows: {times_tell}: {seen:?}",
        directory.display()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_disk_with_fanotify() {
    written_meanwhile(&Kind::ALL, Path::new("/var/tmp")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_disk_with_inotify() {
    written_meanwhile(&[Kind::Inotify], Path::new("/var/tmp")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_with_fanotify() {
    written_meanwhile(&Kind::ALL, Path::new("/dev/shm")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_other_filesystems() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested on ext4, xfs and btrfs images");
        return;
    }
    for (kind, mib) in [("ext4", 128), ("xfs", 320), ("btrfs", 200)] {
        let image = Image::make(kind, mib);
        written_meanwhile(&Kind::ALL, image.path()).await;
    }
}
