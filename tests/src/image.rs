//! A filesystem of any type on a loop image (or tmpfs), mounted for the length of a test. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted filesystem; unmounted when dropped.
pub struct Image {
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl Image {
    /// A fresh filesystem of `kind` (`ext4`, `xfs`, `btrfs`, `tmpfs`) and this size.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn make(kind: &str, mib: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).expect("a mount point");
        let image = dir.path().join("image");
        let script = match kind {
            "tmpfs" => format!("mount -t tmpfs -o size={mib}m tmpfs \"$1\""),
            _ => {
                let mkfs = match kind {
                    "ext4" => "mkfs.ext4 -q -F",
                    "xfs" => "mkfs.xfs -q -f",
                    _ => "mkfs.btrfs -q -f",
                };
                format!("truncate -s {mib}M \"$0\" && {mkfs} \"$0\" && mount -o loop \"$0\" \"$1\"")
            }
        };
        let out = Command::new("sh")
            .args(["-ec", &script])
            .arg(&image)
            .arg(&mount)
            .output()
            .expect("sh starts");
        assert!(
            out.status.success(),
            "cannot make {kind}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let _ = std::fs::remove_dir(mount.join("lost+found"));
        Self { mount, _dir: dir }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}
