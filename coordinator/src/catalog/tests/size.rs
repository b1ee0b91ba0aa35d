//! What a chunk costs on disk.

use super::*;

/// 200,000 random ids, as an upload registers them: packs of 1,000, all held by one volume, and one in
/// ten by another that shares them. The whole file counts, with frames, packs and held.
#[tokio::test]
async fn a_chunk_costs_at_most_80_bytes() {
    const CHUNKS: u64 = 200_000;
    const PACK: u64 = 1_000;
    let (dir, catalog) = catalog().await;
    let (one, two) = (volume(&catalog, 1).await, volume(&catalog, 2).await);
    for pack in 0..CHUNKS / PACK {
        let chunks = pack * PACK..(pack + 1) * PACK;
        let held: Vec<ChunkId> = chunks.clone().map(chunk).collect();
        let shared = held.iter().step_by(10).copied().collect();
        catalog
            .register_pack(
                &pack_row(pack),
                &frames(chunks, 32),
                &[(one, held), (two, shared)],
            )
            .await
            .unwrap();
    }
    let everything: Vec<ChunkId> = (0..CHUNKS).map(chunk).collect();
    for chunks in everything.chunks(8192) {
        assert!(
            holds(&catalog, one, chunks)
                .await
                .into_iter()
                .all(|held| held)
        );
    }
    catalog.close().await.unwrap();
    let bytes = std::fs::metadata(dir.path().join(CATALOG_FILE))
        .unwrap()
        .len();
    let each = bytes as f64 / CHUNKS as f64;
    println!("{each:.1} bytes for each chunk");
    assert!(each <= 80.0, "{each:.1} bytes for each chunk");
}
