//! A list of paths that is bounded, and says when it is not complete.

use holdfast_format::path::RelPath;

/// Most paths, and bytes of them.
const MOST_PATHS: usize = 20_000;
const MOST_BYTES: usize = 4 << 20;

/// Paths, as many as there is room for.
#[derive(Debug, Clone, Default)]
pub struct SomePaths {
    paths: Vec<RelPath>,
    bytes: usize,
    incomplete: bool,
}

impl SomePaths {
    /// One more, if there is room.
    pub fn push(&mut self, path: RelPath) {
        let bytes = self.bytes + path.as_bytes().len();
        if self.paths.len() >= MOST_PATHS || bytes > MOST_BYTES {
            self.incomplete = true;
            return;
        }
        self.bytes = bytes;
        self.paths.push(path);
    }

    /// All paths; `None` where some had no room.
    pub fn complete(&self) -> Option<&[RelPath]> {
        (!self.incomplete).then_some(&self.paths)
    }

    /// Those that had room.
    pub fn iter(&self) -> impl Iterator<Item = &RelPath> {
        self.paths.iter()
    }
}
