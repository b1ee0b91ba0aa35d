use super::*;
use crate::frame::Codec;
use crate::id::DomainId;
use crate::pack::{ItemKind, PackItem};
use proptest::prelude::*;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

fn key(generation: u32, master: u32) -> KeyRef {
    KeyRef::Domain {
        domain: DomainId::from_bytes([2; 16]),
        generation,
        master,
    }
}

fn master() -> SealingMaster {
    SealingMaster::from_bytes(3, [4; 32])
}

/// A pack whose frames have items of these lengths; ids repeat every `spread` items.
fn pack(number: u64, kind: ItemKind, frames: &[Vec<u32>], spread: u64) -> SegmentPack {
    let mut offset = HEADER_BYTES as u64;
    let mut next = number * 1_000_003;
    let frame = |(frame_no, lengths): (usize, &Vec<u32>)| {
        let mut offset_in_frame = 0;
        let item = |length: &u32| {
            next += 1;
            let item = PackItem {
                kind,
                id: blake3::hash(&(next % spread).to_le_bytes()).into(),
                offset_in_frame,
                length: *length,
            };
            offset_in_frame += length;
            item
        };
        let items = lengths.iter().map(item).collect();
        let frame = PackFrame {
            frame_no: frame_no as u32,
            offset,
            stored_length: 100 + frame_no as u32,
            codec: Codec::Zstd,
            plain_length: offset_in_frame,
            items,
        };
        offset += u64::from(frame.stored_length);
        frame
    };
    let frames: Vec<PackFrame> = frames.iter().enumerate().map(frame).collect();
    let kind = match kind {
        ItemKind::Chunk => ObjectKind::DataPack,
        ItemKind::Node => ObjectKind::TreePack,
    };
    SegmentPack {
        id: PackId::from_bytes(blake3::hash(&number.to_le_bytes()).into()),
        size: offset + 1000,
        header: Header {
            kind,
            key: key(1, 1 + number as u32 % 2),
            salt: [number as u8; 32],
        },
        frames,
    }
}

fn build(packs: Vec<SegmentPack>) -> FinishedSegment {
    build_segment(&REPOSITORY, key(1, 3), &master(), [5; 32], packs).unwrap()
}

fn open(id: &[u8; 32], bytes: &[u8]) -> Result<Vec<SegmentPack>, FormatError> {
    let master = master();
    open_segment(
        &REPOSITORY,
        id,
        |_| Some(KeyMaterial::Master(&master)),
        bytes,
    )
}

/// What a reader of single ids sees: the footer, then one block.
fn footer(segment: &FinishedSegment) -> (Trailer, SegmentFooter) {
    let bytes = &segment.bytes;
    let trailer = decode_segment_trailer(&bytes[bytes.len() - trailer_bytes()..]).unwrap();
    let range = trailer.footer_range(bytes.len() as u64).unwrap();
    let stored = &bytes[range.start as usize..range.end as usize];
    let master = master();
    let key = KeyMaterial::Master(&master);
    let footer = open_segment_footer(&REPOSITORY, key, &trailer, stored).unwrap();
    (trailer, footer)
}

fn find(segment: &FinishedSegment, id: &[u8; 32]) -> Option<SegmentItem> {
    let (trailer, footer) = footer(segment);
    let (number, range) = footer.block_of(id)?;
    let master = master();
    let opener = Opener::new(&REPOSITORY, &trailer.header, KeyMaterial::Master(&master));
    let stored = &segment.bytes[range.start as usize..range.end as usize];
    let block = decode_block(&opener.open(number, stored).unwrap()).unwrap();
    block.into_iter().find(|item| item.id == *id)
}

