//! The index against a plain sorted map, and against damage.

use super::*;
use holdfast_format::digest::ContentDigest;
use holdfast_format::entry::Kind;
use holdfast_format::id::{DomainId, SnapshotId, VolumeId};
use std::collections::BTreeMap;

type Model = BTreeMap<Vec<u8>, Record>;

fn meta(snapshot: u8) -> Meta {
    Meta {
        volume: VolumeId::from_bytes([1; 16]),
        domain: DomainId::from_bytes([2; 16]),
        generation: 0,
        profile: 1,
        inline_limit: 1024,
        snapshot: SnapshotId::from_bytes([snapshot; 32]),
        boot_id: "boot".to_owned(),
        node: "node".to_owned(),
        totals: Totals {
            files: 5,
            content_bytes: 1 << 40,
            ..Totals::default()
        },
    }
}

fn record(n: u64, kind: Kind) -> Record {
    Record {
        kind,
        mode: 0o644,
        uid: (n % 3) as u32,
        gid: 7,
        size: n * 1000,
        mtime_ns: -(n as i64),
        ctime_ns: i64::MAX - n as i64,
        ino: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        trust: (n % 128) as u8,
        content: n.is_multiple_of(2).then_some(ContentDigest([n as u8; 16])),
        extra: n.is_multiple_of(3).then_some([n as u8; 16]),
        hardlink: n.is_multiple_of(5).then_some([n as u8; 16]),
    }
}

/// A small generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

fn dump(index: &Index) -> Model {
    let rows = index.rows().unwrap();
    let mut model = Model::new();
    let mut block = record::Block::default();
    for row in rows.blocks().unwrap().range::<&[u8]>(..).unwrap() {
        let (key, value) = row.unwrap();
        block.decode(value.value()).unwrap();
        let key = key.value();
        let prefix = key
            .windows(2)
            .position(|pair| pair == [0, 0])
            .map_or(0, |at| at + 2);
        for (name, record) in block.iter() {
            let key = [&key[..prefix], name].concat();
            assert!(model.insert(key, *record).is_none());
        }
    }
    model
}

/// Every child of every directory through the cursor, in tree order.
fn walk(index: &Index, directories: &[RelPath]) -> Vec<(RelPath, Record)> {
    let mut cursor = index.cursor().unwrap();
    let mut all = Vec::new();
    for directory in directories {
        cursor.enter(directory).unwrap();
        while let Some((name, record)) = cursor.take().unwrap() {
            all.push((directory.join(&name).unwrap(), record));
        }
    }
    all
}

#[test]
fn equals_a_sorted_map_whatever_the_history() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("i.redb");
    let mut model = Model::new();
    let mut random = Random(7);
    for round in 0..25u8 {
        let (mut index, discarded) = Index::open(&path).unwrap();
        assert_eq!(discarded.is_some(), round == 0);
        let mut edits: BTreeMap<Vec<u8>, Option<Record>> = BTreeMap::new();
        let count = if round == 0 { 6000 } else { random.below(300) };
        for _ in 0..count {
            // One directory is large (many blocks), the rest are small.
            let name = match random.below(4) {
                0 => format!("big/{:05}", random.below(20_000)),
                1 => format!(
                    "d{}/e{}/f{}",
                    random.below(5),
                    random.below(3),
                    random.below(9)
                ),
                2 => format!("d{}/f{}", random.below(5), random.below(40)),
                _ => format!("r{}", random.below(50)),
            };
            let path = RelPath::new(name).unwrap();
            let edit = (random.below(3) > 0).then(|| record(random.below(1000), Kind::File));
            edits.insert(path.to_key(), edit);
        }
        if round % 4 == 3 {
            edits.retain(|key, _| !key.starts_with(b"d1\0"));
            edits.insert(RelPath::new("d1").unwrap().to_key(), None);
        }
        let mut writer = index.writer().unwrap();
        for (key, edit) in &edits {
            let path = RelPath::from_key(key).unwrap();
            match edit {
                Some(record) => {
                    writer.put(&path, record).unwrap();
                    model.insert(key.clone(), *record);
                }
                None => {
                    writer.remove(&path).unwrap();
                    model.remove(key);
                    let below = path.subtree_prefix();
                    model.retain(|key, _| !key.starts_with(&below));
                }
            }
        }
        index.advance(writer, meta(round)).unwrap();
        assert!(dump(&index) == model, "round {round}");
        let mut directories: Vec<RelPath> = model
            .keys()
            .filter_map(|key| RelPath::from_key(key).unwrap().parent())
            .collect();
        directories.sort_by_key(RelPath::children_prefix);
        directories.dedup();
        let walked = walk(&index, &directories);
        let expected: Vec<_> = model
            .iter()
            .map(|(key, record)| (RelPath::from_key(key).unwrap(), *record))
            .collect();
        assert!(walked == expected, "cursor, round {round}");
        let mut links: BTreeMap<u64, Vec<RelPath>> = BTreeMap::new();
        for (key, record) in model.iter().filter(|(_, r)| r.trust & trust::LINKED != 0) {
            links
                .entry(record.ino)
                .or_default()
                .push(RelPath::from_key(key).unwrap());
        }
        for (ino, paths) in &links {
            assert_eq!(
                &index.lookup().unwrap().paths_of(*ino).unwrap(),
                paths,
                "round {round}"
            );
        }
        let rows = index.rows().unwrap();
        let stored = rows.transaction.open_table(INODES).unwrap();
        let count = redb::ReadableTableMetadata::len(&stored).unwrap() as usize;
        assert_eq!(count, links.values().map(Vec::len).sum::<usize>());
    }
}

