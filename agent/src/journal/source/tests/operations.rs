//! Every operation on a watched directory, and what is told of it.

use super::place::{Place, Seen, elsewhere, images};
use super::*;
use crate::sys::mapping::Mapping;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, XattrFlags};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::{Duration, SystemTime};

const WRITTEN: What = What::CREATE.and(REWRITTEN);
const REWRITTEN: What = What::OPEN.and(What::MODIFY).and(What::CLOSE_WRITE);

/// What is prepared untold, what is done, and what must be told of it, all events of a name in one.
struct Operation {
    what: &'static str,
    before: fn(&Watched),
    act: fn(&Watched),
    told: &'static [(&'static str, What)],
}

fn file(watched: &Watched) {
    fs::write(watched.at("file"), b"some bytes").unwrap();
}

fn write(path: impl AsRef<std::path::Path>) -> File {
    File::options().write(true).open(path).unwrap()
}

const OPERATIONS: &[Operation] = &[
    Operation {
        what: "create",
        before: |_| {},
        act: |w| drop(File::create(w.at("file")).unwrap()),
        told: &[("/file", What::CREATE.and(What::OPEN).and(What::CLOSE_WRITE))],
    },
    Operation {
        what: "create and write, below",
        before: |_| {},
        act: |w| fs::write(w.at("below/file"), b"x").unwrap(),
        told: &[("below/file", WRITTEN)],
    },
    Operation {
        what: "write",
        before: file,
        act: |w| write(w.at("file")).write_all(b"other").unwrap(),
        told: &[("/file", REWRITTEN)],
    },
    Operation {
        what: "open for reading",
        before: file,
        act: |w| drop(File::open(w.at("file")).unwrap()),
        told: &[("/file", What::OPEN)],
    },
    Operation {
        what: "mkdir",
        before: |_| {},
        act: |w| fs::create_dir(w.at("new")).unwrap(),
        told: &[("/new", What::CREATE)],
    },
    Operation {
        what: "rmdir",
        before: |w| fs::create_dir(w.at("new")).unwrap(),
        act: |w| fs::remove_dir(w.at("new")).unwrap(),
        told: &[("/new", What::DELETE)],
    },
    Operation {
        what: "symlink",
        before: |_| {},
        act: |w| symlink("file", w.at("link")).unwrap(),
        told: &[("/link", What::CREATE)],
    },
    Operation {
        what: "mkfifo",
        before: |_| {},
        act: |w| nix::unistd::mkfifo(&w.at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        told: &[("/fifo", What::CREATE)],
    },
    Operation {
        what: "rename",
        before: file,
        act: |w| fs::rename(w.at("file"), w.at("below/other")).unwrap(),
        told: &[("/file", What::MOVED_FROM), ("below/other", What::MOVED_TO)],
    },
    Operation {
        what: "rename in",
        before: |w| fs::write(w.outside("file"), b"x").unwrap(),
        act: |w| fs::rename(w.outside("file"), w.at("file")).unwrap(),
        told: &[("/file", What::MOVED_TO)],
    },
    Operation {
        what: "rename out",
        before: file,
        act: |w| fs::rename(w.at("file"), w.outside("file")).unwrap(),
        told: &[("/file", What::MOVED_FROM)],
    },
    Operation {
        what: "rename over",
        before: |w| {
            file(w);
            fs::write(w.at("other"), b"x").unwrap();
        },
        act: |w| fs::rename(w.at("file"), w.at("other")).unwrap(),
        told: &[("/file", What::MOVED_FROM), ("/other", What::MOVED_TO)],
    },
    Operation {
        what: "exchange",
        before: |w| {
            file(w);
            fs::write(w.at("below/file"), b"x").unwrap();
        },
        act: |w| {
            let (a, b) = (w.at("file"), w.at("below/file"));
            rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
        },
        told: &[
            ("/file", What::MOVED_FROM.and(What::MOVED_TO)),
            ("below/file", What::MOVED_FROM.and(What::MOVED_TO)),
        ],
    },
    Operation {
        what: "rename of a watched directory",
        before: |_| {},
        act: |w| fs::rename(w.at("below"), w.at("moved")).unwrap(),
        told: &[
            ("/below", What::MOVED_FROM),
            ("/moved", What::MOVED_TO),
            ("below/", What::SELF_MOVED),
        ],
    },
    Operation {
        what: "unlink",
        before: file,
        act: |w| fs::remove_file(w.at("file")).unwrap(),
        told: &[("/file", What::DELETE)],
    },
    Operation {
        what: "link in",
        before: |w| fs::write(w.outside("file"), b"x").unwrap(),
        act: |w| fs::hard_link(w.outside("file"), w.at("link")).unwrap(),
        told: &[("/link", What::CREATE)],
    },
    Operation {
        what: "truncate",
        before: file,
        act: |w| nix::unistd::truncate(&w.at("file"), 3).unwrap(),
        told: &[("/file", What::MODIFY)],
    },
    Operation {
        what: "open with truncation",
        before: file,
        act: |w| drop(File::create(w.at("file")).unwrap()),
        told: &[("/file", REWRITTEN)],
    },
    Operation {
        what: "punch a hole",
        before: file,
        act: |w| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(write(w.at("file")), flags, 0, 5).unwrap();
        },
        told: &[("/file", REWRITTEN)],
    },
    Operation {
        what: "chmod",
        before: file,
        act: |w| fs::set_permissions(w.at("file"), PermissionsExt::from_mode(0o600)).unwrap(),
        told: &[("/file", What::ATTRIB)],
    },
    Operation {
        what: "chown",
        before: file,
        act: |w| {
            let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
            nix::unistd::chown(&w.at("file"), Some(uid), Some(gid)).unwrap();
        },
        told: &[("/file", What::ATTRIB)],
    },
    Operation {
        what: "setxattr",
        before: file,
        act: |w| {
            let at = w.at("file");
            rustix::fs::setxattr(at, "user.holdfast", b"1", XattrFlags::empty()).unwrap();
        },
        told: &[("/file", What::ATTRIB)],
    },
    Operation {
        what: "set both times",
        before: file,
        act: |w| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            let times = fs::FileTimes::new().set_accessed(at).set_modified(at);
            write(w.at("file")).set_times(times).unwrap();
        },
        told: &[("/file", What::OPEN.and(What::ATTRIB).and(What::CLOSE_WRITE))],
    },
    Operation {
        what: "set the modification time alone",
        before: file,
        act: |w| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            write(w.at("file")).set_modified(at).unwrap();
        },
        told: &[("/file", REWRITTEN)],
    },
    Operation {
        what: "chmod of a watched directory",
        before: |_| {},
        act: |w| fs::set_permissions(w.at("below"), PermissionsExt::from_mode(0o700)).unwrap(),
        told: &[("below/", What::ATTRIB)],
    },
    Operation {
        what: "chmod of the root",
        before: |_| {},
        act: |w| fs::set_permissions(w.at(""), PermissionsExt::from_mode(0o700)).unwrap(),
        told: &[("/", What::ATTRIB)],
    },
    Operation {
        what: "a store through a new mapping, then its end",
        before: file,
        act: |w| {
            let file = File::options().read(true).write(true).open(w.at("file"));
            let mapping = Mapping::of(&file.unwrap());
            mapping.store(0, b'M');
        },
        // No MODIFY; the close comes when the mapping ends.
        told: &[("/file", What::OPEN.and(What::CLOSE_WRITE))],
    },
];

