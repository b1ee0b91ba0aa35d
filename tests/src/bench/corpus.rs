//! Corpora of known shape, the same bytes for the same seed on every machine.
//!
//! | name | shape |
//! |---|---|
//! | A | 200,000 files in 4,000 directories, log-normal sizes around 3 KiB, half text-like, half random |
//! | B | 1,000,000 files of 100 to 300 bytes of text in 20,000 directories |
//! | C | `big.db`: 4 GiB of 8 KiB database-like pages; `sparse.img`: 8 GiB with 200 MiB of data |
//! | D | a copy of the system's own files, up to 3 GiB |
//! | J | 10,000 files like those of A, in 200 directories |
//! | H | 5,000,000 files in 100,000 directories, one of fifty with 100 to 300 bytes of text, the others empty |
//! | G | 1 GiB of pages padded with zeros, for the insertion of one byte |

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PAGE: usize = 8192;

/// Deterministic numbers: xoshiro256++ seeded by SplitMix64 (Blackman and Vigna, public domain).
pub struct Rng([u64; 4]);

impl Rng {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Log-normal: `exp(N(mu, sigma))`, by Box and Muller.
    pub fn log_normal(&mut self, mu: f64, sigma: f64) -> f64 {
        let (a, b) = (1.0 - self.unit(), self.unit());
        (mu + sigma * (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()).exp()
    }

    /// Fills with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for group in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            group.copy_from_slice(&word[..group.len()]);
        }
    }
}

/// Text-like material (JSON and log flavoured), cut from a pool at random places.
struct Pool(Vec<u8>);

impl Pool {
    fn new(rng: &mut Rng, bytes: usize) -> Self {
        let mut letters = Rng::new(7);
        let words: Vec<String> = (0..3000)
            .map(|_| {
                let length = 2 + letters.below(9);
                (0..length)
                    .map(|_| b"etaoinshrdlucmfwypvbgkjqxz"[letters.below(26)] as char)
                    .collect()
            })
            .collect();
        let mut text = String::with_capacity(bytes + 256);
        while text.len() < bytes {
            if rng.unit() < 0.3 {
                let (id, word) = (rng.below(1_000_000_000), &words[rng.below(words.len())]);
                let (month, day) = (1 + rng.below(12), 1 + rng.below(28));
                let (h, m, s) = (rng.below(24), rng.below(60), rng.below(60));
                let v = rng.unit() * 1000.0;
                text.push_str(&format!(
                    "{{\"id\":{id},\"name\":\"{word}\",\"ts\":\"2026-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z\",\"v\":{v:.4}}}\n"
                ));
            } else {
                let count = 6 + rng.below(9);
                for at in 0..count {
                    text.push_str(&words[rng.below(words.len())]);
                    text.push_str(if at + 1 == count { ".\n" } else { " " });
                }
            }
        }
        text.truncate(bytes);
        Self(text.into_bytes())
    }

    fn cut(&self, rng: &mut Rng, bytes: usize) -> &[u8] {
        let at = rng.below(self.0.len() - bytes - 16);
        &self.0[at..at + bytes]
    }
}

/// Makes corpus `name` below `root`, which must not exist yet.
pub fn generate(name: &str, root: &Path, seed: u64) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let mut rng = Rng::new(seed);
    match name {
        "A" => many_files(root, &mut rng, 200_000, 4_000),
        "B" => tiny_files(root, &mut rng, 20_000, 50),
        "J" => many_files(root, &mut rng, 10_000, 200),
        "C" => {
            database(&root.join("big.db"), &mut rng, 4 << 30)?;
            sparse(&root.join("sparse.img"), &mut rng, 8 << 30, 200)
        }
        "D" => system_files(root, 3 << 30),
        "G" => database(&root.join("one.bin"), &mut rng, 1 << 30),
        other => Err(io::Error::other(format!("there is no corpus {other}"))),
    }
}

