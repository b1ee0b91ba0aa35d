//! A volume in which names move while it is read: what is missing is told, and what only comes and goes is not.

use super::bench::Bench;
use crate::backup::RunReport;
use crate::error::Result;
use holdfast_format::entry::{Content, Kind};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const FILES: usize = 2000;

async fn mail() -> Bench {
    let bench = Bench::new().await;
    for n in 0..FILES {
        bench.write(&format!("new/m{n}"), n.to_string());
    }
    bench.write("cur/x", "x");
    bench
}

/// A run, beside a thread that does something over and over.
async fn run_beside(bench: &Bench, what: impl Fn(&Path, usize) + Sync) -> Result<RunReport> {
    std::thread::sleep(std::time::Duration::from_millis(30));
    let stop = AtomicBool::new(false);
    let top = bench.at("");
    let (handle, stop, top, what) = (tokio::runtime::Handle::current(), &stop, &top, &what);
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    what(top, round);
                }
            });
            let report = handle.block_on(bench.try_run());
            stop.store(true, Ordering::Relaxed);
            report
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_renames_hide_is_a_problem_and_the_next_quiet_run_has_it() {
    let bench = mail().await;
    let report = run_beside(&bench, |top, round| {
        let (n, back) = (round % FILES, round / FILES % 2 == 1);
        let (new, cur) = (format!("new/m{n}"), format!("cur/m{n}"));
        let (from, to) = if back { (cur, new) } else { (new, cur) };
        fs::rename(top.join(from), top.join(to)).unwrap();
    });
    let report = report.await.unwrap();
    let stored: BTreeSet<Vec<u8>> = bench
        .fake
        .latest()
        .values()
        .filter_map(|(_, entry, _)| match (&entry.kind, &entry.content) {
            (Kind::File, Content::Inline(bytes)) => Some(bytes.to_vec()),
            _ => None,
        })
        .collect();
    // The mails, and x.
    let missing = FILES + 1 - stored.len();
    let told = &report.snapshot.first_problems;
    if missing > 0 {
        assert!(!told.is_empty(), "{missing} are missing in silence");
    }
    for (path, problem) in told {
        assert_eq!(problem.reason, "DirectoryChanged");
        assert!(["cur", "new"].contains(&path.to_string().as_str()));
        assert!(!problem.carried_over);
    }
    let quiet = bench.run().await;
    assert_eq!(quiet.snapshot.first_problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_only_come_and_go_are_no_problem() {
    let bench = mail().await;
    let report = run_beside(&bench, |top, round| {
        let made = |n: usize| top.join(format!("cur/made{n}"));
        // Written aside, put in its place, and gone some time later; some of the old ones go for good.
        fs::write(top.join("new/.made"), "made").unwrap();
        fs::rename(top.join("new/.made"), made(round)).unwrap();
        if let Some(old) = round.checked_sub(50) {
            fs::remove_file(made(old)).unwrap();
        }
        let _ = fs::remove_file(top.join(format!("new/m{}", round * 3)));
    });
    let report = report.await.unwrap();
    assert_eq!(report.snapshot.first_problems, []);
    assert_eq!(bench.run().await.snapshot.first_problems, []);
}
