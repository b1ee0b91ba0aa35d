//! The catalog's promises, tested through its own methods only.

mod chunks;
mod commits;
mod crash;
mod opening;
mod sessions;
mod size;

use crate::catalog::*;
use holdfast_format::frame::Codec;
use holdfast_format::id::*;
use holdfast_format::pack::{ItemKind, PackFrame, PackItem};
use holdfast_format::seal::ObjectKind;
use holdfast_format::volume::VolumeFacts;
use std::time::Duration;
use tempfile::TempDir;

pub const REPOSITORY: RepositoryId = RepositoryId::from_bytes([7; 16]);
pub const CATALOG: CatalogId = CatalogId::from_bytes([8; 16]);
pub const DOMAIN: DomainId = DomainId::from_bytes([9; 16]);
pub const SECOND: i64 = 1_000_000_000;

pub async fn catalog() -> (TempDir, Catalog) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::create(dir.path(), &REPOSITORY, CATALOG)
        .await
        .unwrap();
    (dir, catalog)
}

/// A 32-byte value that is another one for every number.
pub fn id(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

pub fn chunk(number: u64) -> ChunkId {
    ChunkId::from_bytes(id(number))
}

pub fn pack_row(number: u64) -> PackRow {
    PackRow {
        id: PackId::from_bytes(id(u64::MAX - number)),
        kind: ObjectKind::DataPack,
        domain: DOMAIN,
        generation: 1,
        master: 1,
        salt: [number as u8; 32],
        size: 1_000_000 + number,
        received_ns: 5,
    }
}

/// Frames of a pack with these chunks, `per_frame` to each.
pub fn frames(chunks: impl IntoIterator<Item = u64>, per_frame: usize) -> Vec<PackFrame> {
    let chunks: Vec<u64> = chunks.into_iter().collect();
    let frame = |(frame_no, chunks): (usize, &[u64])| PackFrame {
        frame_no: frame_no as u32,
        offset: 64 + frame_no as u64 * 700_000,
        stored_length: 600_000,
        codec: Codec::Zstd,
        plain_length: chunks.len() as u32 * 32_768,
        items: (0..)
            .zip(chunks)
            .map(|(index, number)| PackItem {
                kind: ItemKind::Chunk,
                id: id(*number),
                offset_in_frame: index * 32_768,
                length: 32_768,
            })
            .collect(),
    };
    chunks.chunks(per_frame).enumerate().map(frame).collect()
}

pub async fn volume(catalog: &Catalog, number: u8) -> VolumeNo {
    let row = VolumeRow {
        id: VolumeId::from_bytes([number; 16]),
        domain: DOMAIN,
        facts: VolumeFacts::named(format!("volume-{number}").parse().unwrap()),
        bound_ns: 1,
    };
    catalog.bind_volume(&row).await.unwrap()
}

pub async fn register(catalog: &Catalog, pack: u64, chunks: std::ops::Range<u64>) -> Registered {
    let frames = frames(chunks, 32);
    catalog
        .register_pack(&pack_row(pack), &frames, &[])
        .await
        .unwrap()
}

/// How long leases last in these tests.
pub const LEASE: Duration = Duration::from_secs(60);

pub fn begin_session(volume: VolumeNo, key: u8, now_ns: i64) -> BeginSession {
    BeginSession {
        id: SessionId::from_bytes(
            *self::id(now_ns as u64 * 1000 + u64::from(key))
                .first_chunk()
                .unwrap(),
        ),
        key: IdempotencyKey::from_bytes([key; 16]),
        volume,
        node: "node".into(),
        parent: None,
        lease: LEASE,
        now_ns,
    }
}

pub fn reservation(begun: &Begun, volume: VolumeNo, key: u8, sequence: u64) -> Reservation {
    let snapshot = SnapshotId::from_bytes(id(1 << 40 | u64::from(key)));
    Reservation {
        key: IdempotencyKey::from_bytes([key; 16]),
        session: begun.session,
        volume,
        snapshot,
        sequence,
        root: NodeId::from_bytes([1; 32]),
        problems_root: None,
        object: format!("snapshots/{snapshot}"),
        record: format!("sealed {key}").into(),
        reserved_ns: 3,
    }
}

pub fn snapshot_row(reservation: &Reservation, volume: VolumeId) -> SnapshotRow {
    SnapshotRow {
        id: reservation.snapshot,
        volume,
        sequence: reservation.sequence,
        started_ns: 1,
        received_ns: 2 + reservation.sequence as i64,
        parent: None,
        root: reservation.root,
        problems_root: None,
        run_key: reservation.key,
        problem_count: 0,
        stored_bytes: reservation.record.len() as u64,
        record: format!("plain {}", reservation.snapshot).into(),
        suspicious: false,
        acknowledged: None,
    }
}

/// Whether the volume holds each of these chunks.
pub async fn holds(catalog: &Catalog, volume: VolumeNo, ids: &[ChunkId]) -> Vec<bool> {
    let held = catalog.held(volume, ids).await.unwrap();
    held.iter().map(Option::is_some).collect()
}

/// Moves the pack's state as a prune would.
pub async fn set_state(catalog: &Catalog, pack: PackNo, to: PackState) {
    let all = [
        PackState::Live,
        PackState::Condemned,
        PackState::Deleting,
        PackState::Missing,
    ];
    let mut guard = catalog.writer.lock().await;
    let conn = guard.as_mut().unwrap();
    let changed = super::packs::change_state(conn, &[pack], &all, to)
        .await
        .unwrap();
    assert_eq!(changed, 1);
}

/// Stamps of ids, read from the table.
pub async fn stamps(catalog: &Catalog, ids: &[[u8; 32]]) -> Vec<i64> {
    let mut conn = catalog.readers.acquire().await.unwrap();
    let known = super::lookup::known(&mut conn, ids).await.unwrap();
    ids.iter().map(|id| known[id].stamp).collect()
}
