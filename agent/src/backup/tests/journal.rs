//! Whatever happened between two runs, and whatever was told of it: the snapshot is the directory.

mod hidden;
mod histories;
mod in_flight;
mod limits;
mod moved;
pub(super) mod mutations;
mod tenant;
mod writers;

use super::bench::{Bench, noise};
use crate::journal::Journals;
use crate::journal::source::Kind;
use crate::journal::source::tests::place::Image;
use crate::sys::mapping::Mapping;
use rustix::fs::{CWD, RenameFlags};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use tenant::{Dice, Remote};
use tokio::task::JoinError;

impl Bench {
    fn with_journals(mut self, kinds: &'static [Kind]) -> Self {
        self.options.journals = Some(Journals::with(kinds, 100_000).unwrap());
        self
    }

    /// Waits until the journal is trusted, if it will be.
    fn settle(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        let journals = self.options.journals.as_ref().unwrap();
        while Instant::now() < until {
            match journals.standing().first() {
                Some((_, standing)) if standing.mode == "seeding" => {}
                _ => return,
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("it is never trusted");
    }
}

/// One tenant's life; runs by events and by walk. An error: a snapshot that was not the directory.
async fn live(
    seed: u64,
    kinds: &'static [Kind],
    directory: &Path,
    rounds: u32,
) -> Result<[u32; 2], JoinError> {
    let bench = Bench::new_in(directory).await.with_journals(kinds);
    let mut tenant = Remote::start(&bench.volume.path, seed);
    let mut dice = Dice(seed + 1);
    for _ in 0..60 {
        tenant.act();
    }
    let mut counts = [0, 0];
    for round in 0..rounds {
        tenant.done.push(format!("-- run {round}"));
        let ran = tokio::spawn({
            let bench = bench.shared();
            async move { bench.run().await.walk }
        });
        match ran.await {
            Ok(walk) => {
                counts[usize::from(walk.is_some())] += 1;
                if let Some(reason) = walk {
                    tenant.done.push(format!("-- walked: {reason}"));
                }
            }
            Err(error) => {
                eprintln!("seed {seed}:\n{}", tenant.done.join("\n"));
                return Err(error);
            }
        }
        bench.settle();
        for _ in 0..1 + dice.roll(8) {
            tenant.act();
        }
    }
    Ok(counts)
}

/// How many seeds, each of some thirty runs.
fn seeds() -> std::ops::Range<u64> {
    let soak = std::env::var_os("HOLDFAST_SOAK").is_some();
    let first = match soak {
        true => crate::sys::realtime_ns().unsigned_abs() / 1_000_000_000,
        false => 1,
    };
    first..first + if soak { 2000 } else { 8 }
}

async fn all_seeds(kinds: &'static [Kind], directory: &Path, rounds: u32) -> [u32; 2] {
    let mut all = [0, 0];
    for seed in seeds() {
        let counts = live(seed, kinds, directory, rounds).await;
        let [told, walked] = counts.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        all[0] += told;
        all[1] += walked;
    }
    eprintln!(
        "{kinds:?} in {}: {all:?} runs by events, by walk",
        directory.display()
    );
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fanotify_on_disk() {
    let [told, walked] = all_seeds(&Kind::ALL, Path::new("/var/tmp"), 30).await;
    assert!(told > walked * 5, "{told} {walked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fanotify_in_memory() {
    let [told, walked] = all_seeds(&Kind::ALL, Path::new("/dev/shm"), 30).await;
    assert!(told > walked * 5, "{told} {walked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_inotify() {
    let [told, _] = all_seeds(&[Kind::Inotify], Path::new("/var/tmp"), 30).await;
    assert!(told > 20, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fanotify_on_other_filesystems() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested on ext4, xfs and btrfs images");
        return;
    }
    for (kind, mib) in [("ext4", 64), ("xfs", 320), ("btrfs", 160)] {
        let image = Image::make(kind, mib);
        let [told, walked] = all_seeds(&Kind::ALL, image.path(), 12).await;
        assert!(told > walked * 3, "{kind}: {told} {walked}");
    }
}

/// Runs until one is by events.
pub(super) async fn until_trusted(bench: &Bench) {
    for _ in 0..10 {
        bench.settle();
        if bench.run().await.walk.is_none() {
            return;
        }
    }
    panic!("every run walks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_open_before_its_directory_was_watched_may_have_writers() {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let bench = bench.with_journals(&Kind::ALL);
    bench.write("old/file", noise(1, 5000));
    bench.run().await;
    until_trusted(&bench).await;
    // Nobody is told of what happens in a new directory before it is met.
    bench.write("new/deep/file", noise(2, 8192));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(bench.at("new/deep/file"));
    let mapping = Mapping::of(&file.unwrap());
    std::thread::sleep(Duration::from_millis(3200));
    assert_eq!(bench.run().await.walk, None);
    assert_eq!(bench.run().await.walk, None);
    for n in 1..4 {
        mapping.store(9, n);
        assert_eq!(bench.run().await.walk, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nameless_file_that_is_given_a_name_may_have_writers() {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let bench = bench.with_journals(&Kind::ALL);
    bench.write("there/file", "x");
    bench.run().await;
    until_trusted(&bench).await;
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
    let file = rustix::fs::open(bench.at("there"), flags, 0o600.into()).unwrap();
    let file = File::from(file);
    file.write_all_at(&noise(1, 8192), 0).unwrap();
    let mapping = Mapping::of(&file);
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(CWD, link, CWD, bench.at("there/named"), follow).unwrap();
    drop(file);
    std::thread::sleep(Duration::from_millis(3200));
    assert_eq!(bench.run().await.walk, None);
    for n in 1..4 {
        mapping.store(9, n);
        assert_eq!(bench.run().await.walk, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_files_do_not_end_an_epoch() {
    let bench = Bench::new_in(Path::new("/dev/shm")).await;
    let bench = bench.with_journals(&Kind::ALL);
    for n in 0..200 {
        bench.write(&format!("{}/{n}", n % 10), noise(n, 300));
    }
    bench.run().await;
    until_trusted(&bench).await;
    for round in 0..20 {
        for n in 0..3000 {
            let path = bench.at(&format!("3/{round}-{n}"));
            fs::write(&path, "temporary").unwrap();
            fs::remove_file(&path).unwrap();
        }
        bench.write(&format!("4/{round}"), "kept");
        assert_eq!(bench.run().await.walk, None, "round {round}");
    }
}
