//! Directories of the target while anything below them is unfinished. A directory gets its metadata
//! when the last thing below it is done, so children come before parents and no write comes after.

use super::context::{Context, Mode, lock};
use super::meta::{self, Have, How, Meta};
use super::report::Action;
use crate::beneath::{Dir, Errno, Result, write};
use crate::stat::Stat;
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use rustix::fd::AsFd;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Most descriptors of directories kept open; the others are opened again from the root.
const MAX_OPEN_DIRS: usize = 256;

/// The directories whose descriptors are open, in the order they were opened.
#[derive(Default)]
pub struct DirCache(Mutex<VecDeque<Weak<TargetDir>>>);

impl DirCache {
    /// Closes all; they are opened again when they are needed.
    pub fn close_all(&self) {
        for dir in lock(&self.0).drain(..).filter_map(|weak| weak.upgrade()) {
            *lock(&dir.open) = None;
        }
    }

    fn opened(&self, dir: &Arc<TargetDir>) {
        let mut open = lock(&self.0);
        open.push_back(Arc::downgrade(dir));
        while open.len() > MAX_OPEN_DIRS {
            let oldest = open.pop_front().and_then(|weak| weak.upgrade());
            if let Some(oldest) = oldest.filter(|oldest| !Arc::ptr_eq(oldest, dir)) {
                // Whoever uses it right now has its own handle.
                *lock(&oldest.open) = None;
            }
        }
    }
}

/// What new files in a directory get without being asked for.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    /// Their group is this process's own (no setgid bit, no such mount option).
    pub own_group: bool,
    /// A default ACL changes their mode and gives them an ACL.
    pub acl: bool,
}

/// A directory of the target.
pub struct TargetDir {
    /// Of the last component; the others are its parents'. Whole paths of a deep tree would fill the
    /// memory.
    name: Vec<u8>,
    parent: Option<Arc<TargetDir>>,
    /// Made by this run, so that nothing is in it.
    fresh: bool,
    /// A dry run would make it.
    missing: bool,
    inherited: Inherited,
    identity: (u64, u64),
    want: Option<Meta>,
    pending: AtomicUsize,
    writable: AtomicBool,
    /// Of a dry run: a name in it would be made, replaced or removed, which changes its time.
    would_change: AtomicBool,
    open: Mutex<Option<Arc<Dir>>>,
}

impl TargetDir {
    /// The target itself.
    pub fn root(context: &Context, want: Option<Meta>) -> Result<Arc<Self>> {
        if want.is_some() {
            context.root_came();
        }
        let Some(root) = &context.root else {
            return Ok(Self::missing(RelPath::root(), None, want));
        };
        let dir = root.top()?;
        let fresh = context.mode == Mode::Fresh;
        let is_default_acl = write::xattr(dir.as_fd(), b"system.posix_acl_default")?.is_some();
        Self::opened(
            context,
            RelPath::root(),
            None,
            dir,
            fresh,
            is_default_acl,
            want,
        )
    }

    fn opened(
        context: &Context,
        path: RelPath,
        parent: Option<Arc<Self>>,
        dir: Dir,
        fresh: bool,
        acl: bool,
        want: Option<Meta>,
    ) -> Result<Arc<Self>> {
        let stat = dir.stat_self()?;
        if let Some(parent) = &parent {
            parent.pending.fetch_add(1, Ordering::AcqRel);
        }
        // An own group on the directory: neither a setgid bit nor the mount option `grpid` gives
        // its files another one.
        let own_group = stat.gid == context.policy.created_as().1;
        let opened = Arc::new(Self {
            name: path.name().to_vec(),
            parent,
            fresh,
            missing: false,
            inherited: Inherited { own_group, acl },
            identity: (stat.dev, stat.ino),
            want,
            pending: AtomicUsize::new(1),
            writable: AtomicBool::new(fresh || context.policy.is_root()),
            would_change: AtomicBool::new(false),
            open: Mutex::new(Some(Arc::new(dir))),
        });
        context.dirs.opened(&opened);
        Ok(opened)
    }

    /// A directory that a dry run would make.
    fn missing(path: RelPath, parent: Option<Arc<Self>>, want: Option<Meta>) -> Arc<Self> {
        if let Some(parent) = &parent {
            parent.pending.fetch_add(1, Ordering::AcqRel);
        }
        Arc::new(Self {
            name: path.name().to_vec(),
            parent,
            fresh: true,
            missing: true,
            inherited: Inherited {
                own_group: true,
                acl: false,
            },
            identity: (0, 0),
            want,
            pending: AtomicUsize::new(1),
            writable: AtomicBool::new(true),
            would_change: AtomicBool::new(false),
            open: Mutex::new(None),
        })
    }

    /// Goes into the subdirectory `name`, making it where it is not there. `want` is `None` where its
    /// entry was lost. Its caller holds it until `release`.
    pub fn enter(
        self: &Arc<Self>,
        context: &Context,
        path: RelPath,
        want: Option<Meta>,
    ) -> Result<Arc<Self>> {
        let name = path.name().to_vec();
        let kind = Some(Kind::Directory);
        let made = |action| {
            self.would_do(context, action);
            context.tally.did(action, kind, || path.clone(), 0);
        };
        if self.missing {
            made(Action::Create);
            return Ok(Self::missing(path.clone(), Some(self.clone()), want));
        }
        let dir = self.dir(context)?;
        // mkfs makes lost+found at the top of a filesystem: the one name that may be there.
        let lost_and_found = self.is_top() && name == b"lost+found";
        let found = if self.fresh && !lost_and_found {
            None
        } else {
            dir.found(&name)?
        };
        match found.map(|found| found.kind) {
            Some(Kind::Directory) => {}
            found => {
                made(if found.is_some() {
                    Action::Replace
                } else {
                    Action::Create
                });
                if context.dry_run {
                    return Ok(Self::missing(path.clone(), Some(self.clone()), want));
                }
                let dir = self.dir_for_change(context)?;
                if found.is_some() {
                    dir.unlink(&name)?;
                }
                dir.make_dir(&name, 0o700)?;
                let child = dir.open_dir(&name)?;
                let (parent, acl) = (Some(self.clone()), self.inherited.acl);
                return Self::opened(context, path.clone(), parent, child, true, acl, want);
            }
        }
        let child = dir.open_dir(&name)?;
        let acl = write::xattr(child.as_fd(), b"system.posix_acl_default")?.is_some();
        Self::opened(
            context,
            path.clone(),
            Some(self.clone()),
            child,
            false,
            acl,
            want,
        )
    }

