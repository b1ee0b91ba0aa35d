//! One regular file on its way: made under a temporary name, filled in any order, settled and moved to
//! its name when its last byte is there. Only verified bytes reach it.
//!
//! A file that comes whole in one piece into a fresh directory is made under its own name: the marker
//! of the restore stands in the target until everything is complete, and a run that resumes verifies
//! content. All methods may be called by several threads at once.

mod complete;

use super::context::{Context, lock};
use super::copy::{copy_range, errno_of, write_zeros};
use super::dirs::TargetDir;
use super::meta::{self, Have, How, Meta};
use super::output::Output;
use super::plan;
use super::report::Action;
use crate::beneath::{Dir, Errno, Result, write};
use crate::stat::Stat;
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use rustix::fd::AsFd;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a finished file does to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing may be there.
    New,
    /// It takes the place of a file that is there.
    Over,
}

/// The file that stands at the name already.
pub struct Local {
    /// Open for reading.
    pub file: File,
    /// As it was when it was opened.
    pub stat: Stat,
}

#[derive(Default)]
struct Writing {
    /// The name the bytes are written under, and the inode made for it; `None`: nothing written yet.
    temporary: Option<(Vec<u8>, u64)>,
    /// Written into the local file itself.
    in_place: bool,
}

/// One regular file being restored.
pub struct FileJob {
    number: u64,
    dir: Arc<TargetDir>,
    name: Vec<u8>,
    meta: Meta,
    place: Place,
    local: Option<Local>,
    /// The link group it is the first restored member of, where the group's own path is not restored.
    group: Option<RelPath>,
    /// Its whole content is one chunk.
    single: bool,
    left: AtomicU64,
    failed: AtomicBool,
    /// Of a dry run: something would be written.
    differs: AtomicBool,
    written: AtomicU64,
    /// Bytes already told to the progress; the rest follows when it is finished.
    told: AtomicU64,
    writing: Mutex<Writing>,
}

impl FileJob {
    /// A file with nothing written; its maker holds it until `done`.
    pub fn new(
        context: &Context,
        dir: Arc<TargetDir>,
        name: &[u8],
        meta: Meta,
        group: Option<RelPath>,
    ) -> Self {
        dir.hold();
        Self {
            number: context.files.number(),
            dir,
            name: name.to_vec(),
            meta,
            place: Place::New,
            local: None,
            group,
            single: false,
            left: AtomicU64::new(1),
            failed: AtomicBool::new(false),
            differs: AtomicBool::new(false),
            written: AtomicU64::new(0),
            told: AtomicU64::new(0),
            writing: Mutex::default(),
        }
    }

    /// It takes the place of what is there; `local` is the regular file to compare with.
    pub fn over(mut self, local: Option<Local>) -> Self {
        self.place = Place::Over;
        self.local = local;
        self
    }

    /// Its whole content will come as one chunk.
    pub fn single(mut self) -> Self {
        self.single = self.local.is_none();
        self
    }

    /// Path below the target.
    pub fn path(&self) -> RelPath {
        self.dir.path_of(&self.name)
    }

