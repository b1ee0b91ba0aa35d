//! The tree against a plain sorted map: every promise, on shapes small and hostile.

use super::split::TreeParams;
use super::*;
use crate::keys::IdKey;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

mod changes;
mod foreseen;
mod nodes;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn ids() -> Ids {
    IdKey::from_bytes([7; 32]).ids()
}

/// Nodes of a few items, so that small maps make high trees.
fn small() -> TreeParams {
    TreeParams::new(64, 96, 256).unwrap()
}

fn build(params: TreeParams, map: &Map) -> (Root, MemoryNodes) {
    let ids = ids();
    let mut nodes = MemoryNodes::default();
    let mut builder = TreeBuilder::with_params(&ids, params, &mut nodes);
    for (key, value) in map {
        builder.push(key, value).unwrap();
    }
    (builder.finish().unwrap(), nodes)
}

fn read(nodes: &MemoryNodes, root: &Root) -> Map {
    Cursor::all(&ids(), nodes, &root.id)
        .map(Result::unwrap)
        .map(|(key, value)| (key, value.to_vec()))
        .collect()
}

/// Every node under a root.
fn reachable(nodes: &MemoryNodes, root: &Root) -> HashSet<NodeId> {
    let mut found = HashSet::from([root.id]);
    let mut open = vec![root.id];
    while let Some(id) = open.pop() {
        let node = walk::load_root(&ids(), nodes, &id).unwrap();
        let mut items = node.items();
        while items.advance().unwrap() {
            if let node::Payload::Link { id, .. } = items.payload() {
                found.insert(id);
                open.push(id);
            }
        }
    }
    found
}

/// The oracle of `edit`: removals look at the old map only.
fn apply_to_map(map: &Map, edits: &[Edit]) -> Map {
    let mut out = map.clone();
    for edit in edits {
        match edit {
            Edit::Put(..) => {}
            Edit::Remove(key) => {
                out.remove(key);
            }
            Edit::RemovePrefix(prefix) => out.retain(|key, _| !key.starts_with(prefix)),
        }
    }
    for edit in edits {
        if let Edit::Put(key, value) = edit {
            out.insert(key.clone(), value.clone());
        }
    }
    out
}

fn sorted(mut edits: Vec<Edit>) -> Vec<Edit> {
    let place = |edit: &Edit| (edit.key().to_vec(), !matches!(edit, Edit::RemovePrefix(_)));
    edits.sort_by_key(place);
    edits.dedup_by_key(|edit| place(edit));
    edits
}

