//! What a tree looks like, read with plain calls: one line per path, compared as text.

use rustix::fs::{lgetxattr, llistxattr};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// All extended attributes, sorted, without the system's labels.
pub fn xattrs(place: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 * 1024];
    let length = llistxattr(place, names.as_mut_slice()).unwrap_or(0);
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if name != b"security.selinux" {
            let mut value = vec![0; 64 * 1024];
            let length = lgetxattr(place, name, value.as_mut_slice()).unwrap();
            found.push((name.to_vec(), value[..length].to_vec()));
        }
    }
    found.sort();
    found
}

/// One line per path, by path.
pub fn dump(dir: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut lines = BTreeMap::new();
    let mut groups = HashMap::new();
    walk(dir, dir, &mut lines, &mut groups);
    // Which paths are one inode, whatever its number.
    for mut paths in groups.into_values().filter(|p: &Vec<Vec<u8>>| p.len() > 1) {
        paths.sort();
        for path in &paths {
            let first = String::from_utf8_lossy(&paths[0]).into_owned();
            lines
                .get_mut(path)
                .unwrap()
                .push_str(&format!(" same as {first}"));
        }
    }
    lines
}

fn walk(
    top: &Path,
    place: &Path,
    lines: &mut BTreeMap<Vec<u8>, String>,
    groups: &mut HashMap<u64, Vec<Vec<u8>>>,
) {
    let meta = std::fs::symlink_metadata(place).unwrap();
    let path = place
        .strip_prefix(top)
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec();
    let content = if meta.is_file() {
        let bytes = std::fs::read(place).unwrap();
        format!("{} {}", bytes.len(), blake3::hash(&bytes))
    } else if meta.is_symlink() {
        format!("{:?}", std::fs::read_link(place).unwrap())
    } else if meta.is_dir() {
        String::new()
    } else {
        format!("rdev {}", meta.rdev())
    };
    let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
    let mtime = (meta.mtime(), meta.mtime_nsec());
    let xattrs = xattrs(place);
    lines.insert(
        path.clone(),
        format!("{mode:o} {uid}:{gid} {mtime:?} {content} {xattrs:?}"),
    );
    if meta.is_dir() {
        for entry in std::fs::read_dir(place).unwrap() {
            walk(top, &entry.unwrap().path(), lines, groups);
        }
    } else {
        groups.entry(meta.ino()).or_default().push(path);
    }
}

/// Panics with the first differences.
pub fn assert_same(expected: &Path, found: &Path) {
    let (expected, found) = (dump(expected), dump(found));
    let mut differences = Vec::new();
    for (path, line) in &expected {
        if found.get(path) != Some(line) {
            differences.push(format!(
                "{}\n  expected {line}\n  found    {:?}",
                path.escape_ascii(),
                found.get(path)
            ));
        }
    }
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        differences.push(format!("{}: not expected", path.escape_ascii()));
    }
    assert!(
        differences.is_empty(),
        "{}",
        differences[..differences.len().min(5)].join("\n")
    );
}

/// Inode numbers and change times: what any write at all would move.
pub fn untouched(dir: &Path) -> BTreeMap<Vec<u8>, (u64, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(place) = left.pop() {
        let meta = std::fs::symlink_metadata(&place).unwrap();
        let state = (meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.blocks());
        found.insert(place.as_os_str().as_bytes().to_vec(), state);
        if meta.is_dir() {
            left.extend(
                std::fs::read_dir(&place)
                    .unwrap()
                    .map(|e| e.unwrap().path()),
            );
        }
    }
    found
}
