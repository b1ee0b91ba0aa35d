//! A target that is too small is refused before anything is written to it.

use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

struct Small(tempfile::TempDir);

impl Small {
    fn new(how: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kind = Some("tmpfs");
        mount(kind, directory.path(), kind, MsFlags::empty(), Some(how)).unwrap();
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

async fn refused(fake: &Fake, target: &Path, options: RestoreOptions) -> String {
    let before = oracle::untouched(target);
    let error = run(fake, "", target, options).await.unwrap_err();
    assert_eq!(error.reason(), "TargetTooSmall", "{error}");
    assert_eq!(oracle::untouched(target), before, "something was written");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_without_holes() {
    if !is_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let sparse = fs::File::create(source.path().join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"data", 32 << 20).unwrap();
    let fake = Fake::of(source.path());
    let small = Small::new("size=1m");
    let report = run_well(&fake, small.0.path(), RestoreOptions::default()).await;
    assert!(report.needed.bytes < 200_000, "{:?}", report.needed);

    fs::write(source.path().join("large"), noise(1, 3 << 20)).unwrap();
    let fake = Fake::of(source.path());
    let small = Small::new("size=1m");
    let told = refused(&fake, small.0.path(), RestoreOptions::default()).await;
    assert!(told.contains("1048576 bytes"), "{told}");
    let dry_run = RestoreOptions {
        dry_run: true,
        ..Default::default()
    };
    let space = run_well(&fake, small.0.path(), dry_run)
        .await
        .space
        .unwrap();
    assert_eq!(space.free.bytes, 1 << 20);
    assert!((3 << 20..4 << 20).contains(&space.needed.bytes), "{space}");
    assert_eq!(space.needed.inodes, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn inodes_are_counted_and_links_are_none() {
    if !is_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("0"), "0").unwrap();
    for n in 1..100 {
        fs::hard_link(source.path().join("0"), source.path().join(n.to_string())).unwrap();
    }
    // Of the filesystems at hand only tmpfs is small in inodes, and it counts links too.
    let dry_run = RestoreOptions {
        dry_run: true,
        ..Default::default()
    };
    let target = tempfile::tempdir().unwrap();
    let report = run_well(&Fake::of(source.path()), target.path(), dry_run).await;
    assert_eq!(report.needed.inodes, 1);
    for n in 100..140 {
        fs::write(source.path().join(n.to_string()), "n").unwrap();
    }
    let small = Small::new("size=8m,nr_inodes=20");
    let planned = run_well(&Fake::of(source.path()), small.0.path(), dry_run).await;
    let why = planned.too_small.unwrap_or_default();
    assert!(why.contains("has no room for it"), "{why}");
    refused(
        &Fake::of(source.path()),
        small.0.path(),
        RestoreOptions::default(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_makes_room_for_what_replaces_it() {
    if !is_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("f"), noise(1, 700_000)).unwrap();
    let fake = Fake::of(source.path());
    let small = Small::new("size=2m");
    fs::write(small.0.path().join("f"), noise(2, 700_000)).unwrap();
    fs::write(small.0.path().join("other"), noise(3, 600_000)).unwrap();
    let in_place = RestoreOptions {
        in_place: true,
        ..Default::default()
    };
    let report = run_well(&fake, small.0.path(), in_place).await;
    assert_eq!(report.count(Action::Replace), 1);
    fs::write(source.path().join("g"), noise(4, 1 << 20)).unwrap();
    refused(&Fake::of(source.path()), small.0.path(), in_place).await;
}