/// All events of a name in one. What inotify tells besides is left out: CLOSE_NOWRITE, and a watched
/// directory's own change as one of its name, too.
fn summary(seen: &[Seen]) -> BTreeMap<String, What> {
    let mut names: BTreeMap<String, What> = BTreeMap::new();
    for event in seen {
        let mut what = event.what.without(What::CLOSE_NOWRITE);
        if event.at == "/below" {
            what = what.without(What::ATTRIB);
        }
        if !what.is_empty() {
            let all = names.entry(event.at.clone()).or_default();
            *all = all.and(what);
        }
    }
    names
}

fn check_all(places: &[Place]) {
    for place in places {
        for kind in sources() {
            for operation in OPERATIONS {
                let watched = Watched::new(place, kind);
                (operation.before)(&watched);
                watched.told();
                (operation.act)(&watched);
                let told = operation.told.iter();
                let told = told.map(|(at, what)| ((*at).to_owned(), *what)).collect();
                let seen = watched.told();
                let what = operation.what;
                assert_eq!(summary(&seen), told, "{what}, {kind:?} on {place:?}");
                let own = kind.tells_own();
                assert!(seen.iter().all(|e| e.own == own), "{what}: {seen:?}");
            }
        }
    }
}

#[test]
fn every_operation_is_told() {
    check_all(&places());
}

