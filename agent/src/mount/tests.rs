use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Unmounts when the test ends, however it does.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn tmpfs(path: &Path) -> Mounted {
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    Mounted(path.to_owned())
}

#[test]
fn a_mount_over_the_root_is_another_identity() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut watch = MountWatch::new().unwrap();
    let before = Identity::at(directory.path()).unwrap();
    assert_eq!(Identity::at(directory.path()).unwrap(), before);
    let root = Root::open(directory.path()).unwrap();
    let mounted = tmpfs(directory.path());
    assert!(watch.changed().unwrap());
    let over = Identity::at(directory.path()).unwrap();
    assert_ne!(over, before);
    // What was opened stays what it was.
    assert_eq!(Identity::of(&root).unwrap(), before);
    drop(mounted);
    assert_eq!(Identity::at(directory.path()).unwrap(), before);
    let again = tmpfs(directory.path());
    let later = Identity::at(directory.path()).unwrap();
    assert_ne!(later, before);
    if later.is_exact() {
        assert_ne!(later, over);
    }
    drop(again);
}

#[test]
fn mountinfo_is_understood() {
    let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/ro\\134ot rw,errors=continue\n\
        nonsense\n\
        37 35 0:24 / /x rw - tmpfs tmpfs rw,size=1k\n";
    let found = parse_mountinfo(text);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].point, Path::new("/mnt 2"));
    assert_eq!(found[0].root, Path::new("/mnt1"));
    assert_eq!(found[0].source, "/dev/ro\\ot");
    assert_eq!(found[0].filesystem, "ext3");
    assert_eq!(found[0].propagation, ["master:1", "shared:7"]);
    assert_eq!((found[1].id, found[1].parent), (37, 35));
    assert!(found[1].propagation.is_empty());
    assert!(mounts().unwrap().iter().any(|m| m.point == Path::new("/")));
}

#[test]
fn filesystems_have_classes() {
    assert_eq!(FsClass::of(0xef53), FsClass::Trusted);
    assert_eq!(FsClass::of(0x0102_1994), FsClass::Memory);
    assert_eq!(FsClass::of(0x6969), FsClass::Remote);
    assert_eq!(FsClass::of(1), FsClass::Remote);
    assert_eq!(FsClass::of(0x9fa0), FsClass::Virtual("proc"));
}
