//! Round trips through the shipped binary, compared by oracles that are not our own code.

mod cluster;
mod full;
mod golden;
mod hooks;
mod hostile;
mod interlock;
mod kubectl;
mod names;
mod policies;
mod prometheus;
mod ready;
mod reread;
mod restores;
mod runs;
mod s3;
mod scale;
mod terminal;
mod told;
mod up;

use holdfast_tests::cli::{Home, is_root};
use holdfast_tests::fixture;
use holdfast_tests::image::Image;
use holdfast_tests::oracle::{assert_same, blocks};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn round_trip(source: &Path, home: &Home, target: &Path) {
    home.backup(source, "vol");
    home.ok([
        OsStr::new("restore"),
        "vol@latest".as_ref(),
        "--special".as_ref(),
        "--target".as_ref(),
        target.as_os_str(),
    ]);
    assert_same(source, target);
}

#[test]
fn everything_comes_back() {
    let home = Home::new();
    let source = home.at("source");
    fixture::everything(&source);
    round_trip(&source, &home, &home.at("restored"));
    for hole in [
        "contents/sparse",
        "contents/all-hole",
        "contents/zeros-inside",
    ] {
        let (was, is) = (
            blocks(&source.join(hole)),
            blocks(&home.at("restored").join(hole)),
        );
        assert!(
            is <= was + 16,
            "{hole} took {was} blocks and takes {is}: its holes were filled"
        );
    }
}

#[test]
fn every_filesystem() {
    if !is_root("every_filesystem") {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        let (from, to) = (Image::make(kind, 600), Image::make(kind, 600));
        let home = Home::new();
        let source = from.path().join("volume");
        fixture::everything(&source);
        round_trip(&source, &home, &to.path().join("restored"));
        // And once more, as an incremental with changes.
        fixture::append(&source.join("contents/text"), b"more");
        fs::remove_file(source.join("contents/size-512")).expect("a removal");
        fs::rename(source.join("links/sub"), source.join("links/moved")).expect("a rename");
        home.backup(&source, "vol");
        assert_same(&source, &restore(&home, to.path(), "again"));
    }
}

fn restore(home: &Home, dir: &Path, name: &str) -> std::path::PathBuf {
    let target = dir.join(name);
    home.ok([
        OsStr::new("restore"),
        "vol@latest".as_ref(),
        "--special".as_ref(),
        "--target".as_ref(),
        target.as_os_str(),
    ]);
    target
}

#[test]
fn incrementals_equal_the_source() {
    let home = Home::new();
    let source = home.at("source");
    fixture::everything(&source);
    home.backup(&source, "vol");
    let steps: [(&str, &dyn Fn()); 9] = [
        ("a file appended", &|| {
            fixture::append(&source.join("contents/size-4096"), b"tail")
        }),
        ("same size, time set back", &|| {
            let path = source.join("contents/size-8192");
            let before = fs::metadata(&path)
                .expect("metadata")
                .modified()
                .expect("a time");
            fs::write(&path, fixture::noise(99, 8192)).expect("a write");
            fs::File::open(&path)
                .and_then(|f| f.set_modified(before))
                .expect("a time");
        }),
        ("a directory renamed", &|| {
            fs::rename(source.join("names"), source.join("names-2")).expect("a rename")
        }),
        ("the smallest hard link removed", &|| {
            fs::remove_file(source.join("links/another")).expect("a removal")
        }),
        ("a smaller hard link made", &|| {
            fs::hard_link(source.join("links/sub/original"), source.join("aaa-first"))
                .expect("a link");
        }),
        ("a directory becomes a file", &|| {
            fs::remove_dir_all(source.join("deep")).expect("a removal");
            fs::write(source.join("deep"), "a file now").expect("a file");
        }),
        ("a file becomes a directory", &|| {
            fs::remove_file(source.join("contents/text")).expect("a removal");
            fixture::contents(&source.join("contents/text"));
        }),
        ("only a mode changes", &|| {
            fs::set_permissions(
                source.join("contents/size-1"),
                fs::Permissions::from_mode(0o604),
            )
            .expect("a mode");
        }),
        ("everything is removed", &|| {
            for entry in fs::read_dir(&source).expect("the root").flatten() {
                let path = entry.path();
                if entry.file_type().expect("a type").is_dir() {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
                    fs::remove_dir_all(&path).expect("a removal");
                } else {
                    fs::remove_file(&path).expect("a removal");
                }
            }
        }),
    ];
    for (number, (what, change)) in steps.iter().enumerate() {
        change();
        home.backup(&source, "vol");
        let restored = home.restore("vol@latest", &format!("restored-{number}"));
        println!("{what}");
        assert_same(&source, &restored);
    }
    assert_eq!(
        home.ok(["snapshots", "-o", "name"]).text().lines().count(),
        10
    );
}

