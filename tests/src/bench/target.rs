//! Where restores go and sources lie while they are measured: fresh filesystems, the same for all tools.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fresh ext4 on a loop device (as root), or an empty directory.
pub struct FreshTarget {
    dir: PathBuf,
    image: Option<PathBuf>,
}

impl FreshTarget {
    /// Makes one below `scratch`.
    pub fn make(scratch: &Path) -> io::Result<Self> {
        let dir = scratch.join("target");
        let image = scratch.join("target.img");
        let _ = Command::new("umount")
            .arg(&dir)
            .stderr(std::process::Stdio::null())
            .status();
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self { dir, image: None });
        }
        let script = "set -e; rm -f \"$1\"; truncate -s 16G \"$1\"; mkfs.ext4 -q -F -N 2000000 -E lazy_itable_init=0,lazy_journal_init=0 \"$1\"; mount -o loop \"$1\" \"$0\"; rmdir \"$0/lost+found\"";
        let done = Command::new("sh")
            .args(["-c", script])
            .arg(&dir)
            .arg(&image)
            .status()?;
        if !done.success() {
            return Err(io::Error::other(
                "cannot mount a fresh ext4 for the restore",
            ));
        }
        Ok(Self {
            dir,
            image: Some(image),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for FreshTarget {
    fn drop(&mut self) {
        if let Some(image) = &self.image {
            let _ = Command::new("umount").arg(&self.dir).status();
            let _ = std::fs::remove_file(image);
        }
    }
}

/// A source copied onto a tmpfs of its own, for as long as it is measured.
pub struct Resident {
    mount: PathBuf,
    dir: PathBuf,
}

impl Resident {
    /// Copies `source` below `scratch`; needs root.
    pub fn of(source: &Path, scratch: &Path) -> io::Result<Self> {
        let resident = Self::empty(scratch)?;
        let mut copy = Command::new("cp");
        let done = copy.arg("-aT").arg(source).arg(&resident.dir).status()?;
        match done.success() {
            true => Ok(resident),
            false => Err(io::Error::other("cannot copy the corpus onto a tmpfs")),
        }
    }

    /// A directory on a tmpfs of its own; needs root.
    pub fn empty(scratch: &Path) -> io::Result<Self> {
        let mount = scratch.join("resident");
        let resident = Self {
            dir: mount.join("source"),
            mount,
        };
        let script = "set -e; umount \"$0\" 2>/dev/null || true; mkdir -p \"$0\"; mount -t tmpfs -o size=90%,nr_inodes=8M tmpfs \"$0\"; mkdir \"$0/source\"";
        let mut mount = Command::new("sh");
        let done = mount.args(["-c", script]).arg(&resident.mount).status()?;
        match done.success() {
            true => Ok(resident),
            false => Err(io::Error::other("cannot mount a tmpfs")),
        }
    }

    /// The copy.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).status();
    }
}

/// Where the source of one part lies.
pub enum Place {
    /// On a tmpfs of its own.
    Memory(Resident),
    /// With the corpora, on disk.
    Disk(PathBuf),
}

impl Place {
    /// The directory.
    pub fn path(&self) -> &Path {
        match self {
            Place::Memory(resident) => resident.path(),
            Place::Disk(dir) => dir,
        }
    }
}
