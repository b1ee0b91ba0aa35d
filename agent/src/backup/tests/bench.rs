//! A volume, a coordinator in memory, and the comparison of a snapshot with the disk.

use super::fake::{Fake, Tree};
use crate::backup::{BackupOptions, RunReport, backup};
use crate::client::Client;
use crate::error::Result;
use crate::volumes::VolumeCandidate;
use crate::{Cancel, Progress};
use holdfast_format::entry::{Entry, Extent, Kind};
use holdfast_format::path::RelPath;
use holdfast_format::volume::VolumeFacts;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub struct Bench {
    pub fake: Fake,
    pub client: Client,
    pub volume: VolumeCandidate,
    pub options: BackupOptions,
    pub directory: Arc<tempfile::TempDir>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::new_in(&std::env::temp_dir()).await
    }

    pub async fn new_in(parent: &Path) -> Self {
        let fake = Fake::default();
        let client = fake.serve().await;
        let directory = Arc::new(tempfile::tempdir_in(parent).unwrap());
        let root = directory.path().join("volume");
        fs::create_dir(&root).unwrap();
        let mut options = BackupOptions::new(&directory.path().join("state"), "node");
        options.retry.backoff.initial = Duration::from_millis(5);
        Self {
            fake,
            client,
            volume: VolumeCandidate {
                facts: VolumeFacts::named("v".parse().unwrap()),
                path: root,
                eligible: Ok(()),
                note: None,
                shared: false,
            },
            options,
            directory,
        }
    }

    /// The same bench for another task.
    pub fn shared(&self) -> Self {
        Self {
            fake: self.fake.clone(),
            client: self.client.clone(),
            volume: self.volume.clone(),
            options: self.options.clone(),
            directory: self.directory.clone(),
        }
    }

    pub fn at(&self, path: &str) -> std::path::PathBuf {
        self.volume.path.join(path)
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub async fn try_run(&self) -> Result<RunReport> {
        backup(
            &self.client,
            &self.volume,
            &self.options,
            Progress::new(),
            Cancel::new(),
        )
        .await
    }

    /// A run that must succeed, and whose snapshot must be the directory.
    pub async fn run(&self) -> RunReport {
        // Past the margin within which a stamp is racy.
        std::thread::sleep(Duration::from_millis(30));
        let report = self.try_run().await.unwrap();
        self.compare();
        let told = &report.counters;
        if !report.committed_before {
            let seen = (told.files, told.content_bytes);
            assert_eq!((told.done_files, told.done_bytes), seen);
            assert_eq!((told.total_files, told.total_bytes), seen);
        }
        report
    }

    fn compare(&self) {
        let tree = self.fake.latest();
        let mut expected = BTreeMap::new();
        let mut firsts = HashMap::new();
        describe_disk(&self.volume.path, &RelPath::root(), &mut expected);
        let mut found = BTreeMap::new();
        for (key, (path, entry, extents)) in &tree {
            found.insert(key.clone(), self.describe(path, entry, extents));
            if let Some(first) = &entry.hardlink {
                assert!(tree[&first.to_key()].1.hardlink.is_none());
                firsts.insert(path.clone(), first.clone());
            }
        }
        let paths = |map: &BTreeMap<Vec<u8>, String>| map.values().cloned().collect::<Vec<_>>();
        let (found, expected) = (paths(&found), paths(&expected));
        let only = |some: &[String], others: &[String]| {
            let only = some.iter().filter(|line| !others.contains(line));
            only.cloned().collect::<Vec<_>>().join("\n")
        };
        assert!(
            found == expected,
            "in the snapshot:\n{}\non disk:\n{}",
            only(&found, &expected),
            only(&expected, &found)
        );
        self.compare_links(&tree, &firsts);
    }

    fn compare_links(&self, tree: &Tree, firsts: &HashMap<RelPath, RelPath>) {
        let mut groups: HashMap<u64, Vec<RelPath>> = HashMap::new();
        for (path, entry, _) in tree.values() {
            let name = std::ffi::OsStr::new(std::str::from_utf8(path.as_bytes()).unwrap());
            let meta = fs::symlink_metadata(self.volume.path.join(name)).unwrap();
            if meta.nlink() > 1 && entry.kind != Kind::Directory {
                groups.entry(meta.ino()).or_default().push(path.clone());
            }
        }
        let mut count = 0;
        for group in groups.values() {
            for other in &group[1..] {
                assert_eq!(firsts.get(other), Some(&group[0]), "{other}");
                count += 1;
            }
            assert_eq!(firsts.get(&group[0]), None);
        }
        assert_eq!(count, firsts.len());
    }

    fn describe(&self, path: &RelPath, entry: &Entry, extents: &[Extent]) -> String {
        let content = match entry.kind {
            Kind::File => {
                let bytes = self.fake.content(entry, extents);
                assert_eq!(bytes.len() as u64, entry.size);
                blake3::hash(&bytes).to_hex().to_string()
            }
            Kind::Symlink => String::from_utf8_lossy(&entry.target).into_owned(),
            _ => String::new(),
        };
        format!(
            "{path} {:?} {:o} {} {} {} {content}",
            entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_ns
        )
    }
}

/// The same words from the standard library's view of the disk.
fn describe_disk(root: &Path, path: &RelPath, out: &mut BTreeMap<Vec<u8>, String>) {
    use std::os::unix::ffi::OsStrExt;
    let full = root.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let meta = fs::symlink_metadata(&full).unwrap();
    let (kind, content) = if meta.is_file() {
        let bytes = fs::read(&full).unwrap();
        (Kind::File, blake3::hash(&bytes).to_hex().to_string())
    } else if meta.is_dir() {
        (Kind::Directory, String::new())
    } else if meta.is_symlink() {
        let target = fs::read_link(&full).unwrap();
        (Kind::Symlink, target.to_string_lossy().into_owned())
    } else {
        (Kind::Fifo, String::new())
    };
    let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    out.insert(
        path.to_key(),
        format!(
            "{path} {kind:?} {:o} {} {} {mtime} {content}",
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid()
        ),
    );
    if meta.is_dir() {
        for entry in fs::read_dir(&full).unwrap() {
            let name = entry.unwrap().file_name();
            describe_disk(root, &path.join(name.as_bytes()).unwrap(), out);
        }
    }
}

/// Bytes without repetition.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut reader = blake3::Hasher::new_derive_key("test noise")
        .update(&seed.to_le_bytes())
        .finalize_xof();
    reader.fill(&mut out);
    out
}
