//! A catalog behind its store is made right; one from the store alone equals the original.

use super::*;
use crate::catalog::{BeginSession, Mode, Reservation, VolumeNo};
use crate::repo::kek::generate;
use crate::repo::rebuild::rebuild;
use crate::repo::testing::quick;
use crate::repo::{CreateOptions, Domain, Store, current};
use holdfast_format::deletion::DeletionRecord;
use holdfast_format::frame::FrameBuilder;
use holdfast_format::id::{CatalogId, ChunkId, IdempotencyKey, NodeId, RepositoryId, SessionId};
use holdfast_format::pack::{ItemKind, PackBuilder};
use holdfast_format::seal::ObjectKind;
use holdfast_format::snapshot::Snapshot;
use holdfast_format::stats::Stats;
use holdfast_format::volume::VolumeFacts;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::TempDir;

const NOW: i64 = 1_900_000_000_000_000_000;
const REPOSITORY: RepositoryId = RepositoryId::from_bytes([6; 16]);
const CATALOG: CatalogId = CatalogId::from_bytes([7; 16]);

fn silent(_: Step) {}

struct World {
    _store_dir: TempDir,
    state: TempDir,
    repository: Repository,
    domain: Domain,
    catalog: Catalog,
    backups: u8,
}

impl World {
    async fn new() -> Self {
        let store_dir = tempfile::tempdir().unwrap();
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(store_dir.path().to_str().unwrap(), &quick()).unwrap();
        let options = CreateOptions {
            id: REPOSITORY,
            created_ns: 1,
            profile: None,
            inline_limit: None,
        };
        let repository = Repository::create(store, generate().unwrap(), &options)
            .await
            .unwrap();
        let domain = repository.ensure_domain("space", 2).await.unwrap();
        let catalog = Catalog::create(state.path(), &REPOSITORY, CATALOG)
            .await
            .unwrap();
        // The domain's mark.
        reconcile(&catalog, &repository, NOW, &silent)
            .await
            .unwrap();
        Self {
            _store_dir: store_dir,
            state,
            repository,
            domain,
            catalog,
            backups: 0,
        }
    }

    fn store_file(&self, name: &ObjectName) -> std::path::PathBuf {
        self._store_dir.path().join(name.to_string())
    }

    async fn put_pack(&self, seed: u8, texts: &[String]) -> (PackContents, Vec<ChunkId>) {
        let keys = self
            .repository
            .domain_keys(&self.domain.id, self.domain.generation)
            .await
            .unwrap();
        let ids = keys.id_key.ids();
        let (master, key) = current(&keys).unwrap();
        let mut builder =
            PackBuilder::new(REPOSITORY, ObjectKind::DataPack, key, master, [seed; 32]);
        let mut chunks = Vec::new();
        for texts in texts.chunks(4) {
            let mut frame = FrameBuilder::new();
            for text in texts {
                let id = ids.chunk(text.as_bytes());
                frame.push(id.into_bytes(), text.as_bytes()).unwrap();
                chunks.push(id);
            }
            builder
                .add(&frame.finish(1).unwrap(), ItemKind::Chunk)
                .unwrap();
        }
        let pack = builder.finish().unwrap();
        self.repository.put_pack(&pack).await.unwrap();
        let contents = PackContents {
            id: pack.id,
            header: pack.header,
            size: pack.stored_bytes,
            frames: pack.frames,
        };
        (contents, chunks)
    }

    async fn register(&self, contents: &PackContents, held: &[(VolumeNo, Vec<ChunkId>)]) {
        let row = PackRow::of(contents.id, &contents.header, contents.size, NOW).unwrap();
        self.catalog
            .register_pack(&row, &contents.frames, held)
            .await
            .unwrap();
    }

