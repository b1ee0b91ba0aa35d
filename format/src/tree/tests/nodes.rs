//! Nodes as bytes: damage is named, never believed.

use super::*;
use crate::tree::node::{Node, OpenNode, Promise};

#[test]
fn sizes_keep_close_to_the_target() {
    let map: Map = (0..60_000u32)
        .map(|n| {
            (
                format!("{n:08}").into_bytes(),
                vec![n as u8; 10 + n as usize % 200],
            )
        })
        .collect();
    let (root, nodes) = build(TreeParams::DEFAULT, &map);
    let sizes: Vec<_> = nodes.nodes.values().map(Bytes::len).collect();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    let target = 6 * 1024;
    assert!((target * 3 / 4..target * 5 / 4).contains(&mean), "{mean}");
    let large = sizes.iter().filter(|size| **size > target * 2).count();
    assert!(large < 5, "{large} of {}", sizes.len());
    assert!(root.level <= 2);
}

/// One level of a tree as FORMAT.md says it, with all of it in memory: (key, rest of the item, items
/// below) in, (first key, node) out. Shares no code with the tree.
fn level_by_the_book(
    boundary: &[u8; 32],
    level: u8,
    items: &[(Vec<u8>, Vec<u8>, u64)],
) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let varint = |mut n: u64| {
        let mut out = Vec::new();
        while n > 127 {
            out.push(n as u8 | 128);
            n /= 128;
        }
        out.push(n as u8);
        out
    };
    let target = if level == 0 { 6144f64 } else { 2048f64 };
    let mut nodes = Vec::new();
    let mut start = 0;
    let mut body: Vec<u8> = Vec::new();
    for (index, (key, rest, _)) in items.iter().enumerate() {
        let before = body.len();
        let shared = match index > start {
            true => key
                .iter()
                .zip(&items[index - 1].0)
                .take_while(|(a, b)| a == b)
                .count(),
            false => 0,
        };
        for part in [
            &varint(shared as u64),
            &varint((key.len() - shared) as u64),
            &key[shared..].to_vec(),
            rest,
        ] {
            body.extend(part);
        }
        let after = body.len();
        let hash = blake3::Hasher::new_keyed(boundary)
            .update(key)
            .update(&[level])
            .finalize();
        let drawn = u32::from_le_bytes(hash.as_bytes()[..4].try_into().unwrap());
        let hazard = ((after as f64).powi(4) - (before as f64).powi(4)) / target.powi(4);
        let due = after >= 24 * 1024
            || after >= target as usize / 4 && f64::from(drawn) / 2f64.powi(32) < hazard;
        let enough = level == 0 || index > start;
        if (due && enough) || index + 1 == items.len() {
            let count = varint((index + 1 - start) as u64);
            let node = [&[0x54, level][..], &count, &body].concat();
            let total = items[start..=index].iter().map(|item| item.2).sum();
            nodes.push((items[start].0.clone(), node, total));
            body.clear();
            start = index + 1;
        }
    }
    nodes
}

#[test]
fn the_tree_is_the_one_of_the_book() {
    let ids = ids();
    let map: Map = (0..30_000u32)
        .map(|n| {
            (
                format!("{:03}/{}", n % 331, n).into_bytes(),
                vec![n as u8; n as usize % 120],
            )
        })
        .collect();
    let mut items: Vec<_> = map
        .iter()
        .map(|(key, value)| (key.clone(), [&[value.len() as u8][..], value].concat(), 1))
        .collect();
    let mut expected = HashSet::new();
    let mut level = 0;
    let top = loop {
        let nodes = level_by_the_book(ids.boundary_key(), level, &items);
        expected.extend(nodes.iter().map(|node| node.1.clone()));
        if let [top] = &nodes[..] {
            break ids.node(&top.1);
        }
        let link = |(key, node, total): (Vec<u8>, Vec<u8>, u64)| {
            let mut rest = ids.node(&node).as_bytes().to_vec();
            crate::coding::put_varint(&mut rest, total);
            (key, rest, total)
        };
        items = nodes.into_iter().map(link).collect();
        level += 1;
    };
    let (root, nodes) = build(TreeParams::DEFAULT, &map);
    assert_eq!((root.id, root.level), (top, level));
    assert!(level >= 2);
    let found: HashSet<_> = nodes.nodes.values().map(|bytes| bytes.to_vec()).collect();
    assert_eq!(found, expected);
}

#[test]
fn boundaries_need_the_key() {
    let map = many(20_000);
    let starts = |key: u8| {
        let ids = IdKey::from_bytes([key; 32]).ids();
        let mut nodes = MemoryNodes::default();
        let mut builder = TreeBuilder::new(&ids, &mut nodes);
        for (key, value) in &map {
            builder.push(key, value).unwrap();
        }
        builder.finish().unwrap();
        let starts = nodes
            .nodes
            .values()
            .map(|bytes| bytes.slice(..bytes.len().min(40)));
        starts.collect::<HashSet<_>>()
    };
    let (here, there) = (starts(7), starts(8));
    let shared = here.intersection(&there).count();
    assert!(
        here.len() > 80 && shared * 10 < here.len(),
        "{shared} of {}",
        here.len()
    );
}

fn decode(bytes: &[u8], promise: &Promise<'_>) -> Result<Node, FormatError> {
    Node::decode(Bytes::copy_from_slice(bytes), promise)
}

