//! A Restore service that serves entries and chunks from memory, over an in-process duplex; and a
//! small scanner that makes them from a directory, independent of the agent's.

use bytes::Bytes;
use holdfast_format::entry::{Content, Entry, Extent, Kind, Xattr, XattrValue};
use holdfast_format::frame::FrameBuilder;
use holdfast_format::id::ChunkId;
use holdfast_format::keys::{IdKey, Ids};
use holdfast_format::path::RelPath;
use holdfast_format::wire::{entry_to_wire, long_entry_to_wire, more_to_wire};
use holdfast_proto::v1 as proto;
use proto::entry_part::Part;
use proto::restore_server::{Restore, RestoreServer};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

pub const INLINE_LIMIT: u64 = 2048;
const CHUNK_BYTES: usize = 16 * 1024;

/// What the service serves; changed by tests before it is used.
#[derive(Clone)]
pub struct Fake {
    pub ids: Ids,
    pub parts: Vec<proto::EntryPart>,
    pub chunks: HashMap<ChunkId, Vec<u8>>,
    /// Reported as damaged.
    pub damaged: HashSet<ChunkId>,
    /// Sent with other bytes than their own.
    pub wrong: HashSet<ChunkId>,
    /// Asked for and never answered.
    pub silent: HashSet<ChunkId>,
    /// The fetch stream breaks off with `Unavailable` after so many frames, so many times.
    pub breaks: Arc<Mutex<(usize, usize)>>,
    /// Every id that was asked for.
    pub asked: Arc<Mutex<Vec<ChunkId>>>,
}

impl Fake {
    pub fn empty() -> Self {
        Self {
            ids: IdKey::from_bytes([7; 32]).ids(),
            parts: Vec::new(),
            chunks: HashMap::new(),
            damaged: HashSet::new(),
            wrong: HashSet::new(),
            silent: HashSet::new(),
            breaks: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// Everything below a directory.
    pub fn of(dir: &Path) -> Self {
        let mut fake = Self::empty();
        let mut found = BTreeMap::new();
        collect(dir, &RelPath::root(), &mut found);
        let mut groups: HashMap<(u64, u64), RelPath> = HashMap::new();
        for (path, place) in found {
            let meta = std::fs::symlink_metadata(&place).unwrap();
            let mut entry = fake.entry(&place, &meta);
            if meta.nlink() > 1 && !meta.is_dir() {
                let first = groups
                    .entry((meta.dev(), meta.ino()))
                    .or_insert(path.clone());
                entry.hardlink = (*first != path).then(|| first.clone());
            }
            fake.push(&path, entry, &place);
        }
        fake
    }

    fn entry(&mut self, place: &Path, meta: &std::fs::Metadata) -> Entry {
        let kind = match meta.file_type() {
            t if t.is_file() => Kind::File,
            t if t.is_dir() => Kind::Directory,
            t if t.is_symlink() => Kind::Symlink,
            t if t.is_fifo() => Kind::Fifo,
            t if t.is_socket() => Kind::Socket,
            t if t.is_char_device() => Kind::CharDevice,
            _ => Kind::BlockDevice,
        };
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let target = match kind {
            Kind::Symlink => std::fs::read_link(place)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
            _ => Vec::new(),
        };
        Entry {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            size: if kind == Kind::File { meta.len() } else { 0 },
            xattrs: if kind == Kind::Symlink {
                Vec::new()
            } else {
                self.xattrs(place)
            },
            target: target.into(),
            rdev: if device { meta.rdev() } else { 0 },
            content: Content::Empty,
            hardlink: None,
        }
    }

    fn xattrs(&mut self, place: &Path) -> Vec<Xattr> {
        super::oracle::xattrs(place)
            .into_iter()
            .map(|(name, value)| Xattr {
                name: name.into(),
                value: if value.len() > 4096 {
                    XattrValue::Chunks(value.chunks(10_000).map(|c| self.chunk(c)).collect())
                } else {
                    XattrValue::Inline(value.into())
                },
            })
            .collect()
    }

    /// Stores a chunk.
    pub fn chunk(&mut self, bytes: &[u8]) -> Extent {
        let id = self.ids.chunk(bytes);
        self.chunks.insert(id, bytes.to_vec());
        let length = bytes.len() as u32;
        Extent::Chunk { id, length }
    }

    fn push(&mut self, path: &RelPath, mut entry: Entry, place: &Path) {
        if entry.kind != Kind::File || entry.size == 0 {
            return self.part(Part::Entry(entry_to_wire(path, &entry)));
        }
        let bytes = std::fs::read(place).unwrap();
        self.put_file(path, &mut entry, &bytes);
    }

    /// A regular file's entry with this content, cut by the test's own rule.
    pub fn put_file(&mut self, path: &RelPath, entry: &mut Entry, bytes: &[u8]) {
        entry.size = bytes.len() as u64;
        if entry.size <= INLINE_LIMIT {
            entry.content = Content::Inline(bytes.to_vec().into());
            return self.part(Part::Entry(entry_to_wire(path, entry)));
        }
        let extents = self.cut(bytes);
        if extents.len() <= 64 {
            entry.content = Content::Extents {
                profile: 1,
                extents,
            };
            return self.part(Part::Entry(entry_to_wire(path, entry)));
        }
        self.part(Part::Entry(long_entry_to_wire(path, entry, 1)));
        for extents in extents.chunks(1000) {
            self.part(Part::More(more_to_wire(extents)));
        }
        self.part(Part::EndOfExtents(true));
    }

    /// Chunks of 16 KiB, and holes of 64 KiB of zeros on 64 KiB offsets, joined.
    fn cut(&mut self, bytes: &[u8]) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        for block in bytes.chunks(64 * 1024) {
            if block.len() == 64 * 1024 && block.iter().all(|b| *b == 0) {
                match extents.last_mut() {
                    Some(Extent::Hole { length }) => *length += block.len() as u64,
                    _ => extents.push(Extent::Hole {
                        length: block.len() as u64,
                    }),
                }
            } else {
                extents.extend(block.chunks(CHUNK_BYTES).map(|c| self.chunk(c)));
            }
        }
        extents
    }

    pub fn part(&mut self, part: Part) {
        self.parts.push(proto::EntryPart { part: Some(part) });
    }

    /// The entry of a path, to be changed.
    pub fn entry_mut(&mut self, path: &str) -> &mut proto::Entry {
        self.parts
            .iter_mut()
            .find_map(|part| match &mut part.part {
                Some(Part::Entry(entry)) if entry.path == path.as_bytes() => Some(entry),
                _ => None,
            })
            .unwrap()
    }

    /// The chunks of a file with few.
    pub fn chunks_of(&mut self, path: &str) -> Vec<ChunkId> {
        let content = self.entry_mut(path).content.clone();
        match content.and_then(|content| content.body) {
            Some(proto::content::Body::Extents(extents)) => extents
                .extents
                .iter()
                .filter_map(|e| ChunkId::try_from(e.chunk.as_ref()).ok())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// A channel to the service, in this process.
    pub async fn serve(&self) -> Channel {
        let (near, far) = tokio::io::duplex(1 << 20);
        let service = RestoreServer::new(self.clone());
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far));
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let mut near = Some(near);
        let connect = tower::service_fn(move |_| {
            let near = near.take();
            async move {
                let near = near.ok_or_else(|| std::io::Error::other("connected twice"))?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(near))
            }
        });
        let endpoint = Endpoint::from_static("http://in.process");
        endpoint.connect_with_connector(connect).await.unwrap()
    }
}

