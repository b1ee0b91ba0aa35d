//! The bytes of a snapshot's files, in order, each chunk checked against its id before it is used.
//!
//! Entries come as a stream; their chunks are fetched in windows of bounded size, so that memory does
//! not depend on the size of a file or a tree.

use crate::failure::{Exit, Failure, Outcome};
use bytes::Bytes;
use holdfast_format::frame::{Frame, verify_chunks};
use holdfast_format::id::{ChunkId, SnapshotId};
use holdfast_format::path::escape;
use holdfast_format::seal::{IdKey, Ids};
use holdfast_proto::v1::{self, entry_part::Part, fetch_reply, restore_client::RestoreClient};
use std::collections::HashMap;
use tonic::transport::Channel;

/// Plain bytes of chunks fetched at a time.
const WINDOW_BYTES: u64 = 16 << 20;
/// Ids fetched at a time; the service's limit is 65,536.
const WINDOW_CHUNKS: usize = 16_384;
/// Messages of the service are at most this long.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A snapshot opened for reading.
pub struct Reader {
    client: RestoreClient<Channel>,
    snapshot: SnapshotId,
    ids: Ids,
}

/// An entry with all its extents (a long content's extents are read to their end).
pub struct FullEntry {
    /// The entry; `content.extents` is empty where `extents` holds them.
    pub entry: v1::Entry,
    /// Its extents.
    pub extents: Vec<v1::Extent>,
}

impl Reader {
    /// Opens a snapshot.
    pub async fn open(channel: Channel, snapshot: SnapshotId) -> Outcome<Self> {
        let mut client = RestoreClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let request = v1::OpenRequest {
            snapshot: snapshot.as_bytes().to_vec().into(),
        };
        let reply = client.open(request).await?.into_inner();
        let key = <[u8; 32]>::try_from(&reply.id_key[..])
            .map_err(|_| Failure::failed("the coordinator sent an id key of the wrong length"))?;
        let ids = IdKey::from_bytes(key).ids();
        Ok(Self {
            client,
            snapshot,
            ids,
        })
    }

    /// The entries at and below a path, in key order, given to `each` one at a time with this reader's
    /// `Fetcher`. Damage in the tree ends with `Exit::Damage` after everything readable was given.
    pub async fn entries(&mut self, path: &[u8]) -> Outcome<Entries> {
        let request = v1::EntriesRequest {
            snapshot: self.snapshot.as_bytes().to_vec().into(),
            path: path.to_vec().into(),
            without_content: false,
            children_only: false,
        };
        let stream = self.client.entries(request).await?.into_inner();
        Ok(Entries {
            stream,
            parts: Vec::new().into_iter(),
            damaged: Vec::new(),
        })
    }

    /// The bytes of these chunks. A damaged or missing chunk is `Exit::Damage`, named.
    pub async fn fetch(&mut self, chunks: Vec<ChunkId>) -> Outcome<HashMap<ChunkId, Bytes>> {
        let wanted: std::collections::HashSet<ChunkId> = chunks.iter().copied().collect();
        let mut found = HashMap::with_capacity(wanted.len());
        let request = v1::FetchRequest {
            snapshot: self.snapshot.as_bytes().to_vec().into(),
            chunks: wanted
                .iter()
                .map(|id| Bytes::copy_from_slice(id.as_bytes()))
                .collect(),
        };
        let mut stream = self.client.fetch(request).await?.into_inner();
        while let Some(reply) = stream.message().await? {
            match reply.body {
                Some(fetch_reply::Body::Frame(frame)) => {
                    let frame = Frame::try_from(frame)
                        .map_err(|e| Failure::with(Exit::Damage, e.to_string()))?;
                    let plain = frame
                        .open()
                        .map_err(|e| Failure::with(Exit::Damage, e.to_string()))?;
                    verify_chunks(&self.ids, &frame, &plain)
                        .map_err(|e| Failure::with(Exit::Damage, e.to_string()))?;
                    let mut at = 0usize;
                    for item in &frame.items {
                        let end = at + item.length as usize;
                        let id = ChunkId::from_bytes(item.id);
                        if wanted.contains(&id) {
                            found.insert(id, plain.slice(at..end));
                        }
                        at = end;
                    }
                }
                Some(fetch_reply::Body::Damaged(damaged)) => {
                    return Err(Failure::with(
                        Exit::Damage,
                        format!(
                            "{} ({}): {} chunks cannot be read",
                            damaged.detail,
                            damaged.reason,
                            damaged.chunks.len()
                        ),
                    ));
                }
                None => {}
            }
        }
        match wanted.iter().find(|id| !found.contains_key(*id)) {
            Some(missing) => Err(Failure::with(
                Exit::Damage,
                format!("chunk {missing} was not sent"),
            )),
            None => Ok(found),
        }
    }

