//! Tells a source which nodes the lookups of known keys are going to need, a level of the tree at once,
//! where the lookups themselves would ask for one node after another.

use super::NodeSource;
use super::node::{Node, Payload, Promise};
use super::walk::{load_node, load_root};
use crate::error::FormatError;
use crate::id::NodeId;
use crate::keys::Ids;
use std::ops::Range;

/// Announces the nodes on the way to these keys, which are in order, to the source. Only a hint: what
/// cannot be loaded is left to the lookup that needs it. Memory: a node for each key at most.
pub fn foresee<S: NodeSource>(ids: &Ids, source: &S, root: &NodeId, keys: &[Vec<u8>]) {
    let Ok(root) = load_root(ids, source, root) else {
        return;
    };
    let mut level = root.level();
    let mut nodes = vec![(root, 0..keys.len())];
    while level > 0 {
        level -= 1;
        let mut children = Vec::new();
        for (node, wanted) in &nodes {
            // A node whose items break a rule has been refused when it was decoded.
            let _ = add_children(node, keys, wanted.clone(), &mut children);
        }
        let announced: Vec<NodeId> = children.iter().map(|(id, _)| *id).collect();
        source.expect(&announced);
        if level == 0 {
            return;
        }
        let promise = Promise {
            level: Some(level),
            ..Promise::default()
        };
        let load = |(id, wanted)| Some((load_node(ids, source, &id, &promise).ok()?, wanted));
        nodes = children.into_iter().filter_map(load).collect();
    }
}

/// The children that answer for the wanted keys, each with those keys.
fn add_children(
    node: &Node,
    keys: &[Vec<u8>],
    wanted: Range<usize>,
    children: &mut Vec<(NodeId, Range<usize>)>,
) -> Result<(), FormatError> {
    let mut items = node.items();
    let mut at = wanted.start;
    let mut child = None;
    while items.advance()? {
        let Payload::Link { id, .. } = items.payload() else {
            return Ok(());
        };
        let below = keys[at..wanted.end].partition_point(|key| key[..] < *items.key());
        if let Some(child) = child.replace(id).filter(|_| below > 0) {
            children.push((child, at..at + below));
        }
        at += below;
    }
    if let Some(child) = child.filter(|_| at < wanted.end) {
        children.push((child, at..wanted.end));
    }
    Ok(())
}
