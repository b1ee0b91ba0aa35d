//! Few reads, all frames; damage is named and stays where it is.

use super::*;
use crate::repo::kek::{generate, random};
use crate::repo::testing::{FaultStore, quick};
use crate::repo::{CreateOptions, current};
use holdfast_format::frame::FrameBuilder;
use holdfast_format::id::RepositoryId;
use holdfast_format::pack::{FinishedPack, ItemKind, PackBuilder};
use holdfast_format::seal::ObjectKind;
use object_store::memory::InMemory;

struct World {
    faults: Arc<FaultStore>,
    repository: Repository,
}

async fn world() -> World {
    let faults = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
    let store = Store::from_object_store(faults.clone(), "memory", &quick());
    let options = CreateOptions {
        id: RepositoryId::from_bytes([1; 16]),
        created_ns: 1,
        profile: None,
        inline_limit: None,
    };
    let kek = generate().unwrap();
    let repository = Repository::create(store, kek, &options).await.unwrap();
    World { faults, repository }
}

/// Bytes that do not compress.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

impl World {
    /// A pack of frames with one chunk each of these lengths.
    async fn pack(&self, lengths: &[usize]) -> FinishedPack {
        let domain = self.repository.ensure_domain("", 1).await.unwrap();
        let keys = self.repository.domain_keys(&domain.id, 1).await.unwrap();
        let (master, key) = current(&keys).unwrap();
        let (id, salt) = (self.repository.id(), random().unwrap());
        let mut builder = PackBuilder::new(id, ObjectKind::DataPack, key, master, salt);
        for (n, length) in lengths.iter().enumerate() {
            let mut frame = FrameBuilder::new();
            frame
                .push([n as u8; 32], &noise(n as u32, *length))
                .unwrap();
            builder
                .add(&frame.finish(1).unwrap(), ItemKind::Chunk)
                .unwrap();
        }
        let pack = builder.finish().unwrap();
        self.repository.put_pack(&pack).await.unwrap();
        pack
    }

    fn reader(&self, memory: usize) -> Reader {
        Reader::new(self.repository.clone(), memory, None)
    }

    async fn overwrite(&self, pack: &FinishedPack, bytes: Bytes) {
        let writer = self.repository.writer();
        let pack = FinishedPack {
            stored_bytes: bytes.len() as u64,
            parts: vec![bytes],
            ..pack.clone()
        };
        writer.pack(&pack).await.unwrap();
    }
}

fn addresses(pack: &FinishedPack) -> Vec<FrameAddress> {
    let frames = pack.frames.iter();
    frames
        .map(|frame| FrameAddress::of(pack.id, pack.header, frame))
        .collect()
}

#[tokio::test]
async fn neighbours_come_in_one_read_and_far_ones_do_not() {
    let world = world().await;
    let pack = world
        .pack(&[50_000, 100_000, 1_000_000, 70_000, 20_000])
        .await;
    let other = world.pack(&[1_000]).await;
    let all = addresses(&pack);
    // 3 and 0 and 1 of one pack, across the large frame 2; then the other pack.
    let wanted = vec![all[3], addresses(&other)[0], all[1], all[0]];
    let before = world.faults.calls();
    let read: Vec<_> = world.reader(0).frames(wanted).collect().await;
    assert_eq!(world.faults.calls() - before, 3);
    let order: Vec<usize> = read.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [3, 2, 0, 1]);
    for (index, frame) in read {
        let plain = frame.unwrap().open().unwrap();
        let expected = match index {
            0 => noise(3, 70_000),
            1 => noise(0, 1_000),
            2 => noise(1, 100_000),
            _ => noise(0, 50_000),
        };
        assert!(plain == expected, "{index}");
    }
}

#[test]
fn a_read_is_bounded_and_gaps_are_too() {
    let header = Header {
        kind: ObjectKind::DataPack,
        key: KeyRef::Kek,
        salt: [0; 32],
    };
    let at = |offset: u64, stored_length: u32| FrameAddress {
        pack: PackId::from_bytes([1; 32]),
        header,
        frame_no: 0,
        offset,
        stored_length,
    };
    let frames: Vec<_> = (0..40).map(|n| at(n * 1_000_000, 1_000_000)).collect();
    let reads = coalesce(&frames);
    assert!(
        reads
            .iter()
            .all(|read| read.range.end - read.range.start <= MAX_READ_BYTES)
    );
    assert_eq!(reads.len(), 5);
    assert_eq!(
        reads.iter().map(|read| read.frames.len()).sum::<usize>(),
        40
    );
    assert_eq!(coalesce(&[at(0, 10), at(10 + MAX_GAP_BYTES, 10)]).len(), 1);
    assert_eq!(coalesce(&[at(0, 10), at(11 + MAX_GAP_BYTES, 10)]).len(), 2);
    // Asked for twice: read once.
    assert_eq!(coalesce(&[at(0, 10), at(0, 10)]).len(), 1);
    assert!(coalesce(&[]).is_empty());
}

