//! What would fail in a cluster: each finding says what was looked at, why it matters, and how to mend it.
//!
//! `gather` asks; the files beside it judge, and are pure.

mod definitions;
mod gather;
mod parts;
mod rights;

pub use gather::{Facts, gather};
use serde_json::{Value, json};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// It works, but not as well as it could; or it could not be looked at.
    Note,
    /// It keeps volumes from being protected, or will.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What.
    pub check: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// Why it matters; empty where all is well.
    pub why: &'static str,
    /// How to mend it; empty where all is well.
    pub mend: String,
}

impl Finding {
    /// All is well.
    pub fn good(check: &str, detail: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            state: State::Good,
            detail: detail.into(),
            why: "",
            mend: String::new(),
        }
    }

    /// All is not.
    pub fn new(
        check: &str,
        state: State,
        detail: impl Into<String>,
        why: &'static str,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            check: check.to_owned(),
            state,
            detail: detail.into(),
            why,
            mend: mend.into(),
        }
    }

    /// For programs.
    pub fn as_document(&self) -> Value {
        json!({
            "check": self.check, "state": self.state.word(), "detail": self.detail, "why": self.why,
            "mend": self.mend,
        })
    }
}

impl State {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "FAILS",
        }
    }
}

/// Everything that was found.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![parts::clock(facts)];
    found.extend(definitions::judge(&facts.definitions));
    found.push(rights::of_user(&facts.of_user));
    found.extend(parts::coordinator(facts));
    found.extend(rights::of_account(&facts.of_account));
    found.extend(parts::agents(facts));
    found.extend(parts::told(facts));
    found
}
