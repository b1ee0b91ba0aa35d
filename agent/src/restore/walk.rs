//! Whether a stream of paths is a tree in key order: every parent a directory that came before, no
//! path twice, none out of order. Memory is bounded by the depth, whatever the width.
//!
//! Pure but for its spill file. It turns paths into steps: enter a directory, leave one, take an
//! entry. Directories are entered once each, parents first, and left after everything below them.

use super::spill::RecordStack;
use holdfast_format::path::RelPath;
use std::cmp::Ordering;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What to do next; in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The innermost directory's children are all known: none will follow.
    ListingEnds,
    /// Go into the directory of this record (as given to `directory`), a child of the innermost one.
    Enter {
        /// Its path.
        path: RelPath,
        /// What was given with it.
        record: Vec<u8>,
    },
    /// Go into a directory whose entry was lost; only after `tolerate_missing_parents`.
    EnterLost {
        /// Its path.
        path: RelPath,
    },
    /// Leave the innermost directory.
    Leave,
}

struct Level {
    /// Position of its first subdirectory's record, and of the next one to enter.
    start: u64,
    next: u64,
    /// One past the last; fixed when its listing ends.
    end: u64,
    listing: bool,
}

/// The directories between the root and where the stream is.
pub struct Walk {
    levels: Vec<Level>,
    /// Path of the innermost level; one for all, or a deep tree of long paths would fill the memory.
    here: RelPath,
    records: RecordStack,
    last: Option<Vec<u8>>,
    tolerant: bool,
}

/// Order in which directories are entered: a path before everything below it, components bytewise.
fn directory_order(a: &RelPath, b: &RelPath) -> Ordering {
    a.components().cmp(b.components())
}

impl Walk {
    /// In the root directory, whose children come next. Its file, if there must be one, lies in `directory`.
    pub fn new(directory: &Arc<Path>) -> Self {
        let root = Level {
            start: 0,
            next: 0,
            end: 0,
            listing: true,
        };
        Self {
            levels: vec![root],
            here: RelPath::root(),
            records: RecordStack::new(directory),
            last: None,
            tolerant: false,
        }
    }

    /// Entries were lost on the way here: parents that are missing are made up from now on.
    pub fn tolerate_missing_parents(&mut self) {
        self.tolerant = true;
    }

    /// Moves to the directory that `path` lies in. `Ok(Err(rule))`: the entry must be refused, and
    /// the walk is where it was or at an ancestor. Steps are handed to `act` in order.
    pub fn accept<E: From<io::Error>>(
        &mut self,
        path: &RelPath,
        act: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<Result<(), &'static str>, E> {
        let Some(parent) = path.parent() else {
            return Ok(Err("the root stands once, at the start"));
        };
        let key = path.to_key();
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Ok(Err("out of order, or twice in the tree"));
        }
        let refused = self.advance(Some(&parent), act)?;
        if refused.is_ok() {
            self.last = Some(key);
        }
        Ok(refused)
    }

    /// Notes that the entry just accepted is a directory, to be entered in its turn.
    pub fn directory(&mut self, name: &[u8], record: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(2 + name.len() + record.len());
        bytes.push(name.len() as u8); // at most 255: it is a checked name
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(record);
        self.records.push(&bytes)
    }

    /// The stream ended: enters what is left and leaves everything, the root included.
    pub fn finish<E: From<io::Error>>(
        mut self,
        act: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<(), E> {
        // Without a place to go to, every level is drained.
        self.advance(None, act).map(|_| ())
    }

    fn advance<E: From<io::Error>>(
        &mut self,
        parent: Option<&RelPath>,
        act: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<Result<(), &'static str>, E> {
        loop {
            let Some(top) = self.levels.last() else {
                return Ok(Err("the tree has ended"));
            };
            if parent == Some(&self.here) {
                return Ok(if top.listing {
                    Ok(())
                } else {
                    Err("out of order")
                });
            }
            let above = parent.is_some_and(|parent| parent.is_within(&self.here));
            let next = self.peek()?;
            // Nothing is touched for an entry that has no place: the listing stays open.
            let wanted = next.as_ref().filter(|(path, _, _)| match parent {
                None => true,
                Some(parent) => {
                    parent.is_within(path) || directory_order(path, parent) == Ordering::Less
                }
            });
            match (wanted, parent) {
                (Some(_), _) => {
                    self.end_listing(act)?;
                    if let Some((path, record, after)) = next {
                        self.enter(path, Some((record, after)), act)?;
                    }
                }
                (None, Some(parent)) if above && self.tolerant => {
                    self.end_listing(act)?;
                    let depth = self.levels.len();
                    let mut path = RelPath::root();
                    for name in parent.components().take(depth) {
                        path = path.join(name).map_err(invalid)?;
                    }
                    self.enter(path, None, act)?;
                }
                (None, Some(_)) if above => {
                    return Ok(Err("its parent is no directory of the tree"));
                }
                (None, _) => {
                    self.end_listing(act)?;
                    act(Step::Leave)?;
                    if let Some(level) = self.levels.pop() {
                        self.records.truncate(level.start);
                        self.here = self.here.parent().unwrap_or(RelPath::root());
                    }
                }
            }
        }
    }

    /// The next subdirectory of the innermost level: path, record, position after it.
    fn peek(&self) -> io::Result<Option<(RelPath, Vec<u8>, u64)>> {
        let Some(top) = self.levels.last() else {
            return Ok(None);
        };
        let end = if top.listing {
            self.records.end()
        } else {
            top.end
        };
        if top.next >= end {
            return Ok(None);
        }
        let (bytes, after) = self.records.read(top.next)?;
        let split = bytes
            .split_first()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)));
        let (name, record) = split.ok_or(io::ErrorKind::UnexpectedEof)?;
        let path = self.here.join(name).map_err(invalid)?;
        Ok(Some((path, record.to_vec(), after)))
    }

    fn end_listing<E>(&mut self, act: &mut impl FnMut(Step) -> Result<(), E>) -> Result<(), E> {
        let end = self.records.end();
        match self.levels.last_mut() {
            Some(top) if top.listing => {
                top.listing = false;
                top.end = end;
                act(Step::ListingEnds)
            }
            _ => Ok(()),
        }
    }

    fn enter<E>(
        &mut self,
        path: RelPath,
        record: Option<(Vec<u8>, u64)>,
        act: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.records.end();
        let step = match record {
            Some((record, after)) => {
                if let Some(top) = self.levels.last_mut() {
                    top.next = after;
                }
                Step::Enter {
                    path: path.clone(),
                    record,
                }
            }
            None => Step::EnterLost { path: path.clone() },
        };
        self.here = path;
        self.levels.push(Level {
            start,
            next: start,
            end: start,
            listing: true,
        });
        act(step)
    }
}

fn invalid(error: holdfast_format::FormatError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
