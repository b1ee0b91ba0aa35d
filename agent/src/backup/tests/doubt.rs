//! What is not known for certain is read again, or kept.

use super::bench::{Bench, noise};
use crate::index::{self, Index};
use crate::volumes::{Ineligible, IneligibleReason};
use holdfast_format::path::RelPath;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_that_may_hide_a_change_is_not_believed() {
    let bench = Bench::new().await;
    bench.write("racy", "x");
    bench.write("clean", "y");
    // A time to come can hide any later write.
    let later = std::time::Duration::from_secs(4_000_000_000);
    let file = fs::File::options()
        .write(true)
        .open(bench.at("racy"))
        .unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + later)
        .unwrap();
    bench.run().await;
    for _ in 0..2 {
        let report = bench.run().await;
        assert_eq!(report.counters.files_read, 1);
        assert_eq!(report.counters.entries_changed, 0);
    }
}

/// A power cut can leave old bytes under new times: what had not settled is read after a boot.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_not_settled_is_read_again_after_a_boot() {
    let mut bench = Bench::new().await;
    bench.write("f", "x");
    bench.run().await;
    assert_eq!(bench.run().await.counters.files_read, 0);
    bench.options.boot_id = "another boot".to_owned();
    assert_eq!(bench.run().await.counters.files_read, 1);
    assert_eq!(bench.run().await.counters.files_read, 0);
}

