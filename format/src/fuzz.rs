//! What a fuzzer calls: one function per decoder, each fed with any bytes.
//!
//! None may panic, hang or allocate beyond its decoder's cap. What decodes must encode to the same bytes
//! again, where the format has one encoding for each value.

use crate::chunker::{Chunker, Profile};
use crate::claim::Claim;
use crate::codec::{decode_entry, decode_problem, encode_entry, encode_problem};
use crate::content::{ContentCutter, Piece};
use crate::deletion::DeletionRecord;
use crate::frame::{Codec, Frame, open_payload};
use crate::id::{DomainId, PackId, RepositoryId};
use crate::keys::{DomainKeys, IdKey, Kek, SealingMaster};
use crate::keyslot::KeySlot;
use crate::mark::MarkRecord;
use crate::names::ObjectName;
use crate::pack::{Trailer, decode_footer, open_pack};
use crate::path::RelPath;
use crate::repository::RepositoryConfig;
use crate::seal::{Header, KeyMaterial, KeyRef, ObjectKind, open_object};
use crate::segment::{
    decode_block, decode_segment_footer, decode_segment_trailer, encode_block,
    encode_segment_footer, open_segment,
};
use crate::snapshot::Snapshot;
use crate::stamp::Stamp;
use crate::wire::{
    Limits, Sender, SnapshotInfo, change_from_wire, part_from_wire, problem_from_wire,
};
use bytes::Bytes;
use holdfast_proto::v1 as proto;
use prost::Message;
use std::convert::Infallible;

/// A decoder's name, and the function that feeds it.
pub type Target = (&'static str, fn(&[u8]));

/// Every decoder.
pub const TARGETS: &[Target] = &[
    ("path", path),
    ("object_name", object_name),
    ("entry", entry),
    ("problem", problem),
    ("stamp", stamp),
    ("header", header),
    ("sealed_object", sealed_object),
    ("pack", pack),
    ("pack_footer", pack_footer),
    ("segment", segment),
    ("segment_footer", segment_footer),
    ("segment_block", segment_block),
    ("frame_payload", frame_payload),
    ("tree_node", crate::tree::fuzz_one),
    ("list_node", crate::list::fuzz_one),
    ("snapshot", snapshot),
    ("mark", mark),
    ("deletion", deletion),
    ("domain_keys", domain_keys),
    ("key_slot", key_slot),
    ("repository", repository),
    ("claim", claim),
    ("content", content),
    ("wire_change", wire_change),
    ("wire_part", wire_part),
    ("wire_frame", wire_frame),
    ("wire_snapshot", wire_snapshot),
    ("wire_problem", wire_problem),
];

/// One input for one target, which its first byte chooses.
pub fn fuzz_one(data: &[u8]) {
    if let Some((first, rest)) = data.split_first() {
        let (_, target) = TARGETS[usize::from(*first) % TARGETS.len()];
        target(rest);
    }
}

/// A path, and the key of a path.
pub fn path(data: &[u8]) {
    if let Ok(path) = RelPath::new(data) {
        assert_eq!(RelPath::from_key(&path.to_key()).as_ref(), Ok(&path));
    }
    if let Ok(path) = RelPath::from_key(data) {
        assert_eq!(path.to_key(), data);
    }
}

/// The name of an object.
pub fn object_name(data: &[u8]) {
    let name = std::str::from_utf8(data).map(str::parse::<ObjectName>);
    if let Ok(Ok(name)) = name {
        assert_eq!(name.to_string().as_bytes(), data);
    }
}

/// An entry.
pub fn entry(data: &[u8]) {
    if let Ok(entry) = decode_entry(data) {
        assert_eq!(encode_entry(&entry).as_deref(), Ok(data));
    }
}

/// A problem.
pub fn problem(data: &[u8]) {
    if let Ok(problem) = decode_problem(data) {
        assert_eq!(encode_problem(&problem).as_deref(), Ok(data));
    }
}

/// A stamp.
pub fn stamp(data: &[u8]) {
    if let Ok(stamp) = Stamp::decode(data) {
        assert_eq!(stamp.encode(), data);
    }
}

/// The header of a sealed object.
pub fn header(data: &[u8]) {
    if let Ok(header) = Header::decode(data) {
        assert!(data.starts_with(&header.encode()));
    }
}

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0; 16]);

/// A sealed object of every kind.
pub fn sealed_object(data: &[u8]) {
    let kek = Kek::from_bytes([0; 32]);
    if let Ok(header) = Header::decode(data) {
        let opened = open_object(
            &REPOSITORY,
            header.kind,
            |_| Some(KeyMaterial::Kek(&kek)),
            data,
        );
        drop(opened);
    }
}

/// A whole pack, under its right name.
pub fn pack(data: &[u8]) {
    let id = PackId::from_bytes(blake3::hash(data).into());
    let master = SealingMaster::from_bytes(0, [0; 32]);
    let key_for = |_: &_| Some(KeyMaterial::Master(&master));
    drop(open_pack(&REPOSITORY, &id, key_for, data));
    drop(Trailer::decode(data));
}

/// The plain bytes of a footer.
pub fn pack_footer(data: &[u8]) {
    for kind in [
        ObjectKind::DataPack,
        ObjectKind::TreePack,
        ObjectKind::MixedPack,
    ] {
        drop(decode_footer(kind, data));
    }
}

