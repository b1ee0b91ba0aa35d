//! A test of the tests: each rule of change detection is left out once, and that must show.
//!
//! The switches are of the whole process: each test here needs one of its own, as `cargo nextest` gives it.

use super::*;
use crate::faults::Fault;
use crate::faults::switches::{break_rule, refuse_listing};
use crate::sys::stalled;
use holdfast_format::path::RelPath;

/// Lives that are tried before a missing rule counts as unnoticed.
const LIVES: u64 = 60;

async fn shows(fault: Fault, directory: &str) -> bool {
    break_rule(fault);
    for seed in 1..LIVES {
        if live(seed, &Kind::ALL, Path::new(directory), 30)
            .await
            .is_err()
        {
            eprintln!("{fault:?} shows with seed {seed}");
            return true;
        }
    }
    false
}

/// Whether each test has a process of its own.
pub(in crate::backup::tests) fn alone() -> bool {
    let alone = std::env::var_os("NEXTEST").is_some();
    if !alone {
        println!("not run: other tests share this process");
    }
    alone
}

macro_rules! mutations {
    ($($name:ident: $fault:ident in $directory:literal,)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            assert!(!alone() || shows(Fault::$fault, $directory).await);
        }
    )*};
}

mutations! {
    a_probe_that_finds_nobody_shows: NoProbe in "/dev/shm",
    an_ignored_ctime_shows: IgnoreCtime in "/var/tmp",
    forgotten_writers_show: NoOpenFiles in "/var/tmp",
}

/// A directory takes another's place whose file is older and as long.
async fn survives_an_older_file() -> bool {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let bench = bench.with_journals(&Kind::ALL);
    bench.write("old/file", noise(1, 3000));
    std::thread::sleep(Duration::from_millis(50));
    bench.write("new/file", noise(2, 3000));
    bench.run().await;
    bench.settle();
    let flags = RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(CWD, bench.at("old"), CWD, bench.at("new"), flags).unwrap();
    let shared = bench.shared();
    tokio::spawn(async move { shared.run().await })
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn later_instead_of_different_shows() {
    if !alone() {
        return;
    }
    assert!(survives_an_older_file().await);
    break_rule(Fault::NewerOnly);
    assert!(!survives_an_older_file().await);
}

/// A page that was dirty when its file was read is stored to again.
async fn survives_a_second_store(directory: &Path) -> bool {
    let bench = Bench::new_in(directory).await;
    bench.write("file", noise(1, 8192));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(bench.at("file"));
    let mapping = Mapping::of(&file.unwrap());
    mapping.store(7, 1);
    // Until the stamp of a file that is open is old enough to be believed.
    std::thread::sleep(Duration::from_millis(3200));
    bench.try_run().await.unwrap();
    mapping.store(7, 2);
    let shared = bench.shared();
    tokio::spawn(async move { shared.run().await })
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_sync_shows() {
    if !alone() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested");
        return;
    }
    // Nobody else's syncs clean its pages.
    let image = Image::make("ext4", 64);
    // A walk that reads what was open before finds it without any sync; a run by events does not.
    break_rule(Fault::BelieveBusy);
    assert!(survives_a_second_store(image.path()).await);
    break_rule(Fault::NoSync);
    assert!(!survives_a_second_store(image.path()).await);
}

/// A file that is written by one call while it is read, and never again.
async fn survives_a_long_write() -> bool {
    let (new, rest) = stalled::bytes(1 << 20).unwrap();
    let bench = Bench::new_in(Path::new("/dev/shm")).await;
    let path = bench.at("file");
    fs::write(&path, vec![1; new.len()]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    bench.try_run().await.unwrap();
    // Its times are those of the call's beginning.
    let writer = std::thread::spawn(move || {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(new, 0).unwrap();
    });
    std::thread::sleep(Duration::from_millis(100));
    let during = bench.try_run().await;
    let in_time = !writer.is_finished();
    drop(rest);
    writer.join().unwrap();
    during.unwrap();
    assert!(in_time, "the write did not wait");
    std::thread::sleep(Duration::from_millis(50));
    let bench = bench.shared();
    tokio::spawn(async move { bench.run().await }).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn believed_young_stamps_show() {
    if !alone() {
        return;
    }
    if let Err(errno) = stalled::bytes(1 << 20) {
        println!("no userfaultfd here ({errno}): not tested");
        return;
    }
    // A walk that reads what was open before finds it however old its stamp is; a run by events does not.
    break_rule(Fault::BelieveBusy);
    assert!(survives_a_long_write().await);
    break_rule(Fault::NoRacyRule);
    assert!(!survives_a_long_write().await);
}

/// A queue overflows; what it lost must be found all the same.
async fn survives_an_overflow() -> bool {
    let bench = Bench::new_in(Path::new("/dev/shm"))
        .await
        .with_journals(&Kind::ALL);
    for n in 0..20_000 {
        bench.write(&format!("{}/{n}", n % 10), "x");
    }
    bench.run().await;
    bench.settle();
    bench.run().await;
    // A change of each, faster than anybody reads.
    let journals = bench.options.journals.as_ref().unwrap();
    journals.pause(true);
    for n in 0..20_000 {
        fs::set_permissions(
            bench.at(&format!("{}/{n}", n % 10)),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
    }
    journals.pause(false);
    let bench = bench.shared();
    tokio::spawn(async move { bench.run().await }).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_believed_overflow_shows() {
    if !alone() {
        return;
    }
    assert!(survives_an_overflow().await);
    break_rule(Fault::IgnoreOverflow);
    assert!(!survives_an_overflow().await);
}

/// A directory cannot be listed once; what is in it must not be gone.
async fn survives_a_failed_listing() -> bool {
    let bench = Bench::new_in(Path::new("/var/tmp"))
        .await
        .with_journals(&Kind::ALL);
    bench.write("a/b/file", "x");
    bench.run().await;
    bench.settle();
    fs::rename(bench.at("a"), bench.at("c")).unwrap();
    refuse_listing(Some(RelPath::new("c/b").unwrap()));
    bench.try_run().await.unwrap();
    refuse_listing(None);
    let bench = bench.shared();
    tokio::spawn(async move { bench.run().await }).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn believed_absence_shows() {
    if !alone() {
        return;
    }
    assert!(survives_a_failed_listing().await);
    break_rule(Fault::TrustAbsence);
    assert!(!survives_a_failed_listing().await);
}
