//! What a journal cannot have costs a walk, with a reason, and never a backup.

use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_its_watches_a_volume_is_walked() {
    let mut bench = Bench::new_in(Path::new("/var/tmp")).await;
    bench.options.journals = Some(Journals::with(&Kind::ALL, 8).unwrap());
    for n in 0..20 {
        bench.write(&format!("{n}/file"), noise(n, 700));
    }
    assert_eq!(bench.run().await.walk, Some("FirstRun"));
    for n in 0..3 {
        bench.write("3/file", noise(100 + n, 700));
        assert_eq!(bench.run().await.walk, Some("WatchLimit"));
    }
    let journals = bench.options.journals.as_ref().unwrap();
    assert_eq!(journals.standing()[0].1.mode, "walk");
    // It takes no room from others.
    let mut other = Bench::new_in(Path::new("/var/tmp")).await;
    other.options.journals.clone_from(&bench.options.journals);
    other.volume.facts.name = "w".parse().unwrap();
    other.write("a/b/file", "x");
    other.run().await;
    for _ in 0..100 {
        if other.run().await.walk.is_none() {
            return;
        }
    }
    panic!("the other volume is never trusted");
}

/// What is looked at in the background is let go soon.
fn unmounted(path: &Path) {
    let until = Instant::now() + Duration::from_secs(2);
    while let Err(errno) = umount2(path, MntFlags::empty()) {
        assert!(
            errno == nix::errno::Errno::EBUSY && Instant::now() < until,
            "{errno}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_end_an_epoch_and_are_not_held_up() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested");
        return;
    }
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let bench = bench.with_journals(&Kind::ALL);
    let tmpfs = |at: &str| {
        mount(
            Some("tmpfs"),
            &bench.at(at),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
    };
    bench.write("below/file", "beneath a mount");
    tmpfs("").unwrap();
    bench.write("a/file", "x");
    bench.run().await;
    until_trusted(&bench).await;
    tmpfs("a").unwrap();
    let report = bench.try_run().await.unwrap();
    assert_eq!(report.walk, Some("MountsChanged"));
    assert_eq!(report.boundary_count, 1);
    unmounted(&bench.at("a"));
    assert_eq!(bench.run().await.walk, Some("MountsChanged"));
    until_trusted(&bench).await;
    // Nothing of the journal keeps the volume's mount.
    unmounted(&bench.at(""));
    let report = bench.run().await;
    assert_eq!(report.walk, Some("MountChanged"));
    assert_eq!(report.counters.files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_agent_or_other_rules_begin_anew() {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let mut bench = bench.with_journals(&Kind::ALL);
    bench.write("a/file", "x");
    bench.write("b/file", "y");
    bench.run().await;
    until_trusted(&bench).await;
    bench.options.rules = crate::rules::Rules::new(&["b/".to_owned()], &[]).unwrap();
    let report = bench.try_run().await.unwrap();
    assert_eq!(report.walk, Some("RulesChanged"));
    assert_eq!(report.counters.files, 1);
    bench.options.rules = crate::rules::Rules::default();
    assert_eq!(bench.run().await.walk, Some("RulesChanged"));
    let bench = bench.with_journals(&Kind::ALL);
    bench.write("b/file", "z");
    assert_eq!(bench.run().await.walk, Some("FirstRun"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_name_in_a_directory_that_is_left_out_is_seen() {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let mut bench = bench.with_journals(&Kind::ALL);
    bench.options.rules = crate::rules::Rules::new(&["cache/".to_owned()], &[]).unwrap();
    bench.write("a/file", noise(1, 5000));
    bench.write("cache/deep/other", "x");
    bench.try_run().await.unwrap();
    for _ in 0..10 {
        bench.settle();
        std::thread::sleep(Duration::from_millis(30));
        if bench.try_run().await.unwrap().walk.is_none() {
            break;
        }
    }
    // A name that comes, is written through and stays; and one that goes.
    for (round, stays) in [true, false].into_iter().enumerate() {
        let name = bench.at(&format!("cache/deep/{round}"));
        fs::hard_link(bench.at("a/file"), &name).unwrap();
        fs::write(&name, noise(2 + round as u64, 5000)).unwrap();
        if !stays {
            fs::remove_file(&name).unwrap();
        }
        std::thread::sleep(Duration::from_millis(30));
        let report = bench.try_run().await.unwrap();
        assert_eq!(report.walk, None);
        assert_eq!(report.counters.files_read, 1, "{stays}");
    }
}

/// The power goes while a volume is in use: what the disk has then is what the next run must find, though a
/// file's times may have reached it without its bytes, or the reverse.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_the_next_run_finds_what_the_disk_has() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested");
        return;
    }
    let image = Image::make("ext4", 96);
    let mut bench = Bench::new_in(image.path()).await.with_journals(&Kind::ALL);
    // What the agent keeps is on another disk.
    let state = tempfile::tempdir_in("/var/tmp").unwrap();
    bench.options.index_directory = state.path().join("index");
    let root = bench.volume.path.clone();
    let mut tenant = Remote::start(&root, 5);
    for round in 0..4 {
        for _ in 0..40 {
            tenant.act();
        }
        for n in 0..20 {
            // Overwritten in place, as much as there was.
            bench.write(&format!("settled/{n}"), noise(round * 100 + n, 9000));
        }
        if round == 1 {
            rustix::fs::syncfs(File::open(image.path()).unwrap()).unwrap();
        }
        bench.try_run().await.unwrap();
        bench.settle();
    }
    // What the disk would have if the power went now.
    let copy = state.path().join("copy");
    let mount = state.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let script = "cp --sparse=always \"$0\" \"$1\" && mount -o loop \"$1\" \"$2\"";
    let file = image.path().with_file_name("image");
    let mut copying = std::process::Command::new("sh");
    let done = copying
        .args(["-ec", script])
        .args([&file, &copy, &mount])
        .status();
    assert!(done.unwrap().success());
    let mut after = bench.shared();
    after.options.boot_id = "after the cut".to_owned();
    after.options.journals = None;
    after.volume.path = mount.join(root.strip_prefix(image.path()).unwrap());
    let compared = tokio::spawn(async move {
        after.run().await;
        after.run().await
    })
    .await;
    let mut unmounting = std::process::Command::new("umount");
    assert!(unmounting.arg(&mount).status().unwrap().success());
    compared.unwrap();
}