    /// One backup of a volume as a session makes it, up to `until`.
    async fn backup(&mut self, volume: u8, until: Until) -> (PackId, Reservation) {
        self.backups += 1;
        let seed = self.backups;
        let texts: Vec<String> = (0..10)
            .map(|n| format!("{seed} {n}"))
            .chain(["shared".into()])
            .collect();
        let (contents, chunks) = self.put_pack(seed, &texts).await;
        let facts = VolumeFacts::named(format!("volume-{volume}").parse().unwrap());
        let row = VolumeRow {
            id: VolumeId::from_bytes([volume; 16]),
            domain: self.domain.id,
            facts: facts.clone(),
            bound_ns: i64::from(seed),
        };
        let no = self.catalog.bind_volume(&row).await.unwrap();
        let begin = BeginSession {
            id: SessionId::from_bytes([seed; 16]),
            key: IdempotencyKey::from_bytes([seed; 16]),
            volume: no,
            node: "node".into(),
            parent: None,
            now_ns: NOW,
        };
        let begun = self.catalog.begin(&begin).await.unwrap();
        self.register(&contents, &[(no, chunks.clone())]).await;
        let record = Snapshot {
            volume: row.id,
            domain: self.domain.id,
            generation: self.domain.generation,
            entries_root: NodeId::from_bytes([seed; 32]),
            problems_root: None,
            parent: None,
            sequence: self.catalog.next_sequence(no).await.unwrap(),
            started_ns: 1,
            received_ns: i64::from(seed),
            run: begin.key,
            facts,
            stats: Stats::default(),
            problem_count: 0,
            first_problems: Vec::new(),
        };
        let (id, sealed) = self.repository.seal_snapshot(&record).unwrap();
        let name = ObjectName::Snapshot { volume: row.id, id };
        let reservation = Reservation {
            key: begin.key,
            session: begun.session,
            volume: no,
            snapshot: id,
            sequence: record.sequence,
            root: record.entries_root,
            problems_root: None,
            object: name.to_string(),
            record: sealed.clone(),
            reserved_ns: NOW,
        };
        let relied = chunks.iter().map(|id| id.into_bytes());
        let since = Some(begun.stamped_since);
        self.catalog
            .reserve(&reservation, begun.epoch, relied, since)
            .await
            .unwrap();
        if until >= Until::Put {
            self.repository
                .store()
                .put(&name, sealed.clone())
                .await
                .unwrap();
        }
        if until >= Until::Published {
            let row = SnapshotRow::of(id, &record, sealed.len() as u64).unwrap();
            self.catalog.publish(&row).await.unwrap();
        }
        (contents.id, reservation)
    }

    async fn delete(&self, number: u64, packs: &[PackId], apply: bool) {
        let record = DeletionRecord {
            number,
            time_ns: 1,
            packs: packs.to_vec(),
        };
        let sealed = self
            .repository
            .keyring()
            .seal(ObjectKind::DeletionRecord, &record.encode().unwrap())
            .unwrap();
        self.repository
            .store()
            .put(&ObjectName::Deletion(number), sealed)
            .await
            .unwrap();
        for pack in packs {
            self.repository.delete_pack(*pack).await.unwrap();
        }
        if apply {
            self.catalog.apply_deletion(number, packs).await.unwrap();
        }
    }

    async fn forget(&self, reservation: &Reservation, volume: u8) {
        let name = ObjectName::Snapshot {
            volume: VolumeId::from_bytes([volume; 16]),
            id: reservation.snapshot,
        };
        self.repository.store().delete(&name).await.unwrap();
        self.catalog
            .forget(&reservation.snapshot, NOW)
            .await
            .unwrap();
    }

    /// The catalog's files as they are now.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for name in ["catalog.db", "catalog.db-wal"] {
            std::fs::copy(self.state.path().join(name), copy.path().join(name)).unwrap();
        }
        copy
    }

    async fn reconcile(&self) -> Reconciled {
        reconcile(&self.catalog, &self.repository, NOW, &silent)
            .await
            .unwrap()
    }

    async fn rebuild(&self, dir: &Path) -> (Catalog, Reconciled) {
        rebuild(&self.repository, dir, CATALOG, NOW, &silent)
            .await
            .unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    Reserved,
    Put,
    Published,
}