    /// Gives a file's bytes to `each` in order; holes as `Err(length)`.
    pub async fn copy(
        &mut self,
        file: &FullEntry,
        mut each: impl FnMut(Result<&[u8], u64>) -> std::io::Result<()>,
    ) -> Outcome<()> {
        if let Some(v1::content::Body::Inline(bytes)) =
            file.entry.content.as_ref().and_then(|c| c.body.as_ref())
        {
            return Ok(each(Ok(bytes))?);
        }
        let mut rest = &file.extents[..];
        while !rest.is_empty() {
            let mut sum = 0;
            let count = rest
                .iter()
                .take(WINDOW_CHUNKS)
                .take_while(|e| {
                    let fits = sum < WINDOW_BYTES;
                    sum += if e.chunk.is_empty() { 0 } else { e.length };
                    fits
                })
                .count();
            let (window, after) = rest.split_at(count);
            let ids = chunk_ids(window)?;
            let chunks = if ids.is_empty() {
                HashMap::new()
            } else {
                self.fetch(ids).await?
            };
            for extent in window {
                if extent.chunk.is_empty() {
                    each(Err(extent.length))?;
                    continue;
                }
                let id = chunk_id(extent)?;
                match chunks.get(&id) {
                    Some(bytes) if bytes.len() as u64 == extent.length => each(Ok(bytes))?,
                    _ => {
                        return Err(Failure::with(
                            Exit::Damage,
                            format!("chunk {id} has another length than its entry says"),
                        ));
                    }
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// The value of an xattr, fetched where it lies in chunks.
    pub async fn xattr(&mut self, xattr: &v1::Xattr) -> Outcome<Bytes> {
        if xattr.chunks.is_empty() {
            return Ok(xattr.value.clone());
        }
        let chunks = self.fetch(chunk_ids(&xattr.chunks)?).await?;
        let mut value = Vec::new();
        for extent in &xattr.chunks {
            value.extend_from_slice(chunks.get(&chunk_id(extent)?).map_or(&[][..], |b| b));
        }
        Ok(value.into())
    }
}

fn chunk_id(extent: &v1::Extent) -> Outcome<ChunkId> {
    ChunkId::try_from(&extent.chunk[..]).map_err(|e| Failure::failed(e.to_string()))
}

fn chunk_ids(extents: &[v1::Extent]) -> Outcome<Vec<ChunkId>> {
    extents
        .iter()
        .filter(|e| !e.chunk.is_empty())
        .map(chunk_id)
        .collect()
}

/// A stream of entries.
pub struct Entries {
    stream: tonic::Streaming<v1::EntriesReply>,
    parts: std::vec::IntoIter<v1::EntryPart>,
    damaged: Vec<v1::Problem>,
}

impl Entries {
    async fn part(&mut self) -> Outcome<Option<Part>> {
        loop {
            if let Some(part) = self.parts.next() {
                if let Some(part) = part.part {
                    return Ok(Some(part));
                }
                continue;
            }
            match self.stream.message().await? {
                Some(reply) => self.parts = reply.parts.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// The next entry, or `None` at the end.
    pub async fn next(&mut self) -> Outcome<Option<FullEntry>> {
        let mut entry = loop {
            match self.part().await? {
                None => return Ok(None),
                Some(Part::Entry(entry)) => break entry,
                Some(Part::Damaged(problem)) => self.damaged.push(problem),
                Some(_) => return Err(Failure::failed("extents without an entry")),
            }
        };
        let mut extents = match entry.content.as_mut().and_then(|c| c.body.as_mut()) {
            Some(v1::content::Body::Extents(e)) => std::mem::take(&mut e.extents),
            _ => Vec::new(),
        };
        if entry.more_extents {
            self.rest_of(&mut extents).await?;
        }
        if holds_bytes(&entry, &extents) {
            Ok(Some(FullEntry { entry, extents }))
        } else {
            Err(Failure::with(
                Exit::Damage,
                format!(
                    "{}: the list of its chunks cannot be read",
                    escape(&entry.path)
                ),
            ))
        }
    }

    /// The extents that follow their entry in messages of their own.
    async fn rest_of(&mut self, extents: &mut Vec<v1::Extent>) -> Outcome<()> {
        loop {
            match self.part().await? {
                Some(Part::More(more)) => extents.extend(more.extents),
                Some(Part::EndOfExtents(_)) => return Ok(()),
                Some(Part::Damaged(problem)) => {
                    self.damaged.push(problem);
                    extents.clear();
                    return Ok(());
                }
                _ => return Err(Failure::failed("an entry's extents end too early")),
            }
        }
    }

    /// What could not be read; to be asked at the end.
    pub fn damage(&self) -> Outcome<()> {
        match self.damaged.first() {
            None => Ok(()),
            Some(first) => Err(Failure::with(
                Exit::Damage,
                format!(
                    "{} places of the tree cannot be read, first {}: {} ({})",
                    self.damaged.len(),
                    escape(&first.path),
                    first.detail,
                    first.reason
                ),
            )),
        }
    }
}

/// Whether the extents (or inline bytes) that came with a file make up its size.
fn holds_bytes(entry: &v1::Entry, extents: &[v1::Extent]) -> bool {
    if entry.kind != v1::Kind::File as i32 {
        return true;
    }
    let inline = match entry.content.as_ref().and_then(|c| c.body.as_ref()) {
        Some(v1::content::Body::Inline(bytes)) => bytes.len() as u64,
        _ => 0,
    };
    let extents = extents
        .iter()
        .try_fold(0u64, |sum, e| sum.checked_add(e.length));
    extents.and_then(|e| e.checked_add(inline)) == Some(entry.size)
}
