//! Golden objects of format version 1: every later version must read them, and version 1 writes the same
//! bytes forever. `HOLDFAST_WRITE_GOLDEN=1` writes those that do not exist yet; what exists is frozen.
#![allow(clippy::disallowed_methods, reason = "a test reads its own files")]

#[path = "golden/signals.rs"]
mod signals;

use holdfast_format::chunker::{Chunker, PROFILES};
use holdfast_format::claim::Claim;
use holdfast_format::codec::{decode_entry, decode_problem, encode_entry, encode_problem};
use holdfast_format::content::{ContentCutter, Piece};
use holdfast_format::deletion::DeletionRecord;
use holdfast_format::digest::ContentDigest;
use holdfast_format::entry::{Content, Entry, Extent, Kind, Problem, Xattr, XattrValue};
use holdfast_format::frame::{Codec, Frame, FrameItem, verify_chunks};
use holdfast_format::id::*;
use holdfast_format::keyslot::{KeySlot, PassphraseHash};
use holdfast_format::mark::{Mark, MarkRecord};
use holdfast_format::names::ObjectName;
use holdfast_format::pack::{ItemKind, PackBuilder, open_frame, open_pack};
use holdfast_format::path::RelPath;
use holdfast_format::repository::RepositoryConfig;
use holdfast_format::seal::*;
use holdfast_format::snapshot::Snapshot;
use holdfast_format::stats::Stats;
use holdfast_format::volume::VolumeFacts;
use std::convert::Infallible;
use std::path::PathBuf;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([0x11; 16]);
const DOMAIN: DomainId = DomainId::from_bytes([0x22; 16]);
const MASTER: KeyRef = KeyRef::Domain {
    domain: DOMAIN,
    generation: 1,
    master: 2,
};

fn kek() -> Kek {
    Kek::from_bytes([0x33; 32])
}

fn keys() -> DomainKeys {
    DomainKeys {
        domain: DOMAIN,
        generation: 1,
        id_key: IdKey::from_bytes([0x44; 32]),
        masters: vec![
            SealingMaster::from_bytes(1, [0x55; 32]),
            SealingMaster::from_bytes(2, [0x66; 32]),
        ],
    }
}

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    folder.join(name)
}

/// The golden bytes, which must be what this version writes.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() && !file(name).exists() {
        std::fs::write(file(name), written).unwrap();
    }
    let stored = std::fs::read(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(stored == written, "{name} is not what is written now");
    stored
}

fn seal(kind: ObjectKind, key: KeyRef, salt: u8, plain: &[u8]) -> Vec<u8> {
    let header = Header {
        kind,
        key,
        salt: [salt; 32],
    };
    let (kek, keys) = (kek(), keys());
    let material = match key {
        KeyRef::Kek => KeyMaterial::Kek(&kek),
        KeyRef::Domain { .. } => KeyMaterial::Master(keys.current().unwrap()),
    };
    seal_object(&REPOSITORY, &header, material, plain).unwrap()
}

fn open(kind: ObjectKind, stored: &[u8]) -> Vec<u8> {
    let (kek, keys) = (kek(), keys());
    let key_for = |key: &KeyRef| match key {
        KeyRef::Kek => Some(KeyMaterial::Kek(&kek)),
        KeyRef::Domain { master, .. } => keys.master(*master).map(KeyMaterial::Master),
    };
    open_object(&REPOSITORY, kind, key_for, stored).unwrap()
}

