//! Label selectors, with the meaning that Kubernetes gives them.

use crate::kube::api::{LabelSelector, Operator};
use crate::policy::error::Errors;
use std::collections::BTreeMap;
use std::fmt;

/// Labels or annotations of an object.
pub type Labels = BTreeMap<String, String>;

/// A selector that is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Selector {
    /// Reads a selector at a path; mistakes are noted, and what they are in selects nothing away.
    pub fn read(path: &str, selector: &LabelSelector, errors: &mut Errors) -> Self {
        let mut terms = Vec::new();
        for (key, value) in &selector.match_labels {
            let at = format!("{path}.matchLabels[{key}]");
            errors.check(&at, check_key(key));
            errors.check(&at, check_value(value));
            terms.push(Term {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.clone()],
            });
        }
        for (index, requirement) in selector.match_expressions.iter().enumerate() {
            let at = format!("{path}.matchExpressions[{index}]");
            errors.check(&format!("{at}.key"), check_key(&requirement.key));
            for (index, value) in requirement.values.iter().enumerate() {
                errors.check(&format!("{at}.values[{index}]"), check_value(value));
            }
            let wants_values = matches!(requirement.operator, Operator::In | Operator::NotIn);
            let operator = requirement.operator;
            if wants_values && requirement.values.is_empty() {
                errors.add(
                    format!("{at}.values"),
                    format!("is empty; {operator:?} needs one value or more"),
                );
            } else if !wants_values && !requirement.values.is_empty() {
                errors.add(
                    format!("{at}.values"),
                    format!("must be left out: {operator:?} takes no values"),
                );
            }
            terms.push(Term {
                key: requirement.key.clone(),
                operator,
                values: requirement.values.clone(),
            });
        }
        Self { terms }
    }

    /// A label that every object has which this selects.
    pub fn required(&self) -> Option<(&str, &str)> {
        let is_one = |term: &&Term| term.operator == Operator::In && term.values.len() == 1;
        let term = self.terms.iter().find(is_one)?;
        Some((&term.key, &term.values[0]))
    }

    /// Whether all terms hold for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.terms.iter().all(|term| term.holds(labels))
    }

    /// The first term that does not hold, for people.
    pub fn failed(&self, labels: &Labels) -> Option<String> {
        let term = self.terms.iter().find(|term| !term.holds(labels))?;
        let has = match labels.get(&term.key) {
            Some(value) => format!("it is '{value}'"),
            None => "there is no such label".to_owned(),
        };
        Some(format!("{term}, but {has}"))
    }
}

impl Term {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(", "));
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{key} must be '{values}'"),
            Operator::In => write!(f, "{key} must be one of {values}"),
            Operator::NotIn => write!(f, "{key} must not be one of {values}"),
            Operator::Exists => write!(f, "{key} must be there"),
            Operator::DoesNotExist => write!(f, "{key} must not be there"),
        }
    }
}

/// A key is a name of at most 63 characters, after an optional DNS name and a slash.
pub fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let prefix_is_right = prefix
        .is_none_or(|prefix| !prefix.is_empty() && prefix.len() <= 253 && prefix.chars().all(dns));
    if prefix_is_right && !name.is_empty() && is_name(name) {
        return Ok(());
    }
    Err(format!(
        "'{key}' is not a label's key; write one such as 'app' or 'example.com/tier'"
    ))
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!(
        "'{value}' cannot be a label's value: at most 63 letters, digits, '-', '_' and '.', beginning and ending \
         with a letter or digit"
    ))
}

fn is_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::api::Requirement;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn expression(key: &str, operator: Operator, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_labels: Labels::new(),
            match_expressions: vec![Requirement {
                key: key.to_owned(),
                operator,
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            }],
        }
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        let db = labels(&[("app", "db")]);
        for (operator, values, with, without) in [
            (Operator::In, &["db", "x"][..], true, false),
            (Operator::In, &["x"], false, false),
            (Operator::NotIn, &["db"], false, true),
            (Operator::NotIn, &["x"], true, true),
            (Operator::Exists, &[], true, false),
            (Operator::DoesNotExist, &[], false, true),
        ] {
            let mut errors = Errors::default();
            let selector = Selector::read("s", &expression("app", operator, values), &mut errors);
            assert!(errors.is_empty());
            assert_eq!(selector.matches(&db), with, "{operator:?}");
            assert_eq!(selector.matches(&Labels::new()), without, "{operator:?}");
            assert_eq!(selector.failed(&db).is_none(), with);
        }
        assert!(Selector::default().matches(&db));
    }

    #[test]
    fn mistakes_name_their_fields() {
        for (selector, path) in [
            (
                expression("a b", Operator::Exists, &[]),
                "s.matchExpressions[0].key",
            ),
            (
                expression("/a", Operator::Exists, &[]),
                "s.matchExpressions[0].key",
            ),
            (
                expression("a", Operator::In, &[]),
                "s.matchExpressions[0].values",
            ),
            (
                expression("a", Operator::Exists, &["x"]),
                "s.matchExpressions[0].values",
            ),
            (
                expression("a", Operator::In, &["-x"]),
                "s.matchExpressions[0].values[0]",
            ),
        ] {
            let mut errors = Errors::default();
            Selector::read("s", &selector, &mut errors);
            let errors = errors.into_vec();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert_eq!(errors[0].path, path);
        }
    }
}
