//! Builds an index from the entries of the parent: paths and content digests, no stamps. The run that
//! follows reads every file and sends only what differs.

use super::item::{extra_of, hardlink_of};
use super::session::Session;
use crate::cancel::Cancel;
use crate::client::{Client, from_status};
use crate::error::{Error, Result};
use crate::index::{Index, Meta, Record};
use bytes::Bytes;
use holdfast_format::FormatError;
use holdfast_format::digest::{ContentDigest, ContentDigester};
use holdfast_format::entry::{Entry, Kind};
use holdfast_format::id::SnapshotId;
use holdfast_format::keys::Ids;
use holdfast_format::path::RelPath;
use holdfast_format::wire::{Limits, Sender, WireContent, WirePart, part_from_wire};
use holdfast_proto::v1 as proto;
use tokio::sync::mpsc;

const WHAT: &str = "read the parent's entries";
/// Messages of entries that wait for the index.
const AHEAD: usize = 4;
/// Damaged places of the parent that are named.
const DAMAGE_NAMED: usize = 20;

/// Replaces everything in `index` by what `parent` holds.
pub async fn rebuild(
    client: &Client,
    session: &Session,
    parent: SnapshotId,
    mut index: Index,
    meta: Meta,
    cancel: &Cancel,
) -> Result<Index> {
    let request = proto::EntriesRequest {
        snapshot: Bytes::copy_from_slice(parent.as_bytes()),
        path: Bytes::new(),
        without_content: false,
        children_only: false,
    };
    let call = client.restore().entries(request).await;
    let mut stream = call
        .map_err(|status| from_status(WHAT, &status))?
        .into_inner();
    let (sender, mut receiver) = mpsc::channel::<Vec<proto::EntryPart>>(AHEAD);
    let ids = session.ids.clone();
    let limits = Limits {
        inline_limit: session.inline_limit,
        // The parent may have been cut with another profile: its digests are of chunks all the same.
        profile: None,
    };
    let build = tokio::task::spawn_blocking(move || {
        index.clear()?;
        let writer = index.writer()?;
        let mut builder = Builder {
            ids,
            limits,
            writer,
            open: None,
            meta,
            damage: Damage::default(),
        };
        while let Some(parts) = receiver.blocking_recv() {
            for part in parts {
                builder.take(part)?;
            }
        }
        builder.damage.as_error()?;
        if builder.open.is_some() {
            return Err(protocol("a long content without an end"));
        }
        let Builder {
            writer, mut meta, ..
        } = builder;
        meta.totals = writer.totals();
        Ok((index, writer, meta))
    });
    let mut whole = Ok(());
    loop {
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            next = stream.message() => next.map_err(|status| from_status(WHAT, &status)),
        };
        match next {
            Ok(Some(reply)) => {
                if sender.send(reply.parts).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                whole = Err(error);
                break;
            }
        }
    }
    drop(sender);
    let built = build
        .await
        .map_err(|error| Error::Internal(format!("the index's builder broke: {error}")))?;
    whole?;
    let (mut index, writer, meta) = built?;
    tokio::task::spawn_blocking(move || {
        index.advance(writer, meta)?;
        Ok(index)
    })
    .await
    .map_err(|error| Error::Internal(format!("the index's builder broke: {error}")))?
}

struct Builder {
    ids: Ids,
    limits: Limits,
    writer: crate::index::Writer,
    /// The entry whose extents are still coming.
    open: Option<(RelPath, Record, ContentDigester)>,
    meta: Meta,
    damage: Damage,
}

/// What of the parent could not be read: all of it is gone through, so that all of it is named.
#[derive(Default)]
struct Damage {
    named: Vec<String>,
    count: u64,
}

impl Damage {
    fn add(&mut self, path: &RelPath, detail: &str) {
        self.count += 1;
        if self.named.len() < DAMAGE_NAMED {
            self.named.push(format!("{path}: {detail}"));
        }
    }

    fn as_error(&self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let more = self.count - self.named.len() as u64;
        let more = match more {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Err(Error::Refused {
            what: WHAT,
            reason: "DamageFound".to_owned(),
            message: format!("the parent is damaged at {}{more}", self.named.join("; ")),
        })
    }
}

impl Builder {
    fn take(&mut self, part: proto::EntryPart) -> Result<()> {
        let wrong = |source: FormatError| Error::Answer { what: WHAT, source };
        let part = part_from_wire(part, Sender::Restore, &self.limits).map_err(wrong)?;
        if self.open.is_some() && !matches!(part, WirePart::More(_) | WirePart::End) {
            return Err(protocol("a long content without an end"));
        }
        match part {
            WirePart::Entry {
                path,
                entry,
                content,
            } => {
                let mut record = record_of(&entry).map_err(wrong)?;
                if entry.kind == Kind::File {
                    record.content = match content {
                        WireContent::Empty => Some(ContentDigest::of_empty(&self.ids)),
                        WireContent::Inline(bytes) => {
                            Some(ContentDigest::of_inline(&self.ids, &bytes))
                        }
                        WireContent::Extents { extents, .. } => {
                            let mut digester = ContentDigester::new(&self.ids);
                            extents.iter().for_each(|e| digester.push_extent(e));
                            Some(digester.finish())
                        }
                        WireContent::LongExtents { first, .. } => {
                            let mut digester = ContentDigester::new(&self.ids);
                            first.iter().for_each(|e| digester.push_extent(e));
                            self.open = Some((path, record, digester));
                            return Ok(());
                        }
                        WireContent::AsInParent(_) | WireContent::Omitted => {
                            return Err(protocol("an entry without its content"));
                        }
                    };
                }
                self.writer.put(&path, &record)?;
            }
            WirePart::More(extents) => match &mut self.open {
                Some((_, _, digester)) => extents.iter().for_each(|e| digester.push_extent(e)),
                None => return Err(protocol("a continuation of nothing")),
            },
            WirePart::End => match self.open.take() {
                Some((path, mut record, digester)) => {
                    record.content = Some(digester.finish());
                    self.writer.put(&path, &record)?;
                }
                None => return Err(protocol("an end of nothing")),
            },
            WirePart::Damaged(path, problem) => self.damage.add(&path, &problem.detail),
        }
        Ok(())
    }
}

fn record_of(entry: &Entry) -> Result<Record, FormatError> {
    Ok(Record {
        kind: entry.kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime_ns: entry.mtime_ns,
        ctime_ns: 0,
        ino: 0,
        trust: 0,
        content: None,
        extra: extra_of(entry)?,
        hardlink: hardlink_of(entry.hardlink.as_ref()),
    })
}

fn protocol(rule: &str) -> Error {
    Error::Protocol {
        what: WHAT,
        rule: rule.to_owned(),
    }
}