fn facts() -> VolumeFacts {
    let mut facts = VolumeFacts::named("team/web".parse().unwrap());
    for (index, text) in facts.texts_mut().into_iter().enumerate() {
        *text = format!("text {index}");
    }
    facts
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn chunk(id: u8, length: u32) -> Extent {
    Extent::Chunk {
        id: ChunkId::from_bytes([id; 32]),
        length,
    }
}

/// One entry of each kind and each form of content.
fn entries() -> Vec<Entry> {
    let plain = Entry {
        kind: Kind::File,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        mtime_ns: 1_700_000_000_123_456_789,
        size: 0,
        xattrs: Vec::new(),
        target: Default::default(),
        rdev: 0,
        content: Content::Empty,
        hardlink: None,
    };
    let of = |change: &dyn Fn(&mut Entry)| {
        let mut entry = plain.clone();
        change(&mut entry);
        entry
    };
    let xattr = |name: &str, value| Xattr {
        name: name.to_owned().into(),
        value,
    };
    vec![
        plain.clone(),
        of(&|e| (e.size, e.content) = (5, Content::Inline(b"hello"[..].into()))),
        of(&|e| {
            let extents = vec![chunk(1, 8192), Extent::Hole { length: 65_536 }, chunk(2, 1)];
            (e.size, e.content) = (
                8192 + 65_536 + 1,
                Content::Extents {
                    profile: 1,
                    extents,
                },
            );
        }),
        of(&|e| {
            let root = NodeId::from_bytes([3; 32]);
            e.size = 1 << 40;
            e.content = Content::List {
                profile: 1,
                root,
                level: 2,
            };
        }),
        of(&|e| (e.hardlink, e.mtime_ns) = (Some(path("a/first")), -1)),
        of(&|e| (e.kind, e.mode) = (Kind::Directory, 0o7777)),
        of(&|e| (e.kind, e.target) = (Kind::Symlink, b"../\xff"[..].into())),
        of(&|e| (e.kind, e.uid) = (Kind::Fifo, u32::MAX)),
        of(&|e| e.kind = Kind::Socket),
        of(&|e| (e.kind, e.rdev) = (Kind::CharDevice, 0x0103)),
        of(&|e| (e.kind, e.rdev) = (Kind::BlockDevice, u64::MAX)),
        of(&|e| {
            e.xattrs = vec![
                xattr(
                    "security.capability",
                    XattrValue::Inline(vec![1, 0, 2].into()),
                ),
                xattr("user.empty", XattrValue::Inline(Default::default())),
                xattr("user.long", XattrValue::Chunks(vec![chunk(4, 5000)])),
            ];
        }),
    ]
}

fn lines(values: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let line = |value: Vec<u8>| hex(&value) + "\n";
    values.into_iter().map(line).collect::<String>().into()
}

fn unlines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines().map(|line| unhex(line).unwrap()).collect()
}

#[test]
fn entries_and_problems() {
    let stored = golden(
        "entries.hex",
        &lines(entries().iter().map(|e| encode_entry(e).unwrap())),
    );
    let read: Vec<_> = unlines(&stored)
        .iter()
        .map(|e| decode_entry(e).unwrap())
        .collect();
    assert_eq!(read, entries());
    let problem = Problem {
        reason: "ChangedWhileRead".to_owned(),
        detail: "größer".to_owned(),
        errno: -5,
        carried_over: true,
        since_ns: 1_700_000_000_000_000_000,
    };
    let stored = golden("problem.hex", &lines([encode_problem(&problem).unwrap()]));
    assert_eq!(decode_problem(&unlines(&stored)[0]).unwrap(), problem);
}

#[test]
fn ids_digests_and_names() {
    let ids = keys().id_key.ids();
    let inline = ContentDigest::of_inline(&ids, b"golden");
    let extents = Content::Extents {
        profile: 1,
        extents: vec![chunk(1, 8192), Extent::Hole { length: 65_536 }],
    };
    let extents = ContentDigest::of_content(&ids, &extents).unwrap();
    let id = [0xab; 32];
    let short = [0xcd; 16];
    let names = [
        ObjectName::Repository(REPOSITORY),
        ObjectName::Slot(short),
        ObjectName::DomainKeys {
            domain: DOMAIN,
            generation: 1,
            master: 2,
        },
        ObjectName::Pack(PackId::from_bytes(id)),
        ObjectName::Snapshot {
            volume: VolumeId::from_bytes(short),
            id: SnapshotId::from_bytes(id),
        },
        ObjectName::Mark(MarkId::from_bytes(id)),
        ObjectName::Deletion(42),
        ObjectName::Segment(id),
        ObjectName::Claim {
            epoch: 7,
            catalog: CatalogId::from_bytes(short),
        },
        ObjectName::Released {
            epoch: 7,
            catalog: CatalogId::from_bytes(short),
        },
    ];
    let mut text = format!(
        "chunk id of 'golden' {}\nnode id of 'golden' {}\nboundary key {}\n\
         digest of inline 'golden' {}\ndigest of extents {}\nkey fingerprint {}\n",
        ids.chunk(b"golden"),
        ids.node(b"golden"),
        hex(ids.boundary_key()),
        hex(&inline.0),
        hex(&extents.0),
        hex(&kek().fingerprint()),
    );
    for name in names {
        text += &format!("{name}\n");
        assert_eq!(name.to_string().parse::<ObjectName>().unwrap(), name);
    }
    golden("ids.txt", text.as_bytes());
}

