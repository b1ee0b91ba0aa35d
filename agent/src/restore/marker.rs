//! The marker that says "a restore of this snapshot is going on here", and the names of its
//! temporary files. Both carry the restore's random nonce, so that neither meets a name of the snapshot.

use crate::beneath::{Dir, Errno};
use holdfast_format::id::{SnapshotId, hex};
use holdfast_format::path::{RelPath, escape};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &[u8] = b".holdfast-restore-";
const NONCE_DIGITS: usize = 16;
/// A marker holds two hashes' worth of text and a path; anything longer is none.
const MAX_MARKER_BYTES: u64 = 256 * 1024;

/// Names of one restore's files in its target.
#[derive(Debug)]
pub struct Names {
    /// Shared by all runs of one restore, resumed ones included.
    nonce: String,
    /// Of this run only.
    run: String,
    next: AtomicU64,
}

impl Names {
    /// Of a new restore, or (with the nonce of its marker) of one that is resumed.
    pub fn new(nonce: Option<String>, random: [u8; 16]) -> Self {
        Self {
            nonce: nonce.unwrap_or_else(|| hex(&random[..8])),
            run: hex(&random[8..]),
            next: AtomicU64::new(0),
        }
    }

    /// Name of the marker.
    pub fn marker(&self) -> Vec<u8> {
        [PREFIX, self.nonce.as_bytes(), b"~"].concat()
    }

    /// A temporary name that no other call gives.
    pub fn temporary(&self) -> Vec<u8> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!(".holdfast-restore-{}-{}-{n:x}~", self.nonce, self.run).into_bytes()
    }

    /// Whether it is a temporary name of this run: in use.
    pub fn is_in_use(&self, name: &[u8]) -> bool {
        self.rest_of(name)
            .and_then(|rest| rest.strip_prefix(b"-"))
            .is_some_and(|rest| rest.starts_with(self.run.as_bytes()))
    }

    /// Whether it is a temporary name of an earlier run of this restore: left behind.
    pub fn is_left_behind(&self, name: &[u8]) -> bool {
        self.rest_of(name)
            .is_some_and(|rest| rest.starts_with(b"-") && rest.ends_with(b"~"))
            && !self.is_in_use(name)
    }

    fn rest_of<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        name.strip_prefix(PREFIX)?
            .strip_prefix(self.nonce.as_bytes())
    }
}

/// What a marker says.
fn text(snapshot: &SnapshotId, path: &RelPath) -> String {
    format!(
        "holdfast restore 1\nsnapshot {snapshot}\npath {}\n\
         An unfinished restore: some files here may be missing or incomplete.\n\
         Run the same restore again to finish it; this file goes with it.\n",
        escape(path.as_bytes())
    )
}

/// What stands in a target before a restore.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Empty,
    /// An unfinished restore of the same snapshot and path, with this nonce.
    SameRestore(String),
    /// An unfinished restore of something else: what its marker says.
    OtherRestore(String),
    /// Something else; one of its names.
    Occupied(String),
}

/// Looks at a target's own level, and removes what a restore left there that was killed before its marker
/// stood. `lost+found` alone is what mkfs leaves: empty.
pub fn standing(target: &Dir, snapshot: &SnapshotId, path: &RelPath) -> Result<Standing, Errno> {
    let mut markers: Vec<Vec<u8>> = Vec::new();
    let mut unfinished: Vec<Vec<u8>> = Vec::new();
    let mut occupied = None;
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 32 * 1024];
    target.list(&mut buffer, |name, _, _| -> Result<(), Errno> {
        let name = name.to_bytes();
        if nonce_of(name).is_some() && markers.len() < 64 {
            markers.push(name.to_vec());
        } else if is_unfinished_marker(name) && unfinished.len() < 64 {
            unfinished.push(name.to_vec());
        } else if name != b"lost+found" && occupied.is_none() {
            occupied = Some(escape(name));
        }
        Ok(())
    })?;
    let mut other = None;
    for marker in markers {
        let found = read(target, &marker);
        match (found, nonce_of(&marker)) {
            (Some(found), Some(nonce)) if found == text(snapshot, path) => {
                return Ok(Standing::SameRestore(nonce));
            }
            (Some(found), _) if found.starts_with("holdfast restore ") => {
                let lines = found.lines().skip(1).take(2);
                other = Some(lines.collect::<Vec<_>>().join(", "));
            }
            _ => occupied = Some(escape(&marker)),
        }
    }
    Ok(match (other, occupied) {
        (Some(other), _) => Standing::OtherRestore(other),
        (None, Some(name)) => Standing::Occupied(name),
        (None, None) => {
            // Nothing was restored under them: their restore was killed before its marker stood.
            for name in unfinished {
                target.unlink(&name)?;
            }
            Standing::Empty
        }
    })
}

/// Whether it is a temporary name of a restore, whichever.
fn is_unfinished_marker(name: &[u8]) -> bool {
    let Some(rest) = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(b"~"))
    else {
        return false;
    };
    let parts: Vec<&[u8]> = rest.split(|b| *b == b'-').collect();
    matches!(parts[..], [nonce, run, n] if nonce.len() == NONCE_DIGITS && run.len() == NONCE_DIGITS && !n.is_empty()
        && parts.iter().all(|part| part.iter().all(u8::is_ascii_hexdigit)))
}

fn nonce_of(name: &[u8]) -> Option<String> {
    let nonce = name.strip_prefix(PREFIX)?.strip_suffix(b"~")?;
    let digits = nonce.len() == NONCE_DIGITS && nonce.iter().all(u8::is_ascii_hexdigit);
    digits.then(|| String::from_utf8_lossy(nonce).into_owned())
}

fn read(target: &Dir, name: &[u8]) -> Option<String> {
    let mut found = String::new();
    let file = target.open_existing(name).ok()?;
    file.take(MAX_MARKER_BYTES)
        .read_to_string(&mut found)
        .ok()?;
    Some(found)
}

/// Puts the marker down, durable before anything else is written.
pub fn put(
    target: &Dir,
    names: &Names,
    snapshot: &SnapshotId,
    path: &RelPath,
) -> std::io::Result<()> {
    // Written under a temporary name: a marker is whole or not there.
    let temporary = names.temporary();
    let mut file = target.create_file(&temporary, 0o600)?;
    file.write_all(text(snapshot, path).as_bytes())?;
    file.sync_all()?;
    target.rename_over(&temporary, &names.marker())?;
    Ok(())
}
