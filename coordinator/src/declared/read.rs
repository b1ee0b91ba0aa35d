//! The policies of one text: documents with the objects that a cluster has, and every mistake in them with its
//! line, its object and its field. Pure.

use super::fields;
use super::line::{documents, line_of};
use super::subjects::DEFAULT_NAMESPACE;
use crate::kube::api::schema::{self, Step, Wrong, steps, written};
use crate::kube::api::{
    API_VERSION, BackupPolicy, ClusterBackupPolicy, PolicyKind, PolicyReference, PolicySpec,
};
use crate::policy::compile::Policy;
use crate::policy::validate::{Scope, validate};
use jiff::Timestamp;
use serde_json::Value;
use std::fmt;

/// A mistake in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The text's name.
    pub origin: String,
    /// Where in it.
    pub line: Option<usize>,
    /// The object, such as `BackupPolicy shop/daily`.
    pub object: String,
    /// The field and what is wrong with it.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: ", self.origin)?,
            None => write!(f, "{}: ", self.origin)?,
        }
        match &self.object[..] {
            "" => f.write_str(&self.message),
            object => write!(f, "{object}: {}", self.message),
        }
    }
}

/// A policy of a text, and where it begins.
#[derive(Clone, Debug)]
pub struct Found {
    /// The policy.
    pub policy: Policy,
    /// The line of its name.
    pub line: Option<usize>,
}

/// The schemas of both kinds.
pub struct Schemas {
    namespaced: Value,
    cluster: Value,
}

impl Schemas {
    /// As a cluster has them.
    pub fn new() -> Self {
        Self {
            namespaced: schema::of_spec::<BackupPolicy>(),
            cluster: schema::of_spec::<ClusterBackupPolicy>(),
        }
    }

    fn of(&self, kind: PolicyKind) -> &Value {
        match kind {
            PolicyKind::BackupPolicy => &self.namespaced,
            PolicyKind::ClusterBackupPolicy => &self.cluster,
        }
    }
}

