//! Filesystem types of this node that were seen to change a file without a sign. Their metadata is not
//! believed any more: every file on them is read on every run. The list outlives the agent; who has found
//! and mended the cause removes its file.

use holdfast_format::path::RelPath;
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The list's name, in the directory of the indexes.
const FILE: &str = "distrusted-filesystems";

/// The types. Clones share them.
#[derive(Debug, Clone)]
pub struct Distrusted {
    file: PathBuf,
    types: Arc<Mutex<HashSet<u64>>>,
}

impl Distrusted {
    /// What the list in this directory says; a line that makes no sense says nothing.
    pub(super) fn read(directory: &Path) -> Self {
        let file = directory.join(FILE);
        let text = fs::read_to_string(&file).unwrap_or_default();
        let types = text.lines().filter_map(|line| {
            let word = line.split_whitespace().next()?;
            u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
        });
        Self {
            types: Arc::new(Mutex::new(types.collect())),
            file,
        }
    }

    /// Whether this type (`f_type` of statfs) is on it.
    pub fn has(&self, f_type: u64) -> bool {
        self.types().contains(&f_type)
    }

    /// This type is distrusted from now on, because of this file.
    pub(super) fn add(&self, f_type: u64, volume: &str, path: &RelPath) {
        if !self.types().insert(f_type) {
            return;
        }
        let line = format!("{f_type:#x} {volume} {path}\n");
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        tracing::error!(
            volume, %path, filesystem = format!("{f_type:#x}"), list = %self.file.display(),
            "a file changed without a sign: every file on filesystems of this type is read on every run \
             from now on. When the cause is found, remove the list and start the agent again"
        );
        if let Err(error) = written {
            tracing::error!(list = %self.file.display(), %error, "this is forgotten when the agent ends");
        }
    }

    fn types(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        // Only ever grows by whole numbers.
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_outlives_its_agent() {
        let directory = tempfile::tempdir().unwrap();
        let list = Distrusted::read(directory.path());
        assert!(!list.has(0xef53));
        let path = RelPath::new(&b"a\nb"[..]).unwrap();
        list.add(0xef53, "ns/web", &path);
        list.add(0xef53, "ns/web", &path);
        assert!(list.clone().has(0xef53));
        let text = fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let again = Distrusted::read(directory.path());
        assert!(again.has(0xef53) && !again.has(0x0102_1994));
    }
}
