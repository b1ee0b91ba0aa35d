//! A coordinator in memory that believes nothing: every rule of the wire is checked as it comes.

mod service;

use holdfast_format::codec::encode_entry;
use holdfast_format::content::MIN_HOLE_BYTES;
use holdfast_format::entry::{Content, Entry, Extent, Kind, XattrValue};
use holdfast_format::frame::{Frame, verify_chunks};
use holdfast_format::id::{ChunkId, SnapshotId};
use holdfast_format::keys::{IdKey, Ids};
use holdfast_format::path::RelPath;
use holdfast_format::wire::{Limits, WireChange, WireContent, change_from_wire, problem_from_wire};
use holdfast_proto::v1 as proto;
use proto::backup_server::BackupServer;
use proto::restore_server::RestoreServer;
use proto::upload_request::Body;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

pub type Tree = BTreeMap<Vec<u8>, (RelPath, Entry, Vec<Extent>)>;

pub const INLINE: u32 = 512;

#[derive(Default)]
pub struct State {
    pub chunks: HashMap<ChunkId, Vec<u8>>,
    pub snapshots: Vec<(SnapshotId, Tree, Vec<proto::Problem>)>,
    pub sessions: HashMap<Vec<u8>, Session>,
    /// What the last upload brought.
    pub put: Vec<String>,
    pub removed: Vec<String>,
    pub as_in_parent: Vec<String>,
    pub messages: u64,
    pub new_chunk_bytes: u64,
    pub repeated_chunk_bytes: u64,
    pub asked: u64,
    /// Breaks the next upload after so many messages.
    pub break_after: Option<u64>,
    /// Loses the answer of the next commit.
    pub lose_commit: bool,
    /// Refuses the next commit.
    pub refuse_commit: Option<&'static str>,
    /// Paths whose entries cannot be read.
    pub damaged: Vec<String>,
    /// Called when the next upload begins.
    pub on_upload: Option<Box<dyn FnOnce() + Send>>,
    /// Says that all chunks are held, once.
    pub lie_about_held: bool,
    /// Answers uploads this much later.
    pub slow: Option<std::time::Duration>,
}

#[derive(Default)]
pub struct Session {
    pub parent: Option<SnapshotId>,
    pub tree: Tree,
    pub problems: Vec<proto::Problem>,
    pub committed: Option<SnapshotId>,
    pub through: u64,
}

#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<State>>);

pub fn id_key() -> IdKey {
    IdKey::from_bytes([7; 32])
}

impl Fake {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub async fn serve(&self) -> crate::client::Client {
        self.serve_with(tonic::service::Routes::default()).await
    }

    pub async fn serve_with(&self, more: tonic::service::Routes) -> crate::client::Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = more
            .add_service(BackupServer::new(self.clone()).max_decoding_message_size(4 << 20))
            .add_service(RestoreServer::new(self.clone()));
        let server = tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        crate::client::Client::connect_lazy(&format!("http://{address}"), None).unwrap()
    }

    pub fn latest(&self) -> Tree {
        self.state().snapshots.last().unwrap().1.clone()
    }

    /// The content of a path of the newest snapshot, put together from chunks.
    pub fn content(&self, entry: &Entry, extents: &[Extent]) -> Vec<u8> {
        if let Content::Inline(bytes) = &entry.content {
            return bytes.to_vec();
        }
        let state = self.state();
        let mut out = Vec::new();
        for extent in extents {
            match extent {
                Extent::Chunk { id, length } => {
                    let chunk = &state.chunks[id];
                    assert_eq!(chunk.len(), *length as usize);
                    out.extend_from_slice(chunk);
                }
                Extent::Hole { length } => {
                    assert!(*length + 8192 >= MIN_HOLE_BYTES);
                    out.resize(out.len() + *length as usize, 0);
                }
            }
        }
        assert_eq!(out.len() as u64, entry.size);
        out
    }
}

fn refused(reason: &str, text: String) -> Status {
    let details = ErrorDetails::with_error_info(reason, "holdfast.dev", HashMap::new());
    Status::with_error_details(tonic::Code::FailedPrecondition, text, details)
}

fn invalid(text: impl std::fmt::Display) -> Status {
    refused("InvalidChange", text.to_string())
}

/// Applies the changes of one stream, in order.
struct Apply<'a> {
    state: &'a mut State,
    parent: Tree,
    tree: Tree,
    last: Option<Vec<u8>>,
    open: Option<(RelPath, Entry, Vec<Extent>)>,
    last_problem: Option<Vec<u8>>,
    problems: Vec<proto::Problem>,
}

