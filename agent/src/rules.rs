//! Which paths of a volume are left out: globs with the syntax of gitignore, relative to its root.
//!
//! An excluded directory is not entered. `!glob` among the excludes takes a later match back. With
//! includes, what is no directory is kept only where it, or a directory above it, matches one;
//! excludes win over includes.

use holdfast_format::path::RelPath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A glob cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("pattern '{glob}': {message}")]
pub struct RulesError {
    /// Which.
    pub glob: String,
    /// What is wrong with it.
    pub message: String,
}

/// The globs of one volume. The default leaves nothing out.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    exclude: Option<Gitignore>,
    include: Option<Gitignore>,
    fingerprint: u64,
}

impl Rules {
    /// Rules of these globs.
    pub fn new(exclude: &[String], include: &[String]) -> Result<Self, RulesError> {
        let mut hasher = DefaultHasher::new();
        (exclude, include).hash(&mut hasher);
        Ok(Self {
            exclude: matcher(exclude)?,
            include: matcher(include)?,
            fingerprint: match exclude.is_empty() && include.is_empty() {
                true => 0,
                false => hasher.finish(),
            },
        })
    }

    /// A number that other rules do not have; of this process only.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether nothing is ever left out.
    pub fn is_empty(&self) -> bool {
        self.exclude.is_none() && self.include.is_none()
    }

    /// Whether a path is kept, given that the directories above it are.
    pub fn keeps(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        if let Some(exclude) = &self.exclude
            && exclude.matched(path, is_directory).is_ignore()
        {
            return false;
        }
        match &self.include {
            Some(include) if !is_directory => include
                .matched_path_or_any_parents(path, is_directory)
                .is_ignore(),
            _ => true,
        }
    }
}

impl Rules {
    /// Whether a path is kept, with all directories above it.
    pub fn keeps_with_parents(&self, path: &RelPath, is_directory: bool) -> bool {
        if self.is_empty() || path.is_root() {
            return true;
        }
        let mut above = path.parent();
        while let Some(directory) = above.filter(|path| !path.is_root()) {
            if !self.keeps(directory.as_bytes(), true) {
                return false;
            }
            above = directory.parent();
        }
        self.keeps(path.as_bytes(), is_directory)
    }
}

fn matcher(globs: &[String]) -> Result<Option<Gitignore>, RulesError> {
    if globs.is_empty() {
        return Ok(None);
    }
    let mut builder = GitignoreBuilder::new("");
    // git takes `[` literally; here it is a mistake that would silently match nothing.
    builder.allow_unclosed_class(false);
    let wrong = |glob: &str, error: ignore::Error| RulesError {
        glob: glob.to_owned(),
        message: match error {
            ignore::Error::Glob { err, .. } => err,
            error => error.to_string(),
        },
    };
    for glob in globs {
        builder
            .add_line(None, glob)
            .map_err(|error| wrong(glob, error))?;
    }
    let built = builder
        .build()
        .map_err(|error| wrong(&globs.join(" "), error))?;
    Ok(Some(built))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(exclude: &[&str], include: &[&str]) -> Rules {
        let own = |globs: &[&str]| globs.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>();
        Rules::new(&own(exclude), &own(include)).unwrap()
    }

    #[test]
    fn excludes_follow_gitignore() {
        let rules = rules(
            &[
                "*.log",
                "!keep.log",
                "/top",
                "cache/",
                "a/**/z",
                "\\!x",
                "# no",
            ],
            &[],
        );
        for (path, is_directory, kept) in [
            (&b"x.log"[..], false, false),
            (b"d/x.log", false, false),
            (b"d/keep.log", false, true),
            (b"top", false, false),
            (b"d/top", false, true),
            (b"cache", true, false),
            (b"d/cache", true, false),
            (b"cache", false, true),
            (b"a/b/c/z", false, false),
            (b"a/z", true, false),
            (b"!x", false, false),
            (b"# no", false, true),
            (b"\xff\n.log", false, false),
            (b"\xff\n", false, true),
        ] {
            assert_eq!(rules.keeps(path, is_directory), kept, "{path:?}");
        }
    }

    #[test]
    fn includes_keep_directories_and_what_lies_in_matched_ones() {
        let rules = rules(&["*.tmp"], &["/data", "*.conf"]);
        for (path, is_directory, kept) in [
            (&b"data"[..], true, true),
            (b"data/x/y", false, true),
            (b"data/x.tmp", false, false),
            (b"other", true, true),
            (b"other/a.conf", false, true),
            (b"other/a.txt", false, false),
        ] {
            assert_eq!(rules.keeps(path, is_directory), kept, "{path:?}");
        }
        assert!(Rules::default().keeps(b"anything", false));
        for wrong in ["[z-a]", "["] {
            let error = Rules::new(&[wrong.to_owned()], &[]).unwrap_err();
            let told = error.to_string();
            assert!(told.starts_with(&format!("pattern '{wrong}': ")), "{told}");
            assert_eq!(told.matches(wrong).count(), 1, "{told}");
        }
        assert!(Rules::new(&["\\[".to_owned()], &[]).is_ok());
    }
}