#[test]
fn every_operation_is_told_on_every_filesystem() {
    check_all(&images());
}

#[test]
fn a_directory_that_is_not_watched_is_told_of() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        fs::create_dir(watched.at("new")).unwrap();
        watched.told();
        fs::set_permissions(watched.at("new"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(watched.at("new/file"), b"x").unwrap();
        let mut told = Vec::new();
        let drained = watched.source.drain(&mut |event| match event {
            Told::Event(event) => told.push((event.dir, event.name.to_vec(), event.what)),
            other => panic!("{other:?}"),
        });
        drained.unwrap();
        // fanotify names it by itself, inotify by its name; neither what is in it.
        let expected = match kind {
            Kind::Inotify => (watched.key("/"), b"new".to_vec(), What::ATTRIB),
            _ => {
                let key = Key::Handle(watched.handle(&watched.at("new")));
                (key, Vec::new(), What::ATTRIB)
            }
        };
        assert_eq!(told, [expected], "{kind:?}");
    }
}

#[test]
fn others_are_told_apart() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        watched.told();
        elsewhere(
            &watched.at(""),
            "echo x > theirs; mkdir dir; ln theirs link; rm link",
        );
        fs::write(watched.at("ours"), b"x").unwrap();
        drop(File::open(watched.at("theirs")).unwrap());
        let seen = watched.told();
        let by = |own, at: &str| {
            let these = seen.iter().filter(|e| e.own == own && e.at == at);
            these.fold(What::default(), |all, e| all.and(e.what))
        };
        if kind.tells_own() {
            assert_eq!(by(true, "/theirs"), What::OPEN);
            assert_eq!(by(false, "/theirs"), WRITTEN);
            assert_eq!(by(true, "/ours"), WRITTEN);
            assert_eq!(by(false, "/ours"), What::default());
        } else {
            assert!(seen.iter().all(|e| !e.own));
        }
    }
}

#[test]
fn targets_are_handles() {
    for place in places().into_iter().chain(images()) {
        for kind in sources().into_iter().filter(|k| *k != Kind::Inotify) {
            let watched = Watched::new(&place, kind);
            fs::write(watched.at("old"), b"x").unwrap();
            watched.told();

            // A link to a file, written through and gone before anybody looked.
            let target = watched.handle(&watched.at("old"));
            fs::hard_link(watched.at("old"), watched.at("below/link")).unwrap();
            write(watched.at("below/link")).write_all(b"other").unwrap();
            fs::remove_file(watched.at("below/link")).unwrap();
            // A file that came and went.
            fs::write(watched.at("brief"), b"x").unwrap();
            let brief = watched.handle(&watched.at("brief"));
            fs::remove_file(watched.at("brief")).unwrap();
            assert_ne!(brief, target);
            fs::create_dir(watched.at("dir")).unwrap();
            fs::rename(watched.at("old"), watched.at("dir/new")).unwrap();

            let dir = watched.handle(&watched.at("dir"));
            let of_names = What::CREATE
                .and(What::DELETE)
                .and(What::MOVED_FROM)
                .and(What::MOVED_TO);
            let mut names = BTreeSet::new();
            for event in watched.told() {
                let expected = match event.at.as_str() {
                    "below/link" | "/old" => &target,
                    "/brief" => &brief,
                    "/dir" => &dir,
                    other => panic!("{other} on {place:?}"),
                };
                match event.target {
                    Some(handle) => assert_eq!(handle, *expected, "{} on {place:?}", event.at),
                    None => assert!(!kind.tells_targets() && event.what.any(of_names)),
                }
                assert_eq!(event.directory, event.at == "/dir");
                names.insert(event.at);
            }
            assert_eq!(names.len(), 4);
        }
    }
}

