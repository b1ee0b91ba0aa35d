//! The exit codes: each has one meaning, for every program and command.

use std::process::{ExitCode, Termination};

/// How a program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line or the settings are wrong.
    Usage = 2,
    /// Done, but some items are missing from it.
    Incomplete = 3,
    /// Stored data is damaged.
    Damage = 4,
    /// Refused by a safety rule.
    Refused = 5,
    /// There is no repository.
    NoRepository = 10,
    /// Another coordinator owns the repository.
    Owned = 11,
    /// The key does not open the repository.
    WrongKey = 12,
    /// The caller may not do this.
    NotAllowed = 13,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// Its number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The worse of two: what a run of several parts ends with. Interrupted before failed before
    /// damage before incomplete before done.
    pub fn worse(self, other: Exit) -> Exit {
        let rank = |exit: Exit| match exit {
            Exit::Done => 0,
            Exit::Incomplete => 1,
            Exit::Damage => 2,
            Exit::Refused => 3,
            Exit::Failed => 4,
            Exit::Usage => 5,
            Exit::NoRepository | Exit::Owned | Exit::WrongKey | Exit::NotAllowed => 6,
            Exit::Interrupted => 7,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_decides() {
        assert_eq!(Exit::Done.worse(Exit::Incomplete), Exit::Incomplete);
        assert_eq!(Exit::Failed.worse(Exit::Incomplete), Exit::Failed);
        assert_eq!(Exit::Interrupted.worse(Exit::Owned).code(), 130);
    }
}