/// Everything that a catalog says of its store, in an order of its own. Every chunk of every live pack
/// is located; where a chunk is in two packs, either will do.
#[derive(PartialEq, Debug)]
struct Listing {
    packs: BTreeMap<PackId, (PackState, u64, u64)>,
    chunks: BTreeSet<[u8; 32]>,
    snapshots: Vec<SnapshotRow>,
    volumes: Vec<(VolumeId, String, u64)>,
    domains: Vec<DomainRow>,
    marks: Vec<MarkRow>,
}

async fn listing(world: &World, catalog: &Catalog) -> Listing {
    let mut packs = BTreeMap::new();
    let mut after = None;
    loop {
        let page = catalog.packs(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.no);
        for pack in page {
            if pack.state != PackState::Gone {
                packs.insert(pack.pack.id, (pack.state, pack.pack.size, pack.chunk_count));
            }
        }
    }
    let reader = Reader::new(world.repository.clone(), 1 << 20, None);
    let mut chunks = BTreeSet::new();
    for (id, (state, size, _)) in &packs {
        if *state != PackState::Live {
            continue;
        }
        for frame in reader.footer(*id, *size).await.unwrap().frames {
            chunks.extend(frame.items.iter().map(|item| item.id));
        }
    }
    let ids: Vec<[u8; 32]> = chunks.iter().copied().collect();
    let places = catalog.locate(&ids).await.unwrap();
    for (id, place) in ids.iter().zip(places) {
        let Some(place) = place else {
            chunks.remove(id);
            continue;
        };
        let contents = reader.footer(place.pack, place.pack_size).await.unwrap();
        let frame = &contents.frames[place.frame_no as usize];
        let item = frame.items.iter().find(|item| item.id == *id).unwrap();
        assert_eq!(
            (
                place.header,
                place.offset,
                place.stored_length,
                place.item_offset,
                place.item_length
            ),
            (
                contents.header,
                frame.offset,
                frame.stored_length,
                item.offset_in_frame,
                item.length
            )
        );
    }
    let mut snapshots = catalog.snapshots(None).await.unwrap();
    snapshots.sort_by_key(|row| row.id);
    let mut volumes = Vec::new();
    for volume in catalog.volumes().await.unwrap() {
        let latest = catalog
            .latest(volume.no)
            .await
            .unwrap()
            .map_or(0, |row| row.sequence);
        volumes.push((volume.id, volume.facts.name.to_string(), latest));
    }
    Listing {
        packs,
        chunks,
        snapshots,
        volumes,
        domains: catalog.domains().await.unwrap(),
        marks: catalog.marks(None).await.unwrap(),
    }
}