#[test]
fn a_number_that_is_used_again_is_another_target() {
    if !sources().contains(&Kind::Fanotify) {
        return;
    }
    for place in places() {
        let watched = Watched::new(&place, Kind::Fanotify);
        watched.told();
        let mut handles = Vec::new();
        for _ in 0..3 {
            fs::write(watched.at("file"), b"x").unwrap();
            handles.push(watched.handle(&watched.at("file")));
            fs::remove_file(watched.at("file")).unwrap();
        }
        let told = watched.told();
        // Equal events are merged, but not over inodes.
        let targets: Vec<_> = told.iter().filter_map(|e| e.target.clone()).collect();
        assert_eq!(targets, handles, "on {place:?}: {told:?}");
    }
}

#[test]
fn a_file_that_is_given_a_name_may_have_writers() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        watched.told();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let unnamed = rustix::fs::open(watched.at(""), flags, Mode::RWXU).unwrap();
        let path = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&unnamed));
        let name = watched.at("file");
        rustix::fs::linkat(CWD, path, CWD, &name, AtFlags::SYMLINK_FOLLOW).unwrap();
        let seen = watched.told();
        let of_name: Vec<_> = seen.iter().filter(|e| e.at == "/file").collect();
        assert_eq!(of_name.len(), 1);
        assert_eq!(of_name[0].what, What::CREATE);
        // It is open, and no OPEN of that name was told, nor is a write by it.
        File::from(unnamed).write_all_at(b"later", 0).unwrap();
        let later = watched.told();
        assert!(later.iter().all(|e| e.at != "/file"), "{kind:?}: {later:?}");
        if kind == Kind::Fanotify {
            // Its target says so.
            let written = later.iter().filter(|e| e.what.any(What::MODIFY));
            let targets: Vec<_> = written.filter_map(|e| e.target.clone()).collect();
            assert_eq!(targets, [watched.handle(&name)]);
        }
    }
}

#[test]
fn a_mapping_from_before_tells_nothing() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        file(&watched);
        let opened = File::options()
            .read(true)
            .write(true)
            .open(watched.at("file"));
        let mapping = Mapping::of(&opened.unwrap());
        watched.told();
        mapping.store(0, b'M');
        assert_eq!(watched.told(), []);
        assert_eq!(fs::read(watched.at("file")).unwrap()[0], b'M');
        let read = What::OPEN.and(What::CLOSE_NOWRITE);
        assert!(
            watched
                .told()
                .iter()
                .all(|e| e.what.without(read).is_empty())
        );
        drop(mapping);
        assert_eq!(summary(&watched.told())["/file"], What::CLOSE_WRITE);
    }
}

#[test]
fn another_name_outside_tells_nothing() {
    for kind in sources() {
        let watched = Watched::new(&places()[0], kind);
        file(&watched);
        fs::hard_link(watched.at("file"), watched.outside("link")).unwrap();
        watched.told();
        fs::write(watched.outside("link"), b"other").unwrap();
        assert_eq!(watched.told(), []);
    }
}
