//! Holds a value to the schema that a cluster's API server would hold it to: types, unknown and missing fields,
//! words, lengths, ranges. What the schema says in patterns and rules is in `policy::validate` as well.

use serde_json::Value;

/// One step on the way to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Of a mapping.
    Key(String),
    /// Of a list.
    Index(usize),
}

/// The steps as people write them: `spec.windows[1].start`.
pub fn written(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// The steps of a path that is written so.
pub fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, indices) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key.to_owned()));
        let indices = indices
            .split(['[', ']'])
            .filter_map(|text| text.parse().ok());
        steps.extend(indices.map(Step::Index));
    }
    steps
}

/// A mistake: where, and what to write instead.
pub type Wrong = (Vec<Step>, String);

/// The schema of the spec in a definition of a kind.
pub fn of_spec<K: kube::CustomResourceExt>() -> Value {
    // A definition is JSON, and has a version with a schema of its spec.
    let definition = serde_json::to_value(K::crd()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// Notes all mistakes in a value.
pub fn check(schema: &Value, value: &Value, at: &mut Vec<Step>, wrong: &mut Vec<Wrong>) {
    let mut add = |at: &[Step], message: String| wrong.push((at.to_vec(), message));
    if value.is_null() {
        return add(at, "is empty; give it a value, or leave it out".to_owned());
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(fields)) => {
            let known = schema["properties"].as_object();
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                if !fields.contains_key(name) {
                    at.push(Step::Key(name.to_owned()));
                    add(at, "is missing".to_owned());
                    at.pop();
                }
            }
            for (name, value) in fields {
                let field = known.and_then(|known| known.get(name));
                let any = &schema["additionalProperties"];
                at.push(Step::Key(name.clone()));
                match field {
                    Some(field) => check(field, value, at, wrong),
                    None if any.is_object() => check(any, value, at, wrong),
                    None => {
                        let names = known.into_iter().flatten().map(|(name, _)| &name[..]);
                        let names: Vec<&str> = names.collect();
                        let message = format!("is no field here; there are: {}", names.join(", "));
                        wrong.push((at.clone(), message));
                    }
                }
                at.pop();
            }
        }
        (Some("array"), Value::Array(items)) => {
            let (least, most) = (&schema["minItems"], &schema["maxItems"]);
            if !is_within(items.len() as i64, least, most) {
                add(
                    at,
                    format!("has {} items; {}", items.len(), range(least, most)),
                );
            }
            for (index, item) in items.iter().enumerate() {
                at.push(Step::Index(index));
                check(&schema["items"], item, at, wrong);
                at.pop();
            }
        }
        (Some("string"), Value::String(text)) => {
            let words = schema["enum"].as_array();
            let (least, most) = (&schema["minLength"], &schema["maxLength"]);
            let length = text.chars().count();
            if words.is_some_and(|words| !words.contains(value)) {
                let words = words.into_iter().flatten().filter_map(Value::as_str);
                let words: Vec<&str> = words.collect();
                add(
                    at,
                    format!("is '{text}'; write one of: {}", words.join(", ")),
                );
            } else if !is_within(length as i64, least, most) {
                let allowed = range(least, most);
                add(at, format!("has {length} characters; {allowed}"));
            }
        }
        (Some("integer"), Value::Number(number)) if number.is_i64() => {
            let (least, most) = (&schema["minimum"], &schema["maximum"]);
            if !is_within(number.as_i64().unwrap_or(0), least, most) {
                add(at, format!("is {number}; {}", range(least, most)));
            }
        }
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some(kind), _) => {
            let wanted = match kind {
                "object" => "a mapping of fields",
                "array" => "a list",
                "string" => "a text; write it in quotes",
                "integer" => "a whole number",
                "boolean" => "true or false",
                other => other,
            };
            add(at, format!("must be {wanted}"));
        }
    }
}

fn is_within(number: i64, least: &Value, most: &Value) -> bool {
    let number = number as f64;
    least.as_f64().is_none_or(|least| number >= least)
        && most.as_f64().is_none_or(|most| number <= most)
}

fn range(least: &Value, most: &Value) -> String {
    match (least.as_f64(), most.as_f64()) {
        (Some(least), Some(most)) => format!("allowed are {least} to {most}"),
        (Some(least), None) => format!("allowed are {least} and more"),
        (_, Some(most)) => format!("allowed are {most} and less"),
        (None, None) => String::new(),
    }
}