/// Edits a tree and checks everything that `edit` promises.
fn check_edit(params: TreeParams, map: &Map, edits: &[Edit]) -> (Root, MemoryNodes) {
    let ids = ids();
    let (root, mut nodes) = build(params, map);
    let mut new = MemoryNodes::default();
    let row = edits.iter().cloned().map(Ok::<_, FormatError>);
    let done = edit_with(&ids, params, &nodes, &root.id, row, &mut new).unwrap();
    let edited = done.root;
    let expected_map = apply_to_map(map, edits);
    let gone = map.keys().filter(|key| !expected_map.contains_key(*key));
    assert_eq!(done.removed, gone.count() as u64);
    let (expected, fresh) = build(params, &expected_map);
    assert_eq!(edited, expected, "edit and fresh build differ");
    let wanted = reachable(&fresh, &expected);
    for id in new.nodes.keys() {
        assert!(wanted.contains(id), "a node was stored in vain");
        let empty = expected.count == 0;
        assert!(
            empty || !nodes.nodes.contains_key(id),
            "an unchanged node was stored"
        );
    }
    nodes.nodes.extend(new.nodes);
    assert_eq!(read(&nodes, &edited), expected_map);
    (edited, nodes)
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        // Few letters: shared prefixes, prefixes of each other, 0xff at the end.
        8 => proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)], 0..6),
        2 => any::<u16>().prop_map(|n| n.to_be_bytes().to_vec()),
        1 => (any::<u8>(), 100usize..400).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..24),
        1 => (any::<u8>(), 200usize..600).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn maps() -> impl Strategy<Value = Map> {
    prop_oneof![
        3 => proptest::collection::btree_map(keys(), values(), 0..300),
        1 => proptest::collection::btree_map(keys(), values(), 0..4),
    ]
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (keys(), values()).prop_map(|(key, value)| Edit::Put(key, value)),
        3 => keys().prop_map(Edit::Remove),
        1 => keys().prop_map(Edit::RemovePrefix),
    ];
    prop_oneof![
        3 => proptest::collection::vec(edit.clone(), 0..12),
        1 => proptest::collection::vec(edit, 0..300),
    ]
    .prop_map(sorted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_edited_tree_is_the_tree_built_afresh(map in maps(), edits in edits()) {
        check_edit(small(), &map, &edits);
    }

    #[test]
    fn edits_of_a_trees_own_keys_give_the_fresh_tree(map in maps(), picks in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, values()), 0..40)) {
        let keys: Vec<_> = map.keys().cloned().collect();
        prop_assume!(!keys.is_empty());
        let edits = picks.into_iter().map(|(index, what, value)| {
            let key = keys[index.index(keys.len())].clone();
            match what {
                0 => Edit::Put(key.clone(), map[&key].clone()),
                1 => Edit::Put(key, value),
                2 => Edit::Remove(key),
                _ => Edit::RemovePrefix(key[..key.len() / 2].to_vec()),
            }
        });
        check_edit(small(), &map, &sorted(edits.collect()));
    }

    #[test]
    fn a_tree_reads_back_in_order_from_anywhere(map in maps(), from in keys(), prefix in keys(), kind in 0u8..3) {
        let ids = ids();
        let (root, nodes) = build(small(), &map);
        prop_assert_eq!(root.count, map.len() as u64);
        prop_assert_eq!(&Root::load(&ids, &nodes, &root.id).unwrap(), &root);
        prop_assert_eq!(&read(&nodes, &root), &map);
        let prefix = &prefix[..prefix.len() / 2];
        let from = match kind {
            0 => Bound::Included(&from[..]),
            1 => Bound::Excluded(&from[..]),
            _ => Bound::Unbounded,
        };
        let expected: Vec<_> = map
            .range::<[u8], _>((from, Bound::Unbounded))
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let found: Vec<_> = Cursor::range(&ids, &nodes, &root.id, from, prefix)
            .map(Result::unwrap)
            .map(|(key, value)| (key, value.to_vec()))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn lookups_in_any_order_find_what_is_there(map in maps(), wanted in proptest::collection::vec(keys(), 0..20)) {
        let ids = ids();
        let (root, nodes) = build(small(), &map);
        let mut lookup = Lookup::new(&ids, &nodes, &root.id);
        for key in wanted.iter().chain(map.keys().rev().step_by(7)) {
            let found = lookup.get(key).unwrap().map(|value| value.to_vec());
            prop_assert_eq!(found.as_ref(), map.get(key));
        }
    }

    #[test]
    fn a_diff_is_what_differs(map in maps(), edits in edits(), prefix in keys()) {
        let ids = ids();
        let (from, mut nodes) = build(small(), &map);
        let other = apply_to_map(&map, &edits);
        let (to, more) = build(small(), &other);
        nodes.nodes.extend(more.nodes);
        let prefix = &prefix[..prefix.len() / 3];
        let mut found = Vec::new();
        diff::<_, _, FormatError>(&ids, (&nodes, &from.id), (&nodes, &to.id), prefix, |item| {
            found.push((item.key, item.from.map(|v| v.to_vec()), item.to.map(|v| v.to_vec())));
            Ok(())
        }).unwrap();
        let keys: std::collections::BTreeSet<_> = map.keys().chain(other.keys()).collect();
        let expected: Vec<_> = keys
            .into_iter()
            .filter(|key| key.starts_with(prefix) && map.get(*key) != other.get(*key))
            .map(|key| (key.clone(), map.get(key).cloned(), other.get(key).cloned()))
            .collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn no_items_are_a_tree_and_all_removed_is_the_same() {
    let ids = ids();
    let empty = Root::empty(&ids);
    assert_eq!(build(small(), &Map::new()).0, empty);
    let map: Map = (0u32..500)
        .map(|n| (n.to_be_bytes().to_vec(), vec![1]))
        .collect();
    let (root, nodes) = check_edit(small(), &map, &[Edit::RemovePrefix(Vec::new())]);
    assert_eq!(root, empty);
    assert!(
        nodes.nodes.contains_key(&root.id),
        "the empty root is stored"
    );
    // It is known without any source.
    let nowhere = MemoryNodes::default();
    assert_eq!(get(&ids, &nowhere, &empty.id, b"x").unwrap(), None);
    assert_eq!(Cursor::all(&ids, &nowhere, &empty.id).count(), 0);
    let grown = map
        .iter()
        .map(|(key, value)| Edit::Put(key.clone(), value.clone()));
    check_edit(small(), &Map::new(), &grown.collect::<Vec<_>>());
}

/// The last node of a level may have one child. Left alone, it is no root: its only leaf is.
#[test]
fn what_is_left_of_a_tree_has_the_lowest_root() {
    let mut lowered = 0;
    for count in 40u32..400 {
        let map: Map = (0..count)
            .map(|n| (n.to_be_bytes().to_vec(), vec![3; n as usize % 40]))
            .collect();
        let (root, nodes) = build(small(), &map);
        let ids = ids();
        let mut walker = walk::Walker::new(&ids, &nodes, &root.id);
        let mut starts = HashSet::new();
        while !matches!(walker.head(), walk::Head::End) {
            let last = walker.upper().is_none();
            match walker.head() {
                walk::Head::Link { level, .. } if last => {
                    starts.insert((level, walker.key().to_vec()));
                    walker.enter().unwrap();
                }
                walk::Head::Root => drop(walker.enter().unwrap()),
                _ => walker.skip().unwrap(),
            }
        }
        for (level, start) in starts {
            let before = map.keys().filter(|key| **key < start);
            let edits: Vec<_> = before.map(|key| Edit::Remove(key.clone())).collect();
            let (left, _) = check_edit(small(), &map, &edits);
            lowered += usize::from(left.level < level);
        }
    }
    assert!(lowered > 10, "{lowered}");
}

#[test]
fn edits_out_of_order_are_refused() {
    let ids = ids();
    let (root, nodes) = build(small(), &Map::new());
    let put = |key: &[u8]| Edit::Put(key.to_vec(), vec![]);
    let prefix = Edit::RemovePrefix(b"b".to_vec());
    for row in [
        vec![put(b"b"), put(b"a")],
        vec![put(b"b"), put(b"b")],
        vec![put(b"b"), Edit::Remove(b"b".to_vec())],
        vec![put(b"b"), prefix.clone()],
        vec![prefix.clone(), prefix.clone()],
        vec![prefix, put(b"b"), put(b"a")],
    ] {
        let row = row.into_iter().map(Ok::<_, FormatError>);
        let result = edit(&ids, &nodes, &root.id, row, &mut MemoryNodes::default());
        assert!(matches!(result, Err(FormatError::Change { .. })));
    }
    let mut sink = MemoryNodes::default();
    let mut builder = TreeBuilder::new(&ids, &mut sink);
    builder.push(b"a", b"").unwrap();
    assert!(builder.push(b"a", b"").is_err());
    assert!(builder.push(&vec![b'z'; MAX_KEY_BYTES + 1], b"").is_err());
    assert!(builder.push(b"zz", &vec![0; MAX_VALUE_BYTES + 1]).is_err());
}

/// A file's name is the tenant's to choose, its metadata nearly so: none may break a limit.
#[test]
fn largest_keys_and_values_make_nodes_within_their_limit() {
    let key = |n: u32, length: usize| {
        let mut key = n.to_be_bytes().to_vec();
        key.resize(length, 0x55);
        key
    };
    let lengths = [4, MAX_KEY_BYTES, 5, MAX_KEY_BYTES, MAX_KEY_BYTES, 9000, 4];
    let sizes = [
        MAX_VALUE_BYTES,
        0,
        MAX_VALUE_BYTES,
        MAX_VALUE_BYTES,
        3,
        24_000,
    ];
    let map: Map = (0u32..120)
        .map(|n| {
            let length = lengths[n as usize % lengths.len()];
            (
                key(n, length),
                vec![n as u8; sizes[n as usize % sizes.len()]],
            )
        })
        .collect();
    let edits = sorted(
        (0u32..120)
            .step_by(11)
            .map(|n| match n % 3 {
                0 => Edit::Remove(key(n, lengths[n as usize % lengths.len()])),
                _ => Edit::Put(key(n, MAX_KEY_BYTES), vec![9; MAX_VALUE_BYTES]),
            })
            .collect(),
    );
    let (root, nodes) = check_edit(TreeParams::DEFAULT, &map, &edits);
    assert!(
        nodes
            .nodes
            .values()
            .all(|bytes| bytes.len() <= MAX_NODE_BYTES)
    );
    // Two links of the longest keys fill a node: the tower still halves at each level.
    assert!(root.level <= 8, "{}", root.level);
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

fn many(count: u32) -> Map {
    (0..count)
        .map(|n| {
            (
                format!("{:02}/{:05}", n % 97, n / 97).into_bytes(),
                vec![n as u8; 40],
            )
        })
        .collect()
}

#[test]
fn few_edits_touch_few_nodes() {
    let ids = ids();
    let map = many(40_000);
    let params = TreeParams::new(1024, 1024, 4096).unwrap();
    let (root, nodes) = build(params, &map);
    let height = usize::from(root.level) + 1;
    for k in [0usize, 1, 10, 60] {
        let step = map.len() / (k + 1);
        let picked = map.keys().skip(step / 2).step_by(step).take(k);
        let edits: Vec<_> = picked
            .enumerate()
            .map(|(n, key)| match n % 3 {
                0 => Edit::Put(key.clone(), vec![0xee; 55]),
                1 => Edit::Remove(key.clone()),
                _ => Edit::Put([key, &b"x"[..]].concat(), vec![1; 40]),
            })
            .collect();
        let source = Counted(&nodes, 0.into());
        let mut new = MemoryNodes::default();
        let row = edits.iter().cloned().map(Ok::<_, FormatError>);
        let edited = edit_with(&ids, params, &source, &root.id, row, &mut new)
            .unwrap()
            .root;
        assert_eq!(edited, build(params, &apply_to_map(&map, &edits)).0);
        let (loaded, stored) = (source.1.get(), new.nodes.len());
        assert!(stored <= 2 * k * height, "{k} edits stored {stored}");
        assert!(loaded <= (4 * k + 1) * height, "{k} edits loaded {loaded}");
        nodes_of_diff(&ids, &nodes, &new, &root, &edited, k, height);
    }
}

fn nodes_of_diff(
    ids: &Ids,
    old: &MemoryNodes,
    new: &MemoryNodes,
    from: &Root,
    to: &Root,
    k: usize,
    height: usize,
) {
    let mut all = old.clone();
    all.nodes.extend(new.nodes.clone());
    let source = Counted(&all, 0.into());
    let mut found = 0;
    diff::<_, _, FormatError>(ids, (&source, &from.id), (&source, &to.id), b"", |_| {
        found += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(found, k);
    let loaded = source.1.get();
    assert!(loaded <= 8 * k * height, "a diff of {k} loaded {loaded}");
}

/// Trees of other heights have equal subtrees too.
#[test]
fn a_diff_steps_over_equal_subtrees_of_a_tree_that_grew() {
    let ids = ids();
    let params = TreeParams::new(1024, 1024, 4096).unwrap();
    let map = many(3_000);
    let (from, mut nodes) = build(params, &map);
    let mut grown = map.clone();
    grown.extend((0..40_000u32).map(|n| (format!("z{n:06}").into_bytes(), vec![1; 40])));
    let (to, more) = build(params, &grown);
    assert!(to.level > from.level);
    let new_nodes = more.nodes.len();
    nodes.nodes.extend(more.nodes);
    let source = Counted(&nodes, 0.into());
    let mut found = 0;
    diff::<_, _, FormatError>(&ids, (&source, &from.id), (&source, &to.id), b"", |item| {
        assert!(item.from.is_none() && item.key[0] == b'z');
        found += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(found, 40_000);
    let shared = reachable(&nodes, &from).len();
    assert!(
        source.1.get() < new_nodes + 10,
        "{} of {new_nodes} + {shared}",
        source.1.get()
    );
    source.1.set(0);
    let mut found = 0;
    diff::<_, _, FormatError>(&ids, (&source, &from.id), (&source, &to.id), b"5", |_| {
        found += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(found, 0);
    assert!(source.1.get() < 12, "{}", source.1.get());
}

#[test]
fn a_prefix_is_removed_without_reading_what_goes() {
    let ids = ids();
    let map = many(40_000);
    let params = TreeParams::new(1024, 1024, 4096).unwrap();
    let (root, nodes) = build(params, &map);
    let source = Counted(&nodes, 0.into());
    let edits: Vec<_> = [&b"0"[..], b"3", b"4", b"5"]
        .map(|prefix| Edit::RemovePrefix(prefix.to_vec()))
        .into();
    let row = edits.iter().cloned().map(Ok::<_, FormatError>);
    let mut new = MemoryNodes::default();
    let edited = edit_with(&ids, params, &source, &root.id, row, &mut new).unwrap();
    let left = apply_to_map(&map, &edits);
    assert_eq!(edited.root, build(params, &left).0);
    // Subtrees that were never opened are counted too.
    assert_eq!(edited.removed, (map.len() - left.len()) as u64);
    let height = usize::from(root.level) + 1;
    assert!(source.1.get() <= 4 * 4 * height, "{}", source.1.get());
}