#[test]
fn an_unchanged_volume_writes_one_record_and_nothing_else() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source);
    // Stamps younger than a minute are read again; the content is the same, so nothing is stored.
    home.backup(&source, "vol");
    let before = home.objects();
    home.backup(&source, "vol");
    let new: Vec<_> = home
        .objects()
        .into_iter()
        .filter(|o| !before.contains(o))
        .map(|(name, _)| name)
        .collect();
    let data: Vec<_> = new.iter().filter(|n| !n.starts_with("owner/")).collect();
    assert!(
        matches!(data[..], [one] if one.starts_with("snapshots/")),
        "{new:?}"
    );
}

#[test]
fn a_hundred_small_changes_write_one_pack_and_one_record() {
    let home = Home::new();
    let source = home.at("source");
    for d in 0..20 {
        fs::create_dir_all(source.join(format!("d{d}"))).expect("a directory");
        for f in 0..100 {
            fs::write(
                source.join(format!("d{d}/f{f}")),
                fixture::noise(d * 100 + f, 3000),
            )
            .expect("a file");
        }
    }
    home.backup(&source, "vol");
    let before = home.objects();
    for f in 0..100 {
        fixture::append(&source.join(format!("d{}/f{f}", f % 20)), b"changed");
    }
    home.backup(&source, "vol");
    let mut new: Vec<_> = home
        .objects()
        .into_iter()
        .filter(|o| !before.contains(o))
        .map(|(name, _)| name)
        .collect();
    new.retain(|n| !n.starts_with("owner/"));
    assert!(
        matches!(&new[..], [a, b] if a.starts_with("packs/") && b.starts_with("snapshots/")),
        "{new:?}"
    );
    assert_same(&source, &home.restore("vol@latest", "restored"));
}

#[test]
fn one_byte_at_the_front_of_a_large_file_costs_little() {
    let home = Home::new();
    let source = home.at("source");
    fs::create_dir_all(&source).expect("a directory");
    let mut bytes = Vec::new();
    for page in 0..8192u64 {
        bytes.extend(fixture::noise(page + 1, 7700));
        bytes.extend(vec![0; 492]);
    }
    fs::write(source.join("one.bin"), &bytes).expect("a file");
    home.backup(&source, "vol");
    let before: u64 = home.objects().iter().map(|(_, size)| size).sum();
    bytes.insert(0, b'X');
    fs::write(source.join("one.bin"), &bytes).expect("a file");
    home.backup(&source, "vol");
    let added = home.objects().iter().map(|(_, size)| size).sum::<u64>() - before;
    assert!(
        added < 1 << 20,
        "one byte inserted at the front added {added} bytes"
    );
}

