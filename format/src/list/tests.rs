//! Lists against plain rows of extents.

use super::*;
use crate::id::ChunkId;
use crate::keys::IdKey;
use crate::tree::MemoryNodes;
use proptest::prelude::*;
use std::collections::HashSet;

fn ids() -> Ids {
    IdKey::from_bytes([7; 32]).ids()
}

fn small() -> TreeParams {
    TreeParams::new(128, 128, 512).unwrap()
}

fn chunk(number: u32, length: u32) -> Extent {
    Extent::Chunk {
        id: ids().chunk(&number.to_le_bytes()),
        length,
    }
}

fn build(params: TreeParams, extents: &[Extent]) -> (Content, u64, MemoryNodes) {
    let ids = ids();
    let mut nodes = MemoryNodes::default();
    let mut builder = ListBuilder::with_params(&ids, params, &mut nodes, 1);
    for extent in extents {
        builder.push(extent).unwrap();
    }
    let (content, size) = builder.finish().unwrap();
    (content, size, nodes)
}

fn with_offsets(extents: &[Extent]) -> Vec<(u64, Extent)> {
    let mut offset = 0;
    let mut place = |extent: &Extent| {
        offset += extent.length();
        (offset - extent.length(), *extent)
    };
    extents.iter().map(&mut place).collect()
}

fn rows() -> impl Strategy<Value = Vec<Extent>> {
    let extent = prop_oneof![
        6 => (any::<u32>(), 1u32..200_000).prop_map(|(n, length)| chunk(n, length)),
        // The same chunk again and again, as in a file of equal records.
        2 => Just(chunk(1, 8192)),
        1 => (16u64..1 << 20).prop_map(|n| Extent::Hole { length: n * 4096 }),
    ];
    prop_oneof![
        1 => proptest::collection::vec(extent.clone(), 0..70),
        3 => proptest::collection::vec(extent, 0..900),
    ]
    .prop_map(|mut row| {
        let is_hole = |extent: &Extent| matches!(extent, Extent::Hole { .. });
        row.dedup_by(|b, a| is_hole(a) && is_hole(b));
        row
    })
}

proptest! {
    #[test]
    fn extents_come_back_from_any_offset(row in rows(), at in any::<prop::sample::Index>(), beyond in 0u64..3) {
        let ids = ids();
        let (content, size, nodes) = build(small(), &row);
        let expected = with_offsets(&row);
        prop_assert_eq!(size, row.iter().map(Extent::length).sum::<u64>());
        prop_assert_eq!(matches!(content, Content::List { .. }), row.len() > MAX_INLINE_EXTENTS);
        let mut cursor = ListCursor::new(&ids, &nodes, &content, size);
        let all: Vec<_> = cursor.by_ref().map(Result::unwrap).collect();
        prop_assert_eq!(&all, &expected);
        let any = at.index(size as usize + 1) as u64 + beyond;
        let border = expected.get(at.index(row.len() + 1)).map_or(size, |(start, _)| *start);
        for offset in [any, border] {
            cursor.seek(offset);
            let found: Vec<_> = cursor.by_ref().map(Result::unwrap).collect();
            let wanted: Vec<_> = expected
                .iter()
                .filter(|(start, extent)| start + extent.length() > offset)
                .copied()
                .collect();
            prop_assert_eq!(found, wanted);
        }
        let mut visited = HashSet::new();
        visit_nodes(&ids, &nodes, &content, size, |id, _| { visited.insert(*id); Ok(()) }).unwrap();
        prop_assert_eq!(visited, nodes.nodes.keys().copied().collect::<HashSet<_>>());
        for bytes in nodes.nodes.values() {
            fuzz_one(bytes);
        }
    }

    #[test]
    fn bytes_never_panic_a_decoder(mut data in proptest::collection::vec(any::<u8>(), 0..200), tag: bool) {
        if tag && data.len() > 2 {
            data[0] = TAG;
            data[1] %= 3;
            data[2] %= 8;
        }
        fuzz_one(&data);
    }

    #[test]
    fn a_changed_node_is_refused_or_means_what_it_says(row in rows(), at: prop::sample::Index, change in 1u8..) {
        let (_, _, nodes) = build(small(), &row);
        if let Some(bytes) = nodes.nodes.values().next() {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            fuzz_one(&bytes);
            fuzz_one(&bytes[..at]);
        }
    }
}

/// Counts what is loaded.
struct Counted<'a>(&'a MemoryNodes, std::cell::Cell<usize>);