#[test]
fn what_breaks_a_rule_is_no_node() {
    let id = [5; 32];
    let link = |level: u8, key: &[u8], count: &[u8]| {
        let mut node = vec![0x54, level, 1, 0, key.len() as u8];
        node.extend_from_slice(key);
        node.extend_from_slice(&id);
        node.extend_from_slice(count);
        node
    };
    let any = Promise::default();
    assert!(decode(&[0x54, 0, 1, 0, 1, b'a', 1, b'v'], &any).is_ok());
    assert!(decode(&[0x54, 0, 0], &any).is_ok());
    assert!(decode(&link(1, b"a", &[3]), &any).is_ok());
    for (bad, why) in [
        (vec![], "nothing"),
        (vec![0x55, 0, 0], "another tag"),
        (vec![0x54, 0], "cut"),
        (vec![0x54, 1, 0], "links without any"),
        (vec![0x54, 0, 0, 0], "rest"),
        (vec![0x54, 0, 2, 0, 1, b'b', 0, 0, 1, b'a', 0], "descending"),
        (vec![0x54, 0, 2, 0, 1, b'a', 0, 1, 0, 0], "repeated"),
        (
            vec![0x54, 0, 2, 0, 2, b'a', b'a', 0, 0, 2, b'a', b'b', 0],
            "prefix not shared",
        ),
        (
            vec![0x54, 0, 2, 0, 1, b'a', 0, 2, 1, b'b', 0],
            "shares more than there is",
        ),
        (vec![0x54, 0, 1, 1, 0, 0], "shares with nothing"),
        (vec![0x54, 0, 0x81, 0, 0, 1, b'a', 0], "long varint"),
        (
            vec![0x54, 0, 1, 0, 1, b'a', 0xff, 0xff, 0xff, 0x7f],
            "value too long",
        ),
        (vec![0x54, 0, 1, 0, 0xff, 0xff, 0xff, 0x7f], "key too long"),
        (vec![0x54, 0, 0xff, 0xff, 0xff, 0x7f], "too many"),
        (link(MAX_LEVEL + 1, b"a", &[3]), "too high"),
        (link(1, b"a", &[0]), "empty child"),
        (link(1, b"a", &[1, 1]), "rest after links"),
    ] {
        assert!(decode(&bad, &any).is_err(), "{why}");
    }
}

#[test]
fn a_node_in_the_wrong_place_is_refused() {
    let mut node = OpenNode::new(0);
    node.push_item(b"b", b"1");
    node.push_item(b"c", b"2");
    let bytes = node.take_bytes();
    let promise = |level, first, below, total| Promise {
        level: Some(level),
        first: Some(first),
        below: Some(below),
        total: Some(total),
    };
    assert!(decode(&bytes, &promise(0, &b"b"[..], &b"d"[..], 2)).is_ok());
    for bad in [
        promise(1, &b"b"[..], &b"d"[..], 2),
        promise(0, &b"a"[..], &b"d"[..], 2),
        promise(0, &b"b"[..], &b"c"[..], 2),
        promise(0, &b"b"[..], &b"d"[..], 3),
    ] {
        assert!(decode(&bytes, &bad).is_err(), "{bad:?}");
    }
}

/// Each node in turn is lost or changed: the strict cursor fails, the lossy one gives every item
/// outside, and names a range that holds every item inside.
#[test]
fn a_cursor_goes_on_around_damage_and_says_what_is_lost() {
    let ids = ids();
    let map = many(600);
    let (root, nodes) = build(small(), &map);
    assert!(root.level >= 3);
    for id in reachable(&nodes, &root) {
        for change in [true, false] {
            let mut damaged = nodes.clone();
            match change {
                true => {
                    let mut bytes = nodes.nodes[&id].to_vec();
                    *bytes.last_mut().unwrap() ^= 1;
                    damaged.nodes.insert(id, bytes.into());
                }
                false => {
                    damaged.nodes.remove(&id);
                }
            }
            assert!(Cursor::all(&ids, &damaged, &root.id).any(|item| item.is_err()));
            let mut found = Map::new();
            let mut lost = Vec::new();
            for scanned in LossyCursor::range(&ids, &damaged, &root.id, Bound::Unbounded, b"") {
                match scanned {
                    Scanned::Item { key, value } => {
                        found.insert(key, value.to_vec());
                    }
                    Scanned::Lost {
                        from, below, count, ..
                    } => lost.push((from, below, count)),
                }
            }
            let [(from, below, count)] = &lost[..] else {
                panic!("{} ranges lost", lost.len())
            };
            let missing = map.len() - found.len();
            assert!(missing > 0 && (*count == missing as u64 || id == root.id));
            for (key, value) in &map {
                let inside = key >= from && below.as_ref().is_none_or(|below| key < below);
                assert_eq!(found.get(key), (!inside).then_some(value));
            }
        }
    }
}

/// A node that is good, but another one's, does not stand in for it.
#[test]
fn swapped_nodes_are_found() {
    let ids = ids();
    let (root, nodes) = build(small(), &many(300));
    let all: Vec<_> = reachable(&nodes, &root).into_iter().collect();
    for pair in all.windows(2) {
        let mut swapped = nodes.clone();
        swapped.nodes.insert(pair[0], nodes.nodes[&pair[1]].clone());
        let error = Cursor::all(&ids, &swapped, &root.id).find_map(Result::err);
        assert_eq!(error, Some(FormatError::NodeMismatch(pair[0])));
    }
}

proptest! {
    #[test]
    fn bytes_never_panic_a_decoder(mut data in proptest::collection::vec(any::<u8>(), 0..200), tag: bool) {
        if tag && data.len() > 2 {
            data[0] = 0x54;
            data[1] %= 3;
            data[2] %= 8;
        }
        fuzz_one(&data);
    }

    #[test]
    fn a_changed_node_is_refused_or_means_what_it_says(map in maps(), at: prop::sample::Index, change in 1u8..) {
        let (root, nodes) = build(small(), &map);
        let mut bytes = nodes.nodes[&root.id].to_vec();
        fuzz_one(&bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        fuzz_one(&bytes);
        fuzz_one(&bytes[..at]);
    }
}
