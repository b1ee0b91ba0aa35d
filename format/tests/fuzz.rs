//! Every decoder, fed for a while with golden objects that were changed at random: none panics, hangs, or
//! decodes what has another encoding.
//!
//! `HOLDFAST_FUZZ_SECONDS` says for how long each of them (`make test`: 20, `make fuzz`: 1200); without it
//! a moment. Each run goes another way; an input that breaks a decoder is printed.
#![allow(
    clippy::disallowed_methods,
    reason = "a test reads its own files and the clock"
)]

use holdfast_format::fuzz::TARGETS;
use holdfast_format::id::{hex, unhex};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const LONGEST_INPUT: usize = 64 * 1024;
/// Inputs between two looks at the clock.
const AT_ONCE: usize = 64;
/// Inputs of one run that are kept to be changed further.
const KEPT: usize = 512;

fn golden() -> Vec<Vec<u8>> {
    let mut inputs = vec![Vec::new()];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "hex") {
            let text = String::from_utf8(bytes).unwrap();
            inputs.extend(text.lines().map(|line| unhex(line).unwrap()));
        } else {
            inputs.push(bytes);
        }
    }
    inputs
}

/// Enough chance for this (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One change: of bits, bytes, numbers, lengths, order.
fn change(input: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    let at = chance.below(input.len());
    let length = 1 + chance.below(16);
    let end = (at + length).min(input.len());
    match chance.below(9) {
        0 | 1 if !input.is_empty() => input[at] ^= 1 << chance.below(8),
        2 if !input.is_empty() => input[at] = chance.next() as u8,
        3 => {
            const TELLING: [u64; 8] = [0, 1, 0x7f, 0x80, 0xffff, 1 << 31, u64::MAX >> 1, u64::MAX];
            let number = TELLING[chance.below(TELLING.len())].to_le_bytes();
            let width = [1, 2, 4, 8][chance.below(4)];
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&number[..end - at]);
        }
        4 => drop(input.drain(at..end)),
        5 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        6 => input.truncate(at),
        7 if !other.is_empty() => {
            let from = chance.below(other.len());
            let to = (from + length * 4).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        _ => input.extend((0..length).map(|_| chance.next() as u8)),
    }
    input.truncate(LONGEST_INPUT);
}

fn fuzz(name: &str) {
    let (_, decode) = TARGETS.iter().find(|(n, _)| *n == name).unwrap();
    let seconds = std::env::var("HOLDFAST_FUZZ_SECONDS").map_or(0.2, |text| {
        text.parse().expect("HOLDFAST_FUZZ_SECONDS is a number")
    });
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut chance = Chance(now.unwrap().as_nanos() as u64);
    let mut inputs = golden();
    let golden = inputs.len();
    while Instant::now() < end {
        for _ in 0..AT_ONCE {
            let mut input = inputs[chance.below(inputs.len())].clone();
            let other = chance.below(inputs.len());
            for _ in 0..1 + chance.below(4) {
                change(&mut input, &inputs[other], &mut chance);
            }
            if catch_unwind(AssertUnwindSafe(|| decode(&input))).is_err() {
                panic!("{name} breaks at {}", hex(&input));
            }
            if inputs.len() < golden + KEPT {
                inputs.push(input);
            } else if chance.below(16) == 0 {
                let place = golden + chance.below(KEPT);
                inputs[place] = input;
            }
        }
    }
}

macro_rules! targets {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { fuzz($name) })*

        #[test]
        fn every_decoder_is_fuzzed() {
            let named = [$($name),*];
            let all: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(named.as_slice(), all);
        }
    };
}

targets! {
    fuzz_path "path"
    fuzz_object_name "object_name"
    fuzz_entry "entry"
    fuzz_problem "problem"
    fuzz_stamp "stamp"
    fuzz_header "header"
    fuzz_sealed_object "sealed_object"
    fuzz_pack "pack"
    fuzz_pack_footer "pack_footer"
    fuzz_segment "segment"
    fuzz_segment_footer "segment_footer"
    fuzz_segment_block "segment_block"
    fuzz_frame_payload "frame_payload"
    fuzz_tree_node "tree_node"
    fuzz_list_node "list_node"
    fuzz_snapshot "snapshot"
    fuzz_mark "mark"
    fuzz_deletion "deletion"
    fuzz_domain_keys "domain_keys"
    fuzz_key_slot "key_slot"
    fuzz_repository "repository"
    fuzz_claim "claim"
    fuzz_content "content"
    fuzz_wire_change "wire_change"
    fuzz_wire_part "wire_part"
    fuzz_wire_frame "wire_frame"
    fuzz_wire_snapshot "wire_snapshot"
    fuzz_wire_problem "wire_problem"
}
