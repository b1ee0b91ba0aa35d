//! What is read again: every file once in a period, beside runs; what changed without a sign is found.

use super::bench::{Bench, noise};
use super::journal::mutations::alone;
use crate::faults::{Fault, switches::break_rule};
use crate::journal::Journals;
use crate::journal::source::Kind;
use crate::journal::source::tests::place::Image;
use crate::limits::RateLimit;
use crate::rolling::{Findings, PassOptions, Rolling};
use crate::sys::mapping::Mapping;
use crate::{Cancel, Progress};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
pub(super) const PERIOD_NS: i64 = PERIOD.as_nanos() as i64;

impl Bench {
    pub(super) fn with_rolling(mut self) -> Self {
        self.options.rolling = Some(Rolling::new(PERIOD, &self.options.index_directory));
        self
    }

    /// A pass at this time after now.
    pub(super) async fn pass(&self, after_ns: i64) -> Findings {
        let rolling = self.options.rolling.clone().unwrap();
        let options = PassOptions {
            boot_id: self.options.boot_id.clone(),
            node: self.options.node.clone(),
            rate: RateLimit::unlimited(),
            now_ns: self.options.clock.now_ns() + after_ns,
            most: None,
            journals: self.options.journals.clone(),
            progress: Progress::new(),
            cancel: Cancel::new(),
        };
        let pass = move || rolling.pass("v", &options);
        tokio::task::spawn_blocking(pass).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_read_once_in_a_period() {
    let bench = Bench::new_in(Path::new("/var/tmp")).await.with_rolling();
    for n in 0..500 {
        bench.write(&format!("{}/{n}", n % 7), noise(n, 100 + 10 * n as usize));
    }
    // Nothing is in it, or it is read on every run.
    bench.write("empty", "");
    bench.run().await;
    assert_eq!(bench.pass(1).await, Findings::default());
    let mut all = Findings::default();
    for part in 1..=10 {
        let findings = bench.pass(PERIOD_NS / 10 * part).await;
        assert!((20..90).contains(&findings.files), "{findings:?}");
        assert_eq!(bench.pass(PERIOD_NS / 10 * part).await, Findings::default());
        all.add(findings);
    }
    let bytes = (0..500).map(|n| 100 + 10 * n).sum();
    let expected = Findings {
        files: 500,
        bytes,
        ..Findings::default()
    };
    assert_eq!(all, expected);
    // Late, each file is read once all the same.
    assert_eq!(bench.pass(PERIOD_NS * 5).await, expected);
    // A clock that was set back; then a new start from there.
    assert_eq!(bench.pass(0).await, Findings::default());
    assert_eq!(bench.pass(PERIOD_NS).await.files, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_the_index_is_not_disturbed() {
    let bench = Bench::new_in(Path::new("/var/tmp")).await.with_rolling();
    bench.write("a", noise(1, 1000));
    bench.run().await;
    let rolling = bench.options.rolling.clone().unwrap();
    let held = rolling.hold("v").await;
    assert_eq!(bench.pass(PERIOD_NS).await, Findings::default());
    drop(held);
    assert_eq!(bench.pass(PERIOD_NS).await.files, 1);
    // What changed since the run is the next run's affair.
    bench.write("a", noise(2, 1000));
    assert_eq!(bench.pass(PERIOD_NS * 2).await, Findings::default());
    bench.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_without_a_sign_is_found_and_told_and_costs_trust() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: nothing can be damaged beneath a filesystem");
        return;
    }
    let image = Image::make("ext4", 64);
    let mut bench = Bench::new_in(image.path()).await.with_rolling();
    bench.options.journals = Some(Journals::with(&Kind::ALL, 1000).unwrap());
    let damaged = noise(77, 50_000);
    for n in 0..10 {
        bench.write(&format!("some/{n}"), noise(n, 20_000));
    }
    bench.write("some/damaged", &damaged);
    bench.run().await;
    assert_eq!(bench.pass(PERIOD_NS).await.files, 11);

    // The bytes change on the disk; the filesystem is not asked.
    let file = File::open(bench.at("some/damaged")).unwrap();
    rustix::fs::syncfs(&file).unwrap();
    let before = file.metadata().unwrap();
    let beneath = image.path().with_file_name("image");
    let disk = OpenOptions::new().write(true).open(&beneath).unwrap();
    let bytes = fs::read(&beneath).unwrap();
    let at = bytes
        .windows(512)
        .position(|some| *some == damaged[8192..8704]);
    disk.write_all_at(b"rotten", at.unwrap() as u64 + 100)
        .unwrap();
    disk.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    drop(file);
    assert_ne!(fs::read(bench.at("some/damaged")).unwrap(), damaged);
    let after = fs::metadata(bench.at("some/damaged")).unwrap();
    assert_eq!(
        (before.mtime_nsec(), before.ctime_nsec(), before.size()),
        (after.mtime_nsec(), after.ctime_nsec(), after.size())
    );

    let findings = bench.pass(PERIOD_NS * 2).await;
    let silent: Vec<String> = findings.silent.iter().map(ToString::to_string).collect();
    assert_eq!(silent, ["some/damaged"]);
    assert_eq!((findings.files, findings.untold.len()), (11, 0));

    let report = bench.run().await;
    assert_eq!(report.walk, Some("FilesystemDistrusted"));
    assert_eq!(report.counters.files_read, 11);
    let problems: Vec<_> = report.snapshot.first_problems.iter().collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].0.to_string(), "some/damaged");
    assert_eq!(problems[0].1.reason, "ChangedSilently");
    // It is told once; what lies on such a filesystem is read by every run, also of the next agent.
    bench.options.rolling = Some(Rolling::new(PERIOD, &bench.options.index_directory));
    let report = bench.run().await;
    assert_eq!((report.problems(), report.counters.files_read), (0, 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_journal_missed_ends_its_epoch() {
    if !alone() {
        return;
    }
    break_rule(Fault::NoOpenFiles);
    let mut bench = Bench::new_in(Path::new("/var/tmp")).await.with_rolling();
    bench.options.journals = Some(Journals::with(&Kind::ALL, 1000).unwrap());
    bench.write("mapped", noise(1, 8192));
    bench.write("other", noise(2, 8192));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(bench.at("mapped"));
    let mapping = Mapping::of(&file.unwrap());
    std::thread::sleep(Duration::from_millis(3200));
    bench.run().await;
    super::journal::until_trusted(&bench).await;
    mapping.store(9, 1);
    let findings = bench.pass(PERIOD_NS).await;
    let untold: Vec<String> = findings.untold.iter().map(ToString::to_string).collect();
    assert_eq!(
        (untold, findings.silent.len()),
        (vec!["mapped".to_owned()], 0)
    );
    assert_eq!(bench.run().await.walk, Some("ChangeMissed"));
}
