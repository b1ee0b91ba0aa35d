//! The stream of entries as the planner takes it: validated one by one, paths relative to what is
//! restored, long contents in pieces, values of attributes fetched.

use super::fetch::{self, Found};
use super::item::{Body, Incoming, Item, Link};
use super::meta::Meta;
use crate::client;
use crate::error::Result;
use crate::{Error, ItemProblem};
use bytes::{Bytes, BytesMut};
use holdfast_format::entry::{Entry, Extent, Kind, XattrValue};
use holdfast_format::id::{ChunkId, SnapshotId};
use holdfast_format::keys::Ids;
use holdfast_format::path::{RelPath, escape};
use holdfast_format::wire::{self, ContentChecker, Limits, Sender, WireContent, WirePart};
use holdfast_proto::v1 as proto;
use proto::entry_part::Part;
use proto::restore_client::RestoreClient;
use std::collections::HashMap;
use tokio::sync::mpsc;
use tonic::transport::Channel;

/// Extents of a content that are put together before it counts as long.
const GATHER_EXTENTS: usize = 4_096;

/// Reads the entries below `path` and sends them on until the end, an error, or nobody listens.
pub struct Entries {
    /// The service.
    pub client: RestoreClient<Channel>,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What is restored.
    pub path: RelPath,
    /// To check attribute values.
    pub ids: Ids,
    /// What the repository allows in an entry.
    pub limits: Limits,
}

/// A content that is still coming.
enum Open {
    /// Gathered until it is complete or too long.
    Gather(Box<Item>, Vec<Extent>),
    /// Sent on piece by piece.
    Long,
    /// Of an entry that was refused.
    Ignore,
}

struct State {
    open: Option<Open>,
    any: bool,
    /// The entry at hand is the first.
    first: bool,
    single: bool,
    out: Vec<Incoming>,
}

impl Entries {
    /// See the type.
    pub async fn run(self, to: mpsc::Sender<Result<Vec<Incoming>>>) {
        let sent = tokio::select! {
            read = self.read(&to) => read,
            () = to.closed() => return,
        };
        if let Err(error) = sent {
            // Nobody listens: the run is over anyway.
            let _ = to.send(Err(error)).await;
        }
    }