/// Noise, zeros of three lengths, a short period and pages, from a public stream.
fn sample() -> Vec<u8> {
    let mut noise = blake3::Hasher::new().update(b"sample").finalize_xof();
    let mut bytes = vec![0; 1 << 20];
    noise.fill(&mut bytes);
    for zeros in [3000, 65_535, 200_001] {
        bytes.resize(bytes.len() + zeros, 0);
        let mut more = vec![0; 100_000];
        noise.fill(&mut more);
        bytes.extend(more);
    }
    bytes.extend(b"abcdefg".repeat(50_000));
    for _ in 0..100 {
        let mut page = vec![0; 8192];
        noise.fill(&mut page[..7720]);
        bytes.extend(page);
    }
    bytes
}

#[test]
fn cut_points() {
    let mut text = String::new();
    for profile in PROFILES {
        let chunker = Chunker::new(profile, keys().id_key.gear());
        let mut out = |piece: Piece<'_>| {
            text += &match piece {
                Piece::Data(bytes) => format!("{} data {}\n", profile.number, bytes.len()),
                Piece::Hole(length) => format!("{} hole {length}\n", profile.number),
            };
            Ok::<(), Infallible>(())
        };
        ContentCutter::new(&chunker)
            .finish_with(&sample(), &mut out)
            .unwrap();
    }
    golden("cuts.txt", text.as_bytes());
}

#[test]
fn repository_keys_and_claim() {
    let config = RepositoryConfig::new(REPOSITORY, &kek(), 1_700_000_000_000_000_000);
    let stored = golden("repository", &config.encode());
    let read = RepositoryConfig::decode(&stored).unwrap();
    assert_eq!(read, config);
    read.check_key(&kek()).unwrap();

    let sealed = seal(
        ObjectKind::DomainKeys,
        KeyRef::Kek,
        1,
        &keys().encode().unwrap(),
    );
    golden(
        "domain-keys-plain.hex",
        &lines([keys().encode().unwrap().to_vec()]),
    );
    let stored = golden("domain-keys", &sealed);
    let opened = open(ObjectKind::DomainKeys, &stored);
    assert_eq!(DomainKeys::decode(&opened).unwrap(), keys());

    let hash = PassphraseHash::DEFAULT;
    let slot = KeySlot::seal(&REPOSITORY, hash, [2; 32], &[0x77; 32], &kek()).unwrap();
    let stored = golden("slot", &slot);
    let slot = KeySlot::decode(&stored).unwrap();
    assert_eq!(slot.open(&REPOSITORY, &[0x77; 32]).unwrap(), kek());

    let claim = Claim {
        epoch: 3,
        catalog: CatalogId::from_bytes([0x88; 16]),
        host: "node-1".to_owned(),
        started_ns: 1_700_000_000_000_000_000,
    };
    let stored = golden("claim", &claim.encode().unwrap());
    assert_eq!(Claim::decode(&stored).unwrap(), claim);
}

fn snapshot() -> Snapshot {
    let mut stats = Stats::default();
    for (index, counter) in stats.counters_mut().into_iter().enumerate() {
        *counter = 1 << (index * 5);
    }
    let problem = Problem {
        reason: "Vanished".to_owned(),
        detail: "gone".to_owned(),
        errno: 2,
        carried_over: false,
        since_ns: 1,
    };
    Snapshot {
        volume: VolumeId::from_bytes([1; 16]),
        domain: DOMAIN,
        generation: 1,
        entries_root: NodeId::from_bytes([2; 32]),
        problems_root: Some(NodeId::from_bytes([3; 32])),
        parent: Some(SnapshotId::from_bytes([4; 32])),
        sequence: 300,
        started_ns: 1_700_000_000_000_000_000,
        received_ns: 1_700_000_001_000_000_000,
        run: IdempotencyKey::from_bytes([5; 16]),
        facts: facts(),
        stats,
        problem_count: 2,
        first_problems: vec![(path("b"), problem.clone()), (path("a/b"), problem)],
        signals: None,
    }
}

