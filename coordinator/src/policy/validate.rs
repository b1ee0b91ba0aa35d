//! What a schema cannot say about a policy: all mistakes at once, each with its field and what to write
//! instead. The same for objects of a cluster and of a file.

use crate::kube::api::{FilesSpec, PolicySpec};
use crate::policy::compile::Conditions;
use crate::policy::due::Rhythm;
use crate::policy::error::{Errors, FieldError};
use crate::policy::hooks;
use crate::policy::values::{bytes, duration};
use ignore::gitignore::GitignoreBuilder;

/// How far a policy reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Its namespace.
    Namespace,
    /// The cluster.
    Cluster,
}

/// The mistakes of a policy.
pub fn validate(spec: &PolicySpec, scope: Scope) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let selection = &spec.selection;
    if scope == Scope::Namespace {
        let message = "belongs to a ClusterBackupPolicy; a BackupPolicy is about its own namespace";
        if selection.namespaces.is_some() {
            errors.add("spec.selection.namespaces", message);
        }
        if selection.namespace_selector.is_some() {
            errors.add("spec.selection.namespaceSelector", message);
        }
    }
    Conditions::read("spec.selection", selection, &mut errors);
    // What it is worth is known when it is used; here only mistakes count.
    let _ = Rhythm::read(spec, &mut errors);
    if !(-1000..=1000).contains(&spec.priority) {
        errors.add(
            "spec.priority",
            format!("is {}; write a number from -1000 to 1000", spec.priority),
        );
    }
    if let Some(text) = &spec.deadline {
        positive("spec.deadline", text, &mut errors);
    }
    if let Some(files) = &spec.files {
        check_files(files, &mut errors);
    }
    // What they are worth is known when they are used.
    let _ = hooks::read(spec, scope, &mut errors);
    let limits = spec.limits.clone().unwrap_or_default();
    for (path, rate) in [
        ("spec.limits.readRate", &limits.read_rate),
        ("spec.limits.sendRate", &limits.send_rate),
    ] {
        if let Some(text) = rate {
            errors.check(path, check_rate(text));
        }
    }
    if limits.max_concurrent_per_node.is_some_and(|most| most < 1) {
        errors.add(
            "spec.limits.maxConcurrentPerNode",
            "is less than 1; to stop runs write suspend: true",
        );
    }
    errors.into_vec()
}

fn positive(path: &str, text: &str, errors: &mut Errors) {
    let read = duration(text).and_then(|read| match read.is_zero() {
        true => Err("is 0; write a duration such as 30s".to_owned()),
        false => Ok(()),
    });
    errors.check(path, read);
}

/// Slower, and a run of a large volume would never end.
const MIN_RATE: u64 = 64 << 10;

fn check_rate(text: &str) -> Result<(), String> {
    match bytes(text)? {
        rate if rate < MIN_RATE => Err(format!(
            "is {rate} bytes a second; write 64Ki or more, or suspend: true to stop runs"
        )),
        _ => Ok(()),
    }
}

/// The mistakes in globs.
pub fn check_files(files: &FilesSpec, errors: &mut Errors) {
    for (list, name) in [(&files.include, "include"), (&files.exclude, "exclude")] {
        for (index, glob) in list.iter().enumerate() {
            errors.check(&format!("spec.files.{name}[{index}]"), check_glob(glob));
        }
    }
    if let Some(index) = files.include.iter().position(|glob| glob.starts_with('!')) {
        let message = "begins with '!'; name what is left out in spec.files.exclude instead";
        errors.add(format!("spec.files.include[{index}]"), message);
    }
}

/// As the agent reads it (`holdfast_agent::rules`).
fn check_glob(glob: &str) -> Result<(), String> {
    if glob.trim().is_empty() {
        return Err("is empty; remove it, or write a glob such as '*.log'".to_owned());
    }
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    let read = builder.add_line(None, glob).map(|_| ());
    let read = read.and_then(|()| builder.build().map(|_| ()));
    read.map_err(|error| match error {
        ignore::Error::Glob { err, .. } => format!("'{glob}' is no glob: {err}"),
        error => format!("'{glob}' is no glob: {error}"),
    })
}

#[cfg(test)]
mod tests;