/// C6, in a process without rights: what cannot be read keeps what the parent has of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_carried_over() {
    const INNER: &str = "HOLDFAST_TEST_WITHOUT_RIGHTS";
    if rustix::process::geteuid().is_root() && std::env::var_os(INNER).is_none() {
        use std::os::unix::process::CommandExt;
        // The test binary may lie where only root may look.
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let status = std::process::Command::new(program)
            .args([
                "--exact",
                "backup::tests::doubt::what_cannot_be_read_is_carried_over",
            ])
            .env(INNER, "1")
            .env("TMPDIR", "/tmp")
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let bench = Bench::new().await;
    for n in 0..20 {
        bench.write(&format!("closed/sub/f{n}"), noise(n, 2000));
        bench.write(&format!("open/f{n}"), noise(n, 2000));
    }
    bench.write("file", "old");
    bench.write("was_a_directory/x", "x");
    // Its names can be listed and nothing else.
    bench.write("names/sub/x", "x");
    bench.write("names/z", "z");
    bench.run().await;
    let before = bench.fake.latest();
    let mode = |path: &str, mode| {
        fs::set_permissions(bench.at(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    bench.write("file", "new");
    bench.write("never_seen", "x");
    fs::remove_dir_all(bench.at("was_a_directory")).unwrap();
    bench.write("was_a_directory", "now a file");
    fs::remove_file(bench.at("open/f3")).unwrap();
    for path in ["closed", "file", "never_seen", "was_a_directory"] {
        mode(path, 0);
    }
    mode("names", 0o444);
    let report = bench.try_run().await.unwrap();
    let after = bench.fake.latest();
    let key = |path: &str| RelPath::new(path).unwrap().to_key();
    assert_eq!(after[&key("closed/sub/f7")], before[&key("closed/sub/f7")]);
    for kept in ["file", "names/sub", "names/sub/x", "names/z"] {
        assert_eq!(after[&key(kept)], before[&key(kept)]);
    }
    for gone in [
        "open/f3",
        "never_seen",
        "was_a_directory",
        "was_a_directory/x",
    ] {
        assert!(!after.contains_key(&key(gone)), "{gone}");
    }
    let mut problems: Vec<_> = report
        .snapshot
        .first_problems
        .iter()
        .map(|(path, problem)| (path.to_string(), problem.carried_over))
        .collect();
    problems.sort();
    let expected = [
        ("closed", true),
        ("file", true),
        ("names/sub", true),
        ("names/z", true),
        ("never_seen", false),
        ("was_a_directory", false),
    ];
    let expected: Vec<_> = expected.map(|(p, c)| (p.to_owned(), c)).into();
    assert_eq!(problems, expected);
    mode("closed", 0o755);
    mode("names", 0o755);
    for path in ["file", "never_seen", "was_a_directory"] {
        mode(path, 0o644);
    }
    let report = bench.run().await;
    assert_eq!(report.problems(), 0);
    // A root that cannot be listed is no snapshot at all.
    mode("", 0);
    let error = bench.try_run().await.unwrap_err();
    mode("", 0o755);
    assert_eq!(error.reason(), "VolumeUnreadable");
}

/// A snapshot whose entries are damaged is no ground to build on, and no reason for none at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_parent_makes_a_whole_snapshot_without_one() {
    let bench = Bench::new().await;
    for n in 0..50 {
        bench.write(&format!("d{}/f{n}", n % 5), noise(n, 3000));
    }
    bench.run().await;
    bench.fake.state().damaged = vec!["d1".to_owned(), "d3/f33".to_owned()];
    fs::remove_dir_all(&bench.options.index_directory).unwrap();
    bench.write("d2/new", noise(100, 3000));
    let report = bench.run().await;
    let told = report.parent_damage.clone().unwrap();
    assert!(
        told.contains("at d1: 5 entries") && told.contains("d3/f33"),
        "{told}"
    );
    assert_eq!(report.counters.files_read, 51);
    let (sent, put) = {
        let state = bench.fake.state();
        (state.new_chunk_bytes, state.put.len())
    };
    assert_eq!(sent, 3000, "what the volume holds is not sent");
    assert_eq!(put, 51 + 6, "nothing is taken from the parent");
    assert_eq!(report.problems(), 0);
    // The next run builds on the new snapshot.
    bench.fake.state().damaged.clear();
    let report = bench.run().await;
    assert_eq!(
        (report.parent_damage, report.counters.files_read),
        (None, 0)
    );
}

/// The same where the index is good, and the coordinator meets the damage when it applies the changes.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_the_commit_meets_is_worked_around() {
    let bench = Bench::new().await;
    for n in 0..20 {
        bench.write(&format!("f{n}"), noise(n, 3000));
    }
    bench.run().await;
    bench.write("f3", noise(1000, 3000));
    bench.fake.state().refuse_commit = Some("DamageFound");
    let report = bench.run().await;
    assert!(report.parent_damage.is_some());
    assert_eq!(bench.fake.state().put.len(), 21);
    assert_eq!(bench.run().await.counters.entries_changed, 0);
}

/// What is not mounted is refused, never stored empty; what was stored of it stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_not_mounted_leaves_its_history_alone() {
    let mut bench = Bench::new().await;
    bench.write("f", noise(1, 5000));
    bench.run().await;
    let path = bench.options.index_directory.join(index::file_name("v"));
    let described = || Index::open(&path).unwrap().0.meta().cloned();
    let (before, indexed) = (bench.fake.latest(), described());
    // The kubelet's directory is there, and nothing is mounted on it.
    fs::remove_dir_all(bench.at("")).unwrap();
    fs::create_dir(bench.at("")).unwrap();
    bench.volume.eligible = Err(Ineligible {
        reason: IneligibleReason::VolumeNotMounted,
        detail: "nothing is mounted there".to_owned(),
    });
    let error = bench.try_run().await.unwrap_err();
    assert_eq!(error.reason(), "VolumeNotMounted");
    assert_eq!(bench.fake.state().snapshots.len(), 1);
    assert!(bench.fake.latest() == before);
    assert_eq!(described(), indexed);
}

/// The mount goes away (or another comes) while it is walked: no snapshot, and the index stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_unmounted_during_the_walk_is_not_stored() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bench = Bench::new().await;
    let root = bench.at("");
    let tmpfs = Some("tmpfs");
    mount(tmpfs, &root, tmpfs, MsFlags::empty(), None::<&str>).unwrap();
    for n in 0..50 {
        bench.write(&format!("d{}/f{n}", n % 5), noise(n, 50_000));
    }
    bench.run().await;
    let path = bench.options.index_directory.join(index::file_name("v"));
    let described = || Index::open(&path).unwrap().0.meta().cloned();
    let (before, indexed) = (bench.fake.latest(), described());
    bench.write("d1/new", noise(100, 50_000));
    let over = root.clone();
    bench.fake.state().on_upload = Some(Box::new(move || {
        umount2(&over, MntFlags::MNT_DETACH).unwrap();
    }));
    let error = bench.try_run().await.unwrap_err();
    assert_eq!(error.reason(), "VolumeUnmounted", "{error}");
    assert_eq!(bench.fake.state().snapshots.len(), 1);
    assert!(bench.fake.latest() == before);
    assert_eq!(described(), indexed);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}
