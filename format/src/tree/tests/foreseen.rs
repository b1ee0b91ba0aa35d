//! What is announced is what lookups load: no node less, and none that no key needs.

use super::*;
use std::cell::RefCell;

/// Notes what is announced and what is loaded.
struct Noted<'a> {
    nodes: &'a MemoryNodes,
    expected: RefCell<Vec<NodeId>>,
    loaded: RefCell<HashSet<NodeId>>,
}

impl NodeSource for Noted<'_> {
    type Error = FormatError;

    fn load(&self, id: &NodeId) -> Result<Bytes, FormatError> {
        self.loaded.borrow_mut().insert(*id);
        self.nodes.load(id)
    }

    fn expect(&self, ids: &[NodeId]) {
        self.expected.borrow_mut().extend(ids);
    }
}

fn noted(nodes: &MemoryNodes) -> Noted<'_> {
    Noted {
        nodes,
        expected: RefCell::default(),
        loaded: RefCell::default(),
    }
}

proptest! {
    #[test]
    fn what_lookups_load_is_announced(
        items in proptest::collection::btree_map("[a-e/]{0,6}", "[x-z]{0,9}", 0..200),
        keys in proptest::collection::btree_set("[a-f/]{0,7}", 0..30),
    ) {
        let map: Map = items.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let keys: Vec<Vec<u8>> = keys.into_iter().map(Into::into).collect();
        let (root, nodes) = build(small(), &map);
        let ids = ids();
        let (hinted, asked) = (noted(&nodes), noted(&nodes));
        foresee(&ids, &hinted, &root.id, &keys);
        for key in &keys {
            let found = get(&ids, &asked, &root.id, key).unwrap();
            prop_assert_eq!(found.as_deref(), map.get(key).map(Vec::as_slice));
        }
        let announced = hinted.expected.into_inner();
        let unique: HashSet<NodeId> = announced.iter().copied().collect();
        prop_assert_eq!(unique.len(), announced.len());
        let mut loaded = asked.loaded.into_inner();
        loaded.remove(&root.id);
        prop_assert_eq!(unique, loaded);
    }
}

#[test]
fn a_node_that_is_missing_is_left_to_the_lookup() {
    let (root, mut nodes) = build(small(), &many(500));
    let kept = nodes.nodes.remove(&root.id).unwrap();
    let (ids, keys) = (ids(), [b"05/00001".to_vec()]);
    foresee(&ids, &nodes, &root.id, &keys);
    nodes.nodes.clear();
    nodes.nodes.insert(root.id, kept);
    let source = noted(&nodes);
    foresee(&ids, &source, &root.id, &keys);
    assert_eq!(source.expected.borrow().len(), 1);
    assert!(get(&ids, &source, &root.id, &keys[0]).is_err());
}