    async fn read(&self, to: &mpsc::Sender<Result<Vec<Incoming>>>) -> Result<()> {
        let status = |status| client::from_status("read entries", &status);
        let request = proto::EntriesRequest {
            snapshot: Bytes::copy_from_slice(self.snapshot.as_bytes()),
            path: Bytes::copy_from_slice(self.path.as_bytes()),
            without_content: false,
            children_only: false,
        };
        let mut restore = self.client.clone();
        let mut replies = restore.entries(request).await.map_err(status)?.into_inner();
        let mut state = State {
            open: None,
            any: false,
            first: false,
            single: false,
            out: Vec::new(),
        };
        while let Some(reply) = replies.message().await.map_err(status)? {
            let values = self.attribute_values(&reply).await?;
            for part in reply.parts {
                self.part(part, &values, &mut state);
            }
            let batch = std::mem::take(&mut state.out);
            if !batch.is_empty() && to.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        if state.open.is_some() {
            return Err(Error::Protocol {
                what: "read entries",
                rule: "the stream ended within an entry".to_owned(),
            });
        }
        if !state.any {
            return Err(Error::Restore {
                reason: "PathNotFound",
                detail: format!("the snapshot has no {}", escape(self.path.as_bytes())),
            });
        }
        Ok(())
    }

    fn part(&self, part: proto::EntryPart, values: &Found, state: &mut State) {
        let (named, long) = match &part.part {
            Some(Part::Entry(entry)) => (Some(entry.path.clone()), entry.more_extents),
            _ => (None, false),
        };
        if named.is_some() {
            state.first = !state.any;
            state.any = true;
            // An entry that comes where extents should: the one before has not ended.
            if let Some(Open::Gather(item, _)) = state.open.take() {
                let rule = "its extents do not end";
                state.out.push(refused(item.path.as_bytes(), rule));
            }
        }
        let part = match wire::part_from_wire(part, Sender::Restore, &self.limits) {
            Ok(part) => part,
            Err(error) => {
                // Of a continuation: the sum will be wrong, so that its entry is left out.
                if let Some(named) = named {
                    state.open = long.then_some(Open::Ignore);
                    state.out.push(refused(&named, error.to_string()));
                }
                return;
            }
        };
        match part {
            WirePart::Entry {
                path,
                entry,
                content,
            } => {
                let escaped = path.clone();
                if let Err(rule) = self.entry(path, *entry, content, values, state) {
                    state.open = long.then_some(Open::Ignore);
                    state.out.push(refused(escaped.as_bytes(), rule));
                }
            }
            WirePart::More(extents) => more(extents, state),
            WirePart::End => end(state),
            WirePart::Damaged(path, problem) => {
                state.any = true;
                state.out.push(Incoming::Lost {
                    path: path.to_string(),
                    detail: format!("{}: {}", problem.reason, problem.detail),
                });
            }
        }
    }

    fn entry(
        &self,
        path: RelPath,
        entry: Entry,
        content: WireContent,
        values: &Found,
        state: &mut State,
    ) -> Result<(), String> {
        let (body, first) = match content {
            WireContent::Empty => (Body::Empty, None),
            WireContent::Inline(bytes) => (Body::Inline(bytes), None),
            WireContent::Extents { extents, .. } => (Body::Extents(extents), None),
            WireContent::LongExtents { first, .. } => (Body::Empty, Some(first)),
            WireContent::AsInParent(_) | WireContent::Omitted => {
                return Err("no content of a restore".to_owned());
            }
        };
        let Some(item) = self.item(path, entry, body, values, state)? else {
            return Ok(());
        };
        match first {
            Some(first) => state.open = Some(Open::Gather(Box::new(item), first)),
            None => state.out.push(Incoming::Item(item)),
        }
        Ok(())
    }

    /// `Ok(None)`: it was the root's entry.
    fn item(
        &self,
        path: RelPath,
        entry: Entry,
        body: Body,
        values: &Found,
        state: &mut State,
    ) -> Result<Option<Item>, String> {
        let mut meta = Meta::of(&entry);
        let mut lost = None;
        for xattr in &entry.xattrs {
            if let XattrValue::Chunks(extents) = &xattr.value {
                match value_of(extents, values) {
                    Ok(value) => meta.xattrs.push((xattr.name.clone(), value)),
                    Err(problem) => lost = Some(problem),
                }
            }
        }
        meta.xattrs.sort();
        let relative = if path == self.path {
            let name = path.name().to_vec();
            if entry.kind == Kind::Directory {
                if !state.first {
                    return Err("the root stands once, at the start".to_owned());
                }
                if let Some(problem) = lost {
                    state.out.push(lost_attribute(&path, &problem));
                }
                state.out.push(Incoming::Root(meta));
                return Ok(None);
            }
            if path.is_root() {
                return Err("the root is no directory".to_owned());
            }
            // A single path that is no directory: restored by its name, into the target.
            state.single = true;
            RelPath::new(name).map_err(|error| error.to_string())?
        } else if path.is_within(&self.path) && !state.single {
            below(&path, &self.path).map_err(|error| error.to_string())?
        } else {
            return Err("outside of what was asked for".to_owned());
        };
        if let Some(problem) = lost {
            // A file is whole or left out; a directory is needed for what lies in it.
            if entry.kind != Kind::Directory {
                return Err(format!("{}: {}", problem.reason, problem.detail));
            }
            state.out.push(lost_attribute(&path, &problem));
        }
        let link = match entry.hardlink {
            None => None,
            Some(first) if !state.single && first.is_within(&self.path) && first != self.path => {
                let first = below(&first, &self.path).map_err(|error| error.to_string())?;
                Some(Link::Inside(first))
            }
            Some(first) => Some(Link::Outside(first)),
        };
        Ok(Some(Item {
            path: relative,
            meta,
            body,
            link,
        }))
    }

    /// Fetches the values of all attributes in a message that lie in chunks.
    async fn attribute_values(&self, reply: &proto::EntriesReply) -> Result<Found> {
        let mut wanted = Vec::new();
        for part in &reply.parts {
            if let Some(Part::Entry(entry)) = &part.part {
                let extents = entry.xattrs.iter().flat_map(|xattr| &xattr.chunks);
                wanted.extend(extents.filter_map(|e| ChunkId::try_from(e.chunk.as_ref()).ok()));
            }
        }
        wanted.sort();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        fetch::fetch_now(self.client.clone(), &self.snapshot, &self.ids, wanted).await
    }
}

fn value_of(extents: &[Extent], values: &Found) -> Result<Bytes, ItemProblem> {
    let mut value = BytesMut::new();
    for extent in extents {
        let Extent::Chunk { id, length } = extent else {
            return Err(ItemProblem::new("InvalidEntry", "hole in an attribute"));
        };
        match values.get(id) {
            Some(Ok(bytes)) if bytes.len() == *length as usize => value.extend_from_slice(bytes),
            Some(Err(problem)) => return Err(problem.clone()),
            _ => {
                return Err(ItemProblem::new(
                    "ChunkMissing",
                    "value of an attribute missing",
                ));
            }
        }
    }
    Ok(value.freeze())
}

fn below(path: &RelPath, top: &RelPath) -> Result<RelPath, holdfast_format::FormatError> {
    let bytes = path.as_bytes();
    let cut = if top.is_root() {
        0
    } else {
        top.as_bytes().len() + 1
    };
    RelPath::new(bytes.get(cut..).unwrap_or_default())
}

fn refused(path: &[u8], rule: impl Into<String>) -> Incoming {
    Incoming::Refused {
        path: escape(&path[..path.len().min(1024)]),
        rule: rule.into(),
    }
}

fn lost_attribute(path: &RelPath, problem: &ItemProblem) -> Incoming {
    refused(
        path.as_bytes(),
        format!("attribute not restored: {}", problem.detail),
    )
}

fn more(extents: Vec<Extent>, state: &mut State) {
    match state.open.take() {
        Some(Open::Gather(item, mut gathered)) => {
            gathered.extend(extents);
            if gathered.len() <= GATHER_EXTENTS {
                state.open = Some(Open::Gather(item, gathered));
                return;
            }
            let body = Body::Extents(gathered);
            state.out.push(Incoming::Long(Item { body, ..*item }));
            state.open = Some(Open::Long);
        }
        Some(Open::Long) => {
            state.out.push(Incoming::More(extents));
            state.open = Some(Open::Long);
        }
        other => state.open = other,
    }
}

fn end(state: &mut State) {
    match state.open.take() {
        Some(Open::Gather(item, extents)) => {
            let mut checker = ContentChecker::default();
            let checked = checker.push(&extents);
            if let Err(error) = checked.and_then(|()| checker.finish(item.meta.size)) {
                state
                    .out
                    .push(refused(item.path.as_bytes(), error.to_string()));
                return;
            }
            let body = Body::Extents(extents);
            state.out.push(Incoming::Item(Item { body, ..*item }));
        }
        Some(Open::Long) => state.out.push(Incoming::End),
        _ => {}
    }
}
