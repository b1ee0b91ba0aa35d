//! A damaged snapshot does not stop the next one: that one reads everything, takes nothing on trust, and
//! is whole; what it stores anew makes the damaged snapshots whole again as far as it holds the same.

use holdfast_tests::cli::Home;
use holdfast_tests::{fixture, oracle};
use std::fs;
use std::path::Path;

/// Bytes of the middle third become others.
fn spoil(object: &Path) {
    let mut bytes = fs::read(object).expect("an object");
    let third = bytes.len() / 3;
    bytes[third..2 * third].iter_mut().for_each(|b| *b ^= 0x55);
    fs::write(object, bytes).expect("a write");
}

fn fill(source: &Path) {
    fixture::contents(&source.join("contents"));
    fixture::links(&source.join("links"));
    // Enough entries for a tree of several nodes, whose leaves hold contents.
    for n in 0..1500 {
        let dir = source.join(format!("many/{}", n % 7));
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(format!("f{n}")), fixture::noise(n, 200)).expect("a file");
    }
}

fn rescued(lose_index: bool, spoiled: fn(&Path)) {
    let home = Home::new();
    let source = home.at("source");
    fill(&source);
    home.backup(&source, "vol");
    // The one that holds the tree, and the contents of its small files.
    let packs = home.objects().into_iter();
    let packs: Vec<_> = packs
        .filter(|(name, _)| name.starts_with("packs/"))
        .collect();
    let (pack, _) = packs.iter().min_by_key(|(_, size)| *size).expect("a pack");
    spoiled(&home.repo().join(pack));
    let lost = home.run(["restore", "vol@latest", "--dry-run", "--target", "/nowhere"]);
    let what = lost.stderr + &String::from_utf8_lossy(&lost.stdout);
    assert!(what.contains("EntriesDamaged"), "nothing is tested: {what}");
    if lose_index {
        let repos = fs::read_dir(home.at("state").join("repos")).expect("a state directory");
        for repo in repos.flatten() {
            fs::remove_dir_all(repo.path().join("agent/index")).expect("the index");
        }
    }
    // A change in every leaf, so that a run with an index meets the damage too.
    for n in 0..7 {
        fs::write(source.join(format!("many/{n}/new")), b"new").expect("a file");
    }
    let ended = home.backup(&source, "vol");
    assert!(ended.stderr.contains("is damaged"), "{}", ended.stderr);
    oracle::assert_same(&source, &home.restore("vol@latest", "restored"));
    // And it is something to build on.
    fs::write(source.join("many/3/newer"), b"newer").expect("a file");
    let ended = home.backup(&source, "vol");
    assert!(!ended.stderr.contains("is damaged"), "{}", ended.stderr);
    oracle::assert_same(&source, &home.restore("vol@latest", "again"));
}

#[test]
fn a_spoiled_snapshot_without_an_index() {
    rescued(true, spoil);
}

#[test]
fn a_spoiled_snapshot_with_an_index() {
    rescued(false, spoil);
}

#[test]
fn a_lost_pack_without_an_index() {
    rescued(true, |pack| fs::remove_file(pack).expect("a removal"));
}

/// A pack of contents is lost, and nothing in the volume changes: the next run must still bring it back.
fn contents_lost(then: fn(&Home)) {
    let home = Home::new();
    let source = home.at("source");
    fill(&source);
    fs::write(source.join("large"), fixture::noise(1, 3_000_000)).expect("a file");
    home.backup(&source, "vol");
    let packs = home.objects().into_iter();
    let packs = packs.filter(|(name, _)| name.starts_with("packs/"));
    let (pack, _) = packs.max_by_key(|(_, size)| *size).expect("a pack");
    fs::remove_file(home.repo().join(pack)).expect("a removal");
    let target = home.at("lost");
    let lost = home.run([
        "restore".as_ref(),
        "vol@latest".as_ref(),
        "--target".as_ref(),
        target.as_os_str(),
    ]);
    assert!(
        lost.stderr.contains("ChunkMissing"),
        "nothing is tested: {}",
        lost.stderr
    );
    then(&home);
    let ended = home.backup(&source, "vol");
    assert!(ended.stderr.contains("is damaged"), "{}", ended.stderr);
    oracle::assert_same(&source, &home.restore("vol@latest", "restored"));
    let ended = home.backup(&source, "vol");
    assert!(!ended.stderr.contains("is damaged"), "{}", ended.stderr);
}

#[test]
fn lost_contents_of_a_volume_that_does_not_change() {
    contents_lost(|_| {});
}

#[test]
fn lost_contents_that_only_the_lost_catalog_knew() {
    contents_lost(|home| {
        let rebuilt = home.ok(["rebuild"]);
        assert!(!rebuilt.stderr.contains("damage"), "{}", rebuilt.stderr);
    });
}

#[test]
fn a_rebuilt_catalog_keeps_its_claims() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source);
    home.backup(&source, "vol");
    // A run that refuses its argument gives the repository back like any other.
    home.ends(2, ["forget", "vol@latest:/text"]);
    let owner = |(name, _): &(String, u64)| name.starts_with("owner/");
    assert!(
        home.objects()
            .iter()
            .filter(|o| owner(o))
            .any(|(name, _)| name.ends_with("released"))
    );
    for (name, _) in home.objects().iter().filter(|o| owner(o)) {
        if name.ends_with("released") {
            fs::remove_file(home.repo().join(name)).expect("as a killed run leaves it");
        }
    }
    home.ok(["rebuild"]);
    home.backup(&source, "vol");
}

#[test]
fn a_damaged_newest_record_does_not_make_the_older_one_the_newest() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source);
    home.backup(&source, "vol");
    let first = home.ok(["snapshots", "-o", "name"]).text();
    let first = first.trim();
    fs::write(source.join("new"), b"new").expect("a file");
    home.backup(&source, "vol");
    let records = home.objects().into_iter().map(|(name, _)| name);
    let mut records = records.filter(|name| name.starts_with("snapshots/"));
    let newest = records
        .find(|name| !name.ends_with(first))
        .expect("a record");
    spoil(&home.repo().join(&newest));
    // As somebody on another machine sees it.
    let repos = home.at("state").join("repos");
    fs::remove_dir_all(repos).expect("the state directory");
    let target = home.at("target");
    let restore = |what: &str| {
        home.run([
            "restore".as_ref(),
            what.as_ref(),
            "--target".as_ref(),
            target.as_os_str(),
        ])
    };
    for name in ["latest", "vol@latest", "vol@2099-01-01"] {
        let refused = restore(name);
        assert_eq!(refused.code, 4, "{name}: {}", refused.stderr);
        assert!(refused.stderr.contains(&newest), "{}", refused.stderr);
        assert!(refused.stderr.contains(&first[..12]), "{}", refused.stderr);
    }
    home.ends(4, ["snapshots"]);
    assert_eq!(restore(first).code, 0);
}
