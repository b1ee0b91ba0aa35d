//! What differs between two snapshots, at the cost of the difference.

use crate::browse::{Results, View, stream};
use crate::error::{Error, Result};
use holdfast_format::codec::decode_entry;
use holdfast_format::entry::Entry;
use holdfast_format::path::RelPath;
use holdfast_format::tree;

/// Most differences of a batch.
const BATCH: usize = 500;

/// A path whose entry differs; one side may lack it.
#[derive(Debug)]
pub struct Difference {
    /// The path.
    pub path: RelPath,
    /// Its entry in the first snapshot.
    pub from: Option<Entry>,
    /// Its entry in the second.
    pub to: Option<Entry>,
}

/// The differences at and below a path, in key order. Snapshots of different domain generations have no
/// nodes in common and cannot be compared.
pub fn diff(from: View, to: View, path: RelPath) -> Result<Results<Vec<Difference>>> {
    let same = (from.keys.domain, from.keys.generation) == (to.keys.domain, to.keys.generation);
    if !same {
        return Err(Error::invalid(
            "snapshots of different dedup domains cannot be compared",
        ));
    }
    let (a, b) = (from.nodes(), to.nodes());
    Ok(stream(move |send: &mut dyn FnMut(_) -> Result<()>| {
        let mut batch = Vec::new();
        let (a, b) = (
            (&a, &from.record.entries_root),
            (&b, &to.record.entries_root),
        );
        let ids = &from.ids;
        if !path.is_root() {
            let key = path.to_key();
            let value = |(nodes, root)| tree::get(ids, nodes, root, &key);
            let (from, to) = (value(a)?, value(b)?);
            if from != to {
                batch.push(difference(&key, from.as_deref(), to.as_deref())?);
            }
        }
        tree::diff(ids, a, b, &path.subtree_prefix(), |item| {
            batch.push(difference(
                &item.key,
                item.from.as_deref(),
                item.to.as_deref(),
            )?);
            match batch.len() >= BATCH {
                true => send(std::mem::take(&mut batch)),
                false => Ok(()),
            }
        })?;
        match batch.is_empty() {
            true => Ok(()),
            false => send(batch),
        }
    }))
}

fn difference(key: &[u8], from: Option<&[u8]>, to: Option<&[u8]>) -> Result<Difference> {
    Ok(Difference {
        path: RelPath::from_key(key)?,
        from: from.map(decode_entry).transpose()?,
        to: to.map(decode_entry).transpose()?,
    })
}
