//! A write(2) is stamped when it begins: what it puts into a file after a run has read it is under the same times. It
//! is taken in when the call ends, costs no filesystem its trust, and what is only open costs nothing.

use super::mutations::alone;
use super::*;
use crate::backup::tests::rolling::PERIOD_NS;
use crate::beneath::Root;
use crate::faults::{Fault, switches::break_rule};
use crate::index::{self, Index, Record, trust};
use crate::mount::FsClass;
use crate::sys::stalled;
use holdfast_format::digest::ContentDigest;
use holdfast_format::path::RelPath;

/// Of a file that is written by one call; less than what is never synced for us.
const HALF: usize = 2 << 20;
/// Stamps of open files are believed from this age on.
const AGE: Duration = Duration::from_millis(3200);

impl Bench {
    /// Whether files that are open are believed here at all.
    fn believes_open_files(&self) -> bool {
        let believes = Root::open(&self.volume.path).unwrap().class() == FsClass::Trusted;
        if !believes {
            println!("another filesystem than ext4, xfs or btrfs: not tested");
        }
        believes
    }

    fn open_for_writing(&self, path: &str) -> File {
        let file = OpenOptions::new().write(true).open(self.at(path));
        file.unwrap()
    }

    /// Changes what the index remembers.
    fn change_record(&self, path: &str, change: impl FnOnce(&mut Record)) {
        let at = self.options.index_directory.join(index::file_name("v"));
        let (mut index, _) = Index::open(&at).unwrap();
        let path = RelPath::new(path).unwrap();
        let mut record = index.lookup().unwrap().get(&path).unwrap().unwrap();
        change(&mut record);
        let mut writer = index.writer().unwrap();
        writer.put(&path, &record).unwrap();
        let meta = index.meta().unwrap().clone();
        index.advance(writer, meta).unwrap();
    }
}