/// A whole index segment, under its right name.
pub fn segment(data: &[u8]) {
    let id = blake3::hash(data).into();
    let master = SealingMaster::from_bytes(0, [0; 32]);
    let key_for = |_: &_| Some(KeyMaterial::Master(&master));
    drop(open_segment(&REPOSITORY, &id, key_for, data));
    drop(decode_segment_trailer(data));
}

/// The plain bytes of a segment's footer.
pub fn segment_footer(data: &[u8]) {
    let header = Header {
        kind: ObjectKind::Segment,
        key: KeyRef::Domain {
            domain: DomainId::from_bytes([0; 16]),
            generation: 1,
            master: 1,
        },
        salt: [0; 32],
    };
    if let Ok(footer) = decode_segment_footer(&header, data) {
        assert_eq!(encode_segment_footer(&header, &footer).as_deref(), Ok(data));
    }
}

/// The plain bytes of a segment's block.
pub fn segment_block(data: &[u8]) {
    if let Ok(items) = decode_block(data) {
        assert_eq!(encode_block(&items), data);
    }
}

/// A payload: its plain length, then its bytes.
pub fn frame_payload(data: &[u8]) {
    if let Some((length, payload)) = data.split_first_chunk::<4>() {
        let payload = Bytes::copy_from_slice(payload);
        let length = u32::from_le_bytes(*length);
        for codec in [Codec::Raw, Codec::Zstd] {
            if let Ok(plain) = open_payload(codec, length, &payload) {
                assert_eq!(plain.len(), length as usize);
            }
        }
    }
}

/// A snapshot record.
pub fn snapshot(data: &[u8]) {
    if let Ok(snapshot) = Snapshot::decode(data) {
        assert_eq!(snapshot.encode().as_deref(), Ok(data));
    }
}

/// A mark.
pub fn mark(data: &[u8]) {
    if let Ok(mark) = MarkRecord::decode(data) {
        assert_eq!(mark.encode().as_deref(), Ok(data));
    }
}

/// A deletion record.
pub fn deletion(data: &[u8]) {
    if let Ok(record) = DeletionRecord::decode(data) {
        assert_eq!(record.encode().as_deref(), Ok(data));
    }
}

/// The keys of a domain.
pub fn domain_keys(data: &[u8]) {
    if let Ok(keys) = DomainKeys::decode(data) {
        assert_eq!(keys.encode().as_ref().map(|bytes| &bytes[..]), Ok(data));
    }
}

/// A passphrase slot.
pub fn key_slot(data: &[u8]) {
    if let Ok(slot) = KeySlot::decode(data) {
        drop(slot.open(&REPOSITORY, &[0; 32]));
    }
}

/// A repository object.
pub fn repository(data: &[u8]) {
    if let Ok(config) = RepositoryConfig::decode(data) {
        assert_eq!(config.encode(), data);
    }
}

/// A claim.
pub fn claim(data: &[u8]) {
    if let Ok(claim) = Claim::decode(data) {
        assert_eq!(claim.encode().as_deref(), Ok(data));
    }
}

/// A file, fed in parts whose lengths its first bytes give: the pieces are the file again.
pub fn content(data: &[u8]) {
    let profile = Profile::by_number(2).unwrap_or(crate::chunker::PROFILES[1]);
    let chunker = Chunker::new(profile, IdKey::from_bytes([1; 32]).gear());
    let mut cutter = ContentCutter::new(&chunker);
    let mut total = 0u64;
    let mut out = |piece: Piece<'_>| {
        total += match piece {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Hole(length) => length,
        };
        Ok::<(), Infallible>(())
    };
    let mut expected = 0u64;
    for (index, part) in data.chunks(7).enumerate() {
        let zeros = u64::from(part[0]) << (index % 13);
        let Ok(()) = cutter.skip_zeros(zeros, &mut out);
        let Ok(()) = cutter.feed(part, &mut out);
        expected += zeros + part.len() as u64;
    }
    let Ok(()) = cutter.finish(&mut out);
    assert_eq!(total, expected);
}

const LIMITS: Limits = Limits {
    inline_limit: 512,
    profile: None,
};

/// A change of an upload.
pub fn wire_change(data: &[u8]) {
    if let Ok(message) = proto::Change::decode(data) {
        drop(change_from_wire(message, &LIMITS));
    }
}

/// A part of a restored tree.
pub fn wire_part(data: &[u8]) {
    for sender in [Sender::Restore, Sender::Listing] {
        if let Ok(message) = proto::EntryPart::decode(data) {
            drop(part_from_wire(message, sender, &LIMITS));
        }
    }
}

/// A frame on the wire.
pub fn wire_frame(data: &[u8]) {
    if let Ok(message) = proto::Frame::decode(data)
        && let Ok(frame) = Frame::try_from(message)
        && let Ok(plain) = frame.open()
    {
        assert_eq!(plain.len(), frame.plain_length as usize);
        assert_eq!(frame.slices(&plain).count(), frame.items.len());
    }
}

/// A snapshot on the wire.
pub fn wire_snapshot(data: &[u8]) {
    if let Ok(message) = proto::SnapshotInfo::decode(data) {
        drop(SnapshotInfo::try_from(message));
    }
}

/// A problem on the wire.
pub fn wire_problem(data: &[u8]) {
    if let Ok(message) = proto::Problem::decode(data) {
        drop(problem_from_wire(message));
    }
}
