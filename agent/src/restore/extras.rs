//! What stands in the target and not in the snapshot: removed where the caller asked for it, and
//! always the temporary files that an earlier run of the same restore left behind.
//!
//! Removal goes through directory descriptors only, follows no link and crosses no mount; it holds at
//! most `MAX_DEPTH` descriptors, whatever the depth.

use super::context::{Context, Mode};
use super::dirs::TargetDir;
use super::report::Action;
use super::spill::HashRuns;
use crate::beneath::{Dir, Errno, Result, write};
use holdfast_format::entry::Kind;
use rustix::fd::AsFd;
use rustix::fs::FileType;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Deepest nesting that is walked with one descriptor per level.
const MAX_DEPTH: usize = 64;
/// Passes over a directory that changes while it is emptied.
const MAX_PASSES: usize = 16;

/// The snapshot's names of the directory whose listing is coming in.
pub struct KnownNames {
    /// `None`: nobody will ask.
    names: Option<HashRuns>,
}

impl KnownNames {
    /// For a directory that is about to be listed.
    pub fn of(context: &Context, dir: &TargetDir) -> Self {
        let asked = context.may_delete() && !dir.is_fresh();
        Self {
            names: asked.then(|| HashRuns::new(&context.temporary)),
        }
    }

    /// Nobody will ask any more.
    pub fn forget(&mut self) {
        self.names = None;
    }

    /// The snapshot has this name here.
    pub fn add(&mut self, name: &[u8]) -> std::io::Result<()> {
        match &mut self.names {
            Some(names) => names.insert(name, 0),
            None => Ok(()),
        }
    }
}

/// The listing of a directory is complete: removes what should not be in it.
pub fn clear(context: &Context, dir: &Arc<TargetDir>, known: &KnownNames) {
    if dir.is_fresh() || dir.is_missing() || context.mode == Mode::Fresh || context.is_stopped() {
        return;
    }
    // Without earlier temporary files and without deletion there is nothing to look for.
    if known.names.is_none() && !context.resumed {
        return;
    }
    for _ in 0..MAX_PASSES {
        match pass(context, dir, known) {
            // A name may be missed when its neighbour is removed during the listing: look again.
            Ok(removed) if removed > 0 && !context.dry_run => {}
            Ok(_) => return,
            Err(errno) => return context.item_failed(&dir.path(), "list directory", errno),
        }
    }
}

fn pass(context: &Context, dir: &Arc<TargetDir>, known: &KnownNames) -> Result<u64> {
    let listing = dir.dir(context)?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut removed = 0;
    let top = dir.is_top();
    listing.list(&mut buffer, |name, kind, _| -> Result<()> {
        let name = name.to_bytes();
        let left_behind = context.names.is_left_behind(name);
        let ours = context.names.is_in_use(name) || (top && name == context.names.marker());
        // mkfs made it, fsck needs it, and a snapshot of another filesystem lacks it.
        let kept = ours || (top && name == b"lost+found");
        let extra = match &known.names {
            Some(names) => !names.contains(name).map_err(|_| Errno::IO)?,
            None => false,
        };
        if kept || !(extra || left_behind) || context.is_stopped() {
            return Ok(());
        }
        let path = dir.path_of(name);
        if !left_behind {
            dir.would_do(context, Action::Delete);
            context.tally.did(Action::Delete, None, || path.clone(), 0);
        }
        if context.dry_run {
            return Ok(());
        }
        match dir
            .dir_for_change(context)
            .and_then(|dir| remove(context, &dir, name, kind))
        {
            Ok(()) => removed += 1,
            Err(errno) => context.item_failed(&path, "remove", errno),
        }
        Ok(())
    })?;
    Ok(removed)
}

/// A directory stands where the snapshot has something else: it goes, with everything in it only
/// where extras may be deleted.
pub fn clear_directory(context: &Context, dir: &Arc<TargetDir>, name: &[u8]) -> Result<()> {
    let parent = dir.dir_for_change(context)?;
    if context.may_delete() {
        return remove(context, &parent, name, FileType::Directory);
    }
    parent.remove_dir(name)
}

/// Removes a name and everything below it.
fn remove(context: &Context, dir: &Dir, name: &[u8], kind: FileType) -> Result<()> {
    if kind != FileType::Directory {
        match dir.unlink(name) {
            Err(Errno::ISDIR | Errno::PERM) if is_directory(dir, name) => {}
            Err(Errno::NOENT) => return Ok(()),
            done => return done,
        }
    }
    remove_tree(context, dir, name)
}

fn is_directory(dir: &Dir, name: &[u8]) -> bool {
    matches!(dir.found(name), Ok(Some(found)) if found.kind == Kind::Directory)
}

/// The directories on the way down are kept open; what lies deeper than `MAX_DEPTH` is first moved up
/// to where the removal began.
fn remove_tree(context: &Context, base: &Dir, name: &[u8]) -> Result<()> {
    let mut moved = vec![name.to_vec()];
    while let Some(name) = moved.pop() {
        let mut levels: Vec<(Dir, Vec<u8>)> = vec![(open(base, &name)?, name)];
        let mut passes = 0usize;
        while let Some((dir, _)) = levels.last() {
            if context.is_stopped() {
                return Ok(());
            }
            let subdirectories = unlink_files(dir)?;
            if let Some(below) = subdirectories.into_iter().next() {
                if levels.len() < MAX_DEPTH {
                    let next = open(dir, &below)?;
                    levels.push((next, below));
                } else {
                    let temporary = context.names.temporary();
                    base.adopt(&temporary, dir, &below)?;
                    moved.push(temporary);
                }
                continue;
            }
            let Some((_, name)) = levels.pop() else {
                break;
            };
            let parent = levels.last().map_or(base, |(dir, _)| dir);
            match parent.remove_dir(&name) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Somebody puts files in while we empty it.
                Err(Errno::NOTEMPTY) if passes < MAX_PASSES => {
                    passes += 1;
                    let again = open(parent, &name)?;
                    levels.push((again, name));
                }
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

fn open(dir: &Dir, name: &[u8]) -> Result<Dir> {
    match dir.open_dir(name) {
        Err(Errno::ACCESS) => {
            // Ours, and closed to us: opened up to be emptied.
            dir.set_mode_at(name, 0o700)?;
            dir.open_dir(name)
        }
        done => done,
    }
}

/// Unlinks everything but directories; the names of some directories, at least one where there are any.
fn unlink_files(dir: &Dir) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut subdirectories: Vec<Vec<u8>> = Vec::new();
    let mut opened_up = false;
    dir.list(&mut buffer, |name, kind, _| -> Result<()> {
        let name = name.to_bytes();
        let directory = match kind {
            FileType::Directory => true,
            FileType::Unknown => is_directory(dir, name),
            _ => false,
        };
        if directory {
            if subdirectories.is_empty() {
                subdirectories.push(name.to_vec());
            }
            return Ok(());
        }
        match dir.unlink(name) {
            Err(Errno::ACCESS) if !opened_up => {
                opened_up = true;
                write::set_mode(dir.as_fd(), 0o700)?;
                dir.unlink(name)
            }
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    })?;
    Ok(subdirectories)
}