    /// Path below the target.
    pub fn path(&self) -> RelPath {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(at.name.as_slice());
            at = parent;
        }
        names.reverse();
        // Every name here was a component of a valid path.
        RelPath::new(names.join(&b'/')).unwrap_or(RelPath::root())
    }

    /// Whether it is the target itself.
    pub fn is_top(&self) -> bool {
        self.parent.is_none()
    }

    /// Path below the target of a name in it.
    pub fn path_of(&self, name: &[u8]) -> RelPath {
        // Every name here was the last component of a valid path.
        let path = self.path();
        path.join(name).unwrap_or(path)
    }

    /// Nothing was in it when this run came to it.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// It is not there: a dry run would make it.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// What new files get.
    pub fn inherited(&self) -> Inherited {
        self.inherited
    }

    /// Its descriptor, for looking.
    pub fn dir(self: &Arc<Self>, context: &Context) -> Result<Arc<Dir>> {
        let mut open = lock(&self.open);
        if let Some(dir) = &*open {
            return Ok(dir.clone());
        }
        let root = context.root.as_ref().ok_or(Errno::NOENT)?;
        let dir = Arc::new(root.dir(&self.path())?);
        let stat = dir.stat_self()?;
        if (stat.dev, stat.ino) != self.identity {
            // Somebody put another directory in its place.
            return Err(Errno::LOOP);
        }
        *open = Some(dir.clone());
        drop(open);
        context.dirs.opened(self);
        Ok(dir)
    }

    /// Its descriptor, for changing what is in it.
    pub fn dir_for_change(self: &Arc<Self>, context: &Context) -> Result<Arc<Dir>> {
        context.touch()?;
        let dir = self.dir(context)?;
        if !self.writable.swap(true, Ordering::AcqRel) {
            let stat = dir.stat_self()?;
            if stat.uid == context.policy.created_as().0 && stat.mode & 0o300 != 0o300 {
                write::set_mode(dir.as_fd(), stat.mode | 0o700)?;
            }
        }
        Ok(dir)
    }

    /// Of a dry run: this would be done to a name in it. The run itself sets its time again after.
    pub fn would_do(&self, context: &Context, action: Action) {
        if context.dry_run && action != Action::Keep {
            context.would_touch();
            if action != Action::Metadata {
                self.would_change.store(true, Ordering::Release);
            }
        }
    }

    /// One more thing is unfinished below it.
    pub fn hold(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// One thing less is; the last one settles its metadata, and then its parent's account.
    pub fn release(self: Arc<Self>, context: &Context) {
        let mut next = Some(self);
        while let Some(dir) = next {
            if dir.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            let settled = if context.is_stopped() {
                Ok(())
            } else {
                dir.settle(context)
            };
            if let Err(errno) = settled {
                context.item_failed(&dir.path(), "set metadata of directory", errno);
            }
            *lock(&dir.open) = None;
            next = dir.parent.clone();
        }
    }

    fn settle(self: &Arc<Self>, context: &Context) -> Result<()> {
        let Some(want) = self.want.as_ref().filter(|_| !self.missing) else {
            return Ok(());
        };
        let dir = self.dir(context)?;
        let stat = dir.stat_self()?;
        let have = self.have(&dir, &stat)?;
        let (policy, skipped) = (&context.policy, &context.tally.skipped);
        let fd = dir.as_fd();
        let settle = |how| meta::settle(fd, want, &have, policy, skipped, how);
        let ask = context.dry_run || (!self.fresh && !context.is_touched());
        let mut changed = !ask || settle(How::Ask)?;
        if changed && !context.dry_run {
            context.touch()?;
            changed = settle(How::Make)?;
        }
        if changed && context.dry_run {
            context.would_touch();
        }
        // The marker of a restore comes and goes in the target itself.
        let marked = self.is_top() && context.would_be_touched();
        changed |= marked || self.would_change.load(Ordering::Acquire);
        context.progress.directories.add(1);
        let action = if self.fresh {
            Action::Create
        } else if changed {
            Action::Metadata
        } else {
            Action::Keep
        };
        // What was made is already counted.
        if !self.fresh || self.is_top() {
            let action = if self.is_top() && changed {
                Action::Metadata
            } else {
                action
            };
            context
                .tally
                .did(action, Some(Kind::Directory), || self.path(), 0);
            if action == Action::Create {
                // The target itself.
                context.tally.needs_no_inode();
            }
        }
        Ok(())
    }

    fn have(&self, dir: &Dir, stat: &Stat) -> Result<Have> {
        if self.fresh && !self.inherited.acl && !self.is_top() {
            return Ok(Have {
                mode: Some(stat.mode),
                owner: Some((stat.uid, stat.gid)),
                mtime_ns: None,
                xattrs: Vec::new(),
            });
        }
        Have::read(dir.as_fd(), stat)
    }
}
