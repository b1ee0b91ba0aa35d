//! Reading a snapshot back as a restore does.

use super::Bench;
use bytes::Bytes;
use holdfast_format::frame::Frame;
use holdfast_format::keys::IdKey;
use holdfast_proto::v1 as proto;
use std::collections::BTreeMap;

/// Every file of a snapshot with its bytes, read through `Entries` and `Fetch`.
pub async fn read_back(bench: &Bench, snapshot: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (entries, damaged) = read_entries(bench, snapshot, "").await;
    assert!(damaged.is_empty(), "{damaged:?}");
    let wanted: Vec<Bytes> = entries
        .iter()
        .flat_map(|(_, extents)| extents.iter().map(|e| e.chunk.clone()))
        .filter(|id| !id.is_empty())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let (chunks, damaged) = fetch(bench, snapshot, wanted).await;
    assert!(damaged.is_empty(), "{damaged:?}");
    let mut out = BTreeMap::new();
    for (entry, extents) in entries {
        let path = String::from_utf8(entry.path.to_vec()).unwrap();
        let mut bytes = Vec::new();
        if let Some(proto::Content {
            body: Some(proto::content::Body::Inline(inline)),
        }) = &entry.content
        {
            bytes.extend_from_slice(inline);
        }
        for extent in &extents {
            match extent.chunk.is_empty() {
                true => bytes.resize(bytes.len() + extent.length as usize, 0),
                false => bytes.extend_from_slice(&chunks[&extent.chunk]),
            }
        }
        assert_eq!(bytes.len() as u64, entry.size, "{path}");
        out.insert(path, bytes);
    }
    out
}

/// Entries with all their extents, and what was damaged.
pub async fn read_entries(
    bench: &Bench,
    snapshot: &[u8],
    path: &str,
) -> (Vec<(proto::Entry, Vec<proto::Extent>)>, Vec<proto::Problem>) {
    use proto::entry_part::Part;
    let request = proto::EntriesRequest {
        snapshot: Bytes::copy_from_slice(snapshot),
        path: Bytes::copy_from_slice(path.as_bytes()),
        ..Default::default()
    };
    let mut replies = bench.restore().entries(request).await.unwrap().into_inner();
    let mut entries: Vec<(proto::Entry, Vec<proto::Extent>)> = Vec::new();
    let mut damaged = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        for part in reply.parts {
            match part.part.unwrap() {
                Part::Entry(entry) => {
                    let extents = match &entry.content {
                        Some(proto::Content {
                            body: Some(proto::content::Body::Extents(e)),
                        }) => e.extents.clone(),
                        _ => Vec::new(),
                    };
                    entries.push((entry, extents));
                }
                Part::More(more) => entries.last_mut().unwrap().1.extend(more.extents),
                Part::EndOfExtents(_) => {}
                Part::Damaged(problem) => damaged.push(problem),
            }
        }
    }
    (entries, damaged)
}

/// Chunks by id, each checked against the id key, and what was damaged.
pub async fn fetch(
    bench: &Bench,
    snapshot: &[u8],
    chunks: Vec<Bytes>,
) -> (BTreeMap<Bytes, Vec<u8>>, Vec<proto::DamagedChunks>) {
    let open = proto::OpenRequest {
        snapshot: Bytes::copy_from_slice(snapshot),
    };
    let opened = bench.restore().open(open).await.unwrap().into_inner();
    let ids = IdKey::from_bytes(opened.id_key.as_ref().try_into().unwrap()).ids();
    let request = proto::FetchRequest {
        snapshot: Bytes::copy_from_slice(snapshot),
        chunks,
    };
    let mut replies = bench.restore().fetch(request).await.unwrap().into_inner();
    let (mut found, mut damaged) = (BTreeMap::new(), Vec::new());
    while let Some(reply) = replies.message().await.unwrap() {
        match reply.body.unwrap() {
            proto::fetch_reply::Body::Frame(frame) => {
                let frame = Frame::try_from(frame).unwrap();
                let plain = frame.open().unwrap();
                holdfast_format::frame::verify_chunks(&ids, &frame, &plain).unwrap();
                for (id, bytes) in frame.slices(&plain) {
                    found.insert(Bytes::copy_from_slice(&id), bytes.to_vec());
                }
            }
            proto::fetch_reply::Body::Damaged(found) => damaged.push(found),
        }
    }
    (found, damaged)
}
