//! What killed processes left half-written in a local directory: files under the names that puts stage at
//! (`name#digits`). Listings do not show them and nothing refers to them; they only take space.
//!
//! Swept is a file whose name without the mark is that of an object of ours, in the place of that object,
//! and which nobody has written to for a day. A put lasts minutes at most, on any host that shares the
//! directory. Anything else is left alone, whoever it belongs to.

use crate::repo::StoreUrl;
use crate::repo::local::is_staged;
use crate::repo::store::Store;
use holdfast_format::names::ObjectName;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long nothing was written to a file that is swept.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// No object of ours lies deeper.
const MAX_DEPTH: usize = 3;

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Sweeps the store's directory, where it is one. For whoever owns the repository. What cannot be removed
/// is told in the log and stays.
pub async fn sweep(store: &Store, now_ns: i64) -> Swept {
    let Ok(StoreUrl::Directory(root)) = StoreUrl::parse(store.url_redacted()) else {
        return Swept::default();
    };
    let now = UNIX_EPOCH + Duration::from_nanos(u64::try_from(now_ns).unwrap_or(0));
    let work = move || {
        let mut swept = Swept::default();
        if let Err(error) = sweep_dir(&root, "", now, MAX_DEPTH, &mut swept) {
            tracing::warn!(%error, "left-over files of the store could not be swept");
        }
        swept
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn sweep_dir(
    dir: &Path,
    prefix: &str,
    now: SystemTime,
    depth: usize,
    swept: &mut Swept,
) -> io::Result<()> {
    for found in std::fs::read_dir(dir)? {
        let found = found?;
        let name = found.file_name();
        // A link is neither: what it leads to is not ours.
        let kind = found.file_type()?;
        let Some(text) = name.to_str() else { continue };
        if kind.is_dir() && depth > 0 {
            match sweep_dir(
                &found.path(),
                &format!("{prefix}{text}/"),
                now,
                depth - 1,
                swept,
            ) {
                // A directory that may not be read, such as `lost+found`, keeps its own.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        } else if kind.is_file() && is_staged(&name) && is_ours(prefix, text) {
            let file = found.metadata()?;
            // One from the future is of a clock that is wrong: nothing is known of its age.
            let age = now.duration_since(file.modified()?).unwrap_or_default();
            if age > ABANDONED_AFTER {
                std::fs::remove_file(found.path())?;
                swept.files += 1;
                swept.bytes += file.len();
            }
        }
    }
    Ok(())
}

/// Whether the name without its mark is that of an object in this place.
fn is_ours(prefix: &str, staged: &str) -> bool {
    let name = staged.rsplit_once('#').map(|(name, _)| name);
    name.is_some_and(|name| format!("{prefix}{name}").parse::<ObjectName>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::testing::quick;
    use std::fs::File;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    /// Days after the epoch.
    const NOW: u32 = 20_000;

    /// A file that was written so many days before now.
    fn file(root: &Path, name: &str, days: f64) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"12345").unwrap();
        let at = UNIX_EPOCH + DAY.mul_f64(f64::from(NOW) - days);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(at)
            .unwrap();
    }

    #[tokio::test]
    async fn only_abandoned_files_of_puts_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let id = "ab".repeat(32);
        let volume = "cd".repeat(16);
        let old = [
            format!("packs/ab/{id}#1234000001"),
            format!("snapshots/{volume}/{id}#7"),
            format!("keys/domains/{volume}/1-1#99"),
            "deletions/0000000000000042#5".into(),
        ];
        let kept = [
            // Objects, and somebody else's files.
            (format!("packs/ab/{id}"), 30.0),
            (format!("packs/cd/{id}#12"), 30.0),
            (format!("packs/ab/{id}#12x"), 30.0),
            (format!("packs/ab/{id}#"), 30.0),
            ("notes#1".into(), 30.0),
            (format!("other/packs/ab/{id}#1"), 30.0),
            // Young, and from the future.
            (format!("packs/ab/{id}#2"), 0.9),
            (format!("packs/ab/{id}#3"), -5.0),
        ];
        old.iter().for_each(|name| file(root, name, 1.1));
        kept.iter().for_each(|(name, days)| file(root, name, *days));
        // Through a link to another place nothing is swept.
        let other = tempfile::tempdir().unwrap();
        file(other.path(), &format!("{id}#1"), 30.0);
        std::os::unix::fs::symlink(other.path(), root.join("marks")).unwrap();

        let store = Store::open(root.to_str().unwrap(), &quick()).unwrap();
        let now_ns = (DAY * NOW).as_nanos() as i64;
        let swept = sweep(&store, now_ns).await;
        assert_eq!((swept.files, swept.bytes), (4, 20));
        assert!(old.iter().all(|name| !root.join(name).exists()));
        for (name, _) in kept {
            assert!(root.join(&name).exists(), "{name}");
        }
        assert!(other.path().join(format!("{id}#1")).exists());
        assert_eq!(sweep(&store, now_ns).await, Swept::default());
    }
}
