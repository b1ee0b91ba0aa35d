//! Unchanged files are read again, a day's part at a time, once the snapshot is stored; the command says so.

use holdfast_tests::cli::Home;
use holdfast_tests::fixture;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the pass before ended, beside the volume's index.
fn position(below: &Path) -> Option<PathBuf> {
    fs::read_dir(below).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        match entry.file_type().ok()?.is_dir() {
            true => position(&path),
            false => (path.extension()? == "reread").then_some(path),
        }
    })
}

#[test]
fn a_day_later_a_seventh_is_read_again() {
    let home = Home::new();
    let source = home.at("source");
    fs::create_dir(&source).expect("a directory");
    for n in 0..700 {
        let bytes = fixture::noise(n, 1000);
        fs::write(source.join(n.to_string()), bytes).expect("a file");
    }
    let again = |stderr: &str| -> Option<u32> {
        let line = stderr.lines().find(|line| line.contains("read again"))?;
        let count = line.strip_prefix("web: ")?.split(' ').next()?;
        count.parse().ok()
    };
    assert_eq!(again(&home.backup(&source, "web").stderr), None);
    let position = position(&home.at("")).expect("a position beside the index");
    let stands = || -> u64 {
        let text = fs::read_to_string(&position).expect("a position");
        text.trim().parse().expect("a time")
    };
    let days_ago = stands() - 5 * 24 * 3600 * 1_000_000_000;
    fs::write(&position, days_ago.to_string()).expect("a position");

    let backup = [
        "backup".as_ref(),
        source.as_os_str(),
        "--name".as_ref(),
        "web".as_ref(),
    ];
    let without = home.ok(backup.iter().chain([&"--no-reread".as_ref()]));
    assert_eq!(again(&without.stderr), None, "{without:?}");
    let first = home.ok(backup);
    let count = again(&first.stderr).unwrap_or_else(|| panic!("{first:?}"));
    assert!((50..150).contains(&count), "{first:?}");
    // The next day's part, and not the same.
    assert!(stands() > days_ago);
    assert!(again(&home.ok(backup).stderr).is_some());
}
