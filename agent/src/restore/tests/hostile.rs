//! Snapshots that lie and targets that are traps: nothing outside of the target is ever touched.

use super::*;
use holdfast_format::entry::{Content, Entry, Kind};
use holdfast_format::wire::entry_to_wire;
use proto::entry_part::Part;

fn plain(kind: Kind) -> Entry {
    Entry {
        kind,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime_ns: 1_000,
        size: 0,
        xattrs: Vec::new(),
        target: Bytes::new(),
        rdev: 0,
        content: Content::Empty,
        hardlink: None,
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

struct Tree(Fake);

impl Tree {
    fn new() -> Self {
        let mut fake = Fake::empty();
        fake.part(Part::Entry(entry_to_wire(
            &RelPath::root(),
            &plain(Kind::Directory),
        )));
        Self(fake)
    }

    fn put(&mut self, at: &str, entry: Entry) {
        self.0.part(Part::Entry(entry_to_wire(&path(at), &entry)));
    }

    fn file(&mut self, at: &str, bytes: &[u8]) {
        let mut entry = plain(Kind::File);
        self.0.put_file(&path(at), &mut entry, bytes);
    }

    /// A file whose path is sent as it is.
    fn raw(&mut self, at: &[u8]) {
        let mut entry = entry_to_wire(&path("x"), &plain(Kind::File));
        entry.path = Bytes::copy_from_slice(at);
        self.0.part(Part::Entry(entry));
    }

    fn symlink(&mut self, at: &str, target: &Path) {
        let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
        self.put(
            at,
            Entry {
                target,
                ..plain(Kind::Symlink)
            },
        );
    }

    fn hardlink(&mut self, at: &str, first: &str) {
        self.put(
            at,
            Entry {
                hardlink: Some(path(first)),
                ..plain(Kind::File)
            },
        );
    }
}

fn names(report: &RestoreReport) -> Vec<&str> {
    report.problems.iter().map(|p| p.path.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_names_are_left_out_and_the_rest_restored() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("t");
    let mut tree = Tree::new();
    let bad: [&[u8]; 9] = [
        b"..",
        b"../evil",
        b"/evil",
        b"a/../../evil",
        b".",
        b"a//b",
        b"a\0b",
        b"evil/",
        &[b'n'; 300],
    ];
    for name in bad {
        tree.raw(name);
    }
    tree.file("good", b"good");
    let report = run(&tree.0, "", &target, RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(report.problem_count, bad.len() as u64);
    assert!(
        report
            .problems
            .iter()
            .all(|p| p.problem.reason == "InvalidEntry")
    );
    assert_eq!(fs::read(target.join("good")).unwrap(), b"good");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_through_a_symlink_or_a_file() {
    let (target, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut tree = Tree::new();
    tree.file("file", b"file");
    tree.symlink("link", outside.path());
    tree.file("file/below", b"evil");
    tree.file("link/below", b"evil");
    tree.file("nowhere/below", b"evil");
    let report = run(&tree.0, "", target.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(
        names(&report),
        ["file/below", "link/below", "nowhere/below"]
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symlink_and_a_directory_of_one_name_are_a_repetition() {
    let (target, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut tree = Tree::new();
    tree.symlink("d", outside.path());
    tree.put("d", plain(Kind::Directory));
    tree.file("d/below", b"evil");
    let report = run(&tree.0, "", target.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(names(&report), ["d", "d/below"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn disorder_and_repetition_are_left_out() {
    let target = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    tree.file("b", b"first");
    tree.file("b", b"second");
    tree.file("a", b"late");
    tree.file("c", b"third");
    tree.put("", plain(Kind::Directory));
    let report = run(&tree.0, "", target.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(names(&report), ["", "a", "b"]);
    assert_eq!(fs::read(target.path().join("b")).unwrap(), b"first");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_go_only_to_what_this_restore_made() {
    use std::os::unix::fs::MetadataExt;
    let target = tempfile::tempdir().unwrap();
    put(&target.path().join("extra"), b"secret");
    let mut tree = Tree::new();
    tree.hardlink("to-extra", "extra");
    tree.symlink("a-link", Path::new("extra"));
    tree.file("good", &noise(1, 40_000));
    tree.hardlink("good-too", "good");
    tree.hardlink("to-a-link", "a-link");
    tree.hardlink("to-nothing", "b");
    let fake = sorted(tree);
    let options = RestoreOptions {
        in_place: true,
        ..Default::default()
    };
    let report = run(&fake, "", target.path(), options).await.unwrap();
    assert_eq!(names(&report), ["to-a-link", "to-extra", "to-nothing"]);
    let ino = |name| fs::metadata(target.path().join(name)).unwrap().ino();
    assert_eq!(ino("good"), ino("good-too"));
    assert_eq!(
        fs::metadata(target.path().join("extra")).unwrap().nlink(),
        1
    );
}

/// Whole entries in key order.
fn sorted(tree: Tree) -> Fake {
    let mut fake = tree.0;
    fake.parts.sort_by_key(|part| match &part.part {
        Some(Part::Entry(entry)) => RelPath::new(entry.path.clone()).unwrap().to_key(),
        _ => Vec::new(),
    });
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_symlinks_in_the_target_are_replaced_never_followed() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outside = tempfile::tempdir().unwrap();
    put(&outside.path().join("victim"), b"precious");
    fs::create_dir(outside.path().join("tree")).unwrap();
    put(&outside.path().join("tree/kept"), b"kept");
    fs::create_dir(source.path().join("d")).unwrap();
    put(&source.path().join("d/f"), &noise(1, 100_000));
    put(&source.path().join("victim"), &noise(2, 100_000));
    put(&source.path().join("small"), b"small");
    symlink(outside.path().join("tree"), target.path().join("d")).unwrap();
    symlink(outside.path().join("victim"), target.path().join("victim")).unwrap();
    symlink(outside.path().join("victim"), target.path().join("small")).unwrap();
    symlink(outside.path().join("tree"), target.path().join("extra")).unwrap();
    let before = oracle::untouched(outside.path());
    let options = RestoreOptions {
        in_place: true,
        delete: true,
        ..Default::default()
    };
    run_well(&Fake::of(source.path()), target.path(), options).await;
    oracle::assert_same(source.path(), target.path());
    assert_eq!(oracle::untouched(outside.path()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inode_with_a_name_outside_is_never_written() {
    use std::os::unix::fs::MetadataExt;
    let (source, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (target, outside) = (parent.path().join("t"), parent.path().join("o"));
    fs::create_dir(&target).unwrap();
    let large = noise(1, (IN_PLACE_ABOVE_BYTES + 100_000) as usize);
    for (name, bytes) in [("large", large.as_slice()), ("small", b"new")] {
        put(&source.path().join(name), bytes);
        put(&outside.with_extension(name), b"precious");
        fs::hard_link(outside.with_extension(name), target.join(name)).unwrap();
    }
    // Same content, other mode: even that is not written through.
    put(&source.path().join("same"), b"precious");
    put(&outside.with_extension("same"), b"precious");
    fs::set_permissions(
        source.path().join("same"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::hard_link(outside.with_extension("same"), target.join("same")).unwrap();
    let options = RestoreOptions {
        in_place: true,
        ..Default::default()
    };
    run_well(&Fake::of(source.path()), &target, options).await;
    oracle::assert_same(source.path(), &target);
    for name in ["large", "small", "same"] {
        let place = outside.with_extension(name);
        let meta = fs::metadata(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"precious");
        assert_eq!((meta.nlink(), meta.mode() & 0o777), (1, 0o644));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_that_do_not_fit_leave_their_file_out() {
    let target = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    for (at, size) in [("short", 5_000_000u64), ("too-long", 3_000_000)] {
        let mut entry = plain(Kind::File);
        tree.0.put_file(&path(at), &mut entry, &noise(1, 4_000_000));
        tree.0.entry_mut(at).size = size;
    }
    // Goes on for ever, as far as its size lets it.
    let mut entry = plain(Kind::File);
    let extent = tree.0.chunk(b"x");
    entry.size = 1 << 40;
    tree.0
        .part(Part::Entry(holdfast_format::wire::long_entry_to_wire(
            &path("wide"),
            &entry,
            1,
        )));
    for _ in 0..20 {
        let more = holdfast_format::wire::more_to_wire(&[extent; 1000]);
        tree.0.part(Part::More(more));
    }
    tree.0.part(Part::EndOfExtents(true));
    tree.file("x-good", b"good");
    let report = run(&tree.0, "", target.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(names(&report), ["short", "too-long", "wide"]);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
    assert_eq!(resume::temporary_names(target.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_entries_are_named_and_what_lies_below_is_saved() {
    let target = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    tree.file("a", b"a");
    let problem = proto::Problem {
        path: Bytes::from_static(b"b"),
        reason: "NodeDamaged".to_owned(),
        ..Default::default()
    };
    tree.0.part(Part::Damaged(problem));
    tree.file("lost/deep/saved", b"saved");
    let report = run(&tree.0, "", target.path(), RestoreOptions::default())
        .await
        .unwrap();
    assert_eq!(names(&report), ["b", "lost", "lost/deep"]);
    assert_eq!(
        fs::read(target.path().join("lost/deep/saved")).unwrap(),
        b"saved"
    );
}
