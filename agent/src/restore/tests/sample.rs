//! Trees to restore.

use super::*;

/// Bytes that compress a little and repeat nowhere.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

pub fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

pub fn age(path: &Path, seconds: i64, nanos: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A little of everything that any user may make.
pub fn sample(dir: &Path) {
    put(&dir.join("empty"), b"");
    put(&dir.join("small"), &noise(1, 700));
    put(&dir.join("single chunk"), &noise(2, 9_000));
    put(&dir.join("many"), &noise(3, 300_000));
    put(&dir.join("long"), &noise(4, 5 << 20));
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(&noise(5, 5000), 3 << 20).unwrap();
    sparse.set_len(16 << 20).unwrap();
    put(&dir.join(OsStr::from_bytes(b"\xff\n\x1b odd ~")), b"odd");
    fs::create_dir_all(dir.join("d/e/f")).unwrap();
    fs::create_dir(dir.join("d.e")).unwrap();
    for n in 0..300 {
        put(
            &dir.join(format!("d/{n}")),
            &noise(100 + n, (n as usize * 37) % 5000),
        );
        age(
            &dir.join(format!("d/{n}")),
            1_500_000_000 + n as i64,
            123_456_789,
        );
    }
    symlink("small", dir.join("link")).unwrap();
    symlink("/etc/passwd", dir.join("d/absolute")).unwrap();
    age(&dir.join("link"), -5, 999_999_999);
    fs::hard_link(dir.join("many"), dir.join("d/e/many again")).unwrap();
    fs::hard_link(dir.join("small"), dir.join("d/small again")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    fs::set_permissions(dir.join("small"), fs::Permissions::from_mode(0o440)).unwrap();
    fs::set_permissions(dir.join("d/1"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(dir.join("d.e"), fs::Permissions::from_mode(0o2775)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.join("many"), "user.a", b"one", flags).unwrap();
    rustix::fs::setxattr(dir.join("d"), "user.b", b"two", flags).unwrap();
    // Large values need a filesystem that takes them; ext4 does not by default.
    let _ = rustix::fs::setxattr(dir.join("many"), "user.large", &noise(6, 20_000), flags);
    for (name, seconds) in [("d/e/f", 1), ("d/e", 2), ("d", 3), ("d.e", 4), ("", 5)] {
        age(&dir.join(name), 1_600_000_000 + seconds, 987_654_321);
    }
}

/// What only root may make.
pub fn special(dir: &Path) {
    use std::os::unix::fs::{chown, lchown};
    chown(dir.join("many"), Some(12345), Some(54321)).unwrap();
    lchown(dir.join("link"), Some(77), Some(78)).unwrap();
    fs::set_permissions(dir.join("many"), fs::Permissions::from_mode(0o6755)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("device"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.join("many"), "security.capability", capability, flags).unwrap();
    age(&dir.join("link"), -5, 999_999_999);
    age(dir, 1_600_000_005, 987_654_321);
}
