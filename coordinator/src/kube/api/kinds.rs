//! The two kinds of policies. They share their spec; of a BackupPolicy's schema the conditions on namespaces
//! are taken out, since it is about its own.

// Columns are alike, and no two are the same.
#![allow(clippy::duplicated_attributes)]

use super::common::{conditions, time};
use super::policy::PolicySpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Deref;

/// What a policy of a namespace says.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "BackupPolicy",
    plural = "backuppolicies",
    shortname = "hbp",
    category = "holdfast",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "Protects volumes of its namespace.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule.cron"),
    printcolumn(
        name = "Max Age",
        type_ = "string",
        json_path = ".spec.exposure.maxAge"
    ),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.volumes"),
    printcolumn(name = "Failing", type_ = "integer", json_path = ".status.failing"),
    printcolumn(
        name = "Last Run",
        type_ = "date",
        json_path = ".status.lastScheduleTime"
    ),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessfulTime"
    ),
    printcolumn(
        name = "Next Run",
        type_ = "string",
        json_path = ".status.nextScheduleTime",
        priority = 1
    ),
    printcolumn(
        name = "Priority",
        type_ = "integer",
        json_path = ".spec.priority",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(transparent)]
pub struct BackupPolicySpec(pub PolicySpec);

/// What a policy of the cluster says.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "holdfast.dev",
    version = "v1alpha1",
    kind = "ClusterBackupPolicy",
    plural = "clusterbackuppolicies",
    shortname = "hcbp",
    category = "holdfast",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "Protects volumes of all namespaces, or of those that it selects.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule.cron"),
    printcolumn(
        name = "Max Age",
        type_ = "string",
        json_path = ".spec.exposure.maxAge"
    ),
    printcolumn(name = "Volumes", type_ = "integer", json_path = ".status.volumes"),
    printcolumn(name = "Failing", type_ = "integer", json_path = ".status.failing"),
    printcolumn(
        name = "Last Run",
        type_ = "date",
        json_path = ".status.lastScheduleTime"
    ),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.lastSuccessfulTime"
    ),
    printcolumn(
        name = "Next Run",
        type_ = "string",
        json_path = ".status.nextScheduleTime",
        priority = 1
    ),
    printcolumn(
        name = "Priority",
        type_ = "integer",
        json_path = ".spec.priority",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(transparent)]
pub struct ClusterBackupPolicySpec(pub PolicySpec);

impl Deref for BackupPolicySpec {
    type Target = PolicySpec;
    fn deref(&self) -> &PolicySpec {
        &self.0
    }
}

impl Deref for ClusterBackupPolicySpec {
    type Target = PolicySpec;
    fn deref(&self) -> &PolicySpec {
        &self.0
    }
}

impl JsonSchema for BackupPolicySpec {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "BackupPolicySpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = PolicySpec::json_schema(generator);
        let selection = schema.pointer_mut("/properties/selection/properties");
        if let Some(properties) = selection.and_then(|found| found.as_object_mut()) {
            properties.remove("namespaces");
            properties.remove("namespaceSelector");
        }
        remove_url(&mut schema);
        schema
    }
}

/// Takes the addresses out that a hook of a namespace's policy must not name.
fn remove_url(schema: &mut Schema) {
    let hook = "/properties/hooks/items/properties";
    for action in ["pre", "post"] {
        let http = schema.pointer_mut(&format!("{hook}/{action}/properties/http"));
        let Some(http) = http.and_then(|found| found.as_object_mut()) else {
            continue;
        };
        http.remove("x-kubernetes-validations");
        http.insert("required".to_owned(), serde_json::json!(["port"]));
        if let Some(properties) = http
            .get_mut("properties")
            .and_then(|found| found.as_object_mut())
        {
            properties.remove("url");
        }
    }
}

impl JsonSchema for ClusterBackupPolicySpec {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ClusterBackupPolicySpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PolicySpec::json_schema(generator)
    }
}

/// How a policy is doing. Written by Holdfast.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// In one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<PolicyPhase>,
    /// `Valid`: the spec is understood; the message names the fields that are not. `Ready`: the volumes of the
    /// policy are protected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Volumes that it protects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<i64>,
    /// Those of them whose last run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<i64>,
    /// Volumes that match, but that another policy protects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<i64>,
    /// When a run of it was last due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub last_schedule_time: Option<Time>,
    /// When the next one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub next_schedule_time: Option<Time>,
    /// When the newest snapshot of its volumes was made, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub last_successful_time: Option<Time>,
}

/// A policy's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyPhase {
    /// Its runs are made.
    Active,
    /// Its runs are not made.
    Suspended,
    /// It is not understood, and protects nothing.
    Invalid,
}
