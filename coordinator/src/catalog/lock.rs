//! One writer for each state directory: an exclusive flock on `catalog.lock`, held while the value
//! lives. The kernel gives it back however the process ends. The file names the holder's pid.

use crate::catalog::error::{At, CatalogError, Holder, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the lock file in a state directory.
pub(super) const LOCK_FILE: &str = "catalog.lock";

/// The right to write a state directory.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
    dir: PathBuf,
}

impl DirLock {
    /// Takes the lock, or says who has it. Creates the directory (0700) where it is missing. Blocks
    /// for a few system calls only.
    pub fn take(dir: &Path) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .at("create state directory", dir)?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .at("open lock file", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message: a file that cannot be read leaves the holder unnamed.
                let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
                return Err(CatalogError::InUse {
                    dir: dir.to_owned(),
                    lock: path,
                    holder: Holder(text.trim().parse().ok()),
                });
            }
            Err(TryLockError::Error(source)) => return Err(source).at("lock", &path),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .at("write lock file", &path)?;
        Ok(Self {
            _file: file,
            dir: dir.to_owned(),
        })
    }

    /// The locked directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = DirLock::take(&path).unwrap();
        let error = DirLock::take(&path).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CatalogError::InUse { .. }));
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains(LOCK_FILE), "{text}");
        drop(first);
        DirLock::take(&path).unwrap();
    }
}
