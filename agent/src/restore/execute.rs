//! From the stream of entries to a finished tree: walks the directories, hands entries to the writing
//! threads in batches, collects what they need into windows, fetches those, and links what is linked.
//!
//! Runs on one blocking thread plus `WRITERS` more. While one window is fetched and written, the next
//! is prepared; never more than two are alive.

use super::context::Context;
use super::dirs::TargetDir;
use super::extras::{self, KnownNames};
use super::fetch::Fetcher;
use super::file::FileJob;
use super::item::{Body, Incoming, Item, Link};
use super::local;
use super::meta::Meta;
use super::pool::Pool;
use super::prepare;
use super::spill::HashRuns;
use super::walk::{Step, Walk};
use super::window::{MAX_EXTENTS, Window};
use super::writer;
use crate::error::Result;
use crate::{Error, ItemProblem};
use holdfast_format::entry::{Extent, Kind};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Threads that write, beside the one that plans.
pub const WRITERS: usize = 2;
/// Entries of a batch, and bytes of them.
const BATCH_ITEMS: usize = 128;
const BATCH_BYTES: usize = 512 * 1024;
/// The first window is small, so that the first byte comes early.
const FIRST_EXTENTS: usize = 2_048;
/// Bytes of postponed hard links per window.
const LINK_BYTES: usize = 8 << 20;

/// Entries with the directory they lie in, which is held for each.
pub type Batch = Vec<(Arc<TargetDir>, Item)>;

/// What comes from the coordinator: parts of the entry stream in order, or the error that ended it.
pub type Source = mpsc::Receiver<Result<Vec<Incoming>>>;

/// Restores everything that `source` gives. Blocking. Errors are left in the context.
pub fn execute(
    context: &Arc<Context>,
    pool: &Arc<Pool<Batch>>,
    fetcher: &Fetcher,
    mut source: Source,
) {
    let mut planner = Planner::new(context, pool, fetcher);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| writer::run(context, pool));
        }
        let _close = CloseOnDrop(pool);
        if let Err(error) = planner.run(&mut source) {
            context.fail(error);
        }
        // Ends the stream of entries where the run ends early.
        drop(source);
    });
    // The writers are gone: what they left unfinished can be removed.
    planner.end();
}

/// Lets the writers go also when the planner panics.
struct CloseOnDrop<'a>(&'a Pool<Batch>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Level {
    dir: Arc<TargetDir>,
    known: KnownNames,
}

struct Long {
    job: Arc<FileJob>,
    offset: u64,
}

struct Planner<'a> {
    context: &'a Context,
    pool: &'a Pool<Batch>,
    fetcher: &'a Fetcher,
    levels: Vec<Level>,
    /// Levels below a directory that could not be made: everything in them is left out.
    lost_levels: usize,
    batch: Batch,
    batch_bytes: usize,
    window: Arc<Window>,
    extents: usize,
    limit: usize,
    links: Batch,
    link_bytes: usize,
    previous: Option<(Arc<Window>, Batch)>,
    long: Option<Long>,
    groups: HashRuns,
}

fn spill_error(source: io::Error) -> Error {
    Error::Io {
        what: "use a temporary file of the restore",
        path: String::new(),
        source,
    }
}

/// Errors of the walk's spill file on their way through the walk.
struct WalkError(Error);

impl From<io::Error> for WalkError {
    fn from(source: io::Error) -> Self {
        Self(spill_error(source))
    }
}

impl<'a> Planner<'a> {
    fn new(context: &'a Context, pool: &'a Pool<Batch>, fetcher: &'a Fetcher) -> Self {
        Self {
            context,
            pool,
            fetcher,
            levels: Vec::new(),
            lost_levels: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            window: Arc::default(),
            extents: 0,
            limit: FIRST_EXTENTS,
            links: Vec::new(),
            link_bytes: 0,
            previous: None,
            long: None,
            groups: HashRuns::new(&context.temporary),
        }
    }

    fn run(&mut self, source: &mut Source) -> Result<()> {
        let mut walk = Walk::new(&self.context.temporary);
        while let Some(parts) = source.blocking_recv() {
            for part in parts? {
                if self.context.is_stopped() {
                    return Ok(());
                }
                self.part(&mut walk, part)?;
            }
        }
        if self.context.is_stopped() {
            return Ok(());
        }
        self.end_long();
        self.root(None)?;
        walk.finish(&mut |step| self.step(step)).map_err(|e| e.0)?;
        self.close_window();
        self.finish_previous();
        Ok(())
    }

    fn part(&mut self, walk: &mut Walk, part: Incoming) -> Result<()> {
        match part {
            Incoming::More(extents) => self.more(&extents),
            Incoming::End => self.end_long(),
            Incoming::Root(meta) => self.root(Some(meta))?,
            Incoming::Lost { path, detail } => {
                walk.tolerate_missing_parents();
                let problem = ItemProblem::new("EntriesDamaged", detail);
                self.context.tally.problem(path, problem);
            }
            Incoming::Refused { path, rule } => {
                let problem = ItemProblem::new("InvalidEntry", rule);
                self.context.tally.problem(path, problem);
            }
            Incoming::Item(item) => self.item(walk, item, false)?,
            Incoming::Long(item) => self.item(walk, item, true)?,
        }
        Ok(())
    }

