//! A tenant who does to files whatever a kernel lets one do, in a process of its own.

use super::super::bench::noise;
use crate::sys::mapping::Mapping;
use rustix::fs::{CWD, FallocateFlags, RenameFlags, Timestamps, XattrFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Numbers that look random and come again.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

/// A tenant who does everything that a kernel lets one do to files.
struct Tenant {
    root: PathBuf,
    dice: Dice,
    count: u64,
    /// With a descriptor that can only tell the size.
    mapped: Vec<(Mapping, File)>,
    opened: Vec<File>,
    done: Vec<String>,
}

impl Tenant {
    fn new(root: PathBuf, seed: u64) -> Self {
        Self {
            root,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            count: 0,
            mapped: Vec::new(),
            opened: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Some path; it may exist or not, and its directory too.
    fn path(&mut self) -> PathBuf {
        let depth = 1 + self.dice.roll(3);
        let mut path = self.root.clone();
        for _ in 0..depth {
            path.push(["a", "b", "c", "d"][self.dice.roll(4) as usize]);
        }
        path
    }

    fn all(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let mut left = vec![self.root.clone()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
                all.push(entry.path());
            }
        }
        all.sort();
        all
    }

    fn any(&mut self, fits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let all: Vec<_> = self.all().into_iter().filter(|path| fits(path)).collect();
        if all.is_empty() {
            return None;
        }
        let at = self.dice.roll(all.len() as u64) as usize;
        Some(all[at].clone())
    }

    fn file(&mut self) -> Option<PathBuf> {
        self.any(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()))
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.count += 1;
        let length = [0, 10, 600, 5000, 20_000][self.dice.roll(5) as usize];
        noise(self.count, length)
    }

    /// One thing; errors are part of life.
    fn act(&mut self) {
        let what = self.dice.roll(26);
        let did = self.try_act(what);
        self.done.push(format!("{what} {did:?}"));
    }

    fn try_act(&mut self, what: u64) -> Option<String> {
        let told = |path: &Path| path.display().to_string();
        match what {
            0..=2 => {
                let (path, bytes) = (self.path(), self.bytes());
                fs::create_dir_all(path.parent()?).ok()?;
                fs::write(&path, bytes).ok()?;
                Some(format!("write {}", told(&path)))
            }
            3 => {
                // The same size, in place.
                let path = self.file()?;
                let length = path.metadata().ok()?.len() as usize;
                let bytes = noise(self.count + 77, length);
                self.count += 1;
                let file = OpenOptions::new().write(true).open(&path).ok()?;
                file.write_all_at(&bytes, 0).ok()?;
                Some(format!("overwrite {}", told(&path)))
            }
            4 => {
                let (path, bytes) = (self.file()?, self.bytes());
                let mut file = OpenOptions::new().append(true).open(&path).ok()?;
                file.write_all(&bytes).ok()?;
                Some(format!("append {}", told(&path)))
            }
            5 => {
                let path = self.file()?;
                let length = self.dice.roll(6000);
                OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .ok()?
                    .set_len(length)
                    .ok()?;
                Some(format!("truncate {}", told(&path)))
            }
            6 => {
                let path = self.any(|_| true)?;
                let mode = 0o600 + self.dice.roll(0o177) as u32;
                if path.is_symlink() {
                    return None;
                }
                let mode = if path.is_dir() { mode | 0o700 } else { mode };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).ok()?;
                Some(format!("chmod {}", told(&path)))
            }
            7 => {
                let path = self.any(|_| true)?;
                let owner = rustix::fs::Uid::from_raw(path.symlink_metadata().ok()?.uid());
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(CWD, &path, Some(owner), None, flags).ok()?;
                Some(format!("chown {}", told(&path)))
            }
            8 => {
                let path = self.file()?;
                let value = [self.count as u8; 5];
                rustix::fs::setxattr(&path, "user.holdfast", &value, XattrFlags::empty()).ok()?;
                Some(format!("setxattr {}", told(&path)))
            }
            9 => {
                let path = self.path();
                fs::create_dir_all(&path).ok()?;
                Some(format!("mkdir {}", told(&path)))
            }
            10..=12 => {
                let (from, to) = (self.any(|_| true)?, self.path());
                fs::rename(&from, &to).ok()?;
                Some(format!("rename {} {}", told(&from), told(&to)))
            }
            13 => {
                let (from, to) = (self.any(|_| true)?, self.any(|_| true)?);
                rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE).ok()?;
                Some(format!("exchange {} {}", told(&from), told(&to)))
            }
            14 | 15 => {
                let (from, to) = (self.file()?, self.path());
                fs::hard_link(&from, &to).ok()?;
                Some(format!("link {} {}", told(&from), told(&to)))
            }
            16 => {
                let path = self.path();
                symlink(format!("target{}", self.count), &path).ok()?;
                Some(format!("symlink {}", told(&path)))
            }
            17 => {
                let path = self.any(|path| !path.is_dir() || path.is_symlink())?;
                fs::remove_file(&path).ok()?;
                Some(format!("unlink {}", told(&path)))
            }
            18 => {
                let path = self.any(|path| path.is_dir() && !path.is_symlink())?;
                fs::remove_dir_all(&path).ok()?;
                Some(format!("rm -r {}", told(&path)))
            }
            19 => {
                // Through a second name that is gone again.
                let (path, link) = (self.file()?, self.path());
                let bytes = self.bytes();
                fs::hard_link(&path, &link).ok()?;
                fs::write(&link, bytes).ok()?;
                fs::remove_file(&link).ok()?;
                Some(format!("hidden {} {}", told(&path), told(&link)))
            }
            20 => {
                let path = self.file()?;
                if path.metadata().ok()?.len() < 4096 || self.mapped.len() > 3 {
                    self.mapped.pop();
                    return Some("unmap".to_owned());
                }
                let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
                let size = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
                self.mapped.push((Mapping::of(&file), size));
                Some(format!("map {}", told(&path)))
            }
            21 | 22 => {
                let at = self.dice.roll(4000) as usize;
                let byte = self.dice.roll(256) as u8;
                let (mapping, size) = self.mapped.last()?;
                if size.metadata().ok()?.len() < 4096 {
                    return None;
                }
                mapping.store(at, byte);
                Some("store".to_owned())
            }
            23 => {
                // As much is written, and its time set back.
                let path = self.file()?;
                let meta = path.metadata().ok()?;
                self.count += 1;
                let bytes = noise(self.count, meta.len() as usize);
                let file = OpenOptions::new().write(true).open(&path).ok()?;
                file.write_all_at(&bytes, 0).ok()?;
                let time = rustix::fs::Timespec {
                    tv_sec: meta.mtime(),
                    tv_nsec: meta.mtime_nsec(),
                };
                let times = Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).ok()?;
                Some(format!("back {}", told(&path)))
            }
            24 => {
                let path = self.file()?;
                let file = OpenOptions::new().write(true).open(&path).ok()?;
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, 0, 4096).ok()?;
                Some(format!("punch {}", told(&path)))
            }
            _ => {
                // Held open, and written now and then.
                if self.opened.len() > 2 {
                    self.opened.remove(0);
                }
                let path = self.file()?;
                let bytes = self.bytes();
                let mut file = OpenOptions::new().write(true).open(&path).ok()?;
                file.seek(SeekFrom::End(0)).ok()?;
                file.write_all(&bytes).ok()?;
                self.opened.push(file);
                Some(format!("hold {}", told(&path)))
            }
        }
    }
}

