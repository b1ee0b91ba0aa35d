use super::*;
use crate::beneath::Root;
use crate::sys::mapping::Mapping;
use holdfast_format::chunker::Profile;
use holdfast_format::keys::IdKey;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::Instant;

mod moving;

const INLINE: u32 = 512;

fn reader(class: FsClass) -> Reader {
    let key = IdKey::from_bytes([7; 32]);
    let profile = Profile::by_number(1).unwrap();
    Reader::new(ReadContext {
        chunker: Chunker::new(profile, key.gear()),
        ids: key.ids(),
        inline_limit: INLINE,
        class,
        busy: BusyPolicy::Settle,
        rate: RateLimit::unlimited(),
        cancel: Cancel::new(),
    })
}

/// Keeps what it gets; `trap` runs at the first piece of each attempt, or at `each_piece`.
#[derive(Default)]
struct Kept<'a> {
    inline: Option<Vec<u8>>,
    extents: Vec<Extent>,
    bytes: Vec<u8>,
    restarts: usize,
    trap: Option<Box<dyn FnMut(usize) + 'a>>,
    sprung: bool,
    each_piece: bool,
    stop: bool,
}

impl Kept<'_> {
    fn spring(&mut self) -> crate::Result<()> {
        if (!std::mem::replace(&mut self.sprung, true) || self.each_piece)
            && let Some(trap) = &mut self.trap
        {
            trap(self.restarts);
        }
        if self.stop {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}

impl ContentSink for Kept<'_> {
    fn restart(&mut self) {
        self.restarts += 1;
        self.inline = None;
        self.extents.clear();
        self.bytes.clear();
        self.sprung = false;
    }

    fn inline(&mut self, bytes: &[u8]) -> crate::Result<()> {
        self.spring()?;
        assert!(self.inline.replace(bytes.to_vec()).is_none());
        Ok(())
    }

    fn extent(&mut self, extent: Extent, bytes: Option<&[u8]>) -> crate::Result<()> {
        self.spring()?;
        match (extent, bytes) {
            (Extent::Chunk { length, .. }, Some(bytes)) => {
                assert_eq!(length as usize, bytes.len());
                self.bytes.extend_from_slice(bytes);
            }
            (Extent::Hole { length }, None) if length <= 1 << 30 => {
                self.bytes.resize(self.bytes.len() + length as usize, 0);
            }
            (Extent::Hole { .. }, None) => {}
            other => panic!("{other:?}"),
        }
        self.extents.push(extent);
        Ok(())
    }
}

fn top(path: &Path) -> Dir {
    Root::open(path).unwrap().top().unwrap()
}

fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for byte in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    bytes
}

/// Sets the change time back by waiting: nothing else can. Long enough for a quiet stamp.
fn age() {
    std::thread::sleep(Duration::from_millis(60));
}

#[test]
fn every_byte_of_every_size_comes_out() {
    let directory = disk();
    let dir = top(directory.path());
    let mut reader = reader(FsClass::Trusted);
    let data = noise(3_000_000);
    for size in [
        0, 1, 511, 512, 513, 8191, 65_536, 524_288, 524_289, 3_000_000,
    ] {
        std::fs::write(directory.path().join("f"), &data[..size]).unwrap();
        let mut kept = Kept::default();
        let outcome = reader.read_file(&dir, b"f", &mut kept).unwrap();
        assert_eq!(
            (outcome.size, outcome.stat.size),
            (size as u64, size as u64)
        );
        assert!(outcome.problem.is_none() && !outcome.stamp.inconsistent);
        let ids = &reader.context.ids;
        let digest = if size <= INLINE as usize {
            assert_eq!(kept.inline.as_deref().unwrap_or_default(), &data[..size]);
            assert!(kept.extents.is_empty());
            ContentDigest::of_inline(ids, &data[..size])
        } else {
            assert!(kept.inline.is_none());
            assert_eq!(kept.bytes, &data[..size]);
            let mut digester = ContentDigester::new(ids);
            kept.extents.iter().for_each(|e| digester.push_extent(e));
            digester.finish()
        };
        assert_eq!(outcome.digest, digest);
    }
}

#[test]
fn a_stamp_is_clean_only_when_old_and_quiet() {
    let directory = disk();
    let dir = top(directory.path());
    let path = directory.path().join("f");
    let read = |class| {
        let mut reader = reader(class);
        let outcome = reader.read_file(&dir, b"f", &mut Kept::default()).unwrap();
        (outcome.stamp, reader.probe_stats())
    };
    std::fs::write(&path, b"x").unwrap();
    let (fresh, probe) = read(FsClass::Trusted);
    assert!(fresh.racy && !fresh.inconsistent && !fresh.settled);
    assert_eq!((probe.quiet_count, probe.busy_count), (1, 0));
    age();
    let (old, _) = read(FsClass::Trusted);
    assert!(!old.racy && !old.inconsistent && !old.settled);
    assert!(read(FsClass::Remote).0.racy);
    // An open writer: three seconds are needed where syncing helps, for ever where it does not.
    let writer = OpenOptions::new().append(true).open(&path).unwrap();
    let (busy, probe) = read(FsClass::Trusted);
    assert!(busy.racy);
    assert_eq!(probe.busy_count, 1);
    std::thread::sleep(Duration::from_millis(3100));
    assert!(!read(FsClass::Trusted).0.racy);
    assert!(read(FsClass::Memory).0.racy);
    drop(writer);
    assert!(!read(FsClass::Memory).0.racy);
    // Read again on every run, where that is wanted.
    let _writer = OpenOptions::new().append(true).open(&path).unwrap();
    let mut reread = reader(FsClass::Trusted);
    reread.context.busy = BusyPolicy::Reread;
    let outcome = reread.read_file(&dir, b"f", &mut Kept::default()).unwrap();
    assert!(outcome.stamp.racy);
}

