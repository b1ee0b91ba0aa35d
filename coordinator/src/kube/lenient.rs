//! An object of the API that may not be what its kind says: one with an unknown word is not to stop the list or
//! the watch of all others.

use crate::kube::api::schema::{check, steps, written};
use crate::policy::FieldError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::PartialObjectMeta;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::Value;
use std::borrow::Cow;

/// An object, or what is known of it.
#[derive(Clone, Debug)]
pub struct Lenient<K>(pub Result<K, Box<Misread>>);

/// An object that could not be read.
#[derive(Clone, Debug)]
pub struct Misread {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What was wrong first.
    pub error: String,
    spec: Value,
}

impl Misread {
    /// Every mistake in its spec that this schema finds.
    pub fn mistakes(&self, schema: &Value) -> Vec<FieldError> {
        let mut wrong = Vec::new();
        check(schema, &self.spec, &mut steps("spec"), &mut wrong);
        let mut mistakes: Vec<FieldError> = wrong
            .into_iter()
            .map(|(steps, message)| FieldError::new(written(&steps), message))
            .collect();
        if mistakes.is_empty() {
            mistakes.push(FieldError::new("spec", &self.error));
        }
        mistakes
    }
}

impl<'de, K: DeserializeOwned + Resource> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut raw = Value::deserialize(deserializer)?;
        let error = match K::deserialize(&raw) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        // Without metadata nobody could say which one it is.
        let known = PartialObjectMeta::<K>::deserialize(&raw).map_err(D::Error::custom)?;
        Ok(Self(Err(Box::new(Misread {
            metadata: known.metadata,
            error,
            spec: raw["spec"].take(),
        }))))
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(misread) => &misread.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(misread) => &mut misread.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::api::BackupPolicy;
    use crate::kube::api::schema::of_spec;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn what_is_wrong_with_a_policy_is_found_by_its_schema() {
        let policy = json!({
            "apiVersion": "holdfast.dev/v1alpha1", "kind": "BackupPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"schedule": {"cron": 5}, "selection": {"mode": "Sometimes", "kinds": ["Tape"]}, "priority": 5000},
        });
        let read: Lenient<BackupPolicy> = serde_json::from_value(policy).unwrap();
        assert_eq!(read.meta().name.as_deref(), Some("p"));
        let misread = read.0.unwrap_err();
        let mistakes = misread.mistakes(&of_spec::<BackupPolicy>());
        let mut paths: Vec<&str> = mistakes.iter().map(|mistake| &mistake.path[..]).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "spec.priority",
                "spec.schedule.cron",
                "spec.selection.kinds[0]",
                "spec.selection.mode"
            ]
        );
    }

    #[test]
    fn what_is_right_is_read_and_what_is_no_object_is_an_error() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": []}});
        let read: Lenient<Pod> = serde_json::from_value(pod).unwrap();
        assert_eq!(read.0.unwrap().metadata.name.as_deref(), Some("a"));
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": "none"}});
        let read: Lenient<Pod> = serde_json::from_value(pod).unwrap();
        assert!(!read.0.unwrap_err().error.is_empty());
        assert!(serde_json::from_value::<Lenient<Pod>>(json!({"metadata": 4})).is_err());
    }
}
