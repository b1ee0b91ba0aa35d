//! The files that policies come from: one, or those of a directory that end in `.yaml` or `.yml`.

use super::read::{Mistake, Schemas, read};
use crate::kube::api::PolicyReference;
use crate::policy::compile::Policy;
use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Policies are written by people.
const MAX_BYTES: u64 = 4 << 20;
/// Files of a directory.
const MAX_FILES: usize = 1000;

/// The policies of all files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// In the order of the files.
    pub(crate) policies: Vec<Policy>,
    /// When the file of each was written: earlier times of a schedule do not count.
    pub(crate) since: HashMap<PolicyReference, Timestamp>,
    /// What the files looked like.
    pub(crate) seen: Seen,
}

impl Loaded {
    /// What the policies are called.
    pub fn names(&self) -> Vec<String> {
        let policies = self.policies.iter();
        policies
            .map(|policy| policy.reference.to_string())
            .collect()
    }
}

/// All that is wrong with the files, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match self.0.len() {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        write!(f, "{count} in the policies:\n  {}", self.0.join("\n  "))
    }
}

impl std::error::Error for Mistakes {}

/// What tells one state of the files from another: names, sizes, times and numbers of what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(PathBuf, u64, i64, i64, u64)>);

/// What the files look like now.
pub fn look(path: &Path) -> io::Result<Seen> {
    let of = |file: PathBuf| {
        let meta = std::fs::metadata(&file)?;
        let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
        Ok((file, meta.len(), seconds, nanos, meta.ino()))
    };
    files(path)?
        .into_iter()
        .map(of)
        .collect::<io::Result<_>>()
        .map(Seen)
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        // A mounted ConfigMap has hidden directories beside its files.
        let is_hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_yaml = file
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        if is_yaml && !is_hidden {
            files.push(file);
        }
    }
    files.sort();
    match files.len() > MAX_FILES {
        true => Err(io::Error::other(format!("more than {MAX_FILES} files"))),
        false => Ok(files),
    }
}

/// Reads all files, or finds everything that is wrong with them.
pub fn load(path: &Path) -> Result<Loaded, Mistakes> {
    let failed = |file: &Path, error: &dyn fmt::Display| {
        Mistakes(vec![format!("{}: {error}", file.display())])
    };
    // What is written meanwhile differs from this, and is read again.
    let seen = look(path).map_err(|error| failed(path, &error))?;
    let schemas = Schemas::new();
    let mut loaded = Loaded::default();
    let mut mistakes = Vec::new();
    let mut places: HashMap<PolicyReference, String> = HashMap::new();
    for (file, size, seconds, ..) in &seen.0 {
        let origin = file.display().to_string();
        if *size > MAX_BYTES {
            mistakes.push(format!("{origin}: is larger than {MAX_BYTES} bytes"));
            continue;
        }
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                mistakes.push(format!("{origin}: {error}"));
                continue;
            }
        };
        let (found, wrong) = read(&schemas, &origin, &text);
        mistakes.extend(wrong.iter().map(Mistake::to_string));
        for found in found {
            let reference = found.policy.reference.clone();
            let line = found.line.map_or(String::new(), |line| format!(":{line}"));
            let place = format!("{origin}{line}");
            if let Some(first) = places.get(&reference) {
                mistakes.push(format!(
                    "{place}: {reference}: is at {first} already; give one of them another name"
                ));
                continue;
            }
            places.insert(reference.clone(), place);
            let since = Timestamp::from_second(*seconds).unwrap_or(Timestamp::UNIX_EPOCH);
            loaded.since.insert(reference, since);
            loaded.policies.push(found.policy);
        }
    }
    loaded.seen = seen;
    match mistakes.is_empty() {
        true => Ok(loaded),
        false => Err(Mistakes(mistakes)),
    }
}
