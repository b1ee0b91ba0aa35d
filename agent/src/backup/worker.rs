//! One working thread: reads batches of items, makes frames of their chunks. Synchronous.
//!
//! A batch of small files is read, hashed and compressed by one worker; the parts of a large file are
//! compressed by the others while its worker reads on.

use super::item::{
    Batch, Done, FileContent, Item, LinkKey, Look, Outcome, Piece, Source, Stored, Task, extra_of,
    hardlink_of,
};
use super::output::{Output, Sink, compress};
use super::pool::Job;
use super::shared::Shared;
use crate::beneath::Xattr as FoundXattr;
use crate::error::{Error, ItemProblem, Result};
use crate::index::{Record, trust};
use crate::mount::FsClass;
use crate::read::{ReadContext, ReadError, Reader, read_dir_meta, read_meta};
use crate::stat::Stat;
use crate::sys;
use holdfast_format::codec::encode_entry;
use holdfast_format::digest::ContentDigest;
use holdfast_format::entry::{
    Content, Entry, Extent, Kind, MAX_INLINE_XATTR_BYTES, Xattr, XattrValue,
};
use holdfast_format::frame::Compressor;
use holdfast_format::stamp::{QUIET_MARGIN_NS, SETTLED_AGE_NS, Stamp};

/// Bytes of xattrs above which an entry is checked against the format's limit.
const CHECK_ABOVE_BYTES: usize = 16 * 1024;

/// A working thread's own tools.
#[derive(Debug)]
pub struct Worker<'a> {
    shared: &'a Shared,
    reader: Reader,
    class: FsClass,
    compressor: Compressor,
}

impl<'a> Worker<'a> {
    /// A worker; `context` says how files are read.
    pub fn new(shared: &'a Shared, context: ReadContext) -> Result<Self> {
        Ok(Self {
            shared,
            class: context.class,
            reader: Reader::new(context),
            compressor: Compressor::new(shared.level)?,
        })
    }