/// Reads a text.
pub fn read(schemas: &Schemas, origin: &str, text: &str) -> (Vec<Found>, Vec<Mistake>) {
    let (mut found, mut mistakes) = (Vec::new(), Vec::new());
    let all = match documents(text) {
        Ok(all) => all,
        Err((line, message)) => {
            mistakes.push(Mistake {
                origin: origin.to_owned(),
                line,
                object: String::new(),
                message,
            });
            return (found, mistakes);
        }
    };
    for (number, document) in all.iter().enumerate() {
        // Nothing between two separators.
        if document.is_null() {
            continue;
        }
        let mut wrong = Vec::new();
        let (object, policy) = of_document(schemas, document, &mut wrong);
        if wrong.is_empty()
            && let Some(policy) = policy
        {
            let line = line_of(text, number, &steps("metadata.name"));
            found.push(Found { policy, line });
        }
        mistakes.extend(wrong.into_iter().map(|(steps, message)| Mistake {
            origin: origin.to_owned(),
            line: line_of(text, number, &steps),
            object: object.clone(),
            message: match steps.is_empty() {
                true => message,
                false => format!("{}: {message}", written(&steps)),
            },
        }));
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    (found, mistakes)
}

/// What the document is called in messages, and the policy that it is.
fn of_document(
    schemas: &Schemas,
    document: &serde_norway::Value,
    wrong: &mut Vec<Wrong>,
) -> (String, Option<Policy>) {
    let Ok(document) = serde_json::to_value(document) else {
        let message = "has a key that is no text";
        wrong.push((Vec::new(), message.to_owned()));
        return (String::new(), None);
    };
    let Some(fields) = document.as_object() else {
        let message = "is no object; write apiVersion, kind, metadata and spec";
        wrong.push((Vec::new(), message.to_owned()));
        return (String::new(), None);
    };
    let text = |path: [&str; 2]| document[path[0]][path[1]].as_str().map(str::to_owned);
    let mut add = |path: &str, message: String| wrong.push((steps(path), message));
    if document["apiVersion"] != API_VERSION {
        add("apiVersion", format!("must be {API_VERSION}"));
    }
    let kind = match document["kind"].as_str() {
        Some("BackupPolicy") => PolicyKind::BackupPolicy,
        Some("ClusterBackupPolicy") => PolicyKind::ClusterBackupPolicy,
        _ => {
            let message = "must be BackupPolicy or ClusterBackupPolicy; a list's items are documents of their own";
            add("kind", message.to_owned());
            return (String::new(), None);
        }
    };
    for name in fields.keys() {
        match &name[..] {
            "apiVersion" | "kind" | "metadata" | "spec" => {}
            "status" => add(name, "is what a cluster is told; leave it out".to_owned()),
            _ => add(
                name,
                "is no field here; there are: apiVersion, kind, metadata, spec".to_owned(),
            ),
        }
    }
    for name in document["metadata"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if !["name", "namespace", "labels", "annotations"].contains(&&name[..]) {
            let path = format!("metadata.{name}");
            add(&path, "is an API server's to say; leave it out".to_owned());
        }
    }
    let name = text(["metadata", "name"]);
    if !name.as_deref().is_some_and(is_name) {
        let message = "must be a name of lower-case letters, digits, '-' and '.'";
        add("metadata.name", message.to_owned());
    }
    let given = &document["metadata"]["namespace"];
    let namespace = match kind {
        PolicyKind::ClusterBackupPolicy => {
            if !given.is_null() {
                let message = "a ClusterBackupPolicy has none; spec.selection.namespaces says which it is for";
                add("metadata.namespace", message.to_owned());
            }
            None
        }
        PolicyKind::BackupPolicy if given.is_null() => Some(DEFAULT_NAMESPACE.to_owned()),
        PolicyKind::BackupPolicy => {
            // Of a volume's name it is what stands before the slash.
            let is_right = |text: &&str| {
                let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                !text.is_empty() && text.len() <= 253 && text.chars().all(known)
            };
            let namespace = given.as_str().filter(is_right);
            if namespace.is_none() {
                let message = "must be what volumes have before the slash of their names";
                add("metadata.namespace", message.to_owned());
            }
            Some(namespace.unwrap_or_default().to_owned())
        }
    };
    let reference = PolicyReference {
        kind,
        namespace,
        name: name.unwrap_or_default(),
    };
    let spec = of_spec(schemas.of(kind), kind, &document["spec"], wrong);
    let object = match reference.name.is_empty() {
        true => kind.to_string(),
        false => reference.to_string(),
    };
    let policy = spec.map(|spec| Policy {
        uid: reference.to_string(),
        generation: None,
        // Among policies of files priority and name decide: times of files are no one's intent.
        created: Timestamp::UNIX_EPOCH,
        reference,
        spec,
        misread: Vec::new(),
    });
    (object, policy)
}

fn of_spec(
    schema: &Value,
    kind: PolicyKind,
    spec: &Value,
    wrong: &mut Vec<Wrong>,
) -> Option<PolicySpec> {
    let at = Step::Key("spec".to_owned());
    if spec.is_null() {
        let message = "is missing; write at least a schedule or an exposure";
        wrong.push((vec![at], message.to_owned()));
        return None;
    }
    fields::check(schema, spec, wrong);
    let before = wrong.len();
    schema::check(schema, spec, &mut vec![at], wrong);
    if wrong.len() > before {
        // What is not of its type cannot be looked at any further.
        return None;
    }
    let read: PolicySpec = match serde_json::from_value(spec.clone()) {
        Ok(read) => read,
        Err(error) => {
            wrong.push((steps("spec"), error.to_string()));
            return None;
        }
    };
    let scope = match kind {
        PolicyKind::BackupPolicy => Scope::Namespace,
        PolicyKind::ClusterBackupPolicy => Scope::Cluster,
    };
    let errors = validate(&read, scope).into_iter();
    wrong.extend(errors.map(|error| (steps(&error.path), error.message)));
    Some(read)
}

/// As an API server takes it.
fn is_name(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let at_the_ends = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.bytes().all(known)
        && text.as_bytes().first().is_some_and(at_the_ends)
        && text.as_bytes().last().is_some_and(at_the_ends)
}