#[test]
fn a_mapping_for_writing_is_busy_though_its_descriptor_is_closed() {
    for base in ["/var/tmp", "/dev/shm"] {
        let directory = tempfile::tempdir_in(base).unwrap();
        let dir = top(directory.path());
        let path = directory.path().join("f");
        std::fs::write(&path, vec![b'a'; 4096]).unwrap();
        let class = Root::open(directory.path()).unwrap().class();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mapping = Mapping::of(&file);
        drop(file);
        mapping.store(0, b'b');
        age();
        let mut reader = reader(class);
        let mut kept = Kept::default();
        let first = reader.read_file(&dir, b"f", &mut kept).unwrap();
        assert_eq!(kept.bytes[0], b'b');
        assert_eq!(reader.probe_stats().busy_count, 1);
        assert!(first.stamp.racy, "{base}");
        if class == FsClass::Trusted {
            // The read synced the page, so that this store shows.
            mapping.store(1, b'c');
            let mut kept = Kept::default();
            let second = reader.read_file(&dir, b"f", &mut kept).unwrap();
            assert_eq!(kept.bytes[1], b'c');
            assert_ne!(second.stat.ctime_ns, first.stat.ctime_ns);
        }
        drop(mapping);
        age();
        let last = reader.read_file(&dir, b"f", &mut Kept::default()).unwrap();
        assert!(!last.stamp.racy, "{base}");
    }
}

#[test]
fn holes_are_skipped_and_cut_the_same_as_zeros_that_are_read() {
    for base in ["/var/tmp", "/dev/shm"] {
        let directory = tempfile::tempdir_in(base).unwrap();
        let dir = top(directory.path());
        let file = File::create(directory.path().join("f")).unwrap();
        let data = noise(300_000);
        for at in [0, 1_000_001, 5 << 20, (9 << 20) + 4096] {
            file.write_all_at(&data[..100_000 + at as usize % 7], at)
                .unwrap();
        }
        file.set_len((40 << 20) + 5).unwrap();
        let mut skipped = Kept::default();
        let mut whole = Kept::default();
        let a = reader(FsClass::Trusted)
            .read_file(&dir, b"f", &mut skipped)
            .unwrap();
        let b = reader(FsClass::Remote)
            .read_file(&dir, b"f", &mut whole)
            .unwrap();
        assert_eq!(skipped.extents, whole.extents);
        assert_eq!(
            skipped.bytes,
            std::fs::read(directory.path().join("f")).unwrap()
        );
        assert_eq!((a.digest, a.size), (b.digest, (40 << 20) + 5));
    }
}

#[test]
fn eight_tebibytes_of_nothing_take_no_time() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = File::create(directory.path().join("f")).unwrap();
    file.set_len(8 << 40).unwrap();
    file.write_all_at(b"end", (8 << 40) - 3).unwrap();
    file.write_all_at(b"middle", 3 << 40).unwrap();
    let start = Instant::now();
    let mut kept = Kept::default();
    let dir = top(directory.path());
    let outcome = reader(FsClass::Memory)
        .read_file(&dir, b"f", &mut kept)
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(outcome.size, 8 << 40);
    let sum: u64 = kept.extents.iter().map(Extent::length).sum();
    assert_eq!(sum, 8 << 40);
    assert_eq!(kept.extents.len(), 4);
}

