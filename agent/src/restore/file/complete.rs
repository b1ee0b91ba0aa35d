//! The last step of a file: all its bytes are there, and it gets its size, its metadata and its name, in this order.

use super::{FileJob, Place};
use crate::beneath::{Errno, Result, write};
use crate::restore::context::{Context, lock};
use crate::restore::copy::copy_range;
use crate::restore::meta::{self, Have, How};
use crate::restore::report::Action;
use rustix::fd::AsFd;
use std::fs::File;
use std::sync::atomic::Ordering;

impl FileJob {
    /// Everything is written: size, metadata, name.
    pub(super) fn complete(&self, context: &Context) -> Result<Action> {
        let unseen = self.local.is_none() || self.differs.load(Ordering::Acquire);
        if self.single || (context.dry_run && unseen) {
            return Ok(match self.place {
                Place::New => Action::Create,
                Place::Over => Action::Replace,
            });
        }
        let writing = lock(&self.writing);
        let (in_place, temporary) = (writing.in_place, writing.temporary.clone());
        drop(writing);
        let (policy, skipped) = (&context.policy, &context.tally.skipped);
        let settle = |file: &File, have: &Have, how| {
            meta::settle(file.as_fd(), &self.meta, have, policy, skipped, how)
        };
        if let (Some(local), false, None) = (&self.local, in_place, &temporary) {
            // Content is right. An inode with other names is not touched: they may lie outside.
            let have = Have::read(local.file.as_fd(), &local.stat)?;
            if !settle(&local.file, &have, How::Ask)? {
                // Kept as it is, it still counts what its entry has and it lacks.
                if local.stat.mode != self.meta.mode {
                    policy.mode(&self.meta, true, Some(skipped));
                }
                return Ok(Action::Keep);
            }
            if context.dry_run {
                return Ok(if local.stat.nlink == 1 {
                    Action::Metadata
                } else {
                    Action::Replace
                });
            }
            if local.stat.nlink == 1 {
                context.touch()?;
                settle(&local.file, &have, How::Make)?;
                return Ok(Action::Metadata);
            }
            let dir = self.dir.dir_for_change(context)?;
            let output = self.make_temporary(context, &dir, &mut lock(&self.writing))?;
            copy_range(&local.file, output.file(), 0, self.meta.size)?;
            return self.complete_written(context, output.file(), false);
        }
        let output = self.output(context)?;
        self.complete_written(context, output.file(), in_place)
    }

    fn complete_written(&self, context: &Context, file: &File, in_place: bool) -> Result<Action> {
        let stat = write::stat_fd(file.as_fd())?;
        if stat.size != self.meta.size {
            rustix::fs::ftruncate(file, self.meta.size)?;
        }
        let (policy, skipped) = (&context.policy, &context.tally.skipped);
        let mut have = if in_place || self.dir.inherited().acl {
            Have::read(file.as_fd(), &write::stat_fd(file.as_fd())?)?
        } else {
            self.have_of_new(context, file, policy.private_mode())?
        };
        have.mtime_ns = None;
        meta::settle(file.as_fd(), &self.meta, &have, policy, skipped, How::Make)?;
        if in_place {
            return Ok(Action::Replace);
        }
        let dir = self.dir.dir_for_change(context)?;
        let mut writing = lock(&self.writing);
        let Some((name, _)) = &writing.temporary else {
            return Err(Errno::NOENT);
        };
        let action = match self.place {
            Place::New => dir.rename_new(name, &self.name).map(|()| Action::Create)?,
            Place::Over => dir
                .rename_over(name, &self.name)
                .map(|()| Action::Replace)?,
        };
        writing.temporary = None;
        Ok(action)
    }
}
