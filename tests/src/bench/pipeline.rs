//! What chunk + hash + compress + seal cost on this machine with nothing around them: the floor of a
//! first backup, on one and two threads.

use holdfast_format::chunker::{Chunker, Profile};
use holdfast_format::content::{ContentCutter, Piece};
use holdfast_format::seal::IdKey;
use std::convert::Infallible;
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

/// Chunks, hashes and compresses a file with some profiles, frame sizes and levels; one line each.
pub fn table(file: &Path) -> io::Result<String> {
    let mut bytes = vec![0; 512 << 20];
    let mut input = File::open(file)?;
    let mut filled = 0;
    while filled < bytes.len() {
        match input.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    let mut out = String::from(
        "| profile | frame KiB | zstd | MiB/s, one thread | ratio | chunks |\n|---|---|---|---|---|---|\n",
    );
    for profile in [1u8, 2, 3] {
        for frame in [256 << 10, 1 << 20] {
            for level in [-1, 1, 2, 3] {
                let start = Instant::now();
                let (stored, chunks) = run(&bytes, profile, frame, level)?;
                let rate = bytes.len() as f64 / 1_048_576.0 / start.elapsed().as_secs_f64();
                let ratio = bytes.len() as f64 / stored as f64;
                let _ = writeln!(
                    out,
                    "| {profile} | {} | {level} | {rate:.0} | {ratio:.3} | {chunks} |",
                    frame >> 10
                );
            }
        }
    }
    out.push_str("\nOn two threads, each with half of the bytes, profile 1, frames of 1 MiB:\n\n");
    let half = bytes.len() / 2;
    for level in [-1, 2] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| run(&bytes[half..], 1, 1 << 20, level));
            run(&bytes[..half], 1, 1 << 20, level)?;
            other
                .join()
                .map_err(|_| io::Error::other("a thread died"))?
        })?;
        let rate = bytes.len() as f64 / 1_048_576.0 / start.elapsed().as_secs_f64();
        let _ = writeln!(
            out,
            "- zstd {level}: {rate:.0} MiB/s, {:.2} s for 4 GiB",
            4096.0 / rate
        );
    }
    Ok(out)
}

fn run(bytes: &[u8], profile: u8, frame: usize, level: i32) -> io::Result<(u64, u64)> {
    let key = IdKey::from_bytes([7; 32]);
    let ids = key.ids();
    let profile = Profile::by_number(profile).map_err(io::Error::other)?;
    let chunker = Chunker::new(profile, key.gear());
    let mut cutter = ContentCutter::new(&chunker);
    let mut plain = Vec::with_capacity(2 * frame);
    let (mut stored, mut chunks) = (0u64, 0u64);
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    let mut sealer = Seal::new();
    let mut flush = |plain: &mut Vec<u8>| -> io::Result<()> {
        if !plain.is_empty() {
            let packed = compressor.compress(plain)?;
            stored += sealer.seal(packed);
            plain.clear();
        }
        Ok(())
    };
    let mut ready: Vec<Vec<u8>> = Vec::new();
    let mut take = |piece: Piece<'_>| -> Result<(), Infallible> {
        if let Piece::Data(chunk) = piece {
            std::hint::black_box(ids.chunk(chunk));
            chunks += 1;
            plain.extend_from_slice(chunk);
            if plain.len() >= frame {
                ready.push(std::mem::take(&mut plain));
            }
        }
        Ok(())
    };
    for part in bytes.chunks(1 << 20) {
        let Ok(()) = cutter.feed(part, &mut take);
    }
    let Ok(()) = cutter.finish(&mut take);
    ready.push(plain);
    for mut frame in ready {
        flush(&mut frame)?;
    }
    Ok((stored, chunks))
}

/// AES-256-GCM in place, as a pack does it.
struct Seal(ring::aead::LessSafeKey, u64);

impl Seal {
    fn new() -> Self {
        let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &[9; 32])
            .expect("the key has 32 bytes");
        Self(ring::aead::LessSafeKey::new(key), 0)
    }

    fn seal(&mut self, mut bytes: Vec<u8>) -> u64 {
        self.1 += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.1.to_be_bytes());
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), &mut bytes);
        bytes.len() as u64 + tag.map_or(0, |t| t.as_ref().len() as u64)
    }
}
