//! Puts what the workers made back into tree order: frames, then the entries that use them, and the
//! index's edits beside them. One thread, synchronous.

use super::batcher::Slot;
use super::item::{
    Batch, Done, FileContent, Item, LinkKey, Look, Outcome, Piece, Stored, Task, hardlink_of,
};
use super::links::Groups;
use super::problems::Problems;
use super::shared::{PART_MOST_BYTES, Shared};
use crate::error::{Error, ItemProblem, Result};
use crate::index::{Totals, Writer, trust};
use crate::journal::{Again, Turn};
use crate::upload::Outgoing;
use bytes::Bytes;
use holdfast_format::entry::Kind;
use holdfast_format::frame::Frame;
use holdfast_format::path::RelPath;
use holdfast_format::wire::{WireContent, long_entry_to_wire, more_to_wire, put_to_wire};
use holdfast_proto::v1 as proto;
use proto::change::Change;
use proto::upload_request::Body;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How often a wait looks whether the run was cancelled.
const LOOK: Duration = Duration::from_millis(100);
/// Most changes, and about the most bytes, of one message.
const CHANGES: usize = 1000;
const CHANGES_BYTES: usize = 768 * 1024;
/// Most extents of one change.
const EXTENTS: usize = 4096;
/// Extents that travel in the entry itself.
const SHORT: u64 = 1024;
/// Bytes of one extent, and of an entry beside its path and content, on the wire, about.
const EXTENT_BYTES: usize = 44;
const ENTRY_BYTES: usize = 64;

/// The sequencer of one run.
#[derive(Debug)]
pub struct Sequencer<'a> {
    shared: &'a Shared,
    outgoing: Outgoing,
    writer: Writer,
    profile: u8,
    changes: Vec<proto::Change>,
    changes_bytes: usize,
    groups: Groups,
    problems: Problems,
    turn: Option<Arc<Turn>>,
    again: Again,
    renamed: [u64; 2],
    shipped: [u64; 2],
}

/// What a sequencer leaves behind.
#[derive(Debug)]
pub struct Sequenced {
    /// The index's edits, to be committed after the acknowledgement.
    pub writer: Writer,
    /// Whether anything stands as in the parent without having been looked at.
    pub carried_over: bool,
    /// What the next run must look at, whatever is told of it.
    pub again: Again,
    /// Files whose content was found under another name, and their bytes.
    pub renamed: [u64; 2],
    /// Bytes of the frames shipped, plain and as they are.
    pub shipped: [u64; 2],
}

impl Sequenced {
    /// How the volume changed since the parent, of which this is known.
    pub fn signals(&self, parent: Totals, walk: Option<&'static str>) -> proto::Signals {
        let changed = self.writer.changed();
        let [renamed, renamed_bytes] = self.renamed;
        let [plain, packed] = self.shipped;
        proto::Signals {
            added_files: changed.added.saturating_sub(renamed),
            removed_files: changed.removed.saturating_sub(renamed),
            rewritten_files: changed.rewritten,
            renamed_files: renamed,
            parent_files: parent.files,
            parent_bytes: parent.content_bytes,
            removed_bytes: changed.removed_bytes.saturating_sub(renamed_bytes),
            rewritten_plain_bytes: plain,
            rewritten_packed_bytes: packed,
            mode: if walk.is_some() { "walk" } else { "journal" }.to_owned(),
            reason: walk.unwrap_or_default().to_owned(),
            ..proto::Signals::default()
        }
    }
}

impl<'a> Sequencer<'a> {
    /// Before the first slot.
    pub fn new(
        shared: &'a Shared,
        outgoing: Outgoing,
        writer: Writer,
        profile: u8,
        problems: Problems,
        turn: Option<Arc<Turn>>,
    ) -> Self {
        Self {
            shared,
            outgoing,
            writer,
            profile,
            changes: Vec::new(),
            changes_bytes: 0,
            groups: Groups::default(),
            problems,
            turn,
            again: Again::default(),
            renamed: [0; 2],
            shipped: [0; 2],
        }
    }

    /// Takes every slot in its turn, to the end of the scan.
    pub fn run(mut self, slots: &Receiver<Slot>) -> Result<Sequenced> {
        while let Some((number, pieces)) = self.receive(slots)? {
            self.shared.budget.set_first(number);
            let done = self.take_slot(&pieces)?;
            for Done { path, outcome } in done {
                self.apply(path, outcome, number)?;
            }
        }
        self.shared.stop.check()?;
        self.flush_changes()?;
        self.look_back()?;
        let carried_over = self.problems.send(&self.outgoing)?;
        Ok(Sequenced {
            writer: self.writer,
            carried_over,
            again: self.again,
            renamed: self.renamed,
            shipped: self.shipped,
        })
    }