/// Corpus A's shape, at any size.
pub fn many_files(root: &Path, rng: &mut Rng, files: usize, dirs: usize) -> io::Result<()> {
    let pool = Pool::new(rng, (64 << 20).min(files * 2048).max(2 << 20));
    let dirs: Vec<PathBuf> = (0..dirs)
        .map(|i| root.join(format!("d{:02}/s{:02}/x{i:04}", i / 400, i / 20 % 20)))
        .collect();
    for dir in &dirs {
        fs::create_dir_all(dir)?;
    }
    let mut bytes = Vec::new();
    for i in 0..files {
        let size = (rng.log_normal(8.0, 1.0) as usize).clamp(1, 1 << 20);
        bytes.clear();
        let ending = if i % 2 == 1 {
            bytes.resize(size, 0);
            rng.fill(&mut bytes);
            "bin"
        } else {
            bytes.extend_from_slice(format!("#{i}\n").as_bytes());
            bytes.extend_from_slice(pool.cut(rng, size));
            bytes.truncate(size);
            "txt"
        };
        fs::write(
            dirs[i % dirs.len()].join(format!("f{i:06}.{ending}")),
            &bytes,
        )?;
    }
    Ok(())
}

/// Corpus B's shape, at any size.
pub fn tiny_files(root: &Path, rng: &mut Rng, dirs: usize, each: usize) -> io::Result<()> {
    let pool = Pool::new(rng, 16 << 20);
    for d in 0..dirs {
        let dir = root.join(format!("{:02}/{:02}/{d:05}", d / 1000, d / 50 % 20));
        fs::create_dir_all(&dir)?;
        for j in 0..each {
            let size = 100 + rng.below(201);
            let mut bytes = format!("{}:", d * each + j).into_bytes();
            bytes.extend_from_slice(pool.cut(rng, size));
            bytes.truncate(size);
            fs::write(dir.join(format!("{j:02}.json")), &bytes)?;
        }
    }
    Ok(())
}

/// An 8 KiB page: 24-byte header, 3,600 random bytes, 4,096 of text, zeros; no two alike.
fn page(rng: &mut Rng, pool: &Pool, number: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[..8].copy_from_slice(&number.to_le_bytes());
    page[8..16].copy_from_slice(&(rng.next() >> 1).to_le_bytes());
    page[16..24].copy_from_slice(&(PAGE as u64).to_le_bytes());
    rng.fill(&mut page[24..3624]);
    page[3624..7720].copy_from_slice(pool.cut(rng, 4096));
    page
}

/// Empty files in one directory.
pub fn names(root: &Path, count: usize) -> io::Result<()> {
    (0..count).try_for_each(|n| File::create(root.join(format!("entry-{n:07}"))).map(drop))
}

/// So many directories below others of a thousand each, with a small file in each.
pub fn directories(root: &Path, count: usize) -> io::Result<()> {
    for n in 0..count {
        let dir = root.join(format!("{:03}/{:03}", n / 1000, n % 1000));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("file"), format!("the file of directory {n}"))?;
    }
    Ok(())
}

/// Corpus H, at any size: names cost what they cost whatever the files hold.
pub fn mostly_empty(root: &Path, rng: &mut Rng, dirs: usize) -> io::Result<()> {
    tiny_files(root, rng, dirs, 1)?;
    for d in 0..dirs {
        let dir = root.join(format!("{:02}/{:02}/{d:05}", d / 1000, d / 50 % 20));
        for j in 1..50 {
            File::create(dir.join(format!("{j:02}.json")))?;
        }
    }
    Ok(())
}

/// A file of pages.
pub fn database(path: &Path, rng: &mut Rng, size: u64) -> io::Result<()> {
    let pool = Pool::new(rng, 64 << 20);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for number in 0..size / PAGE as u64 {
        file.write_all(&page(rng, &pool, number))?;
    }
    file.flush()
}

