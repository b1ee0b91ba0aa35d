//! What would fail in a cluster: each finding says what was looked at, why it matters, and how to mend it.
//!
//! `gather` asks; the files beside it judge, and are pure.

mod account;
mod definitions;
mod gather;
mod nodes;
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
    /// The nodes that it is about; none: it is about no node.
    pub nodes: Vec<String>,
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
            nodes: Vec::new(),
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
            nodes: Vec::new(),
            detail: detail.into(),
            why,
            mend: mend.into(),
        }
    }

    /// The same, of these nodes.
    pub fn on(self, nodes: Vec<String>) -> Self {
        Self { nodes, ..self }
    }

    /// What was found, for people; at most so many nodes are named.
    pub fn said(&self, most: usize) -> String {
        if self.nodes.is_empty() {
            return self.detail.clone();
        }
        let named = self.nodes[..self.nodes.len().min(most)].join(", ");
        match self.nodes.len().saturating_sub(most) {
            0 => format!("{named}: {}", self.detail),
            more => format!("{named} and {more} more: {}", self.detail),
        }
    }

    /// For programs.
    pub fn as_document(&self) -> Value {
        json!({
            "check": self.check, "state": self.state.word(), "nodes": self.nodes, "detail": self.detail,
            "why": self.why, "mend": self.mend,
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
    found.extend(account::of_account(facts));
    found.extend(parts::agents(facts));
    found.extend(nodes::nodes(facts));
    found.extend(parts::told(facts));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_before_what_is_found_of_them() {
        let one = Finding::good("x", "is so").on(vec!["a".into(), "b".into(), "c".into()]);
        assert_eq!(one.said(3), "a, b, c: is so");
        assert_eq!(one.said(2), "a, b and 1 more: is so");
        assert_eq!(one.as_document()["nodes"], json!(["a", "b", "c"]));
        assert_eq!(Finding::good("x", "is so").said(2), "is so");
    }
}
