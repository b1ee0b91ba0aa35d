//! What a path of the API names, and which objects its query selects.

use serde_json::Value;
use std::collections::HashMap;

/// Whether an object has the labels and fields that a list asks for (equality only).
pub fn is_selected(object: &Value, query: &HashMap<String, String>) -> bool {
    let holds = |selector: Option<&String>, value: &dyn Fn(&str) -> Option<String>| {
        let parts = selector.into_iter().flat_map(|text| text.split(','));
        parts.filter(|part| !part.is_empty()).all(|part| {
            let (key, wanted) = part.split_once('=').unwrap_or((part, ""));
            value(key).as_deref() == Some(wanted.trim_start_matches('='))
        })
    };
    let label = |key: &str| {
        let value = &object["metadata"]["labels"][key];
        value.as_str().map(str::to_owned)
    };
    let field = |key: &str| {
        let value = key.split('.').fold(object, |value, part| &value[part]);
        value.as_str().map(str::to_owned)
    };
    holds(query.get("labelSelector"), &label) && holds(query.get("fieldSelector"), &field)
}

/// A collection, an object, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Group, version and plural: `v1/pods`, `apps/v1/deployments`.
    pub kind: String,
    /// Its namespace, where the path names one.
    pub namespace: Option<String>,
    /// An object.
    pub name: Option<String>,
    /// A part of it, such as `status`.
    pub part: Option<String>,
}

impl Target {
    /// What this path names.
    pub fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let text = |part: Option<&&str>| part.map(|part| (*part).to_owned());
        Some(Self {
            kind: format!("{group}/{}", rest.first()?),
            namespace: namespace.map(str::to_owned),
            name: text(rest.get(1)),
            part: text(rest.get(2)),
        })
    }

    /// Whether objects of this namespace are meant.
    pub fn holds(&self, namespace: &str) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|wanted| wanted == namespace)
    }

    /// Namespace and name.
    pub fn key(&self) -> (String, String) {
        let namespace = self.namespace.clone().unwrap_or_default();
        (namespace, self.name.clone().unwrap_or_default())
    }

    /// Group and version.
    pub fn api_version(&self) -> &str {
        self.kind.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// The word for one object: good enough for bookmarks, whose readers know what they watch.
    pub fn object_kind(&self) -> String {
        let plural = self.kind.rsplit('/').next().unwrap_or_default();
        plural.trim_end_matches('s').to_owned()
    }

    /// What is kept of a written object: of its status only what came by the status, and the other way round.
    pub fn within(&self, known: &Value, mut written: Value) -> Value {
        if self.part.as_deref() == Some("status") {
            let mut object = known.clone();
            object["status"] = written["status"].take();
            return object;
        }
        match known.get("status") {
            Some(status) => written["status"] = status.clone(),
            None => {
                written
                    .as_object_mut()
                    .map(|object| object.remove("status"));
            }
        }
        written
    }
}