/// A sparse image with `extents` extents of 1 MiB of pages.
pub fn sparse(path: &Path, rng: &mut Rng, size: u64, extents: u64) -> io::Result<()> {
    let pool = Pool::new(rng, 64 << 20);
    let mut file = File::create(path)?;
    file.set_len(size)?;
    let stride = (size >> 20) / extents;
    for extent in 0..extents {
        file.seek(SeekFrom::Start(
            (extent * stride + rng.below(stride as usize) as u64) << 20,
        ))?;
        for q in 0..128 {
            file.write_all(&page(rng, &pool, (1 << 40) + extent * 128 + q))?;
        }
    }
    Ok(())
}

/// A copy of the system's own files up to `budget` bytes, with times and permissions.
fn system_files(root: &Path, budget: u64) -> io::Result<()> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let sources = [
        "/usr/lib".into(),
        "/usr/bin".into(),
        "/usr/include".into(),
        "/usr/share".into(),
        home.join(".cargo/registry"),
    ];
    let mut left = budget;
    for source in sources.iter().filter(|s| s.is_dir()) {
        copy_tree(
            source,
            &root.join(source.strip_prefix("/").unwrap_or(source)),
            &mut left,
        )?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path, left: &mut u64) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut entries: Vec<_> = fs::read_dir(from)?.filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata()?;
        if *left == 0 {
            return Ok(());
        }
        if meta.is_dir() {
            copy_tree(&source, &target, left)?;
        } else if meta.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if meta.is_file() && fs::copy(&source, &target).is_ok() {
            File::open(&target)?.set_modified(meta.modified()?)?;
            *left = left.saturating_sub(meta.len());
        }
    }
    Ok(())
}

/// Changes `count` files in place: 16 random bytes appended to each.
pub fn touch(root: &Path, count: usize, seed: u64) -> io::Result<()> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    let mut rng = Rng::new(seed);
    let count = count.min(files.len());
    for at in 0..count {
        let pick = at + rng.below(files.len() - at);
        files.swap(at, pick);
        let mut bytes = [0; 16];
        rng.fill(&mut bytes);
        OpenOptions::new()
            .append(true)
            .open(&files[at])?
            .write_all(&bytes)?;
    }
    Ok(())
}

fn collect(root: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type()? {
            kind if kind.is_dir() => collect(&entry.path(), files)?,
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

/// Rewrites this fraction of a file's 8 KiB pages in place, at random places.
pub fn dirty(path: &Path, fraction: f64, seed: u64) -> io::Result<()> {
    let mut rng = Rng::new(seed);
    let pool = Pool::new(&mut rng, 4 << 20);
    let file = OpenOptions::new().write(true).open(path)?;
    let pages = file.metadata()?.len() / PAGE as u64;
    let wanted = (pages as f64 * fraction) as usize;
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < wanted {
        chosen.insert(rng.below(pages as usize) as u64);
    }
    for number in chosen {
        file.write_all_at(&page(&mut rng, &pool, number), number * PAGE as u64)?;
    }
    Ok(())
}

/// Inserts one byte at the front of a file.
pub fn insert_front(path: &Path) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut from = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut to = BufWriter::with_capacity(1 << 20, File::create(&next)?);
    to.write_all(b"X")?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            count => to.write_all(&buffer[..count])?,
        }
    }
    to.flush()?;
    fs::rename(next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1", "2"] {
            many_files(&dir.path().join(name), &mut Rng::new(42), 50, 5).unwrap();
        }
        let mut files = Vec::new();
        collect(&dir.path().join("1"), &mut files).unwrap();
        assert_eq!(files.len(), 50);
        for file in files {
            let other = dir
                .path()
                .join("2")
                .join(file.strip_prefix(dir.path().join("1")).unwrap());
            assert_eq!(fs::read(file).unwrap(), fs::read(other).unwrap());
        }
    }
}
