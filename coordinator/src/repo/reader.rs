//! Reading packs: frames by coalesced bounded ranges, footers by listed size, small reads through caches.
//!
//! Every frame's fate is its own: a damaged one is an error that names its pack and leaves the others
//! whole. What comes back is what was sealed; that chunks and nodes have their ids is for the caller to
//! check, which knows the ids.

use crate::repo::Repository;
use crate::repo::cache::{DiskCache, FrameCache};
use crate::repo::error::{RepoError, Result};
use crate::repo::store::Store;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use holdfast_format::frame::{Codec, open_payload};
use holdfast_format::id::PackId;
use holdfast_format::names::ObjectName;
use holdfast_format::pack::{
    PackFrame, Trailer, open_footer, open_pack, trailer_bytes, unseal_frame,
};
use holdfast_format::seal::{DomainKeys, Header, KeyMaterial, KeyRef, Opener};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Unwanted bytes between two frames that are read rather than asked around: about what a request costs.
const MAX_GAP_BYTES: u64 = 256 * 1024;
/// Most bytes of one request, and so of the memory of a read.
const MAX_READ_BYTES: u64 = 8 * 1024 * 1024;
/// What is read of a pack's end at once: holds the footer of a usual pack.
const TAIL_BYTES: u64 = 128 * 1024;

/// Where a frame lies, and what opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameAddress {
    /// Its pack.
    pub pack: PackId,
    /// The pack's header.
    pub header: Header,
    /// Its number.
    pub frame_no: u32,
    /// Its offset in the pack, in bytes.
    pub offset: u64,
    /// Its bytes as stored.
    pub stored_length: u32,
}

impl FrameAddress {
    /// The address of a frame that a footer lists.
    pub fn of(pack: PackId, header: Header, frame: &PackFrame) -> Self {
        Self {
            pack,
            header,
            frame_no: frame.frame_no,
            offset: frame.offset,
            stored_length: frame.stored_length,
        }
    }

    fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.stored_length)
    }

    fn name(&self) -> ObjectName {
        ObjectName::Pack(self.pack)
    }

    /// Its stored bytes in a range that starts at `start` and holds it.
    fn within(&self, bytes: &Bytes, start: u64) -> Bytes {
        let from = (self.offset - start) as usize;
        bytes.slice(from..from + self.stored_length as usize)
    }

    fn damaged(&self, detail: impl ToString) -> RepoError {
        RepoError::ObjectDamaged {
            name: self.name().to_string(),
            detail: format!("frame {}: {}", self.frame_no, detail.to_string()),
        }
    }
}

/// A frame as it was before it was sealed: may be sent on as it is, or opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredFrame {
    /// How the payload is coded.
    pub codec: Codec,
    /// Bytes of the frame when it is opened.
    pub plain_length: u32,
    /// The coded bytes.
    pub payload: Bytes,
}

impl StoredFrame {
    /// The plain bytes.
    pub fn open(&self) -> Result<Bytes> {
        Ok(open_payload(self.codec, self.plain_length, &self.payload)?)
    }
}

/// What a pack's footer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackContents {
    /// The pack.
    pub id: PackId,
    /// Its header.
    pub header: Header,
    /// Its bytes.
    pub size: u64,
    /// Its frames.
    pub frames: Vec<PackFrame>,
}

/// Reads packs. Cheap to clone; all methods may be called at the same time.
#[derive(Clone, Debug)]
pub struct Reader {
    repository: Repository,
    memory: Arc<FrameCache>,
    disk: Option<Arc<DiskCache>>,
}

impl Reader {
    /// A reader with a memory cache of this many bytes of opened frames, and a disk cache for sealed
    /// frames of trees.
    pub fn new(repository: Repository, memory_bytes: usize, disk: Option<DiskCache>) -> Self {
        Self {
            repository,
            memory: Arc::new(FrameCache::new(memory_bytes)),
            disk: disk.map(Arc::new),
        }
    }

    fn store(&self) -> &Store {
        self.repository.store()
    }

    /// Reads frames and hands each on with its index in `wanted`; an error of `each` ends the reading.
    pub async fn read_frames<E, F>(
        &self,
        wanted: &[FrameAddress],
        mut each: impl FnMut(usize, Result<StoredFrame>) -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<(), E>>,
    {
        let mut frames = self.frames(wanted.to_vec());
        while let Some((index, frame)) = frames.next().await {
            each(index, frame).await?;
        }
        Ok(())
    }

    /// Frames, each with its index in `wanted`, by pack in the order of the first frame of each, then by
    /// offset. At most two ranges are in memory.
    pub fn frames(
        &self,
        wanted: Vec<FrameAddress>,
    ) -> BoxStream<'static, (usize, Result<StoredFrame>)> {
        let reads = coalesce(&wanted);
        let wanted: Arc<[FrameAddress]> = wanted.into();
        let reader = self.clone();
        futures::stream::iter(reads)
            .map(move |read| {
                let (reader, wanted) = (reader.clone(), wanted.clone());
                async move { reader.read_range(&wanted, read).await }
            })
            .buffered(2)
            .flat_map(futures::stream::iter)
            .boxed()
    }

