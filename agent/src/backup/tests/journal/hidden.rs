//! What names hide: second names that came and went, numbers of inodes that are used again, links that are made while a
//! run looks. The snapshot is the directory all the same.

use super::histories::trusted_by;
use super::mutations::alone;
use super::*;
use crate::faults::switches::meanwhile;
use holdfast_format::path::RelPath;
use std::os::unix::fs::MetadataExt;

/// More than are told apart in one directory.
const MANY: u64 = 4500;

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_are_made_anew_with_the_numbers_of_the_old_are_others() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested on an ext4 image");
        return;
    }
    let image = Image::make("ext4", 192);
    let bench = Bench::new_in(image.path()).await.with_journals(&Kind::ALL);
    let all =
        |seed: u64| (0..MANY).for_each(|n| bench.write(&format!("s/{n}"), format!("{seed} {n}")));
    let number = || fs::metadata(bench.at("s/sub")).unwrap().ino();
    all(1);
    bench.write("s/sub/old", "old");
    bench.run().await;
    until_trusted(&bench).await;
    let before = number();
    all(2);
    for try_ in 0.. {
        fs::remove_dir_all(bench.at("s/sub")).unwrap();
        fs::create_dir(bench.at("s/sub")).unwrap();
        if number() == before {
            break;
        }
        assert!(
            try_ < 1000,
            "the number is not used again: nothing was tried"
        );
        // Another number is taken, so that this one comes round.
        bench.write(&format!("other/{try_}"), "x");
    }
    bench.write("s/sub/new", "new");
    assert_eq!(bench.run().await.walk, None);
    // It is watched.
    bench.write("s/sub/new", "changed");
    assert_eq!(bench.run().await.walk, None);
}

/// A second name of `y/b`, which is written through and gone with its directory, or before that is renamed.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_name_goes_with_its_directory() {
    for kinds in [&[Kind::Inotify][..], &Kind::ALL] {
        for is_renamed in [false, true] {
            let bench = trusted_by(kinds, &["d/old", "y/b"]).await;
            fs::hard_link(bench.at("y/b"), bench.at("d/c")).unwrap();
            fs::write(bench.at("d/c"), noise(7, 6000)).unwrap();
            match is_renamed {
                true => {
                    fs::remove_file(bench.at("d/c")).unwrap();
                    fs::rename(bench.at("d"), bench.at("e")).unwrap();
                }
                false => fs::remove_dir_all(bench.at("d")).unwrap(),
            }
            let expected = (kinds.len() == 1).then_some("HiddenLink");
            assert_eq!(bench.run().await.walk, expected, "{is_renamed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_by_a_name_that_is_gone_is_known_after_a_walk() {
    for kinds in [&[Kind::Inotify][..], &Kind::ALL] {
        let bench = trusted_by(kinds, &["x/old", "y/b"]).await;
        fs::hard_link(bench.at("y/b"), bench.at("x/c")).unwrap();
        let file = OpenOptions::new().write(true).open(bench.at("x/c"));
        let file = file.unwrap();
        fs::remove_file(bench.at("x/c")).unwrap();
        let expected = (kinds.len() == 1).then_some("HiddenLink");
        assert_eq!(bench.run().await.walk, expected);
        bench.settle();
        for _ in 0..2 {
            // What it read is old enough to be believed.
            std::thread::sleep(Duration::from_millis(3200));
            bench.run().await;
            bench.settle();
        }
        for n in 0..3 {
            file.write_all_at(&noise(n, 100), 50).unwrap();
            assert_eq!(bench.run().await.walk, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_made_while_a_run_looks_is_one_of_both_names() {
    if !alone() {
        return;
    }
    let bench = trusted_by(&Kind::ALL, &["a", "b/old"]).await;
    // Looked at, and not opened by anybody.
    fs::set_permissions(bench.at("a"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.write("z/new", "new");
    // It is listed when the run is planned, and when it is made.
    let (from, to) = (bench.at("a"), bench.at("z/second"));
    meanwhile(RelPath::new("z").unwrap(), 1, move || {
        fs::hard_link(from, to).unwrap();
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(bench.try_run().await.unwrap().walk, None);
    assert!(bench.at("z/second").exists());
    assert_eq!(bench.run().await.walk, None);
    for n in 0..2 {
        fs::write(bench.at("z/second"), noise(20 + n, 6000)).unwrap();
        assert_eq!(bench.run().await.walk, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_within_an_epoch_keeps_who_writes_by_a_name_that_is_gone() {
    let bench = trusted_by(&Kind::ALL, &["x/old", "y/b"]).await;
    fs::hard_link(bench.at("y/b"), bench.at("x/c")).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(bench.at("x/c"));
    let mapping = Mapping::of(&file.unwrap());
    fs::remove_file(bench.at("x/c")).unwrap();
    std::thread::sleep(Duration::from_millis(3200));
    bench.options.journals.as_ref().unwrap().walk_is_due();
    assert_eq!(bench.run().await.walk, Some("WalkDue"));
    bench.settle();
    for n in 1..4 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(bench.run().await.walk, None);
        mapping.store(9, n);
        assert_eq!(bench.run().await.walk, None);
    }
}
