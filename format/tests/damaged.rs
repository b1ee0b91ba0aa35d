//! Every decoder, fed with each golden object, each with one of its bits changed, and each cut short: none
//! panics, and what still decodes has no second encoding.
#![allow(clippy::disallowed_methods, reason = "a test reads its own files")]

use holdfast_format::fuzz::{TARGETS, content, fuzz_one};
use holdfast_format::id::unhex;
use proptest::prelude::*;
use std::path::Path;

fn inputs() -> Vec<Vec<u8>> {
    let mut inputs = vec![Vec::new(), vec![0; 100], vec![0xff; 100]];
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

#[test]
fn decoders_survive_damage() {
    for input in inputs() {
        // Cutting is slow beside decoding, and has no wrong input.
        content(&input[..input.len().min(300)]);
        let decoders = || TARGETS.iter().filter(|(name, _)| *name != "content");
        for place in 0..=input.len().min(1000) {
            let mut damaged = input.clone();
            if let Some(byte) = damaged.get_mut(place) {
                *byte ^= 1 << (place % 8);
            }
            for (_, decode) in decoders() {
                decode(&damaged);
                decode(&input[..place]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decoders_survive_noise(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_one(&data);
    }
}
