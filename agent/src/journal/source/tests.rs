//! The same promises of every source: what each operation is told as, where, and by whom.

mod limits;
mod operations;
pub(crate) mod place;

use super::*;
use place::{Watched, places, sources};
use rustix::fd::AsFd;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;

#[test]
fn a_watch_is_on_the_directory_itself() {
    for place in places() {
        for kind in sources() {
            let watched = Watched::new(&place, kind);
            // Again is as good as once, and a descriptor that cannot read will do.
            let root = watched.open("");
            let again = watched.source.watch(root.as_fd()).unwrap();
            assert_eq!(again, watched.key("/"));
            // The key stays with the directory, not with its name.
            fs::rename(watched.at("below"), watched.at("moved")).unwrap();
            fs::create_dir(watched.at("below")).unwrap();
            let below = watched.source.watch(watched.open("below").as_fd()).unwrap();
            let moved = watched.source.watch(watched.open("moved").as_fd()).unwrap();
            assert_eq!(moved, watched.key("below/"));
            assert_ne!(moved, below);
            watched.told();
            fs::write(watched.at("moved/file"), b"x").unwrap();
            let seen = watched.told();
            assert!(!seen.is_empty());
            for event in seen {
                assert_eq!(event.at, "below/file", "{kind:?} on {place:?}");
            }
        }
    }
}

#[test]
fn what_is_no_directory_is_not_watched() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        fs::write(watched.at("file"), b"x").unwrap();
        symlink(watched.at("below"), watched.at("link")).unwrap();
        for name in ["file", "link"] {
            let refused = watched.source.watch(watched.open(name).as_fd());
            assert_eq!(refused, Err(WatchError::Other(Errno::NOTDIR)), "{kind:?}");
        }
    }
}

#[test]
fn an_ended_watch_tells_nothing() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        let below = watched.open("below");
        let key = watched.key("below/");
        watched.told();
        watched.source.unwatch(&key, Some(below.as_fd()));
        watched.source.unwatch(&key, Some(below.as_fd()));
        let ended = watched.told();
        let ends = ended.iter().filter(|e| e.what == What::SELF_GONE);
        // inotify says so; fanotify has nothing to say.
        assert_eq!(ends.count(), usize::from(kind == Kind::Inotify));
        fs::write(watched.at("below/file"), b"x").unwrap();
        assert_eq!(watched.told(), []);
    }
}

#[test]
fn a_removed_directory_is_told_of_and_its_name_is_free() {
    for place in places() {
        for kind in sources() {
            let watched = Watched::new(&place, kind);
            let key = watched.key("below/");
            watched.told();
            fs::remove_dir(watched.at("below")).unwrap();
            let seen = watched.told();
            let find = |at: &str, what| seen.iter().any(|e| e.at == at && e.what.any(what));
            assert!(find("/below", What::DELETE), "{kind:?}: {seen:?}");
            assert!(find("below/", What::SELF_GONE), "{kind:?}: {seen:?}");
            fs::create_dir(watched.at("below")).unwrap();
            let new = watched.source.watch(watched.open("below").as_fd()).unwrap();
            assert_ne!(new, key, "{kind:?} on {place:?}");
        }
    }
}

#[test]
fn a_drain_ends_however_fast_more_comes() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        for n in 0..10 {
            File::create(watched.at(&format!("{n}"))).unwrap();
        }
        let mut made = 10;
        let told = watched.source.drain(&mut |_| {
            File::create(watched.at(&format!("{made}"))).unwrap();
            made += 1;
            assert!(made < 10_000, "{kind:?} goes on for ever");
        });
        assert!(told.unwrap() >= 10);
    }
}