#[test]
fn records_and_marks() {
    let sealed = seal(
        ObjectKind::Snapshot,
        MASTER,
        3,
        &snapshot().encode().unwrap(),
    );
    golden("snapshot-plain.hex", &lines([snapshot().encode().unwrap()]));
    let stored = golden("snapshot", &sealed);
    let opened = open(ObjectKind::Snapshot, &stored);
    assert_eq!(Snapshot::decode(&opened).unwrap(), snapshot());

    let record = DeletionRecord {
        number: 9,
        time_ns: 10,
        packs: vec![PackId::from_bytes([1; 32]), PackId::from_bytes([2; 32])],
    };
    let sealed = seal(
        ObjectKind::DeletionRecord,
        KeyRef::Kek,
        4,
        &record.encode().unwrap(),
    );
    let opened = open(ObjectKind::DeletionRecord, &golden("deletion", &sealed));
    assert_eq!(DeletionRecord::decode(&opened).unwrap(), record);

    let target = SnapshotId::from_bytes([7; 32]);
    let reason = "audit".to_owned();
    let marks = [
        Mark::Domain {
            id: DOMAIN,
            generation: 1,
            namespace: "default".to_owned(),
        },
        Mark::Volume {
            id: VolumeId::from_bytes([1; 16]),
            domain: DOMAIN,
            facts: facts(),
        },
        Mark::Pin {
            snapshot: target,
            reason: reason.clone(),
        },
        Mark::Hold {
            snapshot: target,
            until_ns: 11,
            reason,
        },
        Mark::Release {
            mark: MarkId::from_bytes([8; 32]),
        },
        Mark::Acknowledge { snapshot: target },
    ];
    for (index, mark) in marks.into_iter().enumerate() {
        let actor = "root@node-1".to_owned();
        let record = MarkRecord {
            mark,
            time_ns: 12,
            actor,
        };
        let salt = 10 + index as u8;
        let sealed = seal(
            ObjectKind::Mark,
            KeyRef::Kek,
            salt,
            &record.encode().unwrap(),
        );
        let opened = open(
            ObjectKind::Mark,
            &golden(&format!("mark-{}", index + 1), &sealed),
        );
        assert_eq!(MarkRecord::decode(&opened).unwrap(), record);
    }
}

/// 1,000 times `holdfast` as `zstd -1 --no-check` packs it; fixed, so that no library changes the pack.
const PAYLOAD: &str = include_str!("../testdata/v1/payload.hex");

#[test]
fn a_pack_of_both_kinds() {
    let ids = keys().id_key.ids();
    let text = b"holdfast".repeat(1000);
    let chunks = Frame {
        codec: Codec::Zstd,
        plain_length: 8000,
        items: vec![
            FrameItem {
                id: ids.chunk(&text[..5000]).into_bytes(),
                length: 5000,
            },
            FrameItem {
                id: ids.chunk(&text[5000..]).into_bytes(),
                length: 3000,
            },
        ],
        payload: unhex(PAYLOAD.trim()).unwrap().into(),
    };
    let node = Frame {
        codec: Codec::Raw,
        plain_length: 6,
        items: vec![FrameItem {
            id: ids.node(b"a node").into_bytes(),
            length: 6,
        }],
        payload: b"a node"[..].into(),
    };
    let keys = keys();
    let master = keys.current().unwrap();
    let mut builder = PackBuilder::new(REPOSITORY, ObjectKind::MixedPack, MASTER, master, [20; 32]);
    builder.add(&chunks, ItemKind::Chunk).unwrap();
    builder.add(&node, ItemKind::Node).unwrap();
    let pack = builder.finish().unwrap();

    let stored = golden("pack", &pack.bytes());
    let id = PackId::from_bytes(blake3::hash(&stored).into());
    let key_for = |_: &KeyRef| Some(KeyMaterial::Master(master));
    let (header, frames) = open_pack(&REPOSITORY, &id, key_for, &stored).unwrap();
    assert_eq!((header, &frames), (pack.header, &pack.frames));
    let opener = Opener::new(&REPOSITORY, &header, KeyMaterial::Master(master));
    let plain = |index: usize| {
        let frame = &frames[index];
        let end = frame.offset + u64::from(frame.stored_length);
        let bytes = &stored[frame.offset as usize..end as usize];
        open_frame(&opener, frame.frame_no, bytes).unwrap()
    };
    assert_eq!(plain(0), text);
    verify_chunks(&ids, &chunks, &plain(0)).unwrap();
    assert_eq!(&plain(1)[..], b"a node");
}
