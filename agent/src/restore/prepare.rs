//! What a writing thread does with one entry that is no directory: looks at what stands there, keeps,
//! replaces or makes it, and says which chunks it needs.

use super::context::{Context, lock};
use super::dirs::TargetDir;
use super::extras;
use super::file::{FileJob, Local};
use super::item::{Body, Item, Link};
use super::local;
use super::meta::{self, Meta};
use super::plan::{Decision, decide};
use super::policy::Skip;
use super::report::Action;
use super::window::{Need, Window};
use crate::beneath::{Dir, Errno, Result, write};
use crate::stat::Stat;
use holdfast_format::entry::{Extent, Kind};
use holdfast_format::path::RelPath;
use rustix::fd::AsFd;
use rustix::fs::FileType;
use std::sync::Arc;

/// Prepares one entry; its directory is held by the caller.
pub fn prepare(context: &Context, window: &Window, dir: &Arc<TargetDir>, item: Item) {
    if context.is_stopped() {
        return;
    }
    let path = item.path.clone();
    let done = if item.meta.kind == Kind::File {
        file(context, window, dir, item)
    } else {
        other(context, dir, &item)
    };
    if let Err(errno) = done {
        context.item_failed(&path, "restore", errno);
    }
}

fn look(context: &Context, dir: &Arc<TargetDir>, name: &[u8]) -> Result<Option<Stat>> {
    if dir.is_fresh() {
        return Ok(None);
    }
    dir.dir(context)?.found(name)
}

/// A job for a file, knowing what stands in its place. `None`: passed over.
pub fn job(
    context: &Context,
    dir: &Arc<TargetDir>,
    path: &RelPath,
    meta: Meta,
    group: Option<RelPath>,
) -> Result<FileJob> {
    let found = look(context, dir, path.name())?;
    let decision = decide(meta.kind, found.as_ref(), &context.policy);
    let new = |dir: &Arc<TargetDir>| FileJob::new(context, dir.clone(), path.name(), meta, group);
    match decision {
        // Regular files are never passed over.
        Decision::Make | Decision::PassOver => Ok(new(dir)),
        Decision::Replace => Ok(new(dir).over(None)),
        Decision::ClearDirectory => {
            if !context.dry_run {
                extras::clear_directory(context, dir, path.name())?;
            }
            Ok(new(dir))
        }
        Decision::Compare => match dir.dir(context)?.open_existing(path.name()) {
            Ok(file) => {
                let stat = write::stat_fd(file.as_fd())?;
                Ok(new(dir).over(Some(Local { file, stat })))
            }
            // What may not be read cannot be compared, only replaced.
            Err(Errno::ACCESS | Errno::PERM) => Ok(new(dir).over(None)),
            Err(errno) => Err(errno),
        },
    }
}

fn file(context: &Context, window: &Window, dir: &Arc<TargetDir>, item: Item) -> Result<()> {
    let group = match item.link {
        Some(Link::Outside(group)) => Some(group),
        _ => None,
    };
    let size = item.meta.size;
    let job = job(context, dir, &item.path, item.meta, group)?;
    match item.body {
        Body::Empty => whole(context, job, &[]),
        Body::Inline(bytes) => whole(context, job, &bytes),
        Body::Extents(extents) => {
            let one = matches!(extents.as_slice(), [Extent::Chunk { .. }]);
            let job = Arc::new(if one { job.single() } else { job });
            let mut needs = Vec::new();
            plan_extents(context, window, &job, &extents, 0, &mut needs);
            local::compare_end(context, &job, size);
            window.add(needs);
            job.done(context);
        }
    }
    Ok(())
}

