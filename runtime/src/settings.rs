//! Settings from a YAML file and the environment: every error at once, unknown keys refused, secrets
//! never printed. The environment wins.
//!
//! A key is `section.key`; its variable is `HOLDFAST_SECTION_KEY`. A program asks for each key once,
//! with its type and default, then calls [`Settings::finish`], which refuses whatever was not asked
//! for. Until then a wrong value yields the default, so that all of them are found.

use serde::de::DeserializeOwned;
use serde_norway::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

mod units;
pub use units::{ByteCount, Secret, Span};

/// Every variable of ours begins so.
const PREFIX: &str = "HOLDFAST_";
/// What the `holdfast` command reads: exported for it, they are no mistake of another program.
const OF_THE_COMMAND: [&str; 5] = [
    "HOLDFAST_REPO",
    "HOLDFAST_COORDINATOR",
    "HOLDFAST_KEY_FILE",
    "HOLDFAST_PASSPHRASE_FILE",
    "HOLDFAST_STATE_DIR",
];
/// A settings file is written by a person.
const FILE_LIMIT: u64 = 1 << 20;

/// Collects values and errors.
#[derive(Debug)]
pub struct Settings {
    file: Value,
    origin: String,
    variables: BTreeMap<String, String>,
    asked: BTreeSet<String>,
    errors: Vec<String>,
    effective: Vec<(String, String)>,
    /// One mapping of a list, which has no variables.
    is_table: bool,
}

/// All that is wrong with the settings, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} in the settings:\n  {}", count(.0.len()), .0.join("\n  "))]
pub struct SettingsErrors(pub Vec<String>);

fn count(errors: usize) -> String {
    match errors {
        1 => "1 error".into(),
        n => format!("{n} errors"),
    }
}

/// What the program runs with, secrets hidden; printed with `--print-settings` and in the first log
/// line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective(pub Vec<(String, String)>);

