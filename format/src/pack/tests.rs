use super::*;
use crate::coding::put_varint;
use crate::frame::{FrameBuilder, verify_chunks};
use crate::id::DomainId;
use crate::keys::IdKey;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);
const KEY: KeyRef = KeyRef::Domain {
    domain: DomainId::from_bytes([2; 16]),
    generation: 1,
    master: 1,
};

fn master() -> SealingMaster {
    SealingMaster::from_bytes(1, [3; 32])
}

fn frame(parts: &[&[u8]]) -> Frame {
    let ids = IdKey::from_bytes([4; 32]).ids();
    let mut builder = FrameBuilder::new();
    for part in parts {
        builder.push(ids.chunk(part).into_bytes(), part).unwrap();
    }
    builder.finish(1).unwrap()
}

fn builder(kind: ObjectKind) -> PackBuilder {
    PackBuilder::new(REPOSITORY, kind, KEY, &master(), [5; 32])
}

fn pack() -> FinishedPack {
    let mut builder = builder(ObjectKind::MixedPack);
    builder
        .add(&frame(&[&b"some words ".repeat(50), b"x"]), ItemKind::Chunk)
        .unwrap();
    builder.add(&frame(&[b"a node"]), ItemKind::Node).unwrap();
    builder.finish().unwrap()
}

fn open(
    id: &PackId,
    master: &SealingMaster,
    stored: &[u8],
) -> Result<(Header, Vec<PackFrame>), FormatError> {
    open_pack(
        &REPOSITORY,
        id,
        |_| Some(KeyMaterial::Master(master)),
        stored,
    )
}

#[test]
fn a_pack_is_read_back_from_its_bytes_alone() {
    let pack = pack();
    let stored = &pack.bytes();
    assert_eq!(pack.stored_bytes, stored.len() as u64);
    assert_eq!(blake3::hash(stored).as_bytes(), pack.id.as_bytes());
    let (header, frames) = open(&pack.id, &master(), stored).unwrap();
    assert_eq!((&header, &frames), (&pack.header, &pack.frames));

    let key = master();
    let opener = Opener::new(&REPOSITORY, &header, KeyMaterial::Master(&key));
    let ids = IdKey::from_bytes([4; 32]).ids();
    for listed in &frames {
        let end = listed.offset + u64::from(listed.stored_length);
        let bytes = &stored[listed.offset as usize..end as usize];
        let plain = open_frame(&opener, listed.frame_no, bytes).unwrap();
        let frame = reopen_frame(&opener, listed, bytes).unwrap();
        assert_eq!(frame.open().unwrap(), plain);
        verify_chunks(&ids, &frame, &plain).unwrap();
        assert!(open_frame(&opener, listed.frame_no + 1, bytes).is_err());
    }
}

#[test]
fn no_changed_byte_of_a_pack_passes_even_under_its_right_name() {
    let pack = pack();
    for place in 0..pack.bytes().len() {
        let mut damaged = pack.bytes().to_vec();
        damaged[place] ^= 0x40;
        assert!(open(&pack.id, &master(), &damaged).is_err());
        // Whoever can write the store can name it too: then the seals are what is left.
        let id = PackId::from_bytes(blake3::hash(&damaged).into());
        let Ok((header, frames)) = open(&id, &master(), &damaged) else {
            continue;
        };
        let key = master();
        let opener = Opener::new(&REPOSITORY, &header, KeyMaterial::Master(&key));
        let all_open = frames.iter().all(|listed| {
            let end = listed.offset + u64::from(listed.stored_length);
            let bytes = &damaged[listed.offset as usize..end as usize];
            open_frame(&opener, listed.frame_no, bytes).is_ok()
        });
        assert!(!all_open, "byte {place}");
    }
    for length in 0..pack.bytes().len() {
        let cut = &pack.bytes()[..length];
        let id = PackId::from_bytes(blake3::hash(cut).into());
        assert!(open(&id, &master(), cut).is_err());
    }
    let other = SealingMaster::from_bytes(1, [9; 32]);
    assert!(open(&pack.id, &other, &pack.bytes()).is_err());
}

#[test]
fn spilled_bytes_and_the_rest_are_the_same_pack() {
    let whole = pack();
    let mut builder = builder(ObjectKind::MixedPack);
    let mut spilled = builder.take_sealed().concat();
    builder
        .add(&frame(&[&b"some words ".repeat(50), b"x"]), ItemKind::Chunk)
        .unwrap();
    spilled.extend(builder.take_sealed().concat());
    assert_eq!(builder.memory_bytes(), 0);
    builder.add(&frame(&[b"a node"]), ItemKind::Node).unwrap();
    let rest = builder.finish().unwrap();
    spilled.extend(rest.bytes());
    assert_eq!((rest.id, spilled), (whole.id, whole.bytes().to_vec()));
    assert_eq!(rest.stored_bytes, whole.stored_bytes);
}

#[test]
fn nodes_and_chunks_stay_in_their_packs() {
    let frame = frame(&[b"x"]);
    assert!(
        builder(ObjectKind::DataPack)
            .add(&frame, ItemKind::Node)
            .is_err()
    );
    assert!(
        builder(ObjectKind::TreePack)
            .add(&frame, ItemKind::Chunk)
            .is_err()
    );
    assert!(
        builder(ObjectKind::Snapshot)
            .add(&frame, ItemKind::Chunk)
            .is_err()
    );
}

#[test]
fn footers_that_lie_are_refused() {
    let good = encode_footer(&pack().frames);
    assert!(decode_footer(ObjectKind::MixedPack, &good).is_ok());
    assert!(decode_footer(ObjectKind::DataPack, &good).is_err());
    assert!(decode_footer(ObjectKind::MixedPack, &[&good[..], &[0]].concat()).is_err());
    for length in 0..good.len() {
        assert!(decode_footer(ObjectKind::MixedPack, &good[..length]).is_err());
    }
    let mut claim = Vec::new();
    put_varint(&mut claim, u64::MAX);
    assert!(decode_footer(ObjectKind::MixedPack, &claim).is_err());
    let none = decode_footer(ObjectKind::DataPack, &[0]).unwrap();
    assert!(none.is_empty());
}

#[test]
fn a_footer_never_exceeds_its_bound() {
    let frames = pack().frames;
    let items = frames.iter().map(|frame| frame.items.len()).sum();
    assert!(encode_footer(&frames).len() <= footer_bound(frames.len(), items));
}
