//! Runs against a coordinator in memory, compared with the directory itself.

mod bench;
mod doubt;
pub(crate) mod fake;
mod journal;
mod renames;
mod rolling;

use super::*;
use bench::{Bench, noise};
use fake::INLINE;
use holdfast_format::path::RelPath;
use std::fs;
use std::num::NonZero;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

fn sorted(list: &[String]) -> Vec<&str> {
    let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
    list.sort_unstable();
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_backup_holds_everything_and_an_unchanged_one_sends_nothing() {
    let bench = Bench::new().await;
    bench.write("small", "inline");
    bench.write("empty", "");
    bench.write("a/medium", noise(1, 100_000));
    bench.write("a/b/c/large", noise(2, 5_000_000));
    bench.write(
        "holes",
        [noise(3, 5000), vec![0; 1_000_000], noise(4, 5000)].concat(),
    );
    for n in 0..1500 {
        bench.write(
            &format!("many/{}/{n}", n % 37),
            noise(n, 300 + n as usize * 3),
        );
    }
    symlink("nowhere", bench.at("link")).unwrap();
    fs::create_dir(bench.at("nothing")).unwrap();
    fs::set_permissions(bench.at("a"), fs::Permissions::from_mode(0o2751)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, bench.at("fifo"), 0o600.into()).unwrap();
    let report = bench.run().await;
    assert_eq!(report.counters.files, 1505);
    assert_eq!(
        bench.fake.state().asked,
        0,
        "nothing is held: nothing is asked"
    );
    assert_eq!(bench.fake.state().repeated_chunk_bytes, 0);
    assert_eq!(report.index_discarded, None);
    // Directories and files of the last moments are racy: one more run, then all is clean.
    bench.run().await;
    let index = bench.options.index_directory.join(index::file_name("v"));
    let before = fs::metadata(&index).unwrap().len();
    let report = bench.run().await;
    assert_eq!(report.counters.files_read, 0);
    assert_eq!(report.counters.entries_changed, 0);
    assert_eq!(bench.fake.state().messages, 0);
    assert!(fs::metadata(&index).unwrap().len() <= before);
    assert_eq!(report.counters.files, 1505);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_sent_and_nothing_else() {
    let bench = Bench::new().await;
    for n in 0..200 {
        bench.write(&format!("d{}/f{n}", n % 10), noise(n, 4000));
    }
    bench.write("d3/sub/x", "x");
    bench.run().await;
    bench.write("d1/f1", noise(1000, 4000));
    bench.write("d2/new", "new");
    fs::remove_file(bench.at("d4/f4")).unwrap();
    fs::remove_dir_all(bench.at("d3")).unwrap();
    fs::remove_dir_all(bench.at("d5")).unwrap();
    bench.write("d5", "now a file");
    fs::remove_file(bench.at("d6/f6")).unwrap();
    bench.write("d6/f6/now/a/directory", "x");
    fs::rename(bench.at("d7"), bench.at("e7")).unwrap();
    let chmod = fs::Permissions::from_mode(0o600);
    fs::set_permissions(bench.at("d8/f8"), chmod).unwrap();
    bench.run().await;
    let state = bench.fake.state();
    assert_eq!(sorted(&state.removed), ["d3", "d4/f4", "d7"]);
    let (moved, touched): (Vec<_>, Vec<_>) = state
        .as_in_parent
        .iter()
        .partition(|p| p.starts_with("e7/"));
    assert_eq!((moved.len(), touched), (20, vec![&"d8/f8".to_owned()]));
    let put = sorted(&state.put);
    for path in [
        "", "d1/f1", "d2", "d2/new", "d4", "d5", "d6", "d6/f6", "d8/f8", "e7", "e7/f7",
    ] {
        assert!(put.contains(&path), "{path}");
    }
    assert!(!put.contains(&"d9/f9") && !put.contains(&"d9") && !put.contains(&"d1"));
    assert_eq!(state.new_chunk_bytes, 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_reads_everything_and_sends_only_what_differs() {
    let bench = Bench::new().await;
    for n in 0..50 {
        bench.write(&format!("d{}/f{n}", n % 5), noise(n, 3000));
    }
    bench.write("large", noise(99, 3_000_000));
    fs::hard_link(bench.at("large"), bench.at("zlink")).unwrap();
    symlink("x", bench.at("sym")).unwrap();
    bench.run().await;
    let index = bench.options.index_directory.join(index::file_name("v"));
    for how in ["removed", "damaged", "foreign"] {
        match how {
            "removed" => fs::remove_file(&index).unwrap(),
            "damaged" => fs::write(&index, noise(5, 70_000)).unwrap(),
            _ => {
                let (mut index, _) = Index::open(&index).unwrap();
                let mut meta = index.meta().unwrap().clone();
                meta.generation = 77;
                let writer = index.writer().unwrap();
                index.advance(writer, meta).unwrap();
            }
        }
        bench.write("d1/f1", noise(1000 + u64::from(how.as_bytes()[0]), 3000));
        let report = bench.run().await;
        let expected = match how {
            "removed" => Discarded::Missing,
            "damaged" => Discarded::Damaged,
            _ => Discarded::Foreign,
        };
        assert_eq!(report.index_discarded, Some(expected));
        assert!(report.counters.files_read >= 51, "{how}");
        assert_eq!(bench.fake.state().put, ["d1/f1"], "{how}");
        assert_eq!(bench.fake.state().new_chunk_bytes, 3000);
        let report = bench.run().await;
        assert_eq!(report.index_discarded, None);
        assert_eq!(report.counters.entries_changed, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_name_their_smallest_path_whatever_happens() {
    let bench = Bench::new().await;
    bench.write("b/x", noise(1, 20_000));
    bench.write("m", noise(2, 100));
    let pairs = [
        ("b/x", "b/y"),
        ("b/x", "c"),
        ("b/x", "a/z"),
        ("m", "n"),
        ("m", "b/m"),
    ];
    fs::create_dir(bench.at("a")).unwrap();
    for (from, to) in pairs {
        fs::hard_link(bench.at(from), bench.at(to)).unwrap();
    }
    bench.run().await;
    // The file is read once, not four times.
    let report = bench.run().await;
    assert!(report.counters.files_read <= 2);
    bench.run().await;
    fs::remove_file(bench.at("c")).unwrap();
    bench.run().await;
    fs::hard_link(bench.at("b/x"), bench.at("0")).unwrap();
    bench.run().await;
    fs::rename(bench.at("b"), bench.at("q")).unwrap();
    bench.run().await;
    fs::rename(bench.at("a"), bench.at("zz")).unwrap();
    fs::remove_file(bench.at("0")).unwrap();
    bench.run().await;
    fs::remove_file(bench.at("q/y")).unwrap();
    fs::remove_file(bench.at("q/x")).unwrap();
    bench.write("m", noise(3, 100));
    bench.run().await;
    let report = bench.run().await;
    assert_eq!(report.counters.entries_changed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_rename_that_swaps_the_first_name_is_noticed() {
    let bench = Bench::new().await;
    bench.write("a/x", noise(1, 20_000));
    fs::create_dir(bench.at("c")).unwrap();
    fs::hard_link(bench.at("a/x"), bench.at("c/x")).unwrap();
    bench.run().await;
    bench.run().await;
    // No stamp of the file moves, but its smallest name does.
    fs::rename(bench.at("a"), bench.at("z")).unwrap();
    bench.run().await;
    assert_eq!(bench.fake.state().new_chunk_bytes, 0);
}

/// A directory's new name changes no stamp below it: nothing is read, and nothing but entries is sent.
#[tokio::test(flavor = "multi_thread")]
async fn files_below_a_renamed_directory_are_not_read() {
    let bench = Bench::new().await;
    for n in 0..300 {
        bench.write(&format!("a/b{}/f{n}", n % 3), noise(n, 3000 + n as usize));
    }
    bench.write("a/b1/empty", "");
    bench.write("a/b1/inline", "x");
    bench.write("z/twice", noise(500, 9000));
    fs::hard_link(bench.at("z/twice"), bench.at("z/again")).unwrap();
    bench.run().await;
    bench.run().await;
    fs::create_dir(bench.at("other")).unwrap();
    fs::rename(bench.at("a"), bench.at("other/q")).unwrap();
    fs::rename(bench.at("z"), bench.at("y")).unwrap();
    // One that is renamed itself has another ctime and is read, and so is one that changed.
    fs::rename(bench.at("other/q/b0/f0"), bench.at("other/q/b0/g0")).unwrap();
    bench.write("other/q/b1/f1", noise(1000, 3001));
    let report = bench.run().await;
    // Those two, and the one with two names.
    assert_eq!(report.counters.files_read, 3);
    assert_eq!(bench.fake.state().new_chunk_bytes, 3001);
    assert_eq!(bench.fake.state().as_in_parent.len(), 298 + 1);
    // They are known by their new names from now on.
    bench.run().await;
    assert_eq!(bench.run().await.counters.files_read, 0);
    fs::rename(bench.at("other/q/b2"), bench.at("a")).unwrap();
    assert_eq!(bench.run().await.counters.files_read, 0);
}

/// An inode number that was used before proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_used_again_is_no_rename() {
    let bench = Bench::new().await;
    // The test's own filesystem may hand numbers out anew: as many chances as it takes to see one.
    let mut reused = 0;
    for round in 0..20u64 {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        bench.write(&format!("{old}/f"), noise(round, 5000));
        let time = fs::metadata(bench.at(&format!("{old}/f"))).unwrap();
        let inos = |name: &str| {
            let ino = |path: &str| fs::metadata(bench.at(path)).unwrap().ino();
            (ino(name), ino(&format!("{name}/f")))
        };
        let before = inos(&old);
        bench.run().await;
        fs::remove_dir_all(bench.at(&old)).unwrap();
        bench.write(&format!("{new}/f"), noise(1000 + round, 5000));
        let file = fs::File::options()
            .write(true)
            .open(bench.at(&format!("{new}/f")))
            .unwrap();
        file.set_modified(time.modified().unwrap()).unwrap();
        reused += u64::from(inos(&new) == before);
        // `run` compares contents with the disk.
        assert_eq!(bench.run().await.counters.files_read, 1);
    }
    eprintln!("numbers used again: {reused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_content_travels_in_pieces_and_a_touch_costs_metadata() {
    let bench = Bench::new().await;
    bench.write("large", noise(1, 60_000_000));
    bench.run().await;
    let (_, entry, extents) = bench.fake.latest()[&RelPath::new("large").unwrap().to_key()].clone();
    assert!(extents.len() > 1024, "{}", extents.len());
    assert_eq!(entry.size, 60_000_000);
    let file = fs::File::options()
        .write(true)
        .open(bench.at("large"))
        .unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let report = bench.run().await;
    assert_eq!(bench.fake.state().as_in_parent, ["large"]);
    assert_eq!(bench.fake.state().new_chunk_bytes, 0);
    assert_eq!(report.counters.reread_unchanged_bytes, 60_000_000);
    // One byte in the middle: one or two chunks.
    let mut bytes = fs::read(bench.at("large")).unwrap();
    bytes[30_000_000] ^= 1;
    bench.write("large", &bytes);
    bench.run().await;
    let state = bench.fake.state();
    assert!(state.new_chunk_bytes < 300_000 && state.asked > 0);
    assert_eq!(state.repeated_chunk_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_content_is_sent_once() {
    let bench = Bench::new().await;
    for n in 0..64 {
        bench.write(&format!("d{}/f{n}", n % 8), noise(7, 200_000));
    }
    bench.run().await;
    let state = bench.fake.state();
    assert_eq!(state.new_chunk_bytes, 200_000);
    // Two workers may find it at once.
    assert!(state.repeated_chunk_bytes <= 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_is_taken_up_again_and_makes_one_snapshot() {
    let bench = Bench::new().await;
    for n in 0..30 {
        bench.write(&format!("f{n:02}"), noise(n, 1_000_000));
    }
    for after in [1, 7, 20] {
        bench.fake.state().break_after = Some(after);
        bench.write("f03", noise(1000 + after, 1_000_000));
        let snapshots = bench.fake.state().snapshots.len();
        bench.run().await;
        let state = bench.fake.state();
        assert_eq!(state.snapshots.len(), snapshots + 1);
        assert_eq!(
            state.repeated_chunk_bytes, 0,
            "acknowledged chunks are not sent again"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_commit_makes_one_snapshot() {
    let bench = Bench::new().await;
    bench.write("f", "1");
    bench.fake.state().lose_commit = true;
    bench.run().await;
    assert_eq!(bench.fake.state().snapshots.len(), 1);
    bench.write("f", "2");
    bench.run().await;
    assert_eq!(bench.fake.state().snapshots.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_moves_only_after_the_acknowledgement() {
    let mut bench = Bench::new().await;
    bench.write("f", noise(1, 10_000));
    bench.run().await;
    bench.options.retry.tries = 1;
    bench.fake.state().refuse_commit = Some("StoreFull");
    bench.write("f", noise(2, 10_000));
    bench.write("g", noise(3, 10_000));
    let error = bench.try_run().await.unwrap_err();
    assert_eq!(error.reason(), "StoreFull");
    bench.run().await;
    let state = bench.fake.state();
    assert!(state.put.contains(&"f".to_owned()) && state.put.contains(&"g".to_owned()));
    assert_eq!(state.new_chunk_bytes, 0, "the chunks had come already");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_have_gone_are_sent_again() {
    let bench = Bench::new().await;
    bench.write("f", noise(1, 10_000));
    bench.run().await;
    bench.fake.state().lie_about_held = true;
    bench.write("g", noise(2, 10_000));
    bench.run().await;
    assert_eq!(bench.fake.state().new_chunk_bytes, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_is_quick_and_leaves_nothing_open() {
    let bench = Bench::new().await;
    for n in 0..40 {
        bench.write(&format!("d{n}/f"), noise(n, 3_000_000));
    }
    bench.fake.state().slow = Some(Duration::from_millis(100));
    let cancel = Cancel::new();
    let stop = cancel.clone();
    let progress = Progress::new();
    let running = progress.clone();
    let canceller = tokio::spawn(async move {
        while running.view().new_chunks == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        Instant::now()
    });
    let error = backup(
        &bench.client,
        &bench.volume,
        &bench.options,
        progress,
        cancel,
    )
    .await
    .unwrap_err();
    let took = canceller.await.unwrap().elapsed();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let inside: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.starts_with(bench.directory.path()))
        .collect();
    assert!(inside.is_empty(), "{inside:?}");
    // Nothing is spoilt.
    bench.fake.state().slow = None;
    bench.run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_of_a_volume_exclude_each_other() {
    let bench = Bench::new().await;
    bench.write("f", "x");
    bench.run().await;
    let path = bench.options.index_directory.join(index::file_name("v"));
    let held = Index::open(&path).unwrap();
    assert!(matches!(
        bench.try_run().await,
        Err(Error::VolumeBusy { .. })
    ));
    drop(held);
    bench.run().await;
}

/// C1: whatever happened before, an incremental gives the tree of a full scan.
#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_equals_a_full_scan() {
    let mut bench = Bench::new().await;
    bench.options.workers = NonZero::new(3);
    let mut seed = 1u64;
    let mut below = |n: u64| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) % n
    };
    for round in 0..12 {
        for _ in 0..40 {
            let directory = format!("d{}/e{}", below(4), below(3));
            let path = format!("{directory}/f{}", below(6));
            let other = format!("d{}/e{}/f{}", below(4), below(3), below(6));
            let full = bench.at(&path);
            let _ = fs::create_dir_all(bench.at(&directory));
            let length = [
                0,
                100,
                INLINE as usize,
                INLINE as usize + 1,
                50_000,
                400_000,
            ];
            match below(10) {
                0..4 => {
                    let _ = fs::remove_dir_all(&full);
                    let _ = fs::write(&full, noise(below(30), length[below(6) as usize]));
                }
                4 => drop(fs::remove_file(&full)),
                5 => drop(fs::remove_dir_all(bench.at(&directory))),
                6 => drop(fs::rename(&full, bench.at(&other))),
                7 => {
                    let from = bench.at(&directory);
                    drop(fs::rename(
                        from,
                        bench.at(&format!("d{}/r{}", below(4), below(3))),
                    ));
                }
                8 => drop(fs::hard_link(&full, bench.at(&other))),
                _ => {
                    let mode = fs::Permissions::from_mode(0o600 + below(0o100) as u32);
                    drop(fs::set_permissions(&full, mode));
                }
            }
        }
        // `run` compares with the disk; this compares with a run that has no index.
        bench.run().await;
        let incremental = bench.fake.latest();
        if round % 3 == 2 {
            fs::remove_dir_all(&bench.options.index_directory).unwrap();
            bench.run().await;
            assert!(bench.fake.latest() == incremental, "round {round}");
            assert!(bench.fake.state().put.is_empty());
        }
    }
}
