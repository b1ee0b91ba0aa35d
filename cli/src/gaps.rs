//! What a snapshot does not hold because it could not be read then: told wherever its content is used,
//! so that what is missing is never silent.

use crate::failure::{Exit, Failure, reason_of};
use holdfast_format::id::hex;
use holdfast_format::path::{RelPath, escape};
use holdfast_proto::v1;

/// Paths named in a note; `snapshots --problems` has more.
const SHOWN: usize = 5;

/// The problems that a snapshot was stored with, at, below or above one of its paths.
pub struct Gaps<'s> {
    id: String,
    named: Vec<&'s v1::Problem>,
    unnamed_count: u64,
}

impl<'s> Gaps<'s> {
    /// Of a snapshot and a path in it. Problems beyond those that the record names may be anywhere.
    pub fn new(info: &'s v1::SnapshotInfo, path: &RelPath) -> Self {
        let concerns = |problem: &&v1::Problem| {
            RelPath::new(problem.path.to_vec())
                .is_ok_and(|at| at.is_within(path) || path.is_within(&at))
        };
        let all = info.first_problems.len() as u64;
        let id = hex(&info.id);
        Self {
            id: id[..12.min(id.len())].to_owned(),
            named: info.first_problems.iter().filter(concerns).collect(),
            unnamed_count: info.problems.saturating_sub(all),
        }
    }

    /// How many there are, or may be.
    pub fn count(&self) -> u64 {
        self.named.len() as u64 + self.unnamed_count
    }

    /// For people; `None` where there are none.
    pub fn note(&self) -> Option<String> {
        let (id, count) = (&self.id, self.count());
        if count == 0 {
            return None;
        }
        let shown: Vec<String> = self
            .named
            .iter()
            .take(SHOWN)
            .map(|problem| {
                let kept = if problem.carried_over {
                    ", an earlier state is in its place"
                } else {
                    ""
                };
                format!("{} ({}{kept})", shown_path(problem), problem.reason)
            })
            .collect();
        let more = match count - shown.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let s = if count == 1 { "" } else { "s" };
        Some(format!(
            "snapshot {id} was stored with {count} problem{s}; missing or incomplete in it: {}{more}; \
             `holdfast snapshots --problems {id}` lists them",
            shown.join(", ")
        ))
    }

    /// Prints the note, on standard error.
    pub fn tell(&self) {
        if let Some(note) = self.note() {
            eprintln!("note: {note}");
        }
    }

    /// What to say of a path that the snapshot does not have.
    pub fn missing(&self, path: &RelPath) -> Failure {
        let above = |problem: &&&v1::Problem| {
            RelPath::new(problem.path.to_vec()).is_ok_and(|at| path.is_within(&at))
        };
        match self.named.iter().find(above) {
            Some(problem) => Failure::with(
                Exit::Incomplete,
                format!(
                    "{path} is not in this snapshot: {} could not be read when it was made: {} ({})",
                    shown_path(problem),
                    problem.detail,
                    problem.reason
                ),
            ),
            None => Failure::failed(format!("{path}: no such path in this snapshot")),
        }
    }

    /// A failure to list or read a path: where it is missing, with the reason that is known.
    pub fn explain(&self, path: &RelPath, status: tonic::Status) -> Failure {
        if reason_of(&status) == "PathNotFound" {
            self.missing(path)
        } else {
            status.into()
        }
    }
}

/// The path of a problem for people; the root as a dot.
pub fn shown_path(problem: &v1::Problem) -> String {
    if problem.path.is_empty() {
        ".".into()
    } else {
        escape(&problem.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(paths: &[&'static str], count: u64) -> v1::SnapshotInfo {
        v1::SnapshotInfo {
            id: vec![0xab; 32].into(),
            problems: count,
            first_problems: paths
                .iter()
                .map(|path| v1::Problem {
                    path: path.as_bytes().to_vec().into(),
                    reason: "PermissionDenied".into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn only_problems_of_the_path_count_and_those_without_a_name() {
        let info = info(&["a/secret", "b"], 2);
        let path = |text: &str| RelPath::new(text).unwrap();
        for (text, count) in [("", 2), ("a", 1), ("b/deep", 1), ("c", 0), ("a/se", 0)] {
            assert_eq!(Gaps::new(&info, &path(text)).count(), count, "{text}");
        }
        assert!(Gaps::new(&info, &path("c")).note().is_none());
        let unnamed = v1::SnapshotInfo {
            problems: 102,
            ..info
        };
        let gaps = Gaps::new(&unnamed, &path("a"));
        let note = gaps.note().unwrap();
        assert!(note.contains("101 problems"), "{note}");
        assert!(
            note.contains("a/secret (PermissionDenied) and 100 more"),
            "{note}"
        );
    }

    #[test]
    fn a_path_below_what_could_not_be_read_is_explained() {
        let info = info(&["locked"], 1);
        let path = RelPath::new("locked/file").unwrap();
        let failure = Gaps::new(&info, &path).missing(&path);
        assert_eq!(failure.exit, Exit::Incomplete);
        assert!(
            failure.message.contains("locked could not be read"),
            "{}",
            failure.message
        );
        let other = RelPath::new("other").unwrap();
        assert_eq!(Gaps::new(&info, &other).missing(&other).exit, Exit::Failed);
    }
}