/// The tenant in a process of its own, as tenants are: our own opens are told apart.
pub struct Remote {
    child: Child,
    answers: BufReader<ChildStdout>,
    pub done: Vec<String>,
}

const ROOT: &str = "HOLDFAST_TENANT_ROOT";
const SEED: &str = "HOLDFAST_TENANT_SEED";
const PROMPT: &str = "did: ";

impl Remote {
    pub fn start(root: &Path, seed: u64) -> Self {
        let name = concat!(module_path!(), "::is_a_tenant");
        let name = name.split_once("::").unwrap().1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(ROOT, root)
            .env(SEED, seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            answers,
            done: Vec::new(),
        }
    }

    pub fn act(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        loop {
            let mut line = String::new();
            assert!(
                self.answers.read_line(&mut line).unwrap() > 0,
                "the tenant died"
            );
            if let Some((_, did)) = line.split_once(PROMPT) {
                self.done.push(did.trim_end().to_owned());
                return;
            }
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what `Remote` starts. One act for each line.
#[test]
#[ignore = "a process of other tests"]
fn is_a_tenant() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let mut tenant = Tenant::new(root.into(), seed);
    for line in std::io::stdin().lines() {
        line.unwrap();
        tenant.act();
        println!("{PROMPT}{}", tenant.done.pop().unwrap());
    }
}