#[tokio::test]
async fn a_catalog_from_the_store_alone_equals_the_original() {
    let mut world = World::new().await;
    let mut packs = Vec::new();
    for volume in [1, 2, 1, 3, 2] {
        packs.push(world.backup(volume, Until::Published).await);
    }
    let pin = MarkRecord {
        mark: Mark::Pin {
            snapshot: packs[0].1.snapshot,
            reason: "test".into(),
        },
        time_ns: 4,
        actor: String::new(),
    };
    let pin_id = world.repository.put_mark(&pin).await.unwrap();
    world
        .catalog
        .add_marks(&[MarkRow::of(pin_id, &pin).unwrap()])
        .await
        .unwrap();
    world.forget(&packs[3].1, 3).await;
    world.delete(9, &[packs[3].0], true).await;
    assert!(!world.reconcile().await.was_behind());
    let original = listing(&world, &world.catalog).await;
    assert_eq!((original.packs.len(), original.snapshots.len()), (4, 4));
    assert_eq!(original.chunks.len(), 41);

    let fresh = tempfile::tempdir().unwrap();
    let (rebuilt, found) = world.rebuild(fresh.path()).await;
    assert_eq!(found.problems, []);
    let mut again = listing(&world, &rebuilt).await;
    // A volume without a snapshot or a mark left nothing in the store.
    assert_eq!(again.volumes.len(), 2);
    again
        .volumes
        .push((VolumeId::from_bytes([3; 16]), "volume-3".into(), 0));
    assert_eq!(again, original);
    assert_eq!(rebuilt.deletion_applied().await.unwrap(), 9);
    let one = rebuilt
        .volume_by_name(&"volume-1".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rebuilt.next_sequence(one.no).await.unwrap(), 3);
    assert!(rebuilt.holds_nothing(one.no).await.unwrap());
    assert!(!fresh.path().join("rebuild").exists());

    // It takes the place of another, which is kept.
    world.catalog.close().await.unwrap();
    std::fs::write(world.state.path().join("catalog.db"), b"garbage").unwrap();
    let (replaced, _) = world.rebuild(world.state.path()).await;
    assert_eq!(listing(&world, &replaced).await.chunks, original.chunks);
    let kept = std::fs::read(world.state.path().join("catalog-replaced.db")).unwrap();
    assert_eq!(kept, b"garbage");
    let second = Catalog::open(world.state.path(), &REPOSITORY, Mode::ReadWrite).await;
    assert!(matches!(second, Err(CatalogError::InUse { .. })));
}