    /// The next of a channel; `None` when its senders are gone.
    fn receive<T>(&self, receiver: &Receiver<T>) -> Result<Option<T>> {
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(next) => return Ok(Some(next)),
                Err(RecvTimeoutError::Timeout) => self.shared.stop.check()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    /// Ships a batch's frames as they come; what became of its items.
    fn take_slot(&mut self, pieces: &Receiver<Piece>) -> Result<Vec<Done>> {
        let mut finished = None;
        let mut seen = 0;
        loop {
            if let Some((_, parts, _)) = &finished
                && seen == *parts
            {
                break;
            }
            match self.receive(pieces)? {
                Some(Piece::Part(frame, permit)) => {
                    seen += 1;
                    if let Some(frame) = frame {
                        self.ship(frame)?;
                    }
                    drop(permit);
                }
                Some(Piece::Finished {
                    done,
                    parts,
                    permit,
                }) => finished = Some((done, parts, permit)),
                None => {
                    // A worker dropped it: it has failed, and says why.
                    self.shared.stop.check()?;
                    return Err(Error::Cancelled);
                }
            }
        }
        Ok(finished.map(|(done, ..)| done).unwrap_or_default())
    }

    fn ship(&mut self, frame: Frame) -> Result<()> {
        let progress = &self.shared.progress;
        let bytes = frame.payload.len() as u64;
        self.shipped[0] += u64::from(frame.plain_length);
        self.shipped[1] += bytes;
        progress.new_chunks.add(frame.items.len() as u64);
        progress.new_chunk_bytes.add(u64::from(frame.plain_length));
        progress.wire_bytes.add(bytes);
        self.outgoing.send(Body::Frame(frame.into()), bytes)
    }

    fn apply(&mut self, path: RelPath, outcome: Outcome, number: u64) -> Result<()> {
        match outcome {
            Outcome::Remove => self.remove(&path),
            Outcome::Vanished { known, led_group } => {
                if led_group {
                    self.groups.failed(path.clone());
                }
                if known { self.remove(&path) } else { Ok(()) }
            }
            Outcome::Problem {
                problem,
                carried_over,
                remove,
                led_group,
            } => {
                if led_group {
                    self.groups.failed(path.clone());
                }
                if remove {
                    self.remove(&path)?;
                }
                self.problem(&path, problem, carried_over)
            }
            Outcome::Stored(stored) => self.store(&path, *stored),
            Outcome::Link { look, first } => self.link(path, look, first, number),
        }
    }

    /// What renames hid from the walk is told before its problems are.
    fn look_back(&mut self) -> Result<()> {
        let found = self.shared.seen.look_back(&self.shared.stop);
        let found = found.map_err(|source| Error::Io {
            what: "look back at the directories",
            path: String::new(),
            source,
        })?;
        for (path, problem) in found {
            self.problem(&path, problem, false)?;
        }
        if let Some(turn) = self.turn.clone() {
            for path in turn.moved_away(self.shared.absent()) {
                let what = "it was renamed while the volume was read, and may be in the snapshot under no name";
                let problem = ItemProblem::new("DirectoryChanged", what);
                self.problem(&path, problem, false)?;
            }
        }
        self.shared.stop.check()
    }

    fn problem(&mut self, path: &RelPath, problem: ItemProblem, carried_over: bool) -> Result<()> {
        self.shared.progress.problems.add(1);
        self.again.unknown.push(path.clone());
        self.problems.add(path, problem, carried_over)
    }

    fn remove(&mut self, path: &RelPath) -> Result<()> {
        self.writer.remove(path)?;
        self.shared.progress.entries_changed.add(1);
        let bytes = path.as_bytes().len();
        self.change(
            Change::Remove(Bytes::copy_from_slice(path.as_bytes())),
            bytes,
        )
    }

    /// Another name of an inode whose first name came earlier in this run.
    fn link(
        &mut self,
        path: RelPath,
        mut look: Box<Look>,
        first: RelPath,
        number: u64,
    ) -> Result<()> {
        let key = LinkKey::of(&look.found);
        match self.groups.first_of(&first) {
            None => {
                // The first name was not stored: this one takes its place.
                self.groups.replace(first, path.clone());
                look.hardlink = None;
                look.leads_group = true;
            }
            Some(first) => {
                if let Some(mut stored) = self.groups.copy(&key, look.old) {
                    let progress = &self.shared.progress;
                    progress.done_files.add(1);
                    progress.done_bytes.add(look.found.stat.size);
                    stored.record.hardlink = hardlink_of(Some(&first));
                    stored.entry.hardlink = Some(first);
                    if let FileContent::Extents(_) | FileContent::Inline(_) = &stored.content
                        && let Some(old) = &stored.old
                        && old.kind == Kind::File
                        && old.content == stored.record.content
                    {
                        stored.content = FileContent::AsInParent(path.clone());
                    }
                    return self.store(&path, stored);
                }
                look.hardlink = Some(first);
                look.leads_group = false;
            }
        }
        // Its content is not at hand any more: it is read, before all else.
        let ino = look.found.stat.ino;
        for Done { path, outcome } in self.read_now(path, look, number)? {
            match outcome {
                Outcome::Stored(mut stored) => {
                    if stored.record.ino != ino {
                        // Something else has taken the name's place: it is nobody's link.
                        stored.entry.hardlink = None;
                        stored.record.hardlink = None;
                    }
                    self.store(&path, *stored)?;
                }
                outcome => self.apply(path, outcome, number)?,
            }
        }
        Ok(())
    }

    fn read_now(&mut self, path: RelPath, look: Box<Look>, number: u64) -> Result<Vec<Done>> {
        let shared = self.shared;
        let permit = shared.budget.take(number, PART_MOST_BYTES, &shared.stop)?;
        let (sender, pieces) = channel();
        let content_bytes = look.found.stat.size;
        let task = Task::Look(look);
        shared.pool.read_first(Batch {
            number,
            content_bytes,
            items: vec![Item { path, task }],
            pieces: sender,
            permit,
        });
        self.take_slot(&pieces)
    }

    /// Sends what differs of a path and remembers it.
    fn store(&mut self, path: &RelPath, mut stored: Stored) -> Result<()> {
        if let Some(problem) = stored.problem.take() {
            self.problem(path, problem, false)?;
        }
        if let Some(first) = &stored.entry.hardlink
            && self.groups.first_of(first).as_ref() != Some(first)
        {
            stored.entry.hardlink = None;
            stored.record.hardlink = None;
        }
        if let Some((key, others)) = stored.leads.take() {
            if stored.record.ino == key.ino {
                self.groups.add(key, others, &stored);
            } else {
                self.groups.failed(path.clone());
            }
        }
        if stored.record.trust & (trust::RACY | trust::INCONSISTENT | trust::STAMPED)
            != trust::STAMPED
        {
            self.again.unsettled.push(path.clone());
        }
        if let FileContent::AsInParent(from) = &stored.content
            && from != path
            && stored.entry.hardlink.is_none()
        {
            self.renamed[0] += 1;
            self.renamed[1] += stored.record.size;
        }
        let old = stored.old.take();
        if old != Some(stored.record) {
            self.writer.put(path, &stored.record)?;
        }
        if old.is_some_and(|old| old.same_entry(&stored.record)) {
            return Ok(());
        }
        let was_directory = old.is_some_and(|old| old.kind == Kind::Directory);
        if was_directory && stored.entry.kind != Kind::Directory {
            self.writer.remove_below(path)?;
        }
        self.shared.progress.entries_changed.add(1);
        self.put(path, stored)
    }

    fn put(&mut self, path: &RelPath, stored: Stored) -> Result<()> {
        let Stored { entry, content, .. } = stored;
        let bytes = ENTRY_BYTES + path.as_bytes().len() + entry.target.len() + xattr_bytes(&entry);
        let (content, bytes) = match content {
            FileContent::Empty => (WireContent::Empty, bytes),
            FileContent::Inline(content) => {
                let bytes = bytes + content.len();
                (WireContent::Inline(content), bytes)
            }
            FileContent::AsInParent(at) => {
                let bytes = bytes + at.as_bytes().len();
                (WireContent::AsInParent(at), bytes)
            }
            FileContent::Extents(extents) if extents.count() > SHORT => {
                let start = long_entry_to_wire(path, &entry, self.profile);
                self.change(Change::Put(start), bytes)?;
                extents.for_each(EXTENTS, |some| {
                    self.change(Change::More(more_to_wire(&some)), some.len() * EXTENT_BYTES)
                })?;
                return self.change(Change::EndOfExtents(true), 8);
            }
            FileContent::Extents(extents) => {
                let count = extents.count() as usize;
                let mut all = Vec::with_capacity(count);
                extents.for_each(EXTENTS, |some| {
                    all.extend(some);
                    Ok(())
                })?;
                let content = WireContent::Extents {
                    profile: self.profile,
                    extents: all,
                };
                (content, bytes + count * EXTENT_BYTES)
            }
        };
        self.change(Change::Put(put_to_wire(path, &entry, content)), bytes)
    }

    fn change(&mut self, change: Change, bytes: usize) -> Result<()> {
        self.changes.push(proto::Change {
            change: Some(change),
        });
        self.changes_bytes += bytes;
        if self.changes.len() >= CHANGES || self.changes_bytes >= CHANGES_BYTES {
            self.flush_changes()?;
        }
        Ok(())
    }

    fn flush_changes(&mut self) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let bytes = self.changes_bytes as u64;
        self.shared.progress.wire_bytes.add(bytes);
        let changes = std::mem::take(&mut self.changes);
        self.changes_bytes = 0;
        self.outgoing
            .send(Body::Changes(proto::Changes { changes }), bytes)
    }
}

fn xattr_bytes(entry: &holdfast_format::entry::Entry) -> usize {
    use holdfast_format::entry::XattrValue;
    entry
        .xattrs
        .iter()
        .map(|xattr| {
            xattr.name.len()
                + match &xattr.value {
                    XattrValue::Inline(value) => value.len(),
                    XattrValue::Chunks(chunks) => chunks.len() * EXTENT_BYTES,
                }
        })
        .sum()
}
