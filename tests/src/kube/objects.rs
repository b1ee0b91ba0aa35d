//! How objects are made, replaced, patched and deleted.

use super::path::Target;
use super::{Cluster, reply, status};
use axum::response::Response;
use serde_json::{Value, json};

impl Cluster {
    pub(super) fn find(&self, target: &Target) -> Option<Value> {
        self.objects.get(&target.kind)?.get(&target.key()).cloned()
    }

    pub(super) fn create(&mut self, target: &Target, mut object: Value) -> Response {
        if let Some(prefix) = object["metadata"]["generateName"].as_str()
            && object["metadata"]["name"].is_null()
        {
            object["metadata"]["name"] = json!(format!("{prefix}{}", self.version));
        }
        if let Some(namespace) = &target.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let named = Target {
            name: object["metadata"]["name"].as_str().map(str::to_owned),
            ..target.clone()
        };
        if self.find(&named).is_some() {
            return status(409, "AlreadyExists", "it exists");
        }
        reply(201, &self.put(&target.kind, object))
    }

    pub(super) fn update(&mut self, target: &Target, object: Value) -> Response {
        let Some(known) = self.find(target) else {
            return status(404, "NotFound", "no such object");
        };
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != known["metadata"]["resourceVersion"] {
            return status(409, "Conflict", "the object has been modified");
        }
        let object = target.within(&known, object);
        self.settle(target, object)
    }

    pub(super) fn patch(&mut self, target: &Target, patch: &Value, applies: bool) -> Response {
        let known = match self.find(target) {
            Some(known) => known,
            // An apply that names another object than its path is refused.
            None if applies && patch["metadata"]["name"] != json!(target.name) => {
                return status(422, "Invalid", "metadata.name differs from the path");
            }
            None if applies => json!({}),
            None => return status(404, "NotFound", "no such object"),
        };
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != known["metadata"]["resourceVersion"] {
            return status(409, "Conflict", "the object has been modified");
        }
        let mut object = known.clone();
        merge(&mut object, patch);
        let object = target.within(&known, object);
        if object == known {
            return reply(200, &known);
        }
        self.settle(target, object)
    }

    /// The number of replicas, as a part of its own.
    pub(super) fn scale(&mut self, target: &Target, patch: &Value, writes: bool) -> Response {
        let Some(mut object) = self.find(target) else {
            return status(404, "NotFound", "no such object");
        };
        if writes {
            object["spec"]["replicas"] = patch["spec"]["replicas"].clone();
            object = self.put(&target.kind, object);
        }
        let scale = json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": object["metadata"],
            "spec": {"replicas": object["spec"]["replicas"]},
            "status": {"replicas": object["spec"]["replicas"]},
        });
        reply(200, &scale)
    }

    pub(super) fn delete(&mut self, target: &Target) -> Response {
        let Some(mut object) = self.find(target) else {
            return status(404, "NotFound", "no such object");
        };
        let meta = &mut object["metadata"];
        if meta["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            meta["deletionTimestamp"] = json!("2026-11-21T03:00:00Z");
            return reply(200, &self.put(&target.kind, object));
        }
        self.remove(&target.kind, &target.key());
        reply(200, &object)
    }

    /// Keeps an object, or lets go of one whose last finalizer went.
    fn settle(&mut self, target: &Target, object: Value) -> Response {
        let meta = &object["metadata"];
        let held = meta["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
        if !meta["deletionTimestamp"].is_null() && !held {
            self.remove(&target.kind, &target.key());
            return reply(200, &object);
        }
        reply(200, &self.put(&target.kind, object))
    }
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().map(|object| object.remove(name));
        } else {
            merge(&mut object[name], value);
        }
    }
}
