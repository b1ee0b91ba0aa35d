//! Restores over a service that lies, breaks and loses, into targets that are traps. The oracle reads
//! both trees with plain calls; rsync, where it is installed, has the last word.

mod fake;
mod hostile;
mod in_place;
mod oracle;
mod resume;
mod sample;
mod space;

use super::*;
use fake::Fake;
use sample::{age, noise, put, sample, special};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::time::Duration;

const ID: SnapshotId = SnapshotId::from_bytes([9; 32]);

/// Temporary files go beside nothing that is compared.
fn at(directory: &Path) -> Target<'_> {
    Target {
        directory,
        temporary: Path::new("/tmp"),
        within: None,
    }
}

async fn run(
    fake: &Fake,
    path: &str,
    target: &Path,
    options: RestoreOptions,
) -> Result<RestoreReport> {
    let channel = fake.serve().await;
    let path = RelPath::new(path).unwrap();
    restore(
        channel,
        ID,
        path,
        at(target),
        &options,
        Progress::new(),
        Cancel::new(),
    )
    .await
}

async fn run_well(fake: &Fake, target: &Path, options: RestoreOptions) -> RestoreReport {
    let report = run(fake, "", target, options).await.unwrap();
    assert_eq!(report.problems, [], "problems");
    report
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn rsync_agrees(expected: &Path, found: &Path) {
    let slash = |path: &Path| format!("{}/", path.display());
    let output = std::process::Command::new("rsync")
        .args(["-nacHAX", "--delete", "--itemize-changes"])
        .args([slash(expected), slash(found)])
        .output();
    if let Ok(output) = output {
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "",
            "rsync sees differences"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_as_it_was() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let options = if is_root() {
        special(source.path());
        RestoreOptions {
            special: true,
            ..Default::default()
        }
    } else {
        RestoreOptions::default()
    };
    let report = run_well(&Fake::of(source.path()), target.path(), options).await;
    oracle::assert_same(source.path(), target.path());
    rsync_agrees(source.path(), target.path());
    assert_eq!(report.skipped, []);
    let blocks = std::os::unix::fs::MetadataExt::blocks;
    let sparse = fs::metadata(target.path().join("sparse")).unwrap();
    assert!(blocks(&sparse) * 512 < 1 << 20, "a hole was filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_past_the_page_cache_keeps_its_bytes_and_its_holes() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let large = fs::File::create(source.path().join("large")).unwrap();
    for (seed, (at, length)) in [
        (0, 3_000_777),
        (20 << 20, 4096),
        ((70 << 20) + 5, 2_500_000),
    ]
    .into_iter()
    .enumerate()
    {
        large.write_all_at(&noise(seed as u64, length), at).unwrap();
    }
    large.set_len(80 << 20).unwrap();
    run_well(
        &Fake::of(source.path()),
        target.path(),
        RestoreOptions::default(),
    )
    .await;
    oracle::assert_same(source.path(), target.path());
    let restored = fs::metadata(target.path().join("large")).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&restored);
    assert!(blocks * 512 < 8 << 20, "a hole was filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn special_things_need_special() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    special(source.path());
    let fake = Fake::of(source.path());
    let report = run_well(&fake, target.path(), RestoreOptions::default()).await;
    let many = fs::metadata(target.path().join("many")).unwrap();
    assert_eq!(
        (many.mode() & 0o7777, many.uid(), many.gid()),
        (0o755, 12345, 54321)
    );
    let names: Vec<_> = oracle::xattrs(&target.path().join("many"))
        .into_iter()
        .map(|x| x.0)
        .collect();
    assert!(!names.contains(&b"security.capability".to_vec()));
    assert!(!target.path().join("device").exists());
    let expected = [
        (Skip::Devices, 1),
        (Skip::Capabilities, 1),
        (Skip::SetId, 1),
    ];
    assert_eq!(report.skipped, expected);
    assert!(report.is_complete());
    assert_eq!(report.skipped_lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subtree_and_a_single_file() {
    let source = tempfile::tempdir().unwrap();
    sample(source.path());
    let fake = Fake::of(source.path());
    let target = tempfile::tempdir().unwrap();
    let below = target.path().join("not/there yet");
    let report = run(&fake, "d", &below, RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(report.problems, []);
    // The other name of each link group lies outside: the file comes with its content.
    let alone = tempfile::tempdir().unwrap();
    for name in ["many again", "small again"] {
        let from = if name == "many again" {
            "many"
        } else {
            "small"
        };
        fs::copy(source.path().join(from), alone.path().join(name)).unwrap();
    }
    assert_eq!(
        fs::read(below.join("e/many again")).unwrap(),
        fs::read(source.path().join("many")).unwrap()
    );
    assert_eq!(
        fs::read(below.join("small again")).unwrap(),
        fs::read(source.path().join("small")).unwrap()
    );
    let mut expected = oracle::dump(&source.path().join("d"));
    let found = oracle::dump(&below);
    expected.retain(|path, _| !path.ends_with(b"again"));
    for (path, line) in expected {
        assert_eq!(found.get(&path), Some(&line), "{}", path.escape_ascii());
    }

    let single = tempfile::tempdir().unwrap();
    let report = run(&fake, "d/7", single.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert!(report.is_complete());
    assert_eq!(
        fs::read(single.path().join("7")).unwrap(),
        fs::read(source.path().join("d/7")).unwrap()
    );
    assert_eq!(fs::read_dir(single.path()).unwrap().count(), 1);

    let missing = tempfile::tempdir().unwrap();
    let error = run(&fake, "nowhere", missing.path(), RestoreOptions::default()).await;
    assert_eq!(error.unwrap_err().reason(), "PathNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_outside_links_become_one_inode() {
    use std::os::unix::fs::MetadataExt;
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("d")).unwrap();
    put(&source.path().join("a"), &noise(1, 50_000));
    fs::hard_link(source.path().join("a"), source.path().join("d/x")).unwrap();
    fs::hard_link(source.path().join("a"), source.path().join("d/y")).unwrap();
    let fake = Fake::of(source.path());
    let report = run(&fake, "d", target.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(report.problems, []);
    let ino = |name| fs::metadata(target.path().join(name)).unwrap().ino();
    assert_eq!(ino("x"), ino("y"));
    assert_eq!(fs::read(target.path().join("y")).unwrap(), noise(1, 50_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_in_use_is_refused_and_untouched() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&source.path().join("a"), b"new");
    put(&target.path().join("a"), b"precious");
    let before = oracle::untouched(target.path());
    let fake = Fake::of(source.path());
    let error = run(&fake, "", target.path(), RestoreOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "TargetNotEmpty");
    assert!(error.to_string().contains("--in-place"), "{error}");
    let file = target.path().join("a");
    let error = run(&fake, "", &file, RestoreOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "TargetNotDirectory");
    let delete = RestoreOptions {
        delete: true,
        ..Default::default()
    };
    let error = run(&fake, "", target.path(), delete).await.unwrap_err();
    assert_eq!(error.reason(), "DeleteWithoutInPlace");
    assert_eq!(oracle::untouched(target.path()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_leaves_one_file_out_and_names_it() {
    let source = tempfile::tempdir().unwrap();
    sample(source.path());
    for way in ["damaged", "wrong", "silent"] {
        let target = tempfile::tempdir().unwrap();
        let mut fake = Fake::of(source.path());
        let bad = fake.chunks_of("many")[3];
        match way {
            "damaged" => fake.damaged.insert(bad),
            "wrong" => fake.wrong.insert(bad),
            _ => fake.silent.insert(bad),
        };
        let report = run(&fake, "", target.path(), RestoreOptions::default())
            .await
            .unwrap();
        assert!(!report.is_complete());
        let named: Vec<_> = report.problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(named, ["d/e/many again", "many"], "{way}");
        let reason = report.problems[1].problem.reason;
        let expected = match way {
            "damaged" => "PackDamaged",
            "wrong" => "ChunkMismatch",
            _ => "ChunkMissing",
        };
        assert_eq!(reason, expected);
        fs::remove_file(source.path().join("many")).ok();
        let mut expected = oracle::dump(source.path());
        let mut found = oracle::dump(target.path());
        for dump in [&mut expected, &mut found] {
            dump.retain(|path, _| !path.ends_with(b"many") && !path.ends_with(b"many again"));
            dump.remove(b"".as_slice());
        }
        assert_eq!(found, expected, "{way}");
        sample_again(source.path());
    }
}

/// Puts back what the test above took from the source, so that every round begins alike.
fn sample_again(dir: &Path) {
    fs::copy(dir.join("d/e/many again"), dir.join("many")).unwrap();
    fs::remove_file(dir.join("d/e/many again")).unwrap();
    fs::hard_link(dir.join("many"), dir.join("d/e/many again")).unwrap();
    age(&dir.join("d/e"), 1_600_000_002, 987_654_321);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_taken_up_again() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    *fake.breaks.lock().unwrap() = (2, 3);
    run_well(&fake, target.path(), RestoreOptions::default()).await;
    oracle::assert_same(source.path(), target.path());
    assert_eq!(fake.breaks.lock().unwrap().1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_fetched_once_per_window() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for n in 0..50 {
        put(&source.path().join(format!("{n}")), &noise(1, 40_000));
    }
    let fake = Fake::of(source.path());
    let report = run_well(&fake, target.path(), RestoreOptions::default()).await;
    assert_eq!(fake.asked.lock().unwrap().len(), 3);
    assert_eq!(report.fetched_bytes, 40_000);
    assert_eq!(report.written_bytes, 2_000_000);
    oracle::assert_same(source.path(), target.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_and_does_nothing() {
    let (source, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    let dry_run = RestoreOptions {
        dry_run: true,
        ..Default::default()
    };
    let target = parent.path().join("new");
    let report = run_well(&fake, &target, dry_run).await;
    assert!(!target.exists());
    let plan = report.plan.clone().unwrap();
    let entries = oracle::dump(source.path()).len() as u64;
    assert_eq!(
        report.count(Action::Create),
        entries - 1,
        "all but the root"
    );
    assert!(
        plan.to_string().contains("create   many (300000 bytes)"),
        "{plan}"
    );
    assert!(
        plan.to_string().contains("create   \\xff\\x0a\\x1b odd ~"),
        "{plan}"
    );
    assert!(fake.asked.lock().unwrap().is_empty());

    fs::create_dir(&target).unwrap();
    run_well(&fake, &target, dry_run).await;
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_target_stops_with_a_word_and_leaves_no_part() {
    if !is_root() {
        return;
    }
    let (source, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Their data would fit; with a page for each they do not.
    for n in 0..300 {
        put(&source.path().join(format!("f{n}")), &noise(n, 2500));
    }
    let target = parent.path().join("t");
    fs::create_dir(&target).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(&target)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    let fake = Fake::of(source.path());
    let result = run(&fake, "", &target, RestoreOptions::default()).await;
    let left: Vec<_> = fs::read_dir(&target)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("holdfast") && name.matches('-').count() > 2)
        .collect();
    let parts = fs::read_dir(&target)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().as_bytes().starts_with(b"f"))
        .filter(|entry| entry.metadata().unwrap().len() != 2500)
        .count();
    std::process::Command::new("umount")
        .arg(&target)
        .status()
        .unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.reason(), "TargetFull");
    assert!(error.to_string().contains("make room"), "{error}");
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(parts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_a_restore_soon() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    // Breaks off again and again: the run is in its pauses when it is cancelled.
    *fake.breaks.lock().unwrap() = (0, 1000);
    let cancel = Cancel::new();
    let later = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        later.cancel();
    });
    let (channel, path) = (fake.serve().await, RelPath::root());
    let options = RestoreOptions::default();
    let begun = std::time::Instant::now();
    let result = restore(
        channel,
        ID,
        path,
        at(target.path()),
        &options,
        Progress::new(),
        cancel,
    )
    .await;
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let temporary = resume::temporary_names(target.path());
    assert_eq!(temporary, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_and_wide_trees_take_few_descriptors() {
    let source = tempfile::tempdir().unwrap();
    // Deeper than PATH_MAX, and more directories than descriptors are kept.
    let mut fake = Fake::of(source.path());
    let directory = |path: &RelPath| {
        let entry = holdfast_format::entry::Entry {
            kind: holdfast_format::entry::Kind::Directory,
            mode: 0o755,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime_ns: 1_000_000_007,
            size: 0,
            xattrs: Vec::new(),
            target: Bytes::new(),
            rdev: 0,
            content: holdfast_format::entry::Content::Empty,
            hardlink: None,
        };
        proto::entry_part::Part::Entry(holdfast_format::wire::entry_to_wire(path, &entry))
    };
    let mut paths = Vec::new();
    let mut deep = RelPath::root();
    for _ in 0..120 {
        deep = deep.join(&[b'n'; 100]).unwrap();
        paths.push(deep.clone());
    }
    for n in 0..2_000 {
        paths.push(RelPath::new(format!("wide-{n:05}")).unwrap());
    }
    paths.sort();
    for path in &paths {
        let part = directory(path);
        fake.part(part);
    }
    let target = tempfile::tempdir().unwrap();
    let report = run_well(&fake, target.path(), RestoreOptions::default()).await;
    assert_eq!(report.count(Action::Create), 2_120);
    let root = Root::open(target.path()).unwrap();
    let bottom = root.dir(&deep).unwrap().stat_self().unwrap();
    assert_eq!((bottom.mtime_ns, bottom.mode), (1_000_000_007, 0o755));
    // Emptied again, as deep as it is.
    let empty = Fake::of(source.path());
    let options = RestoreOptions {
        in_place: true,
        delete: true,
        ..Default::default()
    };
    run_well(&empty, target.path(), options).await;
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
}
