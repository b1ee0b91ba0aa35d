//! A store with a catalog beside it, and backups as sessions make them.

use super::super::*;
use crate::catalog::{BeginSession, PackRow, PackState, Reservation, VolumeNo};
use crate::repo::kek::generate;
use crate::repo::reader::{PackContents, Reader};
use crate::repo::rebuild::rebuild;
use crate::repo::testing::quick;
use crate::repo::{CreateOptions, Domain, Store, current};
use holdfast_format::deletion::DeletionRecord;
use holdfast_format::frame::FrameBuilder;
use holdfast_format::id::{
    CatalogId, ChunkId, IdempotencyKey, NodeId, PackId, RepositoryId, SessionId,
};
use holdfast_format::pack::{ItemKind, PackBuilder};
use holdfast_format::seal::ObjectKind;
use holdfast_format::snapshot::Snapshot;
use holdfast_format::stats::Stats;
use holdfast_format::volume::VolumeFacts;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

pub const NOW: i64 = 1_900_000_000_000_000_000;
pub const REPOSITORY: RepositoryId = RepositoryId::from_bytes([6; 16]);
pub const CATALOG: CatalogId = CatalogId::from_bytes([7; 16]);

pub fn silent(_: Step) {}

pub struct World {
    pub _store_dir: TempDir,
    pub state: TempDir,
    pub repository: Repository,
    pub domain: Domain,
    pub catalog: Catalog,
    pub backups: u8,
}

impl World {
    pub async fn new() -> Self {
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

    pub fn store_file(&self, name: &ObjectName) -> std::path::PathBuf {
        self._store_dir.path().join(name.to_string())
    }

    pub async fn put_pack(&self, seed: u8, texts: &[String]) -> (PackContents, Vec<ChunkId>) {
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

    pub async fn register(&self, contents: &PackContents, held: &[(VolumeNo, Vec<ChunkId>)]) {
        let row = PackRow::of(contents.id, &contents.header, contents.size, NOW).unwrap();
        self.catalog
            .register_pack(&row, &contents.frames, held)
            .await
            .unwrap();
    }

    /// One backup of a volume as a session makes it, up to `until`.
    pub async fn backup(&mut self, volume: u8, until: Until) -> (PackId, Reservation) {
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
            lease: Duration::from_secs(60),
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
            signals: None,
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

    pub async fn delete(&self, number: u64, packs: &[PackId], apply: bool) {
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

    pub async fn forget(&self, reservation: &Reservation, volume: u8) {
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
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for name in ["catalog.db", "catalog.db-wal"] {
            std::fs::copy(self.state.path().join(name), copy.path().join(name)).unwrap();
        }
        copy
    }

    pub async fn reconcile(&self) -> Reconciled {
        reconcile(&self.catalog, &self.repository, NOW, &silent)
            .await
            .unwrap()
    }

    pub async fn rebuild(&self, dir: &Path) -> (Catalog, Reconciled) {
        rebuild(&self.repository, dir, CATALOG, NOW, &silent)
            .await
            .unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    Reserved,
    Put,
    Published,
}

/// Everything that a catalog says of its store, in an order of its own. Every chunk of every live pack
/// is located; where a chunk is in two packs, either will do.
#[derive(PartialEq, Debug)]
pub struct Listing {
    pub packs: BTreeMap<PackId, (PackState, u64, u64)>,
    pub chunks: BTreeSet<[u8; 32]>,
    pub snapshots: Vec<SnapshotRow>,
    pub volumes: Vec<(VolumeId, String, u64)>,
    pub domains: Vec<DomainRow>,
    pub marks: Vec<MarkRow>,
}

pub async fn listing(world: &World, catalog: &Catalog) -> Listing {
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