#[test]
fn what_is_gone_or_no_file_is_never_read_and_never_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let dir = top(path);
    std::fs::create_dir(path.join("directory")).unwrap();
    symlink("/etc/passwd", path.join("link")).unwrap();
    mknodat(CWD, path.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    let mut names = vec!["directory", "link", "fifo", "socket"];
    if rustix::process::geteuid().is_root() {
        // Reading it would never end.
        let zero = makedev(1, 5);
        mknodat(
            CWD,
            path.join("zero"),
            FileType::CharacterDevice,
            Mode::RWXU,
            zero,
        )
        .unwrap();
        names.push("zero");
    }
    let mut reader = reader(FsClass::Trusted);
    for name in names {
        let mut kept = Kept::default();
        match reader.read_file(&dir, name.as_bytes(), &mut kept) {
            Err(ReadError::Item(_)) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert!(kept.extents.is_empty() && kept.inline.is_none());
    }
    let gone = reader.read_file(&dir, b"gone", &mut Kept::default());
    assert!(matches!(gone, Err(ReadError::Vanished)));
    let gone = read_meta(&dir, b"gone", Kind::Fifo);
    assert!(matches!(gone, Err(ReadError::Vanished)));
    let other = read_meta(&dir, b"fifo", Kind::Socket);
    assert!(matches!(other, Err(ReadError::Item(p)) if p.reason == "ReplacedDuringScan"));
}

#[test]
fn the_sink_and_cancelling_stop_a_read() {
    let directory = disk();
    std::fs::write(directory.path().join("f"), noise(2_000_000)).unwrap();
    let dir = top(directory.path());
    let mut reader = reader(FsClass::Trusted);
    let mut kept = Kept {
        stop: true,
        ..Kept::default()
    };
    let stopped = reader.read_file(&dir, b"f", &mut kept);
    assert!(matches!(stopped, Err(ReadError::Stopped(_))));
    // The cutter holds nothing of the file that was left.
    let mut kept = Kept::default();
    reader.read_file(&dir, b"f", &mut kept).unwrap();
    assert_eq!(kept.bytes, noise(2_000_000));
    let cancel = reader.context.cancel.clone();
    let mut kept = Kept {
        trap: Some(Box::new(|_| cancel.cancel())),
        ..Kept::default()
    };
    let stopped = reader.read_file(&dir, b"f", &mut kept);
    assert!(matches!(stopped, Err(ReadError::Stopped(Error::Cancelled))));
}

#[test]
fn attributes_and_link_targets_are_read() {
    use rustix::fs::{XattrFlags, lsetxattr, setxattr};
    let directory = disk();
    let path = directory.path();
    let dir = top(path);
    for name in ["file", "fifo"] {
        mknodat(
            CWD,
            path.join(name),
            if name == "file" {
                FileType::RegularFile
            } else {
                FileType::Fifo
            },
            Mode::RWXU,
            0,
        )
        .unwrap();
    }
    std::fs::create_dir(path.join("directory")).unwrap();
    symlink("some\nwhere", path.join("link")).unwrap();
    let none = XattrFlags::empty();
    setxattr(path.join("file"), "user.b", &[b'v'; 2000], none).unwrap();
    setxattr(path.join("file"), "user.a", b"", none).unwrap();
    setxattr(path.join("directory"), "user.d", b"x", none).unwrap();
    let mut reader = reader(FsClass::Trusted);
    let outcome = reader
        .read_file(&dir, b"file", &mut Kept::default())
        .unwrap();
    let names: Vec<_> = outcome.xattrs.iter().map(|x| &x.name[..]).collect();
    assert_eq!(names, [&b"user.a"[..], b"user.b"]);
    assert_eq!(outcome.xattrs[1].value, [b'v'; 2000]);
    let meta = read_meta(&dir, b"directory", Kind::Directory).unwrap();
    assert_eq!(
        (&meta.xattrs[0].name[..], &meta.xattrs[0].value[..]),
        (&b"user.d"[..], &b"x"[..])
    );
    let inside = read_dir_meta(&dir.open_dir(b"directory").unwrap()).unwrap();
    assert_eq!(inside.xattrs, meta.xattrs);
    let link = read_meta(&dir, b"link", Kind::Symlink).unwrap();
    assert_eq!(link.target, b"some\nwhere");
    assert!(link.xattrs.is_empty());
    if rustix::process::geteuid().is_root() {
        // Of the link, not of what it might lead to.
        lsetxattr(path.join("link"), "trusted.t", b"t", none).unwrap();
        let link = read_meta(&dir, b"link", Kind::Symlink).unwrap();
        assert_eq!(link.xattrs[0].name, b"trusted.t");
        setxattr(path.join("fifo"), "trusted.f", b"f", none).unwrap();
        let fifo = read_meta(&dir, b"fifo", Kind::Fifo).unwrap();
        assert_eq!(fifo.xattrs[0].value, b"f");
        // An access list: a version, the owner, a named user, the group, the mask, the rest.
        let acl: Vec<u8> = [2u32.to_le_bytes().to_vec()]
            .into_iter()
            .chain(
                [
                    (1u16, 6u16, u32::MAX),
                    (2, 4, 1000),
                    (4, 4, u32::MAX),
                    (16, 4, u32::MAX),
                    (32, 0, u32::MAX),
                ]
                .map(|(tag, permissions, id)| {
                    let mut entry = tag.to_le_bytes().to_vec();
                    entry.extend(permissions.to_le_bytes());
                    entry.extend(id.to_le_bytes());
                    entry
                }),
            )
            .flatten()
            .collect();
        setxattr(path.join("file"), "system.posix_acl_access", &acl, none).unwrap();
        let outcome = reader
            .read_file(&dir, b"file", &mut Kept::default())
            .unwrap();
        assert_eq!(outcome.xattrs[0].name, b"system.posix_acl_access");
        assert_eq!(outcome.xattrs[0].value, acl);
    }
}