    /// Works until the pool is closed.
    pub fn run(&mut self) -> Result<()> {
        while let Some(job) = self.shared.pool.next(&self.shared.stop) {
            match job {
                Job::Compress(part) => compress(&mut self.compressor, part)?,
                Job::Read(batch) => self.read(batch)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, mut batch: Batch) -> Result<()> {
        let items = std::mem::take(&mut batch.items);
        let mut out = Output::new(self.shared, &mut self.compressor, &batch);
        let mut done = Vec::with_capacity(items.len());
        for Item { path, task } in items {
            self.shared.stop.check()?;
            let outcome = match task {
                Task::Remove => Outcome::Remove,
                Task::Problem {
                    problem,
                    carried_over,
                } => Outcome::Problem {
                    problem,
                    carried_over,
                    remove: false,
                    led_group: false,
                },
                Task::Link { look, first } => Outcome::Link { look, first },
                Task::Look(look) => {
                    out.begin_file();
                    let looked = look_at(&mut self.reader, self.class, &mut out, &path, &look);
                    if look.found.kind == Kind::File {
                        out.end_file(look.found.stat.size);
                    }
                    if matches!(looked, Err(ReadError::Vanished)) {
                        self.shared.seen.unread(&look.found.stat);
                    }
                    settle(looked, &look)?
                }
            };
            done.push(Done { path, outcome });
        }
        let parts = out.finish()?;
        // The sequencer has gone only when the run has ended.
        let _ = batch.pieces.send(Piece::Finished {
            done,
            parts,
            permit: batch.permit,
        });
        Ok(())
    }
}

/// Of content that is another though its times are not.
const CHANGED_SILENTLY: &str = "stored as it is now, but it is not what it was, and neither its times nor \
    its size have changed: a damaged disk or memory, or a filesystem that does not tell of changes; compare \
    it with the snapshot before";

/// Of content that was written under times of before the last read.
const WRITTEN_MEANWHILE: &str = "stored as it is now; what the snapshots before have of it was read while it was \
    being written, and is of no one moment";

/// What becomes of a path whose look failed.
fn settle(looked: Result<Stored, ReadError>, look: &Look) -> Result<Outcome> {
    let old = look.old.as_ref();
    Ok(match looked {
        Ok(stored) => Outcome::Stored(Box::new(stored)),
        Err(ReadError::Stopped(error)) => return Err(error),
        // A directory that the scan has entered must stay, or its children would hang in the air.
        Err(ReadError::Vanished) if look.found.kind == Kind::Directory => {
            let problem = ItemProblem::new("Vanished", "gone before its attributes were read");
            Outcome::Stored(Box::new(by_the_scan(look, Some(problem))?))
        }
        Err(ReadError::Item(problem)) if look.found.kind == Kind::Directory => {
            Outcome::Stored(Box::new(by_the_scan(look, Some(problem))?))
        }
        Err(ReadError::Vanished) => Outcome::Vanished {
            known: old.is_some(),
            led_group: look.leads_group,
        },
        Err(ReadError::Item(problem)) => {
            let same_kind = old.is_some_and(|old| old.kind == look.found.kind);
            Outcome::Problem {
                problem,
                carried_over: same_kind,
                remove: old.is_some() && !same_kind,
                led_group: look.leads_group,
            }
        }
    })
}

/// Metadata as the scan saw it, without attributes.
fn by_the_scan(look: &Look, problem: Option<ItemProblem>) -> Result<Stored> {
    let mut stored = finish(look, &look.found.stat, Vec::new(), Vec::new(), None)?;
    stored.record.trust |= trust::RACY;
    stored.problem = problem;
    Ok(stored)
}

fn look_at(
    reader: &mut Reader,
    class: FsClass,
    out: &mut Output<'_>,
    path: &holdfast_format::path::RelPath,
    look: &Look,
) -> Result<Stored, ReadError> {
    let stopped = |error: Error| ReadError::Stopped(error);
    let found = &look.found;
    if found.boundary {
        return by_the_scan(look, None).map_err(stopped);
    }
    if let (Kind::File, Source::Read) = (found.kind, &look.content) {
        let mut sink = Sink::new(out);
        let outcome = reader.read_file(&look.dir, &found.name, &mut sink)?;
        let content = sink.content(outcome.digest, look, path);
        let progress = &out.shared.progress;
        progress.files_read.add(1);
        progress.read_bytes.add(outcome.size);
        if matches!(content, FileContent::AsInParent(_)) {
            progress.reread_unchanged_bytes.add(outcome.size);
        }
        let xattrs = store_xattrs(out, outcome.xattrs).map_err(stopped)?;
        let mut stat = outcome.stat;
        stat.size = outcome.size;
        let content = Some((content, outcome.digest, Some(outcome.stamp)));
        let mut stored = finish(look, &stat, xattrs, Vec::new(), content).map_err(stopped)?;
        let old = look.old.as_ref();
        stored.record.trust |=
            Record::busy_bits(old, outcome.writers, &outcome.stamp, outcome.digest);
        let silent = look.unmoved
            && found.stat.key() == outcome.stat.key()
            && !outcome.stamp.inconsistent
            && old.is_some_and(|old| old.content.is_some_and(|old| old != outcome.digest));
        let was_busy = old.is_some_and(|old| old.trust & trust::BUSY != 0);
        stored.problem = match (silent, was_busy) {
            (true, false) => Some(ItemProblem::new("ChangedSilently", CHANGED_SILENTLY)),
            // Found by a pass. Else the end of the write was told, and this is how it is taken in.
            (true, true) if look.lost => {
                Some(ItemProblem::new("ChangedWhileRead", WRITTEN_MEANWHILE))
            }
            _ => outcome.problem,
        };
        return check(stored);
    }
    let before_ns = sys::realtime_ns();
    let meta = if found.name.is_empty() {
        read_dir_meta(&look.dir)?
    } else {
        read_meta(&look.dir, &found.name, found.kind)?
    };
    let xattrs = store_xattrs(out, meta.xattrs).map_err(stopped)?;
    let mut stat = meta.stat;
    let content = match &look.content {
        Source::Parent(at, record) if found.kind == Kind::File => {
            // Its stamp stood when it was scanned. If it moved since, the next run reads it.
            let moved = found.stat.key() != stat.key();
            stat = found.stat;
            let digest = record.content.unwrap_or(ContentDigest([0; 16]));
            let stamp = record.stamp().map(|stamp| Stamp {
                racy: stamp.racy || moved,
                ..stamp
            });
            let content = match record.size {
                0 => FileContent::Empty,
                _ => FileContent::AsInParent(at.clone()),
            };
            Some((content, digest, stamp))
        }
        _ => None,
    };
    let read = content.is_some();
    let mut stored = finish(look, &stat, xattrs, meta.target, content).map_err(stopped)?;
    match &look.content {
        // Whoever wrote it then may be at it still.
        Source::Parent(_, record) if read => {
            stored.record.trust |= record.trust & (trust::BUSY | trust::TWICE);
        }
        _ if !read => stored.record.trust |= meta_trust(&stat, class, before_ns),
        _ => {}
    }
    check(stored)
}

/// What a stamp of metadata alone is worth, read at this time.
fn meta_trust(stat: &Stat, class: FsClass, before_ns: i64) -> u8 {
    let newest = stat.ctime_ns.max(stat.mtime_ns);
    let believed = !matches!(class, FsClass::Remote | FsClass::Virtual(_));
    let clean = believed && newest < before_ns.saturating_sub(QUIET_MARGIN_NS);
    let settled = stat.ctime_ns < before_ns.saturating_sub(SETTLED_AGE_NS);
    trust::STAMPED | if clean { 0 } else { trust::RACY } | if settled { trust::SETTLED } else { 0 }
}

/// Puts entry and record together.
fn finish(
    look: &Look,
    stat: &Stat,
    xattrs: Vec<Xattr>,
    target: Vec<u8>,
    content: Option<(FileContent, ContentDigest, Option<Stamp>)>,
) -> Result<Stored> {
    let file = stat.kind == Kind::File;
    let entry = Entry {
        kind: stat.kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime_ns: stat.mtime_ns,
        size: if file { stat.size } else { 0 },
        xattrs,
        target: target.into(),
        rdev: stat.rdev,
        content: Content::Empty,
        hardlink: look.hardlink.clone(),
    };
    let mut record = Record {
        kind: stat.kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        mtime_ns: stat.mtime_ns,
        ctime_ns: stat.ctime_ns,
        ino: stat.ino,
        trust: if stat.nlink > 1 || stat.kind == Kind::Directory {
            trust::LINKED
        } else {
            0
        },
        content: None,
        extra: extra_of(&entry)?,
        hardlink: hardlink_of(entry.hardlink.as_ref()),
    };
    let content = match content {
        Some((content, digest, stamp)) => {
            record.content = Some(digest);
            if let Some(stamp) = stamp {
                record.trust |= trust::STAMPED
                    | if stamp.racy { trust::RACY } else { 0 }
                    | if stamp.inconsistent {
                        trust::INCONSISTENT
                    } else {
                        0
                    }
                    | if stamp.settled { trust::SETTLED } else { 0 };
            }
            content
        }
        None => FileContent::Empty,
    };
    Ok(Stored {
        entry,
        content,
        record,
        old: look.old,
        problem: None,
        leads: look
            .leads_group
            .then(|| (LinkKey::of(&look.found), look.found.stat.nlink - 1)),
    })
}

/// Refuses, as a problem of the path, what no entry may hold: the commit would be refused as a whole.
fn check(stored: Stored) -> Result<Stored, ReadError> {
    let entry = &stored.entry;
    let bytes: usize = entry
        .xattrs
        .iter()
        .map(|xattr| match &xattr.value {
            XattrValue::Inline(value) => xattr.name.len() + value.len() + 16,
            XattrValue::Chunks(chunks) => xattr.name.len() + 64 * chunks.len(),
        })
        .sum::<usize>()
        + entry.target.len();
    if bytes > CHECK_ABOVE_BYTES || entry.xattrs.len() > 64 {
        let mut bare = entry.clone();
        bare.size = 0;
        // Room for the content that is not in it yet.
        if encode_entry(&bare).map_or(true, |bytes| bytes.len() > 48 * 1024) {
            let problem = ItemProblem::new("TooLarge", "its attributes are too many or too large");
            return Err(ReadError::Item(problem));
        }
    }
    Ok(stored)
}

/// Attributes as an entry holds them; large values become chunks.
fn store_xattrs(out: &mut Output<'_>, found: Vec<FoundXattr>) -> Result<Vec<Xattr>> {
    let mut xattrs = Vec::with_capacity(found.len());
    for FoundXattr { name, value } in found {
        let value = if value.len() <= MAX_INLINE_XATTR_BYTES {
            XattrValue::Inline(value.into())
        } else {
            let shared = out.shared;
            let mut extents = Vec::new();
            for chunk in shared.chunker.chunks(&value) {
                let id = shared.ids.chunk(chunk);
                extents.push(Extent::Chunk {
                    id,
                    length: chunk.len() as u32,
                });
                out.push(id, chunk)?;
            }
            XattrValue::Chunks(extents)
        };
        xattrs.push(Xattr {
            name: name.into(),
            value,
        });
    }
    Ok(xattrs)
}