/// Which of the extents from `offset` on are needed; holes of new files need nothing. Returns the
/// offset after them.
pub fn plan_extents(
    context: &Context,
    window: &Window,
    job: &Arc<FileJob>,
    extents: &[Extent],
    offset: u64,
    needs: &mut Vec<Need>,
) -> u64 {
    let first = needs.len();
    let end = if job.local().is_some() {
        local::compare(context, job, extents, offset, needs)
    } else {
        let mut at = offset;
        for extent in extents {
            if let Extent::Chunk { id, length } = extent {
                needs.push(Need {
                    job: job.clone(),
                    id: *id,
                    length: *length,
                    offset: at,
                });
            }
            at += extent.length();
        }
        at
    };
    if context.dry_run || job.is_failed() {
        let bytes = needs[first..].iter().map(|need| u64::from(need.length));
        job.would_write(bytes.sum());
        needs.truncate(first);
    }
    if needs.len() > first {
        window.watch(job.clone());
    }
    end
}

/// A file whose whole content is at hand.
fn whole(context: &Context, job: FileJob, bytes: &[u8]) {
    let equal = job
        .local()
        .is_some_and(|local| local::has_bytes(&local.file, local.stat.size, bytes));
    if equal {
        return job.done(context);
    }
    if context.dry_run {
        job.would_write(bytes.len() as u64);
        let job = Arc::new(job);
        if let Err(errno) = job.begin_change(context, 0) {
            job.give_up(context, "write", errno);
        }
        return job.done(context);
    }
    job.write_all(context, bytes);
}

/// Symlinks, FIFOs, sockets, devices.
fn other(context: &Context, dir: &Arc<TargetDir>, item: &Item) -> Result<()> {
    let (name, want) = (item.path.name(), &item.meta);
    let found = look(context, dir, name)?;
    let decision = decide(want.kind, found.as_ref(), &context.policy);
    let action = match (decision, &found) {
        // What may not be made may stand there already.
        (Decision::PassOver, Some(found))
            if found.kind == want.kind && is_same(context, dir, name, found, want)? =>
        {
            Action::Keep
        }
        (Decision::PassOver, _) => {
            context.tally.skipped.add(Skip::Devices);
            return Ok(());
        }
        (Decision::Compare, Some(found)) if is_same(context, dir, name, found, want)? => {
            Action::Keep
        }
        (Decision::Make, _) => Action::Create,
        _ => Action::Replace,
    };
    if action != Action::Keep && !context.dry_run {
        if decision == Decision::ClearDirectory {
            extras::clear_directory(context, dir, name)?;
        }
        if !make(context, dir, name, want, action)? {
            return Ok(());
        }
    }
    dir.would_do(context, action);
    context
        .tally
        .did(action, Some(want.kind), || item.path.clone(), 0);
    context.progress.others.add(1);
    let mut links = lock(&context.links);
    let noted = match &item.link {
        Some(Link::Outside(group)) => links.finished_elsewhere(group, &item.path),
        _ => links.finished(&item.path),
    };
    let noted = noted.and_then(|()| match action {
        Action::Create | Action::Replace if context.dry_run => links.would_be_new(&item.path),
        _ => Ok(()),
    });
    noted.map_err(|_| Errno::IO)
}

fn is_same(
    context: &Context,
    dir: &Arc<TargetDir>,
    name: &[u8],
    found: &Stat,
    want: &Meta,
) -> Result<bool> {
    if !meta::is_settled_at(found, want, &context.policy) {
        return Ok(false);
    }
    Ok(want.kind != Kind::Symlink || dir.dir(context)?.readlink(name)? == want.target.as_ref())
}

/// Makes it and gives it its name; `false` where this process may not.
fn make(
    context: &Context,
    dir: &Arc<TargetDir>,
    name: &[u8],
    want: &Meta,
    action: Action,
) -> Result<bool> {
    let dir_handle = dir.dir_for_change(context)?;
    let direct = action == Action::Create && dir.is_fresh();
    let temporary;
    let under = if direct {
        name
    } else {
        temporary = context.names.temporary();
        &temporary
    };
    match node(&dir_handle, under, want) {
        Err(Errno::PERM) if matches!(want.kind, Kind::CharDevice | Kind::BlockDevice) => {
            context.tally.skipped.add(Skip::Devices);
            return Ok(false);
        }
        done => done?,
    }
    let settle = || -> Result<()> {
        let (policy, skipped) = (&context.policy, &context.tally.skipped);
        meta::settle_new_at(&dir_handle, under, want, policy, skipped)?;
        if direct {
            return Ok(());
        }
        match action {
            Action::Replace => dir_handle.rename_over(under, name),
            _ => dir_handle.rename_new(under, name),
        }
    };
    settle().inspect_err(|_| {
        // The first error is the one reported.
        let _ = dir_handle.unlink(under);
    })?;
    Ok(true)
}

