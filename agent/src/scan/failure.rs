//! What can go wrong in a walk, as data.

use super::Scanned;
use crate::beneath::Errno;
use crate::error::ItemProblem;
use std::io;

/// Why a listing ended.
pub(super) enum ListError {
    Errno(Errno),
    Spill(io::Error),
    Mount,
    Cancelled,
}

impl From<Errno> for ListError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

pub(super) fn problem(attempted: &str, errno: Errno) -> ItemProblem {
    let mut problem = ItemProblem::from_io(attempted, &errno.into());
    if matches!(errno, Errno::NOTDIR | Errno::LOOP | Errno::XDEV) {
        problem.reason = "ReplacedDuringScan";
    }
    problem
}

pub(super) fn aborted(what: &'static str, source: io::Error) -> Scanned {
    Scanned::Aborted { what, source }
}