    /// Metadata it is to have.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The file that was there.
    pub fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }

    /// Whether it was given up.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Chunks that will be written, or given up, one `done` each.
    pub fn expect(&self, chunks: u64) {
        self.left.fetch_add(chunks, Ordering::AcqRel);
    }

    /// Gives the file up for a reason of its own; named once.
    pub fn leave_out(&self, context: &Context, reason: &'static str, detail: impl Into<String>) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            context.leave_out(&self.path(), reason, detail);
        }
    }

    /// Gives the file up because of an error.
    pub fn give_up(&self, context: &Context, what: &str, errno: Errno) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            context.item_failed(&self.path(), what, errno);
        }
    }

    /// Writes verified bytes at an offset. Not followed by `done`.
    pub fn write(&self, context: &Context, offset: u64, bytes: &[u8]) {
        if self.is_failed() {
            return;
        }
        let result = if self.single {
            self.write_whole(context, bytes)
        } else {
            self.output(context).and_then(|output| {
                let written = output.write(bytes, offset);
                written.map_err(|error| errno_of(&error))
            })
        };
        match result {
            Ok(()) => self.count(context, bytes.len() as u64),
            Err(errno) => self.give_up(context, "write", errno),
        }
    }

    /// Writes a whole file that is at hand, ends it, and needs no `done`.
    pub fn write_all(mut self, context: &Context, bytes: &[u8]) {
        self.single = true;
        self.write(context, 0, bytes);
        self.finish(context);
    }

    /// Of a dry run: bytes that would be written.
    pub fn would_write(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count(&self, context: &Context, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        context
            .tally
            .written_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        context.progress.written_bytes.add(bytes);
        self.tell(context, bytes);
    }

    fn tell(&self, context: &Context, bytes: u64) {
        self.told.fetch_add(bytes, Ordering::Relaxed);
        context.progress.done_bytes.add(bytes);
    }

    /// A local range is as it should be: it is kept, or copied where the file is made anew.
    pub fn keep(&self, context: &Context, start: u64, end: u64) {
        self.tell(context, end.saturating_sub(start));
        let writing = lock(&self.writing);
        let copied = writing.temporary.is_some() && !writing.in_place;
        drop(writing);
        if copied && start < end && !self.is_failed() {
            let copy = self.output(context).and_then(|output| match &self.local {
                Some(local) => copy_range(&local.file, output.file(), start, end),
                None => Ok(()),
            });
            if let Err(errno) = copy {
                self.give_up(context, "copy unchanged range of", errno);
            }
        }
    }

    /// A local range must become a hole.
    pub fn punch(&self, context: &Context, start: u64, end: u64) {
        if self.is_failed() {
            return;
        }
        let done = self.begin_change(context, start).and_then(|()| {
            if !lock(&self.writing).in_place {
                return Ok(()); // A new file has holes where nothing is written.
            }
            let output = self.output(context)?;
            let file = output.file();
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(file, flags, start, end - start) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, start, end),
                done => done,
            }
        });
        if let Err(errno) = done {
            self.give_up(context, "punch hole in", errno);
        }
    }

    /// Something differs, first at this offset: from here on the file is written. What lies before
    /// is kept.
    pub fn begin_change(&self, context: &Context, same_until: u64) -> Result<()> {
        let Some(local) = &self.local else {
            return Ok(());
        };
        if context.dry_run {
            self.differs.store(true, Ordering::Release);
            return Ok(());
        }
        let mut writing = lock(&self.writing);
        if writing.in_place || writing.temporary.is_some() {
            return Ok(());
        }
        let dir = self.dir.dir_for_change(context)?;
        if plan::writes_in_place(&local.stat, self.meta.size) {
            match dir.open_for_writing(&self.name) {
                Ok(file) => {
                    let stat = write::stat_fd(file.as_fd())?;
                    if (stat.dev, stat.ino, stat.nlink) != (local.stat.dev, local.stat.ino, 1) {
                        return Err(Errno::LOOP);
                    }
                    writing.in_place = true;
                    context.files.keep(self.number, Output::cached(file));
                    return Ok(());
                }
                // A file that may not be written can still be replaced.
                Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {}
                Err(errno) => return Err(errno),
            }
        }
        let output = self.make_temporary(context, &dir, &mut writing)?;
        copy_range(&local.file, output.file(), 0, same_until)
    }

    fn make_temporary(
        &self,
        context: &Context,
        dir: &Dir,
        writing: &mut Writing,
    ) -> Result<Arc<Output>> {
        let name = context.names.temporary();
        let output = self.output_of(dir.create_file(&name, 0o600)?, dir, &name);
        writing.temporary = Some((name, output.ino()));
        Ok(context.files.keep(self.number, output))
    }

    fn output_of(&self, file: File, dir: &Dir, name: &[u8]) -> Output {
        match self.local {
            // Others have it in use, or its pages have just been read.
            Some(_) => Output::cached(file),
            None => Output::of_size(file, dir, name, self.meta.size),
        }
    }

    /// The file being written, made or opened again where need be.
    fn output(&self, context: &Context) -> Result<Arc<Output>> {
        let mut writing = lock(&self.writing);
        if let Some(output) = context.files.get(self.number) {
            return Ok(output);
        }
        let dir = self.dir.dir_for_change(context)?;
        let (name, ino) = match &writing.temporary {
            Some((name, ino)) => (name.as_slice(), *ino),
            None if writing.in_place => {
                let local = self.local.as_ref().map_or(0, |local| local.stat.ino);
                (self.name.as_slice(), local)
            }
            None => return self.make_temporary(context, &dir, &mut writing),
        };
        let file = dir.open_for_writing(name)?;
        if write::stat_fd(file.as_fd())?.ino != ino {
            return Err(Errno::LOOP);
        }
        let output = self.output_of(file, &dir, name);
        Ok(context.files.keep(self.number, output))
    }

    /// The whole content at once: made, filled, settled and named in as few calls as it takes.
    fn write_whole(&self, context: &Context, bytes: &[u8]) -> Result<()> {
        let dir = self.dir.dir_for_change(context)?;
        let direct = self.place == Place::New && self.dir.is_fresh();
        let name = if direct {
            self.name.clone()
        } else {
            context.names.temporary()
        };
        let policy = &context.policy;
        let mode = policy.creation_mode(&self.meta);
        let file = dir.create_file(&name, mode)?;
        let fill = || -> Result<()> {
            file.write_all_at(bytes, 0)
                .map_err(|error| errno_of(&error))?;
            let have = self.have_of_new(context, &file, mode)?;
            let skipped = &context.tally.skipped;
            meta::settle(file.as_fd(), &self.meta, &have, policy, skipped, How::Make)?;
            match (direct, self.place) {
                (true, _) => Ok(()),
                (false, Place::New) => dir.rename_new(&name, &self.name),
                (false, Place::Over) => dir.rename_over(&name, &self.name),
            }
        };
        fill().inspect_err(|_| {
            // The error that is reported is the first one; a name that stays is found on resume.
            let _ = dir.unlink(&name);
        })
    }

    fn have_of_new(&self, context: &Context, file: &File, mode: u32) -> Result<Have> {
        let inherited = self.dir.inherited();
        if inherited.acl {
            return Have::read(file.as_fd(), &write::stat_fd(file.as_fd())?);
        }
        Ok(Have {
            mode: Some(mode),
            owner: inherited.own_group.then(|| context.policy.created_as()),
            mtime_ns: None,
            xattrs: Vec::new(),
        })
    }

    /// One expected chunk is written, or the maker is through. The last one finishes the file.
    pub fn done(&self, context: &Context) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(context);
        }
    }

    fn finish(&self, context: &Context) {
        if !self.is_failed() && !context.is_stopped() {
            match self.complete(context) {
                Ok(action) => self.report(context, action),
                Err(errno) => self.give_up(context, "finish", errno),
            }
        }
        self.clean_up(context);
        self.dir.clone().release(context);
    }

    fn report(&self, context: &Context, action: Action) {
        let (kind, written) = (Some(Kind::File), self.written.load(Ordering::Relaxed));
        // What is overwritten or replaced gives its room back.
        let over = self.local.as_ref();
        let had = over.map_or(0, |local| local.stat.allocated_bytes);
        context.tally.needs(written.saturating_sub(had));
        let in_place = over.is_some_and(|l| plan::writes_in_place(&l.stat, self.meta.size));
        let to_name = match action {
            Action::Replace if in_place => Action::Metadata,
            action => action,
        };
        self.dir.would_do(context, to_name);
        context.tally.did(action, kind, || self.path(), written);
        context.progress.files.add(1);
        context.progress.content_bytes.add(self.meta.size);
        context.progress.done_files.add(1);
        let told = self.told.load(Ordering::Relaxed);
        let rest = self.meta.size.saturating_sub(told);
        context.progress.done_bytes.add(rest);
        let path = self.path();
        let mut links = lock(&context.links);
        let noted = match &self.group {
            Some(group) => links.finished_elsewhere(group, &path),
            None => links.finished(&path),
        };
        let noted = noted.and_then(|()| match action {
            Action::Create | Action::Replace if context.dry_run => links.would_be_new(&path),
            _ => Ok(()),
        });
        if let Err(source) = noted {
            context.fail(crate::Error::Io {
                what: "write temporary file for",
                path: path.to_string(),
                source,
            });
        }
    }

    /// Removes what is unfinished. Also called where a run ends early; may be called again.
    pub fn clean_up(&self, context: &Context) {
        context.files.take(self.number);
        let left = lock(&self.writing).temporary.take();
        if let (Some((name, _)), Ok(dir)) = (left, self.dir.dir(context)) {
            // What cannot be removed now is found by its name when the restore is resumed.
            let _ = dir.unlink(&name);
        }
    }
}