impl NodeSource for Counted<'_> {
    type Error = FormatError;

    fn load(&self, id: &NodeId) -> Result<Bytes, FormatError> {
        self.1.set(self.1.get() + 1);
        self.0.load(id)
    }
}

#[test]
fn a_changed_chunk_changes_few_nodes_and_a_seek_reads_one_path() {
    let ids = ids();
    let mut row: Vec<_> = (0..60_000).map(|n| chunk(n, 65_536)).collect();
    let (content, size, nodes) = build(TreeParams::DEFAULT, &row);
    let Content::List { level, .. } = content else {
        panic!("a list")
    };
    assert!(
        nodes
            .nodes
            .values()
            .all(|node| node.len() <= MAX_NODE_BYTES)
    );
    let source = Counted(&nodes, 0.into());
    let mut cursor = ListCursor::new(&ids, &source, &content, size);
    cursor.seek(size / 3 * 2);
    let (offset, extent) = cursor.next().unwrap().unwrap();
    assert_eq!(extent, row[(offset / 65_536) as usize]);
    assert_eq!(source.1.get(), usize::from(level) + 1);

    row[31_000] = chunk(u32::MAX, 70_000);
    row.insert(45_000, chunk(u32::MAX - 1, 70_000));
    let (_, _, changed) = build(TreeParams::DEFAULT, &row);
    let new = changed
        .nodes
        .keys()
        .filter(|id| !nodes.nodes.contains_key(*id));
    assert!(new.count() <= 4 * (usize::from(level) + 1));
}

#[test]
fn the_same_chunk_for_ever_makes_no_tower() {
    let (content, size, nodes) = build(TreeParams::DEFAULT, &vec![chunk(5, 8192); 100_000]);
    let Content::List { level, .. } = content else {
        panic!("a list")
    };
    assert!(level <= 4, "{level}");
    // Equal runs are equal nodes: the whole is a handful of them.
    assert!(nodes.nodes.len() < 20, "{}", nodes.nodes.len());
    let ids = ids();
    let cursor = ListCursor::new(&ids, &nodes, &content, size);
    assert_eq!(cursor.map(Result::unwrap).count(), 100_000);
}

#[test]
fn impossible_extents_are_refused() {
    let ids = ids();
    let mut nodes = MemoryNodes::default();
    let mut builder = ListBuilder::new(&ids, &mut nodes, 1);
    assert!(builder.push(&chunk(1, 0)).is_err());
    builder.push(&Extent::Hole { length: 65_536 }).unwrap();
    assert!(builder.push(&Extent::Hole { length: 65_536 }).is_err());
    let id = ChunkId::from_bytes([1; 32]);
    builder.push(&Extent::Chunk { id, length: 9 }).unwrap();
    assert!(builder.push(&Extent::Hole { length: u64::MAX }).is_err());
    assert!(
        builder
            .push(&Extent::Hole {
                length: MAX_FILE_BYTES
            })
            .is_err()
    );
    let (content, size) = builder.finish().unwrap();
    assert!(matches!(content, Content::Extents { extents, .. } if extents.len() == 2));
    assert_eq!(size, 65_545);
}

#[test]
fn damage_of_any_node_is_an_error_and_the_wrong_size_too() {
    let ids = ids();
    let row: Vec<_> = (0..400).map(|n| chunk(n, 1000 + n)).collect();
    let (content, size, nodes) = build(small(), &row);
    let fails = |nodes: &MemoryNodes, size| {
        ListCursor::new(&ids, nodes, &content, size).any(|extent| extent.is_err())
    };
    assert!(!fails(&nodes, size));
    assert!(fails(&nodes, size - 1) && fails(&nodes, size + 1));
    let all: Vec<_> = nodes.nodes.keys().copied().collect();
    for (index, id) in all.iter().enumerate() {
        let mut damaged = nodes.clone();
        let other = &all[(index + 1) % all.len()];
        damaged.nodes.insert(*id, nodes.nodes[other].clone());
        assert!(fails(&damaged, size));
        damaged.nodes.remove(id);
        assert!(fails(&damaged, size));
    }
    // An entry that names the wrong height is damage as well.
    let Content::List {
        profile,
        root,
        level,
    } = content
    else {
        panic!("a list")
    };
    let wrong = Content::List {
        profile,
        root,
        level: level + 1,
    };
    assert!(ListCursor::new(&ids, &nodes, &wrong, size).any(|extent| extent.is_err()));
}
