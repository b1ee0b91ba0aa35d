//! A mistake in a policy: where, and what to write instead.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, such as `spec.windows[1].start`.
    pub path: String,
    /// What is wrong with it, and what to write instead.
    pub message: String,
}

impl FieldError {
    /// A mistake in a field.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Several mistakes in one line.
pub fn joined(errors: &[FieldError]) -> String {
    let lines: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    lines.join("; ")
}

/// Gathers mistakes.
#[derive(Debug, Default)]
pub struct Errors {
    found: Vec<FieldError>,
}

impl Errors {
    /// Notes one.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.found.push(FieldError::new(path, message));
    }

    /// The value, or `None` and a note.
    pub fn check<T>(&mut self, path: &str, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(message) => {
                self.add(path, message);
                None
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them, in the order of their notes.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.found
    }
}
