//! The golden index segment of format version 1, as `golden.rs` has the other objects.
#![allow(clippy::disallowed_methods, reason = "a test reads its own files")]

use holdfast_format::frame::Codec;
use holdfast_format::id::{DomainId, PackId, RepositoryId};
use holdfast_format::pack::{ItemKind, PackFrame, PackItem};
use holdfast_format::seal::*;
use holdfast_format::segment::{SegmentPack, build_segment, open_segment};
use std::path::Path;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);

fn key(master: u32) -> KeyRef {
    KeyRef::Domain {
        domain: DomainId::from_bytes([0x22; 16]),
        generation: 1,
        master,
    }
}

/// Two frames, of which the second starts with what the first ends with.
fn pack(number: u8, kind: ObjectKind, items: ItemKind) -> SegmentPack {
    let item = |id: u8, offset_in_frame, length| PackItem {
        kind: items,
        id: [id; 32],
        offset_in_frame,
        length,
    };
    let frame = |frame_no, offset, codec, items: Vec<PackItem>| PackFrame {
        frame_no,
        offset,
        stored_length: 4000,
        codec,
        plain_length: items.iter().map(|item| item.length).sum(),
        items,
    };
    let first = vec![item(number, 0, 5000), item(0xee, 5000, 3000)];
    let second = vec![item(0xee, 0, 3000), item(number / 2, 3000, 1)];
    SegmentPack {
        id: PackId::from_bytes([number; 32]),
        size: 10_000 + u64::from(number),
        header: Header {
            kind,
            key: key(1),
            salt: [number + 1; 32],
        },
        frames: vec![
            frame(0, 64, Codec::Zstd, first),
            frame(1, 4064, Codec::Raw, second),
        ],
    }
}

#[test]
fn a_segment_of_three_packs() {
    let packs = vec![
        pack(0x10, ObjectKind::DataPack, ItemKind::Chunk),
        pack(0x20, ObjectKind::TreePack, ItemKind::Node),
        pack(0x30, ObjectKind::MixedPack, ItemKind::Chunk),
    ];
    let master = SealingMaster::from_bytes(2, [0x66; 32]);
    let built = build_segment(&REPOSITORY, key(2), &master, [21; 32], packs.clone()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1/segment");
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() && !file.exists() {
        std::fs::write(&file, &built.bytes).unwrap();
    }
    let stored = std::fs::read(&file).unwrap();
    assert!(stored == built.bytes, "it is not what is written now");
    let key_for = |_: &KeyRef| Some(KeyMaterial::Master(&master));
    let read = open_segment(&REPOSITORY, &built.id, key_for, &stored).unwrap();
    assert_eq!(read, packs);
}
