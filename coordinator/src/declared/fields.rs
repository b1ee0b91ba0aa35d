//! Which fields of a policy mean something without a cluster. The list names those that do: a field that is new
//! in the schema is refused here until somebody has decided what it means.

use crate::kube::api::schema::{Step, Wrong};
use serde_json::Value;

const SPEC: [&str; 11] = [
    "selection",
    "schedule",
    "exposure",
    "windows",
    "priority",
    "deadline",
    "startingDeadline",
    "files",
    "changeDetection",
    "limits",
    "suspend",
];
const SELECTION: [&str; 3] = ["mode", "namespaces", "volumes"];

/// Notes every field of the schema that needs a cluster. Fields that no schema has are not its business.
pub fn check(schema: &Value, spec: &Value, wrong: &mut Vec<Wrong>) {
    let names = |value: &Value| -> Vec<String> {
        let fields = value.as_object();
        fields
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    };
    let mut refuse = |path: &[&str], what: &str, instead: &str| {
        let steps = path.iter().map(|key| Step::Key((*key).to_owned()));
        wrong.push((steps.collect(), format!("{what}; {instead}")));
    };
    for name in names(spec) {
        if !SPEC.contains(&&name[..]) && schema["properties"].get(&name).is_some() {
            let what = "needs a cluster, and this policy is from a file";
            let instead = match &name[..] {
                "hooks" => "commands in pods cannot be run: leave it out",
                _ => "leave it out",
            };
            refuse(&["spec", &name], what, instead);
        }
    }
    let selection = &spec["selection"];
    let known = &schema["properties"]["selection"]["properties"];
    let by_name = "name the volumes in spec.selection.volumes.include";
    for name in names(selection) {
        if SELECTION.contains(&&name[..]) || known.get(&name).is_none() {
            continue;
        }
        let (what, instead) = match &name[..] {
            "namespaceSelector" => (
                "needs a cluster: without one namespaces have no labels",
                "name them in spec.selection.namespaces.include",
            ),
            "podSelector" => ("needs a cluster: without one there are no pods", by_name),
            "claimSelector" | "annotations" | "storageClasses" | "drivers" | "accessModes"
            | "minSize" | "maxSize" => (
                "needs a cluster: without one volumes have no claims",
                by_name,
            ),
            "kinds" => (
                "needs a cluster: without one volumes are directories",
                by_name,
            ),
            _ => ("needs a cluster", by_name),
        };
        refuse(&["spec", "selection", &name], what, instead);
    }
    if selection["mode"] == "Annotated" {
        let what = "is 'Annotated', which needs a cluster: without one volumes have no annotations";
        refuse(&["spec", "selection", "mode"], what, by_name);
    }
}