#[test]
fn everything_before_a_drain_is_told_by_it() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        watched.told();
        // More than one read, less than the queue.
        let names: BTreeSet<String> = (0..3000).map(|n| format!("/{n:0>200}")).collect();
        for name in &names {
            File::create(watched.at(&name[1..])).unwrap();
        }
        let mut told = BTreeSet::new();
        let count = watched.source.drain(&mut |told_of| match told_of {
            Told::Event(event) => drop(told.insert(watched.place_of(&event))),
            other => panic!("{other:?}"),
        });
        assert_eq!(told, names, "{kind:?}");
        let count = count.unwrap();
        assert!(count >= names.len());
        assert_eq!(watched.told(), []);
    }
}

#[test]
fn handles_name_inodes() {
    for place in places() {
        let watched = Watched::new(&place, Kind::Inotify);
        let root = watched.open("");
        let top = File::open(watched.at("")).unwrap();
        let handle = |name: &str| handle_of(root.as_fd(), name.as_bytes()).unwrap();
        let itself = handle_of(root.as_fd(), b"").unwrap();
        assert_eq!(itself, handle_of(top.as_fd(), b"").unwrap());
        fs::write(watched.at("file"), b"x").unwrap();
        fs::hard_link(watched.at("file"), watched.at("below/link")).unwrap();
        symlink("file", watched.at("symlink")).unwrap();
        let below = watched.open("below");
        assert_eq!(handle_of(below.as_fd(), b"link").unwrap(), handle("file"));
        assert_ne!(handle("symlink"), handle("file"));
        for refused in [&b"below/link"[..], b".", b"..", b"a\0b"] {
            assert_eq!(handle_of(root.as_fd(), refused), Err(Errno::INVAL));
        }
        assert_eq!(handle_of(root.as_fd(), b"none"), Err(Errno::NOENT));

        let copy = Handle::new(itself.kind(), itself.bytes());
        assert_eq!(copy, itself);
        if !rustix::process::geteuid().is_root() {
            println!("no root: handles are not opened");
            continue;
        }
        let found = find(top.as_fd(), &handle("file")).unwrap().unwrap();
        let stat = rustix::fs::fstat(&found).unwrap();
        let same = rustix::fs::stat(watched.at("file")).unwrap();
        assert_eq!(stat.st_ino, same.st_ino);
        let old = handle("file");
        drop(found);
        fs::remove_file(watched.at("file")).unwrap();
        fs::remove_file(watched.at("below/link")).unwrap();
        assert!(find(top.as_fd(), &old).unwrap().is_none(), "on {place:?}");
        // ext4 gives the number out again at once, never with the same handle.
        fs::write(watched.at("file"), b"x").unwrap();
        assert_ne!(handle("file"), old, "on {place:?}");
    }
}

#[test]
fn long_handles_are_equal_by_their_bytes() {
    let bytes: Vec<u8> = (0..128).collect();
    for length in [0, 1, 8, 23, 24, 25, 128] {
        let handle = Handle::new(7, &bytes[..length]);
        assert_eq!(handle.bytes(), &bytes[..length]);
        assert_eq!(handle.kind(), 7);
        assert_eq!(handle, Handle::new(7, &bytes[..length]));
        assert_ne!(handle, Handle::new(8, &bytes[..length]));
        assert_ne!(
            handle,
            Handle::new(7, &bytes[..length.saturating_sub(1).max(2)])
        );
    }
    assert!(size_of::<Key>() <= 32, "{}", size_of::<Key>());
}

#[test]
fn an_unmount_ends_the_watches_and_is_not_held_up() {
    if !rustix::process::geteuid().is_root() {
        println!("no root: nothing is mounted");
        return;
    }
    for kind in sources() {
        let image = place::Image::make("tmpfs", 8);
        let root = place::open_path(image.path());
        let (source, _) = open(root.as_fd(), &[kind]).unwrap();
        drop(root);
        nix::mount::umount(image.path()).unwrap();
        let mut unmounted = 0;
        let told = source.drain(&mut |told| unmounted += usize::from(told == Told::Unmounted));
        told.unwrap();
        // fanotify does not tell: the table of mounts does.
        assert_eq!(unmounted, usize::from(kind == Kind::Inotify));
    }
}