fn sorted(mut packs: Vec<SegmentPack>) -> Vec<SegmentPack> {
    packs.sort_by_key(|pack| pack.id);
    packs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_segment_tells_what_the_footers_told(
        shapes in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(
                proptest::collection::vec(1u32..5000, 1..40), 0..8)),
            0..12),
        spread in 1u64..3000,
    ) {
        let packs: Vec<SegmentPack> = (0..).zip(&shapes).map(|(number, (node, frames))| {
            let kind = if *node { ItemKind::Node } else { ItemKind::Chunk };
            pack(number, kind, frames, spread)
        }).collect();
        let segment = build(packs.clone());
        let read = open(&segment.id, &segment.bytes).unwrap();
        prop_assert_eq!(&read, &sorted(packs));
        // The other way round it is the same bytes: a repeated put is harmless.
        prop_assert_eq!(build(read.into_iter().rev().collect()).id, segment.id);
    }
}

#[test]
fn every_id_is_found_in_the_block_that_its_fence_names() {
    // Several blocks, and one id with places in more than one of them.
    let lengths = vec![7; 300];
    let mut packs: Vec<SegmentPack> = (0..12)
        .map(|n| {
            pack(
                n,
                ItemKind::Chunk,
                &[lengths.clone(), lengths.clone()],
                u64::MAX,
            )
        })
        .collect();
    let twice = packs[0].frames[0].items[9].id;
    for pack in &mut packs {
        for frame in &mut pack.frames {
            frame.items[..200]
                .iter_mut()
                .for_each(|item| item.id = twice);
        }
    }
    let segment = build(packs.clone());
    let (_, footer) = footer(&segment);
    assert_eq!(footer.fences.len(), 7200_usize.div_ceil(BLOCK_ITEMS));
    let packs = sorted(packs);
    for (at, pack) in packs.iter().enumerate().step_by(5) {
        for frame in &pack.frames {
            for item in frame.items.iter().step_by(50) {
                let found = find(&segment, &item.id).unwrap();
                let there = &packs[found.pack as usize].frames[found.frame_no as usize];
                assert_eq!(found.id, item.id);
                let place = (found.offset_in_frame, found.length);
                let placed =
                    |i: &PackItem| i.id == item.id && place == (i.offset_in_frame, i.length);
                assert!(there.items.iter().any(placed), "pack {at}");
            }
        }
    }
    for fence in &footer.fences {
        assert!(find(&segment, &fence.first).is_some());
    }
    assert_eq!(find(&segment, &[0; 32]), None);
    assert_eq!(find(&segment, &[0xff; 32]), None);
    assert_eq!(open(&segment.id, &segment.bytes).unwrap(), packs);
}

#[test]
fn no_bit_of_a_segment_may_differ() {
    let packs = vec![
        pack(1, ItemKind::Chunk, &[vec![5, 6], vec![7]], 10),
        pack(2, ItemKind::Node, &[vec![8]], 10),
    ];
    let segment = build(packs.clone());
    for at in 0..segment.bytes.len() {
        let mut damaged = segment.bytes.to_vec();
        damaged[at] ^= 1 << (at % 8);
        assert!(open(&segment.id, &damaged).is_err(), "its name tells");
        // Under the name of its damaged bytes it does not open either.
        let renamed = blake3::hash(&damaged).into();
        assert!(open(&renamed, &damaged).is_err(), "byte {at}");
        let cut = &segment.bytes[..at];
        assert!(open(&blake3::hash(cut).into(), cut).is_err());
    }
    let none = open_segment(&REPOSITORY, &segment.id, |_| None, &segment.bytes);
    assert!(matches!(none, Err(FormatError::KeyMissing { .. })));
    let master = master();
    let other = RepositoryId::from_bytes([9; 16]);
    let key_for = |_: &KeyRef| Some(KeyMaterial::Master(&master));
    assert!(open_segment(&other, &segment.id, key_for, &segment.bytes).is_err());
}

