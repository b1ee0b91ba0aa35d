//! Which inodes this restore finished, so that hard links go to them and to nothing else.
//!
//! Memory is bounded: hashes and paths beyond a few megabytes lie in unnamed temporary files.

use super::spill::{HashRuns, RecordStack};
use holdfast_format::path::RelPath;
use std::io;
use std::path::Path;
use std::sync::Arc;

const ITSELF: u64 = u64::MAX;

/// Finished non-directories by their path in the snapshot.
pub struct Links {
    finished: HashRuns,
    elsewhere: RecordStack,
    /// Of a dry run: paths that would have another inode than now.
    new: HashRuns,
}

impl Links {
    /// None yet; their files, if there must be any, lie in `directory`.
    pub fn new(directory: &Arc<Path>) -> Self {
        Self {
            finished: HashRuns::new(directory),
            elsewhere: RecordStack::new(directory),
            new: HashRuns::new(directory),
        }
    }

    /// The path of the snapshot is finished, at the same path below the target.
    pub fn finished(&mut self, path: &RelPath) -> io::Result<()> {
        self.finished.insert(path.as_bytes(), ITSELF)
    }

    /// The link group of a path that is not restored itself has a member at `place`.
    pub fn finished_elsewhere(&mut self, group: &RelPath, place: &RelPath) -> io::Result<()> {
        let position = self.elsewhere.end();
        self.elsewhere.push(place.as_bytes())?;
        self.finished.insert(&outside(group), position)
    }

    /// Of a dry run: what stands at this path would be made anew, so that its further names would be too.
    pub fn would_be_new(&mut self, place: &RelPath) -> io::Result<()> {
        self.new.insert(place.as_bytes(), ITSELF)
    }

    /// Of a dry run: whether what stands at this path now would stay.
    pub fn would_stay(&self, place: &RelPath) -> io::Result<bool> {
        Ok(self.new.get(place.as_bytes())?.is_none())
    }

    /// Where below the target the inode of this path is.
    pub fn place(&self, path: &RelPath) -> io::Result<Option<RelPath>> {
        let found = self.finished.get(path.as_bytes())?;
        Ok(found.map(|_| path.clone()))
    }

    /// Where below the target the first member of the group of an outside path is.
    pub fn place_of_group(&self, group: &RelPath) -> io::Result<Option<RelPath>> {
        match self.finished.get(&outside(group))? {
            None => Ok(None),
            Some(position) => {
                let (bytes, _) = self.elsewhere.read(position)?;
                let path = RelPath::new(bytes);
                path.map(Some)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
            }
        }
    }
}

/// Outside paths are relative to the volume, inside ones to the restored path: kept apart by a byte
/// that no path starts with.
fn outside(group: &RelPath) -> Vec<u8> {
    [b"/", group.as_bytes()].concat()
}
