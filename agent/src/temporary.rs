//! Where this process keeps what does not fit in memory: files without a name, readable by nobody else,
//! all in one directory, gone when the process is, also when it is killed.

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Begins the names of files on filesystems that cannot make one without a name.
const PREFIX: &str = "holdfast-tmp-";

/// A new file without a name in `directory`, which is made (for its owner alone) where it is missing.
pub fn file_in(directory: &Path) -> io::Result<File> {
    match open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
            open(directory)
        }
        opened => opened,
    }
}

fn open(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    match openat(rustix::fs::CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // The filesystem cannot: the file has a name for as long as it takes to remove it.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => named(directory),
        Err(errno) => Err(errno.into()),
    }
}

fn named(directory: &Path) -> io::Result<File> {
    sweep(directory)?;
    let (file, path) = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempfile_in(directory)?
        .into_parts();
    // Another process's sweep may have been quicker.
    drop(path);
    Ok(file)
}

/// Removes what a kill between making and removing a name left behind. Whoever still uses such a file
/// has it open and needs no name.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
        {
            // What is gone, or another user's, is no concern of ours.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_file_has_no_name_and_one_reader() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("state/tmp");
        fs::create_dir(top.path().join("state")).unwrap();
        let file = file_in(&directory).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((found.nlink(), found.mode() & 0o777), (0, 0o600));
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn what_a_kill_left_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(format!("{PREFIX}left"));
        fs::write(&left, "names").unwrap();
        fs::write(directory.path().join("other"), "").unwrap();
        let file = named(directory.path()).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((found.nlink(), found.mode() & 0o777), (0, 0o600));
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].file_name(), "other");
    }
}