impl Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl Settings {
    /// Reads the file, where there is one, and takes our variables out of `environment`. A file
    /// that cannot be read is an error among the others.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut errors = Vec::new();
        let mut text = String::new();
        let mut origin = String::from("settings");
        if let Some(path) = file {
            origin = path.display().to_string();
            match read_limited(path) {
                Ok(read) => text = read,
                Err(error) => errors.push(format!("{origin}: {error}")),
            }
        }
        let mut settings = Self::from_text(&origin, &text, environment);
        settings.errors.splice(0..0, errors);
        settings
    }

    /// The same from a text; `origin` names it in errors.
    pub fn from_text(
        origin: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut errors = Vec::new();
        let file = match serde_norway::from_str::<Value>(text) {
            Ok(file @ (Value::Mapping(_) | Value::Null)) => file,
            Ok(_) => {
                errors.push(format!("{origin}: must be a mapping of sections"));
                Value::Null
            }
            Err(error) => {
                errors.push(format!("{origin}: {error}"));
                Value::Null
            }
        };
        let variables = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self {
            file,
            origin: origin.to_owned(),
            variables,
            asked: BTreeSet::new(),
            errors,
            effective: Vec::new(),
            is_table: false,
        }
    }

    /// The value of `key`, or `default`.
    pub fn get<T>(&mut self, key: &str, default: T) -> T
    where
        T: FromStr + Display,
        T::Err: Display,
    {
        let value = self.parsed(key).unwrap_or(default);
        self.effective.push((key.to_owned(), value.to_string()));
        value
    }

    /// The value of `key`, where it is given.
    pub fn optional<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr + Display,
        T::Err: Display,
    {
        let value: Option<T> = self.parsed(key);
        if let Some(value) = &value {
            self.effective.push((key.to_owned(), value.to_string()));
        }
        value
    }

    /// The value of `key`; absence is an error. `None` only when [`Settings::finish`] will fail.
    pub fn required<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr + Display,
        T::Err: Display,
    {
        let before = self.errors.len();
        let value = self.optional(key);
        if value.is_none() && self.errors.len() == before {
            self.errors.push(match self.is_table {
                true => format!("{} is missing", self.place(key)),
                false => format!("{key} is missing (variable {})", variable(key)),
            });
        }
        value
    }

    /// A value that is never printed. `KEY_file` names a file that holds it instead.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let direct = self.raw(key).map(|(_, value)| value);
        let from_file = self.raw(&format!("{key}_file"));
        let value = match (direct, from_file) {
            (Some(_), Some((place, _))) => {
                self.errors.push(format!("{place}: {key} is given as well"));
                None
            }
            (Some(value), None) => Some(value),
            (None, Some((place, path))) => match read_limited(Path::new(&path)) {
                Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => {
                    self.errors.push(format!("{place}: {path}: {error}"));
                    None
                }
            },
            (None, None) => None,
        };
        value.map(|value| {
            self.effective.push((key.to_owned(), "(hidden)".into()));
            Secret::new(value)
        })
    }

    /// Values of `key`: a sequence in the file, comma-separated in the variable.
    pub fn list<T>(&mut self, key: &str) -> Vec<T>
    where
        T: FromStr + Display,
        T::Err: Display,
    {
        self.asked.insert(key.to_owned());
        let name = variable(key);
        let (place, texts): (String, Vec<Option<String>>) = match self.variables.get(&name) {
            Some(text) => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                (name, parts.map(|part| Some(part.to_owned())).collect())
            }
            None => match self.lookup(key) {
                Some(Value::Sequence(items)) => {
                    (self.place(key), items.iter().map(scalar).collect())
                }
                Some(Value::Null) | None => return Vec::new(),
                Some(one) => (self.place(key), vec![scalar(one)]),
            },
        };
        let mut values = Vec::new();
        for text in texts {
            match text {
                Some(text) => match text.parse::<T>() {
                    Ok(value) => values.push(value),
                    Err(error) => self.errors.push(format!("{place}: {text:?}: {error}")),
                },
                None => self
                    .errors
                    .push(format!("{place}: must be a list of single values")),
            }
        }
        let shown: Vec<String> = values.iter().map(T::to_string).collect();
        self.effective.push((key.to_owned(), shown.join(",")));
        values
    }

    /// A structure of the file; its own fields are checked by serde, and it has no variables. The
    /// first error in it is reported beside those of other keys.
    pub fn structure<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.asked.insert(key.to_owned());
        let value = self.lookup(key)?.clone();
        if value == Value::Null {
            return None;
        }
        match serde_norway::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let place = self.place(key);
                self.errors.push(format!("{place}: {error}"));
                None
            }
        }
    }

    /// A list of mappings of the file; it has no variables. `read` is called with each as with a file of its
    /// own: what is wrong in any of them, and keys that it does not ask for, are errors beside the others.
    pub fn tables<T>(&mut self, key: &str, mut read: impl FnMut(&mut Settings) -> T) -> Vec<T> {
        self.asked.insert(key.to_owned());
        let items = match self.lookup(key).cloned() {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Sequence(items)) => items,
            Some(_) => {
                let place = self.place(key);
                self.errors.push(format!("{place}: must be a list"));
                return Vec::new();
            }
        };
        let mut values = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let origin = self.place(&format!("{key}[{index}]"));
            if !matches!(item, Value::Mapping(_)) {
                self.errors.push(format!("{origin}: must be a mapping"));
                continue;
            }
            let mut table = Settings {
                file: item,
                origin,
                variables: BTreeMap::new(),
                asked: BTreeSet::new(),
                errors: Vec::new(),
                effective: Vec::new(),
                is_table: true,
            };
            values.push(read(&mut table));
            match table.finish() {
                Ok(Effective(effective)) => self.effective.extend(
                    effective
                        .into_iter()
                        .map(|(name, value)| (format!("{key}[{index}].{name}"), value)),
                ),
                Err(SettingsErrors(errors)) => self.errors.extend(errors),
            }
        }
        values
    }

    /// Reports a rule between several values, beside the other errors.
    pub fn refuse(&mut self, message: impl Into<String>) {
        let message = message.into();
        self.errors.push(match self.is_table {
            true => format!("{}: {message}", self.origin),
            false => message,
        });
    }

    /// What the program runs with, or everything that is wrong.
    pub fn finish(mut self) -> Result<Effective, SettingsErrors> {
        let mut unknown = Vec::new();
        leaves(&self.file, "", &self.asked, &mut unknown);
        for key in unknown {
            let hint = nearest(&key, &self.asked);
            let origin = &self.origin;
            self.errors
                .push(format!("{origin}: unknown key {key}{hint}"));
        }
        let mut ignored = Vec::new();
        let known: BTreeSet<String> = self.asked.iter().map(|key| variable(key)).collect();
        for name in self.variables.keys() {
            if known.contains(name) || is_service_link(name) {
                continue;
            }
            if OF_THE_COMMAND.contains(&name.as_str()) {
                ignored.push(name.clone());
                continue;
            }
            let hint = nearest(name, &known);
            self.errors.push(format!("unknown variable {name}{hint}"));
        }
        if !ignored.is_empty() {
            let key = String::from("(variables of the holdfast command, ignored)");
            self.effective.push((key, ignored.join(",")));
        }
        if self.errors.is_empty() {
            Ok(Effective(self.effective))
        } else {
            Err(SettingsErrors(self.errors))
        }
    }

    fn parsed<T>(&mut self, key: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let (place, text) = self.raw(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.push(format!("{place}: {text:?}: {error}"));
                None
            }
        }
    }

    /// Where the value stands, and its text.
    fn raw(&mut self, key: &str) -> Option<(String, String)> {
        self.asked.insert(key.to_owned());
        let name = variable(key);
        if let Some(text) = self.variables.get(&name) {
            return Some((name, text.clone()));
        }
        let place = self.place(key);
        match self.lookup(key)? {
            Value::Null => None,
            value => match scalar(value) {
                Some(text) => Some((place, text)),
                None => {
                    self.errors.push(format!("{place}: must be a single value"));
                    None
                }
            },
        }
    }

    fn lookup(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.file, |at, part| at.get(part))
    }

    fn place(&self, key: &str) -> String {
        format!("{}: {key}", self.origin)
    }
}