#[tokio::test]
async fn damage_is_named_and_stays_where_it_is() {
    let world = world().await;
    let pack = world.pack(&[1_000, 2_000, 3_000]).await;
    let name = ObjectName::Pack(pack.id).to_string();
    let reader = world.reader(0);
    let read = async || -> Vec<Result<StoredFrame>> {
        let frames: Vec<_> = reader.frames(addresses(&pack)).collect().await;
        frames.into_iter().map(|(_, frame)| frame).collect()
    };
    // One flipped byte in the second frame.
    let mut flipped = pack.bytes().to_vec();
    flipped[pack.frames[1].offset as usize + 100] ^= 1;
    world.overwrite(&pack, flipped.into()).await;
    let found = read().await;
    assert!(found[0].is_ok() && found[2].is_ok());
    let error = found[1].as_ref().unwrap_err();
    assert!(matches!(error, RepoError::ObjectDamaged { .. }) && error.is_damage());
    assert!(
        error.to_string().contains(&name) && error.to_string().contains("frame 1"),
        "{error}"
    );
    // Cut in the third frame: the first two are whole.
    let cut = pack.frames[2].offset as usize + 5;
    world.overwrite(&pack, pack.bytes().slice(..cut)).await;
    let found = read().await;
    assert!(found[0].is_ok() && found[1].is_ok());
    let error = found[2].as_ref().unwrap_err();
    assert!(
        matches!(error, RepoError::ObjectTruncated { found, .. } if *found == cut as u64),
        "{error}"
    );
    // Another pack under its name.
    let other = world.pack(&[1_000, 2_000, 3_000]).await;
    world.overwrite(&pack, other.bytes().clone()).await;
    assert!(read().await.iter().all(|frame| frame.is_err()));
    // Gone.
    world.repository.delete_pack(pack.id).await.unwrap();
    for frame in read().await {
        let error = frame.unwrap_err();
        assert!(matches!(error, RepoError::ObjectMissing { .. }), "{error}");
        assert!(error.to_string().contains(&name));
    }
}

#[tokio::test]
async fn a_footer_takes_one_read_and_says_what_was_put() {
    let world = world().await;
    let pack = world.pack(&[1_000, 300_000]).await;
    let reader = world.reader(0);
    let before = world.faults.calls();
    let contents = reader.footer(pack.id, pack.stored_bytes).await.unwrap();
    assert_eq!(world.faults.calls() - before, 1);
    assert_eq!(
        (contents.frames, contents.header),
        (pack.frames.clone(), pack.header)
    );
    assert_eq!(reader.whole(pack.id).await.unwrap().frames, pack.frames);
    // Every cut and some flips are found.
    let cut = pack.bytes().slice(..pack.bytes().len() - 1);
    world.overwrite(&pack, cut.clone()).await;
    let listed = reader.footer(pack.id, cut.len() as u64).await.unwrap_err();
    assert!(listed.is_damage(), "{listed}");
    assert!(
        reader
            .footer(pack.id, pack.stored_bytes)
            .await
            .unwrap_err()
            .is_damage()
    );
    for back in [1, 40, 71, 73, 90] {
        let mut flipped = pack.bytes().to_vec();
        let at = flipped.len() - back;
        flipped[at] ^= 1;
        world.overwrite(&pack, flipped.into()).await;
        let error = reader.footer(pack.id, pack.stored_bytes).await.unwrap_err();
        assert!(
            error.is_damage() || matches!(error, RepoError::Unsupported { .. }),
            "{back} {error}"
        );
        assert!(reader.whole(pack.id).await.is_err());
    }
    let tiny = reader.footer(pack.id, 3).await.unwrap_err();
    assert!(matches!(tiny, RepoError::ObjectTruncated { .. }), "{tiny}");
}

#[tokio::test]
async fn a_large_footer_takes_two() {
    let world = world().await;
    let domain = world.repository.ensure_domain("", 1).await.unwrap();
    let keys = world.repository.domain_keys(&domain.id, 1).await.unwrap();
    let (master, key) = current(&keys).unwrap();
    let id = world.repository.id();
    let mut builder = PackBuilder::new(id, ObjectKind::TreePack, key, master, [9; 32]);
    let mut frame = FrameBuilder::new();
    for n in 0..8_000_u32 {
        let mut node = [0; 32];
        node[..4].copy_from_slice(&n.to_le_bytes());
        frame.push(node, &n.to_le_bytes()).unwrap();
    }
    builder
        .add(&frame.finish(1).unwrap(), ItemKind::Node)
        .unwrap();
    let pack = builder.finish().unwrap();
    world.repository.put_pack(&pack).await.unwrap();
    let before = world.faults.calls();
    let contents = world
        .reader(0)
        .footer(pack.id, pack.stored_bytes)
        .await
        .unwrap();
    assert_eq!(world.faults.calls() - before, 2);
    assert_eq!(contents.frames, pack.frames);
}

#[tokio::test]
async fn caches_spare_reads_and_a_damaged_copy_on_disk_is_read_again() {
    let world = world().await;
    let pack = world.pack(&[40_000, 50_000]).await;
    let all = addresses(&pack);
    let memory = world.reader(1 << 20);
    memory.frame(&all[0]).await.unwrap();
    let before = world.faults.calls();
    assert!(memory.frame(&all[0]).await.unwrap() == noise(0, 40_000));
    assert_eq!(world.faults.calls(), before);

    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let disk = DiskCache::open(dir.path(), 1 << 20).unwrap();
        Reader::new(world.repository.clone(), 0, disk)
    };
    let reader = open();
    reader.prefetch_tree(&all).await;
    let before = world.faults.calls();
    assert!(reader.tree_frame(&all[1]).await.unwrap() == noise(1, 50_000));
    assert_eq!(world.faults.calls(), before);
    drop(reader);
    for found in std::fs::read_dir(dir.path()).unwrap() {
        let path = found.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(byte) = bytes.get_mut(200) {
            *byte ^= 1;
        }
        std::fs::write(path, bytes).unwrap();
    }
    let reader = open();
    assert!(reader.tree_frame(&all[0]).await.unwrap() == noise(0, 40_000));
    assert_eq!(world.faults.calls(), before + 1);
    let item = Reader::item(&all[0], &noise(0, 40_000).into(), 10, 20).unwrap();
    assert_eq!(item, noise(0, 40_000)[10..30]);
    assert!(Reader::item(&all[0], &item, 10, u32::MAX).is_err());
}
