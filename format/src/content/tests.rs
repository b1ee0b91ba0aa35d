use super::*;
use crate::chunker::Profile;
use crate::keys::IdKey;
use proptest::prelude::*;
use std::collections::HashSet;
use std::convert::Infallible;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Owned {
    Data(Vec<u8>),
    Hole(u64),
}

fn chunker(key: u8) -> Chunker {
    Chunker::new(
        Profile::by_number(1).unwrap(),
        IdKey::from_bytes([key; 32]).gear(),
    )
}

fn collect(pieces: &mut Vec<Owned>) -> impl FnMut(Piece<'_>) -> Result<(), Infallible> {
    |piece| {
        pieces.push(match piece {
            Piece::Data(bytes) => Owned::Data(bytes.to_vec()),
            Piece::Hole(length) => Owned::Hole(length),
        });
        Ok(())
    }
}

fn cut(chunker: &Chunker, bytes: &[u8]) -> Vec<Owned> {
    let mut pieces = Vec::new();
    ContentCutter::new(chunker)
        .finish_with(bytes, &mut collect(&mut pieces))
        .unwrap();
    pieces
}

/// The rule as it is written, byte by byte, as an oracle.
fn oracle(chunker: &Chunker, bytes: &[u8]) -> Vec<Owned> {
    let mut holes = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let run = bytes[at..].iter().take_while(|byte| **byte == 0).count();
        if run >= 64 * 1024 {
            let from = at.div_ceil(4096) * 4096;
            let to = (at + run) / 4096 * 4096;
            holes.push(from..to);
        }
        at += run.max(1);
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    let data = |pieces: &mut Vec<Owned>, bytes| {
        pieces.extend(
            chunker
                .chunks(bytes)
                .map(|chunk| Owned::Data(chunk.to_vec())),
        );
    };
    for hole in holes {
        data(&mut pieces, &bytes[at..hole.start]);
        pieces.push(Owned::Hole(hole.len() as u64));
        at = hole.end;
    }
    data(&mut pieces, &bytes[at..]);
    pieces
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Runs of noise, zeros and a short period, with lengths around all the limits.
fn shape() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        1usize..5000,
        (55_000usize..75_000),
        Just(65_536),
        Just(65_535),
        Just(61_440),
        100_000usize..300_000,
    ];
    let run = (0u8..4, length, any::<u64>());
    proptest::collection::vec(run, 0..6).prop_map(|runs| {
        let mut bytes = Vec::new();
        for (kind, length, seed) in runs {
            match kind {
                0 => bytes.extend(noise(seed, length)),
                1 => bytes.extend((0..length).map(|index| (index % 7) as u8)),
                _ => bytes.resize(bytes.len() + length, 0),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pieces_obey_the_rule_however_the_input_is_split(
        bytes in shape(),
        splits in proptest::collection::vec(1usize..400_000, 1..20),
        skip: bool,
    ) {
        let chunker = chunker(1);
        let expected = oracle(&chunker, &bytes);
        prop_assert_eq!(&cut(&chunker, &bytes), &expected);

        let mut pieces = Vec::new();
        let mut cutter = ContentCutter::new(&chunker);
        let mut rest = &bytes[..];
        for split in splits.iter().cycle() {
            let (part, after) = rest.split_at((*split).min(rest.len()));
            let mut out = collect(&mut pieces);
            if skip && part.iter().all(|byte| *byte == 0) {
                cutter.skip_zeros(part.len() as u64, &mut out).unwrap();
            } else {
                cutter.feed(part, &mut out).unwrap();
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(cutter.pending.capacity() < 1 << 20);
        cutter.finish(&mut collect(&mut pieces)).unwrap();
        prop_assert_eq!(&pieces, &expected);
        // And the cutter is as good as new.
        let mut again = Vec::new();
        cutter.finish_with(&bytes, &mut collect(&mut again)).unwrap();
        prop_assert_eq!(&again, &expected);
    }
}

#[test]
fn tiny_feeds_give_the_same_pieces() {
    let chunker = chunker(1);
    let mut bytes = noise(1, 150_000);
    bytes.resize(300_001, 0);
    bytes.extend(noise(2, 10_000));
    let mut pieces = Vec::new();
    let mut cutter = ContentCutter::new(&chunker);
    for part in bytes.chunks(701) {
        cutter.feed(part, &mut collect(&mut pieces)).unwrap();
    }
    cutter.finish(&mut collect(&mut pieces)).unwrap();
    assert_eq!(pieces, oracle(&chunker, &bytes));
}

#[test]
fn no_bytes_give_no_pieces_and_a_terabyte_of_zeros_one() {
    let chunker = chunker(1);
    assert_eq!(cut(&chunker, b""), []);
    let mut pieces = Vec::new();
    let mut cutter = ContentCutter::new(&chunker);
    cutter
        .skip_zeros(1 << 40, &mut collect(&mut pieces))
        .unwrap();
    cutter
        .skip_zeros((1 << 40) + 5, &mut collect(&mut pieces))
        .unwrap();
    cutter.finish(&mut collect(&mut pieces)).unwrap();
    assert_eq!(pieces, [Owned::Hole(1 << 41), Owned::Data(vec![0; 5])]);
}

#[test]
fn holes_are_trimmed_to_4_kib_and_shorter_runs_are_data() {
    let chunker = chunker(1);
    let with_zeros = |before: usize, zeros: usize| {
        let mut bytes = vec![1; before];
        bytes.resize(before + zeros, 0);
        bytes.extend([1; 100]);
        let pieces = cut(&chunker, &bytes);
        assert_eq!(pieces, oracle(&chunker, &bytes));
        pieces.into_iter().find_map(|piece| match piece {
            Owned::Hole(length) => Some(length),
            Owned::Data(_) => None,
        })
    };
    assert_eq!(with_zeros(4096, 65_536), Some(65_536));
    assert_eq!(with_zeros(4096, 65_535), None);
    assert_eq!(with_zeros(1, 65_536), Some(61_440));
    assert_eq!(with_zeros(1, 65_535), None);
    assert_eq!(with_zeros(4095, 65_536), Some(61_440));
    assert_eq!(with_zeros(0, 1 << 20), Some(1 << 20));
}

/// Pages as databases write them: header, noise, words, then zeros up to 8 KiB.
fn pages(count: u64) -> Vec<u8> {
    let words = noise(99, 4096)
        .iter()
        .map(|byte| b'a' + byte % 16)
        .collect::<Vec<_>>();
    let mut bytes = Vec::new();
    for page in 0..count {
        for field in [page, page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1, 8192] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(noise(page, 3600));
        let turn = (page as usize * 37) % words.len();
        bytes.extend(&words[turn..]);
        bytes.extend(&words[..turn]);
        bytes.resize((page as usize + 1) * 8192, 0);
    }
    bytes
}

fn added(chunker: &Chunker, old: &[u8], new: &[u8]) -> usize {
    let known: HashSet<_> = cut(chunker, old)
        .into_iter()
        .map(|piece| format!("{piece:?}"))
        .collect();
    cut(chunker, new)
        .iter()
        .filter(|piece| !known.contains(&format!("{piece:?}")))
        .map(|piece| match piece {
            Owned::Data(bytes) => bytes.len(),
            Owned::Hole(_) => 0,
        })
        .sum()
}

#[test]
fn cuts_fall_in_step_again_after_an_inserted_byte() {
    let pages = pages(768);
    let shifted = [b"X", &pages[..]].concat();
    for key in 0..12 {
        let added = added(&chunker(key), &pages, &shifted);
        assert!(added < 1 << 20, "{added} bytes added with key {key}");
    }
}

#[test]
fn a_short_period_does_not_spread_a_change() {
    let mut bytes = noise(1, 1 << 20);
    bytes.extend(b"abcdefg".repeat(150_000));
    bytes.extend(noise(2, 1 << 20));
    let mut shifted = bytes.clone();
    shifted.insert(10, b'X');
    for key in 0..12 {
        let added = added(&chunker(key), &bytes, &shifted);
        assert!(added < 512 << 10, "{added} bytes added with key {key}");
    }
}

#[test]
fn a_run_of_one_byte_never_cuts_by_itself() {
    // Short of the hole rule, and of other bytes than zero. Numbers that would cut are passed over:
    // 0 does at once, a high power of two after its bits have left the word.
    let bad = [0, 1 << 63, 1 << 60].repeat(100);
    let mut good = noise(3, 1 << 14).into_iter();
    let good = std::iter::from_fn(|| {
        let bytes: Vec<u8> = good.by_ref().take(8).collect();
        Some(u64::from_le_bytes(bytes.try_into().unwrap()))
    });
    let mut stream = bad.into_iter().chain(good);
    let gear = crate::chunker::GearTable::from_stream(|| stream.next().unwrap());
    for profile in crate::chunker::PROFILES {
        let chunker = Chunker::new(profile, gear.clone());
        for byte in [0u8, 0x20, 0xff] {
            let run = vec![byte; 60 * 1024];
            assert_eq!(chunker.chunks(&run).count(), 1);
        }
    }
}