    /// The first level, once; its entry may be lost.
    fn root(&mut self, meta: Option<Meta>) -> Result<()> {
        if !self.levels.is_empty() || self.lost_levels > 0 {
            return Ok(());
        }
        let dir = TargetDir::root(self.context, meta).map_err(|errno| Error::Io {
            what: "open target",
            path: ".".to_owned(),
            source: errno.into(),
        })?;
        // Held beyond the walk: its times are set when the marker is gone.
        dir.hold();
        let known = KnownNames::of(self.context, &dir);
        self.levels.push(Level { dir, known });
        Ok(())
    }

    fn item(&mut self, walk: &mut Walk, item: Item, long: bool) -> Result<()> {
        self.end_long();
        self.root(None)?;
        let accepted = walk.accept(&item.path, &mut |step| self.step(step));
        if let Err(rule) = accepted.map_err(|e| e.0)? {
            let problem = ItemProblem::new("InvalidEntry", rule);
            self.context.tally.problem(item.path.to_string(), problem);
            return Ok(());
        }
        let name = item.path.name();
        if self.lost_levels > 0 {
            let detail = "the directory it lies in could not be restored";
            self.context.leave_out(&item.path, "ParentMissing", detail);
            if item.meta.kind == Kind::Directory {
                walk.directory(name, &item.meta.encode_directory())
                    .map_err(spill_error)?;
            }
            return Ok(());
        }
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        level.known.add(name).map_err(spill_error)?;
        if item.meta.kind == Kind::Directory {
            let record = item.meta.encode_directory();
            return walk.directory(name, &record).map_err(spill_error);
        }
        let dir = level.dir.clone();
        self.take(dir, item, long)
    }

    /// An entry that is no directory.
    fn take(&mut self, dir: Arc<TargetDir>, item: Item, long: bool) -> Result<()> {
        let linked = match &item.link {
            None => false,
            Some(Link::Inside(_)) => true,
            Some(Link::Outside(group)) => {
                let key = group.as_bytes();
                let known = self.groups.contains(key).map_err(spill_error)?;
                if !known {
                    self.groups.insert(key, 0).map_err(spill_error)?;
                }
                known
            }
        };
        if linked {
            // Its content is that of the member before; what follows of it is ignored.
            let item = Item {
                body: Body::Empty,
                ..item
            };
            dir.hold();
            self.link_bytes += item.weight();
            self.links.push((dir, item));
            if self.links.len() >= MAX_EXTENTS || self.link_bytes >= LINK_BYTES {
                self.close_window();
            }
            return Ok(());
        }
        if long {
            self.begin_long(dir, item);
            return Ok(());
        }
        let extents = item.extent_count();
        if self.extents + extents > self.limit {
            self.close_window();
        }
        self.extents += extents;
        self.batch_bytes += item.weight();
        dir.hold();
        self.batch.push((dir, item));
        if self.batch.len() >= BATCH_ITEMS || self.batch_bytes >= BATCH_BYTES {
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.batch_bytes = 0;
            self.pool
                .push_batch(self.context, self.window.clone(), batch);
        }
    }

    fn begin_long(&mut self, dir: Arc<TargetDir>, item: Item) {
        let Item {
            path,
            meta,
            body,
            link,
        } = item;
        let group = match link {
            Some(Link::Outside(group)) => Some(group),
            _ => None,
        };
        match prepare::job(self.context, &dir, &path, meta, group) {
            Ok(job) => {
                let job = Arc::new(job);
                self.long = Some(Long { job, offset: 0 });
                if let Body::Extents(extents) = body {
                    self.more(&extents);
                }
            }
            Err(errno) => self.context.item_failed(&path, "restore", errno),
        }
    }

    fn more(&mut self, extents: &[Extent]) {
        for part in extents.chunks(4_096) {
            if self.extents + part.len() > self.limit {
                self.close_window();
            }
            let Some(long) = &mut self.long else {
                return; // Of an entry that was left out.
            };
            let end = part.iter().try_fold(long.offset, |sum, extent| {
                let length = extent.length();
                sum.checked_add(length)
                    .filter(|sum| length > 0 && *sum <= long.job.meta().size)
            });
            if end.is_none() {
                let rule = "its extents go beyond its size";
                long.job.leave_out(self.context, "InvalidEntry", rule);
            }
            if long.job.is_failed() {
                continue;
            }
            let mut needs = Vec::new();
            let (context, job) = (self.context, &long.job);
            long.offset =
                prepare::plan_extents(context, &self.window, job, part, long.offset, &mut needs);
            self.window.watch(job.clone());
            self.window.add(needs);
            self.extents += part.len();
        }
    }

