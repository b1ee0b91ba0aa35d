use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn chunk() -> impl Strategy<Value = Extent> {
    (any::<[u8; 32]>(), 1..=MAX_CHUNK_BYTES).prop_map(|(id, length)| Extent::Chunk {
        id: ChunkId::from_bytes(id),
        length,
    })
}

fn extent() -> impl Strategy<Value = Extent> {
    prop_oneof![
        chunk(),
        (1u64..1 << 40).prop_map(|length| Extent::Hole { length })
    ]
}

fn content() -> impl Strategy<Value = (Content, u64)> {
    prop_oneof![
        Just((Content::Empty, 0)),
        vec(any::<u8>(), 1..2000).prop_map(|bytes| {
            let size = bytes.len() as u64;
            (Content::Inline(bytes.into()), size)
        }),
        vec(extent(), 1..=MAX_INLINE_EXTENTS).prop_map(|extents| {
            let size = extents.iter().map(Extent::length).sum();
            (
                Content::Extents {
                    profile: 1,
                    extents,
                },
                size,
            )
        }),
        (any::<[u8; 32]>(), any::<u8>(), 1u64..1 << 62).prop_map(|(root, level, size)| {
            let root = NodeId::from_bytes(root);
            (
                Content::List {
                    profile: 2,
                    root,
                    level,
                },
                size,
            )
        }),
    ]
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let long = vec((any::<[u8; 32]>(), 4097u32..16_000), 1..4).prop_map(|chunks| {
        let chunk = |(id, length)| Extent::Chunk {
            id: ChunkId::from_bytes(id),
            length,
        };
        XattrValue::Chunks(chunks.into_iter().map(chunk).collect())
    });
    let value = prop_oneof![
        vec(any::<u8>(), 0..100).prop_map(|value| XattrValue::Inline(value.into())),
        long,
    ];
    proptest::collection::btree_map("[a-z.]{1,20}", value, 0..4).prop_map(|map| {
        let xattr = |(name, value): (String, _)| Xattr {
            name: name.into(),
            value,
        };
        map.into_iter().map(xattr).collect()
    })
}

fn hardlink() -> impl Strategy<Value = Option<RelPath>> {
    proptest::option::of("[a-z]{1,9}/[a-z]{1,9}".prop_map(|path| RelPath::new(path).unwrap()))
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        (
            1u8..=7,
            0u32..=0o7777,
            any::<u32>(),
            any::<u32>(),
            any::<i64>(),
        ),
        (
            content(),
            xattrs(),
            vec(1u8..=255, 1..50),
            any::<u64>(),
            hardlink(),
        ),
    )
        .prop_map(
            |((kind, mode, uid, gid, mtime_ns), (content, xattrs, target, rdev, link))| {
                let kind = kind_of(kind).unwrap();
                let (content, size) = if kind == Kind::File {
                    content
                } else {
                    (Content::Empty, 0)
                };
                let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
                let target = if kind == Kind::Symlink {
                    target
                } else {
                    Vec::new()
                };
                Entry {
                    kind,
                    mode,
                    uid,
                    gid,
                    mtime_ns,
                    size,
                    xattrs,
                    target: target.into(),
                    rdev: if device { rdev } else { 0 },
                    content,
                    hardlink: link.filter(|_| kind != Kind::Directory),
                }
            },
        )
}

proptest! {
    #[test]
    fn entries_round_trip(entry in entry()) {
        let bytes = encode_entry(&entry).unwrap();
        prop_assert_eq!(decode_entry(&bytes).unwrap(), entry);
        prop_assert!(decode_entry(&bytes[..bytes.len() - 1]).is_err() || bytes[0] >> 5 == 1);
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(decode_entry(&longer).is_err());
    }

    #[test]
    fn an_entry_that_decodes_has_these_bytes_only(entry in entry(), place: prop::sample::Index, byte: u8) {
        let mut bytes = encode_entry(&entry).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(entry) = decode_entry(&bytes) {
            prop_assert_eq!(encode_entry(&entry).unwrap(), bytes);
        }
    }

    #[test]
    fn problems_round_trip(detail in ".{0,80}", errno: i32, carried_over: bool, since_ns: i64) {
        let problem = Problem { reason: "ChangedWhileRead".into(), detail, errno, carried_over, since_ns };
        let bytes = encode_problem(&problem).unwrap();
        prop_assert_eq!(decode_problem(&bytes).unwrap(), problem);
    }
}

#[test]
fn what_is_no_entry_is_not_encoded() {
    let directory = Entry {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime_ns: 0,
        size: 0,
        xattrs: Vec::new(),
        target: Bytes::new(),
        rdev: 0,
        content: Content::Empty,
        hardlink: None,
    };
    assert_eq!(encode_entry(&directory).unwrap().len(), 1 + 2 + 1 + 1 + 8);
    let wrong = |change: &dyn Fn(&mut Entry)| {
        let mut entry = directory.clone();
        change(&mut entry);
        assert!(encode_entry(&entry).is_err(), "{entry:?}");
    };
    wrong(&|entry| entry.mode = 0o10000);
    wrong(&|entry| entry.size = 1);
    wrong(&|entry| entry.content = Content::Inline(b"x".to_vec().into()));
    wrong(&|entry| entry.kind = Kind::Symlink);
    wrong(&|entry| entry.hardlink = Some(RelPath::new("a").unwrap()));
    wrong(&|entry| {
        let name = |index: u32| format!("user.{index:06}").into();
        let value = XattrValue::Inline(vec![0; 64].into());
        let xattr = |index| Xattr {
            name: name(index),
            value: value.clone(),
        };
        entry.xattrs = (0..1000).map(xattr).collect();
    });
}

#[test]
fn a_reason_is_one_word() {
    for reason in ["", "two words", "lower", "Bad\n"] {
        let problem = Problem {
            reason: reason.into(),
            detail: String::new(),
            errno: 0,
            carried_over: false,
            since_ns: 0,
        };
        assert!(encode_problem(&problem).is_err(), "{reason}");
    }
}
