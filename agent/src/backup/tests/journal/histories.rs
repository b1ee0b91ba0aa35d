//! Single histories of operations that a run by events might miss.

use super::*;
use holdfast_runtime::clock::{Clock, Sleep, SystemClock};
use std::sync::Arc;

/// A clock that is behind: what a run that waits long before it can begin has for its start.
#[derive(Debug)]
struct Behind(i64);

impl Clock for Behind {
    fn now_ns(&self) -> i64 {
        crate::sys::realtime_ns() - self.0
    }

    fn elapsed(&self) -> Duration {
        SystemClock::new().elapsed()
    }

    fn sleep(&self, span: Duration) -> Sleep {
        SystemClock::new().sleep(span)
    }
}

/// A volume whose next run is by events.
async fn trusted(files: &[&str]) -> Bench {
    trusted_by(&Kind::ALL, files).await
}

/// The same, by these sources.
pub(super) async fn trusted_by(kinds: &'static [Kind], files: &[&str]) -> Bench {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let bench = bench.with_journals(kinds);
    for (n, path) in (1..).zip(files) {
        bench.write(path, noise(n, 5000));
    }
    bench.run().await;
    until_trusted(&bench).await;
    bench
}

/// Writes through a second name, which is gone afterwards.
fn write_hidden(bench: &Bench, path: &str, name: &str, seed: u64) {
    fs::hard_link(bench.at(path), bench.at(name)).unwrap();
    fs::write(bench.at(name), noise(seed, 5000)).unwrap();
    fs::remove_file(bench.at(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_came_while_a_run_was_about_to_begin_may_be_written_by_another_name() {
    let mut bench = trusted(&["a/old", "b/old"]).await;
    // The coordinator answers late, or the run is a second try.
    bench.write("a/file", noise(9, 5000));
    bench.options.clock = Arc::new(Behind(10_000_000_000));
    assert_eq!(bench.run().await.walk, None);
    write_hidden(&bench, "a/file", "b/name", 10);
    assert_eq!(bench.run().await.walk, None);
    fs::hard_link(bench.at("a/file"), bench.at("b/stays")).unwrap();
    assert_eq!(bench.run().await.walk, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_through_a_name_that_is_gone_is_known_though_the_file_was_looked_at() {
    let bench = trusted(&["a/old", "z/file"]).await;
    std::thread::sleep(Duration::from_millis(100));
    fs::hard_link(bench.at("z/file"), bench.at("a/name")).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(bench.at("a/name"));
    let mapping = Mapping::of(&file.unwrap());
    fs::remove_file(bench.at("a/name")).unwrap();
    fs::set_permissions(bench.at("z/file"), fs::Permissions::from_mode(0o600)).unwrap();
    std::thread::sleep(Duration::from_millis(3200));
    assert_eq!(bench.run().await.walk, None);
    for n in 1..4 {
        std::thread::sleep(Duration::from_millis(100));
        mapping.store(9, n);
        assert_eq!(bench.run().await.walk, None, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_be_written_through_an_overlay() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested");
        return;
    }
    let bench = trusted(&["upper/file", "work/old"]).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let at = |name: &str| elsewhere.path().join(name);
    fs::create_dir(at("lower")).unwrap();
    fs::create_dir(at("merged")).unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        bench.at("upper").display(),
        bench.at("work").display()
    );
    let mounting = nix::mount::mount(
        Some("overlay"),
        &at("merged"),
        Some("overlay"),
        nix::mount::MsFlags::empty(),
        Some(options.as_str()),
    );
    if let Err(errno) = mounting {
        println!("no overlay here ({errno}): not tested");
        return;
    }
    let ran = tokio::spawn({
        let (bench, file) = (bench.shared(), at("merged/file"));
        async move {
            bench.run().await;
            bench.settle();
            bench.run().await;
            fs::write(file, noise(10, 5000)).unwrap();
            bench.run().await.walk
        }
    })
    .await;
    nix::mount::umount2(&at("merged"), nix::mount::MntFlags::empty()).unwrap();
    assert_eq!(ran.unwrap(), None);
}