/// A file that one call writes while a run reads it, and for longer than stamps of open files are doubted.
async fn survives_a_stalled_write(directory: &Path, kinds: Option<&'static [Kind]>) -> bool {
    let (bytes, rest) = stalled::bytes(HALF).unwrap();
    let bench = Bench::new_in(directory).await;
    let bench = match kinds {
        Some(kinds) => bench.with_journals(kinds),
        None => bench,
    };
    bench.write("file", noise(1, 2 * HALF));
    bench.write("other", noise(2, 5000));
    let file = bench.open_for_writing("file");
    bench.run().await;
    if kinds.is_some() {
        until_trusted(&bench).await;
    }
    let writer = std::thread::spawn(move || {
        file.write_all_at(bytes, 0).unwrap();
        file
    });
    std::thread::sleep(AGE);
    let during = bench.try_run().await;
    let in_time = !writer.is_finished();
    drop(rest);
    // Open all along: only the write itself is told.
    let _file = writer.join().unwrap();
    assert!(in_time, "the write did not wait");
    let during = during.unwrap();
    assert_eq!(during.walk.is_none(), kinds.is_some());
    assert_eq!((during.counters.files_read, during.problems()), (1, 0));
    bench.change_record("file", |record| {
        let doubts = trust::RACY | trust::INCONSISTENT | trust::BUSY;
        assert_eq!(record.trust & doubts, trust::BUSY);
    });
    let bench = bench.shared();
    let ran = tokio::spawn(async move { bench.run().await.walk }).await;
    if let Ok(walk) = &ran {
        assert_eq!(walk.is_none(), kinds.is_some());
    }
    ran.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_write_is_taken_in_when_it_ends() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested on an ext4 image");
        return;
    }
    if let Err(errno) = stalled::bytes(HALF) {
        println!("no userfaultfd here ({errno}): not tested");
        return;
    }
    let image = Image::make("ext4", 96);
    let all: [Option<&'static [Kind]>; 2] = [None, Some(&Kind::ALL)];
    for kinds in all {
        assert!(
            survives_a_stalled_write(image.path(), kinds).await,
            "{kinds:?}"
        );
    }
    if !alone() {
        return;
    }
    break_rule(Fault::BelieveBusy);
    for kinds in all {
        assert!(
            !survives_a_stalled_write(image.path(), kinds).await,
            "{kinds:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_and_idle_is_not_read_by_events() {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    if !bench.believes_open_files() {
        return;
    }
    let bench = bench.with_journals(&Kind::ALL);
    for n in 0..3 {
        bench.write(&format!("base/{n}"), noise(n, 100_000));
    }
    let _open = [0, 1, 2].map(|n| bench.open_for_writing(&format!("base/{n}")));
    std::thread::sleep(AGE);
    bench.run().await;
    until_trusted(&bench).await;
    for _ in 0..3 {
        let report = bench.run().await;
        assert_eq!((report.walk, report.counters.files_read), (None, 0));
    }
    // An event that may be the end of a write, of one of them.
    drop(bench.open_for_writing("base/1"));
    for read in [1, 0] {
        let report = bench.run().await;
        assert_eq!((report.walk, report.counters.files_read), (None, read));
    }
}

/// An event that is known by its directory alone may have been the end of a write.
async fn in_a_crowd(kinds: &'static [Kind]) {
    // More than are told apart in one directory.
    const MANY: u64 = 4500;
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    if !bench.believes_open_files() {
        return;
    }
    let bench = bench.with_journals(kinds);
    for n in 0..MANY {
        bench.write(&format!("d/{n}"), "x");
    }
    bench.write("d/open", noise(1, 5000));
    let _open = bench.open_for_writing("d/open");
    std::thread::sleep(AGE);
    bench.run().await;
    until_trusted(&bench).await;
    let other = Some(ContentDigest([7; 16]));
    bench.change_record("d/open", |record| record.content = other);
    drop(bench.open_for_writing("d/open"));
    for n in 0..MANY {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(bench.at(&format!("d/{n}")), mode).unwrap();
    }
    bench.run().await;
    bench.change_record("d/open", |record| assert_ne!(record.content, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_write_counts_where_names_are_not_told_apart() {
    in_a_crowd(&Kind::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_write_counts_where_names_are_not_told_apart_nor_targets() {
    in_a_crowd(&[Kind::Untargeted]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_finds_the_end_of_a_write_blames_no_filesystem() {
    let mut bench = Bench::new_in(Path::new("/var/tmp")).await.with_rolling();
    if !bench.believes_open_files() {
        return;
    }
    bench.write("open", noise(1, 5000));
    bench.write("quiet", noise(2, 5000));
    let _open = bench.open_for_writing("open");
    std::thread::sleep(AGE);
    bench.run().await;
    // Nothing tells a walk of the end of a write, so it reads what may have had one. Two reads that find the same, a
    // minute after the last change, are believed.
    assert_eq!(bench.run().await.counters.files_read, 1);
    bench.change_record("open", |record| {
        assert_eq!(record.trust & (trust::BUSY | trust::TWICE), trust::BUSY);
        record.trust |= trust::TWICE;
    });
    assert_eq!(bench.run().await.counters.files_read, 0);

    // The write went on after that.
    let other = Some(ContentDigest([7; 16]));
    bench.change_record("open", |record| record.content = other);
    let findings = bench.pass(PERIOD_NS).await;
    let found: Vec<String> = findings.in_flight.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["open"]);
    assert_eq!((findings.files, findings.silent.len()), (2, 0));
    let report = bench.run().await;
    assert_eq!(report.counters.files_read, 1, "nothing is distrusted");
    let problems: Vec<_> = report.snapshot.first_problems.iter().collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].0.to_string(), "open");
    assert_eq!(problems[0].1.reason, "ChangedWhileRead");

    // The next run may be another process's, which knows of the pass by the index only.
    bench.change_record("open", |record| {
        record.trust |= trust::TWICE;
        record.content = other;
    });
    assert_eq!(bench.pass(PERIOD_NS * 2).await.in_flight.len(), 1);
    bench = bench.with_rolling();
    let report = bench.run().await;
    assert_eq!((report.counters.files_read, report.problems()), (1, 0));
}