fn collect(dir: &Path, path: &RelPath, into: &mut BTreeMap<RelPath, std::path::PathBuf>) {
    into.insert(path.clone(), dir.to_owned());
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let below = path.join(entry.file_name().as_bytes()).unwrap();
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &below, into);
        } else {
            into.insert(below, entry.path());
        }
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Restore for Fake {
    type EntriesStream = Replies<proto::EntriesReply>;
    type FetchStream = Replies<proto::FetchReply>;

    async fn open(
        &self,
        _: Request<proto::OpenRequest>,
    ) -> Result<Response<proto::OpenReply>, Status> {
        Ok(Response::new(proto::OpenReply {
            id_key: Bytes::from_static(&[7; 32]),
            inline_limit: INLINE_LIMIT as u32,
            profile: 1,
            ..Default::default()
        }))
    }

    async fn entries(
        &self,
        request: Request<proto::EntriesRequest>,
    ) -> Result<Response<Self::EntriesStream>, Status> {
        let path = RelPath::new(request.into_inner().path).unwrap();
        let mut inside = false;
        let parts: Vec<_> = self
            .parts
            .iter()
            .filter(|part| {
                if let Some(Part::Entry(entry)) = &part.part {
                    inside = match RelPath::new(entry.path.clone()) {
                        Ok(found) => found.is_within(&path),
                        Err(_) => path.is_root(),
                    };
                }
                inside || matches!(&part.part, Some(Part::Damaged(_)))
            })
            .cloned()
            .collect();
        let replies: Vec<_> = parts
            .chunks(50)
            .map(|parts| {
                Ok(proto::EntriesReply {
                    parts: parts.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn fetch(
        &self,
        request: Request<proto::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let wanted: Vec<ChunkId> = request
            .into_inner()
            .chunks
            .iter()
            .map(|id| ChunkId::try_from(id.as_ref()).unwrap())
            .collect();
        let distinct: HashSet<_> = wanted.iter().collect();
        assert_eq!(distinct.len(), wanted.len(), "an id was asked for twice");
        self.asked.lock().unwrap().extend(&wanted);
        let mut replies = Vec::new();
        for ids in wanted.chunks(20) {
            let mut frame = FrameBuilder::new();
            for id in ids {
                if self.damaged.contains(id) {
                    let damaged = proto::DamagedChunks {
                        chunks: vec![Bytes::copy_from_slice(id.as_bytes())],
                        reason: "PackDamaged".to_owned(),
                        detail: "packs/aa/aabb".to_owned(),
                    };
                    replies.push(proto::fetch_reply::Body::Damaged(damaged));
                } else if !self.silent.contains(id) {
                    let mut bytes = self.chunks[id].clone();
                    if self.wrong.contains(id) {
                        bytes[0] ^= 1;
                    }
                    frame.push(*id.as_bytes(), &bytes).unwrap();
                }
            }
            if !frame.is_empty() {
                let frame = frame.finish(1).unwrap();
                replies.push(proto::fetch_reply::Body::Frame(frame.into()));
            }
        }
        let mut replies: Vec<_> = replies
            .into_iter()
            .map(|body| Ok(proto::FetchReply { body: Some(body) }))
            .collect();
        let mut breaks = self.breaks.lock().unwrap();
        if breaks.1 > 0 {
            breaks.1 -= 1;
            replies.truncate(breaks.0);
            replies.push(Err(Status::unavailable("broken off")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }
}