#[tokio::test]
async fn a_catalog_copied_back_from_an_older_time_is_made_right() {
    let mut world = World::new().await;
    let first = world.backup(1, Until::Published).await;
    let second = world.backup(2, Until::Published).await;
    let older = world.copy();
    // What the copy does not know: new backups, a forgotten snapshot, a deletion, another mark.
    world.backup(1, Until::Published).await;
    world.forget(&second.1, 2).await;
    world.delete(1, &[second.0], true).await;
    world.backup(3, Until::Published).await;
    world.forget(&first.1, 1).await;
    world.delete(2, &[first.0], true).await;
    world.repository.ensure_domain("other", 5).await.unwrap();
    // "shared" was in the first pack and went with it; the later packs have copies.
    world.catalog.close().await.unwrap();
    let newest = Catalog::open(world.state.path(), &REPOSITORY, Mode::ReadWrite)
        .await
        .unwrap();
    world.catalog = newest;
    world.reconcile().await;

    let old = Catalog::open(older.path(), &REPOSITORY, Mode::ReadWrite)
        .await
        .unwrap();
    let found = reconcile(&old, &world.repository, NOW, &silent)
        .await
        .unwrap();
    assert!(found.was_behind());
    assert_eq!((found.deletions, found.packs, found.snapshots), (2, 2, 2));
    assert_eq!(found.forgotten.len(), 2);
    assert_eq!(found.problems, []);
    let mut expected = listing(&world, &world.catalog).await;
    let mut got = listing(&world, &old).await;
    // Applied by hand above, so that this catalog did not see the footers again.
    let shared = got.chunks.difference(&expected.chunks).count();
    assert!(shared <= 1);
    expected.chunks.clear();
    got.chunks.clear();
    assert_eq!(got, expected);
    assert_eq!(old.deletion_applied().await.unwrap(), 2);
    let one = old
        .volume_by_name(&"volume-1".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(old.next_sequence(one.no).await.unwrap(), 3);
    // A second time there is nothing left to do.
    assert!(
        !reconcile(&old, &world.repository, NOW, &silent)
            .await
            .unwrap()
            .was_behind()
    );
}

/// A deletion takes the index row of a chunk of which another known pack has a copy.
#[tokio::test]
async fn a_copy_in_another_pack_is_found_after_a_deletion() {
    let mut world = World::new().await;
    let first = world.backup(1, Until::Published).await;
    world.backup(2, Until::Published).await;
    let before = listing(&world, &world.catalog).await;
    assert_eq!(before.chunks.len(), 21);
    world.forget(&first.1, 1).await;
    world.delete(1, &[first.0], false).await;
    world.reconcile().await;
    assert_eq!(listing(&world, &world.catalog).await.chunks.len(), 11);
}

#[tokio::test]
async fn left_over_objects_of_a_deletion_are_not_adopted() {
    let mut world = World::new().await;
    let (pack, reservation) = world.backup(1, Until::Published).await;
    let file = world.store_file(&ObjectName::Pack(pack));
    let bytes = std::fs::read(&file).unwrap();
    world.forget(&reservation, 1).await;
    world.delete(1, &[pack], false).await;
    std::fs::write(&file, bytes).unwrap();
    let found = world.reconcile().await;
    assert_eq!((found.deletions, found.packs), (1, 0));
    let fresh = tempfile::tempdir().unwrap();
    let (rebuilt, found) = world.rebuild(fresh.path()).await;
    assert_eq!(found.packs, 0);
    assert_eq!(listing(&world, &rebuilt).await.packs.len(), 0);
    assert!(file.exists(), "nothing is deleted");
}

#[tokio::test]
async fn a_missing_pack_counts_as_absent_until_it_is_back() {
    let mut world = World::new().await;
    let (pack, _) = world.backup(1, Until::Published).await;
    world.backup(2, Until::Published).await;
    let before = listing(&world, &world.catalog).await;
    let file = world.store_file(&ObjectName::Pack(pack));
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    for _ in 0..2 {
        let found = world.reconcile().await;
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert!(found.problems[0].object.contains(&pack.to_string()));
        // What the other pack has a copy of is still found.
        assert_eq!(listing(&world, &world.catalog).await.chunks.len(), 11);
    }
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(world.reconcile().await.problems, []);
    assert_eq!(listing(&world, &world.catalog).await, before);
}

#[tokio::test]
async fn damaged_objects_are_named_and_the_rest_is_adopted() {
    let mut world = World::new().await;
    let (pack, _) = world.backup(1, Until::Published).await;
    let (_, damaged) = world.backup(2, Until::Published).await;
    world.backup(3, Until::Published).await;
    let record = ObjectName::Snapshot {
        volume: VolumeId::from_bytes([2; 16]),
        id: damaged.snapshot,
    };
    let names = [ObjectName::Pack(pack), record];
    for name in &names {
        let file = world.store_file(name);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.len() - 80;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let fresh = tempfile::tempdir().unwrap();
    let (rebuilt, found) = world.rebuild(fresh.path()).await;
    let told: BTreeSet<String> = found
        .problems
        .into_iter()
        .map(|problem| problem.object)
        .collect();
    assert_eq!(told, names.iter().map(ToString::to_string).collect());
    let listing = listing(&world, &rebuilt).await;
    assert_eq!((listing.packs.len(), listing.snapshots.len()), (2, 2));
    assert!(names.iter().all(|name| world.store_file(name).exists()));
}

#[tokio::test]
async fn reservations_are_settled_by_what_the_store_has() {
    let mut world = World::new().await;
    let (_, put) = world.backup(1, Until::Put).await;
    let (_, reserved) = world.backup(2, Until::Reserved).await;
    let found = world.reconcile().await;
    assert_eq!((found.published, found.dropped, found.snapshots), (1, 0, 0));
    assert_eq!(world.catalog.snapshot_ids().await.unwrap(), [put.snapshot]);
    // Its bytes are kept: they may be put.
    assert_eq!(world.catalog.unpublished().await.unwrap(), [reserved]);
    // Not after a deletion that the reservation did not know of.
    let (pack, _) = world.backup(3, Until::Published).await;
    world.delete(1, &[pack], false).await;
    assert_eq!(world.reconcile().await.dropped, 1);
    assert_eq!(world.catalog.unpublished().await.unwrap(), []);
}