    fn end_long(&mut self) {
        let Some(Long { job, offset }) = self.long.take() else {
            return;
        };
        let size = job.meta().size;
        if offset != size {
            job.leave_out(
                self.context,
                "InvalidEntry",
                "its extents end before its size",
            );
        } else {
            local::compare_end(self.context, &job, size);
        }
        self.window.watch(job.clone());
        job.done(self.context);
    }

    fn step(&mut self, step: Step) -> Result<(), WalkError> {
        match step {
            Step::ListingEnds => {
                if let Some(level) = self.levels.last_mut().filter(|_| self.lost_levels == 0) {
                    extras::clear(self.context, &level.dir, &level.known);
                    // Directories may be deep and wide: names are kept of one at a time.
                    level.known.forget();
                }
            }
            Step::Leave if self.lost_levels > 0 => self.lost_levels -= 1,
            Step::Leave => {
                if let Some(level) = self.levels.pop() {
                    if self.levels.is_empty() {
                        // The root stays for `end`.
                        level.dir.clone().release(self.context);
                        self.levels.push(level);
                    } else {
                        level.dir.release(self.context);
                    }
                }
            }
            Step::Enter { path, record } => {
                let meta = Meta::decode_directory(&record)?;
                self.enter(path, Some(meta));
            }
            Step::EnterLost { path } => {
                if self.lost_levels == 0 {
                    let detail = "its entry is damaged: made without owner, mode and times";
                    self.context.leave_out(&path, "EntriesDamaged", detail);
                }
                self.enter(path, None);
            }
        }
        Ok(())
    }

    fn enter(&mut self, path: holdfast_format::path::RelPath, meta: Option<Meta>) {
        if self.lost_levels > 0 || self.context.is_stopped() {
            self.lost_levels += 1;
            return;
        }
        let Some(top) = self.levels.last() else {
            self.lost_levels += 1;
            return;
        };
        let mut entered = top.dir.enter(self.context, path.clone(), meta.clone());
        if entered.is_err() && !self.context.is_stopped() {
            entered = self.enter_again(&path, meta, entered);
        }
        match entered {
            Ok(dir) => {
                let known = KnownNames::of(self.context, &dir);
                self.levels.push(Level { dir, known });
            }
            Err(errno) => {
                self.context.item_failed(&path, "make directory", errno);
                self.lost_levels += 1;
            }
        }
    }

    fn enter_again(
        &mut self,
        path: &holdfast_format::path::RelPath,
        meta: Option<Meta>,
        failed: crate::beneath::Result<Arc<TargetDir>>,
    ) -> crate::beneath::Result<Arc<TargetDir>> {
        // Too many open descriptors elsewhere in the process: closing ours may help once.
        match (&failed, self.levels.last()) {
            (Err(crate::beneath::Errno::MFILE), Some(top)) => {
                self.context.dirs.close_all();
                top.dir.enter(self.context, path.clone(), meta)
            }
            _ => failed,
        }
    }

    /// Everything planned so far goes on its way; the window before it is finished.
    fn close_window(&mut self) {
        self.flush();
        if !self.window.wait_prepared(self.context) {
            return;
        }
        let wanted = self.window.wanted();
        if !wanted.is_empty() {
            self.fetcher.start(self.window.clone(), wanted);
        }
        self.finish_previous();
        let window = std::mem::take(&mut self.window);
        self.previous = Some((window, std::mem::take(&mut self.links)));
        self.link_bytes = 0;
        self.extents = 0;
        self.limit = (self.limit * 4).min(MAX_EXTENTS);
    }

    fn finish_previous(&mut self) {
        let Some((window, links)) = self.previous.take() else {
            return;
        };
        if !window.wait_written(self.context) {
            self.previous = Some((window, links));
            return;
        }
        for (dir, item) in links {
            if !self.context.is_stopped() {
                prepare::link(self.context, &dir, &item);
            }
            dir.release(self.context);
        }
    }

    /// Settles the root of a run that ends well; removes what one that ends early leaves.
    fn end(mut self) {
        let context = self.context;
        if context.is_stopped() {
            let windows = self.previous.take().map(|(window, _)| window);
            for window in windows.into_iter().chain([self.window]) {
                window.clean_up(context);
            }
            let long = self.long.take();
            long.iter().for_each(|long| long.job.clean_up(context));
            return;
        }
        let Some(Level { dir, .. }) = self.levels.pop() else {
            return;
        };
        let finished = || -> crate::beneath::Result<()> {
            let touched = context.is_touched();
            let handle = touched.then(|| dir.dir(context)).transpose()?;
            if let Some(handle) = &handle {
                // Durable before the marker goes: without it nobody would look again.
                rustix::fs::syncfs(&**handle)?;
                context.unmark(handle)?;
            }
            dir.clone().release(context);
            handle.map_or(Ok(()), |handle| rustix::fs::fsync(&*handle))
        };
        if let Err(errno) = finished() {
            context.item_failed(&dir.path(), "finish", errno);
        }
    }
}