#[test]
fn in_place_writes_only_what_differs_and_deletes_when_told() {
    let home = Home::new();
    let source = home.at("source");
    fixture::everything(&source);
    home.backup(&source, "vol");
    let target = home.restore("vol@latest", "target");
    let inode = |name: &str| {
        fs::symlink_metadata(target.join(name))
            .map(|m| (m.ino(), m.ctime_nsec(), m.ctime()))
            .expect("metadata")
    };
    let untouched: Vec<_> = ["contents/size-1048576", "contents/text", "names/-rf"]
        .map(inode)
        .to_vec();
    let in_place = |more: &[&str]| {
        let mut args = vec![
            OsStr::new("restore"),
            "vol@latest".as_ref(),
            "--special".as_ref(),
            "--in-place".as_ref(),
            "--target".as_ref(),
            target.as_os_str(),
        ];
        args.extend(more.iter().map(OsStr::new));
        home.ok(args)
    };
    in_place(&[]);
    assert_eq!(
        ["contents/size-1048576", "contents/text", "names/-rf"]
            .map(inode)
            .to_vec(),
        untouched,
        "an identical tree was written to"
    );
    fs::write(target.join("contents/text"), "damaged").expect("a write");
    fs::write(target.join("extra"), "extra").expect("a file");
    fs::remove_file(target.join("contents/size-513")).expect("a removal");
    let plan = in_place(&["--dry-run"]);
    assert!(plan.text().contains("contents/text"), "{}", plan.text());
    assert_eq!(
        fs::read(target.join("contents/text")).expect("a file"),
        b"damaged"
    );
    in_place(&[]);
    assert!(
        target.join("extra").exists(),
        "extras stay without --delete"
    );
    in_place(&["--delete"]);
    assert_same(&source, &target);
    assert_eq!(inode("names/-rf"), untouched[2]);
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source);
    home.backup(&source, "vol");
    let target = home.at("target");
    fs::create_dir(&target).expect("a directory");
    fs::write(target.join("precious"), "keep me").expect("a file");
    let ended = home.run([
        OsStr::new("restore"),
        "latest".as_ref(),
        "--target".as_ref(),
        target.as_os_str(),
    ]);
    assert!(ended.code == 5 || ended.code == 1, "{ended:?}");
    assert!(ended.stderr.contains("--in-place"), "{}", ended.stderr);
    assert_eq!(
        fs::read(target.join("precious")).expect("a file"),
        b"keep me"
    );
    assert_eq!(fs::read_dir(&target).expect("a directory").count(), 1);
}

#[test]
fn a_subtree_and_one_file() {
    let home = Home::new();
    let source = home.at("source");
    fixture::everything(&source);
    home.backup(&source, "vol");
    let subtree = home.restore("vol@latest:/links", "links");
    assert_same(&source.join("links"), &subtree);
    let one = home.restore("vol@latest:/contents/text", "one");
    assert_eq!(
        fs::read(one.join("text")).expect("the file"),
        fs::read(source.join("contents/text")).expect("a file")
    );
    let cat = home.ok(["cat", "vol@latest:/contents/size-3000001"]);
    assert_eq!(
        cat.stdout,
        fs::read(source.join("contents/size-3000001")).expect("a file")
    );
    let cat = home.ok(["cat", "vol@latest:/contents/sparse"]);
    assert_eq!(
        cat.stdout,
        fs::read(source.join("contents/sparse")).expect("a file")
    );
}

#[test]
fn excludes_are_obeyed() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source.join("keep"));
    fixture::contents(&source.join("cache"));
    fs::write(source.join("keep/a.tmp"), "x").expect("a file");
    home.ok([
        OsStr::new("backup"),
        source.as_os_str(),
        "--name".as_ref(),
        "vol".as_ref(),
        "--exclude".as_ref(),
        "/cache/".as_ref(),
        "--exclude".as_ref(),
        "*.tmp".as_ref(),
    ]);
    let names = home.ok(["ls", "-R", "-o", "name", "latest"]).text();
    assert!(
        names.contains("keep/text") && !names.contains("cache") && !names.contains("a.tmp"),
        "{names}"
    );
}

#[test]
fn a_tar_archive_holds_everything() {
    let home = Home::new();
    let source = home.at("source");
    fixture::contents(&source.join("contents"));
    fixture::names(&source.join("names"));
    fixture::links(&source.join("links"));
    fs::remove_file(source.join("links/long-target")).ok();
    fixture::attributes(&source.join("attributes"));
    home.backup(&source, "vol");
    fs::write(home.at("dump.tar"), home.ok(["dump", "latest"]).stdout).expect("a file");
    fs::create_dir(home.at("untarred")).expect("a directory");
    let out = std::process::Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
        .arg(home.at("dump.tar"))
        .arg("-C")
        .arg(home.at("untarred"))
        .output()
        .expect("tar starts");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_same(&source, &home.at("untarred"));
}