impl Apply<'_> {
    fn take(&mut self, ids: &Ids, message: proto::UploadRequest) -> Result<(), Status> {
        self.state.messages += 1;
        match message.body.ok_or_else(|| invalid("no body"))? {
            Body::Frame(frame) => {
                let frame = Frame::try_from(frame).map_err(invalid)?;
                let plain = frame.open().map_err(invalid)?;
                verify_chunks(ids, &frame, &plain).map_err(invalid)?;
                for (id, bytes) in frame.slices(&plain) {
                    let id = ChunkId::from_bytes(id);
                    if self.state.chunks.insert(id, bytes.to_vec()).is_some() {
                        self.state.repeated_chunk_bytes += bytes.len() as u64;
                    } else {
                        self.state.new_chunk_bytes += bytes.len() as u64;
                    }
                }
            }
            Body::Changes(changes) => {
                assert!(changes.changes.len() <= 1000);
                for change in changes.changes {
                    let limits = Limits {
                        inline_limit: INLINE,
                        profile: Some(1),
                    };
                    self.change(change_from_wire(change, &limits).map_err(invalid)?)?;
                }
            }
            Body::Problems(problems) => {
                for problem in problems.problems {
                    let (path, _) = problem_from_wire(problem.clone()).map_err(invalid)?;
                    let key = Some(path.to_key());
                    if self.last_problem >= key && self.last_problem.is_some() {
                        return Err(invalid("problems out of order"));
                    }
                    self.last_problem = key;
                    self.problems.push(problem);
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, change: WireChange) -> Result<(), Status> {
        match change {
            WireChange::Put {
                path,
                entry,
                content,
            } => {
                self.order(&path)?;
                self.state.put.push(path.to_string());
                let mut entry = *entry;
                let extents = match content {
                    WireContent::Empty => Vec::new(),
                    WireContent::Inline(bytes) => {
                        entry.content = Content::Inline(bytes);
                        Vec::new()
                    }
                    WireContent::Extents { extents, .. } => extents,
                    WireContent::LongExtents { first, .. } => {
                        self.open = Some((path, entry, first));
                        return Ok(());
                    }
                    WireContent::AsInParent(at) => {
                        self.state.as_in_parent.push(path.to_string());
                        let (_, old, extents) = self
                            .parent
                            .get(&at.to_key())
                            .ok_or_else(|| invalid("nothing there in the parent"))?;
                        if old.kind != Kind::File || old.size != entry.size {
                            return Err(invalid("not that content"));
                        }
                        entry.content = old.content.clone();
                        extents.clone()
                    }
                    WireContent::Omitted => return Err(invalid("omitted")),
                };
                self.put(path, entry, extents)
            }
            WireChange::More(more) => {
                let open = self.open.as_mut().ok_or_else(|| invalid("more of what"))?;
                open.2.extend(more);
                Ok(())
            }
            WireChange::End => {
                let (path, entry, extents) =
                    self.open.take().ok_or_else(|| invalid("end of what"))?;
                self.put(path, entry, extents)
            }
            WireChange::Remove(path) => {
                self.order(&path)?;
                self.state.removed.push(path.to_string());
                let key = path.to_key();
                let below = path.subtree_prefix();
                if !self.parent.contains_key(&key) {
                    return Err(invalid(format!("{path} is not in the parent")));
                }
                self.tree.remove(&key);
                self.tree.retain(|key, _| !key.starts_with(&below));
                Ok(())
            }
        }
    }

    fn order(&mut self, path: &RelPath) -> Result<(), Status> {
        let key = Some(path.to_key());
        if self.open.is_some() {
            return Err(invalid("a long content without an end"));
        }
        if self.last.is_some() && self.last >= key {
            return Err(invalid(format!("{path} is out of order")));
        }
        self.last = key;
        Ok(())
    }

    fn put(&mut self, path: RelPath, entry: Entry, extents: Vec<Extent>) -> Result<(), Status> {
        if let Some(parent) = path.parent() {
            match self.tree.get(&parent.to_key()) {
                Some((_, parent, _)) if parent.kind == Kind::Directory => {}
                _ => return Err(invalid(format!("{path} hangs in the air"))),
            }
        }
        let mut all = extents.clone();
        for xattr in &entry.xattrs {
            if let XattrValue::Chunks(chunks) = &xattr.value {
                all.extend(chunks);
            }
        }
        for extent in &all {
            if let Extent::Chunk { id, .. } = extent
                && !self.state.chunks.contains_key(id)
            {
                return Err(refused("UnknownChunkReference", format!("{path}: {id}")));
            }
        }
        if let Some(first) = &entry.hardlink
            && !self.tree.contains_key(&first.to_key())
        {
            return Err(invalid(format!("{path} links to nothing")));
        }
        let mut bare = entry.clone();
        if extents.is_empty() {
            encode_entry(&bare).map_err(invalid)?;
        } else {
            bare.size = 0;
            encode_entry(&bare).map_err(invalid)?;
            let sum: u64 = extents.iter().map(Extent::length).sum();
            if sum != entry.size {
                return Err(invalid("size"));
            }
        }
        if entry.kind != Kind::Directory {
            let below = path.subtree_prefix();
            if !below.is_empty() {
                self.tree.retain(|key, _| !key.starts_with(&below));
            }
        }
        self.tree.insert(path.to_key(), (path, entry, extents));
        Ok(())
    }
}

impl Fake {
    fn apply(&self, session: &[u8], messages: Vec<proto::UploadRequest>) -> Result<(), Status> {
        let mut state = self.state();
        let through = messages.len() as u64;
        let parent = state.sessions[session].parent;
        let tree = state
            .snapshots
            .iter()
            .find(|(id, ..)| Some(*id) == parent)
            .map(|(_, tree, _)| tree.clone())
            .unwrap_or_default();
        let mut apply = Apply {
            state: &mut state,
            parent: tree.clone(),
            tree,
            last: None,
            open: None,
            last_problem: None,
            problems: Vec::new(),
        };
        let ids = id_key().ids();
        for message in messages {
            apply.take(&ids, message)?;
        }
        let (tree, problems) = (apply.tree, apply.problems);
        let session = state.sessions.get_mut(session).unwrap();
        session.tree = tree;
        session.problems = problems;
        session.through = through;
        Ok(())
    }
}
