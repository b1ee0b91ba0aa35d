//! Looks at chosen paths of a volume in the order of the tree, as a walk would, and at nothing else.
//!
//! Guarantees:
//! - A name is absent only where the kernel said so, asked through a descriptor of its directory that was
//!   on the volume's mount afterwards (or the path to that directory is gone, which says the same).
//! - A directory that was not known is walked whole, each part after `before_listing` was called for it.
//! - Memory: the chosen paths, and what a walk needs.

use super::Scanner;
use super::failure::problem;
use super::item::{Children, DirBatch, Failed, Found, ScanOptions, ScanStats, Scanned};
use super::targets::{Directory, Known, Targets};
use crate::beneath::{Dir, Errno, Root};
use crate::error::ItemProblem;
use crate::rules::Rules;
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A look at chosen paths, in progress.
#[derive(Debug)]
pub struct Targeted {
    root: Arc<Root>,
    rules: Rules,
    options: ScanOptions,
    targets: Targets,
    open: Option<Open>,
    inside: Option<Box<Scanner>>,
    stats: ScanStats,
}

/// A directory whose names are being looked at.
#[derive(Debug)]
struct Open {
    path: RelPath,
    dir: Arc<Dir>,
    names: BTreeMap<Vec<u8>, Known>,
}

impl Targeted {
    /// A look at these.
    pub fn new(root: Arc<Root>, rules: Rules, options: ScanOptions, targets: Targets) -> Self {
        Self {
            root,
            rules,
            options,
            targets,
            open: None,
            inside: None,
            stats: ScanStats::default(),
        }
    }

    /// What was met so far.
    pub fn stats(&self) -> ScanStats {
        let mut stats = self.stats;
        if let Some(inside) = &self.inside {
            stats.add(&inside.stats());
        }
        stats
    }

    fn step(&mut self) -> Option<Scanned> {
        if self.options.cancel.is_cancelled() {
            return None;
        }
        if self.targets.take_root() {
            return Some(self.at_root());
        }
        loop {
            if let Some(inside) = &mut self.inside {
                if let Some(scanned) = inside.next() {
                    return Some(scanned);
                }
                self.stats.add(&inside.stats());
                self.inside = None;
            }
            if let Some(open) = self.open.take()
                && let Some(scanned) = self.batch(open)
            {
                return Some(scanned);
            }
            if self.options.cancel.is_cancelled() {
                return None;
            }
            let Directory { path, whole, names } = self.targets.take_next()?;
            if whole {
                let (root, rules) = (self.root.clone(), self.rules.clone());
                let inside = Scanner::below(path, root, rules, self.options.clone());
                self.inside = Some(Box::new(inside));
                continue;
            }
            match self.root.dir(&path) {
                Ok(dir) => {
                    let dir = Arc::new(dir);
                    self.open = Some(Open { path, dir, names });
                }
                // The way there is gone, or leads elsewhere: so are the names.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    return self.all_absent(path, names);
                }
                Err(errno) => {
                    let problem = problem("open the directory", errno);
                    return Some(Scanned::ListingFailed { path, problem });
                }
            }
        }
    }

    fn at_root(&mut self) -> Scanned {
        let opened = self.root.top();
        match opened.and_then(|dir| dir.stat_self().map(|stat| (Arc::new(dir), stat))) {
            Ok((dir, stat)) => Scanned::Root {
                dir,
                found: Found {
                    name: Vec::new(),
                    kind: Kind::Directory,
                    stat,
                    boundary: false,
                },
            },
            Err(errno) => Scanned::ListingFailed {
                path: RelPath::root(),
                problem: problem("open the root", errno),
            },
        }
    }

    /// The next names of a directory; `None` when there are none left.
    fn batch(&mut self, mut open: Open) -> Option<Scanned> {
        let (mut entries, mut failed, mut absent) = (Children::default(), Vec::new(), Vec::new());
        let most = self.options.batch_entries.max(1);
        while entries.len() + failed.len() + absent.len() < most {
            let Some((name, known)) = open.names.pop_first() else {
                break;
            };
            let Ok(path) = open.path.join(&name) else {
                continue; // No path of the volume can be as long.
            };
            let stat = match open.dir.stat(&name) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    self.stats.vanished_count += 1;
                    absent.push(name);
                    continue;
                }
                Err(errno) => {
                    let problem = problem("stat", errno);
                    failed.push(Failed { name, problem });
                    continue;
                }
            };
            let directory = stat.kind == Kind::Directory;
            if !self.keeps(&path, directory) {
                // It is no part of the snapshot; if it was, it goes.
                absent.push(name);
                continue;
            }
            let boundary = stat.mount_root || stat.mnt_id != self.root.stat().mnt_id;
            self.stats.boundary_count += u64::from(boundary);
            if directory && !boundary && known != Known::Directory(stat.ino) {
                self.targets.add_below(&path);
            }
            entries.push(&name, stat, boundary);
        }
        if entries.is_empty() && failed.is_empty() && absent.is_empty() {
            return None;
        }
        let path = open.path.clone();
        match open.dir.stat_self() {
            Ok(stat) if stat.mnt_id == self.root.stat().mnt_id => {}
            Ok(_) => {
                let what = "the directory is no longer on the volume's mount";
                let problem = ItemProblem::new("MountChanged", what);
                return Some(Scanned::ListingFailed { path, problem });
            }
            Err(errno) => {
                let problem = problem("stat the directory", errno);
                return Some(Scanned::ListingFailed { path, problem });
            }
        }
        self.stats.entries_count += entries.len() as u64;
        let batch = DirBatch {
            path,
            dir: open.dir.clone(),
            entries,
            failed,
            absent,
            whole: false,
            last: open.names.is_empty(),
        };
        self.open = Some(open);
        Some(Scanned::Batch(batch))
    }

    fn all_absent(&self, path: RelPath, names: BTreeMap<Vec<u8>, Known>) -> Option<Scanned> {
        Some(match self.root.top() {
            Ok(top) => Scanned::Batch(DirBatch {
                path,
                dir: Arc::new(top),
                entries: Children::default(),
                failed: Vec::new(),
                absent: names.into_keys().collect(),
                whole: false,
                last: true,
            }),
            Err(errno) => Scanned::ListingFailed {
                path,
                problem: problem("open the root", errno),
            },
        })
    }

    /// Whether the rules keep a path: no directory above it may be left out either.
    fn keeps(&mut self, path: &RelPath, directory: bool) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        let kept = self.rules.keeps_with_parents(path, directory);
        self.stats.excluded_count += u64::from(!kept);
        kept
    }
}

impl Iterator for Targeted {
    type Item = Scanned;

    /// The next part; `None` at the end, and soon after it was cancelled.
    fn next(&mut self) -> Option<Scanned> {
        self.step()
    }
}
