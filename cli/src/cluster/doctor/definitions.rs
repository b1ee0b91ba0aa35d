//! Whether the cluster has the definitions of this version's kinds, serves them at its version, and knows all their
//! fields.

use super::{Finding, State};
use crate::cluster::api::text;
use serde_json::Value;

/// The definitions that belong to this program, as the chart installs them: plural and text (`build.rs`).
pub const OURS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/definitions.rs"));

/// What the cluster has of one: its definition, that it has none, or why that is not known.
pub type There = Result<Option<Value>, String>;

/// The version of the API that this program speaks.
const VERSION: &str = "v1alpha1";
const WHY: &str =
    "without them the API server refuses our objects, or drops what it does not know from them";
const MEND: &str = "kubectl apply --server-side -f deploy/chart/crds of the version that is installed (helm \
                    upgrade leaves definitions as they are)";

/// Judges them, in the order of `OURS`.
pub fn judge(there: &[There]) -> Vec<Finding> {
    let (mut absent, mut unserved) = (Vec::new(), Vec::new());
    let (mut behind, mut unknown) = (Vec::new(), Vec::new());
    for ((plural, ours), there) in OURS.iter().zip(there) {
        match there {
            Err(why) => unknown.push(why.clone()),
            Ok(None) => absent.push((*plural).to_owned()),
            Ok(Some(there)) => {
                if let Some(why) = unserved_by(there) {
                    unserved.push(format!("{plural} {why}"));
                    continue;
                }
                let ours: Value = serde_norway::from_str(ours).unwrap_or_default();
                let missing = missing(&ours, there);
                if let Some(first) = missing.first() {
                    let more = match missing.len() {
                        1 => String::new(),
                        many => format!(" and {} more", many - 1),
                    };
                    behind.push(format!("{plural} has no {first}{more}"));
                }
            }
        }
    }
    let check = "definitions";
    let mut found = Vec::new();
    if !absent.is_empty() {
        found.push(Finding::new(
            check,
            State::Bad,
            format!("missing: {}", absent.join(", ")),
            WHY,
            MEND,
        ));
    }
    if !unserved.is_empty() {
        let detail = format!("not served: {}", unserved.join("; "));
        found.push(Finding::new(check, State::Bad, detail, WHY, MEND));
    }
    if !behind.is_empty() {
        let detail = format!(
            "older than this program ({}): {}",
            env!("CARGO_PKG_VERSION"),
            behind.join("; ")
        );
        found.push(Finding::new(check, State::Note, detail, WHY, MEND));
    }
    if let Some(why) = unknown.first() {
        let mend = "have the ClusterRole holdfast-view bound to you, or ask who may look";
        found.push(Finding::new(
            check,
            State::Note,
            format!("not known: {why}"),
            WHY,
            mend,
        ));
    }
    if found.is_empty() {
        found.push(Finding::good(
            check,
            format!(
                "all {} kinds are served at {VERSION}, with all fields",
                OURS.len()
            ),
        ));
    }
    found
}

/// What a definition says of our version.
fn version(definition: &Value) -> Option<&Value> {
    let versions = definition["spec"]["versions"].as_array();
    let mut versions = versions.into_iter().flatten();
    versions.find(|one| one["name"] == VERSION)
}

/// Why its objects cannot be asked for; `None`: they can.
fn unserved_by(there: &Value) -> Option<String> {
    match version(there) {
        None => return Some(format!("has no version {VERSION}")),
        Some(version) if version["served"] != true => {
            return Some(format!("has {VERSION} switched off"));
        }
        Some(_) => {}
    }
    let conditions = there["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let refused = conditions.find(|one| {
        one["status"] == "False" && (one["type"] == "Established" || one["type"] == "NamesAccepted")
    })?;
    let message = text(&refused["message"]);
    let said = format!("is not {}: {message}", text(&refused["type"]));
    Some(said.trim_end_matches([':', ' ']).to_owned())
}

/// Paths of the fields that a definition lacks.
fn missing(ours: &Value, there: &Value) -> Vec<String> {
    let schema = |definition: &Value| {
        version(definition).map_or(Value::Null, |one| one["schema"]["openAPIV3Schema"].clone())
    };
    let mut found = Vec::new();
    compare(&schema(ours), &schema(there), "", &mut found);
    found
}

fn compare(ours: &Value, there: &Value, path: &str, found: &mut Vec<String>) {
    for (name, schema) in ours["properties"].as_object().into_iter().flatten() {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        match &there["properties"][name] {
            Value::Null => found.push(path),
            other => compare(schema, other, &path, found),
        }
    }
    for below in ["items", "additionalProperties"] {
        if ours[below].is_object() {
            compare(&ours[below], &there[below], path, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all() -> Vec<There> {
        OURS.iter()
            .map(|(_, ours)| Ok(serde_norway::from_str(ours).unwrap()))
            .collect()
    }

    #[test]
    fn what_is_missing_is_named_by_its_path() {
        let found = judge(&all());
        assert_eq!((found.len(), found[0].state), (1, State::Good));
        let at = |plural: &str| OURS.iter().position(|(one, _)| *one == plural).unwrap();
        let mut there = all();
        if let Ok(Some(one)) = &mut there[at("backuppolicies")] {
            let schema = &mut one["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let spec = schema["properties"]["spec"]["properties"]
                .as_object_mut()
                .unwrap();
            spec.remove("priority");
            spec["schedule"]["properties"]
                .as_object_mut()
                .unwrap()
                .remove("jitter");
        }
        there[at("clusterbackuppolicies")] = Ok(None);
        there[at("volumeprotections")] = Err("you may not".to_owned());
        let found = judge(&there);
        let states: Vec<State> = found.iter().map(|one| one.state).collect();
        assert_eq!(states, [State::Bad, State::Note, State::Note]);
        assert!(found[0].detail.contains("clusterbackuppolicies"));
        let detail = &found[1].detail;
        assert!(detail.contains("spec.priority and 1 more"), "{detail}");
    }

    #[test]
    fn what_is_not_served_is_no_use() {
        for (change, expected) in [
            (
                json!([{"name": "v1beta1", "served": true}]),
                "has no version v1alpha1",
            ),
            (
                json!([{"name": "v1alpha1", "served": false}]),
                "has v1alpha1 switched off",
            ),
        ] {
            let mut there = all();
            if let Ok(Some(one)) = &mut there[0] {
                one["spec"]["versions"] = change;
            }
            let found = judge(&there);
            assert_eq!((found.len(), found[0].state), (1, State::Bad));
            assert!(found[0].detail.contains(expected), "{}", found[0].detail);
        }
        let mut there = all();
        if let Ok(Some(one)) = &mut there[0] {
            let taken =
                json!({"type": "NamesAccepted", "status": "False", "message": "hbp is taken"});
            one["status"]["conditions"] = json!([{"type": "Established", "status": "True"}, taken]);
        }
        let detail = &judge(&there)[0].detail;
        let expected = "is not NamesAccepted: hbp is taken";
        assert!(detail.contains(expected), "{detail}");
    }
}
