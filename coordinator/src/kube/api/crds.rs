//! The definitions of the kinds, as a cluster installs them. The same at every call.

use super::{Backup, BackupPolicy, ClusterBackupPolicy, Restore, VolumeProtection};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;

/// All definitions, by name.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        Backup::crd(),
        BackupPolicy::crd(),
        ClusterBackupPolicy::crd(),
        Restore::crd(),
        VolumeProtection::crd(),
    ];
    for crd in &mut crds {
        *crd = without_null(crd);
        let labels = crd.metadata.labels.get_or_insert_with(BTreeMap::new);
        labels.insert("app.kubernetes.io/name".to_owned(), "holdfast".to_owned());
    }
    crds
}

/// The same without fields that may be null. An API server then takes a null for a field that is left out; a rule
/// would take it for one that is given.
fn without_null(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                // A field of this name would be an object.
                object.retain(|key, value| key != "nullable" || !value.is_boolean());
                object.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(crd).expect("a definition is JSON");
    strip(&mut value);
    serde_json::from_value(value).expect("it is still a definition")
}

/// All definitions, as documents of one YAML file.
pub fn crds_yaml() -> String {
    crds().iter().map(document).collect()
}

/// One definition as a YAML document.
fn document(crd: &CustomResourceDefinition) -> String {
    // A definition is a tree of maps with names as keys, lists and scalars: YAML has them all.
    let text = serde_norway::to_string(crd).expect("a definition can be written as YAML");
    format!("---\n{text}")
}

#[cfg(test)]
mod tests;