fn variable(key: &str) -> String {
    let mut name = String::from(PREFIX);
    name.extend(key.chars().map(|c| match c {
        '.' | '-' => '_',
        c => c.to_ascii_uppercase(),
    }));
    name
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        _ => None,
    }
}

/// Keys of the file that nobody asked for.
fn leaves(value: &Value, key: &str, asked: &BTreeSet<String>, unknown: &mut Vec<String>) {
    if !key.is_empty() && asked.contains(key) {
        return;
    }
    let Value::Mapping(mapping) = value else {
        // An empty section, `grpc:` with nothing below, is no mistake.
        let prefix = format!("{key}.");
        let section = asked.iter().any(|known| known.starts_with(&prefix));
        let empty_section = *value == Value::Null && section;
        if !key.is_empty() && !empty_section {
            unknown.push(key.to_owned());
        }
        return;
    };
    for (name, below) in mapping {
        let name = scalar(name).unwrap_or_else(|| "(not a name)".into());
        let path = if key.is_empty() {
            name
        } else {
            format!("{key}.{name}")
        };
        leaves(below, &path, asked, unknown);
    }
}

/// `; did you mean X?` where something asked for is at most two edits away.
fn nearest(found: &str, known: &BTreeSet<String>) -> String {
    known
        .iter()
        .map(|name| (edits(found, name), name))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map_or_else(String::new, |(_, name)| format!("; did you mean {name}?"))
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// Variables that Kubernetes sets in every pod for a Service whose name begins with `holdfast`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP"))
}

fn read_limited(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if size.len() > FILE_LIMIT {
        return Err(format!("larger than {FILE_LIMIT} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
