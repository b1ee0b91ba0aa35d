//! The history of paths: every entry that matches a pattern, in every snapshot.

use crate::browse::entries::entry_at;
use crate::browse::{Library, Nodes, Results, View, stream};
use crate::catalog::{SnapshotRow, VolumeNo};
use crate::error::{Error, Result};
use holdfast_format::codec::decode_entry;
use holdfast_format::entry::{Content, Entry, Kind};
use holdfast_format::path::RelPath;
use holdfast_format::tree::Cursor;
use holdfast_format::wire::SnapshotInfo;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most entries of a batch.
const BATCH: usize = 500;
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 4096;

/// Matches in one snapshot. The first batch of a snapshot has its facts, and may have no entries.
#[derive(Debug)]
pub struct Found {
    /// The snapshot's facts, in its first batch.
    pub info: Option<SnapshotInfo>,
    /// The snapshot.
    pub snapshot: holdfast_format::id::SnapshotId,
    /// Entries that match, without contents.
    pub entries: Vec<(RelPath, Entry)>,
}

/// Looks through all visible snapshots of a volume, or of all volumes, by volume name, then sequence.
/// `pattern` has gitignore syntax; one that names a whole path is looked up, any other one is matched
/// against every entry.
pub async fn find(
    library: Library,
    volume: Option<VolumeNo>,
    pattern: Vec<u8>,
) -> Result<Results<Found>> {
    let pattern = Pattern::parse(&pattern)?;
    let rows = library.catalog.snapshots(volume).await?;
    let nodes = Nodes::new(library.clone());
    Ok(stream(move |send: &mut dyn FnMut(_) -> Result<()>| {
        rows.iter()
            .try_for_each(|row| find_in(&library.view_of(row)?, row, &nodes, &pattern, send))
    }))
}

enum Pattern {
    /// Exactly this path.
    Path(RelPath),
    /// Anything that matches.
    Glob(Box<Gitignore>),
}

impl Pattern {
    fn parse(pattern: &[u8]) -> Result<Self> {
        if pattern.len() > MAX_PATTERN {
            return Err(Error::MessageTooLarge {
                what: "pattern",
                found: pattern.len() as u64,
                limit: MAX_PATTERN as u64,
            });
        }
        if let Some(path) = pattern.strip_prefix(b"/")
            && !path.iter().any(|byte| b"*?[]\\!{}".contains(byte))
            && !path.is_empty()
            && !path.ends_with(b"/")
        {
            return Ok(Pattern::Path(RelPath::new(path)?));
        }
        let text = std::str::from_utf8(pattern).map_err(|_| {
            Error::invalid("a pattern must be UTF-8; name the path itself as /PATH")
        })?;
        let refused = |error: ignore::Error| Error::invalid(format!("pattern {text:?}: {error}"));
        let mut builder = GitignoreBuilder::new("");
        builder.add_line(None, text).map_err(refused)?;
        Ok(Pattern::Glob(Box::new(builder.build().map_err(refused)?)))
    }

    fn matches(glob: &Gitignore, path: &RelPath, entry: &Entry) -> bool {
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        let matched = glob.matched(path, entry.kind == Kind::Directory);
        matches!(matched, Match::Ignore(_))
    }
}

fn find_in(
    view: &View,
    row: &SnapshotRow,
    nodes: &Nodes,
    pattern: &Pattern,
    send: &mut dyn FnMut(Found) -> Result<()>,
) -> Result<()> {
    let mut found = Found {
        info: Some(view.info()),
        snapshot: row.id,
        entries: Vec::new(),
    };
    let mut keep = |path: RelPath, mut entry: Entry| {
        entry.content = Content::Empty;
        found.entries.push((path, entry));
        if found.entries.len() < BATCH {
            return Ok(());
        }
        let next = Found {
            info: None,
            snapshot: row.id,
            entries: Vec::new(),
        };
        send(std::mem::replace(&mut found, next))
    };
    match pattern {
        Pattern::Path(path) => {
            if let Some(entry) = entry_at(view, nodes, path)? {
                keep(path.clone(), entry)?;
            }
        }
        Pattern::Glob(glob) => {
            for item in Cursor::all(&view.ids, nodes, &view.record.entries_root) {
                let (key, value) = item?;
                let (path, entry) = (RelPath::from_key(&key)?, decode_entry(&value)?);
                if !path.is_root() && Pattern::matches(glob, &path, &entry) {
                    keep(path, entry)?;
                }
            }
        }
    }
    match found.entries.is_empty() {
        true => Ok(()),
        false => send(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind) -> Entry {
        Entry {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime_ns: 0,
            size: 0,
            xattrs: Vec::new(),
            target: Default::default(),
            rdev: 0,
            content: Content::Empty,
            hardlink: None,
        }
    }

    fn matches(pattern: &str, path: &str, kind: Kind) -> bool {
        let path = RelPath::new(path).unwrap();
        match Pattern::parse(pattern.as_bytes()).unwrap() {
            Pattern::Path(wanted) => wanted == path,
            Pattern::Glob(glob) => Pattern::matches(&glob, &path, &entry(kind)),
        }
    }

    #[test]
    fn patterns_have_gitignore_syntax() {
        assert!(matches("*.log", "a/b/x.log", Kind::File));
        assert!(!matches("/*.log", "a/x.log", Kind::File));
        assert!(matches("a/**/x", "a/b/c/x", Kind::File));
        assert!(matches("cache/", "a/cache", Kind::Directory));
        assert!(!matches("cache/", "a/cache", Kind::File));
        assert!(matches("/a/x.log", "a/x.log", Kind::File));
        assert!(!matches("/a/x.log", "b/a/x.log", Kind::File));
        assert!(Pattern::parse(b"[").is_err() || !matches("[", "a", Kind::File));
    }
}
