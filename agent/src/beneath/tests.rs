use super::*;
use crate::stat::Stat;
use holdfast_format::entry::Kind;
use rustix::fs::mkdirat;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

#[test]
fn nothing_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), b"secret").unwrap();
    let inside = outside.path().join("volume");
    std::fs::create_dir_all(inside.join("d/e")).unwrap();
    symlink("/etc", inside.join("absolute")).unwrap();
    symlink("../..", inside.join("d/up")).unwrap();
    symlink("e", inside.join("d/near")).unwrap();
    symlink("/proc/self/root", inside.join("magic")).unwrap();
    let root = Root::open(&inside).unwrap();
    assert!(root.dir(&path("d/e")).is_ok());
    for (name, errno) in [
        ("absolute", Errno::LOOP),
        ("d/up", Errno::LOOP),
        ("d/near", Errno::LOOP),
        ("magic", Errno::LOOP),
        ("none", Errno::NOENT),
    ] {
        assert_eq!(root.dir(&path(name)).unwrap_err(), errno, "{name}");
    }
    let top = root.top().unwrap();
    for bad in [&b".."[..], b".", b"", b"d/e", b"/etc", b"a\0b"] {
        assert_eq!(top.open_dir(bad).unwrap_err(), Errno::INVAL);
        assert_eq!(top.open_file(bad).unwrap_err(), Errno::INVAL);
        assert_eq!(top.open_path(bad).unwrap_err(), Errno::INVAL);
        assert_eq!(top.stat(bad).unwrap_err(), Errno::INVAL);
        assert_eq!(top.readlink(bad).unwrap_err(), Errno::INVAL);
    }
    assert_eq!(top.open_dir(b"absolute").unwrap_err(), Errno::LOOP);
    assert_eq!(top.open_file(b"absolute").unwrap_err(), Errno::LOOP);
    assert_eq!(top.readlink(b"absolute").unwrap(), b"/etc");
    assert_eq!(top.stat(b"absolute").unwrap().kind, Kind::Symlink);
    assert!(matches!(
        Root::open(&inside.join("absolute")),
        Err(RootError::Open { .. })
    ));
    assert!(matches!(
        Root::open(Path::new("/proc/sys")),
        Err(RootError::Virtual {
            filesystem: "proc",
            ..
        })
    ));
}

#[test]
fn paths_longer_than_the_kernel_takes() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(directory.path()).unwrap();
    let mut at = root.top().unwrap();
    let name = [b'n'; 200];
    let mut deep = RelPath::root();
    for _ in 0..100 {
        mkdirat(&at, &name[..], Mode::from_raw_mode(0o755)).unwrap();
        at = at.open_dir(&name).unwrap();
        deep = deep.join(&name).unwrap();
    }
    assert!(deep.as_bytes().len() > 4 * 4096);
    let found = root.dir(&deep).unwrap().stat_self().unwrap();
    assert_eq!(found.ino, at.stat_self().unwrap().ino);
    let (parent, last) = root.parent_of(&deep).unwrap().unwrap();
    assert_eq!(parent.stat(last).unwrap().ino, found.ino);
    // std cannot remove such a tree by path from here; its own descent can.
    drop((at, parent));
}

#[test]
fn names_of_any_bytes_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let mut names: Vec<Vec<u8>> = [
        &b"\xff\xfe"[..],
        b"a\nb",
        b"\x1b[31m",
        b" ",
        b"-rf",
        b"*",
        b"...",
    ]
    .iter()
    .map(|name| name.to_vec())
    .collect();
    names.push(vec![0xe9; 255]);
    for name in &names {
        let path = directory.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(path, b"x").unwrap();
    }
    let dir = Root::open(directory.path()).unwrap().top().unwrap();
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 4096];
    for _ in 0..2 {
        let mut found = Vec::new();
        dir.list::<Errno>(&mut buffer, |name, _, _| {
            found.push(name.to_bytes().to_vec());
            Ok(())
        })
        .unwrap();
        found.sort();
        names.sort();
        assert_eq!(found, names);
    }
    let stat: Stat = dir.stat(b"a\nb").unwrap();
    assert_eq!((stat.kind, stat.size), (Kind::File, 1));
}
