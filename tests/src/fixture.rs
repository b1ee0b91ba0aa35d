//! Trees that are hard to back up: every kind, name, size and attribute that a Linux filesystem has.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Makes a tree with all kinds; as root with devices, owners, capabilities and ACLs too.
pub fn everything(root: &Path) {
    fs::create_dir_all(root).expect("the root");
    contents(&root.join("contents"));
    names(&root.join("names"));
    links(&root.join("links"));
    attributes(&root.join("attributes"));
    deep(&root.join("deep"), 40);
    if rustix::process::geteuid().is_root() {
        special(&root.join("special"));
    }
    set_mtime(&root.join("contents"), 1_000_000_000);
    set_mtime(root, 1_234_567_890);
}

/// Bytes that no compressor makes smaller and no chunker repeats.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Files of every interesting size; sparse ones; zeros.
pub fn contents(dir: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    for size in [
        0,
        1,
        511,
        512,
        513,
        1024,
        4095,
        4096,
        4097,
        8192,
        65_535,
        65_536,
        131_073,
        1 << 20,
        3_000_001,
    ] {
        fs::write(
            dir.join(format!("size-{size}")),
            noise(size as u64 + 1, size),
        )
        .expect("a file");
    }
    fs::write(dir.join("text"), "the quick brown fox\n".repeat(20_000)).expect("a file");
    fs::write(dir.join("zeros"), vec![0; 1 << 20]).expect("a file");
    let mut padded = noise(5, 100_000);
    padded.extend(vec![0; 300_000]);
    padded.extend(noise(6, 100_001));
    fs::write(dir.join("zeros-inside"), padded).expect("a file");
    let sparse = File::create(dir.join("sparse")).expect("a file");
    sparse.set_len((64 << 20) + 123).expect("a size");
    sparse
        .write_all_at(&noise(7, 10_000), 1 << 20)
        .expect("an extent");
    sparse
        .write_all_at(&noise(8, 70_000), (32 << 20) + 77)
        .expect("an extent");
    File::create(dir.join("all-hole"))
        .and_then(|f| f.set_len(16 << 20))
        .expect("a hole");
}

/// Names of any bytes.
pub fn names(dir: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    let longest = [b'n'; 255];
    let names: [&[u8]; 14] = [
        b" leading space",
        b"-rf",
        b"new\nline",
        b"\x1b[31mred",
        b"\xff\xfe not utf-8",
        b"back\\slash",
        b"a",
        b"a.b",
        b"a b",
        b"\xe2\x80\xaeoverride",
        "ünï".as_bytes(),
        b"...",
        b"*",
        &longest,
    ];
    for name in names {
        fs::write(dir.join(OsStr::from_bytes(name)), name).expect("a file");
    }
    // A directory that sorts between others in bytes but not by components.
    for name in ["a-dir", "a-dir.x", "a-dir/b"] {
        fs::create_dir_all(dir.join(name)).expect("a directory");
        fs::write(dir.join(name).join("file"), name).expect("a file");
    }
}

/// Hard links within and across directories, symlinks to anywhere.
pub fn links(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deeper")).expect("directories");
    fs::write(dir.join("sub/original"), noise(9, 50_000)).expect("a file");
    fs::hard_link(dir.join("sub/original"), dir.join("another")).expect("a link");
    fs::hard_link(dir.join("sub/original"), dir.join("sub/deeper/third")).expect("a link");
    fs::write(dir.join("small"), "x").expect("a file");
    fs::hard_link(dir.join("small"), dir.join("zz-small")).expect("a link");
    for (name, target) in [
        ("up", "../../../../etc/passwd"),
        ("abs", "/etc/passwd"),
        ("gone", "nowhere"),
        ("loop", "loop"),
        ("dir", "sub"),
    ] {
        symlink(target, dir.join(name)).expect("a symlink");
    }
    symlink(OsStr::from_bytes(&[b't'; 4000]), dir.join("long-target")).ok();
}

/// Modes, times and user xattrs.
pub fn attributes(dir: &Path) {
    fs::create_dir_all(dir.join("closed")).expect("a directory");
    for mode in [0o400, 0o600, 0o644, 0o755, 0o1777] {
        let path = dir.join(format!("mode-{mode:o}"));
        fs::write(&path, "m").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    for (name, seconds) in [("old", 1), ("future", 4_102_444_800), ("before", -86_400)] {
        let path = dir.join(name);
        fs::write(&path, name).expect("a file");
        set_mtime(&path, seconds);
    }
    let path = dir.join("xattrs");
    fs::write(&path, "x").expect("a file");
    // tmpfs has user xattrs since Linux 6.6; where there are none the file is just a file.
    for (name, value) in [
        ("user.one", "1"),
        ("user.empty", ""),
        ("user.bytes", "0x00ff0a"),
    ] {
        let _ = Command::new("setfattr")
            .args(["-n", name, "-v", value])
            .arg(&path)
            .output();
    }
    let big = format!("0x{}", "ab".repeat(3000));
    let _ = Command::new("setfattr")
        .args(["-n", "user.big", "-v", &big])
        .arg(&path)
        .output();
    fs::set_permissions(dir.join("closed"), fs::Permissions::from_mode(0o500)).expect("a mode");
}

/// A path of `levels` directories with long names: at 40 levels longer than PATH_MAX.
pub fn deep(dir: &Path, levels: usize) {
    let script = "import os,sys\nos.makedirs(sys.argv[1],exist_ok=True); os.chdir(sys.argv[1])\n\
        for i in range(int(sys.argv[2])):\n  n='d%03d-'%i+'x'*200\n  os.mkdir(n); os.chdir(n)\n\
        open('bottom','w').write('here')\n";
    let done = Command::new("python3")
        .args(["-c", script])
        .arg(dir)
        .arg(levels.to_string())
        .status();
    assert!(done.is_ok_and(|s| s.success()), "cannot make a deep tree");
}

/// What only root can make.
pub fn special(dir: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    let script = r#"set -e
cd "$0"
mkfifo -m 640 fifo
python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.bind("socket")'
mknod null c 1 3
mknod loop b 7 0
echo owned > owned; chown 12345:54321 owned
echo suid > suid; chmod 4755 suid
echo sgid > sgid; chmod 2755 sgid
mkdir sgid-dir; chmod 2775 sgid-dir
echo cap > cap; setcap cap_net_raw+ep cap || true
echo acl > acl; setfacl -m u:1234:rw,g:99:r acl || true
mkdir acl-dir; setfacl -d -m u:1234:rwx acl-dir || true
ln -s nowhere link; chown -h 7:8 link
"#;
    let out = Command::new("sh")
        .args(["-c", script])
        .arg(dir)
        .output()
        .expect("sh starts");
    assert!(
        out.status.success(),
        "cannot make special files: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Sets a path's modification time, in seconds since the epoch, with 123,456,789 nanoseconds.
pub fn set_mtime(path: &Path, seconds: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 123_456_789,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .expect("a time");
}

/// Appends to a file.
pub fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut f| f.write_all(bytes))
        .expect("an append");
}
