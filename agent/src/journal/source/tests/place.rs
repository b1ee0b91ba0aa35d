//! Where the sources are tested, and directories that are watched there.

#[path = "../../../../../tests/src/image.rs"]
mod image;

use super::*;
pub(crate) use image::Image;
use rustix::fs::{Mode, OFlags};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A filesystem.
pub(super) struct Place {
    name: String,
    path: PathBuf,
    _image: Option<Image>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The default disk, and memory.
pub(super) fn places() -> Vec<Place> {
    let mut places = vec![Place {
        name: "the disk".to_owned(),
        path: std::env::temp_dir(),
        _image: None,
    }];
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        places.push(Place {
            name: "tmpfs".to_owned(),
            path: memory.to_owned(),
            _image: None,
        });
    }
    places
}

/// Fresh filesystems of other kinds; none without root.
pub(super) fn images() -> Vec<Place> {
    if !rustix::process::geteuid().is_root() {
        println!("no root: not tested on ext4, xfs and btrfs images");
        return Vec::new();
    }
    let make = |(kind, mib): (&str, u64)| {
        let image = Image::make(kind, mib);
        Place {
            name: kind.to_owned(),
            path: image.path().to_owned(),
            _image: Some(image),
        }
    };
    [("ext4", 64), ("xfs", 320), ("btrfs", 160)]
        .map(make)
        .into()
}

/// The sources that work here. inotify always must.
pub(super) fn sources() -> Vec<Kind> {
    let works = |kind: &Kind| start(*kind).is_ok();
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(works).collect();
    if !kinds.contains(&Kind::Fanotify) {
        println!("no fanotify with targets here: not tested");
    }
    assert!(kinds.contains(&Kind::Inotify));
    kinds
}

/// An event with the label of its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// `/name` in the root, `below/name` in the other; an ending slash is the directory itself.
    pub(super) at: String,
    pub(super) what: What,
    pub(super) target: Option<Handle>,
    pub(super) directory: bool,
    pub(super) own: bool,
}

/// A watched directory with a watched one in it, and one beside it that is not watched.
pub(super) struct Watched {
    directory: tempfile::TempDir,
    pub(super) source: Arc<dyn Source>,
    keys: [(Key, &'static str); 2],
}

impl Watched {
    pub(super) fn new(place: &Place, kind: Kind) -> Self {
        let directory = tempfile::tempdir_in(&place.path).unwrap();
        for name in ["root", "root/below", "outside"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let root = open_path(&directory.path().join("root"));
        let (source, key) = open(root.as_fd(), &[kind])
            .unwrap_or_else(|error| panic!("{kind:?} on {place:?}: {error}"));
        assert_eq!(source.kind(), kind);
        let below = open_path(&directory.path().join("root/below"));
        let below = source.watch(below.as_fd()).unwrap();
        Self {
            directory,
            source,
            keys: [(key, "/"), (below, "below/")],
        }
    }

    /// A path in the watched root.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join("root").join(name)
    }

    /// A path in the directory that is not watched, of the same filesystem.
    pub(super) fn outside(&self, name: &str) -> PathBuf {
        self.directory.path().join("outside").join(name)
    }

    /// A descriptor that cannot read.
    pub(super) fn open(&self, name: &str) -> OwnedFd {
        open_path(&self.at(name))
    }

    pub(super) fn handle(&self, path: &Path) -> Handle {
        let parent = open_path(path.parent().unwrap());
        handle_of(parent.as_fd(), path.file_name().unwrap().as_encoded_bytes()).unwrap()
    }

    pub(super) fn key(&self, label: &str) -> Key {
        let found = self.keys.iter().find(|(_, l)| *l == label);
        found.unwrap().0.clone()
    }

    /// Where an event happened.
    pub(super) fn place_of(&self, event: &Event<'_>) -> String {
        let found = self.keys.iter().find(|(key, _)| *key == event.dir);
        let label = found.map_or("unknown:", |(_, label)| label);
        format!("{label}{}", String::from_utf8_lossy(event.name))
    }

    /// What is queued, which must not overflow.
    pub(super) fn told(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let drained = self.source.drain(&mut |told| match told {
            Told::Event(event) => seen.push(Seen {
                at: self.place_of(&event),
                what: event.what,
                target: event.target,
                directory: event.directory,
                own: event.own,
            }),
            other => panic!("{other:?}"),
        });
        assert_eq!(drained.unwrap(), seen.len());
        seen
    }
}

/// A descriptor of a file, directory or symlink that cannot read.
pub(super) fn open_path(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

/// Runs a script as another process, in `directory`.
pub(super) fn elsewhere(directory: &Path, script: &str) {
    let mut shell = Command::new("sh");
    let done = shell.args(["-euc", script]).current_dir(directory).status();
    assert!(done.unwrap().success(), "{script}");
}
