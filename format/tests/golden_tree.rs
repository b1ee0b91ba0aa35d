//! Golden trees and lists of format version 1: the ids of all nodes of one of each, and their smallest node.
//! `HOLDFAST_WRITE_GOLDEN=1` writes those that do not exist yet; what exists is frozen.
#![allow(clippy::disallowed_methods, reason = "a test reads its own files")]

use holdfast_format::codec::encode_entry;
use holdfast_format::entry::{Content, Entry, Extent, Kind};
use holdfast_format::id::{ChunkId, hex};
use holdfast_format::keys::{IdKey, Ids};
use holdfast_format::list::ListBuilder;
use holdfast_format::path::RelPath;
use holdfast_format::tree::{MemoryNodes, TreeBuilder};
use std::fmt::Write;
use std::path::Path;

fn ids() -> Ids {
    IdKey::from_bytes([0x44; 32]).ids()
}

fn golden(name: &str, written: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    let file = file.join(name);
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() && !file.exists() {
        std::fs::write(&file, written).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(stored == written, "{name} is not what is written now");
}

/// All node ids, which are hashes of the nodes' bytes, and the bytes of the smallest node.
fn describe(head: String, nodes: &MemoryNodes) -> String {
    let mut text = head;
    let mut all: Vec<_> = nodes.nodes.iter().collect();
    all.sort();
    for (id, bytes) in &all {
        writeln!(text, "node {id} {} bytes", bytes.len()).unwrap();
    }
    let smallest = all.iter().min_by_key(|(id, bytes)| (bytes.len(), **id));
    writeln!(text, "smallest {}", hex(smallest.unwrap().1)).unwrap();
    text
}

#[test]
fn a_tree() {
    let mut paths = vec![RelPath::root()];
    for directory in 0..40 {
        let name = format!("directory {directory:02}");
        paths.push(RelPath::new(name.clone()).unwrap());
        for file in 0..100 {
            paths.push(RelPath::new(format!("{name}/file-{file}")).unwrap());
        }
    }
    paths.sort();
    let ids = ids();
    let mut nodes = MemoryNodes::default();
    let mut builder = TreeBuilder::new(&ids, &mut nodes);
    for (index, path) in paths.iter().enumerate() {
        let directory = path.components().count() < 2;
        let content = match directory {
            true => Content::Empty,
            false => Content::Inline(format!("content {index}").into()),
        };
        let size = match &content {
            Content::Inline(bytes) => bytes.len() as u64,
            _ => 0,
        };
        let entry = Entry {
            kind: if directory {
                Kind::Directory
            } else {
                Kind::File
            },
            mode: 0o640,
            uid: 1000,
            gid: 1000,
            mtime_ns: 1_700_000_000_000_000_000 + index as i64,
            size,
            xattrs: Vec::new(),
            target: Default::default(),
            rdev: 0,
            content,
            hardlink: None,
        };
        builder
            .push(&path.to_key(), &encode_entry(&entry).unwrap())
            .unwrap();
    }
    let root = builder.finish().unwrap();
    let head = format!(
        "root {} level {} items {}\n",
        root.id, root.level, root.count
    );
    golden("tree.txt", &describe(head, &nodes));
}

#[test]
fn a_list() {
    let ids = ids();
    let mut nodes = MemoryNodes::default();
    let mut builder = ListBuilder::new(&ids, &mut nodes, 1);
    for index in 0..2000u32 {
        let hole = index % 50 == 49;
        let extent = match hole {
            true => Extent::Hole {
                length: 65_536 * u64::from(index),
            },
            false => Extent::Chunk {
                id: ChunkId::from_bytes(blake3::hash(&index.to_le_bytes()).into()),
                length: 8192 + index * 8,
            },
        };
        builder.push(&extent).unwrap();
    }
    let (content, bytes) = builder.finish().unwrap();
    let head = format!("{content:?} of {bytes} bytes\n");
    golden("list.txt", &describe(head, &nodes));
}