#[test]
fn a_segment_that_lies_about_a_pack_is_refused() {
    let good = pack(1, ItemKind::Chunk, &[vec![5, 6], vec![7]], u64::MAX);
    type Lie = fn(&mut SegmentPack);
    let lies: [(&str, Lie); 6] = [
        ("an item is left out", |p| {
            p.frames[0].items.remove(0);
        }),
        ("an item is there twice", |p| {
            let item = p.frames[0].items[0];
            p.frames[0].items.push(PackItem {
                id: [3; 32],
                ..item
            });
        }),
        ("items do not fill their frame", |p| {
            p.frames[1].plain_length += 1
        }),
        ("an item is empty", |p| {
            let item = p.frames[1].items[0];
            p.frames[1].items.push(PackItem { length: 0, ..item });
        }),
        ("frames are longer than their pack", |p| p.size = 200),
        ("nodes in a pack of chunks", |p| {
            p.frames[1].items[0].kind = ItemKind::Node;
        }),
    ];
    for (what, lie) in lies {
        let mut bad = good.clone();
        lie(&mut bad);
        let segment = build(vec![bad]);
        assert!(open(&segment.id, &segment.bytes).is_err(), "{what}");
    }
    let mut foreign = good.clone();
    foreign.header.key = key(2, 1);
    let built = build_segment(&REPOSITORY, key(1, 3), &master(), [5; 32], vec![foreign]);
    assert!(built.is_err(), "another generation");
    let twice = vec![good.clone(), good];
    assert!(build_segment(&REPOSITORY, key(1, 3), &master(), [5; 32], twice).is_err());
}

#[test]
fn a_block_that_is_not_where_its_fence_says_is_refused() {
    let packs = vec![pack(1, ItemKind::Chunk, &[vec![3; 1500]], u64::MAX)];
    let items = sorted_items(&packs).unwrap();
    type Lie = fn(&mut Vec<Vec<SegmentItem>>, &mut Vec<[u8; 32]>);
    let lies: [(&str, bool, Lie); 4] = [
        ("none", true, |_, _| ()),
        ("a fence below its block", false, |_, firsts| {
            firsts[1] = firsts[0]
        }),
        ("a block that is not full", false, |blocks, firsts| {
            let item = blocks[0].pop().unwrap();
            blocks[1].insert(0, item);
            firsts[1] = item.id;
        }),
        ("blocks the other way round", false, |blocks, _| {
            blocks.reverse()
        }),
    ];
    for (what, fine, lie) in lies {
        let mut blocks: Vec<Vec<SegmentItem>> =
            items.chunks(BLOCK_ITEMS).map(<[_]>::to_vec).collect();
        let mut firsts = blocks.iter().map(|block| block[0].id).collect();
        lie(&mut blocks, &mut firsts);
        let header = Header {
            kind: ObjectKind::Segment,
            key: key(1, 3),
            salt: [5; 32],
        };
        let master = master();
        let mut sealer = Sealer::new(&REPOSITORY, &header, KeyMaterial::Master(&master));
        let mut out = header.encode().to_vec();
        let mut fences = Vec::new();
        for (number, (block, first)) in (0..).zip(blocks.iter().zip(firsts)) {
            let sealed = sealer.seal(number, &encode_block(block)).unwrap();
            let stored_length = sealed.len() as u32;
            fences.push(Fence {
                first,
                stored_length,
            });
            out.extend(sealed);
        }
        let footer = SegmentFooter {
            packs: packs.iter().map(|pack| covered(pack).unwrap()).collect(),
            fences,
        };
        let plain = encode_segment_footer(&header, &footer).unwrap();
        let sealed = sealer.seal(FOOTER_NUMBER, &plain).unwrap();
        let trailer = Trailer {
            header,
            frame_count: footer.fences.len() as u32,
            footer_length: sealed.len() as u32,
        };
        out.extend(sealed);
        out.extend(trailer.encode());
        let read = open(&blake3::hash(&out).into(), &out);
        assert_eq!(read.is_ok(), fine, "{what}");
    }
}