fn node(dir: &Dir, name: &[u8], want: &Meta) -> Result<()> {
    let kind = match want.kind {
        Kind::Symlink => return dir.make_symlink(name, &want.target),
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::File | Kind::Directory => return Err(Errno::INVAL),
    };
    dir.make_node(name, kind, want.rdev)
}

/// A further name of an inode that this restore finished. Everything before it is written.
pub fn link(context: &Context, dir: &Arc<TargetDir>, item: &Item) {
    let place = {
        let links = lock(&context.links);
        match &item.link {
            Some(Link::Inside(path)) => links.place(path),
            Some(Link::Outside(group)) => links.place_of_group(group),
            None => Ok(None),
        }
    };
    match place {
        Err(_) => context.item_failed(&item.path, "look up link group of", Errno::IO),
        Ok(None) => {
            let detail = "the file it is a hard link to was not restored";
            context.leave_out(&item.path, "LinkTargetMissing", detail);
        }
        Ok(Some(place)) => {
            if let Err(errno) = link_to(context, dir, item, &place) {
                context.item_failed(&item.path, "link", errno);
            }
        }
    }
}

/// Of a dry run: whether this name is one of the inode at `place` already, and that inode stays.
fn stays_linked(context: &Context, found: &Stat, place: &RelPath) -> Result<bool> {
    let Some(root) = &context.root else {
        return Ok(false);
    };
    let there = match root.parent_of(place)? {
        Some((dir, name)) => dir.found(name)?,
        None => None,
    };
    let same = there.is_some_and(|there| (found.dev, found.ino) == (there.dev, there.ino));
    let stays = lock(&context.links).would_stay(place);
    Ok(same && stays.map_err(|_| Errno::IO)?)
}

fn link_to(context: &Context, dir: &Arc<TargetDir>, item: &Item, place: &RelPath) -> Result<()> {
    let (name, kind) = (item.path.name(), item.meta.kind);
    let found = look(context, dir, name)?;
    if context.dry_run {
        let action = match &found {
            None => Action::Create,
            Some(found) if stays_linked(context, found, place)? => Action::Keep,
            Some(_) => Action::Replace,
        };
        dir.would_do(context, action);
        context
            .tally
            .did(action, Some(kind), || item.path.clone(), 0);
        if action == Action::Create {
            context.tally.needs_no_inode();
        }
        return Ok(());
    }
    let root = context.root.as_ref().ok_or(Errno::NOENT)?;
    let (from_dir, from) = root.parent_of(place)?.ok_or(Errno::INVAL)?;
    let source = from_dir.stat(from)?;
    if source.kind != kind {
        // Not what this restore put there.
        return Err(Errno::LOOP);
    }
    let same = |found: &Stat| (found.dev, found.ino) == (source.dev, source.ino);
    let action = match &found {
        Some(found) if same(found) => Action::Keep,
        Some(found) => {
            if found.kind == Kind::Directory {
                extras::clear_directory(context, dir, name)?;
            }
            Action::Replace
        }
        None => Action::Create,
    };
    if action != Action::Keep {
        let here = dir.dir_for_change(context)?;
        if action == Action::Create {
            here.link_here(name, &from_dir, from)?;
        } else {
            let temporary = context.names.temporary();
            here.link_here(&temporary, &from_dir, from)?;
            here.rename_over(&temporary, name)?;
        }
    }
    context
        .tally
        .did(action, Some(kind), || item.path.clone(), 0);
    if kind == Kind::File {
        context.progress.files.add(1);
        context.progress.done_files.add(1);
        context.progress.done_bytes.add(item.meta.size);
    } else {
        context.progress.others.add(1);
    }
    Ok(())
}
