//! In place: only what differs is written, nothing at all over an identical tree.

use super::*;
use std::os::unix::fs::MetadataExt;

const IN_PLACE: RestoreOptions = RestoreOptions {
    in_place: true,
    delete: false,
    special: true,
    dry_run: false,
};
const MIRROR: RestoreOptions = RestoreOptions {
    delete: true,
    ..IN_PLACE
};

#[tokio::test(flavor = "multi_thread")]
async fn an_identical_tree_is_not_touched() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    if is_root() {
        special(source.path());
    }
    let fake = Fake::of(source.path());
    run_well(
        &fake,
        target.path(),
        RestoreOptions {
            special: true,
            ..Default::default()
        },
    )
    .await;
    fake.asked.lock().unwrap().clear();
    let before = oracle::untouched(target.path());
    for options in [
        IN_PLACE,
        MIRROR,
        RestoreOptions {
            special: false,
            ..MIRROR
        },
    ] {
        let report = run_well(&fake, target.path(), options).await;
        assert_eq!(oracle::untouched(target.path()), before);
        assert!(fake.asked.lock().unwrap().is_empty());
        let entries = before.len() as u64;
        assert_eq!(report.count(Action::Keep), entries);
        assert_eq!(report.written_bytes, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_mended_and_extras_stay_or_go() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    run_well(&fake, target.path(), RestoreOptions::default()).await;
    let at = |name: &str| target.path().join(name);
    // Every kind of difference.
    fs::set_permissions(at("small"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(at("small"), b"other").unwrap();
    fs::File::options()
        .write(true)
        .open(at("many"))
        .unwrap()
        .write_all_at(b"!", 200_000)
        .unwrap();
    fs::File::options()
        .append(true)
        .open(at("long"))
        .unwrap()
        .write_all_at(b"!", 6 << 20)
        .unwrap();
    fs::File::options()
        .write(true)
        .open(at("sparse"))
        .unwrap()
        .write_all_at(b"!", 1 << 20)
        .unwrap();
    fs::File::options()
        .write(true)
        .open(at("single chunk"))
        .unwrap()
        .set_len(10)
        .unwrap();
    fs::remove_file(at("d/5")).unwrap();
    fs::set_permissions(at("d/6"), fs::Permissions::from_mode(0o600)).unwrap();
    age(&at("d/7"), 5, 5);
    fs::remove_file(at("d/8")).unwrap();
    fs::create_dir(at("d/8")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    fs::remove_file(at("fifo")).unwrap();
    fs::write(at("fifo"), b"a file").unwrap();
    fs::remove_dir(at("d/e/f")).unwrap();
    fs::write(at("d/e/f"), b"a file").unwrap();
    fs::remove_file(at("d/e/many again")).unwrap();
    fs::copy(at("many"), at("d/e/many again")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at("d"), "user.extra", b"x", flags).unwrap();
    fs::create_dir_all(at("extra/deep/er")).unwrap();
    fs::write(at("extra/deep/er/file"), b"x").unwrap();
    fs::write(at("d.e/extra"), b"x").unwrap();

    fake.asked.lock().unwrap().clear();
    let dry = run_well(
        &fake,
        target.path(),
        RestoreOptions {
            dry_run: true,
            ..MIRROR
        },
    )
    .await;
    let plan = dry.plan.as_ref().unwrap().to_string();
    for line in [
        "replace  many (",
        "create   d/5",
        "metadata d/6",
        "metadata d/7",
        "delete   extra\n",
        "delete   d.e/extra\n",
        "replace  fifo",
    ] {
        assert!(plan.contains(line), "{line} in\n{plan}");
    }
    assert!(!plan.contains("d/9 "), "{plan}");

    run_well(&fake, target.path(), IN_PLACE).await;
    assert!(at("extra/deep/er/file").exists() && at("d.e/extra").exists());
    let asked = fake.asked.lock().unwrap().len();
    assert!(asked < 30, "{asked} chunks fetched for a few differences");
    let report = run_well(&fake, target.path(), MIRROR).await;
    assert_eq!(report.count(Action::Delete), 2);
    oracle::assert_same(source.path(), target.path());
    rsync_agrees(source.path(), target.path());
    let sparse = fs::metadata(at("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "a hole was filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_extras_gives_way_only_with_delete() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&source.path().join("a"), b"file");
    put(&source.path().join("b"), b"file");
    fs::create_dir_all(target.path().join("a/full")).unwrap();
    let fake = Fake::of(source.path());
    let report = run(&fake, "", target.path(), IN_PLACE).await.unwrap();
    assert_eq!(report.problem_count, 1);
    assert_eq!(report.problems[0].problem.reason, "InTheWay");
    assert!(target.path().join("a/full").exists() && target.path().join("b").exists());
    run_well(&fake, target.path(), MIRROR).await;
    oracle::assert_same(source.path(), target.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_file_only_the_ranges_that_differ_are_written() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let size = IN_PLACE_ABOVE_BYTES as usize + 3_000_000;
    let mut bytes = noise(1, size);
    bytes[10 << 20..12 << 20].fill(0);
    put(&source.path().join("large"), &bytes);
    put(&source.path().join("middle"), &bytes[..30 << 20]);
    let fake = Fake::of(source.path());
    run_well(&fake, target.path(), RestoreOptions::default()).await;
    let ino = |name: &str| fs::metadata(target.path().join(name)).unwrap().ino();
    let before = (ino("large"), ino("middle"));
    for name in ["large", "middle"] {
        let file = fs::File::options()
            .write(true)
            .open(target.path().join(name))
            .unwrap();
        file.write_all_at(b"damage", 5 << 20).unwrap();
        file.write_all_at(b"in a hole", 11 << 20).unwrap();
        file.write_all_at(b"damage", 20 << 20).unwrap();
        if name == "large" {
            file.set_len(size as u64 + 5).unwrap();
        }
    }
    fake.asked.lock().unwrap().clear();
    let report = run_well(&fake, target.path(), IN_PLACE).await;
    assert_eq!(fake.asked.lock().unwrap().len(), 2);
    assert_eq!(report.written_bytes, 4 * 16 * 1024);
    oracle::assert_same(source.path(), target.path());
    assert_eq!(ino("large"), before.0, "written in place");
    assert_ne!(ino("middle"), before.1, "replaced in one step");
    let sparse = fs::metadata(target.path().join("large")).unwrap();
    assert!(
        sparse.blocks() * 512 < size as u64 - (1 << 20),
        "the hole is a hole again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_place_keeps_the_file_that_was_there() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&source.path().join("a"), &noise(1, 100_000));
    put(&target.path().join("a"), b"older");
    let mut fake = Fake::of(source.path());
    let bad = fake.chunks_of("a")[2];
    fake.damaged.insert(bad);
    let report = run(&fake, "", target.path(), IN_PLACE).await.unwrap();
    assert_eq!(report.problem_count, 1);
    assert_eq!(fs::read(target.path().join("a")).unwrap(), b"older");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_deletes_nothing_beside_it() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    let at = |name: &str| target.path().join(name);
    fs::create_dir_all(at("kept/deep")).unwrap();
    fs::write(at("kept/deep/file"), "kept").unwrap();
    fs::write(at("beside"), "kept").unwrap();
    fs::write(at("7"), "old").unwrap();
    let report = run(&fake, "d/7", target.path(), MIRROR).await.unwrap();
    assert_eq!(report.count(Action::Delete), 0);
    assert_eq!(
        fs::read(at("7")).unwrap(),
        fs::read(source.path().join("d/7")).unwrap()
    );
    assert_eq!(fs::read(at("kept/deep/file")).unwrap(), b"kept");
    assert_eq!(fs::read(at("beside")).unwrap(), b"kept");
    // Nor does a directory in its place go with all it holds.
    fs::remove_file(at("7")).unwrap();
    fs::create_dir(at("7")).unwrap();
    fs::write(at("7/inside"), "kept").unwrap();
    let report = run(&fake, "d/7", target.path(), MIRROR).await.unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!(fs::read(at("7/inside")).unwrap(), b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_restore_into_the_same_target_is_refused() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    let held = fs::File::open(target.path()).unwrap();
    held.lock().unwrap();
    let refused = run(&fake, "", target.path(), RestoreOptions::default()).await;
    assert_eq!(refused.unwrap_err().reason(), "TargetBusy");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    drop(held);
    run_well(&fake, target.path(), RestoreOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_made_and_is_there_already_is_not_missing() {
    if !is_root() {
        return;
    }
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = std::process::Command::new("mknod")
        .arg(source.path().join("null"))
        .args(["c", "1", "3"])
        .status();
    assert!(made.unwrap().success());
    fs::write(source.path().join("su"), "su").unwrap();
    fs::set_permissions(source.path().join("su"), fs::Permissions::from_mode(0o4755)).unwrap();
    let fake = Fake::of(source.path());
    let special = RestoreOptions {
        special: true,
        ..Default::default()
    };
    run_well(&fake, target.path(), special).await;
    let in_place = RestoreOptions {
        special: false,
        ..IN_PLACE
    };
    let report = run_well(&fake, target.path(), in_place).await;
    assert_eq!(report.skipped, []);
    fs::remove_file(target.path().join("null")).unwrap();
    let report = run_well(&fake, target.path(), in_place).await;
    assert_eq!(report.skipped, [(Skip::Devices, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_count_as_done_when_they_are_written_or_found() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let size = 1_000_000;
    fs::write(source.path().join("f"), noise(1, size)).unwrap();
    let mut fake = Fake::of(source.path());
    let done = async |fake: &Fake, options: RestoreOptions| {
        let progress = Progress::new();
        let restored = restore(
            fake.serve().await,
            ID,
            RelPath::root(),
            at(target.path()),
            &options,
            progress.clone(),
            Cancel::new(),
        );
        restored.await.unwrap();
        progress.view().done_bytes
    };
    let last = *fake.chunks_of("f").last().unwrap();
    fake.damaged.insert(last);
    let some = done(&fake, RestoreOptions::default()).await;
    assert!(
        0 < some && some < size as u64,
        "{some}: the file's last chunk is damaged"
    );
    fake.damaged.clear();
    assert_eq!(done(&fake, IN_PLACE).await, size as u64);
    assert_eq!(done(&fake, IN_PLACE).await, size as u64);
}