    async fn read_range(
        &self,
        wanted: &[FrameAddress],
        read: RangeRead,
    ) -> Vec<(usize, Result<StoredFrame>)> {
        let mut frames = Vec::with_capacity(read.frames.len());
        let name = wanted[read.frames[0]].name();
        let fetched = self.store().get_range(&name, read.range.clone()).await;
        for &index in &read.frames {
            let address = &wanted[index];
            let stored = match &fetched {
                Ok(bytes) => Ok(address.within(bytes, read.range.start)),
                // The frames before the end may be whole.
                Err(RepoError::ObjectTruncated { .. }) => self.stored(address).await,
                Err(error) => Err(repeated(error, &name)),
            };
            let frame = match stored {
                Ok(stored) => self.unseal(address, &stored).await,
                Err(error) => Err(error),
            };
            frames.push((index, frame));
        }
        frames
    }

    async fn stored(&self, address: &FrameAddress) -> Result<Bytes> {
        self.store()
            .get_range(&address.name(), address.range())
            .await
    }

    /// One frame's plain bytes, through the memory cache; for nodes and single chunks.
    pub async fn frame(&self, address: &FrameAddress) -> Result<Bytes> {
        if let Some(plain) = self.memory.get(address.pack, address.frame_no) {
            return Ok(plain);
        }
        let stored = self.stored(address).await?;
        self.remember(address, &stored).await
    }

    /// One frame of a tree: through the memory cache, then the disk cache, then the store. Where the
    /// store is a directory, it is read on the calling thread, which must be one that may block.
    pub async fn tree_frame(&self, address: &FrameAddress) -> Result<Bytes> {
        if let Some(plain) = self.memory.get(address.pack, address.frame_no) {
            return Ok(plain);
        }
        if let Some(plain) = self.copy_on_disk(address).await {
            return Ok(plain);
        }
        let stored = match self.store().read_here(&address.name(), &address.range()) {
            Some(stored) => stored,
            None => self.stored(address).await?,
        };
        let plain = self.remember(address, &stored).await?;
        // Only what has opened is kept.
        self.keep_on_disk(address, stored).await;
        Ok(plain)
    }

    /// Brings frames of trees into the caches by few large reads: before many nodes of one pack are
    /// read. Failures are left to the read that needs the frame. A directory is as well read later.
    pub async fn prefetch_tree(&self, wanted: &[FrameAddress]) {
        if self.store().is_directory() {
            return;
        }
        let mut absent = Vec::new();
        for address in wanted {
            let known = self.memory.get(address.pack, address.frame_no).is_some();
            if !known && self.copy_on_disk(address).await.is_none() {
                absent.push(*address);
            }
        }
        for read in coalesce(&absent) {
            let name = absent[read.frames[0]].name();
            let Ok(bytes) = self.store().get_range(&name, read.range.clone()).await else {
                continue;
            };
            for &index in &read.frames {
                let address = &absent[index];
                let stored = address.within(&bytes, read.range.start);
                if self.remember(address, &stored).await.is_ok() {
                    self.keep_on_disk(address, stored).await;
                }
            }
        }
    }

    /// An item of a frame's plain bytes.
    pub fn item(address: &FrameAddress, plain: &Bytes, offset: u32, length: u32) -> Result<Bytes> {
        let end = (offset as usize).checked_add(length as usize);
        match end.filter(|end| *end <= plain.len()) {
            Some(end) => Ok(plain.slice(offset as usize..end)),
            None => Err(address.damaged("it is shorter than the catalog says")),
        }
    }

    /// What a pack of this listed size holds: one read of its end in the usual case, two where the
    /// footer is large.
    pub async fn footer(&self, id: PackId, size: u64) -> Result<PackContents> {
        let name = ObjectName::Pack(id);
        let damaged = |error| RepoError::of_object(name, error);
        let trailer_bytes = trailer_bytes() as u64;
        if size < trailer_bytes {
            return Err(RepoError::ObjectTruncated {
                name: name.to_string(),
                expected: trailer_bytes,
                found: size,
            });
        }
        let start = size.saturating_sub(TAIL_BYTES);
        let tail = self.store().get_range(&name, start..size).await?;
        let trailer =
            Trailer::decode(&tail[tail.len() - trailer_bytes as usize..]).map_err(damaged)?;
        let range = trailer.footer_range(size).map_err(damaged)?;
        let footer = if range.start >= start {
            tail.slice((range.start - start) as usize..(range.end - start) as usize)
        } else {
            self.store().get_range(&name, range).await?
        };
        let repository = self.repository.id();
        let (keys, master) = self.master(name, &trailer.header).await?;
        let key = keys.master(master).map(KeyMaterial::Master);
        let key = key.ok_or_else(|| unknown_key(name, &trailer.header))?;
        let frames = open_footer(&repository, key, &trailer, &footer).map_err(damaged)?;
        Ok(PackContents {
            id,
            header: trailer.header,
            size,
            frames,
        })
    }