#[test]
fn seeks_past_much_and_enters_what_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let (mut index, _) = Index::open(&directory.path().join("i.redb")).unwrap();
    let mut writer = index.writer().unwrap();
    writer
        .put(&RelPath::root(), &record(0, Kind::Directory))
        .unwrap();
    let mut paths: Vec<_> = (0..60)
        .map(|n| RelPath::new(format!("a/{n:02}/x")).unwrap())
        .chain([RelPath::new("b/y").unwrap(), RelPath::new("c").unwrap()])
        .collect();
    paths.sort();
    for path in &paths {
        writer.put(path, &record(1, Kind::File)).unwrap();
    }
    index.advance(writer, meta(1)).unwrap();
    let mut cursor = index.cursor().unwrap();
    assert_eq!(cursor.root().unwrap().unwrap().kind, Kind::Directory);
    for (directory, name) in [
        ("", Some("c")),
        ("a", None),
        ("a/30", Some("x")),
        ("a/300", None),
        ("aa", None),
        ("b", Some("y")),
        ("z", None),
    ] {
        cursor.enter(&RelPath::new(directory).unwrap()).unwrap();
        let next = cursor.take().unwrap().map(|(name, _)| name);
        assert_eq!(next.as_deref(), name.map(str::as_bytes), "{directory}");
    }
}

#[test]
fn a_run_that_is_not_committed_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("i.redb");
    let (mut index, _) = Index::open(&path).unwrap();
    let mut writer = index.writer().unwrap();
    writer
        .put(&RelPath::new("a").unwrap(), &record(1, Kind::File))
        .unwrap();
    index.advance(writer, meta(1)).unwrap();
    let before = dump(&index);
    let mut writer = index.writer().unwrap();
    for n in 0..50_000 {
        let path = RelPath::new(format!("b/{n:06}")).unwrap();
        writer.put(&path, &record(n, Kind::File)).unwrap();
    }
    drop(writer);
    assert!(dump(&index) == before);
    drop(index);
    let (index, discarded) = Index::open(&path).unwrap();
    assert_eq!(discarded, None);
    assert_eq!(index.meta(), Some(&meta(1)));
    assert!(dump(&index) == before);
}

#[test]
fn damage_is_noticed_and_the_index_discarded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("i.redb");
    for garbage in [b"not a database".to_vec(), vec![0xff; 100_000]] {
        fs::write(&path, garbage).unwrap();
        let (index, discarded) = Index::open(&path).unwrap();
        assert_eq!(discarded, Some(Discarded::Damaged));
        assert!(index.meta().is_none());
        drop(index);
        fs::remove_file(&path).unwrap();
    }
    let mut builder = record::BlockBuilder::default();
    for n in 0..20 {
        builder.push(format!("name{n:02}").as_bytes(), &record(n, Kind::File));
    }
    let good = builder.finish();
    let mut block = record::Block::default();
    block.decode(&good).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(block.decode(&bad).is_err(), "byte {at}");
        assert!(block.decode(&good[..at]).is_err(), "cut at {at}");
    }
    let described = meta(3).encode();
    for at in 0..described.len() {
        let mut bad = described.clone();
        bad[at] ^= 1;
        assert!(Meta::decode(&bad).is_err());
        assert!(Meta::decode(&described[..at]).is_err());
    }
}

#[test]
fn fits_only_its_own_parent() {
    let directory = tempfile::tempdir().unwrap();
    let (mut index, _) = Index::open(&directory.path().join("i.redb")).unwrap();
    assert_eq!(index.fits(&meta(1)), Err(Discarded::Missing));
    let writer = index.writer().unwrap();
    index.advance(writer, meta(1)).unwrap();
    assert_eq!(index.fits(&meta(1)), Ok(()));
    assert_eq!(index.fits(&meta(2)), Err(Discarded::OtherParent));
    let mut other = meta(1);
    other.inline_limit = 1;
    assert_eq!(index.fits(&other), Err(Discarded::OtherParameters));
    other.generation = 9;
    assert_eq!(index.fits(&other), Err(Discarded::Foreign));
}

#[test]
fn one_user_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("i.redb");
    let index = Index::open(&path).unwrap();
    assert!(matches!(Index::open(&path), Err(IndexError::Busy)));
    drop(index);
    assert!(Index::open(&path).is_ok());
}