    /// The whole of a pack, its name and every frame checked; for verifying.
    pub async fn whole(&self, id: PackId) -> Result<PackContents> {
        let name = ObjectName::Pack(id);
        let stored = self.store().get(&name).await?;
        let damaged = |error| RepoError::of_object(name, error);
        let header = Header::decode(&stored).map_err(damaged)?;
        let (keys, master) = self.master(name, &header).await?;
        let repository = self.repository.id();
        let key_for = |_: &KeyRef| keys.master(master).map(KeyMaterial::Master);
        let (header, frames) = open_pack(&repository, &id, key_for, &stored).map_err(damaged)?;
        Ok(PackContents {
            id,
            header,
            size: stored.len() as u64,
            frames,
        })
    }

    /// Seal and codec of a frame, off the caches.
    async fn unseal(&self, address: &FrameAddress, stored: &Bytes) -> Result<StoredFrame> {
        let (keys, master) = self.master(address.name(), &address.header).await?;
        let master = keys
            .master(master)
            .ok_or_else(|| unknown_key(address.name(), &address.header))?;
        let key = KeyMaterial::Master(master);
        let opener = Opener::new(&self.repository.id(), &address.header, key);
        let (codec, plain_length, payload) = unseal_frame(&opener, address.frame_no, stored)
            .map_err(|error| address.damaged(error))?;
        Ok(StoredFrame {
            codec,
            plain_length,
            payload,
        })
    }

    /// Opens a frame and keeps it in memory.
    async fn remember(&self, address: &FrameAddress, stored: &Bytes) -> Result<Bytes> {
        let frame = self.unseal(address, stored).await?;
        let plain = frame.open().map_err(|error| address.damaged(error))?;
        self.memory
            .put(address.pack, address.frame_no, plain.clone());
        Ok(plain)
    }

    async fn copy_on_disk(&self, address: &FrameAddress) -> Option<Bytes> {
        let disk = self.disk.clone()?;
        let (pack, frame_no) = (address.pack, address.frame_no);
        let read = tokio::task::spawn_blocking(move || disk.get(pack, frame_no)).await;
        // What does not open was damaged on this disk: as good as absent.
        self.remember(address, &read.ok()??).await.ok()
    }

    async fn keep_on_disk(&self, address: &FrameAddress, stored: Bytes) {
        if let Some(disk) = self.disk.clone() {
            let (pack, frame_no) = (address.pack, address.frame_no);
            let kept = tokio::task::spawn_blocking(move || disk.put(pack, frame_no, &stored));
            // A cache that cannot be written is no reason to fail.
            let _ = kept.await;
        }
    }

    /// The keys and the number of the master that seals a pack.
    async fn master(&self, name: ObjectName, header: &Header) -> Result<(Arc<DomainKeys>, u32)> {
        match header.key {
            KeyRef::Domain {
                domain,
                generation,
                master,
            } => {
                let keys = self.repository.domain_keys(&domain, generation).await?;
                Ok((keys, master))
            }
            KeyRef::Kek => Err(unknown_key(name, header)),
        }
    }
}

fn unknown_key(name: ObjectName, header: &Header) -> RepoError {
    RepoError::ObjectDamaged {
        name: name.to_string(),
        detail: format!("it is sealed with {}, which is not known", header.key),
    }
}

/// The error of a range, for each frame in it.
fn repeated(error: &RepoError, name: &ObjectName) -> RepoError {
    let name = name.to_string();
    match error {
        RepoError::ObjectMissing { .. } => RepoError::ObjectMissing { name },
        RepoError::ObjectDamaged { detail, .. } => RepoError::ObjectDamaged {
            name,
            detail: detail.clone(),
        },
        error => RepoError::StoreUnavailable {
            doing: format!("read {name}"),
            source: with_causes(error).into(),
        },
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// One request to the store: indices of frames of one pack, by offset.
#[derive(Clone, PartialEq, Eq, Debug)]
struct RangeRead {
    range: Range<u64>,
    frames: Vec<usize>,
}

/// Joins frames of a pack whose gap is not worth a request, up to a bound.
fn coalesce(wanted: &[FrameAddress]) -> Vec<RangeRead> {
    let mut first_seen: BTreeMap<PackId, usize> = BTreeMap::new();
    for (index, address) in wanted.iter().enumerate() {
        first_seen.entry(address.pack).or_insert(index);
    }
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|index| {
        let address = &wanted[*index];
        (first_seen[&address.pack], address.offset)
    });
    let mut reads: Vec<RangeRead> = Vec::new();
    for index in order {
        let range = wanted[index].range();
        if let Some(last) = reads.last_mut() {
            let same = wanted[last.frames[0]].pack == wanted[index].pack;
            let near = range.start <= last.range.end.saturating_add(MAX_GAP_BYTES);
            let end = last.range.end.max(range.end);
            if same && near && end - last.range.start <= MAX_READ_BYTES {
                last.range.end = end;
                last.frames.push(index);
                continue;
            }
        }
        reads.push(RangeRead {
            range,
            frames: vec![index],
        });
    }
    reads
}

#[cfg(test)]
mod tests;
